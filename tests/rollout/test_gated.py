"""Metric gates in a rollout: they fail it, pause it, pass it or only tell, whoever's process is at work."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from osvdeploy.cloud.interfaces import CloudWatchMetric, CommandMetric, PrometheusMetric, Statistic
from osvdeploy.cloud.memory import Call, Moment
from osvdeploy.errors import Interrupted, Refused, Unavailable, UsageError
from osvdeploy.events import GateJudged, StageEntered, Warned
from osvdeploy.rollout.gates import Bound, Compared, Gate, GateStage, NoData, Verdict
from osvdeploy.rollout.logbook import EntryKind, entries
from osvdeploy.rollout.model import GateRecord, Outcome, Request, RequestKind, Run, Stage
from osvdeploy.rollout.releases import OnFailure, Strategy, StrategyKind, TrafficStep
from tests.rollout.made import SETTINGS
from tests.rollout.service import Service

pytestmark = pytest.mark.slow

ERRORS = CloudWatchMetric("Errors", "Requests", Statistic.SUM)
BOTH = (GateStage.STEP, GateStage.BAKE)
GATE = Gate("errors", ERRORS, (Bound(0.01),), BOTH, interval=60.0, delay=120.0)
AGAINST = replace(GATE, name="against", bounds=(Bound(2.0, compared=Compared.RATIO),), on=(GateStage.STEP,))
DEPTH = Gate("depth", CommandMetric(("depth",)), (Bound(10.0),), BOTH, interval=30.0, delay=0.0)


def serving(service: Service) -> set[str]:
    return {str(each) for each in service.cloud.serving}


def gated(service: Service) -> Service:
    """The same with a first release that is in."""
    for release in ("1.0.0", "2.0.0"):
        service.cloud.metrics.tell(service.id(release), "Errors", lambda at: (0, 1000))
        service.cloud.metrics.tell(service.id(release), "depth", lambda at: 1.0)
    return service


def deployed(*gates: Gate, **changes: Any) -> Service:
    """A service with these gates whose first release serves."""
    strategy = changes.pop("strategy", None) or replace(SETTINGS.strategy, bake=300.0, **changes)
    made = gated(Service(gates=gates, strategy=strategy))
    assert made.deploy("1.0.0").outcome is Outcome.SUCCEEDED
    made.recorder.events.clear()
    return made


def tells(service: Service, told: Callable[[datetime], Any], metric: str = "Errors", version: str = "2.0.0") -> None:
    service.cloud.metrics.tell(service.id(version), metric, told)


def baked(run: Run | None) -> float:
    assert run is not None
    (record,) = [each for each in run.stages if each.stage is Stage.BAKE]
    return (record.left - record.entered).total_seconds()


def records(run: Run | None, gate: str = "errors") -> list[tuple[bool, Verdict | None]]:
    assert run is not None
    return [(each.passed, each.verdict) for each in run.gates if each.gate == gate]


def test_a_release_within_its_bounds_serves() -> None:
    """Its bake is as long as was declared, and until its last minute can be read."""
    here = deployed(GATE)
    ended = here.deploy("2.0.0")
    assert (ended.outcome, serving(here)) == (Outcome.SUCCEEDED, {here.id("2.0.0")})
    assert records(ended.run) == [(True, Verdict.PASSED)]
    assert 300 <= baked(ended.run) <= 300 + GATE.delay + 10
    assert ended.run is not None
    (record,) = [each for each in ended.run.gates if each.gate == "errors"]
    assert 4 <= len(record.samples) <= 5
    assert record.seen.startswith(f"0 of {len(record.samples)},000, 0; max 0.01")


def test_a_release_that_errs_goes_back_as_soon_as_that_is_proven() -> None:
    """After its first minute that is published; what decided is in the ledger."""
    here = deployed(GATE)
    tells(here, lambda at: (80, 1000))
    ended = here.deploy("2.0.0")
    assert (ended.outcome, serving(here)) == (Outcome.ROLLED_BACK, {here.id("1.0.0")})
    assert baked(ended.run) < 60 + 60 + GATE.delay + 10
    (record,) = [each for each in here.head.run.gates if not each.passed]  # type: ignore[union-attr]  # there is one
    assert (record.gate, record.verdict, record.stage) == ("errors", Verdict.FAILED, Stage.BAKE)
    assert [(each.value, each.of) for each in record.samples] == [(80.0, 1000.0)]
    assert "gate errors: 80 of 1,000, 0.08; max 0.01" in ended.told


def test_without_a_gate_nobody_sees_it() -> None:
    here = deployed()
    tells(here, lambda at: (800, 1000))
    assert here.deploy("2.0.0").outcome is Outcome.SUCCEEDED


def test_a_gate_is_read_once_in_an_interval() -> None:
    """And not at every look."""
    here = deployed(GATE, DEPTH)
    before = len(here.cloud.calls)
    here.deploy("2.0.0")
    reads = [call.arguments[0] for call in here.cloud.calls[before:] if call.operation == "metrics.read"]
    assert 4 <= reads.count("Errors") <= 6
    assert 9 <= reads.count("depth") <= 11


def test_how_it_stands_is_told_whenever_something_was_read() -> None:
    here = deployed(GATE)
    here.deploy("2.0.0")
    told = [event for event in here.recorder.events if isinstance(event, GateJudged) and event.gate == "errors"]
    assert [event.passed for event in told] == [None] * (len(told) - 1) + [True]
    assert [event.seen.partition(",")[0] for event in told[:3]] == ["0 of 1", "0 of 2", "0 of 3"]


@pytest.mark.parametrize(
    ("no_data", "outcome"),
    [
        (NoData.FAIL, Outcome.ROLLED_BACK),
        (NoData.PASS, Outcome.SUCCEEDED),
        (NoData.INCONCLUSIVE, Outcome.WAITING),
    ],
)
def test_a_release_without_data_is_what_was_declared(no_data: NoData, outcome: Outcome) -> None:
    here = deployed(replace(GATE, no_data=no_data))
    tells(here, lambda at: None)
    ended = here.deploy("2.0.0")
    assert ended.outcome is outcome
    (record,) = [each for each in here.head.run.gates if each.gate == "errors"]  # type: ignore[union-attr]  # there is
    assert f"0 of 3 samples; no-data = {no_data}" in record.seen


def test_samples_that_are_late_are_waited_for() -> None:
    """A minute at least, beyond the delay."""
    here = deployed(GATE)
    tells(here, lambda at: (0, 10) if here.clock.now() >= at + timedelta(seconds=60 + 120 + 45) else None)
    assert here.deploy("2.0.0").outcome is Outcome.SUCCEEDED


def failing(here: Service, error: Exception, times: int = 10**6) -> None:
    """Let the metrics' source fail so often."""
    left = [times]

    def asked(call: Call, moment: Moment) -> None:
        if call.operation == "metrics.read" and moment is Moment.BEFORE and left[0] > 0:
            left[0] -= 1
            raise error

    here.cloud.on_call(asked)


