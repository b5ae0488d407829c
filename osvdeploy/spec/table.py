"""What the tables of osv.toml are made of: their base, and values that several of them have."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from osvdeploy.sizes import parse_duration, parse_size
from osvdeploy.spec.boot import shown


def kebab(name: str) -> str:
    return name.rstrip("_").replace("_", "-")


UNION = "union:"
"""What the names of a value's kinds begin with, where it may be of several: no part of the path to it."""


class Table(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, alias_generator=kebab, populate_by_name=True, defer_build=True
    )


class Inside(ValueError):
    """What is wrong with keys inside a table, each by its own name, so that each is told with its own line."""

    def __init__(self, problems: Sequence[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{key}: {message}" for key, message in problems))
        self.problems = tuple(problems)


class Elsewhere(Inside):
    """The same for keys of several tables: each problem is (table, key, message)."""

    def __init__(self, problems: Sequence[tuple[str, str, str]]) -> None:
        super().__init__([(f"{table}.{key}", message) for table, key, message in problems])
        self.places = tuple(problems)


_YEAR = 366 * 86400.0


def _duration(value: object) -> float:
    # A bare number could be milliseconds as well as minutes, so none is taken; Python callers may give a timedelta.
    if isinstance(value, timedelta):
        seconds = value.total_seconds()
    elif isinstance(value, str):
        seconds = parse_duration(value[:40])
    else:
        raise ValueError(f'a duration with its unit, such as "90s"{_not(value)}')
    if not 0 <= seconds <= _YEAR:
        raise ValueError("a duration from 0s to a year")
    return seconds


def _size(value: object) -> int:
    if isinstance(value, str):
        return parse_size(value[:40])
    raise ValueError(f'a size with its unit, such as "1GiB"{_not(value)}')


def _not(value: object) -> str:
    return f", not {shown(value)}" if isinstance(value, int | float) else ""


Duration = Annotated[
    float, BeforeValidator(_duration), WithJsonSchema({"type": "string", "pattern": r"^[0-9.]+ ?(ms|s|m|h|d)$"})
]
Size = Annotated[
    int, BeforeValidator(_size), WithJsonSchema({"type": "string", "pattern": r"^[0-9.]+ ?(B|KiB|MiB|GiB|TiB)$"})
]


def matches(pattern: str, told: str) -> AfterValidator:
    """The text has this form; the pattern goes into the JSON Schema, ``told`` into the error."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(f"{told}, not {shown(value)}")
        return value

    return AfterValidator(check)


Text = Annotated[str, Field(min_length=1)]
Header = Annotated[
    str,
    matches(r"[A-Za-z0-9_-]{1,40}", "the name of a header, 1 to 40 letters, digits, dashes and underscores"),
]
Whole = Annotated[int, Field(strict=True)]


def some_time(value: float) -> float:
    if value <= 0:
        raise ValueError("longer than 0s")
    return value
