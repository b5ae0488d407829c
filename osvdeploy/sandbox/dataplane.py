"""What an Application Load Balancer does with one request: pure.

Rules and targets in, a decision out; the random draw is an argument. Sources: Elastic Load Balancing, "Listener
rules" (conditions, wildcards, case), "Target groups" (weights, no fail-over between groups), "Target group health"
(fail-open), "Edit target group attributes" (slow start), "Troubleshoot" (503 causes).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from typing import Protocol
from urllib.parse import parse_qsl, urlsplit

DEFAULT_PRIORITY = 1_000_000
"""Where a listener's default action stands: after the last priority a rule can have (50,000)."""


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request as it reached a listener. ``target`` is the request line's: path with query, or absolute."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...] = ()
    source_ip: str = "127.0.0.1"

    @property
    def path(self) -> str:
        return urlsplit(self.target).path if "://" in self.target else self.target.partition("?")[0]

    @property
    def query(self) -> str:
        return self.target.partition("?")[2].partition("#")[0]

    def header(self, name: str) -> tuple[str, ...]:
        """All values of a header, in order; its name in any case."""
        return tuple(value for key, value in self.headers if key.lower() == name.lower())


# ------------------------------------------------------------------------------------------------------ conditions


class Field(StrEnum):
    """What a condition looks at, by its API name."""

    PATH = "path-pattern"
    HOST = "host-header"
    HEADER = "http-header"
    METHOD = "http-request-method"
    QUERY = "query-string"
    SOURCE = "source-ip"


@dataclass(frozen=True, slots=True)
class Condition:
    """Holds where any of ``values`` does. ``name`` is the header's for :attr:`Field.HEADER`; for
    :attr:`Field.QUERY` the values are ``(key, value)`` pairs in ``pairs``, key None for any key."""

    field: Field
    values: tuple[str, ...] = ()
    name: str = ""
    pairs: tuple[tuple[str | None, str], ...] = ()

    def holds(self, request: HttpRequest) -> bool:
        match self.field:
            case Field.PATH:
                return any(matches(value, request.path) for value in self.values)
            case Field.HOST:
                # A port is no part of the host's name.
                host = re.sub(r":\d+$", "", next(iter(request.header("host")), ""))
                return any(matches(value.lower(), host.lower()) for value in self.values)
            case Field.HEADER:
                present = [value.lower() for value in request.header(self.name)]
                return any(matches(value.lower(), seen) for value in self.values for seen in present)
            case Field.METHOD:
                return request.method in self.values
            case Field.QUERY:
                asked = [(key.lower(), value.lower()) for key, value in parse_qsl(request.query, True)]
                return any(
                    matches(value.lower(), seen) and (key is None or matches(key.lower(), name))
                    for key, value in self.pairs
                    for name, seen in asked
                )
            case Field.SOURCE:
                source = ipaddress.ip_address(request.source_ip)
                return any(source in ipaddress.ip_network(value, strict=False) for value in self.values)


@lru_cache(maxsize=1024)
def _pattern(value: str) -> re.Pattern[str]:
    parts = {"*": ".*", "?": "."}
    return re.compile("".join(parts.get(char) or re.escape(char) for char in value), re.DOTALL)


def matches(pattern: str, text: str) -> bool:
    """AWS's wildcards: ``*`` is any run of characters, the empty one too, ``?`` exactly one. All of ``text`` counts."""
    return _pattern(pattern).fullmatch(text) is not None


# --------------------------------------------------------------------------------------------------------- actions


@dataclass(frozen=True, slots=True)
class FixedResponse:
    """An answer from the balancer itself."""

    status: int
    content_type: str = "text/plain"
    body: str = ""


@dataclass(frozen=True, slots=True)
class Redirect:
    """301 or 302; each part may hold ``#{protocol}``, ``#{host}``, ``#{port}``, ``#{path}``, ``#{query}``."""

    status: int
    protocol: str = "#{protocol}"
    host: str = "#{host}"
    port: str = "#{port}"
    path: str = "/#{path}"
    query: str = "#{query}"


@dataclass(frozen=True, slots=True)
class Forward:
    """To target groups by weight: ``(group ARN, weight 0-999)`` in order."""

    groups: tuple[tuple[str, int], ...]


