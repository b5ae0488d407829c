"""What every implementation of Metrics promises of requests that a balancer has counted."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import datetime

import pytest

from osvdeploy.cloud.interfaces import Grid, JsonMetric, Metrics, Sample, Slot
from osvdeploy.errors import Refused
from tests.contract.scenes import Guest, Scene

pytestmark = pytest.mark.not_live("a real balancer's metrics come by minutes, and each test would wait for some")


def metrics(scene: Scene) -> Metrics:
    assert scene.cloud.metrics is not None
    return scene.cloud.metrics


def read(scene: Scene, slot: Slot, grid: Grid) -> tuple[Sample, ...]:
    assert scene.errors is not None
    release = {Slot.BLUE: "hello-1", Slot.GREEN: "hello-2"}[slot]
    return metrics(scene).read(scene.ctx, scene.errors, scene.measured(slot, release), grid)


def serve(scene: Scene) -> None:
    """Two releases with half of the traffic each; the second fails whoever asks for more than its health."""
    scene.stand(Slot.BLUE, "hello-1", capacity=1)
    scene.stand(Slot.GREEN, "hello-2", Guest.FAILS, capacity=1)
    scene.until(lambda: scene.healthy(Slot.BLUE) == scene.healthy(Slot.GREEN) == 1)
    scene.weights(50, 50)
    scene.ctx.sleep(60)


def next_minute(scene: Scene) -> datetime:
    """Wait for a minute to begin."""
    now = scene.ctx.now().timestamp()
    scene.ctx.sleep(math.ceil(now / 60) * 60 - now)
    return scene.ctx.now()


def load(scene: Scene, minutes: int, each: int = 10) -> Grid:
    """Ask so often in each minute; the minutes."""
    began = next_minute(scene)
    for _ in range(minutes):
        for _ in range(each):
            scene.ask()
        scene.ctx.sleep(60)
    return Grid(began, 60.0, minutes)


def test_answers_are_counted_by_slot_and_minute(scene: Scene) -> None:
    """Each minute is one sample: its errors, of its requests; those of the slot that errs, and none of the other's. A
    longer interval has all of its minutes. Whoever asks, and however long after, is told the same, and changes
    nothing."""
    serve(scene)
    began = scene.ctx.now().timestamp()
    scene.ctx.sleep(math.ceil(began / 180) * 180 - began)
    grid = load(scene, 3)
    scene.ctx.sleep(scene.published)
    changed = scene.mutations()
    blue, green = read(scene, Slot.BLUE, grid), read(scene, Slot.GREEN, grid)
    assert [sample.at for sample in blue] == [sample.at for sample in green] == [grid.start(each) for each in range(3)]
    assert all(sample.value == 0 for sample in blue)
    assert all(sample.value == sample.of for sample in green)
    assert [(mine.of or 0) + (theirs.of or 0) for mine, theirs in zip(blue, green, strict=True)] == [10, 10, 10]

    (sample,) = read(scene, Slot.GREEN, Grid(grid.begin, 180.0, 1))
    assert sample.at == grid.begin
    assert sample.value == sample.of == sum(each.value for each in green) > 0

    scene.ctx.sleep(600)
    assert read(scene, Slot.GREEN, grid) == green
    assert read(scene, Slot.GREEN, Grid(grid.begin, 60.0, 1)) == green[:1]
    assert scene.mutations() == changed


def test_requests_are_counted_by_slot_and_minute(scene: Scene) -> None:
    """All that came to a slot, whatever it answered; a minute without any is no sample."""
    serve(scene)
    grid = load(scene, 2)
    scene.ctx.sleep(60 + scene.published)
    blue, green = (
        metrics(scene).requests(scene.ctx, scene.measured(slot, release), Grid(grid.begin, 60.0, 3))
        for slot, release in ((Slot.BLUE, "hello-1"), (Slot.GREEN, "hello-2"))
    )
    assert [sample.at for sample in blue] == [sample.at for sample in green] == [grid.start(0), grid.start(1)]
    assert [mine.value + theirs.value for mine, theirs in zip(blue, green, strict=True)] == [10, 10]


def test_a_minute_is_told_whole_and_late(scene: Scene) -> None:
    """Not while it goes on, nor at once when it is over. Of one count alone, a minute without any has no sample: nobody
    knows whether there was anything to count."""
    serve(scene)
    grid = load(scene, 1)
    assert read(scene, Slot.BLUE, grid) == ()
    scene.ctx.sleep(scene.published - 1)
    assert read(scene, Slot.BLUE, grid) == ()
    scene.ctx.sleep(1)
    assert len(read(scene, Slot.BLUE, grid)) == 1

    assert scene.errors is not None
    alone = replace(scene.errors, per=None)  # type: ignore[arg-type]  # a balancer's has it
    found = metrics(scene).read(scene.ctx, alone, scene.measured(Slot.GREEN, "hello-2"), grid)
    assert [(sample.value > 0, sample.of) for sample in found] == [(True, None)]
    assert metrics(scene).read(scene.ctx, alone, scene.measured(Slot.BLUE, "hello-1"), grid) == ()


def test_without_requests_there_is_no_sample(scene: Scene) -> None:
    """A slot that nobody is sent to, a minute in which nobody asks, a slot that is not there: none of them has had no
    errors."""
    assert read(scene, Slot.BLUE, Grid(next_minute(scene), 60.0, 1)) == ()
    serve(scene)
    scene.weights(100, 0)
    scene.ctx.sleep(60)
    grid = load(scene, 1)
    scene.ctx.sleep(60 + scene.published)
    assert read(scene, Slot.GREEN, grid) == ()
    assert read(scene, Slot.BLUE, Grid(grid.begin, 60.0, 2))[1:] == ()


def test_nothing_is_asked_of_no_interval(scene: Scene) -> None:
    assert read(scene, Slot.BLUE, Grid(next_minute(scene), 60.0, 0)) == ()


def test_another_place_s_metric_is_refused(scene: Scene) -> None:
    if scene.cloud.kind == "memory":
        pytest.skip("the fake has whatever a test tells it")
    with pytest.raises(Refused, match="json is no metric of Cloud"):
        metrics(scene).read(
            scene.ctx,
            JsonMetric("https://acme.example", "/a"),
            scene.measured(Slot.BLUE, "hello-1"),
            Grid(next_minute(scene), 60.0, 1),
        )
