"""Metrics in memory: what the world's balancers counted, by the names that CloudWatch and Cloud Monitoring have for it,
and whatever else a test tells of a release."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from osvdeploy.cloud.interfaces import (
    CloudWatchMetric,
    Grid,
    Measured,
    Metric,
    MonitoringMetric,
    PrometheusMetric,
    Sample,
    Statistic,
)
from osvdeploy.cloud.memory.world import World
from osvdeploy.cloud.samples import samples_of
from osvdeploy.context import Context
from osvdeploy.errors import UsageError

PUBLISHED: Final = 60.0
"""Seconds from a minute's end until it can be read."""

Told = Callable[[datetime], float | tuple[float, float] | None]
"""What there is of the interval that begins then: a number, or a count and what it is counted of; None for nothing."""

_CLASSES = {f"HTTPCode_Target_{each}XX_Count": each for each in range(2, 6)}


class MemoryMetrics:
    """:class:`~osvdeploy.cloud.interfaces.Metrics` on a :class:`~osvdeploy.cloud.memory.world.World`."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._told: dict[tuple[str, str], Told] = {}
        self.missing: set[str] = set()
        """Metrics that cannot be read from here, by their names."""

    def tell(self, release: str, metric: str, told: Told) -> None:
        """Answer for a release's metric, by its name, type, query, address or first word, with this from now on."""
        self._told[release, metric] = told

    def refuse_unready(self, ctx: Context, metric: Metric) -> None:
        if (name := _name(metric)) in self.missing:
            raise UsageError(f"{name}: there is no such program on PATH", hint="install it here")

    def read(self, ctx: Context, metric: Metric, measured: Measured, grid: Grid) -> tuple[Sample, ...]:
        name = _name(metric)
        with self._world.calls.around("metrics.read", name, measured.slot), self._world.lock:
            self._world.settle()
            told = self._told.get((measured.release, name))
            if told is not None:
                return _samples(grid, told)
            return self._counted(metric, measured, grid)

    def requests(self, ctx: Context, measured: Measured, grid: Grid) -> tuple[Sample, ...]:
        return self.read(ctx, CloudWatchMetric("RequestCount", None, Statistic.SUM), measured, grid)

    def _counted(self, metric: Metric, measured: Measured, grid: Grid) -> tuple[Sample, ...]:
        wanted = _class(metric)
        if wanted is None:
            return ()
        latest = self._world.clock.now() - timedelta(seconds=PUBLISHED + grid.interval)
        values: dict[datetime, float] = {}
        per: dict[datetime, float] = {}
        backend = f"osvd-{measured.route.key}-{measured.slot}"
        for at, status in self._world.answered.get(backend, ()):
            number = int((at - grid.begin).total_seconds() // grid.interval)
            begins = grid.start(number)
            if begins > latest:
                continue
            per[begins] = per.get(begins, 0.0) + 1
            if wanted in (0, status // 100):
                values[begins] = values.get(begins, 0.0) + 1
        counted = isinstance(metric, CloudWatchMetric | MonitoringMetric) and metric.per is not None
        return samples_of(grid, values, per if counted else None)


def _name(metric: Metric) -> str:
    match metric:
        case CloudWatchMetric(name=name):
            return name
        case MonitoringMetric(type=kind):
            return kind
        case PrometheusMetric(query=query):
            return query
        case _:
            return metric.url if metric.kind == "json" else metric.argv[0]


def _class(metric: Metric) -> int | None:
    """The class of statuses that a metric of a balancer counts, 0 for every one; None for a metric that is none."""
    if isinstance(metric, CloudWatchMetric):
        return 0 if metric.name == "RequestCount" else _CLASSES.get(metric.name)
    if isinstance(metric, MonitoringMetric) and metric.type.endswith("/request_count"):
        return int(metric.labels.get("response_code_class", "0")) // 100
    return None


def _samples(grid: Grid, told: Told) -> tuple[Sample, ...]:
    found = []
    for number in range(grid.count):
        match told(grid.start(number)):
            case (value, of):
                found.append(Sample(grid.start(number), value, of))
            case float() | int() as value:
                found.append(Sample(grid.start(number), float(value)))
    return tuple(found)
