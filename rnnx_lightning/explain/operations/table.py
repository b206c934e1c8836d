"""The table of operations: what writes down each one, and what is never made of the input's values."""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch

aten = torch.ops.aten
Recorder = Callable[..., Any]
R = TypeVar("R", bound=Recorder)

TABLE: dict[Any, Recorder] = {}
SCALES: set[Recorder] = set()  # of the table: what writes down scales, which take no relevance where they scale


def register(operation: Any, recorder: Recorder) -> None:
    """Let the explainer know an operation.

    Args:
        operation: as a `TorchDispatchMode` sees it: `torch.ops.aten.softsign.default`, or one of your own,
            made with `torch.library`.
        recorder: `(tape, operation, *args, **kwargs)` to what the operation gives. `activation()`,
            `moving(undo)` and the like make one.
    """
    TABLE[operation] = recorder


def overloads(names: str) -> Iterator[Any]:
    """ATen operations by name; without an overload's name all of them."""
    for name in names.split():
        packet_name, _, overload = name.partition(".")
        packet = getattr(aten, packet_name, None)
        if packet is not None:
            for each in [overload] if overload else packet.overloads():
                yield getattr(packet, each)


def records(names: str) -> Callable[[R], R]:
    """Put a recorder into the table."""

    def put(recorder: R) -> R:
        for operation in overloads(names):
            TABLE[operation] = recorder
        return recorder

    return put


# What these give is not made of the input's values, or only says how they compare.
HARMLESS = frozenset(
    overloads(
        "new_zeros new_ones new_full new_empty new_empty_strided zeros_like ones_like full_like empty_like "
        "rand_like randn_like randint_like sym_size sym_stride sym_numel sym_storage_offset is_same_size "
        "_local_scalar_dense eq ne lt le gt ge isnan isinf isfinite isposinf isneginf logical_not "
        "logical_and logical_or logical_xor any all argmax argmin equal nonzero signbit is_nonzero "
        "allclose isclose bincount searchsorted "
        "bucketize embedding_renorm_ _assert_async _assert_scalar _has_compatible_shallow_copy_type count_nonzero "
        "argsort bernoulli"
    )
)

AS_SIGNAL = (
    "It is explained where it scales a signal. As a signal it is refused, as f(0) is not 0; to hand relevance on "
    "as an activation does: register({}, gate(None)), both of rnnx_lightning.explain.operations."
)

ADVICE = {
    "mkldnn_rnn_layer": "Call nn.LSTM from Python, not from TorchScript or an extension.",
    "detach": "It hides what its result is made of: leave it out while explaining.",
    "_softmax": "Explain the logits: leave the softmax out of the network.",
    "softmax": "Explain the logits: leave the softmax out of the network.",
    "_log_softmax": "Explain the logits: leave the softmax out of the network.",
}
