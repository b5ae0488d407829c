from __future__ import annotations

import shutil
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from osvdeploy.errors import DiskInvalid
from osvdeploy.osv.qcow2 import Claims, Compression, read_qcow2
from osvdeploy.osv.source import open_image
from tests.osv.hostile_files import mapped
from tests.osv.qcow2_files import Shape, Stored, deflate, header, make
from tests.osv.volumes import Volume

KINDS = st.lists(st.sampled_from(Stored), min_size=1, max_size=9)
SHAPES = st.builds(Shape, cluster_bits=st.integers(9, 12), version=st.sampled_from([2, 3]))
CONTENTS = st.tuples(st.binary(min_size=1, max_size=2000), st.integers(0, 40_000)).map(
    lambda made: (made[0] * 40)[: made[1]]
)


@settings(max_examples=50, deadline=None)
@given(CONTENTS, KINDS, SHAPES, st.data())
def test_any_disk_reads_back(content: bytes, kinds: list[Stored], shape: Shape, data: st.DataObject) -> None:
    """Whatever its clusters are, absent, zeros, stored or compressed, and wherever a read begins and ends."""
    file, expected = make(content, kinds, shape)
    disk = read_qcow2(Volume(file))
    assert disk.size == len(expected)
    assert disk.pread(0, disk.size) == expected
    at, length = data.draw(st.integers(0, disk.size)), data.draw(st.integers(0, disk.size + 1000))
    assert disk.pread(at, length) == expected[at : at + length]


@settings(max_examples=30, deadline=None)
@given(CONTENTS, KINDS, SHAPES)
def test_outside_of_its_data_a_disk_is_zeros(content: bytes, kinds: list[Stored], shape: Shape) -> None:
    """What data() leaves out holds nothing; what it names is ascending, apart and on the disk."""
    file, expected = make(content, kinds, shape)
    disk = read_qcow2(Volume(file))
    rest, last = bytearray(expected), -1
    for extent in disk.data(0, disk.size):
        assert last < extent.start < extent.end <= disk.size
        rest[extent.start : extent.end] = bytes(extent.end - extent.start)
        last = extent.end
    assert not any(rest)


def test_clusters_of_zstd_are_read() -> None:
    """qemu-img -o compression_type=zstd: one frame per cluster, and other bytes behind it in the last sector."""
    shape = Shape(incompatible=8, compression=1, pack=zstandard.ZstdCompressor().compress)
    file, expected = make(b"unikernel " * 400, [Stored.PACKED], shape)
    disk = read_qcow2(Volume(file))
    assert disk.compression is Compression.ZSTD
    assert disk.pread(0, 4000) == expected


def test_without_its_library_zstd_is_refused_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """zstandard is an extra; who lacks it is told so, and of qemu-img."""
    monkeypatch.setitem(sys.modules, "zstandard", None)
    shape = Shape(incompatible=8, compression=1, pack=zstandard.ZstdCompressor().compress)
    disk = read_qcow2(Volume(make(b"a" * 512, [Stored.PACKED], shape)[0]))
    with pytest.raises(DiskInvalid, match="zstandard is not installed") as caught:
        disk.pread(0, 1)
    assert caught.value.hint is not None and "qemu-img convert" in caught.value.hint


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        (Shape(version=1), "version 1"),
        (Shape(version=4), "version 4"),
        (Shape(backing=b"base.qcow2"), r"backing file 'base\.qcow2'"),
        (Shape(encryption=2), "encrypted"),
        (Shape(incompatible=4), "another file"),
        (Shape(incompatible=16), "extended L2"),
        (Shape(incompatible=1 << 40), "not known"),
        (Shape(incompatible=8, compression=7), "number 7"),
    ],
)
def test_what_cannot_be_read_alone_is_refused(shape: Shape, says: str) -> None:
    """Bytes that are not those a machine would see are no answer."""
    with pytest.raises(DiskInvalid, match=says):
        read_qcow2(Volume(header(shape, 4096, 1, 512).ljust(8192, b"\0")))


