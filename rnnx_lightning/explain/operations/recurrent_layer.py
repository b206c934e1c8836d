"""One recurrent layer on the tape: all its time steps as a few nodes.

A layer runs without a tape, with all W x_t in one product, and keeps what the backward pass needs; or, in segments
of time steps, only the states between segments. Both directions are stacked: tensors are (W, T, B, H), with W = 1
or 2 directions, T time steps in reading order, and B examples.
"""

import torch
from torch import Tensor

from rnnx_lightning.explain.channels import Channel
from rnnx_lightning.explain.linear import IDENTITY, Operation
from rnnx_lightning.explain.memories import Before, Memory
from rnnx_lightning.explain.node import Node
from rnnx_lightning.explain.operations.recurrent_steps import STEPS, Steps, Weights, affine
from rnnx_lightning.explain.recurrence import HIDDEN, MEMORY, RECTIFIED, SUM_OF_STEPS, Argument, Recurrence
from rnnx_lightning.explain.rows import PASS
from rnnx_lightning.explain.segments import Segment, SegmentedRecurrence
from rnnx_lightning.explain.tape import Tape
from rnnx_lightning.explain.totals import Total

OF_EACH_WAY = Operation(lambda a, w: a @ w, lambda factors, w, _: factors @ w.mT, beside=(-1, -2))


