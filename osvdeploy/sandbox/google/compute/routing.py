"""What a load balancer of Google's does with one request: an application one by its URL map, a proxy of TCP by its one
backend service. Pure.

Sources: "URL maps overview" and "URL map" in the API reference: hosts (exact before wildcards, longest first), path
rules (longest first), route rules (lowest priority first), which headerAction is applied before which; "Troubleshoot
external Application Load Balancers" (503 ``no healthy upstream``, 502 of the classic one); "External proxy Network Load
Balancer overview" (connections are ended at the proxy and begun anew to a healthy machine).

The sandbox's own limit: what passes through a proxy of TCP must be HTTP, and each request is sent as a connection of
its own would be.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from osvdeploy.sandbox.dataplane import Answer, Decision, Hangup, Headers, HttpRequest, SendTo, Targets, TargetState
from osvdeploy.sandbox.google.compute.resources import path_of

Wire = Mapping[str, Any]

CLASSIC: Final = "EXTERNAL"
"""The scheme of classic balancers, which know neither weights nor route rules."""

VIA: Final = ("Via", "1.1 google")
"""What Google's balancers put on requests and answers."""


def _page(status: int, body: str, kind: str = "text/plain") -> Answer:
    return Answer(status, kind, body, sign=VIA)


_REFUSED = _page(503, "upstream connect error or disconnect/reset before headers. reset reason: connection failure")
_SILENT = _page(504, "upstream request timeout")
_NO_UPSTREAM = _page(503, "no healthy upstream")
_CLASSIC_ERROR = _page(
    502,
    "<html><head><title>502 Server Error</title></head><body><h1>Error: Server Error</h1></body></html>",
    "text/html; charset=UTF-8",
)


@dataclass(frozen=True, slots=True)
class TcpFront:
    """A forwarding rule as it is in force, whose proxy passes bytes on to one backend service."""

    port: int
    service: str
    path: str = ""
    """The forwarding rule's own."""

    def group(self, service: str) -> str:
        """What the targets of a service are called that this rule leads to."""
        return f"{self.path} {service}"

    def decide(self, request: HttpRequest, targets: Targets, draw: float) -> Decision:
        """A healthy machine, else the end of the connection. Nothing of what passes is changed."""
        group = self.group(self.service)
        there = targets(group) if callable(targets) else targets.get(group, ())
        healthy = [each for each in there if each.state is TargetState.HEALTHY]
        if not healthy:
            return Hangup()
        chosen = healthy[min(int(draw * len(healthy)), len(healthy) - 1)]
        return SendTo(self.service, chosen, refused=Hangup(), silent=Hangup(), plain=True)


@dataclass(frozen=True, slots=True)
class UrlMapFront:
    """A forwarding rule as it is in force: the URL map that its proxy has, kept as the API writes it; ``headers`` are
    those that each backend service adds, by its path."""

    port: int
    url_map: Wire
    scheme: str
    headers: Mapping[str, Sequence[tuple[str, str]]]
    path: str = ""
    """The forwarding rule's own."""

    def group(self, service: str) -> str:
        """What the targets of a service are called that this rule leads to."""
        return f"{self.path} {service}"

    def decide(self, request: HttpRequest, targets: Targets, draw: float) -> Decision:
        """A service is picked by weight alone, healthy or not: there is no fail-over from one to another. Within it a
        healthy machine, else an error: nothing is sent to what is not healthy."""
        matcher = self._matcher(request)
        rule, service, action = _picked(self.url_map if matcher is None else matcher, request)
        weighted: Wire = {}
        if action.get("weightedBackendServices"):
            weighted, draw = _drawn(action["weightedBackendServices"], draw)
            service = weighted["backendService"]
        assert service is not None, "a URL map that leads nowhere is refused"
        path = path_of(service)
        group = self.group(path)
        there = targets(group) if callable(targets) else targets.get(group, ())
        healthy = [each for each in there if each.state is TargetState.HEALTHY]
        classic = self.scheme == CLASSIC
        if not healthy:
            return _CLASSIC_ERROR if classic else _NO_UPSTREAM
        # Applied from the innermost outwards, so that the outer ones have the last word.
        acting = [each.get("headerAction") or {} for each in (weighted, rule, matcher or {}, self.url_map)]
        own = [(name, value, False) for name, value in (VIA, *self.headers.get(path, ()))]
        return SendTo(
            path,
            healthy[min(int(draw * len(healthy)), len(healthy) - 1)],
            _headers(acting, "request", [(*VIA, False)]),
            _headers(acting, "response", own),
            _CLASSIC_ERROR if classic else _REFUSED,
            _CLASSIC_ERROR if classic else _SILENT,
        )

    def _matcher(self, request: HttpRequest) -> Wire | None:
        host = re.sub(r":\d+$", "", next(iter(request.header("host")), "")).lower()
        best, name = (-1, False), ""
        for rule in self.url_map.get("hostRules", []):
            for pattern in rule["hosts"]:
                held = _host_holds(pattern.lower(), host)
                # A whole name goes before a pattern, a long pattern before a short one.
                rank = (len(pattern), "*" not in pattern)
                if held and (rank[1], rank[0]) > (best[1], best[0]):
                    best, name = rank, rule["pathMatcher"]
        return next((each for each in self.url_map.get("pathMatchers", []) if each["name"] == name), None)


