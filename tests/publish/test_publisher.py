"""Publishing: once, whole or not at all, and never over a name that is taken."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from osvdeploy.cloud.interfaces import ReleaseId
from osvdeploy.cloud.tags import APP, IMAGE, VERSION, release_tags, service_tags
from osvdeploy.context import CancelToken, Context, VirtualClock
from osvdeploy.digests import sha256
from osvdeploy.errors import (
    DiskInvalid,
    ImageNameTaken,
    Interrupted,
    NotFound,
    NotOurs,
    OsvDeployError,
    Refused,
    Unavailable,
    UploadGone,
)
from osvdeploy.events import Event, Note, Progress, Recorder, Warned
from osvdeploy.osv.cmdline import BootCommand, decode
from osvdeploy.osv.disk import COMMAND_LINE_OFFSET
from osvdeploy.osv.image import RawImage
from osvdeploy.publish.blocks import first_block
from osvdeploy.publish.journal import Journal
from osvdeploy.publish.publisher import Published, publish_image, publish_release
from tests.publish.disk import BLOCK, BOOT, MemoryPlace, raw_disk


class Killed(BaseException):
    """Stands for kill -9: nothing catches it."""


@dataclass
class Desk:
    """One user's machine with a raw disk on it, before an empty cloud."""

    folder: Path
    place: MemoryPlace = field(default_factory=MemoryPlace)
    recorder: Recorder = field(default_factory=Recorder)
    clock: VirtualClock = field(default_factory=VirtualClock)

    def __post_init__(self) -> None:
        self.raw = raw_disk(self.folder / "disk.raw")
        self.ctx = Context(clock=self.clock, reporter=self.recorder)

    def publish(self, raw: RawImage | None = None, ctx: Context | None = None, state: str = "state") -> Published:
        return publish_image(
            ctx or self.ctx,
            raw or self.raw,
            app="orders",
            version="1.0.0",
            tags={"team": "payments"},
            cloud=self.place.cloud,
            journal=Journal(self.folder / state),
        )

    def release(self, published: Published, level: str = "debug") -> Published:
        digest = sha256(level.encode())
        release = ReleaseId(f"orders-1.0.0-{digest[:8]}")
        return publish_release(
            self.ctx,
            published.image,
            block0=first_block(self.raw, BLOCK),
            boot=BootCommand(BOOT.options, (*BOOT.environment, ("LEVEL", level)), BOOT.words),
            release=release,
            digest=digest,
            tags=release_tags(
                service_tags("orders", "orders/production", "/ledger"),
                release=release,
                version="1.0.0",
                image=self.raw.digest,
                configuration=sha256(b"configuration"),
                digest=digest,
            ),
            cloud=self.place.cloud,
            journal=Journal(self.folder / "state"),
        )

    def notes(self) -> str:
        return "\n".join(event.text for event in self.recorder.events if isinstance(event, Note))

    def puts(self) -> int:
        return self.place.faults.calls.count("snapshots.put")

    def left(self) -> tuple[int, int]:
        """How many disks and images of ours are in the cloud."""
        return len(self.place.snapshots.owned(self.ctx, {})), len(self.place.images.owned(self.ctx, {}))


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_what_is_read_arrives(desk: Desk) -> None:
    """Every block somebody reads is in the cloud's disk, zeros included, and no other is sent."""
    published = desk.publish()

    with desk.raw.path.open("rb") as file:
        content = file.read(5 * BLOCK)
    arrived = desk.place.snapshots.blocks(published.disk or "")
    assert set(arrived) == {0, 1, 2, 3, 4}
    for index, data in arrived.items():
        assert data == content[index * BLOCK : (index + 1) * BLOCK]
    assert (published.blocks, published.blocks_sent, published.reused) == (5, 5, False)


def test_image_and_disk_say_what_they_are(desk: Desk) -> None:
    """Names and tags tell app, version and digest, on image and disk alike, the user's own tags among them."""
    image = desk.publish().image
    [disk] = desk.place.snapshots.owned(desk.ctx, {})
    for thing in (image, disk):
        assert (thing.name, thing.digest) == ("orders-1.0.0", desk.raw.digest)
        assert (
            thing.tags.items() >= {APP: "orders", VERSION: "1.0.0", IMAGE: desk.raw.digest, "team": "payments"}.items()
        )


def test_twice_is_once(desk: Desk) -> None:
    """The second run finds the first one's work, says so, and sends nothing."""
    first = desk.publish()
    desk.recorder.events.clear()
    desk.place.faults.calls.clear()

    second = desk.publish()

    assert second.image == first.image
    assert (second.reused, second.blocks_sent) == (True, 0)
    assert desk.place.faults.calls == ["images.find"]
    assert "is there already" in desk.notes()
    assert desk.left() == (1, 1)


