"""Readers of tokens and of text: sentiment, tags, translation, pairs of sentences."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from .network import BATCH, network, tokens

LENGTHS = torch.tensor([6, 9, 4])


def padded(kinds=12, steps=9):
    """Tokens of several lengths, 0 is padding."""

    def draw():
        x = torch.randint(1, kinds, (BATCH, steps))
        return x * (torch.arange(steps) < LENGTHS[:, None])

    return draw


@network(
    "sentiment reader",
    padded(),
    "nn.Embedding, packed nn.LSTM, h_n",
    arguments=lambda: {"lengths": LENGTHS},
    constant=True,
)
class Sentiment(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(12, 6, padding_idx=0)
        self.rnn = nn.LSTM(6, 7, num_layers=2, bidirectional=True, dropout=0.5, batch_first=True)
        self.fc, self.dropout = nn.Linear(14, 1), nn.Dropout(0.5)

    def forward(self, text, lengths):
        embedded = self.dropout(self.embedding(text))
        packed = pack_padded_sequence(embedded, lengths.to("cpu"), batch_first=True, enforce_sorted=False)
        _, (hidden, _) = self.rnn(packed)
        hidden = self.dropout(torch.cat((hidden[-2, :, :], hidden[-1, :, :]), dim=1))
        return self.fc(hidden).squeeze(1)


@network("token tagger", tokens(12, 8), "nn.Embedding, bidirectional nn.LSTM, output (B, T, K)", target=(3, 2))
class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.word_embeddings = nn.Embedding(12, 6)
        self.lstm = nn.LSTM(6, 6, bidirectional=True, batch_first=True)
        self.hidden2tag = nn.Linear(12, 5)

    def forward(self, sentence):
        lstm_out, _ = self.lstm(self.word_embeddings(sentence))
        return self.hidden2tag(lstm_out)


@network(
    "tagger with log-softmax", tokens(12, 6), "nn.GRU, log_softmax output, explained before it", target=(2, 1)
)
class LogTagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.gru, self.tag = nn.Embedding(12, 6), nn.GRU(6, 6, batch_first=True), nn.Linear(6, 4)

    def forward(self, sentence):
        return F.log_softmax(self.tag(self.gru(self.embed(sentence))[0]), dim=-1)


@network(
    "seq2seq with attention",
    tokens(10, 6),
    "nn.GRU, nn.GRUCell, additive attention, teacher forcing",
    target=(3, 4),
    arguments=lambda: {"tgt": torch.randint(1, 8, (BATCH, 5))},
    constant=True,
)
class Seq2Seq(nn.Module):
    def __init__(self):
        super().__init__()
        self.src, self.tgt = nn.Embedding(10, 5), nn.Embedding(8, 5)
        self.encoder, self.bridge = nn.GRU(5, 6, bidirectional=True, batch_first=True), nn.Linear(12, 6)
        self.attn, self.v = nn.Linear(12 + 6, 6), nn.Linear(6, 1, bias=False)
        self.decoder, self.out = nn.GRUCell(5 + 12, 6), nn.Linear(6 + 12 + 5, 8)

    def forward(self, src, tgt):
        memory, hidden = self.encoder(self.src(src))
        h = torch.tanh(self.bridge(torch.cat((hidden[-2], hidden[-1]), dim=1)))
        outputs = torch.zeros(src.shape[0], tgt.shape[1], 8, device=src.device)
        for t in range(tgt.shape[1]):
            query = h.unsqueeze(1).repeat(1, memory.shape[1], 1)
            energy = torch.tanh(self.attn(torch.cat((query, memory), dim=2)))
            a = F.softmax(self.v(energy).squeeze(2), dim=1)
            context = torch.bmm(a.unsqueeze(1), memory).squeeze(1)
            word = self.tgt(tgt[:, t])
            h = self.decoder(torch.cat((word, context), dim=1), h)
            outputs[:, t] = self.out(torch.cat((h, context, word), dim=1))
        return outputs


@network(
    "hierarchical attention network",
    lambda: torch.randint(0, 12, (BATCH, 3, 5)),
    "words, sentences, attention pooling twice, tokens (B, S, T)",
)
class Hierarchical(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(12, 5)
        self.words, self.sentences = (nn.GRU(n, 4, bidirectional=True, batch_first=True) for n in (5, 8))
        self.project, self.context = (
            nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8)]),
            nn.Parameter(torch.randn(2, 8)),
        )
        self.fc = nn.Linear(8, 3)

    def pool(self, h, level):
        scores = torch.tanh(self.project[level](h)) @ self.context[level]
        return (torch.softmax(scores, dim=1).unsqueeze(-1) * h).sum(dim=1)

    def forward(self, documents):
        b, s, t = documents.shape
        words, _ = self.words(self.embed(documents.view(b * s, t)))
        sentences, _ = self.sentences(self.pool(words, 0).view(b, s, -1))
        return self.fc(self.pool(sentences, 1))


@network(
    "CNN for sentences", tokens(12, 9), "nn.Embedding, conv2d of several widths, max over time", piecewise=True
)
class TextCNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(12, 6)
        self.convs = nn.ModuleList([nn.Conv2d(1, 5, (k, 6)) for k in (2, 3, 4)])
        self.fc = nn.Linear(15, 3)

    def forward(self, x):
        x = self.embed(x).unsqueeze(1)
        x = [F.relu(conv(x)).squeeze(3) for conv in self.convs]
        return self.fc(torch.cat([F.max_pool1d(i, i.size(2)).squeeze(2) for i in x], 1))


@network("fastText", padded(), "nn.EmbeddingBag (mean)", piecewise=True)
class FastText(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.fc = nn.EmbeddingBag(12, 6, mode="mean", padding_idx=0), nn.Linear(6, 3)

    def forward(self, text):
        return self.fc(self.embedding(text))


@network("deep averaging network", padded(), "masked mean of embeddings", piecewise=True)
class Averaging(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(12, 6)
        self.mlp = nn.Sequential(nn.Linear(6, 8), nn.ReLU(inplace=True), nn.Linear(8, 3))

    def forward(self, text):
        mask = (text != 0).unsqueeze(-1).to(self.embedding.weight.dtype)
        return self.mlp((self.embedding(text) * mask).sum(1) / mask.sum(1).clamp(min=1))


@network(
    "concat pooling",
    padded(),
    "nn.LSTM, last step, max and mean over the tokens",
    arguments=lambda: {"lengths": LENGTHS},
    constant=True,
)
class ConcatPooling(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.rnn = nn.Embedding(12, 6), nn.LSTM(6, 6, batch_first=True)
        self.head = nn.Sequential(
            nn.BatchNorm1d(18), nn.Linear(18, 8), nn.ReLU(inplace=True), nn.BatchNorm1d(8), nn.Linear(8, 3)
        )

    def forward(self, text, lengths):
        packed = pack_padded_sequence(self.embedding(text), lengths, batch_first=True, enforce_sorted=False)
        output, _ = pad_packed_sequence(self.rnn(packed)[0], batch_first=True, total_length=text.size(1))
        mask = (torch.arange(text.size(1))[None, :] >= lengths[:, None]).unsqueeze(-1)
        average = output.masked_fill(mask, 0).sum(dim=1) / lengths[:, None].type(output.dtype)
        greatest = output.masked_fill(mask, -float("inf")).max(dim=1)[0]
        last = output[torch.arange(len(text)), lengths - 1]
        return self.head(torch.cat([last, greatest, average], 1))


@network(
    "InferSent",
    lambda: (torch.randint(1, 6, (BATCH, 5)), torch.randint(6, 12, (BATCH, 6))),  # no difference of theirs is 0
    "two inputs, max over time, abs, product of two signals",
    options={"products": "half"},
)
class InferSent(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.lstm = nn.Embedding(12, 5), nn.LSTM(5, 5, bidirectional=True, batch_first=True)
        self.classifier = nn.Sequential(nn.Linear(40, 8), nn.Tanh(), nn.Linear(8, 3))

    def encode(self, text):
        return torch.max(self.lstm(self.embed(text))[0], 1)[0]

    def forward(self, premise, hypothesis):
        u, v = self.encode(premise), self.encode(hypothesis)
        return self.classifier(torch.cat((u, v, torch.abs(u - v), u * v), 1))
