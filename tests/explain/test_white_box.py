"""LSTMs whose truth is known: a counter of letters, and one that adds two marked numbers."""

import numpy as np
import pytest
import torch
from by_the_book import Network
from shares import Book, share
from torch import nn

from rnnx_lightning.explain import LRP, Composite, Epsilon

LETTERS = {"a": 1.0, "b": -1.0, "other": 0.0}
WORTH = torch.tensor(list(LETTERS.values()), dtype=torch.float64)
OPEN = 25.0  # a gate that is open: sigmoid is 1 - 1e-11


def lstm(inputs, weights_x, weights_h, bias):
    """nn.LSTM of one unit from the rows of torch's order: input, forget, candidate, output."""
    module = nn.LSTM(inputs, 1, batch_first=True).double()
    with torch.no_grad():
        module.weight_ih_l0.copy_(torch.tensor(weights_x))
        module.weight_hh_l0.copy_(torch.tensor(weights_h)[:, None])
        module.bias_ih_l0.copy_(torch.tensor(bias))
        module.bias_hh_l0.zero_()
    return module


class Counter(nn.Module):
    """Letters, one-hot (B, T, 3), to the number of a's less that of b's: c_t = c_{t-1} + tanh(25 (a - b))."""

    def __init__(self):
        super().__init__()
        zeros = [0.0, 0.0, 0.0]
        self.rnn = lstm(3, [zeros, zeros, [OPEN, -OPEN, 0.0], zeros], [0.0] * 4, [OPEN, OPEN, 0.0, OPEN])

    def forward(self, x):
        return self.rnn(x)[1][1][0]  # c_n (B, 1)