@pytest.mark.parametrize("error", [Unavailable("no answer"), Refused("not allowed")])
def test_a_source_that_is_down_is_no_data_at_the_end(error: Exception) -> None:
    """And stops nothing before it; its words are told once, and on record."""
    here = deployed(GATE)
    failing(here, error)
    ended = here.deploy("2.0.0")
    assert (ended.outcome, serving(here)) == (Outcome.ROLLED_BACK, {here.id("1.0.0")})
    assert f"0 of 3 samples: {error}; no-data = fail" in ended.told
    warned = [event for event in here.recorder.events if isinstance(event, Warned)]
    assert [str(error) in event.text for event in warned] == [True]


def test_a_source_that_refuses_is_told_before_anything_is_uploaded() -> None:
    """Where that would fail the deploy after its bake; one that only does not answer may do so by then."""
    here = deployed(GATE)
    failing(here, Refused("not allowed"))
    with pytest.raises(Refused, match="not allowed") as raised:
        here.manager().preflight(here.context(), here.release("2.0.0"))
    assert raised.value.hint
    failing(here, Unavailable("no answer"))
    here.manager().preflight(here.context(), here.release("2.0.0"))
    assert "cannot be read now: no answer" in str(here.recorder.events[-1])
    failing(here, Refused("not allowed"))
    for gate in (replace(GATE, dry_run=True), replace(GATE, no_data=NoData.PASS), DEPTH):
        here.settings = replace(here.settings, gates=(gate,))
        here.manager().preflight(here.context(), here.release("2.0.0"))


