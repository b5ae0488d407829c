"""Metric gates as a program declares them, and as they come back from a ledger.

The declaration has the names, choices and words of the spec's model, and no defaults: what was left out is for that
model to fill in, since it takes some keys only beside others. Two declarations are compared by what a rollout has of
them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from osvdeploy.cloud.interfaces import (
    CloudWatchMetric,
    CommandMetric,
    JsonMetric,
    Metric,
    MonitoringMetric,
    PrometheusMetric,
    Statistic,
)
from osvdeploy.errors import SpecError
from osvdeploy.provider.declare import Nested, declared, prop
from osvdeploy.provider.spelling import beside_the_program, plain, spell
from osvdeploy.provider.values import UNKNOWN, is_known
from osvdeploy.rollout.gates import Compared, GateStage, NoData

if TYPE_CHECKING:
    from osvdeploy.rollout.gates import Gate

LONGEST_NAME = 60
"""Characters that a spec lets a gate's name have; one that is called after its metric may have more."""


class GateBaseline(StrEnum):
    """What a release is compared with."""

    STABLE = "stable"


@declared
class DeploymentGateMetric(Nested):
    """What is measured, and what it is held to. The source is one of cloudwatch, cloudMonitoring, prometheus, json and
    command. In texts {{release}}, {{slot}}, {{group}} and {{interval}} are filled in. Durations carry their unit:
    `90s`, `5m`."""

    MODULE: ClassVar[str] = "index"

    cloudwatch: str | None = prop(
        "A metric of CloudWatch, such as HTTPCode_Target_5XX_Count: of the release's target group, unless namespace "
        "says otherwise.",
        default=None,
    )
    cloud_monitoring: str | None = prop(
        "A metric type of Cloud Monitoring, such as loadbalancing.googleapis.com/https/request_count: one of a "
        "balancer is that of the release's backend service.",
        default=None,
    )
    prometheus: str | None = prop(
        "The address of a Prometheus, or of what answers its HTTP API; needs query.", default=None
    )
    json: str | None = prop("The address of a JSON document; needs pointer.", default=None)
    command: tuple[str, ...] | None = prop(
        "A program of this host and its arguments, as words; no shell. It prints a number; any other exit status than "
        "0 means that it cannot tell. The provider starts it, on the machine that `pulumi up` runs on; a path with a "
        "slash is relative to the program's folder.",
        default=None,
    )
    per: str | None = prop(
        "What the metric is counted of: a metric or query of the same source. Both are then counts, and their ratio is "
        "judged.",
        default=None,
    )
    query: str | None = prop(
        "In PromQL, one number at each time; {{release}}, {{slot}}, {{group}} and {{interval}} are filled in.",
        default=None,
    )
    pointer: str | None = prop(
        'Where in the document the number stands, as a JSON pointer; "" is all of it.', default=None
    )
    statistic: Statistic | None = prop("Of each interval; left out: sum with per, else average.", default=None)
    namespace: str | None = prop(
        "Of a metric that is not a target group's; needs dimensions that tell releases apart.", default=None
    )
    dimensions: Mapping[str, str] | None = prop("Dimensions of a metric of another namespace.", default=None)
    labels: Mapping[str, str] | None = prop(
        "Labels that the metric must have, such as response_code_class = 500.", default=None
    )
    per_labels: Mapping[str, str] | None = prop("Labels that what it is counted of must have.", default=None)
    token_variable: str | None = prop(
        "The environment variable of whoever deploys that holds a bearer token.", default=None
    )
    max: float | None = prop("The most that the metric, or the ratio, may be.", default=None)
    min: float | None = prop("The least that it may be.", default=None)
    against: GateBaseline | None = prop(
        "Compare with the release that served before, over the same time.", default=None
    )
    max_ratio: float | None = prop("With against: at most so many times what stable has.", default=None)
    min_ratio: float | None = prop("With against: at least so many times what stable has.", default=None)
    max_difference: float | None = prop("With against: at most so much more than stable.", default=None)
    min_difference: float | None = prop(
        "With against: at least so much more than stable; mostly below 0.", default=None
    )
    confidence: float | None = prop(
        "With per: how sure it must be that the bound is broken; 0.5 to 0.9999. Left out: 0.95.", default=None
    )
    interval: str | None = prop(
        "Each of these is one sample; whole minutes for a cloud's metrics, else whole seconds, 5s or more. Left out: "
        "60s.",
        default=None,
    )
    window: str | None = prop("How far back samples count; left out: to the beginning of the bake.", default=None)
    delay: str | None = prop(
        "How long after an interval its metrics can be read; left out: 2m for CloudWatch, 4m for Cloud Monitoring, 30s "
        "for Prometheus, else none.",
        default=None,
    )
    min_samples: int | None = prop(
        "What it passes with at least; a bake is as long as these take. Left out: 3.", default=None
    )
    no_data: NoData | None = prop("What fewer samples at the end of the bake mean. Left out: fail.", default=None)


