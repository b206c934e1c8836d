"""Packs a checkpoint: python -m rnnx_lightning.pretrained CHECKPOINT NAME [--data_dir DIR].

CHECKPOINT was written by `rnnx fit` or docs/study/evidence.py. Weights become float16. The network is measured
with these weights and with the original ones; if the scores differ, nothing is written.
"""

import argparse
import json
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from rnnx_lightning import architectures
from rnnx_lightning.architectures import RecurrentNetwork
from rnnx_lightning.checkpoints import load_classifier, load_data, read_checkpoint
from rnnx_lightning.data import MajoritySequences
from rnnx_lightning.explain.published import published_methods
from rnnx_lightning.metrics.functional import majority_cosine_similarity
from rnnx_lightning.pretrained import FOLDER

TOLERANCE = 2e-3  # of accuracy, and of the mean cosine similarities
KEPT = ("dataset", "samples", "majority_size", "columns", "margin", "seed")


def read(path: str) -> tuple[RecurrentNetwork, dict[str, Any], dict[str, Any]]:
    """The network, its options, and the arguments of its data."""
    content = torch.load(path, map_location="cpu", weights_only=True)
    if "state" in content:
        data = {**content["shape"], "dataset": content["recipe"]["dataset"], "seed": content["recipe"]["seed"]}
        network = getattr(architectures, content["name"])(**content["options"])
        network.load_state_dict(content["state"])
        return network.eval(), content["options"], {key: data[key] for key in KEPT}
    options = read_checkpoint(path)["hyper_parameters"]["network"].get("init_args") or {}
    module, used = load_classifier(path), load_data(path)
    assert isinstance(module.network, RecurrentNetwork)
    return module.network, dict(options), {key: getattr(used, key) for key in KEPT}


def measure(network: RecurrentNetwork, data: MajoritySequences, explained: int = 1000) -> dict[str, float]:
    """Accuracy on all test sequences, and cosine similarities of the study's methods on the first ones."""
    right, total, cosines = 0, 0, {name: list[Tensor]() for name in published_methods()}
    for raw in data.test_dataloader():
        batch = data.gather(raw)
        with torch.no_grad():
            right += int((network(batch.distinct, batch.order).argmax(1) == batch.label).sum())
        if total < explained:
            for name, method in published_methods().items():
                relevance = method(network, batch.image, batch.label)
                cosines[name].append(majority_cosine_similarity(relevance, batch.majority))
        total += len(batch.label)
    return {"accuracy": right / total} | {name: float(torch.cat(parts).mean()) for name, parts in cosines.items()}


def main() -> None:
    """Measure, compare, write."""
    parser = argparse.ArgumentParser(prog="python -m rnnx_lightning.pretrained", description=__doc__)
    parser.add_argument("checkpoint")
    parser.add_argument("name", help="NETWORK-DATASET")
    parser.add_argument("--data_dir")
    chosen = parser.parse_args()
    network, options, arguments = read(chosen.checkpoint)
    data = MajoritySequences(**arguments, data_dir=chosen.data_dir)
    data.prepare_data()
    data.setup()
    before = measure(network, data)
    small = {key: value.half().contiguous() for key, value in network.state_dict().items()}
    network.load_state_dict(small)
    after = measure(network, data)
    for name, value in before.items():
        print(f"{name:16} {value:.4f} as it was, {after[name]:.4f} as float16")
        if abs(value - after[name]) > TOLERANCE:
            raise SystemExit(f"{name} changes by more than {TOLERANCE}: nothing is written")
    about = {
        "network": type(network).__name__,
        "options": options,
        "data": arguments,
        "measured": {name: round(value, 4) for name, value in after.items()},
    }
    path = FOLDER / f"{chosen.name}.safetensors"
    save_file(small, path, {key: json.dumps(value) for key, value in about.items()})
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
