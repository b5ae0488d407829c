"""The ledger in a bucket: the same story, with nothing on anybody's disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from osvdeploy.cloud.aws.objects import S3Store
from osvdeploy.rollout.ledger import Ledger
from osvdeploy.rollout.model import Outcome
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


def test_blue_green_and_back_by_a_ledger_in_s3(tmp_path: Path) -> None:
    """Good, bad, back: each step is an object, each made once, and the newest lists first."""
    world = BucketWorld(tmp_path)
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
    puts = [call for call in world.sandbox.calls() if call.operation == "PutObject"]
    assert len(puts) == len(world.sandbox.inventory()["s3.object/acme"])
