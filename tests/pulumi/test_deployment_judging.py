"""What a deployment's inputs and their changes mean: no process, no cloud."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from osvdeploy.cloud.interfaces import Slot
from osvdeploy.context import Context, ProcessIdentity
from osvdeploy.errors import UsageError
from osvdeploy.provider.base import Call, Resource, State, all_unknown
from osvdeploy.provider.deployments import (
    DeploymentHealth,
    DeploymentHold,
    DeploymentOutputs,
    DeploymentPreview,
    DeploymentRoute,
    DeploymentServed,
    DeploymentSlot,
    DeploymentStatus,
    DeploymentStep,
    DeploymentStrategy,
    at_work,
    service_of,
)
from osvdeploy.provider.resources.deployments import (
    AwsDeployment,
    AwsDeploymentInputs,
    GcpDeployment,
    GcpDeploymentInputs,
)
from osvdeploy.provider.settings import Settings
from osvdeploy.provider.spelling import spell
from osvdeploy.provider.values import UNKNOWN
from osvdeploy.rollout.ledger import Head, Lease
from osvdeploy.rollout.releases import Concurrent, OnFailure, StrategyKind
from osvdeploy.sizes import parse_duration

LISTENER = "arn:aws:elasticloadbalancing:eu-west-1:123456789012:listener/app/web/1a2b/3c4d"
AWS = AwsDeploymentInputs(
    image="ami-2",
    environment="production",
    route=DeploymentRoute(path="/*", priority=100),
    port=8080,
    listener_arn=LISTENER,
    subnet_ids=("subnet-a",),
    region="eu-west-1",
    ledger="s3://acme/orders",
)
URL_MAP = "projects/acme/global/urlMaps/web"
GCP = GcpDeploymentInputs(
    image="projects/acme/global/images/orders-2",
    environment="production",
    route=DeploymentRoute(path="/*", priority=100),
    port=8080,
    url_map=URL_MAP,
    zone="europe-west1-b",
    ledger="s3://acme/orders",
    family="orders-production",
    project="acme",
)
HOLD = DeploymentHold(
    release="orders-3", image="ami-3", why="a rollback left it", by="ann", at="2030-01-01T10:00:00+00:00"
)
OUTPUTS = DeploymentOutputs(
    service="orders/production",
    status=DeploymentStatus.SERVING,
    url="http://web:80",
    active_slot=Slot.BLUE,
    active_release="orders-2",
    active_image="ami-2",
    blue=DeploymentSlot(),
    green=DeploymentSlot(),
    history=(DeploymentServed("orders-2", "2030-01-01T09:00:00+00:00"),),
)


@pytest.fixture(autouse=True)
def nothing_ambient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "GOOGLE_CLOUD_PROJECT", "OSVDEPLOY_LEDGER"):
        monkeypatch.delenv(name, raising=False)


def call(**settings: Any) -> Call:
    return Call(Context(), "urn", Settings(**settings))


def state(given: AwsDeploymentInputs, *holds: DeploymentHold, image: str = "ami-2") -> State[Any, DeploymentOutputs]:
    """Of a service that was given these inputs, and that was seen with an image of another release."""
    return State(
        "orders/production@s3://acme/orders",
        given,
        replace(given, image=image),
        replace(OUTPUTS, holds=holds, hold=holds[-1] if holds else None),
    )


def judged(before: State[Any, DeploymentOutputs], wanted: Any) -> tuple[dict[str, bool], str]:
    """What changes, and whether it replaces; and the warnings."""
    verdict = AwsDeployment().judge(before, wanted, ())
    assert verdict.delete_before_replace
    return {each.path: each.replaces for each in verdict.changes}, "\n".join(verdict.warnings)


def checked(resource: Resource[Any, Any], inputs: Any, **settings: Any) -> tuple[Any, dict[str, str]]:
    found = resource.check(call(**settings), inputs, None)
    again = resource.check(call(**settings), found.inputs, None)
    assert again.inputs == found.inputs
    return found.inputs, {each.path: each.reason for each in found.failures}


# --------------------------------------------------------------------------------------------------------------- judge


def test_another_image_is_an_update() -> None:
    """In place, without a word."""
    assert judged(state(AWS), replace(AWS, image="ami-3")) == ({"image": False}, "")


def test_another_release_than_was_given_is_drift() -> None:
    """Where the command line has deployed another one and nothing is held, the program's comes back."""
    assert judged(state(AWS, image="ami-9"), AWS) == ({"image": False}, "")


