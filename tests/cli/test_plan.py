"""plan and deploy --plan as a user meets them, on Google over sockets; and what is no plan."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from osvdeploy.api import wiring
from osvdeploy.cli.plan import following
from osvdeploy.cloud.aws.quotas import VcpuQuotas
from osvdeploy.demo.hello import build_hello
from osvdeploy.errors import Unavailable
from osvdeploy.sandbox.faults import Fault, FaultKind
from osvdeploy.sandbox.runners.process import ProcessRunner, loopback_addresses_work
from tests.aws_world import AwsWorld
from tests.cli.google import Google, google_project, make_balancer
from tests.cli.projects import SPEC, built_project
from tests.cli.running import osvdeploy
from tests.cli.test_bad_input import refused
from tests.cli.test_deploy_google import FORCED, GOOGLE
from tests.contract.aws_scene import plant_service

pytestmark = pytest.mark.slow

SECRET = "hunter2-is-no-good"
PRICES = '\n[prices]\ncurrency = "EUR"\nmachines = { e2-small = "0.0184" }\nimage-gib-month = 0.05\n'
_READING = ("wait", "getHealth", "listManagedInstances")

served = pytest.mark.skipif(not loopback_addresses_work(), reason="needs all of 127.0.0.0/8")


@pytest.fixture(scope="module")
def hello(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return build_hello("1.0.0", tmp_path_factory.mktemp("hello") / "hello").read_bytes()


@pytest.fixture
def google(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hello: bytes) -> Iterator[Google]:
    runner = ProcessRunner(tmp_path / "guests")
    spec = SPEC.replace('["/app"]', '["/app", "--port", "8080"]') + GOOGLE + PRICES
    spec = spec.replace('ledger = "ledger"', f'ledger = "ledger"\nenv = {{ TOKEN = "{SECRET}" }}')
    yield from google_project(tmp_path, monkeypatch, spec, hello, runner)
    runner.close()


def changing(google: Google, since: int = 0) -> list[str]:
    return [
        call.operation
        for call in google.shell.sandbox.calls(since)
        if call.service == "compute" and call.mutating and call.operation.rpartition(".")[2] not in _READING
    ]


@served
@pytest.mark.slow
def test_a_plan_is_told_kept_followed_and_refused_once_it_is_old(google: Google) -> None:
    """A first deploy: nothing is made by the plan, the deploy makes what it named, and no second one may follow it."""
    google.make_bucket()
    make_balancer(google.shell.url)
    began = changing(google)

    unbuilt = google.run("plan", *FORCED)
    assert unbuilt.code == 0 and "app-1.0.0, not built yet" in unbuilt.stdout, unbuilt.stderr
    assert google.run("build", *FORCED).code == 0
    ran = google.run("plan", *FORCED, "--out", "plan.json")
    assert ran.code == 0, ran.stderr
    assert "serving: nothing" in ran.stdout and "instanceGroupManagers.insert" in ran.stdout
    assert "quotas: CPUS 0 of 24 used" in ran.stdout and "0.0184 EUR" in ran.stdout
    assert "all machines stand in one zone" in ran.stdout
    kept = (google.folder / "plan.json").read_text()
    document = json.loads(kept)
    assert SECRET not in kept and SECRET not in ran.stdout
    assert document["command"] == "plan" and document["cost"]["per_hour"]["most"] == "0.0184"
    assert changing(google) == began and not (google.folder / "ledger").exists()

    ran = google.run("deploy", "--plan", "plan.json", *FORCED)
    assert ran.code == 0, ran.stderr
    told = [call["operation"] for call in document["calls"]]
    assert [each for each in changing(google)[len(began) :] if not each.startswith("images.")] == told

    again = google.run("deploy", "--plan", "plan.json", *FORCED)
    refused(again, 2, "newest document of the ledger: 0 ->", "machines of group", hint="make a new plan")
    other = google.run("plan", "--set", "version=1.1.0", "--set", "deploy.europe.capacity=2", *FORCED, "--json")
    assert other.code == 0, other.stderr
    assert {"key": "capacity", "before": 1, "after": 2} in other.document["settings"]
    assert other.document["capacity"]["most"] == {"machines": {"e2-small": 3}, "cpus": 6}
    assert other.document["estimate"]["legs"][1]["runs"] == 1
    assert other.document["refused"] == []

    assert google.run("hold", "--why", "freeze").code == 0
    held = google.run("plan", "--set", "version=1.1.0", *FORCED)
    assert held.code == 0 and "refused now: app/europe: every release is held" in held.stdout, held.stderr
    assert "instanceGroupManagers.insert" in held.stdout and "osvdeploy unhold" in held.stdout


@served
@pytest.mark.slow
def test_a_plan_of_what_asks_and_tells_others_asks_and_tells_nobody(google: Google) -> None:
    """Those that can be reached from here are no objection; a program that is not here is refused, as by the deploy."""
    google.make_bucket()
    make_balancer(google.shell.url)
    asked = google.folder / "asked"
    (google.folder / "ask").write_text(f"#!/bin/sh\ntouch {asked}\n")
    (google.folder / "ask").chmod(0o755)
    spec = (google.folder / "osv.toml").read_text()
    hook = '\n[[deploy.europe.hooks]]\nname = "smoke"\non = ["verify"]\ncommand = ["./{}"]\n'
    told = '\n[[deploy.europe.notify]]\nwebhook = "http://127.0.0.1:9/rollouts"\n'
    (google.folder / "asking.toml").write_text(spec + hook.format("ask") + told)
    ran = google.run("plan", "--file", "asking.toml", *FORCED)
    assert ran.code == 0 and "will not be told" not in ran.stderr, ran.stderr
    assert "verify, asks smoke (up to 1m)" in ran.stdout.replace("\n    ", " ")
    assert not asked.exists()
    (google.folder / "asking.toml").write_text(spec + hook.format("gone") + told)
    refused(google.run("plan", "--file", "asking.toml", *FORCED), 2, "hook smoke", "gone")


def test_a_plan_beside_a_rollout_that_waits_tells_no_calls(google: Google) -> None:
    """They follow from how that one ends; the plan says so, and ends well."""
    google.make_bucket()
    make_balancer(google.shell.url)
    assert google.run("deploy", *FORCED).code == 0
    spec = (google.folder / "osv.toml").read_text()
    (google.folder / "asking.toml").write_text(spec + "\n[deploy.europe.strategy]\napprove = true\n")
    asking = ("--file", "asking.toml")
    assert google.run("deploy", "--set", "version=1.1.0", *asking, "--no-stay", *FORCED).code == 5
    for concurrent in ("refuse", "queue"):
        ran = google.run("plan", "--set", f"deploy.europe.strategy.concurrent={concurrent}", *FORCED)
        assert ran.code == 0 and "calls: they follow from how the rollout under way ends" in ran.stdout, ran.stderr
        assert "refused now: app/europe: the deploy of app-1.1.0-" in ran.stdout
    same = google.run("plan", "--set", "version=1.1.0", *asking, *FORCED)
    assert same.code == 0 and "refused now" not in same.stdout
    assert "urlMaps.patch" in same.stdout and "instanceGroupManagers.insert" not in same.stdout


def test_the_deploy_that_follows_a_plan_is_told_with_all_that_it_was_asked_for() -> None:
    """A spec of several environments refuses one without `--env`, and another version is another plan."""
    named = following(Path("osv.toml"), "production", (), "1.0.0", None, (), False, False, Path("p.json"))
    assert named == "osvdeploy deploy --env production --release 1.0.0 --plan p.json"
    assert following(Path("osv.toml"), None, (), None, None, (), False, False, Path("p.json")).split()[2:] == [
        "--plan",
        "p.json",
    ]
    sets, forced = ("version=2 beta", "name=x"), ("nitro-traffic",)
    whole = following(Path("a/osv.toml"), None, sets, "1", "staging", forced, True, True, Path("p.json"))
    assert whole == (
        "osvdeploy deploy --file a/osv.toml --release 1 --from staging --set 'version=2 beta' --set name=x "
        "--force nitro-traffic --displace --take-over --plan p.json"
    )


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "cannot be read"),
        ("not json", "is no plan"),
        ('{"schema": 1, "command": "deploy"}', "is no plan"),
        ('{"schema": 2, "command": "plan", "basis": {}}', "another version"),
        ('{"schema": 1, "command": "plan", "basis": {"head": "x"}}', "can read"),
    ],
)
def test_what_is_no_plan_is_refused(tmp_path: Path, content: str | None, told: str) -> None:
    """Before anything is looked at; with how one is made."""
    if content is not None:
        (tmp_path / "plan.json").write_text(content)
    refused(osvdeploy("deploy", "--plan", "plan.json", folder=tmp_path), 2, "plan.json", told, hint="plan")


@pytest.mark.parametrize(
    "given", ["t3.small", "t3.small=", "t3.small=cheap", "t3.small=-1", "t3.small=nan", "currency=usd"]
)
def test_what_is_no_price_is_refused(tmp_path: Path, given: str) -> None:
    """With one that is."""
    (tmp_path / "osv.toml").write_text(SPEC)
    ran = osvdeploy("plan", "--price", "currency=USD", "--price", given, folder=tmp_path)
    refused(ran, 2, f"--price {given}", hint="--price")


def test_prices_without_a_currency_are_refused(tmp_path: Path) -> None:
    """Numbers alone are no money."""
    (tmp_path / "osv.toml").write_text(SPEC)
    refused(osvdeploy("plan", "--price", "t3.small=1", folder=tmp_path), 2, "no currency", hint="currency=USD")


def unavailable(*_: object) -> None:
    raise Unavailable("no answer")


ON_AWS = """
[deploy.production]
cloud = "aws"
region = "eu-west-1"
instance-type = "t3.small"
capacity = 3
subnets = {subnets}
listener = "{listener}"
route = {{ path = "/*", priority = 100 }}
port = 8080
ledger = "ledger"
[deploy.production.strategy]
keep-warm = "0s"
on-failure = "pause"
"""


@pytest.mark.slow
def test_on_aws_blocks_are_counted_and_no_call_of_any_service_changes_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is sent is told where the disk is built, and what the account may run."""
    world = AwsWorld(tmp_path)
    folder = built_project(tmp_path, monkeypatch)
    network = world.network
    declared = ON_AWS.format(subnets=json.dumps(network.subnets[:1]), listener=network.listener)
    (folder / "osv.toml").write_text(SPEC + declared)
    monkeypatch.setattr(wiring, "connect", lambda *_: world.process().cloud)
    since = len(world.sandbox.calls(0))

    refused(osvdeploy("plan", folder=folder), 2, "disk-driver", hint="osvdeploy check")
    forced = [word for rule in ("program-not-elf", "disk-driver", "network-driver") for word in ("--force", rule)]
    ran = osvdeploy("plan", *forced, "--json", folder=folder)

    assert ran.code == 0, ran.stderr
    found = ran.document
    assert found["publishing"]["blocks"] >= 2
    assert found["publishing"]["bytes"] == found["publishing"]["blocks"] * 512 * 1024
    assert found["quotas"] == [{"name": "vCPUs of standard on-demand instances", "limit": 32.0, "used": 0.0}]
    assert found["cost"] is None
    assert [call["operation"] for call in found["calls"]][-2:] == ["CreateAutoScalingGroup", "CreateRule"]
    assert {each["kind"] for each in found["warnings"]} == {"one-zone", "unattended", "unnamed"}
    assert found["capacity"]["most"] == {"machines": {"t3.small": 3}, "cpus": 6}
    assert [call for call in world.sandbox.calls(since) if call.mutating] == []
    assert not (folder / "ledger").exists()
    text = osvdeploy("plan", *forced, folder=folder).stdout
    assert "quotas: vCPUs of standard on-demand instances 0 of 32 used" in text
    world.sandbox.faults.add(Fault("service-quotas:GetServiceQuota", FaultKind.DENIED))
    ran = osvdeploy("plan", *forced, folder=folder)
    assert ran.code == 0 and "quotas: not known" in ran.stdout
    assert "servicequotas:GetServiceQuota" in ran.stderr
    monkeypatch.setattr(VcpuQuotas, "of", unavailable)
    ran = osvdeploy("plan", *forced, folder=folder)
    assert ran.code == 0 and "quotas: not known" in ran.stdout, "no deploy asks for them"