@declared
class DeploymentGate(Nested):
    """A metric that a new release is held to while it bakes."""

    MODULE: ClassVar[str] = "index"

    metric: DeploymentGateMetric = prop("What is measured, and what it is held to.")
    name: str | None = prop("What it is called in the record; left out: after its metric.", default=None)
    on: tuple[GateStage, ...] | None = prop(
        "When: while the release bakes with a share of the traffic (step), with all of it (bake). Left out: both, and "
        "a comparison with stable in steps alone, while that has requests.",
        default=None,
    )
    dry_run: bool = prop("Measure and tell, and decide nothing.", default=False)


def as_a_rollout_has_it(gate: DeploymentGate) -> Any:
    """The gate with all that follows from what it says in its place, so that what is compared differs in what it means.
    Itself where no check has let it through; UNKNOWN where any of it is."""
    if not is_known(gate):
        return UNKNOWN
    from osvdeploy.api.declared import gate_for
    from osvdeploy.spec import gate_of_document

    told = plain(gate)
    assert isinstance(told, dict)
    try:
        return spelled_out(gate_for(gate_of_document(told), Path.cwd()))
    except SpecError:
        return gate


def spelled_out(gate: Gate) -> DeploymentGate:
    """A rollout's gate with everything said that it has."""
    limits = {(each.compared, each.upper): each.limit for each in gate.bounds}
    source = _source(gate.metric)
    metric = DeploymentGateMetric(
        **source,
        max=limits.get((Compared.VALUE, True)),
        min=limits.get((Compared.VALUE, False)),
        against=GateBaseline.STABLE if gate.against_stable else None,
        max_ratio=limits.get((Compared.RATIO, True)),
        min_ratio=limits.get((Compared.RATIO, False)),
        max_difference=limits.get((Compared.DIFFERENCE, True)),
        min_difference=limits.get((Compared.DIFFERENCE, False)),
        confidence=gate.confidence if source.get("per") is not None else None,
        interval=spell(gate.interval),
        window=spell(gate.window) if gate.window is not None else None,
        delay=spell(gate.delay),
        min_samples=gate.min_samples,
        no_data=gate.no_data,
    )
    stages = tuple(stage for stage in GateStage if stage in gate.on)
    return DeploymentGate(name=gate.name, metric=metric, on=stages, dry_run=gate.dry_run)


def as_one_writes_it(gate: Gate) -> DeploymentGate:
    """A rollout's gate as a program declares it: without what follows from the rest."""
    whole = shortest = spelled_out(gate)

    def without() -> Iterator[DeploymentGate]:
        # The name first: one that is made of the metric may be longer than one that is given.
        yield replace(shortest, name=None)
        yield replace(shortest, on=None)
        for each in fields(DeploymentGateMetric):
            yield replace(shortest, metric=replace(shortest.metric, **{each.name: None}))

    for tried in without():
        if as_a_rollout_has_it(tried) == whole:
            shortest = tried
    return replace(shortest, name=shortest.name[:LONGEST_NAME]) if shortest.name is not None else shortest


def _source(metric: Metric) -> dict[str, Any]:
    match metric:
        case CloudWatchMetric():
            return {
                "cloudwatch": metric.name, "per": metric.per, "statistic": metric.statistic,
                "namespace": metric.namespace, "dimensions": dict(metric.dimensions) or None,
            }  # fmt: skip
        case MonitoringMetric():
            return {
                "cloud_monitoring": metric.type, "per": metric.per, "statistic": metric.statistic,
                "labels": dict(metric.labels) or None, "per_labels": dict(metric.per_labels) or None,
            }  # fmt: skip
        case PrometheusMetric():
            return {
                "prometheus": metric.address, "query": metric.query, "per": metric.per,
                "token_variable": metric.token_variable,
            }  # fmt: skip
        case JsonMetric():
            return {"json": metric.url, "pointer": metric.pointer, "token_variable": metric.token_variable}
        case CommandMetric():
            program, *arguments = metric.argv
            return {"command": (beside_the_program(program), *arguments)}
