"""``[[deploy.NAME.gates]]``: metrics that a new release is held to while it bakes.

Facts about CloudWatch's and Cloud Monitoring's own metrics are from their documentation ("CloudWatch metrics for your
Application Load Balancer", "Google Cloud metrics"); docs/gates.md tells which of them were tried.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from osvdeploy.sizes import format_duration
from osvdeploy.spec.boot import shown
from osvdeploy.spec.table import Duration, Inside, Table, Text, Whole, kebab, matches

MINUTE = 60.0
"""Seconds: what both clouds' balancers count by."""

SHORTEST = 5.0
"""Seconds between two questions to a source that is not a cloud's."""

_SLOT_METRICS = re.compile(r"HTTPCode_Target_[2-5]XX_Count")
_OF_A_TARGET_GROUP = (
    "AnomalousHostCount", "HealthyHostCount", "HealthyStateDNS", "HealthyStateRouting", "HTTPCode_Target_2XX_Count",
    "HTTPCode_Target_3XX_Count", "HTTPCode_Target_4XX_Count", "HTTPCode_Target_5XX_Count", "MitigatedHostCount",
    "RequestCount", "RequestCountPerTarget", "TargetConnectionErrorCount", "TargetResponseTime",
    "TargetTLSNegotiationErrorCount", "UnHealthyHostCount", "UnhealthyRoutingRequestCount", "UnhealthyStateDNS",
    "UnhealthyStateRouting",
)  # fmt: skip
"""Metrics of an Application Load Balancer that have one, as far as they are known here."""
_OF_THE_BALANCER = re.compile(r"HTTPCode_ELB_\w+|ActiveConnectionCount|NewConnectionCount|ConsumedLCUs|ProcessedBytes")
"""Metrics of an Application Load Balancer that have no dimension TargetGroup."""

BALANCING = "loadbalancing.googleapis.com/"
"""What Cloud Monitoring's metrics of balancers begin with."""

_PLACEHOLDER = re.compile(r"\{\{\s*([^{}]*?)\s*\}\}")
PLACEHOLDERS = ("release", "slot", "group", "interval")

_SOURCES = ("cloudwatch", "cloud-monitoring", "prometheus", "json", "command")
_TAKES: dict[str, tuple[str, ...]] = {
    "per": ("cloudwatch", "cloud-monitoring", "prometheus"),
    "statistic": ("cloudwatch", "cloud-monitoring"),
    "namespace": ("cloudwatch",),
    "dimensions": ("cloudwatch",),
    "labels": ("cloud-monitoring",),
    "per-labels": ("cloud-monitoring",),
    "query": ("prometheus",),
    "pointer": ("json",),
    "token-variable": ("prometheus", "json"),
}
"""Keys that not every source has, and those that do."""

_ABSOLUTE = ("max", "min")
_COMPARED = ("max-ratio", "min-ratio", "max-difference", "min-difference")

_DELAYS = {"cloudwatch": 120.0, "cloud-monitoring": 240.0, "prometheus": 30.0}
"""Seconds until what was counted in an interval can be read. CloudWatch's are seen within a minute or two; Google names
up to 210 seconds for its balancers; Prometheus scrapes each 15 or 30 s, as it is mostly set up."""

MOST_SAMPLES = 1000


def _number(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError(f"a number, not {str(value).lower()}")
    return value


Number = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]


def _address(value: str) -> str:
    if not re.fullmatch(r"https?://[!-~]+", value) or "@" in value.partition("//")[2].partition("/")[0]:
        raise ValueError(
            "an address that begins with https:// or http:// and holds no password "
            f'(token-variable = "NAME" names a variable with a token), not {shown(value)}'
        )
    return value


def _filled(value: str) -> str:
    for name in _PLACEHOLDER.findall(value):
        if name not in PLACEHOLDERS:
            known = ", ".join(f"{{{{{each}}}}}" for each in PLACEHOLDERS)
            raise ValueError(f"{{{{{name[:40]}}}}} is no placeholder; there are {known}")
    return value


def _confidence(value: float) -> float:
    if not 0.5 <= value <= 0.9999:
        raise ValueError("from 0.5 to 0.9999")
    return value


Filled = Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_filled)]
_Names = dict[Annotated[str, Field(min_length=1, max_length=255)], Filled]


def _texts(value: object) -> object:
    """Labels may be numbers in the file, as Google has them."""
    if isinstance(value, dict):
        return {
            key: str(each) if isinstance(each, int) and not isinstance(each, bool) else each
            for key, each in value.items()
        }
    return value


