"""aws.Ami, through the real process and against the sandbox."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import pytest

from osvdeploy.cloud import tags
from osvdeploy.cloud.interfaces import ReleaseId
from osvdeploy.cloud.local.store import DirectoryStore
from osvdeploy.context import Context
from osvdeploy.provider.values import UNKNOWN, Secret, Value
from osvdeploy.rollout.ledger import Head, Ledger, Served
from tests.pulumi.clouds import Clouds, clouds
from tests.pulumi.lifecycle import NOTHING, lives_a_whole_life
from tests.pulumi.process import Failed, urn_of
from tests.rollout.made import NOW

pytestmark = [pytest.mark.slow, pytest.mark.sandbox]

AMI = "osvdeploy:aws:Ami"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clouds]:
    """One sandbox for all tests; each has a name or version of its own."""
    with clouds(tmp_path_factory.mktemp("aws")) as world:
        yield world


def tags_of(image: dict[str, list[dict[str, str]]]) -> dict[str, str]:
    return {each["Key"]: each["Value"] for each in image["Tags"]}


def test_life(world: Clouds) -> None:
    """An Ami lives a whole life, and imports by its id; nothing is left of it."""
    before = world.snapshots()
    disk = world.disk("1.0.0")
    lives_a_whole_life(
        world.provider,
        AMI,
        {"disk": disk, "env": {"A": "1"}, "tags": {"team": "a", "cost": "1"}},
        {"disk": disk, "env": {"A": "1"}, "tags": {"team": "b"}, "instanceTypes": ["t3.small"]},
    )
    assert world.amis(**{"tag:osvdeploy:version": "1.0.0"}) == {}
    assert world.snapshots() == before


def test_what_is_made_is_a_releases_image(world: Clouds) -> None:
    """Its tags say so, and name no service; its variables stand in its command line; its id is all that a deployment
    needs."""
    id, _, outputs = world.made(AMI, {"disk": world.disk("1.1.0"), "env": {"B": "2", "A": "1"}, "tags": {"team": "a"}})
    release = outputs["release"]
    assert isinstance(release, str) and release.startswith("app-1.1.0-")
    image = world.amis()[release]
    found = tags_of(image)
    assert (image["ImageId"], outputs["name"], found["team"]) == (id, release, "a")
    assert outputs["snapshotId"] == image["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
    expected = (outputs["digest"], outputs["imageDigest"], outputs["configuration"], release)
    assert tuple(found[key] for key in (tags.DIGEST, tags.IMAGE, tags.CONFIGURATION, tags.RELEASE)) == expected
    assert not {tags.SERVICE, tags.LEDGER, tags.RETIRED} & found.keys()
    assert found[tags.PROGRAMS] == outputs["claim"]
    assert tags_of(world.amis()["app-1.1.0"])[tags.BELOW] == "releases"
    # However a program puts it, the same variables are the same release.
    again, _, _ = world.made(AMI, {"disk": world.disk("1.1.0"), "env": {"A": "1", "B": "2"}})
    assert again == id


def test_a_preview_says_the_release(world: Clouds) -> None:
    """Where the disk is known; of one that is not, it says nothing that it does not know."""
    disk = world.disk("1.2.0")
    inputs, _ = world.provider.check(AMI, {"disk": disk})
    _, foreseen = world.provider.create(AMI, inputs, preview=True)
    assert isinstance(foreseen["release"], str) and foreseen["release"].startswith("app-1.2.0-")
    assert (foreseen["snapshotId"], foreseen["claim"]) == (UNKNOWN, UNKNOWN)
    for unknown in (UNKNOWN, {**disk, "digest": UNKNOWN}):
        inputs, failures = world.provider.check(AMI, {"disk": unknown, "env": {"A": UNKNOWN}})
        assert failures == []
        _, foreseen = world.provider.create(AMI, inputs, preview=True)
        assert (foreseen["release"], foreseen["digest"]) == (UNKNOWN, UNKNOWN)
    assert world.amis(name="app-1.2.0") == {}


def test_what_makes_another_image_replaces(world: Clouds) -> None:
    """Another disk, variables or region; what is said of the same disk otherwise does not."""
    disk = world.disk("1.3.0")
    id, inputs, outputs = world.made(AMI, {"disk": disk})

    def planned(**changed: Value) -> tuple[dict[str, str], list[str]]:
        news, failures = world.provider.check(AMI, {"disk": disk, **changed}, inputs)
        assert failures == []
        diffed = world.provider.diff(AMI, id, outputs, inputs, news)
        return dict(diffed.detailed), list(diffed.replaces)

    assert planned(disk={**disk, "path": "/elsewhere", "recipe": "{}"}) == ({}, [])
    assert planned(disk={**disk, "digest": "0" * 64})[0] == {"disk.digest": "UPDATE_REPLACE"}
    assert planned(disk={**disk, "version": "1.3.1"})[0] == {"disk.version": "UPDATE_REPLACE"}
    assert planned(disk=UNKNOWN)[0] == {"disk": "UPDATE_REPLACE"}
    assert planned(env={"A": "1"})[0] == {"env.A": "ADD_REPLACE"}
    assert planned(region="us-east-1")[0] == {"region": "UPDATE_REPLACE"}
    assert planned(tags={"a": "b"}) == ({"tags.a": "ADD"}, [])


def test_replaced_the_new_one_is_there_first(world: Clouds) -> None:
    """Created before the old one is deleted, on the same image of the app, which goes with the last."""
    disk = world.disk("1.4.0")
    old, old_inputs, old_outputs = world.made(AMI, {"disk": disk})
    new, inputs, outputs = world.made(AMI, {"disk": disk, "env": {"A": "1"}})
    world.provider.delete(AMI, old, old_outputs, old_inputs)
    assert set(world.amis(**{"tag:osvdeploy:version": "1.4.0"})) == {"app-1.4.0", outputs["release"]}
    world.provider.delete(AMI, new, outputs, inputs)
    assert world.amis(**{"tag:osvdeploy:version": "1.4.0"}) == {}


def test_what_another_has_too_stays(world: Clouds) -> None:
    """Two stacks with one release have one image: who is the last takes it away. And a resource that is replaced by
    itself, or whose first answer was lost, does not lose it either."""
    given: dict[str, Value] = {"disk": world.disk("1.5.0")}
    first, inputs, lost = world.made(AMI, given)
    again, _, outputs = world.made(AMI, given)
    theirs, their_inputs, their_outputs = world.made(AMI, given, urn=urn_of(AMI, "other"))
    assert first == again == theirs
    world.provider.delete(AMI, first, lost, inputs)
    assert world.provider.read(AMI, first, outputs, inputs)[0] == first
    world.provider.delete(AMI, first, outputs, inputs)
    assert world.provider.read(AMI, first, their_outputs, their_inputs)[0] == first
    world.provider.delete(AMI, theirs, their_outputs, their_inputs)
    assert world.amis(**{"tag:osvdeploy:version": "1.5.0"}) == {}


def test_what_is_needed_is_retired(world: Clouds) -> None:
    """A template of ours has it: it is marked, once and again, and taken up by who makes the same."""
    given: dict[str, Value] = {"disk": world.disk("1.6.0")}
    id, inputs, outputs = world.made(AMI, given)
    template = {
        "LaunchTemplateName": "osvd-1-6-0",
        "LaunchTemplateData": {"ImageId": id, "InstanceType": "t3.small"},
        "TagSpecifications": [
            {
                "ResourceType": "launch-template",
                "Tags": [{"Key": tags.SCHEMA, "Value": "1"}, {"Key": tags.RELEASE, "Value": outputs["release"]}],
            }
        ],
    }
    world.aws("ec2").create_launch_template(**template)
    release = str(outputs["release"])
    for _ in range(2):
        world.provider.delete(AMI, id, outputs, inputs)
        found = tags_of(world.amis()[release])
        assert tags.RETIRED in found and tags.PROGRAMS not in found
        assert tags.RETIRED in tags_of(world.amis()["app-1.6.0"]), "nothing else stands on it"
    again, _, outputs = world.made(AMI, given)
    found = tags_of(world.amis()[release])
    assert again == id and tags.RETIRED not in found and found[tags.PROGRAMS] == outputs["claim"]
    world.aws("ec2").delete_launch_template(LaunchTemplateName="osvd-1-6-0")
    world.provider.delete(AMI, id, outputs, inputs)
    assert release not in world.amis()


def test_what_a_ledger_may_go_back_to_is_retired(world: Clouds) -> None:
    """Though no machine runs it: `rollback` finds it. A ledger that cannot be asked may need it too."""
    id, inputs, outputs = world.made(AMI, {"disk": world.disk("1.12.0")})
    release = ReleaseId(str(outputs["release"]))
    ledger = Ledger(DirectoryStore(world.ledger), "app", "production")
    head = Head(
        service="app/production", n=1, epoch=1, nonce="a", written=NOW, why="served", served=(Served(release, NOW),)
    )
    ledger.write(Context(), head)
    world.provider.delete(AMI, id, outputs, inputs)
    assert tags.RETIRED in tags_of(world.amis()[release])
    ledger.write(Context(), replace(head, n=2, nonce="b", destroyed=True))
    (world.ledger / "app" / "staging" / "head").mkdir(parents=True)
    damaged = world.ledger / "app" / "staging" / "head" / "999999999998.json"
    damaged.write_text("{}")
    world.provider.delete(AMI, id, outputs, inputs)
    assert tags.RETIRED in tags_of(world.amis()[release])
    damaged.unlink()
    world.provider.delete(AMI, id, outputs, inputs)
    assert release not in world.amis()


def test_a_refresh_sees_what_became_of_it(world: Clouds) -> None:
    """Tags that somebody changed are drift, others' tags are none; what is gone is gone."""
    id, inputs, outputs = world.made(AMI, {"disk": world.disk("1.7.0"), "tags": {"team": "a", "cost": "1"}})
    ec2 = world.aws("ec2")
    ec2.create_tags(Resources=[id], Tags=[{"Key": "team", "Value": "z"}, {"Key": "policy", "Value": "x"}])
    ec2.delete_tags(Resources=[id], Tags=[{"Key": "cost"}])
    _, read, kept = world.provider.read(AMI, id, outputs, inputs)
    assert read["tags"] == {"team": "z"}
    planned = world.provider.diff(AMI, id, read, kept or inputs, inputs)
    assert planned.detailed == {"tags.team": "UPDATE", "tags.cost": "ADD"}
    updated = world.provider.update(AMI, id, read, inputs, inputs)
    assert world.provider.diff(AMI, id, updated, inputs, inputs) == NOTHING
    (there,) = ec2.describe_images(ImageIds=[id])["Images"]
    assert {"team": "a", "cost": "1", "policy": "x"}.items() <= tags_of(there).items()
    ec2.deregister_image(ImageId=id)
    assert world.provider.read(AMI, id, outputs, inputs)[0] == ""
    with pytest.raises(Failed, match="is not there any more"):
        world.provider.update(AMI, id, updated, inputs, inputs)
    world.provider.delete(AMI, id, outputs, inputs)


