from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from osvdeploy.errors import CommandLineInvalid, DiskInvalid, SizeInvalid, SourceChanged
from osvdeploy.osv.cmdline import BootCommand, encode
from osvdeploy.osv.disk import COMMAND_LINE_END, compose, lay_out_disk, read_disk, release_block, with_partition
from osvdeploy.osv.filetree import Content, FileTree, TreeBuilder
from osvdeploy.osv.image import Extent
from osvdeploy.osv.kernel import read_kernel
from osvdeploy.osv.rofs import RofsFile, lay_out
from osvdeploy.sizes import GIB, MIB
from tests.osv.images import boot_commands, file_trees, loader_image, write_loader

BOOT = BootCommand((("verbose", None),), (("A", "b c"),), ("/hello", "--port", "8080"))


@dataclass(frozen=True)
class Volume:
    """A disk that is no file, as a cloud's volume is none: a composed one, with ``patches`` over its bytes."""

    disk: Path
    patches: Sequence[tuple[int, bytes]] = ()

    @property
    def size(self) -> int:
        return self.disk.stat().st_size

    def pread(self, offset: int, length: int) -> bytes:
        with self.disk.open("rb") as file:
            content = bytearray(os.pread(file.fileno(), length, offset))
        for start, patch in self.patches:
            for at, value in enumerate(patch, start=start - offset):
                if 0 <= at < len(content):
                    content[at] = value
        return bytes(content)


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A small disk with one file, composed of a loader.img in OSv's shape."""
    kernel = read_kernel(write_loader(tmp_path / "loader.img"))
    builder = TreeBuilder()
    builder.add_content(b"/hello", b"program", origin="a test")
    compose(tmp_path / "disk.raw", kernel, lay_out(builder.tree()), BOOT)
    return tmp_path / "disk.raw"


def head_of(disk: Path, length: int = 4 * MIB) -> bytes:
    with disk.open("rb") as file:
        return file.read(length)


def test_a_composed_disk_reads_back(disk: Path) -> None:
    """Kernel, command line, partition and files are found where boot sector and OSv look for them."""
    found = read_disk(disk)
    assert (found.kernel, found.partition) == (Extent(65536, 131072), Extent(16 * MIB, 1 << 30))
    assert found.boot == BOOT
    files = found.rofs()
    hello = files.nodes[b"/hello"]
    assert isinstance(hello, RofsFile) and files.read(hello) == b"program"


def test_only_the_partition_entry_and_the_command_line_differ_from_the_kernel(disk: Path) -> None:
    """The loader.img is kept byte for byte, but for what OSv's own build changes too."""
    loader, composed = loader_image(), head_of(disk, len(loader_image()))
    changed = {at for at in range(len(loader)) if loader[at] != composed[at]}
    line = encode(BOOT)
    assert changed <= set(range(0x1CE, 0x1DE)) | set(range(512, 512 + len(line)))
    assert composed[512 : 512 + len(line) + 1] == line + b"\0"


def test_the_partition_entry_is_the_one_upstream_writes() -> None:
    """The 16 bytes that imgedit.py writes for a partition of 311 sectors at 4 MiB."""
    block = with_partition(bytes(512), Extent(0x400000, 0x400000 + 311 * 512))
    assert block[0x1CE:0x1DE].hex(" ") == "00 82 03 00 83 86 3e 00 00 20 00 00 37 01 00 00"
    assert block[:0x1CE] + block[0x1DE:] == bytes(496)


def test_beyond_1023_cylinders_the_entry_holds_the_last_address() -> None:
    """CHS ends at (1023, 254, 63), as imgedit.py clamps it; the LBA fields go on."""
    block = with_partition(bytes(512), Extent(2 * MIB, 9 << 30))
    assert block[0x1CE + 5 : 0x1CE + 8].hex(" ") == "fe ff ff"
    assert int.from_bytes(block[0x1CE + 12 : 0x1CE + 16], "little") == ((9 << 30) - 2 * MIB) // 512


def test_the_disk_is_whole_gigabytes_and_mostly_a_hole(disk: Path) -> None:
    """A cloud's volume is whole GiB; on this machine the disk takes what it holds."""
    status = disk.stat()
    assert status.st_size == 1 << 30
    assert status.st_blocks * 512 < 4 * MIB


