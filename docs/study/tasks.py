"""A task that is not a sum of evidence: which class is the first to appear twice in a row?"""

import itertools

import torch

from rnnx_lightning.data import MajoritySequences
from rnnx_lightning.data.majority import Plan
from rnnx_lightning.seeding import seeded_generator


def _patterns(samples: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Orders of two classes whose first pair is of class 1, as (P, S) bool, and the position of that pair."""
    orders, pairs = [], []
    for order in itertools.product((False, True), repeat=samples):
        first = next((i for i in range(samples - 1) if order[i] == order[i + 1]), None)
        if first is not None and order[first]:
            orders.append(order)
            pairs.append([first <= i <= first + 1 for i in range(samples)])
    return torch.tensor(orders), torch.tensor(pairs)


class FirstPair(MajoritySequences):
    """Sequences of two classes; the label is the class that is the first to appear twice in a row.

    All orders are equally likely, so that the class that is seen more often is the label in most sequences only.
    `Plan.majority` marks the two samples of the pair.
    """

    def plan(self, split: str, epoch: int = 0) -> Plan:
        """One sequence for each image of the split; training is drawn anew each epoch."""
        members = self._splits[split]
        labels = self.images.labels[members]
        generator = seeded_generator("pair", self.seed, split, epoch if split == "train" else 0)
        count, classes = len(members), len(self.class_names)
        orders, pairs = _patterns(self.samples)
        which = torch.randint(len(orders), (count,), generator=generator)
        label = torch.randint(classes, (count,), generator=generator)
        other = (label + torch.randint(1, classes, (count,), generator=generator)) % classes
        shown = torch.where(orders[which], label[:, None], other[:, None])
        by_class = labels.argsort(stable=True)
        size = torch.bincount(labels, minlength=classes)
        start = size.cumsum(0) - size
        draw = torch.rand(shown.shape, generator=generator)
        index = by_class[start[shown] + (draw * size[shown]).long()]
        return Plan(members[index], pairs[which], label)


def most_frequent_is_right(samples: int) -> float:
    """Accuracy of naming the class that appears more often, for an odd number of samples: the best for a sum."""
    orders, _ = _patterns(samples)
    return float((orders.sum(1) > samples / 2).float().mean())


if __name__ == "__main__":
    print({samples: most_frequent_is_right(samples) for samples in (3, 5, 7)})
