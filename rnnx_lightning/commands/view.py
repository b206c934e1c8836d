"""`rnnx view`: a page to look at explanations, in any browser, without a server."""

from pathlib import Path

from rich.console import Console

from rnnx_lightning.commands.signature import run_function
from rnnx_lightning.explain import Attributor
from rnnx_lightning.explain.published import published_methods
from rnnx_lightning.files import with_suffixes
from rnnx_lightning.pretrained import load_trained
from rnnx_lightning.view import Named, recorded, write_page

SAME = ("dataset", "samples", "margin")  # what networks beside each other must have seen


def view(
    ckpt_path: list[str] | None = None,
    pretrained: list[str] | None = None,
    index: list[int] | None = None,
    sequences: int = 20,
    out: str = "explanations",
    methods: dict[str, Attributor] | None = None,
    data_dir: str | None = None,
) -> Path:
    """Write OUT.html, a page that shows the explanations of test sequences by one network, or by several.

    Args:
        ckpt_path: Checkpoints that `rnnx fit` wrote.
        pretrained: Networks that come with rnnx: rlstm, evidence, ...
        index: Numbers of test sequences; without it the first ones.
        sequences: Of these, so many.
        out: Name of the file, with or without its suffix.
        methods: Explanation methods by name, as --methods.A LRP; without it the four of the study.
        data_dir: Folder of the data set; without it as for `rnnx fit`.

    Returns:
        The page's path.

    Raises:
        ValueError: no network is given, the networks read different sequences, or the page would be written over
            a checkpoint; see `load_trained` and `MajoritySequences.sequences`.
    """
    asked: list[tuple[str | None, str | None]] = [(path, None) for path in ckpt_path or []] + [
        (None, name) for name in pretrained or []
    ]
    found = [load_trained(path, name, data_dir) for path, name in asked or [(None, None)]]
    (page,) = with_suffixes(out, ".html")
    if any(page.resolve() == Path(path).resolve() for path in ckpt_path or []):
        raise ValueError(f"--out {out} would write over a checkpoint that is given: choose another name")
    if sequences < 1:
        raise ValueError(f"sequences={sequences} must be at least 1")
    data = found[0][1]
    for key in SAME:
        if len(different := {str(getattr(other, key)) for _, other in found}) > 1:
            raise ValueError(
                f"the networks have seen sequences of different {key}: {', '.join(sorted(different))}"
            )
    data.prepare_test()
    count = len(data.plan("test").label)
    rows = index or list(range(min(sequences, count)))
    image, label, majority = data.sequences("test", rows)
    names = [name or _short(str(path)) for path, name in asked]
    networks = [Named(name, model.network) for name, (model, _) in zip(names, found, strict=True)]
    record = recorded(networks, methods or published_methods(), image, label, majority, data.class_names, rows)
    return write_page(record, page)


def _short(path: str) -> str:
    """The run that a checkpoint belongs to, and its name: logs/rlstm/version_0/checkpoints/best.ckpt has two."""
    parts = Path(path).with_suffix("").parts
    return "/".join([part for part in parts if part not in ("logs", "checkpoints", "/")][-3:])


def main(arguments: list[str]) -> None:
    """Parse the arguments and write the page."""
    usage = "rnnx view (--ckpt_path FILE ... | --pretrained NAME ...) [--index N ... | --sequences N] [options]"
    page = run_function(view, arguments, "rnnx view", usage)
    Console().print(f"Page: {page} ({page.stat().st_size / 1e6:.1f} MB); open it in a browser", soft_wrap=True)
