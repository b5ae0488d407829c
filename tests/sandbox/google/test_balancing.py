"""Google's balancers in the sandbox: what they are made of, what of that is refused, and where requests go."""

from __future__ import annotations

import functools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osvdeploy.sandbox.dataplane import HttpRequest, SendTo, Target, TargetState
from osvdeploy.sandbox.google.compute.routing import UrlMapFront
from osvdeploy.sandbox.runners import NoAnswer
from tests.sandbox.google.fleet import PORT, REGION, ROOT, ZONE, Service
from tests.sandbox.google.place import refused

pytestmark = pytest.mark.sandbox


@pytest.fixture
def service() -> Service:
    return Service()


@functools.cache
def shared() -> Service:
    """One for all tests that change nothing."""
    return Service()


def to(service: Service, color: str, header: str = "x-slot", **more: Any) -> dict[str, Any]:
    """A route rule that leads a header's value to a color."""
    match = {"prefixMatch": "/", "headerMatches": [{"headerName": header, "exactMatch": color}]}
    return {"matchRules": [match], "service": service.link(color), **more}


# ------------------------------------------------------------------------------------------------------- the data plane


@pytest.mark.parametrize("place", ["global", REGION])
def test_a_request_goes_to_a_healthy_machine_of_the_default(place: str) -> None:
    """At the rule's own address, when all of it is in force."""
    service = Service(place)
    assert service.http.get(service.address, PORT, "/") is NoAnswer.REFUSED
    service.ready("blue")
    assert service.seen() == {"blue": 100}
    assert service.http.get(service.address, PORT + 1, "/") is NoAnswer.REFUSED


def test_weights_split_requests_and_move_them_with_a_delay(service: Service) -> None:
    """A service of weight 0 is checked all the same, and gets nothing."""
    service.change(defaultService=None, defaultRouteAction=service.weights(100, 0))
    service.ready("blue", "green")
    assert service.seen() == {"blue": 100}
    service.change(defaultRouteAction=service.weights(75, 25))
    assert service.seen() == {"blue": 100}
    service.wait(25)
    assert 70 <= service.seen()["blue"] <= 80
    service.change(defaultRouteAction=service.weights(0, 1000))
    service.wait(25)
    assert service.seen() == {"green": 100}


def test_route_rules_are_tried_by_priority_and_lead_by_header(service: Service) -> None:
    """The lowest number first, wherever it stands in the list; headers are added on the way back."""
    added = {"responseHeadersToAdd": [{"headerName": "X-Release", "headerValue": "app-1", "replace": True}]}
    rest = {
        "priority": 10,
        "matchRules": [{"prefixMatch": "/"}],
        "routeAction": service.weights(1, 0),
        "headerAction": added,
    }
    preview = to(service, "green", priority=2)
    service.change(**service.routed(rest, preview))
    service.ready("blue", "green")
    assert service.seen(20) == {"blue": 20}
    assert service.seen(20, x_slot="green") == {"green": 20}
    assert service.seen(20, X_SLOT="other") == {"blue": 20}
    assert service.answer().headers["X-Release"] == "app-1"
    assert service.answer().headers["Via"] == "1.1 google"
    assert "X-Release" not in service.answer(x_slot="green").headers


@pytest.mark.parametrize(
    ("match", "value", "held"),
    [
        ({"exactMatch": "a"}, "a", True),
        ({"exactMatch": "a"}, "A", False),
        ({"prefixMatch": "a"}, "ab", True),
        ({"suffixMatch": "b"}, "ab", True),
        ({"presentMatch": True}, "", True),
        ({"presentMatch": True}, None, False),
        ({"presentMatch": True, "invertMatch": True}, None, True),
        ({"exactMatch": "a", "invertMatch": True}, "b", True),
        ({"rangeMatch": {"rangeStart": "1", "rangeEnd": "5"}}, "4", True),
        ({"rangeMatch": {"rangeStart": "1", "rangeEnd": "5"}}, "5", False),
        ({"rangeMatch": {"rangeStart": "1", "rangeEnd": "5"}}, "x", False),
    ],
)
def test_headers_match_as_they_are_told_to(match: dict[str, Any], value: str | None, held: bool) -> None:
    """And the other way round, where that is asked for."""
    front = UrlMapFront(
        PORT,
        {
            "hostRules": [{"hosts": ["*"], "pathMatcher": "m"}],
            "pathMatchers": [
                {
                    "name": "m",
                    "defaultService": "no",
                    "routeRules": [
                        {
                            "priority": 1,
                            "matchRules": [{"prefixMatch": "/", "headerMatches": [{"headerName": "X-A", **match}]}],
                            "service": "yes",
                        }
                    ],
                }
            ],
        },
        "EXTERNAL_MANAGED",
        {},
    )
    headers = () if value is None else (("x-a", value),)
    targets = {f" {each}": (Target(each, "127.0.9.1", 1, TargetState.HEALTHY),) for each in ("yes", "no")}
    sent = front.decide(HttpRequest("GET", "/", headers), targets, 0.5)
    assert isinstance(sent, SendTo)
    assert (sent.target.id == "yes") is held