def test_import(world: Clouds) -> None:
    """With variables of its own, which its disk tells; where it cannot, as without the image under it, a program says
    those that it was made with, and no others."""
    id, _, _ = world.made(AMI, {"disk": world.disk("1.8.0"), "env": {"B": "2", "A": "1"}})
    below = world.amis()["app-1.8.0"]["ImageId"]
    _, state, told = world.provider.read(AMI, id)
    assert told is not None
    assert told["env"] == {"A": "1", "B": "2"}
    checked, _ = world.provider.check(AMI, told)
    assert world.provider.diff(AMI, id, state, told, checked) == NOTHING
    news, _ = world.provider.check(AMI, {**told, "tags": {"team": "a"}}, told)
    updated = world.provider.update(AMI, id, state, told, news)
    assert str(updated["claim"]) in tags_of(world.amis()[str(updated["release"])])[tags.PROGRAMS].split()
    with pytest.raises(Failed, match="is no release's image"):
        world.provider.read(AMI, below)
    assert world.provider.read(AMI, "ami-0123456789abcdef0")[0] == ""

    world.aws("ec2").deregister_image(ImageId=below)
    _, state, told = world.provider.read(AMI, id)
    assert told is not None and "env" not in told
    right, _ = world.provider.check(AMI, {**told, "env": {"B": "2", "A": "1"}})
    assert world.provider.diff(AMI, id, state, told, right) == NOTHING
    wrong, _ = world.provider.check(AMI, told)
    assert world.provider.diff(AMI, id, state, told, wrong).replaces == ["env"]