def test_a_held_image_is_no_change() -> None:
    """After a rollback, the program's own image is left where it is, with the ways out."""
    changes, warnings = judged(state(replace(AWS, image="ami-3"), HOLD), replace(AWS, image="ami-3"))
    assert changes == {}
    assert "orders-3 is held since 2030-01-01 10:00 UTC by ann (a rollback left it)" in warnings
    assert "orders-2 goes on serving" in warnings
    assert "`osvdeploy unhold orders/production --release orders-3 --ledger s3://acme/orders`" in warnings


def test_what_else_changes_goes_on() -> None:
    """A hold is of an image, not of the number of machines."""
    changes, _ = judged(state(replace(AWS, image="ami-3"), HOLD), replace(AWS, image="ami-3", capacity=4))
    assert changes == {"capacity": False}


def test_another_image_than_the_held_one_is_an_update() -> None:
    """A new image is what the hold waits for."""
    assert judged(state(replace(AWS, image="ami-3"), HOLD), replace(AWS, image="ami-4")) == ({"image": False}, "")


def test_another_token_forces_a_held_image() -> None:
    """The same token again does not; nor does taking it away."""
    before = replace(AWS, image="ami-3", force_rollout="1")
    assert judged(state(before, HOLD), replace(before, force_rollout="2"))[0] == {"image": False, "forceRollout": False}
    assert judged(state(before, HOLD), before)[0] == {}
    assert judged(state(before, HOLD), replace(before, force_rollout=None))[0] == {"forceRollout": False}


def test_a_freeze_keeps_what_is() -> None:
    """A hold of every release: the same program changes nothing; one with another image is not passed over, so that
    its update is refused."""
    freeze = replace(HOLD, release=None, image=None, why="holidays")
    changes, warnings = judged(state(replace(AWS, image="ami-3"), freeze), replace(AWS, image="ami-3"))
    assert changes == {} and "every release is held" in warnings and "holidays" in warnings
    assert "The way out: `osvdeploy unhold" in warnings and "forceRollout" not in warnings
    assert judged(state(AWS, freeze), replace(AWS, image="ami-4"))[0] == {"image": False}


@pytest.mark.parametrize(
    ("changed", "path"),
    [
        ({"environment": "staging"}, "environment"),
        ({"listener_arn": LISTENER.replace("3c4d", "4d5e")}, "listenerArn"),
        ({"route": DeploymentRoute(path="/api*", priority=100)}, "route.path"),
        ({"port": 80}, "port"),
        ({"region": "eu-central-1"}, "region"),
        ({"ledger": "s3://acme/other"}, "ledger"),
        ({"preview": DeploymentPreview(header="x-colour")}, "preview.header"),
        ({"health": DeploymentHealth(path="/healthz")}, "health.path"),
        ({"health": DeploymentHealth(interval="10s")}, "health.interval"),
    ],
)
def test_what_the_balancer_has_replaces(changed: dict[str, Any], path: str) -> None:
    """And it is said that nothing serves in between."""
    changes, warnings = judged(state(AWS), replace(AWS, **changed))
    assert changes == {path: True}
    assert warnings == f"another {path} takes the service away and makes it anew: nothing serves in between"


