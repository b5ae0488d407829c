"""Whether a route can take exactly the requests that somebody's rules send to an Auto Scaling group. Pure.

A rule of ours goes before theirs and takes the same requests; theirs stays, and has them again when ours is gone. So
nothing may stand between the two that would get less than before, and nothing that theirs does beside forwarding may be
lost (a login, above all).

Source: Elastic Load Balancing v2 API reference (Rule, Action, RuleCondition); Auto Scaling guide, "Health checks for
instances": with the type ELB the group ends what any of its target groups finds unhealthy.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from osvdeploy.cloud.interfaces import Route
from osvdeploy.errors import UsageError

if TYPE_CHECKING:
    from mypy_boto3_elbv2.type_defs import RuleConditionOutputTypeDef, RuleTypeDef, TargetGroupTypeDef

Asked = frozenset[tuple[str, frozenset[str]]]
"""What conditions ask for: fields, each with its values. Every path is no condition."""

_LAST = 50_001
"""Past the highest priority that there is, 50,000: where the default action stands."""


@dataclass(frozen=True, slots=True)
class Leading:
    """What sends a group the route's requests now. ``told`` is for people."""

    priority: int
    target_group: str
    told: str


def asked(conditions: Sequence[RuleConditionOutputTypeDef]) -> Asked:
    found = set()
    for condition in conditions:
        config: Mapping[str, object] = next(
            (each for key, each in condition.items() if key.endswith("Config") and isinstance(each, dict)), {}
        )
        values, patterns = condition.get("Values") or config.get("Values"), config.get("RegexValues")
        named = str(config.get("HttpHeaderName", "")).lower()
        told = frozenset(str(value) for value in values) if isinstance(values, list) else frozenset[str]()
        if isinstance(patterns, list):
            told |= {f"regex {pattern}" for pattern in patterns}
        field = f"{condition.get('Field', '?')} {named}".strip()
        if (field, told) != ("path-pattern", frozenset({"/*"})):
            found.add((field, told))
    return frozenset(found)


def leading(
    rules: Sequence[RuleTypeDef],
    theirs: Collection[str],
    ours: Collection[str],
    route: Route,
    wanted: Asked,
    group: str,
) -> Leading:
    """The rule of somebody else's that sends exactly the route's requests to one of these target groups.

    ``ours`` are ARNs of rules of the route's own service. Raises UsageError where there is none, or a rule of ours
    would change more than who is named.
    """
    others = sorted(
        ((_priority(rule), rule) for rule in rules if rule["RuleArn"] not in ours), key=lambda each: each[0]
    )
    to_them = [(priority, rule) for priority, rule in others if targets(rule).keys() & set(theirs)]
    if not to_them:
        raise UsageError(
            f"{group}: no rule of listener {route.listener} sends it anything",
            hint="name the listener whose traffic it gets; a network load balancer has no rules, so what stands behind "
            "one alone cannot be adopted",
        )
    same = [(priority, rule) for priority, rule in to_them if asked(rule.get("Conditions", [])) == wanted]
    if not same:
        takes = "; ".join(f"{_place(priority)} takes {_told(rule)}" for priority, rule in to_them)
        raise UsageError(
            f"{group}: is sent other requests than the route of {route.service} takes: {takes}",
            hint="let `route.host` and `route.path` say the same as that rule; one that asks for more than a host and "
            "a path cannot be taken over",
        )
    priority, rule = same[0]
    _refuse_more_than_forwarding(rule, _place(priority), theirs, group)
    between = [(each, other) for each, other in others if route.priority <= each < priority]
    if route.priority >= priority:
        raise UsageError(
            f"{group}: {_place(priority)} would come before {route.service}'s, at {route.priority}",
            hint=_choose(priority, others),
        )
    if between:
        each, other = between[0]
        raise UsageError(
            f"{group}: {_place(each)}, which takes {_told(other)}, stands between {route.service}'s at "
            f"{route.priority} and {_place(priority)}, and would get nothing any more",
            hint=_choose(priority, others),
        )
    target = next(arn for arn in targets(rule) if arn in theirs)
    return Leading(priority, target, f"{_place(priority)} ({_told(rule)})")


