"""The plan of majority-sample sequences: which images stand in which sequence.

A sequence shows `samples` images side by side. `majority_size` of them are of one class, the label; the
others are of other classes, none of which reaches the majority's count. One sequence is planned for every
image of a split (thesis, section on the MAJ problem). A plan is indices only; pixels are gathered later, on
the device that trains.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Plan(NamedTuple):
    """M sequences of S images each.

    Attributes:
        index: (M, S) int64, positions of the images in the split, in the order in which they are shown.
        majority: (M, S) bool, true where the image is of the majority class.
        label: (M,) int64, the majority class.
    """

    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    majority: Tensor
    label: Tensor

    def rows(self, which: Tensor | slice) -> "Plan":
        """The chosen sequences, as a plan of their own."""
        return Plan(self.index[which], self.majority[which], self.label[which])


class ImpossibleSequencesError(ValueError):
    """The asked-for sequences cannot be built from the images at hand."""


def check_possible(counts: Tensor, samples: int, majority_size: int, where: str = "the data") -> None:
    """Refuse combinations for which some image has no sequence.

    Args:
        counts: (K,) number of images of each class.
        samples: images in a sequence.
        majority_size: images of the majority class in a sequence.
        where: what the counts are of, for the message.

    Raises:
        ImpossibleSequencesError: with the numbers that do not fit and what would.
    """
    if not 1 <= majority_size <= samples:
        raise ImpossibleSequencesError(f"majority_size={majority_size} must lie between 1 and samples={samples}")
    if (smallest := int(counts.min())) < majority_size:
        raise ImpossibleSequencesError(
            f"class {int(counts.argmin())} has {smallest} images in {where}, but a sequence needs "
            f"majority_size={majority_size} of one class: use more data or a smaller majority_size"
        )
    others, limit = samples - majority_size, majority_size - 1
    available = int(counts.clamp(max=limit).sort(descending=True).values[1:].sum())
    # The anchor's own class cannot fill the rest; at worst it is the class with the most room.
    if others > available:
        raise ImpossibleSequencesError(
            f"samples={samples} with majority_size={majority_size} leaves {others} images for other classes, "
            f"but {len(counts) - 1} other classes with at most {limit} images each (fewer than the majority) "
            f"fill only {available}: raise majority_size or lower samples"
        )


class _Segments(NamedTuple):
    """Images sorted by (pool, class); the last pool holds the whole split, for what a pool lacks."""

    members: Tensor  # positions of images, segment after segment
    start: Tensor  # (P + 1, K) first member of each segment
    size: Tensor  # (P + 1, K)
    rank: Tensor  # (2, N) position of an image inside its segment of its own pool, and of the whole split

    @classmethod
    def build(cls, labels: Tensor, pool_of: Tensor, classes: int, generator: torch.Generator) -> "_Segments":
        pools = int(pool_of.max()) + 1
        shuffled = torch.randperm(len(labels), generator=generator)

        def sort(key: Tensor, segments: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
            members = shuffled[key[shuffled].argsort(stable=True)]
            count = torch.bincount(key, minlength=segments)
            start = count.cumsum(0) - count
            rank = torch.empty_like(members)
            rank[members] = torch.arange(len(members)) - start[key[members]]
            return members, start, count, rank

        inner = sort(pool_of * classes + labels, pools * classes)
        whole = sort(labels, classes)
        return cls(
            members=torch.cat([inner[0], whole[0]]),
            start=torch.cat([inner[1], whole[1] + len(labels)]).view(pools + 1, classes),
            size=torch.cat([inner[2], whole[2]]).view(pools + 1, classes),
            rank=torch.stack([inner[3], whole[3]]),
        )


def pool_of_batch(batch: int, classes: int, majority_size: int) -> int:
    """How many sequences of a batch draw their partners from one another's images.

    It depends on the global batch, not on how many devices share it, so that the sequences are the same on any
    number of them. On 2, 4, 8, ... devices whose own batches are no smaller than the smallest pool, each has
    whole pools, and encodes hardly more than one image a sequence.

    Args:
        batch: sequences in a batch, over all devices.
        classes: number of classes, K.
        majority_size: images of the majority class in a sequence.

    Returns:
        The batch, halved while it is even and keeps, on average, five times `majority_size` images of each class.
    """
    smallest = 5 * majority_size * classes
    while batch % 2 == 0 and batch >= 2 * smallest:
        batch //= 2
    return batch


def draw_plan(
    labels: Tensor,
    *,
    samples: int,
    majority_size: int,
    generator: torch.Generator,
    pool_size: int | None = None,
    shuffle: bool = True,
) -> Plan:
    """Draw one sequence for every image.

    Args:
        labels: (N,) int64 classes 0 .. K-1 of the images of one split.
        samples: images in a sequence, S.
        majority_size: images of the majority class.
        generator: the only source of randomness.
        pool_size: draw the partners of each run of so many sequences from the images that anchor these
            sequences, so that a batch of B sequences needs about B distinct images instead of S * B. Classes
            that such a pool lacks are drawn from the whole split. None: always from the whole split.
        shuffle: sequence r is anchored by a random image (True) or by image r (False).

    Returns:
        A `Plan` of N sequences. The partners of an image are distinct and uniform over its class; the other
        classes are uniform too.

    Raises:
        ImpossibleSequencesError: see `check_possible`.
    """
    n, classes = len(labels), int(labels.max()) + 1
    check_possible(torch.bincount(labels, minlength=classes), samples, majority_size)
    anchor = torch.randperm(n, generator=generator) if shuffle else torch.arange(n)
    pool = torch.arange(n) // (pool_size or n)  # of each sequence
    pool_of_image = torch.empty_like(pool)
    pool_of_image[anchor] = pool
    segments = _Segments.build(labels, pool_of_image, classes, generator)
    whole = len(segments.size) - 1
    label = labels[anchor]

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    def from_pool_or_split(wanted: Tensor, needed: int) -> Tensor:
        own = pool.view(-1, *[1] * (wanted.dim() - 1))
        return torch.where(segments.size[own, wanted] >= needed, own, whole)

    # Partners: a random stretch of the anchor's own segment, whose members stand in random order.
    source = from_pool_or_split(label, majority_size)
    length, start = segments.size[source, label], segments.start[source, label]
    in_pool, in_split = segments.rank[:, anchor]
    rank = torch.where(source < whole, in_pool, in_split)
    copies = torch.arange(majority_size - 1)
    room = (length - 1).clamp(min=1)
    offset = 1 + ((uniform(n) * room).long()[:, None] + copies) % room[:, None]
    partners = segments.members[start[:, None] + (rank[:, None] + offset) % length[:, None]]

    # Others: `majority_size - 1` slots for each other class, of which a random subset is filled.
    slots = majority_size - 1
    rest = samples - majority_size
    keys = uniform(n, classes * slots)
    slot_class = torch.arange(classes * slots) // max(slots, 1)
    slot_copy = torch.arange(classes * slots) % max(slots, 1)
    split_count = segments.size[-1]
    keys[:, slot_copy >= split_count[slot_class]] = 2.0
    keys.masked_fill_(slot_class == label[:, None], 2.0)
    chosen = keys.topk(rest, dim=1, largest=False).indices
    wanted, copy = slot_class[chosen], slot_copy[chosen]
    source = from_pool_or_split(wanted, max(slots, 1))
    length, start = segments.size[source, wanted], segments.start[source, wanted]
    first = (uniform(n, classes).gather(1, wanted) * length).long()
    others = segments.members[start + (first + copy) % length]

    index = torch.cat([anchor[:, None], partners, others], dim=1)
    majority = (torch.arange(samples) < majority_size).expand(n, -1)
    arrangement = uniform(n, samples).argsort(dim=1)
    return Plan(index.gather(1, arrangement), majority.gather(1, arrangement), label)