def test_hosts_and_paths_lead_by_the_longest_that_fits(service: Service) -> None:
    """A whole name before a pattern."""
    service.change(
        hostRules=[
            {"hosts": ["*"], "pathMatcher": "any"},
            {"hosts": ["*.example.com"], "pathMatcher": "green"},
            {"hosts": ["api.example.com"], "pathMatcher": "any"},
        ],
        pathMatchers=[
            {
                "name": "any",
                "defaultService": service.link("blue"),
                "pathRules": [
                    {"paths": ["/a/*"], "service": service.link("green")},
                    {"paths": ["/a/b"], "service": service.link("blue")},
                ],
            },
            {"name": "green", "defaultService": service.link("green")},
        ],
    )
    service.ready("blue", "green")

    def at(path: str, host: str = "x") -> str:
        return service.answer(path, Host=host).headers["x-from"]

    assert (at("/"), at("/a/c"), at("/a/b"), at("/a"), at("/ab")) == ("blue", "green", "blue", "green", "blue")
    assert (at("/", "www.example.com:80"), at("/", "api.example.com")) == ("green", "blue")


def test_nothing_is_sent_to_what_is_not_healthy(service: Service) -> None:
    """Neither in place of another service nor for want of one."""
    service.publish("sick", headers={"x-from": "sick"}, answers={"*": 500}, port=8080)
    service.template("sick", "sick")
    service.group("sick", size=1, template="sick", namedPorts=[{"name": "http", "port": 8080}])
    service.done("POST", "global/backendServices", service.backend("sick"))
    service.change(defaultService=service.link("sick"))
    service.wait(60)
    assert service.health("sick") == ["UNHEALTHY"]
    answer = service.answer()
    assert (answer.status, answer.body) == (503, b"no healthy upstream")


def test_a_service_is_checked_only_where_a_rule_leads_to_it(service: Service) -> None:
    """Before that there is nothing to tell."""
    service.ready("blue")
    assert service.health("green") == []
    service.change(defaultService=None, defaultRouteAction=service.weights(1, 0))
    assert service.health("green") == ["UNHEALTHY", "UNHEALTHY"]
    service.ready("green")
    refused(
        service.call("POST", f"{service.link('blue')}/getHealth", {"group": f"{ZONE}/instanceGroups/green"}),
        400,
        "invalid",
        "group",
    )


def test_a_service_may_have_nothing_behind_it(service: Service) -> None:
    """And no health check, until it has a group."""
    empty = {"name": "empty", "loadBalancingScheme": "EXTERNAL_MANAGED"}
    service.done("POST", "global/backendServices", empty)
    service.change(defaultService="global/backendServices/empty")
    service.wait(60)
    assert service.answer().status == 503
    path = "global/backendServices/empty"
    full = {name: service.backend("blue")[name] for name in ("healthChecks", "backends")}
    service.done("PATCH", path, {**full, "fingerprint": service.get(path)["fingerprint"]})
    service.wait(60)
    assert service.seen(5) == {"blue": 5}


def test_machines_drain_before_they_end(service: Service) -> None:
    """They get nothing new, and run on for as long as the service says."""
    path = service.link("blue")
    draining = {"connectionDraining": {"drainingTimeoutSec": 60}}
    service.done("PATCH", path, {"fingerprint": service.get(path)["fingerprint"], **draining})
    service.ready("blue")
    service.done("POST", f"{ZONE}/instanceGroupManagers/blue/resize?size=1")
    service.wait(5)
    states = [
        (each["currentAction"], each["instanceStatus"])
        for each in service.members(f"{ZONE}/instanceGroupManagers/blue")
    ]
    assert sorted(states) == [("DELETING", "RUNNING"), ("NONE", "RUNNING")]
    assert service.health("blue") == ["HEALTHY"]
    service.wait(80)
    assert len(service.members(f"{ZONE}/instanceGroupManagers/blue")) == 1
    assert service.seen(10) == {"blue": 10}


