"""The way back through all steps of a recurrent layer in one direction: few operations a step.

All hidden states are known by then. So the totals of W x_t, of U h_{t-1} and of the memory are found for all steps at
once, and so are the factors that relevance 1 of each unit becomes: every way of sharing is linear in relevance. What
is left for the loop over the steps is one matrix product and some products element by element.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from rnnx_lightning.explain.channels import Channel
from rnnx_lightning.explain.composite import Composite
from rnnx_lightning.explain.node import RELEVANCE, Node, Total, power
from rnnx_lightning.explain.rows import SUM, Part, Row, Sum, added, exponent_of, normalised
from rnnx_lightning.explain.walk import close, evaluate

EVERY = 8  # so many steps shrink a memory's totals little enough


class Argument(NamedTuple):
    """Of a step's signal: W x_t + b + r (U h_{t-1} + b'), all steps one below the other, (T * B, H).

    Attributes:
        input_bias: b, (H,) or None.
        first: U h_0 + b', (B, H).
        hidden_bias: b', (H,) or None.
        reset: r, (T * B, H) or None.
    """

    input_bias: Tensor | None
    first: Tensor
    hidden_bias: Tensor | None
    reset: Tensor | None


class SumOfSteps(Sum):
    """The arguments of all steps' signals; the second source, U h_{t-1}, begins with the second step, if there is one."""

    def total(self, node: Node, channel: Channel) -> Total | None:
        """The sum of both; what was before the first step is a constant."""
        argument: Argument = node.call
        reset = argument.reset if channel is not Channel.COUNT else None
        if channel is Channel.CONSTANT:
            later = torch.zeros(node.shape, dtype=node.dtype, device=node.device)
            later = later if argument.hidden_bias is None else later + argument.hidden_bias
            later[: len(argument.first)] = argument.first
            later = later if reset is None else later * reset
            return Total(later if argument.input_bias is None else later + argument.input_bias)
        totals = []
        for source, c in self.parts(node, channel):
            total = evaluate(source, c)
            if total is not None and source is not node.sources[0]:
                whole = F.pad(total.mantissa.expand(source.shape), (0, 0, len(argument.first), 0))
                total = Total(whole if reset is None else whole * reset)
            totals.append(total)
        return added(totals)


@dataclass
class Memory:
    """m_t = keep_t m_{t-1} + written_t, of all steps (T, B, H).

    Attributes:
        keep: a gate.
        written: the node of what a step writes.
        kept: the node of keep_t m_{t-1} from the second step on, where every step is closed; else None.
        start: m_0, (B, H); None for zeros.
    """

    keep: Tensor
    written: Node
    kept: Node | None
    start: Tensor | None


