"""Disks boot: what the boot guest reads through the BIOS is what was written, value by value."""

from __future__ import annotations

import os
import random
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from osvdeploy.demo.guest import GuestEntry, GuestReport, build_guest, loader_image, read_report
from osvdeploy.demo.toolchain import Compiler
from osvdeploy.osv.cmdline import COMMAND_LINE_LIMIT, BootCommand, encode
from osvdeploy.osv.disk import COMMAND_LINE_END, ComposedDisk, compose, read_disk, release_block, with_partition
from osvdeploy.osv.filetree import Directory, Symlink, TreeBuilder
from osvdeploy.osv.image import Extent
from osvdeploy.osv.kernel import Kernel, read_kernel
from osvdeploy.osv.rofs import RofsDirectory, RofsFile, RofsLayout, RofsSymlink, lay_out
from osvdeploy.sizes import GIB, KIB, MIB
from tests.boot.qemu import boot, needs_qemu
from tests.demo.test_toolchain import each_compiler

pytestmark = [pytest.mark.boot, needs_qemu]

HELLO = BootCommand((), (), ("/hello", "--port", "8080"))

Files = Mapping[bytes, bytes | Directory | Symlink]


@dataclass(frozen=True)
class Written:
    """A composed disk, and all that went into it."""

    path: Path
    kernel: Kernel
    files: Files
    boot: BootCommand
    rofs: RofsLayout
    disk: ComposedDisk


def write(path: Path, kernel: Kernel, files: Files, command: BootCommand = HELLO) -> Written:
    builder = TreeBuilder()
    for name, entry in files.items():
        match entry:
            case bytes():
                builder.add_content(name, entry, origin="the test")
            case Symlink(target):
                builder.add_symlink(name, target, origin="the test")
            case _:
                builder.add_directory(name, origin="the test")
    rofs = lay_out(builder.tree())
    disk = compose(path, kernel, rofs, command)
    return Written(path, kernel, files, command, rofs.on_disk(disk.layout.partition), disk)


def boot_guest(disk: Path, *, interface: str = "virtio") -> GuestReport:
    with boot(disk, interface=interface) as machine:
        return read_report(machine.wait_until_off())


