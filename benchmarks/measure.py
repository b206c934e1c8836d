"""Timing and memory of several candidates in one process, so that their ratios can be trusted."""

import gc
import random
import statistics
import time
from collections.abc import Callable, Mapping

import torch

Candidates = Mapping[str, Callable[[], object]]


def synchronise(device: torch.device) -> None:
    """Wait for the device to finish."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def median_seconds(
    candidates: Candidates, device: torch.device, repeats: int, warm_up: int = 2
) -> dict[str, float]:
    """The median time of each candidate.

    All of them run in each round, so that a slow moment of the machine hits all, and in another order each time:
    what runs before leaves its memory in the caches.

    Args:
        candidates: what to run, by name.
        device: where they run.
        repeats: rounds that count.
        warm_up: rounds that do not.

    Returns:
        Seconds by name.
    """
    times: dict[str, list[float]] = {name: [] for name in candidates}
    order = list(candidates.items())
    shuffle = random.Random(0).shuffle
    gc.collect()
    for number in range(warm_up + repeats):
        shuffle(order)
        for name, run in order:
            synchronise(device)
            start = time.perf_counter()
            run()
            synchronise(device)
            if number >= warm_up:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def peak_bytes(run: Callable[[], object], device: torch.device) -> int:
    """The most memory that is held at a time by what `run` allocates, by torch's own account."""
    gc.collect()
    if device.type == "cuda":
        synchronise(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        synchronise(device)
        return torch.cuda.max_memory_allocated(device) - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        run()
    assert profile.profiler is not None
    assert profile.profiler.kineto_results is not None
    changes = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    held, peak = 0, 0
    for change in sorted(changes, key=lambda event: event.start_ns()):
        held += change.nbytes()
        peak = max(peak, held)
    return peak
