"""What the crash suites of publishing share: a run that may end at any call, and a release on its image."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from osvdeploy.cloud.interfaces import Cloud, CloudImage, ReleaseId
from osvdeploy.cloud.tags import release_tags, service_tags
from osvdeploy.digests import sha256
from osvdeploy.osv.cmdline import BootCommand
from osvdeploy.osv.image import RawImage
from osvdeploy.publish.blocks import first_block
from osvdeploy.publish.journal import Journal
from osvdeploy.publish.publisher import publish_release
from tests.faults.venues import Venue, venues
from tests.publish.disk import BOOT, raw_disk

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


@dataclass
class PublishRun(ABC):
    """Publishes one disk to one venue, as one command of a user does."""

    folder: Path
    venue: Venue

    def __post_init__(self) -> None:
        self.raw = raw_disk(self.folder / "disk.raw", blocks=3, block=self.venue.block_size)

    @abstractmethod
    def __call__(self, cloud: Cloud) -> None: ...

    @abstractmethod
    def check(self) -> None:
        """All that it makes is there once, every byte where it belongs."""

    def left(self) -> int:
        """Disks and images that are there."""
        cloud, ctx = self.venue.connect(), self.venue.ctx
        return len(cloud.snapshots.owned(ctx, {})) + len(cloud.images.owned(ctx, {}))


R = TypeVar("R", bound=PublishRun)


def at_each_call(kind_of_run: type[R], folder: Path, kind: str) -> Iterator[tuple[int, R]]:
    """A new run at a new venue for each call that a run makes which nothing goes wrong in, with that call's number."""
    whole = kind_of_run(folder, venues[kind]())
    whole(whole.venue.connect())
    calls = whole.venue.calls
    whole.check()
    for number in range(1, calls + 1):
        yield number, kind_of_run(folder, venues[kind]())
