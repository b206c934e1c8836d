"""The plan of majority-sample sequences: which sequence shows which images.

A sequence shows `samples` images side by side. `majority_size` of them are of one class, the label; the others
are of other classes, each with fewer images than the majority. One sequence is planned for every image of a
split [Cho18]. A plan only has indices; pixels are gathered later, on the device that trains.
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

    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which is not used here
    majority: Tensor
    label: Tensor

    def rows(self, which: Tensor | slice) -> "Plan":
        """A plan of the chosen sequences only."""
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
        ImpossibleSequencesError: some image has no sequence; the message says what to change.
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
    # The majority class cannot be among the others. At worst, it is the class with the most images.
    if others > available:
        raise ImpossibleSequencesError(
            f"samples={samples} with majority_size={majority_size} leaves {others} images for other classes, "
            f"but {len(counts) - 1} other classes with at most {limit} images each (fewer than the majority) "
            f"fill only {available}: raise majority_size or lower samples"
        )


class _Segments(NamedTuple):
    """Images sorted by (pool, class). The last pool is the whole split, for classes that a pool lacks."""

    members: Tensor  # positions of images, segment after segment
    start: Tensor  # (P + 1, K) first member of each segment
    size: Tensor  # (P + 1, K)
    rank: Tensor  # (2, N) position of an image inside its segment of its own pool, and of the whole split

    @property
    def whole(self) -> int:
        """The number of the pool that is the whole split."""
        return len(self.size) - 1

    def source(self, pool: Tensor, wanted: Tensor, needed: int) -> Tensor:
        """The pool to draw classes (N, ...) from: a sequence's own, if it has enough images, else the split."""
        own = pool.view(-1, *[1] * (wanted.dim() - 1))
        return torch.where(self.size[own, wanted] >= needed, own, self.whole)

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
    """The size of a pool: how many sequences of a batch draw their partners from one another's images.

    It depends on the global batch, not on the number of devices, so that the sequences are the same on any number
    of devices. With 2, 4, 8, ... devices whose batches are not smaller than the smallest pool, each device has
    whole pools, and encodes little more than one image per sequence.

    Args:
        batch: sequences in a batch, over all devices.
        classes: number of classes, K.
        majority_size: images of the majority class in a sequence.

    Returns:
        The batch size, halved while it is even and a half still has, on average, at least five times
        `majority_size` images of each class.
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
        pool_size: number of successive sequences that form a pool. Partners are drawn from the images that the
            sequences of the same pool are made for, so that a batch of B sequences needs about B distinct images
            instead of S * B. Classes that a pool lacks are drawn from the whole split. None: draw everything from
            the whole split.
        shuffle: sequence r is made for a random image (True) or for image r (False).

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
    label = labels[anchor]
    partners = _draw_partners(segments, pool, anchor, label, majority_size - 1, generator)
    others = _draw_others(segments, pool, label, samples - majority_size, majority_size - 1, generator)
    index = torch.cat([anchor[:, None], partners, others], dim=1)
    majority = (torch.arange(samples) < majority_size).expand(n, -1)
    arrangement = _uniform(generator, n, samples).argsort(dim=1)
    return Plan(index.gather(1, arrangement), majority.gather(1, arrangement), label)


def _draw_partners(
    segments: _Segments, pool: Tensor, anchor: Tensor, label: Tensor, count: int, generator: torch.Generator
) -> Tensor:
    """Draw `count` other images of the anchor's class, (N, count).

    They are a random stretch of the anchor's own segment, whose members are in random order.
    """
    source = segments.source(pool, label, count + 1)
    length, start = segments.size[source, label], segments.start[source, label]
    in_pool, in_split = segments.rank[:, anchor]
    rank = torch.where(source < segments.whole, in_pool, in_split)
    room = (length - 1).clamp(min=1)
    first = (_uniform(generator, len(anchor)) * room).long()
    offset = 1 + (first[:, None] + torch.arange(count)) % room[:, None]
    return segments.members[start[:, None] + (rank[:, None] + offset) % length[:, None]]


def _draw_others(
    segments: _Segments, pool: Tensor, label: Tensor, count: int, limit: int, generator: torch.Generator
) -> Tensor:
    """Draw `count` images of other classes than `label`, at most `limit` of each class, (N, count).

    Each other class has `limit` slots (fewer, if it has fewer images), of which a random subset is filled.
    """
    n, classes = len(label), segments.size.shape[1]
    keys = _uniform(generator, n, classes * limit)
    slot_class = torch.arange(classes * limit) // max(limit, 1)
    slot_copy = torch.arange(classes * limit) % max(limit, 1)
    keys[:, slot_copy >= segments.size[segments.whole][slot_class]] = 2.0
    keys.masked_fill_(slot_class == label[:, None], 2.0)
    chosen = keys.topk(count, dim=1, largest=False).indices
    wanted, copy = slot_class[chosen], slot_copy[chosen]
    source = segments.source(pool, wanted, max(limit, 1))
    length, start = segments.size[source, wanted], segments.start[source, wanted]
    first = (_uniform(generator, n, classes).gather(1, wanted) * length).long()
    return segments.members[start + (first + copy) % length]


def _uniform(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=generator, dtype=torch.float64)
