"""Where contents stand on a disk, so that a small change of a tree changes few of the blocks that a cloud stores.

Everything follows from the contents and their order in the tree; nothing is remembered of an earlier build. Two steps:

*Grouping.* Contents are taken in the tree's order and packed without gaps into groups, each of whole disk blocks of
512 KiB, nearly filled. Where a group ends is chosen by content, among the files that end in the second half of its last
block, the more likely the less stays empty. So a file that grows moves what shares its block, and the group most often
ends with the same file as before: all that follows stays as it was. Files of one directory stay together.

*Placing.* A group's place is drawn from its key, which most changes of a member leave alone. A disk is whole GiB, and
blocks that hold nothing are neither stored nor sent, so there is room. Where two groups draw one place the larger, then
the one with the lower key, has it, and the other takes the next of its own draws.
"""

from __future__ import annotations

from collections.abc import Sequence

from osvdeploy.osv.rofs.fingerprint import LARGE, Fingerprint
from osvdeploy.osv.rofs.format import BLOCK_SIZE
from osvdeploy.sizes import GIB, KIB

GRID = 512 * KIB
"""Bytes of a block that a cloud's snapshot has or has not (EBS direct)."""

_WINDOW = GRID // 2 // BLOCK_SIZE
"""Sectors at the end of a disk block within which a group may end."""

_TRIES = 24
"""Places that are drawn for a group before it takes the first gap behind its first draw."""

_MASK = (1 << 64) - 1


def _weights() -> list[int]:
    """By how many sectors stay empty behind a group's end: the less, the more likely it ends there.

    e-fold in 48 KiB. The form makes choices agree: a change that shifts all ends by one distance scales all weights by
    one factor. Measured on 60 MB in 3,000 files: 32 KiB leaves 7 to 9 % of the blocks empty and 48 KiB 9 to 13 %, and a
    file that changes its size then changes a third fewer blocks; with equal chances within a window of the same cost it
    changes twice as many. In whole numbers, since two machines' exp() need not agree.
    """
    weights = [1 << 32]
    while len(weights) <= _WINDOW:
        weights.append(weights[-1] + weights[-1] // 96)
    return weights


_WEIGHTS = _weights()


def place(sizes: Sequence[int], prints: Sequence[Fingerprint], *, first: int, end: int) -> list[int] | None:
    """Where each content stands, in bytes from the start of the disk.

    ``sizes`` in bytes, more than none, and ``prints`` are of contents that are all different, in the tree's order.
    Places are multiples of 512 from ``first`` up to ``end``, the disk's size in bytes. None where groups of whole disk
    blocks do not fit.
    """
    sectors = [-(-size // BLOCK_SIZE) for size in sizes]
    taken = bytearray(end // GRID)
    reserved = min(-(-first // GRID), len(taken))
    taken[:reserved] = b"\1" * reserved
    groups = []
    begin = 0
    for stop in ends(sizes, prints):
        groups.append(_group(range(begin, stop), sizes, sectors, prints))
        begin = stop
    if sum(-negative for negative, *_ in groups) > len(taken) - reserved:
        return None
    groups.sort()
    places = [0] * len(sizes)
    for negative, key, _, largest, members in groups:
        start = _find(taken, key, -negative)
        if start is None:
            return None
        taken[start : start - negative] = b"\1" * -negative
        # The largest first: what is behind it may grow and shrink without moving it.
        places[largest] = start * GRID
        at = places[largest] + sectors[largest] * BLOCK_SIZE
        for member in members:
            if member != largest:
                places[member] = at
                at += sectors[member] * BLOCK_SIZE
    return places


def ends(sizes: Sequence[int], prints: Sequence[Fingerprint]) -> list[int]:
    """Where groups end: the index behind each one's last member. A group has one large content at most."""
    found: list[int] = []
    unit = GRID // BLOCK_SIZE
    begin, count = 0, len(sizes)
    while begin < count:
        filled, limit, large = 0, unit, False
        stop, lowest = 0, 0
        for index in range(begin, count):
            size = sizes[index]
            if size >= LARGE:
                if large:
                    stop = index
                    break
                large = True
            filled += -(-size // BLOCK_SIZE)
            if filled > limit:
                if stop:
                    break
                # Nothing ends near enough to the block's end, so what spans it leads into more blocks.
                limit = -(-filled // unit) * unit
            empty = limit - filled
            if empty <= _WINDOW:
                score = _score(prints[index].sha256) * _WEIGHTS[empty]
                if not stop or score < lowest:
                    stop, lowest = index + 1, score
        else:
            stop = count
        found.append(stop)
        begin = stop
    return found


def _score(sha256: str) -> int:
    """-log2 of the digest's second 64 bits as a fraction, times 2^32, with a straight line between powers of two. That
    makes the least of several scores, each divided by a weight, belong to any of them in proportion to its weight."""
    number = int(sha256[16:32], 16) | 1
    whole = number.bit_length()
    return ((65 - whole) << 32) - ((number << (64 - whole)) >> 31 & 0xFFFF_FFFF)


def _group(
    members: range, sizes: Sequence[int], sectors: Sequence[int], prints: Sequence[Fingerprint]
) -> tuple[int, int, str, int, range]:
    """Its blocks as a negative number, its key, its largest member's digest, which decides between equal keys, that
    member, and all members: groups are placed in the order of these."""
    largest = max(members, key=sizes.__getitem__)
    # All digests have one length, so the lowest text is the lowest number.
    key = (prints[largest] if sizes[largest] >= LARGE else min(prints[members.start : members.stop])).key
    size = sum(sectors[members.start : members.stop]) * BLOCK_SIZE
    return -size // GRID, key, prints[largest].sha256, largest, members


def _find(taken: bytearray, key: int, count: int) -> int | None:
    """The first of ``count`` free blocks in a row."""
    wanted = bytes(count)
    for attempt in range(_TRIES):
        start = _draw(key, attempt, len(taken))
        if taken.startswith(wanted, start):
            return start
    start = taken.find(wanted, _draw(key, 0, len(taken)))
    if start < 0:
        start = taken.find(wanted)
    return None if start < 0 else start


def _draw(key: int, attempt: int, count: int) -> int:
    """One of the disk's ``count`` blocks. A disk that grows by a GiB leaves most draws where they were."""
    unit = GIB // GRID
    number = _mix(key + attempt * 0x9E3779B97F4A7C15)
    return _jump(_mix(number), -(-count // unit)) * unit + number % unit


def _mix(number: int) -> int:
    """splitmix64's finisher: every bit of the result depends on every bit of ``number``."""
    number &= _MASK
    number = (number ^ (number >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    number = (number ^ (number >> 27)) * 0x94D049BB133111EB & _MASK
    return number ^ (number >> 31)


def _jump(key: int, buckets: int) -> int:
    """Lamping and Veach's jump consistent hash: with one bucket more, a key stays or goes to the new one."""
    bucket, following = -1, 0
    while following < buckets:
        bucket = following
        key = (key * 2862933555777941757 + 1) & _MASK
        following = int((bucket + 1) * ((1 << 31) / ((key >> 33) + 1)))
    return bucket
