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
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypedDict, cast

from osvdeploy.cloud.aws import adopting
from osvdeploy.cloud.aws.session import Aws
from osvdeploy.cloud.elb_tags import text_of, value_of
from osvdeploy.cloud.interfaces import HealthRule, ReleaseId, Route, RouteState, Slot, TargetHealth
from osvdeploy.cloud.parallel import in_flight
from osvdeploy.cloud.tags import LEFT, NAME, SERVICE, SLOT, is_ours
from osvdeploy.cloud.weights import require
from osvdeploy.context import Context
from osvdeploy.errors import CloudError, NotFound, NotOurs, Refused, Unavailable, UsageError
from osvdeploy.retry import retrying

if TYPE_CHECKING:
    from mypy_boto3_autoscaling.type_defs import AutoScalingGroupTypeDef
    from mypy_boto3_elbv2.type_defs import (
        ActionUnionTypeDef,
        RuleConditionOutputTypeDef,
        RuleConditionUnionTypeDef,
        RuleTypeDef,
        TagTypeDef,
        TargetDescriptionTypeDef,
        TargetGroupAttributeTypeDef,
        TargetGroupTupleTypeDef,
        TargetGroupTypeDef,
    )

    _Conditions = Sequence[RuleConditionUnionTypeDef] | Sequence[RuleConditionOutputTypeDef]

PREVIEW_PRIORITY = {Slot.BLUE: -2, Slot.GREEN: -1}
"""Where the preview rules stand, from the route's own priority."""

DEREGISTRATION_DELAY = 20
"""Seconds that requests under way have to end when a group is made smaller (AWS's default is 300). One that goes whole
is ended at once, by force: a rollout waits for as long itself, after traffic has moved."""

USED_FOR = 60.0
"""Seconds for which a target group may count as used after its rules were deleted."""

_TAGS_AT_ONCE = 20
"""Resources that one DescribeTags takes."""

ADDRESSES_KEPT = 30.0
"""Seconds: half of the life that AWS gives a balancer's DNS answers."""

MOST_ADDRESSES = 8
"""A DNS answer has no more; a balancer may have more nodes (load balancer user guide: it grows with its load)."""

LISTENERS_AT_ONCE = 8
"""Listeners whose rules are asked for at once, where many are."""

_LISTENER = re.compile(r"arn:[\w-]+:elasticloadbalancing:([\w-]+):\d{12}:listener/(app|net|gwy)/[^/]+/[^/]+/[^/]+")

Resolve = Callable[[str], Sequence[str]]


def resolve(name: str) -> Sequence[str]:
    """The IPv4 addresses of a host name, none where it cannot be looked up from here."""
    try:
        found = socket.getaddrinfo(name, None, family=socket.AF_INET, type=socket.SOCK_STREAM)
    except OSError:
        return ()
    return sorted({str(address[0]) for *_, address in found})


