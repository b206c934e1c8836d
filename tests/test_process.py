"""Settings of the whole process; those that last are tried in a process of their own."""

import gc
import subprocess
import sys

import pytest
import torch
from limits import TIME_LIMIT_S

from rnnx_lightning.process import importing


def run(code):
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=TIME_LIMIT_S
    )
    return done.stdout.split()


def test_collection_goes_on_after_imports():
    with importing():
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ImportError), importing():
        raise ImportError
    assert gc.isenabled()
    gc.unfreeze()


def test_denormals_are_zero_in_all_threads_for_a_while():
    code = """
import sys
import torch
from rnnx_lightning.process import denormals_flushed
with denormals_flushed():
    print(float((torch.full((2000, 2000), 1e-39) * 1).amax()))
    print(float(torch.full((600, 600), 1e-39).mm(torch.eye(600)).amax()))
    print(sys.float_info.min / 2)
print(sys.float_info.min / 2)
"""
    assert run(code) == ["0.0", "0.0", "0.0", "1.1125369292536007e-308"]


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_freed_memory_is_kept():
    """Large tensors again and again: with page faults only the first time."""
    code = """
import resource, torch
from rnnx_lightning.process import keep_freed_memory
keep_freed_memory()
def faults():
    for _ in range(10):
        torch.ones(8_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
first = faults()
print(faults() - first)
"""
    assert int(run(code)[0]) < 1000  # 78,000 without


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a driver")
def test_optimisers_look_for_no_driver_that_is_missing():
    code = """
import lightning, torch
from rnnx_lightning.process import look_for_no_driver
looked = []
torch.cuda._raw_device_count_nvml = lambda: looked.append(1) or -1
parameter = torch.nn.Parameter(torch.ones(3))
parameter.grad = torch.ones(3)
optimizer = torch.optim.Adam([parameter], fused=True)
look_for_no_driver()
looked.clear()
optimizer.step()
print(len(looked))
"""
    assert run(code)[-1] == "0"
