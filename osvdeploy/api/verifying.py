"""Published images, read back and compared with what the spec builds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from osvdeploy.api import wiring
from osvdeploy.api.building import build
from osvdeploy.api.declared import environment_of, release_tags
from osvdeploy.build.uses import in_use
from osvdeploy.context import Context
from osvdeploy.errors import DiskInvalid, UsageError

if TYPE_CHECKING:
    from osvdeploy.build.builder import BuildResult
    from osvdeploy.cloud.interfaces import Cloud, CloudImage
    from osvdeploy.osv.cmdline import BootCommand
    from osvdeploy.osv.image import Extent, RawImage
    from osvdeploy.publish.verify import Comparison
    from osvdeploy.spec import LoadedSpec

_FILES_TOLD = 3


@dataclass(frozen=True, slots=True)
class Difference:
    """Bytes ``start`` up to ``end`` of a disk that are other ones in the cloud, or not there (``missing``). ``holds``
    says what of the image stands there, for people."""

    start: int
    end: int
    missing: bool
    holds: str


@dataclass(frozen=True, slots=True)
class VerifiedImage:
    """One image that was compared, ``blocks`` of its disk in all."""

    image: CloudImage
    blocks: int
    block_size: int
    differences: tuple[Difference, ...]


@dataclass(frozen=True, slots=True)
class Verified:
    """What came of it, for the image ``app-version`` and the environment's release of it, as far as they are there."""

    images: tuple[VerifiedImage, ...]

    @property
    def equal(self) -> bool:
        return not any(each.differences for each in self.images)


@in_use()
def verify(ctx: Context, loaded: LoadedSpec, environment: str | None = None) -> Verified:
    """Build if needed, read what is published of it back, block by block, and compare.

    Raises :class:`~osvdeploy.errors.UsageError` where nothing is published, where what is published is of another build
    (its digest says so before a block is read), and on Google, whose images cannot be read.
    """
    name = environment_of(loaded, environment)
    wanted = loaded.spec.deploy[name]
    if wanted.cloud == "gcp":
        raise UsageError(
            f"[deploy.{name}]: Google gives no bytes of an image back, so none can be compared",
            hint="its archive was held to a checksum when it was uploaded; `osvdeploy publish` compares the digests",
        )
    cloud = wiring.connect(ctx, wanted.cloud, wanted.region)
    built = build(ctx, loaded)
    compared = [
        _compared(ctx, built.image, image, cloud, boot) for image, boot in _published(ctx, loaded, name, built, cloud)
    ]
    if not compared:
        raise UsageError(
            f"{loaded.spec.name}-{loaded.spec.version}: no image of it is in {cloud.kind} {cloud.region}",
            hint="`osvdeploy publish` makes one",
        )
    return Verified(tuple(compared))


def _published(
    ctx: Context, loaded: LoadedSpec, name: str, built: BuildResult, cloud: Cloud
) -> Iterator[tuple[CloudImage, BootCommand | None]]:
    """What is there of the image and the environment's release, and the command line of its own that each has."""
    from osvdeploy.cloud import tags
    from osvdeploy.osv.cmdline import RELEASE_VARIABLE, with_environment

    spec = loaded.spec
    image = cloud.images.find(ctx, f"{spec.name}-{spec.version}")
    if image is not None:
        if image.digest != built.image.digest:
            raise UsageError(
                f"{image.name}: {image.id} was made of image {image.digest[:12]}, and this spec builds "
                f"{built.image.digest[:12]}",
                hint="run it where the sources of that version are; what differs between two files on this machine, "
                "`osvdeploy inspect --against` tells",
            )
        yield image, None
    labels = release_tags(loaded, name, built.image.digest, "")
    release = cloud.images.find(ctx, labels[tags.RELEASE])
    if release is not None:
        variables = {**spec.deploy[name].env, RELEASE_VARIABLE: labels[tags.RELEASE]}
        yield release, with_environment(built.image.boot, variables)


def _compared(ctx: Context, raw: RawImage, image: CloudImage, cloud: Cloud, boot: BootCommand | None) -> VerifiedImage:
    from osvdeploy.publish.verify import compare_published

    found = compare_published(ctx, raw, image, cloud.snapshots, boot)
    return VerifiedImage(image, found.blocks, found.block_size, tuple(_differences(raw, found)))


def _differences(raw: RawImage, found: Comparison) -> Iterator[Difference]:
    if found.equal:
        return
    places = list(_places(raw))
    told = [(extent, False) for extent in found.differing] + [(extent, True) for extent in found.missing]
    for extent, missing in sorted(told, key=lambda each: each[0].start):
        holds = [what for place, what in places if place.start < extent.end and extent.start < place.end]
        more = f" and {len(holds) - _FILES_TOLD} more" if len(holds) > _FILES_TOLD else ""
        yield Difference(extent.start, extent.end, missing, ", ".join(holds[:_FILES_TOLD]) + more or "the file system")


def _places(raw: RawImage) -> Iterator[tuple[Extent, str]]:
    """What stands where on a disk, for people."""
    from osvdeploy.osv.anatomy import look
    from osvdeploy.osv.disk import COMMAND_LINE_END, FileAccess
    from osvdeploy.osv.image import Extent

    anatomy = look(FileAccess(raw.path))
    yield Extent(0, COMMAND_LINE_END), "the boot sector and the command line"
    if anatomy.kernel is not None:
        yield anatomy.kernel.extent, "the kernel"
    root = anatomy.root
    try:
        files = anatomy.tree().places()
    except DiskInvalid:
        return  # no ROFS: its files are not known by their place
    assert root is not None, "it has the tree"
    for place, paths in files.items():
        start = root.extent.start
        yield Extent(start + place.start, start + place.end), paths[0].decode(errors="backslashreplace")
