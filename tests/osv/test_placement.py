from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from osvdeploy.digests import Digest
from osvdeploy.osv.filetree import Content, FileTree, Symlink, TreeBuilder
from osvdeploy.osv.image import Extent
from osvdeploy.osv.rofs import Fingerprint, fingerprint, lay_out
from osvdeploy.osv.rofs.fingerprint import LARGE
from osvdeploy.osv.rofs.placement import GRID, ends, place
from osvdeploy.sizes import GIB, KIB, MIB
from tests.osv.images import file_trees

FIRST = 16 * MIB + 600 * KIB
"""Where contents may begin behind the tables of some thousand files."""

Files = Sequence[tuple[str, int]]
"""Contents by a name for their bytes, and their sizes."""


def prints(files: Files) -> list[Fingerprint]:
    digests = [hashlib.sha256(name.encode()).hexdigest() for name, _ in files]
    return [
        Fingerprint(Digest(digest), int(digest[:8], 16) if size >= LARGE else 0)
        for digest, (_, size) in zip(digests, files, strict=True)
    ]


def placed(files: Files, *, end: int = GIB) -> dict[str, Extent] | None:
    places = place([size for _, size in files], prints(files), first=FIRST, end=end)
    if places is None:
        return None
    return {name: Extent(at, at + size) for (name, size), at in zip(files, places, strict=True)}


