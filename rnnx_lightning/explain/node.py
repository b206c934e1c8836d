"""A node of the tape: one value that depends on the input, and the relevance it receives."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any
from weakref import ref

import torch
from torch import Tensor

from rnnx_lightning.explain.channels import Channel
from rnnx_lightning.explain.pixels import Pixels
from rnnx_lightning.explain.totals import UNKNOWN, Total, Unknown

if TYPE_CHECKING:
    from rnnx_lightning.explain.pieces import Pieces
    from rnnx_lightning.explain.rows import Row
    from rnnx_lightning.explain.rules import Rule

RELEVANCE = len(Channel)  # the slot of a node's own relevance, after those of its channels' factors
NO_TOTALS: list[Total | Unknown | None] = [UNKNOWN] * len(Channel)
NOTHING: list[Tensor | None] = [None] * (RELEVANCE + 1)


class Node:
    """One value that depends on the input.

    A node does not hold the value itself, unless it is a sum whose rule needs it.

    Attributes:
        row: how the operation treats relevance.
        sources: the nodes it is computed from; None for a constant.
        call: data that the row needs.
        nonnegative: all entries that are not pixels are known to be >= 0.
        pixels: which entries are pixels.
        pieces: the parts of a joined tensor.
        views: the views that were made of the value.
        original: of a view, the node of the same view that was made before.
        others: set if some entries are sums; see `mixed.others`. Empty if the value is made of one that is mixed.
        twin: a mixed value as a sum, if it was used as such.
        pair: of a complex value, its real and imaginary parts (..., 2), which are on the tape.
        present: False where an entry is padding; None if there is no padding.
        gate: a factor that gets no relevance (the output of a sigmoid, 1 - gate, a standard deviation).
        gated: the value, or a term of it, is scaled by a gate, as in a memory cell.
        lost: a gate times a constant; as a term of a sum, it is a constant.
        magnitude: a gate that is also a signal, such as an absolute value: what is added to it gets its share.
        rule: set if the value is a sum of contributions.
        two_rules: some of the sum's terms have a rule that adapts, others do not.
        sides: such a sum as two, see `sides.sides`; if it is scaled, relevance goes to them.
        value: the value of such a sum, if the rule needs it.
        by_value: the value is the sum of all contributions and the constant.
        constant: the sum has a constant term.
        depth: how many gates and constants scale the sum, one after another.
        scaled: totals have exponents.
        exact: totals must also be right for units that are not positive.
        filled: a value of 0 may get relevance.
        kept: its relevance is to be reported.
        weights: attention weights (a softmax), or made of them.
        at_zero: of a gate, its value where the argument of its sigmoid or exp is 0, if that is known.
        logits: the argument of a sigmoid or softmax, until its output scales something.
        refusal: why relevance cannot go back from this value.
        reason: the same for a gate that is used as a signal.
    """

    __slots__ = (
        "__weakref__", "_owned", "at_zero", "by_value", "call", "constant", "depth", "device", "dtype", "exact",
        "filled", "gate", "gated", "inbox", "kept", "logits", "lost", "magnitude", "nonnegative", "original",
        "others", "pair", "pieces", "pixels", "present", "reason", "refusal", "row", "rule", "scaled", "shape",
        "sides", "sources", "tape", "totals", "twin", "two_rules", "value", "views", "weights",
    )  # fmt: skip

    def __init__(
        self,
        row: "Row",
        sources: Sequence["Node | None"],
        like: "Tensor | Node",
        call: Any = None,
        nonnegative: bool = False,
        pixels: Pixels | None = None,
        gate: bool = False,
    ) -> None:
        self.row = row
        self.sources = sources
        self.shape: torch.Size = like.shape
        self.dtype: torch.dtype = like.dtype
        self.device: torch.device = like.device
        self.call = call
        self.nonnegative = nonnegative
        self.pixels = pixels
        self.gate = gate
        self.gated = False
        self.present: Tensor | None = None
        self.pair: Tensor | None = None
        self.pieces: Pieces | None = None
        self.views: dict[Any, list[ref[Node] | None]] | None = None
        self.original: Node | None = None
        self.others: Sequence[Tensor | None] | None = None
        self.twin: Node | None = None
        self.sides: Sequence[Node] | None = None
        self.lost = self.magnitude = self.weights = self.filled = False
        self.rule: Rule | None = None
        self.value: Tensor | None = None
        self.logits: Tensor | None = None
        self.by_value = self.constant = self.scaled = self.exact = self.kept = self.two_rules = False
        self.depth = 0
        self.at_zero: float | None = None
        self.refusal: str | None = None
        self.reason: str | None = None
        self.tape: object = None
        self.inbox = NOTHING.copy()
        self.totals = NO_TOTALS.copy()
        self._owned = 0

    @property
    def first(self) -> "Node":
        """The node of the same value that was made first."""
        return self if self.original is None else self.original

    def of_terms(self, terms: "Sequence[Node]") -> None:
        """Set what holds for a sum if it does for one of its terms, which are sums."""
        kinds = set()
        self.constant = self.scaled = self.two_rules = False
        self.depth = 0
        for term in terms:
            self.constant |= term.constant
            self.scaled |= term.scaled
            self.two_rules |= term.two_rules
            self.depth = max(self.depth, term.depth)
            if term.rule is not None:
                kinds.add(term.rule.adapts)
        self.two_rules |= len(kinds) > 1

    def mark_gated(self) -> None:
        """Remember that a gate scales the value, and its two sums if it has two."""
        for node in (self, *(self.sides or ())):
            node.gated = True

    def total(self, channel: Channel) -> Total | None:
        """A total that has been computed."""
        total = self.totals[channel]
        assert not isinstance(total, Unknown)  # callers evaluate it first
        return total

    def receive(self, part: Tensor, slot: int = RELEVANCE) -> None:
        """Add relevance, or the factor of a channel, of the node's shape."""
        if part.dtype is not self.dtype and self.dtype.is_floating_point:  # a sum of two types is of the wider one
            part = part.to(self.dtype)
        got = self.inbox[slot]
        if got is None:
            self.inbox[slot] = part
        elif self._owned >> slot & 1 and not torch.is_grad_enabled():
            got.add_(part)
        else:
            self.inbox[slot] = got + part
            self._owned |= 1 << slot

    def receive_at(self, view: Callable[[Tensor], Tensor], part: Tensor, slot: int = RELEVANCE) -> None:
        """Add to the entries that `view` selects from a tensor of the node's shape."""
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
        """Free everything that the walk no longer needs."""
        self.sources, self.call, self.value, self.tape, self.logits = (), None, None, None, None
        self.inbox, self.totals = [], []
        self.pixels, self.present, self.pair, self.pieces, self.others, self.twin, self.sides = (None,) * 7
        self.views, self.original = None, None
