"""Pins of host programs in osv.lock: one table per program, and in it one for its packages.

    [[programs]]
    path = "/usr/bin/python3"      # in the guest: its name here
    from = "/usr/bin/python3"      # as the spec names it; for people, never compared
    sha256 = "…"                   # over guest path and content of all that it brought from the host
    files = 747
    size = 31457280                # bytes
    packages = { sha256 = "…", files = 120, size = 1048576, requirements = "…" }
                                   # requirements: sha256 of that file; left out with `venv` and `host`
    [programs.contents]
    "/usr/lib/libz.so.1" = "…"     # sha256 of each file, where they are few

The spec's own files are not in it, a program beside the spec neither, nor bytecode, which follows from the rest.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from osvdeploy.digests import Digest
from osvdeploy.errors import PinMismatch

CONTENTS_LIMIT = 40
"""As many files are pinned one by one. A library's update is so told by name; a Python's thousand are not listed."""

_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class PackagesPin:
    """The packages of a program."""

    sha256: Digest
    files: int
    size: int
    requirements: Digest | None = None


@dataclass(frozen=True, slots=True)
class ProgramPin:
    """A program of the host as it went into the image. ``contents`` is empty where there are too many files."""

    path: str
    source: str
    sha256: Digest
    files: int
    size: int
    contents: Mapping[str, Digest] = field(default_factory=dict)
    packages: PackagesPin | None = None


def hold(held: Sequence[ProgramPin], now: Sequence[ProgramPin], *, lock: str) -> tuple[ProgramPin, ...]:
    """The pins of all programs: those held, and those of programs that had none. Raises PinMismatch for one that
    differs, and says which side moved and what is known of it. Pins of programs that the spec no longer has are kept.
    """
    known = {pin.path: pin for pin in held}
    moved = [
        told for pin in now if (before := known.get(pin.path)) is not None for told in _moved(before, pin, lock=lock)
    ]
    if moved:
        raise PinMismatch(
            "\n".join(moved),
            hint="bring back what is pinned, or take what is here now with `osvdeploy lock --upgrade`",
        )
    return tuple(sorted({**{pin.path: pin for pin in now}, **known}.values(), key=lambda pin: pin.path))


def _moved(before: ProgramPin, now: ProgramPin, *, lock: str) -> Iterator[str]:
    if before.sha256 != now.sha256:
        yield (
            f"{now.path}: the program on this host, or a library of it, is not the one that {lock} pins: "
            f"{_difference(before, now)} ({now.sha256[:12]} here, {before.sha256[:12]} pinned)"
        )
    if before.packages == now.packages:
        return
    if before.packages is None or now.packages is None:
        yield f"{now.path}: {lock} pins it {'without' if before.packages is None else 'with'} packages"
    elif before.packages.requirements != now.packages.requirements:
        yield f"{now.path}: its requirements were changed since its packages were pinned in {lock}"
    else:
        yield (
            f"{now.path}: its packages are not those that {lock} pins, though what was asked for is the same: "
            f"{_counts(before.packages, now.packages)} "
            f"({now.packages.sha256[:12]} here, {before.packages.sha256[:12]} pinned)"
        )


def _difference(before: ProgramPin, now: ProgramPin) -> str:
    if not before.contents or not now.contents:
        return _counts(before, now)
    told = [
        f"{path} changed" for path in before.contents if now.contents.get(path, "") not in ("", before.contents[path])
    ]
    told += [f"{path} is new" for path in now.contents if path not in before.contents]
    told += [f"{path} is gone" for path in before.contents if path not in now.contents]
    return ", ".join(sorted(told)[:5]) + (f" and {len(told) - 5} more" if len(told) > 5 else "")


def _counts(before: ProgramPin | PackagesPin, now: ProgramPin | PackagesPin) -> str:
    return f"{now.files} files of {now.size} bytes here, {before.files} of {before.size} pinned"


def parse_programs(tables: object) -> tuple[ProgramPin, ...]:
    """Raises ValueError that says what is wrong."""
    if not isinstance(tables, list):
        raise ValueError("programs is not an array of tables")
    pins = tuple(_program(_Table(table, f"programs[{index}]")) for index, table in enumerate(tables))
    if len({pin.path for pin in pins}) < len(pins):
        raise ValueError("programs: a path twice")
    return pins


class _Table:
    """One TOML table, its keys taken out one by one; what is left over is refused."""

    def __init__(self, table: object, where: str) -> None:
        if not isinstance(table, dict):
            raise ValueError(f"{where} is not a table")
        self.left = dict(table)
        self.where = where

    def text(self, key: str) -> str:
        value = self.left.pop(key, None)
        if not isinstance(value, str):
            raise ValueError(f"{self.where}.{key} is not there, or not a text")
        return value

    def number(self, key: str) -> int:
        value = self.left.pop(key, None)
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(f"{self.where}.{key} is not there, or not a number")
        return value

    def digest(self, key: str) -> Digest:
        value = self.text(key)
        if _DIGEST.fullmatch(value) is None:
            raise ValueError(f"{self.where}.{key} is not 64 hex digits")
        return Digest(value)

    def inner(self, key: str) -> _Table | None:
        return _Table(self.left.pop(key), f"{self.where}.{key}") if key in self.left else None

    def done(self) -> None:
        if self.left:
            raise ValueError(f"unknown key {f'{self.where}.{min(self.left)}'!r}")


def _program(table: _Table) -> ProgramPin:
    contents, packages = table.inner("contents"), table.inner("packages")
    pin = ProgramPin(
        path=table.text("path"),
        source=table.text("from"),
        sha256=table.digest("sha256"),
        files=table.number("files"),
        size=table.number("size"),
        contents={} if contents is None else {path: contents.digest(path) for path in list(contents.left)},
        packages=None if packages is None else _packages(packages),
    )
    table.done()
    return pin


def _packages(table: _Table) -> PackagesPin:
    pin = PackagesPin(
        sha256=table.digest("sha256"),
        files=table.number("files"),
        size=table.number("size"),
        requirements=table.digest("requirements") if "requirements" in table.left else None,
    )
    table.done()
    return pin


def format_programs(pins: Sequence[ProgramPin]) -> str:
    """The one text for these pins."""
    return "".join(_format(pin) for pin in sorted(pins, key=lambda pin: pin.path))


def _format(pin: ProgramPin) -> str:
    text = (
        f"\n[[programs]]\npath = {_quoted(pin.path)}\nfrom = {_quoted(pin.source)}\nsha256 = {_quoted(pin.sha256)}\n"
        f"files = {pin.files}\nsize = {pin.size}\n"
    )
    if pin.packages is not None:
        packages = pin.packages
        asked = f", requirements = {_quoted(packages.requirements)}" if packages.requirements is not None else ""
        text += (
            f"packages = {{ sha256 = {_quoted(packages.sha256)}, files = {packages.files}, "
            f"size = {packages.size}{asked} }}\n"
        )
    if pin.contents:
        text += "\n[programs.contents]\n"
        text += "".join(f"{_quoted(path)} = {_quoted(digest)}\n" for path, digest in sorted(pin.contents.items()))
    return text


def _quoted(text: str) -> str:
    # A JSON string is a TOML string, but for DEL, which TOML wants escaped too.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
