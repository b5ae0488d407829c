"""Adopting somebody's group: what comes after, and processes that die at any change of whatever lets it go. Those that
die while it is adopted, and what befalls their calls, are tried as with all others (test_matrix.py)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from osvdeploy.cloud.interfaces import Slot
from osvdeploy.rollout.ends import Rollout
from osvdeploy.rollout.model import Outcome
from osvdeploy.sandbox.core import CrashHook, Moment
from osvdeploy.sandbox.wire import Call
from tests.faults.matrix import Scenario, Site, played
from tests.faults.scenarios import SITES, THEIRS, adopt_first, scaled
from tests.faults.venues import Killed

pytestmark = [pytest.mark.slow, pytest.mark.sandbox]


def _beside(site: Site) -> None:
    """1.0.0 serves beside their group, which scales by itself."""
    adopt_first(site)
    scaled(site)
    for version in ("1.0.0", "1.1.0"):
        site.made(version)
    assert site.deploy("1.0.0").outcome is Outcome.SUCCEEDED
    assert site.suspended(), "it keeps its size while it may be gone back to"


def _cold(site: Site) -> None:
    """And nobody goes back to theirs any more."""
    _beside(site)
    site.world.wait(2 * 3600.0)


_BOTH = frozenset({"0.9.0", "1.0.0", "1.1.0"})
LETTING_GO = [
    Scenario("destroy beside what was adopted", _beside, lambda each: each.destroy(), _BOTH),
    Scenario("deploy that lets go", _beside, lambda each: each.deploy("1.1.0"), _BOTH),
    Scenario("gc that lets go", _cold, lambda each: each.gc(), _BOTH),
]


@pytest.mark.parametrize("kind", SITES)
def test_a_deploy_and_a_rollback_go_beside_what_was_adopted(kind: str, tmp_path: Path) -> None:
    """With nobody noticing; their group is let go by the deploy that needs its slot, and stays."""
    site = SITES[kind](tmp_path)
    adopt_first(site)
    site.made("1.0.0")
    assert site.deploy("1.0.0").outcome is Outcome.SUCCEEDED
    assert site.ask() == site.names["1.0.0"]
    assert site.rollback().outcome is Outcome.SUCCEEDED
    assert site.world.head.slots[Slot.BLUE].group == THEIRS
    for version in ("1.1.0", "1.2.0"):
        site.made(version)
        assert site.deploy(version).outcome is Outcome.SUCCEEDED
    site.destroy()
    site.world.wait(300)
    assert site.ask() == site.names["0.9.0"]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", SITES)
@pytest.mark.parametrize("scenario", LETTING_GO, ids=lambda each: each.name)
def test_a_process_that_dies_at_any_change_is_gone_on_with(kind: str, scenario: Scenario, tmp_path: Path) -> None:
    """Before the change and after it: the same command ends as it would have, and no client noticed."""
    plot = played(SITES[kind](tmp_path), scenario)
    site, world = plot.site, plot.site.world
    assert not plot.left.get("suspended")
    wrong: list[str] = []
    for number, (operation, stage, mutating) in enumerate(plot.calls, 1):
        for after in (False, True) if mutating else ():
            world.put_back(plot.start)
            world.sandbox.hook = _dying(number, after=after)
            with pytest.raises(Killed):
                scenario.command(site)
            world.sandbox.hook = None
            for _ in range(8):
                if site.ask() not in {site.names[version] for version in scenario.answers or ()}:
                    wrong.append(f"killed at {operation} in {stage}: a client got {site.ask()}")
                world.wait(10)
            scenario.command(site)
            left = site.standing()
            wrong += [
                f"killed {'after' if after else 'before'} {operation} in {stage}: {what} is {left.get(what)}"
                for what in plot.left
                if left.get(what) != plot.left[what]
            ]
    assert not wrong, "\n".join(wrong[:20])


def _gone_back_to(site: Site) -> Rollout:
    """Their group, which was let go, with more machines than it has."""
    here = site.place.process(site.limits)
    ended: Rollout = here.manager.rollback(here.ctx, site.adopted())
    return ended


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", SITES)
def test_a_service_that_is_destroyed_amid_a_rollback_leaves_their_group_as_it_was(kind: str, tmp_path: Path) -> None:
    """Whoever dies after any change of it: on Google what scales a group is turned off before it is made larger."""
    site = SITES[kind](tmp_path)
    adopt_first(site)
    scaled(site)
    site.world.settings = replace(site.world.settings, capacity=3)
    for version in ("1.0.0", "1.1.0"):
        site.made(version)
        assert site.deploy(version).outcome is Outcome.SUCCEEDED
    assert not site.suspended()
    world, wrong = site.world, list[str]()
    start, changes = world.kept(), list[tuple[int, str]]()

    def counted(moment: Moment, call: Call) -> None:
        if moment is Moment.BEFORE:
            seen.append(call.operation)
            if call.mutating:
                changes.append((len(seen), call.operation))

    seen: list[str] = []
    world.sandbox.hook = counted
    assert _gone_back_to(site).outcome is Outcome.SUCCEEDED
    for number, operation in changes:
        world.put_back(start)
        world.sandbox.hook = _dying(number, after=True)
        with pytest.raises(Killed):
            _gone_back_to(site)
        world.sandbox.hook = None
        world.wait(90)
        site.destroy()
        world.wait(300)
        if site.suspended() or site.ask() != site.names["0.9.0"]:
            wrong.append(f"killed after {operation}: suspended {site.suspended()}, a client got {site.ask()}")
    assert not wrong, "\n".join(wrong)


def _dying(kill: int, *, after: bool) -> CrashHook:
    """The ``kill``-th call is the last, before or ``after`` it took effect."""
    calls = 0

    def hook(moment: Moment, call: Call) -> None:
        nonlocal calls
        calls += moment is Moment.BEFORE
        if calls > kill or (calls == kill and (moment is Moment.AFTER) == after):
            raise Killed

    return hook
