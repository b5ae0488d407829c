"""AWS clients that are made once and serve every test of a process: making one takes longer than most tests do."""

from __future__ import annotations

import functools
from datetime import datetime
from typing import Any, cast

import boto3
from botocore.config import Config

from osvdeploy.cloud.aws.session import Aws
from osvdeploy.context import Clock, VirtualClock
from osvdeploy.sandbox.core import Sandbox
from osvdeploy.sandbox.faults import Lost
from osvdeploy.sandbox.inprocess import REGION, MovableClock, connect
from osvdeploy.sandbox.wire import ApiRequest, ApiResponse

ONCE = Config(retries={"mode": "standard", "total_max_attempts": 1})
"""For clients that repeat nothing: botocore sleeps before it does."""


class _Switch:
    """The sandbox and the clock that these clients reach: those of the test that runs."""

    def __init__(self) -> None:
        self.sandbox: Sandbox | None = None
        self.clock: Clock = VirtualClock()

    def now(self) -> datetime:
        return self.clock.now()

    def advance(self, seconds: float) -> None:
        if isinstance(self.clock, MovableClock):
            self.clock.advance(seconds)

    def handle(self, request: ApiRequest, now: datetime) -> ApiResponse | Lost:
        assert self.sandbox is not None
        return self.sandbox.handle(request, now)


_SWITCH = _Switch()


@functools.cache
def _session() -> boto3.Session:
    return connect(cast("Sandbox", _SWITCH), _SWITCH, REGION)


@functools.cache
def _adapted() -> Aws:
    return Aws(REGION, _session())


def point_at(sandbox: Sandbox, clock: Clock) -> Aws:
    """From here on, all that is made here reaches this sandbox. The product's clients, in the region ``REGION``."""
    _SWITCH.sandbox, _SWITCH.clock = sandbox, clock
    return _adapted()


@functools.cache
def client(service: str, config: Config | None = None, region: str = REGION) -> Any:
    """A client of boto3 itself, of the sandbox that was pointed at last."""
    return _session().client(service, region_name=region, config=config)
