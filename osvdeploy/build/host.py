"""Programs of this host, or of another root, with all they need to run: from the spec's ``[[programs]]`` to entries.

Nothing of a program is run. What it needs is read off its files: the ELF headers of it and its libraries
(osvdeploy.build.closure), the ``#!`` line of a script, and for an interpreter what its runtime knows
(osvdeploy.build.runtimes).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from osvdeploy.build.closure import Collector, Part, Placed, fits
from osvdeploy.build.hostroot import Found, HostRoot
from osvdeploy.build.program import ProgramRequest
from osvdeploy.build.runtimes import Brought, Workshop, runtimes
from osvdeploy.build.statcache import StatCache
from osvdeploy.context import Context
from osvdeploy.digests import Digest, sha256
from osvdeploy.errors import ProgramInvalid
from osvdeploy.events import Warned
from osvdeploy.osv.elf import Elf, ElfKind
from osvdeploy.osv.filetree import Content, HostFile, show

ROOT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where a name is looked up in a root that is not this host's own, whose PATH is unknown."""

_SCRIPTS_NESTED = 4
"""As many interpreters that are scripts themselves as Linux follows (fs/exec.c)."""

_LINE_LIMIT = 256
"""Bytes of a ``#!`` line (BINPRM_BUF_SIZE)."""

_SHELLS = frozenset({b"sh", b"bash", b"dash", b"ash", b"zsh", b"ksh", b"busybox"})


@dataclass(frozen=True, slots=True)
class Closure:
    """A program and all it needs, by guest path. ``command``: the words that start it, more than one for a script;
    ``environment``, ``requirements`` and ``complete``: as osvdeploy.build.runtimes.Brought has them."""

    request: ProgramRequest
    guest: bytes
    entries: Mapping[bytes, Placed]
    command: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    requirements: Digest | None = None
    complete: bool = True


def close_program(ctx: Context, request: ProgramRequest, workshop: Workshop, *, cxx: bool) -> Closure:
    """Find a program and everything that it needs. ``cxx``: whether the kernel supplies libstdc++.

    Raises ProgramInvalid that says what is not there, and who needs it.
    """
    root = _root(request, workshop.base)
    named, found, own = _find(request, root, workshop.base)
    guest = _guest(request, named, own)
    into = Collector(root, cxx=cxx)
    command: list[bytes] = []
    brought = _bring(ctx, request, into, named, found, guest, own, workshop, command)
    return Closure(
        request,
        guest,
        {path: into.entries[path] for path in sorted(into.entries)},
        tuple(os.fsdecode(word) for word in command),
        brought.environment,
        brought.requirements,
        brought.complete,
    )


def merge(ctx: Context, closures: Iterable[Closure], stats: StatCache) -> dict[bytes, Placed]:
    """The entries of all closures. Raises ProgramInvalid that names both sides where two differ; the same content
    from two places is no conflict."""
    merged: dict[bytes, Placed] = {}
    for closure in closures:
        for path, placed in closure.entries.items():
            held = merged.setdefault(path, placed)
            if held is placed or held.entry == placed.entry:
                continue
            if not _same_content(ctx, held, placed, stats):
                raise ProgramInvalid(
                    f"{show(path)}: two programs bring different files for it: {held.origin} and {placed.origin}",
                    hint="give one of the two programs another `to`, or take both from the same root",
                )
    return merged


def content_digest(ctx: Context, entry: HostFile | Content, stats: StatCache) -> Digest:
    return stats.digest(ctx, entry) if isinstance(entry, HostFile) else sha256(entry.content)


def _same_content(ctx: Context, one: Placed, other: Placed, stats: StatCache) -> bool:
    if not (isinstance(one.entry, HostFile | Content) and isinstance(other.entry, HostFile | Content)):
        return False
    return one.entry.size == other.entry.size and (
        content_digest(ctx, one.entry, stats) == content_digest(ctx, other.entry, stats)
    )


def _bring(
    ctx: Context,
    request: ProgramRequest,
    into: Collector,
    named: bytes,
    found: Found,
    guest: bytes,
    own: bool,
    workshop: Workshop,
    command: list[bytes],
) -> Brought:
    script = False
    for _ in range(_SCRIPTS_NESTED + 1):
        head = into.root.read(found.path, _LINE_LIMIT)
        if head is None or not head.startswith(b"#!"):
            break
        script = True
        into.put_file(guest, found, Part.OWN if own else Part.PROGRAM)
        command.insert(0, guest)
        interpreter, arguments = _interpreter(into.root, found, head)
        command[0:0] = arguments
        named, found, guest, own = interpreter[0], interpreter[1], interpreter[0], False
    else:
        raise ProgramInvalid(f"{request.path}: a script whose interpreter is a script, {_SCRIPTS_NESTED} times over")
    command.insert(0, guest)
    if script and guest.rpartition(b"/")[2] in _SHELLS:
        ctx.report(
            Warned(
                f"{request.path}: a script of {show(guest)}, which starts other programs; OSv has no fork",
                hint="name the program that the script starts; of a version manager's shim, the interpreter behind it",
            )
        )
    elf = into.elf(found)
    if elf is None:
        raise ProgramInvalid(f"{show(found.path)}: neither an ELF program nor a script; OSv cannot run it")
    _check(found, elf)
    program = into.link_program(guest, found, elf, Part.OWN if own else Part.PROGRAM)
    runtime = next((each for each in runtimes() if each.recognize(into.root, named, found, elf)), None)
    if runtime is not None:
        return runtime.bring(ctx, into, program, named=named, found=found, packages=request.packages, workshop=workshop)
    if request.packages is not None:
        names = ", ".join(each.name for each in runtimes())
        raise ProgramInvalid(
            f"{request.path}: packages are given, but {show(found.path)} is no interpreter that they could be for",
            hint=f"osvdeploy knows: {names}. Of a version manager's shim, name the interpreter behind it",
        )
    return Brought()


