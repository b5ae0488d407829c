"""The content-addressed cache of built disks: ``$OSVDEPLOY_CACHE``, else the user's cache directory.

    images/<plan digest>/disk.raw, image.json     whole, or not there: an entry appears by one rename
    work/<nonce>/, work/<nonce>.lock              a build under way; its processes hold an flock on the lock file
    stats/<key>.json                              digests of source files (osvdeploy.build.statcache)
    stats/<key>.elves.json                        what loaders take from them (osvdeploy.build.examine)
    stats/<key>.secrets.json                      what is in them that should not be (osvdeploy.build.secrets)
    kernels/, facts/                              kernels from elsewhere, facts of any (osvdeploy.build.kernels)
    packages/, bytecode/                          of Python programs (osvdeploy.build.runtimes)
    logs/                                         of source trees' builds (osvdeploy.build.osvtree)
    used/                                         what is used, and was when (osvdeploy.build.uses)

The kernel drops the flock of a process that dies, however it dies, so what dead builds leave is told from what living
ones do, across containers that share the directory too.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from osvdeploy.build.files import sync
from osvdeploy.build.uses import use
from osvdeploy.context import Context
from osvdeploy.digests import Digest
from osvdeploy.errors import BuildError
from osvdeploy.osv.cmdline import BootCommand
from osvdeploy.osv.image import Extent, RawImage

DISK_NAME = "disk.raw"
IMAGE_NAME = "image.json"
IMAGE_VERSION = 2


def cache_directory() -> Path:
    """Where this user's cache is."""
    if override := os.environ.get("OSVDEPLOY_CACHE"):
        # Tools are called in other directories than we were.
        return Path(override).absolute()
    from platformdirs import user_cache_path  # only here: most builds set nothing else that needs it

    return user_cache_path("osvdeploy", appauthor=False)


@dataclass(frozen=True, slots=True)
class Workspace:
    """A directory to make something in. It is ours as long as a process has the descriptor ``lock``: tools that write
    there are handed it."""

    path: Path
    lock: int


@dataclass(frozen=True, slots=True)
class BuildCache:
    """Finished disks by plan digest, under ``root``."""

    root: Path

    @classmethod
    def of_user(cls) -> BuildCache:
        return cls(cache_directory())

    def find(self, plan: Digest) -> RawImage | None:
        """The disk of a plan, or None: not built, or its entry is damaged (then it is built again)."""
        entry = self._entry(plan)
        use(self.root, entry)
        try:
            image = parse_image((entry / IMAGE_NAME).read_bytes(), entry / DISK_NAME)
            return image if image.path.stat().st_size == image.size else None
        except (OSError, ValueError):
            return None

    def holding(self, image: Digest) -> RawImage | None:
        """A disk with that image digest, whatever plan it was built by; None where there is none (any more)."""
        for entry in sorted((self.root / "images").glob(f"*/{IMAGE_NAME}")):
            try:
                digest = parse_image(entry.read_bytes(), entry.with_name(DISK_NAME)).digest
            except (OSError, ValueError):
                continue
            if digest == image and (found := self.find(Digest(entry.parent.name))) is not None:
                return found
        return None

    def stats_file(self, base: Path) -> Path:
        """Where the digests of one project's sources are remembered."""
        key = hashlib.sha256(os.fsencode(base.absolute())).hexdigest()[:32]
        return self.root / "stats" / f"{key}.json"

    def elves_file(self, base: Path) -> Path:
        """Where it is remembered which of one project's sources are ELF files, and what loaders take from them."""
        return self.stats_file(base).with_suffix(".elves.json")

    def secrets_file(self, base: Path) -> Path:
        """Where it is remembered which of one project's sources hold secrets, by kind and line."""
        return self.stats_file(base).with_suffix(".secrets.json")

    @contextmanager
    def workspace(self, ctx: Context) -> Iterator[Workspace]:
        """A directory to build in, gone afterwards unless :meth:`keep` took it. Sweeps up after dead builds first.

        Raises BuildError where the cache cannot be written.
        """
        work = self.root / "work"
        try:
            work.mkdir(parents=True, exist_ok=True)
            _sweep(work)
            workspace = _claim(work, ctx)
        except OSError as error:
            raise BuildError(
                f"{error.filename or work}: the build cache cannot be written: {error.strerror}",
                hint="set OSVDEPLOY_CACHE to a directory that can be",
            ) from None
        try:
            yield workspace
        finally:
            _clear(workspace.path)
            os.close(workspace.lock)

    def keep(self, plan: Digest, directory: Path) -> RawImage:
        """Move a finished workspace (disk and image.json, synced) to its entry. Whoever comes second finds it there.

        Raises OSError.
        """
        entry = self._entry(plan)
        use(self.root, entry, making=True)
        entry.parent.mkdir(parents=True, exist_ok=True)
        sync(directory)
        for _ in range(2):
            try:
                directory.rename(entry)
                sync(entry.parent)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
            if image := self.find(plan):
                return image
            # What stands there is damaged. Aside first, in one step, so that no reader sees it half gone.
            aside = directory.with_name(directory.name + ".damaged")
            try:
                entry.rename(aside)
            except FileNotFoundError:
                continue
            shutil.rmtree(aside, ignore_errors=True)
        raise BuildError(f"{entry}: cannot be put into the cache", hint=f"remove {entry}")

    def _entry(self, plan: Digest) -> Path:
        return self.root / "images" / plan