class WrittenCounter(Counter):
    """The same cell written out; it also reads h, with weights 0."""

    def forward(self, x):
        h = c = x.new_zeros(len(x), 1)
        for step in x.unbind(1):
            z = nn.functional.linear(step, self.rnn.weight_ih_l0, self.rnn.bias_ih_l0)
            i, f, g, o = (z + nn.functional.linear(h, self.rnn.weight_hh_l0, self.rnn.bias_hh_l0)).chunk(4, 1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
        return c


class TanhCounter(Counter):
    """Read off h = tanh(c): the logit saturates, the letters' shares do not."""

    def forward(self, x):
        return 10 * self.rnn(x)[0][:, -1]


def words(length, count=40):
    """Random words as (count, length) letters whose worths add up to at least 4, or at most -4, if they are long enough."""
    generator = torch.Generator().manual_seed(length)
    drawn = torch.randint(3, (50 * count, length), generator=generator)
    total = WORTH[drawn].sum(1).abs()
    return drawn[total >= min(4, length - 1)][:count]


@pytest.mark.parametrize("counter", [Counter, WrittenCounter])
@pytest.mark.parametrize("length", [5, 6, 8, 12, 20, 35, 50])
def test_every_letter_gets_its_worth(length, counter):
    letters = words(length)
    assert len(letters) == 40
    x = nn.functional.one_hot(letters, 3).double()
    model, worth = counter(), WORTH[letters]
    torch.testing.assert_close(model(x)[:, 0], worth.sum(1), rtol=1e-9, atol=1e-9)
    assert (model(x) < 0).any()
    assert (model(x) > 0).any()
    relevance = LRP(Epsilon(1e-3), start="logit")(model, x)
    assert (relevance.sum(2) - worth).abs().max() <= 1e-3


@pytest.mark.parametrize("length", [5, 12, 50])
def test_equal_shares_through_tanh(length):
    """Every a takes the same, every b the negative of it, wherever they are; all others nothing."""
    letters = words(length)
    x = nn.functional.one_hot(letters, 3).double()
    model, worth = TanhCounter(), WORTH[letters]
    expected = model(x).detach() / worth.sum(1, keepdim=True) * worth
    relevance = LRP(Epsilon(1e-3), start="logit")(model, x).sum(2)
    assert (relevance - expected).abs().max() <= 1e-3 * expected.abs().max()


def test_a_memory_that_is_closed_at_each_step_loses_the_truth():
    """Where the count passes 0 on its way, [AMMS17]'s stabiliser takes what came before: NumPy says the same."""
    letters = torch.tensor([[0, 1, 0, 0, 0, 0], [0, 0, 2, 0, 0, 0]])
    x = nn.functional.one_hot(letters, 3).double()
    closed = LRP(Composite(Epsilon(1e-3), memory="per_step"), start="logit")(Counter(), x)
    book = Book(epsilon=1e-3, memory="per_step")
    for b in range(2):
        net = Network(Counter().rnn, x[b].numpy())
        np.testing.assert_allclose(closed[b], net.relevance(book, c_n=net.c_n), rtol=1e-9, atol=1e-9)
    error = (closed.sum(2) - WORTH[letters]).abs().amax(1)
    assert error[0] > 0.9  # after a and b the count is 0
    assert error[1] < 0.01  # it never is: little is lost
    merged = LRP(Epsilon(1e-3), start="logit")(Counter(), x).sum(2)
    assert (merged - WORTH[letters]).abs().max() <= 1e-3


class Adder(nn.Module):
    """(B, T, 2) numbers in [-1, 1] and marks in {0, 1} to the sum of the two marked numbers, (B, 1).

    Trained by Adam for 8,000 steps of 128 sequences of 3 to 15 steps, with an L1 penalty on the recurrent weights and on
    the candidate's mark and bias, here to 4 digits. The mark opens the input gate.
    """

    def __init__(self):
        super().__init__()
        weights = [[0.0001368, 5.975], [0.04424, -0.6737], [0.3086, 0.000005715], [-0.001215, -0.06826]]
        self.rnn = lstm(2, weights, [0.0] * 4, [-5.751, 6.783, 0.00001161, 3.191])
        self.out = nn.Linear(1, 1, bias=False).double()
        self.out.weight.data.fill_(6.307)

    def forward(self, x):
        return self.out(self.rnn(x)[0][:, -1])


def marked_numbers(length, count=500):
    generator = torch.Generator().manual_seed(length)
    numbers = torch.rand(count, length, generator=generator, dtype=torch.float64) * 2 - 1
    where = torch.rand(count, length, generator=generator).topk(2, 1).indices
    marks = torch.zeros_like(numbers).scatter(1, where, 1.0)
    return torch.stack([numbers, marks], 2), where, numbers.gather(1, where)


@pytest.mark.parametrize("rule", [Epsilon(0.0), Epsilon(1e-6)], ids=str)
@pytest.mark.parametrize("length", [5, 12])
def test_marked_numbers_get_themselves(length, rule):
    (x, where, numbers), model = marked_numbers(length), Adder()
    total = model(x)[:, 0].detach()
    assert (total - numbers.sum(1)).abs().max() < 0.06  # it has learnt to add
    assert (total < 0).sum() > 200
    assert (total > 0).sum() > 200
    relevance = LRP(rule, start="logit")(model, x).sum(2)
    found = torch.stack([relevance.gather(1, where).flatten(), numbers.flatten()])
    assert torch.corrcoef(found)[0, 1] >= 0.999
    others = relevance.scatter(1, where, 0.0)
    assert others.abs().mean() < 0.01 * numbers.abs().mean()


def test_the_adder_by_the_book():
    (x, where, numbers), model, book = marked_numbers(8, 30), Adder(), Book(epsilon=1e-6)
    relevance = []
    for example in x.numpy():
        net, at_h = Network(model.rnn, example), np.zeros((8, 1))
        logit = model.out.weight.detach().numpy() * net.output[-1:]
        at_h[-1] = share(logit, np.zeros(1), logit[0], book)
        relevance.append(net.relevance(book, output=at_h).sum(1))
    found = torch.tensor(np.array(relevance)).gather(1, where)
    assert torch.corrcoef(torch.stack([found.flatten(), numbers.flatten()]))[0, 1] >= 0.999