def test_what_is_wrong_is_told_at_its_property(world: Clouds) -> None:
    """Before anything is sent."""
    disk = world.disk("1.9.0")
    wrong: dict[str, Value] = {
        "disk": disk,
        "env": {"OSVDEPLOY_RELEASE": "x", "1A": "y"},
        "tags": {"aws:a": "b"},
    }
    _, failures = world.provider.check(AMI, wrong)
    assert {path for path, _ in failures} == {"env.OSVDEPLOY_RELEASE", 'env["1A"]', 'tags["aws:a"]'}
    _, failures = world.provider.check(AMI, {"disk": disk, "via": "s3"})
    assert [path for path, _ in failures] == ["bucket"]
    _, failures = world.provider.check(AMI, {"disk": disk, "instanceTypes": ["t3.small", "t4g.small"]})
    assert [path for path, _ in failures] == ["instanceTypes[1]"] and "architecture" in failures[0][1]
    inputs, failures = world.provider.check(AMI, {"disk": disk, "instanceTypes": ["t3.smal"]})
    assert failures == []
    with pytest.raises(Failed, match=r"instanceTypes\[0\]: t3.smal: .* has no machine type of that name"):
        world.provider.create(AMI, inputs)
    assert world.amis(name="app-1.9.0") == {}


def test_a_disk_that_is_not_sound_is_refused(world: Clouds) -> None:
    """By the rules that `publish` goes by, whatever it is to boot on."""
    spec = world.folder / "app" / "osv.toml"
    kept = spec.read_text()
    try:
        spec.write_text(kept.partition("[waive]")[0])
        inputs, _ = world.provider.check(AMI, {"disk": world.disk("1.9.1")})
        with pytest.raises(Failed, match=r"disk: /app: .*program-not-elf"):
            world.provider.create(AMI, inputs)
    finally:
        spec.write_text(kept)
    assert world.amis(name="app-1.9.1") == {}


