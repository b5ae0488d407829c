"""Copying a disk to where a user wants it, and nothing else away."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from osvdeploy.build.copy import copy_sparse
from osvdeploy.context import Context
from osvdeploy.errors import BuildError, UsageError

DISK = bytes(510) + b"\x55\xaa" + bytes(100_000)


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk.raw"
    path.write_bytes(DISK)
    with path.open("r+b") as file:
        file.truncate(1 << 24)
    return path


def test_holes_stay_holes(disk: Path, tmp_path: Path) -> None:
    """The copy has the same bytes and takes no more room; an earlier disk, or an empty file, may stand in its place."""
    target = tmp_path / "copy.raw"
    for before in (None, b"", DISK):
        if before is not None:
            target.write_bytes(before)
        copy_sparse(Context(), disk, target)
        assert target.read_bytes() == disk.read_bytes()
        assert target.stat().st_blocks * 512 < 1 << 20


def test_what_is_no_disk_is_not_overwritten(disk: Path, tmp_path: Path) -> None:
    """A source of the image, named by mistake, stays what it is."""
    spec = tmp_path / "osv.toml"
    spec.write_text('name = "hello"\n')
    with pytest.raises(UsageError, match="exists and is no disk"):
        copy_sparse(Context(), disk, spec)
    assert spec.read_text() == 'name = "hello"\n'


def test_a_disk_goes_into_files_alone(disk: Path) -> None:
    """A device has no room for a disk, and is no file to be replaced."""
    with pytest.raises(UsageError, match="not a regular file"):
        copy_sparse(Context(), disk, Path("/dev/null"))
    assert Path("/dev/null").is_char_device()


@pytest.mark.parametrize("code", [errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_disk_goes_to_another_file_system(
    disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """Where the kernel does not copy from one to the other by itself, as Linux since 5.19; holes stay holes."""

    def refuse(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "copy_file_range", refuse)
    target = tmp_path / "copy.raw"
    copy_sparse(Context(), disk, target)
    assert target.read_bytes() == disk.read_bytes()
    assert target.stat().st_blocks * 512 < 1 << 20


def test_a_full_disk_is_told_with_what_to_do(disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing is left where the copy was to be."""

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "copy_file_range", full)
    with pytest.raises(BuildError, match=r"copy\.raw: cannot be written: No space left") as told:
        copy_sparse(Context(), disk, tmp_path / "copy.raw")
    assert told.value.hint is not None and "another folder" in told.value.hint
    assert [path.name for path in tmp_path.iterdir()] == ["disk.raw"]
