"""CloudWatch where the simulator has no reason to do it: pages, partial answers, refusals."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from osvdeploy.cloud.aws.metrics import CloudWatch
from osvdeploy.cloud.interfaces import (
    CloudWatchMetric,
    Grid,
    HealthRule,
    Measured,
    Metric,
    ReleaseId,
    Route,
    Sample,
    Slot,
    Statistic,
)
from osvdeploy.context import Context, VirtualClock
from osvdeploy.errors import CloudError, Refused, Unavailable
from tests.cloud.aws.script import No, Script

BEGAN = datetime(2030, 1, 1, 12, tzinfo=UTC)
GRID = Grid(BEGAN, 60.0, 3)
LISTENER = "arn:aws:elasticloadbalancing:eu-west-1:123456789012:listener/app/web/0123456789abcdef/fedcba9876543210"
ROUTE = Route("0123456789", "hello/production", LISTENER, 100, 8080, HealthRule("/", 5.0, 2.0), "x-preview")
GREEN = Measured(ROUTE, Slot.GREEN, ReleaseId("hello-2-1a2b3c4d"), "osvd-g")
OWN = CloudWatchMetric("Age", "Jobs", Statistic.SUM, "Orders", {"Release": "{{release}}"})


def page(metric: str, minutes: dict[int, float], status: str = "Complete", token: str | None = None) -> dict[str, Any]:
    result = {
        "Id": metric,
        "Timestamps": [BEGAN + timedelta(minutes=each) for each in minutes],
        "Values": list(minutes.values()),
        "StatusCode": status,
        "Messages": [{"Code": "Forbidden", "Value": "too complex"}] if status == "Forbidden" else [],
    }
    return {"MetricDataResults": [result], **({"NextToken": token} if token else {})}


def read(script: Script, metric: Metric = OWN) -> tuple[Sample, ...]:
    return CloudWatch(script.aws()).read(Context(clock=VirtualClock()), metric, GREEN, GRID)


def test_pages_are_put_together() -> None:
    """Of both metrics, in whatever order; what is of no interval of ours is left out."""
    pages = [
        page("per", {0: 10}, "PartialData", "a"),
        page("value", {2: 3, 7: 9}, "PartialData", "b"),
        page("per", {2: 30, 1: 0, -1: 5}),
    ]
    script = Script({"GetMetricData": pages})
    assert read(script) == (Sample(GRID.start(0), 0.0, 10.0), Sample(GRID.start(2), 3.0, 30.0))
    assert script.asked == ["GetMetricData"] * 3


def test_a_slot_without_a_target_group_has_no_metrics() -> None:
    """CloudWatch is not asked for what cannot be."""
    script = Script({"DescribeTargetGroups": [No("TargetGroupNotFound")]})
    assert read(script, CloudWatchMetric("TargetResponseTime", None, Statistic.P99)) == ()


@pytest.mark.parametrize(
    ("answer", "error", "told"),
    [
        (page("value", {}, "Forbidden"), Refused, "CloudWatch does not show it"),
        (page("value", {}, "InternalError"), Unavailable, "CloudWatch could not read it"),
        (No("AccessDenied", 403), Refused, "AWS refused GetMetricData"),
        (No("ThrottlingException"), Unavailable, "could not do GetMetricData now"),
        (No("InternalServiceError", 500), Unavailable, "could not do GetMetricData now"),
    ],
)
def test_what_is_not_told_is_an_error_at_once(answer: dict[str, Any] | No, error: type[CloudError], told: str) -> None:
    """Each call is sent once: a rollout waits for it."""
    script = Script({"GetMetricData": [answer]})
    with pytest.raises(error, match=f"metric Age: .*{told}"):
        read(script)
    assert script.asked == ["GetMetricData"]
