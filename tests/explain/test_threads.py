"""Several threads explain at a time."""

from contextlib import ExitStack
from threading import Barrier, Thread

import pytest
import torch
from torch import nn

from rnnx_lightning.explain import LRP, Epsilon, GuidedBackprop, IntegratedGradients, Sensitivity, SmoothGrad
from rnnx_lightning.explain.process_settings import full_precision, unfused_attention, without_onednn

METHODS = [LRP(), LRP(Epsilon(1e-3)), GuidedBackprop(), Sensitivity(), IntegratedGradients(steps=4), SmoothGrad()]


def settings():
    attention, matmul = torch.backends.cuda, torch.backends.mkldnn.matmul
    return (
        torch.get_float32_matmul_precision(),
        getattr(matmul, "fp32_precision", None),
        torch.backends.mha.get_fastpath_enabled(),
        attention.flash_sdp_enabled(),
        attention.mem_efficient_sdp_enabled(),
        torch.backends.mkldnn.enabled,
    )


@pytest.fixture
def usual():
    """Settings that all contexts change."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    yield settings()
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("change", [full_precision, unfused_attention, without_onednn], ids=lambda c: c.__name__)
def test_settings_are_changed_until_the_last_one_leaves(change, usual):
    first, second = ExitStack(), ExitStack()
    first.enter_context(change())
    changed = settings()
    assert changed != usual
    second.enter_context(change())
    first.close()  # not the last one that came
    assert settings() == changed
    second.close()
    assert settings() == usual


class Reader(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.out = nn.LSTM(5, 8, batch_first=True, bidirectional=True), nn.Linear(16, 3)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)

    def forward(self, x):
        hidden = self.rnn(x)[0]
        return self.out(torch.relu(hidden + self.attention(hidden, hidden, hidden)[0]).mean(1))


@pytest.mark.filterwarnings("ignore")
def test_threads_get_what_they_get_one_after_the_other(usual):
    torch.manual_seed(0)
    work = [(method, Reader().double().eval(), torch.randn(4, 9, 5, dtype=torch.float64)) for method in METHODS]
    expected = [method(model, x, 1) for method, model, x in work]
    found, start = {}, Barrier(len(work))

    def explain(number):
        method, model, x = work[number]
        start.wait()
        found[number] = [method(model, x, 1) for _ in range(5)]

    threads = [Thread(target=explain, args=(number,)) for number in range(len(work))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, relevance in enumerate(expected):
        for own in found[number]:
            torch.testing.assert_close(own, relevance, rtol=0, atol=1e-12)
    assert settings() == usual
