"""What image registries in memory have in common."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

from osvdeploy.cloud.interfaces import CloudImage, ImageRequest, ImageUser, Tags
from osvdeploy.cloud.tags import DIGEST, NAME, is_ours
from osvdeploy.context import Context
from osvdeploy.digests import Digest
from osvdeploy.errors import ImageNameTaken, NotFound, NotOurs


def named(images: Iterable[CloudImage], name: str) -> CloudImage | None:
    """The image of that name. Raises NotOurs for one that somebody else made."""
    for image in images:
        if image.name == name:
            if not is_ours(image.tags):
                raise NotOurs(f"{name}: {image.id} has that name, and something else made it")
            return image
    return None


def by_id(images: Iterable[CloudImage], image_id: str) -> CloudImage | None:
    """The image of that id. Raises NotOurs for one that somebody else made."""
    for image in images:
        if image.id == image_id:
            if not is_ours(image.tags):
                raise NotOurs(f"{image_id}: something else made it")
            return image
    return None


def same(there: CloudImage, request: ImageRequest) -> CloudImage:
    """The image that holds the name of what is asked for. Raises ImageNameTaken where it is another."""
    if there.digest != request.digest:
        raise ImageNameTaken(request.name, held=there.digest, ours=request.digest)
    return there


def owned(images: Iterable[CloudImage], tags: Tags) -> list[CloudImage]:
    """Those of ours that carry these tags."""
    return [image for image in images if is_ours(image.tags) and tags.items() <= dict(image.tags).items()]


def with_tags(there: Tags, tags: Tags, without: Collection[str]) -> dict[str, str]:
    """Tags, with these beside and those of these names taken away."""
    return {key: value for key, value in {**there, **tags}.items() if key not in without}


def retagged(images: Iterable[CloudImage], image_id: str, tags: Tags, without: Collection[str]) -> CloudImage:
    """The image of that id with other tags. Raises NotFound without it, NotOurs for another's."""
    image = by_id(images, image_id)
    if image is None:
        raise NotFound(f"image {image_id}: is not there")
    return replace(image, tags=with_tags(image.tags, tags, without))


def users_of(images: Iterable[CloudImage], used: Iterable[tuple[str, ImageUser]]) -> dict[str, list[ImageUser]]:
    """What of ``used`` is of these images, by their ids."""
    found: dict[str, list[ImageUser]] = {}
    wanted = {image.id for image in images}
    for image, user in used:
        if image in wanted:
            found.setdefault(image, []).append(user)
    return found


def made(
    ctx: Context, number: int, name: str, digest: Digest, disk: str | None, tags: Tags, *, ours: bool = True
) -> CloudImage:
    """A new image; one that is not ours has the tags that are given, and no others."""
    kept = {**tags, DIGEST: digest, NAME: name} if ours else dict(tags)
    return CloudImage(f"image-{number}", name, digest, disk, kept, ctx.now())
