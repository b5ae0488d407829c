"""A cloud in the sandbox, on sockets and with machines that run, and releases of hello whose images are there: what a
deployment of a program needs to find. One of them serves a whole module of tests.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

import boto3
import pytest
import requests

from osvdeploy import api
from osvdeploy.api import releasing
from osvdeploy.api.declared import release_tags
from osvdeploy.cloud import tags
from osvdeploy.context import Context
from osvdeploy.demo.guest import build_guest
from osvdeploy.demo.hello import build_hello
from osvdeploy.provider.values import Value
from osvdeploy.sandbox import control
from osvdeploy.sandbox.core import Sandbox
from osvdeploy.sandbox.http import Shell
from osvdeploy.sandbox.runners.process import ProcessRunner, loopback_addresses_work
from tests.cli.google import finished, make_balancer, make_pointer
from tests.cli.running import Ran, osvdeploy

NETWORK = Path(__file__).parents[2] / "examples" / "aws-network" / "network.py"

needs_loopback = pytest.mark.skipif(not loopback_addresses_work(), reason="needs all of 127.0.0.0/8")

SPEED = 50.0

_SPEC = """\
name = "{app}"
version = "{version}"
[kernel]
file = "loader.img"
[image]
command = ["/hello", "--port", "8080"]
[[files]]
from = "hello"
to = "/hello"
"""

_AWS = """
[deploy.test]
cloud = "aws"
region = "eu-west-1"
subnets = ["subnet"]
listener = "listener"
route = { path = "/*", priority = 100 }
port = 8080
ledger = "ledger"
"""

_GOOGLE = """
[publish.gcp]
project = "acme-prod"
bucket = "acme-images"
[deploy.test]
cloud = "gcp"
zone = "europe-west1-b"
"""


@dataclass
class Place:
    """A cloud, with its network and what a program says to have a deployment there."""

    shell: Shell
    folder: Path
    token: str
    inputs: Mapping[str, Value]
    url: str
    environ: Mapping[str, str]
    images: dict[tuple[str, str], str] = field(default_factory=dict)

    @property
    def ledger(self) -> Path:
        return self.folder / "ledger"

    def given(self, image: str, **changed: Value) -> dict[str, Value]:
        """What a program gives. Each app has a service of its own."""
        return {**self.inputs, "image": image, **changed}

    def image(self, version: str, app: str = "hello") -> str:
        """The image of a release that is in the cloud; made when it is asked for first."""
        if (app, version) not in self.images:
            self.images[app, version] = self._made(version, app)
        return self.images[app, version]

    def app(self, version: str, app: str = "hello", *, declared: str = "") -> Path:
        """The folder of an app's version, with its spec: what is built of it, and what is ``declared`` beside."""
        folder = self.folder / f"{app}-{version}{'-declared' if declared else ''}"
        folder.mkdir()
        os.link(self.folder / "loader.img", folder / "loader.img")
        build_hello(version, folder / "hello")
        (folder / "osv.toml").write_text(_SPEC.format(app=app, version=version) + declared)
        return folder

    def _made(self, version: str, app: str) -> str:
        google = self.token.startswith("osvdeploy:gcp")
        folder = self.app(version, app, declared=_GOOGLE if google else _AWS)
        ctx = Context()
        with mock.patch.dict(os.environ, self.environ):
            loaded = api.load_spec(folder / "osv.toml")
            built = api.build(ctx, loaded)
            labels = release_tags(loaded, "test", built.image.digest, str(self.ledger))
            if google:
                _, release = releasing._archived(ctx, loaded, "test", built, labels)
                assert release is not None
                return release.image.id
            cloud = api.connect(ctx, "aws", "eu-west-1")
            releasing._on_disks(ctx, loaded, "test", built, cloud, labels)
            found = cloud.images.find(ctx, labels[tags.RELEASE])
            assert found is not None
            return found.id

    def run(self, *words: str, app: str = "hello") -> Ran:
        """A command about an app's service, as a person runs it."""
        with mock.patch.dict(os.environ, self.environ):
            return osvdeploy(words[0], f"{app}/test", "--ledger", str(self.ledger), *words[1:])

    def serving(self, path: str = "/") -> str | None:
        """The release that a client gets its answer from."""
        answer = requests.get(f"{self.url}{path}", timeout=10)
        return answer.headers.get("x-release") or answer.headers.get("x-osvdeploy-release")

    def held(self) -> Mapping[str, Sequence[str]]:
        """What the account holds, but for images and disks."""
        found = self.shell.sandbox.inventory()
        left = ("image", "snapshot", "volume", "object", "task")
        return {kind: keys for kind, keys in found.items() if not any(each in kind.lower() for each in left)}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def sandboxed(folder: Path) -> Iterator[tuple[Shell, dict[str, str]]]:
    """Both clouds, empty, and the environment of who uses them; in the folder the kernel of guests, ``loader.img``."""
    (folder / "guests").mkdir(parents=True)
    runner = ProcessRunner(folder / "guests")
    shell = Shell(Sandbox(runner=runner, speed=SPEED))
    shell.start()
    build_guest(folder / "loader.img")
    environ = {
        "OSVDEPLOY_CACHE": str(folder / "cache"),
        "OSVDEPLOY_STATE": str(folder / "state"),
        "OSVDEPLOY_LEDGER": str(folder / "ledger"),
        "AWS_ENDPOINT_URL": shell.url,
        "AWS_ACCESS_KEY_ID": control.ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": control.SECRET_KEY,
        "AWS_REGION": control.REGION,
        "AWS_DEFAULT_REGION": control.REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
        "OSVDEPLOY_GCP_COMPUTE_ENDPOINT": shell.url,
        "STORAGE_EMULATOR_HOST": shell.url,
        "OSVDEPLOY_PROPAGATION": "5s",
        "OSVDEPLOY_DRAIN": "1s",
        "NO_PROXY": "127.0.0.0/8",
        "no_proxy": "127.0.0.0/8",
    }
    try:
        yield shell, environ
    finally:
        shell.stop()
        runner.close()


