"""A world for the services: documents, due events and an EC2 in memory, in virtual time.

It keeps what :class:`osvdeploy.sandbox.services.scope.Scope` promises, and lets a test end instances, take images away
and move the clock.
"""

from __future__ import annotations

import functools
import hashlib
import heapq
import itertools
import json
import marshal
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import botocore.session

from osvdeploy.sandbox.dataplane import Decision, HttpRequest
from osvdeploy.sandbox.errors import ApiError
from osvdeploy.sandbox.runners import Guest, Power
from osvdeploy.sandbox.runners.inline import InlineRunner
from osvdeploy.sandbox.services import autoscaling, elbv2
from osvdeploy.sandbox.services.scope import Doc, EventHandler, Instance, Scope, Template
from osvdeploy.sandbox.traffic import Traffic
from tests.sandbox.volumes import Volume, declared, volume

T = TypeVar("T")


@functools.cache
def service_model(service: str) -> Any:
    """What an SDK knows of a service."""
    return botocore.session.get_session().get_service_model(service)


def check_shape(shape: Any, value: Any, place: str) -> None:
    """Every part of an answer has a place in the API's model: a name that is none would vanish on the wire."""
    match shape.type_name:
        case "structure":
            assert isinstance(value, dict), place
            for name, part in value.items():
                assert name in shape.members, f"{place}: no {name} in {shape.name}"
                check_shape(shape.members[name], part, f"{place}.{name}")
        case "list":
            assert isinstance(value, list), place
            for index, part in enumerate(value):
                check_shape(shape.member, part, f"{place}[{index}]")
        case kind:
            kinds = {"string": str, "integer": int, "boolean": bool, "timestamp": datetime, "double": float}
            assert isinstance(value, kinds[kind]), f"{place}: {value!r} is no {kind}"
            enum = getattr(shape, "enum", ())
            assert not enum or value in enum, f"{place}: {value!r} is none of {enum}"


VPC, OTHER_VPC = "vpc-1", "vpc-2"
BOOT_TIME = 4.0
END_TIME = 6.0


@functools.cache
def _serving() -> Volume:
    return volume({"/app": declared()})


