"""Publishing through an object store, killed or refused at every single call it makes.

Killed: the next run converges, with nothing remembered on this machine, and what was in the way of the disk is gone.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from osvdeploy.cloud.interfaces import Cloud
from osvdeploy.errors import Refused
from osvdeploy.osv.image import Extent
from osvdeploy.publish.journal import Journal
from osvdeploy.publish.publisher import publish_image
from tests.faults.orders import RELEASE, PublishRun, at_each_call, release_on
from tests.faults.venues import Killed, venues

pytestmark = pytest.mark.slow


@dataclass
class Run(PublishRun):
    """Publishes one image through a store, as one command of a user does."""

    version: str = "1.0.0"

    def __post_init__(self) -> None:
        super().__post_init__()
        # Of its own: another venue's would speak of uploads that this one does not know.
        self.state = Path(tempfile.mkdtemp(dir=self.folder))

    def image(self, cloud: Cloud, *, directly: bool = False) -> str | None:
        journal = Journal(self.state)
        through = None if directly else self.venue.through(cloud)
        made = publish_image(
            self.venue.ctx,
            self.raw,
            app="orders",
            version=self.version,
            tags={},
            cloud=cloud,
            journal=journal,
            through=through,
        )
        return made.image.disk

    def __call__(self, cloud: Cloud) -> None:
        self.image(cloud)

    def check(self) -> None:
        """One disk and one image, every byte that is read where it belongs."""
        cloud, ctx = self.venue.connect(), self.venue.ctx
        [disk], [image] = cloud.snapshots.owned(ctx, {}), cloud.images.owned(ctx, {})
        assert disk.name == image.name == "orders-1.0.0"
        assert image.disk == disk.id
        blocks = self.venue.read(disk.id)
        with self.raw.path.open("rb") as file:
            for extent in self.raw.read:
                file.seek(extent.start)
                assert self.bytes_of(blocks, extent) == file.read(extent.end - extent.start)

    def bytes_of(self, blocks: dict[int, bytes], extent: Extent) -> bytes:
        """What a disk reads as, where absent blocks are zeros."""
        size = self.venue.block_size
        whole = b"".join(
            blocks.get(index, bytes(size)) for index in range(extent.start // size, -(-extent.end // size))
        )
        begin = extent.start % size
        return whole[begin : begin + extent.end - extent.start]

    def on_its_way(self) -> list[str]:
        store, ctx = self.venue.through(self.venue.connect()).store, self.venue.ctx
        return [*store.keys(ctx, ""), *(each.key for each in store.unfinished(ctx, ""))]


@pytest.mark.parametrize("kind", venues)
def test_nothing_is_left_on_its_way(tmp_path: Path, kind: str) -> None:
    """Of a run that nothing goes wrong in: the disk's object is gone once its image is there."""
    run = Run(tmp_path, venues[kind]())
    run(run.venue.connect())
    run.check()
    assert run.on_its_way() == []


@pytest.mark.parametrize("kind", venues)
@pytest.mark.parametrize("after", [False, True])
def test_killed_at_any_call(tmp_path: Path, kind: str, after: bool) -> None:
    """Whichever call is the last thing a process did, before or after it took effect, the next run converges."""
    for number, run in at_each_call(Run, tmp_path, kind):
        venue = run.venue
        with pytest.raises(Killed):
            run(venue.connect(kill=number, after=after))

        run(venue.connect())

        run.check()
        assert run.on_its_way() == [], number


@pytest.mark.parametrize("kind", venues)
def test_refused_at_any_call(tmp_path: Path, kind: str) -> None:
    """Whichever call is refused, nothing is left but what an import is still reading; and once the cause is gone, the
    same command works. Not to be allowed to look at the role, or to delete the object, ends nothing."""
    for number, run in at_each_call(Run, tmp_path, kind):
        venue = run.venue
        try:
            run(venue.connect(refuse=number))
        except Refused as refused:
            assert "not allowed" in str(refused)
            assert run.left() == 0
            imports = venue.through(venue.connect()).imports
            assert len(run.on_its_way()) == len(imports.reading(venue.ctx))
            run(venue.connect())
            assert run.on_its_way() == []
        run.check()


@pytest.mark.parametrize("kind", venues)
def test_a_release_is_one_block_on_an_imported_disk(tmp_path: Path, kind: str) -> None:
    """By the same call as on one that went up in blocks."""
    venue = venues[kind]()
    run = Run(tmp_path, venue)
    cloud = venue.connect()
    run.image(cloud)
    image = cloud.images.find(venue.ctx, "orders-1.0.0")
    assert image is not None and image.disk is not None
    release_on(venue, run.raw, image, cloud, Journal(run.state))
    made = cloud.images.find(venue.ctx, RELEASE)
    assert made is not None and made.disk is not None
    below, above = venue.read(image.disk), venue.read(made.disk)
    assert {index for index in below.keys() | above.keys() if below.get(index) != above.get(index)} == {0}


@pytest.mark.parametrize("kind", venues)
def test_both_ways_make_the_same_disk(tmp_path: Path, kind: str) -> None:
    """By blocks and through a store: the same bytes wherever something reads."""
    found = []
    for directly in (True, False):
        venue = venues[kind]()
        run = Run(tmp_path, venue)
        disk = run.image(venue.connect(), directly=directly)
        assert disk is not None
        blocks = venue.read(disk)
        found.append([run.bytes_of(blocks, extent) for extent in run.raw.read])
    assert found[0] == found[1]
