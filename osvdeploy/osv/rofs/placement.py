"""Where files stand on a disk, so that a small change of a tree changes few of the blocks that a cloud stores.

Everything follows from the files' paths, sizes and order in the tree; nothing is remembered of an earlier build. What
is in a file plays no part: a file that is rewritten moves nothing, and where it goes is known before it is read. Two
steps:

*Grouping.* Files are taken in the tree's order and packed without gaps into groups, each of whole disk blocks of
512 KiB, nearly filled. Where a group ends is chosen by name and size, among the files that end in the second half of
its last block, the more likely the less stays empty. So a file that grows moves what shares its block, and the group
most often ends with the same file as before: all that follows stays as it was. Files of one directory stay together.

*Placing.* A group's place is drawn from its key, which most changes of a member leave alone. A disk is whole GiB, and
blocks that hold nothing are neither stored nor sent, so there is room. Where two groups draw one place the larger, then
the one with the lower key, has it, and the other takes the next of its own draws.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from osvdeploy.osv.rofs.format import BLOCK_SIZE
from osvdeploy.sizes import GIB, KIB, MIB

LARGE = MIB
"""Bytes from which on a file has a group, and so a place, by itself. Its last block it shares with small ones."""

GRID = 512 * KIB
"""Bytes of a block that a cloud's snapshot has or has not (EBS direct)."""

_WINDOW = GRID // 2 // BLOCK_SIZE
"""Sectors at the end of a disk block within which a group may end."""

_TRIES = 24
"""Places that are drawn for a group before it takes the first gap behind its first draw."""

_OFTEN = 64
"""Files of one name and size that are few in any tree: some blocks full of those that are worth telling apart."""

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


def place(paths: Sequence[bytes], sizes: Sequence[int], *, first: int, end: int) -> list[int] | None:
    """Where each file stands, in bytes from the start of the disk.

    ``paths`` in the tree's order, ``sizes`` in bytes, more than none. Places are multiples of 512 from ``first`` up to
    ``end``, the disk's size in bytes. None where groups of whole disk blocks do not fit.
    """
    sectors = [-(-size // BLOCK_SIZE) for size in sizes]
    taken = bytearray(end // GRID)
    reserved = min(-(-first // GRID), len(taken))
    taken[:reserved] = b"\1" * reserved
    marks = marks_of(paths, sizes)
    groups = []
    begin = 0
    for stop in ends(sizes, marks):
        groups.append(_group(range(begin, stop), paths, sizes, sectors, marks))
        begin = stop
    if sum(-group.negative for group in groups) > len(taken) - reserved:
        return None
    groups.sort()
    places = [0] * len(sizes)
    for group in groups:
        start = _find(taken, group)
        if start is None:
            return None
        taken[start : start - group.negative] = b"\1" * -group.negative
        # The largest first: what is behind it may grow and shrink without moving it.
        largest = group.largest
        places[largest] = start * GRID
        at = places[largest] + sectors[largest] * BLOCK_SIZE
        for member in group.members:
            if member != largest:
                places[member] = at
                at += sectors[member] * BLOCK_SIZE
    return places


def marks_of(paths: Sequence[bytes], sizes: Sequence[int]) -> list[int]:
    """What stands for each file where one of several is chosen: a checksum of its name and, if it is small, its size.

    Not of its whole path: a directory that is renamed is the same to all that is below it. The size tells apart the
    many files of a tree that have one name; a large file's is left out, so that it may grow where it is. Where a good
    part of all files have both in common, which would leave nothing to choose by, it is the path after all.
    """
    checksum = zlib.crc32
    marks = [
        checksum(path[path.rfind(b"/") :], 0 if size >= LARGE else size)
        for path, size in zip(paths, sizes, strict=True)
    ]
    least = max(_OFTEN, len(marks) // 16)
    if often := {mark for mark, count in Counter(marks).items() if count > least}:
        for index, mark in enumerate(marks):
            if mark in often and sizes[index] < LARGE:
                marks[index] = checksum(paths[index], sizes[index])
    return marks


def ends(sizes: Sequence[int], marks: Sequence[int]) -> list[int]:
    """Where groups end: the index behind each one's last member. A group has one large file at most."""
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
                score = _score(marks[index]) * _WEIGHTS[empty]
                if not stop or score < lowest:
                    stop, lowest = index + 1, score
        else:
            stop = count
        found.append(stop)
        begin = stop
    return found


def _score(mark: int) -> int:
    """-log2 of a number that follows from the mark, as a fraction of 2^32, times 2^32, with a straight line between
    powers of two. That makes the least of several scores, each divided by a weight, belong to any of them in proportion
    to its weight."""
    number = mark * 0x9E3779B1 & 0xFFFF_FFFF | 1
    whole = number.bit_length()
    return ((33 - whole) << 32) - ((number << (64 - whole)) >> 31 & 0xFFFF_FFFF)


class _Group(NamedTuple):
    """Its blocks as a negative number, its key, and a checksum of a path, which decides between equal keys: groups are
    placed in the order of these. ``path`` and ``seed`` are what its place is drawn from."""

    negative: int
    key: int
    other: int
    path: bytes
    seed: int
    largest: int
    members: range


def _group(
    members: range, paths: Sequence[bytes], sizes: Sequence[int], sectors: Sequence[int], marks: Sequence[int]
) -> _Group:
    largest = max(members, key=sizes.__getitem__)
    chief, seed = largest, 0
    if sizes[largest] < LARGE:
        chief = min(members, key=marks.__getitem__)
        seed = sizes[chief]
    blocks = -(-sum(sectors[members.start : members.stop]) * BLOCK_SIZE // GRID)
    path = paths[chief]
    return _Group(-blocks, marks[chief], zlib.crc32(path), path, seed, largest, members)


def _find(taken: bytearray, group: _Group) -> int | None:
    """The first of as many free blocks in a row as the group has.

    The first draw is by the name that is its key, each further one by one directory more of that file's path: groups
    that have one key meet at the first only.
    """
    wanted, path = bytes(-group.negative), group.path
    first = _draw(group.key, 0, len(taken))
    if taken.startswith(wanted, first):
        return first
    begin = path.rfind(b"/")
    for attempt in range(1, _TRIES):
        begin = max(path.rfind(b"/", 0, begin), 0)
        start = _draw(zlib.crc32(path[begin:], group.seed), attempt, len(taken))
        if taken.startswith(wanted, start):
            return start
    start = taken.find(wanted, first)
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
