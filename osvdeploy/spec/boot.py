"""OSv's boot options: which there are, and what each takes.

Source: ``parse_options`` of OSv's loader.cc and the table of its usage text, at v0.57.0 and later. OSv prints its usage
and powers off on an option it does not know, so a wrong name here is a machine that never starts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from typing import Final


class Takes(Enum):
    """What stands after an option's name."""

    NOTHING = "true or false"
    TEXT = "a string"
    SECONDS = "a number of seconds"
    COUNT = "a whole number, 1 or more"
    TEXTS = "a string or an array of strings"


OPTIONS: Final[dict[str, Takes]] = {
    "bootchart": Takes.NOTHING,
    "console": Takes.TEXT,
    "cwd": Takes.TEXT,
    "defaultgw": Takes.TEXT,
    "delay": Takes.SECONDS,
    "disable_rofs_cache": Takes.NOTHING,
    "extra-zfs-pools": Takes.TEXTS,
    "ip": Takes.TEXTS,
    "leak": Takes.NOTHING,
    "maxnic": Takes.COUNT,
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
    "sampler": Takes.COUNT,
    "strace": Takes.NOTHING,
    "trace": Takes.TEXTS,
    "trace-backtrace": Takes.NOTHING,
    "trace-list": Takes.NOTHING,
    "verbose": Takes.NOTHING,
}

_CONSOLES = ("serial", "vga", "all")
_FIELDS = {"ip": "interface,address,netmask", "mount-fs": "type,device,directory"}
_NEEDS = {"defaultgw": "ip", "nameserver": "ip", "strace": "trace", "trace-backtrace": "trace"}


def boot_options(declared: Mapping[str, object]) -> tuple[tuple[str, str | None], ...]:
    """The options of a valid ``[image.boot]`` table in the order they were written; a false flag is left out."""
    found: list[tuple[str, str | None]] = []
    for name, value in declared.items():
        if isinstance(value, bool):
            found += [(name, None)] if value else []
        elif isinstance(value, list | tuple):
            found += [(name, str(each)) for each in value]
        else:
            found.append((name, str(value)))
    return tuple(found)


def worded_options(words: Sequence[str]) -> dict[str, object]:
    """The table that words like ``verbose``, ``delay=0.5`` and ``ip=eth0,10.0.0.2,255.0.0.0`` write, not yet checked.

    A word without ``=`` is a flag that is on. An option that repeats gathers its values; of any other the last counts.
    """
    table: dict[str, object] = {}
    for word in words:
        name, equals, text = word.partition("=")
        takes = OPTIONS.get(name)
        value = _typed(takes, text) if equals else True
        if takes is Takes.TEXTS and equals:
            before = table.get(name)
            value = [*(before if isinstance(before, list) else []), text]
        table[name] = value
    return table


def wrong_options(declared: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """What is wrong with a ``[image.boot]`` table: name and what to do, in order."""
    for name, value in declared.items():
        if told := _wrong(name, value) or _useless(name, value, declared):
            yield name, told


def shown(value: object) -> str:
    """A value in an error: short on any input, and never the whole of a table."""
    if isinstance(value, int) and value.bit_length() > 64:
        # int has a limit on the digits it writes (sys.set_int_max_str_digits).
        return "a number that large"
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list | tuple):
        return "an array"
    told = repr(value)
    return told if len(told) <= 80 else f"{told[:77]}..."


def _typed(takes: Takes | None, text: str) -> object:
    """As a TOML file would hold it; what cannot be that stays text, for the check to name."""
    if takes is Takes.NOTHING:
        return {"true": True, "false": False}.get(text, text)
    number = {Takes.COUNT: int, Takes.SECONDS: float}.get(takes) if takes else None
    try:
        return number(text) if number else text
    except ValueError:
        return text


def _wrong(name: str, value: object) -> str | None:
    if name == "env":
        return 'belongs to [image], as env = { NAME = "value" }'
    if name == "assign-net":
        return "stands in OSv's help, but OSv powers off on it"
    if name == "rootfs" and value != "rofs":
        return 'follows from fs in [image]; only "rofs" can stand here'
    takes = OPTIONS.get(name)
    if takes is None:
        import difflib

        close = difflib.get_close_matches(name, OPTIONS, n=1)
        meant = f" (did you mean {close[0]!r}?)" if close else ""
        return f"no boot option of OSv{meant}; allowed: {', '.join(OPTIONS)}"
    match takes, value:
        case Takes.NOTHING, bool():
            return None
        case Takes.SECONDS, int() | float() if not isinstance(value, bool):
            return None if math.isfinite(value) and 0 <= value <= 3600 else "from 0 to 3600 seconds"
        case Takes.COUNT, int() if not isinstance(value, bool) and 1 <= value < 1 << 31:
            return None
        case Takes.TEXT, str() if value:
            if name == "console" and value not in _CONSOLES:
                return f"{shown(value)} is none of {', '.join(_CONSOLES)}; OSv aborts on another"
            return None
        case Takes.TEXTS, str() if value:
            return _wrong_fields(name, value)
        case Takes.TEXTS, list() | tuple() if value and all(isinstance(each, str) and each for each in value):
            return next(filter(None, (_wrong_fields(name, each) for each in value)), None)
    return f"takes {takes.value}, not {shown(value)}"


def _wrong_fields(name: str, value: str) -> str | None:
    # OSv aborts on an --ip that is not three fields, and ignores such a --mount-fs with a warning nobody reads.
    form = _FIELDS.get(name)
    if form is not None and (value.count(",") != 2 or not all(value.split(","))):
        return f"takes {form}, not {shown(value)}"
    return None


def _useless(name: str, value: object, declared: Mapping[str, object]) -> str | None:
    needed = _NEEDS.get(name)
    if needed is not None and value is not False and needed not in declared:
        return f"OSv looks at it only together with {needed}"
    return None
