"""The Context that every port and use case takes: time, deadline, cancellation, reporter, randomness, who we are.

Time and randomness come in through it. Nothing else in the product sleeps, asks for the time or draws a random number,
so a test moves the clock, and whole rollouts run in virtual time.
"""

from __future__ import annotations

import _thread
import os
import pwd
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

from osvdeploy.errors import DeadlineExceeded, Interrupted
from osvdeploy.events import Event, Reporter, silent


class Clock(Protocol):
    """Time: what the wall says, what a stopwatch says (seconds), and waiting that a cancel ends early."""

    def now(self) -> datetime: ...
    def monotonic(self) -> float: ...
    def wait(self, seconds: float, cancelled: threading.Event) -> None: ...


class SystemClock:
    """The machine's own time, in UTC."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        # time.monotonic() stands still while a laptop sleeps; another host's watch on our lease does not.
        return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()

    def wait(self, seconds: float, cancelled: threading.Event) -> None:
        cancelled.wait(seconds)


class VirtualClock:
    """Time that only moves when something waits on it, or a test moves it. Safe to share between threads."""

    def __init__(self, start: datetime = datetime(2030, 1, 1, tzinfo=UTC)) -> None:
        self._start = start
        self._passed = 0.0
        self._lock = threading.Lock()

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self._passed)

    def monotonic(self) -> float:
        return self._passed

    def wait(self, seconds: float, cancelled: threading.Event) -> None:
        if not cancelled.is_set():
            self.advance(seconds)

    def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass."""
        if seconds < 0:
            raise ValueError(f"time does not run backwards: {seconds}")
        with self._lock:
            self._passed += seconds


class CancelToken:
    """Set once, from any thread or a signal handler; everything that waits or loops looks at it."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._cancelled = False

    def cancel(self) -> None:
        self._cancelled = True
        if threading.current_thread() is threading.main_thread():
            # We may be in a signal's handler, on top of a wait that holds the event's lock: setting it here would wait
            # for ourselves, for ever. (Not a threading.Thread: to start one takes a lock too.)
            _thread.start_new_thread(self._event.set, ())
        else:
            self._event.set()

    @property
    def cancelled(self) -> bool:
        return self._cancelled

    @property
    def event(self) -> threading.Event:
        return self._event


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """Which process this is, so that another one on the same host can tell whether it still lives.

    ``boot`` is the kernel's boot id, ``namespace`` its pid namespace, ``started`` the process start time in clock
    ticks since boot (proc(5), stat field 22): a process id alone is reused, and means another process in a container.
    """

    host: str
    boot: str
    namespace: str
    pid: int
    started: str
    user: str = ""

    @classmethod
    def current(cls) -> ProcessIdentity:
        return cls(
            host=socket.gethostname(),
            boot=_read("/proc/sys/kernel/random/boot_id"),
            namespace=_pid_namespace(),
            pid=os.getpid(),
            started=_process_start(os.getpid()),
            user=_user(),
        )

    def known_dead(self) -> bool:
        """True only where it is certain: same running kernel and pid namespace, and the process is gone or another.

        Another boot id proves nothing: it may be this host before a reboot, or another host of the same name.
        """
        here = ProcessIdentity.current()
        if not self.boot or not self.namespace:
            return False
        if (self.boot, self.namespace) != (here.boot, here.namespace):
            return False
        return _process_start(self.pid) != self.started


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _pid_namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _process_start(pid: int) -> str:
    # The command name (field 2) may hold spaces and parentheses; what follows the last ")" is regular.
    stat = _read(f"/proc/{pid}/stat")
    fields = stat.rpartition(")")[2].split()
    # A zombie (state Z) runs nothing any more.
    return fields[19] if len(fields) > 19 and fields[0] != "Z" else ""


@dataclass(frozen=True, slots=True)
class Context:
    """What a use case runs in. Immutable; :meth:`within` and :meth:`reporting_to` give a changed copy.

    ``deadline`` is in the clock's monotonic seconds, None for no limit. ``entropy`` gives that many random bytes.
    """

    clock: Clock = field(default_factory=SystemClock)
    reporter: Reporter = silent
    cancel: CancelToken = field(default_factory=CancelToken)
    deadline: float | None = None
    process: ProcessIdentity = field(default_factory=ProcessIdentity.current)
    entropy: Callable[[int], bytes] = os.urandom

    def now(self) -> datetime:
        """The time, in UTC."""
        return self.clock.now()

    def monotonic(self) -> float:
        """Seconds of a stopwatch that is never set back."""
        return self.clock.monotonic()

    def report(self, event: Event) -> None:
        self.reporter(event)

    def nonce(self) -> str:
        """128 random bits in hex."""
        return self.entropy(16).hex()

    def remaining(self) -> float | None:
        """Seconds until the deadline (not below 0), None without one."""
        return None if self.deadline is None else max(0.0, self.deadline - self.monotonic())

    def check(self) -> None:
        """Raise :class:`Interrupted` when cancelled, :class:`DeadlineExceeded` when time is over."""
        if self.cancel.cancelled:
            raise Interrupted("interrupted", hint="run the same command again: nothing is lost")
        if self.remaining() == 0.0:
            raise DeadlineExceeded("the time given is over", hint="run the same command again: nothing is lost")

    def sleep(self, seconds: float) -> None:
        """Wait, but not past the deadline or a cancel, which it raises as :meth:`check` does."""
        self.check()
        left = self.remaining()
        self.clock.wait(seconds if left is None else min(seconds, left), self.cancel.event)
        self.check()

    def within(self, seconds: float | None) -> Context:
        """The same with a deadline ``seconds`` from now, if that is nearer than the one it has."""
        if seconds is None:
            return self
        wanted = self.monotonic() + seconds
        return self if self.deadline is not None and self.deadline <= wanted else replace(self, deadline=wanted)

    def reporting_to(self, reporter: Reporter) -> Context:
        return replace(self, reporter=reporter)