class Layer:
    """One layer, and how it is recorded.

    Args:
        tape: the tape.
        name: "lstm", "gru", "rnn_tanh" or "rnn_relu".
        weights: its weights.
        start: the hidden state before the first step, (W, B, H), and for an LSTM the memory.
    """

    def __init__(self, tape: Tape, name: str, weights: Weights, start: list[Tensor]) -> None:
        self.tape, self.name, self.weights, self.start = tape, name, weights, start
        self.batch, self.units = start[0].shape[1:]
        self.remembers = name in ("lstm", "gru")
        self.closed = tape.composite.memory == "per_step"
        self.place = tape.path.place
        self.before = Total(start[-1]) if bool(start[-1].any()) else None

    def at_once(self, flat: Tensor) -> tuple[Tensor, Tensor | None]:
        """Run and record all steps.

        Args:
            flat: x of all steps one below the other, (W, T * B, D).

        Returns:
            The hidden states, and the memories of an LSTM, (W, T, B, H).
        """
        steps = self._run(flat, self.start)
        drive = self.tape.append(self._drive(self.tape.node(flat), flat))
        call = self._call(drive, steps, None, self._known)
        self._note(call, drive, steps.hidden, steps.memory)
        return steps.hidden, steps.memory

    def in_segments(self, flat: Tensor, steps: int) -> tuple[Tensor, Tensor | None]:
        """Run all steps, and record the layer without their values: a segment is run again when it is needed.

        Args:
            flat: see `at_once`.
            steps: of a segment.

        Returns:
            The hidden states, (W, T, B, H), and the last memory of an LSTM, (W, 1, B, H).
        """
        source, rows = self.tape.node(flat), steps * self.batch
        states, hidden = [self.start], []
        for part in flat.split(rows, 1):
            own = self._run(part, states[-1])
            hidden.append(own.hidden)
            states.append([last[:, -1].clone() for last in (own.hidden, own.memory) if last is not None])
        whole = torch.cat(hidden, 1)
        drive = self.tape.append(self._drive(source, flat))

        def segment(number: int, before: Before) -> Segment:
            def cut(part: Tensor) -> Tensor:
                return part[:, number * rows : (number + 1) * rows]

            x = cut(flat)
            own = Node(PASS, (), x, nonnegative=source.nonnegative)
            own.pixels = None if source.pixels is None else source.pixels.moved(cut, source.shape)
            own.present = None if source.present is None else cut(source.present)
            running, self.tape.path.place = self.tape.path.place, self.place
            first, values = self._drive(own, x), self._run(x, states[number])
            call = self._call(first, values, states[number] if number else None, before)
            shown = values.hidden if values.memory is None else values.memory
            memory = self._memory(call, first, shown) if self.remembers else None
            self.tape.path.place = running
            return Segment(own, call, memory)

        memory = states[-1][1].unsqueeze(1) if self.name == "lstm" else None
        shown = whole.shape[1] if memory is None else 1
        call = SegmentedRecurrence(
            self.tape.composite, whole.shape, steps, source, drive, self._known, shown, segment
        )
        self._note(call, drive, whole, memory)
        return whole, memory

    def _run(self, flat: Tensor, start: list[Tensor]) -> Steps:
        drive = affine(flat, self.weights.input, self.weights.input_bias).unflatten(1, (-1, self.batch))
        return STEPS[self.name](drive, start, self.weights)

    def _known(self, channel: Channel) -> Total | None:
        """The total of the memory before the first step, a constant."""
        return self.before if channel is Channel.CONSTANT else None

    # -- nodes -----------------------------------------------------------------------------------------------

    def _note(
        self, call: Recurrence | SegmentedRecurrence, drive: Node, hidden: Tensor, memory: Tensor | None
    ) -> None:
        """Record the outputs of the layer."""
        if self.name == "gru":
            self.tape.note(hidden, self._memory(call, drive, hidden))
        elif memory is not None:
            node = self._memory(call, drive, memory)
            self.tape.note(memory, node)
            self.tape.note(hidden, Node(HIDDEN, (node,), hidden, call))
        else:
            row = RECTIFIED if self.name == "rnn_relu" else HIDDEN
            self.tape.note(hidden, Node(row, (drive,), hidden, call, nonnegative=row is RECTIFIED))

    def _mapped(self, source: Node, x: Tensor, weight: Tensor) -> Node:
        """The node of a product of all steps, whose values are not kept."""
        like = x.new_empty(()).expand(*x.shape[:2], weight.shape[-1])
        new = self.tape.mapped(source, x, OF_EACH_WAY, weight, None, like)
        new.value = None
        for _, layer in new.call.maps:
            layer.output = None
        return new

    def _signal(self) -> Weights:
        """The weights of the signal, without those of the gates."""
        if not self.remembers:
            return self.weights
        return self.weights.of_units(2 * self.units, 3 * self.units)

    def _drive(self, source: Node, flat: Tensor) -> Node:
        """W x_t."""
        return self._mapped(source, flat, self._signal().input)

    def _call(self, drive: Node, steps: Steps, state: list[Tensor] | None, before: Before) -> Recurrence:
        """What is known of the layer, or of a segment of it.

        Args:
            drive: the node of W x_t.
            steps: the values of the steps.
            state: the hidden state before them, and the memory of an LSTM, if they get relevance; None if they are
                constants.
            before: the totals of the memory before them.
        """
        tape = self.tape
        weights, value = self._signal(), steps.argument.flatten(1, 2)
        known = state is None and bool(self.start[0].any())
        first = torch.bmm(self.start[0], weights.hidden) if known else None
        earlier = _one_before(steps.hidden, None if state is None else state[0])
        terms = [drive]
        if earlier.shape[1]:
            states = earlier.flatten(1, 2)
            source = Node(PASS, (), states, nonnegative=self.name == "rnn_relu")
            terms.append(self._mapped(source, states, weights.hidden))
        reset = None if steps.reset is None else steps.reset.flatten(1, 2)
        node = Node(SUM_OF_STEPS, terms, value, Argument(weights.input_bias, weights.hidden_bias, first, reset))
        # U h_0 has the same rule as U h_t, although it is a constant.
        one, other = drive.rule, tape.composite.rule(tape.path, reads_pixels=False)
        assert one is not None  # a sum
        rule = tape.common_rule(one, other) if len(terms) > 1 else other if one.adapts else one
        tape.sum_of(node, rule, value, all(term.by_value for term in terms))
        node.constant = True
        call = Recurrence(tape.composite, steps.hidden.shape, node)
        if steps.keep is not None and steps.written is not None:
            keep, kept, last = steps.keep, None, None if state is None else state[-1]
            if self.closed:
                earlier = _one_before(steps.hidden if steps.memory is None else steps.memory, last)
                kept = self._term(keep[:, -earlier.shape[1] :] * earlier) if earlier.shape[1] else None
                before = self._known if state is None else _nothing
            call.memory = Memory(keep, self._term(steps.written), kept, self.closed, before)
        return call

    def _term(self, signal: Tensor) -> Node:
        """The node of a term of a memory."""
        return self.tape.mapped(Node(PASS, (), signal), signal, IDENTITY, None, None, signal)

    def _memory(self, call: Recurrence | SegmentedRecurrence, drive: Node, value: Tensor) -> Node:
        """The node of the memories: merged sums, or (memory="per_step") one sum per step."""
        node, term = Node(MEMORY, (drive,), value, call), self._term(value)
        assert term.rule is not None  # a sum
        self.tape.sum_of(node, term.rule, value, term.by_value)
        node.constant, node.scaled, node.exact = self.before is not None, not self.closed, True
        node.gated = True
        node.depth = 0 if self.closed else call.shape[1]
        return node


def _one_before(values: Tensor, first: Tensor | None) -> Tensor:
    """The values one step before each, (W, T, B, H); (W, T - 1, B, H) if that before the first is not given."""
    return values[:, :-1] if first is None else torch.cat([first.unsqueeze(1), values[:, :-1]], 1)


def _nothing(channel: Channel) -> Total | None:
    """The total of an empty channel."""
    return None
