"""What people are shown of a rollout under way, by who works on it and by who only looks."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from osvdeploy import api
from osvdeploy.api import watching
from osvdeploy.cloud.interfaces import Slot
from osvdeploy.events import GateJudged, Note, RolloutSeen, SlotSeen, Waiting, Warned
from osvdeploy.rollout.model import Limits, Pause, RequestKind, Stage, Tally
from osvdeploy.rollout.releases import TrafficStep
from osvdeploy.rollout.shown import deadline, purpose, rollout_seen, slots_seen
from tests.report.recorded import Kept, waiting
from tests.rollout.made import NOW, after, run, seen, targets
from tests.rollout.test_control import CANARY, serving

pytestmark = pytest.mark.whole


def test_each_look_is_told_with_what_it_saw() -> None:
    """Both slots with their shares, the candidate's machines, and when the bake ends."""
    service = serving(CANARY)
    service.deploy("1.1.0")
    old, new = service.id("1.0.0"), service.id("1.1.0")
    looks = [event for event in service.recorder.events if isinstance(event, RolloutSeen) and new in event.what]
    half = next(look for look in looks if look.way[-1] == "bake" and look.share == 1)
    assert half.slots == (SlotSeen(Slot.BLUE, old, 50), SlotSeen(Slot.GREEN, new, 50, 2, 2))
    assert half.shares == (5, 50, 100) and half.until == half.entered + timedelta(seconds=CANARY.steps[1].bake)
    assert half.way == ("prepare", "boot", "verify", "shift", "bake", "shift", "bake")
    assert [gate.gate for gate in half.gates] == ["healthy targets", "preview probe", "traffic"]
    waits = [event for event in service.recorder.events if isinstance(event, Waiting)]
    assert any(event.what == "the end of 5m of baking" and event.until == half.until for event in waits)


def test_limits_are_told_from_when_this_process_began() -> None:
    """A bake ends by the ledger's clock; what is given up is by this process'. One that is over is not told."""
    limits = Limits()
    booting = run(stage=Stage.BOOT, tally=Tally(since=after(100)))
    assert deadline(booting, limits, after(101)) == after(100 + booting.settings.health.boot_timeout)
    baking = run(stage=Stage.BAKE, steps=(TrafficStep(5, 120.0), TrafficStep(100)), tally=Tally(since=after(100)))
    assert deadline(baking, limits, after(101)) == after(120)
    assert deadline(baking, limits, after(121)) is None
    assert deadline(replace(baking, paused=Pause("ann@desk", NOW, "lunch")), limits, after(101)) is None
    assert deadline(run(stage=Stage.DONE), limits, NOW) is None


def test_every_stage_has_a_purpose_and_a_view() -> None:
    """Also for who has not looked at the cloud."""
    for stage in Stage:
        made = run(stage=stage)
        assert purpose(made, NOW) or stage is Stage.DONE
        view = rollout_seen(made, slots_seen(made, seen(weights=None)), Limits(), NOW)
        assert view.way == (stage,) and [slot.weight for slot in view.slots] == [None, None]
    made = run(stage=Stage.SHIFT)
    assert slots_seen(made, seen(targets=targets(1, 1)))[1].healthy == 1


def test_who_only_watches_hears_the_same_from_the_ledger(tmp_path: Path) -> None:
    """Each gate, stage and request, however much happens between two looks, until the rollout is over."""
    service = waiting(tmp_path)
    service.recorder.events.clear()
    service.then(5, lambda: service.manager().request(service.context(), RequestKind.APPROVE, "looks good"))
    found = api.watch(service.context(), service.named, look=False)
    assert found.head.run is not None and found.head.run.over
    told = [event.text for event in service.recorder.events if isinstance(event, Note)]
    assert told[0].startswith(f"deploy of {service.id('1.1.0')}, begun by ") and told[0].endswith("in stage shift")
    assert any("asked: approve" in text or ": approve (looks good)" in text for text in told)
    assert any(text.startswith("gate traffic passed: ") for text in told)
    assert any(text.startswith("stage bake: ") for text in told)
    assert told.index(next(each for each in told if "serves instead of" in each)) < told.index(
        next(each for each in told if each.endswith(": succeeded"))
    )
    assert any(
        isinstance(event, Waiting) and event.what.startswith("approval before") for event in service.recorder.events
    )


def test_who_watches_a_service_at_rest_waits_for_its_next_rollout(tmp_path: Path) -> None:
    """And says meanwhile what serves."""
    service = Kept(tmp_path)
    service.recorder.events.clear()
    service.then(60, lambda: service.deploy("1.1.0"))
    found = api.watch(service.context(), service.named, look=False)
    assert found.head.stable is not None and found.head.stable.release == service.id("1.1.0")
    first = next(event for event in service.recorder.events if isinstance(event, Waiting))
    assert (first.what, first.seen) == ("a rollout to begin", f"{service.id('1.0.0')} serves")


def test_the_cloud_is_asked_often_at_first_and_then_less_often() -> None:
    """Every two seconds in a stage's first minute, every ten after it; a new stage begins anew."""
    looks, asked = watching._Looks(), []
    for second in range(0, 200, 2):
        if looks.due(float(second)):
            asked.append(second)
        looks.at_stage("boot" if second < 120 else "bake", float(second))
    assert asked[:30] == list(range(0, 60, 2))
    assert [second for second in asked if 60 <= second < 120] == list(range(68, 120, 10))
    assert [second for second in asked if 122 <= second < 140] == list(range(122, 140, 2))


def test_that_nobody_is_at_work_is_told_once(tmp_path: Path) -> None:
    """With the command that goes on."""
    service = Kept(tmp_path)
    service.when(lambda: service.weights().get(Slot.GREEN) == 50, lambda: 1 / 0)
    try:
        service.deploy("1.1.0")
    except ZeroDivisionError:
        pass
    service.recorder.events.clear()
    service.then(300, lambda: service.manager().recover(service.context()))
    found = api.watch(service.context(), service.named, look=False)
    assert found.head.run is not None and found.head.run.over
    (warned,) = [event for event in service.recorder.events if isinstance(event, Warned)]
    assert "nobody is at work" in warned.text and "osvdeploy recover hello/production" in (warned.hint or "")
    assert not [event for event in service.recorder.events if isinstance(event, GateJudged) and event.passed is False]