def assert_read_as_written(report: GuestReport, written: Written) -> None:
    """Every value of the report, each computed from what went into the disk and not from the disk."""
    assert (report.error, report.finished) == (None, True)
    image = written.kernel.path.read_bytes()
    payload = image[64 * KIB :]
    superblock = written.rofs.superblock
    start = written.disk.layout.partition.start
    roots = sorted({name.split(b"/")[1] for name in written.files})
    assert report.command_line == encode(written.boot)
    assert {key: value for key, value in report.values.items() if key != "sectors_read"} == {
        "boot.chunks": len(payload) // (32 * KIB),
        "boot.disk_signature": int.from_bytes(b"VSO\0", "little"),
        "kernel.size": len(payload),
        "kernel.crc32": zlib.crc32(payload),
        "command_line.length": len(encode(written.boot)),
        "partition.active": 0,
        "partition.type": 0x83,
        "partition.chs_sector": min(start // 512 % 63 + 1, 63),
        "partition.start": start // 512,
        "partition.sectors": (GIB - start) // 512,
        "superblock.magic": 0xDEADBEAD,
        "superblock.version": 1,
        "superblock.block_size": 512,
        "superblock.structure_info_first_block": superblock.tables_block,
        "superblock.structure_info_blocks_count": superblock.tables_blocks,
        "superblock.directory_entries_count": superblock.entries,
        "superblock.symlinks_count": superblock.links,
        "superblock.inodes_count": superblock.inodes,
        "tables.crc32": zlib.crc32(written.rofs.tables),
        "root.mode": 0x4000,
        "root.inode_no": 1,
        "root.data_offset": 0,
        "root.count": len(roots),
    }
    assert start == -(-written.kernel.size // (16 * MIB)) * 16 * MIB
    assert [entry.name for entry in report.entries] == roots
    for entry in report.entries:
        assert_entry_as_written(entry, written.files)


def assert_entry_as_written(entry: GuestEntry, files: Files) -> None:
    match files.get(b"/" + entry.name):
        case bytes() as content:
            assert (entry.mode, entry.count, entry.crc32) == (0x8000, len(content), zlib.crc32(content))
        case Symlink():
            assert (entry.mode, entry.count, entry.crc32) == (0xA000, 1, None)
        case _:
            below = {name.split(b"/")[2] for name in files if name.startswith(b"/" + entry.name + b"/")}
            assert (entry.mode, entry.count, entry.crc32) == (0x4000, len(below), None)


def assert_reads_back(written: Written) -> None:
    """The product's own strict reader finds on the same disk what the guest found."""
    disk = read_disk(written.path)
    assert disk.command_line == encode(written.boot)
    assert disk.boot == written.boot
    assert disk.partition == written.disk.layout.partition
    rofs = disk.rofs()
    for name, entry in written.files.items():
        node = rofs.nodes[name]
        match entry:
            case bytes():
                assert isinstance(node, RofsFile)
                assert disk.source.pread(disk.partition.start + node.offset, node.size) == entry
            case Symlink(target):
                assert isinstance(node, RofsSymlink)
                assert node.target == target
            case _:
                assert isinstance(node, RofsDirectory)


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


CASES: dict[str, tuple[Files, BootCommand]] = {
    "one program": ({b"/hello": noise(7000)}, HELLO),
    "an empty tree": ({}, HELLO),
    "sizes around blocks and reads": (
        {b"/%d" % size: noise(size, size) for size in (0, 1, 511, 512, 513, 32767, 32768, 32769, 65537, 200_001)},
        HELLO,
    ),
    "names of any bytes": (
        {
            b"/caf\xc3\xa9": b"1",
            b"/%41": b"2",
            b"/line\nend=1": b"3",
            b"/\xff\xfe\x01": b"4",
            b"/ ": b"5",
            b"/" + b"n" * 255: b"6",
            b"/link\t": Symlink(b"/caf\xc3\xa9"),
        },
        HELLO,
    ),
    "many files": (
        {b"/d%02d/s%d/file-%04d" % (n % 50, n % 7, n): b"%d" % n for n in range(5000)}
        | {b"/l%03d" % n: Symlink(b"/d00/%d" % n) for n in range(300)}
        | {b"/empty%d" % n: Directory() for n in range(100)},
        HELLO,
    ),
    "a big file before small ones": ({b"/a": noise(24 * MIB + 17), b"/b": b"behind it", b"/z/y/x": b"deep"}, HELLO),
    "the longest command line": (
        {b"/hello": b"x"},
        BootCommand((), (("LONG", "v" * (COMMAND_LINE_LIMIT - len("--env=LONG= /hello"))),), ("/hello",)),
    ),
    "a command line of many kinds": (
        {b"/hello": b"x"},
        BootCommand(
            (("verbose", None), ("rootfs", "rofs"), ("mount-fs", "ramfs,none,/my dir")),
            (("GREETING", "grüß dich, 100 %\n"), ("EMPTY", ""), ("PATH", "/bin:/usr/bin")),
            ("/hello", "two words", 'a"quote', "back\\slash", "semi;colon", ""),
        ),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_guest_reads_what_was_written(case: str, guest: Kernel, tmp_path: Path) -> None:
    """Kernel, command line, partition, superblock, tables, root and its files reach the BIOS as they were written."""
    files, command = CASES[case]
    written = write(tmp_path / "disk.raw", guest, files, command)
    assert_read_as_written(boot_guest(written.path), written)
    assert_reads_back(written)


@each_compiler
def test_the_guest_of_each_compiler_reads_the_same(compiler: Compiler, tmp_path: Path) -> None:
    """cc's guest and zig's are other bytes, and see the same disk; here on an IDE disk, elsewhere on virtio."""
    kernel = read_kernel(build_guest(tmp_path / "loader.img", compiler=compiler))
    written = write(tmp_path / "disk.raw", kernel, {b"/hello": noise(40_000), b"/etc/fstab": b"x"})
    assert_read_as_written(boot_guest(written.path, interface="ide"), written)


@pytest.mark.parametrize("chunks", [2, 62, 480])
def test_all_of_a_kernel_is_loaded_and_the_partition_stands_behind_it(
    chunks: int, guest: Kernel, tmp_path: Path
) -> None:
    """Kernels of few and of all chunks that the guest takes; every byte is in memory, and the file system is found."""
    image = guest.path.read_bytes()
    larger = tmp_path / "loader.img"
    # The guest runs from its beginning; what follows it is ballast that must arrive too.
    ballast = noise((chunks - guest.chunks) * 32 * KIB, chunks)
    larger.write_bytes(loader_image(image[:512], image[64 * KIB :] + ballast))
    written = write(tmp_path / "disk.raw", read_kernel(larger), {b"/hello": b"behind the kernel"})
    assert_read_as_written(boot_guest(written.path), written)


def test_a_file_of_this_machine_is_copied_whole(guest: Kernel, tmp_path: Path) -> None:
    """A file that is streamed from disk has the same bytes in the guest as one given in memory."""
    source = tmp_path / "source"
    source.write_bytes(noise(5 * MIB + 3))
    builder = TreeBuilder()
    builder.add_file(b"/streamed", os.fsencode(source))
    compose(tmp_path / "disk.raw", guest, lay_out(builder.tree()), HELLO)
    (entry,) = boot_guest(tmp_path / "disk.raw").entries
    assert (entry.count, entry.crc32) == (5 * MIB + 3, zlib.crc32(source.read_bytes()))


def test_a_release_block_is_all_that_a_release_needs(guest: Kernel, tmp_path: Path) -> None:
    """With the release's first block in place the guest sees its command line, nothing of the longer old one, and the
    same everything else."""
    old = BootCommand((), (("SECRET", "s" * 3000),), ("/hello",))
    new = BootCommand((), (("OSVDEPLOY_RELEASE", "hello-1.0.0-0123abcd"),), ("/hello",))
    written = write(tmp_path / "disk.raw", guest, {b"/hello": noise(9000)}, old)
    with written.path.open("r+b") as disk:
        block = release_block(disk.read(512 * KIB), new)
        disk.seek(0)
        disk.write(block)
    assert b"ssss" not in block[:COMMAND_LINE_END]
    moved = Written(written.path, written.kernel, written.files, new, written.rofs, written.disk)
    assert_read_as_written(boot_guest(written.path), moved)
    assert_reads_back(moved)


def test_the_file_system_is_read_where_the_partition_table_says(guest: Kernel, tmp_path: Path) -> None:
    """Moved behind a hole of 16 GiB it is found there, and nowhere else."""
    written = write(tmp_path / "disk.raw", guest, {b"/hello": noise(9000), b"/big": noise(3 * MIB)})
    old = written.disk.layout.partition
    far = Extent(16 * GIB, 16 * GIB + old.end - old.start)
    with written.path.open("r+b") as disk:
        disk.truncate(17 * GIB)
        for extent in written.rofs.stored:
            disk.seek(old.start + extent.start)
            content = disk.read(extent.end - extent.start)
            disk.seek(old.start + extent.start)
            disk.write(bytes(len(content)))
            disk.seek(far.start + extent.start)
            disk.write(content)
        disk.seek(0)
        head = disk.read(512)
        disk.seek(0)
        disk.write(with_partition(head, far))
    report = boot_guest(written.path)
    assert (report.error, report.finished) == (None, True)
    assert report.values["partition.start"] == 16 * GIB // 512
    assert [entry.name for entry in report.entries] == [b"big", b"hello"]
    for entry in report.entries:
        assert_entry_as_written(entry, written.files)


def overwrite(path: Path, offset: int, content: bytes) -> None:
    with path.open("r+b") as disk:
        disk.seek(offset)
        disk.write(content)


def test_a_disk_that_ends_early_is_told_by_the_guest(guest: Kernel, tmp_path: Path) -> None:
    """A read behind the end of the disk is an error that names the sector, and the machine is off."""
    written = write(tmp_path / "disk.raw", guest, {b"/hello": noise(MIB)})
    cut = written.disk.layout.partition.start + written.rofs.superblock.tables_block * 512
    os.truncate(written.path, cut)
    report = boot_guest(written.path)
    assert not report.finished
    assert report.error is not None and report.error.startswith("read lba=0x")
    lba = int(report.error.split()[1].removeprefix("lba="), 0)
    # The superblock is there, the tables behind it are not.
    assert lba == (written.disk.layout.partition.start // 512) + written.rofs.superblock.tables_block


def test_a_kernel_that_ends_early_is_told_by_the_boot_sector(guest: Kernel, tmp_path: Path) -> None:
    """Where the guest itself cannot be loaded the boot sector says which sector could not be read, and powers off."""
    written = write(tmp_path / "disk.raw", guest, {b"/hello": b"x"})
    overwrite(written.path, 0x10, struct.pack("<H", 200))
    os.truncate(written.path, 64 * KIB + 128 * 32 * KIB)
    report = boot_guest(written.path)
    assert report.error is not None
    assert report.error.startswith(f"read lba=0x{128 + 128 * 64:016x} status=0x")
    assert report.values == {}


def test_a_damaged_superblock_is_refused(guest: Kernel, tmp_path: Path) -> None:
    """The guest mounts nothing that OSv would not mount, and shows what it saw instead."""
    written = write(tmp_path / "disk.raw", guest, {b"/hello": b"x"})
    overwrite(written.path, written.disk.layout.partition.start + 8, struct.pack("<Q", 2))
    report = boot_guest(written.path)
    assert report.error == "rofs: OSv would not mount this superblock"
    assert report.values["superblock.version"] == 2


def test_an_empty_partition_slot_is_refused(guest: Kernel, tmp_path: Path) -> None:
    """Slot 2 without a type is no partition for OSv, whatever its numbers say."""
    written = write(tmp_path / "disk.raw", guest, {b"/hello": b"x"})
    overwrite(written.path, 0x1CE + 4, b"\0")
    report = boot_guest(written.path)
    assert report.error is not None and report.error.startswith("partition: ")


def test_the_disk_is_not_changed_by_booting(guest: Kernel, tmp_path: Path) -> None:
    """The runner boots a disk without writing to it, so one disk can be booted again."""
    written = write(tmp_path / "disk.raw", guest, {b"/hello": b"x"})
    before = contents(written.path)
    assert boot_guest(written.path) == boot_guest(written.path)
    assert contents(written.path) == before


def contents(path: Path) -> tuple[int, bytes]:
    with path.open("rb") as disk:
        return path.stat().st_mtime_ns, disk.read(4 * MIB)
