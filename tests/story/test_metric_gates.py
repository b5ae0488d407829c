"""A release that is well by every probe and fails its customers, on AWS in the sandbox, in virtual time: a gate on
CloudWatch's metrics brings it back; nothing else would."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from osvdeploy.cloud.interfaces import CloudWatchMetric, MonitoringMetric, Statistic
from osvdeploy.context import VirtualClock
from osvdeploy.rollout.gates import Bound, Compared, Gate, GateStage, Verdict
from osvdeploy.rollout.model import Outcome
from osvdeploy.rollout.releases import Strategy, StrategyKind, TrafficStep
from osvdeploy.sandbox.faults import Fault, FaultKind
from osvdeploy.sandbox.inprocess import Client
from osvdeploy.sandbox.runners import GuestAnswer
from tests.aws_world import AwsWorld
from tests.gcp_world import GcpWorld
from tests.rollout.made import NOW, SETTINGS
from tests.world import GOOD, World

pytestmark = pytest.mark.slow

ERRORS = CloudWatchMetric("HTTPCode_Target_5XX_Count", "RequestCount", Statistic.SUM)
GATE = Gate("errors", ERRORS, (Bound(0.01),), (GateStage.STEP, GateStage.BAKE), interval=60.0, delay=120.0)
BAKES = replace(SETTINGS.strategy, bake=180.0)
ILL = {**GOOD, "answers": {"/order": 500, "*": 200}}
"""Well wherever it is probed."""

TICK = 10.0


class Day(VirtualClock):
    """Time in which customers come by."""

    def __init__(self) -> None:
        super().__init__(NOW)
        self.each: Callable[[], None] = lambda: None

    def wait(self, seconds: float, cancelled: threading.Event) -> None:
        while seconds > TICK:
            super().wait(TICK, cancelled)
            seconds -= TICK
            self.each()
        super().wait(seconds, cancelled)
        if int(self.monotonic()) % TICK == 0:
            self.each()


@dataclass
class Customers:
    """Two of three requests at a time are for the page, one is an order."""

    world: World
    answers: list[int] = field(default_factory=list)

    def come(self) -> None:
        for endpoint in self.world.sandbox.view().endpoints.values():
            client = Client(self.world.sandbox, self.world.clock)
            client._asked = len(self.answers)
            for path in ("/", "/", "/order"):
                answer = client.get(endpoint.address, endpoint.listener.port, path)
                if isinstance(answer, GuestAnswer):
                    self.answers.append(answer.status)


def busy(folder: Path, *gates: Gate, strategy: Strategy = BAKES) -> tuple[AwsWorld, Customers]:
    """A service with customers, whose first release is good."""
    day = Day()
    world = AwsWorld(folder, day)
    customers = Customers(world)
    assert world.deploy(world.build("1.0.0")).outcome is Outcome.SUCCEEDED
    world.settings = replace(world.settings, gates=gates, strategy=strategy)
    day.each = customers.come
    return world, customers


def test_a_gate_brings_back_what_no_probe_finds(tmp_path: Path) -> None:
    """Within minutes of its first traffic, with the counts that proved it on record, and nobody gets an error any more.
    The same release without the gate stays."""
    world, customers = busy(tmp_path, GATE)
    before = len(world.calls())
    ill = world.build("2.0.0", ILL)
    ended = world.deploy(ill)
    assert (ended.outcome, ended.exit_code) == (Outcome.ROLLED_BACK, 3)
    assert world.answer().headers["x-release"].startswith("hello-1.0.0-")
    assert 500 in customers.answers
    run = ended.run
    assert run is not None
    (record,) = [each for each in run.gates if not each.passed]
    assert (record.gate, record.verdict) == ("errors", Verdict.FAILED)
    assert sum(each.value for each in record.samples) > 0
    assert all(each.passed for each in run.gates if each.gate in ("healthy targets", "preview probe", "traffic"))
    assert world.calls(before).count("cloudwatch.GetMetricData") <= 3
    customers.answers.clear()
    world.wait(300)
    customers.come()
    assert set(customers.answers) == {200}

    world.settings = replace(world.settings, gates=())
    assert world.deploy(replace(ill, settings=world.settings)).outcome is Outcome.SUCCEEDED
    assert customers.answers.count(500) > 10


def test_a_good_release_passes_and_no_way_back_asks_for_metrics(tmp_path: Path) -> None:
    """By what its customers got. Metrics that are down fail the next one for want of data, and stop no rollback:
    neither the one that they are the cause of, nor one that somebody asks for."""
    world, customers = busy(tmp_path, GATE)
    ended = world.deploy(world.build("2.0.0"))
    assert ended.outcome is Outcome.SUCCEEDED
    assert ended.run is not None
    (record,) = [each for each in ended.run.gates if each.gate == "errors"]
    assert (record.verdict, set(customers.answers)) == (Verdict.PASSED, {200})
    assert all(each.of and each.of >= 10 for each in record.samples)

    world.sandbox.faults.add(Fault("cloudwatch:GetMetricData", FaultKind.DENIED, 0, None))
    ended = world.deploy(world.build("3.0.0"))
    assert ended.outcome is Outcome.ROLLED_BACK
    assert "AWS refused GetMetricData" in ended.told
    before = len(world.calls())
    assert world.rollback().outcome is Outcome.SUCCEEDED
    assert world.answer().headers["x-release"].startswith("hello-1.0.0-")
    assert "cloudwatch.GetMetricData" not in world.calls(before)


def test_a_canary_is_compared_with_what_serves_beside_it(tmp_path: Path) -> None:
    """Orders that fail in both are no fault of the new release's; its own are."""
    canary = Strategy(StrategyKind.CANARY, (TrafficStep(20, 300.0), TrafficStep(100)), 60.0, 3600.0)
    against = replace(GATE, bounds=(Bound(2.0, compared=Compared.RATIO),), on=(GateStage.STEP,))
    world, customers = busy(tmp_path, against, strategy=canary)
    ended = world.deploy(world.build("2.0.0", ILL))
    assert ended.outcome is Outcome.ROLLED_BACK
    assert ended.run is not None
    assert ended.run.step == 0
    assert "stable 0 of " in ended.told
    assert customers.answers.count(500) < customers.answers.count(200) / 5


def test_google_counts_by_backend_service(tmp_path: Path) -> None:
    """The same story, by what Cloud Monitoring tells."""
    day = Day()
    world = GcpWorld(tmp_path, clock=day)
    customers = Customers(world)
    assert world.deploy(world.build("1.0.0")).outcome is Outcome.SUCCEEDED
    requests = "loadbalancing.googleapis.com/https/request_count"
    errors = MonitoringMetric(requests, requests, Statistic.SUM, {"response_code_class": "500"})
    world.settings = replace(world.settings, gates=(replace(GATE, metric=errors, delay=180.0),), strategy=BAKES)
    day.each = customers.come
    ended = world.deploy(world.build("2.0.0", ILL))
    assert ended.outcome is Outcome.ROLLED_BACK
    assert "gate errors: " in ended.told
    assert world.answer().headers["x-osvdeploy-release"].startswith("hello-1.0.0-")
