"""`rnnx explain`: the heatmaps of one sequence by every method, from a checkpoint alone."""

from pathlib import Path
from typing import Any

import torch
from jsonargparse import ArgumentParser
from rich.console import Console

from rnnx_lightning.callbacks.explaining import explain_by_all
from rnnx_lightning.callbacks.results import write_json
from rnnx_lightning.data.images import read_picture, scaled
from rnnx_lightning.explain import LRP, Attributor
from rnnx_lightning.explain.published import published_methods
from rnnx_lightning.metrics.functional import conservation_error, sample_relevance
from rnnx_lightning.pretrained import load_trained
from rnnx_lightning.rendering.heatmaps import draw_heatmaps


def explain(
    ckpt_path: str | None,
    image: list[str] | None = None,
    index: list[int] | None = None,
    out: str = "explanation",
    data_dir: str | None = None,
    methods: dict[str, Attributor] | None = None,
    pretrained: str | None = None,
) -> None:
    """Explain sequences: writes OUT.png (heatmaps) and OUT.json (numbers).

    Args:
        ckpt_path: a checkpoint that `rnnx fit` wrote.
        image: grey pictures of 28 x 28 pixels, light on dark, that stand side by side in one sequence; the
            predicted class is explained.
        index: numbers of test sequences (default: 0); the true class is explained.
        out: where to write, without suffix.
        data_dir: folder of the data set; default as for `rnnx fit`.
        methods: by name; default: the four of the study.
        pretrained: instead of a checkpoint, a network that comes with rnnx, as "rlstm".
    """
    if image and index:
        raise ValueError("give either --image or --index, not both")
    picture, numbers = Path(f"{out}.png"), Path(f"{out}.json")
    given = {Path(path).resolve() for path in (ckpt_path, *(image or [])) if path}
    if over := [path for path in (picture, numbers) if path.resolve() in given]:
        raise ValueError(f"--out {out} would write over {over[0]}, which is given: choose another name")
    model, data = load_trained(ckpt_path, pretrained, data_dir)
    data.prepare_data()
    data.setup()
    if image:
        sequences = scaled(torch.cat([read_picture(path) for path in image], dim=1))[None, None]
        majority = torch.zeros(1, len(image), dtype=torch.bool)
        label = model(sequences).argmax(dim=1)
    else:
        sequences, label, majority = data.sequences("test", index or [0])
    with torch.no_grad():
        logits = model(sequences)
    methods = methods or published_methods()
    relevance, scores = explain_by_all(methods, model.network, sequences, label, majority)
    figure = draw_heatmaps(
        sequences,
        relevance,
        label,
        logits.argmax(dim=1),
        majority,
        data.class_names,
        None if image else scores,
    )
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture)
    explained = logits.gather(1, label[:, None]).squeeze(1)
    content = []
    for row in range(len(sequences)):
        by_method: dict[str, Any] = {}
        for name, part in relevance.items():
            by_method[name] = {
                "relevance_per_sample": sample_relevance(part, majority.shape[1])[row].tolist(),
                **({} if image else {"cosine": float(scores[name][row])}),
            }
            if isinstance(methods[name], LRP):
                error = conservation_error(part, explained.clamp(min=0))
                by_method[name]["conservation_error"] = float(error[row])
        content.append(
            {
                "sequence": image or (index or [0])[row],
                "explained_class": data.class_names[int(label[row])],
                "predicted_class": data.class_names[int(logits[row].argmax())],
                "majority": None if image else majority[row].tolist(),
                "logits": dict(zip(data.class_names, logits[row].tolist(), strict=True)),
                "methods": by_method,
            }
        )
    write_json(numbers, {"checkpoint": ckpt_path or pretrained, "sequences": content})
    Console().print(f"Heatmaps: {picture}\nNumbers: {numbers}", soft_wrap=True)


def main(arguments: list[str]) -> None:
    """Parse the arguments and explain."""
    parser = ArgumentParser(
        prog="rnnx explain",
        allow_abbrev=False,
        description="The heatmaps of sequences by every method, as a picture and as numbers.",
    )
    parser.usage = (
        "rnnx explain (--ckpt_path FILE | --pretrained NAME) [--index N ... | --image A.png B.png C.png] "
        "[--out NAME] [--methods.NAME CLASS ...]"
    )
    parser.add_argument("--ckpt_path", type=str, help="a checkpoint that `rnnx fit` wrote")
    parser.add_argument("--pretrained", type=str, help="a network that comes with rnnx: rlstm, evidence, ...")
    parser.add_argument("--image", type=str, nargs="+", help="28 x 28 grey pictures, side by side in one sequence")
    parser.add_argument("--index", type=int, nargs="+", help="numbers of test sequences (default: 0)")
    parser.add_argument("--out", type=str, default="explanation", help="where to write, without suffix")
    parser.add_argument("--data_dir", type=str, help="folder of the data set; default as for `rnnx fit`")
    parser.add_argument("--methods", type=dict[str, Attributor], help="by name; default: the four of the study")
    chosen = parser.instantiate_classes(parser.parse_args(arguments))
    explain(
        chosen.ckpt_path,
        chosen.image,
        chosen.index,
        chosen.out,
        chosen.data_dir,
        chosen.methods,
        chosen.pretrained,
    )
