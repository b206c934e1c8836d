"""Trains variants of a network and writes their scores to a table: one row per run.

    python docs/study/evidence.py NAME [option=value ...]
    python docs/study/evidence.py CHECKPOINT.pt [split=test] [count=2000]

NAME is a network of the package or of variants.py. Options are those of RECIPE, DATA and MEASURE below, and those
of the network. Rows go to $EVIDENCE_OUT (default: docs/study/evidence.csv), checkpoints to $EVIDENCE_CHECKPOINTS
(default: logs/evidence). A given checkpoint is only measured. Explanations are measured, never trained on.
Variants are compared on validation sequences; `split=test` is for the final networks. Columns "X without fake" are
the scores if samples of other classes had no relevance; what they lack to 1 comes from unequal relevance of the
majority samples. "held": gates are constants, as they always are in "GB", and not in "GB free".
"""

import copy
import csv
import os
import subprocess
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
import variants
import yaml
from tasks import FirstPair
from torch import Tensor, nn

from rnnx_lightning import architectures
from rnnx_lightning.classifier import rejection_cross_entropy
from rnnx_lightning.data import MajoritySequences
from rnnx_lightning.explain import LRP, AlphaBeta, Composite, DeepTaylor, GuidedBackprop, Sensitivity, ZBox
from rnnx_lightning.metrics.functional import majority_cosine_similarity, sample_relevance

METHODS = {
    "SA": Sensitivity(),
    "GB free": GuidedBackprop(),
    "DTD": DeepTaylor(),
    "LRP": LRP(Composite(AlphaBeta(1.5, 0.5), pixels=ZBox(-1, 1))),
}
RECIPE = {
    "dataset": "mnist",
    "seed": 0,
    "epochs": 8,
    "rate": 2e-3,
    "batch": 100,
    "decay": 0.0,
    "noise": 0.0,
    "cost": 0.0,
    "loss": "ce",
}
DATA = {"samples": 3, "majority_size": 2, "columns": 7, "margin": 0, "task": "majority"}
MEASURE = {"split": "validation", "count": 2000}


class Constant(nn.Module):
    """A gate that no gradient goes through."""

    def __init__(self, gate: nn.Module) -> None:
        super().__init__()
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        """The gate's value, as a constant."""
        return self.gate(x).detach()


def with_constant_gates(network: nn.Module) -> nn.Module:
    """A copy whose gates take no gradient, as in the published guided backprop."""
    network = copy.deepcopy(network)
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Sigmoid | nn.Hardsigmoid):
                setattr(module, name, Constant(child))
    return network


def binary(logits: Tensor, label: Tensor) -> Tensor:
    """Each class on its own: is it the majority? Yes above a threshold of 6, no below."""
    wanted = F.one_hot(label, logits.shape[1]).to(logits.dtype)
    return F.binary_cross_entropy_with_logits(logits - 6, wanted, reduction="none").sum(1).mean()


LOSSES = {"ce": rejection_cross_entropy, "bce": binary}


def build(name: str, options: dict) -> nn.Module:
    """A network of the package or a variant of this study."""
    cls = getattr(variants, name, None) or getattr(architectures, name)
    return cls(**options)


def train(network: nn.Module, data: MajoritySequences, recipe: dict) -> float:
    """Adam, one cycle; returns the seconds of an epoch."""
    loader = data.train_dataloader()
    learnt = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(learnt, lr=recipe["rate"], fused=True)
    if recipe["decay"]:
        optimizer = torch.optim.AdamW(learnt, lr=recipe["rate"], weight_decay=recipe["decay"], fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=recipe["rate"], total_steps=recipe["epochs"] * len(loader)
    )
    start = time.perf_counter()
    network.train()
    for epoch in range(recipe["epochs"]):
        loader.sampler.set_epoch(epoch)
        for planned in loader:
            batch = data.gather(planned)
            shown = batch.distinct
            if recipe["noise"]:
                shown = shown + recipe["noise"] * torch.randn_like(shown)
            optimizer.zero_grad()
            logits = network(shown, batch.order)
            loss = LOSSES[recipe["loss"]](logits, batch.label) + recipe["cost"] * logits.abs().sum(1).mean()
            loss.backward()
            optimizer.step()
            schedule.step()
    return (time.perf_counter() - start) / recipe["epochs"]


