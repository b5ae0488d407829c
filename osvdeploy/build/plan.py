"""What is to be built, as far as the bytes depend on it, and the digest that names it.

A plan holds no times, no host names, no paths of this machine in its digest: files enter by guest path and content.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from osvdeploy.build.cache import BuildCache
from osvdeploy.build.kernels import kernel_facts, resolve_kernel
from osvdeploy.build.lock import LOCK_NAME, held_pin, pin_kernel, pin_programs, read_lock
from osvdeploy.build.patterns import excluder, find, is_pattern, split_pattern
from osvdeploy.build.program import ProgramRequest
from osvdeploy.build.program_lock import ProgramPin, hold
from osvdeploy.build.sources import KernelSource
from osvdeploy.build.statcache import StatCache
from osvdeploy.build.surroundings import surround
from osvdeploy.context import Context
from osvdeploy.digests import Digest, digest_of
from osvdeploy.errors import CommandLineInvalid, FileTreeInvalid
from osvdeploy.events import Warned
from osvdeploy.osv.cmdline import BootCommand, encode
from osvdeploy.osv.filetree import Content, FileTree, HostFile, Symlink, TreeBuilder, show
from osvdeploy.osv.kernel import Kernel
from osvdeploy.osv.starts import Starts, starts_of

if TYPE_CHECKING:
    from osvdeploy.build.programs import Programs

PLAN_VERSION = 5
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
    """What a user declared of one image. ``base`` is the spec's folder, ``size`` the disk's bytes or None for the
    smallest, ``kernel`` None where ``tree`` builds it. ``app`` and ``version`` are for people and not in any byte."""

    app: str
    version: str
    base: Path
    kernel: KernelSource | None
    command: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()
    options: tuple[tuple[str, str | None], ...] = ()
    files: tuple[FileMapping, ...] = ()
    programs: tuple[ProgramRequest, ...] = ()
    size: int | None = None
    tree: TreeInputs | None = None

    @property
    def prebuilt(self) -> KernelSource:
        """Where the kernel comes from. Raises ValueError where a source tree builds it."""
        if self.kernel is None:
            raise ValueError("a source tree builds this kernel")
        return self.kernel


@dataclass(frozen=True, slots=True)
class BuildPlan:
    """All that a disk's bytes depend on; ``digest`` is over all of it. ``digests`` are those of
    the tree's files in order.
    ``pins`` are of the programs, as they are to stand in osv.lock."""

    kernel: Kernel
    tree: FileTree
    digests: tuple[Digest, ...]
    boot: BootCommand
    size: int | None
    digest: Digest
    pins: tuple[ProgramPin, ...] = ()


Read = Callable[[Kernel, FileTree, Sequence[int]], Sequence[Digest]]
"""Takes the digests of some of a tree's files, by their indices, for a disk with that kernel."""


def plan(ctx: Context, inputs: ImageInputs, stats: StatCache, cache: BuildCache, read: Read | None = None) -> BuildPlan:
    """Look at everything and decide what is to be built; nothing is written but, to ``cache``, what was downloaded and
    what programs need to have made: packages, bytecode. :func:`pin` is for when the image is there. ``read`` is
    asked for the digests that are not remembered.

    Raises KernelInvalid, CommandLineInvalid, FileTreeInvalid, ProgramInvalid, SourceChanged, DownloadFailed,
    LockInvalid; PinMismatch for another kernel or program than pinned; BuildError.
    """
    boot = boot_command(inputs)
    kernel = load_kernel(ctx, inputs, stats, cache)
    held_pin(inputs.base / LOCK_NAME, kernel, source=inputs.prebuilt)
    programs = programs_of(ctx, inputs, stats, cache=cache.root, cxx=supplies_cxx(ctx, inputs, kernel, cache))
    if programs is not None:
        boot = programs.boot_with(boot)
        encode(boot)
    tree = file_tree(inputs, programs)
    for start in starts_in(tree, boot).missing(tree, boot):
        ctx.report(
            Warned(
                f"{start.by}: {start.words[0]} is not among the image's files; OSv would power off at once",
                hint="name the program by its path in the image, the `to` of one of [[files]]",
            )
        )
    pins = held_programs(ctx, inputs, stats, programs)
    files = [file for _, file in tree.files()]
    digests = tuple(stats.digests(ctx, files, None if read is None else partial(read, kernel, tree)))
    content = tree_digest(tree, digests)
    digest = digest_of(
        {
            "plan": PLAN_VERSION,
            "kernel": kernel.sha256,
            "files": content,
            "boot": encode(boot).decode(),
            "size": inputs.size,
        }
    )
    return BuildPlan(kernel, tree, digests, boot, inputs.size, digest, pins)


