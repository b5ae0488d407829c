from __future__ import annotations

import hashlib
import itertools
import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from osvdeploy.errors import DiskInvalid, KernelInvalid
from osvdeploy.osv.anatomy import Anatomy, FileSystem, Layout, kernel_facts, look, totals
from osvdeploy.osv.cmdline import BootCommand, encode
from osvdeploy.osv.disk import FileAccess, with_partition
from osvdeploy.osv.filetree import FileTree, TreeBuilder
from osvdeploy.osv.image import Extent, merged
from osvdeploy.osv.kernel import Payload
from osvdeploy.osv.rofs import RofsFile
from osvdeploy.osv.source import open_image
from tests.osv.images import file_trees, loader_image
from tests.osv.rofs_files import make_rofs, tree_of
from tests.osv.volumes import Volume

KIB, MIB = 1 << 10, 1 << 20
BOOT = BootCommand((("verbose", None),), (("A", "b"),), ("/hello", "8080"))


def disk_of(partition: bytes, *, line: bytes = encode(BOOT), slots: dict[int, Extent] | None = None) -> bytes:
    """A disk as every builder of OSv images lays it out, ``partition`` in slot 2 at 2 MiB."""
    loader = bytearray(loader_image())
    loader[512 : 512 + len(line) + 1] = line + b"\0"
    head = with_partition(bytes(loader), Extent(2 * MIB, 2 * MIB + len(partition)))
    for slot, extent in (slots or {}).items():
        entry = struct.pack("<BBHBBHII", 0, 0, 1, 0x83, 0, 0, extent.start // 512, (extent.end - extent.start) // 512)
        at = 0x1BE + 16 * (slot - 1)
        head = head[:at] + entry + head[at + 16 :]
    return head.ljust(2 * MIB, b"\0") + partition


def ext_superblock(*, compatible: int = 0x4, incompatible: int = 0x40) -> bytes:
    block = bytearray(1024)
    struct.pack_into("<II", block, 0, 16, 4096)
    struct.pack_into("<I", block, 24, 2)
    struct.pack_into("<H", block, 0x38, 0xEF53)
    struct.pack_into("<II", block, 92, compatible, incompatible)
    return bytes(1024) + bytes(block)


def zfs_labels(size: int, *, order: str = "<", groups: tuple[int, ...] = (7, 9)) -> bytes:
    device = bytearray(size)
    for start in (0, 256 * KIB, size - 512 * KIB, size - 256 * KIB):
        for slot, group in enumerate(groups):
            struct.pack_into(f"{order}QQQ", device, start + 128 * KIB + slot * KIB, 0x00BAB10C, 5000, group)
    return bytes(device)


def test_a_disk_is_taken_apart() -> None:
    """Boot sector, kernel, command line and the file system of slot 2, as OSv finds them."""
    found = look(Volume(disk_of(make_rofs(tree_of({b"/hello": b"program"}))), 1 << 30))
    assert (found.layout, found.size, found.problems) == (Layout.DISK, 1 << 30, ())
    assert found.kernel is not None and found.kernel.payload is Payload.LZLOADER
    assert found.kernel.extent == Extent(64 * KIB, 128 * KIB)
    assert found.command_line is not None and found.command_line.boot == BOOT
    (partition,) = found.partitions
    assert (partition.slot, partition.device, partition.file_system) == (2, "/dev/vblk0.1", FileSystem.ROFS)
    assert found.root is partition and set(found.tree().nodes) == {b"/", b"/hello"}


def test_the_loader_image_is_known_again_on_the_disk() -> None:
    """Whatever command line and partitions were written over it, its digest is the one that osv.lock pins."""
    found = look(Volume(disk_of(make_rofs(tree_of({})), line=b"/x " * 900)))
    assert found.kernel is not None
    assert found.kernel.sha256 == hashlib.sha256(loader_image()).hexdigest()


def test_a_loader_image_alone_is_a_disk_without_files() -> None:
    """A kernel on which nothing was put yet."""
    found = look(Volume(loader_image()))
    assert found.partitions == () and found.kernel is not None
    with pytest.raises(DiskInvalid, match="slot 2 is empty"):
        found.tree()


def test_a_bare_rofs_is_an_image_of_its_own() -> None:
    """rofs.img, as scripts/gen-rofs-img.py leaves it."""
    found = look(Volume(make_rofs(tree_of({b"/hello": b"program"}))))
    assert (found.layout, found.kernel, found.command_line) == (Layout.BARE, None, None)
    assert b"/hello" in found.tree().nodes


def test_files_in_the_kernel_are_told_from_none() -> None:
    """fs=ramfs and virtiofs leave a partition of no length."""
    found = look(Volume(disk_of(b"")))
    assert [each.file_system for each in found.partitions] == [FileSystem.NONE]
    with pytest.raises(DiskInvalid, match="linked into the kernel"):
        found.tree()


def test_a_second_file_system_stands_in_slot_3() -> None:
    """fs=rofs_with_zfs: ROFS is the root, ZFS follows it and is /dev/vblk0.2."""
    first = make_rofs(tree_of({b"/hello": b"program"}))
    second = zfs_labels(3 * MIB)
    start = 2 * MIB + len(first)
    disk = disk_of(first, slots={3: Extent(start, start + len(second))}) + second
    root, data = look(Volume(disk)).partitions
    assert (root.file_system, data.file_system, data.device) == (FileSystem.ROFS, FileSystem.ZFS, "/dev/vblk0.2")


def test_a_disk_without_kernel_is_what_create_disk_makes() -> None:
    """scripts/build --create-disk: a sector of zeros with a partition table, and the partition right behind it."""
    first = make_rofs(tree_of({b"/hello": b"program"}))
    head = with_partition(bytes(510) + b"\x55\xaa", Extent(512, 512 + len(first)))
    found = look(Volume(head + first))
    assert (found.layout, found.kernel, found.command_line, found.problems) == (Layout.DATA, None, None, ())
    assert b"/hello" in found.tree().nodes
    assert found.read[0].start == 0 and found.read[-1].end <= found.size


@pytest.mark.parametrize(("compatible", "incompatible", "says"), [(4, 0x40, "ext4"), (4, 2, "ext3"), (0, 2, "ext2")])
def test_ext_is_told_and_not_listed(compatible: int, incompatible: int, says: str) -> None:
    """Which of the three, and how large."""
    content = ext_superblock(compatible=compatible, incompatible=incompatible).ljust(MIB, b"\0")
    for found in (look(Volume(disk_of(content))), look(Volume(content))):
        assert found.root is not None
        assert (found.root.file_system, found.root.detail) == (FileSystem.EXT, f"{says}, 4096 blocks of 4096")
        with pytest.raises(DiskInvalid, match="ext, which cannot be listed"):
            found.tree()


@pytest.mark.parametrize("order", ["<", ">"])
def test_zfs_is_told_by_its_labels(order: str) -> None:
    """Four labels, two at each end, in the byte order of who wrote them."""
    found = look(Volume(disk_of(zfs_labels(2 * MIB, order=order))))
    assert found.root is not None
    assert (found.root.file_system, found.root.detail) == (FileSystem.ZFS, "4 of 4 labels, transaction group 9")
    with pytest.raises(DiskInvalid, match="ZFS, which cannot be listed"):
        found.tree()


@pytest.mark.parametrize(("content", "kind"), [(bytes(4096), FileSystem.EMPTY), (b"x" * 4096, FileSystem.UNKNOWN)])
def test_a_partition_with_nothing_known_is_told(content: bytes, kind: FileSystem) -> None:
    """Zeros are empty; anything else is unknown, and neither is listed."""
    found = look(Volume(disk_of(content)))
    assert found.root is not None and found.root.file_system is kind
    with pytest.raises(DiskInvalid):
        found.tree()


def test_what_is_no_image_says_what_one_is() -> None:
    """Text, zeros, half a sector."""
    for content in (b"hello" * 1000, bytes(4096), b"x"):
        with pytest.raises(DiskInvalid, match="no OSv image"):
            look(Volume(content))


@pytest.mark.parametrize(
    ("line", "says"),
    [(b"/a; /b", "another program"), (b"a" * 32256, "does not end"), (b"-x /a", "two dashes"), (b"\xff", "UTF-8")],
)
def test_a_command_line_that_cannot_be_decoded_is_shown_raw(line: bytes, says: str) -> None:
    """The line is there, and why it is not taken apart."""
    found = look(Volume(disk_of(make_rofs(tree_of({})), line=line))).command_line
    assert found is not None and found.boot is None and found.raw == line[:32256]
    assert found.problem is not None and says in found.problem


@pytest.mark.parametrize(
    ("offset", "patch", "says"),
    [
        (0x10, b"\0\0", "0 chunks"),
        (0x10, b"\xff\xff", "65535 chunks"),
        (0x10, b"\x3f\0", "inside the kernel"),
        (0x1CE + 4, b"\0", "type is 0"),
        (0x1CE + 2, b"\0", "sector 0"),
        (0x1CE + 12, b"\xff\xff\xff", "the disk ends early"),
        (2 * MIB + 8, b"\2", "version 2"),
        (2 * MIB + 24, b"\xff\xff", "tables at block"),
    ],
)
def test_a_fault_is_told_and_the_rest_is_shown(offset: int, patch: bytes, says: str) -> None:
    """An image that does not boot is the one that people look into."""
    content = disk_of(make_rofs(tree_of({b"/hello": b"program"})))
    found = look(Volume(content[:offset] + patch + content[offset + len(patch) :]))
    told = [*found.problems, *(each.problem or "" for each in found.partitions)]
    assert any(says in each for each in told)
    assert found.command_line is not None and found.command_line.boot == BOOT


@settings(max_examples=60, deadline=None)
@given(file_trees(), st.data())
def test_a_disk_that_was_cut_short_says_so(tree: FileTree, data: st.DataObject) -> None:
    """With both sizes, wherever it ends; and lists its files where all of them stand before that."""
    rofs = make_rofs(tree)
    whole = disk_of(rofs + bytes(64 * KIB))
    size = data.draw(st.integers(512, len(whole) - 1))
    found = look(Volume(whole[:size]))
    assert found.root is not None and found.root.problem is not None
    assert found.root.problem.startswith(f"the disk ends early: it has {size} bytes (")
    assert f"ends at {len(whole)} (" in found.root.problem
    if size >= 2 * MIB + len(rofs):
        assert set(found.tree().nodes) == set(tree.entries)
    if found.root.tree is None:
        with pytest.raises(DiskInvalid, match="the disk ends early") as caught:
            found.tree()
        assert caught.value.hint is not None and "download it again" in caught.value.hint


def test_of_partitions_that_overlap_the_root_is_read() -> None:
    """Whatever slot the other has; both are told."""
    rofs = make_rofs(tree_of({b"/hello": b"program"}))
    for slot in (1, 3):
        found = look(Volume(disk_of(rofs, slots={slot: Extent(2 * MIB, 2 * MIB + 512)})))
        assert b"/hello" in found.tree().nodes and [each.slot for each in found.partitions] == sorted([2, slot])
        (other,) = [each for each in found.partitions if each.slot == slot]
        assert other.problem == "it overlaps partition 2, and is not looked into" and other.tree is None


def test_a_tree_in_numbers() -> None:
    """Files that share their bytes count whole, and once as shared; the biggest come first."""
    builder = TreeBuilder()
    for path, size in [(b"/a", 100), (b"/d/b", 3000), (b"/d/c", 3000)]:
        builder.add_content(path, b"x" * size, origin="a test")
    builder.add_symlink(b"/link", b"a", origin="a test")
    image = make_rofs(builder.tree(), {b"/a": 1, b"/d/b": 2, b"/d/c": 2}, tables=8)
    found = totals(look(Volume(image)).tree(), biggest=2)
    assert (found.files, found.directories, found.links, found.content, found.shared) == (3, 2, 1, 6100, 3000)
    assert found.biggest == ((b"/d/b", 3000), (b"/d/c", 3000))


@settings(max_examples=60, deadline=None)
@given(file_trees(), st.data())
def test_what_is_read_is_all_that_a_tree_needs(tree: FileTree, data: st.DataObject) -> None:
    """With every other byte overwritten, the image holds the same files: nothing depends on where a writer put them."""
    order = data.draw(st.permutations([path for path, _ in tree.files()]))
    places = {path: 200 + 8 * at for at, path in enumerate(order)}
    image = make_rofs(tree, places, tables=data.draw(st.sampled_from([1, 400])))
    reader = look(Volume(image)).tree()
    kept = bytearray(b"\xa5" * len(image))
    for extent in reader.stored():
        kept[extent.start : extent.end] = image[extent.start : extent.end]
    again = look(Volume(bytes(kept))).tree()
    assert again.nodes == reader.nodes
    for node in reader.nodes.values():
        if isinstance(node, RofsFile):
            assert again.read(node) == reader.read(node)


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)).map(lambda pair: Extent(*pair)), max_size=8))
def test_merged_extents_are_the_same_bytes(extents: list[Extent]) -> None:
    """Ascending, apart, and each byte once."""
    found = merged(extents)
    wanted = {at for each in extents for at in range(each.start, each.end)}
    assert [at for each in found for at in range(each.start, each.end)] == sorted(wanted)
    assert all(before.end < after.start for before, after in itertools.pairwise(found))


