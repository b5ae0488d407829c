"""The engine that started us: what is shown through it, and whether it is still there.

A provider's own output is hidden, so all that users are to see goes through the engine's Log. None of it may fail an
operation: an engine that does not listen is no reason to stop half-way.
"""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections.abc import Callable
from enum import Enum

import grpc
from pulumi.runtime.proto import engine_pb2, engine_pb2_grpc

from osvdeploy.events import Event, GateJudged, HookEnded, HookStarted, Note, Progress, StageEntered, Waiting, Warned
from osvdeploy.sizes import format_size

_LOG_TIMEOUT = 2.0
"""Seconds that a line may take to be taken; the engine is on this machine."""

_QUIET = 30.0
"""Seconds without another try after the engine did not take a line."""

_GONE = 5.0
"""Seconds that the engine may be unreachable before it counts as gone. It is on this machine, and one that ended
refuses at once."""

_LOOK_INTERVAL = 2.0
"""Seconds between two looks whether the engine is there. The end of the process that started us is seen at once; this
is for wrappers in between that live on."""

_ROW_INTERVAL = 0.2
"""Seconds between two texts in one resource's row: who reads cannot follow faster, and each is a call."""


class Severity(Enum):
    DEBUG = engine_pb2.DEBUG
    INFO = engine_pb2.INFO
    WARNING = engine_pb2.WARNING
    ERROR = engine_pb2.ERROR


class Engine:
    """The engine at an address; of no address, one that hears nothing. Safe to share between threads."""

    def __init__(self, address: str | None) -> None:
        self.address = address
        self._channel: grpc.Channel | None = None
        self._stub: engine_pb2_grpc.EngineStub | None = None
        self._quiet_until = 0.0
        if address:
            # A proxy of the environment is for the world outside; the engine is here.
            self._channel = grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)])
            self._stub = engine_pb2_grpc.EngineStub(self._channel)

    def log(self, severity: Severity, text: str, urn: str, *, ephemeral: bool = False) -> None:
        """Show a line at a resource; ``ephemeral``: in its row, until the next one. Raises nothing."""
        stub = self._stub
        if stub is None or time.monotonic() < self._quiet_until:
            return
        try:
            stub.Log(
                engine_pb2.LogRequest(severity=severity.value, message=text, urn=urn, ephemeral=ephemeral),
                timeout=_LOG_TIMEOUT,
            )
        except (grpc.RpcError, ValueError):  # ValueError: the channel was closed meanwhile
            self._quiet_until = time.monotonic() + _QUIET

    def on_gone(self, gone: Callable[[], None]) -> None:
        """Call ``gone`` once, from another thread, when the engine was there and is no more."""
        if self.address:
            threading.Thread(target=self._watch, args=(gone,), name="engine-watch", daemon=True).start()

    def _watch(self, gone: Callable[[], None]) -> None:
        host, _, port = (self.address or "").rpartition(":")
        been, lost = False, None
        while True:
            try:
                # By a socket of its own: a channel does not say whether it is idle or left.
                socket.create_connection((host.strip("[]"), int(port)), timeout=_LOG_TIMEOUT).close()
                been, lost = True, None
            except ValueError:
                return  # no address that can be looked at
            except OSError:
                now = time.monotonic()
                lost = lost or now
                if been and now - lost > _GONE:
                    gone()
                    return
            time.sleep(_LOOK_INTERVAL)

    def close(self) -> None:
        channel, self._channel, self._stub = self._channel, None, None
        if channel is not None:
            channel.close()


def on_parent_gone(parent: int, gone: Callable[[], None]) -> None:
    """Call ``gone`` once, from another thread, when the process that started us has ended, however it did. ``parent``
    is that process, as it was when we began: it may have ended since."""
    try:
        watched = os.pidfd_open(parent)
    except (AttributeError, OSError):
        watched = None  # not on Linux, or not allowed to

    def wait() -> None:
        if watched is not None and os.getppid() == parent:
            select.select([watched], [], [])
        while os.getppid() == parent:
            time.sleep(0.5)
        gone()

    threading.Thread(target=wait, name="parent-watch", daemon=True).start()


class Row:
    """A resource's row in the engine's display: what happens now, as events tell of it."""

    def __init__(self, engine: Engine, urn: str, clean: Callable[[str], str]) -> None:
        self._engine, self._urn, self._clean = engine, urn, clean
        self._shown = ""
        self._at = 0.0

    def __call__(self, event: Event) -> None:
        match event:
            case Warned():
                self.line(Severity.WARNING, event.text if event.hint is None else f"{event.text}\n{event.hint}")
            case Progress():
                if time.monotonic() - self._at >= _ROW_INTERVAL:
                    self.status(_progress(event))
            case Note(text=text):
                self.status(text)
            case StageEntered(stage=stage, why=why):
                self.status(f"{stage}: {why}" if why else stage)
            case Waiting(what=what, seen=seen):
                self.status(f"waiting for {what}" if not seen or seen in what else f"waiting for {what} ({seen})")
            case HookStarted(hook=hook, stage=stage):
                self.status(f"hook {hook} ({stage}) is asked")
            case HookEnded(hook=hook, stage=stage, passed=passed, told=told):
                self.status(f"hook {hook} ({stage}) {'passed' if passed else 'failed'}: {told}")
            case GateJudged(gate=gate, passed=passed, seen=seen):
                judged = {True: "passed", False: "failed", None: "not decided yet"}[passed]
                self.status(f"{gate}: {judged}{f' ({seen})' if seen else ''}")

    def status(self, text: str) -> None:
        """Show what happens now, in place of what was shown before."""
        line = " ".join(self._clean(text).split())
        if line != self._shown:
            self._shown, self._at = line, time.monotonic()
            self._engine.log(Severity.INFO, line, self._urn, ephemeral=True)

    def line(self, severity: Severity, text: str) -> None:
        """Leave a line that stays."""
        self._engine.log(severity, self._clean(text), self._urn)


def _progress(event: Progress) -> str:
    amount = format_size if event.unit == "bytes" else str
    if event.total is None:
        return f"{event.what}: {amount(event.done)}"
    return f"{event.what}: {amount(event.done)} of {amount(event.total)}"
