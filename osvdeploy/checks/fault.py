"""What is wrong with a file, before it is known who loads it; and the words that findings are told in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from osvdeploy.checks.finding import Finding, Severity
from osvdeploy.osv.filetree import show

_NAMES_SHOWN: Final = 6
_FILES_SHOWN: Final = 4


@dataclass(frozen=True, slots=True)
class Fault:
    """A finding without its subject and severity, which depend on who loads the file."""

    rule: str
    what: str
    why: str
    cure: str
    source: str

    def of(self, subject: str, severity: Severity, what: str | None = None) -> Finding:
        return Finding(self.rule, severity, subject, what or self.what, self.why, self.cure, self.source)


def some_names(names: Iterable[bytes]) -> str:
    return some([show(name) for name in sorted(names)], _NAMES_SHOWN)


def some(told: Sequence[str], shown: int = _FILES_SHOWN) -> str:
    left = len(told) - shown
    return ", ".join(told[:shown]) + (f" and {left} more" if left > 0 else "")


def count(things: set[bytes], noun: str) -> str:
    return f"{len(things)} {noun}" + ("" if len(things) == 1 else "s")


def more(paths: Sequence[bytes]) -> str:
    """The files behind the first, which the finding names."""
    return f"; so do {len(paths) - 1} more: {some([show(path) for path in paths[1:]])}" if len(paths) > 1 else ""
