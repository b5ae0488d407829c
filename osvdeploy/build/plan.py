"""What is to be built, as far as the bytes depend on it, and the digest that names it.

A plan holds no times, no host names, no paths of this machine in its digest: files enter by guest path and content.
"""

from __future__ import annotations

import hashlib
import os
import struct
from dataclasses import dataclass
from pathlib import Path

from osvdeploy.build.lock import LOCK_NAME, held_pin, pin_kernel
from osvdeploy.build.patterns import excluder, find, is_pattern, split_pattern
from osvdeploy.build.statcache import StatCache
from osvdeploy.context import Context
from osvdeploy.digests import Digest, digest_of
from osvdeploy.errors import CommandLineInvalid, FileTreeInvalid
from osvdeploy.events import Warned
from osvdeploy.osv.cmdline import BootCommand, encode
from osvdeploy.osv.filetree import Content, FileTree, HostFile, Symlink, TreeBuilder, show, stamp_of
from osvdeploy.osv.kernel import Kernel, read_kernel

PLAN_VERSION = 1
"""Raised when the same inputs give other bytes than before, so that the cache does not answer with old ones."""


@dataclass(frozen=True, slots=True)
class FileMapping:
    """One of the spec's ``[[files]]``. ``source``: a file, directory or pattern, relative to the spec; ``target``: a
    guest path, which names the file itself unless it ends in a slash; ``exclude``: patterns within the source."""

    source: str
    target: str
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TreeInputs:
    """A source tree to build with: its ``path`` as the spec writes it, options by name, modules, root file system, and
    how many compilers may run at once (None: as many as the machine has room for)."""

    path: str
    options: tuple[tuple[str, str | int | bool], ...] = ()
    modules: tuple[str, ...] = ()
    fs: str = "rofs"
    jobs: int | None = None


@dataclass(frozen=True, slots=True)
class ImageInputs:
    """What a user declared of one image. ``base`` is the spec's folder, ``kernel`` its path as the spec writes it,
    ``size`` the disk's bytes or None for the smallest. ``app`` and ``version`` are for people and not in any byte.
    Where ``tree`` is given, the kernel is built with it, and ``kernel`` is empty."""

    app: str
    version: str
    base: Path
    kernel: str
    command: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()
    options: tuple[tuple[str, str | None], ...] = ()
    files: tuple[FileMapping, ...] = ()
    size: int | None = None
    tree: TreeInputs | None = None


@dataclass(frozen=True, slots=True)
class BuildPlan:
    """All that a disk's bytes depend on; ``digest`` is over all of it."""

    kernel: Kernel
    tree: FileTree
    boot: BootCommand
    size: int | None
    digest: Digest


def plan(ctx: Context, inputs: ImageInputs, stats: StatCache) -> BuildPlan:
    """Look at everything and decide what is to be built; nothing is written but the pin of a first kernel.

    Raises KernelInvalid, CommandLineInvalid, FileTreeInvalid, SourceChanged; BuildError for another kernel than pinned.
    """
    boot = boot_command(inputs)
    kernel = load_kernel(ctx, inputs, stats)
    held_pin(inputs.base / LOCK_NAME, kernel, file=inputs.kernel)
    tree = file_tree(inputs)
    if program := missing_program(tree, boot):
        ctx.report(
            Warned(
                f"command: {program} is not among the image's files; OSv would power off at once",
                hint="name the program by its path in the image, the `to` of one of [[files]]",
            )
        )
    content = tree_digest(ctx, tree, stats)
    # Only now: a spec that cannot be built leaves no lock behind.
    pin_kernel(ctx, inputs.base / LOCK_NAME, kernel, file=inputs.kernel)
    digest = digest_of(
        {
            "plan": PLAN_VERSION,
            "kernel": kernel.sha256,
            "files": content,
            "boot": encode(boot).decode(),
            "size": inputs.size,
        }
    )
    return BuildPlan(kernel, tree, boot, inputs.size, digest)


def boot_command(inputs: ImageInputs) -> BootCommand:
    """The image's own command line. Raises CommandLineInvalid when OSv could not read it, or has nothing to run."""
    if not inputs.command or not inputs.command[0]:
        raise CommandLineInvalid("command: names no program", hint='write command = ["/hello"] under [image]')
    boot = BootCommand(inputs.options, inputs.environment, inputs.command)
    encode(boot)
    return boot