def _check(found: Found, elf: Elf) -> None:
    if not fits(elf):
        raise ProgramInvalid(
            f"{show(found.path)}: not a program for 64-bit x86 (ELF machine {elf.machine}, {elf.bits} bits)",
            hint="take it from a root of that machine, with `root`",
        )
    if elf.kind is ElfKind.SHARED_LIBRARY and not elf.has_main:
        raise ProgramInvalid(f"{show(found.path)}: a library without `main`, which is nothing to run")


def _interpreter(root: HostRoot, script: Found, head: bytes) -> tuple[tuple[bytes, Found], list[bytes]]:
    """The interpreter of a ``#!`` line, by its path and file, and the words that stand between it and the script."""
    line = head[2:].partition(b"\n")[0].strip()
    words = line.split(None, 1)
    if not words:
        raise ProgramInvalid(f"{show(script.path)}: its #! line names no interpreter")
    path = words[0]
    if path.rpartition(b"/")[2] == b"env" and len(words) == 2:
        rest = words[1].split()
        split = rest[0] in (b"-S", b"--split-string")
        rest = rest[1:] if split else rest
        if not rest or rest[0].startswith(b"-") or b"=" in rest[0] or (len(rest) > 1 and not split):
            raise ProgramInvalid(
                f"{show(script.path)}: `#!{show(line)}`: what env(1) would run is not known without running it",
                hint="name the interpreter as the program, and bring the script by [[files]]",
            )
        looked_up = _on_path(root, rest[0])
        if looked_up is None:
            raise ProgramInvalid(f"{show(script.path)}: its interpreter {show(rest[0])} is not on PATH in {root}")
        return looked_up, rest[1:]
    found = root.find(path) if path.startswith(b"/") else None
    if found is None:
        raise ProgramInvalid(
            f"{show(script.path)}: its interpreter {show(path)} is not in {root}",
            hint="install it there, or name another program",
        )
    return (path, found), words[1:]


def _root(request: ProgramRequest, base: Path) -> HostRoot:
    if request.root is None:
        return HostRoot()
    top = os.path.realpath(os.path.join(os.fsencode(base), _bytes(request.root)))  # noqa: PTH118 (names are bytes)
    if not os.path.isdir(top):  # noqa: PTH112 (names are bytes)
        raise ProgramInvalid(
            f"{request.path}: root = {request.root!r} is no directory",
            hint=f"paths are relative to the spec, so it is looked for in {base.absolute()}",
        )
    return HostRoot(top)


def _find(request: ProgramRequest, root: HostRoot, base: Path) -> tuple[bytes, Found, bool]:
    """The path by which the program is known, its file, and whether it is the user's own, beside the spec."""
    path = _bytes(request.path)
    if path.startswith(b"/"):
        found = root.find(path)
        if found is None:
            raise ProgramInvalid(f"{request.path}: no such program in {root}", hint="name one that is there")
        return path, found, False
    if b"/" not in path:
        looked_up = _on_path(root, path)
        if looked_up is None:
            raise ProgramInvalid(
                f"{request.path}: not on PATH ({_search_path(root)}) in {root}", hint="install it, or give its path"
            )
        return *looked_up, False
    if request.root is not None:
        raise ProgramInvalid(
            f"{request.path}: a path within root = {request.root!r} begins with /", hint=f"write /{request.path}"
        )
    host = os.path.realpath(os.path.join(os.fsencode(base), path))  # noqa: PTH118 (names are bytes)
    found = root.find(host)
    if found is None:
        raise ProgramInvalid(
            f"{request.path}: no such program",
            hint=f"paths are relative to the spec, so it is looked for in {base.absolute()}",
        )
    # By its own name: a link's, as of a virtual environment's python, tells more than its target's.
    return os.path.normpath(os.path.join(os.path.abspath(os.fsencode(base)), path)), found, True  # noqa: PTH118, PTH100 (names are bytes)


def _guest(request: ProgramRequest, named: bytes, own: bool) -> bytes:
    if request.to is not None:
        return _bytes(request.to)
    if own:
        raise ProgramInvalid(
            f"{request.path}: has no place in the guest yet: where it is on this machine means nothing there",
            hint=f'write to = "/{show(named.rpartition(b"/")[2])}"',
        )
    return os.path.normpath(named)


def _on_path(root: HostRoot, name: bytes) -> tuple[bytes, Found] | None:
    for directory in _bytes(_search_path(root)).split(b":"):
        if not directory.startswith(b"/"):
            continue
        path = directory.rstrip(b"/") + b"/" + name
        found = root.find(path)
        if found is not None and os.stat(found.file.path).st_mode & 0o111:  # noqa: PTH116 (names are bytes)
            return path, found
    return None


def _search_path(root: HostRoot) -> str:
    return os.environ.get("PATH", os.defpath) if root.top == b"/" else ROOT_PATH


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
