"""Cloud Monitoring: what balancers counted, told late and strictly."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import pytest

from osvdeploy.sandbox.google import monitoring
from tests.sandbox.google.fleet import PORT, REGION, Service
from tests.sandbox.refusal_sites import met, missed

ROOT = "https://monitoring.googleapis.com/v3/projects/p/timeSeries"
REQUESTS = "loadbalancing.googleapis.com/https/request_count"


@pytest.fixture(scope="module")
def busy() -> Service:
    """Two minutes of requests to blue, one in five of the second failed, and time for them to be told."""
    service = Service()
    service.wait(120)
    service.wait(60 - service.clock.now().second)
    for _ in range(10):
        service.http.get(service.address, PORT, "/")
        service.wait(12)
    service.sandbox.traffic.failed(blue("global"), 503, service.clock.now() - timedelta(seconds=30), connected=True)
    service.wait(monitoring.PUBLISHED)
    return service


def blue(place: str) -> str:
    return f"projects/p/{place}/backendServices/blue"


def asked(service: Service, **changes: Any) -> dict[str, str]:
    end = service.clock.now().replace(second=0)
    kind = changes.pop("kind", REQUESTS)
    also = changes.pop("also", "")
    return {
        "filter": f'metric.type = "{kind}" AND resource.labels.backend_target_name = "blue"{also}',
        "interval.startTime": written(end - timedelta(minutes=20)),
        "interval.endTime": written(end),
        "aggregation.alignmentPeriod": "60s",
        "aggregation.perSeriesAligner": "ALIGN_DELTA",
        "aggregation.crossSeriesReducer": "REDUCE_SUM",
        **{name.replace("__", "."): value for name, value in changes.items()},
    }


def written(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def points(service: Service, **changes: Any) -> list[tuple[str, str]]:
    answer = service.ask("GET", f"{ROOT}?{query(asked(service, **changes))}")
    assert answer.ok, answer.text
    series = answer.json().get("timeSeries", [])
    assert len(series) <= 1
    return [(point["interval"]["endTime"], point["value"]["int64Value"]) for each in series for point in each["points"]]


def query(values: dict[str, str]) -> str:
    return urlencode(values)


def test_requests_are_told_by_minute_newest_first(busy: Service) -> None:
    """With those that the balancer answered in place of a machine; a minute without any has no point."""
    assert [count for _, count in points(busy)] == ["6", "5"]
    (last, _), (first, _) = points(busy)
    assert datetime.fromisoformat(last) - datetime.fromisoformat(first) == timedelta(minutes=1)


def test_a_class_of_answers_is_a_number(busy: Service) -> None:
    """In quotation marks or not."""
    for label in ("metric.labels.response_code_class = 500", 'metric.label.response_code_class="500"'):
        assert [count for _, count in points(busy, also=f" AND {label}")] == ["1"]
    assert points(busy, also=" AND metric.labels.response_code_class = 400") == []
    assert [count for _, count in points(busy, also=' AND resource.type = "https_lb_rule"')] == ["6", "5"]


def test_longer_intervals_end_where_the_call_says(busy: Service) -> None:
    """They are laid out backwards from its end."""
    (ends, count), *_ = points(busy)
    at = datetime.fromisoformat(ends)
    found = points(busy, interval__endTime=written(at), aggregation__alignmentPeriod="120s")
    assert (found, count) == ([(ends, "11")], "6")


def test_another_balancer_s_path_has_nothing_of_it(busy: Service) -> None:
    for other in ("external/regional", "internal"):
        assert points(busy, kind=f"loadbalancing.googleapis.com/https/{other}/request_count") == []


def test_a_minute_is_told_two_minutes_late() -> None:
    """Of a regional balancer, by its own path."""
    service = Service(REGION)
    service.wait(120)
    service.wait(60 - service.clock.now().second)
    service.http.get(service.address, PORT, "/")
    kind = "loadbalancing.googleapis.com/https/external/regional/request_count"
    service.wait(60 + monitoring.PUBLISHED - 1)
    assert points(service, kind=kind) == []
    service.wait(1)
    assert [count for _, count in points(service, kind=kind)] == ["1"]


REFUSED: list[tuple[dict[str, Any], int, str]] = [
    ({"filter": 'resource.type = "https_lb_rule"'}, 400, "must specify a single metric type"),
    ({"interval__endTime": "2000-01-01T00:00:00Z"}, 400, "start time must be before the end time"),
    ({"aggregation__alignmentPeriod": "30s"}, 400, "at least 60 seconds"),
    ({"aggregation__perSeriesAligner": "ALIGN_NONE"}, 400, "A reducer needs an aligner"),
    ({"kind": "custom.googleapis.com/mine"}, 404, "Cannot find metric"),
    ({"aggregation__crossSeriesReducer": "REDUCE_MEDIAN"}, 400, "REDUCE_MEDIAN"),
    ({"kind": "loadbalancing.googleapis.com/https/total_latencies"}, 400, "does not simulate the metric"),
    ({"also": " OR metric.labels.response_code_class = 500"}, 400, "does not simulate the filter"),
    ({"also": ' AND metric.labels.cache_result = "HIT"'}, 400, "does not simulate the filter cache_result"),
    ({"aggregation__perSeriesAligner": "ALIGN_RATE"}, 400, "does not simulate ALIGN_RATE"),
    ({"aggregation__alignmentPeriod": "90s"}, 400, "does not simulate intervals between minutes"),
    ({"aggregation__groupByFields": "resource.zone"}, 400, "does not simulate the parameter"),
]


@pytest.mark.parametrize(("changes", "status", "told"), REFUSED)
def test_what_cannot_be_asked_is_refused(busy: Service, changes: dict[str, Any], status: int, told: str) -> None:
    answer = busy.ask("GET", f"{ROOT}?{query(asked(busy, **changes))}")
    assert (answer.status_code, told in answer.text) == (status, True), answer.text


def test_an_interval_has_an_end(busy: Service) -> None:
    without = {name: value for name, value in asked(busy).items() if name != "interval.endTime"}
    answer = busy.ask("GET", f"{ROOT}?{query(without)}")
    assert (answer.status_code, "end time must be specified" in answer.text) == (400, True)


def test_no_refusal_is_without_a_row(busy: Service) -> None:
    """Whatever the simulator refuses by itself, a row or a test has asked for."""
    with met() as found:
        for changes, _, _ in REFUSED:
            busy.ask("GET", f"{ROOT}?{query(asked(busy, **changes))}")
        test_an_interval_has_an_end(busy)
    assert missed(found, "google/monitoring/__init__.py") == []