def missing_program(tree: FileTree, boot: BootCommand) -> str | None:
    """The program of the command line, if OSv cannot find it in the image: a name without a slash is looked for in
    ``/`` and ``/usr/lib`` (core/app.cc). None where it is there, or where only the guest can tell."""
    program = boot.words[0]
    if program == "runscript" or "$" in program or any(name == "mount-fs" for name, _ in boot.options):
        return None
    path = _utf8(program)
    places = [path] if b"/" in path else [b"/" + path, b"/usr/lib/" + path]
    return None if any(tree.file(place) for place in places) else program


def load_kernel(ctx: Context, inputs: ImageInputs, stats: StatCache) -> Kernel:
    """The kernel that the spec names, whatever is pinned. Raises KernelInvalid."""
    path = inputs.base / inputs.kernel
    return read_kernel(path, digest=lambda: stats.digest(ctx, HostFile(os.fsencode(path), stamp_of(path.stat()))))


def file_tree(inputs: ImageInputs) -> FileTree:
    """The image's files. Raises FileTreeInvalid that names the mapping or both sides of a conflict."""
    builder = TreeBuilder()
    for mapping in inputs.files:
        _add(builder, inputs.base, mapping)
    return builder.tree()


def _add(builder: TreeBuilder, base: Path, mapping: FileMapping) -> None:
    target = _utf8(mapping.target)
    if not target.startswith(b"/"):
        raise FileTreeInvalid(
            f"to = {mapping.target!r}: not an absolute path (from = {mapping.source!r})",
            hint=f"write to = {'/' + mapping.target!r}",
        )
    source = os.path.join(os.fsencode(base), _utf8(mapping.source))  # noqa: PTH118 (names are bytes)
    if os.path.isdir(source):  # noqa: PTH112
        builder.add_tree(target.rstrip(b"/") or b"/", source, excluded=excluder(mapping.exclude))
    elif os.path.exists(source):  # noqa: PTH110
        if mapping.exclude:
            raise FileTreeInvalid(f"from = {mapping.source!r}: a file, of which `exclude` can leave nothing out")
        builder.add_file(target + os.path.basename(source) if target.endswith(b"/") else target, source)  # noqa: PTH119
    elif is_pattern(mapping.source):
        _add_found(builder, base, mapping, target)
    else:
        raise FileTreeInvalid(f"from = {mapping.source!r}: no such file or directory", hint=_looked_in(base))


def _add_found(builder: TreeBuilder, base: Path, mapping: FileMapping, target: bytes) -> None:
    """Each match goes below ``to`` by its path from the first wildcard on, so that a pattern keeps its directories."""
    fixed, components = split_pattern(mapping.source)
    root = os.path.join(os.fsencode(base), _utf8(fixed)).rstrip(b"/") or b"/"  # noqa: PTH118
    excluded = excluder(mapping.exclude)
    found = find(root, components)
    if excluded is not None:
        found = [path for path in found if not any(excluded(part) for part in _with_parents(path))]
    if not found:
        raise FileTreeInvalid(f"from = {mapping.source!r}: matches nothing", hint=_looked_in(base))
    into = target.endswith(b"/")
    if not into and (len(found) > 1 or os.path.isdir(root + b"/" + found[0])):  # noqa: PTH112
        raise FileTreeInvalid(
            f"to = {mapping.target!r}: one path for all that {mapping.source!r} matches: "
            + ", ".join(show(path) for path in found[:3])
            + (", ..." if len(found) > 3 else ""),
            hint=f"write to = {mapping.target + '/'!r}",
        )
    for path in found:
        builder.add_found(
            target + path if into else target, root.rstrip(b"/") + b"/" + path, root=root, excluded=excluded
        )


def _looked_in(base: Path) -> str:
    return f"paths are relative to the spec, so it is looked for in {base.absolute()}"


def _utf8(text: str) -> bytes:
    """A name in the spec as the bytes of a path: the same in every locale, unlike os.fsencode."""
    return text.encode("utf-8", "surrogateescape")


def _with_parents(path: bytes) -> list[bytes]:
    names = path.split(b"/")
    return [b"/".join(names[: count + 1]) for count in range(len(names))]


def tree_digest(ctx: Context, tree: FileTree, stats: StatCache) -> Digest:
    """Over path, kind and content of every entry in order. Each variable part is preceded by its length."""
    digest = hashlib.sha256()
    for path, entry in tree.entries.items():
        match entry:
            case HostFile():
                kind, content = b"f", bytes.fromhex(stats.digest(ctx, entry))
            case Content(content=given):
                kind, content = b"f", hashlib.sha256(given).digest()
            case Symlink(target=target):
                kind, content = b"l", target
            case _:
                kind, content = b"d", b""
        digest.update(struct.pack("<cII", kind, len(path), len(content)) + path + content)
    return Digest(digest.hexdigest())