def pin(ctx: Context, inputs: ImageInputs, wanted: BuildPlan, cache: BuildCache) -> None:
    """Write into osv.lock what the plan holds against it and is not pinned there yet. Raises BuildError."""
    place, kernel = inputs.base / LOCK_NAME, wanted.kernel
    pin_kernel(ctx, place, kernel, source=inputs.prebuilt, facts=lambda: kernel_facts(ctx, kernel, cache))
    if inputs.programs:
        pin_programs(ctx, place, wanted.pins)


def boot_command(inputs: ImageInputs) -> BootCommand:
    """The image's own command line. Raises CommandLineInvalid when OSv could not read it, or has nothing to run."""
    if not inputs.command or not inputs.command[0]:
        raise CommandLineInvalid("command: names no program", hint='write command = ["/hello"] under [image]')
    boot = BootCommand(inputs.options, inputs.environment, inputs.command)
    encode(boot)
    return boot


def starts_in(tree: FileTree, boot: BootCommand) -> Starts:
    """What OSv starts of an image: the command line's program, and those of /init."""
    return starts_of(boot, tree, lambda path: read_guest_file(tree, path))


def read_guest_file(tree: FileTree, path: bytes, most: int = 65_536) -> bytes | None:
    """The first ``most`` bytes of a file of the image, None where there is none that can be read."""
    entry = tree.file(path)
    if not isinstance(entry, HostFile):
        return None if entry is None else entry.content[:most]
    try:
        with open(entry.path, "rb") as file:  # noqa: PTH123 (names are bytes)
            return file.read(most)
    except OSError:
        return None


def load_kernel(
    ctx: Context, inputs: ImageInputs, stats: StatCache, cache: BuildCache, *, fresh: bool = False
) -> Kernel:
    """The kernel that the spec names; :func:`osvdeploy.build.lock.held_pin` holds it against the pin.

    The pin says which one is meant where the source itself would have to be downloaded to know; not with ``fresh``.
    Raises KernelInvalid, DownloadFailed, LockInvalid.
    """
    lock = None if fresh else read_lock(inputs.base / LOCK_NAME)
    pin = lock.kernel if lock is not None else None
    return resolve_kernel(
        ctx,
        inputs.prebuilt,
        inputs.base,
        cache=cache,
        stats=stats,
        pinned=pin.sha256 if pin is not None and pin.source == inputs.prebuilt else None,
        fresh=fresh,
    )


def programs_of(
    ctx: Context,
    inputs: ImageInputs,
    stats: StatCache,
    *,
    cache: Path | None,
    refresh: bool = False,
    cxx: bool = False,
) -> Programs | None:
    """The host's programs and all that they need, None where the spec has none. Without ``cache`` nothing is run or
    written, and what would have to be made is left out. ``cxx``: whether the kernel is known to supply libstdc++ (its
    symbols are not hidden); to bring one that it does not load does no harm. Raises ProgramInvalid, BuildError."""
    if not inputs.programs:
        return None
    from osvdeploy.build.programs import bring_programs  # only here: most builds need none of it
    from osvdeploy.build.runtimes import Workshop

    return bring_programs(ctx, inputs.programs, Workshop(inputs.base, stats, cache, refresh), cxx=cxx)


