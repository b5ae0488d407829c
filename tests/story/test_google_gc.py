"""What `osvdeploy gc` takes on Google, and what it leaves alone, over the simulated API."""

from __future__ import annotations

import pytest

from osvdeploy.cloud.gcp.images import GceImages
from osvdeploy.cloud.interfaces import ImageRequest, UploadedDisk
from osvdeploy.cloud.tags import RELEASE, STORE, image_tags
from osvdeploy.digests import sha256
from osvdeploy.errors import Interrupted, NotOurs, Refused
from osvdeploy.rollout.model import Outcome
from osvdeploy.sandbox.faults import Fault, FaultKind
from tests.contract.gcp_place import PROJECT
from tests.contract.gcp_scene import archive_of
from tests.gcp_world import GcpWorld
from tests.sandbox.volumes import volume
from tests.sources import Made
from tests.world import Prepared

pytestmark = [pytest.mark.slow, pytest.mark.sandbox]

HOUR = 3600.0
OLD, NEW = (sha256(name) for name in (b"old", b"new"))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Prepared[GcpWorld]:
    world = GcpWorld(tmp_path_factory.mktemp("served"))
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        assert world.deploy(world.build(version)).outcome is Outcome.SUCCEEDED
    return Prepared(world)


@pytest.fixture
def world(served: Prepared[GcpWorld]) -> GcpWorld:
    """1.0.0 and 1.1.0 served once, 1.2.0 serves."""
    return served.again()


@pytest.fixture(scope="module")
def taken_away(tmp_path_factory: pytest.TempPathFactory) -> Prepared[GcpWorld]:
    world = GcpWorld(tmp_path_factory.mktemp("gone"))
    assert world.deploy(world.build("1.0.0")).outcome is Outcome.SUCCEEDED
    here = world.process()
    here.manager.destroy(here.ctx)
    return Prepared(world)


@pytest.fixture
def gone(taken_away: Prepared[GcpWorld]) -> GcpWorld:
    """1.0.0 served, and all was taken away but its images: days pass quickly where no machine is asked how it is."""
    return taken_away.again()


def kinds(world: GcpWorld, kind: str) -> list[str]:
    return [path.rpartition("/")[2] for path in world.held().get(f"compute.{kind}", [])]


def test_what_no_release_needs_goes(world: GcpWorld) -> None:
    """A dry run tells of it, with bytes, and changes nothing; what serves stays, with what it stands on; a second sweep
    finds nothing."""
    world.wait(2 * HOUR)
    before = world.held()
    told = world.gc(keep=1, dry_run=True)
    assert world.held() == before
    assert told.size > 0 and all(image.size for image, _ in told.images)
    found = world.gc(keep=1)
    assert found == told
    names = {image.name[:11] for image, _ in found.images}
    assert names == {"hello-1.0.0", "hello-1.1.0"} and len(found.images) == 4
    assert len(found.templates) == 2 and len(found.groups) == 1
    world.wait(600)
    assert {name[:11] for name in kinds(world, "image")} == {"hello-1-2-0"}
    assert len(kinds(world, "instanceTemplate")) == len(kinds(world, "instanceGroupManager")) == 1
    assert world.answer().headers["x-osvdeploy-release"].startswith("hello-1.2.0-")
    assert world.gc(keep=1).empty


def test_what_is_warm_or_may_be_gone_back_to_stays(world: GcpWorld) -> None:
    """Warm for its hour, then for as long as it is among the newest."""
    assert not world.gc(keep=2).groups
    assert world.rollback().outcome is Outcome.SUCCEEDED
    world.wait(2 * HOUR)
    assert {image.name[:11] for image, _ in world.gc(keep=2).images} == {"hello-1.0.0"}
    assert world.rollback(world.build("1.2.0")).outcome is Outcome.SUCCEEDED


def test_what_others_made_stays(gone: GcpWorld) -> None:
    """Another's image, template and objects, another app's, and what lies in the bucket beside the app's disks."""
    bucket = gone.account.store("gs://acme/osvdeploy")
    theirs = ["disks/hello/head/000000000001.json", "disks/hello/notes", f"disks/orders/{OLD}.1/body"]
    for key in theirs:
        bucket.put_if_absent(gone.process().ctx, key, b"theirs")
    gone.account.put_foreign("hello-0-9-0", archive_of(volume({"/app": b"#!inline\n{}"})))
    instance_template(gone, "theirs", "hello-0-9-0")
    gone.wait(48 * HOUR)
    gone.gc()
    gone.wait(600)
    assert list(bucket.keys(gone.process().ctx, "disks/")) == sorted(theirs)
    assert "hello-0-9-0" in kinds(gone, "image") and "theirs" in kinds(gone, "instanceTemplate")
    with pytest.raises(NotOurs, match="something else made it"):
        GceImages(gone.account.gcp()).deregister(gone.process().ctx, "projects/sandbox/global/images/hello-0-9-0")


