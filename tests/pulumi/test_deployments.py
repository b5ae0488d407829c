"""BlueGreenDeployment, getDeployment and getRelease, through the real process, on both clouds in the sandbox."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pulumi.runtime.proto import provider_pb2

from osvdeploy.cloud.local.store import DirectoryStore
from osvdeploy.cloud.tags import RETIRED
from osvdeploy.context import Context
from osvdeploy.provider.codec import decode, encode
from osvdeploy.provider.values import Value
from osvdeploy.rollout.ledger import Ledger
from osvdeploy.rollout.model import Stage
from tests.alive import until
from tests.pulumi.lifecycle import lives_a_whole_life
from tests.pulumi.places import Place, client, needs_loopback, on_aws, on_google
from tests.pulumi.process import PATIENCE, Failed, ProviderProcess, running, urn_of

pytestmark = [pytest.mark.slow, needs_loopback]


@pytest.fixture(scope="module", params=[on_aws, on_google], ids=["aws", "google"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with request.param(tmp_path_factory.mktemp("place")) as place:
        yield place


@pytest.fixture(scope="module")
def provider(place: Place) -> Iterator[ProviderProcess]:
    with running(place.folder, place.environ) as provider:
        yield provider


def test_life(provider: ProviderProcess, place: Place) -> None:
    """A deployment lives a whole life: created, imported by its id, another image in place, gone without a trace."""
    before = place.held()
    lives_a_whole_life(provider, place.token, place.given(place.image("1.0.0")), place.given(place.image("1.1.0")))
    assert place.held() == before


@pytest.mark.parametrize("place", [on_aws], ids=["aws"], indirect=True)
def test_failures(provider: ProviderProcess, place: Place) -> None:
    """A bad first release, a creation whose answer was lost, a time that is over, a hold that is forced, images and
    machines that are refused: what is told, and what stands afterwards."""
    token, before = place.token, place.held()
    good, better, bad = (place.image(version) for version in ("1.0.0", "1.1.0", "1.3.0"))

    def inputs(image: str, **changed: Value) -> dict[str, Value]:
        checked, failures = provider.check(token, place.given(image, **changed))
        assert failures == []
        return checked

    with pytest.raises(Failed, match="FAILED_PRECONDITION") as caught:
        provider.create(token, inputs(bad))
    left = caught.value.unfinished
    assert left is not None and left.id == f"hello/test@{place.ledger}"
    assert "HELLO_GREETING is not set" in left.reasons[0] and left.refresh_before_update
    state = decode(left.properties)
    assert state["status"] == "not-serving" and "activeRelease" not in state
    with pytest.raises(Failed, match=r"nothing serves: hello-1\.3\.0-") as caught:
        provider.read(token, left.id, state, inputs(bad))
    assert caught.value.unfinished is not None

    outputs = provider.update(token, left.id, state, inputs(bad), inputs(good))
    assert outputs["status"] == "serving" and place.serving() == outputs["activeRelease"]
    id, found = provider.create(token, inputs(good))
    assert (id, found["rolloutId"]) == (left.id, outputs["rolloutId"]), "the first one's work is found"

    with pytest.raises(Failed, match="DEADLINE_EXCEEDED") as caught:
        provider.update(token, id, found, inputs(good), inputs(better), timeout=0.3)
    late = caught.value
    if late.unfinished is not None:
        assert "next `up` goes on" in late.unfinished.reasons[0]
    outputs = provider.update(token, id, found, inputs(good), inputs(better))
    assert place.serving() == outputs["activeRelease"]

    assert place.run("rollback").code == 0
    _, read, _ = provider.read(token, id, outputs, inputs(better))
    assert (read["image"], read["activeImage"]) == (good, good)
    assert provider.diff(token, id, read, inputs(better), inputs(better)).changes == "DIFF_NONE"
    larger = inputs(better, capacity=2.0)
    planned = provider.diff(token, id, read, inputs(better), larger)
    assert planned.detailed == {"capacity": "UPDATE"}
    assert place.serving() == provider.update(token, id, read, inputs(better), larger)["activeRelease"]
    _, read, _ = provider.read(token, id, read, larger)
    assert (read["capacity"], read["activeImage"]) == (2.0, good)
    forced = inputs(better, forceRollout="now", capacity=2.0)
    assert provider.diff(token, id, read, larger, forced).detailed == {"image": "UPDATE", "forceRollout": "ADD"}
    outputs = provider.update(token, id, read, larger, forced)
    assert outputs["activeImage"] == better and "hold" not in outputs

    for refused, told in (
        (inputs(place.image("1.0.0", app="other"), capacity=2.0), "the image is one of other"),
        (inputs(better, capacity=2.0, instanceType="t3.large"), "on machines with another instanceType"),
        (inputs("ami-0123456789abcdef0"), "there is no such image"),
    ):
        for preview in (True, False):
            with pytest.raises(Failed, match="INVALID_ARGUMENT") as caught:
                provider.update(token, id, outputs, forced, refused, preview=preview)
            assert told in caught.value.message and caught.value.unfinished is None

    assert place.run("hold", "--why", "holidays").code == 0
    with pytest.raises(Failed, match=r"FAILED_PRECONDITION: hello/test: every release is held .*: holidays"):
        provider.update(token, id, outputs, forced, inputs(good, forceRollout="more"), preview=True)
    assert place.run("unhold").code == 0

    slot = outputs[str(outputs["activeSlot"])]
    assert isinstance(slot, dict)
    groups = client(place, "autoscaling")

    def resize(least: int, most: int) -> dict[str, Value]:
        """By hand; what is read then."""
        sizes = {"MinSize": least, "MaxSize": most, "DesiredCapacity": 3}
        groups.update_auto_scaling_group(AutoScalingGroupName=slot["group"], **sizes)
        return provider.read(token, id, outputs, forced)[1]

    read = resize(1, 3)
    assert provider.diff(token, id, read, forced, forced).changes == "DIFF_NONE", "what scales it says how many"
    read = resize(3, 3)
    assert provider.diff(token, id, read, forced, forced).detailed == {"capacity": "UPDATE"}
    provider.update(token, id, read, forced, forced)
    assert provider.read(token, id, outputs, forced)[1]["capacity"] == 2.0

    answer, failures = provider.invoke("osvdeploy:index:getDeployment", {"service": "hello/test"})
    assert failures == []
    assert (answer["activeImage"], answer["cloud"], answer["capacity"]) == (better, "aws", 2.0)
    answer, _ = provider.invoke("osvdeploy:index:getRelease", {"service": "hello/test", "release": "1.0.0"})
    assert (answer["image"], answer["serving"], answer["version"]) == (good, False, "1.0.0")
    with pytest.raises(Failed, match="is not deployed"):
        provider.invoke("osvdeploy:index:getDeployment", {"service": "hello/nowhere"})

    ec2 = client(place, "ec2")

    def images() -> set[str]:
        return {each["ImageId"] for each in ec2.describe_images(Owners=["self"])["Images"]}

    ec2.create_tags(Resources=[good, bad], Tags=[{"Key": RETIRED, "Value": "2030-01-01T00:00:00+00:00"}])
    # Somebody's own template has the one that serves no more.
    held = {"ImageId": good, "InstanceType": "t3.nano"}
    ec2.create_launch_template(LaunchTemplateName="theirs", LaunchTemplateData=held)
    there = images()
    away = place.ledger.rename(place.ledger.with_name("away"))
    for ask in (provider.read, provider.delete):
        with pytest.raises(Failed, match="its ledger is away: there is no directory"):
            ask(token, id, outputs, forced)
    away.rename(place.ledger)
    provider.delete(token, id, outputs, forced)
    assert provider.read(token, id, outputs, forced)[0] == "", "it is gone"
    assert there - images() == {bad}, "what a program has retired goes with the last that needed it"
    ec2.delete_launch_template(LaunchTemplateName="theirs")
    assert place.held() == before
    del place.images["hello", "1.3.0"]


@pytest.mark.parametrize("place", [on_aws], ids=["aws"], indirect=True)
def test_killed(provider: ProviderProcess, place: Place) -> None:
    """A provider that is killed in the middle leaves what the next one goes on with, whatever Pulumi has recorded: a
    creation that is asked for again finds the first one's rollout, and a read tells of it."""
    token, before = place.token, place.held()
    inputs, failures = provider.check(token, place.given(place.image("1.0.0"), strategy={"bake": "3s"}))
    assert failures == []
    ledger = Ledger(DirectoryStore(place.ledger), "hello", "test")

    def baking() -> bool:
        head = ledger.head(Context())
        return head is not None and head.unfinished is not None and head.unfinished.stage is Stage.BAKE

    with running(place.folder, place.environ) as dying:
        request = provider_pb2.CreateRequest(urn=urn_of(token), properties=encode(inputs))
        asked = dying.stub.Create.future(request, timeout=PATIENCE)
        until(baking, PATIENCE)
        dying.process.kill()
        assert asked.exception() is not None
    id = f"hello/test@{place.ledger}"
    with pytest.raises(Failed, match="was left in stage bake"):
        provider.read(token, id)
    begun = ledger.head(Context())
    made, outputs = provider.create(token, inputs)
    assert begun is not None and begun.run is not None
    assert (made, outputs["rolloutId"]) == (id, begun.run.id)
    assert place.serving() == outputs["activeRelease"]
    provider.delete(token, id, outputs, inputs)
    assert place.held() == before
