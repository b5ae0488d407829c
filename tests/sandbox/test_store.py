"""The store: whole or not at all, the same after a restart, and one owner."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from osvdeploy.sandbox.errors import StoreUnusable
from osvdeploy.sandbox.store import Store

NOW = datetime(2030, 1, 1, tzinfo=UTC)
PLACE = "eu-west-1"


def put(store: Store, *keys: str, **document: Any) -> None:
    transaction = store.begin()
    for key in keys:
        transaction.put(PLACE, "thing", key, document)
    transaction.commit()


def keys(store: Store) -> list[str]:
    return store.kinds().get((PLACE, "thing"), [])


def test_what_is_not_committed_never_happened(tmp_path: Path) -> None:
    """Documents, events and calls of a transaction that is dropped leave no trace, in memory or in the file."""
    store = Store(tmp_path)
    put(store, "a", value=1)
    dropped = store.begin()
    dropped.put(PLACE, "thing", "b", {})
    dropped.delete(PLACE, "thing", "a")
    dropped.plan(NOW, PLACE, "event", {})
    assert dropped.all(PLACE, "thing") == [{}]
    assert keys(store) == ["a"]
    store.close()
    again = Store(tmp_path)
    assert keys(again) == ["a"]
    assert again.next_due() is None
    again.close()


def test_to_put_what_is_there_changes_nothing() -> None:
    """The version says whether anything may have changed; equal values of other types have."""
    store = Store()
    put(store, "a", value=1)
    before = store.version
    put(store, "a", value=1)
    assert store.version == before
    for changed in (True, 1.0, "1"):
        put(store, "a", value=changed)
        assert repr(store.begin().get(PLACE, "thing", "a")) == repr({"value": changed})
    assert store.version == before + 3


def test_what_was_changed_and_changed_back_is_as_it_was() -> None:
    """Within one transaction the last word counts."""
    store = Store()
    put(store, "a", value=1)
    transaction = store.begin()
    transaction.delete(PLACE, "thing", "a")
    transaction.put(PLACE, "thing", "a", {"value": 1})
    transaction.put(PLACE, "thing", "b", {"value": 2})
    transaction.put(PLACE, "thing", "b", {"value": 3})
    transaction.commit()
    assert store.begin().all(PLACE, "thing") == [{"value": 1}, {"value": 3}]


def test_a_reader_has_a_copy_of_its_own() -> None:
    """Changing a document that was read changes nothing until it is put."""
    store = Store()
    put(store, "a", tags={"x": "1"})
    transaction = store.begin()
    read = transaction.get(PLACE, "thing", "a")
    assert read is not None
    read["tags"]["x"] = "2"
    assert transaction.get(PLACE, "thing", "a") == {"tags": {"x": "1"}}
    assert transaction.all(PLACE, "thing") == [{"tags": {"x": "1"}}]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(st.sampled_from("abcd"), st.none() | st.integers(0, 5)), max_size=5).map(tuple), max_size=8
    )
)
def test_a_store_is_a_dictionary_in_the_order_of_first_puts(steps: list[tuple[tuple[str, int | None], ...]]) -> None:
    """Whatever is put and deleted in whichever transactions, within one and after it: as in a dict."""
    store, expected = Store(), dict[str, dict[str, int]]()
    for step in steps:
        transaction = store.begin()
        for key, value in step:
            if value is None:
                transaction.delete(PLACE, "thing", key)
                expected.pop(key, None)
            else:
                transaction.put(PLACE, "thing", key, {"value": value})
                expected[key] = {"value": value}
            assert {each["value"] for each in transaction.all(PLACE, "thing")} == {
                each["value"] for each in expected.values()
            }
            assert transaction.get(PLACE, "thing", key) == expected.get(key)
        transaction.commit()
        assert {key: store.begin().get(PLACE, "thing", key) for key in keys(store)} == expected


def test_order_and_content_outlive_a_restart(tmp_path: Path) -> None:
    """Documents come back as they were, in the order in which they were first put, tuples already as lists before."""
    store = Store(tmp_path)
    put(store, "b", "c", "a", pair=(1, "ä"))
    put(store, "b", pair=(2,))
    before = store.begin().all(PLACE, "thing")
    store.close()
    again = Store(tmp_path)
    assert keys(again) == ["b", "c", "a"]
    assert again.begin().all(PLACE, "thing") == before == [{"pair": [2]}, {"pair": [1, "ä"]}, {"pair": [1, "ä"]}]
    again.close()


def test_events_come_by_time_then_in_the_order_they_were_planned() -> None:
    """And none before its time."""
    store = Store()
    transaction = store.begin()
    for name, seconds in (("late", 3), ("first", 1), ("second", 1)):
        transaction.plan(NOW + timedelta(seconds=seconds), PLACE, name, {"n": name})
    transaction.commit()
    seen = []
    while (event := store.first_due(NOW + timedelta(seconds=2))) is not None:
        seen.append((event.event, event.at - NOW, event.payload))
        done = store.begin()
        done.happened(event)
        done.commit()
    assert seen == [("first", timedelta(seconds=1), {"n": "first"}), ("second", timedelta(seconds=1), {"n": "second"})]
    assert store.next_due() == NOW + timedelta(seconds=3)


def test_time_stands_still_while_the_store_is_closed(tmp_path: Path) -> None:
    """What was due meanwhile is due now, the rest as much later; work that was away is due again."""
    store = Store(tmp_path)
    transaction = store.begin()
    for seconds in (10, 25):
        transaction.plan(NOW + timedelta(seconds=seconds), PLACE, f"in-{seconds}", {})
    transaction.plan(NOW, PLACE, "away", {})
    transaction.commit()
    event = store.first_due(NOW)
    assert event is not None
    leaving = store.begin()
    leaving.happened(event, away=True)
    leaving.commit()
    assert store.first_due(NOW) is None
    store.close()
    later = NOW + timedelta(days=3)
    again = Store(tmp_path)
    again.take_up_again(later)
    events = []
    for _ in range(3):
        due = again.first_due(later + timedelta(days=1))
        assert due is not None
        events.append((due.event, due.at - later))
        done = again.begin()
        done.happened(due)
        done.commit()
    assert events == [("in-10", timedelta()), ("away", timedelta()), ("in-25", timedelta(seconds=15))]
    again.close()


def test_blobs_are_kept_once_and_while_a_document_names_them(tmp_path: Path) -> None:
    """The same content is one file; at the next start, what nobody names is swept away."""
    store = Store(tmp_path)
    kept, other = store.blobs.put(b"kept"), store.blobs.put(b"other")
    assert store.blobs.put(b"kept") == kept
    assert len(list((tmp_path / "blobs").iterdir())) == 2
    put(store, "disk", blocks=[kept])
    store.close()
    again = Store(tmp_path)
    assert again.blobs.get(kept) == b"kept"
    with pytest.raises(KeyError):
        again.blobs.get(other)
    again.close()


def test_a_store_has_one_owner(tmp_path: Path) -> None:
    """A second one is refused, and says what to do."""
    store = Store(tmp_path)
    with pytest.raises(StoreUnusable, match="in use") as refused:
        Store(tmp_path)
    assert "sandbox stop" in str(refused.value.hint)
    store.close()
    Store(tmp_path).close()


def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    """Neither overwritten nor read."""
    (tmp_path / "account.db").write_bytes(b"a letter to my aunt" * 100)
    with pytest.raises(StoreUnusable, match="no store"):
        Store(tmp_path)


def test_a_newer_store_is_refused(tmp_path: Path) -> None:
    """Its documents may mean something else."""
    store = Store(tmp_path)
    store._database.execute("PRAGMA user_version = 99")
    store.close()
    with pytest.raises(StoreUnusable, match="newer"):
        Store(tmp_path)


@pytest.mark.slow
def test_a_killed_process_leaves_whole_transactions(tmp_path: Path) -> None:
    """SIGKILL at any moment: both documents of each transaction are there, or neither."""
    writer = (
        "import itertools, sys; from pathlib import Path; from osvdeploy.sandbox.store import Store\n"
        "store = Store(Path(sys.argv[1]))\n"
        "for number in itertools.count():\n"
        "    turn = store.begin()\n"
        "    turn.put('p', 'left', str(number), {}); turn.put('p', 'right', str(number), {})\n"
        "    turn.commit(); print(number, flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", writer, str(tmp_path)], stdout=subprocess.PIPE, env={**os.environ}, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= 50:
            break
    process.kill()
    process.wait()
    process.stdout.close()
    store = Store(tmp_path)
    kinds = store.kinds()
    assert kinds["p", "left"] == kinds["p", "right"]
    assert len(kinds["p", "left"]) > 50
    store.close()