def test_a_source_that_comes_back_is_read_for_all_that_was() -> None:
    here = deployed(GATE)
    failing(here, Unavailable("no answer"), times=5)
    ended = here.deploy("2.0.0")
    assert records(ended.run) == [(True, Verdict.PASSED)]


def test_a_rollback_asks_no_metrics() -> None:
    """Whatever they would say, and whether they answer."""
    here = deployed(GATE)
    here.deploy("2.0.0")
    tells(here, lambda at: (900, 1000), version="1.0.0")
    failing(here, Refused("down"))
    before = len(here.cloud.calls)
    assert here.rollback().outcome is Outcome.SUCCEEDED
    assert "metrics.read" not in {call.operation for call in here.cloud.calls[before:]}


def test_a_dry_run_decides_nothing_and_is_on_record() -> None:
    """Nor does it make a bake longer."""
    here = deployed(replace(GATE, dry_run=True, delay=1000.0), replace(DEPTH, dry_run=True))
    tells(here, lambda at: 99.0, "depth")
    ended = here.deploy("2.0.0")
    assert ended.outcome is Outcome.SUCCEEDED
    assert baked(ended.run) <= 310
    assert records(ended.run, "depth") == [(False, Verdict.FAILED)]
    assert records(ended.run) == [(False, Verdict.UNDECIDED)]
    told = [event.gate for event in here.recorder.events if isinstance(event, GateJudged) and event.passed is False]
    assert told == ["errors (dry run)", "depth (dry run)"]


# ---------------------------------------------------------------------------------------------------- ended otherwise

LONG = replace(SETTINGS.strategy, bake=900.0)


def unfinished(run: Run | None, gate: str = "errors") -> GateRecord:
    assert run is not None
    (record,) = [each for each in run.gates if each.gate == gate]
    return record


def asked_to_end(here: Service, readings: int) -> None:
    """Somebody asks for the end of the rollout once its gates were read so often."""
    read = 0

    def asks(call: Call, moment: Moment) -> None:
        nonlocal read
        read += call.operation == "metrics.read" and moment is Moment.AFTER
        run = here.head.unfinished if read == readings and call.operation == "metrics.read" else None
        if run is not None and moment is Moment.AFTER:
            here.ledger.ask(here.context(), run.id, Request(RequestKind.ABORT, "ann@desk", here.clock.now(), 0))

    here.cloud.on_call(asks)


def test_what_was_counted_stays_on_record_where_health_ends_the_bake() -> None:
    """It was not decided, and that is what is told, by the command and by events."""
    here = deployed(GATE, replace(DEPTH, dry_run=True), strategy=LONG)
    tells(here, lambda at: (1, 1000))
    here.cloud.behave(here.id("2.0.0"), sick_after=500.0)
    ended = here.deploy("2.0.0")
    assert ended.outcome is Outcome.ROLLED_BACK
    record = unfinished(ended.run)
    assert (record.stage, record.passed, record.verdict) == (Stage.BAKE, False, Verdict.UNDECIDED)
    assert len(record.samples) >= 3 and record.seen.startswith("undecided: ")
    assert len(unfinished(ended.run, "depth").samples) >= 10 and unfinished(ended.run, "depth").dry_run
    judged = [event for event in here.recorder.events if isinstance(event, GateJudged) and event.gate == "errors"]
    assert {event.passed for event in judged} == {None}
    told = [each.told for each in entries(here.ledger.since(here.context(), 1)) if each.kind is EntryKind.GATE]
    assert f"errors {record.seen}" in told


def test_what_was_counted_stays_on_record_where_somebody_ends_the_rollout() -> None:
    """And the way back asks no metrics: nothing is read once that was said."""
    here = deployed(GATE, AGAINST, strategy=replace(CANARY, steps=(TrafficStep(10, 900.0), TrafficStep(100))))
    asked_to_end(here, 9)
    before = len(here.cloud.calls)
    ended = here.deploy("2.0.0")
    assert ended.outcome is Outcome.ABORTED
    for gate in ("errors", "against"):
        assert unfinished(ended.run, gate).verdict is Verdict.UNDECIDED and unfinished(ended.run, gate).samples
    against = unfinished(ended.run, "against")
    assert [each.at for each in against.stable] == [each.at for each in against.samples]
    assert [call.operation for call in here.cloud.calls[before:]].count("metrics.read") == 9


