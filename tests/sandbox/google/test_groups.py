"""Instance templates, managed groups and their machines in the sandbox, asked over Compute Engine's API in process."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pytest

from osvdeploy.sandbox.core import Sandbox
from osvdeploy.sandbox.faults import Fault, FaultKind
from osvdeploy.sandbox.google.compute import OPERATIONS
from osvdeploy.sandbox.google.discovery import api
from osvdeploy.sandbox.google.inprocess import connect
from osvdeploy.sandbox.runners.inline import InlineRunner
from tests.sandbox.google.fleet import REGION, ROOT, ZONE, Fleet, serving, template_body
from tests.sandbox.google.place import refused

pytestmark = pytest.mark.sandbox


@pytest.fixture
def fleet() -> Fleet:
    return serving()


def test_a_group_boots_its_machines_from_its_images_bytes(fleet: Fleet) -> None:
    """With a delay in each state; what the program says is on the serial port."""
    group = fleet.group(size=2, baseInstanceName="app")
    assert fleet.get(group)["status"]["isStable"] is False
    assert fleet.get(group)["currentActions"]["creating"] == 2
    found = fleet.stable(group)
    assert (found["targetSize"], found["currentActions"]["none"], found["kind"]) == (
        2,
        2,
        "compute#instanceGroupManager",
    )
    assert found["status"]["versionTarget"]["isReached"]
    for member in fleet.members(group):
        assert (member["currentAction"], member["instanceStatus"]) == ("NONE", "RUNNING")
        instance = fleet.get(fleet.tail(member["instance"]))
        assert instance["name"].startswith("app-")
        assert instance["zone"] == f"{ROOT}/{ZONE}"
        port = fleet.get(f"{ZONE}/instances/{instance['name']}/serialPort")
        assert port["contents"].startswith("OSv v") and port["contents"].endswith("listening\n")
        assert fleet.get(f"{ZONE}/instances/{instance['name']}/serialPort?start={port['next']}")["contents"] == ""
        late = fleet.get(f"{ZONE}/instances/{instance['name']}/serialPort?start=-10")
        assert late["contents"] == "listening\n"


def test_a_machine_is_not_there_at_once(fleet: Fleet) -> None:
    """PROVISIONING, STAGING, RUNNING; before that it has no serial port."""
    group = fleet.group(size=1)
    seen = []
    for _ in range(15):
        seen += [member.get("instanceStatus") for member in fleet.members(group)]
        fleet.wait(1)
    assert [each for each in dict.fromkeys(seen) if each] == ["PROVISIONING", "STAGING", "RUNNING"]
    other = fleet.group(name="h", size=1)
    [member] = fleet.members(other)
    refused(fleet.call("GET", f"{ZONE}/instances/{member['name']}/serialPort"), 400, "resourceNotReady")


def test_a_guest_that_ends_is_made_anew_under_its_name(fleet: Fleet) -> None:
    """Again and again: the group is never stable."""
    fleet.publish("bad", boot="exit 1", after=1)
    fleet.template("bad", "bad")
    group = fleet.group(template="bad", size=1)
    ids, names = set(), set()
    for _ in range(120):
        for member in fleet.members(group):
            ids.add(member.get("id"))
            names.add(member["name"])
        fleet.wait(1)
    assert len(ids - {None}) > 1 and len(names) == 1
    assert not fleet.get(group)["status"]["isStable"]


def test_a_group_is_resized_and_deleted_with_all_it_has(fleet: Fleet) -> None:
    """Its name is free when the operation is over."""
    group = fleet.group(size=1)
    fleet.stable(group)
    fleet.done("POST", f"{group}/resize?size=3")
    assert not fleet.get(group)["status"]["isStable"]
    assert len(fleet.stable(group) and fleet.members(group)) == 3
    fleet.done("POST", f"{group}/resize?size=1")
    fleet.stable(group)
    assert len(fleet.members(group)) == 1
    fleet.done("DELETE", group)
    refused(fleet.call("GET", group), 404, "notFound")
    refused(fleet.call("GET", f"{ZONE}/instanceGroups/g"), 404, "notFound")
    assert "items" not in fleet.get(f"{ZONE}/instances")
    fleet.group(size=0)


def test_a_template_never_changes_and_stays_while_it_is_used(fleet: Fleet) -> None:
    """And its name is taken."""
    refused(fleet.call("POST", "global/instanceTemplates", template_body()), 409, "alreadyExists")
    refused(fleet.call("PATCH", "global/instanceTemplates/t", {}), 404, "notFound")
    group = fleet.group(size=0)
    refused(fleet.call("DELETE", "global/instanceTemplates/t"), 400, "resourceInUseByAnotherResource")
    fleet.done("DELETE", group)
    fleet.done("DELETE", "global/instanceTemplates/t")
    refused(fleet.call("GET", "global/instanceTemplates/t"), 404, "notFound")


@pytest.mark.parametrize(
    ("properties", "field"),
    [
        ({"machineType": "e9-none"}, "machineType"),
        ({"disks": []}, "properties.disks"),
        ({"disks": [{"boot": True, "initializeParams": {"sourceImage": "global/images/none"}}]}, "sourceImage"),
        ({"disks": [{"boot": True, "initializeParams": {"sourceImage": "rubbish"}}]}, "sourceImage"),
        ({"networkInterfaces": []}, "networkInterfaces"),
        ({"labels": {"A": "b"}}, "labels.A"),
        ({"metadata": {"items": [{"key": "a", "value": "1"}, {"key": "a", "value": "2"}]}}, "metadata"),
    ],
)
def test_templates_that_google_refuses_are_refused(fleet: Fleet, properties: dict[str, Any], field: str) -> None:
    """By the name of what is wrong."""
    refused(fleet.call("POST", "global/instanceTemplates", template_body("u", **properties)), 400, "invalid", field)


def test_what_is_not_simulated_says_so(fleet: Fleet) -> None:
    """In place of a guess."""
    body = template_body("u", guestAccelerators=[{"acceleratorCount": 1}])
    refused(fleet.call("POST", "global/instanceTemplates", body), 400, "notSimulated", "guestAccelerators")
    refused(fleet.call("POST", f"{ZONE}/instances", {"name": "a"}), 400, "notSimulated", "instances.insert")
    group = {"name": "h", "targetSize": 1, "instanceTemplate": "global/instanceTemplates/t"}
    healing = {"autoHealingPolicies": [{"initialDelaySec": 3}]}
    refused(fleet.call("POST", f"{ZONE}/instanceGroupManagers", group | healing), 400, "notSimulated", "autoHealing")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": "A"}, "name"),
        ({"targetSize": -1}, "targetSize"),
        ({"instanceTemplate": "global/instanceTemplates/none"}, "instanceTemplate"),
        ({"updatePolicy": {"maxSurge": {"fixed": 0}, "maxUnavailable": {"fixed": 0}}}, "updatePolicy"),
        ({"updatePolicy": {"replacementMethod": "RECREATE", "maxSurge": {"fixed": 1}}}, "maxSurge"),
        ({"namedPorts": [{"name": "http", "port": 0}]}, "namedPorts"),
        ({"distributionPolicy": {"targetShape": "EVEN"}}, "distributionPolicy"),
        ({"versions": [{"instanceTemplate": "global/instanceTemplates/t", "targetSize": {"fixed": 1}}]}, "versions"),
    ],
)
def test_groups_that_google_refuses_are_refused(fleet: Fleet, changes: dict[str, Any], field: str) -> None:
    """By the name of what is wrong."""
    body = {"name": "g", "targetSize": 1, "instanceTemplate": "global/instanceTemplates/t", **changes}
    refused(fleet.call("POST", f"{ZONE}/instanceGroupManagers", body), 400, "invalid", field)


def test_places_that_there_are_not_are_refused(fleet: Fleet) -> None:
    """A zone or region that no one has heard of."""
    body = {"name": "g", "targetSize": 1, "instanceTemplate": "global/instanceTemplates/t"}
    refused(fleet.call("POST", "zones/moon-a/instanceGroupManagers", body), 400, "invalid", "zone")
    refused(fleet.call("POST", "regions/moon1/instanceGroupManagers", body), 400, "invalid", "region")
    refused(fleet.call("GET", "zones/moon-a"), 404, "notFound")
    refused(fleet.call("GET", "regions/moon1"), 404, "notFound")


def test_a_regional_group_spreads_over_zones(fleet: Fleet) -> None:
    """Evenly; surge and unavailability count zones."""
    group = fleet.group(size=4, place=REGION)
    found = fleet.stable(group)
    zones = [member["instance"].split("/")[-3] for member in fleet.members(group)]
    assert sorted(zones.count(zone) for zone in set(zones)) == [1, 1, 2]
    assert (found["region"], "zone" in found) == (f"{ROOT}/{REGION}", False)
    assert found["updatePolicy"]["maxSurge"] == {"fixed": 3, "calculated": 3}
    bad = {"updatePolicy": {"maxSurge": {"fixed": 1}}}
    refused(fleet.call("PATCH", group, bad), 400, "invalid", "number of zones")
    region = fleet.get(REGION)
    quotas = {each["metric"]: (each["usage"], each["limit"]) for each in region["quotas"]}
    assert quotas["CPUS"] == (8.0, 24.0) and quotas["INSTANCES"][0] == 4.0
    assert [zone.rpartition("-")[2] for zone in region["zones"]] == ["b", "c", "d"]


def test_a_new_template_replaces_machines_where_that_is_proactive(fleet: Fleet) -> None:
    """Within surge and unavailability: never fewer than are to serve."""
    fleet.template("u")
    group = fleet.group(size=2)
    fleet.stable(group)
    policy = {"type": "PROACTIVE", "maxSurge": {"fixed": 1}, "maxUnavailable": {"fixed": 0}}
    fleet.done(
        "PATCH", group, {"updatePolicy": policy, "versions": [{"instanceTemplate": "global/instanceTemplates/u"}]}
    )
    fewest, most = 2, 2
    for _ in range(240):
        members = fleet.members(group)
        fewest = min(fewest, sum(each["currentAction"] == "NONE" for each in members))
        most = max(most, sum(each["currentAction"] != "DELETING" for each in members))
        fleet.wait(1)
    assert (fewest, most) == (2, 3)
    assert fleet.get(group)["status"] == {**fleet.get(group)["status"], "isStable": True}
    assert {each["version"]["instanceTemplate"] for each in fleet.members(group)} == {
        f"{ROOT}/global/instanceTemplates/u"
    }


def test_a_new_template_waits_where_that_is_opportunistic(fleet: Fleet) -> None:
    """For machines that are made for another reason."""
    fleet.template("u")
    group = fleet.group(size=1)
    before = fleet.stable(group) and fleet.members(group)
    fleet.done("POST", f"{group}/setInstanceTemplate", {"instanceTemplate": "global/instanceTemplates/u"})
    fleet.wait(60)
    found = fleet.get(group)
    assert fleet.members(group) == before
    assert (found["status"]["isStable"], found["status"]["versionTarget"]["isReached"]) == (True, False)
    refused(fleet.call("DELETE", "global/instanceTemplates/u"), 400, "resourceInUseByAnotherResource")


def test_a_stale_fingerprint_changes_nothing(fleet: Fleet) -> None:
    """Neither of a group nor of its ports."""
    group = fleet.group(size=0)
    stale = fleet.get(group)["fingerprint"]
    fleet.done("PATCH", group, {"targetSize": 1, "fingerprint": stale})
    refused(fleet.call("PATCH", group, {"targetSize": 2, "fingerprint": stale}), 412, "conditionNotMet")
    ports = fleet.get(f"{ZONE}/instanceGroups/g")["fingerprint"]
    body = {"namedPorts": [{"name": "http", "port": 8080}], "fingerprint": ports}
    fleet.done("POST", f"{ZONE}/instanceGroups/g/setNamedPorts", body)
    assert fleet.get(group)["namedPorts"] == [{"name": "http", "port": 8080}]
    refused(fleet.call("POST", f"{ZONE}/instanceGroups/g/setNamedPorts", body), 412, "conditionNotMet")


def test_single_machines_are_made_anew_taken_out_and_let_go(fleet: Fleet) -> None:
    """Those that are named, and no others."""
    group = fleet.group(size=3)
    fleet.stable(group)
    first, second, third = (fleet.tail(each["instance"]) for each in fleet.members(group))
    before = fleet.get(first)["id"]
    fleet.done("POST", f"{group}/recreateInstances", {"instances": [first]})
    fleet.stable(group)
    assert fleet.get(first)["id"] != before
    fleet.done("POST", f"{group}/deleteInstances", {"instances": [f"{ROOT}/{second}"]})
    fleet.done("POST", f"{group}/abandonInstances", {"instances": [third]})
    assert fleet.stable(group)["targetSize"] == 1
    refused(fleet.call("GET", second), 404, "notFound")
    assert fleet.get(third)["status"] == "RUNNING"
    refused(fleet.call("POST", f"{group}/recreateInstances", {"instances": [third]}), 400, "invalid", "not a member")
    fleet.done("DELETE", third)
    refused(fleet.call("GET", third), 404, "notFound")
    fleet.done("DELETE", first)
    assert not fleet.get(group)["status"]["isStable"] or fleet.get(first)["id"] != before
    fleet.wait(60)
    assert fleet.stable(group)["targetSize"] == 1


@pytest.mark.parametrize(
    ("kind", "code"), [(FaultKind.EXHAUSTED, "ZONE_RESOURCE_POOL_EXHAUSTED"), (FaultKind.QUOTA, "QUOTA_EXCEEDED")]
)
def test_a_machine_that_is_not_to_be_had_is_tried_again(fleet: Fleet, kind: FaultKind, code: str) -> None:
    """Its last attempt says why."""
    fleet.sandbox.faults.add(Fault("instances.insert", kind, times=2))
    group = fleet.group(size=1)
    fleet.wait(3)
    [member] = fleet.members(group)
    assert member["currentAction"] == "CREATING"
    [error] = member["lastAttempt"]["errors"]["errors"]
    assert error["code"] == code
    [told] = fleet.get(f"{group}/listErrors")["items"]
    assert (told["error"], told["instanceActionDetails"]["action"]) == (error, "CREATING")
    assert fleet.stable(group) and "errors" not in fleet.members(group)[0]["lastAttempt"]


def test_a_region_holds_no_more_than_its_quota(fleet: Fleet) -> None:
    """Of processors, whoever asks."""
    fleet.template("large", machine="e2-standard-16")
    group = fleet.group(template="large", size=2)
    fleet.wait(60)
    said = [each["lastAttempt"] for each in fleet.members(group) if each["lastAttempt"]]
    assert "Limit: 24.0 in region europe-west1" in said[0]["errors"]["errors"][0]["message"]


def test_an_autoscaler_keeps_a_group_within_its_bounds(fleet: Fleet) -> None:
    """As far as its mode says, and the group cannot go before it."""
    group = fleet.group(size=1)
    policy = {"minNumReplicas": 2, "maxNumReplicas": 3}
    body = {"name": "a", "target": group, "autoscalingPolicy": policy}
    fleet.done("POST", f"{ZONE}/autoscalers", body)
    refused(fleet.call("POST", f"{ZONE}/autoscalers", body | {"name": "b"}), 400, "resourceInUseByAnotherResource")
    assert fleet.stable(group)["targetSize"] == 2
    assert fleet.get(group)["status"]["autoscaler"] == f"{ROOT}/{ZONE}/autoscalers/a"
    fleet.done("POST", f"{group}/resize?size=5")
    assert fleet.stable(group)["targetSize"] == 3
    fleet.done("PATCH", f"{ZONE}/autoscalers?autoscaler=a", {"autoscalingPolicy": {"mode": "ONLY_SCALE_OUT"}})
    fleet.done("POST", f"{group}/resize?size=4")
    assert fleet.stable(group)["targetSize"] == 4
    fleet.done("PATCH", f"{ZONE}/autoscalers?autoscaler=a", {"autoscalingPolicy": {"mode": "OFF"}})
    fleet.done("POST", f"{group}/resize?size=0")
    assert fleet.stable(group)["targetSize"] == 0
    assert fleet.get(f"{ZONE}/autoscalers/a")["autoscalingPolicy"]["mode"] == "OFF"
    refused(fleet.call("DELETE", group), 400, "resourceInUseByAnotherResource")
    wrong = {"autoscalingPolicy": {"minNumReplicas": 5, "maxNumReplicas": 2}}
    refused(fleet.call("PUT", f"{ZONE}/autoscalers?autoscaler=a", wrong), 400, "invalid", "maxNumReplicas")
    fleet.done("DELETE", f"{ZONE}/autoscalers/a")
    fleet.done("DELETE", group)


def test_an_autoscaler_may_keep_a_group_empty(fleet: Fleet) -> None:
    """Without a least size it is no more than the greatest, which can be 0: users report that Google takes it."""
    for name, most in (("a", 0), ("b", 1), ("c", 5)):
        body = {"name": name, "target": fleet.group(name, size=0), "autoscalingPolicy": {"maxNumReplicas": most}}
        fleet.done("POST", f"{ZONE}/autoscalers", body)
        assert fleet.get(f"{ZONE}/autoscalers/{name}")["autoscalingPolicy"]["minNumReplicas"] == min(2, most)


def test_a_regional_group_is_not_resized_while_an_autoscaler_may_change_it(fleet: Fleet) -> None:
    """In the words that users report; with the mode OFF it is. Without a signal the processors are followed."""
    group = fleet.group(size=1, place=REGION)
    body = {"name": "a", "target": group, "autoscalingPolicy": {"minNumReplicas": 1, "maxNumReplicas": 3}}
    fleet.done("POST", f"{REGION}/autoscalers", body)
    policy = fleet.get(f"{REGION}/autoscalers/a")["autoscalingPolicy"]
    assert policy["cpuUtilization"] == {"utilizationTarget": 0.6}
    refused(fleet.call("POST", f"{group}/resize?size=2"), 412, "conditionNotMet", "mode to OFF")
    fleet.done("PATCH", f"{REGION}/autoscalers?autoscaler=a", {"autoscalingPolicy": {"mode": "OFF"}})
    fleet.done("POST", f"{group}/resize?size=2")
    assert fleet.stable(group)["targetSize"] == 2


def test_lists_are_filtered_and_in_pages(fleet: Fleet) -> None:
    """Of groups, and of what a group has."""
    for name in ("a", "b", "c"):
        fleet.group(name, size=0)
    first = fleet.get(f"{ZONE}/instanceGroupManagers?maxResults=2")
    assert [each["name"] for each in first["items"]] == ["a", "b"]
    rest = fleet.get(f"{ZONE}/instanceGroupManagers?maxResults=2&pageToken={first['nextPageToken']}")
    assert [each["name"] for each in rest["items"]] == ["c"] and "nextPageToken" not in rest
    assert [each["name"] for each in fleet.get(f"{ZONE}/instanceGroupManagers?filter=name=b")["items"]] == ["b"]
    assert "items" not in fleet.get("zones/europe-west1-c/instanceGroupManagers")
    group = fleet.group(size=2)
    fleet.stable(group)
    page = fleet.call("POST", f"{group}/listManagedInstances?maxResults=1").json()
    assert len(page["managedInstances"]) == 1 and page["nextPageToken"]
    there = fleet.call("POST", f"{ZONE}/instanceGroups/g/listInstances", {"instanceState": "RUNNING"}).json()
    assert [each["status"] for each in there["items"]] == ["RUNNING", "RUNNING"]
    assert len(fleet.get("zones?maxResults=5")["items"]) == 5


def test_operations_are_found_where_they_happen(fleet: Fleet) -> None:
    """A zone's in the zone alone; a request id begins one."""
    token = str(uuid.uuid4())
    body = {"name": "g", "targetSize": 0, "instanceTemplate": "global/instanceTemplates/t"}
    path = f"{ZONE}/instanceGroupManagers?requestId={token}"
    first, second = fleet.call("POST", path, body).json(), fleet.call("POST", path, body).json()
    assert first["name"] == second["name"]
    assert (first["operationType"], first["zone"]) == ("compute.instanceGroupManagers.insert", f"{ROOT}/{ZONE}")
    assert first["targetLink"] == f"{ROOT}/{ZONE}/instanceGroupManagers/g"
    refused(fleet.call("GET", f"global/operations/{first['name']}"), 404, "notFound")
    refused(fleet.call("PATCH", f"{ZONE}/instanceGroupManagers/g", {"targetSize": 1}), 400, "resourceNotReady")
    fleet.wait(5)
    assert fleet.get(f"{ZONE}/operations/{first['name']}")["status"] == "DONE"
    assert [each["name"] for each in fleet.get(f"{ZONE}/operations")["items"]] == [first["name"]]
    refused(fleet.call("POST", path, body | {"targetSize": 1}), 400, "invalid", "requestId")


