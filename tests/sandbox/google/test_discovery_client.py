"""google-api-python-client against the sandbox, on a socket: blue-green with programs that run on this host."""

from __future__ import annotations

import http.client
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import googleapiclient.discovery
import httplib2
import pytest
import requests
from googleapiclient.errors import HttpError

from osvdeploy.sandbox.core import Sandbox
from osvdeploy.sandbox.http import Shell
from osvdeploy.sandbox.runners.process import ProcessRunner, loopback_addresses_work
from tests.sandbox.google.fleet import archived, template_body
from tests.sandbox.programs import PORT, compiled
from tests.sandbox.volumes import volume

pytestmark = [
    pytest.mark.slow,
    pytest.mark.sandbox,
    pytest.mark.skipif(not sys.platform.startswith("linux") or os.uname().machine != "x86_64", reason="runs ELF here"),
    pytest.mark.skipif(not loopback_addresses_work(), reason="needs all of 127.0.0.0/8"),
]

PLACE = {"project": "p", "zone": "europe-west1-b"}
LIMIT = 60.0
"""Seconds that only end a test that has failed."""


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    shell = Shell(Sandbox(tmp_path / "store", runner=ProcessRunner(tmp_path / "guests"), speed=40))
    shell.start()
    yield shell
    shell.stop()


@pytest.fixture
def compute(shell: Shell) -> Iterator[Any]:
    client = googleapiclient.discovery.build(
        "compute",
        "v1",
        static_discovery=True,
        http=httplib2.Http(proxy_info=None),
        client_options={"api_endpoint": f"{shell.url}/compute/v1/"},
    )
    yield client
    client.close()


def done(operations: Any, operation: dict[str, Any], **place: str) -> None:
    """Wait for an operation as the client's own users do."""
    until = time.monotonic() + LIMIT
    while operation["status"] != "DONE":
        assert time.monotonic() < until, operation
        time.sleep(0.02)  # polled: the sandbox's wait answers at once
        operation = operations.wait(operation=operation["name"], **place).execute()
    assert "error" not in operation, operation


def upload(shell: Shell, name: str, content: bytes) -> None:
    session = requests.Session()
    session.trust_env = False
    session.post(f"{shell.url}/storage/v1/b?project=p", json={"name": "acme"})
    url = f"{shell.url}/upload/storage/v1/b/acme/o?uploadType=media&name={name}"
    assert session.post(url, data=content).ok
    session.close()


def test_googles_own_client_moves_traffic_from_blue_to_green(shell: Shell, compute: Any, tmp_path: Path) -> None:
    """From the archive to the answer of a real program; a stale fingerprint moves nothing."""
    program = compiled(tmp_path)

    def anywhere(call: Any) -> None:
        done(compute.globalOperations(), call.execute(), project="p")

    def in_zone(call: Any) -> None:
        done(compute.zoneOperations(), call.execute(), **PLACE)

    for color in ("blue", "green"):
        disk = volume({"/app": program}, environment=(("OSVDEPLOY_RELEASE", color),))
        upload(shell, f"{color}.tar.gz", archived(disk.content))
        source = {"source": f"gs://acme/{color}.tar.gz"}
        anywhere(compute.images().insert(project="p", body={"name": color, "rawDisk": source}))
        anywhere(compute.instanceTemplates().insert(project="p", body=template_body(color, color)))
        body = {"name": color, "targetSize": 1, "instanceTemplate": f"global/instanceTemplates/{color}"}
        in_zone(compute.instanceGroupManagers().insert(**PLACE, body=body))
        ports = {"namedPorts": [{"name": "http", "port": PORT}]}
        in_zone(compute.instanceGroups().setNamedPorts(**PLACE, instanceGroup=color, body=ports))
    check = {"name": "up", "type": "HTTP", "httpHealthCheck": {"portSpecification": "USE_SERVING_PORT"}}
    anywhere(compute.healthChecks().insert(project="p", body=check))
    for color in ("blue", "green"):
        service: dict[str, Any] = {
            "name": color,
            "loadBalancingScheme": "EXTERNAL_MANAGED",
            "protocol": "HTTP",
            "healthChecks": ["global/healthChecks/up"],
            "backends": [{"group": f"zones/europe-west1-b/instanceGroups/{color}", "capacityScaler": 1.0}],
        }
        anywhere(compute.backendServices().insert(project="p", body=service))
    anywhere(compute.urlMaps().insert(project="p", body={"name": "map", "defaultRouteAction": weights(1, 0)}))
    proxy = {"name": "proxy", "urlMap": "global/urlMaps/map"}
    anywhere(compute.targetHttpProxies().insert(project="p", body=proxy))
    rule = {"name": "rule", "portRange": "8123", "loadBalancingScheme": "EXTERNAL_MANAGED"}
    rule["target"] = "global/targetHttpProxies/proxy"
    anywhere(compute.globalForwardingRules().insert(project="p", body=rule))
    address = compute.globalForwardingRules().get(project="p", forwardingRule="rule").execute()["IPAddress"]

    answers(address, "blue")
    [member] = (
        compute.instanceGroupManagers()
        .listManagedInstances(**PLACE, instanceGroupManager="blue")
        .execute()["managedInstances"]
    )
    console = compute.instances().getSerialPortOutput(**PLACE, instance=member["name"]).execute()
    assert "listening" in console["contents"]
    group = {"group": f"{shell.url}/compute/v1/projects/p/zones/europe-west1-b/instanceGroups/green"}
    until = time.monotonic() + LIMIT
    while healthy(compute, group) != ["HEALTHY"]:
        assert time.monotonic() < until
        time.sleep(0.05)  # polled, as a deployment does

    found = compute.urlMaps().get(project="p", urlMap="map").execute()
    change = {"defaultRouteAction": weights(0, 1), "fingerprint": found["fingerprint"]}
    anywhere(compute.urlMaps().patch(project="p", urlMap="map", body=change))
    answers(address, "green")
    with pytest.raises(HttpError, match="conditionNotMet"):
        compute.urlMaps().patch(project="p", urlMap="map", body=change).execute()
    with pytest.raises(HttpError, match="resourceInUseByAnotherResource"):
        compute.backendServices().delete(project="p", backendService="blue").execute()


def weights(blue: int, green: int) -> dict[str, Any]:
    pairs = (("blue", blue), ("green", green))
    added = {"responseHeadersToAdd": [{"headerName": "X-Added", "headerValue": "yes"}]}
    return {
        "weightedBackendServices": [
            {"backendService": f"global/backendServices/{name}", "weight": weight, "headerAction": added}
            for name, weight in pairs
        ]
    }


def healthy(compute: Any, group: dict[str, str]) -> list[str]:
    answer = compute.backendServices().getHealth(project="p", backendService="green", body=group).execute()
    return [each["healthState"] for each in answer.get("healthStatus", [])]


def answers(address: str, release: str) -> None:
    """Ask at an address until this release answers, and then no other."""
    until, seen = time.monotonic() + LIMIT, ""
    while seen != release:
        assert time.monotonic() < until, seen
        time.sleep(0.05)  # polled, as a person would
        seen = asked(address)
    assert [asked(address) for _ in range(5)] == [release] * 5


def asked(address: str) -> str:
    connection = http.client.HTTPConnection(address, 8123, timeout=10)
    try:
        connection.request("GET", "/")
        response = connection.getresponse()
        response.read()
    except OSError as error:
        return str(error)
    finally:
        connection.close()
    if response.status != 200:
        return str(response.status)
    assert response.headers["X-Added"] == "yes"
    return str(response.headers["X-Release"])