def test_all_else_changes_in_place() -> None:
    """What only the rollout has."""
    changes, warnings = judged(
        state(AWS),
        replace(
            AWS,
            capacity=3,
            instance_type="t3.small",
            health=DeploymentHealth(version_header="x-release", boot_timeout="2m", min_ready="1s"),
            strategy=DeploymentStrategy(kind=StrategyKind.BLUE_GREEN, bake="10m", keep_warm="0s"),
        ),
    )
    assert not any(changes.values()) and warnings == ""
    assert set(changes) == {
        "capacity", "instanceType", "health.versionHeader", "health.bootTimeout", "health.minReady", "strategy.bake",
        "strategy.keepWarm",
    }  # fmt: skip


def test_the_same_said_otherwise_is_no_change() -> None:
    """Defaults that are spelled out, and durations in other units."""
    said = replace(
        AWS,
        preview=DeploymentPreview(header="x-preview"),
        health=DeploymentHealth(boot_timeout="1m", interval="5000ms"),
        strategy=DeploymentStrategy(keep_warm="3600s"),
    )
    assert judged(state(AWS), said) == ({}, "")
    assert judged(state(said), AWS) == ({}, "")


@pytest.mark.parametrize(
    "strategy",
    [
        None,
        DeploymentStrategy(
            kind=StrategyKind.CANARY,
            steps=(DeploymentStep(weight=5, bake="1500ms", approve=True), DeploymentStep(weight=50)),
            on_failure=OnFailure.PAUSE,
            concurrent=Concurrent.SUPERSEDE,
        ),
        DeploymentStrategy(kind=StrategyKind.LINEAR, step=30, step_bake="90s", approve=True),
        DeploymentStrategy(kind=StrategyKind.ALL_AT_ONCE, keep_warm="0s"),
    ],
    ids=["none", "canary", "linear", "all at once"],
)
@pytest.mark.parametrize(("resource", "given"), [(AwsDeployment(), AWS), (GcpDeployment(), GCP)], ids=["aws", "gcp"])
def test_an_import_gives_back_what_was_deployed(resource: Any, given: Any, strategy: DeploymentStrategy | None) -> None:
    """Out of the settings in the ledger come inputs that a check accepts, and that differ in nothing."""
    wanted, _ = checked(resource, replace(given, strategy=strategy))
    seen = resource.seen_as(resource.settings(wanted), "acme")
    imported, failures = checked(resource, replace(seen, image=wanted.image, ledger=wanted.ledger))
    assert failures == {}
    assert resource.judge(state(imported, image=wanted.image), wanted, ()).changes == ()


def test_the_same_ledger_said_otherwise_is_no_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another ledger replaces the service, and nothing serves in between; the same, written otherwise, does not."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "link").symlink_to("ledger")
    plain = replace(AWS, ledger=str(tmp_path / "ledger"))
    for way in ("ledger", "./ledger/", "~/ledger", f"{tmp_path}/other/../ledger", f"{tmp_path}/link"):
        assert judged(state(replace(AWS, ledger=way)), plain) == ({}, ""), way
    assert judged(state(AWS), replace(AWS, ledger="s3://acme/orders/")) == ({}, "")
    assert judged(state(AWS), replace(AWS, ledger="s3://acme/other"))[0] == {"ledger": True}
    assert judged(state(AWS), replace(AWS, ledger=UNKNOWN))[0] == {"ledger": True}


def test_what_is_not_known_yet_is_a_change() -> None:
    """Whatever it will be; a whole route that is not known may be another one."""
    assert judged(state(AWS), replace(AWS, image=UNKNOWN, health=UNKNOWN))[0] == {"image": False, "health": False}
    assert judged(state(AWS), replace(AWS, route=UNKNOWN))[0] == {"route": True}


def test_a_preview_without_an_image_knows_what_stays() -> None:
    """Nothing of a new service; of one that stands its name and where clients enter. No cloud is asked."""
    lines: list[str] = []
    quiet = replace(call(), info=lines.append)
    unknown = replace(AWS, image=UNKNOWN)
    assert AwsDeployment().preview(quiet, unknown, None) == all_unknown(DeploymentOutputs)
    kept = AwsDeployment().preview(quiet, unknown, state(AWS))
    assert kept == replace(all_unknown(DeploymentOutputs), service="orders/production", url="http://web:80")
    assert lines == ["what is rolled out is not known yet"] * 2


