"""Google's archive of a disk: what a tar and gzip reader of others' make of it, and what two releases share."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import subprocess
import tarfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from osvdeploy.errors import DiskInvalid
from osvdeploy.osv.image import Extent, merged
from osvdeploy.publish.archive import HEAD_SIZE, PIECE, Archive, sparse_header, trailer
from osvdeploy.sizes import GIB, MIB


@dataclass
class Sparse:
    """A disk of mostly nothing, in memory."""

    size: int
    contents: dict[int, bytes] = field(default_factory=dict)

    def pread(self, offset: int, length: int) -> bytes:
        found = bytearray(max(0, min(length, self.size - offset)))
        for at, content in self.contents.items():
            start, end = max(at, offset), min(at + len(content), offset + len(found))
            if start < end:
                found[start - offset : end - offset] = content[start - at : end - at]
        return bytes(found)


def archived(disk: Sparse, read: list[Extent], *, block: bytes | None = None, threads: int = 2) -> list[bytes]:
    archive = Archive(disk, read)
    head, first = archive.head(block)
    body = archive.body(threads)
    pieces = list(body)
    assert body.sum is not None
    return [head, *pieces, trailer(first + body.sum)]


def unpacked(parts: list[bytes]) -> tarfile.TarFile:
    return tarfile.open(fileobj=io.BytesIO(gzip.decompress(b"".join(parts))))


@settings(max_examples=25)
@given(
    st.lists(
        st.tuples(st.integers(0, 2 * GIB - 3 * MIB), st.binary(min_size=1, max_size=40), st.integers(1, 9000)),
        max_size=60,
    )
)
def test_what_is_read_comes_back_and_all_else_is_a_hole(placed: list[tuple[int, bytes, int]]) -> None:
    """Any ranges: tarfile finds one member, as long as the disk, with those bytes at those places."""
    disk = Sparse(2 * GIB, {at: content * times for at, content, times in placed})
    read = [Extent(at, at + len(content)) for at, content in disk.contents.items()]

    with unpacked(archived(disk, read)) as tar:
        (member,) = tar.getmembers()
        file = tar.extractfile(member)
        assert file is not None
        assert (member.name, member.size, member.mtime, member.uid, member.uname) == ("disk.raw", 2 * GIB, 0, 0, "")
        # In ascending order: tarfile takes a map's empty entries, which GNU tar writes too, for a hole over all of it.
        for extent in merged(read):
            file.seek(extent.start)
            assert file.read(extent.end - extent.start) == disk.pread(extent.start, extent.end - extent.start)


@pytest.mark.skipif(shutil.which("tar") is None, reason="no tar here")
def test_gnu_tar_makes_the_same_disk_of_it(tmp_path: Path) -> None:
    """Also with more ranges than one header holds, and the last of them at the disk's very end."""
    disk = Sparse(GIB, {at * 7 * MIB: os.urandom(5000) for at in range(60)} | {GIB - 100: b"e" * 100})
    read = [Extent(at, at + len(content)) for at, content in disk.contents.items()]
    (tmp_path / "disk.tar.gz").write_bytes(b"".join(archived(disk, read)))

    subprocess.run(["tar", "-xSzf", "disk.tar.gz"], cwd=tmp_path, check=True)

    result = tmp_path / "disk.raw"
    assert result.stat().st_size == GIB
    assert result.stat().st_blocks * 512 < 16 * MIB
    with result.open("rb") as file:
        for extent in read:
            file.seek(extent.start)
            assert file.read(extent.end - extent.start) == disk.contents[extent.start]


def test_the_bytes_do_not_depend_on_threads() -> None:
    disk = Sparse(GIB, {16 * MIB: os.urandom(PIECE) * 3 + b"odd"})
    read = [Extent(16 * MIB, 19 * MIB + 3)]
    one, three = (b"".join(archived(disk, read, threads=threads)) for threads in (1, 3))
    assert one == three


def test_releases_of_one_image_share_the_body() -> None:
    """With another first block, head and trailer are others and all between is the same; it unpacks all the same."""
    disk = Sparse(GIB, {0: b"image" * 100, 16 * MIB: os.urandom(3 * MIB)})
    read = [Extent(0, 500), Extent(16 * MIB, 19 * MIB)]
    image = archived(disk, read)
    release = archived(disk, read, block=b"r" * HEAD_SIZE)

    assert image[1:-1] == release[1:-1]
    assert image[0] != release[0]
    assert image[-1] != release[-1]
    with unpacked([release[0], *image[1:-1], release[-1]]) as tar:
        file = tar.extractfile("disk.raw")
        assert file is not None
        assert file.read(HEAD_SIZE) == b"r" * HEAD_SIZE
        file.seek(16 * MIB)
        assert file.read(3 * MIB) == disk.contents[16 * MIB]


@pytest.mark.parametrize("size", [8 * GIB, 64 << 40])
def test_a_disk_of_8_gib_and_more_has_its_size_in_base_256(size: int) -> None:
    header = sparse_header(b"disk.raw", size, [Extent(size - 1024, size - 512)]) + bytes(512 + 1024)
    with tarfile.open(fileobj=io.BytesIO(header)) as tar:
        (member,) = tar.getmembers()
    assert member.size == size
    sparse: Any = member.sparse
    assert (size - 1024, 512) in sparse


def test_who_leaves_early_does_not_wait_and_leaves_no_thread() -> None:
    disk = Sparse(GIB, {16 * MIB: bytes(64 * MIB)})
    body = Archive(disk, [Extent(16 * MIB, 80 * MIB)]).body(2)
    pieces = iter(body)
    next(pieces)
    pieces.close()  # type: ignore[attr-defined]  # a generator
    assert body.sum is None
    assert not [each for each in threading.enumerate() if each.name.startswith("deflate")]


def test_a_disk_that_ends_early_is_refused_and_so_is_one_that_google_does_not_take() -> None:
    class Short(Sparse):
        def pread(self, offset: int, length: int) -> bytes:
            return super().pread(offset, length)[: max(0, 20 * MIB - offset)]

    with pytest.raises(DiskInvalid, match="ends at byte 20971520"):
        list(Archive(Short(GIB), [Extent(16 * MIB, 40 * MIB)]).body())
    with pytest.raises(DiskInvalid, match="whole GiB"):
        Archive(Sparse(GIB + 512), [])
    with pytest.raises(DiskInvalid, match="beyond"):
        Archive(Sparse(GIB), [Extent(GIB - 1, GIB + 1)])


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 4000), st.integers(1, 300)), max_size=40))
def test_the_announced_length_is_what_was_deflated(placed: list[tuple[int, int]]) -> None:
    read = merged(Extent(start * 512, (start + length) * 512) for start, length in placed)
    archive = Archive(Sparse(GIB), read)
    head, first = archive.head()
    body = archive.body()
    whole = b"".join([head, *body])
    assert body.sum is not None
    assert (first + body.sum).length == archive.raw_length
    assert len(gzip.decompress(whole + trailer(first + body.sum))) == archive.raw_length