Action = Forward | FixedResponse | Redirect


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: all conditions must hold. The listener's default action is the rule without any, at
    :data:`DEFAULT_PRIORITY`."""

    priority: int
    conditions: tuple[Condition, ...]
    action: Action
    arn: str = ""


@dataclass(frozen=True, slots=True)
class Listener:
    """A listener's rules as they are in force: a change reaches the data plane some time after its call returned."""

    port: int
    rules: tuple[Rule, ...]
    arn: str = ""

    def pick(self, request: HttpRequest) -> Rule | None:
        """The rule with the lowest priority whose conditions all hold."""
        for rule in sorted(self.rules, key=lambda rule: rule.priority):
            if all(condition.holds(request) for condition in rule.conditions):
                return rule
        return None

    def decide(self, request: HttpRequest, targets: Targets, draw: float) -> Decision:
        """See :func:`decide`."""
        return decide(self, request, targets, draw)


# --------------------------------------------------------------------------------------------------------- targets


class TargetState(StrEnum):
    """The states of DescribeTargetHealth that an instance target can be in."""

    INITIAL = "initial"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    UNUSED = "unused"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True)
class SlowStart:
    """A target on its way from nothing to its full share, in equal measure of the time."""

    begun: datetime
    ends: datetime

    def share(self, now: datetime) -> float:
        """What it is given, of what a target is given that is not in slow start."""
        return min(1.0, max(LEAST_SHARE, (now - self.begun) / (self.ends - self.begun)))


LEAST_SHARE = 1 / 1000
"""Of a target that has just entered slow start: so that one which all others have left is still sent to."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a registered target listens, and how it is. ``checkable`` is false until its registration is done.
    ``share`` is its weight within the group, as of the moment of :meth:`View.targets_at`."""

    id: str
    address: str
    port: int
    state: TargetState
    checkable: bool = True
    slow_start: SlowStart | None = None
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class Answer:
    """The balancer answers by itself. ``location`` is set for a redirect; ``sign`` is the header that tells whose
    balancer it is."""

    status: int
    content_type: str = "text/html"
    body: str = ""
    location: str | None = None
    sign: tuple[str, str] = ("Server", "awselb/2.0")


@dataclass(frozen=True, slots=True)
class Hangup:
    """The balancer closes the connection without a word: one that passes bytes on knows of no HTTP."""


