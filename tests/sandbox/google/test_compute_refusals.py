"""What simulated Compute Engine refuses beyond its discovery document: each refusal a row, with where it is written.

A row is asked of a project that is otherwise in order, with blue and green behind a balancer. Of the files that are
listed no refusal is without a row.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import pytest

from tests.sandbox.google.fleet import REGION, ZONE, Service, template_body
from tests.sandbox.google.place import refused
from tests.sandbox.google.refusal_sites import met, missed

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
TEMPLATES = f"{REFERENCE}, instanceTemplates"
MANAGERS = f"{REFERENCE}, instanceGroupManagers"
SCALERS = f"{REFERENCE}, autoscalers"
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


SOURCE = {"rawDisk": {"source": "https://storage.googleapis.com/acme/blue.tar.gz"}}


def image(source: str, words: str, reason: str = "invalid", status: int = 400, **fields: Any) -> Row:
    return post(source, "global/images", {"name": "x", **SOURCE, **fields}, words, reason, status)


def disk(**settings: Any) -> dict[str, Any]:
    return {"boot": True, "initializeParams": {"sourceImage": "global/images/blue", **settings}}


def template(words: str, reason: str = "invalid", **properties: Any) -> Row:
    return post(TEMPLATES, "global/instanceTemplates", template_body("x", "blue", **properties), words, reason)


ELSEWHERE = "regions/us-east1"
BLUE = "global/instanceTemplates/blue"
GROUP = f"{ZONE}/instanceGroupManagers/blue"
MANY = {"name": "x", "targetSize": 2, "instanceTemplate": BLUE}


def group(source: str, words: str, reason: str = "invalid", place: str = ZONE, **fields: Any) -> Row:
    body = {name: value for name, value in {**MANY, **fields}.items() if value is not None}
    return post(source, f"{place}/instanceGroupManagers", body, words, reason)


def policy(words: str, place: str = ZONE, **settings: Any) -> Row:
    return group(UPDATES, words, place=place, updatePolicy=settings)


def versions(words: str, *given: dict[str, Any], reason: str = "invalid", **fields: Any) -> Row:
    return group(CANARY, words, reason, versions=list(given), **{"instanceTemplate": None, **fields})


TO = "global/backendServices/blue"


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


def mapped(words: str, **fields: Any) -> Row:
    return post(MAPS, "global/urlMaps", {"name": "x", "defaultService": TO, **fields}, words)


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


def forwarding(words: str, reason: str = "invalid", **fields: Any) -> Row:
    rule = {"name": "x", "portRange": "8001", "loadBalancingScheme": "EXTERNAL_MANAGED"}
    return post(
        RULES, "global/forwardingRules", {**rule, "target": "global/targetHttpProxies/proxy", **fields}, words, reason
    )


def wall(words: str, reason: str = "invalid", **fields: Any) -> Row:
    allowed = [{"IPProtocol": "tcp"}]
    return post(WALLS, "global/firewalls", {"name": "x", "allowed": allowed, **fields}, words, reason)


def scaler(words: str, reason: str = "invalid", **fields: Any) -> Row:
    bounds = {"minNumReplicas": 1, "maxNumReplicas": 3}
    return post(
        SCALERS,
        f"{ZONE}/autoscalers",
        {"name": "x", "target": GROUP, "autoscalingPolicy": bounds, **fields},
        words,
        reason,
    )


ROWS = [
    # ------------------------------------------------------------------------------------------------ in common
    checked("Must be a match of regex", name="A"),
    checked("at most 2048 characters", description="x" * 2049),
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
    template("Boot disk", disks=[]),
    template("needs a source image", disks=[{"boot": True, "initializeParams": {}}]),
    template("No such disk type", disks=[disk(diskType="none")]),
    template("diskSizeGb", disks=[disk(diskSizeGb="0")]),
    template("The URL is malformed", disks=[disk(sourceImage="rubbish")]),
    template("cannot be found", disks=[disk(sourceImage="global/images/none")]),
    template("At least one network interface", networkInterfaces=[]),
    template("The URL is malformed", networkInterfaces=[{"network": "rubbish"}]),
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
    policy("Only regional groups redistribute", instanceRedistributionType="PROACTIVE"),
    policy("cannot both be 0", maxSurge={"fixed": 0}, maxUnavailable={"fixed": 0}),
    policy("replacement method RECREATE", replacementMethod="RECREATE", maxSurge={"fixed": 1}),
    policy("not below 0", maxSurge={"fixed": 1, "percent": 1}),
    policy("groups of 10 machines or more", place=REGION, maxSurge={"percent": 50}),
    policy("at least the number of zones", place=REGION, maxSurge={"fixed": 1}),
    scaler("target", "required", target=None),
    scaler("cannot be found", target=f"{ZONE}/instanceGroupManagers/none"),
    scaler("maxNumReplicas", "required", autoscalingPolicy={}),
    scaler("maxNumReplicas", autoscalingPolicy={"minNumReplicas": 5, "maxNumReplicas": 2}),
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
    service("Duplicate instance groups", backends=[{"group": f"{ZONE}/instanceGroups/blue"}] * 2),
    used(TO),
    post(SERVICES, f"{TO}/getHealth", {"group": f"{ZONE}/instanceGroups/green"}, "no backend of the service"),
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
    used("global/targetHttpProxies/proxy"),
    forwarding("A single port", portRange="8000-8001"),
    forwarding("target", "required", target=None),
    forwarding("is not that of the backend service", loadBalancingScheme="INTERNAL_MANAGED"),
    wall("The URL is malformed", network="rubbish"),
    wall("allowed", "required", allowed=[]),
    wall("IPProtocol", "required", allowed=[{}]),
    wall("Not a port or range", allowed=[{"IPProtocol": "tcp", "ports": ["x"]}]),
    wall("valid CIDR range", sourceRanges=["x"]),
    wall("between 0 and 65535", priority=70000),
]

WHOLE = ("firewalls", "geography", "health_checks", "lists", "machine_types", "policies")
"""Files whose every refusal is a row."""


@functools.cache
def standing() -> Service:
    """What is asked: nothing that is refused changes it."""
    service = Service()
    service.done("POST", f"{ELSEWHERE}/instanceTemplates", template_body("far", "blue"))
    return service


def ask(row: Row) -> Any:
    body = row.body
    if isinstance(body, dict) and body.get("fingerprint") == "$":
        body = {**body, "fingerprint": standing().get(row.path)["fingerprint"]}
    return standing().call(row.verb, row.path, body)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.path.rpartition('/')[2]} {row.words}"[:60])
def test_what_a_row_says_is_refused(row: Row) -> None:
    """With its status, its reason and its words; and nothing is changed."""
    before = standing().sandbox.inventory()
    refused(ask(row), row.status, row.reason, row.words)
    assert row.source
    assert standing().sandbox.inventory() == before


def test_no_refusal_of_these_files_is_without_a_row() -> None:
    """Whatever they refuse by themselves, a row has asked for."""
    with met() as found:
        for row in ROWS:
            ask(row)
    assert missed(found, *(f"compute/{name}.py" for name in WHOLE)) == []
