"""osv.lock: what came from elsewhere, pinned. TOML, beside the spec, committed with it. Format version 2:

    version = 2

    [kernel]
    release = "v0.57.0"      # where it came from, by the keys of the spec: file, release and variant, or url
    sha256 = "…"             # of the whole file
    size = 3768320           # bytes
    payload = "lzloader"     # osvdeploy.osv.kernel.Payload
    osv = "v0.57.0"          # what it says of itself, for people: its version,
    drivers = ["acpi", …]    # and its drivers; each left out where the kernel does not tell

or, where the kernel is built with a source tree,

    [tree]
    path = "../osv"          # as the spec names it; for people, never compared
    commit = "…"             # what its HEAD was; changes on top of it are told at each build, and not pinned

Of a kernel, only the digest is held against it; a source tells whether the pin is of what the spec names. Version 1,
which is read too, knew ``file`` alone, and neither ``osv`` nor ``drivers``.

What host programs brought is pinned in ``[[programs]]`` (osvdeploy.build.program_lock). The same pins give the same
bytes. A version or key that this osvdeploy does not know is refused: it may pin something.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from osvdeploy.build.files import replace_file
from osvdeploy.build.program_lock import ProgramPin, format_programs, parse_programs
from osvdeploy.build.sources import FileKernel, KernelSource, source_of, source_table
from osvdeploy.context import Context
from osvdeploy.digests import Digest
from osvdeploy.errors import BuildError, LockInvalid, PinMismatch
from osvdeploy.events import Note
from osvdeploy.osv.kernel import Kernel

if TYPE_CHECKING:
    from osvdeploy.osv.kernel_facts import KernelFacts

LOCK_NAME = "osv.lock"
LOCK_VERSION = 2

_HEADER = "# Written by osvdeploy; commit it. `osvdeploy lock --upgrade` moves what is pinned here.\n"
_ANEW = "take it from version control; or remove it, and the next build pins anew"
_DIGEST = re.compile(r"[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class KernelPin:
    """The kernel that builds of this spec are made with. ``osv`` is its version and ``drivers`` what it drives, as it
    says itself; None where it does not."""

    source: KernelSource
    sha256: Digest
    size: int
    payload: str
    osv: str | None = None
    drivers: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class TreePin:
    """The commit of the source tree that builds of this spec are made with."""

    path: str
    commit: str


@dataclass(frozen=True, slots=True)
class Lock:
    """The content of an osv.lock."""

    kernel: KernelPin | None = None
    programs: tuple[ProgramPin, ...] = ()
    tree: TreePin | None = None


def read_lock(path: Path) -> Lock | None:
    """None where there is no lock yet. Raises LockInvalid for a file that is none, or a newer one's."""
    try:
        return parse_lock(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LockInvalid(f"{path}: cannot be read: {error.strerror}", hint=_ANEW) from None
    except ValueError as error:
        raise LockInvalid(f"{path}: not a lock file: {error}", hint=_ANEW) from None


def parse_lock(text: str) -> Lock:
    """Raises ValueError that says what is wrong."""
    document = tomllib.loads(text)
    version = document.pop("version", None)
    if type(version) is not int or not 1 <= version <= LOCK_VERSION:
        raise ValueError(f"its version is {version!r}, and this osvdeploy knows 1 to {LOCK_VERSION}")
    kernel = document.pop("kernel", None)
    programs = parse_programs(document.pop("programs", []))
    tree = document.pop("tree", None)
    if document:
        raise ValueError(f"unknown key {min(document)!r}")
    return Lock(
        None if kernel is None else _kernel_pin(kernel, version), programs, None if tree is None else _tree_pin(tree)
    )


def format_lock(lock: Lock) -> str:
    """The one text for a lock: same pins, same bytes."""
    text = f"{_HEADER}version = {LOCK_VERSION}\n"
    if lock.kernel is not None:
        pin = lock.kernel
        text += "\n[kernel]\n"
        text += "".join(f"{key} = {_quoted(value)}\n" for key, value in source_table(pin.source).items())
        text += f"sha256 = {_quoted(pin.sha256)}\nsize = {pin.size}\npayload = {_quoted(pin.payload)}\n"
        if pin.osv is not None:
            text += f"osv = {_quoted(pin.osv)}\n"
        if pin.drivers is not None:
            text += f"drivers = [{', '.join(_quoted(name) for name in pin.drivers)}]\n"
    if lock.tree is not None:
        text += f"\n[tree]\npath = {_quoted(lock.tree.path)}\ncommit = {_quoted(lock.tree.commit)}\n"
    return text + format_programs(lock.programs)


def held_pin(path: Path, kernel: Kernel, *, source: KernelSource) -> KernelPin | None:
    """What the lock at ``path`` says of the kernel; None where none is pinned yet. Writes nothing.

    Raises PinMismatch with both digests when another one is pinned. ``source`` is how the spec names the kernel.
    """
    lock = read_lock(path)
    held = lock.kernel if lock is not None else None
    if held is not None and held.sha256 != kernel.sha256:
        raise PinMismatch(
            f"{source}: the kernel is {kernel.sha256}, {kernel.size} bytes, "
            f"but {path.name} pins {held.sha256}, {held.size} bytes",
            hint="bring the pinned kernel back, or take this one with `osvdeploy lock --upgrade`",
        )
    return held


def pin_kernel(
    ctx: Context,
    path: Path,
    kernel: Kernel,
    *,
    source: KernelSource,
    facts: Callable[[], KernelFacts],
    upgrade: bool = False,
) -> KernelPin:
    """Hold ``kernel`` against the lock at ``path``; the first time, or with ``upgrade``, write it there and say so.

    ``facts`` are asked for when there is something to write.

    Raises as :func:`held_pin` does; BuildError where the lock cannot be written.
    """
    lock = read_lock(path)
    before = lock.kernel if lock is not None else None
    held = None if upgrade else held_pin(path, kernel, source=source)
    # A file may move about. Of what is downloaded, a pin by another name would not save the next download.
    if held is not None and (held.source == source or isinstance(source, FileKernel)):
        return held
    said = facts()
    pin = KernelPin(
        _printable(source),
        kernel.sha256,
        kernel.size,
        kernel.payload.value,
        said.version,
        None if said.drivers is None else tuple(sorted(said.drivers)),
    )
    if pin == before:
        return pin
    _write(ctx, path, replace(lock or Lock(), kernel=pin, tree=None))
    what = f"pinned {source} to {pin.sha256[:12]} in {path.name}"
    ctx.report(Note(what if before is None or before.sha256 == pin.sha256 else f"{what}, before {before.sha256[:12]}"))
    return pin


def pin_programs(ctx: Context, path: Path, programs: Sequence[ProgramPin]) -> None:
    """Write these pins into the lock at ``path``, in the place of those that it has, if they differ; and say so."""
    lock = read_lock(path) or Lock()
    if lock.programs == tuple(programs):
        return
    _write(ctx, path, replace(lock, programs=tuple(programs)))
    held = {pin.path: pin for pin in lock.programs}
    for pin in programs:
        if held.get(pin.path) != pin:
            before = held.get(pin.path)
            what = f"pinned {pin.path} to {pin.sha256[:12]} in {path.name}"
            ctx.report(Note(what if before is None else f"{what}, before {before.sha256[:12]}"))


def held_tree_pin(path: Path, commit: str | None, moved: Callable[[str, str], str], *, tree: str) -> TreePin | None:
    """What the lock at ``path`` says of the tree; None where no commit is pinned yet. Writes nothing.

    Raises PinMismatch where another commit is pinned; ``moved(pinned, commit)`` says which side moved. ``commit`` None:
    the tree is no git checkout.
    """
    lock = read_lock(path)
    held = lock.tree if lock is not None else None
    if held is None or held.commit == commit:
        return held
    if commit is None:
        raise PinMismatch(
            f"{tree}: not a git checkout, but {path.name} pins commit {held.commit}",
            hint=f"bring the pinned commit back as a checkout; or remove [tree] from {path.name}",
        )
    raise PinMismatch(
        f"{tree}: the tree is at {commit}, but {path.name} pins {held.commit}: {moved(held.commit, commit)}",
        hint=f"git -C {tree} checkout {held.commit[:12]}, or take this one with `osvdeploy lock --upgrade`",
    )


def pin_tree(ctx: Context, path: Path, commit: str | None, *, tree: str, upgrade: bool = False) -> TreePin | None:
    """Pin a tree's commit in the lock at ``path`` the first time, or with ``upgrade``, and say so. A tree without a
    commit is not pinned. Raises BuildError where the lock cannot be written."""
    if commit is None:
        return None
    lock = read_lock(path)
    before = lock.tree if lock is not None else None
    if before is not None and (before.commit == commit or not upgrade):
        return before
    pin = TreePin(_text(tree), commit)
    # A spec has one kernel: what was pinned of another is over.
    _write(ctx, path, replace(lock or Lock(), kernel=None, tree=pin))
    what = f"pinned {tree} to commit {commit[:12]} in {path.name}"
    ctx.report(Note(what if before is None else f"{what}, before {before.commit[:12]}"))
    return pin


def _write(ctx: Context, path: Path, lock: Lock) -> None:
    try:
        replace_file(path, format_lock(lock).encode(), nonce=ctx.nonce())
    except OSError as error:
        raise BuildError(f"{path}: cannot be written: {error.strerror}") from None


def _tree_pin(table: object) -> TreePin:
    if not isinstance(table, dict):
        raise ValueError("tree is not a table")
    for key in ("path", "commit"):
        if type(table.get(key)) is not str:
            raise ValueError(f"tree.{key} is not there, or not a text")
    if unknown := table.keys() - {"path", "commit"}:
        raise ValueError(f"unknown key 'tree.{min(unknown)}'")
    if _COMMIT.fullmatch(table["commit"]) is None:
        raise ValueError("tree.commit is not 40 or 64 hex digits")
    return TreePin(table["path"], table["commit"])


def _kernel_pin(table: object, version: int) -> KernelPin:
    if not isinstance(table, dict):
        raise ValueError("kernel is not a table")
    rest = dict(table)
    named = {key: rest.pop(key) for key in ("file", "release", "variant", "url") if key in rest}
    values = {}
    for key, kind in {"sha256": str, "size": int, "payload": str}.items():
        values[key] = rest.pop(key, None)
        if type(values[key]) is not kind:
            raise ValueError(f"kernel.{key} is not there, or not {'a number' if kind is int else 'a text'}")
    osv, drivers = (rest.pop("osv", None), rest.pop("drivers", None)) if version > 1 else (None, None)
    if rest:
        raise ValueError(f"unknown key 'kernel.{min(rest)}'")
    try:
        source = source_of(named)
    except ValueError:
        raise ValueError("kernel does not say where it came from: file, release or url") from None
    if version == 1 and not isinstance(source, FileKernel):
        raise ValueError("its version is 1, which knows no kernel but a file")
    if not (osv is None or isinstance(osv, str)):
        raise ValueError("kernel.osv is not a text")
    if not (drivers is None or (isinstance(drivers, list) and all(isinstance(name, str) for name in drivers))):
        raise ValueError("kernel.drivers is not an array of texts")
    if _DIGEST.fullmatch(values["sha256"]) is None:
        raise ValueError("kernel.sha256 is not 64 hex digits")
    return KernelPin(
        source,
        Digest(values["sha256"]),
        values["size"],
        values["payload"],
        osv,
        None if drivers is None else tuple(drivers),
    )


def _printable(source: KernelSource) -> KernelSource:
    """A file's name may hold bytes that are no text; TOML may not."""
    return FileKernel(_text(source.path)) if isinstance(source, FileKernel) else source


def _text(name: str) -> str:
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _quoted(text: str) -> str:
    # A JSON string is a TOML string, but for DEL, which TOML wants escaped too.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
