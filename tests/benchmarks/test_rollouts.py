"""What a rollout costs: calls of each strategy, our own time, how soon traffic follows health, and how little waiting
takes.

The bounds of calls are those of docs/rollouts.md; each is asserted here.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import pytest

from osvdeploy.context import Clock
from osvdeploy.rollout.model import Limits, Outcome
from osvdeploy.rollout.releases import Strategy, StrategyKind, TrafficStep
from osvdeploy.sandbox.core import Moment, Sandbox
from osvdeploy.sandbox.store import DueEvent
from osvdeploy.sandbox.wire import Call
from tests.aws_world import AwsWorld
from tests.faults.matrix import Scenario, befallen, played, sampled, troubles
from tests.faults.scenarios import SCENARIOS, SITES
from tests.gcp_world import GcpWorld
from tests.rollout.service import Service

PAGE = Path(__file__).parents[2] / "docs" / "rollouts.md"
OWN_TIME = 0.3
"""Seconds of our own that a warm rollback may take."""

BLUE_GREEN = Strategy(StrategyKind.BLUE_GREEN, (TrafficStep(100),), 60.0, 3600.0)
CANARY = Strategy(StrategyKind.CANARY, (TrafficStep(5, 60.0), TrafficStep(50, 60.0), TrafficStep(100)), 60.0, 3600.0)
LINEAR = Strategy(
    StrategyKind.LINEAR, (*(TrafficStep(share, 60.0) for share in (20, 40, 60, 80)), TrafficStep(100)), 60.0, 3600.0
)
AT_ONCE = Strategy(StrategyKind.ALL_AT_ONCE, (TrafficStep(100),), 0.0, 3600.0)

World = AwsWorld | GcpWorld


@dataclass(frozen=True)
class Act:
    """One rollout of a table's row; ``before`` brings the service there."""

    name: str
    strategy: Strategy
    live: tuple[str, ...] = ("1.0.0",)
    back: str | None = None
    """The version that is gone back to, "" for the one before; None for a deploy of a new one."""


ACTS = (
    Act("first deploy", BLUE_GREEN, live=()),
    Act("all-at-once", AT_ONCE),
    Act("blue-green", BLUE_GREEN),
    Act("canary", CANARY),
    Act("linear", LINEAR),
    Act("warm rollback", AT_ONCE, live=("1.0.0", "1.1.0"), back=""),
    Act("cold rollback", AT_ONCE, live=("1.0.0", "1.1.0", "1.2.0"), back="1.0.0"),
)


def bounds() -> dict[str, tuple[int, ...]]:
    """Of each row of the page's table: changes and calls on AWS, then on Google."""
    rows = re.findall(r"^\| ([a-z -]+) \| (\d+), (\d+) \| (\d+), (\d+) \|$", PAGE.read_text(), re.MULTILINE)
    return {name: tuple(map(int, numbers)) for name, *numbers in rows}


def brought(world: World, act: Act) -> Callable[[], object]:
    """The act alone, once all before it is done; what is measured has its image already."""
    built = {}
    for version in act.live:
        built[version] = world.build(version)
        assert world.deploy(built[version]).outcome is Outcome.SUCCEEDED
    world.settings = replace(world.settings, strategy=act.strategy)
    if act.back is not None:
        return lambda: world.rollback(built[act.back] if act.back else None)
    release = world.build("2.0.0")
    world.publish(release)
    here = world.process()
    return lambda: here.manager.deploy(here.ctx, release)


@pytest.mark.parametrize("kind", [AwsWorld, GcpWorld])
def test_the_calls_of_each_strategy_stay_within_what_is_written(kind: type[World], tmp_path: Path) -> None:
    """Two machines, min-ready 10 s, each share for a minute: all calls, and those that change something."""
    print()
    written, at = bounds(), 0 if kind is AwsWorld else 2
    for act in ACTS:
        (folder := tmp_path / act.name).mkdir()
        world = kind(folder)
        run = brought(world, act)
        before, began = len(world.sandbox.calls()), world.clock.monotonic()
        run()
        calls, took = world.sandbox.calls()[before:], world.clock.monotonic() - began
        changes = len(world.changes(before)) if isinstance(world, GcpWorld) else sum(each.mutating for each in calls)
        most_changes, most = written[act.name][at : at + 2]
        print(
            f"{kind.__name__[:3].lower()} {act.name:14} {changes:3} changes of {most_changes:3}, {len(calls):4} calls "
            f"of {most:4}, {took:4.0f} s of the cloud's time"
        )
        assert changes <= most_changes and len(calls) <= most, act.name


def test_a_warm_rollback_is_one_change_and_takes_no_time_of_its_own(tmp_path: Path) -> None:
    """Until traffic has moved: the changes made by then; and all of our time (goal: 300 ms), the cloud's own thread
    of calls included, since both are in this process."""
    print()
    for kind in (AwsWorld, GcpWorld):
        (folder := tmp_path / kind.__name__).mkdir()
        world: World = kind(folder)
        run = brought(world, ACTS[5])
        before, used = len(world.sandbox.calls()), time.process_time()
        run()
        computing = time.process_time() - used
        calls = world.sandbox.calls()[before:]
        moved = next(number for number, each in enumerate(calls) if each.operation in SWITCHES)
        first = [each.operation for each in calls[: moved + 1] if each.mutating and each.service != "storage"]
        told = f"{computing * 1000:.0f} ms with the simulated cloud's"
        print(f"{kind.__name__}: {len(first)} change until traffic has moved; {told}")
        assert len(first) == 1, first
    own = min(own_time() for _ in range(5))
    print(f"without a cloud: {own * 1000:.0f} ms: {own / OWN_TIME:.2f} x the goal")
    assert own < OWN_TIME
    ran = subprocess.run([sys.executable, "-c", STARTING], capture_output=True, text=True, check=True)
    print(f"a process that has not begun yet: {float(ran.stdout) * 1000:.0f} ms of imports and of clients for AWS")


