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
from osvdeploy.osv.rofs import lay_out
from osvdeploy.osv.rofs.placement import GRID, LARGE, ends, marks_of, place
from osvdeploy.sizes import GIB, KIB, MIB
from tests.osv.images import file_trees

FIRST = 16 * MIB + 600 * KIB
"""Where contents may begin behind the tables of some thousand files."""

Files = Sequence[tuple[str, int]]
"""Names and sizes."""


def placed(files: Files, *, end: int = GIB) -> dict[str, Extent] | None:
    places = place([b"/files/" + name.encode() for name, _ in files], [size for _, size in files], first=FIRST, end=end)
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
    led: list[Extent] = []
    for extent in extents:
        if led and led[-1].end + 511 < extent.start:
            led.clear()
        led.append(extent)
        if extent.start // GRID < (extent.end - 1) // GRID:
            size = extent.end - extent.start
            assert any(each.start % GRID == 0 and each.end - each.start >= size for each in led)


@settings(max_examples=40, deadline=None)
@given(st.lists(sizes, max_size=60))
def test_groups_fill_their_blocks(drawn: list[int]) -> None:
    """In order and of all contents; half a block at most stays empty where another content followed, and no group has
    two large ones."""
    files = [(str(number), size) for number, size in enumerate(drawn)]
    stops = ends(drawn, marks_of([name.encode() for name, _ in files], drawn))
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
        case "grown":
            return [*before, (name, size + size // 4), *after]
        case "shrunk":
            return [*before, (name, size - size // 4), *after]
        case "removed":
            return [*before, *after]
        case "added":
            return [*before, (name, size), (name + "'", 10 * KIB), *after]
        case "renamed":
            return [*before, (name + "'", size), *after]
        case _:  # moved: the file is where it was not before in the tree's order
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
    for kind in ("grown", "shrunk", "removed", "added", "renamed", "moved"):
        counts = []
        for _ in range(16):
            new = sent(placed(edited(files, kind, where.randrange(len(files)))) or {})
            counts.append(sum(old.get(block) != held for block, held in new.items()))
        counts.sort()
        means[kind] = sum(counts) / len(counts)
        # A file that is moved changes two groups, the one that it leaves and the one that it comes to.
        assert counts[len(counts) // 2] <= (6 if kind == "moved" else 4)
    assert max(means["grown"], means["shrunk"]) <= 5
    assert max(means.values()) <= 12


@settings(max_examples=20, deadline=None)
@given(file_trees(), st.randoms(use_true_random=False))
def test_a_file_that_is_rewritten_moves_nothing(tree: FileTree, chance: random.Random) -> None:
    """Of the same size, and no more equal to another than before: every content stands where it stood."""
    entries = dict(tree.entries)
    files = [path for path, file in tree.files() if isinstance(file, Content) and file.size >= 4]
    if not files:
        return
    path = chance.choice(files)
    before = entries[path]
    assert isinstance(before, Content)
    entries[path] = Content(chance.randbytes(before.size))
    digests, partition = [Digest(hashlib.sha256(b"%d" % at).hexdigest()) for at in range(2000)], Extent(16 * MIB, GIB)
    count = len(list(tree.files()))
    one = lay_out(tree, digests[:count]).on_disk(partition)
    other = lay_out(FileTree(entries), digests[1000 : 1000 + count]).on_disk(partition)
    assert (one.tables, one.stored) == (other.tables, other.stored)


def test_a_directory_that_is_renamed_moves_little() -> None:
    """As in a package whose version is in its path: its groups end and stand where they did."""
    sizes = random.Random(4)
    below = [(f"{part}/{number}.py", sizes.randrange(1, 40_000)) for part in "abcdef" for number in range(300)]
    files = [*many(300, 20_000, 7), *((f"pack-1.0/{name}", size) for name, size in below)]
    renamed = [*files[:300], *((f"pack-1.1/{name}", size) for name, size in below)]
    old, new = placed(files) or {}, placed(renamed) or {}
    stayed = sum(old[f"pack-1.0/{name}"] == new[f"pack-1.1/{name}"] for name, _ in below)
    assert stayed > 0.9 * len(below)
    assert sum(old[name] == new[name] for name, _ in files[:300]) > 270


def test_a_large_file_stays_where_it_is() -> None:
    """Whatever changes around it, and when it grows: of its own blocks only the changed ones differ."""
    around = many(200, 20_000)

    def start_of(size: int, at: int, small: Files) -> int:
        places = placed([*small[:at], ("large", size), *small[at:]])
        assert places is not None
        return places["large"].start

    starts = {
        start_of(6 * MIB, 100, around),
        start_of(6 * MIB, 7, around),
        start_of(6 * MIB + 4, 100, around),
        start_of(6 * MIB, 100, edited(around, "grown", 99)),
        start_of(6 * MIB, 99, edited(around, "removed", 20)),
    }
    assert len(starts) == 1


def test_large_files_of_one_name_do_not_follow_one_another() -> None:
    """When one of them goes, most others stay: they meet at the first place that they draw only."""
    files = [(f"{number}/model.bin", 2 * MIB) for number in range(100)]
    old, new = placed(files) or {}, placed(files[1:]) or {}
    assert sum(old[name] == new[name] for name in new) >= 95


def test_files_of_one_name_and_size_are_told_apart() -> None:
    """As samples are that each have a directory: where one is taken away, groups end with the same files as before."""
    files = [(f"{number:05}/sample.bin", 20_000) for number in range(3000)]
    old, where = sent(placed(files) or {}), random.Random(1)
    for _ in range(4):
        new = sent(placed(edited(files, "removed", where.randrange(3000))) or {})
        assert sum(old.get(block) != new.get(block) for block in old.keys() | new.keys()) <= 30


def test_equal_contents_are_stored_once_and_leave_a_hole() -> None:
    """Whether two files are equal decides nothing about where others stand."""
    builder, other = TreeBuilder(), TreeBuilder()
    noise = random.Random(1)
    for number in range(100):
        content = noise.randbytes(20_000)
        for tree, held in ((builder, content), (other, content if number % 5 else noise.randbytes(20_000))):
            tree.add_content(b"/a/%d" % number, content, origin="a test")
            tree.add_content(b"/b/%d" % number, held, origin="a test")
    partition = Extent(16 * MIB, GIB)
    one, two = lay_out(builder.tree()).on_disk(partition), lay_out(other.tree()).on_disk(partition)
    assert (len(one.contents), len(two.contents)) == (100, 120)
    places = {content.sha256: content.block for content in two.contents}
    assert all(places[content.sha256] == content.block for content in one.contents)


def test_equal_contents_need_no_room_of_their_own() -> None:
    """Twice as much as fits on the disk, of which half is equal to the other half."""
    builder = TreeBuilder()
    for number in range(500):
        for copy in (b"a", b"b"):
            builder.add_content(b"/%s/%d" % (copy, number), number.to_bytes(2, "big") * 10_000, origin="a test")
    tight = lay_out(builder.tree())
    layout = tight.on_disk(Extent(16 * MIB, 16 * MIB + 3 * tight.size // 2))
    assert layout.starts != tight.starts
    assert len(layout.contents) == 500


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
