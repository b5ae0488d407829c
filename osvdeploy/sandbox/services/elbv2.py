"""Elastic Load Balancing v2: application load balancers, their listeners, rules, target groups and targets.

What a call changes is configured at once and in force later: a listener's rules reach the data plane after
:data:`RULES_REACH_DATA_PLANE`, a registered target is checked after :data:`REGISTRATION`. How long AWS takes is
documented nowhere; these are the sandbox's own, of the order that is seen.

The sandbox's own limits, each refused as not simulated: application load balancers with HTTP alone, listener ports from
1024 up (they are opened on loopback), targets that are instances, no stickiness.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from osvdeploy.sandbox import dataplane, health
from osvdeploy.sandbox.dataplane import DEFAULT_PRIORITY, Endpoint, Rule, SlowStart, Target, TargetState, View
from osvdeploy.sandbox.errors import ApiError, NotSimulated
from osvdeploy.sandbox.health import CheckResult, HealthCheck, TargetHealth
from osvdeploy.sandbox.services import routing
from osvdeploy.sandbox.services.routing import Wire, invalid
from osvdeploy.sandbox.services.scope import Doc, EventHandler, Operation, Scope

RULES_REACH_DATA_PLANE = 3.0
"""Seconds until a changed listener or rule is in force; the old rules serve until then."""

REGISTRATION = 2.0
"""Seconds from RegisterTargets to the first health check (Elb.RegistrationInProgress)."""

PROVISIONING = 10.0
"""Seconds until a new balancer is active."""

LOWEST_PORT = 1024
RULES_PER_BALANCER = 100
LISTENERS_PER_BALANCER = 50
TAGS_PER_RESOURCE = 50
PAGE_LIMIT = 400
FIRST_NET, NETS, HOSTS = 7, 240, 254

BALANCER, LISTENER, RULE = "elbv2.balancer", "elbv2.listener", "elbv2.rule"
GROUP, TARGET, IN_FORCE = "elbv2.group", "elbv2.target", "elbv2.in-force"
HOSTS_SEEN = "elbv2.hosts-seen"
"""Kinds of documents in the store. The last, by target group: since when there were how many healthy targets and how
many unhealthy ones, ``[[time, healthy, unhealthy], ...]``."""

HOSTS_KEPT = 500
"""Changes of a group's health that are remembered."""


# ------------------------------------------------------------------------------------------------- load balancers


def create_load_balancer(scope: Scope, params: Wire) -> Doc:
    name = params["Name"]
    routing.check_name(name, "Load balancer")
    if name.startswith("internal-"):
        raise invalid(f"Load balancer name '{name}' cannot begin with 'internal-'")
    _refuse_unsimulated(params)
    zones, vpc = _zones(scope, params)
    groups = list(params.get("SecurityGroups") or [])
    for group in groups:
        known = scope.ec2.security_group(group)
        if known is None or known["VpcId"] != vpc:
            raise ApiError(
                "InvalidSecurityGroup", f"The security group '{group}' does not exist or is not in VPC '{vpc}'"
            )
    wanted = {
        "Scheme": params.get("Scheme") or "internet-facing",
        "AvailabilityZones": zones,
        "SecurityGroups": groups or [scope.ec2.default_security_group(vpc)],
    }
    for balancer in scope.all(BALANCER):
        if balancer["LoadBalancerName"] == name:
            if all(balancer[key] == value for key, value in wanted.items()):
                return {"LoadBalancers": [_shown(balancer)]}
            raise ApiError(
                "DuplicateLoadBalancerName",
                f"A load balancer with the same name '{name}' exists, but with different settings",
            )
    tags = _new_tags(params)
    arn = _arn(scope, f"loadbalancer/app/{name}/{scope.new_id(16)}")
    balancer = {
        "LoadBalancerArn": arn,
        "DNSName": new_address(scope),
        "CanonicalHostedZoneId": "Z00000000SANDBOX",
        "CreatedTime": scope.now.isoformat(),
        "LoadBalancerName": name,
        "VpcId": vpc,
        "State": {"Code": "provisioning"},
        "Type": "application",
        "IpAddressType": "ipv4",
        **wanted,
        "tags": tags,
    }
    scope.put(BALANCER, arn, balancer)
    scope.later(PROVISIONING, "elbv2.active", {"balancer": arn})
    return {"LoadBalancers": [_shown(balancer)]}


def _refuse_unsimulated(params: Wire) -> None:
    if (kind := params.get("Type") or "application") != "application":
        raise NotSimulated(f"load balancers of type {kind}")
    if (family := params.get("IpAddressType") or "ipv4") != "ipv4":
        raise NotSimulated(f"IP address type {family}")
    if params.get("Scheme") not in (None, "internet-facing", "internal"):
        raise invalid(
            f"1 validation error detected: Value '{params['Scheme']}' at 'scheme' failed to satisfy constraint: "
            "Member must satisfy enum value set: [internet-facing, internal]"
        )


def _zones(scope: Scope, params: Wire) -> tuple[list[Doc], str]:
    """The zones of a new balancer's subnets, and their VPC."""
    mappings = params.get("SubnetMappings") or []
    if any(set(mapping) - {"SubnetId"} for mapping in mappings):
        raise NotSimulated("addresses in subnet mappings")
    names = list(params.get("Subnets") or []) or [mapping.get("SubnetId", "") for mapping in mappings]
    subnets = []
    for name in dict.fromkeys(names):
        subnet = scope.ec2.subnet(name)
        if subnet is None:
            raise ApiError("SubnetNotFound", f"The subnet ID '{name}' does not exist")
        subnets.append(subnet)
    if len(subnets) < 2:
        raise invalid("At least two subnets in two different Availability Zones must be specified")
    if len({subnet["VpcId"] for subnet in subnets}) > 1:
        raise ApiError("InvalidConfigurationRequest", "All subnets must belong to the same VPC")
    if len({subnet["AvailabilityZone"] for subnet in subnets}) < len(subnets):
        raise ApiError(
            "InvalidConfigurationRequest",
            "A load balancer cannot be attached to multiple subnets in the same Availability Zone",
        )
    zones = [
        {"ZoneName": subnet["AvailabilityZone"], "SubnetId": subnet["SubnetId"], "LoadBalancerAddresses": []}
        for subnet in subnets
    ]
    return zones, subnets[0]["VpcId"]


