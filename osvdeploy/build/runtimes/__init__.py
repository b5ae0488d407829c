"""Language runtimes: programs that need more than their libraries, which no ELF header tells of.

A runtime knows its interpreter when it sees one, without running it, and brings the rest: standard library, packages,
modules loaded while it runs, environment. :data:`RUNTIMES` are tried in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from osvdeploy.build.closure import Collector, Linked
from osvdeploy.build.hostroot import Found, HostRoot
from osvdeploy.build.program import Packages
from osvdeploy.build.statcache import StatCache
from osvdeploy.context import Context
from osvdeploy.digests import Digest
from osvdeploy.osv.elf import Elf


@dataclass(frozen=True, slots=True)
class Workshop:
    """Where and how a runtime may make things. ``base``: the spec's folder; ``cache``: the build cache's root, or None
    where nothing may be written or run, and what is not there already is left out. ``refresh``: what was fetched
    before is fetched again."""

    base: Path
    stats: StatCache
    cache: Path | None
    refresh: bool = False


@dataclass(frozen=True, slots=True)
class Brought:
    """What a runtime has to say beside the files it put: the ``environment`` that it needs; ``requirements``: the
    digest of the requirements that the user wrote, None without; ``complete``: False where packages are not there yet
    and could not be fetched."""

    environment: tuple[tuple[str, str], ...] = ()
    requirements: Digest | None = None
    complete: bool = True


class Runtime(Protocol):
    """One language's interpreter.

    ``recognize`` says whether a program is it, from files alone. ``bring`` puts all else that it needs into ``into``,
    where the interpreter and its libraries are already. Same files, same entries, in any place and at any time.
    """

    name: str

    def recognize(self, root: HostRoot, named: bytes, found: Found, elf: Elf) -> bool: ...

    def bring(
        self,
        ctx: Context,
        into: Collector,
        program: Linked,
        *,
        named: bytes,
        found: Found,
        packages: Packages | None,
        workshop: Workshop,
    ) -> Brought: ...


def runtimes() -> Sequence[Runtime]:
    """Every runtime that there is."""
    from osvdeploy.build.runtimes.python import Python

    return (Python(),)
