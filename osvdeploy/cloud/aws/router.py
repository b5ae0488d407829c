"""Traffic on AWS: rules on a listener of an Application Load Balancer, and two target groups behind them.

Source: Elastic Load Balancing v2 API reference. CreateTargetGroup repeats itself for equal settings, CreateRule does
not: a priority is what makes a second call find the first one's work. Neither has a token or a version, so rules are
read again before every change.
"""

from __future__ import annotations

import ipaddress
import math
import re
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from osvdeploy.cloud.aws.session import Aws
from osvdeploy.cloud.interfaces import Route, RouteState, Slot, TargetHealth
from osvdeploy.cloud.tags import NAME, SERVICE, SLOT, is_ours
from osvdeploy.cloud.weights import require
from osvdeploy.context import Context
from osvdeploy.errors import CloudError, NotFound, NotOurs, Refused, Unavailable, UsageError
from osvdeploy.retry import retrying

if TYPE_CHECKING:
    from mypy_boto3_elbv2.type_defs import (
        ActionUnionTypeDef,
        RuleConditionOutputTypeDef,
        RuleConditionUnionTypeDef,
        RuleTypeDef,
        TagTypeDef,
        TargetGroupTupleTypeDef,
        TargetGroupTypeDef,
    )

PREVIEW_PRIORITY = {Slot.BLUE: -2, Slot.GREEN: -1}
"""Where the preview rules stand, from the route's own priority."""

DEREGISTRATION_DELAY = 20
"""Seconds that requests under way have to end when a machine is taken away (AWS's default is 300). Machines are only
taken away after traffic has moved, so nothing new comes in by then."""

USED_FOR = 60.0
"""Seconds for which a target group may count as used after its rules were deleted."""

ADDRESSES_KEPT = 30.0
"""Seconds: half of the life that AWS gives a balancer's DNS answers."""

_LISTENER = re.compile(r"arn:[\w-]+:elasticloadbalancing:([\w-]+):\d{12}:listener/(app|net|gwy)/[^/]+/[^/]+/[^/]+")

Resolve = Callable[[str], Sequence[str]]


def resolve(name: str) -> Sequence[str]:
    """The IPv4 addresses of a host name, none where it cannot be looked up from here."""
    try:
        found = socket.getaddrinfo(name, None, family=socket.AF_INET, type=socket.SOCK_STREAM)
    except OSError:
        return ()
    return sorted({str(address[0]) for *_, address in found})


@dataclass(frozen=True, slots=True)
class _Entry:
    """What of a listener and its balancer does not change."""

    listener: str
    scheme: str
    port: int
    dns_name: str
    vpc: str


@dataclass(frozen=True, slots=True)
class _Standing:
    """What of a route is there, all of it ours. A slot is in ``wired`` when its preview rule sends to its backend."""

    rule: RuleTypeDef | None
    previews: Mapping[Slot, RuleTypeDef]
    wired: Mapping[Slot, str]


@dataclass(frozen=True, slots=True)
class Parts:
    """What of a route is there, for whoever foretells what would be made. ``rule`` and ``previews`` are ARNs;
    ``groups`` has the slots that have a target group, and whether it fits the route as it stands."""

    rule: str | None
    previews: Mapping[Slot, str]
    groups: Mapping[Slot, bool]


