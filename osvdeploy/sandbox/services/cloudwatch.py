"""CloudWatch: the metrics of application load balancers, of what the data plane really counted.

Sources: CloudWatch API reference, GetMetricData; Application Load Balancers user guide, "CloudWatch metrics for your
Application Load Balancer": dimensions, reporting criteria (counts and times are reported where they are not zero, and
only while requests flow), most useful statistics. A metric that nobody has published is no error: it has no data.

Not documented, and decided here: a minute can be read :data:`PUBLISHED` after its end, never in part. Real figures are
seen within a minute or two.

Not simulated, and refused as such: expressions, periods below a minute and starts between two periods, statistics
other than the useful ones, availability zones, other metrics of balancers, accounts, pages. Nobody publishes metrics of
their own here, so that of any other namespace there are none.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import accumulate
from typing import Any, Final

from osvdeploy.sandbox.errors import ApiError, NotSimulated
from osvdeploy.sandbox.services import elbv2
from osvdeploy.sandbox.services.scope import Doc, Operation, Scope
from osvdeploy.sandbox.traffic import MINUTE, Minute

PUBLISHED: Final = 60.0
"""Seconds from a minute's end until it can be read."""

NAMESPACE: Final = "AWS/ApplicationELB"
MOST_QUERIES: Final = 500
_BALANCER, _GROUP = "LoadBalancer", "TargetGroup"


@dataclass(frozen=True, slots=True)
class _Point:
    """What CloudWatch keeps of one minute: the sum, and how often there was each value, where that is told."""

    total: float
    values: Counter[float] = field(default_factory=Counter)


_Read = Callable[[Minute], _Point | None]


def _count(found: Callable[[Minute], int]) -> _Read:
    def read(minute: Minute) -> _Point | None:
        count = found(minute)
        return _Point(float(count)) if count else None

    return read


def _times(minute: Minute) -> _Point | None:
    total = sum(seconds * count for seconds, count in minute.seconds.items())
    return _Point(total, Counter(minute.seconds)) if minute.seconds else None


def _answered(hundred: int, minute: Minute) -> int:
    return minute.answered(hundred)


_REQUESTS: Mapping[str, _Read] = {
    "RequestCount": _count(lambda minute: minute.requests),
    "TargetConnectionErrorCount": _count(lambda minute: minute.unconnected),
    "TargetResponseTime": _times,
    **{f"HTTPCode_Target_{each}XX_Count": _count(partial(_answered, each)) for each in range(2, 6)},
}
"""Of a target group, or of all of a balancer's."""

_HOSTS = {"HealthyHostCount": 1, "UnHealthyHostCount": 2}
"""Of a target group; where in a note of its health they stand."""


def get_metric_data(scope: Scope, params: Mapping[str, Any]) -> Doc:
    queries, start, end = params["MetricDataQueries"], params["StartTime"], params["EndTime"]
    start, end = (_aware(each) for each in (start, end))
    if not queries:
        raise _invalid("The parameter MetricDataQueries is required.")
    if len(queries) > MOST_QUERIES:
        raise _invalid(f"The collection MetricDataQueries must not have a size greater than {MOST_QUERIES}.")
    if start >= end:
        raise _invalid("The parameter StartTime must be less than the parameter EndTime.")
    if params.get("NextToken") is not None:
        raise ApiError("InvalidNextToken", "The next token specified is invalid.")
    ids = [query["Id"] for query in queries]
    if len(set(ids)) < len(ids):
        raise _invalid("The values for parameter id in MetricDataQueries are not unique.")
    # "Round down to the nearest whole minute."
    start = start.replace(second=0, microsecond=0)
    ascending = params.get("ScanBy") == "TimestampAscending"
    found = [_result(scope, query, start, end, ascending=ascending) for query in queries]
    return {"MetricDataResults": [each for each in found if each is not None], "Messages": []}


