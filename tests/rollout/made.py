"""Releases, runs and observations as tests need them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from osvdeploy.cloud.interfaces import GroupState, Machine, MachineState, ReleaseId, Slot, TargetHealth
from osvdeploy.digests import sha256
from osvdeploy.rollout.model import Answer, Kind, Limits, Observation, Run, Stage
from osvdeploy.rollout.releases import (
    Health,
    Release,
    Settings,
    Strategy,
    StrategyKind,
    TrafficStep,
    configuration_digest,
    group_name,
    release_digest,
    release_id,
)

NOW = datetime(2030, 1, 1, tzinfo=UTC)

SETTINGS = Settings(
    environment="production",
    cloud="memory",
    region="nowhere-1",
    ledger="memory",
    machine_type="t3.nano",
    capacity=2,
    networks=("subnet-0a", "subnet-0b"),
    firewalls=("sg-0c",),
    listener="listener-1",
    host=None,
    path=None,
    priority=100,
    preview_header="x-preview",
    port=8080,
    health=Health(
        path="/healthz", version_header="x-release", boot_timeout=60.0, interval=5.0, timeout=2.0, min_ready=10.0
    ),
    strategy=Strategy(kind=StrategyKind.BLUE_GREEN, steps=(TrafficStep(100),), bake=0.0, keep_warm=3600.0),
)


UNHURRIED = Limits(poll=8.0, quick_poll=8.0)
"""Of suites that run hundreds of rollouts: far fewer looks than a user's run has, each of which is the same calls."""


def release(version: str, app: str = "hello", settings: Settings = SETTINGS) -> Release:
    """A release whose image digest follows from its version alone."""
    image = sha256(f"{app} {version}".encode())
    configuration = configuration_digest([], [])
    digest = release_digest(image, configuration)
    return Release(
        id=release_id(app, version, digest),
        app=app,
        version=version,
        image=image,
        configuration=configuration,
        digest=digest,
        created=NOW,
        by="somebody",
        settings=settings,
    )


def run(**changes: Any) -> Run:
    """A deploy of 2.0.0 to green over 1.0.0 in blue, just begun."""
    new, old = release("2.0.0"), release("1.0.0")
    made = Run(
        id="run-1",
        kind=Kind.DEPLOY,
        candidate=new.id,
        slot=Slot.GREEN,
        group=group_name(new.service, new, 2),
        stable=old.id,
        stable_group=group_name(old.service, old, 1),
        capacity=2,
        settings=SETTINGS,
        by="somebody@somewhere",
        started=NOW,
        stage=Stage.PREPARE,
        entered=NOW,
        steps=(TrafficStep(100),),
    )
    return replace(made, **changes)


def group(name: str, release: ReleaseId, capacity: int = 2, **changes: Any) -> GroupState:
    machines = tuple(Machine(f"i-{name}-{number}", MachineState.RUNNING) for number in range(capacity))
    return replace(GroupState(name=name, release=release, capacity=capacity, machines=machines), **changes)


def targets(healthy: int, sick: int = 0, reason: str = "Target.Timeout") -> tuple[TargetHealth, ...]:
    return (
        *(TargetHealth(f"i-{number}", "healthy") for number in range(healthy)),
        *(TargetHealth(f"i-{healthy + number}", "unhealthy", reason) for number in range(sick)),
    )


def answers(release: ReleaseId | None, count: int, status: int = 200) -> tuple[Answer, ...]:
    return tuple(Answer(200 <= status < 300, release, f"{status} from {release}") for _ in range(count))


def seen(**changes: Any) -> Observation:
    """Both slots wired, blue has all the traffic."""
    return replace(Observation(wired=True, weights={Slot.BLUE: 100, Slot.GREEN: 0}), **changes)


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)