def _host_holds(pattern: str, host: str) -> bool:
    if pattern == "*":
        return True
    return host.endswith(pattern[1:]) if pattern.startswith("*") else host == pattern


def _picked(level: Wire, request: HttpRequest) -> tuple[Wire, str | None, Wire]:
    """The rule that a request falls under, empty for none; the service and route action that it then has."""
    for rule in sorted(level.get("routeRules", []), key=lambda each: int(each["priority"])):
        if any(_matches(each, request) for each in rule["matchRules"]):
            return rule, rule.get("service"), rule.get("routeAction") or {}
    best, chosen = -1, None
    for rule in level.get("pathRules", []):
        for pattern in rule["paths"]:
            whole = pattern == request.path
            if whole or (pattern.endswith("/*") and (request.path + "/").startswith(pattern[:-1])):
                rank = len(pattern) * 2 + whole
                best, chosen = max((best, chosen), (rank, rule), key=lambda each: each[0])
    if chosen is not None:
        return chosen, chosen.get("service"), chosen.get("routeAction") or {}
    return {}, level.get("defaultService"), level.get("defaultRouteAction") or {}


def _matches(match: Wire, request: HttpRequest) -> bool:
    fold = str.lower if match.get("ignoreCase") else str
    path = fold(request.path)
    if "fullPathMatch" in match:
        held = path == fold(match["fullPathMatch"])
    else:
        held = path.startswith(fold(match["prefixMatch"]))
    return held and all(_header_holds(each, request) for each in match.get("headerMatches", []))


def _header_holds(match: Wire, request: HttpRequest) -> bool:
    name = match["headerName"]
    values = (request.method,) if name.lower() == ":method" else request.header(name)
    # Several lines of a header are one, joined, as RFC 9110 has it.
    value = ",".join(values) if values else None
    if match.get("presentMatch"):
        held = value is not None
    elif value is None:
        held = False
    elif "exactMatch" in match:
        held = value == match["exactMatch"]
    elif "prefixMatch" in match:
        held = value.startswith(match["prefixMatch"])
    elif "suffixMatch" in match:
        held = value.endswith(match["suffixMatch"])
    else:
        bounds = match["rangeMatch"]
        number = re.fullmatch(r"[+-]?\d+", value)
        held = number is not None and int(bounds["rangeStart"]) <= int(value) < int(bounds["rangeEnd"])
    return held is not bool(match.get("invertMatch"))


def _drawn(weighted: Sequence[Wire], draw: float) -> tuple[Wire, float]:
    """The service that a draw falls on, and what is left of the draw: uniform again within the service's share."""
    point = draw * sum(each["weight"] for each in weighted)
    for each in weighted:
        if point < each["weight"]:
            return each, point / each["weight"]
        point -= each["weight"]
    # Rounding can leave the point at the very end: it belongs to the last one with a weight.
    return next(each for each in reversed(weighted) if each["weight"]), 1.0


def _headers(acting: Sequence[Wire], of: str, first: Sequence[tuple[str, str, bool]] = ()) -> Headers:
    add: dict[str, list[tuple[str, str, bool]]] = {}
    for name, value, instead in first:
        add.setdefault(name.lower(), []).append((name, value, instead))
    remove: set[str] = set()
    for action in acting:
        for gone in action.get(f"{of}HeadersToRemove", []):
            remove.add(gone.lower())
            add.pop(gone.lower(), None)
        for each in action.get(f"{of}HeadersToAdd", []):
            name, instead = each["headerName"], bool(each.get("replace"))
            before = [] if instead else add.get(name.lower(), [])
            add[name.lower()] = [*before, (name, each["headerValue"], instead)]
    return Headers(tuple(each for lines in add.values() for each in lines), frozenset(remove))
