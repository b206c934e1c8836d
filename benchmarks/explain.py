"""What an explanation costs, in units of one forward and one input-only backward pass of the same network."""

import argparse
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.measure import median_seconds, peak_bytes
from benchmarks.peers import captum_lrp_refusal, captum_methods, zennit_methods
from rnnx_lightning import architectures
from rnnx_lightning.explain import (
    LRP,
    Attributor,
    DeepTaylor,
    Epsilon,
    GradientTimesInput,
    GuidedBackprop,
    IntegratedGradients,
    Sensitivity,
    ZPlus,
)
from rnnx_lightning.explain.process_settings import full_precision

NETWORKS = ("Shallow", "Deep", "DeepV2", "ConvDeep", "RLSTM", "ConvRLSTM", "RGRU", "LSTM", "GRU")
METHODS: dict[str, Attributor] = {
    "Sensitivity": Sensitivity(),
    "GuidedBackprop": GuidedBackprop(),
    "GradientTimesInput": GradientTimesInput(),
    "Epsilon": LRP(Epsilon()),
    "ZPlus": LRP(ZPlus()),
    "DeepTaylor": DeepTaylor(),
    "LRP 1.5/0.5": LRP(alpha=1.5, beta=0.5),
    "IntegratedGradients": IntegratedGradients(steps=32),
}
GOALS = {"Sensitivity": 1.1, "GuidedBackprop": 1.1, "Epsilon": 1.4, "DeepTaylor": 2.0, "LRP 1.5/0.5": 2.8}
SLOW = ("IntegratedGradients",)
UNROLLED = ("Deep", "ConvDeep")


def reference(network: nn.Module, image: Tensor, label: Tensor) -> Callable[[], Tensor]:
    """One forward and one input-only backward pass."""

    def run() -> Tensor:
        x = image.detach().clone().requires_grad_()
        value = network(x).gather(1, label[:, None]).sum()
        return torch.autograd.grad(value, x)[0]

    return run


@full_precision()
def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row a network and method: ratio of time and of peak memory to the reference's."""
    rows = []
    for name in NETWORKS:
        torch.manual_seed(0)
        network = getattr(architectures, name)().to(options.device).eval().requires_grad_(False)
        image = torch.rand(options.batch, 1, 28, 84, device=options.device) * 2 - 1
        label = torch.randint(0, 10, (options.batch,), device=options.device)

        def ours(method: Attributor, *data: Any) -> Callable[[], Tensor]:
            return lambda: method(*data)

        candidates = {"reference": reference(network, image, label)}
        candidates |= {f"rnnx {key}": ours(method, network, image, label) for key, method in METHODS.items()}
        candidates |= {f"captum {key}": run for key, run in captum_methods(network, image, label).items()}
        if name in UNROLLED:
            zennit = zennit_methods(network, image, label)
            candidates |= {f"zennit {key}": run for key, run in zennit.items()}
        quick = {key: run for key, run in candidates.items() if not key.endswith(SLOW)}
        slow = {key: run for key, run in candidates.items() if key.endswith(SLOW)}
        seconds = median_seconds(quick, options.device, options.repeats)
        seconds |= median_seconds(slow, options.device, repeats=1, warm_up=0)
        memory = {key: peak_bytes(run, options.device) for key, run in quick.items()}
        for key, value in seconds.items():
            rows.append(
                {
                    "network": name,
                    "method": key,
                    "ms": value * 1e3,
                    "time": value / seconds["reference"],
                    "goal": GOALS.get(key.removeprefix("rnnx ")),
                    "memory": memory[key] / memory["reference"] if key in memory else None,
                }
            )
        if refusal := captum_lrp_refusal(network, image, label):
            rows.append({"network": name, "method": "captum LRP: refused", "refusal": refusal})
    return rows
