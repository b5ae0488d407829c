"""What is in the build cache, and what may go: by when it was used last, and by how much room it takes.

An entry leaves by one rename, under the exclusive lock of its marker (osvdeploy.build.uses): a build that uses it keeps
it, and one that comes later does not find half of it.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from osvdeploy.build.cache import BuildCache
from osvdeploy.build.files import sweep_parts
from osvdeploy.build.kernels import KernelStore
from osvdeploy.build.uses import USED, locked_marker, marker_of
from osvdeploy.context import Context
from osvdeploy.digests import Digest
from osvdeploy.sizes import format_duration

OLDER = 30 * 86_400.0
"""Seconds after its last use that an entry is kept, unless something else is asked for."""


class Kind(StrEnum):
    """What an entry is, by the directory that it lies in."""

    IMAGE = "images"
    KERNEL = "kernels"
    PACKAGES = "packages"
    BYTECODE = "bytecode"
    FACTS = "facts"
    STATS = "stats"
    LOG = "logs"
    WORK = "work"


_SMALL = frozenset({Kind.FACTS, Kind.STATS, Kind.LOG})
"""Single files, replaced whole and never missed: no lock, and no room worth making."""


_NAMES = {
    Kind.IMAGE: re.compile(r"[0-9a-f]{64}"),
    Kind.KERNEL: re.compile(r"[0-9a-f]{64}"),
    Kind.PACKAGES: re.compile(r"[0-9a-f]{32}"),
    Kind.BYTECODE: re.compile(r"[0-9a-f]{32}"),
    Kind.FACTS: re.compile(r"[0-9a-f]{64}\.json"),
    Kind.STATS: re.compile(r"[0-9a-f]{32}(\.[a-z]+)?\.json"),
    Kind.LOG: re.compile(r".+\.log"),
    Kind.WORK: re.compile(r"[0-9a-f]{32}(\.damaged)?"),
}


@dataclass(frozen=True, slots=True)
class Entry:
    """Something in the cache. ``size`` is what it takes on the disk, ``used`` when it was used last (seconds since the
    epoch), ``busy`` whether a process uses it now. ``by_hand``: a kernel that nothing could fetch again. ``files``:
    those of it that are meant, None for all."""

    kind: Kind
    path: Path
    size: int
    used: float
    busy: bool = False
    by_hand: bool = False
    files: tuple[Path, ...] | None = None

    @property
    def name(self) -> str:
        return self.path.name


@dataclass(frozen=True, slots=True)
class Removal:
    """An entry that is to go, or would be but for ``kept``, and why."""

    entry: Entry
    why: str
    kept: str | None = None


def survey(cache: BuildCache) -> list[Entry]:
    """Everything in the cache, by kind and name. What goes away meanwhile is left out."""
    return [entry for kind in Kind for entry in _entries(cache, kind)]


def choose(
    entries: Sequence[Entry], *, now: float, older: float | None, most: int | None, by_hand: bool = False
) -> list[Removal]:
    """What is to go: what was not used for ``older`` seconds; then, until no more than ``most`` bytes are left, what
    was used longest ago. None is no such limit. What is used now stays, and so does a kernel that was put there
    ``by_hand`` unless that is asked for too."""
    found: list[Removal] = []
    left = sum(entry.size for entry in entries)

    def wanted(entry: Entry, why: str) -> None:
        nonlocal left
        kept = "in use" if entry.busy else None
        if entry.by_hand and not by_hand:
            kept = kept or "put here by hand, or no longer where it came from"
        if kept is None:
            left -= entry.size
        found.append(Removal(entry, why, kept))

    recent: list[Entry] = []
    for entry in sorted(entries, key=lambda each: (each.used, each.kind, each.name)):
        if entry.kind is Kind.WORK:
            if not entry.busy:
                wanted(entry, "left by a build that was ended")
        elif older is not None and now - entry.used > older:
            wanted(entry, f"not used for {_age(now - entry.used)}")
        elif entry.kind not in _SMALL:
            recent.append(entry)
    for entry in recent:
        if most is not None and left > most:
            wanted(entry, "used longest ago")
    return found


def _age(seconds: float) -> str:
    days = int(seconds / 86_400)
    return format_duration(max(0.0, seconds)) if days == 0 else f"{days} day{'' if days == 1 else 's'}"


def remove(ctx: Context, cache: BuildCache, removals: Sequence[Removal]) -> Iterator[Removal]:
    """Remove what is to go, and give each as it is gone, or kept after all: it was used meanwhile. What is half-made
    and nobody's goes too. Raises BuildError where the cache cannot be written, Interrupted."""
    # Making a workspace sweeps those that nobody holds; removing it is what takes the time.
    with cache.workspace(ctx) as work:
        for directory in ("facts", "stats", "kernels/sources", USED):
            sweep_parts(cache.root / directory)
        _sweep_markers(cache)
        for number, removal in enumerate(removals):
            ctx.check()
            try:
                yield _remove(cache, removal, work.path / str(number))
            except OSError as error:
                yield replace(removal, kept=f"cannot be removed: {error.strerror}")


