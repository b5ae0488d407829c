"""``[[deploy.NAME.gates]]``: what is read, and what is said of each mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from osvdeploy.api.declared import settings_of
from osvdeploy.cloud.interfaces import (
    CloudWatchMetric,
    CommandMetric,
    JsonMetric,
    MonitoringMetric,
    PrometheusMetric,
    Statistic,
)
from osvdeploy.rollout.gates import Bound, Compared, Gate, GateStage, NoData
from osvdeploy.spec import parse
from tests.spec.specs import DEPLOY, GOOGLE, ROLLED_OUT, SMALL, on_aws, problems, read

BAKES = 'strategy = { bake = "10m" }\n'
ERRORS = 'cloudwatch = "HTTPCode_Target_5XX_Count", per = "RequestCount"'
REQUESTS = "loadbalancing.googleapis.com/https/request_count"


def aws(gate: str, strategy: str = BAKES) -> str:
    return f"{SMALL}{DEPLOY}{strategy}\n[[deploy.production.gates]]\n{gate}\n"


def google(gate: str) -> str:
    return f"{SMALL}{GOOGLE}{ROLLED_OUT}{BAKES}\n[[deploy.europe.gates]]\n{gate}\n"


CANARY = 'strategy = { kind = "canary", steps = [{ weight = 5, bake = "10m" }], bake = "10m" }\n'


def declared(text: str, environment: str = "production") -> Gate:
    (gate,) = settings_of(parse(text, path=Path("osv.toml"), environ={}), environment).gates
    return gate


def test_a_gate_of_three_words_has_the_documented_defaults() -> None:
    gate = declared(aws(f"metric = {{ {ERRORS}, max = 0.01 }}"))
    assert gate == Gate(
        name="HTTPCode_Target_5XX_Count per RequestCount",
        metric=CloudWatchMetric("HTTPCode_Target_5XX_Count", "RequestCount", Statistic.SUM),
        bounds=(Bound(0.01),),
        on=(GateStage.STEP, GateStage.BAKE),
        interval=60.0,
        delay=120.0,
        window=None,
        min_samples=3,
        no_data=NoData.FAIL,
        confidence=0.95,
        dry_run=False,
    )


def test_every_word_of_a_gate_is_taken() -> None:
    text = aws(
        'name = "slow"\non = ["bake"]\ndry-run = true\n'
        'metric = { cloudwatch = "TargetResponseTime", statistic = "p99", max = 0.5, min = 0.001, interval = "2m", '
        'window = "8m", delay = "3m", min-samples = 4, no-data = "inconclusive" }'
    )
    assert declared(text) == Gate(
        name="slow",
        metric=CloudWatchMetric("TargetResponseTime", None, Statistic.P99),
        bounds=(Bound(0.5), Bound(0.001, upper=False)),
        on=(GateStage.BAKE,),
        interval=120.0,
        delay=180.0,
        window=480.0,
        min_samples=4,
        no_data=NoData.INCONCLUSIVE,
        dry_run=True,
    )


@pytest.mark.parametrize(
    ("metric", "expected", "called", "delay"),
    [
        (
            'cloudwatch = "Age", namespace = "Orders", dimensions = { Release = "{{release}}" }, statistic = "maximum"',
            CloudWatchMetric("Age", None, Statistic.MAXIMUM, "Orders", {"Release": "{{release}}"}),
            "Age",
            120.0,
        ),
        (
            'prometheus = "http://prom:9090", query = "up", token-variable = "PROM_TOKEN"',
            PrometheusMetric("http://prom:9090", "up", None, "PROM_TOKEN"),
            "up",
            30.0,
        ),
        (
            'json = "https://acme.example/{{slot}}", pointer = "/a/0"',
            JsonMetric("https://acme.example/{{slot}}", "/a/0"),
            "https://acme.example/{{slot}}#/a/0",
            0.0,
        ),
        ('command = ["rate", "{{ group }}"]', CommandMetric(("rate", "{{ group }}")), "rate {{ group }}", 0.0),
    ],
)
def test_each_source_is_taken(metric: str, expected: object, called: str, delay: float) -> None:
    gate = declared(aws(f"metric = {{ {metric}, max = 1 }}"))
    assert (gate.metric, gate.name, gate.delay) == (expected, called, delay)


def test_google_counts_by_labels() -> None:
    """Which may be numbers, as they are there."""
    metric = f'cloud-monitoring = "{REQUESTS}", per = "{REQUESTS}", labels = {{ response_code_class = 500 }}'
    gate = declared(google(f"metric = {{ {metric}, max = 0.01 }}"), "europe")
    assert gate.metric == MonitoringMetric(REQUESTS, REQUESTS, Statistic.SUM, {"response_code_class": "500"})
    assert (gate.name, gate.delay) == ("request_count per request_count", 240.0)


def test_stable_is_compared_with_while_it_has_a_share() -> None:
    """With all of the traffic on the new release there is nothing to compare with, unless somebody knows better."""
    gate = declared(aws(f'metric = {{ {ERRORS}, against = "stable", max-ratio = 1.5 }}', CANARY))
    assert (gate.bounds, gate.on) == ((Bound(1.5, compared=Compared.RATIO),), (GateStage.STEP,))
    latency = 'cloudwatch = "TargetResponseTime", against = "stable", min-difference = -0.1, max-difference = 0.1'
    assert declared(aws(f"metric = {{ {latency} }}", CANARY)).on == (GateStage.STEP,)
    gate = declared(aws(f'metric = {{ {latency} }}\non = ["step", "bake"]'))
    differences = (Bound(0.1, compared=Compared.DIFFERENCE), Bound(-0.1, upper=False, compared=Compared.DIFFERENCE))
    assert (gate.bounds, gate.on) == (differences, (GateStage.STEP, GateStage.BAKE))


AT = "deploy.production.gates[0]"


@pytest.mark.parametrize(
    ("gate", "told"),
    [
        ("metric = { max = 1 }", f"{AT}.metric: needs one of cloudwatch, cloud-monitoring, prometheus, json, command"),
        (f'metric = {{ {ERRORS}, command = ["x"], max = 1 }}', f"{AT}.metric.command: is one too many"),
        (f"metric = {{ {ERRORS} }}", f"{AT}.metric.max: is missing: the metric is held to nothing"),
        (f"metric = {{ {ERRORS}, max = true }}", f"{AT}.metric.max: a number, not true"),
        (f"metric = {{ {ERRORS}, max = nan }}", f"{AT}.metric.max: should be a finite number"),
        (f"metric = {{ {ERRORS}, max = 0.1, min = 0.2 }}", f"{AT}.metric.min: is more than max (0.1)"),
        (f"metric = {{ {ERRORS}, max-ratio = 1 }}", f'{AT}.metric.max-ratio: needs against = "stable"'),
        (f'metric = {{ {ERRORS}, against = "stable" }}', f"{AT}.metric.against: needs a bound: one of max-ratio"),
        (f'metric = {{ {ERRORS}, against = "stable", max = 1 }}', f"{AT}.metric.max: is no bound against stable"),
        (f'metric = {{ {ERRORS}, against = "canary", max-ratio = 1 }}', f"{AT}.metric.against: 'canary' is not"),
        (f'metric = {{ {ERRORS}, against = "stable", max-ratio = 0 }}', f"{AT}.metric.max-ratio: should be greater"),
        (
            f'metric = {{ {ERRORS}, against = "stable", max-difference = 1 }}',
            f"{AT}.metric.max-difference: is not judged of counts",
        ),
        (f'metric = {{ {ERRORS}, max = 1, statistic = "p99" }}', f"{AT}.metric.statistic: of two counts it is"),
        (f'metric = {{ {ERRORS}, max = 1, interval = "90s" }}', f"{AT}.metric.interval: whole minutes"),
        ('metric = { command = ["x"], max = 1, interval = "1s" }', f"{AT}.metric.interval: whole seconds, from 5s"),
        (f'metric = {{ {ERRORS}, max = 1, window = "2m" }}', f"{AT}.metric.window: has no room for 3 samples of 1m"),
        (f'metric = {{ {ERRORS}, max = 1, delay = "2h" }}', f"{AT}.metric.delay: an hour at most"),
        (f"metric = {{ {ERRORS}, max = 1, confidence = 1 }}", f"{AT}.metric.confidence: from 0.5 to 0.9999"),
        (f"metric = {{ {ERRORS}, max = 1, min-samples = 0 }}", f"{AT}.metric.min-samples: should be greater"),
        (f'metric = {{ {ERRORS}, max = 1, no-data = "ok" }}', f"{AT}.metric.no-data: 'ok' is not supported"),
        (
            'metric = { cloudwatch = "TargetResponseTime", max = 1, confidence = 0.9 }',
            f"{AT}.metric.confidence: needs per",
        ),
        (
            'metric = { cloudwatch = "HTTPCode_Target_5XX_Count", max = 5 }',
            f"{AT}.metric.cloudwatch: HTTPCode_Target_5XX_Count has no data while there are none, so it needs per",
        ),
        (
            'metric = { cloudwatch = "HTTPCode_ELB_5XX_Count", per = "RequestCount", max = 1 }',
            f"{AT}.metric.cloudwatch: HTTPCode_ELB_5XX_Count is counted for the whole balancer",
        ),
        (
            'metric = { cloudwatch = "HTTPCode_Target_5xx_Count", per = "RequestCount", max = 1 }',
            f"{AT}.metric.cloudwatch: HTTPCode_Target_5xx_Count is no metric of a target group; is HTTPCode_Target_5XX",
        ),
        (
            'metric = { cloudwatch = "HTTPCode_Target_5XX_Count", per = "RequestsCount", max = 1 }',
            f"{AT}.metric.per: RequestsCount is no metric of a target group; is RequestCount meant?",
        ),
        ('metric = { cloudwatch = "Age", namespace = "Orders", max = 1 }', f"{AT}.metric.namespace: needs dimensions"),
        (f'metric = {{ {ERRORS}, dimensions = {{ A = "b" }}, max = 1 }}', f"{AT}.metric.dimensions: need namespace"),
        (f'metric = {{ {ERRORS}, query = "up", max = 1 }}', f"{AT}.metric.query: is of prometheus, not of cloudwatch"),
        ('metric = { prometheus = "http://prom", max = 1 }', f"{AT}.metric.prometheus: needs query"),
        ('metric = { prometheus = "prom:9090", query = "up", max = 1 }', f"{AT}.metric.prometheus: an address that"),
        ('metric = { prometheus = "http://a:b@c", query = "up", max = 1 }', f"{AT}.metric.prometheus: an address"),
        (
            'metric = { prometheus = "http://prom", query = "up{r={{relase}}}", max = 1 }',
            f"{AT}.metric.query: {{{{relase}}}} is no placeholder; there are {{{{release}}}}",
        ),
        ('metric = { json = "http://a/b", max = 1 }', f"{AT}.metric.json: needs pointer"),
        ('metric = { json = "http://a/b", pointer = "a", max = 1 }', f"{AT}.metric.pointer: a JSON pointer (RFC 6901)"),
        ('metric = { command = [], max = 1 }', f"{AT}.metric.command: is empty"),
        (f"metric = {{ {ERRORS}, max = 1 }}\non = []", f"{AT}.on: is empty"),
        (f'metric = {{ {ERRORS}, max = 1 }}\non = ["boot"]', f"{AT}.on[0]: 'boot' is not supported"),
        (
            f'metric = {{ {ERRORS}, against = "stable", max-ratio = 2 }}\non = ["bake"]',
            f"{AT}.on: with all of the traffic on the new release there is nothing",
        ),
        (
            f'metric = {{ cloud-monitoring = "{REQUESTS}", max = 1 }}',
            'deploy.production.gates: cloud-monitoring is of an environment with cloud = "gcp"',
        ),
    ],
)  # fmt: skip
def test_a_gate_that_could_not_work_is_an_error(gate: str, told: str) -> None:
    """At its own line, with what to do."""
    lines = problems(aws(gate))
    assert len(lines) == 1, lines
    place, _, problem = lines[0].partition(": ")
    assert problem.startswith(told), lines
    assert place in ("osv.toml:24", "osv.toml:25", "osv.toml:26")


def test_a_gate_needs_a_bake_to_be_judged_in() -> None:
    """Without, it would be an option that does nothing."""
    (told,) = problems(aws(f"metric = {{ {ERRORS}, max = 1 }}", ""))
    assert told.startswith(
        "osv.toml:23: deploy.production.gates: 'HTTPCode_Target_5XX_Count per RequestCount' is judged"
    )
    assert "while a release bakes, and none does here; set strategy.bake" in told
    (told,) = problems(aws(f'metric = {{ {ERRORS}, against = "stable", max-ratio = 2 }}'))
    assert 'none does here with a share of the traffic; kind = "canary" with steps' in told
    canary = 'strategy = { kind = "canary", steps = [{ weight = 5, bake = "5m" }] }\n'
    assert on_aws(read(aws(f"metric = {{ {ERRORS}, max = 1 }}", canary))).gates[0].stages == ("step", "bake")


def test_two_gates_have_two_names() -> None:
    gate = f"metric = {{ {ERRORS}, max = 1 }}"
    (told,) = problems(aws(gate) + f"[[deploy.production.gates]]\n{gate}\n")
    assert "give each a name of its own" in told
    two = read(aws(gate) + f'[[deploy.production.gates]]\nname = "strict"\n{gate}\n')
    assert len(on_aws(two).gates) == 2


def test_a_metric_of_ones_own_on_google_needs_labels() -> None:
    """Or it would be every release's."""
    (told,) = problems(google('metric = { cloud-monitoring = "custom.googleapis.com/age", max = 1 }'))
    assert "is no balancer's metric: needs labels that tell releases apart" in told
    own = 'cloud-monitoring = "custom.googleapis.com/a", labels = { release = "{{release}}" }, max = 1'
    (told,) = problems(google(f'metric = {{ {own}, per = "custom.googleapis.com/b" }}'))
    assert "metric.per: is no balancer's metric: needs per-labels" in told
    (told,) = problems(google(f'metric = {{ {own}, per-labels = {{ a = "b" }} }}'))
    assert "metric.per-labels: need per" in told
    (told,) = problems(google(f"metric = {{ {ERRORS}, max = 1 }}"))
    assert 'cloudwatch is of an environment with cloud = "aws"' in told


def test_google_has_not_every_percentile() -> None:
    metric = 'cloud-monitoring = "loadbalancing.googleapis.com/https/total_latencies", statistic = "p90", max = 500'
    (told,) = problems(google(f"metric = {{ {metric} }}"))
    assert "metric.statistic: Cloud Monitoring has p50, p95 and p99 alone" in told


def test_a_bound_is_overridden_as_any_scalar() -> None:
    text = aws(f"metric = {{ {ERRORS}, max = 0.01 }}")
    found = read(text, sets=["deploy.production.gates.0.metric.max=0.05", "deploy.production.gates.0.dry-run=true"])
    assert (on_aws(found).gates[0].metric.max, on_aws(found).gates[0].dry_run) == (0.05, True)


def test_a_program_of_ones_own_is_beside_the_spec(tmp_path: Path) -> None:
    """One without a slash is looked for on PATH."""
    text = aws('metric = { command = ["./bin/rate", "{{release}}"], max = 1 }')
    (gate,) = settings_of(parse(text, path=tmp_path / "osv.toml", environ={}), "production").gates
    assert gate.metric == CommandMetric((f"{tmp_path}/bin/rate", "{{release}}"))
