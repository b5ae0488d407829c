"""Rolling out on Google as a user meets it: from the spec to live traffic, and back to nothing, over sockets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from osvdeploy.demo.hello import build_hello
from osvdeploy.sandbox.runners.process import ProcessRunner, loopback_addresses_work
from tests.cli.google import Google, finished, google_project, make, make_balancer
from tests.cli.projects import SPEC
from tests.cli.test_bad_input import refused

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not loopback_addresses_work(), reason="needs all of 127.0.0.0/8"),
]

GOOGLE = """
[publish.gcp]
project = "acme-prod"
bucket = "acme-images"

[deploy.europe]
cloud = "gcp"
zone = "europe-west1-b"
url-map = "web"
capacity = 1
port = 8080
ledger = "ledger"
route = { path = "/*", priority = 100 }
health = { min-ready = "0s", boot-timeout = "30s" }
"""


FORCED = ("--force", "symbol-missing-at-load")
"""The stand-in for a kernel exports nothing."""


@pytest.fixture(scope="module")
def hello(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return build_hello("1.0.0", tmp_path_factory.mktemp("hello") / "hello").read_bytes()


@pytest.fixture
def google(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hello: bytes) -> Iterator[Google]:
    runner = ProcessRunner(tmp_path / "guests")
    spec = SPEC.replace('["/app"]', '["/app", "--port", "8080"]') + GOOGLE
    yield from google_project(tmp_path, monkeypatch, spec, hello, runner)
    runner.close()


def scale(google: Google) -> None:
    """Attach an autoscaler to the one group that there is."""
    zone = "/compute/v1/projects/acme-prod/zones/europe-west1-b"
    [group] = google.get(f"{zone}/instanceGroupManagers")["items"]
    policy = {"minNumReplicas": 1, "maxNumReplicas": 2}
    document = {"name": "theirs", "target": group["selfLink"], "autoscalingPolicy": policy}
    answer = requests.post(f"{google.shell.url}{zone}/autoscalers", json=document, timeout=10)
    assert answer.ok, answer.text
    requests.post(f"{answer.json()['selfLink']}/wait", timeout=10)


def others_start_machines_from(google: Google, image: str) -> str:
    """The address of an instance template of somebody else's that has the image."""
    disk = {"boot": True, "initializeParams": {"sourceImage": f"global/images/{image}"}}
    card = {"network": "global/networks/default"}
    properties = {"machineType": "e2-small", "disks": [disk], "networkInterfaces": [card]}
    make(google.shell.url, "projects/acme-prod/global", "instanceTemplates", name="theirs", properties=properties)
    return f"{google.shell.url}/compute/v1/projects/acme-prod/global/instanceTemplates/theirs"


def goes_to_and_fro(google: Google, url: str, header: str, at_first: str = "") -> tuple[str, ...]:
    """Two releases and back to the first, as answers tell by a header; ``at_first`` the first deploy tells something
    before it makes machines. What names the service to commands that are given no spec."""

    def serving() -> str | None:
        return requests.get(url, timeout=10).headers.get(header)

    ran = google.run("deploy", *FORCED)
    assert ran.code == 0, ran.stderr
    assert 0 <= ran.stderr.find(at_first) < ran.stderr.index("boot"), ran.stderr
    first = serving()
    assert first is not None and first.startswith("app-1.0.0-")
    scale(google)
    ran = google.run("deploy", "--set", "version=1.1.0", *FORCED)
    assert ran.code == 0, ran.stderr
    assert (serving() or "").startswith("app-1.1.0-")

    elsewhere = ("app/europe", "--ledger", str(google.folder / "ledger"))
    status = google.run("status", *elsewhere, "--json").document
    assert {slot["weight"] for slot in status["slots"]} == {0, 100}, status
    scaling = {slot["serving"]: slot["scaling"] for slot in status["slots"]}
    bounds = {"minimum": 1, "desired": 1, "maximum": 2}
    now = scaling[True]
    assert {name: now[name] for name in bounds} == bounds and not now["paused"] and now["by"][0].endswith(", ON")
    assert scaling[False] == {**bounds, "paused": True, "by": ["autoscaler theirs, ONLY_SCALE_OUT"]}
    assert status["run"]["scaled"] and status["run"]["scaling"]["by"] == ["autoscaler theirs, ON"]
    told = google.run("status", *elsewhere).stdout
    assert "green scales by itself, 1 to 2 machines" in told and "paused: it does not get smaller" in told
    for flag in ("--obsolete", "--delete"):
        refused(google.run("withdraw", "1.1.0", flag, "--force"), 2, "1.1.0", "serves", hint="osvdeploy rollback")
        refused(google.run("withdraw", "1.0.0", flag), 2, "is warm until", "(1 machines)", hint="--force")
    ran = google.run("rollback", *elsewhere)
    assert ran.code == 0, ran.stderr
    assert serving() == first
    return elsewhere


