"""Metrics of a Prometheus, or of what speaks its HTTP API (Thanos, Mimir, VictoriaMetrics).

Source: Prometheus documentation, "HTTP API", Range queries: the query is evaluated at start, start + step ... up to
end; values come as [unix time, "text"], and where there is nothing, no value does.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from osvdeploy.cloud.interfaces import Grid, Measured, PrometheusMetric, Sample
from osvdeploy.cloud.local.http_json import get_json
from osvdeploy.cloud.local.prober import HttpProber
from osvdeploy.cloud.samples import samples_of
from osvdeploy.context import Context
from osvdeploy.errors import Refused

MOST_POINTS = 10_000
"""In one question: Prometheus refuses more than 11,000."""


def read(
    ctx: Context, http: HttpProber, metric: PrometheusMetric, measured: Measured, grid: Grid
) -> tuple[Sample, ...]:
    """A grid's samples: each of the query at its interval's end, so that ``[{{interval}}]`` in it is that interval."""
    values = _series(ctx, http, metric, metric.query, measured, grid)
    per = None if metric.per is None else _series(ctx, http, metric, metric.per, measured, grid)
    return samples_of(grid, values, per)


def _series(
    ctx: Context, http: HttpProber, metric: PrometheusMetric, query: str, measured: Measured, grid: Grid
) -> dict[datetime, float]:
    found: dict[datetime, float] = {}
    for first in range(0, grid.count, MOST_POINTS):
        part = Grid(grid.start(first), grid.interval, min(MOST_POINTS, grid.count - first))
        found |= _part(ctx, http, metric, query, measured, part)
    return found


def _part(
    ctx: Context, http: HttpProber, metric: PrometheusMetric, query: str, measured: Measured, grid: Grid
) -> dict[datetime, float]:
    asked = {
        "query": measured.filled(query, grid.interval),
        "start": f"{grid.start(1).timestamp():.0f}",
        "end": f"{grid.end.timestamp():.0f}",
        "step": f"{grid.interval:.0f}",
    }
    url = f"{metric.address.rstrip('/')}/api/v1/query_range?{urlencode(asked)}"
    what = f"Prometheus at {metric.address}"
    document = get_json(ctx, http, url, what, metric.token_variable)
    try:
        if document["status"] != "success":
            raise Refused(f"{what}: {document.get('errorType')}: {document.get('error')}")
        series = document["data"]["result"]
        if len(series) > 1:
            raise Refused(
                f"{what}: the query has {len(series)} series, of which a gate judges one",
                hint=f"wrap it in sum(...): {query[:200]}",
            )
        return {
            datetime.fromtimestamp(float(at), UTC) - timedelta(seconds=grid.interval): _number(value)
            for each in series
            for at, value in each["values"]
        }
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        raise Refused(f"{what}: answered nothing that a Prometheus would") from None


def _number(value: Any) -> float:
    return float(str(value).replace("+Inf", "inf").replace("-Inf", "-inf"))
