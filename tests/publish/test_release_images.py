"""Images of releases, made without a spec, in memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from osvdeploy.api import services
from osvdeploy.api.declared import labels_of
from osvdeploy.api.release_images import AppImage, ReleaseOn, keep_published, on_disks, variables_of
from osvdeploy.cloud import tags
from osvdeploy.cloud.interfaces import CloudImage, ReleaseId
from osvdeploy.cloud.memory import MemoryCloud
from osvdeploy.cloud.memory.world import Template
from osvdeploy.context import Context, VirtualClock
from osvdeploy.osv.cmdline import encode
from osvdeploy.osv.disk import with_line
from osvdeploy.publish.publisher import Published
from osvdeploy.rollout.ledger import Head, Ledger
from tests.publish.disk import BLOCK, BOOT, raw_disk

CTX = Context(clock=VirtualClock())


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MemoryCloud:
    monkeypatch.setenv("OSVDEPLOY_STATE", str(tmp_path / "state"))
    return MemoryCloud(CTX.clock)


def made(memory: MemoryCloud, folder: Path, variables: dict[str, str]) -> tuple[Published, Published]:
    raw = raw_disk(folder / "disk.raw")
    with raw.path.open("r+b") as file:
        block = file.read(BLOCK)
        file.seek(0)
        file.write(with_line(block, encode(BOOT)))
    image = AppImage("orders", "1.0.0", {"team": "a"}, {tags.BELOW: "releases"})
    release = ReleaseOn(variables, labels_of("orders", "1.0.0", raw.digest, variables))
    return on_disks(CTX, raw, image, release, memory.cloud, None)


def found(memory: MemoryCloud, image: CloudImage) -> CloudImage:
    there = memory.images.get(CTX, image.id)
    assert there is not None
    return there


def test_the_image_below_alone_is_marked(memory: MemoryCloud, tmp_path: Path) -> None:
    """Until somebody publishes it for itself; the user's tags are on both."""
    below, above = made(memory, tmp_path, {"A": "1"})
    assert tags.BELOW in below.image.tags and tags.BELOW not in above.image.tags
    assert (below.image.tags["team"], above.image.tags["team"]) == ("a", "a")
    keep_published(CTX, below, memory.images)
    assert tags.BELOW not in found(memory, below.image).tags
    calls = len(memory.faults.log)
    keep_published(CTX, above, memory.images)
    assert len(memory.faults.log) == calls, "there is nothing to take away"


def test_a_retired_image_stays_while_another_service_has_a_template(memory: MemoryCloud, tmp_path: Path) -> None:
    """Whose ledger is not known here. Without one it goes, with the image under it and both disks."""
    below, above = made(memory, tmp_path, {"A": "1"})
    memory.images.retag(CTX, above.image.id, {tags.RETIRED: CTX.now().isoformat()})
    CTX.sleep(7200)
    ledger = Ledger(memory.store, "orders", "production")
    head = Head(service=ledger.service, n=1, epoch=1, nonce="a", written=CTX.now(), why="a test")
    release = ReleaseId(above.image.tags[tags.RELEASE])
    theirs = {**above.image.tags, tags.SERVICE: "orders/staging"}
    memory.world.templates["osvd-1"] = Template("osvd-1", above.image.id, release, theirs)
    assert services._find_garbage(CTX, ledger, memory.cloud, head, 0).empty
    del memory.world.templates["osvd-1"]
    garbage = services._find_garbage(CTX, ledger, memory.cloud, head, 0)
    assert {image.id for image, _ in garbage.images} == {below.image.id, above.image.id}
    assert {disk.id for disk, _ in garbage.disks} == {below.disk, above.disk}


def test_a_disk_tells_the_variables(memory: MemoryCloud, tmp_path: Path) -> None:
    """Those that the image under it has not, also in place of its own; not one that says again what that says, nor
    any where that is gone."""
    name, value = BOOT.environment[0]
    variables = {"A": "1", "B": "", name: f"{value}!"}
    _, above = made(memory, tmp_path, dict(sorted(variables.items())))
    assert variables_of(CTX, above.image, memory.cloud) == variables
    _, plain = made(memory, tmp_path, {})
    assert variables_of(CTX, plain.image, memory.cloud) == {}
    below, again = made(memory, tmp_path, {name: value})
    assert variables_of(CTX, again.image, memory.cloud) is None
    memory.images.deregister(CTX, below.image.id)
    assert variables_of(CTX, above.image, memory.cloud) is None
