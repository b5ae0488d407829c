"""Any document that Google's schema allows, sent to every simulated method of Compute Engine that takes one."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from osvdeploy.sandbox.google.compute import PARAMETERS
from osvdeploy.sandbox.google.discovery import api
from tests.sandbox.google.fleet import PORT, REGION, ROOT, ZONE, Service

pytestmark = pytest.mark.sandbox

HERE = {
    "instanceGroupManager": "blue",
    "instanceGroup": "blue",
    "instanceTemplate": "blue",
    "autoscaler": "a",
    "healthCheck": "up",
    "backendService": "blue",
    "urlMap": "map",
    "targetHttpProxy": "proxy",
    "forwardingRule": "rule",
    "image": "blue",
    "resource": "rule",
    "zone": ZONE.partition("/")[2],
    "region": REGION.partition("/")[2],
    "project": "p",
}

LINKS = (
    "global/backendServices/blue",
    f"{ROOT}/global/backendServices/green",
    "global/healthChecks/up",
    "global/images/blue",
    "global/instanceTemplates/blue",
    "global/targetHttpProxies/proxy",
    "global/urlMaps/map",
    f"{ZONE}/instanceGroupManagers/blue",
    f"{ZONE}/instanceGroups/green",
)
SERVICES, SLASHES = LINKS[:2], ("/", "/a/*", "/a/b")
LIKELY: Mapping[str, tuple[str, ...]] = {
    "backendService": SERVICES,
    "defaultService": SERVICES,
    "fullPathMatch": SLASHES,
    "group": (LINKS[-1], f"{ZONE}/instanceGroups/blue"),
    "headerName": ("X-A", "x-b"),
    "healthChecks": LINKS[2:3],
    "hosts": ("*", "*.b.c", "b.c"),
    "instanceTemplate": LINKS[4:5],
    "loadBalancingScheme": ("EXTERNAL_MANAGED",),
    "name": ("a", "b", "http"),
    "pathMatcher": ("a", "b"),
    "paths": SLASHES,
    "portRange": ("8001", "8002"),
    "prefixMatch": SLASHES,
    "protocol": ("HTTP",),
    "service": SERVICES,
    "target": (LINKS[5], LINKS[7]),
    "urlMap": LINKS[6:7],
}
"""What makes sense where: most of what is sent should get past its first field."""

WORDS = ("a", "e2-small", "all", "http", "8000", "/", "/a/*", "*", "*.b.c", "X-A", "1", "HTTP", "TCP", "ONLY_UP")

METHODS = sorted(
    name
    for name, method in api("compute").methods.items()
    if name in PARAMETERS and "request" in method.document and not name.startswith(("images.", "instances."))
)


def shaped(schema: Mapping[str, Any], at: str, known: frozenset[str]) -> st.SearchStrategy[Any]:
    """Values of a schema, of which only what is simulated is given."""
    if "$ref" in schema:
        schema = api("compute").document["schemas"][schema["$ref"]]
    match schema.get("type", "object"):
        case "array":
            return st.lists(shaped(schema["items"], at, known), max_size=2)
        case "boolean":
            return st.booleans()
        case "integer":
            return st.sampled_from([0, 1, 2, 3, 5, 8080]) | st.sampled_from([1000, 1001, 70000, (1 << 31) - 1])
        case "number":
            return st.sampled_from([0.0, 0.1, 0.5, 1.0, 2.0])
        case "string":
            if at.rpartition(".")[2] in LIKELY:
                return st.sampled_from(LIKELY[at.rpartition(".")[2]])
            if "enum" in schema:
                return st.sampled_from(schema["enum"])
            if schema.get("format") in ("int64", "uint64"):
                return st.integers(0, 1 << 40).map(str)
            return st.sampled_from(LINKS + WORDS) | st.text(max_size=6)
    members = {
        name: shaped(each, f"{at}.{name}", known)
        for name, each in schema.get("properties", {}).items()
        if _is_known(f"{at}.{name}", known) and each.get("format") not in ("byte", "date-time")
    }
    return st.fixed_dictionaries(
        {}, optional={name: each | st.none() if at else each for name, each in members.items()}
    )


def _is_known(at: str, known: frozenset[str]) -> bool:
    return any(each == at or each.startswith(f"{at}.") for each in known)


NUMBERS = itertools.count()


@functools.cache
def bodies(method: str) -> st.SearchStrategy[Any]:
    known = frozenset(PARAMETERS[method].split())
    return shaped(api("compute").methods[method].document["request"], "body", known)


@functools.cache
def service() -> Service:
    return Service()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), method=st.sampled_from(METHODS))
def test_any_body_is_answered_and_does_no_harm(data: st.DataObject, method: str) -> None:
    """With an operation or a refusal in Google's form; what came of it can be looked at, and requests are answered."""
    body, place = data.draw(bodies(method)), service()
    found = api("compute").methods[method]
    path = found.document["path"]
    for name, value in HERE.items():
        path = path.replace(f"{{{name}}}", value)
    kept = path.removeprefix("projects/p/")
    if method.endswith(".insert"):
        body["name"] = f"made-{next(NUMBERS)}"
    if found.verb in ("PUT", "PATCH"):
        now = place.call("GET", kept)
        body |= {"fingerprint": now.json()["fingerprint"]} if now.ok and "fingerprint" in now.json() else {}
    told = place.call(found.verb, kept, body)
    assert told.status_code < 500, (method, body, told.text)
    if not told.ok:
        assert told.json()["error"]["errors"][0]["reason"] not in ("internalFailure", "InternalFailure")
        return
    place.wait(30)
    for listed in ("global/urlMaps", "global/backendServices", f"{ZONE}/instanceGroupManagers", f"{ZONE}/autoscalers"):
        place.get(listed)
    for header in ("a", ""):
        place.http.get(place.address, PORT, "/a/b", {"Host": "x", "X-A": header})
