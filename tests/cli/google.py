"""Google in the sandbox on a socket, and a user who has a spec, so that a whole command runs as it does elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from osvdeploy.sandbox.core import Sandbox
from osvdeploy.sandbox.http import Shell
from osvdeploy.sandbox.runners import Runner
from osvdeploy.sandbox.runners.inline import InlineRunner
from tests.cli.running import Ran, osvdeploy
from tests.osv.images import LZLOADER, loader_image

PROJECT = "/compute/v1/projects/acme-prod/global"

FORCED = ("--force", "program-not-elf")
"""What is brought is a few bytes of text."""


class Google:
    """A project with a bucket, and a user who has a spec."""

    def __init__(self, folder: Path, runner: Runner) -> None:
        self.folder = folder
        self.shell = Shell(Sandbox(runner=runner, speed=50.0))
        self.shell.start()

    def make_bucket(self) -> None:
        url = f"{self.shell.url}/storage/v1/b?project=acme-prod"
        assert requests.post(url, json={"name": "acme-images", "location": "EU"}, timeout=10).ok

    def run(self, *words: str) -> Ran:
        return osvdeploy(*words, folder=self.folder)

    def get(self, path: str) -> dict[str, Any]:
        found: dict[str, Any] = requests.get(f"{self.shell.url}{path}", timeout=10).json()
        return found

    def images(self) -> list[str]:
        return [each["name"] for each in self.get(f"{PROJECT}/images").get("items", [])]

    def objects(self) -> list[str]:
        return [each["name"] for each in self.get("/storage/v1/b/acme-images/o").get("items", [])]


def google_project(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    spec: str,
    program: bytes = b"a program",
    runner: Runner | None = None,
) -> Iterator[Google]:
    """The project, for as long as it is used; without a runner, what is deployed answers nobody over a socket."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "loader.img").write_bytes(loader_image(payload=LZLOADER))
    (folder / "osv.toml").write_text(spec)
    (folder / "app").write_bytes(program)
    (folder / "app").chmod(0o755)
    made = Google(folder, runner or InlineRunner())
    monkeypatch.setenv("OSVDEPLOY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OSVDEPLOY_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("OSVDEPLOY_GCP_COMPUTE_ENDPOINT", made.shell.url)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", made.shell.url)
    monkeypatch.setenv("OSVDEPLOY_PROPAGATION", "5s")
    monkeypatch.setenv("OSVDEPLOY_DRAIN", "1s")
    monkeypatch.setenv("NO_PROXY", "127.0.0.0/8")
    yield made
    made.shell.stop()


def make(url: str, place: str, collection: str, **document: object) -> None:
    """Make something in the sandbox at ``url``, and wait until it is."""
    finished(requests.post(f"{url}/compute/v1/{place}/{collection}", json=document, timeout=10))


def finished(answer: requests.Response) -> None:
    """Wait until what an answer tells of is through."""
    assert answer.ok, answer.text
    operation = answer.json()
    while operation["status"] != "DONE":
        operation = requests.post(f"{operation['selfLink']}/wait", timeout=10).json()


def make_balancer(url: str, scheme: str = "EXTERNAL_MANAGED", port: int = 8000) -> str:
    """A balancer that answers nothing yet. Where a client enters."""
    made = "projects/acme-prod/global"
    make(url, made, "healthChecks", name="nobody", type="HTTP", httpHealthCheck={"port": 80})
    make(
        url,
        made,
        "backendServices",
        name="nobody",
        loadBalancingScheme=scheme,
        healthChecks=[f"{made}/healthChecks/nobody"],
    )
    make(url, made, "urlMaps", name="web", defaultService=f"{made}/backendServices/nobody")
    make(url, made, "targetHttpProxies", name="web", urlMap=f"{made}/urlMaps/web")
    target = f"{made}/targetHttpProxies/web"
    make(url, made, "forwardingRules", name="web", target=target, loadBalancingScheme=scheme, portRange=str(port))
    rule = requests.get(f"{url}/compute/v1/{made}/forwardingRules/web", timeout=10).json()
    return f"http://{rule['IPAddress']}:{port}/"


def make_pointer(url: str, port: int) -> str:
    """A forwarding rule that leads to a proxy of TCP with nobody behind it. Where a client enters."""
    made = "projects/acme-prod/regions/europe-west1"
    scheme = "EXTERNAL_MANAGED"
    make(url, made, "healthChecks", name="nobody", type="TCP", tcpHealthCheck={"port": 80})
    checks = [f"{made}/healthChecks/nobody"]
    make(
        url, made, "backendServices", name="nobody", loadBalancingScheme=scheme, protocol="TCP", healthChecks=checks
    )  # fmt: skip
    make(url, made, "targetTcpProxies", name="nobody", service=f"{made}/backendServices/nobody")
    make(
        url, made, "forwardingRules", name="web", target=f"{made}/targetTcpProxies/nobody", IPProtocol="TCP",
        loadBalancingScheme=scheme, portRange=str(port),
    )  # fmt: skip
    rule = requests.get(f"{url}/compute/v1/{made}/forwardingRules/web", timeout=10).json()
    return f"http://{rule['IPAddress']}:{port}/"
