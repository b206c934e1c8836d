"""Trained networks that come with the package: `load_pretrained("rlstm")`.

A file NAME.safetensors holds the weights as float16. Its metadata name the network, its data, and the scores that
were measured with these weights. `python -m rnnx_lightning.pretrained CHECKPOINT NAME` writes one.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import safe_open

from rnnx_lightning import architectures
from rnnx_lightning.checkpoints import load_classifier, load_data
from rnnx_lightning.classifier import SequenceClassifier
from rnnx_lightning.data import MajoritySequences

FOLDER = Path(__file__).parent
DEFAULT_DATASET = "mnist"


class Pretrained(NamedTuple):
    """A trained network, its data and its scores.

    Attributes:
        model: the classifier, in eval mode, on the CPU.
        data: arguments of the data module that it was trained on.
        measured: scores on test sequences, by name.
    """

    model: SequenceClassifier
    data: dict[str, Any]
    measured: dict[str, float]


def pretrained_names() -> list[str]:
    """All names, as NETWORK-DATASET."""
    return sorted(path.stem for path in FOLDER.glob("*.safetensors"))


def load_pretrained(name: str) -> Pretrained:
    """A trained network.

    Args:
        name: NETWORK-DATASET, for example "evidence-fashion_mnist"; without DATASET, the one for MNIST.

    Raises:
        ValueError: there is no trained network of this name.
    """
    names = pretrained_names()
    chosen = name if name in names else f"{name}-{DEFAULT_DATASET}"
    if chosen not in names:
        raise ValueError(f"there is no trained network {name!r}: choose from {', '.join(names)}")
    with safe_open(FOLDER / f"{chosen}.safetensors", "pt") as file:
        about = {key: json.loads(text) for key, text in file.metadata().items()}
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
    network = getattr(architectures, about["network"])(**about["options"])
    network.load_state_dict(state)
    return Pretrained(SequenceClassifier(network).eval(), about["data"], about["measured"])


def load_trained(
    ckpt_path: str | None, pretrained: str | None, data_dir: str | None = None
) -> tuple[SequenceClassifier, MajoritySequences]:
    """A trained network and its data, from a checkpoint or by name.

    Args:
        ckpt_path: of a checkpoint that `rnnx fit` wrote.
        pretrained: see `load_pretrained`.
        data_dir: folder of the data set; default as for `rnnx fit`.

    Returns:
        The classifier, in eval mode, on the CPU; and the data module, before any data is loaded.

    Raises:
        ValueError: both or neither of the two are given; or see `load_pretrained`.
        CheckpointError: see `load_classifier`.
    """
    if (ckpt_path is None) == (pretrained is None):
        raise ValueError(
            f"give either --ckpt_path, or --pretrained with one of {', '.join(pretrained_names())} (without "
            "the data set's name: MNIST)"
        )
    if ckpt_path is not None:
        return load_classifier(ckpt_path), load_data(ckpt_path, data_dir=data_dir)
    assert pretrained is not None
    found = load_pretrained(pretrained)
    return found.model, MajoritySequences(**found.data, data_dir=data_dir)