def format_image(image: RawImage) -> bytes:
    """image.json: everything of a RawImage but where it lies."""
    document = {
        "version": IMAGE_VERSION,
        "size": image.size,
        "digest": image.digest,
        "kernel": image.kernel,
        "rofs": image.rofs,
        "read": [[extent.start, extent.end] for extent in image.read],
        "boot": {
            "options": [list(option) for option in image.boot.options],
            "environment": [list(variable) for variable in image.boot.environment],
            "words": list(image.boot.words),
        },
        "label": image.label,
    }
    if image.fs != "rofs":
        document["fs"] = image.fs
    return json.dumps(document, indent=1, sort_keys=True).encode() + b"\n"


def parse_image(content: bytes, disk: Path) -> RawImage:
    """Raises ValueError for anything that format_image does not write."""
    try:
        document = json.loads(content)
        if document["version"] != IMAGE_VERSION:
            raise ValueError(f"version {document['version']}")
        boot = document["boot"]
        image = RawImage(
            path=disk,
            size=document["size"],
            digest=Digest(document["digest"]),
            kernel=Digest(document["kernel"]),
            rofs=Digest(document["rofs"]),
            read=tuple(Extent(start, end) for start, end in document["read"]),
            boot=BootCommand(
                tuple((name, value) for name, value in boot["options"]),
                tuple((key, value) for key, value in boot["environment"]),
                tuple(boot["words"]),
            ),
            label=document["label"],
            fs=document.get("fs", "rofs"),
        )
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"not an image.json: {error}") from None
    if format_image(image) != content:
        raise ValueError("not an image.json as it is written")
    return image


def _claim(work: Path, ctx: Context) -> Workspace:
    while True:
        lock_path = work / f"{ctx.nonce()}.lock"
        fd = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            # Between the two calls a sweep may have taken the file for a dead build's and removed it.
            if os.fstat(fd).st_nlink:
                directory = lock_path.with_suffix("")
                directory.mkdir()
                return Workspace(directory, fd)
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _sweep(work: Path) -> None:
    """Remove what nobody holds any more."""
    # In this order: a workspace's lock is there before it and until after it.
    directories = [path for path in work.iterdir() if path.suffix != ".lock"]
    for path in work.glob("*.lock"):
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _clear(path.with_suffix(""))
        except OSError:
            pass  # its process lives, or a tool that it started
        finally:
            os.close(fd)
    for path in directories:
        # A tool that outlived its build may have made it again behind the back of whoever swept it.
        if not path.with_suffix(".lock").exists():
            shutil.rmtree(path, ignore_errors=True)


def _clear(directory: Path) -> None:
    """Remove a workspace and what stands for it, the lock last: while it exists, someone cleans up."""
    shutil.rmtree(directory, ignore_errors=True)
    shutil.rmtree(directory.with_name(directory.name + ".damaged"), ignore_errors=True)
    if not directory.exists():
        directory.with_name(directory.name + ".lock").unlink(missing_ok=True)