def test_a_gate_that_fails_leaves_what_others_had_counted() -> None:
    """The one that decided comes last."""
    here = deployed(GATE, DEPTH)
    tells(here, lambda at: (80, 1000))
    ended = here.deploy("2.0.0")
    assert ended.outcome is Outcome.ROLLED_BACK and ended.run is not None
    measured = [(each.gate, each.verdict) for each in ended.run.gates if each.verdict is not None]
    assert measured == [("depth", Verdict.UNDECIDED), ("errors", Verdict.FAILED)]
    assert unfinished(ended.run, "depth").samples


def test_of_a_process_that_died_what_nobody_can_ask_for_again_is_on_record() -> None:
    """What a command printed. A source that remembers is not asked once more on the way back."""
    here = deployed(GATE, DEPTH, strategy=LONG)
    crash_in_bake(here, 400.0)
    here.clock.advance(60)
    before = len(here.cloud.calls)
    asked = here.manager().request(here.context(), RequestKind.ABORT)
    assert asked.rollout is not None and asked.rollout.outcome is Outcome.ABORTED
    assert len(unfinished(asked.rollout.run, "depth").samples) >= 10
    assert records(asked.rollout.run) == []
    assert "metrics.read" not in {call.operation for call in here.cloud.calls[before:]}


def test_what_was_measured_in_no_bake_is_not_on_record() -> None:
    """A release that fails before any sample has none."""
    here = deployed(GATE, strategy=LONG)
    here.cloud.behave(here.id("2.0.0"), sick_after=30.0)
    ended = here.deploy("2.0.0")
    assert ended.outcome is Outcome.ROLLED_BACK and records(ended.run) == []


# ------------------------------------------------------------------------------------------------------------ pausing


def unclear(here: Service) -> None:
    """A few errors of a few requests."""
    tells(here, lambda at: (1 if at.minute % 3 == 0 else 0, 20))


def test_what_may_be_chance_pauses_and_a_person_decides() -> None:
    here = deployed(GATE)
    unclear(here)
    ended = here.deploy("2.0.0")
    assert (ended.outcome, serving(here)) == (Outcome.WAITING, {here.id("2.0.0")})
    assert "gate errors is inconclusive" in ended.told
    assert records(here.head.run) == [(False, Verdict.INCONCLUSIVE)]
    asked = here.manager().request(here.context(), RequestKind.PROMOTE)
    assert asked.rollout is not None
    assert asked.rollout.outcome is Outcome.SUCCEEDED


def test_resuming_measures_another_bake() -> None:
    """By what is counted from then on."""
    here = deployed(GATE)
    unclear(here)
    assert here.deploy("2.0.0").outcome is Outcome.WAITING
    paused = here.clock.now()
    tells(here, lambda at: (0, 1000) if at >= paused else (1, 2))
    asked = here.manager().request(here.context(), RequestKind.RESUME)
    assert asked.rollout is not None
    assert asked.rollout.outcome is Outcome.SUCCEEDED
    assert records(asked.rollout.run) == [(False, Verdict.INCONCLUSIVE), (True, Verdict.PASSED)]
    assert (here.clock.now() - paused).total_seconds() >= 300


def test_an_abort_of_what_waits_goes_back() -> None:
    here = deployed(GATE)
    unclear(here)
    here.deploy("2.0.0")
    asked = here.manager().request(here.context(), RequestKind.ABORT)
    assert asked.rollout is not None
    assert (asked.rollout.outcome, serving(here)) == (Outcome.ABORTED, {here.id("1.0.0")})
    assert records(asked.rollout.run) == [(False, Verdict.INCONCLUSIVE)], "once"


def test_a_failed_gate_asks_where_that_was_declared() -> None:
    """``on-failure = "pause"``: once, and resuming has it judged anew."""
    here = deployed(GATE, on_failure=OnFailure.PAUSE)
    tells(here, lambda at: (80, 1000))
    ended = here.deploy("2.0.0")
    assert ended.outcome is Outcome.WAITING
    assert records(here.head.run) == [(False, Verdict.FAILED)]
    now = here.clock.now()
    tells(here, lambda at: (0, 1000) if at >= now else (80, 1000))
    asked = here.manager().request(here.context(), RequestKind.RESUME)
    assert asked.rollout is not None
    assert asked.rollout.outcome is Outcome.SUCCEEDED