def test_the_partition_goes_to_the_disks_end_and_does_not_move(tmp_path: Path) -> None:
    """It begins at 16 MiB whatever the kernel's size, unless the kernel is larger than that."""
    small = read_kernel(write_loader(tmp_path / "small.img"))
    usual = read_kernel(write_loader(tmp_path / "usual.img", chunks=120))
    huge = read_kernel(write_loader(tmp_path / "huge.img", chunks=600))
    assert lay_out_disk(small, 512).partition == lay_out_disk(usual, 5 * MIB).partition == Extent(16 * MIB, GIB)
    assert lay_out_disk(huge, 512).partition == Extent(32 * MIB, GIB)
    assert lay_out_disk(small, 512, size=3 * GIB).partition == Extent(16 * MIB, 3 * GIB)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(file_trees())
def test_what_is_read_is_listed_and_is_all_that_was_written(tmp_path: Path, tree: FileTree) -> None:
    """The listed ranges ascend, do not touch, are whole sectors on the disk, hold all data of the sparse file, and are
    what a reader of the disk finds by itself."""
    kernel = read_kernel(write_loader(tmp_path / "loader.img"))
    path = tmp_path / "disk.raw"
    path.unlink(missing_ok=True)
    composed = compose(path, kernel, lay_out(tree), BOOT)
    ends = [0, *(extent.end for extent in composed.read)]
    assert all(end <= extent.start < extent.end for end, extent in zip(ends, composed.read, strict=False))
    assert all(extent.start % 512 == extent.end % 512 == 0 for extent in composed.read)
    assert ends[-1] <= composed.layout.size
    assert not outside(path, composed.read)
    disk = read_disk(path)
    assert disk.read() == composed.read
    assert disk.rofs().digest() == composed.rofs.sha256
    for place, paths in disk.places().items():
        for name in paths:
            entry = tree.entries[name]
            assert isinstance(entry, Content)
            assert disk.source.pread(place.start, place.end - place.start) == entry.content


def outside(disk: Path, extents: Sequence[Extent]) -> bytes:
    """All bytes of a sparse file that are neither zero nor within ``extents``."""
    found = bytearray()
    with disk.open("rb") as file:
        at, size = 0, disk.stat().st_size
        while at < size:
            try:
                start = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError as error:
                assert error.errno == errno.ENXIO
                break
            at = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            content = bytearray(os.pread(file.fileno(), at - start, start))
            for extent in extents:
                low, high = max(extent.start - start, 0), min(extent.end - start, len(content))
                if low < high:
                    content[low:high] = bytes(high - low)
            found += content.strip(b"\0")
    return bytes(found)


@settings(max_examples=40, deadline=None)
@given(boot_commands())
def test_a_release_changes_the_command_line_alone(boot: BootCommand) -> None:
    """A release's first block is its image's with another line, and nothing of a longer old line is left."""
    old = BootCommand((), (), ("/" + "x" * 30_000,))
    image = release_block(loader_image(chunks=16)[: 512 * 1024], old)
    released = release_block(image, boot)
    line = encode(boot)
    assert released[512:COMMAND_LINE_END] == line.ljust(COMMAND_LINE_END - 512, b"\0")
    assert released[:512] + released[COMMAND_LINE_END:] == image[:512] + image[COMMAND_LINE_END:]
    assert release_block(released, old) == image


def test_a_release_block_is_the_one_a_build_would_have_made(disk: Path, tmp_path: Path) -> None:
    """Patching a disk's first block gives the bytes that composing with that command line gives."""
    other = BootCommand((), (("OSVDEPLOY_RELEASE", "r-1"),), ("/hello",))
    builder = TreeBuilder()
    builder.add_content(b"/hello", b"program", origin="a test")
    compose(tmp_path / "other.raw", read_kernel(tmp_path / "loader.img"), lay_out(builder.tree()), other)
    assert release_block(head_of(disk, 512 * 1024), other) == head_of(tmp_path / "other.raw", 512 * 1024)


