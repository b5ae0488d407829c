"""Clouds in which one call of a connection can be the last one, or be refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from botocore.exceptions import ClientError

from osvdeploy.cloud import aws
from osvdeploy.cloud.aws.objects import S3Store
from osvdeploy.cloud.interfaces import Cloud
from osvdeploy.cloud.memory import MemoryCloud
from osvdeploy.context import Context, VirtualClock
from osvdeploy.errors import Refused
from osvdeploy.publish.importing import ThroughStore
from osvdeploy.sandbox.core import CrashHook, Moment
from osvdeploy.sandbox.wire import Call
from osvdeploy.sizes import KIB
from tests.contract.aws_place import AwsSandbox


class Killed(BaseException):
    """Stands for kill -9: nothing catches it, and nothing is sent after it."""


class Counted(Protocol):
    """What counts the calls to a sandbox."""

    calls: int


def dying(counted: Counted, kill: int | None, after: bool) -> CrashHook:
    """Counts each call from now on; the ``kill``-th is the last, before or ``after`` it took effect."""
    first = counted.calls

    def hook(moment: Moment, call: Call) -> None:
        if moment is Moment.BEFORE:
            counted.calls += 1
        number = counted.calls - first
        if kill is not None and (number > kill or (number == kill and (moment is Moment.AFTER) == after)):
            raise Killed

    return hook


class Venue(Protocol):
    """One empty cloud in virtual time."""

    ctx: Context
    block_size: int

    @property
    def calls(self) -> int:
        """Calls made so far, over all connections."""

    def connect(self, *, kill: int | None = None, after: bool = False, refuse: int | None = None) -> Cloud:
        """A new process's connection. Its ``kill``-th call raises Killed, before or ``after`` it took effect, as does
        every later one; its ``refuse``-th call is refused with "not allowed"."""

    def through(self, cloud: Cloud) -> ThroughStore:
        """The way of disks through a bucket, for the process that has this connection."""

    def read(self, disk: str) -> dict[int, bytes]:
        """All blocks that read back from a disk."""


class MemoryVenue:
    """The memory fake."""

    def __init__(self) -> None:
        clock = VirtualClock()
        self.ctx = Context(clock=clock)
        self._memory = MemoryCloud(clock)
        self.block_size = self._memory.snapshots.block_size

    @property
    def calls(self) -> int:
        return len(self._memory.faults.calls)

    def connect(self, *, kill: int | None = None, after: bool = False, refuse: int | None = None) -> Cloud:
        self._memory.faults.clear()
        if kill is not None:
            self._memory.faults.fail("*", Killed(), at=kill, after=after)
            self._memory.faults.fail("*", Killed(), at=kill + 1, times=1_000_000)
        if refuse is not None:
            self._memory.faults.fail("*", Refused("not allowed"), at=refuse)
        return replace(self._memory.cloud)

    def through(self, cloud: Cloud) -> ThroughStore:
        return ThroughStore(self._memory.store, self._memory.imports)

    def read(self, disk: str) -> dict[int, bytes]:
        return self._memory.snapshots.blocks(disk)


class AwsVenue:
    """AWS in the sandbox, in process: every request counts, repetitions included."""

    block_size = 512 * KIB

    def __init__(self) -> None:
        # So fast that an import is waited for in few calls.
        self._account = AwsSandbox(speed=25.0)
        self._account.set_up_imports("acme-images")
        self.ctx = self._account.ctx
        self.calls = 0

    def connect(self, *, kill: int | None = None, after: bool = False, refuse: int | None = None) -> Cloud:
        first, die = self.calls, dying(self, kill, after)

        def hook(moment: Moment, call: Call) -> None:
            die(moment, call)
            if refuse == self.calls - first and moment is Moment.BEFORE:
                raise ClientError({"Error": {"Code": "AccessDenied", "Message": "not allowed"}}, call.operation)

        self._account.sandbox.hook = hook
        return aws.ports(self.ctx, self._account.aws())

    def through(self, cloud: Cloud) -> ThroughStore:
        assert cloud.imports is not None
        return ThroughStore(S3Store("s3://acme-images/osvdeploy", self._account.aws()), cloud.imports)

    def read(self, disk: str) -> dict[int, bytes]:
        self._account.sandbox.hook = None
        return self._account.read(disk)


venues: dict[str, Callable[[], Venue]] = {"memory": MemoryVenue, "aws": AwsVenue}
