"""The way back through all steps of a recurrent layer, with few operations a step.

All hidden states are known by then. So the totals of W x_t, of U h_{t-1} and of the memory are found for all steps
at once, and so are the factors that relevance 1 of each unit becomes: every way of sharing is linear in relevance.
What is left for the loop over the steps is one matrix product and some products element by element.

Shapes are (W, T, B, H): W ways to read (one a direction), T steps in the order of reading, B examples, H units.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from rnnx_lightning.explain.channels import CHANNELS, Channel
from rnnx_lightning.explain.composite import Composite
from rnnx_lightning.explain.memories import Memory, MemoryBack, beside, folded, repeated
from rnnx_lightning.explain.node import RELEVANCE, Node
from rnnx_lightning.explain.rows import SUM, Part, Row, Sum
from rnnx_lightning.explain.totals import Total, added
from rnnx_lightning.explain.walk import close, evaluate


class Argument(NamedTuple):
    """Of the signals: W x_t + b + r (U h_{t-1} + b'), all steps one below the other.

    Attributes:
        input_bias: b, (W, 1, H) or None.
        hidden_bias: b', (W, 1, H) or None.
        first: U h_0, (W, B, H), if it is a constant; None for zeros.
        reset: r, (W, T * B, H) or None.
    """

    input_bias: Tensor | None
    hidden_bias: Tensor | None
    first: Tensor | None
    reset: Tensor | None


class SumOfSteps(Sum):
    """The signals' arguments, (W, T * B, H); the second source, U h_{t-1}, can begin with the second step."""

    def total(self, node: Node, channel: Channel) -> Total | None:
        """The sum of both; what was before the first step is a constant."""
        argument: Argument = node.call
        reset = argument.reset if channel is not Channel.COUNT else None
        if channel is Channel.CONSTANT:
            later = torch.zeros(node.shape, dtype=node.dtype, device=node.device)
            later = later if argument.hidden_bias is None else later + argument.hidden_bias
            if argument.first is not None:
                later[:, : argument.first.shape[1]] += argument.first
            later = later if reset is None else later * reset
            return Total(later if argument.input_bias is None else later + argument.input_bias)
        totals = []
        for source, c in self.parts(node, channel):
            total = evaluate(source, c)
            if total is not None and source is not node.sources[0]:
                whole = F.pad(total.mantissa.expand(source.shape), (0, 0, node.shape[1] - source.shape[1], 0))
                total = Total(whole if reset is None else whole * reset)
            totals.append(total)
        return added(totals)


@dataclass
class Recurrence:
    """One layer.

    Attributes:
        composite: how biases and memories are treated.
        shape: ways, steps, examples, units.
        argument: the node of the signals' arguments, whose sources are W x_t and U h_{t-1}.
        memory: None for a plain RNN.
        read: relevance of the hidden states.
        factors: of the memory, from sums that it is a term of.
        came: after `hand_back`, the relevance of h_0, (W, B, H); None if it is a constant.
        passed: after `hand_back`, the factors of m_0.
    """

    composite: Composite
    shape: torch.Size
    argument: Node
    memory: Memory | None = None
    read: Tensor | None = None
    factors: dict[Channel, Tensor] = field(default_factory=dict)
    came: Tensor | None = None
    passed: dict[Channel, Tensor] = field(default_factory=dict)

    def total(self, channel: Channel) -> Total | None:
        """The total of the memories."""
        assert self.memory is not None  # else it has no node
        return self.memory.total(channel)

    def hand_back(self, node: Node | None) -> None:
        """From the hidden states and the memory (`node`; None for a plain RNN) to W x_t."""
        drive, *recurrent = (source for source in self.argument.sources if source is not None)
        for own in (self.argument, *recurrent):
            own.exact = drive.exact
        of_one = self.of_one(self.argument)
        if not of_one:
            return
        given = self._scan_back(node, of_one).flatten(1, 2).chunk(len(of_one), -1)
        for channel, factor in zip(of_one, given, strict=True):
            if (drive, channel) in SUM.parts(self.argument, channel):
                drive.receive(factor, channel)

    def of_one(self, node: Node) -> dict[Channel, Tensor]:
        """The factors that relevance 1 of each unit becomes."""
        inbox, node.inbox = node.inbox, [None] * (RELEVANCE + 1)
        close(node, torch.ones(node.shape, dtype=node.dtype, device=node.device), self.composite)
        factors, node.inbox = node.inbox, inbox
        # Where so little is left to share with that a quotient overflows, it is absorbed.
        found = ((channel, factors[channel]) for channel in CHANNELS)
        return {c: f.expand(node.shape).nan_to_num(0.0, 0.0, 0.0) for c, f in found if f is not None}

    def _scan_back(self, node: Node | None, of_one: dict[Channel, Tensor]) -> Tensor:
        """The factors of the signals' arguments, (W, T, B, H) for each channel, side by side."""
        count = len(of_one)
        shares = beside([factor.view(self.shape) for factor in of_one.values()])
        memory = None
        if self.memory is not None and node is not None:
            memory = MemoryBack(self.memory, node, self.of_one(node), self.factors, self.read)
        if memory is not None and memory.only_written is not None:
            shares = shares * repeated(memory.only_written, count)
        scaled = self._reset(shares, of_one)
        given = torch.empty_like(shares)
        matrix, states = self._recurrent(list(of_one))
        sides = 1 if matrix is None else matrix.shape[-1] // self.shape[-1]
        read = () if self.read is None or memory is not None else self.read.unbind(1)
        places, share_of = given.unbind(1), shares.unbind(1)
        scaled_of = () if scaled is None else scaled.unbind(1)
        first = self.shape[1] - len(states)  # the state before it is a constant
        came: Tensor | None = None  # what a hidden state gets from the next step
        for t in reversed(range(self.shape[1])):
            if memory is not None:
                relevance = memory.step(t, came)
            elif came is None:
                relevance = read[t]
            else:
                relevance = read[t] + came
            relevance = repeated(relevance, count)
            torch.mul(relevance, share_of[t], out=places[t])
            came = None
            if t >= first:
                assert matrix is not None  # there are states
                factor = relevance * scaled_of[t] if scaled_of else places[t]
                came = folded(torch.bmm(factor, matrix).mul_(states[t - first]), sides)
        self.came, self.passed = (came, {}) if memory is None else memory.before(came)
        return given

    def _reset(self, shares: Tensor, channels: Iterable[Channel]) -> Tensor | None:
        """The shares of U h_{t-1}, if a reset gate scales it."""
        reset = self.argument.call.reset
        if reset is None:
            return None
        one = torch.ones_like(reset)
        return shares * beside([one if c is Channel.COUNT else reset for c in channels]).view_as(shares)

    def _recurrent(self, channels: Sequence[Channel]) -> tuple[Tensor | None, Sequence[Tensor]]:
        """U, from factors side by side to what is multiplied with `states`, side by side, one for each step.

        The products are parts of the relevance of the hidden states, all of their width.
        """
        ways, _, batch, units = self.shape
        blocks: dict[int, tuple[Tensor, list[Tensor | None]]] = {}
        for number, channel in enumerate(channels):
            for recurrent, _ in SUM.parts(self.argument, channel):
                if recurrent is self.argument.sources[0]:
                    continue
                one = torch.eye(units, dtype=recurrent.dtype, device=recurrent.device).expand(ways, -1, -1)
                for product in recurrent.call.products(0, channel):
                    _, column = blocks.setdefault(id(product.value), (product.value, [None] * len(channels)))
                    block, before = product.sign * product.transposed(one), column[number]
                    column[number] = block if before is None else before + block
        if not blocks:
            return None, ()
        columns = []
        for value, column in blocks.values():
            shape = (ways, units, value.shape[-1])
            columns.append(torch.cat([value.new_zeros(shape) if block is None else block for block in column], 1))
        states = beside([value for value, _ in blocks.values()])
        return beside(columns), states.unflatten(1, (-1, batch)).unbind(1)


class MemoryRow(Row):
    """The memories of all steps, (W, T, B, H); `call` is a `Recurrence` or a `SegmentedRecurrence`."""

    def parts(self, node: Node, channel: Channel) -> Sequence[Part]:
        """None: it knows them itself."""
        return ()

    def total(self, node: Node, channel: Channel) -> Total | None:
        """Known to the layer."""
        total: Total | None = node.call.total(channel)
        return total

    def share(self, node: Node, channel: Channel, factor: Tensor) -> None:
        """To be handed back together."""
        node.call.factors[channel] = factor

    def finish(self, node: Node) -> None:
        """All steps at once."""
        if node.call.read is not None or node.call.factors:
            node.call.hand_back(node)


class HiddenRow(Row):
    """The hidden states of all steps; `call` is a `Recurrence` or a `SegmentedRecurrence`."""

    absorbs = False

    def pass_on(self, node: Node, relevance: Tensor) -> None:
        """To the memory, or if there is none to the signals."""
        node.call.read = relevance.expand(node.shape)
        (source,) = node.sources
        if source is None or source.row is not MEMORY:
            node.call.hand_back(node)


class RectifiedRow(HiddenRow):
    """The signal is rectified."""

    rectifies = True


MEMORY, HIDDEN, RECTIFIED, SUM_OF_STEPS = MemoryRow(), HiddenRow(), RectifiedRow(), SumOfSteps()
