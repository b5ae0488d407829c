"""OSv's command line as a value."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BootCommand:
    """One command line: boot ``options`` in order (name without dashes; None for a flag), ``environment`` in order,
    and the ``words`` of the program's own line."""

    options: tuple[tuple[str, str | None], ...]
    environment: tuple[tuple[str, str], ...]
    words: tuple[str, ...]
