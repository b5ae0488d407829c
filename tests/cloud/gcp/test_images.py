"""Images on Google, beside what every registry promises: lost answers, what came to nothing, names, families."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osvdeploy.cloud.gcp.images import GceImages, image_name
from osvdeploy.cloud.gcp.machines import GceMachineType, GceMachineTypes
from osvdeploy.cloud.interfaces import ImageUser, UploadedDisk
from osvdeploy.cloud.tags import image_tags
from osvdeploy.context import CancelToken, Context, VirtualClock
from osvdeploy.errors import ImageNameTaken, Interrupted, NotFound, NotOurs, Refused, Unavailable
from osvdeploy.events import CloudCall, Recorder
from osvdeploy.sandbox.faults import Fault, FaultKind
from osvdeploy.sizes import MIB
from tests.cloud.gcp.script import Script
from tests.contract.disks import APP, DIGEST, image_request
from tests.contract.gcp_place import COMPUTE, PROJECT, GcpSandbox
from tests.contract.registries import archive

IMAGES = f"{COMPUTE}/compute/v1/projects/{PROJECT}/global/images"


@pytest.fixture
def account() -> GcpSandbox:
    return GcpSandbox()


def disk(account: GcpSandbox, name: str = "orders-1.0.0", content: bytes | None = None) -> UploadedDisk:
    key = f"{name}.tar.gz"
    account.store().put_if_absent(account.ctx, key, archive() if content is None else content)
    return UploadedDisk(f"gs://acme/{key}", name, DIGEST, 1, image_tags(APP, "1.0.0", DIGEST))


def operations(account: GcpSandbox) -> list[dict[str, Any]]:
    found = account.session().get(f"{COMPUTE}/compute/v1/projects/{PROJECT}/global/operations").json()
    items: list[dict[str, Any]] = found.get("items", [])
    return items


def shown(account: GcpSandbox, name: str = "orders-1-0-0") -> dict[str, Any]:
    found: dict[str, Any] = account.session().get(f"{IMAGES}/{name}").json()
    return found


def test_an_image_claims_nothing_that_osv_does_not_drive(account: GcpSandbox) -> None:
    """No gVNIC, no UEFI; its architecture, and the place that was asked for."""
    images = GceImages(account.gcp(), storage_location="europe-west1")
    made = images.register(account.ctx, image_request(disk(account)))
    image = shown(account)
    assert "guestOsFeatures" not in image
    assert (image["architecture"], image["storageLocations"]) == ("X86_64", ["europe-west1"])
    assert (made.id, made.created is not None) == (f"projects/{PROJECT}/global/images/orders-1-0-0", True)
    assert "family" not in image


@pytest.mark.parametrize("kind", [FaultKind.AFTER, FaultKind.HANG_AFTER, FaultKind.BEFORE, FaultKind.BROKEN])
def test_a_lost_answer_makes_no_second_image(account: GcpSandbox, kind: FaultKind) -> None:
    """The request is sent again, under the same id."""
    account.sandbox.faults.add(Fault("images.insert", kind))
    GceImages(account.gcp()).register(account.ctx, image_request(disk(account)))
    assert [each["operationType"] for each in operations(account)] == ["insert"]


def test_another_process_waits_for_the_same_image(account: GcpSandbox) -> None:
    """One that was interrupted, or is still at work, has begun it: nothing is begun twice."""
    request, cancel = image_request(disk(account)), CancelToken()
    events = Recorder()

    def stop_when_asked(event: object) -> None:
        events(event)  # type: ignore[arg-type]
        if isinstance(event, CloudCall) and event.operation == "images.insert":
            cancel.cancel()

    ctx = Context(clock=account.clock, cancel=cancel, reporter=stop_when_asked)
    with pytest.raises(Interrupted):
        GceImages(account.gcp()).register(ctx, request)
    assert shown(account)["status"] == "PENDING"
    found = GceImages(account.gcp()).register(account.ctx, request)
    assert found.digest == DIGEST
    assert GceImages(account.gcp()).find(account.ctx, "orders-1.0.0") == found
    assert len(operations(account)) == 1


def test_a_wait_that_ends_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Google goes on, and the next run finds what it made."""
    monkeypatch.setattr("osvdeploy.cloud.gcp.images.LONGEST_WAIT", 60.0)
    slow = GcpSandbox(speed=0.2)
    request = image_request(disk(slow))
    with pytest.raises(Unavailable, match="still under way") as raised:
        GceImages(slow.gcp()).register(slow.ctx, request)
    assert raised.value.hint is not None and "goes on by itself" in raised.value.hint
    made = GceImages(slow.gcp()).find(slow.ctx, "orders-1.0.0")
    assert made is not None
    assert len(operations(slow)) == 1