def measure(network: nn.Module, data: MajoritySequences, split: str, count: int) -> dict[str, float]:
    """Accuracy over the whole split, and cosine similarities over its first `count` sequences."""
    network.eval()
    plain, held = network, with_constant_gates(network)
    right = total = 0
    sums: dict[str, list[Tensor]] = {}
    loader = data.val_dataloader() if split == "validation" else data.test_dataloader()
    for planned in loader:
        batch = data.gather(planned)
        with torch.no_grad():
            right += int((network(batch.distinct, batch.order).argmax(1) == batch.label).sum())
        if total < count:
            image, label, majority = batch.image, batch.label, batch.majority
            relevances = {key: method(plain, image, label) for key, method in METHODS.items()}
            if split == "validation":
                relevances["SA held"] = METHODS["SA"](held, image, label)
            relevances["GB"] = METHODS["GB free"](held, image, label)
            for key, relevance in relevances.items():
                sums.setdefault(key, []).append(majority_cosine_similarity(relevance, majority))
                # What keeps it below 1: relevance of the fake sample, or unequal majority samples?
                v = sample_relevance(relevance, majority.shape[1]) * majority
                ideal = majority_cosine_similarity(v[:, None, None], majority)
                sums.setdefault(key + " without fake", []).append(ideal)
        total += len(batch.label)
    return {"accuracy": right / total} | {key: float(torch.cat(parts).mean()) for key, parts in sums.items()}


def data_of(recipe: dict, shape: dict) -> MajoritySequences:
    """The sequences, loaded."""
    shape = dict(shape)
    task = {"majority": MajoritySequences, "first_pair": FirstPair}[shape.pop("task")]
    data = task(
        recipe["dataset"], seed=recipe["seed"], batch_size=recipe["batch"], evaluation_batch_size=100, **shape
    )
    data.prepare_data()
    data.setup()
    return data


def write(out: Path, row: dict) -> None:
    """Append a row; rows from before an option was there have its default."""
    rows = []
    if out.exists():
        with out.open(newline="") as file:
            rows = [RECIPE | DATA | before for before in csv.DictReader(file)]
    with out.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(key for one in [*rows, row] for key in one)))
        writer.writeheader()
        writer.writerows([*rows, row])
    print(row, flush=True)


def main() -> None:
    """Train one variant, or measure a checkpoint once more, and append a row."""
    name, *pairs = sys.argv[1:]
    out = Path(os.environ.get("EVIDENCE_OUT", "docs/study/evidence.csv"))
    values = {key: yaml.safe_load(value) for key, value in (pair.split("=") for pair in pairs)}
    measured = {key: values.pop(key, default) for key, default in MEASURE.items()}
    torch.set_num_threads(1)
    if name.endswith(".pt"):
        saved = torch.load(name, weights_only=True)
        name, options, recipe, seconds = (
            saved["name"],
            saved["options"],
            RECIPE | saved["recipe"],
            saved["seconds"],
        )
        shape = DATA | saved["shape"]
        data, network = data_of(recipe, shape), build(name, options)
        network.load_state_dict(saved["state"])
    else:
        recipe = {key: values.pop(key, default) for key, default in RECIPE.items()}
        shape = {key: values.pop(key, default) for key, default in DATA.items()}
        torch.manual_seed(recipe["seed"])
        data = data_of(recipe, shape)
        options = values | ({"columns": shape["columns"]} if shape["columns"] != 7 else {})
        network = build(name, options)
        seconds = train(network, data, recipe)
        folder = Path(os.environ.get("EVIDENCE_CHECKPOINTS", "logs/evidence"))
        folder.mkdir(parents=True, exist_ok=True)
        saved = {"name": name, "options": options, "shape": shape, "recipe": recipe, "seconds": seconds}
        torch.save(saved | {"state": network.state_dict()}, folder / f"{'_'.join([name, *pairs])}.pt")
    start = time.perf_counter()
    scores = measure(network, data, measured["split"], measured["count"])
    shown = {key: value for key, value in options.items() if key != "columns"}
    row = {
        "network": name,
        "options": " ".join(f"{k}={v}" for k, v in shown.items()),
        **recipe,
        **shape,
        **measured,
    }
    row |= {key: round(value, 4) for key, value in scores.items()}
    row |= {"epoch_seconds": round(seconds, 1), "measure_seconds": round(time.perf_counter() - start, 1)}
    row["parameters"] = sum(p.numel() for p in network.parameters())
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    row["commit"] = commit.stdout.strip()
    write(out, row)


if __name__ == "__main__":
    main()
