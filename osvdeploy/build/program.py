"""What a user declares of a program of a host: one of the spec's ``[[programs]]``, as values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Packages:
    """Packages to bring with a program, exactly one of three: a ``requirements`` file or a ``venv`` (paths relative to
    the spec), or what is installed on the ``host`` for the interpreter."""

    requirements: str | None = None
    venv: str | None = None
    host: bool = False


@dataclass(frozen=True, slots=True)
class ProgramRequest:
    """One of the spec's ``[[programs]]``. ``path``: a name on PATH, an absolute path, or one relative to the spec;
    ``to``: its path in the guest, None for the same; ``root``: the root it is in, relative to the spec."""

    path: str
    to: str | None = None
    root: str | None = None
    packages: Packages | None = None