def displaced(rules: Sequence[RuleTypeDef], ours: Collection[str], route: Route, wanted: Asked) -> str:
    """What forwards exactly the route's requests now, after its own place, and is none of these ARNs; "" for
    nothing."""
    found = sorted(
        (
            (_priority(rule), rule)
            for rule in rules
            if rule["RuleArn"] not in ours and asked(rule.get("Conditions", [])) == wanted and targets(rule)
        ),
        key=lambda each: each[0],
    )
    for priority, rule in found:
        if priority > route.priority:
            names = ", ".join(arn.split("/")[1] for arn in targets(rule))
            return f"{_place(priority)}, which sends them to {names}"
    return ""


def refuse_other_checks(kind: str, route: Route, vpc: str, behind: TargetGroupTypeDef, group: str) -> None:
    """Raise UsageError where machines could not stand behind a target group of ours too, or would be ended for it."""
    name = behind["TargetGroupName"]
    if behind.get("VpcId") != vpc:
        raise UsageError(f"{group}: its target group {name} is in {behind.get('VpcId')}, the balancer in {vpc}")
    if behind.get("Protocol") != "HTTP" or behind.get("ProtocolVersion", "HTTP1") != "HTTP1":
        spoken = f"{behind.get('Protocol')} {behind.get('ProtocolVersion', '')}".strip()
        raise UsageError(
            f"{group}: its target group {name} speaks {spoken}, and slots speak HTTP/1.1 to their machines",
            hint="only machines that speak HTTP behind the balancer can be adopted",
        )
    if behind.get("Port") != route.port:
        raise UsageError(
            f"{group}: its machines answer at port {behind.get('Port')}, the deployment says {route.port}",
            hint="let `port` say the same",
        )
    if "ELB" in kind and behind.get("HealthCheckPath") != route.health.path:
        raise UsageError(
            f"{group}: ends machines that a balancer finds unhealthy, and is asked at {behind.get('HealthCheckPath')}, "
            f"not at {route.health.path}: what does not answer there would be ended",
            hint="let `health.path` say the same, or give the group the health check type EC2",
        )


def _refuse_more_than_forwarding(rule: RuleTypeDef, place: str, theirs: Collection[str], group: str) -> None:
    kinds = [action["Type"] for action in rule.get("Actions", [])]
    if kinds != ["forward"]:
        raise UsageError(
            f"{group}: {place} does more than forward ({', '.join(kinds)}), which a rule of ours would leave out",
            hint="let the program do it, or keep this service as it is",
        )
    if rule.get("Transforms"):
        raise UsageError(f"{group}: {place} rewrites requests, which a rule of ours would leave out")
    shared = [arn for arn, weight in targets(rule).items() if weight > 0 and arn not in theirs]
    if shared:
        raise UsageError(
            f"{group}: {place} shares its traffic with {', '.join(shared)}",
            hint="give the group all of it first",
        )


def _choose(priority: int, others: Sequence[tuple[int, RuleTypeDef]]) -> str:
    """What to choose as `route.priority`, right before the rule at ``priority``."""
    taken = {each for each, _ in others}
    before = max((each for each in taken if each < priority), default=0)
    if priority - before > 3:
        free = before + 3 if priority == _LAST else priority - 1
        return f"choose `route.priority = {free}`: it and the two below it are free, and nothing is between"
    return (
        f"there is no room for three rules between {before} and {priority}: move that one with `aws elbv2 "
        "set-rule-priorities`"
    )


def _priority(rule: RuleTypeDef) -> int:
    return int(rule["Priority"]) if rule["Priority"].isdigit() else _LAST


def _place(priority: int) -> str:
    return "the listener's default action" if priority == _LAST else f"the rule at priority {priority}"


def targets(rule: RuleTypeDef) -> dict[str, int]:
    """Weights by target group ARN of all that a rule forwards to."""
    found: dict[str, int] = {}
    for action in rule.get("Actions", []):
        for pair in action.get("ForwardConfig", {}).get("TargetGroups", []):
            if "TargetGroupArn" in pair:
                found[pair["TargetGroupArn"]] = pair.get("Weight", 1)
        if "TargetGroupArn" in action:
            found.setdefault(action["TargetGroupArn"], 1)
    return found


def in_words(conditions: Sequence[RuleConditionOutputTypeDef]) -> str:
    """What conditions ask for, for people."""
    parts = [f"{field} {', '.join(sorted(values))}" for field, values in sorted(asked(conditions))]
    return ", ".join(parts) or "every request"


def _told(rule: RuleTypeDef) -> str:
    return in_words(rule.get("Conditions", []))
