"""`rnnx view`: a page to look at explanations, in any browser, without a server."""

from pathlib import Path

from jsonargparse import ArgumentParser
from rich.console import Console

from rnnx_lightning.explain import Attributor
from rnnx_lightning.explain.published import published_methods
from rnnx_lightning.pretrained import load_trained
from rnnx_lightning.view import Named, recorded, write_page

SAME = ("dataset", "samples", "margin")  # what networks beside each other must have seen


def view(
    ckpt_path: list[str] | None = None,
    pretrained: list[str] | None = None,
    index: list[int] | None = None,
    sequences: int = 20,
    out: str = "explanations.html",
    data_dir: str | None = None,
    methods: dict[str, Attributor] | None = None,
) -> Path:
    """Write a page with the explanations of test sequences by one network, or by several.

    Args:
        ckpt_path: checkpoints that `rnnx fit` wrote.
        pretrained: names of networks that come with rnnx.
        index: numbers of test sequences; default: the first ones.
        sequences: how many of them.
        out: where to write.
        data_dir: folder of the data set; default as for `rnnx fit`.
        methods: by name; default: the four of the study.

    Returns:
        The page's path.

    Raises:
        ValueError: no network is given, networks have not learnt the same, or the page would replace a checkpoint.
    """
    asked: list[tuple[str | None, str | None]] = [(path, None) for path in ckpt_path or []] + [
        (None, name) for name in pretrained or []
    ]
    found = [load_trained(path, name, data_dir) for path, name in asked or [(None, None)]]
    if any(Path(out).resolve() == Path(path).resolve() for path in ckpt_path or []):
        raise ValueError(f"--out {out} would write over a checkpoint that is given: choose another name")
    if sequences < 1:
        raise ValueError(f"sequences={sequences} must be at least 1")
    data = found[0][1]
    for key in SAME:
        if len(different := {str(getattr(other, key)) for _, other in found}) > 1:
            raise ValueError(
                f"the networks have seen sequences of different {key}: {', '.join(sorted(different))}"
            )
    data.prepare_data()
    data.setup()
    count = len(data.plan("test").label)
    rows = index or list(range(min(sequences, count)))
    image, label, majority = data.sequences("test", rows)
    names = [name or _short(str(path)) for path, name in asked]
    networks = [Named(name, model.network) for name, (model, _) in zip(names, found, strict=True)]
    record = recorded(networks, methods or published_methods(), image, label, majority, data.class_names, rows)
    return write_page(record, out)


def _short(path: str) -> str:
    """The run that a checkpoint belongs to, and its name: logs/rlstm/version_0/checkpoints/best.ckpt has two."""
    parts = Path(path).with_suffix("").parts
    return "/".join([part for part in parts if part not in ("logs", "checkpoints", "/")][-3:])


def main(arguments: list[str]) -> None:
    """Parse the arguments and write the page."""
    parser = ArgumentParser(
        prog="rnnx view",
        allow_abbrev=False,
        description="One HTML page with the explanations of test sequences, to point at.",
    )
    parser.usage = (
        "rnnx view (--ckpt_path FILE ... | --pretrained NAME ...) [--sequences N | --index N ...] "
        "[--out PAGE.html] [--methods.NAME CLASS ...]"
    )
    parser.add_argument("--ckpt_path", type=str, nargs="+", help="checkpoints that `rnnx fit` wrote")
    parser.add_argument(
        "--pretrained", type=str, nargs="+", help="networks that come with rnnx: rlstm, evidence, ..."
    )
    parser.add_argument("--index", type=int, nargs="+", help="numbers of test sequences")
    parser.add_argument("--sequences", type=int, default=20, help="else the first so many (default: 20)")
    parser.add_argument("--out", type=str, default="explanations.html", help="where to write")
    parser.add_argument("--data_dir", type=str, help="folder of the data set; default as for `rnnx fit`")
    parser.add_argument("--methods", type=dict[str, Attributor], help="by name; default: the four of the study")
    chosen = parser.instantiate_classes(parser.parse_args(arguments))
    page = view(**chosen.as_dict())
    Console().print(f"Page: {page} ({page.stat().st_size / 1e6:.1f} MB); open it in a browser", soft_wrap=True)
