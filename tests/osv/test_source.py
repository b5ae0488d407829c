from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from osvdeploy.errors import DiskInvalid
from osvdeploy.osv.image import Extent
from osvdeploy.osv.source import Format, is_disk, open_image
from tests.osv.images import loader_image
from tests.osv.qcow2_files import Stored, make

MIB = 1 << 20


def test_a_raw_disk_knows_its_holes(tmp_path: Path) -> None:
    """Of a sparse file of a GiB, only what was written is data."""
    path = tmp_path / "disk.raw"
    with path.open("wb") as file:
        file.write(b"head")
        file.seek(500 * MIB)
        file.write(b"tail")
        file.truncate(1 << 30)
    with open_image(path) as image:
        assert (image.format, image.source.size) == (Format.RAW, 1 << 30)
        assert image.allocated < MIB
        found = list(image.source.data(0, 1 << 30))
        assert [each.start for each in found] == [0, 500 * MIB]
        assert sum(each.end - each.start for each in found) < MIB
        assert list(image.source.data(MIB, 499 * MIB)) == []
        assert list(image.source.data(2, 4)) == [Extent(2, 4)]
        assert image.source.pread(500 * MIB, 4) == b"tail"
        assert image.source.pread((1 << 30) - 2, 10) == bytes(2)
        assert image.source.pread(1 << 31, 10) == b""


def test_a_qcow2_is_told_by_its_first_bytes(tmp_path: Path) -> None:
    """Whatever it is called; its size is the disk's."""
    path = tmp_path / "disk.raw"
    path.write_bytes(make(b"disk" * 500, [Stored.PACKED])[0])
    with open_image(path) as image:
        assert (image.format, image.source.size) == (Format.QCOW2, 2000)
        assert image.source.pread(0, 8) == b"diskdisk"


@pytest.mark.parametrize(
    ("content", "says", "hint"),
    [
        (gzip.compress(b"disk", mtime=0), "compressed with gzip", "gunzip -k "),
        (b"\xfd7zXZ\0...", "compressed with xz", "unxz"),
        (b"KDMV" + bytes(100), "VMDK", "osvdeploy convert"),
        (bytes(64) + b"\x7f\x10\xda\xbe" + bytes(100), "VDI", "osvdeploy convert"),
        (bytes(257) + b"ustar" + bytes(300), "tar archive", "tar -xf"),
        (b"\x7fELF" + bytes(100), "an ELF file, not a disk", "kernel inspect"),
        (bytes(56) + b"ARM\x64" + bytes(100), "arm64", "kernel inspect"),
        (bytes(0x202) + b"HdrS" + bytes(600), "vmlinuz", "kernel inspect"),
        (b"PK\3\4" + bytes(100), "zip archive", "unzip"),
        (bytes(0x8001) + b"CD001" + bytes(2048), "an ISO 9660 image", "boots from a disk"),
        (b"", "empty", "make or download it again"),
    ],
)
def test_another_format_is_named_with_the_way_out(tmp_path: Path, content: bytes, says: str, hint: str | None) -> None:
    """What people have at hand instead of a disk is told by name, with the command that makes one of it."""
    path = tmp_path / "given"
    path.write_bytes(content)
    with pytest.raises(DiskInvalid, match=says) as caught, open_image(path):
        pass
    assert str(path) in caught.value.message
    assert (hint is None and caught.value.hint is None) or (hint or "?") in (caught.value.hint or "")


def test_a_disk_is_told_from_a_kernel(tmp_path: Path) -> None:
    """Both begin with a boot sector; a pipe, a folder and nothing are neither."""
    os.mkfifo(tmp_path / "pipe")
    disk = loader_image()[:0x1CE] + b"\0\1\1\0\x83" + loader_image()[0x1D3:]
    for content, wanted in [
        (disk, True),
        (make(b"disk" * 500, [Stored.PLAIN])[0], True),
        (loader_image(), False),
        (disk[:0x202] + b"HdrS" + disk[0x206:], False),
        (b"text" * 500, False),
        (b"vhdxfile" + bytes(600), True),
        (bytes(0x8001) + b"CD001" + bytes(2048), True),
        (b"", False),
    ]:
        (tmp_path / "given").write_bytes(content)
        assert is_disk(tmp_path / "given") is wanted
    assert not any(is_disk(tmp_path / name) for name in ("pipe", "", "nothing"))


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    """A directory, nothing, and a pipe that nobody writes to, without waiting for it."""
    os.mkfifo(tmp_path / "pipe")
    for name, says in [("", "a directory, not an image"), ("nothing", "No such file"), ("pipe", "neither a file")]:
        with pytest.raises(DiskInvalid, match=says), open_image(tmp_path / name):
            pass


def test_a_damaged_qcow2_names_the_file(tmp_path: Path) -> None:
    """Where the fault lies, and what to ask next."""
    path = tmp_path / "half.qcow2"
    path.write_bytes(make(b"disk" * 500, [Stored.PLAIN])[0][:600])
    with pytest.raises(DiskInvalid, match=r"half\.qcow2: qcow2: "), open_image(path) as image:
        image.source.pread(0, 2000)