# --------------------------------------------------------------------------------------------------------------- check


def test_configuration_fills_in() -> None:
    """Region, project and ledger come from the program, else from the provider, else from what is named."""
    bare = replace(AWS, region=None, ledger=None)
    assert checked(AwsDeployment(), bare, ledger="s3://acme/b") == (
        replace(bare, region="eu-west-1", ledger="s3://acme/b"),
        {},
    )
    assert checked(AwsDeployment(), replace(bare, port=0))[1] == {
        "ledger": "is needed: here, in the provider's configuration, or as OSVDEPLOY_LEDGER",
        "port": "should be greater than or equal to 1, not 0",
    }
    other = checked(AwsDeployment(), replace(bare, ledger="x"), region="us-east-1")[1]
    assert other == {"listenerArn": "is of eu-west-1, and the deployment of us-east-1"}
    named = replace(GCP, url_map="web", subnetwork="back", project=None)
    link = "projects/acme/regions/europe-west1/subnetworks/back"
    assert checked(GcpDeployment(), named, project="acme") == (replace(GCP, subnetwork=link), {})
    assert "project" in checked(GcpDeployment(), named)[1]


def test_links_are_taken_as_google_writes_them() -> None:
    """Whole addresses, paths and names are one."""
    root = "https://www.googleapis.com/compute/v1/"
    network = "projects/acme/regions/europe-west1/subnetworks/back"
    given = replace(GCP, image=root + GCP.image, url_map=root + URL_MAP, subnetwork=root + network, project=None)
    assert checked(GcpDeployment(), given) == (replace(GCP, subnetwork=network), {})
    failures = checked(GcpDeployment(), replace(GCP, project="other"))[1]
    assert failures == {"urlMap": "is of the project acme, and the deployment of other"}


def test_a_forwarding_rule_is_a_way_in_too() -> None:
    """It has neither route nor preview, and is told from a URL map when it comes back."""
    link = "projects/acme/regions/europe-west1/forwardingRules/web"
    given = replace(GCP, url_map=None, forwarding_rule=f"https://compute.googleapis.com/compute/v1/{link}", route=None)
    inputs, failures = checked(GcpDeployment(), given)
    assert (inputs, failures) == (replace(given, forwarding_rule=link), {})
    assert checked(GcpDeployment(), replace(given, forwarding_rule="web"))[0] == inputs
    settings = GcpDeployment().settings(inputs)
    assert (settings.listener, settings.priority, settings.health.version_header) == (link, 0, None)
    assert replace(GcpDeployment().seen_as(settings, "acme"), image=GCP.image, ledger=GCP.ledger) == inputs
    for wrong, path in (
        ({"route": GCP.route}, "route"),
        ({"url_map": URL_MAP, "route": GCP.route}, "forwardingRule"),
        ({"forwarding_rule": None}, "urlMap"),
        ({"forwarding_rule": None, "url_map": URL_MAP}, "route"),
    ):
        assert path in checked(GcpDeployment(), replace(given, **wrong))[1], wrong


@pytest.mark.parametrize(
    ("changed", "path", "reason"),
    [
        ({"health": DeploymentHealth(interval="90")}, "health.interval", "has no unit"),
        ({"health": DeploymentHealth(timeout="5s")}, "health.timeout", "less than interval"),
        ({"strategy": DeploymentStrategy(bake="soon")}, "strategy.bake", "is not a duration"),
        ({"strategy": DeploymentStrategy(StrategyKind.ALL_AT_ONCE, bake="1m")}, "strategy.bake", "does not bake"),
        ({"route": DeploymentRoute(priority=1)}, "route.priority", "3"),
        ({"route": DeploymentRoute(priority=5)}, "route", "needs host or path"),
        ({"port": 70000}, "port", "65535"),
        ({"capacity": 0}, "capacity", "1"),
        ({"subnet_ids": ()}, "subnetIds", "missing"),
        ({"subnet_ids": ("a", "")}, "subnetIds[1]", ""),
        ({"listener_arn": "web"}, "listenerArn", "is no ARN of a load balancer's listener"),
        ({"environment": "Pro duction"}, "environment", "lower-case"),
        ({"image": ""}, "image", "is empty"),
        ({"instance_type": "small"}, "instanceType", "an instance type"),
    ],
)
def test_failures_name_their_property(changed: dict[str, Any], path: str, reason: str) -> None:
    """What osv.toml refuses is refused here, at the property that it is about, and alone."""
    _, failures = checked(AwsDeployment(), replace(AWS, **changed))
    assert list(failures) == [path], failures
    assert reason in failures[path]


