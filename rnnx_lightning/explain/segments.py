"""The way back through a long recurrent layer, one segment of time steps after another.

The values of a layer's gates and memories take most of the memory of an explanation. Here only the states between
segments are kept. Each segment is run again when its totals or its relevance are needed, the last segment first.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from rnnx_lightning.explain.channels import CHANNELS, Channel
from rnnx_lightning.explain.composite import Composite
from rnnx_lightning.explain.memories import Before
from rnnx_lightning.explain.node import RELEVANCE, Node
from rnnx_lightning.explain.recurrence import Recurrence
from rnnx_lightning.explain.totals import Total, exponent_of
from rnnx_lightning.explain.walk import evaluate, walk


class Segment(NamedTuple):
    """Successive steps of a layer.

    Attributes:
        source: the node of their inputs, (W, steps * B, D).
        call: what is known of the layer, for these steps.
        memory: the node of their memories; None for a plain RNN.
    """

    source: Node
    call: Recurrence
    memory: Node | None


@dataclass
class SegmentedRecurrence:
    """One layer, instead of a `Recurrence`.

    Attributes:
        composite: how biases are treated.
        shape: ways, steps, examples, units.
        steps: of a segment; the last one can be shorter.
        source: the node of the inputs, (W, T * B, D).
        drive: the node of W x_t, which is not evaluated.
        start: the totals of the memory before the first step.
        shown: of how many last steps the network can read the memories.
        segment: runs a segment again; takes its number and the totals of the memory before it.
        read: relevance of the hidden states.
        factors: of the last memories, those that the network can read.
    """

    composite: Composite
    shape: torch.Size
    steps: int
    source: Node
    drive: Node
    start: Before
    shown: int
    segment: Callable[[int, Before], Segment]
    read: Tensor | None = None
    factors: dict[Channel, Tensor] = field(default_factory=dict)
    _before: dict[Channel, list[Total | None]] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """The number of segments."""
        return -(-self.shape[1] // self.steps)

    def total(self, channel: Channel) -> Total | None:
        """The total of the memories that the network can read."""
        first = (self.shape[1] - self.shown) // self.steps
        totals = [self._total(number, channel) for number in range(first, self.count)]
        if all(total is None for total in totals):
            return None
        known = [Total(self._zeros(n)) if t is None else t for n, t in enumerate(totals, first)]
        mantissa = torch.cat([total.mantissa for total in known], 1)[:, -self.shown :]
        if all(total.exponent is None for total in known):
            return Total(mantissa)
        return Total(mantissa, torch.cat([exponent_of(total) for total in known], 1)[:, -self.shown :])

    def hand_back(self, node: Node | None) -> None:
        """From the hidden states and the memory to the inputs, segment by segment."""
        given = torch.zeros(self.source.shape, dtype=self.source.dtype, device=self.source.device)
        came: Tensor | None = None  # the relevance of the last hidden state of a segment, from the next segment
        passed: dict[Channel, Tensor] = {}  # the factors of its last memory
        parts = given.split(self.steps * self.shape[2], 1)
        for number in reversed(range(self.count)):
            source, call, memory = self._run(number)
            zeros = self._zeros(number)
            call.read = _with_last(self._cut(self.read, number), came, zeros)
            for channel in CHANNELS:
                factor = _with_last(self._cut(self.factors.get(channel), number), passed.get(channel), zeros)
                if factor is not None:
                    call.factors[channel] = factor
            if call.read is None and not call.factors:
                continue
            (drive, *_) = call.argument.sources
            assert drive is not None
            drive.exact = self.drive.exact
            call.hand_back(memory)
            came, passed = call.came, call.passed
            walk([drive], self.composite, {})
            relevance = source.inbox[RELEVANCE]
            if relevance is not None:
                parts[number].copy_(relevance)
        self.source.receive(given)

    def _run(self, number: int) -> Segment:
        return self.segment(number, lambda channel: self._total_before(number, channel))

    def _zeros(self, number: int) -> Tensor:
        """Of the shape of a segment."""
        ways, length, *rest = self.shape
        steps = min(self.steps, length - number * self.steps)
        return torch.zeros(ways, steps, *rest, dtype=self.source.dtype, device=self.source.device)

    def _total(self, number: int, channel: Channel) -> Total | None:
        """The total of the memories of a segment."""
        memory = self._run(number).memory
        assert memory is not None  # else it has no total
        total = evaluate(memory, channel)
        return None if total is None else total.view(lambda part: part.expand(memory.shape))

    def _total_before(self, number: int, channel: Channel) -> Total | None:
        """The total of the memory before a segment."""
        known = self._before.setdefault(channel, [self.start(channel)])
        while len(known) <= number:
            total = self._total(len(known) - 1, channel)
            known.append(None if total is None else total.view(lambda part: part[:, -1].clone()))
        return known[number]

    def _cut(self, part: Tensor | None, number: int) -> Tensor | None:
        """What of a tensor of the last steps belongs to a segment, with zeros for other steps."""
        if part is None:
            return None
        missing, start = self.shape[1] - part.shape[1], number * self.steps
        stop = min(start + self.steps, self.shape[1])
        own = part[:, max(start - missing, 0) : max(stop - missing, 0)]
        return F.pad(own, (0, 0, 0, 0, stop - start - own.shape[1], 0)) if own.shape[1] else None


def _with_last(part: Tensor | None, last: Tensor | None, zeros: Tensor) -> Tensor | None:
    """A tensor of all steps, with something added to the last step."""
    if last is None:
        return part
    whole = zeros.clone() if part is None else part.clone()
    whole[:, -1] += last
    return whole