@contextmanager
def on_aws(folder: Path) -> Iterator[Place]:
    """AWS with a network and a listener."""
    with sandboxed(folder) as (shell, environ):
        words = [sys.executable, str(NETWORK), "create", "--prefix", "X", "--port", str(free_port())]
        made = subprocess.run(words, env={**os.environ, **environ}, capture_output=True, text=True, check=True)
        network = dict(line.removeprefix("export X_").split("=", 1) for line in made.stdout.splitlines())
        inputs: dict[str, Value] = {
            "environment": "test",
            "listenerArn": network["LISTENER"],
            "subnetIds": [network["SUBNET_A"], network["SUBNET_B"]],
            "securityGroupIds": [network["SECURITY_GROUP"]],
            "instanceType": "t3.small",
            "capacity": 1.0,
            "route": {"path": "/*", "priority": 100.0},
            "port": 8080.0,
            "health": {"path": "/healthz", "versionHeader": "x-release", "minReady": "0s", "bootTimeout": "30s"},
        }
        yield Place(shell, folder, "osvdeploy:aws:BlueGreenDeployment", inputs, network["URL"], environ)


def client(place: Place, service: Any) -> Any:
    """boto3's client for the account of a place."""
    session = boto3.Session(control.ACCESS_KEY, control.SECRET_KEY)
    return session.client(service, region_name=control.REGION, endpoint_url=place.shell.url)


@contextmanager
def on_google(folder: Path) -> Iterator[Place]:
    """Google with a balancer that answers nothing yet, and a bucket."""
    with sandboxed(folder) as (shell, environ):
        bucket = {"name": "acme-images", "location": "EU"}
        assert requests.post(f"{shell.url}/storage/v1/b?project=acme-prod", json=bucket, timeout=10).ok

        url = make_balancer(shell.url, port=free_port())
        inputs: dict[str, Value] = {
            "environment": "test",
            "urlMap": "https://www.googleapis.com/compute/v1/projects/acme-prod/global/urlMaps/web",
            "zone": "europe-west1-b",
            "capacity": 1.0,
            "route": {"path": "/*", "priority": 100.0},
            "port": 8080.0,
            "health": {"path": "/healthz", "minReady": "0s", "bootTimeout": "30s"},
        }
        yield Place(shell, folder, "osvdeploy:gcp:BlueGreenDeployment", inputs, url.rstrip("/"), environ)


@contextmanager
def on_google_by_a_rule(folder: Path) -> Iterator[Place]:
    """Likewise, where the way in is a forwarding rule of its own."""
    with on_google(folder) as place:
        url = make_pointer(place.shell.url, free_port())
        link = "https://www.googleapis.com/compute/v1/projects/acme-prod/regions/europe-west1/forwardingRules/web"
        inputs = {key: value for key, value in place.inputs.items() if key not in ("urlMap", "route")}
        yield replace(place, inputs={**inputs, "forwardingRule": link}, url=url.rstrip("/"))


def move_traffic(place: Place, blue: int, green: int) -> None:
    """Send traffic elsewhere by hand, as somebody does in a console."""
    if place.token.startswith("osvdeploy:aws"):
        elb = client(place, "elbv2")
        rules = elb.describe_rules(ListenerArn=place.inputs["listenerArn"])["Rules"]
        (rule,) = [each for each in rules if each["Priority"] == "100"]
        groups = {
            each["TargetGroupName"].rpartition("-")[2]: each for each in elb.describe_target_groups()["TargetGroups"]
        }
        targets = [
            {"TargetGroupArn": groups[slot]["TargetGroupArn"], "Weight": weight}
            for slot, weight in (("blue", blue), ("green", green))
        ]
        action = {"Type": "forward", "ForwardConfig": {"TargetGroups": targets}}
        elb.modify_rule(RuleArn=rule["RuleArn"], Actions=[action])
        return
    path = str(place.inputs["urlMap"]).rpartition("/compute/v1/")[2]
    url = f"{place.shell.url}/compute/v1/{path}"
    found = requests.get(url, timeout=10).json()
    for matcher in found["pathMatchers"]:
        for rule in matcher["routeRules"]:
            for each in rule["routeAction"]["weightedBackendServices"] if int(rule["priority"]) == 100 else ():
                each["weight"] = blue if each["backendService"].endswith("-blue") else green
    changed = {name: found[name] for name in ("fingerprint", "pathMatchers")}
    finished(requests.patch(url, json=changed, timeout=10))