def test_the_classic_balancer_has_no_weights() -> None:
    """What it has works: paths, and route rules that lead to one service."""
    service = Service(scheme="EXTERNAL")
    service.ready("blue")
    assert service.seen(10) == {"blue": 10}
    path = "global/urlMaps/map"
    mark = service.get(path)["fingerprint"]
    weighted = {"fingerprint": mark, "defaultService": None, "defaultRouteAction": service.weights(1, 1)}
    refused(service.call("PATCH", path, weighted), 400, "invalid", "EXTERNAL")
    service.change(**service.routed(to(service, "green", priority=1)))
    service.ready("green")
    assert service.seen(10) == {"blue": 10}
    assert service.answer(x_slot="green").headers["x-from"] == "green"
    service.change(**service.routed(defaultService=service.link("green")))
    service.ready("green")
    assert service.seen(10) == {"green": 10}


def test_a_proxy_takes_another_map_as_a_whole(service: Service) -> None:
    """And a rule another proxy."""
    service.done("POST", "global/urlMaps", {"name": "other", "defaultService": service.link("green")})
    service.done("POST", "targetHttpProxies/proxy/setUrlMap", {"urlMap": f"{ROOT}/global/urlMaps/other"})
    service.ready("green")
    assert service.seen(10) == {"green": 10}
    service.done("POST", "global/targetHttpProxies", {"name": "back", "urlMap": "global/urlMaps/map"})
    service.done("POST", "global/forwardingRules/rule/setTarget", {"target": "global/targetHttpProxies/back"})
    service.ready("blue")
    assert service.seen(10) == {"blue": 10}


@given(
    weights=st.lists(st.integers(0, 1000), min_size=1, max_size=5).filter(any),
    draw=st.floats(0, 1, exclude_max=True),
)
def test_a_draw_falls_on_a_service_that_has_a_weight(weights: list[int], draw: float) -> None:
    """In proportion: what stands before it in the list is no more than the draw's share."""
    services = [{"backendService": str(number), "weight": weight} for number, weight in enumerate(weights)]
    front = UrlMapFront(PORT, {"defaultRouteAction": {"weightedBackendServices": services}}, "EXTERNAL_MANAGED", {})
    there = {
        f" {number}": (Target(str(number), "127.0.9.1", 1, TargetState.HEALTHY),) for number in range(len(weights))
    }
    sent = front.decide(HttpRequest("GET", "/"), there, draw)
    assert isinstance(sent, SendTo)
    picked = int(sent.target.id)
    assert weights[picked]
    assert sum(weights[:picked]) <= draw * sum(weights) + 1e-6 * sum(weights)


# --------------------------------------------------------------------------------------------------------- what is kept


def test_a_stale_fingerprint_is_refused(service: Service) -> None:
    """And one must be given: of a map, of a service, of a proxy."""
    for path, change in (
        ("global/urlMaps/map", {"description": "epoch 2"}),
        (service.link("blue"), {"timeoutSec": 20}),
        ("global/targetHttpProxies/proxy", {"urlMap": "global/urlMaps/map"}),
    ):
        mark = service.get(path)["fingerprint"]
        refused(service.call("PATCH", path, change), 412, "conditionNotMet")
        refused(service.call("PATCH", path, {**change, "fingerprint": "bm90aGluZw=="}), 412, "conditionNotMet")
        service.done("PATCH", path, {**change, "fingerprint": mark})
        if "urlMap" not in change:
            assert service.get(path)["fingerprint"] != mark
            refused(service.call("PATCH", path, {**change, "fingerprint": mark}), 412, "conditionNotMet")


def weighted(*pairs: tuple[str, Any]) -> dict[str, Any]:
    services = [{"backendService": name, "weight": weight} for name, weight in pairs]
    return {"defaultService": None, "defaultRouteAction": {"weightedBackendServices": services}}


BLUE, GREEN = "global/backendServices/blue", "global/backendServices/green"
MATCH = [{"prefixMatch": "/"}]


def rules(*given: dict[str, Any]) -> dict[str, Any]:
    return {
        "hostRules": [{"hosts": ["*"], "pathMatcher": "m"}],
        "pathMatchers": [{"name": "m", "defaultService": BLUE, "routeRules": list(given)}],
    }


def one(**fields: Any) -> dict[str, Any]:
    return rules({"priority": 1, "matchRules": MATCH, "service": BLUE, **fields})