def supplies_cxx(ctx: Context, inputs: ImageInputs, kernel: Kernel, cache: BuildCache) -> bool:
    """Whether the kernel is known to be libstdc++ too, so that host programs need not bring theirs. Asked of the kernel
    only where there are such programs."""
    if not inputs.programs:
        return False
    return kernel_facts(ctx, kernel, cache).hidden is False


def held_programs(
    ctx: Context, inputs: ImageInputs, stats: StatCache, programs: Programs | None
) -> tuple[ProgramPin, ...]:
    """The pins of programs as they are to stand in the lock. Raises PinMismatch where one there is another."""
    lock = read_lock(inputs.base / LOCK_NAME)
    held = lock.programs if lock is not None else ()
    return held if programs is None else hold(held, programs.pins(ctx, stats, held), lock=LOCK_NAME)


def file_tree(inputs: ImageInputs, programs: Programs | None = None) -> FileTree:
    """The image's files; of one that a source tree builds, those that are ours. Raises FileTreeInvalid that names the
    mapping or both sides of a conflict."""
    builder = TreeBuilder()
    for mapping in inputs.files:
        _add(builder, inputs.base, mapping)
    if programs is not None:
        programs.put_into(builder)
    if inputs.tree is None:
        surround(builder, inputs.options)
    return builder.tree()


def _add(builder: TreeBuilder, base: Path, mapping: FileMapping) -> None:
    target = _utf8(mapping.target)
    if not target.startswith(b"/"):
        raise FileTreeInvalid(
            f"to = {mapping.target!r}: not an absolute path (from = {mapping.source!r})",
            hint=f"write to = {'/' + mapping.target!r}",
        )
    source = os.path.join(os.fsencode(base), _utf8(mapping.source))  # noqa: PTH118 (names are bytes)
    if os.path.isdir(source):  # noqa: PTH112 (names are bytes)
        builder.add_tree(target.rstrip(b"/") or b"/", source, excluded=excluder(mapping.exclude))
    elif os.path.exists(source):  # noqa: PTH110 (names are bytes)
        if mapping.exclude:
            raise FileTreeInvalid(f"from = {mapping.source!r}: a file, of which `exclude` can leave nothing out")
        builder.add_file(target + os.path.basename(source) if target.endswith(b"/") else target, source)  # noqa: PTH119 (names are bytes)
    elif is_pattern(mapping.source):
        _add_found(builder, base, mapping, target)
    else:
        raise FileTreeInvalid(f"from = {mapping.source!r}: no such file or directory", hint=_looked_in(base))


def _add_found(builder: TreeBuilder, base: Path, mapping: FileMapping, target: bytes) -> None:
    """Each match goes below ``to`` by its path from the first wildcard on, so that a pattern keeps its directories."""
    fixed, components = split_pattern(mapping.source)
    root = os.path.join(os.fsencode(base), _utf8(fixed)).rstrip(b"/") or b"/"  # noqa: PTH118 (names are bytes)
    excluded = excluder(mapping.exclude)
    found = find(root, components)
    if excluded is not None:
        found = [path for path in found if not any(excluded(part) for part in _with_parents(path))]
    if not found:
        raise FileTreeInvalid(f"from = {mapping.source!r}: matches nothing", hint=_looked_in(base))
    into = target.endswith(b"/")
    if not into and (len(found) > 1 or os.path.isdir(root + b"/" + found[0])):  # noqa: PTH112 (names are bytes)
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


def tree_digest(tree: FileTree, digests: Sequence[Digest]) -> Digest:
    """Over path, kind and content of every entry in order. Each variable part is preceded by its length."""
    digest, following = hashlib.sha256(), iter(digests)
    for path, entry in tree.entries.items():
        match entry:
            case HostFile() | Content():
                kind, content = b"f", bytes.fromhex(next(following))
            case Symlink(target=target):
                kind, content = b"l", target
            case _:
                kind, content = b"d", b""
        digest.update(struct.pack("<cII", kind, len(path), len(content)) + path + content)
    return Digest(digest.hexdigest())
