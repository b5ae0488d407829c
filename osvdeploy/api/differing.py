"""What makes one release another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from osvdeploy.api import inspecting, wiring
from osvdeploy.api.declared import Service
from osvdeploy.api.services import find_release
from osvdeploy.context import Context
from osvdeploy.errors import DiskInvalid

if TYPE_CHECKING:
    from osvdeploy.osv.compare import Comparison
    from osvdeploy.rollout.releases import Release, Settings


@dataclass(frozen=True, slots=True)
class SettingChange:
    """A setting, by its path, and its value on both sides as JSON has it. None: it is not there."""

    key: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True)
class ReleaseDiff:
    """``after`` against ``before``. ``images`` compares the disks of both, as far as this machine has them built;
    None where they are the same, or one is not here, which ``not_compared`` says."""

    before: Release
    after: Release
    settings: tuple[SettingChange, ...]
    images: Comparison | None
    not_compared: str

    @property
    def same_image(self) -> bool:
        return self.before.image == self.after.image

    @property
    def same_configuration(self) -> bool:
        return self.before.configuration == self.after.configuration


def diff(ctx: Context, service: Service, before: str, after: str) -> ReleaseDiff:
    """What makes the release ``after`` another than ``before``: ids or versions. Each with the settings of its latest
    deploy. Reads the ledger and the build cache alone.

    Raises :class:`~osvdeploy.errors.UsageError` for a release that nobody knows.
    """
    ledger = wiring.open_ledger(service)
    if not ledger.releases(ctx):
        wiring.head(ctx, service)  # says so
    old, new = find_release(ctx, ledger, before), find_release(ctx, ledger, after)
    images, why = (None, "") if old.image == new.image else _images(ctx, old, new)
    return ReleaseDiff(old, new, changed_settings(old.settings, new.settings), images, why)


def _images(ctx: Context, old: Release, new: Release) -> tuple[Comparison | None, str]:
    from osvdeploy.build.cache import BuildCache
    from osvdeploy.build.uses import in_use

    cache = BuildCache.of_user()
    with in_use():
        disks = {release.id: cache.holding(release.image) for release in (old, new)}
        missing = [name for name, disk in disks.items() if disk is None]
        was, now = disks[old.id], disks[new.id]
        if was is None or now is None:
            return None, f"the build cache of this machine has no disk of {' and '.join(missing)}"
        try:
            return inspecting.compare(ctx, now.path, was.path), ""
        except DiskInvalid as error:
            return None, error.message


def changed_settings(before: Settings, after: Settings) -> tuple[SettingChange, ...]:
    """What of an environment's settings is another."""
    from osvdeploy.rollout.releases import settings_document

    old, new = (dict(_leaves("", settings_document(each))) for each in (before, after))
    return tuple(_changes(old, new))


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Each value by its path; a list of plain values is one."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            name = str(key).replace("_", "-")
            yield from _leaves(f"{path}.{name}" if path else name, each)
    elif isinstance(value, list) and any(isinstance(each, Mapping | list) for each in value):
        for number, each in enumerate(value):
            yield from _leaves(f"{path}[{number}]", each)
    else:
        yield path, value


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[SettingChange]:
    for key in dict.fromkeys([*before, *after]):
        told_by_part = _empty_beside(key, before, after) or _empty_beside(key, after, before)
        if before.get(key) != after.get(key) and not told_by_part:
            yield SettingChange(key, before.get(key), after.get(key))


def _empty_beside(key: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """A list that is empty in one, and has its parts told one by one in the other."""
    return one.get(key) == [] and any(each.startswith(f"{key}[") for each in other)