@pytest.mark.parametrize(
    ("shape", "size", "entries", "at", "says"),
    [
        (Shape(cluster_bits=8), 4096, 1, 512, r"2\^8"),
        (Shape(cluster_bits=31), 4096, 1, 512, r"2\^31"),
        (Shape(), 1 << 62, 0xFFFF_FFFF, 512, "2 TiB"),
        (Shape(cluster_bits=9), 1 << 40, 0xFFFF_FFFF, 512, "L1 table"),
        (Shape(), 1 << 20, 1, 512, "takes 32 entries"),
        (Shape(), 4096, 1, 1 << 50, "not in a file"),
        (Shape(), 4096, 1, 8188, "not in a file"),
    ],
)
def test_no_number_of_the_header_is_believed(shape: Shape, size: int, entries: int, at: int, says: str) -> None:
    """Sizes that would take days or memory, and tables that are not there, are refused at once."""
    with pytest.raises(DiskInvalid, match=says):
        read_qcow2(Volume(header(shape, size, entries, at).ljust(8192, b"\0")))


def test_a_disk_that_was_cut_short_says_so() -> None:
    """Half a download: the header is whole, what it leads to is not."""
    file, _ = make(b"a" * 4096, [Stored.PLAIN])
    with pytest.raises(DiskInvalid, match="said to stand at") as caught:
        read_qcow2(Volume(file[:-1024])).pread(0, 4096)
    assert caught.value.hint is not None and "cut short" in caught.value.hint


def test_a_last_cluster_that_ends_with_the_file_is_filled_up() -> None:
    """QEMU writes no more of it than there is."""
    file, expected = make(b"b" * 10, [Stored.PLAIN])
    assert read_qcow2(Volume(file[:-400])).pread(0, 4096) == expected


def test_a_cluster_that_unpacks_to_gigabytes_is_cut_at_its_size() -> None:
    """A compressed cluster is as long as any other; the rest is never made."""
    for shape in (
        Shape(pack=lambda piece: deflate(bytes(1 << 22))),
        Shape(incompatible=8, compression=1, pack=lambda piece: zstandard.ZstdCompressor().compress(bytes(1 << 26))),
    ):
        shape = replace(shape, cluster_bits=16)
        disk = read_qcow2(Volume(make(bytes(1 << 16), [Stored.PACKED], shape)[0]))
        tracemalloc.start()
        assert disk.pread(0, 10) == bytes(10)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 4 << 20


def test_two_entries_for_one_table_are_refused() -> None:
    """A short file could otherwise be a disk of terabytes with data everywhere."""
    file = bytearray(make(b"a" * (512 * 64 * 2), [Stored.PLAIN])[0])
    file[512 + 8 : 512 + 16] = file[512 : 512 + 8]
    with pytest.raises(DiskInvalid, match="share one"):
        read_qcow2(Volume(bytes(file)))


CLUSTERS = st.lists(st.none() | st.integers(0, 3), min_size=1, max_size=300)


@settings(max_examples=60, deadline=None)
@given(CLUSTERS, st.booleans())
def test_a_disk_holds_no_more_than_its_file(clusters: list[int | None], packed: bool) -> None:
    """A cluster that is stored stands for one of the disk, or the file is refused; of what is compressed, which may be
    more than its file, ``held`` tells how much is there."""
    data = [bytes([65 + at]) * 512 for at in range(4)]
    file = mapped(clusters, data, bits=9, pack=deflate if packed else None)
    named = [each for each in clusters if each is not None]
    try:
        disk = read_qcow2(Volume(file))
        content = disk.pread(0, disk.size)
        stored = sum(each.end - each.start for each in disk.data(0, disk.size))
    except DiskInvalid:
        assert not packed and len(set(named)) < len(named)
        return
    assert content == b"".join(bytes(512) if each is None else data[each] for each in clusters)
    assert stored == 512 * len(named) and (packed or len(set(named)) == len(named))
    assert disk.held(0, disk.size) <= len(file)
    assert (disk.held(0, disk.size) > 0) == bool(named)


@given(st.lists(st.integers(0, 300)))
def test_a_number_is_claimed_once(numbers: list[int]) -> None:
    """As by a set."""
    claims = Claims()
    assert [claims.claim(each) for each in numbers] == [each not in numbers[:at] for at, each in enumerate(numbers)]


