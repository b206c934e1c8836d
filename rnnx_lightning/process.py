"""Settings of the whole process that make it faster."""

import ctypes
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# From glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4


def keep_freed_memory() -> None:
    """Let the C library keep freed memory for the next tensors, where it is glibc.

    By default it returns large blocks to the system, and each large feature map then begins with page faults,
    which take longer than the arithmetic on it. The process keeps what it needed at its peak.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(_MMAP_MAX, 0)
            mallopt(_TRIM_THRESHOLD, 2**31 - 1)


@contextmanager
def importing() -> Iterator[None]:
    """Collect no garbage while modules are imported, and never scan the imported modules: they are not freed."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@contextmanager
def denormals_flushed() -> Iterator[None]:
    """Flush denormal numbers (below 1e-38) to 0 on the CPU, also in threads that torch starts in the meantime.

    Gradients that vanish over hundreds of time steps become such numbers, and a matrix product with them takes
    five times as long.
    """
    import torch

    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def look_for_no_driver() -> None:
    """Without a GPU, keep torch's optimisers from looking for NVIDIA's driver at every step.

    Lightning sets a variable that makes them ask the driver, so that processes can be forked later. Without a
    driver, this takes 0.3 ms per step.
    """
    import torch

    if not torch.cuda.is_available():
        os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "0"