def sent(places: dict[str, Extent]) -> dict[int, list[tuple[int, str]]]:
    """The disk's blocks, and what each of them holds where."""
    blocks: dict[int, list[tuple[int, str]]] = {}
    for name, extent in places.items():
        for block in range(extent.start // GRID, -(-extent.end // GRID)):
            blocks.setdefault(block, []).append((extent.start - block * GRID, name))
    return {block: sorted(held) for block, held in blocks.items()}


def many(count: int, mean: int, seed: int = 1) -> list[tuple[str, int]]:
    sizes = random.Random(seed)
    return [(f"{seed}.{number}", sizes.randrange(1, 2 * mean)) for number in range(count)]


sizes = st.one_of(
    st.integers(1, 3000),
    st.integers(1, 700 * KIB),
    st.sampled_from([511, 512, 513, GRID - 1, GRID, GRID + 1, LARGE - 1, LARGE, LARGE + 1, 3 * MIB, 30 * MIB]),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(sizes, max_size=40))
def test_any_contents_stand_apart_on_the_disk(drawn: list[int]) -> None:
    """Whole sectors, behind what is reserved, on the disk, none over another, and small ones never over a block's edge
    unless a larger one leads there."""
    files = [(str(number), size) for number, size in enumerate(drawn)]
    places = placed(files)
    if places is None:
        assert sum(drawn) > GIB // 4
        return
    extents = sorted(places.values(), key=lambda extent: extent.start)
    assert all(extent.start % 512 == 0 and extent.end <= GIB for extent in extents)
    assert all(before.end <= after.start for before, after in pairwise(extents))
    assert not extents or extents[0].start >= FIRST


@settings(max_examples=40, deadline=None)
@given(st.lists(sizes, max_size=60))
def test_groups_fill_their_blocks(drawn: list[int]) -> None:
    """In order and of all contents; half a block at most stays empty where another content followed, and no group has
    two large ones."""
    files = [(str(number), size) for number, size in enumerate(drawn)]
    stops = ends(drawn, prints(files))
    assert stops == sorted(set(stops)) and (stops[-1:] or [0]) == [len(drawn)]
    begin = 0
    for stop in stops:
        group = drawn[begin:stop]
        assert sum(size >= LARGE for size in group) <= 1
        empty = -sum(-(-size // 512) * 512 for size in group) % GRID
        large_next = stop < len(drawn) and drawn[stop] >= LARGE
        assert stop == len(drawn) or large_next or empty <= GRID // 2
        begin = stop


@settings(max_examples=40, deadline=None)
@given(file_trees(), st.randoms(use_true_random=False))
def test_a_layout_follows_from_the_tree_alone(tree: FileTree, order: random.Random) -> None:
    """The order in which files were added makes no difference, to no byte."""
    builder = TreeBuilder()
    paths = [path for path in tree.entries if path != b"/"]
    order.shuffle(paths)
    for path in paths:
        match tree.entries[path]:
            case Content(content=content):
                builder.add_content(path, content, origin="a test")
            case Symlink(target=target):
                builder.add_symlink(path, target, origin="a test")
            case _:
                builder.add_directory(path, origin="a test")
    partition = Extent(16 * MIB, GIB)
    one, other = lay_out(tree).on_disk(partition), lay_out(builder.tree()).on_disk(partition)
    assert (one.tables, one.contents) == (other.tables, other.contents)


def edited(files: Files, kind: str, at: int) -> list[tuple[str, int]]:
    name, size = files[at]
    before, after = list(files[:at]), list(files[at + 1 :])
    match kind:
        case "same size":
            return [*before, (name + "'", size), *after]
        case "grown":
            return [*before, (name + "'", size + size // 4), *after]
        case "shrunk":
            return [*before, (name + "'", size - size // 4), *after]
        case "removed":
            return [*before, *after]
        case "added":
            return [*before, (name, size), (name + "'", 10 * KIB), *after]
        case _:  # moved: the content is where it was not before in the tree's order
            rest = [*before, *after]
            to = at * 7 % len(rest)
            return [*rest[:to], (name, size), *rest[to:]]


@pytest.mark.parametrize("count", [1000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_a_small_change_changes_few_blocks(count: int) -> None:
    """One of files of 20 KB on average changes: few blocks change, whatever the number of files."""
    files = many(count, 20_000)
    old = sent(placed(files) or {})
    assert len(old) <= 1.15 * sum(size for _, size in files) / GRID
    where = random.Random(3)
    means = {}
    for kind in ("same size", "grown", "shrunk", "removed", "added", "moved"):
        counts = []
        for _ in range(16):
            new = sent(placed(edited(files, kind, where.randrange(len(files)))) or {})
            counts.append(sum(old.get(block) != held for block, held in new.items()))
        counts.sort()
        means[kind] = sum(counts) / len(counts)
        assert counts[len(counts) // 2] <= 4
    assert means["same size"] <= 2
    assert max(means["grown"], means["shrunk"]) <= 5
    assert max(means.values()) <= 12


def test_a_large_file_stays_where_it_is() -> None:
    """Whatever changes around it, in a part of it, or in its name: of its own blocks only the changed ones differ."""
    noise = random.Random(1).randbytes(6 * MIB)
    part = noise[: 2 * MIB] + b"changed" + noise[2 * MIB + 7 :]
    grown = noise + b"more"
    around = many(200, 20_000)
    sketched = [fingerprint(noise), fingerprint(part), fingerprint(grown)]
    assert len({each.sketch for each in sketched}) == 1

    def start_of(large: Fingerprint, size: int, at: int, small: Files) -> int | None:
        every = [*prints(small[:at]), large, *prints(small[at:])]
        places = place([*(s for _, s in small[:at]), size, *(s for _, s in small[at:])], every, first=FIRST, end=GIB)
        return None if places is None else places[at]

    starts = {
        start_of(sketched[0], len(noise), 100, around),
        start_of(sketched[0], len(noise), 7, around),
        start_of(sketched[1], len(part), 100, around),
        start_of(sketched[2], len(grown), 100, around),
        start_of(sketched[0], len(noise), 100, edited(around, "grown", 99)),
        start_of(sketched[0], len(noise), 99, edited(around, "removed", 20)),
    }
    assert len(starts) == 1


def test_a_disk_that_grows_leaves_half_in_place() -> None:
    """From one GiB to two, about half of all groups stay."""
    files = many(3000, 20_000)
    one, two = placed(files, end=GIB) or {}, placed(files, end=2 * GIB) or {}
    assert 0.3 < sum(one[name] == two[name] for name in one) / len(one) < 0.75


def test_a_nearly_full_disk_is_filled() -> None:
    """Where groups of whole blocks find no room the contents stand back to back, up to the disk's last sector."""
    builder = TreeBuilder()
    for number in range(50):
        builder.add_content(b"/%d" % number, number.to_bytes(2, "big") + bytes(100 * KIB + 510), origin="a test")
    tight = lay_out(builder.tree())
    for spare in (0, 512, GRID, 64 * MIB):
        end = 16 * MIB + tight.size + spare
        layout = tight.on_disk(Extent(16 * MIB, end))
        assert 16 * MIB + layout.size <= end
        assert len(layout.contents) == 50
    assert tight.on_disk(Extent(16 * MIB, 16 * MIB + tight.size)).contents == tight.contents


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 40), st.integers(0, 2**32))
def test_a_disk_of_any_fullness_is_laid_out(percent: int, seed: int) -> None:
    """Between 60 and 100 % full, contents of all sizes stand apart or there is no room for whole blocks."""
    end, chance = 128 * MIB, random.Random(seed)
    files: list[tuple[str, int]] = []
    left = (end - FIRST) * (60 + percent) // 100
    while left > 512:
        size = min(left, max(1, int(chance.lognormvariate(11, 2))))
        files.append((f"{seed}.{len(files)}", size))
        left -= -(-size // 512) * 512
    places = placed(files, end=end)
    assert places is not None or percent > 10 or max(size for _, size in files) > 8 * MIB
    extents = sorted((places or {}).values(), key=lambda extent: extent.start)
    assert all(before.end <= after.start for before, after in pairwise(extents))
    assert not extents or (extents[0].start >= FIRST and extents[-1].end <= end)
