"""osv.lock: what came from elsewhere, pinned. TOML, beside the spec, committed with it. Format version 1:

    version = 1

    [kernel]
    file = "loader.img"      # as the spec names it; for people, never compared
    sha256 = "…"             # of the whole file
    size = 3801088           # bytes
    payload = "lzloader"     # osvdeploy.osv.kernel.Payload

or, where the kernel is built with a source tree,

    [tree]
    path = "../osv"          # as the spec names it; for people, never compared
    commit = "…"             # what its HEAD was; changes on top of it are told at each build, and not pinned

The same pins give the same bytes. A version or key that this osvdeploy does not know is refused: it may pin something.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from osvdeploy.build.files import replace_file
from osvdeploy.context import Context
from osvdeploy.digests import Digest
from osvdeploy.errors import BuildError
from osvdeploy.events import Note
from osvdeploy.osv.kernel import Kernel

LOCK_NAME = "osv.lock"
LOCK_VERSION = 1

_HEADER = "# Written by osvdeploy; commit it. `osvdeploy lock --upgrade` moves what is pinned here.\n"
_DIGEST = re.compile(r"[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class KernelPin:
    """The kernel that builds of this spec are made with."""

    file: str
    sha256: Digest
    size: int
    payload: str


@dataclass(frozen=True, slots=True)
class TreePin:
    """The commit of the source tree that builds of this spec are made with."""

    path: str
    commit: str


@dataclass(frozen=True, slots=True)
class Lock:
    """The content of an osv.lock."""

    kernel: KernelPin | None = None
    tree: TreePin | None = None


def read_lock(path: Path) -> Lock | None:
    """None where there is no lock yet. Raises BuildError for a file that is none, or a newer one's."""
    try:
        return parse_lock(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BuildError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise BuildError(
            f"{path}: not a lock file: {error}",
            hint="take it from version control; or remove it, and the next build pins anew",
        ) from None


def parse_lock(text: str) -> Lock:
    """Raises ValueError that says what is wrong."""
    document = tomllib.loads(text)
    version = document.pop("version", None)
    if version != LOCK_VERSION:
        raise ValueError(f"its version is {version!r}, and this osvdeploy knows {LOCK_VERSION}")
    kernel = document.pop("kernel", None)
    tree = document.pop("tree", None)
    if document:
        raise ValueError(f"unknown key {min(document)!r}")
    return Lock(None if kernel is None else _kernel_pin(kernel), None if tree is None else _tree_pin(tree))


def format_lock(lock: Lock) -> str:
    """The one text for a lock: same pins, same bytes."""
    text = f"{_HEADER}version = {LOCK_VERSION}\n"
    if lock.kernel is not None:
        pin = lock.kernel
        text += (
            f"\n[kernel]\nfile = {_quoted(pin.file)}\nsha256 = {_quoted(pin.sha256)}\n"
            f"size = {pin.size}\npayload = {_quoted(pin.payload)}\n"
        )
    if lock.tree is not None:
        text += f"\n[tree]\npath = {_quoted(lock.tree.path)}\ncommit = {_quoted(lock.tree.commit)}\n"
    return text


def held_pin(path: Path, kernel: Kernel, *, file: str) -> KernelPin | None:
    """What the lock at ``path`` says of the kernel; None where none is pinned yet. Writes nothing.

    Raises BuildError with both digests when another one is pinned. ``file`` is how the spec names the kernel.
    """
    lock = read_lock(path)
    held = lock.kernel if lock is not None else None
    if held is not None and held.sha256 != kernel.sha256:
        raise BuildError(
            f"{file}: the kernel is {kernel.sha256}, {kernel.size} bytes, "
            f"but {path.name} pins {held.sha256}, {held.size} bytes",
            hint="bring the pinned kernel back, or take this one with `osvdeploy lock --upgrade`",
        )
    return held


def pin_kernel(ctx: Context, path: Path, kernel: Kernel, *, file: str, upgrade: bool = False) -> KernelPin:
    """Hold ``kernel`` against the lock at ``path``; the first time, or with ``upgrade``, write it there and say so.

    Raises as :func:`held_pin` does.
    """
    before = None
    if upgrade:
        lock = read_lock(path)
        before = lock.kernel if lock is not None else None
        held = before if before is not None and before.sha256 == kernel.sha256 else None
    else:
        held = held_pin(path, kernel, file=file)
    if held is not None:
        return held
    pin = KernelPin(_printable(file), kernel.sha256, kernel.size, kernel.payload.value)
    try:
        replace_file(path, format_lock(Lock(pin)).encode(), nonce=ctx.nonce())
    except OSError as error:
        raise BuildError(f"{path}: cannot be written: {error.strerror}") from None
    what = f"pinned {file} to {pin.sha256[:12]} in {path.name}"
    ctx.report(Note(what if before is None else f"{what}, before {before.sha256[:12]}"))
    return pin


def held_tree_pin(path: Path, commit: str | None, moved: Callable[[str, str], str], *, tree: str) -> TreePin | None:
    """What the lock at ``path`` says of the tree; None where no commit is pinned yet. Writes nothing.

    Raises BuildError where another commit is pinned; ``moved(pinned, commit)`` says which side moved. ``commit`` None:
    the tree is no git checkout.
    """
    lock = read_lock(path)
    held = lock.tree if lock is not None else None
    if held is None or held.commit == commit:
        return held
    if commit is None:
        raise BuildError(
            f"{tree}: not a git checkout, but {path.name} pins commit {held.commit}",
            hint=f"bring the pinned commit back as a checkout; or remove [tree] from {path.name}",
        )
    raise BuildError(
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
    pin = TreePin(_printable(tree), commit)
    try:
        # A spec has one kernel: what was pinned of another is over.
        replace_file(path, format_lock(Lock(tree=pin)).encode(), nonce=ctx.nonce())
    except OSError as error:
        raise BuildError(f"{path}: cannot be written: {error.strerror}") from None
    what = f"pinned {tree} to commit {commit[:12]} in {path.name}"
    ctx.report(Note(what if before is None else f"{what}, before {before.commit[:12]}"))
    return pin


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


def _kernel_pin(table: object) -> KernelPin:
    if not isinstance(table, dict):
        raise ValueError("kernel is not a table")
    known = {"file": str, "sha256": str, "size": int, "payload": str}
    for key, kind in known.items():
        if type(table.get(key)) is not kind:
            raise ValueError(f"kernel.{key} is not there, or not {'a number' if kind is int else 'a text'}")
    if unknown := table.keys() - known.keys():
        raise ValueError(f"unknown key 'kernel.{min(unknown)}'")
    if _DIGEST.fullmatch(table["sha256"]) is None:
        raise ValueError("kernel.sha256 is not 64 hex digits")
    return KernelPin(table["file"], Digest(table["sha256"]), table["size"], table["payload"])


def _printable(text: str) -> str:
    """A file's name may hold bytes that are no text; TOML may not."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _quoted(text: str) -> str:
    # A JSON string is a TOML string, but for DEL, which TOML wants escaped too.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