def new_address(scope: Scope) -> str:
    """A loopback address of its own, whatever the region. Digits need no resolver. Where a sandbox counts from is its
    own affair (:attr:`~osvdeploy.sandbox.core.Sandbox.balancers`)."""
    number = scope.count("balancer") - 1
    if number >= (256 - FIRST_NET) * HOSTS:
        raise ApiError(
            "TooManyLoadBalancers", "You've reached the limit on the number of load balancers for your account"
        )
    return f"127.0.{FIRST_NET + number // HOSTS}.{1 + number % HOSTS}"


def describe_load_balancers(scope: Scope, params: Wire) -> Doc:
    arns, names = params.get("LoadBalancerArns") or [], params.get("Names") or []
    if arns and names:
        raise invalid("Load balancer names and load balancer ARNs cannot be specified at the same time")
    found = _by_time(scope.all(BALANCER))
    if arns:
        for arn in arns:
            _balancer(scope, arn)
        found = [balancer for balancer in found if balancer["LoadBalancerArn"] in arns]
    if names:
        missing = [name for name in names if name not in {balancer["LoadBalancerName"] for balancer in found}]
        if missing:
            raise ApiError("LoadBalancerNotFound", f"Load balancers '[{', '.join(missing)}]' not found")
        found = [balancer for balancer in found if balancer["LoadBalancerName"] in names]
    return _page(params, "LoadBalancers", [_shown(balancer) for balancer in found])


def delete_load_balancer(scope: Scope, params: Wire) -> Doc:
    """Its listeners and rules go with it. Succeeds for one that is gone."""
    arn = params["LoadBalancerArn"]
    if ":loadbalancer/" not in arn:
        raise invalid(f"'{arn}' is not a valid load balancer ARN")
    if scope.get(BALANCER, arn) is None:
        return {}
    for listener in _listeners_of(scope, arn):
        _drop_listener(scope, listener)
    scope.delete(BALANCER, arn)
    release_unused(scope)
    return {}


# ------------------------------------------------------------------------------------------------------ listeners


def create_listener(scope: Scope, params: Wire) -> Doc:
    balancer = _balancer(scope, params["LoadBalancerArn"])
    arn = balancer["LoadBalancerArn"]
    protocol, port = params.get("Protocol"), params.get("Port")
    _check_listener(protocol, port)
    actions = _actions(scope, balancer, params["DefaultActions"])
    tags = _new_tags(params)
    there = _listeners_of(scope, arn)
    for listener in there:
        if listener["Port"] == port:
            if listener["DefaultActions"] == actions and listener["Protocol"] == protocol:
                return {"Listeners": [_shown(listener)]}
            raise ApiError(
                "DuplicateListener", f"A listener already exists on this port for this load balancer '{arn}'"
            )
    if len(there) >= LISTENERS_PER_BALANCER:
        raise ApiError("TooManyListeners", f"The maximum number of listeners has been reached on load balancer '{arn}'")
    listener = {
        "ListenerArn": arn.replace(":loadbalancer/", ":listener/") + "/" + scope.new_id(16),
        "LoadBalancerArn": arn,
        "Port": port,
        "Protocol": protocol,
        "DefaultActions": actions,
        "default_rule": scope.new_id(16),
        "created": scope.now.isoformat(),
        "tags": tags,
    }
    scope.put(LISTENER, listener["ListenerArn"], listener)
    _changed(scope, listener["ListenerArn"])
    return {"Listeners": [_shown(listener)]}


def _check_listener(protocol: str | None, port: int | None) -> None:
    if protocol is None:
        raise invalid("A listener protocol must be specified")
    if port is None:
        raise invalid("A listener port must be specified")
    if protocol == "HTTPS":
        raise NotSimulated("HTTPS listeners")
    if protocol != "HTTP":
        raise invalid(f"Listener protocol '{protocol}' must be one of 'HTTPS, HTTP'")
    if not 1 <= port <= 65535:
        raise invalid(f"Listener port '{port}' must be in the range [1-65535]")
    if port < LOWEST_PORT:
        raise NotSimulated(
            f"listener port {port}: the sandbox opens listeners on loopback, where only ports from {LOWEST_PORT} up "
            "need no privilege"
        )


def describe_listeners(scope: Scope, params: Wire) -> Doc:
    balancer, arns = params.get("LoadBalancerArn"), params.get("ListenerArns") or []
    if not balancer and not arns:
        raise invalid("You must specify either listener ARNs or a load balancer ARN")
    if balancer and arns:
        raise invalid("Load balancer ARN and listener ARNs cannot be specified at the same time")
    if balancer:
        found = _listeners_of(scope, _balancer(scope, balancer)["LoadBalancerArn"])
    else:
        found = [_listener(scope, arn) for arn in arns]
    return _page(params, "Listeners", [_shown(listener) for listener in found])


def modify_listener(scope: Scope, params: Wire) -> Doc:
    listener = _listener(scope, params["ListenerArn"])
    balancer = _balancer(scope, listener["LoadBalancerArn"])
    protocol = params.get("Protocol") or listener["Protocol"]
    port = params.get("Port") or listener["Port"]
    _check_listener(protocol, port)
    others = [other for other in _listeners_of(scope, balancer["LoadBalancerArn"]) if other != listener]
    if any(other["Port"] == port for other in others):
        raise ApiError(
            "DuplicateListener",
            f"A listener already exists on this port for this load balancer '{balancer['LoadBalancerArn']}'",
        )
    if params.get("DefaultActions"):
        listener["DefaultActions"] = _actions(scope, balancer, params["DefaultActions"])
    listener |= {"Port": port, "Protocol": protocol}
    scope.put(LISTENER, listener["ListenerArn"], listener)
    _changed(scope, listener["ListenerArn"])
    return {"Listeners": [_shown(listener)]}


def delete_listener(scope: Scope, params: Wire) -> Doc:
    _drop_listener(scope, _listener(scope, params["ListenerArn"]))
    release_unused(scope)
    return {}


def _drop_listener(scope: Scope, listener: Doc) -> None:
    for rule in _rules_of(scope, listener["ListenerArn"]):
        scope.delete(RULE, rule["RuleArn"])
    scope.delete(LISTENER, listener["ListenerArn"])
    scope.delete(IN_FORCE, listener["ListenerArn"])


