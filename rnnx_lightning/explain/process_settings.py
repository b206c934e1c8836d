"""Settings of torch that hold for all threads of the process.

Several threads may explain at a time. The first one changes a setting, and the last one puts it back. If each put
back what it had found, one could leave behind what another had changed.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import wraps
from threading import Lock
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.utils.checkpoint

if TYPE_CHECKING:
    from contextlib import _GeneratorContextManager


def shared(
    change: Callable[[], AbstractContextManager[None]],
) -> "Callable[[], _GeneratorContextManager[None]]":
    """A context that is entered once for all that are inside of it at a time, and left by the last."""
    lock, users = Lock(), 0
    entered: AbstractContextManager[None] = nullcontext()

    @wraps(change)
    @contextmanager
    def share() -> Iterator[None]:
        nonlocal users, entered
        with lock:
            if users == 0:
                entered = change()
                entered.__enter__()
            users += 1
        try:
            yield
        finally:
            with lock:
                users -= 1
                if users == 0:
                    entered.__exit__(None, None, None)

    return share


@shared
@contextmanager
def full_precision() -> Iterator[None]:
    """Compute products of float32 numbers in float32.

    On newer GPUs, torch rounds the factors of a convolution to 10 bits of mantissa (TF32), unless told not to.
    This hardly changes a decision. But relevance is a difference of larger shares, and the errors remain in it.
    """
    backends = cast(Any, torch.backends)  # some of its settings are unknown to type checkers
    cuda, cudnn, onednn = backends.cuda, backends.cudnn, backends.mkldnn
    owners: list[Any] = []
    if hasattr(cuda.matmul, "fp32_precision"):  # since torch 2.9; the older settings must agree with it
        owners = [cuda.matmul, cudnn.conv, cudnn.rnn, onednn.matmul, onednn.conv, onednn.rnn]
    single = [owner.fp32_precision for owner in owners]
    products, tf32 = torch.get_float32_matmul_precision(), None
    with suppress(RuntimeError):  # torch cannot say if convolutions and recurrent layers differ
        tf32 = cudnn.allow_tf32
    try:
        torch.set_float32_matmul_precision("highest")
        if tf32 is not None:
            cudnn.allow_tf32 = False
        for owner in owners:
            owner.fp32_precision = "ieee"
        yield
    finally:
        torch.set_float32_matmul_precision(products)
        if tf32 is not None:
            cudnn.allow_tf32 = tf32
        for owner, precision in zip(owners, single, strict=True):
            owner.fp32_precision = precision


@shared
@contextmanager
def uncompiled() -> Iterator[None]:
    """Run compiled code as it was written: its single operations could not be seen."""
    with torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext():
        yield


@shared
@contextmanager
def unfused_attention() -> Iterator[None]:
    """Run attention as basic operations."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


@shared
@contextmanager
def without_onednn() -> Iterator[None]:
    """Run `nn.LSTM` as separate operations also on CPUs where it is fused."""
    before = torch.backends.mkldnn.enabled
    torch.backends.mkldnn.enabled = False  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.backends.mkldnn.enabled = before


@shared
@contextmanager
def without_checkpoints() -> Iterator[None]:
    """Run what a network checkpoints (`use_reentrant=True`) in sight.

    torch cannot differentiate such a part by the input alone, and gates and ReLUs in it could not be seen.
    """
    function = torch.utils.checkpoint.CheckpointFunction
    torch.utils.checkpoint.CheckpointFunction = _Run  # type: ignore[misc, assignment]
    try:
        yield
    finally:
        torch.utils.checkpoint.CheckpointFunction = function  # type: ignore[misc]


class _Run:
    """Stands in for torch's function, which runs a part of a network now, and again for its gradient."""

    @staticmethod
    def apply(part: Callable[..., Any], _preserve: bool, *inputs: Any) -> Any:
        """Run the part once, with its graph."""
        return part(*inputs)
