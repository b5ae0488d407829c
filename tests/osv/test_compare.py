from __future__ import annotations

import random
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from osvdeploy.errors import Interrupted
from osvdeploy.osv.anatomy import look
from osvdeploy.osv.cmdline import BootCommand, encode
from osvdeploy.osv.compare import BLOCK_SIZE, Change, Comparison, Kind, Side, block_count, blocks_of, compare
from osvdeploy.osv.filetree import FileTree, TreeBuilder
from osvdeploy.osv.image import Extent, merged
from tests.osv.images import file_trees, loader_image
from tests.osv.rofs_files import make_rofs, tree_of
from tests.osv.test_anatomy import MIB, disk_of, ext_superblock
from tests.osv.volumes import Volume

NOISE = random.Random(1).randbytes(3 * MIB)


def side(disk: bytes | Volume, name: str = "disk") -> Side:
    volume = disk if isinstance(disk, Volume) else Volume(disk, 1 << 30)
    return Side(name, volume, look(volume))


def compared(image: bytes | Volume, other: bytes | Volume) -> Comparison:
    return compare(side(image, "image"), side(other, "other"))


def changes(found: Comparison) -> set[tuple[str, bytes]]:
    assert found.files is not None
    return {(each.change.value, each.path) for each in found.files}


def disk(files: Mapping[bytes, bytes]) -> bytes:
    return disk_of(make_rofs(tree_of(dict(files))))


@settings(max_examples=25, deadline=None)
@given(file_trees())
def test_an_image_does_not_differ_from_itself(tree: FileTree) -> None:
    """Nothing to tell, nothing to send."""
    image = disk_of(make_rofs(tree))
    found = compared(image, image)
    assert (found.files, found.blocks.changed, found.kernel, found.command_line) == ((), (), False, False)


@settings(max_examples=25, deadline=None)
@given(file_trees(), file_trees())
def test_the_changes_make_one_tree_of_the_other(image: FileTree, other: FileTree) -> None:
    """Whoever applies them to the other's tree has the image's."""
    ours, theirs = side(disk_of(make_rofs(image))), side(disk_of(make_rofs(other)))
    found = compare(ours, theirs)
    assert found.files is not None
    paths = set(other.entries)
    for each in found.files:
        match each.change:
            case Change.ADDED:
                assert each.path not in other.entries
                paths.add(each.path)
            case Change.REMOVED:
                paths.remove(each.path)
            case Change.CHANGED:
                assert image.entries[each.path] != other.entries[each.path]
            case Change.MOVED:
                assert each.was is not None and image.entries[each.path] == other.entries[each.was]
                paths.remove(each.was)
                paths.add(each.path)
    assert paths == set(image.entries)
    told = {each.path for each in found.files}
    assert all(image.entries[path] == other.entries[path] for path in paths - told)


def test_each_kind_of_change_is_told() -> None:
    """Changed with its sizes, added, removed, and moved with where it was."""
    other = disk({b"/a": b"one", b"/b": b"two", b"/d/c": b"content", b"/same": b"x"})
    image = disk({b"/a": b"another", b"/d/new": b"3", b"/e/c": b"content", b"/same": b"x"})
    found = compared(image, other)
    assert changes(found) == {
        ("changed", b"/a"),
        ("removed", b"/b"),
        ("added", b"/d/new"),
        ("added", b"/e"),
        ("moved", b"/e/c"),
    }
    assert found.files is not None
    by_path = {each.path: each for each in found.files}
    assert (by_path[b"/a"].before, by_path[b"/a"].after) == (3, 7)
    assert by_path[b"/e/c"].was == b"/d/c" and by_path[b"/e"].kind is Kind.DIRECTORY


def test_of_equal_files_the_one_of_the_same_name_moved() -> None:
    """Two copies in another directory keep their names."""
    found = compared(disk({b"/new/x": b"same", b"/new/y": b"same"}), disk({b"/old/y": b"same", b"/old/x": b"same"}))
    assert found.files is not None
    moved = {each.path: each.was for each in found.files if each.change is Change.MOVED}
    assert moved == {b"/new/x": b"/old/x", b"/new/y": b"/old/y"}


def test_two_files_that_changed_places_changed() -> None:
    """Of one size, with every block of contents the same on both disks: only the tables tell."""
    files = tree_of({b"/a": NOISE[:MIB], b"/b": NOISE[MIB : 2 * MIB]})
    swapped = tree_of({b"/a": NOISE[MIB : 2 * MIB], b"/b": NOISE[:MIB]})
    image = disk_of(make_rofs(files, {b"/a": 4096, b"/b": 8192}, tables=1))
    other = disk_of(make_rofs(swapped, {b"/a": 8192, b"/b": 4096}, tables=1))
    found = compared(image, other)
    assert changes(found) == {("changed", b"/a"), ("changed", b"/b")} and found.blocks.changed == (4,)


def test_empty_files_do_not_move() -> None:
    """All of them are alike, which says nothing."""
    assert changes(compared(disk({b"/a": b""}), disk({b"/b": b""}))) == {("added", b"/a"), ("removed", b"/b")}