def test_a_service_goes_live_and_back_and_away(google: Google) -> None:
    """deploy, status, a second release, rollback, gc, destroy: each by what the ledger says alone, but for deploys."""
    google.make_bucket()
    url = make_balancer(google.shell.url)

    elsewhere = goes_to_and_fro(google, url, "x-osvdeploy-release")
    ran = google.run("gc", *elsewhere, "--keep", "1", "--json")
    assert ran.code == 0, ran.stderr
    assert ran.document["bytes"] == 0 and ran.document["images"] == []
    ran = google.run("destroy", *elsewhere, "--yes")
    assert ran.code == 0, ran.stderr
    project = "/compute/v1/projects/acme-prod"
    left = google.get(f"{project}/global/backendServices")["items"]
    assert [each["name"] for each in left] == ["nobody"]
    assert "items" not in google.get(f"{project}/zones/europe-west1-b/instanceGroupManagers")
    assert "items" not in google.get(f"{project}/global/instanceTemplates")
    told = google.run("gc", *elsewhere, "--dry-run")
    assert told.code == 0 and "4 images" in told.stdout and "KiB" in told.stdout, told.stdout
    held = next(each for each in google.images() if each.startswith("app-1-0-0-"))
    theirs = others_start_machines_from(google, held)
    told = google.run("gc", *elsewhere, "--dry-run")
    assert "2 images would go" in told.stdout and "1 image stays\n" in told.stdout, told.stdout
    assert f"/{held}): others have it: instance template theirs" in told.stdout.splitlines()[-1], told.stdout
    stays = google.run("gc", *elsewhere, "--json").document
    [kept] = stays["kept"]
    assert len(stays["images"]) == 2 and kept["id"].endswith(f"/{held}") and kept["name"].startswith("app-1.0.0-")
    assert (kept["users"], kept["why"]) == (["instance template theirs"], "others have it: instance template theirs")
    finished(requests.delete(theirs, timeout=10))
    gone = google.run("gc", *elsewhere, "--json").document
    assert gone["bytes"] == sum(each["bytes"] for each in gone["images"]) > 0
    assert google.images() == []


REGION = "projects/acme-prod/regions/europe-west1"

POINTER = (
    GOOGLE.replace('url-map = "web"', 'forwarding-rule = "web"')
    .replace('route = { path = "/*", priority = 100 }\n', "")
    .replace("health = { ", 'health = { version-header = "x-release", ')
)


def make_proxied(google: Google) -> str:
    """A forwarding rule that leads to a proxy of TCP, and that to nobody. Where a client enters."""
    made = REGION
    make(google.shell.url, made, "healthChecks", name="nobody", type="TCP", tcpHealthCheck={"port": 80})
    kind = {"loadBalancingScheme": "EXTERNAL_MANAGED"}
    checks = [f"{made}/healthChecks/nobody"]
    make(google.shell.url, made, "backendServices", name="nobody", protocol="TCP", healthChecks=checks, **kind)
    make(google.shell.url, made, "targetTcpProxies", name="nobody", service=f"{made}/backendServices/nobody")
    target = f"{made}/targetTcpProxies/nobody"
    make(google.shell.url, made, "forwardingRules", name="web", target=target, portRange="8000", **kind)
    return f"http://{google.get(f'/compute/v1/{made}/forwardingRules/web')['IPAddress']}:8000/"


def test_a_service_goes_live_behind_a_forwarding_rule_and_away(google: Google) -> None:
    """What it has not is said at the start, by check too; in the end the rule leads where it led before."""
    spec = google.folder / "osv.toml"
    spec.write_text(spec.read_text().replace(GOOGLE, POINTER))
    google.make_bucket()
    refused(google.run("deploy", *FORCED), 1, "forwardingRules/web' was not found", hint="mend `forwarding-rule`")
    url = make_proxied(google)

    ran = google.run("check", *FORCED)
    assert "[deploy.europe]: forwarding rule web has no weights and no preview" in ran.stderr, ran
    elsewhere = goes_to_and_fro(
        google, url, "x-release", "has no weights and no preview: all traffic moves in one step"
    )
    would = google.run("destroy", *elsewhere, "--dry-run", "--json").document
    assert len(would["rules"]) == 2 and "web" not in would["rules"], "the user's rule stays"
    ran = google.run("destroy", *elsewhere, "--yes")
    assert ran.code == 0, ran.stderr
    [rule] = google.get(f"/compute/v1/{REGION}/forwardingRules")["items"]
    assert rule["target"].endswith("/targetTcpProxies/nobody") and not rule.get("labels")
    with pytest.raises(requests.ConnectionError):
        requests.get(url, timeout=10)


def test_what_is_amiss_is_told_before_anything_is_made(google: Google) -> None:
    """No URL map, one that nothing leads to, a balancer without weights; and no image is made."""
    google.make_bucket()
    refused(google.run("deploy", *FORCED), 1, "urlMaps/web' was not found", hint="mend `url-map`")
    make_balancer(google.shell.url, "EXTERNAL")
    refused(google.run("deploy", *FORCED), 2, "has no weights", hint="EXTERNAL_MANAGED")
    assert google.images() == [] and google.objects() == []
