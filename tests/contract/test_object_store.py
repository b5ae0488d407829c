"""What every implementation of ObjectStore promises."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from osvdeploy.cloud.interfaces import ObjectStore
from osvdeploy.cloud.local.store import DirectoryStore
from osvdeploy.cloud.memory import MemoryStore
from osvdeploy.context import Context
from osvdeploy.errors import LedgerError

CTX = Context()


@pytest.fixture(params=["memory", "directory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    return MemoryStore() if request.param == "memory" else DirectoryStore(tmp_path / "not" / "there" / "yet")


def test_what_was_put_is_got(store: ObjectStore) -> None:
    """An object reads back byte for byte; one that was never put is None."""
    assert store.put_if_absent(CTX, "hello/production/head/000001.json", b"\x00\xff{}")
    assert store.get(CTX, "hello/production/head/000001.json") == b"\x00\xff{}"
    assert store.get(CTX, "hello/production/head/000002.json") is None
    assert store.get(CTX, "hello/production") is None


def test_nothing_is_overwritten(store: ObjectStore) -> None:
    """The second put of a key is refused by the answer, and the first one's content stays."""
    assert store.put_if_absent(CTX, "a/1", b"first")
    assert not store.put_if_absent(CTX, "a/1", b"second")
    assert not store.put_if_absent(CTX, "a/1", b"first")
    assert store.get(CTX, "a/1") == b"first"


def test_of_many_writers_one_wins(store: ObjectStore) -> None:
    """When several put one key at once, exactly one is told that it did, and its content is there."""
    won: list[int] = []
    together = threading.Barrier(8)

    def write(number: int) -> None:
        together.wait()
        if store.put_if_absent(CTX, "race/1", f"{number}".encode() * 1000):
            won.append(number)

    writers = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(won) == 1
    assert store.get(CTX, "race/1") == f"{won[0]}".encode() * 1000


def test_keys_are_listed_by_prefix_in_order(store: ObjectStore) -> None:
    """A prefix is a beginning of the key, not a folder; the order is that of the whole keys; a limit cuts."""
    names = ["a/head/3", "a/head/1", "a/head/2", "a/heads", "b/1", "a/releases/x-1.json", "a/releases/x-1~2.json"]
    for name in names:
        store.put_if_absent(CTX, name, b"")
    assert list(store.keys(CTX, "a/head/")) == ["a/head/1", "a/head/2", "a/head/3"]
    assert list(store.keys(CTX, "a/head/", limit=1)) == ["a/head/1"]
    assert list(store.keys(CTX, "a/head/", limit=9)) == ["a/head/1", "a/head/2", "a/head/3"]
    assert list(store.keys(CTX, "a/head")) == ["a/head/1", "a/head/2", "a/head/3", "a/heads"]
    assert list(store.keys(CTX, "a/releases/x-1")) == ["a/releases/x-1.json", "a/releases/x-1~2.json"]
    assert list(store.keys(CTX, "")) == sorted(names)
    assert list(store.keys(CTX, "c/")) == []
    assert list(store.keys(CTX, "a/head/1")) == ["a/head/1"]


def test_deleting_is_final_and_may_be_repeated(store: ObjectStore) -> None:
    """A deleted object is gone, deleting it again succeeds, and its key is free."""
    store.put_if_absent(CTX, "a/1", b"one")
    store.delete(CTX, "a/1")
    store.delete(CTX, "a/1")
    assert store.get(CTX, "a/1") is None
    assert list(store.keys(CTX, "a/")) == []
    assert store.put_if_absent(CTX, "a/1", b"two")


@pytest.mark.parametrize(
    "key", ["", "/a", "a/", "a//b", "../a", "a/../b", "a/./b", ".hidden", "a/.b", "a b", "ä", "a\0b", "a\n", "x" * 300]
)
def test_other_keys_are_refused(store: ObjectStore, key: str) -> None:
    """A key outside the alphabet, or one that leaves its place, is refused by every operation."""
    with pytest.raises(LedgerError, match="cannot be an object's key"):
        store.put_if_absent(CTX, key, b"")
    with pytest.raises(LedgerError):
        store.get(CTX, key)
    with pytest.raises(LedgerError):
        store.delete(CTX, key)


PART = st.text("ab.-~0", min_size=1, max_size=3).filter(lambda part: not part.startswith("."))
FOLDER = st.lists(PART.map(lambda part: f"d{part}"), max_size=2).map("/".join)
KEY = st.tuples(FOLDER, PART.map(lambda part: f"f{part}")).map(lambda parts: "/".join(part for part in parts if part))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(keys=st.sets(KEY, max_size=8), cut=st.integers(0, 6), limit=st.one_of(st.none(), st.integers(1, 4)))
def test_listing_is_sorting_and_filtering(store: ObjectStore, keys: set[str], cut: int, limit: int | None) -> None:
    """Whatever the keys, a listing is what sorting and filtering all of them gives."""
    for key in list(store.keys(CTX, "")):
        store.delete(CTX, key)
    for key in keys:
        assert store.put_if_absent(CTX, key, key.encode())
    prefix = (max(keys) if keys else "d")[:cut].rstrip("/")
    assert list(store.keys(CTX, prefix, limit)) == sorted(key for key in keys if key.startswith(prefix))[:limit]