class AlbRouter:
    """:class:`~osvdeploy.cloud.interfaces.TrafficRouter` of an Application Load Balancer.

    Looking costs one call once a route stands: what cannot change (the listener's port, whose an ARN is) is asked for
    once.
    """

    def __init__(self, aws: Aws, resolve: Resolve = resolve) -> None:
        self._aws = aws
        self._resolve = resolve
        self._entries: dict[str, _Entry] = {}
        self._addresses: dict[str, tuple[float, tuple[str, ...]]] = {}
        self._owners: dict[str, Mapping[str, str]] = {}
        self._groups: dict[str, str] = {}

    def observe(self, ctx: Context, route: Route) -> RouteState:
        entry = self._entry(ctx, route)
        standing = self._standing(ctx, route)
        for slot in Slot:
            if slot not in standing.wired:
                self._target_group(ctx, route, slot)  # whose it is, if there is one
        rules = {"route": standing.rule, **{f"preview-{slot}": standing.previews.get(slot) for slot in Slot}}
        host = f"[{entry.dns_name}]" if ":" in entry.dns_name else entry.dns_name
        return RouteState(
            backends=standing.wired,
            weights=None if standing.rule is None else _weights(route, standing.rule),
            base_url=f"{entry.scheme}://{host}:{entry.port}",
            addresses=self._addresses_of(ctx, entry.dns_name),
            rules={name: rule["RuleArn"] for name, rule in rules.items() if rule is not None},
        )

    def ensure_slots(self, ctx: Context, route: Route) -> None:
        entry = self._entry(ctx, route)
        standing = self._standing(ctx, route)
        missing = [slot for slot in Slot if slot not in standing.wired]
        # Both are looked at before either is made: what is not ours is found here.
        groups = {slot: self._target_group(ctx, route, slot) for slot in missing}
        for slot in missing:
            arn = self._make_target_group(ctx, route, entry, slot, groups[slot])
            actions: list[ActionUnionTypeDef] = [{"Type": "forward", "TargetGroupArn": arn}]
            conditions = _conditions(route, slot)
            preview = standing.previews.get(slot)
            if preview is not None:
                with self._aws.calling(ctx, f"rule {preview['RuleArn']}"):
                    self._aws.elbv2.modify_rule(RuleArn=preview["RuleArn"], Conditions=conditions, Actions=actions)
            else:
                tags = _tag_list(route, {SLOT: slot.value, NAME: f"{route.service} preview {slot}"})
                self._create_rule(ctx, route, PREVIEW_PRIORITY[slot], conditions, actions, tags)

    def health(self, ctx: Context, route: Route, slot: Slot) -> tuple[TargetHealth, ...]:
        name = group_name(route, slot)
        for _ in range(2):
            arn = self._groups.get(name)
            if arn is None:
                group = self._target_group(ctx, route, slot)
                if group is None:
                    return ()
                arn = group["TargetGroupArn"]
            try:
                with self._aws.calling(ctx, f"target group {name}"):
                    described = self._aws.elbv2.describe_target_health(TargetGroupArn=arn)["TargetHealthDescriptions"]
            except NotFound:
                self._groups.pop(name, None)
                continue
            return tuple(
                TargetHealth(
                    target["Target"]["Id"],
                    target["TargetHealth"].get("State", "unavailable"),
                    _reason(target["TargetHealth"].get("Reason"), target["TargetHealth"].get("Description")),
                )
                for target in described
            )
        return ()

    def set_weights(self, ctx: Context, route: Route, weights: Mapping[Slot, int]) -> None:
        require(route, weights)
        standing = self._standing(ctx, route)
        pairs: list[TargetGroupTupleTypeDef] = []
        for slot in Slot:
            arn = standing.wired.get(slot)
            if arn is None:
                group = self._target_group(ctx, route, slot)
                if group is None:
                    raise NotFound(f"target group {group_name(route, slot)}: does not exist (yet)")
                arn = group["TargetGroupArn"]
            pairs.append({"TargetGroupArn": arn, "Weight": weights[slot]})
        actions: list[ActionUnionTypeDef] = [
            {
                "Type": "forward",
                "ForwardConfig": {"TargetGroups": pairs, "TargetGroupStickinessConfig": {"Enabled": False}},
            }
        ]
        if standing.rule is not None:
            with self._aws.calling(ctx, f"rule {standing.rule['RuleArn']}"):
                self._aws.elbv2.modify_rule(RuleArn=standing.rule["RuleArn"], Actions=actions)
        else:
            self._create_rule(ctx, route, 0, _conditions(route, None), actions, _tag_list(route, {NAME: route.service}))

    def remove(self, ctx: Context, route: Route) -> None:
        try:
            standing = self._standing(ctx, route)
        except NotFound:
            # The listener is gone, and its rules with it; the target groups are not.
            standing = _Standing(None, {}, {})
        groups = [group for slot in Slot if (group := self._target_group(ctx, route, slot)) is not None]
        for rule in (standing.rule, *standing.previews.values()):
            if rule is not None:
                self._delete_rule(ctx, rule["RuleArn"])
        for group in groups:
            self._delete_group(ctx, group)

    def parts(self, ctx: Context, route: Route) -> Parts:
        """What of a route is there. Raises as :meth:`observe` does."""
        entry, standing = self._entry(ctx, route), self._standing(ctx, route)
        found = {slot: self._target_group(ctx, route, slot) for slot in Slot}
        return Parts(
            None if standing.rule is None else standing.rule["RuleArn"],
            {slot: rule["RuleArn"] for slot, rule in standing.previews.items()},
            {slot: _fits(there, route, entry) for slot, there in found.items() if there is not None},
        )

    def sticky(self, ctx: Context, route: Route) -> float | None:
        """Seconds for which a client stays where it was sent, by the rule or by a target group; None for not at all."""
        standing, found = self._standing(ctx, route), list[int]()
        for action in standing.rule.get("Actions", []) if standing.rule is not None else []:
            by_rule = action.get("ForwardConfig", {}).get("TargetGroupStickinessConfig", {})
            if by_rule.get("Enabled"):
                found.append(by_rule.get("DurationSeconds", 0))
        for slot, arn in standing.wired.items():
            with self._aws.calling(ctx, f"target group {group_name(route, slot)}"):
                told = self._aws.elbv2.describe_target_group_attributes(TargetGroupArn=arn)["Attributes"]
            attributes = {each.get("Key", ""): each.get("Value", "") for each in told}
            if attributes.get("stickiness.enabled") == "true":
                kind = attributes.get("stickiness.type", "lb_cookie")
                found.append(int(attributes.get(f"stickiness.{kind}.duration_seconds", "86400")))
        return max(found, default=None)

    # --------------------------------------------------------------------------------------------- listener and rules

    def _entry(self, ctx: Context, route: Route) -> _Entry:
        """Listener and balancer of a route.

        Raises NotFound without them, UsageError and Refused for what cannot have our rules.
        """
        if route.listener in self._entries:
            return self._entries[route.listener]
        _check_arn(route.listener, self._aws.region)
        try:
            with self._aws.calling(ctx, f"listener {route.listener}"):
                listeners = self._aws.elbv2.describe_listeners(ListenerArns=[route.listener])["Listeners"]
        except NotFound as error:
            error.hint = f"{_LISTENERS_HINT} of this account in {self._aws.region}"
            raise
        if not listeners:
            raise NotFound(f"listener {route.listener}: does not exist")
        listener = listeners[0]
        protocol = listener.get("Protocol", "")
        if protocol not in ("HTTP", "HTTPS"):
            raise Refused(f"listener {route.listener}: is for {protocol}; rules need one for HTTP or HTTPS")
        arn = listener["LoadBalancerArn"]
        with self._aws.calling(ctx, f"load balancer {arn}"):
            balancers = self._aws.elbv2.describe_load_balancers(LoadBalancerArns=[arn])["LoadBalancers"]
        if not balancers:
            raise NotFound(f"load balancer {arn}: does not exist")
        entry = _Entry(
            route.listener, protocol.lower(), listener["Port"], balancers[0]["DNSName"], balancers[0]["VpcId"]
        )
        self._entries[route.listener] = entry
        return entry

    def _addresses_of(self, ctx: Context, name: str) -> tuple[str, ...]:
        try:
            return (str(ipaddress.ip_address(name)),)
        except ValueError:
            pass
        looked_up, addresses = self._addresses.get(name, (-math.inf, ()))
        if ctx.monotonic() - looked_up >= ADDRESSES_KEPT:
            # What was found last time is better than nothing.
            addresses = tuple(self._resolve(name)) or addresses
            self._addresses[name] = (ctx.monotonic(), addresses)
        return addresses

    def _standing(self, ctx: Context, route: Route) -> _Standing:
        """The route's three rules as they are now. Raises NotOurs where one belongs to somebody else."""
        _check_arn(route.listener, self._aws.region)
        with self._aws.calling(ctx, f"listener {route.listener}"):
            pages = self._aws.elbv2.get_paginator("describe_rules").paginate(ListenerArn=route.listener)
            rules = {rule["Priority"]: rule for page in pages for rule in page["Rules"]}
        places: dict[Slot | None, int] = {None: route.priority}
        places |= {slot: route.priority + PREVIEW_PRIORITY[slot] for slot in Slot}
        held = {place: rules[str(priority)] for place, priority in places.items() if str(priority) in rules}
        wired: dict[Slot, str] = {}
        forwarded = {slot: _forwarded(held[slot]) for slot in Slot if slot in held}
        backends = {
            slot: arn
            for slot, pairs in forwarded.items()
            for arn in pairs
            if len(pairs) == 1 and _name_of(arn) == group_name(route, slot)
        }
        self._learn_owners(ctx, [*(rule["RuleArn"] for rule in held.values()), *backends.values()])
        for place, rule in held.items():
            tags = self._owners.get(rule["RuleArn"], {})
            if not is_ours(tags) or tags.get(SERVICE) != route.service:
                priority = places[place]
                owner = f"belongs to {tags[SERVICE]}" if is_ours(tags) and SERVICE in tags else "was not made by us"
                raise NotOurs(
                    f"rule {rule['RuleArn']} at priority {priority} of the listener {owner}; "
                    f"it takes {_told(rule['Conditions'])}",
                    hint=f"remove that rule, or choose `route.priority` so that {route.service} has three free in a "
                    "row: the two below it are for previews",
                )
        for slot, arn in backends.items():
            self._check_group_owner(route, arn)
            self._groups[group_name(route, slot)] = arn
            if _previews(held[slot], route, slot):
                wired[slot] = arn
        previews = {slot: held[slot] for slot in Slot if slot in held}
        return _Standing(held.get(None), previews, wired)

    def _create_rule(
        self,
        ctx: Context,
        route: Route,
        offset: int,
        conditions: list[RuleConditionUnionTypeDef],
        actions: list[ActionUnionTypeDef],
        tags: list[TagTypeDef],
    ) -> None:
        """Make a rule at ``offset`` from the route's priority."""
        priority = route.priority + offset
        try:
            with self._aws.calling(ctx, f"rule of {route.service} at priority {priority}"):
                made = self._aws.elbv2.create_rule(
                    ListenerArn=route.listener, Priority=priority, Conditions=conditions, Actions=actions, Tags=tags
                )["Rules"]
            self._owners.update((rule["RuleArn"], route.tags) for rule in made)
        except Refused as error:
            if error.code != "PriorityInUse":
                raise
            # Free when it was looked at: our own rule that is not visible yet (or whose answer was lost), or one that
            # somebody made just now. The next look tells.
            raise Unavailable(
                f"rule of {route.service}: priority {priority} was taken just now",
                operation=error.operation,
                code=error.code,
                hint="run the same command again",
            ) from error

    def _delete_rule(self, ctx: Context, arn: str) -> None:
        try:
            with self._aws.calling(ctx, f"rule {arn}"):
                self._aws.elbv2.delete_rule(RuleArn=arn)
        except NotFound:
            pass

    # --------------------------------------------------------------------------------------------------- target groups

    def _target_group(self, ctx: Context, route: Route, slot: Slot) -> TargetGroupTypeDef | None:
        """A slot's target group, found by its name. Raises NotOurs."""
        name = group_name(route, slot)
        try:
            with self._aws.calling(ctx, f"target group {name}"):
                found = self._aws.elbv2.describe_target_groups(Names=[name])["TargetGroups"]
        except NotFound:
            found = []
        if not found:
            self._groups.pop(name, None)
            return None
        arn = found[0]["TargetGroupArn"]
        try:
            self._learn_owners(ctx, [arn])
        except NotFound:  # deleted in between
            return None
        self._check_group_owner(route, arn)
        self._groups[name] = arn
        return found[0]

    def _check_group_owner(self, route: Route, arn: str) -> None:
        tags = self._owners.get(arn, {})
        if not is_ours(tags) or tags.get(SERVICE) != route.service:
            owner = tags.get(SERVICE, "something else") if is_ours(tags) else "something else"
            raise NotOurs(
                f"target group {arn}: belongs to {owner}, not to {route.service}", hint="rename or remove that one"
            )

    def _make_target_group(
        self, ctx: Context, route: Route, entry: _Entry, slot: Slot, there: TargetGroupTypeDef | None
    ) -> str:
        name, health = group_name(route, slot), route.health
        if there is not None and not _fits(there, route, entry):
            # Left behind by a deploy that was killed before its first rule, and then changed in the spec.
            self._delete_group(ctx, there)
            there = None
        interval, timeout = math.ceil(health.interval), math.ceil(health.timeout)
        with self._aws.calling(ctx, f"target group {name}"):
            if there is not None:
                arn = there["TargetGroupArn"]
                self._aws.elbv2.modify_target_group(
                    TargetGroupArn=arn,
                    HealthCheckPath=health.path,
                    HealthCheckIntervalSeconds=interval,
                    HealthCheckTimeoutSeconds=timeout,
                    HealthyThresholdCount=health.healthy,
                    UnhealthyThresholdCount=health.unhealthy,
                    Matcher={"HttpCode": "200-299"},
                )
            else:
                arn = self._aws.elbv2.create_target_group(
                    Name=name,
                    Protocol="HTTP",
                    Port=route.port,
                    VpcId=entry.vpc,
                    TargetType="instance",
                    HealthCheckProtocol="HTTP",
                    HealthCheckPath=health.path,
                    HealthCheckIntervalSeconds=interval,
                    HealthCheckTimeoutSeconds=timeout,
                    HealthyThresholdCount=health.healthy,
                    UnhealthyThresholdCount=health.unhealthy,
                    Matcher={"HttpCode": "200-299"},
                    Tags=_tag_list(route, {SLOT: slot.value, NAME: f"{route.service} {slot}"}),
                )["TargetGroups"][0]["TargetGroupArn"]
            self._aws.elbv2.modify_target_group_attributes(
                TargetGroupArn=arn,
                Attributes=[{"Key": "deregistration_delay.timeout_seconds", "Value": str(DEREGISTRATION_DELAY)}],
            )
        self._groups[name] = arn
        self._owners[arn] = route.tags
        return arn

    def _delete_group(self, ctx: Context, group: TargetGroupTypeDef) -> None:
        arn = group["TargetGroupArn"]

        def delete() -> None:
            with self._aws.calling(ctx, f"target group {group['TargetGroupName']}"):
                self._aws.elbv2.delete_target_group(TargetGroupArn=arn)

        def still_used(error: BaseException) -> bool:
            return isinstance(error, CloudError) and error.code == "ResourceInUse"

        try:
            retrying(ctx, delete, when=still_used, seconds=USED_FOR, first_wait=1.0)
        except NotFound:
            pass
        self._groups.pop(group["TargetGroupName"], None)
        self._owners.pop(arn, None)

    def _learn_owners(self, ctx: Context, arns: Sequence[str]) -> None:
        """Ask for the tags of what was not seen before. An ARN is never given twice, so its owner does not change."""
        unknown = [arn for arn in arns if arn not in self._owners]
        if unknown:
            with self._aws.calling(ctx, "tags of rules and target groups"):
                described = self._aws.elbv2.describe_tags(ResourceArns=unknown)["TagDescriptions"]
            for each in described:
                tags = {tag["Key"]: tag.get("Value", "") for tag in each.get("Tags", [])}
                # What is not ours yet may become so: somebody adds the tags by hand to hand it over.
                if is_ours(tags):
                    self._owners[each["ResourceArn"]] = tags