def test_a_link_changes_with_its_target_and_a_file_with_its_kind() -> None:
    """What stands at a path is more than its bytes."""
    one, two = TreeBuilder(), TreeBuilder()
    for builder, target in ((one, b"a"), (two, b"b")):
        builder.add_symlink(b"/link", target, origin="a test")
    one.add_content(b"/thing", b"", origin="a test")
    two.add_directory(b"/thing", origin="a test")
    found = compared(disk_of(make_rofs(one.tree())), disk_of(make_rofs(two.tree())))
    assert changes(found) == {("changed", b"/link"), ("changed", b"/thing")}


def test_what_only_stands_elsewhere_did_not_change() -> None:
    """A new first file moves all contents that follow it; they are compared by their bytes, and are the same."""
    files = {b"/b": NOISE[:700_000], b"/c": NOISE[700_000:1_000_000]}
    found = compared(disk({b"/a": b"x" * 600, **files}), disk(files))
    assert changes(found) == {("added", b"/a")}
    # The partition grew, too, which the first block says.
    assert len(found.blocks.changed) == found.blocks.needed == 3


def test_only_blocks_that_differ_are_sent() -> None:
    """One changed byte in a file is one block; a changed command line is the first one."""
    files = {b"/a": NOISE[:MIB], b"/b": NOISE[MIB : 3 * MIB]}
    image = disk(files | {b"/b": NOISE[MIB : 2 * MIB] + b"!" + NOISE[2 * MIB + 1 : 3 * MIB]})
    found = compared(image, disk(files))
    assert found.blocks.bytes_to_send == BLOCK_SIZE and found.blocks.needed == 8
    assert changes(found) == {("changed", b"/b")}

    other = disk_of(make_rofs(tree_of(files)), line=encode(BootCommand((), (), ("/other",))))
    again = compared(disk(files), other)
    assert (again.blocks.changed, again.command_line, again.kernel, again.files) == ((0,), True, False, ())


def test_a_block_that_the_other_never_sent_must_be_sent() -> None:
    """It may hold the very bytes: a snapshot has only the blocks that somebody reads."""
    two = make_rofs(tree_of({b"/a": b"x", b"/b": NOISE[:MIB]}), {b"/a": 512, b"/b": 4096}, tables=1)
    one = make_rofs(tree_of({b"/a": b"x"}), {b"/a": 512}, tables=1)
    # The other has the bytes of /b where the image has them, but no file that is them.
    found = compared(disk_of(two), disk_of(one.ljust(4096 * 512, b"\0") + NOISE[:MIB]))
    assert {8, 9} <= set(found.blocks.changed) and changes(found) == {("added", b"/b")}


def test_bytes_that_nobody_reads_do_not_count() -> None:
    """What lies behind the file system, and in a hole between its files, is sent by nobody."""
    image = disk({b"/a": NOISE[:MIB]})
    padded = image.ljust(6 * MIB, b"\0")
    assert compared(padded + b"left over", image.ljust(8 * MIB, b"\0")).blocks.changed == ()


def test_contents_may_stand_anywhere() -> None:
    """Tables first and a wide gap before the data, as a writer may place it: the gap is neither read nor sent."""
    files = tree_of({b"/a": NOISE[:5000]})
    image = disk_of(make_rofs(files, {b"/a": 8 * MIB // 512}, tables=1))
    volume = Volume(image, 1 << 30)
    found = compared(volume, disk({b"/a": NOISE[:5000]}))
    assert found.files == ()
    assert found.blocks.needed == 3  # boot sector and kernel; superblock and tables; contents


def test_a_file_system_that_cannot_be_listed_still_has_blocks() -> None:
    """Which side and why is told, and everything in its partition counts."""
    ext = disk_of(ext_superblock().ljust(MIB, b"\0") + NOISE[:MIB])
    found = compared(ext, disk({b"/a": b"x"}))
    assert found.files is None and found.unlisted is not None
    assert found.unlisted.startswith("image: ") and "ext" in found.unlisted
    assert found.blocks.needed == 5
    assert compared(ext, ext).blocks.changed == ()


def test_another_kernel_is_told() -> None:
    """By the loader.img's digest."""
    image = disk({b"/a": b"x"})
    kernel = loader_image(payload=b"\x7fELF another")
    assert compared(image, image[: 64 * 1024] + kernel[64 * 1024 :] + image[len(kernel) :]).kernel


@given(st.lists(st.tuples(st.integers(0, 90), st.integers(0, 90)).map(lambda pair: Extent(*pair)), max_size=8))
def test_blocks_are_counted_without_naming_them(extents: list[Extent]) -> None:
    """As many as there are, also where two ranges meet within one."""
    assert block_count(merged(extents), 8) == blocks_of(extents, 8).count(1)


def test_holes_are_not_compared() -> None:
    """Two partitions of 500 MiB with a MiB of data cost reading that MiB."""
    head = disk_of(ext_superblock().ljust(MIB, b"\0"))
    wide = head[: 0x1CE + 12] + (500 * MIB // 512).to_bytes(4, "little") + head[0x1CE + 16 :]
    ours, theirs = Volume(wide, 1 << 30), Volume(wide, 1 << 30)
    found = compared(ours, theirs)
    assert found.blocks.needed > 1000 and found.blocks.changed == ()
    assert sum(length for _, length in ours.asked) < 8 * MIB


def test_a_cancel_ends_it() -> None:
    """check() is called while blocks and files are read."""
    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise Interrupted("enough")

    image = side(disk({b"/a": NOISE}))
    with pytest.raises(Interrupted):
        compare(image, image, check=check)
