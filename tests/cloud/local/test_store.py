"""The directory store keeps its promises through kills, leftovers and file systems that refuse."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from osvdeploy.cloud.local.store import DirectoryStore
from osvdeploy.context import Context
from osvdeploy.errors import LedgerError, StoreUnavailable, Unavailable
from tests.sources import Made

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


@pytest.mark.parametrize(
    "code", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN]
)
def test_what_may_pass_is_told_from_what_is_final(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """A full disk, and a network file system that does not answer, may work later: a rollout waits for them."""
    DirectoryStore(tmp_path).put_if_absent(CTX, "a/1", b"one")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(Unavailable, match=os.strerror(code).lower()) as raised:
        DirectoryStore(tmp_path).put_if_absent(CTX, "a/2", b"two")
    assert isinstance(raised.value, LedgerError) and raised.value.hint


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.EPERM])
def test_a_final_refusal_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """What somebody has to mend ends the command."""

    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(LedgerError) as raised:
        DirectoryStore(tmp_path).put_if_absent(CTX, "a/1", b"one")
    assert not isinstance(raised.value, Unavailable)


def seen_by_a_put(root: Path) -> DirectoryStore:
    store = DirectoryStore(root)
    store.put_if_absent(CTX, "a/b/1", b"one")
    return store


def seen_by_a_get(root: Path) -> DirectoryStore:
    DirectoryStore(root).put_if_absent(CTX, "a/b/1", b"one")
    store = DirectoryStore(root)
    assert store.get(CTX, "a/b/1") == b"one"
    return store


def seen_by_a_listing(root: Path) -> DirectoryStore:
    DirectoryStore(root).put_if_absent(CTX, "a/b/1", b"one")
    store = DirectoryStore(root)
    assert list(store.keys(CTX, "a/b/")) == ["a/b/1"]
    return store


def seen_by_a_lost_put(root: Path) -> DirectoryStore:
    DirectoryStore(root).put_if_absent(CTX, "a/b/1", b"one")
    store = DirectoryStore(root)
    assert not store.put_if_absent(CTX, "a/b/1", b"two")
    return store


SEEN = [seen_by_a_put, seen_by_a_get, seen_by_a_listing, seen_by_a_lost_put]


@pytest.mark.parametrize("seen", SEEN, ids=lambda each: each.__name__)
@pytest.mark.parametrize("mounted", [False, True], ids=["moved", "unmounted"])
def test_a_directory_that_goes_away_is_out_of_reach(
    tmp_path: Path, seen: Callable[[Path], DirectoryStore], mounted: bool
) -> None:
    """Where the directory was moved, or an empty mount point stands in its place, nothing is made anew there and
    nothing is said to be missing; once it is back, all goes on."""
    root, elsewhere = tmp_path / "ledger", tmp_path / "elsewhere"
    store = seen(root)
    root.rename(elsewhere)
    if mounted:
        root.mkdir()
    for ask in (
        lambda: store.put_if_absent(CTX, "a/b/2", b"two"),
        lambda: store.put_if_absent(CTX, "a/c/1", b"two"),
        lambda: store.get(CTX, "a/b/1"),
        lambda: store.find(CTX, "a/b/1"),
        lambda: list(store.keys(CTX, "a/b/")),
        lambda: list(store.keys(CTX, "a/")),
        lambda: list(store.folders(CTX, "a/")),
        lambda: store.delete(CTX, "a/b/1"),
    ):
        with pytest.raises(StoreUnavailable, match=f"{root}.*: was there before, and is gone") as raised:
            ask()
        assert "mount" in (raised.value.hint or "")
    assert not root.exists() or names(root) == set()
    if mounted:
        root.rmdir()
    elsewhere.rename(root)
    assert store.put_if_absent(CTX, "a/b/2", b"two")
    assert list(store.keys(CTX, "a/")) == ["a/b/1", "a/b/2"]


def test_a_folder_that_was_never_there_is_empty(tmp_path: Path) -> None:
    """What nobody has seen is not missed, beside what was."""
    store = seen_by_a_put(tmp_path / "ledger")
    assert store.get(CTX, "a/c/1") is None
    assert store.find(CTX, "b/1") is None
    assert list(store.keys(CTX, "a/c/")) == []
    assert list(store.folders(CTX, "b/")) == []
    assert store.put_if_absent(CTX, "a/c/1", b"one")


def test_an_upload_into_a_directory_that_goes_away_is_out_of_reach(tmp_path: Path) -> None:
    """A large object is not begun anew in another place than its bucket's."""
    root = tmp_path / "bucket"
    store = seen_by_a_put(root)
    root.rename(tmp_path / "elsewhere")
    with pytest.raises(StoreUnavailable):
        store.put_file(CTX, "a/b/2", Made("large", 1000))
    assert not root.exists()


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
