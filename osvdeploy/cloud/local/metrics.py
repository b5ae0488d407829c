"""Metrics of any source that a gate may have, each asked by the adapter that knows it."""

from __future__ import annotations

import os

from osvdeploy.cloud.interfaces import (
    CommandMetric,
    Grid,
    JsonMetric,
    Measured,
    Metric,
    Metrics,
    PrometheusMetric,
    Sample,
)
from osvdeploy.cloud.local import command_metric, json_metric, prometheus
from osvdeploy.cloud.local.prober import HttpProber
from osvdeploy.context import Context
from osvdeploy.errors import Refused, UsageError
from osvdeploy.processes import program_file


class MetricSources:
    """:class:`~osvdeploy.cloud.interfaces.Metrics` of Prometheus, JSON documents and commands, and of a cloud beside
    them."""

    def __init__(self, place: Metrics | None = None) -> None:
        """``place`` tells what the cloud counts."""
        self._place = place
        self._http = HttpProber()

    def refuse_unready(self, ctx: Context, metric: Metric) -> None:
        match metric:
            case PrometheusMetric() | JsonMetric() if metric.token_variable is not None:
                if not os.environ.get(metric.token_variable, "").strip():
                    raise UsageError(
                        f"the variable {metric.token_variable} is not set", hint=f"export {metric.token_variable}"
                    )
            case CommandMetric() if "{" not in metric.argv[0]:
                program_file(metric.argv[0], os.environ.get("PATH"), "the gate")

    def read(self, ctx: Context, metric: Metric, measured: Measured, grid: Grid) -> tuple[Sample, ...]:
        if grid.count == 0:
            return ()
        match metric:
            case PrometheusMetric():
                return prometheus.read(ctx, self._http, metric, measured, grid)
            case JsonMetric():
                return json_metric.read(ctx, self._http, metric, measured, grid)
            case CommandMetric():
                return command_metric.read(ctx, metric, measured, grid)
        if self._place is None:
            raise Refused(f"{metric.kind}: this place has no metrics", hint="take a metric of another source")
        return self._place.read(ctx, metric, measured, grid)

    def requests(self, ctx: Context, measured: Measured, grid: Grid) -> tuple[Sample, ...]:
        if self._place is None:
            raise Refused("this place counts no requests", hint='take probe-from = "here", or a command')
        return self._place.requests(ctx, measured, grid)