def test_a_name_that_is_taken(desk: Desk) -> None:
    """Other bytes under the same name are refused before anything is sent."""
    desk.publish()
    desk.place.faults.calls.clear()
    with pytest.raises(ImageNameTaken, match=r"orders-1\.0\.0"):
        desk.publish(raw_disk(desk.folder / "other.raw", seed=b"other"))
    assert desk.place.faults.calls == ["images.find"]
    assert desk.left() == (1, 1)


def test_a_disk_that_has_the_name(desk: Desk) -> None:
    """A finished disk holds the name too, though its image was never registered."""
    desk.place.faults.fail("images.register", Killed())
    with pytest.raises(Killed):
        desk.publish()
    with pytest.raises(ImageNameTaken):
        desk.publish(raw_disk(desk.folder / "other.raw", seed=b"other"))
    assert desk.left() == (1, 0)


def test_what_others_made_is_left_alone(desk: Desk) -> None:
    """A foreign image of that name is refused before anything is sent."""
    desk.place.images.put_foreign(desk.ctx, "orders-1.0.0")
    with pytest.raises(NotOurs):
        desk.publish()
    assert desk.puts() == 0


def test_progress_reaches_its_total(desk: Desk) -> None:
    """Each stored block is a step; the last one is the whole."""
    desk.publish()
    steps = [event for event in desk.recorder.events if isinstance(event, Progress)]
    assert [(step.done, step.total) for step in steps] == [(done, 5) for done in range(1, 6)]
    assert {step.unit for step in steps} == {"blocks"}


def test_an_interrupted_upload_goes_on(desk: Desk) -> None:
    """Ctrl-C keeps what is stored; the next run puts the missing blocks alone."""
    token = CancelToken()

    def cancel_after_two(event: Event) -> None:
        if isinstance(event, Progress) and event.done == 2:
            token.cancel()

    with pytest.raises(Interrupted):
        desk.publish(ctx=Context(clock=desk.clock, reporter=cancel_after_two, cancel=token))
    assert desk.left() == (1, 0)

    published = desk.publish()

    assert published.blocks_sent == 3
    assert "2 blocks are stored already" in desk.notes()
    assert set(desk.place.snapshots.blocks(published.disk or "")) == {0, 1, 2, 3, 4}
    assert desk.left() == (1, 1)


def test_without_the_journal_it_costs_time_alone(desk: Desk) -> None:
    """Another machine takes the same upload up and puts every block again."""
    desk.place.faults.fail("snapshots.put", Killed(), at=4)
    with pytest.raises(Killed):
        desk.publish()

    published = desk.publish(state="another machine's")

    assert published.blocks_sent == 5
    assert desk.left() == (1, 1)


def test_a_journal_that_says_too_much(desk: Desk) -> None:
    """Where the store does not hold what the journal says, every block is put in the same run."""
    desk.place.faults.fail("snapshots.put", Unavailable("dropped"), at=4)
    with pytest.raises(Unavailable):
        desk.publish()
    # The place is reset, and gives its new upload the old one's id.
    fresh = MemoryPlace()
    desk.place = fresh

    published = desk.publish()

    assert set(fresh.snapshots.blocks(published.disk or "")) == {0, 1, 2, 3, 4}
    assert desk.left() == (1, 1)


def test_an_upload_that_is_gone_starts_again(desk: Desk) -> None:
    """An upload that expired between two runs is replaced by the next attempt."""
    desk.place.faults.fail("snapshots.put", Killed(), at=4)
    with pytest.raises(Killed):
        desk.publish()
    [begun] = desk.place.snapshots.owned(desk.ctx, {})
    desk.place.snapshots.lose(begun.id)

    published = desk.publish()

    assert published.disk != begun.id
    assert published.blocks_sent == 5
    assert desk.left() == (1, 1)


def test_an_upload_that_goes_away_under_our_hands(desk: Desk) -> None:
    """Lost in the middle of a run, it is begun anew in the same run."""
    desk.place.faults.fail("snapshots.put", UploadGone("expired"), at=3)
    published = desk.publish()
    assert set(desk.place.snapshots.blocks(published.disk or "")) == {0, 1, 2, 3, 4}
    assert desk.left()[1] == 1


def test_uploads_that_always_go_away_end(desk: Desk) -> None:
    """A place that loses every upload is given up on, with its own words."""
    desk.place.faults.fail("snapshots.start", UploadGone("expired at once"), times=1000)
    with pytest.raises(UploadGone, match="expired at once"):
        desk.publish()
    assert desk.place.faults.calls.count("snapshots.start") < 50


def test_a_finished_disk_is_used(desk: Desk) -> None:
    """A run that died before it registered left a disk; the next run registers that one."""
    desk.place.faults.fail("images.register", Killed())
    with pytest.raises(Killed):
        desk.publish()
    desk.place.faults.calls.clear()

    published = desk.publish()

    assert (published.blocks_sent, desk.puts()) == (0, 0)
    assert "was uploaded before" in desk.notes()
    assert desk.left() == (1, 1)


