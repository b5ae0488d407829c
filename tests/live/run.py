"""One run of the live tests: what it is called, and by what everything that it makes is found again.

A run has an identity, ``t3k9x2a4f7`` (its second in base 36, and three random characters). Each test has a label in it,
the identity and a number: ``t3k9x2a4f7-12``; number 0 is what all tests share. All that is made carries the label, as
the tag ``osvdeploy-live-run``, or where nothing can be tagged in its name, which begins with ``osvd-live-``.
"""

from __future__ import annotations

import re
import secrets
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime

from osvdeploy.context import SystemClock
from osvdeploy.digests import sha256

TAG = "osvdeploy-live-run"
"""Not one of the product's own, so that a thing that bears it alone is somebody else's to the product."""

PREFIX = "osvd-live-"

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_IDENTITY = re.compile(r"(?P<second>[0-9a-z]{7})[0-9a-z]{3}")


@dataclass(frozen=True, slots=True)
class Run:
    """A run's identity."""

    identity: str

    @classmethod
    def begin(cls, now: datetime) -> Run:
        second = _base36(int(now.timestamp())).rjust(7, "0")
        return cls(second + "".join(secrets.choice(_DIGITS) for _ in range(3)))

    @classmethod
    def of(cls, label: str) -> Run:
        """Whose label that is."""
        return cls(label.partition("-")[0])

    @property
    def began(self) -> datetime | None:
        """When, None for what is no run's identity."""
        found = _IDENTITY.fullmatch(self.identity)
        return datetime.fromtimestamp(int(found["second"], 36), UTC) if found else None

    @property
    def name(self) -> str:
        """Of what cannot be tagged: buckets, balancers."""
        return f"{PREFIX}{self.identity}"

    @property
    def shared(self) -> Label:
        return self.label(0)

    def label(self, number: int) -> Label:
        return Label(f"{self.identity}-{number}")


@dataclass(frozen=True, slots=True)
class Label:
    """One test's share of a run: its value, and the names that begin with it."""

    value: str

    @property
    def tags(self) -> dict[str, str]:
        return {TAG: self.value}

    def named(self, name: str) -> str:
        """A name of this test's own. It begins with a letter, as Google's names do."""
        return f"l{self.value}-{name}"

    def plain(self, name: str) -> str:
        """What :meth:`named` was given."""
        return name.removeprefix(f"l{self.value}-")

    def key(self, key: str) -> str:
        """A route's key: names of balancers' parts take ten characters of it."""
        return sha256(f"{self.value} {key}".encode())[:10]


@dataclass(slots=True)
class HurriedClock:
    """A stopwatch ``speed`` times as fast as the machine's, for a sandbox of that speed; what the wall says is as ever.

    An account's clock has the speed 1.
    """

    speed: float = 1.0
    _system: SystemClock = field(default_factory=SystemClock)

    def now(self) -> datetime:
        return self._system.now()

    def monotonic(self) -> float:
        return self._system.monotonic() * self.speed

    def wait(self, seconds: float, cancelled: threading.Event) -> None:
        self._system.wait(seconds / self.speed, cancelled)


def _base36(number: int) -> str:
    text = ""
    while number:
        number, digit = divmod(number, 36)
        text = _DIGITS[digit] + text
    return text
