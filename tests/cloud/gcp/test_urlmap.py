"""Rules in a URL map: put among others, found again, taken out, and nothing else touched."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osvdeploy.cloud.gcp import urlmap
from osvdeploy.cloud.interfaces import HealthRule, ReleaseId, Route, Slot
from osvdeploy.cloud.tags import service_tags
from osvdeploy.errors import NotOurs, UsageError
from osvdeploy.sandbox.google.discovery import api

BLUE, GREEN = ("projects/p/global/backendServices/blue", "projects/p/global/backendServices/green")
NOBODY = "https://compute.googleapis.com/compute/v1/projects/p/global/backendServices/nobody"


def route(service: str = "hello/production", **changes: Any) -> Route:
    named: dict[str, Any] = {
        "key": "0123456789",
        "service": service,
        "listener": "projects/p/global/urlMaps/web",
        "priority": 100,
        "port": 8080,
        "health": HealthRule("/", 5.0, 2.0),
        "preview_header": "x-preview",
        "tags": service_tags(service.partition("/")[0], service, "gs://acme/hello"),
        **changes,
    }
    return Route(**named)


def put(found: dict[str, Any], at: Route, blue: int = 100, release: str = "hello-1") -> dict[str, Any]:
    """The map with all three rules of a route."""
    named = ReleaseId(release)
    rules: dict[Slot | None, dict[str, Any]] = {
        slot: urlmap.rule_of(at, slot, [(link, 100, named)], 1)
        for slot, link in ((Slot.BLUE, BLUE), (Slot.GREEN, GREEN))
    }
    traffic = urlmap.rule_of(at, None, [(BLUE, blue, named), (GREEN, 100 - blue, None)], 1)
    return {**found, **urlmap.with_rules(found, at, {**rules, None: traffic})}


hosts = st.sampled_from([None, "a.example", "*.b.example", "B.example"])
priorities = st.integers(min_value=3, max_value=50000)


@st.composite
def maps(draw: st.DrawFn) -> dict[str, Any]:
    """What a user may have before the first deploy: other hosts and, for some of ours, rules of their own."""
    found: dict[str, Any] = {"name": "web", "defaultService": NOBODY, "fingerprint": "eHg="}
    chosen = draw(st.lists(st.sampled_from(["*", "a.example", "other.example"]), unique=True))
    if chosen:
        found["hostRules"] = [{"hosts": [host], "pathMatcher": f"m{n}"} for n, host in enumerate(chosen)]
        found["pathMatchers"] = [
            {
                "name": f"m{n}",
                "defaultService": NOBODY,
                "routeRules": [{"priority": 1, "matchRules": [{"prefixMatch": "/theirs/"}], "service": NOBODY}],
            }
            for n in range(len(chosen))
        ]
    return found


@given(maps(), hosts, priorities.filter(lambda each: each > 5))
def test_what_is_taken_out_leaves_what_was_there(found: dict[str, Any], host: str | None, priority: int) -> None:
    """Rules put and removed leave the map as it was; while they are there, everything else is."""
    at = route(host=host, priority=priority)
    before = deepcopy(found)
    with_ours = put(found, at)
    assert found == before
    assert set(urlmap.rules_of(with_ours, at)) == {None, Slot.BLUE, Slot.GREEN}
    for matcher in found.get("pathMatchers", []):
        after = next(each for each in with_ours["pathMatchers"] if each["name"] == matcher["name"])
        assert [rule for rule in after["routeRules"] if rule in matcher["routeRules"]] == matcher["routeRules"]
        assert after["routeRules"] == sorted(after["routeRules"], key=lambda rule: rule["priority"])
    left = urlmap.without_rules(with_ours, at)
    assert left is not None
    assert {key: value for key, value in {**with_ours, **left}.items() if value} == found
    assert urlmap.without_rules({**with_ours, **left}, at) is None


@given(maps(), hosts)
def test_what_is_written_is_a_url_map(found: dict[str, Any], host: str | None) -> None:
    """By Google's own description of one, and no mark is longer than a rule's description may be."""
    written = put(found, route(host=host))
    api("compute").check({"$ref": "UrlMap"}, written, "", strict=False)
    rules = [rule for matcher in written["pathMatchers"] for rule in matcher["routeRules"]]
    assert all(len(rule.get("description", "")) <= 1024 for rule in rules)


def test_weights_and_releases_read_back() -> None:
    """Both slots are in the route's rule, each with its weight and the release that is named in its answers."""
    at = route()
    rule = urlmap.rules_of(put({"defaultService": NOBODY}, at, blue=5), at)[None]
    assert urlmap.sent(rule) == {BLUE: (5, "hello-1"), GREEN: (95, None)}
    header = rule["routeAction"]["weightedBackendServices"][0]["headerAction"]["responseHeadersToAdd"]
    assert header == [{"headerName": "x-osvdeploy-release", "headerValue": "hello-1", "replace": True}]