def test_holes_are_passed_over_table_by_table() -> None:
    """A disk of a TiB with nothing on it is a few thousand steps, not a billion."""
    head = header(Shape(cluster_bits=16), 1 << 40, 2048, 65536).ljust(65536, b"\0")
    disk = read_qcow2(Volume(head + bytes(65536)))
    assert list(disk.data(0, disk.size)) == []


@settings(max_examples=80, deadline=None)
@given(
    CONTENTS,
    KINDS,
    SHAPES,
    st.lists(st.tuples(st.integers(0, 1 << 14), st.integers(0, 255)), min_size=1, max_size=6),
    st.none() | st.integers(0, 20_000),
)
def test_any_damage_is_refused_or_read(
    content: bytes, kinds: list[Stored], shape: Shape, damage: list[tuple[int, int]], cut: int | None
) -> None:
    """Random damage gives DiskInvalid, or a disk that can be read from end to end in steps that are bounded."""
    file = bytearray(make(content, kinds, shape)[0])
    for at, value in damage:
        if at < len(file):
            file[at] = value
    try:
        disk = read_qcow2(Volume(bytes(file[:cut])))
        for at in range(0, min(disk.size, 1 << 20), 1 << 16):
            assert len(disk.pread(at, 1 << 16)) == min(1 << 16, disk.size - at)
        for extent in disk.data(0, min(disk.size, 1 << 30)):
            assert extent.end > extent.start
    except DiskInvalid:
        pass


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_refused_by_name(rest: bytes) -> None:
    """Whatever follows the magic number."""
    for version in (2, 3):
        try:
            read_qcow2(Volume(b"QFI\xfb" + version.to_bytes(4, "big") + rest)).pread(0, 4096)
        except DiskInvalid:
            pass


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is not installed")
@pytest.mark.parametrize(
    "options",
    [
        ["-o", "compat=0.10"],
        ["-o", "compat=1.1"],
        ["-o", "cluster_size=512"],
        ["-o", "cluster_size=2M"],
        ["-o", "preallocation=metadata"],
        ["-c", "-o", "compat=0.10,cluster_size=4096"],
        ["-c"],
        ["-c", "-o", "cluster_size=2M"],
        ["-c", "-o", "compression_type=zstd"],
        ["-c", "-o", "compression_type=zstd,cluster_size=2M"],
    ],
    ids=" ".join,
)
def test_what_qemu_writes_is_read_as_qemu_reads_it(tmp_path: Path, options: list[str]) -> None:
    """Every kind of qcow2 that qemu-img makes of a disk with data, zeros and holes is that disk again."""
    raw = tmp_path / "disk.raw"
    with raw.open("wb") as file:
        for at in (0, 100_000, 1 << 20, (5 << 20) + 77, (40 << 20) - 3):
            file.seek(at)
            file.write(b"data at %d " % at * 9000)
        file.seek(20 << 20)
        file.write(bytes(1 << 20))
        file.truncate((64 << 20) + 512)
    packed = tmp_path / "disk.qcow2"
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", *options, raw, packed], check=True)
    again = tmp_path / "again.raw"
    subprocess.run(["qemu-img", "convert", "-O", "raw", packed, again], check=True)
    with open_image(packed) as ours, open_image(again) as theirs:
        assert ours.source.size == theirs.source.size
        for at in range(0, ours.source.size, 3_000_001):
            assert ours.source.pread(at, 3_000_001) == theirs.source.pread(at, 3_000_001), at
        with again.open("rb") as file:
            rest = bytearray(file.read())
        for extent in ours.source.data(0, ours.source.size):
            rest[extent.start : extent.end] = bytes(extent.end - extent.start)
        assert not any(rest)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is not installed")
def test_an_image_on_top_of_another_is_refused(tmp_path: Path) -> None:
    """As qemu-img makes one."""
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", tmp_path / "base", "1M"], check=True)
    top = tmp_path / "top"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", "base", "-F", "qcow2", top], check=True)
    with pytest.raises(DiskInvalid, match="backing file 'base'") as caught, open_image(top):
        pass
    assert caught.value.hint is not None and str(top) in caught.value.hint