def instance_template(world: GcpWorld, name: str, image: str) -> None:
    """Somebody's own instance template, of an image or of what a family leads to."""
    card = {"network": "global/networks/default"}
    disk = {"boot": True, "initializeParams": {"sourceImage": f"global/images/{image}"}}
    properties = {"machineType": "e2-small", "disks": [disk], "networkInterfaces": [card]}
    world.network.make("global/instanceTemplates", name=name, properties=properties)


def test_what_others_start_machines_from_stays(world: GcpWorld) -> None:
    """A template of theirs, or a group of it, is told by its name, in a dry run too; what they let go of goes."""
    world.wait(2 * HOUR)
    held = next(each for each in kinds(world, "image") if each.startswith("hello-1-0-0-"))
    instance_template(world, "theirs", held)
    for dry_run in (True, False):
        found = world.gc(keep=1, dry_run=dry_run)
        assert {image.name[:11] for image, _ in found.images} == {"hello-1.1.0"}
        [kept] = found.kept
        assert kept.image.id.endswith(f"/{held}") and kept.users == ("instance template theirs",)
    world.wait(600)
    assert {name[:11] for name in kinds(world, "image")} == {"hello-1-0-0", "hello-1-2-0"}
    world.network.make(
        "regions/europe-west1/instanceGroupManagers",
        name="theirs",
        baseInstanceName="theirs",
        instanceTemplate=f"projects/{PROJECT}/global/instanceTemplates/theirs",
        targetSize=1,
    )
    [kept] = world.gc(keep=1).kept
    assert kept.users == ("instance group theirs in regions/europe-west1 (1 machines)",)
    world.network.ask("DELETE", "regions/europe-west1/instanceGroupManagers/theirs")
    world.wait(600)
    world.network.ask("DELETE", "global/instanceTemplates/theirs")
    assert len(world.gc(keep=1).images) == 2
    world.wait(600)
    assert {name[:11] for name in kinds(world, "image")} == {"hello-1-2-0"}


def test_a_family_that_others_start_machines_from_leads_to_something(gone: GcpWorld) -> None:
    """As long as one of its images stays, the others go; the last one does not."""
    images, here = GceImages(gone.account.gcp()), gone.process()
    ours = [each for each in images.owned(here.ctx, {}) if RELEASE in each.tags]
    images.offer(here.ctx, ours[0], "hello")
    instance_template(gone, "theirs", "family/hello")
    gone.wait(2 * HOUR)
    [kept] = gone.gc().kept
    assert (kept.image.id, kept.users) == (ours[0].id, ("instance template theirs",))
    gone.account.put_foreign("hello-other", archive_of(volume({"/app": b"#!inline\n{}"})))
    other = next(each for each in gone.network.ask("GET", "global/images")["items"] if each["name"] == "hello-other")
    gone.network.ask("PATCH", "global/images/hello-other", {"family": "hello"})
    assert other["status"] == "READY"
    found = gone.gc()
    assert found.kept == () and len(found.images) == 2


@pytest.mark.parametrize("kind", ["instanceTemplates", "instanceGroupManagers"])
def test_who_may_not_look_who_has_an_image_loses_none(world: GcpWorld, kind: str) -> None:
    """All else goes, and the permission that is missing is what the command ends with."""
    world.wait(2 * HOUR)
    held = next(each for each in kinds(world, "image") if each.startswith("hello-1-0-0-"))
    instance_template(world, "theirs", held)
    world.account.sandbox.faults.add(Fault(f"{kind}.aggregatedList", FaultKind.DENIED, times=2))
    found = world.gc(keep=1, dry_run=True)
    with pytest.raises(Refused, match=f"{kind}.aggregatedList"):
        world.gc(keep=1)
    assert found.images == () and len(found.templates) == 2 and len(found.groups) == 1
    assert len(found.kept) == 4 and all(f"allow {kind}.list" in each.why for each in found.kept)
    world.wait(600)
    assert len(kinds(world, "image")) == 6
    # Those of the release that serves, and theirs.
    assert len(kinds(world, "instanceTemplate")) == 2 and len(kinds(world, "instanceGroupManager")) == 1