_LISTENERS_HINT = "`aws elbv2 describe-listeners --load-balancer-arn ...` lists those"


def _check_arn(arn: str, region: str) -> None:
    """Raises UsageError for what no call has to be made for."""
    match = _LISTENER.fullmatch(arn)
    if match is None:
        raise UsageError(
            f"{arn!r} is no listener's ARN",
            hint='listener = "arn:aws:elasticloadbalancing:REGION:ACCOUNT:listener/app/..."; '
            f"{_LISTENERS_HINT} that there are",
        )
    if match[2] != "app":
        raise UsageError(
            f"listener {arn}: belongs to a {'network' if match[2] == 'net' else 'gateway'} load balancer, which has no "
            "rules",
            hint="use a listener of an Application Load Balancer",
        )
    if match[1] != region:
        raise UsageError(f"listener {arn}: is in {match[1]}, the deployment in {region}", hint="make both the same")


def _fits(group: TargetGroupTypeDef, route: Route, entry: _Entry) -> bool:
    """Whether a target group can be brought to what the route says; port and network never change."""
    return (group.get("Port"), group.get("VpcId")) == (route.port, entry.vpc)


def group_name(route: Route, slot: Slot) -> str:
    return f"osvd-{route.key}-{slot}"


def _name_of(arn: str) -> str:
    """A target group's name: ``...:targetgroup/NAME/ID``."""
    return arn.rpartition(":")[2].split("/")[1] if ":targetgroup/" in arn else ""


