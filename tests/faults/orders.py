"""The release that the crash suites of publishing make on an image."""

from __future__ import annotations

from osvdeploy.cloud.interfaces import Cloud, CloudImage, ReleaseId
from osvdeploy.cloud.tags import release_tags, service_tags
from osvdeploy.digests import sha256
from osvdeploy.osv.cmdline import BootCommand
from osvdeploy.osv.image import RawImage
from osvdeploy.publish.blocks import first_block
from osvdeploy.publish.journal import Journal
from osvdeploy.publish.publisher import publish_release
from tests.faults.venues import Venue
from tests.publish.disk import BOOT

DIGEST = sha256(b"release")
RELEASE = ReleaseId(f"orders-1.0.0-{DIGEST[:8]}")


def release_on(venue: Venue, raw: RawImage, image: CloudImage, cloud: Cloud, journal: Journal) -> None:
    """Publish it: the image's disk with one block of its own."""
    publish_release(
        venue.ctx,
        image,
        block0=first_block(raw, venue.block_size),
        boot=BootCommand(BOOT.options, (*BOOT.environment, ("LEVEL", "debug")), BOOT.words),
        release=RELEASE,
        digest=DIGEST,
        tags=release_tags(
            service_tags("orders", "orders/production", "/ledger"),
            release=RELEASE,
            version="1.0.0",
            image=raw.digest,
            configuration=sha256(b"configuration"),
            digest=DIGEST,
        ),
        cloud=cloud,
        journal=journal,
    )
