"""A project with bootable images, asked by the paths of Compute Engine's API."""

from __future__ import annotations

import functools
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from osvdeploy.sandbox.inprocess import Client
from osvdeploy.sandbox.runners import GuestAnswer
from osvdeploy.sizes import GIB
from tests.sandbox.google.place import Answer, Project
from tests.sandbox.volumes import declared, volume

ROOT = "https://compute.googleapis.com/compute/v1/projects/p"
ZONE = "zones/europe-west1-b"
REGION = "regions/europe-west1"


def archived(disk: bytes) -> bytes:
    """The archive of a disk of 1 GiB that begins with these bytes."""
    with tempfile.TemporaryDirectory() as folder:
        with (Path(folder) / "disk.raw").open("wb") as file:
            file.write(disk)
            file.truncate(GIB)
        words = ["tar", "--format=oldgnu", "-Sczf", "-", "-C", folder, "disk.raw"]
        return subprocess.run(words, capture_output=True, check=True).stdout


@functools.cache
def _archive(behaviour: str) -> bytes:
    return archived(volume({"/app": declared(**json.loads(behaviour))}).content)


def archive(**behaviour: Any) -> bytes:
    """The archive of a disk whose program behaves so, as the inline runner reads it."""
    return _archive(json.dumps(behaviour))


class Fleet(Project):
    """A project where templates can be made of images that are ready."""

    def publish(self, name: str, **behaviour: Any) -> None:
        """Make the image of that name, ready."""
        self.made(f"{name}.tar.gz", archive(**behaviour))
        source = f"https://storage.googleapis.com/acme/{name}.tar.gz"
        self.done("POST", "global/images", {"name": name, "rawDisk": {"source": source}})

    def call(self, verb: str, path: str, body: Any = None) -> Answer:
        return self.ask(verb, f"{ROOT}/{path}", body)

    def get(self, path: str) -> Any:
        answer = self.call("GET", path)
        assert answer.ok, answer.text
        return answer.json()

    def done(self, verb: str, path: str, body: Any = None) -> dict[str, Any]:
        """A change that succeeds, when its operation has ended."""
        answer = self.call(verb, path, body)
        assert answer.ok, answer.text
        operation: dict[str, Any] = answer.json()
        while operation["status"] != "DONE":
            self.clock.advance(1.0)
            operation = self.ask("POST", f"{operation['selfLink']}/wait").json()
        assert "error" not in operation, operation
        return operation

    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.sandbox.settle(self.clock.now())

    # -------------------------------------------------------------------------------------------------------- machines

    def template(self, name: str = "t", image: str = "app", machine: str = "e2-small", **properties: Any) -> str:
        document = template_body(name, image, machine, **properties)
        self.done("POST", "global/instanceTemplates", document)
        return f"global/instanceTemplates/{name}"

    def group(self, name: str = "g", size: int = 2, place: str = ZONE, template: str = "t", **fields: Any) -> str:
        """A managed group. Its path."""
        document = {
            "name": name,
            "targetSize": size,
            "instanceTemplate": f"global/instanceTemplates/{template}",
            **fields,
        }
        self.done("POST", f"{place}/instanceGroupManagers", document)
        return f"{place}/instanceGroupManagers/{name}"

    def stable(self, group: str, within: int = 240) -> Any:
        """The group, when it is at rest."""
        for _ in range(within):
            found = self.get(group)
            if found["status"]["isStable"]:
                return found
            self.wait(1)
        raise AssertionError(found)

    def members(self, group: str) -> list[dict[str, Any]]:
        answer = self.call("POST", f"{group}/listManagedInstances")
        assert answer.ok, answer.text
        found: list[dict[str, Any]] = answer.json()["managedInstances"]
        return found

    def tail(self, link: str) -> str:
        """A link from the project on."""
        return link.removeprefix(f"{ROOT}/")


def template_body(name: str = "t", image: str = "app", machine: str = "e2-small", **properties: Any) -> dict[str, Any]:
    disk = {"boot": True, "autoDelete": True, "initializeParams": {"sourceImage": f"global/images/{image}"}}
    return {
        "name": name,
        "properties": {
            "machineType": machine,
            "disks": [disk],
            "networkInterfaces": [{"network": "global/networks/default"}],
            **properties,
        },
    }


