"""Archives of disks, as several programs write them, and as nobody should."""

from __future__ import annotations

import gzip
import io
import shutil
import subprocess
import tarfile
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from osvdeploy.errors import DiskInvalid
from osvdeploy.osv.image import Extent
from osvdeploy.osv.tarball import MEMBERS_LIMIT, read_tarball
from osvdeploy.publish.archive import sparse_header
from osvdeploy.sizes import MIB
from tests.osv.volumes import Volume


def packed(content: bytes, name: str = "disk.raw", form: int = tarfile.GNU_FORMAT, **more: dict[str, str]) -> bytes:
    """A plain tar of one file."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as tar:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        info.pax_headers = more.get("pax", {})
        tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


def read(archive: bytes) -> bytes:
    """The disk, with its holes filled."""
    tarball = read_tarball(Volume(archive))
    disk = bytearray(min(tarball.size, 1 << 24))
    end = 0
    for at, content in tarball.pieces():
        assert at >= end and len(content) <= MIB
        end = at + len(content)
        disk[at:end] = content
    return bytes(disk)


def zipped(content: bytes) -> bytes:
    return gzip.compress(content, 1, mtime=0)


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
@pytest.mark.parametrize("name", ["disk.raw", "./disk.raw"])
def test_a_plain_disk_is_read(form: int, name: str) -> None:
    assert read(zipped(packed(b"disk" * 300_000, name, form))) == b"disk" * 300_000


def test_other_members_are_passed_over() -> None:
    """Before and behind, with long names and pax headers; and a gzip in several members, with zeros behind it."""
    one = packed(b"note", "n" * 300, tarfile.GNU_FORMAT)[: -10240 % 10240 or None].rstrip(b"\0")
    one += bytes(-len(one) % 512)
    two = packed(b"disk" * 1000, form=tarfile.PAX_FORMAT, pax={"comment": "c" * 3000})
    two = two[: two.rindex(b"disk") + 4]
    two += bytes(-len(two) % 512)
    whole = one + two + packed(b"more", "more")
    assert read(zipped(whole[:3000]) + zipped(whole[3000:]) + bytes(100)) == b"disk" * 1000


@pytest.mark.parametrize("ending", [b"", bytes(512), bytes(1024)])
def test_the_end_may_be_missing(ending: bytes) -> None:
    """Not all who write a tar close it."""
    assert read(zipped(packed(b"d" * 512)[:1024] + ending)) == b"d" * 512


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 30), st.integers(1, 9)), max_size=40), st.integers(0, 5))
def test_any_sparse_map_of_old_gnu_is_read(gaps: list[tuple[int, int]], rest: int) -> None:
    """Also with more ranges than one header holds."""
    extents, at = [], 0
    for gap, length in gaps:
        extents.append(Extent(at + gap * 512, at + (gap + length) * 512))
        at = extents[-1].end
    size = at + rest * 512 or 512
    content = b"".join(bytes([1 + each % 255]) * (extent.end - extent.start) for each, extent in enumerate(extents))
    wanted = bytearray(size)
    for each, extent in enumerate(extents):
        wanted[extent.start : extent.end] = bytes([1 + each % 255]) * (extent.end - extent.start)
    assert read(zipped(sparse_header(b"disk.raw", size, extents) + content + bytes(1024))) == wanted


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("tar") is None, reason="no tar here")
@pytest.mark.parametrize(
    "options",
    [[], ["--format=posix"], ["--format=posix", "--sparse-version=0.1"], ["--format=posix", "--sparse-version=0.0"]],
)
@pytest.mark.parametrize("count", [0, 3, 60])
def test_what_gnu_tar_writes_is_read(options: list[str], count: int, tmp_path: Path) -> None:
    """In each way that it has to keep a sparse file."""
    with (tmp_path / "disk.raw").open("wb") as file:
        for each in range(count):
            file.seek(each * 100_000)
            file.write(b"%d" % each * 3000)
        file.truncate(8 * MIB)
    subprocess.run(["tar", "-cSzf", "disk.tar.gz", *options, "disk.raw"], cwd=tmp_path, check=True)
    archive = (tmp_path / "disk.tar.gz").read_bytes()
    assert read(archive) == (tmp_path / "disk.raw").read_bytes()
    assert read_tarball(Volume(archive)).stored < 2 * MIB


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\x1f\x8b" + bytes(100), "cannot be unpacked"),
        (zipped(b""), "ends within a header"),
        (zipped(b"a raw disk" * 1000), "no tar archive"),
        (zipped(packed(b"x", "other.raw")), "'other.raw' and no disk.raw"),
        (zipped(packed(b"")), "disk.raw has 0 bytes"),
        (zipped(packed(b"d" * 2000)[:1500]), "ends within disk.raw"),
        (zipped(packed(b"d" * 2000))[:-20], "ends within its data"),
        (zipped(packed(b"d" * 512)[:1024] + packed(b"e" * 512)), "twice"),
        (zipped(packed(b"d" * 512)[:1024] + b"no header" * 100), "wrong checksum"),
        (zipped(packed(b"d", "x")[:1024] * (MEMBERS_LIMIT + 1)), "more than 1000 files"),
        (zipped(packed(b"d", form=tarfile.PAX_FORMAT, pax={"GNU.sparse.map": "0,1"})), "does not say how long"),
        (
            zipped(packed(b"d", form=tarfile.PAX_FORMAT, pax={"GNU.sparse.map": "5,2,0,1", "GNU.sparse.size": "9"})),
            "sparse map that says bytes 0 to 1",
        ),
        (
            zipped(packed(b"d", form=tarfile.PAX_FORMAT, pax={"GNU.sparse.map": "0,5", "GNU.sparse.size": "9"})),
            "map of 5 bytes, where 1",
        ),
        (
            zipped(packed(b"d", form=tarfile.PAX_FORMAT, pax={"GNU.sparse.map": "0,1,2", "GNU.sparse.size": "9"})),
            "half an entry",
        ),
        (
            zipped(packed(b"d" * 512, form=tarfile.PAX_FORMAT, pax={"GNU.sparse.major": "1", "GNU.sparse.size": "9"})),
            "no number|without an end",
        ),
        (zipped(packed(b"d", form=tarfile.PAX_FORMAT, pax={"GNU.sparse.size": "99999999999999999999"})), "no number"),
    ],
)
def test_what_is_wrong_is_told(content: bytes, says: str) -> None:
    with pytest.raises(DiskInvalid, match=says):
        read(content)


def test_a_wrong_checksum_of_gzip_is_noticed() -> None:
    """It stands behind all else."""
    archive = bytearray(zipped(packed(b"disk" * 1000)))
    archive[-6] ^= 1
    with pytest.raises(DiskInvalid, match="cannot be unpacked"):
        read(bytes(archive))


@pytest.mark.slow
def test_a_bomb_costs_no_memory() -> None:
    """A pax header of a gigabyte, a sparse map without an end, in a megabyte each."""
    header = bytearray(packed(b"", form=tarfile.PAX_FORMAT, pax={"a": "b"})[:512])
    header[124:136] = b"%011o\0" % (1 << 30)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    longest = sparse_header(b"disk.raw", 1 << 40, [Extent(each * 1024, each * 1024 + 512) for each in range(25)])
    endless = longest[:1024][:-8] + b"\x01" + bytes(7)
    entries = b"".join(b"%011o\0%011o\0" % (each * 1024, 512) for each in range(21)) + b"\x01" + bytes(7)
    bombs = [zipped(bytes(header) + bytes(64 * MIB)), zipped(endless + entries * 26_000)]
    for bomb, says in zip(bombs, ("pax header of 1073741824", "more than 524288 pieces"), strict=True):
        tracemalloc.start()
        with pytest.raises(DiskInvalid, match=says):
            read_tarball(Volume(bomb))
        assert tracemalloc.get_traced_memory()[1] < 40 * MIB
        tracemalloc.stop()


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(["gnu", "pax", "sparse"]),
    st.lists(st.tuples(st.integers(0, 2600), st.integers(0, 255)), min_size=1, max_size=6),
    st.none() | st.integers(0, 4000),
    st.booleans(),
)
def test_any_damage_is_refused_or_read(kind: str, damage: list[tuple[int, int]], cut: int | None, mended: bool) -> None:
    """Whatever is wrong ends in an error of ours; ``mended`` lets the first header's checksum be right all the same."""
    sparse = sparse_header(b"disk.raw", 1 << 20, [Extent(at * 1024, at * 1024 + 512) for at in range(9)])
    tar = bytearray(
        {
            "gnu": packed(b"d" * 700),
            "pax": packed(
                b"d" * 700, form=tarfile.PAX_FORMAT, pax={"GNU.sparse.map": "0,700", "GNU.sparse.size": "900"}
            ),
            "sparse": sparse + b"d" * 4608 + bytes(1024),
        }[kind]
    )
    for at, value in damage:
        if at < len(tar):
            tar[at] = value
    if mended:
        tar[148:156] = b" " * 8
        tar[148:156] = b"%06o\0 " % sum(tar[:512])
    try:
        tarball = read_tarball(Volume(zipped(bytes(tar[:cut]))))
        assert sum(len(content) for _, content in tarball.pieces()) == tarball.stored <= len(tar)
    except DiskInvalid:
        pass


@given(st.binary(max_size=300))
@settings(max_examples=60, deadline=None)
def test_any_bytes_are_refused_by_name(rest: bytes) -> None:
    for content in (b"\x1f\x8b\x08" + rest, zipped(rest)):
        with pytest.raises(DiskInvalid):
            read(content)