@dataclass
class Recurrence:
    """One layer in one direction.

    Attributes:
        composite: how biases and memories are treated.
        shape: steps, examples, units.
        argument: the node of the signals' arguments, whose sources are W x_t and U h_{t-1}.
        memory: None for a plain RNN.
        read: relevance of the hidden states.
        factors: of the memory, from sums that it is a term of.
    """

    composite: Composite
    shape: tuple[int, int, int]
    argument: Node
    memory: Memory | None = None
    read: Tensor | None = None
    factors: dict[Channel, Tensor] = field(default_factory=dict)

    def hand_back(self, node: Node) -> None:
        """From the hidden states and the memory (`node`, if there is one) to W x_t."""
        drive = self.argument.sources[0]
        assert drive is not None  # x is made of the input
        for part in (self.argument, *self.argument.sources[1:]):
            assert part is not None  # what is not there is left out
            part.exact = drive.exact
        of_one = self._of_one(self.argument)
        given = self._scan_back(node, of_one) if of_one else None
        takes = [c for c in of_one if (drive, c) in SUM.parts(self.argument, c)]
        for channel, part in zip(of_one, () if given is None else given.chunk(len(of_one), -1), strict=False):
            if channel in takes:
                drive.receive(part.flatten(0, 1), channel)

    def _scan_back(self, node: Node, of_one: dict[Channel, Tensor]) -> Tensor:
        """The factors of the signals' arguments, (T, B, H) for each channel, side by side."""
        steps, _, units = self.shape
        shares = _beside([factor.view(self.shape) for factor in of_one.values()])
        through = self._reset(shares, of_one)
        matrix, values = self._recurrent(list(of_one))
        memory = None if self.memory is None else _MemoryBack(self, self.memory, node)
        given = torch.empty_like(shares)
        rows = [t.unbind() for t in (shares, shares if through is None else through, given)]
        read = [None] * steps if self.read is None else self.read.unbind()
        befores = () if values is None else values.unbind()
        came: Tensor | None = None
        for t in reversed(range(steps)):
            own = read[t]
            relevance = came if own is None else own if came is None else own + came
            if memory is not None:
                relevance = memory.step(t, relevance)
            if relevance is None:
                given[t].zero_()
                continue
            share, scaled, factor = (row[t] for row in rows)
            relevance = _repeated(relevance, len(of_one))
            torch.mul(relevance, share, out=factor)
            if t and matrix is not None:
                factor = factor if through is None else relevance * scaled
                came = _folded(torch.mm(factor, matrix).mul_(befores[t - 1]), units)
        return given

    def _reset(self, shares: Tensor, channels: Iterable[Channel]) -> Tensor | None:
        """The shares of U h_{t-1}, if a reset gate scales it."""
        reset = self.argument.call.reset
        if reset is None:
            return None
        one = torch.ones_like(reset)
        return shares * _beside([one if c is Channel.COUNT else reset for c in channels]).view_as(shares)

    def _recurrent(self, channels: Sequence[Channel]) -> tuple[Tensor | None, Tensor | None]:
        """U as one matrix from factors, side by side, to what `values`, side by side, are multiplied with.

        A hidden state's relevance is the sum of such products, all of the state's width.
        """
        _, batch, units = self.shape
        if len(self.argument.sources) == 1:
            return None, None
        recurrent = self.argument.sources[1]
        assert recurrent is not None  # what is not there is left out
        blocks: dict[int, tuple[Tensor, list[Tensor | None]]] = {}
        one = torch.eye(units, dtype=recurrent.dtype, device=recurrent.device)
        for number, channel in enumerate(channels):
            if (recurrent, channel) not in SUM.parts(self.argument, channel):
                continue
            for product in recurrent.call.products(0, channel):
                _, column = blocks.setdefault(id(product.value), (product.value, [None] * len(channels)))
                block = product.sign * product.transposed(one)
                before = column[number]
                column[number] = block if before is None else before + block
        if not blocks:
            return None, None
        columns = []
        for value, column in blocks.values():
            empty = value.new_zeros(units, value.shape[-1])
            columns.append(torch.cat([empty if block is None else block for block in column]))
        values = _beside([value for value, _ in blocks.values()])
        return _beside(columns), values.unflatten(0, (-1, batch))

    def _of_one(self, node: Node) -> dict[Channel, Tensor]:
        """The factors that relevance 1 of each unit becomes."""
        inbox, node.inbox = node.inbox, [None] * (RELEVANCE + 1)
        close(node, torch.ones(node.shape, dtype=node.dtype, device=node.device), self.composite)
        factors, node.inbox = node.inbox, inbox
        # Where so little is left to share with that a quotient overflows, it is absorbed.
        return {
            c: factor.expand(node.shape).masked_fill(~factor.isfinite(), 0)
            for c in Channel
            if (factor := factors[c]) is not None
        }


class _MemoryBack:
    """A memory on the way back, step by step; channels lie side by side."""

    def __init__(self, call: Recurrence, memory: Memory, node: Node) -> None:
        self.units = call.shape[2]
        of_one = call._of_one(node)
        self.channels = [c for c in Channel if c in of_one or c in call.factors]
        zeros = torch.zeros(call.shape, dtype=node.dtype, device=node.device)
        self.closing = _beside([of_one.get(c, zeros) for c in self.channels]).unbind()
        extra = [call.factors[c].expand(call.shape) if c in call.factors else zeros for c in self.channels]
        self.extra = _beside(extra).unbind() if call.factors else None
        totals = {c: evaluate(node, c) if node.scaled else None for c in self.channels}
        self.written = _beside(
            [_in_units_of(totals[c], evaluate(memory.written, c), zeros) for c in self.channels]
        ).unbind()
        self.closed = memory.kept is not None
        if memory.kept is not None:
            passing = [_in_units_of(None, evaluate(memory.kept, c), zeros[1:]) for c in self.channels]
        else:
            passing = [_carrying(memory.keep[1:], c, totals[c]) for c in self.channels]
        self.passing = (zeros[0], *_beside(passing).unbind())
        self.factor: Tensor | None = None  # of the memory one step later

    def step(self, t: int, relevance: Tensor | None) -> Tensor | None:
        """From the relevance of a step's memory to that of what the step has written."""
        later = None if self.factor is None else self.factor * self.passing[t + 1]
        if self.closed and later is not None:
            later = _folded(later, self.units)
            relevance = later if relevance is None else relevance + later
            later = None
        if relevance is not None:
            own = _repeated(relevance, len(self.channels)) * self.closing[t]
            later = own if later is None else later.add_(own)
        if self.extra is not None:
            later = self.extra[t] if later is None else later + self.extra[t]
        self.factor = later
        return None if later is None else _folded(later * self.written[t], self.units)