# ----------------------------------------------------------------------------------------------------------- rules


def create_rule(scope: Scope, params: Wire) -> Doc:
    listener = _listener(scope, params["ListenerArn"])
    balancer = _balancer(scope, listener["LoadBalancerArn"])
    if params.get("Transforms"):
        raise NotSimulated("rule transforms")
    priority = params["Priority"]
    _check_priority(priority)
    conditions = routing.normal_conditions(params["Conditions"])
    actions = _actions(scope, balancer, params["Actions"])
    tags = _new_tags(params)
    if any(rule["Priority"] == priority for rule in _rules_of(scope, listener["ListenerArn"])):
        raise ApiError("PriorityInUse", f"Priority '{priority}' is currently in use")
    if sum(len(_rules_of(scope, each["ListenerArn"])) for each in _siblings(scope, listener)) >= RULES_PER_BALANCER:
        raise ApiError("TooManyRules", "The maximum number of rules has been reached")
    arn = listener["ListenerArn"].replace(":listener/", ":listener-rule/") + "/" + scope.new_id(16)
    rule = {
        "RuleArn": arn,
        "ListenerArn": listener["ListenerArn"],
        "Priority": priority,
        "Conditions": conditions,
        "Actions": actions,
        "tags": tags,
    }
    scope.put(RULE, arn, rule)
    _changed(scope, listener["ListenerArn"])
    return {"Rules": [_shown_rule(rule)]}


def _check_priority(priority: int) -> None:
    if priority < 1:
        raise invalid(
            f"1 validation error detected: Value '{priority}' at 'priority' failed to satisfy constraint: "
            "Member must have value greater than or equal to 1"
        )
    if priority > routing.PRIORITY_LIMIT:
        raise invalid(
            f"1 validation error detected: Value '{priority}' at 'priority' failed to satisfy constraint: "
            f"Member must have value less than or equal to {routing.PRIORITY_LIMIT}"
        )


def describe_rules(scope: Scope, params: Wire) -> Doc:
    arn, arns = params.get("ListenerArn"), params.get("RuleArns") or []
    if not arn and not arns:
        raise invalid("You must specify either listener rule ARNs or a listener ARN")
    if arn and arns:
        raise invalid("A listener ARN and listener rule ARNs cannot be specified at the same time")
    if arn:
        listener = _listener(scope, arn)
        found = [_shown_rule(rule) for rule in _rules_of(scope, arn)] + [_default_rule(listener)]
    else:
        found = [_shown_any_rule(scope, each) for each in arns]
    return _page(params, "Rules", found)


def modify_rule(scope: Scope, params: Wire) -> Doc:
    rule = _changeable_rule(scope, params["RuleArn"], "modified")
    if params.get("Transforms") or params.get("ResetTransforms"):
        raise NotSimulated("rule transforms")
    if not params.get("Conditions") and not params.get("Actions"):
        raise invalid("Either conditions or actions must be specified")
    listener = _listener(scope, rule["ListenerArn"])
    if params.get("Conditions"):
        rule["Conditions"] = routing.normal_conditions(params["Conditions"])
    if params.get("Actions"):
        rule["Actions"] = _actions(scope, _balancer(scope, listener["LoadBalancerArn"]), params["Actions"])
    scope.put(RULE, rule["RuleArn"], rule)
    _changed(scope, listener["ListenerArn"])
    return {"Rules": [_shown_rule(rule)]}


def delete_rule(scope: Scope, params: Wire) -> Doc:
    rule = _changeable_rule(scope, params["RuleArn"], "deleted")
    scope.delete(RULE, rule["RuleArn"])
    _changed(scope, rule["ListenerArn"])
    return {}


def set_rule_priorities(scope: Scope, params: Wire) -> Doc:
    wanted: dict[str, int] = {}
    for pair in params["RulePriorities"]:
        _check_priority(pair["Priority"])
        wanted[pair["RuleArn"]] = pair["Priority"]
    if len(set(wanted.values())) != len(params["RulePriorities"]):
        raise invalid("A priority or a rule was provided multiple times")
    rules = [_changeable_rule(scope, arn, "modified") for arn in wanted]
    listeners = {rule["ListenerArn"] for rule in rules}
    if len(listeners) > 1:
        raise invalid("All rules must belong to the same listener")
    for listener in listeners:
        for rule in _rules_of(scope, listener):
            if rule["RuleArn"] not in wanted and rule["Priority"] in wanted.values():
                raise ApiError("PriorityInUse", f"Priority '{rule['Priority']}' is currently in use")
    for rule in rules:
        rule["Priority"] = wanted[rule["RuleArn"]]
        scope.put(RULE, rule["RuleArn"], rule)
    for listener in listeners:
        _changed(scope, listener)
    return {"Rules": [_shown_rule(rule) for rule in rules]}


def _changeable_rule(scope: Scope, arn: str, done: str) -> Doc:
    rule = scope.get(RULE, arn)
    if rule is not None:
        return rule
    if any(_default_rule(listener)["RuleArn"] == arn for listener in scope.all(LISTENER)):
        raise ApiError("OperationNotPermitted", f"Default rule '{arn}' cannot be {done}")
    raise _no_rule(arn)


def _no_rule(arn: str) -> ApiError:
    if ":listener-rule/" not in arn:
        return invalid(f"'{arn}' is not a valid listener rule ARN")
    return ApiError("RuleNotFound", "One or more rules not found")


def _shown_any_rule(scope: Scope, arn: str) -> Doc:
    rule = scope.get(RULE, arn)
    if rule is not None:
        return _shown_rule(rule)
    for listener in scope.all(LISTENER):
        if (default := _default_rule(listener))["RuleArn"] == arn:
            return default
    raise _no_rule(arn)


def _shown_rule(rule: Doc) -> Doc:
    return {
        "RuleArn": rule["RuleArn"],
        "Priority": str(rule["Priority"]),
        "Conditions": rule["Conditions"],
        "Actions": rule["Actions"],
        "IsDefault": False,
    }


