"""A built disk as a value that resources hand on: where it is, which one it is, and how to build it again.

A program's Image may have been built on another machine, whose cache is not here. So that a resource which needs the
disk does not depend on that, the value carries what the Image was made from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from osvdeploy.errors import BuildError, UsageError
from osvdeploy.provider.declare import Nested, declared, prop

if TYPE_CHECKING:
    from osvdeploy.context import Context
    from osvdeploy.osv.image import RawImage
    from osvdeploy.spec import LoadedSpec


@declared
class Disk(Nested):
    """A built disk: what an Image hands to the resources of the clouds."""

    MODULE: ClassVar[str] = "index"

    digest: str = prop("The image's digest: which disk it is, on every machine.")
    path: str = prop("The raw disk, on the machine that built it.")
    name: str = prop("The app.")
    version: str = prop("The app's version.")
    recipe: str = prop("What it is built from, for osvdeploy: where the file is not here, it is built again.")


@dataclass(frozen=True, slots=True)
class Recipe:
    """What an image is built from: an osv.toml, or a spec that the program gives, with overrides. Paths are relative to
    the program's folder."""

    file: str | None = None
    spec: Mapping[str, Any] | None = None
    directory: str | None = None
    sets: tuple[str, ...] = ()

    def load(self) -> LoadedSpec:
        """The spec. Raises :class:`~osvdeploy.errors.SpecError`."""
        from osvdeploy import api

        if self.spec is not None:
            return api.spec_of(self.spec, Path(self.directory or "."), sets=self.sets)
        file = Path(self.file or "osv.toml")
        return api.load_spec(file / "osv.toml" if file.is_dir() else file, sets=self.sets)

    def written(self) -> str:
        """As a text, for :meth:`of`."""
        given = {"file": self.file, "spec": self.spec, "directory": self.directory, "set": list(self.sets) or None}
        return json.dumps({name: value for name, value in given.items() if value is not None}, sort_keys=True)

    @classmethod
    def of(cls, text: str) -> Recipe:
        """The recipe that was written. Raises UsageError."""
        try:
            given = json.loads(text)
            return cls(given.get("file"), given.get("spec"), given.get("directory"), tuple(given.get("set", ())))
        except (ValueError, AttributeError, TypeError):
            raise UsageError("the disk's recipe is none that an Image wrote", hint="give the Image's `disk`") from None


def disk_here(ctx: Context, disk: Disk) -> RawImage:
    """The disk on this machine, built again where it is not here.

    To be called, and used, within :func:`osvdeploy.build.uses.in_use`. Raises what a build raises; BuildError where its
    sources now give another disk.
    """
    from osvdeploy import api

    if kept := _kept(disk):
        return kept
    image = api.build(ctx, Recipe.of(disk.recipe).load()).image
    if image.digest != disk.digest:
        raise BuildError(
            f"{disk.name} {disk.version}: the disk {disk.digest[:12]} is not here any more, and its sources now give "
            f"{image.digest[:12]}",
            hint="run `pulumi up` with the Image's own resource, so that it is told of what it is now",
        )
    return image


def _kept(disk: Disk) -> RawImage | None:
    """The disk where it was built, if it still is what it was: its sources may be others by now."""
    from osvdeploy.build.cache import BuildCache
    from osvdeploy.digests import Digest

    # CACHE/images/PLAN/disk.raw
    path = Path(disk.path)
    if len(path.parents) < 3:
        return None
    image = BuildCache(path.parents[2]).find(Digest(path.parent.name))
    return image if image is not None and image.digest == disk.digest else None
