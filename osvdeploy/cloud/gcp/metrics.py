"""Metrics on Google: Cloud Monitoring's, of a slot's backend service or of the user's own.

Sources: Cloud Monitoring API v3 reference, projects.timeSeries.list, Aggregation (which aligner and reducer takes which
kind of metric), TypedValue; "Monitoring filters"; "Google Cloud metrics", loadbalancing: balancers' metrics are DELTA
counts and distributions, sampled each minute, with the monitored resource's label backend_target_name, and
response_code_class (200, 300 ...). An interval without requests has no point.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from osvdeploy.cloud.gcp.backends import backend_name
from osvdeploy.cloud.gcp.session import Gcp
from osvdeploy.cloud.interfaces import Grid, Measured, Metric, MonitoringMetric, Sample, Statistic
from osvdeploy.cloud.samples import samples_of
from osvdeploy.context import Context
from osvdeploy.errors import NotFound, Refused

BALANCING = "loadbalancing.googleapis.com/"
"""What the types of balancers' metrics begin with."""

_REQUESTS = {
    "global": (f"{BALANCING}https/request_count", f"{BALANCING}https/internal/request_count"),
    "region": (f"{BALANCING}https/external/regional/request_count", f"{BALANCING}https/internal/request_count"),
}
"""By where the URL map is: what counts its requests, of which a backend service has one."""

_REDUCERS = {
    Statistic.SUM: ("ALIGN_DELTA", "REDUCE_SUM"),
    Statistic.AVERAGE: ("ALIGN_MEAN", "REDUCE_MEAN"),
    Statistic.MINIMUM: ("ALIGN_MIN", "REDUCE_MIN"),
    Statistic.MAXIMUM: ("ALIGN_MAX", "REDUCE_MAX"),
    Statistic.P50: ("ALIGN_DELTA", "REDUCE_PERCENTILE_50"),
    Statistic.P95: ("ALIGN_DELTA", "REDUCE_PERCENTILE_95"),
    Statistic.P99: ("ALIGN_DELTA", "REDUCE_PERCENTILE_99"),
}
"""What is done in each interval, and then over all series: percentiles are of the whole distribution."""


class CloudMonitoring:
    """:class:`~osvdeploy.cloud.interfaces.Metrics` of one project.

    Each call is sent once: a rollout waits for it and has a lease to renew, and whoever reads metrics reads them again
    anyway.
    """

    def __init__(self, gcp: Gcp) -> None:
        self._gcp = gcp

    def refuse_unready(self, ctx: Context, metric: Metric) -> None:
        """Whether it may be read, only reading tells."""

    def read(self, ctx: Context, metric: Metric, measured: Measured, grid: Grid) -> tuple[Sample, ...]:
        if not isinstance(metric, MonitoringMetric):
            raise Refused(f"{metric.kind} is no metric of Cloud Monitoring's")
        if grid.count == 0:
            return ()
        values = self._series(ctx, metric.type, metric.labels, metric.statistic, measured, grid)
        per = None
        if metric.per is not None:
            per = self._series(ctx, metric.per, metric.per_labels, metric.statistic, measured, grid)
        return samples_of(grid, values, per)

    def requests(self, ctx: Context, measured: Measured, grid: Grid) -> tuple[Sample, ...]:
        counted: dict[datetime, float] = {}
        for kind in _REQUESTS["global" if "/global/urlMaps/" in measured.route.listener else "region"]:
            try:
                found = self._series(ctx, kind, {}, Statistic.SUM, measured, grid)
            except NotFound:
                # No balancer of that kind has ever counted anything in this project.
                continue
            for at, value in found.items():
                counted[at] = counted.get(at, 0.0) + value
        return samples_of(grid, counted, None)

    def _series(
        self,
        ctx: Context,
        kind: str,
        labels: Mapping[str, str],
        statistic: Statistic,
        measured: Measured,
        grid: Grid,
    ) -> dict[datetime, float]:
        if statistic not in _REDUCERS:
            raise Refused(f"metric {kind}: Cloud Monitoring has no {statistic}", hint="use p50, p95 or p99")
        aligner, reducer = _REDUCERS[statistic]
        if statistic is Statistic.AVERAGE and kind.startswith(BALANCING):
            aligner = "ALIGN_DELTA"  # a distribution, whose mean is taken over all series
        filled = {name: measured.filled(value, grid.interval) for name, value in labels.items()}
        conditions = [f"metric.type = {_quoted(kind)}"]
        conditions += [f"metric.labels.{name} = {_value(value)}" for name, value in sorted(filled.items())]
        if kind.startswith(BALANCING):
            service = backend_name(measured.route, measured.slot)
            conditions.append(f"resource.labels.backend_target_name = {_quoted(service)}")
        query = {
            "filter": " AND ".join(conditions),
            "interval.startTime": _written(grid.begin),
            "interval.endTime": _written(grid.end),
            "aggregation.alignmentPeriod": f"{round(grid.interval)}s",
            "aggregation.perSeriesAligner": aligner,
            "aggregation.crossSeriesReducer": reducer,
        }
        url = f"{self._gcp.monitoring}/v3/projects/{self._gcp.project}/timeSeries"
        found: dict[datetime, float] = {}
        try:
            for page in self._gcp.pages(ctx, url, f"metric {kind}", query, attempts=1):
                for series in page.get("timeSeries", []):
                    for point in series.get("points", []):
                        # Of a count the interval begins where the last one ended, of a gauge it is a moment: both end.
                        at = datetime.fromisoformat(point["interval"]["endTime"]).astimezone(UTC)
                        found[at - timedelta(seconds=grid.interval)] = _number(kind, point["value"])
        except NotFound as missing:
            missing.hint = missing.hint or "`cloud-monitoring` in the spec names no metric that this project has"
            raise
        return found


def _number(kind: str, value: Mapping[str, object]) -> float:
    for name in ("int64Value", "doubleValue"):
        if name in value:
            return float(str(value[name]))
    raise Refused(
        f"metric {kind}: is no number, but {', '.join(value) or 'nothing'}", hint="choose another `statistic`"
    )


def _quoted(text: str) -> str:
    return json.dumps(text)


def _value(text: str) -> str:
    """A label's value in a filter: numbers as such, as response_code_class is one."""
    return text if re.fullmatch(r"\d{1,18}", text) else _quoted(text)


def _written(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