def _default_rule(listener: Doc) -> Doc:
    arn = listener["ListenerArn"].replace(":listener/", ":listener-rule/") + "/" + listener["default_rule"]
    actions = listener["DefaultActions"]
    return {"RuleArn": arn, "Priority": "default", "Conditions": [], "Actions": actions, "IsDefault": True}


def _actions(scope: Scope, balancer: Doc, actions: Sequence[Wire]) -> list[Doc]:
    """Normalised actions, their target groups looked at: they exist, in this VPC, and serve no other balancer."""
    normal = routing.normal_actions(actions)
    for action in normal:
        for arn, _ in routing.forwarded_groups(action):
            group = scope.get(GROUP, arn)
            if group is None:
                raise _no_group(arn)
            if group["VpcId"] != balancer["VpcId"]:
                raise ApiError(
                    "InvalidConfigurationRequest",
                    f"Target group '{arn}' is in VPC '{group['VpcId']}', the load balancer in '{balancer['VpcId']}'",
                )
            if set(balancers_of(scope, arn)) - {balancer["LoadBalancerArn"]}:
                raise ApiError(
                    "TargetGroupAssociationLimit",
                    f"The following target groups cannot be associated with more than one load balancer: {arn}",
                )
    return normal


# --------------------------------------------------------------------------------------------------- target groups


def create_target_group(scope: Scope, params: Wire) -> Doc:
    name = params["Name"]
    routing.check_name(name, "Target group")
    if (kind := params.get("TargetType") or "instance") != "instance":
        raise NotSimulated(f"targets of type {kind}")
    protocol, port = params.get("Protocol"), params.get("Port")
    if protocol is None:
        raise invalid("A protocol must be specified")
    if protocol != "HTTP":
        raise NotSimulated(f"target groups with protocol {protocol}")
    if (version := params.get("ProtocolVersion") or "HTTP1") != "HTTP1":
        raise NotSimulated(f"protocol version {version}")
    if (family := params.get("IpAddressType") or "ipv4") != "ipv4":
        raise NotSimulated(f"IP address type {family}")
    if params.get("TargetControlPort"):
        raise NotSimulated("target control ports")
    if port is None:
        raise invalid("A port must be specified")
    if not 1 <= port <= 65535:
        raise invalid(f"Target group port '{port}' must be in the range [1-65535]")
    vpc = params.get("VpcId")
    if not vpc:
        raise invalid("A VPC ID must be specified")
    if scope.ec2.vpc(vpc) is None:
        raise invalid(f"The VPC ID '{vpc}' is not found")
    settings = {**routing.HEALTH_CHECK_DEFAULTS, **_health_settings(params)}
    routing.check_health_settings(settings)
    wanted = {
        "Protocol": protocol,
        "Port": port,
        "VpcId": vpc,
        **settings,
        "TargetType": "instance",
        "ProtocolVersion": "HTTP1",
        "IpAddressType": "ipv4",
    }
    tags = _new_tags(params)
    for group in scope.all(GROUP):
        if group["TargetGroupName"] == name:
            if all(group[key] == value for key, value in wanted.items()):
                return {"TargetGroups": [_shown_group(scope, group)]}
            raise ApiError(
                "DuplicateTargetGroupName",
                f"A target group with the same name '{name}' exists, but with different settings",
            )
    arn = _arn(scope, f"targetgroup/{name}/{scope.new_id(16)}")
    group = {
        "TargetGroupArn": arn,
        "TargetGroupName": name,
        **wanted,
        "created": scope.now.isoformat(),
        "attributes": {},
        "tags": tags,
    }
    scope.put(GROUP, arn, group)
    return {"TargetGroups": [_shown_group(scope, group)]}


def _health_settings(params: Wire) -> Doc:
    return {name: params[name] for name in routing.HEALTH_CHECK_FIELDS if params.get(name) is not None}


def describe_target_groups(scope: Scope, params: Wire) -> Doc:
    balancer, arns, names = (
        params.get("LoadBalancerArn"),
        params.get("TargetGroupArns") or [],
        params.get("Names") or [],
    )
    if sum(map(bool, (balancer, arns, names))) > 1:
        raise invalid("Only one of load balancer ARN, target group ARNs and names can be specified")
    found = _by_time(scope.all(GROUP))
    if balancer:
        arn = _balancer(scope, balancer)["LoadBalancerArn"]
        found = [group for group in found if arn in balancers_of(scope, group["TargetGroupArn"])]
    if arns:
        for arn in arns:
            _group(scope, arn)
        found = [group for group in found if group["TargetGroupArn"] in arns]
    if names:
        if set(names) - {group["TargetGroupName"] for group in found}:
            raise ApiError("TargetGroupNotFound", "One or more target groups not found")
        found = [group for group in found if group["TargetGroupName"] in names]
    return _page(params, "TargetGroups", [_shown_group(scope, group) for group in found])


def modify_target_group(scope: Scope, params: Wire) -> Doc:
    group = _group(scope, params["TargetGroupArn"])
    settings = {name: group[name] for name in routing.HEALTH_CHECK_FIELDS} | _health_settings(params)
    routing.check_health_settings(settings)
    group |= settings
    scope.put(GROUP, group["TargetGroupArn"], group)
    return {"TargetGroups": [_shown_group(scope, group)]}


def delete_target_group(scope: Scope, params: Wire) -> Doc:
    """Succeeds for one that is gone. Its targets are forgotten with it."""
    arn = params["TargetGroupArn"]
    if ":targetgroup/" not in arn:
        raise invalid(f"'{arn}' is not a valid target group ARN")
    if balancers_of(scope, arn):
        raise ApiError("ResourceInUse", f"Target group '{arn}' is currently in use by a listener or a rule")
    for target in _targets_of(scope, arn):
        scope.delete(TARGET, _key(target))
    scope.delete(HOSTS_SEEN, arn)
    scope.delete(GROUP, arn)
    return {}


def modify_target_group_attributes(scope: Scope, params: Wire) -> Doc:
    group = _group(scope, params["TargetGroupArn"])
    wanted = {attribute.get("Key", ""): attribute.get("Value", "") for attribute in params["Attributes"]}
    routing.check_together({**group["attributes"], **wanted})
    for key, value in wanted.items():
        routing.check_attribute(key, value)
    group["attributes"] |= wanted
    scope.put(GROUP, group["TargetGroupArn"], group)
    if wanted.get(routing.SLOW_START) == "0":
        for target in _targets_of(scope, group["TargetGroupArn"]):
            if target.pop("slow_start", None) is not None:
                scope.put(TARGET, _key(target), target)
    return describe_target_group_attributes(scope, params)


