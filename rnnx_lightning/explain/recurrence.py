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

from rnnx_lightning.explain.channels import Channel
from rnnx_lightning.explain.composite import Composite
from rnnx_lightning.explain.node import RELEVANCE, Node
from rnnx_lightning.explain.rows import SUM, Part, Row, Sum
from rnnx_lightning.explain.totals import EVERY, Total, added, exponent_of, normalised, power
from rnnx_lightning.explain.walk import close, evaluate


class Argument(NamedTuple):
    """Of the signals: W x_t + b + r (U h_{t-1} + b'), all steps one below the other.

    Attributes:
        input_bias: b, (W, 1, H) or None.
        hidden_bias: b', (W, 1, H) or None.
        first: U h_0, (W, B, H); None for zeros.
        reset: r, (W, T * B, H) or None.
    """

    input_bias: Tensor | None
    hidden_bias: Tensor | None
    first: Tensor | None
    reset: Tensor | None


class SumOfSteps(Sum):
    """The signals' arguments, (W, T * B, H); the second source, U h_{t-1}, begins with the second step."""

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
class Memory:
    """m_t = keep_t m_{t-1} + written_t, of all steps (W, T, B, H).

    Attributes:
        keep: a gate.
        written: the node of what a step writes.
        kept: the node of keep_t m_{t-1} from the second step on, where every step is closed; else None.
        start: m_0, (W, B, H); None for zeros.
    """

    keep: Tensor
    written: Node
    kept: Node | None
    start: Tensor | None


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
    """

    composite: Composite
    shape: torch.Size
    argument: Node
    memory: Memory | None = None
    read: Tensor | None = None
    factors: dict[Channel, Tensor] = field(default_factory=dict)

    def hand_back(self, node: Node) -> None:
        """From the hidden states and the memory (`node`, if there is one) to W x_t."""
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
        found = ((channel, factors[channel]) for channel in Channel)
        return {c: f.expand(node.shape).nan_to_num(0.0, 0.0, 0.0) for c, f in found if f is not None}

    def _scan_back(self, node: Node, of_one: dict[Channel, Tensor]) -> Tensor:
        """The factors of the signals' arguments, (W, T, B, H) for each channel, side by side."""
        count = len(of_one)
        shares = _beside([factor.view(self.shape) for factor in of_one.values()])
        memory = None if self.memory is None else MemoryBack(self, self.memory, node)
        if memory is not None and memory.alone is not None:
            shares = shares * _repeated(memory.alone, count)
        scaled = self._reset(shares, of_one)
        given = torch.empty_like(shares)
        matrix, states = self._recurrent(list(of_one))
        sides = 1 if matrix is None else matrix.shape[-1] // self.shape[-1]
        read = () if self.read is None or memory is not None else self.read.unbind(1)
        places, share_of = given.unbind(1), shares.unbind(1)
        scaled_of = () if scaled is None else scaled.unbind(1)
        came: Tensor | None = None  # what a hidden state gets from the next step
        for t in reversed(range(self.shape[1])):
            if memory is not None:
                relevance = memory.step(t, came)
            elif came is None:
                relevance = read[t]
            else:
                relevance = read[t] + came
            relevance = _repeated(relevance, count)
            torch.mul(relevance, share_of[t], out=places[t])
            if t and matrix is not None:
                factor = relevance * scaled_of[t] if scaled_of else places[t]
                came = _folded(torch.bmm(factor, matrix).mul_(states[t - 1]), sides)
        return given

    def _reset(self, shares: Tensor, channels: Iterable[Channel]) -> Tensor | None:
        """The shares of U h_{t-1}, if a reset gate scales it."""
        reset = self.argument.call.reset
        if reset is None:
            return None
        one = torch.ones_like(reset)
        return shares * _beside([one if c is Channel.COUNT else reset for c in channels]).view_as(shares)

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
        states = _beside([value for value, _ in blocks.values()])
        return _beside(columns), states.unflatten(1, (-1, batch)).unbind(1)


