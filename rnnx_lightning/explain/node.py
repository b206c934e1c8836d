"""What is known of one value that is made of the input, and what it is handed on the way back."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rnnx_lightning.explain.channels import Channel
from rnnx_lightning.explain.pixels import Pixels
from rnnx_lightning.explain.totals import UNKNOWN, Total, Unknown

if TYPE_CHECKING:
    from rnnx_lightning.explain.rows import Row
    from rnnx_lightning.explain.rules import Rule

RELEVANCE = len(Channel)  # where a node's own relevance lies, after the factors of its channels


class Node:
    """One value that is made of the input.

    It does not hold the value, unless it is a sum whose rule looks at it.

    Attributes:
        row: what the operation is to relevance.
        sources: what it is made of; None for a constant.
        call: what the row needs to know.
        nonnegative: all entries that are no pixels are known to be >= 0.
        pixels: which entries are pixels.
        pair: of a complex value, its real and imaginary part (..., 2), which are on the tape.
        present: False where an entry is padding; None for nowhere.
        gate: a factor that takes no relevance (a sigmoid's output, or 1 - it, a standard deviation).
        gated: a gate scales it, or a term of it: a memory.
        lost: a gate times a constant: as a term it is a constant.
        magnitude: a gate that is a signal first, an absolute value: what is added to it takes its share.
        rule: set where the value is a sum of contributions.
        value: the value of such a sum, if the rule looks at it.
        by_value: the value is the sum of all contributions and of the constant.
        constant: the sum has a constant.
        depth: how many gates and constants scale the sum, one after the other.
        scaled: totals have exponents.
        exact: totals must be right for units that are not positive, too.
        kept: somebody wants to know its relevance.
        logits: the argument of a sigmoid or a softmax, until its output scales something.
        refusal: why there is no way back.
        reason: why there is none from a gate that is used as a signal.
    """

    __slots__ = (
        "_owned", "by_value", "call", "constant", "depth", "device", "dtype", "exact", "gate", "gated",
        "inbox", "kept", "logits", "lost", "magnitude", "nonnegative", "pair", "pixels", "present",
        "reason",        "refusal", "row", "rule", "scaled", "shape", "sources", "tape", "totals", "value",
    )  # fmt: skip

    def __init__(
        self,
        row: "Row",
        sources: Sequence["Node | None"],
        like: Tensor,
        call: Any = None,
        nonnegative: bool = False,
        pixels: Pixels | None = None,
        gate: bool = False,
    ) -> None:
        self.row = row
        self.sources = sources
        self.shape, self.dtype, self.device = like.shape, like.dtype, like.device
        self.call = call
        self.nonnegative = nonnegative
        self.pixels = pixels
        self.gate = gate
        self.gated = False
        self.present: Tensor | None = None
        self.pair: Tensor | None = None
        self.lost = self.magnitude = False
        self.rule: Rule | None = None
        self.value: Tensor | None = None
        self.logits: Tensor | None = None
        self.by_value = self.constant = self.scaled = self.exact = self.kept = False
        self.depth = 0
        self.refusal: str | None = None
        self.reason: str | None = None
        self.tape: object = None
        self.inbox: list[Tensor | None] = [None] * (RELEVANCE + 1)
        self.totals: list[Total | Unknown | None] = [UNKNOWN] * len(Channel)
        self._owned = 0

    def total(self, channel: Channel) -> Total | None:
        """A total that has been computed."""
        total = self.totals[channel]
        assert not isinstance(total, Unknown)  # callers have evaluated it
        return total

    def receive(self, part: Tensor, slot: int = RELEVANCE) -> None:
        """Add relevance, or the factor of a channel, of the node's shape."""
        got = self.inbox[slot]
        if got is None:
            self.inbox[slot] = part
        elif self._owned >> slot & 1 and not torch.is_grad_enabled():
            got.add_(part)
        else:
            self.inbox[slot] = got + part
            self._owned |= 1 << slot

    def receive_at(self, view: Callable[[Tensor], Tensor], part: Tensor, slot: int = RELEVANCE) -> None:
        """Add to some entries: those that `view` shows of a tensor of the node's shape."""
        if torch.is_grad_enabled():
            leaf = torch.zeros(self.shape, dtype=self.dtype, device=self.device, requires_grad=True)
            self.receive(torch.autograd.grad(view(leaf), leaf, part, create_graph=True)[0], slot)
            return
        got = self.inbox[slot]
        if got is None or not self._owned >> slot & 1:
            whole = torch.zeros(self.shape, dtype=self.dtype, device=self.device)
            got = whole if got is None else whole.add_(got)
            self.inbox[slot] = got
            self._owned |= 1 << slot
        view(got).add_(part)

    def free(self) -> None:
        """Let go of all that the walk needed; it has passed."""
        self.sources, self.call, self.value, self.tape, self.logits = (), None, None, None, None
        self.inbox, self.totals, self.pixels, self.present, self.pair = [], [], None, None, None