def describe_target_group_attributes(scope: Scope, params: Wire) -> Doc:
    attributes = routing.ATTRIBUTE_DEFAULTS | _group(scope, params["TargetGroupArn"])["attributes"]
    return {"Attributes": [{"Key": key, "Value": value} for key, value in attributes.items()]}


# --------------------------------------------------------------------------------------------------------- targets


def register_targets(scope: Scope, params: Wire) -> Doc:
    group = _group(scope, params["TargetGroupArn"])
    wanted = []
    for target in params["Targets"]:
        name, port = target["Id"], target.get("Port") or group["Port"]
        if target.get("AvailabilityZone"):
            raise invalid("You cannot specify an Availability Zone for targets of type instance")
        if not 1 <= port <= 65535:
            raise invalid(f"Target port '{port}' must be in the range [1-65535]")
        instance = scope.ec2.instance(name)
        if instance is None or instance.state == "terminated":
            raise ApiError("InvalidTarget", f"The following targets do not exist: '{name}'")
        if instance.vpc != group["VpcId"]:
            raise ApiError("InvalidTarget", f"The following targets are not in the target group VPC: '{name}'")
        if instance.state != "running":
            raise ApiError(
                "InvalidTarget",
                f"The following targets are not in a running state and cannot be registered: '{name}'",
            )
        wanted.append((name, port))
    for name, port in wanted:
        register(scope, group["TargetGroupArn"], name, port)
    return {}


def register(scope: Scope, group: str, instance: str, port: int) -> None:
    """Register one target, or bring a draining one back; one that is registered stays as it is."""
    target = scope.get(TARGET, f"{group}|{instance}|{port}")
    if target is not None and target["state"] != TargetState.DRAINING:
        return
    epoch, now = 0 if target is None else target["epoch"], scope.now.isoformat()
    fresh = {"group": group, "id": instance, "port": port, "epoch": epoch, "registered": now}
    _begin(scope, fresh)


def _begin(scope: Scope, target: Doc) -> None:
    """Start a target's life anew: unused, or on its way to its first check."""
    if balancers_of(scope, target["group"]):
        _set(scope, target, health.REGISTERING)
        scope.later(REGISTRATION, "elbv2.registered", {"target": _key(target), "epoch": target["epoch"]})
    else:
        _set(scope, target, health.NOT_IN_USE)


def _set(scope: Scope, target: Doc, new: TargetHealth) -> None:
    """A new state from outside the checks: what is due for the old one no longer counts."""
    target["epoch"] += 1
    _keep(scope, target, new)


def _keep(scope: Scope, target: Doc, new: TargetHealth) -> None:
    changed = target.get("state") != str(new.state)
    if changed:
        target.pop("slow_start", None)
        if new.state is TargetState.HEALTHY and (seconds := _slow_start(scope, target)):
            ends = scope.now + timedelta(seconds=seconds / scope.speed)
            target["slow_start"] = [scope.now.isoformat(), ends.isoformat()]
    target |= {
        "state": str(new.state),
        "reason": new.reason,
        "description": new.description,
        "passed": new.passed,
        "failed": new.failed,
        "first": new.first,
    }
    scope.put(TARGET, _key(target), target)
    if changed:
        _count_hosts(scope, target["group"])


def _slow_start(scope: Scope, target: Doc) -> float:
    """Seconds of slow start for a target that has just become healthy. Only one that joins others has any: a healthy
    one has to be there that is not in slow start itself, and did not come with it ("Edit target group attributes", slow
    start mode: targets of an empty group that are registered by one operation do not enter it)."""
    seconds = float(_group(scope, target["group"])["attributes"].get(routing.SLOW_START, "0"))
    if not seconds:
        return 0.0
    full = (
        each
        for each in _targets_of(scope, target["group"])
        if _key(each) != _key(target) and each["state"] == TargetState.HEALTHY and not _rises(each, scope.now)
    )
    joined = (each for each in full if not target["first"] or each["registered"] != target["registered"])
    return seconds if next(joined, None) is not None else 0.0


def _rises(target: Doc, now: datetime) -> bool:
    return "slow_start" in target and datetime.fromisoformat(target["slow_start"][1]) > now


def _forget(scope: Scope, target: Doc) -> None:
    """A target is gone."""
    scope.delete(TARGET, _key(target))
    _count_hosts(scope, target["group"])


def _count_hosts(scope: Scope, group: str) -> None:
    """Note how many targets are healthy and unhealthy from now on, for the metrics."""
    states = [target["state"] for target in _targets_of(scope, group)]
    now = [states.count(TargetState.HEALTHY), states.count(TargetState.UNHEALTHY)]
    seen = (scope.get(HOSTS_SEEN, group) or {"seen": []})["seen"]
    if not seen or seen[-1][1:] != now:
        scope.put(HOSTS_SEEN, group, {"seen": [*seen, [scope.now.isoformat(), *now]][-HOSTS_KEPT:]})


def deregister_targets(scope: Scope, params: Wire) -> Doc:
    group = _group(scope, params["TargetGroupArn"])
    for wanted in params["Targets"]:
        for target in _targets_of(scope, group["TargetGroupArn"]):
            if target["id"] == wanted["Id"] and wanted.get("Port") in (None, target["port"]):
                deregister(scope, target)
    return {}


def deregister(scope: Scope, target: Doc) -> float:
    """Take a target out: it drains for the deregistration delay, unless nothing was sent to it. Seconds until gone."""
    if target["state"] == TargetState.DRAINING:
        return 0.0
    if target["state"] == TargetState.UNUSED:
        _forget(scope, target)
        return 0.0
    attributes = routing.ATTRIBUTE_DEFAULTS | _group(scope, target["group"])["attributes"]
    delay = float(attributes["deregistration_delay.timeout_seconds"])
    _set(scope, target, health.DEREGISTERING)
    scope.later(delay, "elbv2.drained", {"target": _key(target), "epoch": target["epoch"]})
    return delay


