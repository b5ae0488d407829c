"""What simulated Compute Engine refuses beyond its discovery document: each refusal a row, with where it is written.

A row is asked of a project that is otherwise in order, with blue and green behind a balancer. No refusal in the source
of simulated Compute Engine is without a row. "Seen by users" is where an answer is told of that no page tells of;
"believed" is what neither a page nor a user was found to tell.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from typing import Any

import pytest

from tests.sandbox.google.fleet import REGION, ZONE, Service, template_body
from tests.sandbox.google.place import refused
from tests.sandbox.refusal_sites import HOME, met, missed

pytestmark = [pytest.mark.slow, pytest.mark.sandbox]

REFERENCE = "Compute Engine API reference"
NAMING = "Naming resources; RFC 1035"
LABELS = "Organize resources using labels, Requirements for labels"
REQUEST_ID = f"{REFERENCE}, requestId"
FINGERPRINT = f"{REFERENCE}, fingerprint"
IN_USE = "Troubleshooting resource errors, resourceInUseByAnotherResource"
ARCHIVES = "Manually import boot disks, Requirements for the image file"
UPDATES = "Apply VM configuration updates in a MIG, Maximum surge and maximum unavailable"
CANARY = "Canary updates; instanceGroupManagers, versions[]"
CHECKS = f"{REFERENCE}, healthChecks"
SERVICES = f"{REFERENCE}, backendServices"
MAPS = f"{REFERENCE}, urlMaps"
RULES = f"{REFERENCE}, forwardingRules"
WALLS = f"{REFERENCE}, firewalls"
NETWORKS = f"{REFERENCE}, networks"
SUBNETWORKS = f"{REFERENCE}, subnetworks"
ADDRESSES = f"{REFERENCE}, addresses"
TEMPLATES = f"{REFERENCE}, instanceTemplates"
MANAGERS = f"{REFERENCE}, instanceGroupManagers"
SCALERS = f"{REFERENCE}, autoscalers"
TCP_PROXIES = f"{REFERENCE}, targetTcpProxies"
INSTANCES = f"{REFERENCE}, instances"
CLASSIC = "Traffic management overview for classic Application Load Balancers"
BELIEVED = "believed"
NOT_READY = "seen by users: terraform-google-modules/terraform-google-network, issue 365"
STATUS = "Troubleshooting API errors: 404 notFound, 409 alreadyExists, 412 conditionNotMet"


@dataclass(frozen=True)
class Row:
    """A request that is refused: how Google answers, and where that is written."""

    source: str
    verb: str
    path: str
    body: Any
    words: str
    reason: str = "invalid"
    status: int = 400


def post(source: str, path: str, body: Any, words: str, reason: str = "invalid", status: int = 400) -> Row:
    return Row(source, "POST", path, body, words, reason, status)


def gone(source: str, path: str, words: str = "was not found") -> Row:
    return Row(source, "GET", path, None, words, "notFound", 404)


def used(path: str) -> Row:
    return Row(IN_USE, "DELETE", path, None, "already being used by", "resourceInUseByAnotherResource")


def young(source: str, verb: str, path: str, body: Any = None) -> Row:
    """What is still being made, or already being deleted."""
    return Row(source, verb, path, body, "is not ready", "resourceNotReady")


SOURCE = {"rawDisk": {"source": "https://storage.googleapis.com/acme/blue.tar.gz"}}


def image(source: str, words: str, reason: str = "invalid", status: int = 400, **fields: Any) -> Row:
    return post(source, "global/images", {"name": "x", **SOURCE, **fields}, words, reason, status)


def disk(**settings: Any) -> dict[str, Any]:
    return {"boot": True, "initializeParams": {"sourceImage": "global/images/blue", **settings}}


def template(words: str, reason: str = "invalid", **properties: Any) -> Row:
    return post(TEMPLATES, "global/instanceTemplates", template_body("x", "blue", **properties), words, reason)


ELSEWHERE = "regions/us-east1"
BLUE = "global/instanceTemplates/blue"
AWAY = "zones/us-east1-b"
GROUP = f"{ZONE}/instanceGroupManagers/blue"
SCALED = f"{ZONE}/instanceGroupManagers/scaled"
WIDE = f"{REGION}/instanceGroupManagers/wide"
ONCE = "c0ffee00-0000-4000-8000-000000000001"
"""The id of a request that was made."""

LEAVING, MEMBER = "MACHINE-THAT-GOES", "MACHINE-THAT-STAYS"
MANY = {"name": "x", "targetSize": 2, "instanceTemplate": BLUE}


def group(source: str, words: str, reason: str = "invalid", place: str = ZONE, **fields: Any) -> Row:
    body = {name: value for name, value in {**MANY, **fields}.items() if value is not None}
    return post(source, f"{place}/instanceGroupManagers", body, words, reason)


def policy(words: str, place: str = ZONE, **settings: Any) -> Row:
    return group(UPDATES, words, place=place, updatePolicy=settings)


def versions(words: str, *given: dict[str, Any], reason: str = "invalid", **fields: Any) -> Row:
    return group(CANARY, words, reason, versions=list(given), **{"instanceTemplate": None, **fields})


TO = "global/backendServices/blue"
OLD = "global/backendServices/classic"
TCP = "global/backendServices/tcp"


def checked(words: str, reason: str = "invalid", **fields: Any) -> Row:
    return post(CHECKS, "global/healthChecks", {"name": "x", "type": "HTTP", **fields}, words, reason)


def service(words: str, reason: str = "invalid", place: str = "global", **fields: Any) -> Row:
    body = {
        "name": "x",
        "loadBalancingScheme": "EXTERNAL_MANAGED",
        "healthChecks": ["global/healthChecks/up"],
        **fields,
    }
    return post(SERVICES, f"{place}/backendServices", body, words, reason)


def behind(words: str, **fields: Any) -> Row:
    return service(words, backends=[{"group": f"{ZONE}/instanceGroups/blue", **fields}])


def mapped(words: str, source: str = MAPS, place: str = "global", **fields: Any) -> Row:
    return post(source, f"{place}/urlMaps", {"name": "x", "defaultService": TO, **fields}, words)


def matched(words: str, **fields: Any) -> Row:
    """A map whose only matcher is so."""
    hosts = [{"hosts": ["*"], "pathMatcher": "all"}]
    return mapped(words, hostRules=hosts, pathMatchers=[{"name": "all", "defaultService": TO, **fields}])


def routed(words: str, **fields: Any) -> Row:
    """A map whose only route rule is so."""
    rule = {"priority": 1, "matchRules": [{"prefixMatch": "/"}], "service": TO, **fields}
    return matched(words, routeRules=[{name: value for name, value in rule.items() if value is not None}])


def header(words: str, **fields: Any) -> Row:
    return routed(words, matchRules=[{"prefixMatch": "/", "headerMatches": [fields]}])


def weighted(words: str, *pairs: tuple[str, int]) -> Row:
    action = {"weightedBackendServices": [{"backendService": to, "weight": weight} for to, weight in pairs]}
    return mapped(words, defaultService=None, defaultRouteAction=action)


def classic(**fields: Any) -> Row:
    """What the classic balancer cannot do."""
    source = f"{CLASSIC}; {MAPS}: of headerAction, rangeMatch, routeAction"
    return mapped("not supported for load balancing scheme EXTERNAL", source, **{"defaultService": OLD, **fields})


def tcp_proxy(words: str, reason: str = "invalid", place: str = "global", **fields: Any) -> Row:
    body = {"name": "x", "service": TCP, **fields}
    return post(TCP_PROXIES, f"{place}/targetTcpProxies", body, words, reason)


def forwarding(words: str, reason: str = "invalid", place: str = "global", **fields: Any) -> Row:
    rule = {"name": "x", "portRange": "8001", "loadBalancingScheme": "EXTERNAL_MANAGED"}
    body = {**rule, "target": "global/targetHttpProxies/proxy", **fields}
    return post(RULES, f"{place}/forwardingRules", body, words, reason)


def wall(words: str, reason: str = "invalid", **fields: Any) -> Row:
    allowed = [{"IPProtocol": "tcp"}]
    return post(WALLS, "global/firewalls", {"name": "x", "allowed": allowed, **fields}, words, reason)


NETWORK = "global/networks/own"
BLOCK = {"name": "x", "network": NETWORK, "ipCidrRange": "10.77.0.0/20"}


def subnetwork(words: str, reason: str = "invalid", **fields: Any) -> Row:
    body = {name: value for name, value in {**BLOCK, **fields}.items() if value is not None}
    return post(SUBNETWORKS, f"{REGION}/subnetworks", body, words, reason)


BOUNDS = {"minNumReplicas": 1, "maxNumReplicas": 3}


def scaler(words: str, reason: str = "invalid", source: str = SCALERS, **fields: Any) -> Row:
    body = {"name": "x", "target": GROUP, "autoscalingPolicy": BOUNDS, **fields}
    return post(source, f"{ZONE}/autoscalers", body, words, reason)


ROWS = [
    # ------------------------------------------------------------------------------------------------ in common
    checked("Must be a match of regex", name="A"),
    checked("at most 2048 characters", description="x" * 2049),
    post(NAMING, "global/healthChecks", {"type": "HTTP"}, "'resource.name': ''. Must be a match of regex"),
    young(NOT_READY, "PATCH", "global/healthChecks/young", {"checkIntervalSec": 10}),
    Row(
        NOT_READY,
        "POST",
        "global/backendServices",
        {"name": "x", "healthChecks": ["global/healthChecks/young"]},
        "is not ready",
        "resourceNotReady",
    ),
    post(
        f"{BELIEVED}, after {REQUEST_ID}",
        f"global/healthChecks?requestId={ONCE}",
        {"name": "x", "type": "TCP"},
        "Another request had it",
    ),
    post(STATUS, "global/healthChecks", {"name": "up", "type": "HTTP"}, "already exists", "alreadyExists", 409),
    gone(STATUS, "global/healthChecks/none"),
    gone(STATUS, "global/healthChecks/12345"),
    Row(STATUS, "PUT", f"{ZONE}/autoscalers", {"name": "none"}, "was not found", "notFound", 404),
    Row(
        FINGERPRINT,
        "PATCH",
        "global/urlMaps/map",
        {"fingerprint": "AAAA"},
        "Invalid fingerprint",
        "conditionNotMet",
        412,
    ),
    Row(FINGERPRINT, "PATCH", "global/urlMaps/map", {"description": "x"}, "must be specified", "conditionNotMet", 412),
    post(REQUEST_ID, "global/healthChecks?requestId=1", {"name": "x", "type": "HTTP"}, "Must be a valid UUID"),
    gone(STATUS, "global/operations/none"),
    Row(f"{REFERENCE}, list, maxResults", "GET", "global/healthChecks?maxResults=501", None, "maxResults"),
    gone("Regions and zones", "zones/nowhere-1a"),
    gone("Regions and zones", "regions/nowhere-1"),
    post("Regions and zones", "zones/nowhere-1a/instanceGroupManagers", MANY, "Unknown zone"),
    post("Regions and zones", "regions/nowhere-1/instanceGroupManagers", MANY, "Unknown region"),
    gone(f"{REFERENCE}, machineTypes", f"{ZONE}/machineTypes/none"),
    Row("Regions and zones", "GET", "zones/nowhere-1a/machineTypes", None, "Unknown zone"),
    # --------------------------------------------------------------------------------------------------------- images
    image(NAMING, "Must be a match of regex", name="A"),
    post(NAMING, "global/images", SOURCE, "'resource.name': ''. Must be a match of regex"),
    young(NOT_READY, "POST", "global/images/young/deprecate", {"state": "DEPRECATED"}),
    image(f"{REFERENCE}, images, guestOsFeatures", "Duplicate features", guestOsFeatures=[{"type": "GVNIC"}] * 2),
    image(f"{REFERENCE}, images, rawDisk", "rawDisk.source", "required", rawDisk={}),
    image(f"{REFERENCE}, images, storageLocations", "One region", storageLocations=["nowhere at all"]),
    image(STATUS, "already exists", "alreadyExists", 409, name="blue"),
    image(ARCHIVES, "not a supported file", rawDisk={"source": "acme/a.tar.gz"}),
    image(
        ARCHIVES,
        "Required 'read' permission",
        "forbidden",
        403,
        rawDisk={"source": "https://storage.googleapis.com/acme/none.tar.gz"},
    ),
    image(NAMING, "Must be a match of regex", family="F"),
    image(LABELS, "at most 64 labels", labels={f"l{number}": "" for number in range(65)}),
    image(LABELS, "Label key", labels={"A": "b"}),
    image(LABELS, "Label value", labels={"a": "B"}),
    gone("Image families best practices", "global/images/family/none"),
    gone(STATUS, "global/images/none"),
    post(
        "Deprecate images",
        "global/images/blue/deprecate",
        {"state": "DEPRECATED", "replacement": "global/images/none"},
        "cannot be found",
    ),
    post(
        FINGERPRINT,
        "global/images/blue/setLabels",
        {"labels": {}, "labelFingerprint": "AAAA"},
        "Labels fingerprint",
        "conditionNotMet",
        412,
    ),
    # ------------------------------------------------------------------------------------------------------ templates
    post(TEMPLATES, "global/instanceTemplates", {"name": "x"}, "properties", "required"),
    template("Machine type specified does not exist", machineType="e9-none"),
    template("metadata.items", metadata={"items": [{"key": "a b", "value": "1"}]}),
    template("Duplicate metadata keys", metadata={"items": [{"key": "a", "value": "1"}] * 2}),
    template("Metadata key does not match", metadata={"items": [{"value": "1"}]}),
    template("The referenced image is not ready", disks=[disk(sourceImage="global/images/young")]),
    template("Boot disk", disks=[]),
    template("needs a source image", disks=[{"boot": True, "initializeParams": {}}]),
    template("No such disk type", disks=[disk(diskType="none")]),
    template("diskSizeGb", disks=[disk(diskSizeGb="0")]),
    template("The URL is malformed", disks=[disk(sourceImage="rubbish")]),
    template("cannot be found", disks=[disk(sourceImage="global/images/none")]),
    template("At least one network interface", networkInterfaces=[]),
    template("The URL is malformed", networkInterfaces=[{"network": "rubbish"}]),
    template("cannot be found", networkInterfaces=[{"subnetwork": f"{REGION}/subnetworks/none"}]),
    template(
        "not in the specified network",
        networkInterfaces=[{"network": "global/networks/default", "subnetwork": f"{REGION}/subnetworks/own"}],
    ),
    template("of custom subnet mode", networkInterfaces=[{"network": NETWORK}]),
    template("requirements for labels", labels={"A": "b"}),
    used(BLUE),
    # --------------------------------------------------------------------------------------------------------- groups
    group(MANAGERS, "targetSize", "required", targetSize=None),
    group(MANAGERS, "at most 58 characters", baseInstanceName="x" * 59),
    group(MANAGERS, "only be specified for a regional", distributionPolicy={"zones": [{"zone": ZONE}]}),
    group(MANAGERS, "is no zone of", place=REGION, distributionPolicy={"zones": [{"zone": "zones/us-east1-b"}]}),
    group(MANAGERS, "Duplicate zones", place=REGION, distributionPolicy={"zones": [{"zone": ZONE}] * 2}),
    group("Quotas and limits, Managed instance groups", "Must be between 0 and", targetSize=9999),
    Row(MANAGERS, "PATCH", GROUP, {"baseInstanceName": "x" * 59}, "at most 58 characters"),
    post(MANAGERS, f"{GROUP}/setInstanceTemplate", {}, "instanceTemplate", "required"),
    post(MANAGERS, f"{GROUP}/recreateInstances", {}, "instances", "required"),
    post(MANAGERS, f"{GROUP}/recreateInstances", {"instances": [f"{ZONE}/instances/none"]}, "not a member"),
    post(BELIEVED, f"{GROUP}/recreateInstances", {"instances": [MEMBER, MEMBER]}, "Duplicate instances"),
    post(MANAGERS, f"{GROUP}/recreateInstances", {"instances": [MEMBER] * 1001}, "At most 1000 instances"),
    post(
        f"{REFERENCE}, instanceGroups",
        f"{ZONE}/instanceGroups/blue/setNamedPorts",
        {"namedPorts": [{"name": "A", "port": 1}]},
        "RFC1035",
    ),
    post(
        f"{REFERENCE}, instanceGroups",
        f"{ZONE}/instanceGroups/blue/setNamedPorts",
        {"namedPorts": [{"name": "a", "port": 0}]},
        "65535",
    ),
    used(GROUP),
    group(MANAGERS, "instanceTemplate", "required", instanceTemplate=None),
    versions("versions[0].instanceTemplate", {"name": "a"}, reason="required"),
    versions("One of fixed and percent", {"instanceTemplate": BLUE, "targetSize": {}}),
    versions("At most two versions", *[{"instanceTemplate": BLUE, "name": name} for name in "abc"]),
    versions("Exactly one version", *[{"instanceTemplate": BLUE, "name": name} for name in "ab"]),
    versions("must differ", {"instanceTemplate": BLUE, "targetSize": {"fixed": 1}}, {"instanceTemplate": BLUE}),
    versions(
        "differs from the one in versions",
        {"instanceTemplate": BLUE},
        instanceTemplate="global/instanceTemplates/green",
    ),
    versions("The URL is malformed", {"instanceTemplate": "rubbish"}),
    versions("in another region", {"instanceTemplate": f"{ELSEWHERE}/instanceTemplates/far"}),
    group(
        f"{REFERENCE}, subnetworks, region",
        "subnetwork of the instance template is in another",
        instanceTemplate=f"{BLUE}-far",
    ),
    policy("Only regional groups redistribute", instanceRedistributionType="PROACTIVE"),
    policy("cannot both be 0", maxSurge={"fixed": 0}, maxUnavailable={"fixed": 0}),
    policy("replacement method RECREATE", replacementMethod="RECREATE", maxSurge={"fixed": 1}),
    policy("not below 0", maxSurge={"fixed": 1, "percent": 1}),
    policy("groups of 10 machines or more", place=REGION, maxSurge={"percent": 50}),
    policy("at least the number of zones", place=REGION, maxSurge={"fixed": 1}),
    post(
        "seen by users: terraform-google-modules/terraform-google-vm, issue 64",
        f"{WIDE}/resize?size=1",
        None,
        "Resizing of autoscaled regional managed instance groups is not allowed.",
        "conditionNotMet",
        412,
    ),
    used(WIDE),
    used(SCALED),
    scaler("target", "required", target=None),
    scaler("The group is in another place", target=WIDE),
    scaler("already being used by", "resourceInUseByAnotherResource", f"{BELIEVED}, after {IN_USE}", target=SCALED),
    Row(
        "seen by users: hashicorp/terraform, issue 15056",
        "PATCH",
        f"{ZONE}/autoscalers",
        {},
        "Required field 'autoscaler' not specified",
        "required",
    ),
    Row(BELIEVED, "PATCH", f"{ZONE}/autoscalers?autoscaler=scaled", {"target": GROUP}, "The target cannot be changed"),
    scaler("greater than 0 and at most 1", autoscalingPolicy={**BOUNDS, "cpuUtilization": {"utilizationTarget": 1.5}}),
    scaler("greater than 0", autoscalingPolicy={**BOUNDS, "loadBalancingUtilization": {"utilizationTarget": 0}}),
    scaler("cannot be found", target=f"{ZONE}/instanceGroupManagers/none"),
    scaler("maxNumReplicas", "required", autoscalingPolicy={}),
    scaler("maxNumReplicas", autoscalingPolicy={"minNumReplicas": 5, "maxNumReplicas": 2}),
    # ------------------------------------------------------------------------------------------------------- machines
    young("seen by users: googleapis/google-api-python-client, issue 485", "GET", f"{LEAVING}/serialPort"),
    young(BELIEVED, "POST", f"{LEAVING}/setMetadata", {"fingerprint": "$metadata.fingerprint"}),
    post(
        f"{INSTANCES}, setLabels; {STATUS}",
        f"{MEMBER}/setLabels",
        {"labels": {}, "labelFingerprint": "AAAA"},
        "Invalid fingerprint",
        "conditionNotMet",
        412,
    ),
    post(
        f"{INSTANCES}, metadata.fingerprint",
        f"{MEMBER}/setMetadata",
        {"fingerprint": "AAAA"},
        "Invalid fingerprint",
        "conditionNotMet",
        412,
    ),
    # ------------------------------------------------------------------------------------------------------ balancers
    checked("type", "required", type=None),
    checked("does not go with the type", tcpHealthCheck={"port": 1}),
    checked("Must be between 1 and 10", healthyThreshold=11),
    checked("greater than checkIntervalSec", timeoutSec=6),
    checked("must begin with '/'", httpHealthCheck={"requestPath": "a"}),
    checked("No port and port name", httpHealthCheck={"portSpecification": "USE_SERVING_PORT", "port": 1}),
    checked("portName", "required", httpHealthCheck={"portSpecification": "USE_NAMED_PORT"}),
    checked("Must be between 1 and 65535", httpHealthCheck={"port": 70000}),
    Row(CHECKS, "PATCH", "global/healthChecks/up", {"name": "x"}, "name cannot be changed"),
    used("global/healthChecks/up"),
    service("drainingTimeoutSec", connectionDraining={"drainingTimeoutSec": 3601}),
    service("NAME:VALUE", customResponseHeaders=["x"]),
    service("Exactly one health check", healthChecks=["global/healthChecks/up"] * 2),
    service("cannot be found", healthChecks=["global/healthChecks/none"]),
    behind("cannot be found", group=f"{ZONE}/instanceGroups/none"),
    behind("not supported for protocol HTTP", balancingMode="CONNECTION"),
    behind("One of maxRate", balancingMode="RATE"),
    behind("between 0.1 and 1.0", capacityScaler=0.05),
    service("not supported for protocol TCP", protocol="TCP", customResponseHeaders=["A: b"]),
    service("health check is in another region", place=REGION, healthChecks=[f"{ELSEWHERE}/healthChecks/far"]),
    service("group is in another region", place=REGION, backends=[{"group": f"{AWAY}/instanceGroups/far"}]),
    service("Duplicate instance groups", backends=[{"group": f"{ZONE}/instanceGroups/blue"}] * 2),
    used(TO),
    used(TCP),
    post(SERVICES, f"{TO}/getHealth", {"group": f"{ZONE}/instanceGroups/green"}, "no backend of the service"),
    mapped("in another place than the URL map", place=REGION),
    mapped("cannot lead to a backend service of the protocol TCP", defaultService=TCP),
    matched("different load balancing schemes", defaultService=OLD),
    classic(
        defaultService=None, defaultRouteAction={"weightedBackendServices": [{"backendService": OLD, "weight": 1}]}
    ),
    classic(headerAction={"responseHeadersToRemove": ["x-a"]}),
    classic(
        hostRules=[{"hosts": ["*"], "pathMatcher": "all"}],
        pathMatchers=[
            {
                "name": "all",
                "defaultService": OLD,
                "routeRules": [
                    {
                        "priority": 1,
                        "service": OLD,
                        "matchRules": [
                            {
                                "prefixMatch": "/",
                                "headerMatches": [
                                    {"headerName": "x", "rangeMatch": {"rangeStart": "1", "rangeEnd": "2"}}
                                ],
                            }
                        ],
                    }
                ],
            }
        ],
    ),
    mapped("must have names of their own", pathMatchers=[{"name": "a", "defaultService": TO}] * 2),
    mapped("At least one host", hostRules=[{"hosts": [], "pathMatcher": "a"}]),
    mapped("Not a valid host name", hostRules=[{"hosts": ["a b"], "pathMatcher": "a"}]),
    mapped(
        "Duplicate host",
        hostRules=[{"hosts": ["a.b", "a.b"], "pathMatcher": "a"}],
        pathMatchers=[{"name": "a", "defaultService": TO}],
    ),
    mapped("does not exist", hostRules=[{"hosts": ["*"], "pathMatcher": "none"}]),
    mapped("at most 2048", hostRules=[{"hosts": ["*"], "pathMatcher": "a", "description": "x" * 2049}]),
    matched("Must be a match of regex", name="A"),
    matched(
        "Only one of pathRules and routeRules",
        pathRules=[{"paths": ["/"], "service": TO}],
        routeRules=[{"priority": 1}],
    ),
    matched("Duplicate paths", pathRules=[{"paths": ["/a"], "service": TO}] * 2),
    matched("At least one path", pathRules=[{"paths": [], "service": TO}]),
    matched("pathRules", pathRules=[{"paths": ["a"], "service": TO}]),
    matched(
        "must be unique",
        routeRules=[{"priority": 1, "matchRules": [{"prefixMatch": "/"}], "service": TO}] * 2,
    ),
    mapped("defaultService", defaultService=None),
    weighted("Must be between 0 and", (TO, 1001)),
    weighted("sum of all weights", (TO, 0)),
    weighted("Duplicate backend services", (TO, 1), (TO, 1)),
    routed("Must be between 0 and 2147483647", priority=None),
    routed("At least one match rule", matchRules=None),
    routed("Exactly one of prefixMatch", matchRules=[{}]),
    routed("It must begin with '/'", matchRules=[{"prefixMatch": "a"}]),
    routed("at most 1024 characters", matchRules=[{"prefixMatch": "/" + "a" * 1024}]),
    routed("at most 1024 characters", description="x" * 1025),
    header("Not the name of a header", headerName="x y", exactMatch="a"),
    header("Exactly one of", headerName="x"),
    header("rangeStart and rangeEnd", headerName="x", rangeMatch={"rangeStart": "1"}),
    routed("A value of ASCII", headerAction={"responseHeadersToAdd": [{"headerName": "x", "headerValue": ""}]}),
    routed("that can be changed", headerAction={"responseHeadersToAdd": [{"headerName": "Host", "headerValue": "a"}]}),
    Row(
        MAPS, "PUT", "global/urlMaps/map", {"name": "x", "defaultService": TO, "fingerprint": "$"}, "cannot be changed"
    ),
    Row(SERVICES, "PATCH", TO, {"name": "x", "fingerprint": "$"}, "name cannot be changed"),
    Row(SERVICES, "PATCH", TO, {"loadBalancingScheme": "EXTERNAL", "fingerprint": "$"}, "scheme cannot be changed"),
    used("global/urlMaps/map"),
    post(f"{REFERENCE}, targetHttpProxies", "global/targetHttpProxies", {"name": "x"}, "urlMap", "required"),
    post(
        f"{REFERENCE}, regionTargetHttpProxies",
        f"{REGION}/targetHttpProxies",
        {"name": "x", "urlMap": "global/urlMaps/map"},
        "The URL map is in another place",
    ),
    used("global/targetHttpProxies/proxy"),
    tcp_proxy("service", "required", service=None),
    tcp_proxy("The backend service is in another place", place=REGION),
    tcp_proxy("must be TCP", service=TO),
    used("global/targetTcpProxies/tcp"),
    forwarding("The target is in another place", place=REGION),
    post(
        f"{RULES}, setTarget",
        "global/forwardingRules/rule/setTarget",
        {"target": "global/targetTcpProxies/tcp"},
        "same type as the old target",
    ),
    forwarding("A single port", portRange="8000-8001"),
    forwarding("target", "required", target=None),
    forwarding("is not that of the backend service", loadBalancingScheme="INTERNAL_MANAGED"),
    wall("The URL is malformed", network="rubbish"),
    wall("allowed", "required", allowed=[]),
    wall("IPProtocol", "required", allowed=[{}]),
    wall("Not a port or range", allowed=[{"IPProtocol": "tcp", "ports": ["x"]}]),
    wall("valid CIDR range", sourceRanges=["x"]),
    wall("between 0 and 65535", priority=70000),
    wall("cannot be found", network="global/networks/none"),
    Row(WALLS, "PATCH", "global/firewalls/own", {"name": "x"}, "name cannot be changed"),
    Row(WALLS, "PATCH", "global/firewalls/own", {"network": "global/networks/default"}, "network cannot be changed"),
    post(NETWORKS, "global/networks", {"name": "x", "autoCreateSubnetworks": False, "mtu": 900}, "Must be between"),
    used(NETWORK),
    used("global/networks/walled"),
    subnetwork("network", "required", network=None),
    subnetwork("ipCidrRange", "required", ipCidrRange=None),
    subnetwork("is not the region of the request", region="us-east1"),
    subnetwork("valid CIDR range", ipCidrRange="10.0.0.1/8"),
    subnetwork("at most 29 bits", ipCidrRange="10.0.0.0/30"),
    subnetwork("conflicts with the range of the existing subnetwork", ipCidrRange="10.10.8.0/24"),
    used(f"{REGION}/subnetworks/own"),
    used(f"{REGION}/subnetworks/bare"),
    post(ADDRESSES, "global/addresses", {"name": "x", "networkTier": "STANDARD"}, "of the tier PREMIUM"),
    used("global/addresses/taken"),
    forwarding("is not reserved in the project", IPAddress="192.0.2.1"),
    forwarding("cannot be found", IPAddress="global/addresses/none"),
    forwarding("The address is in another place", place=REGION, IPAddress="global/addresses/free"),
    forwarding("in-use and would result in a conflict", IPAddress="global/addresses/taken", portRange="8003"),
]


@functools.cache
def standing() -> Service:
    """What is asked: nothing that is refused changes it, and no time passes."""
    service = Service()
    service.done("POST", f"{ELSEWHERE}/instanceTemplates", template_body("far", "blue"))
    service.done("POST", f"{ELSEWHERE}/healthChecks", {"name": "far", "type": "HTTP"})
    service.group("far", size=0, place=AWAY, template="blue")
    for name, place in (("scaled", ZONE), ("wide", REGION)):
        target = service.group(name, size=0, place=place, template="blue")
        policy = {"minNumReplicas": 0, "maxNumReplicas": 1}
        service.done("POST", f"{place}/autoscalers", {"name": name, "target": target, "autoscalingPolicy": policy})
    service.done("POST", "global/backendServices", {**service.backend("tcp", group="blue"), "protocol": "TCP"})
    service.done("POST", "global/backendServices", service.backend("classic", "EXTERNAL", group="blue"))
    service.done("POST", "global/targetTcpProxies", {"name": "tcp", "service": TCP})
    rule = {"name": "tcp", "portRange": "8002", "loadBalancingScheme": "EXTERNAL_MANAGED"}
    service.done("POST", "global/forwardingRules", {**rule, "target": "global/targetTcpProxies/tcp"})
    in_own_network(service)
    service.done("POST", f"global/healthChecks?requestId={ONCE}", {"name": "once", "type": "HTTP"})
    service.stable(GROUP)
    begun = [
        service.call("POST", "global/images", {"name": "young", **SOURCE}),
        service.call("POST", "global/healthChecks", {"name": "young", "type": "HTTP"}),
        service.call("DELETE", machines(service)[LEAVING]),
    ]
    assert all(each.ok for each in begun), [each.text for each in begun]
    return service


def in_own_network(service: Service) -> None:
    """A network with a subnetwork for a template and one for a machine, another with a firewall rule; addresses."""
    for name in ("own", "walled"):
        service.done("POST", "global/networks", {"name": name, "autoCreateSubnetworks": False})
    for name, place, block in (
        ("own", REGION, "10.10.0.0/16"),
        ("bare", REGION, "10.11.0.0/16"),
        ("far", ELSEWHERE, "10.12.0.0/16"),
    ):
        body = {"name": name, "network": NETWORK, "ipCidrRange": block}
        service.done("POST", f"{place}/subnetworks", body)
    for name, subnetwork in (("own", f"{REGION}/subnetworks/own"), ("blue-far", f"{ELSEWHERE}/subnetworks/far")):
        card = [{"subnetwork": subnetwork}]
        service.done("POST", "global/instanceTemplates", template_body(name, "blue", networkInterfaces=card))
    card = [{"subnetwork": f"{REGION}/subnetworks/bare"}]
    service.done("POST", "global/instanceTemplates", template_body("bare", "blue", networkInterfaces=card))
    service.stable(service.group("bare", size=1, template="bare"))
    service.done("POST", f"{ZONE}/instanceGroupManagers/bare/setInstanceTemplate", {"instanceTemplate": BLUE})
    service.done("DELETE", "global/instanceTemplates/bare")
    wall = {"name": "own", "network": "global/networks/walled", "allowed": [{"IPProtocol": "tcp"}]}
    service.done("POST", "global/firewalls", wall)
    for name in ("free", "taken"):
        service.done("POST", "global/addresses", {"name": name})
    rule = {"name": "kept", "portRange": "8003", "loadBalancingScheme": "EXTERNAL_MANAGED"}
    way = {"target": "global/targetHttpProxies/proxy", "IPAddress": "global/addresses/taken"}
    service.done("POST", "global/forwardingRules", {**rule, **way})


def machines(service: Service) -> dict[str, str]:
    """Blue's two by what rows call them."""
    paths = sorted(service.tail(each["instance"]) for each in service.members(GROUP))
    return dict(zip((LEAVING, MEMBER), paths, strict=True))


