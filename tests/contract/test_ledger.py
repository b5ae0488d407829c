"""What the ledger promises, whichever object store it lies in."""

from __future__ import annotations

import threading

import pytest

from osvdeploy.cloud.interfaces import ObjectStore, Slot
from osvdeploy.context import Context
from osvdeploy.rollout.ledger import HeadTaken, Hold, Ledger, Served, SlotRecord
from tests.rollout.made import NOW, release
from tests.rollout.test_ledger import head

CTX = Context()


@pytest.fixture
def ledger(store: ObjectStore) -> Ledger:
    return Ledger(store, "hello", "production")


def test_the_newest_head_is_found_first(ledger: Ledger) -> None:
    """Whatever was written before, head() is the highest number and heads() counts down."""
    assert ledger.head(CTX) is None
    for n in (1, 2, 9, 10, 11):
        ledger.write(CTX, head(n))
    newest = ledger.head(CTX)
    assert newest is not None and newest.n == 11
    assert [past.n for past in ledger.heads(CTX)] == [11, 10, 9, 2, 1]


def test_a_number_is_one_writers(ledger: Ledger) -> None:
    """The second writer of a number, or of a lower one, is told who was first; the very same head again is no loss."""
    full = head(
        2,
        slots={Slot.BLUE: SlotRecord(release("1.0.0").id, "osvd-x-1", NOW, warm_until=NOW)},
        serving=Slot.BLUE,
        holds=(Hold(None, "a freeze", "somebody", NOW),),
        served=(Served(release("1.0.0").id, NOW),),
    )
    ledger.write(CTX, full)
    ledger.write(CTX, full)
    for n in (2, 1):
        with pytest.raises(HeadTaken) as taken:
            ledger.write(CTX, head(n, nonce="late"))
        assert taken.value.winner == full
    assert ledger.head(CTX) == full


def test_of_writers_at_once_none_is_lost(ledger: Ledger) -> None:
    """Each of twelve that write the next head until it is theirs gets a number of its own."""
    got: dict[str, int] = {}

    def write(nonce: str) -> None:
        n = 1
        while True:
            try:
                ledger.write(CTX, head(n, nonce=nonce))
            except HeadTaken as taken:
                n = taken.winner.n + 1
            else:
                got[nonce] = n
                return

    threads = [threading.Thread(target=write, args=(f"writer-{number}",)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(got.values())) == 12
    written = {past.n: past.nonce for past in ledger.heads(CTX)}
    assert {nonce: written[n] for nonce, n in got.items()} == {nonce: nonce for nonce in got}
    # A document that came late lies there, and its writer was told that it lost.
    assert max(written) == max(got.values())


def test_a_release_is_kept(ledger: Ledger) -> None:
    """The same release twice is one document, and reads back as it was."""
    for version in ("1.0.0", "1.0.0", "1.1.0"):
        ledger.put_release(CTX, release(version))
    assert ledger.release(CTX, release("1.1.0").id) == release("1.1.0")
    assert [each.version for each in ledger.releases(CTX)] == ["1.0.0", "1.1.0"]
    assert len(list(ledger.store.keys(CTX, ""))) == 2