@pytest.mark.slow
def test_on_aws_one_zone_is_told_of_as_many_subnets_as_there_are_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where zones may not be asked, one subnet alone is known to be in one."""
    world = AwsWorld(tmp_path)
    folder = built_project(tmp_path, monkeypatch)
    monkeypatch.setattr(wiring, "connect", lambda *_: world.process().cloud)
    ec2, (first, second) = world.session.client("ec2"), world.network.subnets[:2]
    [known] = ec2.describe_subnets(SubnetIds=[first])["Subnets"]
    beside = ec2.create_subnet(
        VpcId=known["VpcId"], CidrBlock="10.20.9.0/24", AvailabilityZone=known["AvailabilityZone"]
    )["Subnet"]["SubnetId"]
    forced = [word for rule in ("program-not-elf", "disk-driver", "network-driver") for word in ("--force", rule)]

    def warned(*subnets: str) -> bool:
        declared = ON_AWS.format(subnets=json.dumps(subnets), listener=world.network.listener)
        (folder / "osv.toml").write_text(SPEC + declared)
        ran = osvdeploy("plan", *forced, "--json", folder=folder)
        assert ran.code == 0, ran.stderr
        return "one-zone" in {each["kind"] for each in ran.document["warnings"]}

    assert warned(first) and warned(first, beside) and not warned(first, second)
    world.sandbox.faults.add(Fault("ec2:DescribeSubnets", FaultKind.DENIED, times=9))
    assert warned(first) and not warned(first, beside)


@pytest.mark.slow
def test_a_route_that_somebody_has_is_told_by_the_plan_as_by_the_deploy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Machines that somebody made have just the requests that a first deploy would take."""
    world = AwsWorld(tmp_path)
    release = world.build("0.9.0")
    world.publish(release)
    here = world.process()
    image = here.cloud.images.find(here.ctx, release.id)
    assert image is not None
    network = world.network
    plant_service(world.aws, network.listener, "legacy-web", image.id, network.subnets, 200)
    folder = built_project(tmp_path, monkeypatch)
    declared = ON_AWS.format(subnets=json.dumps(network.subnets[:1]), listener=network.listener)
    (folder / "osv.toml").write_text(SPEC + declared)
    monkeypatch.setattr(wiring, "connect", lambda *_: world.process().cloud)
    forced = [word for rule in ("program-not-elf", "disk-driver", "network-driver") for word in ("--force", rule)]
    refused(osvdeploy("plan", *forced, folder=folder), 2, "requests are taken by", hint="--displace")
    ran = osvdeploy("plan", *forced, "--displace", folder=folder)
    assert ran.code == 0 and "CreateRule" in ran.stdout, ran.stderr