def ask(row: Row) -> Any:
    """The answer to a row: machines by their names, and ``$FIELD`` is what the resource has there now."""
    path, body = row.path, json.dumps(row.body)
    for name, there in machines(standing()).items():
        path, body = path.replace(name, there), body.replace(name, there)
    document = json.loads(body)
    marks = document.get("fingerprint", "") if isinstance(document, dict) else ""
    if marks.startswith("$"):
        resource = standing().get(path.removesuffix("/setMetadata"))
        for field in (marks[1:] or "fingerprint").split("."):
            resource = resource[field]
        document["fingerprint"] = resource
    return standing().call(row.verb, path, document)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.path.rpartition('/')[2]} {row.words}"[:60])
def test_what_a_row_says_is_refused(row: Row) -> None:
    """With its status, its reason and its words; and nothing is changed."""
    before = standing().sandbox.inventory()
    refused(ask(row), row.status, row.reason, row.words)
    assert row.source
    assert standing().sandbox.inventory() == before


def test_no_refusal_is_without_a_row() -> None:
    """Whatever the simulator refuses by itself, a row has asked for."""
    with met() as found:
        for row in ROWS:
            ask(row)
    files = sorted(path.relative_to(HOME).as_posix() for path in (HOME / "google/compute").glob("*.py"))
    assert missed(found, *files) == []
