"""`rnnx view`: an interactive HTML page of explanations, without a server."""

from pathlib import Path

from rich.console import Console

from rnnx_lightning.commands.signature import run_function
from rnnx_lightning.explain import Attributor
from rnnx_lightning.explain.published import published_methods
from rnnx_lightning.files import with_suffixes
from rnnx_lightning.pretrained import load_trained
from rnnx_lightning.view import Named, recorded, write_page

SAME = ("dataset", "samples", "majority_size", "margin")  # of the data, for networks that are compared


def view(
    ckpt_path: list[str] | None = None,
    pretrained: list[str] | None = None,
    index: list[int] | None = None,
    sequences: int = 20,
    out: str = "explanations",
    methods: dict[str, Attributor] | None = None,
    data_dir: str | None = None,
) -> Path:
    """Write OUT.html, an interactive page with explanations of test sequences, for one network or several.

    Args:
        ckpt_path: Checkpoints that `rnnx fit` wrote.
        pretrained: Trained networks that come with rnnx: rlstm, evidence, ...
        index: Numbers of test sequences. If left out: the first ones.
        sequences: How many, if --index is left out.
        out: Name of the file, with or without its suffix.
        methods: Explanation methods by name, for example --methods.A LRP. If left out: the four of the study.
        data_dir: Folder with the data sets. If left out: RNNX_DATA_DIR, else ./data.

    Returns:
        The page's path.

    Raises:
        ValueError: no network is given, the networks were trained on different data, or the page would overwrite
            a checkpoint; see `load_trained` and `MajoritySequences.sequences`.
    """
    asked: list[tuple[str | None, str | None]] = [(path, None) for path in ckpt_path or []] + [
        (None, name) for name in pretrained or []
    ]
    found = [load_trained(path, name, data_dir) for path, name in asked or [(None, None)]]
    (page,) = with_suffixes(out, ".html")
    if any(page.resolve() == Path(path).resolve() for path in ckpt_path or []):
        raise ValueError(f"--out {out} would overwrite a checkpoint that is an input: choose another name")
    if sequences < 1:
        raise ValueError(f"sequences={sequences} must be at least 1")
    data = found[0][1]
    for key in SAME:
        if len(different := {str(getattr(other, key)) for _, other in found}) > 1:
            raise ValueError(f"the networks were trained with different {key}: {', '.join(sorted(different))}")
    data.prepare_test()
    count = len(data.plan("test").label)
    rows = index or list(range(min(sequences, count)))
    image, label, majority = data.sequences("test", rows)
    names = [name or _short(str(path)) for path, name in asked]
    networks = [Named(name, model.network) for name, (model, _) in zip(names, found, strict=True)]
    record = recorded(networks, methods or published_methods(), image, label, majority, data.class_names, rows)
    return write_page(record, page)


def _short(path: str) -> str:
    """A checkpoint's name on the page: "rlstm/version_0/best" for logs/rlstm/version_0/checkpoints/best.ckpt."""
    parts = Path(path).with_suffix("").parts
    return "/".join([part for part in parts if part not in ("logs", "checkpoints", "/")][-3:])


def main(arguments: list[str]) -> None:
    """Parse the arguments and write the page."""
    usage = "rnnx view (--ckpt_path FILE ... | --pretrained NAME ...) [--index N ... | --sequences N] [options]"
    page = run_function(view, arguments, "rnnx view", usage)
    Console().print(f"Page: {page} ({page.stat().st_size / 1e6:.1f} MB); open it in a browser", soft_wrap=True)