def test_holes_are_not_read() -> None:
    """Of a disk of a GiB no more is read than boot sector, kernel and tables, and a first look at its file systems."""
    files = tree_of({b"/big": b"x" * MIB, b"/hello": b"program"})
    disk = Volume(disk_of(make_rofs(files)), 1 << 30)
    found = look(disk)
    totals(found.tree())
    assert sum(min(length, MIB) for _, length in disk.asked) < 256 * KIB
    assert sum(each.end - each.start for each in found.read) < 2 * MIB


IMAGES = [disk_of(make_rofs(tree_of({b"/hello": b"program", b"/d/e": b"x" * 2000})))]
IMAGES += [IMAGES[0][2 * MIB :], disk_of(ext_superblock().ljust(8192, b"\0")), disk_of(b"")]


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(IMAGES),
    st.lists(
        st.tuples(
            st.integers(0, 0x20)
            | st.integers(0x1BE, 0x210)
            | st.integers(65536, 66800)
            | st.integers(2 * MIB, 2 * MIB + 5000),
            st.integers(0, 7),
        ),
        max_size=5,
    ),
    st.none() | st.integers(0, 140_000) | st.integers(2 * MIB, 2 * MIB + 5000),
)
def test_any_flipped_bits_are_refused_or_shown(image: bytes, bits: list[tuple[int, int]], cut: int | None) -> None:
    """Damage gives DiskInvalid, or an anatomy all of which can be used: read extents on the disk, files or a reason."""
    content = bytearray(image)
    for at, bit in bits:
        content[at % len(content)] ^= 1 << bit
    try:
        found = look(Volume(bytes(content[:cut])))
    except DiskInvalid:
        return
    use(found)
    try:
        if found.kernel is not None:
            kernel_facts(Volume(bytes(content[:cut])), found.kernel)
    except KernelInvalid:
        pass