class GateMetric(Table):
    """What is measured, and what it is held to. The source is one of cloudwatch, cloud-monitoring, prometheus, json and
    command."""

    cloudwatch: Annotated[str, matches(r"[!-~]{1,255}", "the name of a metric")] | None = Field(
        default=None,
        description="A metric of CloudWatch, such as HTTPCode_Target_5XX_Count: of the release's target group, unless "
        "namespace says otherwise.",
    )
    cloud_monitoring: (
        Annotated[
            str,
            matches(r"[a-z0-9.-]+\.[a-z]+/[A-Za-z0-9_./-]+", "the type of a metric, loadbalancing.googleapis.com/..."),
        ]
        | None
    ) = Field(
        default=None,
        description="A metric type of Cloud Monitoring, such as loadbalancing.googleapis.com/https/request_count: one "
        "of a balancer is that of the release's backend service.",
    )
    prometheus: Annotated[Text, AfterValidator(_address)] | None = Field(
        default=None, description="The address of a Prometheus, or of what answers its HTTP API; needs query."
    )
    json_: Annotated[Text, AfterValidator(_address), AfterValidator(_filled)] | None = Field(
        default=None, alias="json", description="The address of a JSON document; needs pointer."
    )
    command: Annotated[list[Filled], Field(min_length=1)] | None = Field(
        default=None,
        description="A program of this host and its arguments, as words; no shell. It prints a number; any other exit "
        "status than 0 means that it cannot tell.",
        examples=[["./error-rate", "{{release}}"]],
    )
    per: Filled | None = Field(
        default=None,
        description="What the metric is counted of: a metric or query of the same source. Both are then counts, and "
        "their ratio is judged.",
    )
    query: Filled | None = Field(
        default=None,
        description="In PromQL, one number at each time; {{release}}, {{slot}}, {{group}} and {{interval}} are filled "
        "in.",
    )
    pointer: Annotated[str, matches(r"(?:/[^/]*)*", "a JSON pointer (RFC 6901) such as /errors/ratio")] | None = Field(
        default=None, description='Where in the document the number stands, as a JSON pointer; "" is all of it.'
    )
    statistic: Literal["sum", "average", "minimum", "maximum", "p50", "p90", "p95", "p99"] | None = Field(
        default=None, description="Of each interval; left out: sum with per, else average."
    )
    namespace: Annotated[str, matches(r"[^:\0][^\0]{0,254}", "a namespace of CloudWatch")] | None = Field(
        default=None, description="Of a metric that is not a target group's; needs dimensions that tell releases apart."
    )
    dimensions: _Names = Field(default_factory=dict, description="Dimensions of a metric of another namespace.")
    labels: Annotated[_Names, BeforeValidator(_texts)] = Field(
        default_factory=dict, description="Labels that the metric must have, such as response_code_class = 500."
    )
    per_labels: Annotated[_Names, BeforeValidator(_texts)] = Field(
        default_factory=dict, description="Labels that what it is counted of must have."
    )
    token_variable: Annotated[str, matches(r"[A-Za-z_][A-Za-z0-9_]*", "the name of an environment variable")] | None = (
        Field(default=None, description="The environment variable of whoever deploys that holds a bearer token.")
    )
    max: Number | None = Field(default=None, description="The most that the metric, or the ratio, may be.")
    min: Number | None = Field(default=None, description="The least that it may be.")
    against: Literal["stable"] | None = Field(
        default=None, description="Compare with the release that served before, over the same time."
    )
    max_ratio: Annotated[Number, Field(gt=0)] | None = Field(
        default=None, description="With against: at most so many times what stable has."
    )
    min_ratio: Annotated[Number, Field(gt=0)] | None = Field(
        default=None, description="With against: at least so many times what stable has."
    )
    max_difference: Number | None = Field(default=None, description="With against: at most so much more than stable.")
    min_difference: Number | None = Field(
        default=None, description="With against: at least so much more than stable; mostly below 0."
    )
    confidence: Annotated[float, AfterValidator(_confidence)] = Field(
        default=0.95, description="With per: how sure it must be that the bound is broken; 0.5 to 0.9999."
    )
    interval: Duration = Field(
        default=60.0,
        description="Each of these is one sample; whole minutes for a cloud's metrics, else whole seconds, 5s or more.",
    )
    window: Duration | None = Field(
        default=None, description="How far back samples count; left out: to the beginning of the bake."
    )
    delay: Duration | None = Field(
        default=None,
        description="How long after an interval its metrics can be read; left out: 2m for CloudWatch, 4m for Cloud "
        "Monitoring, 30s for Prometheus, else none.",
    )
    min_samples: Annotated[Whole, Field(ge=1, le=MOST_SAMPLES)] = Field(
        default=3, description="What it passes with at least; a bake is as long as these take."
    )
    no_data: Literal["fail", "pass", "inconclusive"] = Field(
        default="fail", description="What fewer samples at the end of the bake mean."
    )

    @property
    def source(self) -> str:
        """The key of the source that is given; the first where several are."""
        return next((name for name in _SOURCES if self._given(name) is not None), "")

    @property
    def lag(self) -> float:
        """The delay that counts, in seconds."""
        return self.delay if self.delay is not None else _DELAYS.get(self.source, 0.0)

    @property
    def told(self) -> str:
        """What the gate is called where it has no name."""
        match self.source:
            case "prometheus":
                what = self.query or ""
            case "json":
                what = f"{self.json_}#{self.pointer}"
            case "command":
                what = " ".join(self.command or ())
            case _:
                what = (self.cloudwatch or self.cloud_monitoring or "").rpartition("/")[2]
        per = (
            f" per {self.per.rpartition('/')[2] if self.source == 'cloud-monitoring' else self.per}" if self.per else ""
        )
        return f"{what}{per}{' against stable' if self.against else ''}"[:120]

    def _given(self, key: str) -> Any:
        return getattr(self, "json_" if key == "json" else key.replace("-", "_"))

    @model_validator(mode="after")
    def _check(self) -> GateMetric:
        sources = [name for name in _SOURCES if self._given(name) is not None]
        if not sources:
            raise ValueError(f"needs one of {', '.join(_SOURCES)}")
        if len(sources) > 1:
            raise Inside([(name, f"is one too many: there is {sources[0]}") for name in sources[1:]])
        if wrong := [*self._misplaced(), *self._wrong_source(), *self._wrong_bounds(), *self._wrong_times()]:
            raise Inside(wrong)
        return self

    def _misplaced(self) -> Iterator[tuple[str, str]]:
        given = {kebab(name) for name in self.model_fields_set}
        for key, takers in _TAKES.items():
            if key in given and self.source not in takers:
                yield key, f"is of {' and '.join(takers)}, not of {self.source}"
        if self.per is None and "confidence" in given:
            yield "confidence", "needs per: only counts can be tested for chance; leave it out"

    def _wrong_source(self) -> Iterator[tuple[str, str]]:
        if self.source == "prometheus" and self.query is None:
            example = 'sum(increase(errors_total{release="{{release}}"}[{{interval}}]))'
            yield "prometheus", f"needs query, such as query = '{example}'"
        if self.source == "json" and self.pointer is None:
            yield "json", 'needs pointer, where in the document the number stands: pointer = "/errors/ratio"'
        if self.source == "cloudwatch":
            yield from self._wrong_cloudwatch()
        if self.cloud_monitoring and not self.cloud_monitoring.startswith(BALANCING) and not self.labels:
            told = "is no balancer's metric: needs labels that tell releases apart"
            yield "cloud-monitoring", f'{told}, labels = {{ release = "{{{{release}}}}" }}'
        if (
            self.source == "cloud-monitoring"
            and self.per
            and not self.per.startswith(BALANCING)
            and not self.per_labels
        ):
            yield "per", "is no balancer's metric: needs per-labels that tell releases apart"
        if self.per_labels and self.per is None:
            yield "per-labels", "need per"
        if self.source == "cloud-monitoring" and self.statistic == "p90":
            yield "statistic", "Cloud Monitoring has p50, p95 and p99 alone"
        if self.per is not None and self.statistic not in (None, "sum"):
            yield "statistic", "of two counts it is their sum; leave it out"

    def _wrong_cloudwatch(self) -> Iterator[tuple[str, str]]:
        name = self.cloudwatch or ""
        if self.namespace is not None:
            if not self.dimensions:
                yield "namespace", 'needs dimensions that tell releases apart: dimensions = { Release = "{{release}}" }'
            return
        if self.dimensions:
            yield "dimensions", "need namespace: of a target group's metrics they are known"
        for key, metric in (("cloudwatch", name), ("per", self.per or "")):
            if _OF_THE_BALANCER.fullmatch(metric):
                told = f"{metric} is counted for the whole balancer and not for a release"
                yield key, f"{told}; HTTPCode_Target_5XX_Count and RequestCount are counted for each"
            elif (meant := _meant(metric)) is not None:
                # CloudWatch answers for a name that it does not know as for one of which nothing was counted.
                yield key, f"{metric} is no metric of a target group; is {meant} meant?"
        if _SLOT_METRICS.fullmatch(name) and self.per is None:
            yield "cloudwatch", f'{name} has no data while there are none, so it needs per = "RequestCount"'

    def _wrong_bounds(self) -> Iterator[tuple[str, str]]:
        absolute = [key for key in _ABSOLUTE if self._given(key) is not None]
        compared = [key for key in _COMPARED if self._given(key) is not None]
        if self.against is None:
            for key in compared:
                yield key, 'needs against = "stable"'
            if not absolute and not compared:
                yield "max", "is missing: the metric is held to nothing; give max, min or both"
        else:
            for key in absolute:
                yield key, f"is no bound against stable; give one of {', '.join(_COMPARED)}, or leave against out"
            if not compared and not absolute:
                yield "against", f"needs a bound: one of {', '.join(_COMPARED)}"
            if self.per is not None:
                for key in compared:
                    if key.endswith("difference"):
                        told = "is not judged of counts, whose difference says nothing while they are few"
                        yield key, f"{told}; give {key.replace('difference', 'ratio')}"
        if self.max is not None and self.min is not None and self.min > self.max:
            yield "min", f"is more than max ({self.max:g}): nothing could pass"
        if self.per is not None and (self.max or 0) < 0:
            yield "max", "a ratio of counts is never below 0"

    def _wrong_times(self) -> Iterator[tuple[str, str]]:
        cloud = self.source in ("cloudwatch", "cloud-monitoring")
        if cloud and (self.interval % MINUTE or not MINUTE <= self.interval <= 3600):
            yield "interval", f"whole minutes, from 60s to 1h: {self.source} counts by minutes"
        elif not SHORTEST <= self.interval <= 3600 or self.interval % 1:
            yield "interval", f"whole seconds, from {format_duration(SHORTEST)} to 1h"
        elif self.window is not None and self.window < self.interval * self.min_samples:
            told = f"has no room for {self.min_samples} samples of {format_duration(self.interval)}"
            yield "window", f"{told}; make it {format_duration(self.interval * self.min_samples)} or more"
        if self.delay is not None and self.delay > 3600:
            yield "delay", "an hour at most"


