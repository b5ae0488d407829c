"""Metrics on AWS: CloudWatch's, of a slot's target group or of the user's own namespace.

Sources: CloudWatch API reference, GetMetricData (500 queries, pages; StartTime is inclusive and EndTime is not, a
point's time is its period's beginning); Application Load Balancers user guide, "CloudWatch metrics for your Application
Load Balancer": metrics of one target group have the dimensions LoadBalancer and TargetGroup, each the end of its ARN. A
count that is zero is not reported, so that no errors are no data: only what they are counted of tells which it is.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from osvdeploy.cloud.aws.router import group_name
from osvdeploy.cloud.aws.session import Aws
from osvdeploy.cloud.interfaces import CloudWatchMetric, Grid, Measured, Metric, Sample, Statistic
from osvdeploy.cloud.samples import samples_of
from osvdeploy.context import Context
from osvdeploy.errors import NotFound, Refused, Unavailable

if TYPE_CHECKING:
    from mypy_boto3_cloudwatch.type_defs import DimensionTypeDef, MetricDataQueryTypeDef

NAMESPACE = "AWS/ApplicationELB"

_STATISTICS = {
    Statistic.SUM: "Sum",
    Statistic.AVERAGE: "Average",
    Statistic.MINIMUM: "Minimum",
    Statistic.MAXIMUM: "Maximum",
}
"""CloudWatch's names; percentiles are called alike."""

_VALUE, _PER = "value", "per"


class CloudWatch:
    """:class:`~osvdeploy.cloud.interfaces.Metrics` of one region.

    Each call is sent once: a rollout waits for it and has a lease to renew, and whoever reads metrics reads them again
    anyway.
    """

    def __init__(self, aws: Aws) -> None:
        self._aws = aws

    def refuse_unready(self, ctx: Context, metric: Metric) -> None:
        """Whether it may be read, only reading tells."""

    def read(self, ctx: Context, metric: Metric, measured: Measured, grid: Grid) -> tuple[Sample, ...]:
        if not isinstance(metric, CloudWatchMetric):
            raise Refused(f"{metric.kind} is no metric of CloudWatch's")
        if grid.count == 0:
            return ()
        dimensions = self._dimensions(ctx, metric, measured, grid.interval)
        if dimensions is None:
            return ()
        wanted = {_VALUE: metric.name, **({_PER: metric.per} if metric.per is not None else {})}
        queries = [self._query(name, asked, metric, dimensions, grid) for name, asked in wanted.items()]
        found: dict[str, dict[datetime, float]] = {name: {} for name in wanted}
        with self._aws.calling(ctx, f"metric {metric.name}", attempts=1):
            pages = self._aws.cloudwatch.get_paginator("get_metric_data").paginate(
                MetricDataQueries=queries, StartTime=grid.begin, EndTime=grid.end, ScanBy="TimestampAscending"
            )
            for page in pages:
                for result in page["MetricDataResults"]:
                    _refuse_failed(metric, result.get("StatusCode", "Complete"), result.get("Messages", []))
                    times = [each.astimezone(UTC) for each in result.get("Timestamps", [])]
                    found[result["Id"]] |= dict(zip(times, result.get("Values", []), strict=True))
        return samples_of(grid, found[_VALUE], found.get(_PER))

    def requests(self, ctx: Context, measured: Measured, grid: Grid) -> tuple[Sample, ...]:
        return self.read(ctx, CloudWatchMetric("RequestCount", None, Statistic.SUM), measured, grid)

    def _dimensions(
        self, ctx: Context, metric: CloudWatchMetric, measured: Measured, interval: float
    ) -> list[DimensionTypeDef] | None:
        """What tells the metric from others of its name; None where there is no target group, and so no metric."""
        if metric.namespace is not None:
            return [
                {"Name": name, "Value": measured.filled(value, interval)} for name, value in metric.dimensions.items()
            ]
        name = group_name(measured.route, measured.slot)
        try:
            with self._aws.calling(ctx, f"target group {name}", attempts=1):
                groups = self._aws.elbv2.describe_target_groups(Names=[name])["TargetGroups"]
        except NotFound:
            return None
        balancer = "/".join(measured.route.listener.rpartition(":listener/")[2].split("/")[:3])
        group = groups[0]["TargetGroupArn"].rpartition(":")[2]
        return [{"Name": "LoadBalancer", "Value": balancer}, {"Name": "TargetGroup", "Value": group}]

    def _query(
        self, name: str, asked: str, metric: CloudWatchMetric, dimensions: list[DimensionTypeDef], grid: Grid
    ) -> MetricDataQueryTypeDef:
        return {
            "Id": name,
            "MetricStat": {
                "Metric": {
                    "Namespace": metric.namespace or NAMESPACE,
                    "MetricName": asked,
                    "Dimensions": dimensions,
                },
                "Period": round(grid.interval),
                "Stat": _STATISTICS.get(metric.statistic, metric.statistic.value),
            },
        }


def _refuse_failed(metric: CloudWatchMetric, status: str, messages: object) -> None:
    if status == "Forbidden":
        raise Refused(
            f"metric {metric.name}: CloudWatch does not show it: {messages}",
            operation="GetMetricData",
            code=status,
            hint="allow the action cloudwatch:GetMetricData",
        )
    if status == "InternalError":
        raise Unavailable(
            f"metric {metric.name}: CloudWatch could not read it: {messages}", operation="GetMetricData", code=status
        )
