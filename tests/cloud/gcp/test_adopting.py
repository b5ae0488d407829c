"""Which rules of somebody else's a route can take the requests of, on Google."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from osvdeploy.cloud.gcp.adopting import leading, refuse_other_service, takers
from osvdeploy.cloud.gcp.backends import write
from osvdeploy.cloud.interfaces import HealthRule, Route
from osvdeploy.cloud.tags import SERVICE
from osvdeploy.errors import UsageError
from osvdeploy.sandbox.core import Moment
from osvdeploy.sandbox.wire import Call
from tests.contract.gcp_place import PROJECT
from tests.contract.gcp_scene import ZONE, GcpScene, gcp_scene
from tests.contract.scenes import SERVICE as OWNER
from tests.contract.test_adoption import GROUP, request

MAP = "projects/p/global/urlMaps/web"
THEIRS = "projects/p/global/backendServices/theirs"
OTHER = "projects/p/global/backendServices/other"


def route(priority: int = 100, **changes: Any) -> Route:
    health = HealthRule("/healthz", 5.0, 2.0)
    made: dict[str, Any] = {"path": "/*", **changes}
    return Route("0123456789", "hello/production", MAP, priority, 8080, health, "x-preview", **made)


def url_map(*rules: dict[str, Any], default: str = OTHER, **changes: Any) -> dict[str, Any]:
    """A map of which every host has these rules."""
    matcher = {"name": "all", "defaultService": default, "routeRules": list(rules)}
    host = {"hosts": ["*"], "pathMatcher": "all"}
    return {"name": "web", "defaultService": default, "hostRules": [host], "pathMatchers": [matcher], **changes}


def rule(priority: int, service: str = THEIRS, path: str = "/", **changes: Any) -> dict[str, Any]:
    return {"priority": priority, "matchRules": [{"prefixMatch": path}], "service": service, **changes}


def led(found: dict[str, Any], *, priority: int = 100, **changes: Any) -> str:
    return leading(found, route(priority, **changes), {THEIRS}, "legacy")[1]


def test_the_rule_with_just_these_requests_leads() -> None:
    """A route rule, the default of a path matcher, the map's own."""
    assert led(url_map(rule(200))) == "the rule at priority 200 of path matcher all"
    assert led(url_map(default=THEIRS)) == "the default of path matcher all"
    assert led({"name": "web", "defaultService": THEIRS}) == "the default of URL map web"
    assert "200" in led(url_map(rule(200, path="/api/")), path="/api/*")
    weighted = {"weightedBackendServices": [{"backendService": THEIRS, "weight": 100}]}
    plain = {key: value for key, value in rule(200).items() if key != "service"}
    assert "200" in led(url_map({**plain, "routeAction": weighted}))


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (url_map(), "sends to other"),
        (url_map(rule(200, path="/api/")), "sends to other"),
        (url_map(rule(50)), "would come first"),
        (url_map(rule(150, OTHER, "/api/"), rule(200)), "the rule at 150 stands before"),
        (url_map(rule(200, urlRedirect={"httpsRedirect": True})), "does more than forward"),
        (url_map(rule(200, routeAction={"urlRewrite": {"pathPrefixRewrite": "/"}})), "does more than forward"),
        (url_map(rule(200, OTHER)), "sends to other"),
        (
            url_map(
                {
                    "priority": 200,
                    "matchRules": [{"prefixMatch": "/"}],
                    "routeAction": {
                        "weightedBackendServices": [
                            {"backendService": THEIRS, "weight": 50},
                            {"backendService": OTHER, "weight": 50},
                        ]
                    },
                }
            ),
            "sends to theirs, other",
        ),
        (
            {
                "name": "web",
                "hostRules": [{"hosts": ["*"], "pathMatcher": "all"}],
                "pathMatchers": [{"name": "all", "pathRules": [{"paths": ["/*"], "service": THEIRS}]}],
            },
            "has pathRules",
        ),
    ],
)
def test_what_a_rule_of_ours_could_not_do_just_the_same_is_refused(found: dict[str, Any], told: str) -> None:
    """Each by its name."""
    with pytest.raises(UsageError, match=told):
        led(found)


