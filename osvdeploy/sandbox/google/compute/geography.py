"""Regions and their zones, those that are most used, and what a project may have in each.

Source: "Regions and zones" (which zones a region has), "Allocation quotas" (CPUS of a new project; the other limits are
of the order that projects have).
"""

from __future__ import annotations

from typing import Final

from osvdeploy.sandbox.errors import ApiError
from osvdeploy.sandbox.google.compute import machine_types
from osvdeploy.sandbox.google.compute.lists import page_of
from osvdeploy.sandbox.google.compute.operations import Wire, number_of
from osvdeploy.sandbox.google.compute.resources import AUTOSCALER, INSTANCE, MANAGER, completed, link
from osvdeploy.sandbox.google.wire import BASE
from osvdeploy.sandbox.services.scope import Doc, Scope

_REGIONS: Final = {
    "asia-east1": "abc",
    "asia-northeast1": "abc",
    "asia-south1": "abc",
    "asia-southeast1": "abc",
    "australia-southeast1": "abc",
    "europe-north1": "abc",
    "europe-west1": "bcd",
    "europe-west2": "abc",
    "europe-west3": "abc",
    "europe-west4": "abc",
    "europe-west9": "abc",
    "me-west1": "abc",
    "northamerica-northeast1": "abc",
    "southamerica-east1": "abc",
    "us-central1": "abcf",
    "us-east1": "bcd",
    "us-east4": "abc",
    "us-west1": "abc",
    "us-west2": "abc",
}

LIMITS: Final = {"CPUS": 24.0, "INSTANCES": 24.0, "INSTANCE_GROUP_MANAGERS": 50.0, "AUTOSCALERS": 50.0}
"""What a new project may have in each region."""

_SINCE: Final = "2030-01-01T00:00:00.000+00:00"


def zones_of(region: str) -> list[str]:
    """Empty for what is no region."""
    return [f"{region}-{letter}" for letter in _REGIONS.get(region, "")]


def region_of(zone: str) -> str:
    return zone.rpartition("-")[0]


def check_place(params: Wire) -> None:
    """Raise ApiError where a call goes to a region or zone that there is not."""
    zone, region = params.get("zone"), params.get("region")
    if zone is not None and zone not in zones_of(region_of(zone)):
        raise ApiError("invalid", f"Invalid value for field 'zone': '{zone}'. Unknown zone.")
    if region is not None and region not in _REGIONS:
        raise ApiError("invalid", f"Invalid value for field 'region': '{region}'. Unknown region.")


def used(scope: Scope, project: str, region: str) -> dict[str, float]:
    """What a project has in a region, by the quota's name."""
    places = {f"regions/{region}", *(f"zones/{zone}" for zone in zones_of(region))}
    usage = dict.fromkeys(LIMITS, 0.0)
    for kind, metric in ((INSTANCE, "INSTANCES"), (MANAGER, "INSTANCE_GROUP_MANAGERS"), (AUTOSCALER, "AUTOSCALERS")):
        here = [each for each in scope.all(kind.store) if each["project"] == project and each["place"] in places]
        usage[metric] = float(len(here))
        if kind is INSTANCE:
            running = [each for each in here if each["resource"]["status"] != "TERMINATED"]
            usage["CPUS"] = float(sum(machine_types.processors(each["machine"]) for each in running))
    return usage


def get_region(scope: Scope, params: Wire) -> Doc:
    name = params["region"]
    if name not in _REGIONS:
        raise ApiError("notFound", f"The resource 'projects/{params['project']}/regions/{name}' was not found", 404)
    return _region(scope, params, name)


def list_regions(scope: Scope, params: Wire) -> Doc:
    base = f"{params[BASE]}/compute/v1/projects/{params['project']}/regions"
    found = [_region(scope, params, name) for name in _REGIONS]
    return page_of("compute#regionList", base, found, params, dict)


def _region(scope: Scope, params: Wire, name: str) -> Doc:
    project = params["project"]
    usage = used(scope, project, name)
    whole: Doc = completed(
        params,
        {
            "kind": "compute#region",
            "id": number_of(name),
            "creationTimestamp": _SINCE,
            "name": name,
            "description": name,
            "status": "UP",
            "zones": [link(f"projects/{project}/zones/{zone}") for zone in zones_of(name)],
            "quotas": [{"metric": each, "limit": LIMITS[each], "usage": usage[each]} for each in LIMITS],
            "selfLink": link(f"projects/{project}/regions/{name}"),
        },
    )
    return whole


def get_zone(scope: Scope, params: Wire) -> Doc:
    name = params["zone"]
    if name not in zones_of(region_of(name)):
        raise ApiError("notFound", f"The resource 'projects/{params['project']}/zones/{name}' was not found", 404)
    return _zone(params, name)


def list_zones(scope: Scope, params: Wire) -> Doc:
    base = f"{params[BASE]}/compute/v1/projects/{params['project']}/zones"
    found = [_zone(params, zone) for region in _REGIONS for zone in zones_of(region)]
    return page_of("compute#zoneList", base, found, params, dict)


def _zone(params: Wire, name: str) -> Doc:
    project = params["project"]
    whole: Doc = completed(
        params,
        {
            "kind": "compute#zone",
            "id": number_of(name),
            "creationTimestamp": _SINCE,
            "name": name,
            "description": name,
            "status": "UP",
            "region": link(f"projects/{project}/regions/{region_of(name)}"),
            "selfLink": link(f"projects/{project}/zones/{name}"),
        },
    )
    return whole