@dataclass(frozen=True, slots=True)
class Headers:
    """What a balancer changes about headers on their way: ``(name, value, whether it takes the place of others)``."""

    add: tuple[tuple[str, str, bool], ...] = ()
    remove: frozenset[str] = frozenset()
    """In lower case."""

    def applied(self, headers: Sequence[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
        gone = self.remove | {name.lower() for name, _, instead in self.add if instead}
        kept = tuple(pair for pair in headers if pair[0].lower() not in gone)
        return kept + tuple((name, value) for name, value, _ in self.add)


@dataclass(frozen=True, slots=True)
class SendTo:
    """The request goes to this target of this group. ``refused`` and ``silent`` are what is answered where the target
    takes no connection, or gives no answer; ``plain``: nothing tells the target of its client."""

    group: str
    target: Target
    request: Headers = Headers()
    answer: Headers = Headers()
    refused: Answer | Hangup | None = None
    silent: Answer | Hangup | None = None
    plain: bool = False

    def failed(self, *, in_time: bool) -> Answer | Hangup:
        """What the balancer does by itself in place of the target's answer."""
        return (self.refused or bad_gateway()) if in_time else (self.silent or gateway_timeout())


Decision = Answer | SendTo | Hangup

Targets = Callable[[str], Sequence[Target]] | Mapping[str, Sequence[Target]]
"""A target group's name, ARN or path -> its targets now. A deleted group has none."""


class Front(Protocol):
    """What listens at a balancer's address, in any cloud, as it is in force."""

    @property
    def port(self) -> int: ...
    def decide(self, request: HttpRequest, targets: Targets, draw: float) -> Decision:
        """Where a request goes; ``draw`` is uniform in [0, 1)."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A front, and the address at which it is opened."""

    address: str
    listener: Front


@dataclass(frozen=True, slots=True)
class View:
    """All that the data plane needs to decide, as of one moment: fronts by ARN or path, targets by that of their
    group."""

    endpoints: Mapping[str, Endpoint]
    targets: Mapping[str, tuple[Target, ...]]

    def targets_at(self, now: datetime) -> Mapping[str, tuple[Target, ...]]:
        """The targets with the share that each has now."""
        rising = {
            group: tuple(
                target if target.slow_start is None else replace(target, share=target.slow_start.share(now))
                for target in members
            )
            for group, members in self.targets.items()
            if any(target.slow_start is not None for target in members)
        }
        return {**self.targets, **rising} if rising else self.targets


def page(status: int, phrase: str) -> Answer:
    """An error page as a balancer makes it."""
    title = f"{status} {phrase}"
    body = f"<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<center><h1>{title}</h1></center>\r\n"
    return Answer(status, "text/html", body + "</body>\r\n</html>\r\n")


def bad_gateway() -> Answer:
    """The target refused the connection, closed it, or answered no HTTP."""
    return page(502, "Bad Gateway")


def unavailable() -> Answer:
    """No group has a weight, or the group picked has no target to send to."""
    return page(503, "Service Temporarily Unavailable")


def gateway_timeout() -> Answer:
    """The target did not answer within the idle timeout."""
    return page(504, "Gateway Time-out")


def decide(listener: Listener, request: HttpRequest, targets: Targets, draw: float) -> Decision:
    """Where ``request`` goes. ``draw`` is uniform in [0, 1) and decides group and target.

    A group is picked by weight alone, healthy or not: a balancer does not fail over from one weighted group to
    another. Within the group, a healthy target, else any (fail-open), else 503.
    """
    rule = listener.pick(request)
    if rule is None:
        return page(404, "Not Found")
    match rule.action:
        case FixedResponse(status=status, content_type=content_type, body=body):
            return Answer(status, content_type, body)
        case Redirect():
            return _redirect(rule.action, listener, request)
        case Forward(groups=groups):
            return _forward(groups, targets, draw)


def _forward(groups: Sequence[tuple[str, int]], targets: Targets, draw: float) -> Decision:
    total = sum(weight for _, weight in groups)
    if total == 0:
        return unavailable()
    point = draw * total
    for group, weight in groups:
        if point < weight:
            # What is left of the draw is uniform again within the group's share.
            candidates = eligible(targets(group) if callable(targets) else targets.get(group, ()))
            if not candidates:
                return unavailable()
            return SendTo(group, _drawn(candidates, point / weight))
        point -= weight
    # Rounding can leave the point at the very end: it belongs to the last group with a weight.
    last = next(group for group, weight in reversed(groups) if weight)
    candidates = eligible(targets(last) if callable(targets) else targets.get(last, ()))
    return SendTo(last, candidates[-1]) if candidates else unavailable()


def _drawn(candidates: Sequence[Target], draw: float) -> Target:
    """One of them, each as likely as its share says."""
    point = draw * sum(target.share for target in candidates)
    for target in candidates:
        if point < target.share:
            return target
        point -= target.share
    return candidates[-1]


def eligible(targets: Sequence[Target]) -> list[Target]:
    """The targets a group sends to: the healthy ones; with none healthy, all that are registered (fail-open)."""
    healthy = [target for target in targets if target.state is TargetState.HEALTHY]
    if healthy:
        return healthy
    open_to = {TargetState.UNHEALTHY, TargetState.INITIAL}
    return [target for target in targets if target.state in open_to and target.checkable]


def _redirect(action: Redirect, listener: Listener, request: HttpRequest) -> Answer:
    host, _, port = next(iter(request.header("host")), "").partition(":")
    parts = {
        "protocol": "http",
        "host": host,
        "port": port or str(listener.port),
        "path": request.path.removeprefix("/"),
        "query": request.query,
    }

    def filled(text: str) -> str:
        return re.sub(r"#\{(protocol|host|port|path|query)\}", lambda found: parts[found[1]], text)

    query = filled(action.query)
    location = f"{filled(action.protocol).lower()}://{filled(action.host)}:{filled(action.port)}{filled(action.path)}"
    phrase = "Moved Permanently" if action.status == 301 else "Found"
    made = page(action.status, phrase)
    return Answer(made.status, made.content_type, made.body, location + (f"?{query}" if query else ""))
