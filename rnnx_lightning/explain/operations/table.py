"""The table of operations: the recorder of each, and operations that never carry relevance."""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch

from rnnx_lightning.explain.refusals import FROM_PYTHON
from rnnx_lightning.explain.tape import Recorder

aten = torch.ops.aten
R = TypeVar("R", bound=Recorder)

TABLE: dict[Any, Recorder] = {}
SCALES: set[Recorder] = set()  # recorders of operations that compute scales, which get no relevance


def register(operation: Any, recorder: Recorder) -> None:
    """Define how an operation treats relevance.

    Args:
        operation: as a `TorchDispatchMode` sees it: `torch.ops.aten.softsign.default`, for example, or an
            operation of your own, made with `torch.library`.
        recorder: a function `(tape, operation, *args, **kwargs)` that records the operation and returns its
            result. `activation()`, `gate(None)` and `moving(by_gradient)` from `rnnx_lightning.explain.operations`
            make one.

    Examples:
        >>> import torch
        >>> from rnnx_lightning.explain import LRP
        >>> from rnnx_lightning.explain.operations import activation
        >>> @torch.library.custom_op("example::cube_root", mutates_args=())
        ... def cube_root(x: torch.Tensor) -> torch.Tensor:
        ...     return x.sign() * x.abs() ** (1 / 3)
        >>> register(torch.ops.example.cube_root.default, activation())
        >>> class Model(torch.nn.Linear):
        ...     def forward(self, x):
        ...         return cube_root(super().forward(x))
        >>> model = Model(2, 1, bias=False)
        >>> model.weight.data = torch.tensor([[5.0, 3.0]])
        >>> LRP()(model, torch.ones(1, 2))  # the logit is 2
        tensor([[1.2500, 0.7500]])
    """
    TABLE[operation] = recorder


def overloads(names: str) -> Iterator[Any]:
    """ATen operations by name; all overloads of a name without one."""
    for name in names.split():
        packet_name, _, overload = name.partition(".")
        packet = getattr(aten, packet_name, None)
        if packet is not None:
            for each in [overload] if overload else packet.overloads():
                if not each.endswith("out"):
                    yield getattr(packet, each)


def records(names: str) -> Callable[[R], R]:
    """Decorator that adds a recorder to the table."""

    def put(recorder: R) -> R:
        for operation in overloads(names):
            TABLE[operation] = recorder
        return recorder

    return put


# The results of these do not depend on the values of the input, or only compare them.
HARMLESS = frozenset(
    overloads(
        "new_zeros new_ones new_full new_empty new_empty_strided zeros_like ones_like full_like empty_like "
        "rand_like randn_like randint_like sym_size sym_stride sym_numel sym_storage_offset is_same_size "
        "_local_scalar_dense eq ne lt le gt ge isnan isinf isfinite isposinf isneginf logical_not "
        "logical_and logical_or logical_xor any all argmax argmin equal nonzero signbit is_nonzero "
        "allclose isclose bincount searchsorted heaviside "
        "bucketize embedding_renorm_ _assert_async _assert_scalar _has_compatible_shallow_copy_type count_nonzero "
        "argsort bernoulli"
    )
)

BEFORE_QUANTISING = "Explain the network as it was before it was quantised."
PADDED = "Use padded tensors in place of nested ones."

ADVICE = {
    "cudnn_rnn": FROM_PYTHON,
    "miopen_rnn": FROM_PYTHON,
    "transformer_encoder_layer_fwd": FROM_PYTHON,
    "native_multi_head_attention": FROM_PYTHON,
    "quantized_lstm": BEFORE_QUANTISING,
    "quantized_gru": BEFORE_QUANTISING,
    "linear_dynamic": BEFORE_QUANTISING,
    "nested_view_from_jagged": PADDED,
    "nested_tensor_from_tensor_list": PADDED,
    "nested_tensor_from_mask": PADDED,
    "_softmax": "Explain the logits: remove the softmax from the network.",
    "softmax": "Explain the logits: remove the softmax from the network.",
    "_log_softmax": "Explain the logits: remove the softmax from the network.",
}