def test_what_was_left_in_the_bucket_goes(gone: GcpWorld) -> None:
    """Objects after an hour, parts after a day; and nothing of a build that somebody may be at work on."""
    here = gone.process()
    store = gone.account.store("gs://acme/osvdeploy")
    for key in ("body", "hello-9.head", "hello-9.trailer", "hello-9.tar.gz"):
        store.put_if_absent(here.ctx, f"disks/hello/{OLD}.1/{key}", b"of old")
    store.put_if_absent(here.ctx, f"disks/hello/{NEW}.1/body", b"of old")

    def stop(at: int) -> None:
        if at > 11 << 20:
            raise Interrupted("killed")

    with pytest.raises(Interrupted):
        store.put_file(here.ctx, f"disks/hello/{OLD}.1/other", Made("half", 12 << 20, before=stop))
    gone.wait(2 * HOUR)
    # A run has found the body of old, and joins it now.
    store.put_if_absent(here.ctx, f"disks/hello/{NEW}.1/hello-9.head", b"now")
    found = gone.gc()
    assert {each.key for _, each, _ in found.objects} == {
        f"disks/hello/{OLD}.1/{key}" for key in ("body", "hello-9.head", "hello-9.trailer", "hello-9.tar.gz")
    }
    assert found.uploads == () and found.size >= 4 * len(b"of old")
    gone.wait(25 * HOUR)
    found = gone.gc()
    assert [upload.size for _, upload, _ in found.uploads] == [8 << 20]
    assert {each.key for _, each, _ in found.objects} == {
        f"disks/hello/{NEW}.1/{key}" for key in ("body", "hello-9.head")
    }
    assert "storage.object/acme" not in gone.held()


def test_an_archive_that_google_reads_stays(gone: GcpWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long that takes."""
    here, images = gone.process(), GceImages(gone.account.gcp())
    store = gone.account.store("gs://acme/osvdeploy")
    key = f"disks/hello/{OLD}.1/hello-9.tar.gz"
    store.put_if_absent(here.ctx, key, archive_of(volume({"/app": b"#!inline\n{}"})))
    gone.wait(2 * HOUR)
    labels = {**image_tags("hello", "9", OLD), STORE: store.address}
    images.begin(here.ctx, ImageRequest("hello-9", OLD, UploadedDisk(f"{store.address}/{key}", "9", OLD, 1), labels))
    assert gone.gc().objects == ()
    gone.wait(2 * HOUR)
    assert [each.key for _, each, _ in gone.gc().objects] == [key]
    assert images.find(here.ctx, "hello-9") is not None


def test_an_image_that_was_published_alone_is_not_ours_to_judge(gone: GcpWorld) -> None:
    """An environment's own, that nothing rolled out: others start machines from it, by its name or its family."""
    alone = gone.publish(gone.build("2.0.0"), ledger="")
    gone.wait(48 * HOUR)
    gone.gc()
    assert GceImages(gone.account.gcp()).find(gone.process().ctx, alone) is not None


def test_what_is_made_since_the_service_was_destroyed_may_be_of_a_deploy(gone: GcpWorld) -> None:
    """All else goes at once, and the new one is not waited for by who destroyed."""
    gone.gc()
    gone.wait(60)
    new = gone.build("2.0.0")
    gone.publish(new)
    gone.gc()
    gone.wait(600)
    assert {name[:11] for name in kinds(gone, "image")} == {"hello-2-0-0"}
    assert gone.deploy(new).outcome is Outcome.SUCCEEDED


def test_one_refusal_does_not_hinder_the_rest(world: GcpWorld) -> None:
    """It is told, and it is what the command ends with; the next one takes what was left."""
    world.wait(2 * HOUR)
    world.account.sandbox.faults.add(Fault("images.delete", FaultKind.DENIED))
    with pytest.raises(Refused):
        world.gc(keep=1)
    world.wait(600)
    assert len(kinds(world, "image")) == 3 and len(kinds(world, "instanceTemplate")) == 1
    world.gc(keep=1)
    world.wait(600)
    assert len(kinds(world, "image")) == 2
