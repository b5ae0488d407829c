"""Sizes and durations with their units: "64MiB", "90s". A bare number is refused: it could be mistaken."""

from __future__ import annotations

import re
from decimal import Decimal

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40

_SIZE_UNITS = {"B": 1, "KiB": KIB, "MiB": MIB, "GiB": GIB, "TiB": TIB}
_TIME_UNITS = {"ms": Decimal("0.001"), "s": Decimal(1), "m": Decimal(60), "h": Decimal(3600), "d": Decimal(86400)}
_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)")


def parse_size(text: str) -> int:
    """Bytes of a size such as ``"64MiB"``. Raises ValueError that names the units allowed."""
    number, unit = _quantity(text, _SIZE_UNITS, "a size", "64MiB")
    size = number * _SIZE_UNITS[unit]
    if size != int(size):
        raise ValueError(f"{text!r} is not a whole number of bytes")
    return int(size)


def parse_duration(text: str) -> float:
    """Seconds of a duration such as ``"90s"`` or ``"10m"``. Raises ValueError that names the units allowed."""
    number, unit = _quantity(text, _TIME_UNITS, "a duration", "90s")
    return float(number * _TIME_UNITS[unit])


def format_size(size: int) -> str:
    """The shortest exact form where there is one (``64MiB``), else one decimal of the largest unit (``3.6MiB``)."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        factor = _SIZE_UNITS[unit]
        if size >= factor:
            return f"{size // factor}{unit}" if size % factor == 0 else f"{size / factor:.1f}{unit}"
    return f"{size}B"


def format_duration(seconds: float) -> str:
    """For people: ``850ms``, ``4.2s``, ``3m 20s``, ``2h 5m``."""
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 60:
        return f"{seconds:.0f}s" if seconds == int(seconds) else f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m {rest}s" if rest else f"{minutes}m"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes}m" if minutes else f"{hours}h"


def _quantity(text: str, units: dict[str, int] | dict[str, Decimal], what: str, example: str) -> tuple[Decimal, str]:
    match = _QUANTITY.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not {what} such as {example!r}")
    number, unit = match.groups()
    if not unit:
        raise ValueError(f"{text!r} has no unit; write one of {', '.join(units)}, as in {example!r}")
    if unit not in units:
        raise ValueError(f"{text!r} has an unknown unit {unit!r}; use one of {', '.join(units)}")
    return Decimal(number), unit
