"""What an operation or a due event works with: the documents, the time, the other services. One transaction.

The load balancing and scaling services are written against this port alone, so that they are functions of documents:
:mod:`osvdeploy.sandbox.core` gives the real one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, TypeVar

from osvdeploy.sandbox.faults import FaultKind
from osvdeploy.sandbox.runners import Runner
from osvdeploy.sandbox.traffic import Traffic

Doc = dict[str, Any]
"""A document as the store keeps it: JSON. Names in the API's spelling are shown as they are."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Instance:
    """A machine as other services see it. ``state`` is EC2's word: pending, running, stopping, stopped,
    shutting-down, terminated. ``address`` is where its program listens."""

    id: str
    state: str
    address: str
    vpc: str
    subnet: str
    zone: str
    type: str
    image: str


@dataclass(frozen=True, slots=True)
class Template:
    """One version of a launch template; ``version`` is its number."""

    id: str
    name: str
    version: str
    image: str
    type: str


class Ec2(Protocol):
    """What EC2 does for the other services. None for what does not exist."""

    def vpc(self, vpc_id: str) -> Mapping[str, Any] | None: ...
    def subnet(self, subnet_id: str) -> Mapping[str, Any] | None:
        """With SubnetId, VpcId and AvailabilityZone."""

    def security_group(self, group_id: str) -> Mapping[str, Any] | None:
        """With GroupId and VpcId."""

    def default_security_group(self, vpc_id: str) -> str: ...
    def instance(self, instance_id: str) -> Instance | None:
        """A terminated one is still found for a while."""

    def template(self, *, template_id: str | None, name: str | None, version: str) -> Template:
        """``version`` may be $Latest or $Default. Raises ApiError as RunInstances would: unknown template, version,
        image or instance type."""

    def launch(self, template: Template, subnet: str, tags: Mapping[str, str]) -> Instance:
        """Start one instance from that very version. Raises ApiError as RunInstances does."""

    def terminate(self, instance_id: str) -> None:
        """Begin to terminate; nothing happens to one that is terminated."""


class Blobs(Protocol):
    """Contents by their sha256. Safe in any thread, also after the call that took it ended: disks read from it."""

    def put(self, content: bytes) -> str:
        """Keep a content, once however often it is put; its sha256 in hex."""

    def get(self, digest: str) -> bytes: ...


class Scope(Protocol):
    """One call or one due event. What is put here is kept if the call succeeds."""

    @property
    def now(self) -> datetime: ...
    @property
    def account(self) -> str: ...
    @property
    def region(self) -> str: ...
    @property
    def runner(self) -> Runner: ...
    @property
    def speed(self) -> float:
        """What simulated delays are divided by, for those that no due event stands for."""

    @property
    def ec2(self) -> Ec2: ...
    @property
    def blobs(self) -> Blobs: ...
    @property
    def traffic(self) -> Traffic:
        """What balancers have counted so far."""

    @property
    def everywhere(self) -> Scope:
        """The same call or event on what the account has in no region, or in all of them: buckets, roles."""

    def get(self, kind: str, key: str) -> Doc | None:
        """A document of its own: changing it changes nothing until it is put."""

    def put(self, kind: str, key: str, document: Doc) -> None: ...
    def delete(self, kind: str, key: str) -> None: ...
    def all(self, kind: str) -> Sequence[Doc]:
        """In the order they were first put."""

    def later(self, seconds: float, event: str, payload: Doc, after: datetime | None = None) -> None:
        """Let ``event`` be due ``seconds`` after ``after`` (left out: now), divided by the sandbox's speed."""

    def new_id(self, length: int) -> str:
        """``length`` hex digits that no other call gave."""

    def count(self, what: str) -> int:
        """1, 2, 3 ... in the whole account, whatever the region; never the same again."""

    def shortage(self, operation: str) -> FaultKind | None:
        """The fault of :data:`~osvdeploy.sandbox.faults.SHORTAGES` that waits for what is done by itself under this
        name, ``compute:instances.insert``. It is used up."""

    def outside(self, work: Callable[[], T], then: Callable[[Scope, T], None]) -> None:
        """Do ``work``, which may wait for something real, without holding the store, and take its result in with
        ``then`` in a transaction of its own. Where the runner is instant both happen at once."""


Operation = Callable[[Scope, Mapping[str, Any]], Doc]
EventHandler = Callable[[Scope, Mapping[str, Any]], None]