class MemoryRow(Row):
    """The memories of all steps, (T, B, H); `call` is a `Recurrence`."""

    def parts(self, node: Node, channel: Channel) -> Sequence[Part]:
        """None: it knows them itself."""
        return ()

    def total(self, node: Node, channel: Channel) -> Total | None:
        """Of all steps, with exponents; of each step alone, where each is closed."""
        memory: Memory = node.call.memory
        written = evaluate(memory.written, channel)
        start = memory.start if channel is Channel.CONSTANT else None
        if node.call.composite.memory == "per_step":
            return added([written, *_of_the_step_before(memory, channel, start)])
        if written is None and start is None:
            return None
        if channel is Channel.COUNT:
            assert written is not None  # there is no start
            return Total(written.mantissa.cumsum(0))
        total = accumulated(memory.keep, written, start)
        return Total(total.real) if channel is Channel.NET else total

    def share(self, node: Node, channel: Channel, factor: Tensor) -> None:
        """To be handed back together."""
        node.call.factors[channel] = factor

    def finish(self, node: Node) -> None:
        """All steps at once."""
        call: Recurrence = node.call
        if call.read is not None or call.factors:
            call.hand_back(node)


class HiddenRow(Row):
    """The hidden states of all steps; `call` is a `Recurrence`."""

    absorbs = False

    def pass_on(self, node: Node, relevance: Tensor) -> None:
        """To the memory, or if there is none to the signals."""
        call: Recurrence = node.call
        call.read = relevance.expand(node.shape)
        if call.memory is None:
            call.hand_back(node)


class RectifiedRow(HiddenRow):
    """The signal is rectified."""

    rectifies = True


def accumulated(keep: Tensor, written: Total | None, start: Tensor | None) -> Total:
    """sum_s keep_{s+1} ... keep_t written_s for every t: in blocks of steps, each after the other with an exponent.

    Args:
        keep: (T, B, H).
        written: (T, B, H) without exponents.
        start: (B, H), kept from before the first step.
    """
    steps = len(keep)
    own = torch.zeros_like(keep) if written is None else written.mantissa.expand(keep.shape)
    spare = (0, 0, 0, 0, 0, -steps % EVERY)
    kept, own = (F.pad(part, spare).unflatten(0, (-1, EVERY)).clone() for part in (keep, own))
    for t in range(1, EVERY):
        own[:, t].addcmul_(kept[:, t], own[:, t - 1])
        kept[:, t].mul_(kept[:, t - 1])
    total = Total(torch.zeros_like(keep[0]) if start is None else start)
    before = []
    for block_kept, block_own in zip(kept[:, -1].unbind(), own[:, -1].unbind(), strict=True):
        before.append((total.mantissa, exponent_of(total)))
        total = normalised(added_two(Total(total.mantissa * block_kept, total.exponent), Total(block_own)))
    mantissa, exponent = (torch.stack(parts).unsqueeze(1) for parts in zip(*before, strict=True))
    total = added_two(Total(mantissa * kept, exponent), Total(own))
    return Total(*(None if part is None else part.flatten(0, 1)[:steps] for part in total))


def added_two(one: Total, two: Total) -> Total:
    """The sum of two totals."""
    total = added([one, two])
    assert total is not None  # neither is None
    return total


def _of_the_step_before(memory: Memory, channel: Channel, start: Tensor | None) -> list[Total | None]:
    """What each step keeps, as a term of a sum of its own."""
    kept = None if memory.kept is None else evaluate(memory.kept, channel)
    first = None if start is None else F.pad(memory.keep[:1] * start, (0, 0, 0, 0, 0, len(memory.keep) - 1))
    later = None if kept is None else F.pad(kept.mantissa, (0, 0, 0, 0, 1, 0))
    return [None if part is None else Total(part) for part in (first, later)]


def _in_units_of(total: Total | None, part: Total | None, zeros: Tensor) -> Tensor:
    """Contributions, divided by 2^exponent of the total that they are part of."""
    if part is None:
        return zeros
    mantissa = part.mantissa.expand(zeros.shape)
    if total is None or total.exponent is None:
        return mantissa
    return mantissa * power(exponent_of(Total(mantissa)) - total.exponent, mantissa)


def _carrying(keep: Tensor, channel: Channel, total: Total | None) -> Tensor:
    """What the factor of a memory becomes one step before."""
    if channel is Channel.COUNT:
        return torch.ones_like(keep)
    if total is None or total.exponent is None:
        return keep
    exponent = exponent_of(total)
    shift = (exponent[:-1] - exponent[1:]).masked_fill(total.mantissa[1:] == 0, 0)
    return keep * power(shift, keep)


def _beside(parts: Sequence[Tensor]) -> Tensor:
    return parts[0].contiguous() if len(parts) == 1 else torch.cat(list(parts), -1)


def _repeated(part: Tensor, times: int) -> Tensor:
    return part if times == 1 else part.repeat(1, times)


def _folded(part: Tensor, units: int) -> Tensor:
    return part if part.shape[-1] == units else part.unflatten(-1, (-1, units)).sum(-2)


MEMORY, HIDDEN, RECTIFIED, SUM_OF_STEPS = MemoryRow(), HiddenRow(), RectifiedRow(), SumOfSteps()