def serving() -> Fleet:
    """With one image that serves, ``app``, and its template, ``t``."""
    fleet = Fleet()
    fleet.publish("app", says="listening")
    fleet.template()
    return fleet


PORT = 8000


class Service(Fleet):
    """Blue and green behind one address: two groups, two backend services, a URL map with weights.

    ``place`` is where the balancer is, ``global`` or a region.
    """

    def __init__(self, place: str = "global", scheme: str = "EXTERNAL_MANAGED") -> None:
        super().__init__()
        self.place = place
        self.http = Client(self.sandbox, self.clock)
        for color in ("blue", "green"):
            self.publish(color, headers={"x-from": color}, port=8080)
            self.template(color, color)
            self.group(color, size=2, template=color, namedPorts=[{"name": "http", "port": 8080}])
        check = {"name": "up", "type": "HTTP", "httpHealthCheck": {"portSpecification": "USE_SERVING_PORT"}}
        self.done("POST", f"{place}/healthChecks", check)
        for color in ("blue", "green"):
            self.done("POST", f"{place}/backendServices", self.backend(color, scheme))
        self.done("POST", f"{place}/urlMaps", {"name": "map", "defaultService": self.link("blue")})
        self.done("POST", f"{place}/targetHttpProxies", {"name": "proxy", "urlMap": f"{place}/urlMaps/map"})
        rule = {"name": "rule", "portRange": str(PORT), "loadBalancingScheme": scheme}
        self.done("POST", f"{place}/forwardingRules", {**rule, "target": f"{place}/targetHttpProxies/proxy"})
        self.address = str(self.get(f"{place}/forwardingRules/rule")["IPAddress"])

    def link(self, color: str) -> str:
        return f"{self.place}/backendServices/{color}"

    def backend(self, name: str, scheme: str = "EXTERNAL_MANAGED", group: str = "") -> dict[str, Any]:
        return {
            "name": name,
            "loadBalancingScheme": scheme,
            "protocol": "HTTP",
            "portName": "http",
            "healthChecks": [f"{self.place}/healthChecks/up"],
            "backends": [{"group": f"{ZONE}/instanceGroups/{group or name}"}],
        }

    def weights(self, blue: int, green: int) -> dict[str, Any]:
        pairs = (("blue", blue), ("green", green))
        return {"weightedBackendServices": [{"backendService": self.link(each), "weight": w} for each, w in pairs]}

    def routed(self, *rules: dict[str, Any], **matcher: Any) -> dict[str, Any]:
        """A map of one host rule, for every host."""
        level = matcher or {"defaultService": self.link("blue")}
        return {
            "name": "map",
            "defaultService": self.link("blue"),
            "hostRules": [{"hosts": ["*"], "pathMatcher": "all"}],
            "pathMatchers": [{"name": "all", **level, **({"routeRules": list(rules)} if rules else {})}],
        }

    def change(self, **fields: Any) -> None:
        """Change the map as it is now."""
        path = f"{self.place}/urlMaps/map"
        self.done("PATCH", path, {"fingerprint": self.get(path)["fingerprint"], **fields})

    def health(self, color: str, group: str = "") -> list[str]:
        asked = {"group": f"{ROOT}/{ZONE}/instanceGroups/{group or color}"}
        answer = self.call("POST", f"{self.link(color)}/getHealth", asked)
        assert answer.ok, answer.text
        return [each["healthState"] for each in answer.json().get("healthStatus", [])]

    def ready(self, *colors: str) -> None:
        """Wait until both machines of each are healthy, and what was asked is in force."""
        for _ in range(200):
            if all(self.health(each) == ["HEALTHY", "HEALTHY"] for each in colors):
                break
            self.wait(1)
        else:
            raise AssertionError(colors)
        self.wait(25)

    def answer(self, path: str = "/", **headers: str) -> GuestAnswer:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = self.http.get(self.address, PORT, path, named)
        assert isinstance(answer, GuestAnswer), answer
        return answer

    def seen(self, times: int = 100, **headers: str) -> dict[str, int]:
        """How often each color answers."""
        found = [self.answer(**headers).headers.get("x-from", "none") for _ in range(times)]
        return {each: found.count(each) for each in sorted(set(found))}
