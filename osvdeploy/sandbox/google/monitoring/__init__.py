"""Cloud Monitoring: how many requests balancers have counted, by backend service and class of answer.

Sources: Cloud Monitoring API v3 reference, projects.timeSeries.list and Aggregation; "Monitoring filters"; "Google
Cloud metrics", loadbalancing: which path is of which balancer, labels, DELTA counts that are sampled each minute.

Not documented, and decided here: intervals are laid out backwards from ``endTime``; an interval without requests has no
point; a minute can be read :data:`PUBLISHED` after its end (documented is "up to 210 seconds"); what a target was
chosen for and did not answer has the class of what the balancer answered.

Not simulated, and refused as such: other metrics of balancers, aligners and reducers, groups, secondary aggregations,
intervals between minutes, filters with anything but equations. Nobody writes metrics of their own here, so there are
none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from osvdeploy.sandbox.errors import ApiError, NotSimulated
from osvdeploy.sandbox.google.compute.resources import SERVICE, its_path
from osvdeploy.sandbox.services.scope import Doc, Operation, Scope
from osvdeploy.sandbox.traffic import MINUTE, Minute

PUBLISHED: Final = 120.0
"""Seconds from a minute's end until it can be read."""

_BALANCING = "loadbalancing.googleapis.com/"
_REQUESTS: Mapping[str, tuple[str, bool, str]] = {
    "https/": ("EXTERNAL", False, "https_lb_rule"),
    "https/external/regional/": ("EXTERNAL", True, "http_external_regional_lb_rule"),
    "https/internal/": ("INTERNAL", True, "internal_http_lb_rule"),
}
"""Of which balancers a path's ``request_count`` is: what their scheme begins with, whether they are a region's, and the
monitored resource."""

_EQUATION = re.compile(r'([a-z_.]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|(\w+))')


def list_time_series(scope: Scope, params: Mapping[str, Any]) -> Doc:
    project = params["name"].removeprefix("projects/")
    wanted = _conditions(params.get("filter", ""))
    kind = wanted.pop("metric.type", None)
    if kind is None:
        raise _invalid("Field filter had an invalid value: The filter must specify a single metric type.")
    start, end = _interval(params)
    _refuse_unsimulated(params)
    period = _period(params)
    if not kind.startswith(_BALANCING):
        told = f'Cannot find metric(s) that match type = "{kind}".'
        raise ApiError("notFound", told, 404)
    path, _, name = kind.removeprefix(_BALANCING).rpartition("/")
    if name != "request_count" or f"{path}/" not in _REQUESTS:
        raise NotSimulated(f"the metric {kind}")
    scheme, regional, resource = _REQUESTS[f"{path}/"]
    service, answers = wanted.pop("resource.labels.backend_target_name", None), wanted.pop("response_code_class", None)
    if wanted.pop("resource.type", resource) != resource:
        return {"unit": "1"}
    if wanted:
        raise NotSimulated(f"the filter {', '.join(wanted)}")
    counts: dict[datetime, int] = {}
    latest = scope.now - timedelta(seconds=PUBLISHED / scope.speed + MINUTE)
    for document in scope.all(SERVICE.store):
        its = document["resource"]
        here = its_path(SERVICE, document)
        if not here.startswith(f"projects/{project}/") or service not in (None, its["name"]):
            continue
        if not its["loadBalancingScheme"].startswith(scheme) or ("/regions/" in here) is not regional:
            continue
        for at, minute in scope.traffic.between(here, start, end):
            count = _count(minute, answers)
            if at <= latest and count:
                back = int((end - at).total_seconds() - 1) // period
                ends = end - timedelta(seconds=back * period)
                counts[ends] = counts.get(ends, 0) + count
    if not counts:
        return {"unit": "1"}
    points = [_point(ends, period, counts[ends]) for ends in sorted(counts, reverse=True)]
    series = {
        "metric": {"type": kind},
        "resource": {"type": resource, "labels": {"project_id": project}},
        "metricKind": "DELTA",
        "valueType": "INT64",
        "points": points,
    }
    return {"timeSeries": [series], "unit": "1"}


def _conditions(text: str) -> dict[str, str]:
    """A filter's equations; ``metric.labels.response_code_class`` by its last part."""
    found: dict[str, str] = {}
    rest = text.strip()
    while rest:
        equation = _EQUATION.match(rest)
        if equation is None:
            raise NotSimulated(f"the filter {rest}")
        key = equation[1].replace(".label.", ".labels.").removeprefix("metric.labels.")
        found[key] = equation[3] or re.sub(r"\\(.)", r"\1", equation[2])
        rest = re.sub(r"^\s+(?:AND\s+)?", "", rest[equation.end() :])
    return found


def _interval(params: Mapping[str, Any]) -> tuple[datetime, datetime]:
    if "interval.endTime" not in params:
        raise _invalid("Field interval.endTime had an invalid value: The end time must be specified.")
    end = datetime.fromisoformat(params["interval.endTime"])
    start = datetime.fromisoformat(params.get("interval.startTime", params["interval.endTime"]))
    if start > end:
        raise _invalid("Field interval.startTime had an invalid value: The start time must be before the end time.")
    return start.astimezone(UTC), end.astimezone(UTC)


def _refuse_unsimulated(params: Mapping[str, Any]) -> None:
    aligner = params.get("aggregation.perSeriesAligner", "ALIGN_NONE")
    reducer = params.get("aggregation.crossSeriesReducer", "REDUCE_NONE")
    if aligner in ("ALIGN_MEAN", "ALIGN_PERCENTILE_99") or reducer.startswith("REDUCE_PERCENTILE"):
        raise NotSimulated(f"{aligner} and {reducer} of a count")
    if reducer != "REDUCE_NONE" and aligner == "ALIGN_NONE":
        raise _invalid("Field aggregation.perSeriesAligner had an invalid value: A reducer needs an aligner.")
    if (aligner, reducer) != ("ALIGN_DELTA", "REDUCE_SUM"):
        raise NotSimulated(f"{aligner} with {reducer}")


def _period(params: Mapping[str, Any]) -> int:
    written = re.fullmatch(r"(\d+)s", params.get("aggregation.alignmentPeriod", ""))
    if written is None or int(written[1]) < MINUTE:
        told = "The alignment period must be at least 60 seconds."
        raise _invalid(f"Field aggregation.alignmentPeriod had an invalid value: {told}")
    end = datetime.fromisoformat(params["interval.endTime"])
    if int(written[1]) % MINUTE or end.timestamp() % MINUTE:
        raise NotSimulated("intervals between minutes")
    return int(written[1])


def _count(minute: Minute, answers: str | None) -> int:
    if answers is None:
        return minute.requests
    both = (*minute.answers.items(), *minute.failed.items())
    return sum(count for status, count in both if status // 100 * 100 == int(answers))


def _point(ends: datetime, period: int, count: int) -> Doc:
    began = ends - timedelta(seconds=period)
    return {
        "interval": {"startTime": _written(began), "endTime": _written(ends)},
        "value": {"int64Value": str(count)},
    }


def _written(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def _invalid(message: str) -> ApiError:
    return ApiError("badRequest", message)


OPERATIONS: Mapping[str, Operation] = {"projects.timeSeries.list": list_time_series}

PARAMETERS: Mapping[str, str] = {
    "projects.timeSeries.list": "$base name filter interval.startTime interval.endTime aggregation.alignmentPeriod "
    "aggregation.perSeriesAligner aggregation.crossSeriesReducer"
}
