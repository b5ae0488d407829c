"""Gates, hooks and notifications of a program: what may be declared, is refused, and comes back. No process."""

from __future__ import annotations

import typing
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from osvdeploy import api
from osvdeploy.cloud.interfaces import CommandMetric, Statistic
from osvdeploy.provider.declare import EnumOf, ListOf, ObjectOf, properties
from osvdeploy.provider.deployments import (
    DeploymentHealth,
    DeploymentProbeFrom,
    DeploymentStep,
    DeploymentStrategy,
    HealthKind,
)
from osvdeploy.provider.gates import (
    DeploymentGate,
    DeploymentGateMetric,
    GateBaseline,
    as_a_rollout_has_it,
    as_one_writes_it,
)
from osvdeploy.provider.hooks import DeploymentHook, HookStage
from osvdeploy.provider.notify import DeploymentNotify, NoticeKind, WebhookFormat
from osvdeploy.provider.resources.deployments import AwsDeployment, GcpDeployment
from osvdeploy.provider.values import UNKNOWN
from osvdeploy.rollout.gates import GateStage, NoData
from osvdeploy.rollout.hooks import HookFailure
from osvdeploy.rollout.releases import StrategyKind
from osvdeploy.spec import gates as model
from osvdeploy.spec.hooks import Hook, Notify
from osvdeploy.spec.model import ProbeCommand
from tests.pulumi.test_deployment_judging import AWS, GCP, checked, judged, state

T = TypeVar("T")

STEPS = DeploymentStrategy(kind=StrategyKind.CANARY, steps=(DeploymentStep(weight=5, bake="5m"),), bake="10m")
ERRORS = DeploymentGateMetric(cloudwatch="HTTPCode_Target_5XX_Count", per="RequestCount", max=0.01)
AGAINST = DeploymentGateMetric(
    cloudwatch="HTTPCode_Target_5XX_Count", per="RequestCount", against=GateBaseline.STABLE, max_ratio=1.5
)
DEPTH = DeploymentGateMetric(command=("./depth", "{{release}}"), max=30.0, interval="15s")
PAGE = DeploymentHook(
    name="page", on=(HookStage.DONE, HookStage.PREPARE), url="https://page.example/rollouts",
    headers={"X-Team": "payments"}, header_variables={"Authorization": "TOKEN"}, on_failure=HookFailure.WARN,
)  # fmt: skip
SMOKE = DeploymentHook(name="smoke", on=(HookStage.VERIFY,), command=("./smoke", "--quick"), timeout="2m")
SLACK = DeploymentNotify(webhook_variable="SLACK", format=WebhookFormat.SLACK)
TOPIC = DeploymentNotify(sns="arn:aws:sns:eu-west-1:111122223333:rollouts", on=(NoticeKind.UNHELD, NoticeKind.BEGUN))
PROBED = DeploymentHealth(probe_from=DeploymentProbeFrom(command=("./probe", "there")), slow_start="1m")
METRICS = {
    "errors": ERRORS,
    "against": AGAINST,
    "latency": DeploymentGateMetric(cloudwatch="TargetResponseTime", statistic=Statistic.P99, max=0.5),
    "own": DeploymentGateMetric(
        cloudwatch="Late", namespace="Acme", dimensions={"Release": "{{release}}"}, min=-1.0, max=2.0, window="5m"
    ),
    "prometheus": DeploymentGateMetric(
        prometheus="https://prometheus.example", query='q{release="{{release}}"}', per="p", max=0.01, confidence=0.99,
        token_variable="TOKEN",
    ),
    "json": DeploymentGateMetric(json="https://x.example/{{slot}}", pointer="/late", min=1.0, no_data=NoData.PASS),
    "command": DEPTH,
}  # fmt: skip
BALANCED = "loadbalancing.googleapis.com/https/request_count"
ON_GOOGLE = DeploymentGateMetric(
    cloud_monitoring=BALANCED, labels={"response_code_class": "500"}, per=BALANCED, max=0.01
)