def test_labels_and_metadata_of_a_machine_change_by_fingerprint(fleet: Fleet) -> None:
    """A stale one changes nothing."""
    group = fleet.group(size=1)
    fleet.stable(group)
    path = fleet.tail(fleet.members(group)[0]["instance"])
    found = fleet.get(path)
    labels = {"labels": {"a": "b"}, "labelFingerprint": found["labelFingerprint"]}
    fleet.done("POST", f"{path}/setLabels", labels)
    refused(fleet.call("POST", f"{path}/setLabels", labels), 412, "conditionNotMet")
    items = {"items": [{"key": "k", "value": "v"}], "fingerprint": found["metadata"]["fingerprint"]}
    fleet.done("POST", f"{path}/setMetadata", items)
    refused(fleet.call("POST", f"{path}/setMetadata", items), 412, "conditionNotMet")
    assert fleet.get(f"{ZONE}/instances?filter=labels.a=b")["items"][0]["metadata"]["items"] == items["items"]


def test_machines_that_ran_run_again_when_a_sandbox_is_taken_up(tmp_path: Path) -> None:
    """From their own bytes, though the image is gone."""
    fleet = Fleet(tmp_path)
    fleet.publish("app", says="listening")
    fleet.template()
    group = fleet.group(size=1)
    fleet.stable(group)
    [member] = fleet.members(group)
    fleet.done("DELETE", "global/images/app")
    fleet.sandbox.close()
    fleet.sandbox = Sandbox(tmp_path, runner=InlineRunner())
    fleet.session = connect(fleet.sandbox, fleet.clock)
    fleet.sandbox.resume(fleet.clock.now())
    fleet.wait(30)
    assert fleet.members(group) == [member]
    assert "listening" in fleet.get(f"{ZONE}/instances/{member['name']}/serialPort")["contents"]