def describe_target_health(scope: Scope, params: Wire) -> Doc:
    group = _group(scope, params["TargetGroupArn"])
    if params.get("Include"):
        raise NotSimulated(f"including {', '.join(params['Include'])} in target health")
    targets = _targets_of(scope, group["TargetGroupArn"])
    asked = params.get("Targets") or []
    if asked:
        shown = []
        for wanted in asked:
            port = wanted.get("Port") or group["Port"]
            here = [target for target in targets if (target["id"], target["port"]) == (wanted["Id"], port)]
            if here:
                shown += [_shown_target(group, target) for target in here]
            else:
                missing = {"id": wanted["Id"], "port": port, **_unpacked(health.NOT_REGISTERED)}
                shown.append(_shown_target(group, missing))
    else:
        shown = [_shown_target(group, target) for target in targets]
    return {"TargetHealthDescriptions": shown}


def _unpacked(state: TargetHealth) -> Doc:
    return {"state": str(state.state), "reason": state.reason, "description": state.description}


def _shown_target(group: Doc, target: Doc) -> Doc:
    port = group["HealthCheckPort"]
    state = {"State": target["state"], "Reason": target["reason"], "Description": target["description"]}
    return {
        "Target": {"Id": target["id"], "Port": target["port"]},
        "HealthCheckPort": str(target["port"]) if port == "traffic-port" else port,
        "TargetHealth": {key: value for key, value in state.items() if value},
    }


# ------------------------------------------------------------------------------------------------------------ tags


def add_tags(scope: Scope, params: Wire) -> Doc:
    new = _new_tags(params)
    found = [_tagged(scope, arn) for arn in params["ResourceArns"]]
    for _, _, document in found:
        if len(document["tags"] | new) > TAGS_PER_RESOURCE:
            raise ApiError("TooManyTags", "The maximum number of tags has been reached")
    for kind, key, document in found:
        scope.put(kind, key, {**document, "tags": document["tags"] | new})
    return {}


def remove_tags(scope: Scope, params: Wire) -> Doc:
    for kind, key, document in [_tagged(scope, arn) for arn in params["ResourceArns"]]:
        kept = {name: value for name, value in document["tags"].items() if name not in params["TagKeys"]}
        scope.put(kind, key, {**document, "tags": kept})
    return {}


def describe_tags(scope: Scope, params: Wire) -> Doc:
    if len(params["ResourceArns"]) > 20:
        raise invalid("You can specify up to 20 resources")
    descriptions = []
    for arn in params["ResourceArns"]:
        tags = _tagged(scope, arn)[2]["tags"]
        shown = [{"Key": key, "Value": value} for key, value in tags.items()]
        descriptions.append({"ResourceArn": arn, "Tags": shown})
    return {"TagDescriptions": descriptions}


def _tagged(scope: Scope, arn: str) -> tuple[str, str, Doc]:
    if ":loadbalancer/" in arn:
        return BALANCER, arn, _balancer(scope, arn)
    if ":targetgroup/" in arn:
        return GROUP, arn, _group(scope, arn)
    if ":listener/" in arn:
        return LISTENER, arn, _listener(scope, arn)
    if ":listener-rule/" in arn:
        rule = scope.get(RULE, arn)
        if rule is None:
            raise _no_rule(arn)
        return RULE, arn, rule
    raise invalid(f"'{arn}' is not a valid resource ARN")


_TAG_SIGNS = "_.:/=+-@"
_TAG_PATTERN = r"Member must satisfy regular expression pattern: ^([\p{L}\p{Z}\p{N}_.:/=+\-@]*)$"
"""TagKey and TagValue in the service's model."""


def _new_tags(params: Wire) -> dict[str, str]:
    tags: dict[str, str] = {}
    for tag in params.get("Tags") or []:
        key = tag["Key"]
        if key in tags:
            raise ApiError("DuplicateTagKeys", f"Tag key '{key}' was specified more than once")
        if key.lower().startswith("aws:"):
            raise invalid("Tag keys cannot begin with 'aws:'")
        if not 1 <= len(key) <= 128 or len(tag.get("Value") or "") > 256:
            raise invalid(f"Tag key '{key}' must be 1 to 128 characters, its value at most 256")
        for text in (key, tag.get("Value") or ""):
            if not all(each in _TAG_SIGNS or unicodedata.category(each)[0] in "LNZ" for each in text):
                raise invalid(f"Value '{text}' of a tag failed to satisfy constraint: {_TAG_PATTERN}")
        tags[key] = tag.get("Value") or ""
    if len(tags) > TAGS_PER_RESOURCE:
        raise ApiError("TooManyTags", "The maximum number of tags has been reached")
    return tags


# ------------------------------------------------------------------------------------------- what is due, and views


def balancer_active(scope: Scope, payload: Wire) -> None:
    balancer = scope.get(BALANCER, payload["balancer"])
    if balancer is not None:
        scope.put(BALANCER, payload["balancer"], {**balancer, "State": {"Code": "active"}})


def _changed(scope: Scope, listener: str) -> None:
    """A listener's configuration changed: this state of it reaches the data plane later."""
    document = _listener(scope, listener)
    rules = [
        {
            "priority": rule["Priority"],
            "conditions": rule["Conditions"],
            "action": rule["Actions"][0],
            "arn": rule["RuleArn"],
        }
        for rule in _rules_of(scope, listener)
    ]
    default = _default_rule(document)
    rules.append(
        {"priority": DEFAULT_PRIORITY, "conditions": [], "action": default["Actions"][0], "arn": default["RuleArn"]}
    )
    payload = {"listener": listener, "port": document["Port"], "rules": rules}
    scope.later(RULES_REACH_DATA_PLANE, "elbv2.in-force", payload)
    begin_used(scope)


def rules_in_force(scope: Scope, payload: Wire) -> None:
    if scope.get(LISTENER, payload["listener"]) is not None:
        scope.put(IN_FORCE, payload["listener"], dict(payload))
        release_unused(scope)


def begin_used(scope: Scope) -> None:
    """Targets of groups that are now forwarded to start on their way to the first check."""
    used = _used_groups(scope)
    for target in scope.all(TARGET):
        if target["group"] in used and target["reason"] == health.NOT_IN_USE.reason:
            _begin(scope, target)


