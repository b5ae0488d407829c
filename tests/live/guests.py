"""What live guests run: hello, built and published by the product, well or with one of the faults that suites need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from osvdeploy.build import builder
from osvdeploy.build.cache import BuildCache
from osvdeploy.build.plan import FileMapping, ImageInputs
from osvdeploy.build.sources import FileKernel
from osvdeploy.cloud import tags
from osvdeploy.cloud.interfaces import ArchivePlace, Cloud, ReleaseId
from osvdeploy.context import Context
from osvdeploy.demo.guest import build_guest
from osvdeploy.demo.hello import build_hello
from osvdeploy.digests import sha256
from osvdeploy.osv.cmdline import RELEASE_VARIABLE, with_environment
from osvdeploy.osv.image import RawImage
from osvdeploy.publish.archiving import ReleaseOrder, publish_archived
from osvdeploy.publish.blocks import first_block
from osvdeploy.publish.journal import Journal
from osvdeploy.publish.publisher import publish_image, publish_release
from tests.contract.scenes import SERVICE_TAGS, Guest

PROGRAMS: dict[Guest, tuple[str, tuple[str, ...]]] = {
    Guest.SERVES: ("1.0.0", ("/hello", "--port", "8080")),
    Guest.HANGS: ("1.0.0", ("/hello", "--port", "8081")),
    Guest.SICK: ("1.2.0", ("/hello", "--port", "8080")),
    Guest.ABORTS: ("1.3.0", ("/hello", "--port", "8080")),
    Guest.ENDS: ("1.0.0", ("/hello",)),
}
"""hello's version, and its words: one that listens elsewhere answers nobody, one without a port says so and ends."""


@dataclass
class Guests:
    """Images that all of a run's tests share, each made when it is first asked for. ``kernel`` is a loader.img, None
    for the boot guest of the demo, which is enough for the sandbox; ``publish`` makes a release's image."""

    folder: Path
    kernel: Path | None
    publish: Callable[[RawImage, Guest, ReleaseOrder], str]
    _images: dict[tuple[ReleaseId, Guest], str] = field(default_factory=dict)

    def image(self, release: ReleaseId, guest: Guest) -> str:
        """The id of an image whose program behaves so, and names its release in ``x-release``."""
        if (release, guest) not in self._images:
            raw = self._build(guest)
            name = ReleaseId(f"{guest}-{release}")
            digest = sha256(name.encode())
            labels = tags.release_tags(
                SERVICE_TAGS, release=name, version="1.0.0", image=raw.digest, configuration=sha256(b""), digest=digest
            )
            # The name that it answers with is that of the group, whatever its image is called.
            boot = with_environment(raw.boot, {RELEASE_VARIABLE: release})
            self._images[release, guest] = self.publish(raw, guest, ReleaseOrder(name, digest, boot, labels))
        return self._images[release, guest]

    def _build(self, guest: Guest) -> RawImage:
        version, words = PROGRAMS[guest]
        base = self.folder / guest
        base.mkdir(parents=True, exist_ok=True)
        build_hello(version, base / "hello")
        if self.kernel is None:
            build_guest(base / "loader.img")
        else:
            (base / "loader.img").write_bytes(self.kernel.read_bytes())
        inputs = ImageInputs(
            app=f"hello-{guest}",
            version=version,
            base=base,
            kernel=FileKernel("loader.img"),
            command=words,
            options=(),
            files=(FileMapping("hello", "/hello"),),
        )
        return builder.build(Context(), inputs, BuildCache(self.folder / "cache")).image


def by_blocks(ctx: Context, cloud: Cloud, state: Path) -> Callable[[RawImage, Guest, ReleaseOrder], str]:
    """Images of disks, as AWS has them."""
    journal = Journal(state)

    def publish(raw: RawImage, guest: Guest, order: ReleaseOrder) -> str:
        made = publish_image(ctx, raw, app=f"hello-{guest}", version="1.0.0", tags={}, cloud=cloud, journal=journal)
        return publish_release(
            ctx,
            made.image,
            block0=first_block(raw, cloud.snapshots.block_size),
            boot=order.boot,
            release=order.id,
            digest=order.digest,
            tags=order.tags,
            cloud=cloud,
            journal=journal,
        ).image.id

    return publish


def by_archive(ctx: Context, place: ArchivePlace) -> Callable[[RawImage, Guest, ReleaseOrder], str]:
    """Images of archives, as Google has them."""

    def publish(raw: RawImage, guest: Guest, order: ReleaseOrder) -> str:
        _, made = publish_archived(ctx, raw, app=f"hello-{guest}", version="1.0.0", tags={}, place=place, release=order)
        assert made is not None
        return made.image.id

    return publish