def _meant(metric: str) -> str | None:
    """The known metric that a name nearly is; None where it is one, or like none: there may be newer ones."""
    known = {each.lower(): each for each in _OF_A_TARGET_GROUP}
    near = difflib.get_close_matches(metric.lower(), known, 1, 0.86)
    return known[near[0]] if near and metric and known[near[0]] != metric else None


class Gate(Table):
    """A metric that a new release is held to while it bakes."""

    name: Annotated[str, Field(min_length=1, max_length=60)] | None = Field(
        default=None, description="What it is called in the record; left out: after its metric."
    )
    metric: GateMetric = Field(description="What is measured, and what it is held to.")
    on: Annotated[list[Literal["step", "bake"]], Field(min_length=1)] | None = Field(
        default=None,
        description="When: while the release bakes with a share of the traffic (step), with all of it (bake). Left "
        "out: both, and a comparison with stable in steps alone, while that has requests.",
    )
    dry_run: bool = Field(default=False, description="Measure and tell, and decide nothing.")

    @property
    def called(self) -> str:
        return self.name or self.metric.told

    @property
    def stages(self) -> tuple[Literal["step", "bake"], ...]:
        """When it is judged."""
        if self.on is not None:
            return tuple(dict.fromkeys(self.on))
        return ("step",) if self.metric.against else ("step", "bake")

    @model_validator(mode="after")
    def _check(self) -> Gate:
        if self.metric.against and self.metric.per and "bake" in self.stages:
            told = 'with all of the traffic on the new release there is nothing to compare with; on = ["step"]'
            raise Inside([("on", told)])
        return self


_ELSEWHERE = {"cloudwatch": "aws", "cloud-monitoring": "gcp"}


def refuse_wrong_gates(gates: Sequence[Gate], cloud: str, bakes: Collection[str]) -> None:
    """Raise :class:`~osvdeploy.spec.table.Inside` for gates that an environment of this cloud cannot have; ``bakes``
    are the stages in which its releases bake."""
    called: set[str] = set()
    for gate in gates:
        wanted = _ELSEWHERE.get(gate.metric.source, cloud)
        if wanted != cloud:
            raise Inside([("gates", f'{gate.metric.source} is of an environment with cloud = "{wanted}"')])
        if gate.called in called:
            raise Inside([("gates", f"two are called {gate.called!r}; give each a name of its own")])
        called.add(gate.called)
        if not set(gate.stages) & set(bakes):
            told = f"{gate.called!r} is judged while a release bakes, and none does here"
            cure = 'set strategy.bake, as in bake = "10m"'
            if gate.stages == ("step",):
                told += " with a share of the traffic"
                cure = 'kind = "canary" with steps = [{ weight = 5, bake = "10m" }] in the strategy does it'
            raise Inside([("gates", f"{told}; {cure}")])