@pytest.mark.parametrize(
    ("change", "action", "told"),
    [
        ({}, {}, ""),
        ({}, {"timeout": {"seconds": "30"}, "retryPolicy": {"numRetries": 1}}, ""),
        ({}, {"urlRewrite": {"pathPrefixRewrite": "/x"}}, "rewrites requests"),
        ({}, {"faultInjectionPolicy": {"abort": {"httpStatus": 503}}}, "answers some requests with faults"),
        ({"routeAction": {}, "urlRedirect": {"hostRedirect": "b.example"}}, {}, "redirects"),
        ({"routeAction": {}, "service": NOBODY}, {}, "sends all to nobody"),
        (
            {"matchRules": [{"prefixMatch": "/api/", "ignoreCase": True}]},
            {},
            "takes prefixMatch /api/ ignoreCase True, and not prefixMatch /api/",
        ),
        ({"matchRules": [{"fullPathMatch": "/x"}, {"prefixMatch": "/api/", "ignoreCase": False}]}, {}, ""),
        ({"matchRules": [{"prefixMatch": "/"}]}, {}, "takes every request, and not prefixMatch /api/"),
    ],
)
def test_a_rule_is_told_where_clients_notice_what_somebody_changed(
    change: dict[str, Any], action: dict[str, Any], told: str
) -> None:
    """What only tunes it is none of theirs, nor is a path beside the route's own."""
    at = route(path="/api/*")
    rule = urlmap.rules_of(put({"defaultService": NOBODY}, at), at)[None]
    found = {**rule, "routeAction": {**rule["routeAction"], **action}, **change}
    assert urlmap.changed(found, at, ["blue", "green"]) == told


@pytest.mark.parametrize(("weight", "told"), [(0, ""), (900, "sends 900 of 1000 to nobody")])
def test_a_stranger_in_a_rule_is_told_where_it_has_weight(weight: int, told: str) -> None:
    """Without any it gets no client."""
    at = route()
    rule = urlmap.rules_of(put({"defaultService": NOBODY}, at), at)[None]
    rule["routeAction"]["weightedBackendServices"].append({"backendService": NOBODY, "weight": weight})
    assert urlmap.changed(rule, at, ["blue", "green"]) == told


def test_a_map_s_default_stays_the_default_of_a_host_of_ours() -> None:
    """A request that no rule takes is answered as before."""
    redirect = {"httpsRedirect": True}
    written = put({"name": "web", "defaultUrlRedirect": redirect}, route())
    assert written["pathMatchers"][0]["defaultUrlRedirect"] == redirect
    assert "defaultService" not in written["pathMatchers"][0]


def test_services_of_one_host_share_its_matcher() -> None:
    """Each has rules of its own in it, and it goes with the last."""
    first, second = route(host="a.example"), route("other/production", host="A.example", priority=200)
    both = put(put({"defaultService": NOBODY}, first), second)
    assert len(both["pathMatchers"]) == len(both["hostRules"]) == 1
    left = urlmap.without_rules(both, first)
    assert left is not None and len(left["pathMatchers"]) == 1
    gone = urlmap.without_rules({**both, **left}, second)
    assert gone == {"hostRules": [], "pathMatchers": []}


@pytest.mark.parametrize("offset", [-2, -1, 0])
def test_another_s_rule_is_refused_by_its_priority(offset: int) -> None:
    """Whoever made it, and another service of ours likewise."""
    at = route()
    theirs = {"priority": 100 + offset, "description": "the shop", "service": NOBODY}
    found = {
        "hostRules": [{"hosts": ["*"], "pathMatcher": "m"}],
        "pathMatchers": [{"name": "m", "routeRules": [theirs]}],
    }
    with pytest.raises(NotOurs, match=rf"priority {100 + offset} of path matcher m was not made by us"):
        urlmap.rules_of(found, at)
    with pytest.raises(NotOurs, match="belongs to other/production"):
        urlmap.rules_of(put({"defaultService": NOBODY}, route("other/production")), at)


def test_path_rules_beside_are_refused() -> None:
    """A matcher has rules of one form alone."""
    found = {
        "name": "web",
        "hostRules": [{"hosts": ["*"], "pathMatcher": "m"}],
        "pathMatchers": [{"name": "m", "pathRules": [{"paths": ["/x"], "service": NOBODY}]}],
    }
    with pytest.raises(UsageError, match="pathRules") as raised:
        put(found, route())
    assert raised.value.hint


@pytest.mark.parametrize(
    ("path", "match"),
    [
        (None, {"prefixMatch": "/"}),
        ("/*", {"prefixMatch": "/"}),
        ("/api/*", {"prefixMatch": "/api/"}),
        ("/api", {"fullPathMatch": "/api"}),
    ],
)
def test_a_path_is_matched_whole_or_by_its_beginning(path: str | None, match: dict[str, str]) -> None:
    """As far as every balancer of Google's can."""
    assert urlmap.rule_of(route(path=path), None, [], 0)["matchRules"] == [match]


@pytest.mark.parametrize("path", ["/a*b", "/a?", "/*/x*"])
def test_other_patterns_are_refused(path: str) -> None:
    """With what can be said in their place."""
    with pytest.raises(UsageError, match="a whole path, or one that ends in"):
        urlmap.rule_of(route(path=path), None, [], 0)
