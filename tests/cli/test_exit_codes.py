"""2: refused, and nothing is made; what is wrong is the caller's to mend. 1: it was tried, and failed. docs/json.md."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.projects import SPEC, built_project
from tests.cli.running import osvdeploy
from tests.osv.images import LZLOADER, loader_image

NEEDS_AN_IMAGE = ("check", "build", "run", "inspect", "inspect ls")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project that was built once, and a QEMU that nobody should come to."""
    folder = built_project(tmp_path, monkeypatch)
    (tmp_path / "bin").mkdir()
    qemu = tmp_path / "bin" / "qemu-system-x86_64"
    qemu.write_text("#!/bin/sh\nexit 1\n")
    qemu.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return folder


def files(folder: Path) -> set[Path]:
    return {path for path in folder.parent.rglob("*") if "stats" not in path.parts and "facts" not in path.parts}


def other_kernel(folder: Path) -> None:
    (folder / "loader.img").write_bytes(loader_image(chunks=3, payload=LZLOADER))


def garbage_lock(folder: Path) -> None:
    (folder / "osv.lock").write_bytes(b"\x00\xff<<<<<<< HEAD")


def newer_lock(folder: Path) -> None:
    (folder / "osv.lock").write_text("version = 99\n")


def lock_is_a_folder(folder: Path) -> None:
    (folder / "osv.lock").unlink()
    (folder / "osv.lock").mkdir()


def other_program(folder: Path) -> None:
    spec, lock = folder / "osv.toml", folder / "osv.lock"
    spec.write_text(SPEC + '[[programs]]\npath = "/usr/bin/env"\n')
    lock.write_text(
        lock.read_text() + f'[[programs]]\npath = "/usr/bin/env"\nfrom = "/usr/bin/env"\nsha256 = "{"0" * 64}"\n'
        "files = 1\nsize = 1\n"
    )


@pytest.mark.parametrize("command", NEEDS_AN_IMAGE)
@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (other_kernel, "osv.lock pins"),
        (garbage_lock, "not a lock file"),
        (newer_lock, "not a lock file: its version is 99"),
        (lock_is_a_folder, "osv.lock: cannot be read"),
        (other_program, "the program on this host, or a library of it, is not the one that osv.lock pins"),
    ],
)
def test_what_osv_lock_refuses_ends_with_2(
    folder: Path, command: str, fault: Callable[[Path], None], told: str
) -> None:
    """By every command alike; and nothing is made or changed."""
    fault(folder)
    before = files(folder)
    words = command.split() + (["osv.toml"] if "inspect" in command else [])
    ran = osvdeploy(*words, folder=folder)
    assert ran.code == 2 and told in ran.stderr and "hint: " in ran.stderr, ran.stderr
    assert files(folder) == before


@pytest.mark.parametrize("fault", [garbage_lock, newer_lock, lock_is_a_folder])
@pytest.mark.parametrize("words", [("lock",), ("lock", "--upgrade")])
def test_a_lock_that_cannot_be_read_is_not_shown_and_not_overwritten(
    folder: Path, fault: Callable[[Path], None], words: tuple[str, ...]
) -> None:
    """It may pin something that is of worth to somebody."""
    fault(folder)
    before = files(folder)
    ran = osvdeploy(*words, folder=folder)
    assert ran.code == 2 and "osv.lock" in ran.stderr
    assert files(folder) == before


@pytest.mark.slow
def test_a_disk_that_is_too_small_ends_with_2(folder: Path) -> None:
    """The files, and what is to hold them, are both the caller's. Nothing is pinned."""
    (folder / "osv.toml").write_text(SPEC.replace("[[files]]", 'size = "1GiB"\n[[files]]', 1))
    os.truncate(folder / "app", 1 << 30)
    (folder / "osv.lock").unlink()
    before = files(folder)
    ran = osvdeploy("build", folder=folder)
    assert ran.code == 2 and 'write size = "2GiB"' in ran.stderr, ran.stderr
    assert files(folder) == before


def test_what_build_cannot_write_to_is_told_before_it_builds(folder: Path) -> None:
    """A folder that is not there, or something there that is no disk."""
    (folder / "app").write_bytes(b"another program")
    before = files(folder)
    for output, told in [("nowhere/out.raw", "no such folder"), ("osv.toml", "exists and is no disk")]:
        ran = osvdeploy("build", "-o", output, folder=folder)
        assert ran.code == 2 and told in ran.stderr, ran.stderr
        assert files(folder) == before


def test_a_missing_qemu_ends_with_2(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is to be installed, and then it works."""
    monkeypatch.setenv("PATH", str(folder))
    ran = osvdeploy("run", folder=folder)
    assert ran.code == 2 and "is not on PATH" in ran.stderr


def test_what_this_machine_cannot_do_ends_with_1(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk, a cache that cannot be written: the same command may work later."""
    (folder / "app").write_bytes(b"another program")

    def full(*arguments: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    ran = osvdeploy("build", folder=folder)
    assert ran.code == 1 and "no room for the image" in ran.stderr
