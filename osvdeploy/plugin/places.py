"""Where Pulumi's command finds a provider: the project's own list, PATH, its cache; in that order.

The rules are those of Pulumi's sdk/go/common/workspace/plugins.go (GetPluginPath, SelectCompatiblePlugin).
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

PACKAGE: Final = "osvdeploy"
COMMAND: Final = "pulumi-resource-osvdeploy"
_FOLDER: Final = re.compile(r"resource-osvdeploy-v(\d+)\.(\d+)\.(\d+)(-[0-9A-Za-z.-]+)?(\+\S+)?")


class Way(StrEnum):
    """How Pulumi comes to the plugin."""

    PROJECT = "project"
    PATH = "path"
    CACHE = "cache"


@dataclass(frozen=True, slots=True)
class Found:
    """The plugin that Pulumi would start. ``version`` is the cache's word for it, None elsewhere."""

    way: Way
    command: Path
    version: str | None = None

    @property
    def runs(self) -> bool:
        """Whether there is something that can be started."""
        return self.command.is_file() and os.access(self.command, os.X_OK)


def pulumi_home(environ: Mapping[str, str]) -> Path:
    """The folder that Pulumi keeps plugins and logins in."""
    named = environ.get("PULUMI_HOME")
    return Path(named).absolute() if named else Path.home() / ".pulumi"


def cache_folder(environ: Mapping[str, str], version: str) -> Path:
    """The plugin's folder in the cache. Beside it stand ``.lock`` and, while it is half made, ``.partial``."""
    return pulumi_home(environ) / "plugins" / f"resource-{PACKAGE}-v{version}"


def beside(folder: Path, ending: str) -> Path:
    """``folder.lock``, ``folder.partial``: the name has dots of its own, which are no suffixes."""
    return folder.with_name(folder.name + ending)


def cached(environ: Mapping[str, str]) -> list[Found]:
    """The cache's plugins of this package, the one first that is taken where a program asks for no version."""
    plugins = pulumi_home(environ) / "plugins"
    found = []
    try:
        folders = list(plugins.iterdir())
    except OSError:
        return []
    for folder in folders:
        parts = _FOLDER.fullmatch(folder.name)
        if parts is None or not folder.is_dir() or beside(folder, ".partial").exists():
            continue
        *numbers, pre, _ = parts.groups()
        rank = (pre is None, *(int(each) for each in numbers), pre or "")
        found.append((rank, Found(Way.CACHE, folder / COMMAND, folder.name.partition("-v")[2])))
    return [each for _, each in sorted(found, key=lambda pair: pair[0], reverse=True)]


def find(named: Path | None, wanted: str | None, environ: Mapping[str, str]) -> Found | None:
    """The plugin that Pulumi would start for a program whose SDK asks for a version, None where it finds none.
    ``named`` is the folder that the project names.

    Of its cache Pulumi takes exactly the version that is asked for; where none is, the newest.
    """
    if named is not None:
        return Found(Way.PROJECT, named / COMMAND)
    if not environ.get("PULUMI_IGNORE_AMBIENT_PLUGINS"):
        on_path = shutil.which(COMMAND, path=environ.get("PATH", os.defpath))
        if on_path is not None:
            return Found(Way.PATH, Path(on_path).absolute())
    return next((each for each in cached(environ) if wanted is None or each.version == wanted), None)
