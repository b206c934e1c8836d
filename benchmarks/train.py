"""Training: the whole Lightning stack against a bare loop, the plain way, and what the machine can compute."""

import argparse
import copy
import tempfile
import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any
from unittest.mock import patch

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measure import median_seconds, synchronise
from rnnx_lightning import architectures
from rnnx_lightning.architectures import RecurrentNetwork
from rnnx_lightning.architectures.layers import SequenceDropout
from rnnx_lightning.callbacks import FiniteLoss, StepRandomness, Throughput
from rnnx_lightning.classifier import SequenceClassifier, rejection_cross_entropy
from rnnx_lightning.data import MajoritySequences
from rnnx_lightning.data.batches import PlannedBatch
from rnnx_lightning.data.datamodule import Sampling
from rnnx_lightning.data.images import ImageSet
from rnnx_lightning.schedule import adam

NETWORKS = ("Deep", "ConvDeep", "RLSTM", "Evidence", "ConvEvidence")
PUBLISHED_STEPS = 100 * 48_000 // 50  # 100 epochs of batch 50
OWN_BATCH = 100


def made_up_data(**arguments: Any) -> MajoritySequences:
    """Majority sequences of as many images as MNIST has, of noise."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (70_000, 28, 28), dtype=torch.uint8, generator=generator)
    images = ImageSet(pixels, torch.arange(70_000) % 10, [str(digit) for digit in range(10)], 60_000)
    data = MajoritySequences(dataset="digits", **arguments)
    with patch("rnnx_lightning.data.datamodule.load_images", return_value=images):
        data.setup()
    return data


def lightning_rate(network: nn.Module, batch: int, steps: int, device: torch.device) -> float:
    """Sequences a second of `fit`, as it logs them."""
    data = made_up_data(batch_size=batch)
    with tempfile.TemporaryDirectory() as folder:
        trainer = L.Trainer(
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=1,
            max_epochs=1,
            limit_train_batches=steps,
            limit_val_batches=0,
            logger=TensorBoardLogger(folder),
            callbacks=[StepRandomness(), FiniteLoss(), Throughput()],
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
        )
        trainer.fit(SequenceClassifier(network, adam(1e-3)), datamodule=data)
        return float(trainer.callback_metrics["train/sequences_per_second"])


def _steps(network: nn.Module, batches: Iterator[tuple[Any, Tensor]], steps: int, device: torch.device) -> float:
    """Sequences a second of a loop with nothing in it but the training."""
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)
    network.train()
    count, start = 0, time.perf_counter()
    for number, (inputs, label) in enumerate(batches):
        if number == steps:
            break
        optimizer.zero_grad()
        loss = rejection_cross_entropy(network(*inputs), label)
        loss.backward()
        optimizer.step()
        count += len(label)
    synchronise(device)
    return count / (time.perf_counter() - start)


def bare_rate(network: nn.Module, batch: int, steps: int, device: torch.device) -> float:
    """The same network on the same batches, by hand."""
    data = made_up_data(batch_size=batch)

    def batches() -> Iterator[tuple[Any, Tensor]]:
        for part in data.train_dataloader():
            moved = data.gather(PlannedBatch(*(tensor.to(device) for tensor in part)))
            yield (moved.distinct, moved.order), moved.label

    return _steps(network, batches(), steps, device)


class PlainSequences(Dataset):
    """Builds each sequence on the CPU, one at a time."""

    def __init__(self, data: MajoritySequences) -> None:
        self.pixels, self.plan = data.images.pixels, data.plan("train")

    def __len__(self) -> int:
        return len(self.plan.label)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        """One picture (1, 28, 84) in [-1, 1] and its label."""
        images = [self.pixels[index].float() / 127.5 - 1 for index in self.plan.index[row]]
        return torch.cat(images, dim=1).unsqueeze(0), self.plan.label[row]


class PlainDropout(nn.Dropout):
    """Dropouts for sequences, drawn for each step by torch's own, one after the other.

    It calls itself stationary, although it is not, so that `CellNetwork` computes the drive of all steps at once.
    """

    stationary = True

    def __init__(self, p: float, times: int) -> None:
        super().__init__(p)
        self.times = times

    def forward(self, x: Tensor) -> Tensor:
        """X of any shape, dropped `times` times."""
        for _ in range(self.times):
            x = super().forward(x)
        return x

    def masks(self, like: Tensor, steps: int, width: int) -> list[Tensor]:
        """The factors of each step, (B, width) each."""
        return [self(like.new_ones(len(like), width)) for _ in range(steps)]


class StepByStep(nn.Module):
    """A copy of a network with torch's own layers, whose front runs on one time step after the other."""

    def __init__(self, network: RecurrentNetwork) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).to(memory_format=torch.contiguous_format)
        for module in list(self.network.modules()):
            for name, child in module.named_children():
                if isinstance(child, SequenceDropout):
                    setattr(module, name, PlainDropout(child.p, child.times).train(child.training))

    def forward(self, image: Tensor) -> Tensor:
        """(B, 1, 28, W) to logits."""
        steps = [self.network.encode(step) for step in image.split(self.network.columns, dim=3)]
        return self.network.decide(torch.stack(steps, dim=1))