class MemoryBack:
    """A memory on the way back, step by step; channels lie side by side.

    Args:
        call: the layer.
        memory: its memory.
        node: of the memory.

    Attributes:
        alone: if there is one channel, what its factors are multiplied with in the end, and `step` does not.
    """

    def __init__(self, call: Recurrence, memory: Memory, node: Node) -> None:
        of_one = call.of_one(node)
        channels = [c for c in Channel if c in of_one or c in call.factors]
        self.count = len(channels)
        zeros = torch.zeros(call.shape, dtype=node.dtype, device=node.device)
        with_exponents = node.scaled
        totals = {
            c: evaluate(node, c) if with_exponents and c in (Channel.POSITIVE, Channel.NEGATIVE) else None
            for c in channels
        }
        written = _beside([_in_units_of(totals[c], evaluate(memory.written, c), zeros) for c in channels])
        self.alone = written if self.count == 1 else None
        self.written = written.unbind(1) if self.count > 1 else None
        closing = _beside([of_one.get(c, zeros) for c in channels])
        known = _beside([call.factors[c].expand(call.shape) if c in call.factors else zeros for c in channels])
        if call.read is not None:
            known = torch.addcmul(known, closing, _repeated(call.read, self.count))
        self.closing, self.known = closing.unbind(1), known.unbind(1)
        self.closed = memory.kept is not None
        if memory.kept is not None:
            passing = [_in_units_of(None, evaluate(memory.kept, c), zeros[:, 1:]) for c in channels]
        else:
            passing = [_carrying(memory.keep[:, 1:], c, totals[c]) for c in channels]
        self.passing = (zeros[:, 0], *_beside(passing).unbind(1))
        self.factor: Tensor | None = None  # of the memory one step later

    def step(self, t: int, came: Tensor | None) -> Tensor:
        """From what a hidden state gets from the next step to the relevance of what its memory has written."""
        later = None if self.factor is None else (self.factor, self.passing[t + 1])
        if later is not None and self.closed:
            kept = _folded(torch.mul(*later), self.count)
            came, later = kept if came is None else came + kept, None
        own = self.known[t]
        if came is not None:
            own = torch.addcmul(own, self.closing[t], _repeated(came, self.count))
        if later is not None:
            own = torch.addcmul(own, *later)
        self.factor = own
        return own if self.written is None else _folded(own * self.written[t], self.count)


class MemoryRow(Row):
    """The memories of all steps, (W, T, B, H); `call` is a `Recurrence`."""

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
            return Total(written.mantissa.cumsum(1))
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
    """sum_s keep_{s+1} ... keep_t written_s for every t: in blocks of steps, one after the other with an exponent.

    Args:
        keep: (W, T, B, H).
        written: of the same shape, without exponents.
        start: (W, B, H), kept from before the first step.
    """
    steps = keep.shape[1]
    own = torch.zeros_like(keep) if written is None else written.mantissa.expand(keep.shape)
    spare = (0, 0, 0, 0, 0, -steps % EVERY)
    kept, own = (F.pad(part, spare).unflatten(1, (-1, EVERY)).clone() for part in (keep, own))
    for t in range(1, EVERY):
        own[:, :, t].addcmul_(kept[:, :, t], own[:, :, t - 1])
        kept[:, :, t].mul_(kept[:, :, t - 1])
    total = Total(torch.zeros_like(keep[:, 0]) if start is None else start)
    before = []
    for block_kept, block_own in zip(kept[:, :, -1].unbind(1), own[:, :, -1].unbind(1), strict=True):
        before.append((total.mantissa, exponent_of(total)))
        total = normalised(_plus(Total(total.mantissa * block_kept, total.exponent), Total(block_own)))
    mantissa, exponent = (torch.stack(parts, 1).unsqueeze(2) for parts in zip(*before, strict=True))
    total = _plus(Total(mantissa * kept, exponent), Total(own))
    return Total(total.mantissa.flatten(1, 2)[:, :steps], exponent_of(total).flatten(1, 2)[:, :steps])


def _plus(one: Total, two: Total) -> Total:
    total = added([one, two])
    assert total is not None  # neither is
    return total


def _of_the_step_before(memory: Memory, channel: Channel, start: Tensor | None) -> list[Total | None]:
    """What each step keeps, as a term of a sum of its own."""
    kept = None if memory.kept is None else evaluate(memory.kept, channel)
    first = None if start is None else memory.keep[:, :1] * start.unsqueeze(1)
    first = None if first is None else F.pad(first, (0, 0, 0, 0, 0, memory.keep.shape[1] - 1))
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
    """What the factor of a memory becomes one step before, from the second step on."""
    if channel is Channel.COUNT:
        return torch.ones_like(keep)
    if total is None or total.exponent is None:
        return keep
    exponent = exponent_of(total)
    shift = (exponent[:, :-1] - exponent[:, 1:]).masked_fill(total.mantissa[:, 1:] == 0, 0)
    return keep * power(shift, keep)


def _beside(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), -1)


def _repeated(part: Tensor, times: int) -> Tensor:
    return part if times == 1 else torch.cat([part] * times, -1)


def _folded(part: Tensor, times: int) -> Tensor:
    return part if times == 1 else part.unflatten(-1, (times, -1)).sum(-2)


MEMORY, HIDDEN, RECTIFIED, SUM_OF_STEPS = MemoryRow(), HiddenRow(), RectifiedRow(), SumOfSteps()