STARTING = """
import time
import osvdeploy.cli.release
from osvdeploy import api
from osvdeploy.cloud.aws.session import Aws
from osvdeploy.rollout import manager
import boto3
aws = Aws("eu-west-1", boto3.Session("x", "y"))
aws.elbv2, aws.autoscaling, aws.ec2, aws.sts
print(time.process_time())
"""


def own_time() -> float:
    service = Service()
    service.deploy("1.0.0")
    service.deploy("1.1.0")
    used = time.process_time()
    assert service.rollback().outcome is Outcome.SUCCEEDED
    return time.process_time() - used


SWITCHES = ("ModifyRule", "urlMaps.patch")
"""What moves traffic."""


def test_traffic_follows_health_within_a_look(tmp_path: Path) -> None:
    """From the check that made the last machine healthy to the call that moves traffic, min-ready left out (goal: one
    look). On Google the preview rule that names the release is in force 20 s after the group is made: where that is
    later, it is what is waited for."""
    print()
    for kind in (AwsWorld, GcpWorld):
        for number, speed in enumerate((0.83, 0.97, 1.0, 1.09)):
            (folder := tmp_path / f"{kind.__name__}-{number}").mkdir()
            world: World = kind(folder)
            world.settings = replace(world.settings, health=replace(world.settings.health, min_ready=0.0))
            run = brought(world, Act("blue-green", AT_ONCE))
            world.sandbox.speed = speed
            late = followed(world.sandbox, world.clock, run)
            look = Limits().poll
            print(f"{kind.__name__}: {late:.2f} s after the last machine was healthy: {late / look:.2f} looks")


def followed(sandbox: Sandbox, clock: Clock, run: Callable[[], object]) -> float:
    """Seconds from the last healthy machine to the change that moves traffic."""
    healthy: list[datetime] = []
    moved: list[datetime] = []
    first_due, standing, happened = sandbox.store.first_due, count_healthy(sandbox), clock.now()

    def watched(until: object) -> DueEvent | None:
        found = first_due(until)  # type: ignore[arg-type]
        now = count_healthy(sandbox)
        nonlocal standing, happened
        if now > standing:
            # It came about by the event before this one.
            healthy.append(happened)
        standing, happened = now, happened if found is None else found.at
        return found

    def asked(moment: Moment, call: Call) -> None:
        if moment is Moment.BEFORE and call.operation in SWITCHES:
            moved.append(clock.now())

    sandbox.store.first_due = watched  # type: ignore[method-assign]
    sandbox.hook = asked
    run()
    return (moved[-1] - max(at for at in healthy if at <= moved[-1])).total_seconds()


def count_healthy(sandbox: Sandbox) -> int:
    return sum(target.state == "healthy" for members in sandbox.view().targets.values() for target in members)


def test_an_hour_of_baking_costs_nothing() -> None:
    """In virtual time, with a memory cloud's own part in it."""
    service = Service(strategy=replace(BLUE_GREEN, bake=3600.0))
    service.deploy("1.0.0")
    calls, used = len(service.cloud.calls), time.process_time()
    assert service.deploy("1.1.0").outcome is Outcome.SUCCEEDED
    computing = time.process_time() - used
    asked = sum(call.operation.startswith(("router.", "groups.")) for call in service.cloud.calls[calls:])
    share = f"{computing:.2f} s of computing, {computing / 3600:.4%} of it"
    print(f"\nan hour's bake: {share}; the cloud is asked {asked} times")


WAITING = """
import os, sys, time
from dataclasses import replace
from osvdeploy.context import SystemClock
from tests.benchmarks.test_rollouts import BLUE_GREEN
from tests.rollout.service import Service
service = Service(SystemClock(), strategy=replace(BLUE_GREEN, bake=float(sys.argv[1])))
service.deploy("1.0.0")
print(time.process_time(), flush=True)
service.deploy("1.1.0")
print(time.process_time(), flush=True)
"""


def test_a_process_that_waits_for_a_minute_does_not_compute() -> None:
    """A real one, in real time: the share of a processor that it takes while it bakes (goal: about nothing)."""
    began = time.monotonic()
    ran = subprocess.run(
        [sys.executable, "-c", WAITING, "60"], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    before, after = map(float, ran.stdout.split())
    took = time.monotonic() - began
    print(
        f"\na minute's bake in real time: {after - before:.3f} s computing, {(after - before) / 60:.3%} of a processor"
    )
    assert took > 60


def test_how_many_cases_the_fault_suite_tries(tmp_path: Path) -> None:
    """Pairs of a call and a trouble in a second, by a sample of two scenarios on both clouds."""
    print()
    chosen = [each for each in SCENARIOS if each.name in ("blue-green", "warm rollback")]
    for kind, site in SITES.items():
        for scenario in chosen:
            (folder := tmp_path / f"{kind}-{scenario.name}").mkdir()
            print(f"{kind:6} {scenario.name:14} {rate(site(folder), scenario):5.1f} cases a second")


def rate(site: object, scenario: Scenario) -> float:
    plot = played(site, scenario)  # type: ignore[arg-type]
    tried = sampled(list(troubles(plot)), 0.15)
    began = time.monotonic()
    wrong = befallen(plot, tried)
    assert not wrong
    return len(tried) / (time.monotonic() - began)