def test_every_method_that_is_simulated_is_googles() -> None:
    """A name that no document has would never be asked for."""
    own = {each for each in OPERATIONS if each not in api("compute").methods}
    assert not own


def test_a_template_of_a_region_serves_groups_of_that_region_alone(fleet: Fleet) -> None:
    """Of the region itself, and of its zones."""
    fleet.done("POST", f"{REGION}/instanceTemplates", template_body("r"))
    template = f"{ROOT}/{REGION}/instanceTemplates/r"
    assert fleet.get(f"{REGION}/instanceTemplates/r")["region"] == f"{ROOT}/{REGION}"
    refused(fleet.call("GET", "global/instanceTemplates/r"), 404, "notFound")
    group = fleet.group(size=1, instanceTemplate=template)
    fleet.stable(group)
    [member] = fleet.members(group)
    assert member["version"]["instanceTemplate"] == template
    body = {"name": "g", "targetSize": 1, "instanceTemplate": template}
    refused(fleet.call("POST", "regions/us-east1/instanceGroupManagers", body), 400, "invalid", "another region")
    refused(fleet.call("DELETE", f"{REGION}/instanceTemplates/r"), 400, "resourceInUseByAnotherResource")


def _rolled(fleet: Fleet, group: str) -> tuple[int, int]:
    """The fewest machines that were at work, and the most there were, until the group was at rest."""
    fewest, most = 99, 0
    for _ in range(400):
        members = fleet.members(group)
        fewest = min(fewest, sum(each["currentAction"] == "NONE" for each in members))
        most = max(most, sum(each["currentAction"] != "DELETING" for each in members))
        if fleet.get(group)["status"]["isStable"]:
            return fewest, most
        fleet.wait(1)
    raise AssertionError(fleet.members(group))


