"""Images of releases, each on the image ``app-version``: made of a raw disk, and what still needs one.

One way for all who make them: `publish` and `deploy` of a spec, and the provider's resources.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from osvdeploy.api import wiring
from osvdeploy.cloud import tags
from osvdeploy.cloud.interfaces import ReleaseId, Tags
from osvdeploy.context import Context
from osvdeploy.digests import Digest
from osvdeploy.errors import CloudError, CommandLineInvalid

if TYPE_CHECKING:
    from osvdeploy.cloud.interfaces import ArchivePlace, Block, Cloud, CloudImage, ImageRegistry
    from osvdeploy.osv.cmdline import BootCommand
    from osvdeploy.osv.image import RawImage
    from osvdeploy.publish.publisher import Published

DEFAULT_KEEP = 10
"""Releases that have served, of which `gc` keeps everything, the newest first."""


@dataclass(frozen=True, slots=True)
class AppImage:
    """What is to be an image ``app-version``. ``tags`` are the user's own, its releases' too; ``marks`` are this
    image's alone."""

    app: str
    version: str
    tags: Tags = field(default_factory=dict)
    marks: Tags = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ReleaseOn:
    """The release on such an image: its own ``variables``, and ``labels``, which are the tags that
    :func:`osvdeploy.api.declared.labels_of` gave."""

    variables: Mapping[str, str]
    labels: Tags

    @property
    def id(self) -> ReleaseId:
        return ReleaseId(self.labels[tags.RELEASE])

    @property
    def digest(self) -> Digest:
        return Digest(self.labels[tags.DIGEST])

    def boot(self, raw: RawImage) -> BootCommand:
        """The command line of the release's image."""
        from osvdeploy.osv.cmdline import RELEASE_VARIABLE, with_environment

        return with_environment(raw.boot, {**self.variables, RELEASE_VARIABLE: self.id})


def on_disk(ctx: Context, raw: RawImage, image: AppImage, cloud: Cloud, bucket: str | None) -> Published:
    """The image, on a disk that goes up block by block, or through ``bucket``."""
    from osvdeploy.publish.journal import Journal
    from osvdeploy.publish.publisher import publish_image

    return publish_image(
        ctx,
        raw,
        app=image.app,
        version=image.version,
        tags={**image.tags, **image.marks},
        cloud=cloud,
        journal=Journal.of_user(),
        through=wiring.through_store(cloud, bucket),
    )


def on_disks(
    ctx: Context, raw: RawImage, image: AppImage, release: ReleaseOn, cloud: Cloud, bucket: str | None
) -> tuple[Published, Published]:
    """The image, and that of a release of it, each on a disk of its own."""
    from osvdeploy.publish.blocks import first_block
    from osvdeploy.publish.journal import Journal
    from osvdeploy.publish.publisher import publish_release

    below = on_disk(ctx, raw, image, cloud, bucket)
    above = publish_release(
        ctx,
        below.image,
        block0=first_block(raw, cloud.snapshots.block_size),
        boot=release.boot(raw),
        release=release.id,
        digest=release.digest,
        tags={**image.tags, **release.labels},
        cloud=cloud,
        journal=Journal.of_user(),
    )
    return below, above


def of_archives(
    ctx: Context,
    raw: RawImage,
    image: AppImage,
    release: ReleaseOn | None,
    place: ArchivePlace,
    *,
    family: str | None,
    release_family: str | None,
    keep: bool = False,
) -> tuple[Published, Published | None]:
    """The image, and that of a release of it, made of archives; each joins its family. ``keep``: their body stays."""
    from osvdeploy.publish.archiving import ReleaseOrder, publish_archived

    order = None
    if release is not None:
        order = ReleaseOrder(
            id=release.id,
            digest=release.digest,
            boot=release.boot(raw),
            tags={key: value for key, value in release.labels.items() if value},
            family=release_family,
        )
    return publish_archived(
        ctx,
        raw,
        app=image.app,
        version=image.version,
        tags=image.tags,
        marks=image.marks,
        place=place,
        family=family,
        release=order,
        keep=keep,
    )


def variables_of(ctx: Context, image: CloudImage, cloud: Cloud) -> dict[str, str] | None:
    """The variables of a release's own, by name: what its image's command line has and that of the image under it has
    not. None where that is not all, or cannot be read."""
    from osvdeploy.osv.cmdline import RELEASE_VARIABLE, decode
    from osvdeploy.osv.disk import line_of
    from osvdeploy.rollout.releases import configuration_digest

    def environment(disk: str) -> dict[str, str]:
        found: list[Block] = []
        cloud.snapshots.read(ctx, disk, [0], found.append)
        return dict(decode(line_of(found[0].data)).environment) if found else {}

    try:
        below = cloud.images.find(ctx, f"{image.tags[tags.APP]}-{image.tags[tags.VERSION]}")
        if below is None or below.disk is None or image.disk is None:
            return None
        base, there = environment(below.disk), environment(image.disk)
    except (CloudError, CommandLineInvalid):
        return None
    own = {name: there[name] for name in sorted(there) if name != RELEASE_VARIABLE and base.get(name) != there[name]}
    # One that says again what the image under it says is in the digest, and cannot be told.
    return own if configuration_digest(tuple(own.items()), ()) == image.tags[tags.CONFIGURATION] else None


def keep_published(ctx: Context, published: Published, images: ImageRegistry) -> None:
    """Somebody wants the image for itself: it does not go with the releases of programs that it was made for."""
    if tags.BELOW in published.image.tags:
        images.retag(ctx, published.image.id, {}, without=[tags.BELOW])


def needed_in(ctx: Context, address: str, app: str, release: str, *, keep: int = DEFAULT_KEEP) -> Sequence[str]:
    """The services of an app that may need a release, as the ledger at an address has it: what serves, is being rolled
    out, is warm or pinned, and the ``keep`` newest that have served."""
    from osvdeploy.rollout.ledger import Ledger, environments
    from osvdeploy.rollout.retention import needed_releases

    store, told = wiring.open_store(address), []
    for environment in environments(ctx, store, app):
        head = Ledger(store, app, environment).head(ctx)
        if head is not None and release in needed_releases(head, keep, ctx.now()):
            told.append(f"{head.service} may need it")
    return told
