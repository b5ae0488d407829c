"""Ledgers in a directory, written by rollouts in a memory cloud and virtual time, for commands to read."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path

from osvdeploy import api
from osvdeploy.cloud.interfaces import CloudWatchMetric, Slot, Statistic
from osvdeploy.cloud.local.store import DirectoryStore
from osvdeploy.rollout.gates import Bound, Compared, Gate, GateStage
from osvdeploy.rollout.ledger import Ledger
from osvdeploy.rollout.model import Outcome, RequestKind, Until
from osvdeploy.rollout.releases import Strategy, TrafficStep
from tests.rollout.test_control import CANARY, Controlled

HOSTILE = (
    "OSv v0.57.0\r\neth0: 10.0.0.7\r\nBooted up in 0.01 ms\r\nCmdline: /app\r\n"
    "</pre><script>document.title='pwned'</script><img src=http://127.0.0.1:9/x onerror=document.title='pwned'>\n"
    "\x1b[31mred\x1b[0m nul:\x00 c1:\x9b turned:\u202eevil\u202c\n" + "x" * 2000 + "\n"
)
"""What a stranger's machine may print."""


class Kept(Controlled):
    """A service whose ledger is a directory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        super().__init__()
        assert self.deploy("1.0.0").outcome is Outcome.SUCCEEDED
        self.by(CANARY)

    def by(self, strategy: Strategy) -> None:
        self.settings = replace(self.settings, strategy=strategy)

    @property
    def ledger(self) -> Ledger:
        return Ledger(DirectoryStore(self.folder), "hello", "production")

    @property
    def named(self) -> api.Service:
        return api.Service("hello", "production", str(self.folder))

    def report(self, run: str = "last") -> api.Report:
        return api.report(self.context(), self.named, run)

    def at_share(self, weight: int, kind: RequestKind, why: str = "") -> None:
        """Somebody asks for something as soon as the candidate has that share."""
        self.when(lambda: self.weights().get(Slot.GREEN) == weight, lambda: self.say(kind, why))


def good(folder: Path) -> Kept:
    """A canary that somebody paused at half of the traffic for ten minutes, and that succeeded."""
    service = Kept(folder)
    service.until = Until.OVER
    service.at_share(50, RequestKind.PAUSE, "lunch <b>& more</b>")
    service.then(900, lambda: service.say(RequestKind.RESUME))
    assert service.deploy("1.1.0").outcome is Outcome.SUCCEEDED
    return service


def bad(folder: Path) -> Kept:
    """A canary whose machines fell sick under half of the traffic, with a hostile console."""
    service = Kept(folder)
    service.cloud.behave(service.id("1.1.0"), sick_after=200.0, console=HOSTILE)
    assert service.deploy("1.1.0").outcome is Outcome.ROLLED_BACK
    return service


def _errors(began: datetime, worse: float, at: datetime) -> tuple[float, float]:
    """Of a thousand requests a minute: more and more, where it gets worse."""
    return 2 + worse * max(0.0, (at - began).total_seconds() - 700) / 30, 1000


def _latency(worse: float, at: datetime) -> float:
    return 0.1 + worse * 0.02 + at.minute % 3 * 0.01


def measured(folder: Path, *, sick_after: float | None = None) -> Kept:
    """A canary whose errors are measured, of both releases, and that fails by them; or by its health, so many seconds
    after it booted."""
    service = Kept(folder)
    errors = Gate(
        "errors <of orders>",
        CloudWatchMetric("Errors", "Requests", Statistic.SUM),
        (Bound(0.01),),
        (GateStage.STEP, GateStage.BAKE),
        interval=60.0,
        delay=60.0,
    )
    latency = replace(errors, name="latency", metric=CloudWatchMetric("Latency", None, Statistic.AVERAGE))
    latency = replace(latency, bounds=(Bound(1.5, compared=Compared.RATIO),), on=(GateStage.STEP,), dry_run=True)
    service.settings = replace(service.settings, gates=(errors, latency))
    service.by(replace(CANARY, steps=(TrafficStep(20, 600.0), TrafficStep(100)), bake=900.0))
    began = service.time.now()
    for version, worse in (("1.0.0", 0.0), ("1.1.0", 1.0)):
        tell = partial(service.cloud.metrics.tell, service.id(version))
        tell("Errors", partial(_errors, began, worse))
        tell("Latency", partial(_latency, worse))
    if sick_after is not None:
        service.cloud.behave(service.id("1.1.0"), sick_after=sick_after)
    assert service.deploy("1.1.0").outcome is Outcome.ROLLED_BACK
    return service


def waiting(folder: Path) -> Kept:
    """A rollout that waits for a person, with nobody at work."""
    service = Kept(folder)
    service.by(replace(CANARY, approve=True))
    assert service.deploy("1.1.0").outcome is Outcome.WAITING
    return service
