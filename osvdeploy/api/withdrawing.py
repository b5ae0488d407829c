"""A version that is no good, where machines are started by image families: its images withdrawn, restored, deleted."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from osvdeploy.api import wiring
from osvdeploy.api.declared import Service, family_of, service_of
from osvdeploy.context import Context
from osvdeploy.errors import UsageError
from osvdeploy.events import Note

if TYPE_CHECKING:
    from osvdeploy.cloud.interfaces import ArchivePlace, CloudImage
    from osvdeploy.spec import LoadedSpec


class Withdrawal(StrEnum):
    """How far a version is withdrawn."""

    DEPRECATED = "deprecated"
    """No family leads to it; machines may still be started from its images by their names."""

    OBSOLETE = "obsolete"
    """No machine can be started from its images. They are there still, and can be restored."""

    DELETED = "deleted"
    """Its images are gone."""


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """The images of a version, and what each family of the spec leads to now, None where it leads to nothing."""

    images: tuple[CloudImage, ...]
    families: Mapping[str, CloudImage | None]


def withdraw(
    ctx: Context,
    loaded: LoadedSpec,
    version: str,
    how: Withdrawal = Withdrawal.DEPRECATED,
    *,
    force: bool = False,
) -> Withdrawn:
    """Let no image family lead to any image of a version: the app's, and those of its environments.

    Raises :class:`~osvdeploy.errors.UsageError`, before anything is changed, for a version that is not there, where a
    family would lead to nothing, and where machines could not be started any more that may have to be: the ledgers
    that the spec names are asked what serves and is warm, the place what starts machines from the images. ``force``
    lets all of it pass but what serves, or is being rolled out.

    Promise: no image is deleted, and what serves goes on serving. Ended early, the same call goes on with it.
    """
    place, images = _images_of(ctx, loaded, version)
    if how is not Withdrawal.DEPRECATED:
        _refuse_used(ctx, loaded, version, place, images, force=force)
    ids = {image.id for image in images}
    leading: dict[str, CloudImage] = {}
    for family in _families(loaded):
        members = place.families.members(ctx, family)
        left = [image for image in members if image.id not in ids]
        if members and not left:
            raise UsageError(
                f"the image family {family} would lead to nothing: of what may lead, {version} is all that is in it",
                hint="publish or restore another version first",
            )
        # What a warning names in its place is of the same family.
        leading |= {image.id: left[0] for image in members if image.id in ids}
    for image in images:
        ctx.report(Note(f"image {image.name} is {how}: {image.id}"))
        if how is Withdrawal.DELETED:
            place.images.deregister(ctx, image.id)
        else:
            place.families.withdraw(ctx, image, leading.get(image.id), obsolete=how is Withdrawal.OBSOLETE)
    return Withdrawn(tuple(images), _led(ctx, loaded, place))


def _refuse_used(
    ctx: Context, loaded: LoadedSpec, version: str, place: ArchivePlace, images: Sequence[CloudImage], *, force: bool
) -> None:
    from osvdeploy.cloud import tags

    releases = {image.tags[tags.RELEASE] for image in images if tags.RELEASE in image.tags}
    serving: list[str] = []
    used: list[str] = []
    for environment, wanted in loaded.spec.deploy.items():
        if wanted.cloud == "gcp" and wanted.rolled_out and releases:
            now, maybe = _uses(ctx, service_of(loaded, environment), releases)
            serving += now
            used += maybe
    what = f"{loaded.spec.name} {version}"
    if serving:
        raise UsageError(
            f"{what}: is in use: {'; '.join(serving)}",
            hint="bring another release into service first: `osvdeploy rollback`, or a deploy",
        )
    if force:
        return
    names, found = {image.id: image.name for image in images}, place.images.users(ctx, images)
    used += [user.has(names[image]) for image, users in found.items() for user in users]
    if used:
        raise UsageError(f"{what}: is in use: {'; '.join(used)}", hint="--force withdraws it all the same")


def _uses(ctx: Context, service: Service, releases: Collection[str]) -> tuple[list[str], list[str]]:
    """What a service does with releases, in words: what has traffic or is about to, and what may be gone back to."""
    head = wiring.open_ledger(service).head(ctx)
    if head is None or head.destroyed:
        return [], []
    stable, run = head.stable, head.unfinished
    serving = [f"{service.name}: {stable.release} serves"] if stable is not None and stable.release in releases else []
    if run is not None and run.candidate in releases:
        serving.append(f"{service.name}: {run.candidate} is being rolled out")
    warm = [
        f"{service.name}: {record.release} is warm until {record.warm_until:%Y-%m-%d %H:%M} UTC"
        for record in head.slots.values()
        if record.warm_until is not None and record.warm_until > ctx.now() and record.release in releases
    ]
    return serving, warm + [f"{service.name}: {pin} is pinned" for pin in head.pins if pin in releases]


def restore(ctx: Context, loaded: LoadedSpec, version: str) -> Withdrawn:
    """Take the withdrawal of a version back. Raises :class:`~osvdeploy.errors.UsageError` for one that is not there.

    Promise: as that of :func:`withdraw`.
    """
    place, images = _images_of(ctx, loaded, version)
    for image in images:
        ctx.report(Note(f"image {image.name} may be used: {image.id}"))
        place.families.restore(ctx, image)
    return Withdrawn(tuple(images), _led(ctx, loaded, place))


def _images_of(ctx: Context, loaded: LoadedSpec, version: str) -> tuple[ArchivePlace, list[CloudImage]]:
    """Where they are, and all images of a version."""
    from osvdeploy.cloud import tags

    settings = loaded.spec.publish.gcp
    if settings is None:
        raise UsageError(
            f"{loaded.path}: has no [publish.gcp], and only images on Google are led to by families",
            hint="on AWS `osvdeploy rollback` brings an earlier release back",
        )
    place = wiring.google_images(settings)
    ours = place.images.owned(ctx, {tags.APP: loaded.spec.name})
    found = [image for image in ours if image.tags.get(tags.VERSION) == version]
    if not found:
        known = ", ".join(sorted({image.tags.get(tags.VERSION, "") for image in ours})) or "none"
        raise UsageError(
            f"{loaded.spec.name} {version}: the project {settings.project} has no image of it",
            hint=f"there are images of: {known}",
        )
    return place, found


def _families(loaded: LoadedSpec) -> list[str]:
    """The app's family, and those of its environments on Google."""
    settings = loaded.spec.publish.gcp
    if settings is None or settings.family is None:
        return []
    environments = [
        name for name, each in loaded.spec.deploy.items() if each.cloud == "gcp" and (each.env or each.rolled_out)
    ]
    own = (family_of(loaded, name) for name in environments)
    return [settings.family, *(family for family in own if family is not None)]


def _led(ctx: Context, loaded: LoadedSpec, place: ArchivePlace) -> dict[str, CloudImage | None]:
    return {family: place.families.current(ctx, family) for family in _families(loaded)}