def release_unused(scope: Scope) -> None:
    """Targets of groups that neither a configured rule nor one still in force forwards to become `unused`."""
    used = set(_used_groups(scope))
    for document in scope.all(IN_FORCE):
        used |= {arn for rule in document["rules"] for arn, _ in routing.forwarded_groups(rule["action"])}
    for target in scope.all(TARGET):
        if target["group"] not in used and target["state"] not in (TargetState.UNUSED, TargetState.DRAINING):
            _set(scope, target, health.NOT_IN_USE)


def _used_groups(scope: Scope) -> dict[str, set[str]]:
    """Groups that a listener or rule forwards to, by weight 0 too, with the balancers that do."""
    used: dict[str, set[str]] = {}
    balancers = {listener["ListenerArn"]: listener["LoadBalancerArn"] for listener in scope.all(LISTENER)}
    acting = [(listener["ListenerArn"], listener["DefaultActions"]) for listener in scope.all(LISTENER)]
    acting += [(rule["ListenerArn"], rule["Actions"]) for rule in scope.all(RULE)]
    for listener, actions in acting:
        for action in actions:
            for arn, _ in routing.forwarded_groups(action):
                used.setdefault(arn, set()).add(balancers[listener])
    return used


def balancers_of(scope: Scope, group: str) -> list[str]:
    """ARNs of the balancers that forward to a group."""
    return sorted(_used_groups(scope).get(group, ()))


@dataclass(frozen=True, slots=True)
class DueCheck:
    """A health check to do now. ``epoch`` tells the target's life it belongs to; ``guest`` is the instance's id."""

    target: str
    epoch: int
    guest: str
    address: str
    port: int
    check: HealthCheck


def registered(scope: Scope, payload: Wire) -> None:
    """A registration is through: the first check is due at once."""
    target = _current(scope, payload)
    if target is not None:
        _keep(scope, target, health.CHECKING)
        check_due(scope, payload)


def check_due(scope: Scope, payload: Wire) -> None:
    """Have a target checked, outside the store's lock."""
    due = _due(scope, payload)
    if due is not None:
        perform = partial(health.perform, scope.runner, due.guest, due.address, due.port, due.check, scope.now)
        scope.outside(perform, partial(_checked, due, scope.now))


def _due(scope: Scope, payload: Wire) -> DueCheck | None:
    """The check to do for a target, None where there is nothing to check any more."""
    target = _current(scope, payload)
    if target is None:
        return None
    instance = scope.ec2.instance(target["id"])
    if instance is None or instance.state != "running":
        instance_changed(scope, target["id"], "terminated" if instance is None else instance.state)
        return None
    check = routing.health_check(_group(scope, target["group"]))
    port = target["port"] if check.port is None else check.port
    return DueCheck(payload["target"], target["epoch"], target["id"], instance.address, port, check)


def _checked(due: DueCheck, began: datetime, scope: Scope, result: CheckResult) -> None:
    """Take in how a check ended; the next one follows an interval after this one began."""
    payload = {"target": due.target, "epoch": due.epoch}
    target = _current(scope, payload)
    if target is None:
        return
    before = TargetHealth(
        TargetState(target["state"]),
        target["reason"],
        target["description"],
        target["passed"],
        target["failed"],
        target["first"],
    )
    _keep(scope, target, health.after_check(before, due.check, result))
    scope.later(due.check.interval, "elbv2.check", payload, after=began)


def _current(scope: Scope, payload: Wire) -> Doc | None:
    target = scope.get(TARGET, payload["target"])
    return target if target is not None and target["epoch"] == payload["epoch"] else None


def drained(scope: Scope, payload: Wire) -> None:
    target = _current(scope, payload)
    if target is not None:
        _forget(scope, target)


def instance_changed(scope: Scope, instance: str, state: str) -> None:
    """An instance stopped, ended or came back. A terminated one is deregistered, as AWS does in time."""
    for target in scope.all(TARGET):
        if target["id"] != instance or target["state"] == TargetState.DRAINING:
            continue
        if state == "running" and target["reason"] == "Target.InvalidState":
            _begin(scope, target)
        elif state == "terminated":
            _forget(scope, target)
        elif state == "stopped" and target["reason"] != health.NOT_IN_USE.reason:
            _set(scope, target, health.stopped(state))


def view(scope: Scope) -> View:
    """The data plane now: rules in force, targets with their health."""
    addresses = {balancer["LoadBalancerArn"]: balancer["DNSName"] for balancer in scope.all(BALANCER)}
    endpoints = {}
    for document in scope.all(IN_FORCE):
        listener = _listener(scope, document["listener"])
        rules = tuple(
            Rule(
                rule["priority"],
                tuple(routing.compiled_condition(condition) for condition in rule["conditions"]),
                routing.compiled_action(rule["action"]),
                rule["arn"],
            )
            for rule in document["rules"]
        )
        endpoints[document["listener"]] = Endpoint(
            addresses[listener["LoadBalancerArn"]], dataplane.Listener(document["port"], rules, document["listener"])
        )
    targets: dict[str, list[Target]] = {}
    for target in scope.all(TARGET):
        instance = scope.ec2.instance(target["id"])
        if instance is None:
            continue
        made = Target(
            target["id"],
            instance.address,
            target["port"],
            TargetState(target["state"]),
            target["reason"] != health.REGISTERING.reason,
            SlowStart(*map(datetime.fromisoformat, target["slow_start"])) if "slow_start" in target else None,
        )
        targets.setdefault(target["group"], []).append(made)
    return View(endpoints, {group: tuple(members) for group, members in targets.items()})


# --------------------------------------------------------------------------------------------------------- look-ups


def _arn(scope: Scope, resource: str) -> str:
    return f"arn:aws:elasticloadbalancing:{scope.region}:{scope.account}:{resource}"


def _balancer(scope: Scope, arn: str) -> Doc:
    if ":loadbalancer/" not in arn:
        raise invalid(f"'{arn}' is not a valid load balancer ARN")
    found = scope.get(BALANCER, arn)
    if found is None:
        raise ApiError("LoadBalancerNotFound", f"Load balancer '{arn}' not found")
    return found