def _result(scope: Scope, query: Mapping[str, Any], start: datetime, end: datetime, *, ascending: bool) -> Doc | None:
    if re.fullmatch(r"[a-z][a-zA-Z0-9_]*", query["Id"]) is None:
        raise _invalid(
            f"The value {query['Id']} for parameter MetricDataQueries.member.Id is not matching the expected pattern."
        )
    asked = query.get("MetricStat")
    if query.get("Expression") is not None:
        raise NotSimulated("metric math and Metrics Insights")
    if asked is None:
        raise _invalid("Either MetricStat or Expression must be specified in a MetricDataQuery.")
    metric = asked["Metric"]
    name, namespace = metric.get("MetricName"), metric.get("Namespace")
    if name is None or namespace is None:
        raise _invalid("The parameters MetricStat.Metric.MetricName and MetricStat.Metric.Namespace are required.")
    period = _period(asked["Period"])
    dimensions = {each["Name"]: each["Value"] for each in metric.get("Dimensions") or []}
    visible = min(end, scope.now - timedelta(seconds=PUBLISHED / scope.speed + MINUTE) + timedelta(microseconds=1))
    points: Iterator[tuple[datetime, _Point]] = iter(())
    if namespace == NAMESPACE:
        points = _points(scope, name, dimensions, start, visible)
    by_period: dict[datetime, list[_Point]] = {}
    for at, point in points:
        begins = datetime.fromtimestamp(int(at.timestamp()) // period * period, UTC)
        by_period.setdefault(begins, []).append(point)
    if by_period and start.timestamp() % period:
        raise NotSimulated("a StartTime that is no multiple of the Period")
    if query.get("ReturnData") is False:
        return None
    times = sorted(by_period, reverse=not ascending)
    values = [_statistic(name, asked["Stat"], by_period[at]) for at in times]
    return {
        "Id": query["Id"],
        "Label": query.get("Label") or name,
        "Timestamps": times,
        "Values": values,
        "StatusCode": "Complete",
    }


def _period(period: int) -> int:
    if period < MINUTE:
        if period not in (1, 5, 10, 20, 30):
            raise _invalid(f"The parameter Period must be 1, 5, 10, 20, 30, or a multiple of 60: {period}")
        raise NotSimulated("periods below a minute")
    if period % MINUTE:
        raise _invalid(f"The parameter Period must be 1, 5, 10, 20, 30, or a multiple of 60: {period}")
    return period


def _points(
    scope: Scope, name: str, dimensions: Mapping[str, str], start: datetime, end: datetime
) -> Iterator[tuple[datetime, _Point]]:
    """A metric's minutes that begin at ``start`` or later and before ``end``."""
    if "AvailabilityZone" in dimensions:
        raise NotSimulated("metrics by availability zone")
    if name not in _REQUESTS and name not in _HOSTS:
        raise NotSimulated(f"the metric {name} of {NAMESPACE}")
    groups = _groups(scope, dimensions)
    if name in _HOSTS:
        if set(dimensions) == {_BALANCER, _GROUP}:
            for group in groups:
                yield from _hosts(scope, group, _HOSTS[name], start, end)
        return
    merged: dict[datetime, _Point] = {}
    for group in groups:
        for at, minute in scope.traffic.between(group, start, end):
            point = _REQUESTS[name](minute)
            if point is not None:
                before = merged.get(at, _Point(0.0))
                merged[at] = _Point(before.total + point.total, before.values + point.values)
    yield from merged.items()


def _groups(scope: Scope, dimensions: Mapping[str, str]) -> list[str]:
    """ARNs of the target groups that dimensions mean: exactly those that something is published by."""
    balancers = [
        arn
        for each in scope.all(elbv2.BALANCER)
        if (arn := each["LoadBalancerArn"]).endswith(f":loadbalancer/{dimensions.get(_BALANCER)}")
    ]
    groups = [str(each["TargetGroupArn"]) for each in scope.all(elbv2.GROUP)]
    if set(dimensions) == {_BALANCER, _GROUP}:
        groups = [arn for arn in groups if arn.endswith(f":{dimensions[_GROUP]}")]
    elif set(dimensions) != {_BALANCER}:
        return []
    return [arn for arn in groups if set(elbv2.balancers_of(scope, arn)) & set(balancers)]


def _hosts(scope: Scope, group: str, which: int, start: datetime, end: datetime) -> Iterator[tuple[datetime, _Point]]:
    """How many hosts there were at each minute's end."""
    document = scope.get(elbv2.HOSTS_SEEN, group)
    seen = [(datetime.fromisoformat(note[0]), float(note[which])) for note in (document or {"seen": []})["seen"]]
    at = start
    while at < end:
        ended = at + timedelta(seconds=MINUTE)
        last = next((count for since, count in reversed(seen) if since <= ended), None)
        if last is not None:
            yield at, _Point(last, Counter([last]))
        at = ended


def _statistic(name: str, stat: str, points: Sequence[_Point]) -> float:
    counted = name not in _HOSTS and name != "TargetResponseTime"
    values = sum((point.values for point in points), Counter[float]())
    many = values.total()
    if counted and stat != "Sum":
        raise NotSimulated(f"the statistic {stat} of {name}")
    match stat:
        case "Sum":
            return sum(point.total for point in points)
        case "Average":
            return sum(point.total for point in points) / many
        case "Minimum":
            return min(values)
        case "Maximum":
            return max(values)
        case "SampleCount":
            return float(many)
    percentile = re.fullmatch(r"p(\d{1,2}(?:\.\d{1,2})?|100)", stat)
    if percentile is None:
        if re.fullmatch(r"(?:p|tm|wm|tc|ts|pr|iqm|TM|WM|TC|TS|PR|IQM).*", stat):
            raise NotSimulated(f"the statistic {stat}")
        raise _invalid(f"The value {stat} for parameter MetricDataQueries.member.MetricStat.Stat is not supported.")
    wanted = max(1, math.ceil(many * float(percentile[1]) / 100))
    below = accumulate(values[value] for value in sorted(values))
    return next(value for value, rank in zip(sorted(values), below, strict=True) if rank >= wanted)


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _invalid(message: str) -> ApiError:
    return ApiError("ValidationError", message)


OPERATIONS: Mapping[str, Operation] = {"GetMetricData": get_metric_data}

PARAMETERS: Mapping[str, str] = {
    "GetMetricData": "MetricDataQueries.Id MetricDataQueries.MetricStat.Metric MetricDataQueries.MetricStat.Period "
    "MetricDataQueries.MetricStat.Stat MetricDataQueries.Expression MetricDataQueries.Label "
    "MetricDataQueries.ReturnData StartTime EndTime ScanBy NextToken"
}