def test_the_rest_is_judged_where_something_is_not_known() -> None:
    """A preview does not wait for a listener to say that the port is none."""
    unknown = replace(AWS, listener_arn=UNKNOWN, subnet_ids=(UNKNOWN,), image=UNKNOWN, environment=UNKNOWN, port=0)
    assert list(checked(AwsDeployment(), unknown)[1]) == ["port"]
    elsewhere = replace(GCP, url_map=UNKNOWN, zone=UNKNOWN, route=UNKNOWN, project=UNKNOWN, capacity=-1)
    assert list(checked(GcpDeployment(), elsewhere)[1]) == ["capacity"]
    assert checked(GcpDeployment(), replace(GCP, zone=None))[1] != {}


def test_settings_are_those_of_a_spec() -> None:
    """The inputs become what a deploy from an osv.toml has, and come back from it."""
    aws = AwsDeployment().settings(AWS)
    assert (aws.listener, aws.health.boot_timeout, aws.health.version_header) == (LISTENER, 60.0, None)
    assert replace(AwsDeployment().seen_as(aws, "1234"), image=AWS.image, ledger=AWS.ledger) == AWS
    gcp = GcpDeployment().settings(GCP)
    assert (gcp.listener, gcp.health.boot_timeout) == (URL_MAP, 300.0)
    assert gcp.health.version_header == "x-osvdeploy-release"
    assert replace(GcpDeployment().seen_as(gcp, "acme"), image=GCP.image, ledger=GCP.ledger) == GCP


# ------------------------------------------------------------------------------------------------------------- reading


def test_who_is_silent_is_not_at_work() -> None:
    """A process elsewhere that holds the lease and has written nothing for two of its lengths; a dead one of here."""
    now = datetime(2030, 1, 1, tzinfo=UTC)
    elsewhere = Lease(ProcessIdentity("elsewhere", "", "", 1, "1", "ann"), 60.0)
    head = Head("orders/production", n=1, epoch=1, nonce="", written=now, why="", lease=elsewhere)
    assert at_work(head, now + timedelta(seconds=119))
    assert not at_work(head, now + timedelta(seconds=120))
    assert not at_work(replace(head, lease=None), now)
    here = ProcessIdentity.current()
    assert at_work(replace(head, lease=Lease(here, 60.0)), now)
    if here.boot and here.namespace:
        assert not at_work(replace(head, lease=Lease(replace(here, started="never"), 60.0)), now)


# ---------------------------------------------------------------------------------------------------------------- ids


def test_ids() -> None:
    """An id names service and ledger; without the latter the configuration does; what is none is refused."""
    assert service_of("orders/production@s3://acme/x@y", None).ledger == "s3://acme/x@y"
    assert service_of("orders/production@here", None).ledger == str(Path("here").resolve())
    assert service_of("orders/production", "there").name == "orders/production"
    for wrong in ("orders", "orders/production", "orders@x", "/production@x", "a/b/c@x", "@x"):
        with pytest.raises(UsageError, match="names no service"):
            service_of(wrong, None)


@given(st.integers(0, 366 * 86_400_000))
@example(500)
@example(90_000)
@example(1_234_567_000)
def test_durations_come_back(milliseconds: int) -> None:
    """What is written is read as the same."""
    seconds = milliseconds / 1000
    assert parse_duration(spell(seconds)) == seconds