def maybe(strategy: st.SearchStrategy[T]) -> st.SearchStrategy[T | None]:
    return st.none() | strategy


def aws(*gates: DeploymentGate | DeploymentGateMetric, **changed: Any) -> Any:
    given = tuple(DeploymentGate(each) if isinstance(each, DeploymentGateMetric) else each for each in gates)
    return replace(AWS, strategy=STEPS, gates=given, **changed)


# ---------------------------------------------------------------------------------------------------------- declaring


def test_a_program_declares_what_a_spec_declares() -> None:
    """The same names, choices and words; what is left out, and what else a program has to know, is said after them."""
    tables: dict[type, Any] = {
        DeploymentGate: model.Gate, DeploymentGateMetric: model.GateMetric, DeploymentHook: Hook,
        DeploymentNotify: Notify, DeploymentProbeFrom: ProbeCommand,
    }  # fmt: skip
    for declaring, table in tables.items():
        known = {each.alias or name: each for name, each in table.model_fields.items()}
        declared = dict(properties(declaring))
        if declaring is DeploymentProbeFrom:
            # In a spec it is a word in place of the table.
            del declared["requests"]
        assert {each.attribute.replace("_", "-") for each in declared.values()} == set(known)
        for each in declared.values():
            told = known[each.attribute.replace("_", "-")]
            assert each.description.startswith(told.description or "?"), each.name
            # Of where probes leave from the one or the other is given.
            assert each.required == (told.is_required() and declaring is not DeploymentProbeFrom), each.name
            kind = each.kind.item if isinstance(each.kind, ListOf) else each.kind
            if isinstance(kind, EnumOf):
                assert [choice.value for choice in kind.type] == choices(told.annotation), each.name
            else:
                assert isinstance(kind, ObjectOf) or choices(told.annotation) == [], each.name
            default = None if told.is_required() else told.get_default(call_default_factory=True)
            if default and not isinstance(default, bool):
                left_out = f"{default:g}s" if each.name in ("interval", "timeout") else default
                left_out = ", ".join(left_out) if isinstance(left_out, list) else left_out
                assert each.description.endswith(f" Left out: {left_out}."), each.name


def choices(annotation: Any) -> list[str]:
    """The texts of the Literal in an annotation."""
    if typing.get_origin(annotation) is typing.Literal:
        return list(typing.get_args(annotation))
    return [each for part in typing.get_args(annotation) for each in choices(part)]


@pytest.mark.parametrize("name", list(METRICS))
def test_settings_are_those_of_a_spec(name: str) -> None:
    """Whatever the source: a rollout has from a program what it has from an osv.toml, and back from it the same."""
    wanted, failures = checked(AwsDeployment(), aws(METRICS[name], capacity=3))
    assert failures == {}
    rollout = AwsDeployment().settings(wanted)
    assert [each.against_stable for each in rollout.gates] == [name == "against"]
    assert AwsDeployment().seen_as(rollout, "1234").gates == wanted.gates


def test_what_an_osv_toml_has_is_no_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the command line has rolled out by a spec, beside which the program is, a program with the same gates and
    hooks takes over without a change; one with others says which."""
    monkeypatch.chdir(tmp_path)
    document = """\