@pytest.mark.parametrize(
    ("policy", "bounds", "keeps_names"),
    [
        ({"maxSurge": {"fixed": 2}, "maxUnavailable": {"fixed": 0}}, (4, 6), False),
        ({"maxSurge": {"fixed": 0}, "maxUnavailable": {"fixed": 1}}, (3, 4), False),
        ({"maxSurge": {"percent": 25}, "maxUnavailable": {"percent": 50}}, (2, 5), False),
        ({"replacementMethod": "RECREATE", "maxSurge": {"fixed": 0}, "maxUnavailable": {"fixed": 2}}, (2, 4), True),
    ],
)
def test_a_group_rolls_within_its_policy(
    fleet: Fleet, policy: dict[str, Any], bounds: tuple[int, int], keeps_names: bool
) -> None:
    """Never fewer machines at work nor more altogether than it says; at the end all are new."""
    fleet.template("u")
    group = fleet.group(size=4)
    fleet.stable(group)
    before = {each["name"] for each in fleet.members(group)}
    change = {"updatePolicy": {"type": "PROACTIVE", **policy}, "instanceTemplate": "global/instanceTemplates/u"}
    assert fleet.call("PATCH", group, change).ok
    fewest, most = _rolled(fleet, group)
    assert bounds[0] <= fewest and most <= bounds[1]
    members = fleet.members(group)
    assert {each["version"]["instanceTemplate"].rpartition("/")[2] for each in members} == {"u"}
    assert len(members) == 4
    assert ({each["name"] for each in members} == before) is keeps_names


