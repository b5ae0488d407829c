"""Every request of our client to Compute Engine is one that google-cloud-compute could have sent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from osvdeploy.rollout.model import Outcome
from tests.contract import gcp_place
from tests.gcp_world import GcpWorld
from tests.google_types import Judge, Unfit, _snake
from tests.world import BAD

pytestmark = [pytest.mark.slow, pytest.mark.sandbox]

ROOT = "https://compute.googleapis.com/compute/v1/projects/p"
IMAGE = {"name": "a", "rawDisk": {"source": "https://storage.googleapis.com/b/a.tar.gz", "containerType": "TAR"}}


@pytest.mark.parametrize(
    ("verb", "path", "body", "told"),
    [
        ("POST", "global/images", {**IMAGE, "architecure": "X86_64"}, 'no field named "architecure"'),
        ("POST", "global/images", {**IMAGE, "name": 1}, "name"),
        ("POST", "global/images", {**IMAGE, "labels": ["a"]}, "labels"),
        ("POST", "global/images", {**IMAGE, "rawDisk": {"sorce": ""}}, "sorce"),
        ("POST", "global/images?requestID=1", IMAGE, "requestID"),
        ("POST", "zones/z/instanceGroupManagers/g/resize?size=two", None, "size"),
        ("DELETE", "global/images/a", {}, "takes no body"),
        ("POST", "global/images/a/deprecated", {}, "no method"),
        ("PUT", "global/images/a", {}, "no method"),
        ("GET", "global/pictures", None, "no method"),
    ],
)
def test_what_googles_client_could_not_send_is_told(verb: str, path: str, body: object, told: str) -> None:
    """Fields, values, addresses and verbs that there are not."""
    with pytest.raises(Unfit, match=told):
        Judge().hold(verb, f"{ROOT}/{path}", None if body is None else json.dumps(body).encode() + b" ")


def test_each_request_from_the_first_deploy_to_nothing_left_is_fit(tmp_path: Path) -> None:
    """Good and bad releases, a rollback, a sweep and the end: each that the simulator was asked by our client was
    judged, and as the method that it took it for."""
    world = GcpWorld(tmp_path)
    first = world.sandbox.calls()[-1].number
    judge = gcp_place.judge
    assert judge is not None
    assert world.deploy(world.build("1.0.0")).outcome is Outcome.SUCCEEDED
    assert world.deploy(world.build("1.1.0")).outcome is Outcome.SUCCEEDED
    assert world.deploy(world.build("1.2.0", BAD)).outcome is Outcome.ROLLED_BACK
    assert world.rollback().outcome is Outcome.SUCCEEDED
    here = world.process()
    here.manager.destroy(here.ctx)
    world.gc()
    asked = [call.operation for call in world.sandbox.calls(first) if call.service == "compute"]
    told = [".".join(_snake(word) for word in operation.split(".")) for operation in asked]
    assert {name: told.count(name) for name in set(told)} == judge.seen
    assert len(judge.seen) >= 25, sorted(judge.seen)
