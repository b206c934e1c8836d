"""LSTM, GRU and RNN with their relevance by the book: one example, float64 NumPy, nothing of the package used.

Equations as in torch's documentation. A step is written as a *signal* s_t = act(W x_t + U h_{t-1} + b), and, where
there is one, a *memory* m_t = keep m_{t-1} + write s_t, from which h_t is read:

    LSTM    keep = f    write = i        h_t = o tanh(m_t)    (then projected, if it has `proj_size`)
    GRU     keep = z    write = 1 - z    h_t = m_t, and r U h_{t-1}, r b_hn in the signal's sum
    RNN     no memory, h_t = s_t

Gates (f, i, o, z, r) take nothing. What does not depend on the input (biases, given start states, whatever gates
scale them) is a sum's constant.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import expit as sigmoid
from shares import messages, share


class Step(NamedTuple):
    """One step. The signal's sum is W x + U h + constant, where U is scaled by the reset gate; h is the one before."""

    x: np.ndarray
    h: np.ndarray
    W: np.ndarray
    U: np.ndarray
    constant: np.ndarray
    signal: np.ndarray
    keep: np.ndarray | None = None
    write: np.ndarray | None = None
    memory: np.ndarray | None = None
    read: np.ndarray | None = None  # what is projected to h


class Direction:
    """One layer in one direction, with the weights of a torch module."""

    def __init__(self, module, suffix):
        def weight(name):
            found = getattr(module, name + suffix, None)
            return None if found is None else found.detach().double().numpy()

        self.mode, self.units = module.mode, module.hidden_size
        self.W, self.U, self.projection = weight("weight_ih_"), weight("weight_hh_"), weight("weight_hr_")
        biases = ("bias_ih_", "bias_hh_")
        self.b, self.d = (weight(name) if module.bias else np.zeros(len(self.W)) for name in biases)

    def run(self, xs, h, c):
        """All steps from (T, I) inputs and start states; then h (T, H) and the last c."""
        self.start, self.steps, hidden = c, [], []
        for x in xs:
            step, h, c = {"LSTM": self.lstm, "GRU": self.gru}.get(self.mode, self.rnn)(x, h, c)
            self.steps.append(step)
            hidden.append(h)
        return np.array(hidden), c

    def rnn(self, x, h, c):
        z = self.W @ x + self.b + self.U @ h + self.d
        s = np.tanh(z) if self.mode == "RNN_TANH" else np.maximum(z, 0)
        return Step(x, h, self.W, self.U, self.b + self.d, s), s, c

    def lstm(self, x, h, c):
        i, f, g, o = np.split(self.W @ x + self.b + self.U @ h + self.d, 4)
        i, f, o, g = sigmoid(i), sigmoid(f), sigmoid(o), np.tanh(g)
        c = f * c + i * g
        read = o * np.tanh(c)
        candidate = slice(2 * self.units, 3 * self.units)
        constant = (self.b + self.d)[candidate]
        step = Step(x, h, self.W[candidate], self.U[candidate], constant, g, f, i, c, read)
        return step, read if self.projection is None else self.projection @ read, c

    def gru(self, x, h, c):
        (r, z, n), (r_h, z_h, n_h) = np.split(self.W @ x + self.b, 3), np.split(self.U @ h + self.d, 3)
        r, z = sigmoid(r + r_h), sigmoid(z + z_h)
        n = np.tanh(n + r * n_h)
        candidate = slice(2 * self.units, 3 * self.units)
        h_new = (1 - z) * n + z * h
        U, constant = r[:, None] * self.U[candidate], self.b[candidate] + r * self.d[candidate]
        return Step(x, h, self.W[candidate], U, constant, n, z, 1 - z, h_new), h_new, c

    def relevance(self, R_h, R_c, book):
        """(T, I) at the inputs from relevance (T, H) at all h and (units,) at the last c."""
        steps, units = self.steps, self.units
        at_h, at_memory, at_signal = R_h.copy(), *np.zeros((2, len(steps), units))
        at_memory[-1] += R_c
        result = np.zeros((len(steps), self.W.shape[1]))
        start = steps[0].h if self.mode == "GRU" else self.start
        for t in reversed(range(len(steps))):
            step, R = steps[t], at_h[t]
            if self.projection is not None:
                R = share(self.projection * step.read, np.zeros(len(R)), R, book)
            at_memory[t] += R
            if step.memory is None:
                at_signal[t] += R
            elif book.memory == "merged":
                kept = np.ones(units)  # by how much what was written at step s is still there at step t
                z = []
                for past in reversed(steps[: t + 1]):
                    z.insert(0, kept * past.write * past.signal)
                    kept = kept * past.keep
                at_signal[: t + 1] += messages(np.array(z).T, kept * start, at_memory[t], book).T
            elif t:
                z = np.stack([step.keep * steps[t - 1].memory, step.write * step.signal], 1)
                before, at_signal[t] = messages(z, np.zeros(units), at_memory[t], book).T
                at_memory[t - 1] += before
            else:
                z = (step.write * step.signal)[:, None]
                at_signal[t] = messages(z, step.keep * start, at_memory[t], book)[:, 0]
            if t:
                z = np.concatenate([step.W * step.x, step.U * step.h], 1)
                R = share(z, step.constant, at_signal[t], book)
                result[t], at_h[t - 1] = R[: len(step.x)], at_h[t - 1] + R[len(step.x) :]
            else:
                result[t] = share(step.W * step.x, step.constant + step.U @ step.h, at_signal[t], book)
        return result


class Network:
    """All layers and directions of an nn.LSTM, nn.GRU or nn.RNN, for one sequence (T, I)."""

    def __init__(self, module, x, h_0=None, c_0=None):
        """Runs it; then `output` (T, D * H), `h_n` (L * D, H) and `c_n` (L * D, units) are there."""
        sides = ("", "_reverse")[: 2 if module.bidirectional else 1]
        self.layers, h_n, c_n = [], [], []
        for number in range(module.num_layers):
            self.layers.append([Direction(module, f"l{number}{side}") for side in sides])
            parts = []
            for turn, direction in zip((1, -1), self.layers[-1], strict=False):
                h = np.zeros(direction.U.shape[1]) if h_0 is None else h_0[len(h_n)]
                c = np.zeros(module.hidden_size) if c_0 is None else c_0[len(c_n)]
                hidden, c = direction.run(x[::turn], h, c)
                h_n.append(hidden[-1])
                c_n.append(c)
                parts.append(hidden[::turn])
            x = np.concatenate(parts, 1)
        self.output, self.h_n, self.c_n = x, np.array(h_n), np.array(c_n)

    def relevance(self, book, output=None, h_n=None, c_n=None):
        """(T, I) from relevance at the outputs, each of the shape of the one of its name."""
        R = np.zeros_like(self.output) if output is None else output
        h_n = np.zeros_like(self.h_n) if h_n is None else h_n
        c_n = np.zeros_like(self.c_n) if c_n is None else c_n
        state = len(h_n)
        for layer in reversed(self.layers):
            state -= len(layer)
            parts = zip((1, -1), layer, np.split(R, len(layer), 1), strict=False)
            R = 0
            for k, (turn, direction, part) in enumerate(parts):
                at_h = part[::turn].copy()
                at_h[-1] += h_n[state + k]
                R = R + direction.relevance(at_h, c_n[state + k], book)[::turn]
        return R