def header(**fields: Any) -> dict[str, Any]:
    return one(matchRules=[{"prefixMatch": "/", "headerMatches": [fields]}])


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"defaultService": "global/backendServices/none"}, "cannot be found"),
        ({"defaultService": None}, "Exactly one of defaultService"),
        ({"defaultRouteAction": {"weightedBackendServices": [{"backendService": BLUE, "weight": 1}]}}, "Exactly one"),
        ({"description": "x" * 2049}, "description"),
        (weighted((BLUE, 0), (GREEN, 0)), "sum of all weights"),
        (weighted((BLUE, 1001)), "between 0 and 1000"),
        (weighted((BLUE, 1), (BLUE, 2)), "Duplicate backend services"),
        (rules({"priority": 1, "matchRules": MATCH, "service": BLUE}) | {"hostRules": []}, None),
        ({"hostRules": [{"hosts": ["*"], "pathMatcher": "none"}]}, "path matcher does not exist"),
        (rules() | {"hostRules": [{"hosts": ["a.b", "A.b"], "pathMatcher": "m"}]}, "Duplicate host"),
        (rules() | {"hostRules": [{"hosts": ["a*"], "pathMatcher": "m"}]}, "Not a valid host"),
        (
            rules(
                {"priority": 1, "matchRules": MATCH, "service": BLUE},
                {"priority": 1, "matchRules": MATCH, "service": GREEN},
            ),
            "must be unique",
        ),
        (one(priority=-1), "priority"),
        (one(matchRules=[]), "match rule"),
        (one(matchRules=[{"prefixMatch": "/", "fullPathMatch": "/"}]), "Exactly one of prefixMatch"),
        (one(matchRules=[{"prefixMatch": "a"}]), "must begin with '/'"),
        (
            one(routeAction={"weightedBackendServices": [{"backendService": BLUE, "weight": 1}]}),
            "Exactly one of service",
        ),
        (header(headerName="x"), "Exactly one of exactMatch"),
        (header(headerName="x", exactMatch="a", presentMatch=True), "Exactly one of exactMatch"),
        (header(headerName="x y", exactMatch="a"), "headerName"),
        (header(headerName="x", rangeMatch={"rangeStart": "1"}), "rangeEnd"),
        (one(headerAction={"responseHeadersToAdd": [{"headerName": "Host", "headerValue": "a"}]}), "headerName"),
        (one(headerAction={"responseHeadersToAdd": [{"headerName": "x", "headerValue": ""}]}), "headerValue"),
        (one(headerAction={"responseHeadersToRemove": ["X-Google-A"]}), "responseHeadersToRemove"),
    ],
)
def test_maps_are_held_to_googles_rules(change: dict[str, Any], named: str | None) -> None:
    """By insert and validate alike; what is refused changes nothing."""
    service = shared()
    body = {"name": "new", "defaultService": BLUE, **change}
    body = {name: value for name, value in body.items() if value is not None}
    told = service.call("POST", "global/urlMaps/new/validate", {"resource": body}).json()["result"]
    assert told["loadSucceeded"] is (named is None)
    if named is not None:
        refused(service.call("POST", "global/urlMaps", body), 400, "invalid", named)
        refused(service.call("GET", "global/urlMaps/new"), 404, "notFound")