def _remove(cache: BuildCache, removal: Removal, aside: Path) -> Removal:
    entry = removal.entry
    if removal.kept is not None or entry.kind is Kind.WORK:
        return removal
    if entry.kind in _SMALL:
        entry.path.unlink(missing_ok=True)
        return removal
    done = _take_away(cache, removal, aside)
    # At once, and not all of them at the end: what is asked for is room.
    if aside.is_dir():
        shutil.rmtree(aside, ignore_errors=True)
    else:
        aside.unlink(missing_ok=True)
    return done


def _sweep_markers(cache: BuildCache) -> None:
    """Remove what stands for entries that are gone without us."""
    for marker in _children(cache.root / USED):
        kind, _, name = marker.name.partition("-")
        if (cache.root / kind / name.partition(".")[0]).exists():
            continue
        try:
            fd = locked_marker(marker, fcntl.LOCK_EX | fcntl.LOCK_NB, using=False)
        except OSError:
            continue  # an entry that is about to be made
        marker.unlink(missing_ok=True)
        os.close(fd)


def _take_away(cache: BuildCache, removal: Removal, to: Path) -> Removal:
    entry = removal.entry
    marker = marker_of(cache.root, entry.path)
    known = marker.exists()
    try:
        fd = locked_marker(marker, fcntl.LOCK_EX | fcntl.LOCK_NB, using=False)
    except BlockingIOError:
        return replace(removal, kept="in use")
    try:
        if entry.files is not None:
            still = [group for group in _unused(cache, entry.path) if group.used <= entry.used]
            for file in {file for group in still for file in group.files or ()}.intersection(entry.files):
                file.unlink(missing_ok=True)
            return removal
        if known and _last_use(cache, entry.path) > entry.used:
            return replace(removal, kept="used again")
        try:
            entry.path.rename(to)
        except FileNotFoundError:
            pass  # another process was faster
        if entry.kind is Kind.KERNEL:
            KernelStore(cache).forget(Digest(entry.name))
        for path in (*_lists(cache, entry.path), marker):
            path.unlink(missing_ok=True)
        return removal
    finally:
        os.close(fd)


# -------------------------------------------------------------------------------------------------------- looking


def _entries(cache: BuildCache, kind: Kind) -> Iterator[Entry]:
    """Of a kind, by name. What has no name that we give is not ours."""
    by_hand = KernelStore(cache).by_hand() if kind is Kind.KERNEL else frozenset[str]()
    for path in _children(cache.root / kind):
        if _NAMES[kind].fullmatch(path.name) is None:
            continue
        try:
            if kind in _SMALL:
                yield Entry(kind, path, _size(path), path.stat().st_mtime)
            elif kind is Kind.WORK:
                busy = _is_locked(path.with_suffix(".lock"))
                yield Entry(kind, path, _size(path), path.stat().st_mtime, busy)
            else:
                size, busy = _size(path), _is_locked(marker_of(cache.root, path))
                for unused in _unused(cache, path) if kind is Kind.BYTECODE else ():
                    yield replace(unused, busy=busy)
                    size -= unused.size
                yield Entry(kind, path, size, _last_use(cache, path), busy, path.name in by_hand)
        except FileNotFoundError:
            continue  # it went away


def _last_use(cache: BuildCache, path: Path) -> float:
    """By its marker; an entry of before there were any, when it was made."""
    try:
        return marker_of(cache.root, path).stat().st_mtime
    except FileNotFoundError:
        return path.stat().st_ctime


def _unused(cache: BuildCache, store: Path) -> list[Entry]:
    """The files of a store of bytecode that its last use did not use, by when they were used last."""
    there = {path.name: path for path in _children(store) if path.suffix == ".pyc"}
    lists = sorted(((path.stat().st_mtime, path) for path in _lists(cache, store)), reverse=True)
    if not lists:
        return []
    found = []
    for used, path in lists:
        named = [
            file for name in path.read_text(errors="replace").split("\n") if (file := there.pop(name, None)) is not None
        ]
        if used < lists[0][0]:
            found.append(_group(store, named, used, [path]))
    if there:
        # Of a build that was ended before it wrote its list.
        rest = list(there.values())
        found.append(_group(store, rest, max(path.stat().st_mtime for path in rest)))
    return found


def _group(store: Path, files: Sequence[Path], used: float, lists: Sequence[Path] = ()) -> Entry:
    return Entry(Kind.BYTECODE, store, sum(map(_size, files)), used, files=(*files, *lists))


def _lists(cache: BuildCache, entry: Path) -> list[Path]:
    marker = marker_of(cache.root, entry)
    return list(marker.parent.glob(f"{marker.name}.*"))


def _is_locked(path: Path) -> bool:
    """Whether a process holds an flock on a file."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    except OSError:
        return True
    finally:
        os.close(fd)


def _children(directory: Path) -> list[Path]:
    try:
        return sorted(path for path in directory.iterdir() if not path.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _size(path: Path) -> int:
    """What a file, or all of a directory, takes on the disk; holes take nothing."""
    try:
        status = path.lstat()
        size = status.st_blocks * 512
        if stat.S_ISDIR(status.st_mode):
            with os.scandir(path) as entries:
                size += sum(_size(Path(entry.path)) for entry in entries)
        return size
    except FileNotFoundError:
        return 0
