"""A project with bootable images, asked by the paths of Compute Engine's API."""

from __future__ import annotations

import functools
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from osvdeploy.sizes import GIB
from tests.sandbox.google.place import Answer, Project
from tests.sandbox.volumes import declared, volume

ROOT = "https://compute.googleapis.com/compute/v1/projects/p"
ZONE = "zones/europe-west1-b"
REGION = "regions/europe-west1"


@functools.cache
def _archive(behaviour: str) -> bytes:
    disk = volume({"/app": declared(**json.loads(behaviour))}).content
    with tempfile.TemporaryDirectory() as folder:
        with (Path(folder) / "disk.raw").open("wb") as file:
            file.write(disk)
            file.truncate(GIB)
        words = ["tar", "--format=oldgnu", "-Sczf", "-", "-C", folder, "disk.raw"]
        return subprocess.run(words, capture_output=True, check=True).stdout


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
