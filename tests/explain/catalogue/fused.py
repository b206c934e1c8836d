"""Torch's own recurrent modules, as tutorials and users call them."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pack_sequence, pad_packed_sequence

from .network import network, real


@network("LSTM, last step", real(9, 4), "2-layer nn.LSTM, start states made by hand")
class LastStep(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden_size, self.num_layers = 8, 2
        self.lstm = nn.LSTM(4, 8, 2, batch_first=True)
        self.fc = nn.Linear(8, 3)

    def forward(self, x):
        h0 = torch.zeros(self.num_layers, x.size(0), self.hidden_size).to(x.device)
        c0 = torch.zeros(self.num_layers, x.size(0), self.hidden_size).to(x.device)
        out, _ = self.lstm(x, (h0, c0))
        return self.fc(out[:, -1, :])


@network("GRU, last state", real(9, 4), "2-layer nn.GRU with dropout, time first, h_n")
class LastState(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(4, 8, num_layers=2, dropout=0.3)
        self.out = nn.Sequential(nn.Dropout(0.2), nn.Linear(8, 3))

    def forward(self, x):
        _, h = self.gru(x.permute(1, 0, 2))
        return self.out(h[-1])


@network("bidirectional LSTM, both ends", real(8, 4), "bidirectional nn.LSTM, cat of h_n")
class BothEnds(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(4, 6, num_layers=2, bidirectional=True, batch_first=True)
        self.fc1, self.fc2 = nn.Linear(12, 8), nn.Linear(8, 3)

    def forward(self, x):
        _, (h, _) = self.lstm(x)
        return self.fc2(F.relu(self.fc1(torch.cat((h[-2, :, :], h[-1, :, :]), dim=1))))


@network("IRNN", real(10, 3), "nn.RNN with ReLU, identity start")
class IRNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.RNN(3, 12, nonlinearity="relu", batch_first=True)
        nn.init.eye_(self.rnn.weight_hh_l0)
        self.rnn.weight_hh_l0.data *= 0.9
        self.fc = nn.Linear(12, 3)

    def forward(self, x):
        return self.fc(self.rnn(x)[0][:, -1])


@network("Elman network", real(8, 3), "nn.RNN (tanh), every step read, mean", target=1)
class Elman(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.fc = nn.RNN(3, 8, 2, batch_first=True), nn.Linear(8, 3)

    def forward(self, x):
        output, _ = self.rnn(x)
        return self.fc(output.contiguous().view(-1, 8)).view(x.size(0), -1, 3).mean(dim=1)


@network(
    "LSTM with projection", real(7, 4), "nn.LSTM with proj_size, cell state c_n", target=lambda out: out[0][:, 0]
)
class Projected(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(4, 8, num_layers=2, proj_size=5, batch_first=True)
        self.fc = nn.Linear(5 + 8, 3)

    def forward(self, x):
        out, state = self.lstm(x)
        return self.fc(torch.cat([out[:, -1], state[1][-1]], dim=-1)), state


@network("LSTM cells in a loop", real(7, 4), "nn.LSTMCell, list of steps, torch.stack", target=(4, 1))
class CellLoop(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell1, self.cell2, self.linear = nn.LSTMCell(4, 7), nn.LSTMCell(7, 7), nn.Linear(7, 2)

    def forward(self, x):
        h_t, c_t = torch.zeros(x.size(0), 7), torch.zeros(x.size(0), 7)
        h_t2, c_t2 = torch.zeros(x.size(0), 7), torch.zeros(x.size(0), 7)
        outputs = []
        for step in x.split(1, dim=1):
            h_t, c_t = self.cell1(step.squeeze(1), (h_t, c_t))
            h_t2, c_t2 = self.cell2(h_t, (h_t2, c_t2))
            outputs += [self.linear(h_t2)]
        return torch.stack(outputs, 1)


@network("GRU cell, residual", real(8, 6), "nn.GRUCell, residual recurrence, LayerNorm")
class ResidualCell(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.norm, self.fc = nn.GRUCell(6, 6), nn.LayerNorm(6), nn.Linear(6, 3)

    def forward(self, x):
        h = x.new_zeros(x.shape[0], 6)
        total = x.new_zeros(x.shape[0], 6)
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h)
            total = total + h
        return self.fc(self.norm(total))


@network("RNN cell", real(8, 3), "nn.RNNCell, learnt start state")
class LearntStart(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.fc = nn.RNNCell(3, 8), nn.Linear(8, 3)
        self.h0 = nn.Parameter(torch.randn(1, 8) * 0.1)

    def forward(self, x):
        h = self.h0.expand(x.size(0), -1)
        for x_t in x.unbind(1):
            h = self.cell(x_t, h)
        return self.fc(h)


@network("LSTM autoencoder", real(6, 3), "encoder and decoder nn.LSTM, repeat", target=(3, 2))
class Autoencoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.LSTM(3, 5, batch_first=True), nn.LSTM(5, 6, batch_first=True)
        self.output_layer = nn.Linear(6, 3)

    def forward(self, x):
        _, (hidden, _) = self.encoder(x)
        hidden = hidden.reshape(-1, 1, 5).repeat(1, x.size(1), 1)
        decoded, _ = self.decoder(hidden)
        return self.output_layer(decoded)


@network(
    "packed GRU on padded series",
    real(9, 3),
    "bidirectional nn.GRU on a PackedSequence, gather of the last step",
    arguments=lambda: {"lengths": torch.tensor([5, 9, 2])},
    constant=True,
)
class PackedGRU(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru, self.fc = nn.GRU(3, 6, batch_first=True, bidirectional=True), nn.Linear(12, 3)

    def forward(self, x, lengths):
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        out, _ = pad_packed_sequence(self.gru(packed)[0], batch_first=True)
        last = (lengths - 1).view(-1, 1, 1).expand(-1, 1, out.size(2))
        return self.fc(out.gather(1, last).squeeze(1))


@network(
    "reader of a PackedSequence",
    lambda: pack_sequence([torch.randn(n, 3) for n in (4, 7, 2)], enforce_sorted=False),
    "nn.LSTM, PackedSequence as the input",
    constant=True,
)
class PackedReader(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.fc = nn.LSTM(3, 6, 2, bidirectional=True), nn.Linear(12, 3)

    def forward(self, sequences):
        _, (h_n, _) = self.lstm(sequences)
        return self.fc(h_n.view(2, 2, -1, 6)[-1].transpose(0, 1).flatten(1))
