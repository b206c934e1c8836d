"""A kernel in Triton, which writes where no operation is seen."""

import pytest
import torch
from torch import nn

from rnnx_lightning.explain import LRP, Epsilon, UnexplainableError

triton = pytest.importorskip("triton")
tl = triton.language
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@triton.jit
def double(x, y, count, block: tl.constexpr):
    places = tl.program_id(0) * block + tl.arange(0, block)
    tl.store(y + places, 2 * tl.load(x + places, mask=places < count), mask=places < count)


class Residual(nn.Module):
    def __init__(self, fast):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.out, self.fast = nn.Linear(4, 4), nn.Linear(4, 2), fast

    def forward(self, x):
        h = self.first(x)
        if self.fast:
            doubled = torch.empty_like(h)
            double[(1,)](h, doubled, h.numel(), block=16)
        else:
            doubled = 2 * h
        return self.out(h + doubled)


@pytest.mark.parametrize("create_graph", [False, True])
def test_a_kernel_is_refused_and_its_form_in_torch_explained(create_graph):
    x, method = torch.randn(3, 4, device="cuda"), LRP(Epsilon(1e-6), create_graph=create_graph)
    fast, plain = Residual(True).cuda().eval(), Residual(False).cuda().eval()
    torch.testing.assert_close(fast(x), plain(x))
    with pytest.raises(UnexplainableError, match=r"Triton|cannot be seen"):
        method(fast, x, 0)
    assert method(plain, x, 0).any()
