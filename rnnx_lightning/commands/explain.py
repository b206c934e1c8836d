"""`rnnx explain`: heatmaps, scores and relevance of sequences, for a trained network."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torchmetrics import Metric

from rnnx_lightning.commands.signature import run_function
from rnnx_lightning.data.images import read_picture, scaled
from rnnx_lightning.explain import Attributor
from rnnx_lightning.explain.published import published_methods
from rnnx_lightning.explained import Explained, ScoredMethods, default_scores
from rnnx_lightning.files import with_suffixes, write_json, written_whole
from rnnx_lightning.metrics import ConservationError
from rnnx_lightning.metrics.functional import sample_relevance
from rnnx_lightning.pretrained import load_trained
from rnnx_lightning.rendering.heatmaps import draw_heatmaps


def explain(
    ckpt_path: str | None = None,
    pretrained: str | None = None,
    index: list[int] | None = None,
    image: list[str] | None = None,
    out: str = "explanation",
    methods: dict[str, Attributor] | None = None,
    scores: dict[str, Metric] | None = None,
    data_dir: str | None = None,
) -> None:
    """Explain sequences, and write OUT.png (heatmaps), OUT.json (numbers) and OUT.npz (relevance).

    Args:
        ckpt_path: A checkpoint that `rnnx fit` wrote.
        pretrained: Instead of a checkpoint, a trained network that comes with rnnx: rlstm, evidence, ...
        index: Numbers of test sequences; their true class is explained. If left out: 0.
        image: Grey pictures of 28 x 28 pixels, light on dark, which form one sequence; its predicted class is
            explained.
        out: Name of the files, with or without a suffix.
        methods: Explanation methods by name, for example --methods.A LRP. If left out: the four of the study.
        scores: Scores by name, for example --scores.mass RelevanceMassAccuracy. If left out: the cosine
            similarity, and for methods that propagate relevance the conservation error.
        data_dir: Folder with the data sets. If left out: RNNX_DATA_DIR, else ./data.

    Raises:
        ValueError: `index` and `image` are both given, or an input file would be overwritten; see `load_trained`
            and `MajoritySequences.sequences`.
        DataError: a picture cannot be used, or data is missing.
        CheckpointError: the checkpoint cannot be used.
    """
    if image and index:
        raise ValueError("give either --image or --index, not both")
    picture, numbers, arrays = with_suffixes(out, ".png", ".json", ".npz")
    given = {Path(path).resolve() for path in (ckpt_path, *(image or [])) if path}
    if over := [path for path in (picture, numbers, arrays) if path.resolve() in given]:
        raise ValueError(f"--out {out} would overwrite {over[0]}, which is an input: choose another name")
    if scores is None:
        scores = {**default_scores(), "conservation_error": ConservationError()}
    scored = ScoredMethods(methods or published_methods(), scores)
    model, data = load_trained(ckpt_path, pretrained, data_dir)
    data.prepare_test()
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
    names: list[Any] = [image] if image else list(index or [0])
    content = [
        _content(
            explained, row, sequence, logits[row].tolist(), data.class_names, len(image or ()) or data.samples
        )
        for row, sequence in enumerate(names)
    ]
    means = {
        key: {name: float(metric.compute()) for name, metric in metrics.items() if metric.update_called}
        for key, metrics in scored.metrics.items()
    }
    write_json(numbers, {"checkpoint": ckpt_path or pretrained, "scores": means, "sequences": content})
    Console().print(f"Heatmaps: {picture}\nNumbers: {numbers}\nRelevance: {arrays}", soft_wrap=True)


def _content(
    explained: Explained, row: int, sequence: Any, logits: list[float], class_names: Sequence[str], samples: int
) -> dict[str, Any]:
    """The numbers of one sequence, as data for JSON.

    Args:
        explained: all sequences.
        row: which of them.
        sequence: its number in the test set, or the paths of its pictures.
        logits: by class.
        class_names: by label.
        samples: number of samples in the sequence.
    """
    majority = explained.majority
    return {
        "sequence": sequence,
        "explained_class": class_names[int(explained.label[row])],
        "predicted_class": class_names[int(explained.prediction[row])],
        "majority": None if majority is None else majority[row].tolist(),
        "logits": dict(zip(class_names, logits, strict=True)),
        "methods": {
            name: {
                "relevance_per_sample": sample_relevance(part[row : row + 1], samples)[0].tolist(),
                **{
                    score: float(by_method[name][row])
                    for score, by_method in explained.scores.items()
                    if name in by_method
                },
            }
            for name, part in explained.relevance.items()
        },
    }


def _write_arrays(path: Path, explained: Explained) -> None:
    """The tensors of `Explained` under their own names; relevance as `relevance/<method>`."""
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
    usage = "rnnx explain (--ckpt_path FILE | --pretrained NAME) [--index N ... | --image FILE ...] [options]"
    run_function(explain, arguments, "rnnx explain", usage)
