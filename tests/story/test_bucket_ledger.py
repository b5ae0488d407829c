"""The ledger in a bucket: the same story, with nothing on anybody's disk; and what gc finds in one."""

from __future__ import annotations

from pathlib import Path

import pytest

from osvdeploy.api import services, wiring
from osvdeploy.api.declared import Service
from osvdeploy.cloud.aws import Aws
from osvdeploy.cloud.aws.objects import S3Store
from osvdeploy.cloud.gcp.objects import GcsStore
from osvdeploy.cloud.gcp.session import Gcp
from osvdeploy.cloud.interfaces import ObjectStore
from osvdeploy.digests import sha256
from osvdeploy.errors import Interrupted
from osvdeploy.events import Warned
from osvdeploy.rollout.ledger import Ledger
from osvdeploy.rollout.model import Outcome
from osvdeploy.sandbox.google import inprocess
from tests.aws_world import REGION, AwsWorld
from tests.sources import Made
from tests.world import BAD

pytestmark = pytest.mark.slow


class BucketWorld(AwsWorld):
    """An account whose service keeps its ledger in S3."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        s3 = self.session.client("s3")
        s3.create_bucket(Bucket="acme", CreateBucketConfiguration={"LocationConstraint": REGION})

    @property
    def ledger(self) -> Ledger:
        return Ledger(S3Store("s3://acme/releases", Aws(REGION, self.session)), "hello", "production")

    @property
    def documents(self) -> list[str]:
        """What the bucket holds."""
        return self.sandbox.inventory()["s3.object/acme"]


class GoogleWorld(AwsWorld):
    """An account on AWS whose service keeps its ledger in Google Cloud Storage."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.google = inprocess.connect(self.sandbox, self.clock)
        url = "https://storage.googleapis.com/storage/v1/b?project=p"
        assert self.google.post(url, json={"name": "acme"}).ok

    @property
    def ledger(self) -> Ledger:
        gcp = Gcp(storage="https://storage.googleapis.com", session=self.google)
        return Ledger(GcsStore("gs://acme/releases", gcp), "hello", "production")

    @property
    def documents(self) -> list[str]:
        return self.sandbox.inventory()["storage.object/acme"]


@pytest.mark.parametrize("kind", [BucketWorld, GoogleWorld])
def test_blue_green_and_back_by_a_ledger_in_a_bucket(
    tmp_path: Path, kind: type[BucketWorld] | type[GoogleWorld]
) -> None:
    """Good, bad, back: each step is an object, each made once, and the newest lists first."""
    world = kind(tmp_path)
    first, second = world.build("1.0.0"), world.build("1.1.0")
    assert world.deploy(world.build("1.0.0")).outcome is Outcome.SUCCEEDED
    assert world.deploy(world.build("1.1.0")).outcome is Outcome.SUCCEEDED
    assert world.answer().headers["x-release"] == second.id
    assert world.deploy(world.build("1.2.0", BAD)).exit_code == 3
    assert world.rollback().outcome is Outcome.SUCCEEDED
    assert world.answer().headers["x-release"] == first.id

    here = world.process()
    heads = list(world.ledger.heads(here.ctx))
    assert [head.n for head in heads] == list(range(len(heads), 0, -1))
    assert {release.id for release in world.ledger.releases(here.ctx)} >= {first.id, second.id}
    assert not (tmp_path / "ledger").exists()
    puts = [call for call in world.sandbox.calls() if call.operation in ("PutObject", "objects.insert")]
    assert len(puts) == len(world.documents)


def test_gc_takes_what_was_left_in_a_bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The app's own objects and uploads, where its images say they came through, or where the spec does. What lies
    beside them, as a ledger may, is another's."""
    world = BucketWorld(tmp_path)
    assert world.deploy(world.build("1.0.0")).outcome is Outcome.SUCCEEDED
    here = world.process()

    def opened(address: str) -> ObjectStore:
        return S3Store(address, Aws(REGION, world.session))

    monkeypatch.setattr(wiring, "open_store", opened)
    monkeypatch.setattr(wiring, "connect", lambda *_: here.cloud)
    store = opened("s3://acme/osvdeploy")
    old, half = (f"{sha256(name)}.vmdk" for name in (b"old", b"half"))
    others = [f"disks/hello/{name}" for name in ("head/000000000001.json", "old.vmdk")]
    others.append(f"disks/orders/{old}")
    for key in (f"disks/hello/{old}", *others):
        store.put_if_absent(here.ctx, key, b"disk")

    def stop(at: int) -> None:
        if at > 11 << 20:
            raise Interrupted("killed")

    with pytest.raises(Interrupted):
        store.put_file(here.ctx, f"disks/hello/{half}", Made("half", 12 << 20, before=stop))
    service = Service("hello", "production", "s3://acme/releases")
    # Its images came block by block: no bucket is theirs.
    assert services.gc(here.ctx, service, dry_run=True).empty
    world.wait(2 * 3600)
    found = services.gc(here.ctx, service, buckets={"aws": "acme"}, dry_run=True)
    assert [each.key for _, each, _ in found.objects] == [f"disks/hello/{old}"]
    assert found.uploads == ()
    world.wait(24 * 3600)
    found = services.gc(here.ctx, service, buckets={"aws": "acme"})
    assert [each.key for _, each, _ in found.uploads] == [f"disks/hello/{half}"]
    assert list(store.keys(here.ctx, "")) == others
    assert store.unfinished(here.ctx, "") == []
    # A bucket that is gone is told of, and ends nothing.
    told = len(world.recorder.events)
    assert services.gc(here.ctx, service, buckets={"aws": "acme-of-old"}, dry_run=True).objects == ()
    assert any("acme-of-old" in event.text for event in world.recorder.events[told:] if isinstance(event, Warned))
