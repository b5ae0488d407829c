"""OSv's boot options: which there are, and what each takes.

Source: ``parse_options`` of OSv's loader.cc and the table of its usage text, at v0.57.0 and later. OSv prints its usage
and powers off on an option it does not know, so a wrong name here is a machine that never starts.
"""

from __future__ import annotations

import difflib
from enum import Enum
from typing import Final


class Takes(Enum):
    """What stands after an option's name."""

    NOTHING = "true or false"
    TEXT = "a string"
    NUMBER = "a number"
    TEXTS = "a string or an array of strings"


OPTIONS: Final[dict[str, Takes]] = {
    "bootchart": Takes.NOTHING,
    "console": Takes.TEXT,
    "cwd": Takes.TEXT,
    "defaultgw": Takes.TEXT,
    "delay": Takes.NUMBER,
    "disable_rofs_cache": Takes.NOTHING,
    "extra-zfs-pools": Takes.TEXTS,
    "ip": Takes.TEXTS,
    "leak": Takes.NOTHING,
    "maxnic": Takes.NUMBER,
    "mount-fs": Takes.TEXTS,
    "nameserver": Takes.TEXT,
    "noinit": Takes.NOTHING,
    "nomount": Takes.NOTHING,
    "nopci": Takes.NOTHING,
    "nopivot": Takes.NOTHING,
    "norandom": Takes.NOTHING,
    "noshutdown": Takes.NOTHING,
    "power-off-on-abort": Takes.NOTHING,
    "preload-zfs-library": Takes.NOTHING,
    "redirect": Takes.TEXT,
    "rootfs": Takes.TEXT,
    "sampler": Takes.NUMBER,
    "strace": Takes.NOTHING,
    "trace": Takes.TEXTS,
    "trace-backtrace": Takes.NOTHING,
    "trace-list": Takes.NOTHING,
    "verbose": Takes.NOTHING,
}

_CONSOLES = ("serial", "vga", "all")


def boot_options(declared: object) -> tuple[tuple[str, str | None], ...]:
    """The options of a ``[image.boot]`` table in the order they were written; a false flag is left out.

    Raises ValueError, one line for each thing that is wrong.
    """
    if not isinstance(declared, dict):
        raise ValueError("a table of boot options")
    found: list[tuple[str, str | None]] = []
    wrong: list[str] = []
    for name, value in declared.items():
        try:
            found += _option(str(name), value)
        except ValueError as error:
            wrong.append(str(error))
    if wrong:
        raise ValueError("; ".join(wrong))
    return tuple(found)


def _option(name: str, value: object) -> list[tuple[str, str | None]]:
    if name == "env":
        raise ValueError('env: belongs to [image] env = { NAME = "value" }')
    if name == "assign-net":
        raise ValueError("assign-net: stands in OSv's help, but OSv powers off on it")
    takes = OPTIONS.get(name)
    if takes is None:
        close = difflib.get_close_matches(name, OPTIONS, n=1)
        meant = f" (did you mean {close[0]!r}?)" if close else ""
        raise ValueError(f"{name}: no boot option of OSv{meant}")
    match takes, value:
        case Takes.NOTHING, bool():
            return [(name, None)] if value else []
        case Takes.NUMBER, int() | float() if not isinstance(value, bool):
            return [(name, f"{value}")]
        case Takes.TEXT, str() if value:
            if name == "console" and value not in _CONSOLES:
                raise ValueError(f"console: {value!r} is none of {', '.join(_CONSOLES)}; OSv aborts on another")
            return [(name, value)]
        case Takes.TEXTS, str() if value:
            return [(name, value)]
        case Takes.TEXTS, list() if value and all(isinstance(each, str) and each for each in value):
            return [(name, each) for each in value]
    raise ValueError(f"{name}: takes {takes.value}, not {value!r}")