def test_what_came_to_nothing_is_begun_anew(account: GcpSandbox) -> None:
    """A request id repeats its failure for ever, so the next run asks under another one."""
    request = image_request(disk(account, content=b"no archive"))
    with pytest.raises(Refused, match="The tar archive is not a valid image"):
        GceImages(account.gcp()).register(account.ctx, request)
    account.store().delete(account.ctx, "orders-1.0.0.tar.gz")
    disk(account)
    made = GceImages(account.gcp()).register(account.ctx, request)
    assert made.digest == DIGEST
    assert len(operations(account)) == 2


def test_an_image_that_was_deleted_is_made_anew(account: GcpSandbox) -> None:
    """Within the time that its request id is known, as after it."""
    images, request = GceImages(account.gcp()), image_request(disk(account))
    ids = set()
    for _ in range(3):
        made = images.register(account.ctx, request)
        ids.add(shown(account)["id"])
        images.deregister(account.ctx, made.id)
        assert images.find(account.ctx, "orders-1.0.0") is None
    assert len(ids) == 3


def test_deleting_waits_for_what_is_being_made(account: GcpSandbox) -> None:
    """And takes it away."""
    request, cancel = image_request(disk(account)), CancelToken()
    images = GceImages(account.gcp())

    def stop_when_asked(event: object) -> None:
        if isinstance(event, CloudCall) and event.operation == "images.insert":
            cancel.cancel()

    with pytest.raises(Interrupted):
        images.register(Context(clock=account.clock, cancel=cancel, reporter=stop_when_asked), request)
    images.deregister(account.ctx, f"projects/{PROJECT}/global/images/orders-1-0-0")
    assert shown(account)["error"]["code"] == 404


def test_two_versions_that_google_cannot_tell_apart_are_told(account: GcpSandbox) -> None:
    """With both names, before anything is made."""
    images = GceImages(account.gcp())
    images.register(account.ctx, image_request(disk(account)))
    with pytest.raises(Refused, match=r"orders-1-0-0, and so is orders-1\.0\.0"):
        images.find(account.ctx, "orders-1.0-0")


def test_an_archive_that_may_not_be_read_is_told(account: GcpSandbox) -> None:
    """In Google's words."""
    request = image_request(replace(disk(account), id="gs://acme/none.tar.gz"))
    with pytest.raises(Refused, match=r"Required 'read' permission for 'rawDisk\.source'"):
        GceImages(account.gcp()).register(account.ctx, request)
    with pytest.raises(Refused, match="no object in Cloud Storage"):
        GceImages(account.gcp()).register(account.ctx, image_request(replace(disk(account), id="/tmp/a")))


def failed(mine: bool) -> bytes:
    labels = {"osvdeploy": "1", "osvdeploy-name": "orders-1_2e0_2e0"} if mine else {}
    image = {"name": "orders-1-0-0", "id": "7", "status": "FAILED", "labels": labels, "selfLink": f"{IMAGES}/a"}
    return json.dumps(image).encode()


def test_an_image_that_failed_counts_as_none(account: GcpSandbox) -> None:
    """Where Google leaves one: it holds the name, so it is deleted before the next is made."""
    ctx = Context(clock=VirtualClock())
    assert GceImages(Script([(200, failed(mine=True))]).gcp()).find(ctx, "orders-1.0.0") is None
    with pytest.raises(NotOurs):
        GceImages(Script([(200, failed(mine=False))]).gcp()).find(ctx, "orders-1.0.0")
    taken = 409, b'{"error": {"code": 409, "errors": [{"reason": "alreadyExists"}]}}'
    done = 200, b'{"name": "o", "status": "DONE", "operationType": "delete"}'
    ready = 200, failed(mine=True).replace(b"FAILED", b"READY")
    script = Script([(200, failed(mine=True)), taken, (200, failed(mine=True)), done, ready])
    with pytest.raises(ImageNameTaken):  # the digest is not in its labels
        GceImages(script.gcp()).register(ctx, image_request(disk(account)))
    assert [request.method for request in script.asked] == ["GET", "POST", "GET", "DELETE", "GET"]


