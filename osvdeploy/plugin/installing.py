"""The plugin into Pulumi's cache: a file of four lines that runs the provider of this very interpreter.

A copy of the console script would do as well, until somebody's interpreter stands at a path that is too long for the
first line of a script (127 bytes before Linux 5.1), or the environment is gone and nobody says so.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from osvdeploy.build.files import part_of
from osvdeploy.context import Context
from osvdeploy.errors import OsvDeployError, ToolMissing, UsageError
from osvdeploy.plugin.places import COMMAND, beside, cache_folder, cached
from osvdeploy.version import __version__

EXTRA: Final = "pip install 'osvdeploy[pulumi]'"
_PATIENCE: Final = 60.0
"""Seconds that another installation may hold the lock: it writes one small file, or is Pulumi's own and downloads."""


class Did(StrEnum):
    """What a call found to do."""

    INSTALLED = "installed"
    REPLACED = "replaced"
    KEPT = "kept"


@dataclass(frozen=True, slots=True)
class Installed:
    """The plugin in the cache. ``before`` is what it ran, where that was something else; ``others`` are the cache's
    other versions, and ``newer`` is the one that is taken in place of this where a program asks for no version."""

    path: Path
    version: str
    interpreter: Path
    did: Did
    before: str | None
    others: tuple[str, ...]
    newer: str | None


def shim(interpreter: Path) -> str:
    """What stands in the cache. ``-P``: Pulumi starts it in the program's folder, whose modules are not ours."""
    python = shlex.quote(str(interpreter))
    return (
        "#!/bin/sh\n"
        "# Written by `osvdeploy pulumi install`: the provider of the environment that osvdeploy was called from.\n"
        f"[ -x {python} ] || {{ echo the environment of osvdeploy is gone: {python}, "
        "call \\`osvdeploy pulumi install\\` from the one in its place >&2; exit 1; }\n"
        f'exec {python} -P -m osvdeploy.provider.main "$@"\n'
    )


def needs_provider() -> None:
    """Raise ToolMissing where this environment cannot run the provider."""
    for module in ("grpc", "pulumi", "google.rpc"):
        try:
            there = importlib.util.find_spec(module) is not None
        except ModuleNotFoundError:
            there = False
        if not there:
            raise ToolMissing(f"the Pulumi provider needs {module}, which is not in {sys.prefix}", hint=EXTRA)


def scripts_folder(interpreter: Path) -> Path:
    """The folder that an environment's ``pulumi-resource-osvdeploy`` is in. Raises UsageError."""
    import sysconfig

    for folder in (interpreter.parent, Path(sysconfig.get_path("scripts"))):
        if (folder / COMMAND).is_file():
            return folder
    raise UsageError(
        f"{COMMAND} is not beside {interpreter}, where the installation of osvdeploy puts it",
        hint=f"install osvdeploy with its scripts: {EXTRA}",
    )


def install(ctx: Context, environ: Mapping[str, str], interpreter: Path) -> Installed:
    """Put the plugin into Pulumi's cache, or find that it is there. Who looks meanwhile finds the old one or the new.

    Raises UsageError, and OsvDeployError where the cache cannot be written.
    """
    from filelock import FileLock, Timeout

    folder = cache_folder(environ, __version__)
    partial = beside(folder, ".partial")
    path, text = folder / COMMAND, shim(interpreter)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # The lock that `pulumi plugin install` takes for this version.
        with FileLock(beside(folder, ".lock"), timeout=_PATIENCE):
            if folder.exists() and not folder.is_dir():
                raise UsageError(f"{folder} is no folder, and stands where the plugin is to be", hint=f"rm {folder}")
            before = _ran(path)
            if before == str(interpreter) and _is(path, text) and not partial.exists():
                did = Did.KEPT
            else:
                did = Did.REPLACED if os.path.lexists(folder) else Did.INSTALLED
                _put(ctx, folder, text)
                partial.unlink(missing_ok=True)
    except Timeout:
        raise OsvDeployError(
            f"another installation of {folder.name} has been at work for {_PATIENCE:.0f} s",
            hint="wait for it to end, and call this again",
        ) from None
    except OSError as error:
        raise OsvDeployError(
            f"{error.filename or folder}: cannot be written: {error.strerror}",
            hint="PULUMI_HOME names another folder for Pulumi's plugins",
        ) from None
    versions = [each.version or "" for each in cached(environ)]
    newest = versions[0] if versions else __version__
    return Installed(
        path=path,
        version=__version__,
        interpreter=interpreter,
        did=did,
        before=before if did is Did.REPLACED and before != str(interpreter) else None,
        others=tuple(each for each in versions if each != __version__),
        newer=newest if newest != __version__ else None,
    )


def _is(path: Path, text: str) -> bool:
    return os.access(path, os.X_OK) and path.read_bytes() == text.encode()


def _put(ctx: Context, folder: Path, text: str) -> None:
    """Write the file into a folder that is there; a folder that is not comes with the file in it."""
    for left in folder.parent.glob(f"{folder.name}.tmp*"):
        shutil.rmtree(left, ignore_errors=True)  # of a killed one: the lock is ours
    if folder.is_dir():
        if (folder / COMMAND).is_dir():
            raise UsageError(f"{folder / COMMAND} is a folder", hint=f"rm -r {folder}")
        _write(ctx, folder / COMMAND, text)
        return
    # Pulumi passes over folders of such names.
    staged = beside(folder, f".tmp{int(ctx.nonce(), 16)}")
    staged.mkdir()
    _write(ctx, staged / COMMAND, text)
    staged.replace(folder)


def _write(ctx: Context, path: Path, text: str) -> None:
    with part_of(path, nonce=ctx.nonce()) as file:
        file.write(text.encode())
        os.fchmod(file.fileno(), 0o755)


def _ran(path: Path) -> str | None:
    """The interpreter of a plugin that an earlier call wrote; what else stands there, by its kind; None for nothing."""
    try:
        lines = path.read_bytes()[: 1 << 16].decode("utf-8", "replace").splitlines()
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"something that cannot be read ({error.strerror})"
    last = lines[-1] if lines else ""
    if last.startswith("exec ") and last.endswith('-m osvdeploy.provider.main "$@"'):
        try:
            return shlex.split(last)[1]
        except ValueError:
            pass
    return "another plugin" if lines else "an empty file"
