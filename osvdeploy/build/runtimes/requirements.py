"""Packages from a requirements file, installed into a directory of the build cache.

The interpreter that goes into the image installs them, with its own pip, so that what is installed is for it; where it
has none, or is not of this machine's root, ``uv`` does it where that is on PATH. Wheels alone are taken: building one
from source runs its author's program and a compiler of this machine, and gives other bytes each time.

A directory is named by the digest of all that was asked for, and made once. What a file does not pin by version may be
another package elsewhere or later: osv.lock, which pins the content, sees that. Hashes in the file are checked by pip.
What is installed anew takes the place of what was there, unless a build reads that: then it goes beside it, with a
number at the end of its name, and the highest is what later builds take.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from osvdeploy.build.cache import BuildCache, Workspace, cache_directory
from osvdeploy.build.runtimes import Workshop
from osvdeploy.build.runtimes.asked import asked_for
from osvdeploy.build.uses import alone, use
from osvdeploy.context import Context
from osvdeploy.digests import Digest, digest_of
from osvdeploy.errors import BuildError, ToolMissing
from osvdeploy.events import Note
from osvdeploy.osv.filetree import HostFile, show
from osvdeploy.processes import Ended, run_tool

INSTALL_VERSION = 1
"""Raised when the same requirements are installed another way."""

_PLATFORM = "x86_64-unknown-linux-gnu"


@dataclass(frozen=True, slots=True)
class Installed:
    """``asked``: digest of the requirements as the user wrote them; ``directory``: where they are installed, None
    where nothing may be run and they are not yet."""

    asked: Digest
    directory: Path | None


def installed(
    ctx: Context, workshop: Workshop, requirements: str, *, interpreter: HostFile, runs: bool, version: str
) -> Installed:
    """The packages of a requirements file, installed now or before. ``runs``: whether the interpreter may be run.

    Raises ProgramInvalid for a file that is not there, ToolMissing where nothing here can install it, BuildError with
    pip's own words where it fails.
    """
    path = workshop.base / requirements
    wanted = asked_for(ctx, path, workshop.stats)
    asked = wanted.digest
    key = digest_of({"version": INSTALL_VERSION, "asked": asked, "python": version, "runs": runs})
    root = cache_directory() if workshop.cache is None else workshop.cache
    entry = (_places(root, key) or [_place(root, key, 0)])[-1]
    if not workshop.refresh:
        use(root, entry)
    if entry.is_dir() and not workshop.refresh:
        return Installed(asked, entry)
    if workshop.cache is None:
        ctx.report(
            Note(f"{requirements}: not installed yet: the build does it, and its packages are not looked at here")
        )
        return Installed(asked, None)
    ctx.report(Note(f"{requirements}: installing for Python {version}"))
    with BuildCache(root).workspace(ctx) as work:
        target = _install(ctx, path, work, interpreter, runs, version, hashed=wanted.hashed)
        try:
            entry.parent.mkdir(parents=True, exist_ok=True)
            if workshop.refresh:
                entry = _make_room(root, key, work)
            use(root, entry, making=True)
            target.rename(entry)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST) and entry.is_dir():
                # Another build has put the same there meanwhile, and may be reading it.
                return Installed(asked, entry)
            raise BuildError(f"{entry}: cannot be put into the cache: {error.strerror}") from None
    return Installed(asked, entry)


def _place(root: Path, key: str, number: int) -> Path:
    return root / "packages" / (f"{key[:28]}{number:04x}" if number else key[:32])


def _number(place: Path, key: str) -> int:
    return 0 if place.name == key[:32] else int(place.name[28:], 16)


def _places(root: Path, key: str) -> list[Path]:
    """Where packages of this key are, the newest last."""
    return sorted((root / "packages").glob(key[:28] + "[0-9a-f]" * 4), key=lambda place: _number(place, key))


def _make_room(root: Path, key: str, work: Workspace) -> Path:
    """Take away what nobody reads, and give the place behind what is left."""
    for number, place in enumerate(_places(root, key)):
        with alone(root, place) as free:
            if free:
                place.rename(work.path / f"before-{number}")
    left = _places(root, key)
    number = _number(left[-1], key) + 1 if left else 0
    while number and _place(root, key, number) == _place(root, key, 0):
        number += 1  # the first one's name ends so
    return _place(root, key, number)


def _install(
    ctx: Context, path: Path, work: Workspace, interpreter: HostFile, runs: bool, version: str, *, hashed: bool
) -> Path:
    target, temporary = work.path / "packages", work.path / "tmp"
    target.mkdir()
    temporary.mkdir()
    # pip's own settings (indexes, proxies, certificates) come from its environment and files, and are the user's.
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    for name in ("PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV", "PIP_TARGET", "PIP_REQUIRE_VIRTUALENV"):
        environment.pop(name, None)
    # What a tool that is killed leaves there is swept with the workspace.
    environment["TMPDIR"] = str(temporary)
    python = os.fsdecode(interpreter.path)
    if runs and _has_pip(ctx, python, environment, work):
        words = [python, "-m", "pip", "install", "--quiet", "--no-input", "--no-compile", "--only-binary=:all:"]
        words += ["--no-warn-script-location", "--target", str(target), "-r", path.name]
    elif (uv := shutil.which("uv")) is not None:
        words = [uv, "pip", "install", "--quiet", "--no-build", "--link-mode=copy", "--target", str(target)]
        words += ["--python-version", version.rstrip("t"), "--python-platform", _PLATFORM]
        words += ["--python", python if runs else sys.executable, "-r", path.name]
        if hashed:
            words.append("--require-hashes")
    elif runs:
        raise ToolMissing(
            f"{python}: has no pip, and uv is not on PATH; nothing here can install {path.name}",
            hint="install pip for it (Debian: apt-get install python3-pip), or uv; or give `venv` instead",
        )
    else:
        raise ToolMissing(
            f"{path.name}: the interpreter is in another root, which nothing is run of, and uv is not on PATH",
            hint="install uv, which installs for another machine; or give `venv` instead",
        )
    ended = _run(ctx, words, path.parent, environment, work)
    if ended.status != 0:
        said = ended.last()
        hint = said
        if "No matching distribution" in said or "no wheels" in said.lower() or "no-build" in said:
            hint += "\nosvdeploy takes wheels alone: build one of what has none (pip wheel) and name it by its path"
        raise BuildError(f"{path}: {Path(words[0]).name} could not install it (exit status {ended.status})", hint=hint)
    return target


def _has_pip(ctx: Context, python: str, environment: dict[str, str], work: Workspace) -> bool:
    try:
        return _run(ctx, [python, "-m", "pip", "--version"], work.path, environment, work).status == 0
    except BuildError:
        return False


def _run(ctx: Context, words: list[str], cwd: Path, environment: dict[str, str], work: Workspace) -> Ended:
    try:
        return run_tool(ctx, list(words), cwd=cwd, env=environment, held=(work.lock,))
    except OSError as error:
        raise BuildError(f"{show(os.fsencode(words[0]))}: cannot be run: {error.strerror}") from None