# ------------------------------------------------------------------------------------------------------------ canaries


CANARY = Strategy(StrategyKind.CANARY, (TrafficStep(10, 180.0), TrafficStep(100)), 180.0, 3600.0)


def test_a_step_is_compared_with_stable_over_the_same_time() -> None:
    """Four times the errors of stable: back, before it has more than its share."""
    here = deployed(AGAINST, strategy=CANARY)
    tells(here, lambda at: (20, 1000), version="1.0.0")
    tells(here, lambda at: (80, 1000))
    ended = here.deploy("2.0.0")
    assert (ended.outcome, serving(here)) == (Outcome.ROLLED_BACK, {here.id("1.0.0")})
    assert ended.run is not None
    assert ended.run.step == 0
    assert "gate against: 160 of 2,000, 0.08, stable 40 of 2,000, 0.02; max-ratio 2, 2 samples: proven" in ended.told
    (record,) = [each for each in ended.run.gates if each.gate == "against"]
    assert [each.value for each in record.stable] == [20.0, 20.0]


def test_what_errs_as_stable_does_is_let_on() -> None:
    """And in the last bake that gate has nothing to compare with, and is not asked."""
    here = deployed(AGAINST, strategy=CANARY)
    for version in ("1.0.0", "2.0.0"):
        tells(here, lambda at: (80, 1000), version=version)
    ended = here.deploy("2.0.0")
    assert ended.outcome is Outcome.SUCCEEDED
    assert records(ended.run, "against") == [(True, Verdict.PASSED)]


def test_each_bake_is_judged_by_itself() -> None:
    here = deployed(GATE, strategy=CANARY)
    ended = here.deploy("2.0.0")
    assert records(ended.run) == [(True, Verdict.PASSED)] * 2


# ------------------------------------------------------------------------------------------------------------- crashes


def crash_in_bake(here: Service, seconds: float) -> None:
    """Deploy 2.0.0, and let the process die so long after it has begun to bake."""
    here.recorder.events.clear()
    baking: list[datetime] = []

    def asked(call: Call, moment: Moment) -> None:
        if not baking and any(
            isinstance(event, StageEntered) and event.stage == "bake" for event in here.recorder.events
        ):
            baking.append(here.clock.now())
        if baking and (here.clock.now() - baking[0]).total_seconds() >= seconds:
            raise Interrupted("killed")

    here.cloud.on_call(asked)
    with pytest.raises(Interrupted):
        here.deploy("2.0.0")
    here.cloud.on_call(None)


@pytest.mark.parametrize("away", [0.0, 60.0, 3600.0])
def test_the_next_process_reads_all_that_was_counted_once(away: float) -> None:
    """However long nobody was at work: by time, from the source."""
    here = deployed(GATE)
    tells(here, lambda at: (2, 1000))
    crash_in_bake(here, 200.0)
    here.clock.advance(away)
    ended = here.manager().recover(here.context())
    assert ended.outcome is Outcome.SUCCEEDED
    assert ended.run is not None
    (record,) = [each for each in ended.run.gates if each.gate == "errors"]
    times = [each.at for each in record.samples]
    assert len(set(times)) == len(times)
    assert times == sorted(times)
    assert math.isclose((times[-1] - times[0]).total_seconds(), 60.0 * (len(times) - 1))


def test_what_a_command_printed_is_kept_over_a_crash() -> None:
    """No interval counts twice, and none that was measured is lost."""
    here = deployed(DEPTH)
    crash_in_bake(here, 150.0)
    run = here.head.run
    assert run is not None
    before = [each.sample.at for each in run.kept]
    assert 3 <= len(before) == len(set(before))
    ended = here.manager().recover(here.context())
    assert ended.run is not None
    (record,) = [each for each in ended.run.gates if each.gate == "depth"]
    times = [each.at for each in record.samples]
    assert times[: len(before)] == before
    assert len(times) == len(set(times))
    assert ended.run.kept == ()