def test_secrets_stay_secret(world: Clouds) -> None:
    """Variables may be secrets; they are in no other output, and in no tag."""
    id, inputs, outputs = world.made(AMI, {"disk": world.disk("1.10.0"), "env": {"TOKEN": Secret("hush-hush")}})
    assert outputs["env"] == {"TOKEN": Secret("hush-hush")}
    assert "hush-hush" not in str({**outputs, "env": None})
    assert "hush-hush" not in str(world.amis()[str(outputs["release"])])
    world.provider.delete(AMI, id, outputs, inputs)


def let_read(world: Clouds, bucket: str) -> None:
    """Make a bucket, and the role by which EC2 reads it."""
    s3, iam = world.aws("s3"), world.aws("iam")
    s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": s3.meta.region_name})
    trust = {
        "Effect": "Allow",
        "Principal": {"Service": "vmie.amazonaws.com"},
        "Action": "sts:AssumeRole",
        "Condition": {"StringEquals": {"sts:ExternalId": "vmimport"}},
    }
    reading = ["s3:GetBucketLocation", "s3:GetObject", "s3:ListBucket"]
    making = ["ec2:ModifySnapshotAttribute", "ec2:CopySnapshot", "ec2:RegisterImage", "ec2:Describe*"]
    allowed = [
        {"Effect": "Allow", "Action": reading, "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]},
        {"Effect": "Allow", "Action": making, "Resource": "*"},
    ]
    iam.create_role(RoleName="vmimport", AssumeRolePolicyDocument=_policy([trust]))
    iam.put_role_policy(RoleName="vmimport", PolicyName="disks", PolicyDocument=_policy(allowed))


def _policy(statements: Sequence[Mapping[str, object]]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": statements})


def test_through_a_bucket(world: Clouds) -> None:
    """As an object that EC2 imports, of which nothing stays in the bucket. The way is no part of what it is."""
    let_read(world, "acme-disks")
    disk = world.disk("1.11.0")
    id, inputs, outputs = world.made(AMI, {"disk": disk, "via": "s3", "bucket": "acme-disks"})
    assert "Contents" not in world.aws("s3").list_objects_v2(Bucket="acme-disks")
    news, _ = world.provider.check(AMI, {"disk": disk}, inputs)
    assert world.provider.diff(AMI, id, outputs, inputs, news).replaces == []
    world.provider.delete(AMI, id, outputs, inputs)
    assert world.amis(**{"tag:osvdeploy:version": "1.11.0"}) == {}
