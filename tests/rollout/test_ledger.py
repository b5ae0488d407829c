"""The ledger: numbered documents that are never overwritten."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from osvdeploy.cloud.interfaces import Scaling, Slot
from osvdeploy.cloud.local.store import DirectoryStore
from osvdeploy.context import Context, VirtualClock
from osvdeploy.errors import LedgerError, LedgerTooNew
from osvdeploy.rollout import lease
from osvdeploy.rollout.ledger import Head, HeadTaken, Hold, Ledger, Served, SlotRecord
from osvdeploy.rollout.model import Evidence, GateRecord, Outcome, Stage
from tests.rollout.made import NOW, SETTINGS, release, run


@pytest.fixture
def ctx() -> Context:
    return Context(clock=VirtualClock(NOW))


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(DirectoryStore(tmp_path), "hello", "production")


def head(n: int = 1, **changes: object) -> Head:
    made = Head(service="hello/production", n=n, epoch=1, nonce=f"nonce-{n}", written=NOW, why="a test")
    return replace(made, **changes)  # type: ignore[arg-type]  # the caller names fields of Head


def test_the_newest_head_is_found_first(ledger: Ledger, ctx: Context) -> None:
    """Whatever was written before, head() is the highest number and heads() counts down."""
    assert ledger.head(ctx) is None
    for n in (1, 2, 3, 10, 11):
        ledger.write(ctx, head(n))
    newest = ledger.head(ctx)
    assert newest is not None and newest.n == 11
    assert [past.n for past in ledger.heads(ctx)] == [11, 10, 3, 2, 1]


def test_a_head_reads_back_as_it_was_written(ledger: Ledger, ctx: Context) -> None:
    """Every field survives, the run and its records included."""
    full = head(
        run=run(
            stage=Stage.DONE,
            verdict=Outcome.ROLLED_BACK,
            gates=(GateRecord("preview probe", False, NOW, "500", Stage.VERIFY),),
            evidence=(Evidence("console of i-1", "Aborted\n[backtrace]\n\x07é"),),
            scaling=Scaling(1, 3, 6, ("policy cpu",), rules='{"policies":{"cpu":{"TargetValue":60.5}}}'),
            scaled=True,
        ),
        slots={Slot.BLUE: SlotRecord(release("1.0.0").id, "osvd-x-1", NOW, warm_until=NOW)},
        serving=Slot.BLUE,
        holds=(Hold(None, "a freeze", "somebody", NOW),),
        served=(Served(release("1.0.0").id, NOW),),
    )
    ledger.write(ctx, full)
    assert ledger.head(ctx) == full


def test_a_document_from_before_runs_knew_of_scaling_is_read(ledger: Ledger, ctx: Context, tmp_path: Path) -> None:
    """As one of a service that nothing scales."""
    ledger.write(ctx, head(run=run()))
    [path] = (tmp_path / "hello/production/head").glob("*.json")
    document = json.loads(path.read_text())
    for field in ("scaling", "scaled"):
        del document["head"]["run"][field]
    path.write_text(json.dumps(document))
    found = ledger.head(ctx)
    assert found is not None and found.run is not None
    assert found.run.scaling is None and not found.run.scaled


def test_a_number_is_written_once(ledger: Ledger, ctx: Context) -> None:
    """The second writer of a number is told who was first; writing the very same head again is no loss."""
    ledger.write(ctx, head(1))
    ledger.write(ctx, head(1))
    with pytest.raises(HeadTaken) as taken:
        ledger.write(ctx, head(1, nonce="another"))
    assert taken.value.winner.nonce == "nonce-1"


def test_a_number_below_the_newest_is_lost_even_where_its_key_is_free(ledger: Ledger, ctx: Context) -> None:
    """A writer that slept while old heads were removed does not win by their absence."""
    ledger.write(ctx, head(5))
    with pytest.raises(HeadTaken):
        ledger.write(ctx, head(4, nonce="late"))


def test_a_newer_schema_is_refused(ledger: Ledger, ctx: Context, tmp_path: Path) -> None:
    """A document of a newer osvdeploy stops this one, with the way out."""
    ledger.write(ctx, head(1))
    path = next((tmp_path / "hello/production/head").iterdir())
    path.write_text(json.dumps({"schema": 2, "osvdeploy": "9.0", "head": {"other": "fields"}}))
    with pytest.raises(LedgerTooNew, match=r"written by osvdeploy 9\.0") as refused:
        ledger.head(ctx)
    assert refused.value.hint is not None and "update osvdeploy" in refused.value.hint


@settings(max_examples=60, deadline=None)
@given(st.one_of(st.binary(max_size=60), st.just(b'{"schema": 1, "head": {"n": "x"}}'), st.just(b'{"schema":1}')))
def test_a_damaged_document_is_named(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """No content of a head makes anything but a LedgerError that names the key."""
    root = tmp_path_factory.mktemp("ledger")
    folder = root / "hello/production/head"
    folder.mkdir(parents=True)
    (folder / "999999999998.json").write_bytes(content)
    with pytest.raises(LedgerError, match=r"999999999998\.json"):
        Ledger(DirectoryStore(root), "hello", "production").head(Context(clock=VirtualClock(NOW)))


def test_a_release_is_kept_once_and_again_with_other_settings(ledger: Ledger, ctx: Context) -> None:
    """The same deploy twice is one document; changed settings are a further revision, and the latest counts."""
    first = release("1.0.0")
    larger = replace(first, settings=replace(SETTINGS, capacity=7))
    for each in (first, first, larger, larger, release("1.0.1")):
        ledger.put_release(ctx, each)
    found = ledger.release(ctx, first.id)
    assert found is not None and found.settings.capacity == 7
    assert [each.version for each in ledger.releases(ctx)] == ["1.0.0", "1.0.1"]
    assert len(list(ledger.store.keys(ctx, "hello/production/releases/"))) == 3


def test_heads_come_in_order_however_many_are_read_at_once(ctx: Context, ledger: Ledger) -> None:
    """Newest first, each once."""
    for n in range(1, 43):
        ledger.write(ctx, head(n))
    numbers = [head.n for head in ledger.heads(ctx)]
    assert numbers == list(range(42, 0, -1))
    for width in (2, 16):
        assert [head.n for head in ledger.heads(ctx, width=width)] == numbers
    assert [head.n for head in ledger.since(ctx, 40)] == [39, 40, 41, 42]


def test_what_is_no_text_is_written_as_what_it_was(ledger: Ledger, ctx: Context) -> None:
    """A reason that was typed in another encoding, or a console's bytes: the document can be read again."""
    with lease.held(ctx, ledger, "why") as held:
        held.save(ctx, "broken \udce9 word")
    whys = [head.why for head in ledger.heads(ctx)]
    assert "broken \\udce9 word" in whys
