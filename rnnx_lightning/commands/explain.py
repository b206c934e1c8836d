"""`rnnx explain`: the heatmaps of one sequence by every method, from a checkpoint alone."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jsonargparse import ArgumentParser
from rich.console import Console
from torchmetrics import Metric

from rnnx_lightning.data.images import read_picture, scaled
from rnnx_lightning.explain import Attributor
from rnnx_lightning.explain.published import published_methods
from rnnx_lightning.explained import Explained, ScoredMethods, default_scores
from rnnx_lightning.files import write_json, written_whole
from rnnx_lightning.metrics import ConservationError
from rnnx_lightning.metrics.functional import sample_relevance
from rnnx_lightning.pretrained import load_trained
from rnnx_lightning.rendering.heatmaps import draw_heatmaps


def explain(
    ckpt_path: str | None,
    image: list[str] | None = None,
    index: list[int] | None = None,
    out: str = "explanation",
    data_dir: str | None = None,
    methods: dict[str, Attributor] | None = None,
    scores: dict[str, Metric] | None = None,
    pretrained: str | None = None,
) -> None:
    """Explain sequences: writes OUT.png (heatmaps), OUT.json (numbers) and OUT.npz (relevance).

    Args:
        ckpt_path: a checkpoint that `rnnx fit` wrote.
        image: grey pictures of 28 x 28 pixels, light on dark, that stand side by side in one sequence; the
            predicted class is explained.
        index: numbers of test sequences (default: 0); the true class is explained.
        out: where to write, without suffix.
        data_dir: folder of the data set; default as for `rnnx fit`.
        methods: by name; default: the four of the study.
        scores: by name; default: cosine similarity, and for relevance propagation the conservation error.
        pretrained: instead of a checkpoint, a network that comes with rnnx, as "rlstm".
    """
    if image and index:
        raise ValueError("give either --image or --index, not both")
    picture, numbers, arrays = (Path(f"{out}{suffix}") for suffix in (".png", ".json", ".npz"))
    given = {Path(path).resolve() for path in (ckpt_path, *(image or [])) if path}
    if over := [path for path in (picture, numbers, arrays) if path.resolve() in given]:
        raise ValueError(f"--out {out} would write over {over[0]}, which is given: choose another name")
    if scores is None:
        scores = {**default_scores(), "conservation_error": ConservationError()}
    scored = ScoredMethods(methods or published_methods(), scores)
    model, data = load_trained(ckpt_path, pretrained, data_dir)
    data.prepare_data()
    data.setup()
    majority = None
    if image:
        sequences = scaled(torch.cat([read_picture(path) for path in image], dim=1))[None, None]
        label = model(sequences).argmax(dim=1)
    else:
        sequences, label, majority = data.sequences("test", index or [0])
    with torch.no_grad():
        logits = model(sequences)
    explained = scored.explain(model.network, sequences, label, majority, logits.argmax(dim=1))
    figure = draw_heatmaps(explained, data.class_names)
    with written_whole(picture) as place:
        figure.savefig(place, format="png")
    with written_whole(arrays) as place:
        _write_arrays(place, explained)
    samples = len(image) if image else data.samples
    content = []
    for row, sequence in enumerate([image] if image else index or [0]):
        by_method: dict[str, Any] = {}
        for name, part in explained.relevance.items():
            values = {key: by_name[name] for key, by_name in explained.scores.items() if name in by_name}
            by_method[name] = {
                "relevance_per_sample": sample_relevance(part[row : row + 1], samples)[0].tolist(),
                **{key: float(value[row]) for key, value in values.items()},
            }
        content.append(
            {
                "sequence": sequence,
                "explained_class": data.class_names[int(label[row])],
                "predicted_class": data.class_names[int(explained.prediction[row])],
                "majority": None if majority is None else majority[row].tolist(),
                "logits": dict(zip(data.class_names, logits[row].tolist(), strict=True)),
                "methods": by_method,
            }
        )
    means = {
        key: {name: float(metric.compute()) for name, metric in metrics.items() if metric.update_called}
        for key, metrics in scored.metrics.items()
    }
    write_json(numbers, {"checkpoint": ckpt_path or pretrained, "scores": means, "sequences": content})
    Console().print(f"Heatmaps: {picture}\nNumbers: {numbers}\nRelevance: {arrays}", soft_wrap=True)


def _write_arrays(path: Path, explained: Explained) -> None:
    """The tensors of `Explained`, by their names there; relevance as `relevance/<method>`."""
    parts = {
        "image": explained.image,
        "label": explained.label,
        "prediction": explained.prediction,
        **({} if explained.majority is None else {"majority": explained.majority}),
        **{f"relevance/{name}": part for name, part in explained.relevance.items()},
    }
    with path.open("wb") as stream:
        arrays: dict[str, Any] = {name: part.numpy() for name, part in parts.items()}
        np.savez_compressed(stream, **arrays)


def main(arguments: list[str]) -> None:
    """Parse the arguments and explain."""
    parser = ArgumentParser(
        prog="rnnx explain",
        allow_abbrev=False,
        description="The heatmaps of sequences by every method, as a picture, as numbers and as arrays.",
    )
    parser.usage = (
        "rnnx explain (--ckpt_path FILE | --pretrained NAME) [--index N ... | --image A.png B.png C.png] "
        "[--out NAME] [--methods.NAME CLASS ...] [--scores.NAME CLASS ...]"
    )
    parser.add_argument("--ckpt_path", type=str, help="a checkpoint that `rnnx fit` wrote")
    parser.add_argument("--pretrained", type=str, help="a network that comes with rnnx: rlstm, evidence, ...")
    parser.add_argument("--image", type=str, nargs="+", help="28 x 28 grey pictures, side by side in one sequence")
    parser.add_argument("--index", type=int, nargs="+", help="numbers of test sequences (default: 0)")
    parser.add_argument("--out", type=str, default="explanation", help="where to write, without suffix")
    parser.add_argument("--data_dir", type=str, help="folder of the data set; default as for `rnnx fit`")
    parser.add_argument("--methods", type=dict[str, Attributor], help="by name; default: the four of the study")
    parser.add_argument("--scores", type=dict[str, Metric], help="by name; default: cosine, conservation_error")
    chosen = parser.instantiate_classes(parser.parse_args(arguments))
    explain(**chosen.as_dict())
