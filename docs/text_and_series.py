"""Relevance of words and of a multivariate series, with small networks trained on data from installed packages.

    python docs/text_and_series.py [FOLDER]

writes words.svg, words.html and series.png into FOLDER (default: docs/pictures), and prints the words. Words:
which of scikit-learn's data sets does a passage describe? Series: does a section of matplotlib's sample recording
of four EEG channels come from its first or its second half? Accuracies are those on the training data.
"""

import re
import sys
from pathlib import Path

import numpy as np
import torch
from matplotlib.cbook import get_sample_data
from rich.console import Console
from sklearn import datasets
from torch import Tensor, nn

from rnnx_lightning.explain import LRP, Epsilon
from rnnx_lightning.metrics.deletion import deletion, patches
from rnnx_lightning.rendering.series import draw_series
from rnnx_lightning.rendering.tokens import tokens_as_html, tokens_as_text

TOPICS = ("iris", "wine", "breast_cancer", "diabetes", "digits")
PASSAGE = 12  # words
STRETCH = 64  # time steps
HALF = 400  # time steps
UNKNOWN = 0


class Reader(nn.Module):
    """The mean of what an LSTM says after each word."""

    def __init__(self, words: int, classes: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, 16)
        self.lstm = nn.LSTM(16, 32, batch_first=True)
        self.output = nn.Linear(32, classes, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) int64 to (B, classes)."""
        return self.output(self.lstm(self.embedding(tokens))[0].mean(1))


class Channels(nn.Module):
    """ReLU recurrence over the steps of a series."""

    def __init__(self, variables: int, classes: int) -> None:
        super().__init__()
        self.rnn = nn.RNN(variables, 32, nonlinearity="relu", batch_first=True, bias=False)
        self.output = nn.Linear(32, classes, bias=False)

    def forward(self, series: Tensor) -> Tensor:
        """(B, T, V) to (B, classes)."""
        return self.output(self.rnn(series)[0].mean(1))


def train(network: nn.Module, x: Tensor, label: Tensor, epochs: int, rate: float) -> float:
    """Adam on whole batches; the accuracy on them."""
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    for _ in range(epochs):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x), label).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
    network.eval()
    return float((network(x).argmax(1) == label).float().mean())


def passages() -> tuple[list[list[str]], Tensor]:
    """Passages of the descriptions, and which data set each is of."""
    words, label = [], []
    for number, topic in enumerate(TOPICS):
        text = re.findall(r"[a-z]{2,}", getattr(datasets, f"load_{topic}")().DESCR.lower())
        for start in range(0, len(text) - PASSAGE, PASSAGE // 2):
            words.append(text[start : start + PASSAGE])
            label.append(number)
    return words, torch.tensor(label)


def stretches() -> tuple[Tensor, Tensor]:
    """Stretches (B, STRETCH, 4) of the recording, and 1 where they are of the second half."""
    raw = np.frombuffer(get_sample_data("eeg.dat").read(), dtype=float).reshape(800, 4)
    series = torch.from_numpy(raw.copy()).float()
    series = (series - series.mean(0)) / series.std(0)
    starts = torch.tensor([s for s in range(0, 800 - STRETCH, 4) if s + STRETCH <= HALF or s >= HALF])
    return torch.stack([series[s : s + STRETCH] for s in starts.tolist()]), (starts >= HALF).long()


def explain_words(folder: Path, console: Console) -> dict[str, float]:
    """Train, explain two passages of each topic, write; accuracy and areas under the deletion curves."""
    words, label = passages()
    vocabulary = {word: number for number, word in enumerate(sorted({w for one in words for w in one}), 1)}
    tokens = torch.tensor([[vocabulary[word] for word in one] for one in words])
    network = Reader(len(vocabulary) + 1, len(TOPICS))
    accuracy = train(network, tokens, label, epochs=80, rate=0.02)
    chosen = torch.tensor([int((label == topic).nonzero()[k]) for topic in range(len(TOPICS)) for k in (4, 12)])
    relevance = LRP(Epsilon(1e-3))(network, tokens[chosen], label[chosen])
    page = []
    for row, passage in enumerate(chosen.tolist()):
        topic = TOPICS[int(label[passage])]
        console.print(f"{topic:>14}  ", tokens_as_text(words[passage], relevance[row]), end="\n")
        page.append(f"<h3>{topic}</h3>{tokens_as_html(words[passage], relevance[row])}")
    picture = console.export_svg(title="which data set is described?")
    # rich's picture would fetch its font.
    (folder / "words.svg").write_text(re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.S))
    (folder / "words.html").write_text("<!doctype html><meta charset=utf-8>" + "\n".join(page))
    found = deletion(network, tokens[chosen], relevance, label[chosen], patches((PASSAGE,), (1,)), UNKNOWN)
    return {"accuracy": accuracy, "area": float(found.area.mean()), "random": float(found.random_area.mean())}


def explain_series(folder: Path) -> dict[str, float]:
    """Train, explain stretches of the second half, draw one; accuracy and areas under the deletion curves."""
    series, label = stretches()
    network = Channels(4, 2)
    accuracy = train(network, series, label, epochs=150, rate=3e-3)
    second = series[label == 1]
    target = torch.ones(len(second), dtype=torch.long)
    relevance = LRP(Epsilon(1e-3))(network, second, target)
    row = len(second) // 4
    figure = draw_series(
        second[row], relevance[row], [f"channel {n + 1}" for n in range(4)], "what speaks for the second half"
    )
    figure.savefig(folder / "series.png")
    parts = patches((STRETCH, 4), (4, 4))  # four steps of all channels
    found = deletion(network, second, relevance, target, parts, 0.0)
    return {"accuracy": accuracy, "area": float(found.area.mean()), "random": float(found.random_area.mean())}


def main(folder: str = "docs/pictures", seed: int = 0) -> dict[str, dict[str, float]]:
    """Both; what is returned is printed, too."""
    torch.manual_seed(seed)
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    console = Console(record=True, width=130)
    results = {"words": explain_words(place, console), "series": explain_series(place)}
    for name, scores in results.items():
        print(name, {key: round(value, 3) for key, value in scores.items()})
    return results


if __name__ == "__main__":
    main(*sys.argv[1:])