def test_a_host_without_rules_of_its_own_is_refused() -> None:
    """A matcher for it alone would leave out what every host has."""
    with pytest.raises(UsageError, match="no host rule for a"):
        led(url_map(rule(200)), host="a.example")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"iap": {"enabled": True}}, "login"),
        ({"securityPolicy": "projects/p/global/securityPolicies/guard"}, "security policy"),
        ({"enableCDN": True}, "cached"),
        ({"sessionAffinity": "CLIENT_IP"}, "keeps clients"),
        ({"customResponseHeaders": ["x: y"]}, "adds headers"),
        ({"protocol": "HTTP2"}, "speaks HTTP2"),
        ({"portName": "admin"}, "answer at port 9000"),
        ({"portName": "gone"}, "nobody says which"),
        ({"backends": [{"group": "a"}, {"group": "b"}]}, "other groups"),
    ],
)
def test_what_a_backend_service_of_ours_would_not_do_is_refused(changes: dict[str, Any], told: str) -> None:
    """Logins and filters above all."""
    service = {"name": "theirs", "protocol": "HTTP", "portName": "web", "backends": [{"group": "a"}]}
    ports = [{"name": "web", "port": 8080}, {"name": "admin", "port": 9000}]
    manager = {"instanceTemplate": "t", "namedPorts": ports}
    refuse_other_service(service, manager, route(), "legacy")
    with pytest.raises(UsageError, match=told):
        refuse_other_service({**service, **changes}, manager, route(), "legacy")


def test_only_what_has_just_these_requests_would_lose_them() -> None:
    """In their order, after the route's own place."""
    assert takers(url_map(rule(200), default=OTHER), route()) == [
        ("the rule at priority 200", (THEIRS,)),
        ("the default of all", (OTHER,)),
    ]
    assert takers(url_map(rule(50), default=OTHER), route()) == [("the default of all", (OTHER,))]
    assert takers(url_map(rule(200)), route(path="/api/*")) == []


def larger(scene: GcpScene) -> None:
    """Their group of two is put behind slot blue, with three machines."""
    scene.cloud.groups.attach(scene.ctx, replace(request(scene), capacity=3))


@pytest.fixture
def scaled() -> GcpScene:
    scene = gcp_scene()
    scene.plant_service(GROUP, 200)
    scene.until(lambda: scene.ask().status == 200)
    scene.scale(GROUP, 1, 6)
    return scene


def mode(scene: GcpScene) -> str:
    found = scene.network.ask("GET", f"zones/{ZONE}/autoscalers/scales-{GROUP}")
    return str(found["autoscalingPolicy"].get("mode", "ON"))


@pytest.mark.sandbox
def test_an_autoscaler_that_its_user_has_turned_off_stays_so(scaled: GcpScene) -> None:
    """Before the group was made larger, or while it only keeps its size by us."""
    groups, off = scaled.cloud.groups, {"autoscalingPolicy": {"mode": "OFF"}}
    before = groups.scaling(scaled.ctx, GROUP)
    assert before is not None
    groups.pause(scaled.ctx, GROUP)
    link = f"projects/{PROJECT}/zones/{ZONE}/autoscalers?autoscaler=scales-{GROUP}"
    write(scaled.place.gcp(), scaled.ctx, link, off, link)
    groups.resume(scaled.ctx, GROUP, before)
    assert mode(scaled) == "OFF"
    theirs = groups.scaling(scaled.ctx, GROUP)
    assert theirs is not None
    larger(scaled)
    groups.resume(scaled.ctx, GROUP, theirs, grown=True)
    assert mode(scaled) == "OFF"


@pytest.mark.sandbox
def test_a_group_whose_autoscaler_is_turned_off_is_known_as_ours(scaled: GcpScene) -> None:
    """Whoever dies between that and its larger size is found, and the group let go as it was."""
    owned: list[bool] = []

    def hook(moment: Moment, call: Call) -> None:
        if call.operation == "autoscalers.patch" and moment is Moment.BEFORE:
            there = scaled.place.sandbox.hook
            scaled.place.sandbox.hook = None
            owned.append([each.name for each in scaled.cloud.groups.owned(scaled.ctx, {SERVICE: OWNER})] == [GROUP])
            scaled.place.sandbox.hook = there

    scaled.place.sandbox.hook = hook
    larger(scaled)
    assert owned == [True] and mode(scaled) == "OFF"