def _listener(scope: Scope, arn: str) -> Doc:
    if ":listener/" not in arn:
        raise invalid(f"'{arn}' is not a valid listener ARN")
    found = scope.get(LISTENER, arn)
    if found is None:
        raise ApiError("ListenerNotFound", f"Listener '{arn}' not found")
    return found


def _group(scope: Scope, arn: str) -> Doc:
    found = scope.get(GROUP, arn)
    if found is None:
        raise _no_group(arn)
    return found


def _no_group(arn: str) -> ApiError:
    if ":targetgroup/" not in arn:
        return invalid(f"'{arn}' is not a valid target group ARN")
    return ApiError("TargetGroupNotFound", f"Target group '{arn}' not found")


def _listeners_of(scope: Scope, balancer: str) -> list[Doc]:
    return [listener for listener in _by_time(scope.all(LISTENER)) if listener["LoadBalancerArn"] == balancer]


def _siblings(scope: Scope, listener: Doc) -> list[Doc]:
    return _listeners_of(scope, listener["LoadBalancerArn"])


def _rules_of(scope: Scope, listener: str) -> list[Doc]:
    found = [rule for rule in scope.all(RULE) if rule["ListenerArn"] == listener]
    return sorted(found, key=lambda rule: int(rule["Priority"]))


def _targets_of(scope: Scope, group: str) -> list[Doc]:
    return [target for target in scope.all(TARGET) if target["group"] == group]


def _key(target: Wire) -> str:
    return f"{target['group']}|{target['id']}|{target['port']}"


def _by_time(documents: Iterable[Doc]) -> list[Doc]:
    return sorted(documents, key=lambda document: str(document.get("CreatedTime") or document.get("created")))


def _shown(document: Doc) -> Doc:
    """A document without what is the sandbox's own (its names begin in lower case)."""
    shown = {key: value for key, value in document.items() if key[0].isupper()}
    if "CreatedTime" in shown:
        shown["CreatedTime"] = datetime.fromisoformat(shown["CreatedTime"])
    return shown


def _shown_group(scope: Scope, group: Doc) -> Doc:
    return {**_shown(group), "LoadBalancerArns": balancers_of(scope, group["TargetGroupArn"])}


def _page(params: Wire, name: str, items: list[Doc]) -> Doc:
    size = params.get("PageSize") or PAGE_LIMIT
    if not 1 <= size <= PAGE_LIMIT:
        raise invalid(f"Page size '{size}' must be in the range [1-{PAGE_LIMIT}]")
    marker = params.get("Marker") or "0"
    if not marker.isdigit() or int(marker) > len(items):
        raise invalid(f"Marker '{marker}' is not valid")
    start = int(marker)
    rest = {"NextMarker": str(start + size)} if start + size < len(items) else {}
    return {name: items[start : start + size], **rest}


OPERATIONS: Mapping[str, Operation] = {
    "AddTags": add_tags,
    "CreateListener": create_listener,
    "CreateLoadBalancer": create_load_balancer,
    "CreateRule": create_rule,
    "CreateTargetGroup": create_target_group,
    "DeleteListener": delete_listener,
    "DeleteLoadBalancer": delete_load_balancer,
    "DeleteRule": delete_rule,
    "DeleteTargetGroup": delete_target_group,
    "DeregisterTargets": deregister_targets,
    "DescribeListeners": describe_listeners,
    "DescribeLoadBalancers": describe_load_balancers,
    "DescribeRules": describe_rules,
    "DescribeTags": describe_tags,
    "DescribeTargetGroupAttributes": describe_target_group_attributes,
    "DescribeTargetGroups": describe_target_groups,
    "DescribeTargetHealth": describe_target_health,
    "ModifyListener": modify_listener,
    "ModifyRule": modify_rule,
    "ModifyTargetGroup": modify_target_group,
    "ModifyTargetGroupAttributes": modify_target_group_attributes,
    "RegisterTargets": register_targets,
    "RemoveTags": remove_tags,
    "SetRulePriorities": set_rule_priorities,
}
"""By the API's name. Every other operation of the service is not simulated."""

EVENTS: Mapping[str, EventHandler] = {
    "elbv2.active": balancer_active,
    "elbv2.check": check_due,
    "elbv2.drained": drained,
    "elbv2.in-force": rules_in_force,
    "elbv2.registered": registered,
}

_TARGET_GROUP_HEALTH = " ".join(routing.HEALTH_CHECK_FIELDS)

PARAMETERS: Mapping[str, str] = {
    "AddTags": "ResourceArns Tags",
    "CreateListener": "LoadBalancerArn Protocol Port DefaultActions Tags",
    "CreateLoadBalancer": "Name Subnets SubnetMappings SecurityGroups Scheme Tags Type IpAddressType",
    "CreateRule": "ListenerArn Conditions Priority Actions Tags Transforms",
    "CreateTargetGroup": "Name Protocol ProtocolVersion Port VpcId TargetType Tags IpAddressType TargetControlPort "
    + _TARGET_GROUP_HEALTH,
    "DeleteListener": "ListenerArn",
    "DeleteLoadBalancer": "LoadBalancerArn",
    "DeleteRule": "RuleArn",
    "DeleteTargetGroup": "TargetGroupArn",
    "DeregisterTargets": "TargetGroupArn Targets",
    "DescribeListeners": "LoadBalancerArn ListenerArns Marker PageSize",
    "DescribeLoadBalancers": "LoadBalancerArns Names Marker PageSize",
    "DescribeRules": "ListenerArn RuleArns Marker PageSize",
    "DescribeTags": "ResourceArns",
    "DescribeTargetGroupAttributes": "TargetGroupArn",
    "DescribeTargetGroups": "LoadBalancerArn TargetGroupArns Names Marker PageSize",
    "DescribeTargetHealth": "TargetGroupArn Targets Include",
    "ModifyListener": "ListenerArn Port Protocol DefaultActions",
    "ModifyRule": "RuleArn Conditions Actions Transforms ResetTransforms",
    "ModifyTargetGroup": "TargetGroupArn " + _TARGET_GROUP_HEALTH,
    "ModifyTargetGroupAttributes": "TargetGroupArn Attributes",
    "RegisterTargets": "TargetGroupArn Targets",
    "RemoveTags": "ResourceArns TagKeys",
    "SetRulePriorities": "RulePriorities",
}
"""What each operation looks at, whole; any other parameter is not simulated."""