def test_changes_to_and_fro_within_an_hour_all_happen(account: GcpSandbox) -> None:
    """A request id that followed from the change alone would be taken for the one before."""
    images = GceImages(account.gcp())
    made = images.register(account.ctx, image_request(disk(account)))
    images.offer(account.ctx, made, "orders")
    for _ in range(3):
        images.withdraw(account.ctx, made)
        assert shown(account)["deprecated"] == {"state": "DEPRECATED"}
        images.restore(account.ctx, made)
        assert "deprecated" not in shown(account)


def test_every_change_carries_a_request_id(account: GcpSandbox) -> None:
    """So that its repetition after a lost answer is known for one."""
    images = GceImages(account.gcp())
    made = images.register(account.ctx, image_request(disk(account)))
    images.offer(account.ctx, made, "orders")
    images.withdraw(account.ctx, made)
    images.restore(account.ctx, made)
    images.deregister(account.ctx, made.id)
    asked = operations(account)
    assert [each["operationType"] for each in sorted(asked, key=lambda each: each["id"])] == [
        "insert",
        "patch",
        "deprecate",
        "deprecate",
        "delete",
    ]
    assert len({each["clientOperationId"] for each in asked}) == 5


@given(st.from_regex(r"[a-z][a-z0-9-]{0,39}-[0-9A-Za-z][0-9A-Za-z._-]{0,39}(-[0-9a-f]{8})?", fullmatch=True))
def test_a_name_is_one_that_google_takes(name: str) -> None:
    """Whatever app and version are called."""
    assert re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", image_name(name))


def test_long_names_differ_by_their_digest() -> None:
    """They are cut where the difference may be."""
    names = {image_name(f"{'a' * 40}-{'1' * 30}-{end}") for end in ("1a2b3c4d", "1a2b3c4e")}
    assert len(names) == 2
    assert image_name("orders-1.4.0") == "orders-1-4-0"


def test_a_machine_type_has_processors_and_memory(account: GcpSandbox) -> None:
    """As the zone tells; one that it does not have is None, and those that it has are listed."""
    machines = GceMachineTypes(account.gcp(), "europe-west1-b")
    assert machines.describe(account.ctx, "e2-small") == GceMachineType(2, 2048 * MIB, "x86_64")
    arm = machines.describe(account.ctx, "t2a-standard-1")
    assert arm is not None and arm.architecture == "aarch64"
    assert machines.describe(account.ctx, "e2-smal") is None
    assert "e2-small" in machines.names(account.ctx)
    of_region = GceMachineTypes(account.gcp(), "europe-west1")
    assert of_region.describe(account.ctx, "e2-small") == machines.describe(account.ctx, "e2-small")
    assert of_region.names(account.ctx) == machines.names(account.ctx)
    with pytest.raises(NotFound, match="nowhere"):
        GceMachineTypes(account.gcp(), "nowhere").names(account.ctx)


def test_what_was_begun_tells_its_own_end(account: GcpSandbox) -> None:
    """It is not begun again to learn why it failed."""
    images, request = GceImages(account.gcp()), image_request(disk(account, content=b"no archive"))
    images.begin(account.ctx, request)
    with pytest.raises(Refused, match="not a valid image"):
        images.register(account.ctx, request)
    assert len(operations(account)) == 1


def test_whoever_starts_machines_by_a_family_has_the_image_that_leads(account: GcpSandbox) -> None:
    """Where all that could lead would go, also by a template of one region; as long as another stays, that leads then.
    A family that leads to nothing any more is no image's."""
    images = GceImages(account.gcp())
    older = images.register(account.ctx, image_request(disk(account)))
    account.ctx.sleep(60)
    leads = images.register(account.ctx, image_request(disk(account, "orders-2.0.0"), "orders-2.0.0"))

    def template(place: str, name: str, family: str) -> None:
        boot = {"boot": True, "initializeParams": {"sourceImage": f"global/images/family/{family}"}}
        card = {"network": "global/networks/default"}
        properties = {"machineType": "e2-small", "disks": [boot], "networkInterfaces": [card]}
        url = f"{COMPUTE}/compute/v1/projects/{PROJECT}/{place}/instanceTemplates"
        assert account.session().post(url, json={"name": name, "properties": properties}).ok
        account.ctx.sleep(60)

    images.offer(account.ctx, older, "empty")
    template("global", "others", "empty")
    for image in (older, leads):
        images.offer(account.ctx, image, "orders")
    template("regions/europe-west1", "theirs", "orders")
    theirs = [ImageUser("instance template theirs", ours=False)]
    assert images.users(account.ctx, [older, leads]) == {leads.id: theirs}
    assert images.users(account.ctx, [leads]) == images.users(account.ctx, [older]) == {}