REFUSALS = [
    ("snapshots.start", 1, False),
    ("snapshots.put", 1, False),
    ("snapshots.put", 3, True),
    ("snapshots.complete", 1, False),
    ("snapshots.complete", 1, True),
    ("images.register", 1, False),
    ("images.register", 1, True),
]


@pytest.mark.parametrize(("operation", "at", "after"), REFUSALS)
def test_a_refusal_leaves_nothing(desk: Desk, operation: str, at: int, after: bool) -> None:
    """Whatever call is refused, what the run made is gone, and the same command works once the cause is."""
    desk.place.faults.fail(operation, Refused("quota"), at=at, after=after)
    with pytest.raises(Refused, match="quota"):
        desk.publish()
    if (operation, after) != ("snapshots.start", True):
        assert desk.left() == (0, 0)

    published = desk.publish()

    assert published.blocks_sent == 5
    assert desk.left() == (1, 1)


@pytest.mark.parametrize("error", [Unavailable("no answer"), Killed()])
@pytest.mark.parametrize(("operation", "at", "after"), REFUSALS)
def test_everything_else_is_taken_up(desk: Desk, operation: str, at: int, after: bool, error: BaseException) -> None:
    """Whatever call is the last one of a run that died, the next run ends with one disk and one image."""
    desk.place.faults.fail(operation, error, at=at, after=after)
    with pytest.raises(type(error)):
        desk.publish()
    desk.publish()
    assert desk.left() == (1, 1)


def test_a_failed_clean_up_hides_nothing(desk: Desk) -> None:
    """The refusal is what is raised; what could not be removed is a warning that says who will."""
    desk.place.faults.fail("snapshots.complete", Refused("quota"))
    desk.place.faults.fail("snapshots.abort", Refused("no permission to delete"))
    with pytest.raises(Refused, match="quota"):
        desk.publish()
    [warned] = [event for event in desk.recorder.events if isinstance(event, Warned)]
    assert "no permission to delete" in warned.text
    assert "gc" in str(warned.hint)
    desk.publish()


def test_a_disk_of_half_a_gib(desk: Desk) -> None:
    """A disk that no cloud could hold is refused before anything is asked."""
    odd = RawImage(desk.raw.path, desk.raw.size // 2, desk.raw.digest, desk.raw.kernel, desk.raw.rofs, (), BOOT)
    with pytest.raises(DiskInvalid, match="whole GiB"):
        desk.publish(odd)
    assert desk.place.faults.calls == []


# ------------------------------------------------------------------------------------------------------- releases


def test_a_release_is_one_block(desk: Desk) -> None:
    """A release's disk is its image's with block 0 changed, and in that the command line alone."""
    published = desk.publish()
    release = desk.release(published)

    assert (release.blocks, release.blocks_sent) == (1, 1)
    assert set(desk.place.snapshots.written(release.disk or "")) == {0}
    image_blocks = desk.place.snapshots.blocks(published.disk or "")
    release_blocks = desk.place.snapshots.blocks(release.disk or "")
    assert {index for index in image_blocks if image_blocks[index] != release_blocks[index]} == {0}
    line = release_blocks[0][COMMAND_LINE_OFFSET:].partition(b"\0")[0]
    assert ("LEVEL", "debug") in decode(line).environment
    assert release_blocks[0][:COMMAND_LINE_OFFSET] == image_blocks[0][:COMMAND_LINE_OFFSET]


def test_a_release_twice_is_once(desk: Desk) -> None:
    """The second run finds it; another configuration is another release on the same image."""
    published = desk.publish()
    first = desk.release(published)
    second = desk.release(published)
    third = desk.release(published, "warning")
    assert second.reused
    assert second.image == first.image
    assert third.image.id != first.image.id
    assert desk.left() == (3, 3)


def test_a_release_without_its_images_disk(desk: Desk) -> None:
    """Where the image stands on a disk that is not there, the error says which, and nothing is made."""
    published = desk.publish()
    desk.place.snapshots.lose(published.disk or "")
    with pytest.raises(NotFound, match=published.disk):
        desk.release(published)
    assert desk.left() == (0, 1)


@pytest.mark.parametrize("operation", ["snapshots.start", "snapshots.put", "snapshots.complete", "images.register"])
@pytest.mark.parametrize("error", [Refused("quota"), Unavailable("no answer"), Killed()])
def test_a_release_that_failed(desk: Desk, operation: str, error: BaseException) -> None:
    """Its image is never touched, and the next run ends with one release."""
    published = desk.publish()
    desk.place.faults.fail(operation, error, after=operation != "snapshots.start")
    with pytest.raises(type(error)):
        desk.release(published)
    if isinstance(error, OsvDeployError) and isinstance(error, Refused):
        assert desk.left() == (1, 1)
    desk.release(published)
    assert desk.left() == (2, 2)
