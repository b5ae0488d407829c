"""The directory store keeps its promises through kills, leftovers and file systems that refuse."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from osvdeploy.cloud.local.store import DirectoryStore
from osvdeploy.context import Context
from osvdeploy.errors import LedgerError

CTX = Context()


def names(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


def test_a_put_leaves_the_object_alone(tmp_path: Path) -> None:
    """Won or lost, a put leaves no temporary file behind."""
    store = DirectoryStore(tmp_path)
    store.put_if_absent(CTX, "a/1", b"one")
    store.put_if_absent(CTX, "a/1", b"two")
    assert names(tmp_path / "a") == {"1"}


def test_the_umask_decides_who_may_read(tmp_path: Path) -> None:
    """A ledger that a team shares is not locked to who wrote it last."""
    before = os.umask(0o002)
    try:
        DirectoryStore(tmp_path).put_if_absent(CTX, "a/1", b"")
    finally:
        os.umask(before)
    assert (tmp_path / "a" / "1").stat().st_mode & 0o777 == 0o664


def test_leftovers_are_not_listed_and_go_when_old(tmp_path: Path) -> None:
    """Temporary files of killed writes are no objects; a later run removes those that nobody can be writing."""
    folder = tmp_path / "a"
    folder.mkdir()
    old, young = folder / ".put-1-old", folder / ".put-1-young"
    for leftover in (old, young):
        leftover.write_bytes(b"half")
    os.utime(old, (0, 0))
    store = DirectoryStore(tmp_path)

    assert list(store.keys(CTX, "a/")) == []
    store.put_if_absent(CTX, "a/1", b"")

    assert names(folder) == {"1", young.name}
    assert list(store.keys(CTX, "a/")) == ["a/1"]


def test_a_link_that_was_made_though_refused_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the answer to link() was lost and the call repeated (NFS), the winner is told that it won."""
    link = os.link

    def twice(source: Path, target: Path) -> None:
        link(source, target)
        link(source, target)

    monkeypatch.setattr(os, "link", twice)
    assert DirectoryStore(tmp_path).put_if_absent(CTX, "a/1", b"one")


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        (errno.ENOSPC, "room"),
        (errno.EACCES, "right to read and write"),
        (errno.EROFS, "read-only"),
        (errno.EPERM, "hard links"),
        (errno.EIO, "fails"),
    ],
)
def test_a_refusal_says_what_to_do_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, hint: str
) -> None:
    """What the file system refuses becomes a ledger error with a way out, and no half-made file stays."""

    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(LedgerError, match=os.strerror(code).lower()) as raised:
        DirectoryStore(tmp_path).put_if_absent(CTX, "a/1", b"one")
    assert hint in (raised.value.hint or "")
    assert names(tmp_path / "a") == set()


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that fails half-way is taken away again."""

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    (tmp_path / "a").mkdir()
    with pytest.raises(LedgerError, match="no space left"):
        DirectoryStore(tmp_path).put_if_absent(CTX, "a/1", b"one")
    assert names(tmp_path / "a") == set()


def test_a_file_is_no_ledger(tmp_path: Path) -> None:
    """A root that is a file is refused by name, whatever is asked of it."""
    root = tmp_path / "ledger"
    root.write_text("not a directory")
    store = DirectoryStore(root)
    for ask in (
        lambda: store.put_if_absent(CTX, "a/1", b""),
        lambda: store.get(CTX, "a/1"),
        lambda: list(store.keys(CTX, "")),
    ):
        with pytest.raises(LedgerError, match=f"{root}.*not a directory") as raised:
            ask()
        assert "directory" in (raised.value.hint or "")


def test_a_place_that_could_not_be_written_is_told_without_writing(tmp_path: Path) -> None:
    """Whatever of the path is missing could be made; a file in its way could not."""
    DirectoryStore(tmp_path / "ledger").refuse_unwritable(CTX, "hello/production")
    assert names(tmp_path) == set()
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(LedgerError, match=f"{tmp_path}/taken: not a directory"):
        DirectoryStore(tmp_path / "taken").refuse_unwritable(CTX, "hello")
    # Linux gives a process's own folder in /proc nobody the right to write, root included.
    with pytest.raises(LedgerError, match="/proc"):
        DirectoryStore("/proc/self/ledger").refuse_unwritable(CTX, "hello")


def test_a_root_that_is_not_there_is_empty(tmp_path: Path) -> None:
    """Reading makes nothing."""
    store = DirectoryStore(tmp_path / "ledger")
    assert list(store.keys(CTX, "a/")) == []
    assert store.get(CTX, "a/1") is None
    assert names(tmp_path) == set()
    assert store.address == str(tmp_path / "ledger")


WRITER = """
import sys
from osvdeploy.cloud.local.store import DirectoryStore
from osvdeploy.context import Context
store, ctx = DirectoryStore(sys.argv[1]), Context()
print("ready", flush=True)
for number in range(100_000):
    store.put_if_absent(ctx, f"a/{number:06}", f"{number:06}".encode() * 5_000)
"""


@pytest.mark.slow
def test_after_a_kill_every_object_is_whole(tmp_path: Path) -> None:
    """A writer killed at any moment leaves only whole objects, without a gap, and the next one goes on."""
    for _ in range(5):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        writer.stdout.readline()
        before = len(list(DirectoryStore(tmp_path).keys(CTX, "a/")))
        while len(list(DirectoryStore(tmp_path).keys(CTX, "a/"))) < before + 3:
            assert writer.poll() is None
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        store = DirectoryStore(tmp_path)
        keys = list(store.keys(CTX, "a/"))
        assert keys == [f"a/{number:06}" for number in range(len(keys))]
        assert all(store.get(CTX, key) == key[2:].encode() * 5_000 for key in keys)
