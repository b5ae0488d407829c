"""Publishing, killed or refused at every single call it makes.

Killed: the next run converges, with one disk and one image, whatever the journal remembers. Refused: nothing is left.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from osvdeploy.cloud.interfaces import Cloud
from osvdeploy.errors import Refused
from osvdeploy.publish.journal import Journal
from osvdeploy.publish.publisher import publish_image
from tests.faults.orders import RELEASE, PublishRun, at_each_call, release_on
from tests.faults.venues import Killed, venues

pytestmark = pytest.mark.slow


class Run(PublishRun):
    """Publishes one image and one release on it, as one command of a user does."""

    def __call__(self, cloud: Cloud, state: str = "state") -> None:
        ctx, journal = self.venue.ctx, Journal(self.folder / state)
        image = publish_image(ctx, self.raw, app="orders", version="1.0.0", tags={}, cloud=cloud, journal=journal).image
        release_on(self.venue, self.raw, image, cloud, journal)

    def check(self) -> None:
        """One disk and one image of each, and every byte where it belongs."""
        cloud, ctx = self.venue.connect(), self.venue.ctx
        disks = {disk.name: disk for disk in cloud.snapshots.owned(ctx, {})}
        images = {image.name: image for image in cloud.images.owned(ctx, {})}
        assert len(cloud.snapshots.owned(ctx, {})) == len(cloud.images.owned(ctx, {})) == 2
        assert set(disks) == set(images) == {"orders-1.0.0", RELEASE}
        assert images["orders-1.0.0"].disk == disks["orders-1.0.0"].id
        assert images[RELEASE].disk == disks[RELEASE].id
        blocks = self.venue.read(disks["orders-1.0.0"].id)
        with self.raw.path.open("rb") as file:
            assert blocks == {index: file.read(self.venue.block_size) for index in range(3)}
        assert {index for index, data in self.venue.read(disks[RELEASE].id).items() if data != blocks[index]} == {0}


everywhere = pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.slow if kind == "aws" else ()) for kind in venues]
)


@everywhere
@pytest.mark.parametrize(("after", "memory"), [(False, "journal kept"), (True, "journal kept"), (True, "journal lost")])
def test_killed_at_any_call(tmp_path: Path, kind: str, after: bool, memory: str) -> None:
    """Whichever call is the last thing a process did, before or after it took effect, the next run converges."""
    for number, run in at_each_call(Run, tmp_path, kind):
        venue = run.venue
        with pytest.raises(Killed):
            run(venue.connect(kill=number, after=after), f"state-{number}")

        run(venue.connect(), f"state-{number}" if memory == "journal kept" else f"other-{number}")

        run.check()


@dataclass(frozen=True)
class Trouble:
    """One run that goes wrong: ``call`` is refused, then ``kill`` is the last one of the process."""

    refuse: int | None
    kill: int | None
    after: bool


TROUBLES = st.builds(
    Trouble,
    refuse=st.none() | st.integers(1, 20),
    kill=st.none() | st.integers(1, 20),
    after=st.booleans(),
)


@settings(max_examples=25, deadline=None)
@given(st.lists(TROUBLES, max_size=4))
def test_any_run_of_bad_luck(troubles: list[Trouble]) -> None:
    """Refused and killed again and again, also while cleaning up after a refusal, it converges once it is let."""
    with tempfile.TemporaryDirectory() as folder:
        venue = venues["memory"]()
        run = Run(Path(folder), venue)
        for trouble in troubles:
            try:
                run(venue.connect(kill=trouble.kill, after=trouble.after, refuse=trouble.refuse))
            except (Killed, Refused):
                pass
        run(venue.connect())
        run.check()


@everywhere
def test_refused_at_any_call(tmp_path: Path, kind: str) -> None:
    """Whichever call is refused, what the step made is gone; and once the cause is, the same command works."""
    for number, run in at_each_call(Run, tmp_path, kind):
        venue = run.venue
        with pytest.raises(Refused, match="not allowed"):
            run(venue.connect(refuse=number), f"state-{number}")
        # The image stands where it was the release that was refused; a half-made one never does.
        assert run.left() in (0, 2)

        run(venue.connect(), f"state-{number}")

        run.check()
