"""The memory of a recurrent layer: its totals, and the way back through all steps.

Shapes are (W, T, B, H), as in `recurrence`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from rnnx_lightning.explain.channels import CHANNELS, Channel
from rnnx_lightning.explain.node import Node
from rnnx_lightning.explain.totals import EVERY, Total, added, exponent_of, normalised, power
from rnnx_lightning.explain.walk import evaluate

Before = Callable[[Channel], Total | None]  # the total of a channel of the memory before the first step


@dataclass
class Memory:
    """m_t = keep_t m_{t-1} + written_t, of all steps (W, T, B, H).

    Attributes:
        keep: a gate.
        written: the node of what a step writes.
        kept: the node of keep_t m_{t-1}, where every step is closed; else None. It begins with the second step if
            m_0 is a constant.
        closed: every step is a sum of its own; else all steps are one.
        before: the total of a channel of m_0, (W, B, H); None if it is empty, or a term of `kept`.
    """

    keep: Tensor
    written: Node
    kept: Node | None
    closed: bool
    before: Before

    def total(self, channel: Channel) -> Total | None:
        """The total of the memories of all steps, with exponents; where each step is closed, of each by itself."""
        written, before = evaluate(self.written, channel), self.before(channel)
        if self.closed:
            return added([written, *_of_the_step_before(self, channel, before)])
        if written is None and before is None:
            return None
        if channel is Channel.COUNT:
            assert written is not None  # there is no constant
            counts = written.mantissa.expand(self.keep.shape).cumsum(1)
            return Total(counts if before is None else counts + before.mantissa.unsqueeze(1))
        total = accumulated(self.keep, written, before)
        return Total(total.real) if channel is Channel.NET else total


class MemoryBack:
    """A memory on the way back, step by step; channels lie side by side.

    Args:
        memory: the memory.
        node: its node.
        of_one: the factors that relevance 1 of each unit becomes.
        factors: what the memory got from sums that it is a term of.
        read: relevance of the hidden states; None if there is none.

    Attributes:
        only_written: with one channel, what its factors still have to be multiplied with after `step`; else None.
    """

    def __init__(
        self,
        memory: Memory,
        node: Node,
        of_one: Mapping[Channel, Tensor],
        factors: Mapping[Channel, Tensor],
        read: Tensor | None,
    ) -> None:
        self.channels = channels = [c for c in CHANNELS if c in of_one or c in factors]
        self.count = len(channels)
        zeros = torch.zeros_like(memory.keep)
        with_exponents = node.scaled
        totals = {
            c: evaluate(node, c) if with_exponents and c in (Channel.POSITIVE, Channel.NEGATIVE) else None
            for c in channels
        }
        written = beside([_in_units_of(totals[c], evaluate(memory.written, c), zeros) for c in channels])
        self.only_written = written if self.count == 1 else None
        self.written = written.unbind(1) if self.count > 1 else None
        closing = beside([of_one.get(c, zeros) for c in channels])
        known = beside([factors[c].expand(zeros.shape) if c in factors else zeros for c in channels])
        if read is not None:
            known = torch.addcmul(known, closing, repeated(read, self.count))
        self.closing, self.known = closing.unbind(1), known.unbind(1)
        self.closed = memory.kept is not None
        if memory.kept is not None:
            like = zeros[:, zeros.shape[1] - memory.kept.shape[1] :]
            passing = [_from_first(_in_units_of(None, evaluate(memory.kept, c), like), zeros) for c in channels]
        else:
            passing = [_carrying(memory.keep, c, totals[c], memory.before(c)) for c in channels]
        self.passing = beside(passing).unbind(1)
        self.factor: Tensor | None = None  # of the memory one step later

    def step(self, t: int, came: Tensor | None) -> Tensor:
        """From what a hidden state gets from the next step to the relevance of what its memory has written."""
        later = None if self.factor is None else (self.factor, self.passing[t + 1])
        if later is not None and self.closed:
            kept = folded(torch.mul(*later), self.count)
            came, later = kept if came is None else came + kept, None
        own = self.known[t]
        if came is not None:
            own = torch.addcmul(own, self.closing[t], repeated(came, self.count))
        if later is not None:
            own = torch.addcmul(own, *later)
        self.factor = own
        return own if self.written is None else folded(own * self.written[t], self.count)

    def before(self, came: Tensor | None) -> tuple[Tensor | None, dict[Channel, Tensor]]:
        """What the states before the first step get: the hidden state relevance, the memory factors."""
        assert self.factor is not None  # after the first step
        passed = self.factor * self.passing[0]
        if not self.closed:
            return came, dict(zip(self.channels, passed.chunk(self.count, -1), strict=True))
        kept = folded(passed, self.count)
        return kept if came is None else came + kept, {}


def accumulated(keep: Tensor, written: Total | None, start: Total | None) -> Total:
    """sum_s keep_{s+1} ... keep_t written_s for every t: in blocks of steps, one after the other with an exponent.

    Args:
        keep: (W, T, B, H).
        written: of the same shape, without exponents.
        start: (W, B, H), of the memory before the first step.
    """
    steps = keep.shape[1]
    own = torch.zeros_like(keep) if written is None else written.mantissa.expand(keep.shape)
    spare = (0, 0, 0, 0, 0, -steps % EVERY)
    kept, own = (F.pad(part, spare).unflatten(1, (-1, EVERY)).clone() for part in (keep, own))
    for t in range(1, EVERY):
        own[:, :, t].addcmul_(kept[:, :, t], own[:, :, t - 1])
        kept[:, :, t].mul_(kept[:, :, t - 1])
    total = Total(torch.zeros_like(keep[:, 0])) if start is None else start
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


def _of_the_step_before(memory: Memory, channel: Channel, before: Total | None) -> list[Total | None]:
    """What each step keeps, as a term of a sum of its own."""
    kept = None if memory.kept is None else evaluate(memory.kept, channel)
    first = None if before is None else memory.keep[:, :1] * before.real.unsqueeze(1)
    first = None if first is None else F.pad(first, (0, 0, 0, 0, 0, memory.keep.shape[1] - 1))
    later = None if kept is None else _from_first(kept.mantissa, memory.keep)
    return [None if part is None else Total(part) for part in (first, later)]


def _from_first(part: Tensor, whole: Tensor) -> Tensor:
    """Zeros where a part of all steps does not begin with the first."""
    return F.pad(part, (0, 0, 0, 0, whole.shape[1] - part.shape[1], 0))


def _in_units_of(total: Total | None, part: Total | None, zeros: Tensor) -> Tensor:
    """Contributions, divided by 2^exponent of the total that they are part of."""
    if part is None:
        return zeros
    mantissa = part.mantissa.expand(zeros.shape)
    if total is None or total.exponent is None:
        return mantissa
    return mantissa * power(exponent_of(Total(mantissa)) - total.exponent, mantissa)


def _carrying(keep: Tensor, channel: Channel, total: Total | None, before: Total | None) -> Tensor:
    """What the factor of a memory becomes one step before."""
    if channel is Channel.COUNT:
        return torch.ones_like(keep)
    if total is None or total.exponent is None:
        return keep
    start = Total(torch.zeros_like(keep[:, 0])) if before is None else before
    exponent = torch.cat([exponent_of(start).unsqueeze(1), exponent_of(total)], 1)
    shift = (exponent[:, :-1] - exponent[:, 1:]).masked_fill(total.mantissa == 0, 0)
    return keep * power(shift, keep)


def beside(parts: Sequence[Tensor]) -> Tensor:
    """Parts of several channels side by side."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), -1)


def repeated(part: Tensor, times: int) -> Tensor:
    """The same for each channel, side by side."""
    return part if times == 1 else torch.cat([part] * times, -1)


def folded(part: Tensor, times: int) -> Tensor:
    """The sum of parts that lie side by side."""
    return part if times == 1 else part.unflatten(-1, (times, -1)).sum(-2)