def use(found: Anatomy) -> None:
    assert all(0 <= each.start < each.end <= found.size for each in found.read)
    try:
        tree = found.tree()
        totals(tree)
        for node in tree.nodes.values():
            if isinstance(node, RofsFile):
                list(tree.stream(node))
    except DiskInvalid:
        pass


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=1200), st.sampled_from([b"", b"\xad\xbe\xad\xde\0\0\0\0\1\0\0\0\0\0\0\0\0\2\0\0\0\0\0\0"]))
def test_any_bytes_are_refused_or_shown(content: bytes, begin: bytes) -> None:
    """With or without a boot sector's signature, or the beginning of a ROFS."""
    sector = (begin + content)[:510].ljust(510, b"\0")
    for whole in (begin + content, sector + b"\x55\xaa" + content):
        try:
            use(look(Volume(whole)))
        except DiskInvalid:
            pass


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("mkfs.ext4") is None, reason="mkfs.ext4 is not installed")
def test_what_mkfs_makes_is_known(tmp_path: Path) -> None:
    """With the features that OSv's build asks for."""
    path = tmp_path / "ext"
    subprocess.run(["mkfs.ext4", "-q", "-b", "4096", "-O", "^64bit,^metadata_csum", path, "8M"], check=True)
    found = look(FileAccess(path))
    assert found.root is not None
    assert (found.layout, found.root.file_system, found.root.detail) == (
        Layout.BARE,
        FileSystem.EXT,
        "ext4, 2048 blocks of 4096",
    )


@pytest.mark.osv
def test_what_upstream_built_is_taken_apart() -> None:
    """usr.img of a built tree (OSV_TREE, fs=rofs): its kernel is the tree's loader.img, its files the manifest's."""
    tree = os.environ.get("OSV_TREE")
    image = Path(tree or "/") / "build" / "last" / "usr.img"
    if not tree or not image.exists():
        pytest.skip("OSV_TREE names no source tree with a built usr.img")
    with open_image(image) as opened:
        found = look(opened.source)
        loader = hashlib.sha256((image.parent / "loader.img").read_bytes()).hexdigest()
        assert found.kernel is not None and found.kernel.sha256 == loader
        assert found.command_line is not None
        assert found.command_line.raw.decode() == (image.parent / "cmdline").read_text().strip()
        if found.root is None or found.root.file_system is not FileSystem.ROFS:
            pytest.skip("the tree was built with another fs than rofs")
        assert totals(found.tree()).files > 0 and found.problems == ()
