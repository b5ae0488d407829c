"""Whether a route can take exactly the requests that a URL map sends to somebody's managed group. Pure.

A rule of ours goes before what takes them now, and takes the same; theirs stays, and has them again when ours is gone.
So nothing may stand between the two, and nothing that is done beside forwarding may be lost: logins, filters, rewrites.

Sources: Compute Engine API reference (urlMaps: PathMatcher, HttpRouteRule, HttpRouteAction; backendServices: iap,
securityPolicy); load balancing guide, "URL maps overview", "Backend services overview".
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from osvdeploy.cloud.gcp.marks import marks_of
from osvdeploy.cloud.gcp.scope import last, link_of
from osvdeploy.cloud.gcp.session import Document
from osvdeploy.cloud.gcp.urlmap import asks, matcher_of, rule_of
from osvdeploy.cloud.interfaces import Route
from osvdeploy.cloud.tags import SERVICE
from osvdeploy.errors import UsageError

_DEFAULT = 2**31
"""Past the highest priority that there is, 2,147,483,647: where a matcher's default stands."""

_EVERY_PATH = [{"prefixMatch": "/"}]
_PLAIN_RULE = frozenset({"priority", "description", "matchRules", "service", "routeAction"})
_PLAIN_ACTION = frozenset({"weightedBackendServices"})


def leading(found: Document, route: Route, theirs: Collection[str], group: str) -> tuple[str, str]:
    """The backend service that has the route's requests now, one of ``theirs``, and what sends them to it, in words.

    Raises UsageError where it is none of them, or a rule of ours would change more than who is named.
    """
    name = found.get("name")
    if not theirs:
        raise UsageError(
            f"{group}: stands behind no backend service where the URL map {name} is",
            hint="name the URL map whose traffic it gets",
        )
    matcher = matcher_of(found, route)
    if matcher is None and route.host is not None and found.get("hostRules"):
        raise UsageError(
            f"{group}: URL map {name} has no host rule for {route.host} alone",
            hint="let `route.host` be as a host rule has it, or leave it out",
        )
    if matcher is not None and matcher.get("pathRules"):
        raise UsageError(
            f"{group}: the path matcher {matcher['name']} has pathRules, beside which route rules cannot stand",
            hint="write its pathRules as routeRules first",
        )
    place = found if matcher is None else matcher
    where = f"URL map {name}" if matcher is None else f"path matcher {matcher['name']}"
    others = sorted(
        (
            (int(rule.get("priority", 0)), rule)
            for rule in (matcher or {}).get("routeRules", [])
            if marks_of(rule).get(SERVICE) != route.service
        ),
        key=lambda each: each[0],
    )
    wanted = asks(rule_of(route, None, (), 0))
    same = [(priority, rule) for priority, rule in others if asks(rule) == wanted]
    if not same and wanted == _EVERY_PATH:
        same = [(_DEFAULT, {key: value for key, value in _as_rule(place).items() if value})]
    if not same:
        raise UsageError(
            f"{group}: no rule of {where} takes just {route.path or 'every path'}",
            hint="let `route.path` say the same as the rule that sends it traffic",
        )
    priority, rule = same[0]
    told = f"the default of {where}" if priority == _DEFAULT else f"the rule at priority {priority} of {where}"
    service = _only_service(rule, told, theirs, group)
    between = [each for each, _ in others if route.priority <= each < priority]
    if route.priority >= priority or between:
        wrong = f"the rule at {between[0]} stands before {told}" if between else f"{told} would come first"
        room = max((each for each, _ in others if each < priority), default=-1)
        raise UsageError(
            f"{group}: {wrong}, and would get nothing any more, or all of it",
            hint=f"choose a `route.priority` from {room + 3} to {priority - 1}"
            if room + 3 < priority
            else f"there is no room for three rules between {room} and {priority}: move one of them",
        )
    return service, told


def refuse_other_service(service: Document, manager: Document, route: Route, group: str) -> None:
    """Raise UsageError where a backend service of ours would not do what theirs does, or not reach the machines."""
    name = service.get("name")
    if len(service.get("backends", [])) > 1:
        raise UsageError(
            f"{group}: backend service {name} sends to other groups, too", hint="leave this one alone behind it first"
        )
    guards: Mapping[str, object] = {
        "asks for a login (IAP)": (service.get("iap") or {}).get("enabled"),
        "has a security policy": service.get("securityPolicy") or service.get("edgeSecurityPolicy"),
        "is cached (Cloud CDN)": service.get("enableCDN"),
        "adds headers": service.get("customRequestHeaders") or service.get("customResponseHeaders"),
        "keeps clients on one machine": service.get("sessionAffinity", "NONE") not in ("NONE", ""),
    }
    for told, has in guards.items():
        if has:
            raise UsageError(
                f"{group}: backend service {name} {told}, which those of a service here would not do",
                hint="only what is sent on as it is can be adopted",
            )
    if service.get("protocol", "HTTP") != "HTTP":
        raise UsageError(
            f"{group}: backend service {name} speaks {service.get('protocol')} to its machines, slots speak HTTP"
        )
    named = {each.get("name"): each.get("port") for each in manager.get("namedPorts", [])}
    port = named.get(service.get("portName", "http"))
    if port != route.port:
        raise UsageError(
            f"{group}: its machines answer at port {port or 'nobody says which'}, the deployment says {route.port}",
            hint="let `port` say the same",
        )
    if not manager.get("instanceTemplate"):
        raise UsageError(f"{group}: has several instance templates", hint="wait until its update is through")


def _as_rule(place: Document) -> Document:
    """A default as a rule that asks for every path."""
    action = place.get("defaultRouteAction")
    return {
        "service": place.get("defaultService"),
        "routeAction": action,
        "urlRedirect": place.get("defaultUrlRedirect"),
    }


def _only_service(rule: Document, told: str, theirs: Collection[str], group: str) -> str:
    """The one backend service that a rule sends to. Raises UsageError for a rule that does more, or sends elsewhere."""
    action = {key: value for key, value in (rule.get("routeAction") or {}).items() if value}
    more = [key for key in rule if key not in _PLAIN_RULE and rule[key]]
    more += [key for key in action if key not in _PLAIN_ACTION]
    if more:
        raise UsageError(
            f"{group}: {told} does more than forward ({', '.join(sorted(more))}), which a rule of ours would leave out",
            hint="let the program do it, or keep this service as it is",
        )
    sends = {link_of(each["backendService"]): each for each in action.get("weightedBackendServices", [])}
    with_headers = [each for each in sends.values() if each.get("headerAction")]
    if rule.get("service"):
        sends.setdefault(link_of(rule["service"]), {})
    leads = [service for service, each in sends.items() if int(each.get("weight", 1)) > 0]
    if len(leads) != 1 or leads[0] not in theirs or with_headers:
        elsewhere = ", ".join(last(each) for each in leads) or "nothing"
        raise UsageError(
            f"{group}: {told} sends to {elsewhere}",
            hint="give the group's backend service all of it first, or name the rule that it gets its traffic from by "
            "`route.host` and `route.path`",
        )
    return leads[0]