class _More(TypedDict, total=False):
    """What a change of a rule sends where somebody has changed it."""

    Conditions: list[RuleConditionUnionTypeDef]
    ResetTransforms: bool


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
        addresses = self._addresses_of(ctx, entry.dns_name)
        return RouteState(
            backends=standing.wired,
            weights=None if standing.rule is None else _weights(route, standing.rule),
            base_url=f"{entry.scheme}://{host}:{entry.port}",
            addresses=addresses,
            rules={name: rule["RuleArn"] for name, rule in rules.items() if rule is not None},
            left=None if standing.rule is None else self._left(standing.rule["RuleArn"]),
            partial=len(addresses) >= MOST_ADDRESSES,
            changed="" if standing.rule is None else _changed(route, standing.rule),
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
                    _target(target["Target"], route.port),
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
        conditions, rule = _conditions(route, None), standing.rule
        if rule is None:
            self._create_rule(ctx, route, 0, conditions, actions, _tag_list(route, {NAME: route.service}))
            return
        more: _More = {}
        if not _takes(rule, conditions):
            more["Conditions"] = conditions
        if rule.get("Transforms"):
            more["ResetTransforms"] = True
        with self._aws.calling(ctx, f"rule {rule['RuleArn']}"):
            self._aws.elbv2.modify_rule(RuleArn=rule["RuleArn"], Actions=actions, **more)

    def find(self, ctx: Context, service: str, key: str) -> list[Route]:
        names = [_slot_name(key, slot) for slot in Slot]
        found = [group for name in names if (group := self._named(ctx, name)) is not None]
        owners = {arn: group for group in found if (arn := group["TargetGroupArn"])}
        self._learn_owners(ctx, list(owners))
        ours = {arn: group for arn, group in owners.items() if self._owners.get(arn, {}).get(SERVICE) == service}
        balancers = dict.fromkeys(arn for group in ours.values() for arn in group.get("LoadBalancerArns", []))
        return [
            route
            for balancer in balancers
            for listener in self._listeners(ctx, balancer)
            for route in self._routes(ctx, service, key, listener, ours)
        ]

    def forget(self) -> None:
        self._owners.clear()

    def note_left(self, ctx: Context, route: Route, left: ReleaseId | None) -> None:
        rule = self._standing(ctx, route).rule
        if rule is None:
            raise NotFound(f"{route.service}: it has no rule that sends traffic")
        arn = rule["RuleArn"]
        if self._left(arn) == left:
            return
        owner = {key: value for key, value in self._owners.get(arn, {}).items() if key != LEFT}
        with self._aws.calling(ctx, f"rule {arn}"):
            if left is None:
                self._aws.elbv2.remove_tags(ResourceArns=[arn], TagKeys=[LEFT])
            else:
                self._aws.elbv2.add_tags(ResourceArns=[arn], Tags=[{"Key": LEFT, "Value": value_of(left)}])
        self._owners[arn] = owner if left is None else {**owner, LEFT: left}

    def _left(self, arn: str) -> ReleaseId | None:
        left = self._owners.get(arn, {}).get(LEFT)
        return ReleaseId(left) if left is not None else None

    def in_use(self, ctx: Context, route: Route) -> str:
        self._entry(ctx, route)
        rules = self._owned_rules(ctx, route.listener)
        ours = {arn for arn, tags in self._owners.items() if is_ours(tags)}
        return adopting.displaced(rules, ours, route, adopting.asked(_as_shown(_conditions(route, None))))

    def weights_of(self, ctx: Context, routes: Sequence[Route]) -> Mapping[str, Mapping[Slot, int] | None]:
        by_listener: dict[str, list[Route]] = {}
        for route in routes:
            by_listener.setdefault(route.listener, []).append(route)
        found: dict[str, Mapping[Slot, int] | None] = {}

        def look(ctx: Context, listener: str, stop: threading.Event) -> dict[str, Mapping[Slot, int] | None]:
            try:
                rules = self._rules(ctx, listener)
            except NotFound:
                return {}
            told: dict[str, Mapping[Slot, int] | None] = {}
            for route in by_listener[listener]:
                rule = rules.get(str(route.priority))
                ours = {group_name(route, slot) for slot in Slot}
                names = {_name_of(arn) for arn in _forwarded(rule)} if rule is not None else set()
                told[route.key] = _weights(route, rule) if rule is not None and names & ours else None
            return told

        in_flight(ctx, by_listener, look, found.update, width=LISTENERS_AT_ONCE, name="listeners")
        return found

    def slow_start(self, ctx: Context, route: Route, slot: Slot) -> float | None:
        group = self._target_group(ctx, route, slot)
        if group is None:
            return None
        arn = group["TargetGroupArn"]
        try:
            with self._aws.calling(ctx, f"target group {group_name(route, slot)}"):
                found = self._aws.elbv2.describe_target_group_attributes(TargetGroupArn=arn)["Attributes"]
        except NotFound:
            return None
        return next((float(each["Value"]) for each in found if each["Key"] == _SLOW_START), 0.0)

    def check_of(self, ctx: Context, route: Route, slot: Slot) -> HealthRule | None:
        group = self._target_group(ctx, route, slot)
        if group is None:
            return None
        there, health = replace(_rule_of_check(group), beside=_beside(group)), route.health
        made = replace(health, interval=float(math.ceil(health.interval)), timeout=float(math.ceil(health.timeout)))
        return health if there == made else there

    def set_slow_start(self, ctx: Context, route: Route) -> None:
        for slot in Slot:
            group = self._target_group(ctx, route, slot)
            if group is None:
                continue
            arn = group["TargetGroupArn"]
            with self._aws.calling(ctx, f"target group {group_name(route, slot)}"):
                self._aws.elbv2.modify_target_group_attributes(TargetGroupArn=arn, Attributes=_slow_start(route))

    def refuse_unadoptable(self, ctx: Context, route: Route, group: str) -> str:
        entry = self._entry(ctx, route)
        found = self._adoptable_group(ctx, route, group)
        arns = found.get("TargetGroupARNs", [])
        try:
            with self._aws.calling(ctx, f"target groups of {group}"):
                described = self._aws.elbv2.describe_target_groups(TargetGroupArns=arns)["TargetGroups"]
        except NotFound as error:
            raise UsageError(
                f"{group}: one of its target groups is gone: {error.message}",
                hint="detach it: `aws autoscaling detach-load-balancer-target-groups`",
            ) from error
        own = [group_name(route, slot) for slot in Slot]
        theirs = {each["TargetGroupArn"]: each for each in described if each["TargetGroupName"] not in own}
        rules = self._owned_rules(ctx, route.listener)
        ours = {arn for arn, tags in self._owners.items() if is_ours(tags) and tags.get(SERVICE) == route.service}
        leading = adopting.leading(
            rules, set(theirs), ours, route, adopting.asked(_as_shown(_conditions(route, None))), group
        )
        behind = theirs[leading.target_group]
        adopting.refuse_other_checks(found.get("HealthCheckType", "EC2"), route, entry.vpc, behind, group)
        return leading.told

    def _adoptable_group(self, ctx: Context, route: Route, group: str) -> AutoScalingGroupTypeDef:
        """The group, as far as it alone tells. Raises UsageError for what cannot be adopted."""
        with self._aws.calling(ctx, f"Auto Scaling group {group}"):
            found = self._aws.autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=[group])[
                "AutoScalingGroups"
            ]
        if not found or "Status" in found[0]:
            raise UsageError(
                f"{group}: there is no Auto Scaling group of that name in {self._aws.region}",
                hint="machines that are in no group cannot be adopted: make a group that they are attached to first",
            )
        tags = {tag.get("Key", ""): tag.get("Value", "") for tag in found[0].get("Tags", [])}
        if is_ours(tags) and tags.get(SERVICE) != route.service:
            raise NotOurs(
                f"Auto Scaling group {group}: is {tags.get(SERVICE)}'s already", hint="a group is of one service"
            )
        if "LaunchTemplate" not in found[0] and "MixedInstancesPolicy" not in found[0]:
            raise UsageError(
                f"{group}: its machines are started by a launch configuration, and not by a launch template",
                hint="AWS starts nothing new by launch configurations: make a launch template of it, and let the "
                "group use that",
            )
        if not found[0].get("TargetGroupARNs"):
            raise UsageError(
                f"{group}: stands behind no target group",
                hint="attach it to the one that its machines are registered with: `aws autoscaling "
                f"attach-load-balancer-target-groups --auto-scaling-group-name {group} --target-group-arns ...`",
            )
        return found[0]

    def give_back(self, ctx: Context, route: Route) -> None:
        rule = self._standing(ctx, route).rule
        if rule is not None:
            self._delete_rule(ctx, rule["RuleArn"])

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
        rules = self._rules(ctx, route.listener)
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
        gone = self._learn_owners(ctx, [*(rule["RuleArn"] for rule in held.values()), *backends.values()])
        held = {place: rule for place, rule in held.items() if rule["RuleArn"] not in gone}
        backends = {slot: arn for slot, arn in backends.items() if slot in held and arn not in gone}
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
            if _takes(held[slot], _conditions(route, slot)):
                wired[slot] = arn
        previews = {slot: held[slot] for slot in Slot if slot in held}
        return _Standing(held.get(None), previews, wired)

    def _listeners(self, ctx: Context, balancer: str) -> list[str]:
        with self._aws.calling(ctx, f"load balancer {balancer}"):
            pages = self._aws.elbv2.get_paginator("describe_listeners").paginate(LoadBalancerArn=balancer)
            return [listener["ListenerArn"] for page in pages for listener in page["Listeners"]]

    def _routes(
        self, ctx: Context, service: str, key: str, listener: str, groups: Mapping[str, TargetGroupTypeDef]
    ) -> list[Route]:
        """The routes of a service on a listener, by the rules that send to its target groups."""
        rules = list(self._rules(ctx, listener).values())
        leading = {rule["RuleArn"]: rule for rule in rules if set(_forwarded(rule)) & set(groups)}
        self._learn_owners(ctx, list(leading))
        ours = [rule for arn, rule in leading.items() if self._owners.get(arn, {}).get(SERVICE) == service]
        headers = {int(rule["Priority"]): _header_of(rule) for rule in ours}
        found = []
        for rule in ours:
            priority = int(rule["Priority"])
            if headers[priority]:
                continue  # a preview
            group = groups[next(iter(set(_forwarded(rule)) & set(groups)))]
            owner = self._owners[rule["RuleArn"]]
            kept = {each: value for each, value in owner.items() if each not in (NAME, LEFT, SLOT)}
            preview = (headers.get(priority + offset, "") for offset in PREVIEW_PRIORITY.values())
            host, path = (_condition(rule, field) for field in ("host-header", "path-pattern"))
            found.append(
                Route(
                    key=key,
                    service=service,
                    listener=listener,
                    priority=priority,
                    port=group["Port"],
                    health=_rule_of_check(group),
                    preview_header=next(filter(None, preview), ""),
                    host=host,
                    path=path,
                    tags=kept,
                )
            )
        return found

    def _rules(self, ctx: Context, listener: str) -> dict[str, RuleTypeDef]:
        """Every rule of a listener, by its priority."""
        with self._aws.calling(ctx, f"listener {listener}"):
            pages = self._aws.elbv2.get_paginator("describe_rules").paginate(ListenerArn=listener)
            return {rule["Priority"]: rule for page in pages for rule in page["Rules"]}

    def _owned_rules(self, ctx: Context, listener: str) -> list[RuleTypeDef]:
        """Likewise, whose each is being known from now on; without those that others delete meanwhile."""
        rules = list(self._rules(ctx, listener).values())
        gone = self._learn_owners(ctx, [rule["RuleArn"] for rule in rules if rule["Priority"] != "default"])
        return [rule for rule in rules if rule["RuleArn"] not in gone]

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
        found = self._named(ctx, name)
        if found is None:
            self._groups.pop(name, None)
            return None
        arn = found["TargetGroupArn"]
        if self._learn_owners(ctx, [arn]):  # deleted in between
            return None
        self._check_group_owner(route, arn)
        self._groups[name] = arn
        return found

    def _named(self, ctx: Context, name: str) -> TargetGroupTypeDef | None:
        """A target group by its name, whosever it is."""
        try:
            with self._aws.calling(ctx, f"target group {name}"):
                found = self._aws.elbv2.describe_target_groups(Names=[name])["TargetGroups"]
        except NotFound:
            return None
        return found[0] if found else None

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
                    Matcher={"HttpCode": _WELL},
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
                    Matcher={"HttpCode": _WELL},
                    Tags=_tag_list(route, {SLOT: slot.value, NAME: f"{route.service} {slot}"}),
                )["TargetGroups"][0]["TargetGroupArn"]
            self._aws.elbv2.modify_target_group_attributes(
                TargetGroupArn=arn,
                Attributes=[
                    {"Key": "deregistration_delay.timeout_seconds", "Value": str(DEREGISTRATION_DELAY)},
                    *_slow_start(route),
                ],
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

    def _learn_owners(self, ctx: Context, arns: Sequence[str]) -> set[str]:
        """Ask for the tags of what was not seen before; those that are gone. An ARN is never given twice, so its owner
        does not change; a note on a rule may, for which :meth:`forget` is there."""
        unknown, gone = [arn for arn in arns if arn not in self._owners], set[str]()
        for first in range(0, len(unknown), _TAGS_AT_ONCE):
            asked = unknown[first : first + _TAGS_AT_ONCE]
            try:
                self._learn_tags(ctx, asked)
            except NotFound:
                # One that is gone has the tags of all refused, and which one it is only each alone tells.
                gone |= {arn for arn in asked if not self._is_there(ctx, arn)} if len(asked) > 1 else set(asked)
        return gone

    def _is_there(self, ctx: Context, arn: str) -> bool:
        """Whether a rule or a target group has tags to be asked for, which are known from now on."""
        try:
            self._learn_tags(ctx, [arn])
        except NotFound:
            return False
        return True

    def _learn_tags(self, ctx: Context, arns: Sequence[str]) -> None:
        """Raises NotFound where one of them is gone."""
        with self._aws.calling(ctx, "tags of rules and target groups"):
            described = self._aws.elbv2.describe_tags(ResourceArns=arns)["TagDescriptions"]
        for each in described:
            tags = {tag["Key"]: text_of(tag.get("Value", "")) for tag in each.get("Tags", [])}
            # What is not ours yet may become so: somebody adds the tags by hand to hand it over.
            if is_ours(tags):
                self._owners[each["ResourceArn"]] = tags


_SLOW_START = "slow_start.duration_seconds"


def _slow_start(route: Route) -> list[TargetGroupAttributeTypeDef]:
    return [{"Key": _SLOW_START, "Value": str(math.ceil(route.slow_start))}]


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


def _beside(group: TargetGroupTypeDef) -> str:
    """What of a health check is as :meth:`AlbRouter._make_target_group` makes none, in words."""
    found = {
        "on port": (group.get("HealthCheckPort", "traffic-port"), "traffic-port"),
        "by": (group.get("HealthCheckProtocol", "HTTP"), "HTTP"),
        "answered with": (group.get("Matcher", {}).get("HttpCode", _WELL), _WELL),
    }
    return ", ".join(f"{what} {there}" for what, (there, made) in found.items() if there != made)


_WELL = "200-299"
"""Statuses of a machine that is healthy."""


def _rule_of_check(group: TargetGroupTypeDef) -> HealthRule:
    return HealthRule(
        path=group["HealthCheckPath"],
        interval=float(group["HealthCheckIntervalSeconds"]),
        timeout=float(group["HealthCheckTimeoutSeconds"]),
        healthy=group["HealthyThresholdCount"],
        unhealthy=group["UnhealthyThresholdCount"],
    )


def _fits(group: TargetGroupTypeDef, route: Route, entry: _Entry) -> bool:
    """Whether a target group can be brought to what the route says; port and network never change."""
    return (group.get("Port"), group.get("VpcId")) == (route.port, entry.vpc)


def group_name(route: Route, slot: Slot) -> str:
    return _slot_name(route.key, slot)


def _slot_name(key: str, slot: Slot) -> str:
    return f"osvd-{key}-{slot}"


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


def _takes(rule: RuleTypeDef, wanted: Sequence[RuleConditionUnionTypeDef]) -> bool:
    """Whether a rule takes the requests that these conditions ask for. One that somebody gave another host or path
    beside its own does; one that asks for anything else, or for less, does not."""
    there, ours = (_by_field(conditions) for conditions in (rule.get("Conditions", []), wanted))
    return there.keys() == ours.keys() and all(values <= there[field] for field, values in ours.items())


def _by_field(conditions: _Conditions) -> dict[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}
    for field, values in adopting.asked(_as_shown(conditions)):
        # Both kinds of value are compared by ELB without regard to case.
        folded = field.startswith(("host-header", "http-header"))
        each = frozenset(value.lower() for value in values) if folded else values
        # Two conditions on one field hold together, so neither's values can stand for the other's.
        found[field] = each if field not in found else frozenset()
    return found


def _changed(route: Route, rule: RuleTypeDef) -> str:
    """What of the route's own rule is not as :meth:`AlbRouter.set_weights` writes it, beside the weights of the slots.
    A group without weight gets no request, and is nothing."""
    actions, conditions = rule.get("Actions", []), _conditions(route, None)
    kinds, found = [action["Type"] for action in actions], list[str]()
    if kinds != ["forward"]:
        found.append(f"does {', '.join(kinds) or 'nothing'}, and not forward alone")
    weights = {_name_of(arn) or arn: weight for arn, weight in adopting.targets(rule).items()}
    total, own = sum(weights.values()), {group_name(route, slot) for slot in Slot}
    found += [f"sends {weight} of {total} to {name}" for name, weight in weights.items() if weight and name not in own]
    if any(each.get("ForwardConfig", {}).get("TargetGroupStickinessConfig", {}).get("Enabled") for each in actions):
        found.append("keeps clients where they were sent before (target group stickiness)")
    if rule.get("Transforms"):
        found.append("rewrites requests")
    if not _takes(rule, conditions):
        there, wanted = (adopting.in_words(_as_shown(each)) for each in (rule.get("Conditions", []), conditions))
        found.append(f"takes {there}, and not {wanted}")
    return "; ".join(found)


def _as_shown(conditions: _Conditions) -> Sequence[RuleConditionOutputTypeDef]:
    """Conditions, of ours too, in the form in which they are answered: it differs in nothing that is read."""
    return cast("Sequence[RuleConditionOutputTypeDef]", conditions)


def _header_of(rule: RuleTypeDef) -> str:
    """The header that a rule asks for, "" for none."""
    named = (each.get("HttpHeaderConfig", {}).get("HttpHeaderName", "") for each in rule.get("Conditions", []))
    return next(filter(None, named), "")


def _condition(rule: RuleTypeDef, field: str) -> str | None:
    """The value that a rule asks of a field, None for any. What stands in for "every request" is none."""
    for condition in rule.get("Conditions", []):
        if condition.get("Field") == field:
            config = condition.get("HostHeaderConfig") or condition.get("PathPatternConfig") or {}
            values = condition.get("Values") or config.get("Values", [])
            return values[0] if values else None
    return None


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
    return [{"Key": key, "Value": value_of(value)} for key, value in sorted({**route.tags, **more}.items())]


def _target(target: TargetDescriptionTypeDef, port: int) -> str:
    """An instance's id where it is asked at the route's port: what its group registers. Registered by hand at another
    one, it is another program that gets requests."""
    there = target.get("Port", port)
    return target["Id"] if there == port else f"{target['Id']}:{there}"


def _reason(code: str | None, description: str | None) -> str:
    return ": ".join(part for part in (code, description) if part)
