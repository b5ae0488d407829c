"""A release that another environment proved, made on what is in the cloud alone: killed or refused at every call.

Killed: the next run, of any machine, converges, with one disk and one image more. Refused: nothing of it is left.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from osvdeploy.cloud.interfaces import Cloud, ReleaseId
from osvdeploy.cloud.tags import IMAGE, release_tags, service_tags
from osvdeploy.digests import sha256
from osvdeploy.errors import Refused
from osvdeploy.osv.cmdline import RELEASE_VARIABLE, decode, encode, with_environment
from osvdeploy.osv.disk import FIRST_BLOCK, first_block, line_of, with_line
from osvdeploy.publish.journal import Journal
from osvdeploy.publish.parents import parent_among
from osvdeploy.publish.publisher import publish_image, publish_release
from tests.faults.venues import Killed, Venue, venues
from tests.publish.disk import BOOT, raw_disk

pytestmark = pytest.mark.slow

DIGEST, STAGED = sha256(b"production"), sha256(b"staging")


class Carried:
    """Staging's image and release stand; production's is to be made of either."""

    def __init__(self, folder: Path, venue: Venue, *, image: bool) -> None:
        self.venue, self.folder = venue, folder
        raw = raw_disk(folder / "disk.raw", blocks=3, block=venue.block_size)
        with raw.path.open("r+b") as file:
            block = with_line(file.read(venue.block_size), encode(BOOT))
            file.seek(0)
            file.write(block)
        self.raw, self.first = raw, first_block(block[:FIRST_BLOCK])
        cloud, journal = venue.connect(), Journal(folder / "staging")
        below = publish_image(venue.ctx, raw, app="orders", version="1.0.0", tags={}, cloud=cloud, journal=journal)
        variables = {"LEVEL": "debug", RELEASE_VARIABLE: self.name("staging", STAGED)}
        publish_release(
            venue.ctx,
            below.image,
            block0=block,
            boot=with_environment(BOOT, variables),
            release=self.name("staging", STAGED),
            digest=STAGED,
            tags=self.tags("staging", STAGED),
            cloud=cloud,
            journal=journal,
        )
        if not image:
            cloud.images.deregister(venue.ctx, below.image.id)
        self.stood = self.names()

    def name(self, environment: str, digest: str) -> ReleaseId:
        return ReleaseId(f"orders-1.0.0-{digest[:8]}")

    def tags(self, environment: str, digest: str) -> dict[str, str]:
        return release_tags(
            service_tags("orders", f"orders/{environment}", "/ledger"),
            release=self.name(environment, digest),
            version="1.0.0",
            image=self.raw.digest,
            configuration=sha256(environment.encode()),
            digest=sha256(environment.encode()),
        )

    def __call__(self, cloud: Cloud, state: str = "state") -> None:
        ctx = self.venue.ctx
        images = [each for each in cloud.images.owned(ctx, {IMAGE: self.raw.digest}) if each.digest != DIGEST]
        parent = parent_among(ctx, images, self.raw.digest, self.first, cloud.snapshots)
        assert parent is not None and parent.boot == BOOT
        release = self.name("production", DIGEST)
        publish_release(
            ctx,
            parent.image,
            block0=parent.block0,
            boot=with_environment(parent.boot, {RELEASE_VARIABLE: release}),
            release=release,
            digest=DIGEST,
            tags=self.tags("production", DIGEST),
            cloud=cloud,
            journal=Journal(self.folder / state),
        )

    def names(self) -> list[str]:
        cloud, ctx = self.venue.connect(), self.venue.ctx
        disks = [disk.name for disk in cloud.snapshots.owned(ctx, {})]
        return sorted([*disks, *(image.name for image in cloud.images.owned(ctx, {}))])

    def check(self) -> None:
        """One disk and one image more, whose blocks are the image's but for the command line."""
        cloud, ctx = self.venue.connect(), self.venue.ctx
        release = self.name("production", DIGEST)
        assert self.names() == sorted([*self.stood, release, release])
        image = cloud.images.find(ctx, release)
        assert image is not None and image.disk is not None
        blocks = self.venue.read(image.disk)
        with self.raw.path.open("rb") as file:
            whole = {index: file.read(self.venue.block_size) for index in range(3)}
        assert {index: blocks[index] for index in (1, 2)} == {index: whole[index] for index in (1, 2)}
        assert decode(line_of(blocks[0])) == with_environment(BOOT, {RELEASE_VARIABLE: release})
        assert with_line(blocks[0], encode(BOOT)) == whole[0]


def at_each_call(folder: Path, kind: str, *, image: bool) -> Iterator[tuple[int, Carried]]:
    """A new scene for each call that it takes where nothing goes wrong, with that call's number."""
    whole = Carried(folder, venues[kind](), image=image)
    cloud = whole.venue.connect()
    before = whole.venue.calls
    whole(cloud)
    calls = whole.venue.calls - before
    whole.check()
    for number in range(1, calls + 1):
        (folder / str(number)).mkdir(exist_ok=True)
        yield number, Carried(folder / str(number), venues[kind](), image=image)


@pytest.mark.parametrize("kind", list(venues))
@pytest.mark.parametrize("image", [True, False], ids=["on the image", "on the release"])
@pytest.mark.parametrize(("after", "memory"), [(False, "kept"), (True, "kept"), (True, "lost")])
def test_killed_at_any_call(tmp_path: Path, kind: str, image: bool, after: bool, memory: str) -> None:
    """Whichever call is the last thing a process did, another one, also on another machine, makes it whole."""
    for number, scene in at_each_call(tmp_path, kind, image=image):
        with pytest.raises(Killed):
            scene(scene.venue.connect(kill=number, after=after))
        scene(scene.venue.connect(), "state" if memory == "kept" else "elsewhere")
        scene.check()


@pytest.mark.parametrize("kind", list(venues))
def test_refused_at_any_call(tmp_path: Path, kind: str) -> None:
    """Whichever call is refused, what stood stands, and nothing else; once the cause is gone the same command works."""
    for number, scene in at_each_call(tmp_path, kind, image=True):
        with pytest.raises(Refused, match="not allowed"):
            scene(scene.venue.connect(refuse=number))
        assert scene.names() == scene.stood
        scene(scene.venue.connect())
        scene.check()