name = "orders"
version = "1"
kernel = { file = "loader.img" }
image = { command = ["/a"] }
[deploy.production]
cloud = "aws"
region = "eu-west-1"
subnets = ["subnet-a"]
listener = "%s"
route = { path = "/*", priority = 100 }
port = 8080
ledger = "s3://acme/orders"
strategy = { kind = "canary", steps = [{ weight = 5, bake = "5m" }], bake = "10m" }
[[deploy.production.gates]]
metric = { cloudwatch = "HTTPCode_Target_5XX_Count", per = "RequestCount", max = 0.01 }
[[deploy.production.hooks]]
name = "page"
on = ["done", "prepare"]
url = "https://page.example/rollouts"
headers = { X-Team = "payments" }
header-variables = { Authorization = "TOKEN" }
on-failure = "warn"
[[deploy.production.hooks]]
name = "smoke"
on = ["verify"]
command = ["./smoke", "--quick"]
timeout = "2m"
[[deploy.production.notify]]
webhook-variable = "SLACK"
format = "slack"
[[deploy.production.notify]]
sns = "arn:aws:sns:eu-west-1:111122223333:rollouts"
on = ["unheld", "begun"]
[deploy.production.health]
probe-from = { command = ["./probe", "there"] }
slow-start = "60s"
[[deploy.production.gates]]
on = ["bake"]
dry-run = true
metric = { command = ["./depth", "{{release}}"], max = 30, interval = "15s" }
"""
    (tmp_path / "osv.toml").write_text(document % AWS.listener_arn)
    settings = api.settings_of(api.load_spec(tmp_path / "osv.toml"), "production")
    seen = AwsDeployment().seen_as(settings, "1234")
    same = aws(
        ERRORS,
        DeploymentGate(DEPTH, on=(GateStage.BAKE,), dry_run=True),
        hooks=(PAGE, SMOKE),
        notify=(SLACK, TOPIC),
        health=PROBED,
    )
    assert (seen.health, seen.notify) == (PROBED, (SLACK, replace(TOPIC, on=TOPIC.on and TOPIC.on[::-1])))
    assert seen.gates == same.gates and seen.hooks == (replace(PAGE, on=PAGE.on[::-1]), SMOKE)
    before = state(replace(seen, image=AWS.image, ledger=AWS.ledger))
    assert judged(before, same) == ({}, "")
    other = replace(same, notify=(SLACK,), health=replace(PROBED, slow_start="90s", probe_from=None))
    assert judged(before, other)[0] == {
        "health.probeFrom.command": False, "health.slowStart": False, "notify[1]": False,
    }  # fmt: skip
    other = replace(same, gates=None, hooks=None, notify=None, health=None)
    assert set(judged(before, other)[0]) == {
        "gates", "hooks", "notify", "health.probeFrom.command", "health.slowStart",
    }  # fmt: skip
    other = aws(
        replace(ERRORS, max=0.02),
        DeploymentGate(DEPTH, on=(GateStage.BAKE,)),
        hooks=(PAGE, replace(SMOKE, timeout="3m")),
        notify=(SLACK, TOPIC),
        health=PROBED,
    )
    changes, warnings = judged(before, other)
    assert changes == {"gates[0].metric.max": False, "gates[1].dryRun": False, "hooks[1].timeout": False}
    assert warnings == ""


def test_the_same_said_otherwise_is_no_change() -> None:
    """Defaults that are spelled out, stages in another order, durations in other units, a program by its whole path."""
    full = replace(
        ERRORS, statistic=Statistic.SUM, confidence=0.95, interval="60s", delay="120s", min_samples=3,
        no_data=NoData.FAIL,
    )  # fmt: skip
    said = aws(
        DeploymentGate(
            full, name="HTTPCode_Target_5XX_Count per RequestCount", on=(GateStage.BAKE, GateStage.STEP, GateStage.BAKE)
        ),
        DeploymentGate(
            replace(DEPTH, command=(str(Path("depth").resolve()), "{{release}}"), interval="0.25m"),
            name="./depth {{release}}",
        ),
    )
    short = aws(ERRORS, DEPTH)
    hook = replace(PAGE, on=(HookStage.PREPARE, HookStage.DONE, HookStage.DONE), timeout="1m")
    program = replace(SMOKE, command=(str(Path("smoke").resolve()), "--quick"), on_failure=HookFailure.FAIL)
    short, said = replace(short, hooks=(PAGE, SMOKE)), replace(said, hooks=(hook, program))
    assert judged(state(short), said) == ({}, "")
    assert judged(state(said), short) == ({}, "")


def test_what_is_not_known_yet_is_a_change() -> None:
    """Of that gate or hook, and of no other."""
    hooks = aws(hooks=(PAGE, SMOKE))
    assert judged(state(hooks), replace(hooks, hooks=(replace(PAGE, url=UNKNOWN), SMOKE)))[0] == {"hooks[0]": False}
    unknown = replace(DEPTH, max=UNKNOWN)
    assert judged(state(aws(ERRORS, DEPTH)), aws(ERRORS, unknown))[0] == {"gates[1]": False}
    assert judged(state(aws(ERRORS)), replace(aws(), gates=UNKNOWN))[0] == {"gates": False}


# ------------------------------------------------------------------------------------------------------------ refusing


@pytest.mark.parametrize(
    ("metric", "path", "reason"),
    [
        (replace(ERRORS, per=None), "gates[0].metric.cloudwatch", 'needs per = "RequestCount"'),
        (replace(ERRORS, max=None), "gates[0].metric.max", "is missing: the metric is held to nothing"),
        (replace(ERRORS, max_ratio=2.0), "gates[0].metric.maxRatio", 'needs against = "stable"'),
        (replace(AGAINST, max=1.0), "gates[0].metric.max", "one of maxRatio, minRatio, maxDifference, minDifference"),
        (replace(DEPTH, confidence=0.9), "gates[0].metric.confidence", "needs per"),
        (replace(DEPTH, token_variable="T"), "gates[0].metric.tokenVariable", "is of prometheus and json, not of"),
        (replace(DEPTH, interval="15"), "gates[0].metric.interval", "has no unit"),
        (replace(DEPTH, window="20s"), "gates[0].metric.window", "has no room for 3 samples of 15s"),
        (replace(DEPTH, min_samples=0), "gates[0].metric.minSamples", "1"),
        (replace(DEPTH, command=("depth", "{{app}}")), "gates[0].metric.command[1]", "{{app}} is no placeholder"),
        (
            replace(METRICS["own"], dimensions={"My-Release": "{{x}}"}),
            'gates[0].metric.dimensions["My-Release"]',
            "{{x}} is no placeholder",
        ),
        (DeploymentGateMetric(max=1.0), "gates[0].metric", "needs one of cloudwatch, cloudMonitoring, prometheus,"),
        (ON_GOOGLE, "gates", 'cloudMonitoring is of an environment with cloud = "gcp"'),
        (
            DeploymentGate(AGAINST, on=(GateStage.BAKE,)),
            "gates[0].on",
            "with all of the traffic on the new release there is nothing to compare with",
        ),
        (DeploymentGate(ERRORS, on=()), "gates[0].on", "is empty"),
    ],
)  # fmt: skip
def test_failures_name_their_property(metric: Any, path: str, reason: str) -> None:
    """What osv.toml refuses of a gate is refused here, at the property that it is about, in the words of programs."""
    _, failures = checked(AwsDeployment(), aws(metric))
    assert list(failures) == [path], failures
    assert reason in failures[path]


@pytest.mark.parametrize(
    ("hook", "path", "reason"),
    [
        (replace(SMOKE, command=None), "hooks[1]", "needs command or url"),
        (replace(SMOKE, url="https://x.example"), "hooks[1].url", "is one too many: there is command"),
        (replace(SMOKE, headers={"X-A": "b"}), "hooks[1].headers", "are of a url"),
        (replace(SMOKE, timeout="2h"), "hooks[1].timeout", "from 1s to 1h"),
        (replace(SMOKE, name="Smoke"), "hooks[1].name", "lower-case"),
        (replace(SMOKE, on=()), "hooks[1].on", "is empty"),
        (replace(PAGE, name="b", headers={"X-Token": "x"}), "hooks[1].headers", 'headerVariables = { X-Token = "NAME"'),
        (replace(PAGE, name="b", headers={"X-A": "\n"}), 'hooks[1].headers["X-A"]', "printable"),
        (PAGE, "hooks", "two are called 'page'"),
    ],
)
def test_failures_of_hooks_name_their_property(hook: DeploymentHook, path: str, reason: str) -> None:
    """What osv.toml refuses of a hook is refused here, also where another one is not known yet."""
    for first in (PAGE, replace(PAGE, url=UNKNOWN)):
        _, failures = checked(AwsDeployment(), aws(hooks=(first, hook)))
        if hook is PAGE and first is not PAGE:
            assert failures == {}, "it may be called otherwise"
            continue
        assert list(failures) == [path], failures
        assert reason in failures[path]


@pytest.mark.parametrize(
    ("changed", "path", "reason"),
    [
        ({"notify": (DeploymentNotify(),)}, "notify[0]", "needs one of webhookVariable, webhook, sns, pubsub"),
        ({"notify": (replace(TOPIC, format=WebhookFormat.SLACK),)}, "notify[0].format", "is of a webhook, not of sns"),
        ({"notify": (TOPIC, TOPIC)}, "notify", "is there twice"),
        ({"notify": (DeploymentNotify(pubsub="projects/acme-prod/topics/news"),)}, "notify", 'cloud = "gcp"'),
        (
            {"notify": (DeploymentNotify(webhook="https://hooks.slack.com/services/T/B/x"),)},
            "notify[0].webhook",
            'webhookVariable = "NAME"',
        ),
        ({"health": DeploymentHealth(kind=HealthKind.TCP)}, "health", "an application load balancer asks by HTTP"),
        ({"health": DeploymentHealth(slow_start="10s")}, "health.slowStart", "whole seconds, from 30s to 900s"),
        (
            {"health": DeploymentHealth(probe_from=DeploymentProbeFrom(command=()))},
            "health.probeFrom.command",
            "is empty",
        ),
        (
            {"health": DeploymentHealth(probe_from=DeploymentProbeFrom(command=("a",), requests=True))},
            "health.probeFrom.requests",
            "unknown key",
        ),
    ],
)
def test_failures_of_the_rest_name_their_property(changed: dict[str, Any], path: str, reason: str) -> None:
    """Of who is told, and where probes leave from."""
    _, failures = checked(AwsDeployment(), replace(AWS, **changed))
    assert list(failures) == [path], failures
    assert reason in failures[path]


def test_what_speaks_no_http() -> None:
    """Behind a forwarding rule, without a path; nothing of it is lost on the way back."""
    rule = "projects/acme/regions/europe-west1/forwardingRules/web"
    given = replace(
        GCP, url_map=None, route=None, forwarding_rule=rule, health=DeploymentHealth(kind=HealthKind.TCP),
    )  # fmt: skip
    wanted, failures = checked(GcpDeployment(), given)
    assert failures == {}
    rollout = GcpDeployment().settings(wanted)
    assert rollout.health.kind == "tcp"
    assert GcpDeployment().seen_as(rollout, "acme").health == given.health
    with_path = replace(given, health=DeploymentHealth(kind=HealthKind.TCP, path="/x"))
    assert list(checked(GcpDeployment(), with_path)[1]) == ["health.path"]
    changes = GcpDeployment().judge(state(wanted, image=GCP.image), replace(wanted, health=None), ()).changes
    assert {each.path: each.replaces for each in changes} == {"health.kind": True, "health.path": True}


@pytest.mark.parametrize("probes", [DeploymentProbeFrom(requests=True), DeploymentProbeFrom(command=("ssh", "there"))])
def test_where_probes_leave_from_comes_back(probes: DeploymentProbeFrom) -> None:
    """In place, and by an import."""
    wanted, failures = checked(AwsDeployment(), replace(AWS, health=DeploymentHealth(probe_from=probes)))
    assert failures == {}
    assert AwsDeployment().seen_as(AwsDeployment().settings(wanted), "1").health == wanted.health
    assert not any(judged(state(AWS), wanted)[0].values())
    assert judged(state(AWS), replace(AWS, health=DeploymentHealth(probe_from=DeploymentProbeFrom()))) == ({}, "")


@given(
    st.sampled_from([SLACK, TOPIC, DeploymentNotify(webhook="https://x.example")]),
    maybe(st.lists(st.sampled_from(NoticeKind), min_size=1).map(tuple)),
)
def test_an_import_gives_back_who_is_told(kind: DeploymentNotify, on: Any) -> None:
    """What a rollout has comes back as what is accepted, and means the same."""
    wanted = aws(notify=(replace(kind, on=on),))
    seen = AwsDeployment().seen_as(AwsDeployment().settings(wanted), "1234")
    imported, failures = checked(AwsDeployment(), replace(seen, image=AWS.image, ledger=AWS.ledger))
    assert failures == {}
    assert judged(state(imported), wanted) == ({}, "")


def test_gates_need_what_bakes() -> None:
    """And no two have one name."""
    bare = replace(aws(ERRORS), strategy=None)
    assert "none does here; set strategy.bake" in checked(AwsDeployment(), bare)[1]["gates"]
    assert "give each a name of its own" in checked(AwsDeployment(), aws(ERRORS, ERRORS))[1]["gates"]


def test_what_is_known_is_judged_where_the_rest_is_not() -> None:
    """Each gate for itself, by its place in the program; what is said of a strategy that nobody knows is not said."""
    unknown = DeploymentGate(replace(DEPTH, max=UNKNOWN))
    wrong = replace(ERRORS, max=None)
    assert list(checked(AwsDeployment(), aws(unknown, wrong, unknown, wrong))[1]) == [
        "gates[1].metric.max",
        "gates[3].metric.max",
    ]
    assert checked(AwsDeployment(), aws(unknown, ERRORS))[1] == {}
    assert checked(AwsDeployment(), replace(aws(ERRORS), strategy=UNKNOWN))[1] == {}
    assert list(checked(AwsDeployment(), replace(aws(wrong), strategy=UNKNOWN))[1]) == ["gates[0].metric.max"]
    assert checked(AwsDeployment(), replace(aws(), gates=UNKNOWN))[1] == {}


def test_on_google() -> None:
    """Labels keep their names, also in what is said of them."""
    given = replace(GCP, strategy=STEPS, gates=(DeploymentGate(ON_GOOGLE),))
    wanted, failures = checked(GcpDeployment(), given)
    assert failures == {}
    assert GcpDeployment().seen_as(GcpDeployment().settings(wanted), "acme").gates == given.gates
    for labels, path in (
        ({"response_code_class": "{{x}}"}, "gates[0].metric.labels.response_code_class"),
        ({"a b": "{{x}}"}, 'gates[0].metric.labels["a b"]'),
    ):
        wrong = (DeploymentGate(replace(ON_GOOGLE, labels=labels)),)
        assert list(checked(GcpDeployment(), replace(given, gates=wrong))[1]) == [path]
    own = replace(ON_GOOGLE, per="custom.googleapis.com/requests")
    failures = checked(GcpDeployment(), replace(given, gates=(DeploymentGate(own),)))[1]
    assert failures == {"gates[0].metric.per": "is no balancer's metric: needs perLabels that tell releases apart"}


# ---------------------------------------------------------------------------------------------------------- coming back

texts = st.text(st.characters(codec="utf-8", exclude_characters="{}"), min_size=1, max_size=12)
numbers = st.floats(0.001, 1e6)


@st.composite
def declared_gates(draw: st.DrawFn) -> DeploymentGate:
    """Gates that a check lets through, whatever they leave out."""
    cloud = draw(st.booleans())
    interval = draw(st.sampled_from(["60s", "2m"] if cloud else ["5s", "15s", "1m", "90s"]))
    samples = draw(maybe(st.integers(1, 5)))
    per = draw(maybe(texts))
    against = draw(st.booleans())
    metric = DeploymentGateMetric(
        interval=draw(st.sampled_from([interval, *([None] if interval == "60s" else [])])),
        min_samples=samples,
        window=draw(maybe(st.just("1h"))),
        delay=draw(maybe(st.sampled_from(["0s", "30s", "2m", "1h"]))),
        no_data=draw(maybe(st.sampled_from(NoData))),
        against=GateBaseline.STABLE if against else None,
        max=None if against else draw(numbers),
        max_ratio=draw(numbers) if against else None,
    )
    if cloud:
        metric = replace(metric, cloudwatch="RequestCount" if per else "TargetResponseTime", per=per and "Requests")
        if not per:
            metric = replace(metric, statistic=draw(maybe(st.sampled_from(Statistic))))
    else:
        source = draw(st.sampled_from(["prometheus", "json", "command"]))
        if source == "prometheus":
            metric = replace(metric, prometheus="https://p.example", query=draw(texts), per=per)
        elif source == "json":
            metric = replace(metric, json="https://j.example/{{release}}", pointer=draw(st.sampled_from(["", "/a/b"])))
        else:
            metric = replace(metric, command=tuple(draw(st.lists(texts, min_size=1, max_size=3))))
    if metric.per is not None:
        metric = replace(metric, confidence=draw(maybe(st.sampled_from([0.5, 0.95, 0.999]))))
    stages = [GateStage.STEP] if against else [GateStage.STEP, GateStage.BAKE]
    on = draw(maybe(st.lists(st.sampled_from(stages), min_size=1).map(tuple)))
    return DeploymentGate(metric, name=draw(maybe(texts)), on=on, dry_run=draw(st.booleans()))


@settings(deadline=None)
@given(declared_gates())
@example(DeploymentGate(replace(DEPTH, command=("/opt/depth", "x" * 100))))
@example(DeploymentGate(replace(DEPTH, command=("bin/depth", "x"))))
@example(DeploymentGate(replace(DEPTH, command=("~/depth",))))
def test_an_import_gives_back_what_was_declared(declared: DeploymentGate) -> None:
    """What a rollout has comes back as a gate that is accepted, and means the same."""
    wanted = aws(declared)
    _, failures = checked(AwsDeployment(), wanted)
    assert failures == {}
    rollout = AwsDeployment().settings(wanted).gates
    seen = tuple(map(as_one_writes_it, rollout))
    assert checked(AwsDeployment(), aws(*seen))[1] == {}
    in_order = tuple(replace(each, on=tuple(stage for stage in GateStage if stage in each.on)) for each in rollout)
    assert AwsDeployment().settings(aws(*seen)).gates == in_order
    assert tuple(map(as_a_rollout_has_it, seen)) == (as_a_rollout_has_it(declared),)


@given(
    st.lists(st.sampled_from(HookStage), min_size=1).map(tuple),
    maybe(st.sampled_from(["1s", "60s", "90s", "1h"])),
    maybe(st.sampled_from(HookFailure)),
    st.sampled_from([PAGE, SMOKE, replace(SMOKE, command=("smoke",)), replace(PAGE, headers=None)]),
)
def test_an_import_gives_back_hooks(on: Any, timeout: str | None, failure: HookFailure | None, kind: Any) -> None:
    """What a rollout has comes back as a hook that is accepted, and means the same."""
    wanted = aws(hooks=(replace(kind, on=on, timeout=timeout, on_failure=failure),))
    seen = AwsDeployment().seen_as(AwsDeployment().settings(wanted), "1234")
    imported, failures = checked(AwsDeployment(), replace(seen, image=AWS.image, ledger=AWS.ledger))
    assert failures == {}
    assert judged(state(imported), wanted) == ({}, "")
    assert imported.hooks[0].timeout in (None, timeout, "1m 30s", "1h"), imported.hooks[0].timeout


def test_a_program_beside_the_program_is_written_as_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of the project elsewhere has it too, and sees no change."""
    monkeypatch.chdir(tmp_path)
    (gate,) = AwsDeployment().settings(aws(DEPTH)).gates
    assert gate.metric == CommandMetric((str(tmp_path / "depth"), "{{release}}"))
    assert as_one_writes_it(gate).metric.command == ("./depth", "{{release}}")
    monkeypatch.chdir("/")
    assert as_one_writes_it(gate).metric.command == (str(tmp_path / "depth"), "{{release}}")
