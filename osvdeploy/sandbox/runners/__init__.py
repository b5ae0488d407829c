"""Who plays the machine: the port that every runner implements.

An instance boots by reading its own volume's bytes (:mod:`osvdeploy.sandbox.boot`) and then runs the program it found
there. *inline* runs program files that declare their answers, in virtual time; *process* runs the program on this
Linux host. Both write OSv's own console lines. A runner knows no AWS: the EC2 service starts and stops guests, looks
at them when :attr:`GuestStatus.next_change` is due (or each tick), and turns a guest that powered off into an instance
that stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol

DiskReader = Callable[[int, int], bytes]
"""``(offset, length)`` in bytes -> that many bytes of the volume; fewer past its end."""


@dataclass(frozen=True, slots=True)
class Guest:
    """A machine to boot. ``address`` is the IPv4 address it gets (on loopback for programs of this host),
    ``disk_size`` in bytes, ``cpus`` as the instance type has."""

    id: str
    address: str
    disk: DiskReader
    disk_size: int
    cpus: int = 1


class Power(StrEnum):
    """What the guest's machine does, as a hypervisor sees it."""

    ON = "on"
    """Runs; also when the kernel has halted all CPUs after an abort: no hypervisor can tell."""

    OFF = "off"
    """The guest powered itself off."""


@dataclass(frozen=True, slots=True)
class GuestStatus:
    """A guest now. ``console`` is all the serial port gave (at most the last 64 KiB); ``next_change`` is when a look
    is worth while, None where nothing is known to come."""

    power: Power
    console: bytes
    next_change: datetime | None = None


class NoAnswer(StrEnum):
    """Why a request got no answer."""

    REFUSED = "connection refused"
    TIMEOUT = "timed out"
    BROKEN = "connection closed without an answer"


@dataclass(frozen=True, slots=True)
class GuestRequest:
    """One HTTP request to a guest; ``target`` is the path with its query string."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class GuestAnswer:
    """What a program answered. Header names as the program wrote them; ``seconds`` until its answer began, where that
    took no real time."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    seconds: float = 0.0


class Runner(Protocol):
    """Boots guests and lets them be asked. Methods may be called from any thread."""

    @property
    def instant(self) -> bool:
        """True where :meth:`ask` waits for nothing real, so that it may be called with the core's lock held and
        in virtual time."""

    def start(self, guest: Guest, now: datetime) -> GuestStatus:
        """Power on. What cannot boot is no error: the console says so, as OSv would, and the guest is off or stuck."""

    def status(self, guest_id: str, now: datetime) -> GuestStatus | None:
        """The guest now; None for one this runner does not run (never started, stopped, or lost by a restart)."""

    def ask(
        self, guest_id: str, address: str, port: int, request: GuestRequest, timeout: float, now: datetime
    ) -> GuestAnswer | NoAnswer:
        """Send one request to the program and wait at most ``timeout`` seconds for its answer."""

    def stop(self, guest_id: str, now: datetime) -> bytes:
        """Power off, whatever the guest does, and forget it. The console so far; b"" for an unknown guest."""

    def close(self) -> None:
        """Power everything off and leave nothing running on this host."""