@pytest.mark.parametrize(
    ("path", "body", "named"),
    [
        ("global/healthChecks", {"name": "x"}, "type"),
        ("global/healthChecks", {"name": "x", "type": "HTTP", "timeoutSec": 6}, "timeoutSec"),
        ("global/healthChecks", {"name": "x", "type": "HTTP", "healthyThreshold": 11}, "healthyThreshold"),
        ("global/healthChecks", {"name": "x", "type": "HTTP", "httpHealthCheck": {"requestPath": "a"}}, "requestPath"),
        ("global/healthChecks", {"name": "x", "type": "HTTP", "tcpHealthCheck": {"port": 1}}, "tcpHealthCheck"),
        (
            "global/backendServices",
            {"name": "x", "backends": [{"group": f"{ZONE}/instanceGroups/blue"}]},
            "healthChecks",
        ),
        ("global/backendServices", {"name": "x", "healthChecks": ["global/healthChecks/none"]}, "cannot be found"),
        (
            "global/backendServices",
            {
                "name": "x",
                "healthChecks": ["global/healthChecks/up"],
                "backends": [{"group": "zones/a/instanceGroups/b"}],
            },
            "backends[0].group",
        ),
        ("global/targetHttpProxies", {"name": "x"}, "urlMap"),
        ("global/firewalls", {"name": "x"}, "allowed"),
        ("global/firewalls", {"name": "x", "allowed": [{"IPProtocol": "tcp", "ports": ["x"]}]}, "allowed[0].ports"),
        ("global/firewalls", {"name": "x", "allowed": [{"IPProtocol": "tcp"}], "sourceRanges": ["x"]}, "sourceRanges"),
        ("global/targetHttpProxies", {"name": "x", "urlMap": "global/urlMaps/none"}, "cannot be found"),
        ("global/forwardingRules", {"name": "x", "portRange": "8000"}, "target"),
        ("global/forwardingRules", {"name": "x", "portRange": "8000-8001"}, "portRange"),
        (
            "global/forwardingRules",
            {"name": "x", "portRange": "8000", "target": "global/targetHttpProxies/proxy"},
            "load balancing scheme EXTERNAL",
        ),
    ],
)
def test_what_google_refuses_is_refused(path: str, body: dict[str, Any], named: str) -> None:
    """By the name of what is wrong."""
    service = shared()
    answer = service.call("POST", path, body)
    assert answer.status_code == 400 and named in answer.json()["error"]["message"], answer.text


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("global/healthChecks", {"name": "x", "type": "HTTPS"}),
        ("global/backendServices", {"name": "x", "sessionAffinity": "CLIENT_IP"}),
        ("global/urlMaps", {"name": "x", "defaultUrlRedirect": {"httpsRedirect": True}}),
        ("global/urlMaps", one(matchRules=[{"regexMatch": "/.*"}]) | {"name": "x", "defaultService": BLUE}),
        ("global/forwardingRules", {"name": "x", "portRange": "80", "target": "global/targetHttpProxies/proxy"}),
        ("global/addresses", {"name": "x", "addressType": "INTERNAL"}),
        ("global/targetHttpsProxies", {"name": "x"}),
    ],
)
def test_what_is_not_simulated_says_so(path: str, body: dict[str, Any]) -> None:
    """In place of a guess."""
    service = shared()
    refused(service.call("POST", path, body), 400, "notSimulated")


def test_nothing_goes_that_something_else_needs(service: Service) -> None:
    """From the machines up; in the other order all of it goes."""
    used = ("global/healthChecks/up", BLUE, "global/urlMaps/map", "global/targetHttpProxies/proxy")
    for path in (*used, f"{ZONE}/instanceGroupManagers/blue"):
        refused(service.call("DELETE", path), 400, "resourceInUseByAnotherResource")
    service.ready("blue")
    service.done("DELETE", "global/forwardingRules/rule")
    assert service.http.get(service.address, PORT, "/") is NoAnswer.REFUSED
    for path in ("global/targetHttpProxies/proxy", "global/urlMaps/map", BLUE, GREEN, "global/healthChecks/up"):
        service.done("DELETE", path)
    for color in ("blue", "green"):
        service.done("DELETE", f"{ZONE}/instanceGroupManagers/{color}")
        service.done("DELETE", f"global/instanceTemplates/{color}")
    left = service.sandbox.inventory()
    assert {kind for kind in left if kind.startswith("compute.")} == {"compute.image"}


def test_settings_of_checks_and_services_change(service: Service) -> None:
    """By patch in part, by update as a whole; the name stays."""
    service.done("PATCH", "global/healthChecks/up", {"checkIntervalSec": 10, "httpHealthCheck": {"requestPath": "/up"}})
    check = service.get("global/healthChecks/up")
    assert (check["checkIntervalSec"], check["httpHealthCheck"]["requestPath"]) == (10, "/up")
    service.done("PUT", "global/healthChecks/up", {"name": "up", "type": "TCP", "tcpHealthCheck": {"port": 8080}})
    assert "httpHealthCheck" not in service.get("global/healthChecks/up")
    service.ready("blue")
    whole = service.backend("blue") | {"customResponseHeaders": ["X-Release: app-1"]}
    service.done("PUT", BLUE, whole | {"fingerprint": service.get(BLUE)["fingerprint"]})
    service.wait(25)
    assert service.answer().headers["X-Release"] == "app-1"
    labels = {"labels": {"a": "b"}, "labelFingerprint": service.get("global/forwardingRules/rule")["labelFingerprint"]}
    service.done("POST", "global/forwardingRules/rule/setLabels", labels)
    refused(service.call("POST", "global/forwardingRules/rule/setLabels", labels), 412, "conditionNotMet")
    refused(
        service.call(
            "PATCH", BLUE, {"loadBalancingScheme": "EXTERNAL", "fingerprint": service.get(BLUE)["fingerprint"]}
        ),
        400,
        "invalid",
        "cannot be changed",
    )
