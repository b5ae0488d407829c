"""Cloud Monitoring where the simulator has no reason to do it: distributions, gauges, metrics of one's own, pages."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from osvdeploy.cloud.gcp.metrics import CloudMonitoring
from osvdeploy.cloud.interfaces import (
    Grid,
    HealthRule,
    Measured,
    MonitoringMetric,
    ReleaseId,
    Route,
    Sample,
    Slot,
    Statistic,
)
from osvdeploy.context import Context, VirtualClock
from osvdeploy.errors import CloudError, NotFound, Refused, Unavailable
from tests.cloud.gcp.script import Script, Scripted

BEGAN = datetime(2030, 1, 1, 12, tzinfo=UTC)
GRID = Grid(BEGAN, 60.0, 3)
ROUTE = Route("0123456789", "hello/production", "l", 100, 8080, HealthRule("/", 5.0, 2.0), "x-preview")
GREEN = Measured(ROUTE, Slot.GREEN, ReleaseId("hello-2-1a2b3c4d"), "osvd-g")
LATENCY = "loadbalancing.googleapis.com/https/backend_latencies"
AGE = MonitoringMetric("custom.googleapis.com/age", None, Statistic.MAXIMUM, {"release": "{{release}}"})


def page(*points: tuple[int, dict[str, Any]], token: str = "") -> Scripted:
    told = [
        {"interval": {"startTime": "x", "endTime": GRID.start(number + 1).isoformat()}, "value": value}
        for number, value in points
    ]
    found: dict[str, Any] = {"timeSeries": [{"points": told}]} if told else {}
    return 200, json.dumps({**found, **({"nextPageToken": token} if token else {})}).encode()


def read(script: Script, metric: MonitoringMetric) -> tuple[Sample, ...]:
    return CloudMonitoring(script.gcp()).read(Context(clock=VirtualClock()), metric, GREEN, GRID)


def asked(script: Script, number: int = 0) -> dict[str, str]:
    url = urlsplit(str(script.asked[number].url))
    assert f"{url.scheme}://{url.netloc}{url.path}" == "https://monitoring.googleapis.com/v3/projects/p/timeSeries"
    return {name: values[0] for name, values in parse_qs(url.query).items()}


def test_a_percentile_is_one_of_the_whole_distribution() -> None:
    """Of the slot's backend service, over all of its series."""
    script = Script([page((1, {"doubleValue": 12.5}))])
    assert read(script, MonitoringMetric(LATENCY, None, Statistic.P99)) == (Sample(GRID.start(1), 12.5),)
    assert asked(script) == {
        "filter": f'metric.type = "{LATENCY}" AND resource.labels.backend_target_name = "osvd-0123456789-green"',
        "interval.startTime": "2030-01-01T12:00:00Z",
        "interval.endTime": "2030-01-01T12:03:00Z",
        "aggregation.alignmentPeriod": "60s",
        "aggregation.perSeriesAligner": "ALIGN_DELTA",
        "aggregation.crossSeriesReducer": "REDUCE_PERCENTILE_99",
    }


@pytest.mark.parametrize(
    ("metric", "statistic", "aligner", "reducer"),
    [
        (LATENCY, Statistic.AVERAGE, "ALIGN_DELTA", "REDUCE_MEAN"),
        ("custom.googleapis.com/age", Statistic.AVERAGE, "ALIGN_MEAN", "REDUCE_MEAN"),
        ("custom.googleapis.com/age", Statistic.MINIMUM, "ALIGN_MIN", "REDUCE_MIN"),
        ("custom.googleapis.com/jobs", Statistic.SUM, "ALIGN_DELTA", "REDUCE_SUM"),
    ],
)
def test_each_statistic_is_what_the_metric_s_kind_takes(
    metric: str, statistic: Statistic, aligner: str, reducer: str
) -> None:
    script = Script([page()])
    assert read(script, MonitoringMetric(metric, None, statistic, {"a": "b"})) == ()
    found = asked(script)
    assert (found["aggregation.perSeriesAligner"], found["aggregation.crossSeriesReducer"]) == (aligner, reducer)


def test_a_metric_of_ones_own_is_told_by_its_labels() -> None:
    """Numbers stand as numbers, texts in quotation marks, whatever is in them; pages are put together."""
    script = Script([page((0, {"int64Value": "4"}), token="t"), page((2, {"int64Value": "6"}))])
    labels = {"release": "{{release}}", "shard": "7", "odd": 'a"b'}
    found = read(script, MonitoringMetric("custom.googleapis.com/age", None, Statistic.MAXIMUM, labels))
    assert found == (Sample(GRID.start(0), 4.0), Sample(GRID.start(2), 6.0))
    assert asked(script)["filter"] == (
        'metric.type = "custom.googleapis.com/age" AND metric.labels.odd = "a\\"b" AND '
        'metric.labels.release = "hello-2-1a2b3c4d" AND metric.labels.shard = 7'
    )
    assert asked(script, 1)["pageToken"] == "t"


def test_what_it_is_counted_of_has_labels_of_its_own() -> None:
    script = Script([page(), page((0, {"int64Value": "5"}))])
    kind, labels = "custom.googleapis.com/jobs", {"release": "{{release}}"}
    own = MonitoringMetric(kind, kind, Statistic.SUM, {**labels, "failed": "yes"}, labels)
    assert read(script, own) == (Sample(GRID.start(0), 0.0, 5.0),)
    assert 'metric.labels.failed = "yes"' in asked(script)["filter"]
    assert asked(script, 1)["filter"].endswith(f'"{kind}" AND metric.labels.release = "hello-2-1a2b3c4d"')


@pytest.mark.parametrize(
    ("answer", "error", "told"),
    [
        (page((0, {"distributionValue": {"count": "3"}})), Refused, "is no number, but distributionValue"),
        ((404, b'{"error": {"message": "Cannot find metric(s)", "code": 404}}'), NotFound, "Cannot find metric"),
        ((403, b'{"error": {"message": "Permission denied", "code": 403}}'), Refused, "Permission denied"),
        ((503, b"{}"), Unavailable, "metric custom"),
        (requests.ConnectionError("reset"), Unavailable, "no answer from Google"),
    ],
)
def test_what_is_not_told_is_an_error_at_once(answer: Scripted, error: type[CloudError], told: str) -> None:
    """Each call is sent once: a rollout waits for it."""
    script = Script([answer])
    with pytest.raises(error, match=told):
        read(script, AGE)
    assert len(script.asked) == 1


def test_a_percentile_that_google_has_not_is_refused() -> None:
    with pytest.raises(Refused, match="has no p90"):
        read(Script([page()]), MonitoringMetric(LATENCY, None, Statistic.P90))
