"""The ledger in a bucket: the same story, with nothing on anybody's disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from osvdeploy.cloud.aws.objects import S3Store
from osvdeploy.cloud.gcp.objects import GcsStore
from osvdeploy.cloud.gcp.session import Gcp
from osvdeploy.rollout.ledger import Ledger
from osvdeploy.rollout.model import Outcome
from osvdeploy.sandbox.google import inprocess
from tests.aws_world import BAD, REGION, AwsWorld

pytestmark = pytest.mark.slow


class BucketWorld(AwsWorld):
    """An account whose service keeps its ledger in S3."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        s3 = self.session.client("s3")
        s3.create_bucket(Bucket="acme", CreateBucketConfiguration={"LocationConstraint": REGION})

    @property
    def ledger(self) -> Ledger:
        return Ledger(S3Store("s3://acme/releases", self.session), "hello", "production")

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