def test_a_block_too_short_for_a_command_line_is_a_mistake_of_the_caller() -> None:
    """Less than the command line's region cannot become a release's block."""
    with pytest.raises(ValueError, match="does not hold the command line"):
        release_block(bytes(512), BOOT)


def test_a_disk_that_is_no_file_is_read_the_same_way(disk: Path) -> None:
    """Anything that reads at an offset is a disk."""
    volume = Volume(disk)
    assert read_disk(volume).boot == BOOT
    assert read_disk(volume).rofs().nodes == read_disk(disk).rofs().nodes


@pytest.mark.parametrize(
    ("offset", "patch", "says"),
    [
        (510, b"\0", "55 AA"),
        (0x10, b"\0\0", "0 chunks"),
        (0x10, b"\xff\xff", "65535 chunks"),
        (0x10, b"\x00\x02", "inside the kernel"),
        (0x1CE + 4, b"\0", "slot 2 is empty"),
        (0x1CE + 12, b"\0\0\0\0", "0 sectors"),
        (0x1CE + 8, b"\xff\xff\xff\xff", "not on a disk"),
        (512, b"a" * 32256, "does not end"),
    ],
)
def test_a_damaged_disk_is_refused_with_the_reason(disk: Path, offset: int, patch: bytes, says: str) -> None:
    """Each damage that would keep OSv from booting is told apart."""
    with pytest.raises(DiskInvalid, match=says):
        read_disk(Volume(disk, [(offset, patch)]))


def test_a_partition_without_rofs_is_named(disk: Path) -> None:
    """A disk with another file system is a disk; asking for its ROFS says what is there instead."""
    other = read_disk(Volume(disk, [(16 * MIB, bytes(512))]))
    with pytest.raises(DiskInvalid, match="another file system"):
        other.rofs()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.integers(0, 2200) | st.integers(16 * MIB, 16 * MIB + 1023), st.binary(max_size=1)), max_size=5
    )
)
def test_any_damage_is_refused_or_read(disk: Path, damage: list[tuple[int, bytes]]) -> None:
    """Random damage gives an error by name, or a disk that can be read to the end."""
    try:
        found = read_disk(Volume(disk, damage))
        files = found.rofs()
        for node in files.nodes.values():
            if isinstance(node, RofsFile):
                list(files.stream(node))
        assert isinstance(found.boot, BootCommand)
    except (DiskInvalid, CommandLineInvalid):
        pass


def test_a_kernel_that_was_replaced_is_noticed(tmp_path: Path) -> None:
    """The kernel's bytes are hashed as they are copied: what was checked is what is written."""
    path = write_loader(tmp_path / "loader.img")
    kernel = read_kernel(path)
    write_loader(path, payload=b"another")
    with pytest.raises(SourceChanged, match=r"loader\.img: changed"):
        compose(tmp_path / "disk.raw", kernel, lay_out(TreeBuilder().tree()), BOOT)


def test_a_file_system_past_two_terabytes_is_refused(tmp_path: Path) -> None:
    """A partition table counts 512-byte sectors in 32 bits."""
    kernel = read_kernel(write_loader(tmp_path / "loader.img"))
    with pytest.raises(SizeInvalid, match="2 TiB"):
        lay_out_disk(kernel, 1 << 41)


def test_a_disk_that_is_too_small_is_refused_with_both_sizes(tmp_path: Path) -> None:
    """What was asked for and what is needed stand in the error, and what to write instead."""
    kernel = read_kernel(write_loader(tmp_path / "loader.img"))
    assert lay_out_disk(kernel, GIB - 16 * MIB).size == GIB
    with pytest.raises(SizeInvalid, match="disk of 1GiB: kernel and files need 2GiB") as refused:
        lay_out_disk(kernel, GIB - 16 * MIB + 512, size=GIB)
    assert 'size = "2GiB"' in str(refused.value.hint)


def test_an_existing_file_is_not_overwritten(tmp_path: Path) -> None:
    """Composing makes a new file, or none."""
    kernel = read_kernel(write_loader(tmp_path / "loader.img"))
    target = tmp_path / "disk.raw"
    target.write_bytes(b"precious")
    with pytest.raises(FileExistsError):
        compose(target, kernel, lay_out(TreeBuilder().tree()), BOOT)
    assert target.read_bytes() == b"precious"