def test_a_command_that_nobody_was_there_to_run_is_run_later() -> None:
    """The process died at once, and the whole bake is over when the next one comes: it measures before it decides."""
    here = deployed(DEPTH)
    crash_in_bake(here, 0.0)
    here.clock.advance(3600)
    ended = here.manager().recover(here.context())
    assert (ended.outcome, records(ended.run, "depth")) == (Outcome.SUCCEEDED, [(True, Verdict.PASSED)])
    here = deployed(DEPTH)
    tells(here, lambda at: 99.0, "depth")
    crash_in_bake(here, 0.0)
    here.clock.advance(3600)
    assert here.manager().recover(here.context()).outcome is Outcome.ROLLED_BACK


def test_gates_are_read_back_from_the_ledger_as_they_were_declared() -> None:
    """Of every source."""
    prometheus = Gate("p", PrometheusMetric("http://p", "up", None, "TOKEN"), (Bound(1, False),), BOTH, 30.0, 30.0)
    here = deployed(GATE, replace(AGAINST, on=BOTH), DEPTH, replace(prometheus, no_data=NoData.PASS))
    release = here.ledger.release(here.context(), here.id("1.0.0"))
    assert release is not None
    assert release.settings.gates == here.settings.gates


@pytest.mark.parametrize("moment", list(Moment))
def test_a_process_may_die_at_any_reading(moment: Moment) -> None:
    """Before it, or when it was answered: the next process comes to the same verdict, by samples of which each counts
    once."""
    for number in range(6):
        here = deployed(replace(GATE, delay=30.0), DEPTH, strategy=replace(SETTINGS.strategy, bake=90.0))
        tells(here, lambda at: (3, 1000))
        _die_at_reading(here, number, moment)
        ended = here.manager().recover(here.context())
        assert ended.outcome is Outcome.SUCCEEDED
        assert ended.run is not None
        for record in (each for each in ended.run.gates if each.verdict is not None):
            times = [each.at for each in record.samples]
            assert times == sorted(set(times))
            assert len(times) >= 3


def _die_at_reading(here: Service, number: int, moment: Moment) -> None:
    reads = 0

    def asked(call: Call, at: Moment) -> None:
        nonlocal reads
        if call.operation == "metrics.read" and at is moment:
            reads += 1
            if reads > number:
                raise Interrupted("killed")

    here.cloud.on_call(asked)
    with pytest.raises(Interrupted):
        here.deploy("2.0.0")
    here.cloud.on_call(None)


# ------------------------------------------------------------------------------------------- from another machine


def test_whoever_approves_where_a_gate_cannot_be_read_is_told_and_the_release_is_not_failed() -> None:
    """Its program is where the pipeline runs. It would fail for want of data, after its bake."""
    here = deployed(DEPTH)
    here.settings = replace(here.settings, strategy=replace(SETTINGS.strategy, approve=True, bake=60.0))
    assert here.deploy("2.0.0").outcome is Outcome.WAITING
    here.cloud.metrics.missing.add("depth")
    with pytest.raises(UsageError, match="it goes on; but it cannot go on from here: gate depth: depth: there is no"):
        here.manager().request(here.context(), RequestKind.APPROVE)
    with pytest.raises(UsageError, match="gate depth"):
        here.manager().recover(here.context())
    here.cloud.metrics.missing.clear()
    assert here.manager().recover(here.context()).outcome is Outcome.SUCCEEDED


def test_a_deploy_whose_gate_cannot_be_read_from_here_is_refused_before_anything_is_done() -> None:
    """It would have had its traffic, and failed after its bake."""
    here = deployed(DEPTH)
    here.cloud.metrics.missing.add("depth")
    for command in (here.manager().preflight, here.manager().deploy):
        here.publish("2.0.0")
        with pytest.raises(UsageError, match="gate depth: depth: there is no such program on PATH"):
            command(here.context(), here.release("2.0.0"))
    assert here.head.unfinished is None and serving(here) == {here.id("1.0.0")}


def test_a_gate_that_does_not_fail_for_want_of_data_may_be_unreadable_from_here() -> None:
    here = deployed(replace(DEPTH, no_data=NoData.INCONCLUSIVE), replace(DEPTH, name="shadow", dry_run=True))
    here.cloud.metrics.missing.add("depth")
    here.publish("2.0.0")
    here.manager().preflight(here.context(), here.release("2.0.0"))