class MemoryEc2:
    """Instances that boot images' bytes with the inline runner."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.subnets = {
            "subnet-a": {"SubnetId": "subnet-a", "VpcId": VPC, "AvailabilityZone": "eu-west-1a"},
            "subnet-a2": {"SubnetId": "subnet-a2", "VpcId": VPC, "AvailabilityZone": "eu-west-1a"},
            "subnet-b": {"SubnetId": "subnet-b", "VpcId": VPC, "AvailabilityZone": "eu-west-1b"},
            "subnet-x": {"SubnetId": "subnet-x", "VpcId": OTHER_VPC, "AvailabilityZone": "eu-west-1a"},
            "subnet-y": {"SubnetId": "subnet-y", "VpcId": OTHER_VPC, "AvailabilityZone": "eu-west-1b"},
        }
        self.groups = {"sg-1": {"GroupId": "sg-1", "VpcId": VPC}, "sg-x": {"GroupId": "sg-x", "VpcId": OTHER_VPC}}
        self.images: dict[str, Volume] = {"ami-1": _serving()}
        self.templates: dict[str, tuple[str, list[str]]] = {"lt-1": ("template", ["ami-1"])}
        self.instances: dict[str, Instance] = {}
        self.tags: dict[str, Mapping[str, str]] = {}

    def vpc(self, vpc_id: str) -> Mapping[str, Any] | None:
        return {"VpcId": vpc_id} if vpc_id in (VPC, OTHER_VPC) else None

    def subnet(self, subnet_id: str) -> Mapping[str, Any] | None:
        return self.subnets.get(subnet_id)

    def security_group(self, group_id: str) -> Mapping[str, Any] | None:
        return self.groups.get(group_id)

    def default_security_group(self, vpc_id: str) -> str:
        return {VPC: "sg-1", OTHER_VPC: "sg-x"}[vpc_id]

    def instance(self, instance_id: str) -> Instance | None:
        return self.instances.get(instance_id)

    def template(self, *, template_id: str | None, name: str | None, version: str) -> Template:
        for known, (label, versions) in self.templates.items():
            if template_id == known or name == label:
                number = len(versions) if version in ("$Latest", "$Default") else int(version)
                if not 1 <= number <= len(versions):
                    raise ApiError("InvalidLaunchTemplateId.VersionNotFound", f"version {version} does not exist")
                image = versions[number - 1]
                if image not in self.images:
                    raise ApiError("InvalidAMIID.NotFound", f"The image id '[{image}]' does not exist")
                return Template(known, label, str(number), image, "t3.small")
        raise ApiError("InvalidLaunchTemplateId.NotFoundException", "The specified launch template does not exist.")

    def launch(self, template: Template, subnet: str, tags: Mapping[str, str]) -> Instance:
        number = len(self.instances) + 1
        name, zone = f"i-{number:08x}", self.subnets[subnet]["AvailabilityZone"]
        vpc = self.subnets[subnet]["VpcId"]
        made = Instance(name, "pending", f"127.0.9.{number}", vpc, subnet, zone, template.type, template.image)
        self.instances[name] = made
        self.tags[name] = dict(tags)
        self._world.at(BOOT_TIME, lambda: self._boot(name))
        return made

    def run(self, image: str = "ami-1", subnet: str = "subnet-a") -> str:
        """A running instance."""
        name = self.launch(Template("lt-1", "template", "1", image, "t3.small"), subnet, {}).id
        self._boot(name)
        return name

    def _boot(self, name: str) -> None:
        instance = self.instances[name]
        if instance.state == "pending":
            disk = self.images[instance.image]
            self._world.runner.start(Guest(name, instance.address, disk.pread, disk.size), self._world.now)
            self.become(name, "running")
            self._look(name)

    def _look(self, name: str) -> None:
        status = self._world.runner.status(name, self._world.now)
        if status is not None and status.power is Power.OFF:
            self.stop(name)
        elif status is not None and status.next_change is not None:
            self._world.at((status.next_change - self._world.now).total_seconds(), lambda: self._look(name))

    def become(self, name: str, state: str) -> None:
        self.instances[name] = replace(self.instances[name], state=state)
        elbv2.instance_changed(self._world, name, state)

    def stop(self, name: str) -> None:
        self._world.runner.stop(name, self._world.now)
        self.become(name, "stopped")

    def terminate(self, instance_id: str) -> None:
        if self.instances[instance_id].state != "terminated":
            self.become(instance_id, "shutting-down")
            self._world.runner.stop(instance_id, self._world.now)
            self._world.at(END_TIME, lambda: self.become(instance_id, "terminated"))

    def living(self) -> list[str]:
        return [name for name, instance in self.instances.items() if instance.state in ("pending", "running")]


def _kept(document: object) -> bytes:
    """A document as the store keeps it, by way of JSON: each reader gets a copy of its own."""
    return marshal.dumps(json.loads(json.dumps(document)))


class MemoryBlobs:
    """Contents by their sha256."""

    def __init__(self) -> None:
        self._contents: dict[str, bytes] = {}

    def put(self, content: bytes) -> str:
        digest = hashlib.sha256(content).hexdigest()
        self._contents[digest] = content
        return digest

    def get(self, digest: str) -> bytes:
        return self._contents[digest]


class World:
    """One account in one region."""

    def __init__(self) -> None:
        self.speed = 1.0
        self.now = datetime(2030, 1, 1, tzinfo=UTC)
        self.account, self.region = "123456789012", "eu-west-1"
        self.runner = InlineRunner()
        self.ec2 = MemoryEc2(self)
        self.blobs = MemoryBlobs()
        self.traffic = Traffic()
        self._documents: dict[str, dict[str, bytes]] = {}
        self._due: list[tuple[datetime, int, Callable[[], None]]] = []
        self._count = itertools.count(1)
        self._counts: dict[str, int] = {}
        self._handlers: dict[str, EventHandler] = {**elbv2.EVENTS, **autoscaling.EVENTS}

    @property
    def everywhere(self) -> World:
        return self

    def get(self, kind: str, key: str) -> Doc | None:
        kept = self._documents.get(kind, {}).get(key)
        return None if kept is None else marshal.loads(kept)

    def put(self, kind: str, key: str, document: Doc) -> None:
        self._documents.setdefault(kind, {})[key] = _kept(document)

    def delete(self, kind: str, key: str) -> None:
        self._documents.get(kind, {}).pop(key, None)

    def all(self, kind: str) -> list[Doc]:
        return [marshal.loads(kept) for kept in self._documents.get(kind, {}).values()]

    def later(self, seconds: float, event: str, payload: Doc, after: datetime | None = None) -> None:
        kept = _kept(payload)
        moment = (after or self.now) + timedelta(seconds=seconds)
        self.at((moment - self.now).total_seconds(), lambda: self._handlers[event](self, marshal.loads(kept)))

    def at(self, seconds: float, act: Callable[[], None]) -> None:
        """Do something ``seconds`` from now."""
        heapq.heappush(self._due, (self.now + timedelta(seconds=seconds), next(self._count), act))

    def new_id(self, length: int) -> str:
        return f"{next(self._count):0{length}x}"

    def count(self, what: str) -> int:
        self._counts[what] = self._counts.get(what, 0) + 1
        return self._counts[what]

    def shortage(self, operation: str) -> None:
        """Nothing is ever short here."""

    def outside(self, work: Callable[[], T], then: Callable[[Scope, T], None]) -> None:
        then(self, work())

    # --------------------------------------------------------------------------------------------- what tests do

    def wait(self, seconds: float) -> None:
        """Let time pass; what is due on the way happens in its order."""
        end = self.now + timedelta(seconds=seconds)
        while self._due and self._due[0][0] <= end:
            moment, _, act = heapq.heappop(self._due)
            self.now = max(self.now, moment)
            act()
        self.now = end

    def documents(self) -> dict[str, dict[str, Doc]]:
        """Everything that is kept now."""
        return {kind: {key: marshal.loads(kept) for key, kept in all.items()} for kind, all in self._documents.items()}

    def elb(self, operation: str, **params: Any) -> Doc:
        return self._called("elbv2", operation, elbv2.OPERATIONS[operation](self, params))

    def asg(self, operation: str, **params: Any) -> Doc:
        return self._called("autoscaling", operation, autoscaling.OPERATIONS[operation](self, params))

    def _called(self, service: str, operation: str, answer: Doc) -> Doc:
        model = service_model(service).operation_model(operation)
        known = {"elbv2": elbv2.PARAMETERS, "autoscaling": autoscaling.PARAMETERS}[service][operation].split()
        assert set(known) <= set(model.input_shape.members), operation
        shape = model.output_shape
        if shape is None:
            assert answer == {}, operation
        else:
            check_shape(shape, answer, operation)
        return answer

    def decide(self, listener: str, path: str = "/", draw: float = 0.5, **headers: str) -> Decision:
        """What the data plane does now with a GET."""
        view = elbv2.view(self)
        request = HttpRequest("GET", path, tuple((name.replace("_", "-"), value) for name, value in headers.items()))
        return view.endpoints[listener].listener.decide(request, view.targets_at(self.now), draw)