def test_a_second_version_has_as_many_as_it_is_told(fleet: Fleet) -> None:
    """A canary, by a number or a share; the rest is the first one's."""
    fleet.template("u")
    both: list[dict[str, Any]] = [
        {"name": "stable", "instanceTemplate": "global/instanceTemplates/t"},
        {"name": "canary", "instanceTemplate": "global/instanceTemplates/u", "targetSize": {"percent": 25}},
    ]
    group = fleet.group(size=4, instanceTemplate=None, versions=both, updatePolicy={"type": "PROACTIVE"})
    fleet.stable(group)

    def counted() -> dict[str, int]:
        names = [each["version"]["name"] for each in fleet.members(group)]
        return {each: names.count(each) for each in sorted(set(names))}

    assert counted() == {"canary": 1, "stable": 3}
    assert fleet.get(group)["versions"][1]["targetSize"] == {"percent": 25, "calculated": 1}
    both[1]["targetSize"] = {"fixed": 3}
    fleet.done("PATCH", group, {"versions": both})
    _rolled(fleet, group)
    assert counted() == {"canary": 3, "stable": 1}
    fleet.done("POST", f"{group}/resize?size=2")
    _rolled(fleet, group)
    assert counted() == {"canary": 2}
    assert fleet.get(group)["status"]["versionTarget"]["isReached"]