def _forwarded(rule: RuleTypeDef) -> dict[str, int]:
    """Weights by target group ARN of a rule that forwards and does nothing else; none for any other."""
    actions = rule.get("Actions", [])
    if len(actions) != 1 or actions[0]["Type"] != "forward":
        return {}
    if "ForwardConfig" in actions[0]:
        pairs = actions[0]["ForwardConfig"].get("TargetGroups", [])
        return {pair["TargetGroupArn"]: pair.get("Weight", 1) for pair in pairs if "TargetGroupArn" in pair}
    return {actions[0]["TargetGroupArn"]: 1} if "TargetGroupArn" in actions[0] else {}


def _weights(route: Route, rule: RuleTypeDef) -> dict[Slot, int]:
    by_name = {_name_of(arn): weight for arn, weight in _forwarded(rule).items()}
    return {slot: by_name.get(group_name(route, slot), 0) for slot in Slot}


def _conditions(route: Route, preview: Slot | None) -> list[RuleConditionUnionTypeDef]:
    conditions: list[RuleConditionUnionTypeDef] = []
    if preview is not None:
        conditions.append(
            {
                "Field": "http-header",
                "HttpHeaderConfig": {"HttpHeaderName": route.preview_header, "Values": [preview.value]},
            }
        )
    if route.host is not None:
        conditions.append({"Field": "host-header", "HostHeaderConfig": {"Values": [route.host]}})
    if route.path is not None:
        conditions.append({"Field": "path-pattern", "PathPatternConfig": {"Values": [route.path]}})
    # A rule needs a condition; this one holds for every request.
    return conditions or [{"Field": "path-pattern", "PathPatternConfig": {"Values": ["/*"]}}]


def _previews(rule: RuleTypeDef, route: Route, slot: Slot) -> bool:
    """Whether a preview rule still asks for the slot's header."""
    for condition in rule.get("Conditions", []):
        header = condition.get("HttpHeaderConfig", {})
        if header.get("HttpHeaderName", "").lower() == route.preview_header.lower():
            return slot.value in header.get("Values", [])
    return False


def _told(conditions: Sequence[RuleConditionOutputTypeDef]) -> str:
    """A rule's conditions for people: ``host-header a.example, path-pattern /x``."""
    told = []
    for condition in conditions:
        values: list[str] = list(condition.get("Values", []))
        for key, config in condition.items():
            if key.endswith("Config") and isinstance(config, dict):
                named = [config["HttpHeaderName"]] if "HttpHeaderName" in config else []
                values = [*named, *(str(value) for value in config.get("Values", []))]
        told.append(" ".join([condition.get("Field", "?"), *values]))
    return ", ".join(told) or "every request"


def _tag_list(route: Route, more: Mapping[str, str]) -> list[TagTypeDef]:
    return [{"Key": key, "Value": value} for key, value in sorted({**route.tags, **more}.items())]


def _reason(code: str | None, description: str | None) -> str:
    return ": ".join(part for part in (code, description) if part)