def plain_rate(network: RecurrentNetwork, batch: int, steps: int, device: torch.device) -> float:
    """A data set, worker processes, and no thought of speed."""
    data = made_up_data(batch_size=batch, sampling="published")
    loader = DataLoader(PlainSequences(data), batch, shuffle=True, num_workers=2)
    batches = (((image.to(device),), label.to(device)) for image, label in loader)
    return _steps(StepByStep(network).to(device), batches, steps, device)


def flops_of_a_step(network: nn.Module, batch: int, device: torch.device) -> int:
    """Floating-point operations of one training step, by torch's own counter."""
    data = made_up_data(batch_size=batch)
    part = data.gather(PlannedBatch(*(tensor.to(device) for tensor in next(iter(data.train_dataloader())))))
    with FlopCounterMode(display=False) as counter:
        rejection_cross_entropy(network(part.distinct, part.order), part.label).backward()
    return counter.get_total_flops()


def peak_flops(device: torch.device) -> float:
    """Floating-point operations a second of a large float32 matrix product."""
    size = 8192 if device.type == "cuda" else 2048
    a = torch.rand(size, size, device=device)
    seconds = median_seconds({"product": lambda: a @ a}, device, repeats=7)
    return 2 * size**3 / seconds["product"]


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row a network and batch: rates, and their ratios to what they are compared with."""
    peak = peak_flops(options.device)
    batches = {OWN_BATCH, options.batch} if options.device.type == "cpu" else {options.batch}
    return [_compare(name, batch, peak, options) for batch in sorted(batches) for name in options.networks]


def _compare(name: str, batch: int, peak: float, options: argparse.Namespace) -> dict[str, Any]:
    torch.manual_seed(0)
    network = getattr(architectures, name)().to(options.device)
    rates: list[tuple[float, float, float]] = []
    for _ in range(options.repeats):  # in turn, so that a slow moment of the machine hits all
        fit = lightning_rate(network, batch, options.steps, options.device)
        network.to(options.device)
        bare = bare_rate(network, batch, options.steps, options.device)
        rates.append((fit, bare, plain_rate(network, batch, max(options.steps // 4, 2), options.device)))
    fit = median(fit for fit, _, _ in rates)
    limit = peak / (flops_of_a_step(network, batch, options.device) / batch)
    return {
        "network": name,
        "batch": batch,
        "sequences per second": fit,
        "to bare loop": median(fit / bare for fit, bare, _ in rates),
        "to plain way": median(fit / plain for fit, _, plain in rates),
        "to arithmetic limit": fit / limit,
    }


def published_recipe(options: argparse.Namespace) -> list[dict[str, Any]]:
    """A step of the published ConvDeep recipe, by torch's own layers and by ours, and of our recipe."""

    def stepper(batch: int, sampling: Sampling, plain: bool = False) -> Callable[[], None]:
        torch.manual_seed(0)
        network = architectures.ConvDeep(dropout=0.2).to(options.device).train()
        data = made_up_data(batch_size=batch, sampling=sampling)
        part = data.gather(
            PlannedBatch(*(tensor.to(options.device) for tensor in next(iter(data.train_dataloader()))))
        )
        run = StepByStep(network) if plain else network
        inputs = (part.image,) if plain else (part.distinct, part.order)
        optimizer = torch.optim.Adam(run.parameters(), lr=2e-4, fused=True)

        def step() -> None:
            optimizer.zero_grad()
            rejection_cross_entropy(run(*inputs), part.label).backward()
            optimizer.step()

        return step

    recipes = {
        "published": (PUBLISHED_STEPS, stepper(50, "published", plain=True)),
        "published, with rnnx's layers": (PUBLISHED_STEPS, stepper(50, "published")),
        "ours": (options.epochs * (48_000 // OWN_BATCH), stepper(OWN_BATCH, "pooled")),
    }
    seconds = median_seconds(
        {name: step for name, (_, step) in recipes.items()}, options.device, repeats=options.repeats * 3
    )
    return [
        {
            "recipe": name,
            "ms a step": seconds[name] * 1e3,
            "steps": steps,
            "seconds in all": seconds[name] * steps,
            "published / this": seconds["published"] * PUBLISHED_STEPS / (seconds[name] * steps),
        }
        for name, (steps, _) in recipes.items()
    ]
