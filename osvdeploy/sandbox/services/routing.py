"""Rules and target groups as ELBv2's API writes them: checked, normalised, and compiled for the data plane. Pure.

A refusal carries AWS's error code. Sources: Elastic Load Balancing API reference (Action, RuleCondition,
CreateTargetGroup), "Quotas for your Application Load Balancers", "Listener rules"; codes that these leave open are
ValidationError, which the service answers for a parameter out of its bounds.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from typing import Any

from osvdeploy.sandbox import dataplane
from osvdeploy.sandbox.dataplane import Condition, Field, FixedResponse, Forward, Redirect
from osvdeploy.sandbox.errors import ApiError, NotSimulated
from osvdeploy.sandbox.health import HealthCheck, accepted_codes

Wire = Mapping[str, Any]
"""A structure of the API, as parsed from a request or kept for an answer."""

GROUPS_PER_ACTION = 5
VALUES_PER_RULE = 5
WILDCARDS_PER_RULE = 6
WEIGHT_LIMIT = 999
PRIORITY_LIMIT = 50_000
CONTENT_TYPES = ("text/plain", "text/css", "text/html", "application/javascript", "application/json")

_ONCE_PER_RULE = {Field.PATH, Field.HOST, Field.METHOD, Field.SOURCE}
_CONFIGS = {
    Field.PATH: "PathPatternConfig",
    Field.HOST: "HostHeaderConfig",
    Field.HEADER: "HttpHeaderConfig",
    Field.METHOD: "HttpRequestMethodConfig",
    Field.QUERY: "QueryStringConfig",
    Field.SOURCE: "SourceIpConfig",
}


def invalid(message: str) -> ApiError:
    return ApiError("ValidationError", message)


def check_name(name: str, what: str) -> None:
    """Names of balancers and target groups: 1-32 letters, digits and hyphens, none at an end."""
    if len(name) > 32:
        raise invalid(f"{what} name '{name}' cannot be longer than '32' characters")
    if not re.fullmatch(r"[A-Za-z0-9-]+", name):
        raise invalid(
            f"{what} name '{name}' can only contain characters that are alphanumeric characters and hyphens(-)"
        )
    if name.startswith("-") or name.endswith("-"):
        raise invalid(f"{what} name '{name}' cannot begin or end with a hyphen (-)")


# --------------------------------------------------------------------------------------------------------- actions


def forwarded_groups(action: Wire) -> list[tuple[str, int]]:
    """A forward action's groups with their weights, in order."""
    config = action.get("ForwardConfig") or {}
    groups = config.get("TargetGroups") or []
    if groups:
        return [(group["TargetGroupArn"], group.get("Weight", 1)) for group in groups]
    return [(action["TargetGroupArn"], 1)] if action.get("TargetGroupArn") else []


def normal_actions(actions: Sequence[Wire]) -> list[dict[str, Any]]:
    """One action, as Describe calls show it. Whether its target groups exist is the caller's to ask."""
    for action in actions:
        kind = action.get("Type")
        if kind in ("authenticate-oidc", "authenticate-cognito", "jwt-validation"):
            raise NotSimulated(f"action type {kind}")
        if kind not in ("forward", "fixed-response", "redirect"):
            raise invalid(
                f"1 validation error detected: Value '{kind}' at 'actions.1.member.type' failed to satisfy constraint: "
                "Member must satisfy enum value set: [redirect, fixed-response, forward, authenticate-oidc, "
                "authenticate-cognito, jwt-validation]"
            )
    if not actions:
        raise invalid("An action must be specified")
    if len(actions) > 1:
        raise ApiError("TooManyActions", "You've reached the limit on the number of actions per rule")
    action = actions[0]
    order = {"Order": action["Order"]} if "Order" in action else {}
    match action["Type"]:
        case "forward":
            return [{"Type": "forward", **order, **_forward(action)}]
        case "fixed-response":
            return [{"Type": "fixed-response", **order, "FixedResponseConfig": _fixed(action)}]
        case _:
            return [{"Type": "redirect", **order, "RedirectConfig": _redirect(action)}]


def _forward(action: Wire) -> dict[str, Any]:
    config = action.get("ForwardConfig") or {}
    groups = forwarded_groups(action)
    named = action.get("TargetGroupArn")
    if not groups:
        raise invalid("A target group ARN must be specified")
    if named and [named] != [arn for arn, _ in groups]:
        raise ApiError(
            "InvalidLoadBalancerAction",
            "You cannot specify both a target group ARN and a forward config with other target groups",
        )
    if len(groups) > GROUPS_PER_ACTION:
        raise invalid(f"You can specify up to {GROUPS_PER_ACTION} target groups per action")
    if len({arn for arn, _ in groups}) != len(groups):
        raise invalid("A target group can only be specified once in an action")
    if not all(0 <= weight <= WEIGHT_LIMIT for _, weight in groups):
        raise invalid("The weight for each target group must be between 0 and 999, inclusive")
    stickiness = config.get("TargetGroupStickinessConfig") or {}
    if stickiness.get("Enabled"):
        raise NotSimulated("target group stickiness")
    return {
        **({"TargetGroupArn": groups[0][0]} if len(groups) == 1 else {}),
        "ForwardConfig": {
            "TargetGroups": [{"TargetGroupArn": arn, "Weight": weight} for arn, weight in groups],
            "TargetGroupStickinessConfig": {"Enabled": False},
        },
    }


def _fixed(action: Wire) -> dict[str, Any]:
    config = action.get("FixedResponseConfig") or {}
    code = str(config.get("StatusCode", ""))
    if not re.fullmatch(r"[245]\d\d", code):
        raise invalid(f"Fixed response status code '{code}' must be 2XX, 4XX or 5XX")
    if len(config.get("MessageBody") or "") > 1024:
        raise invalid("The message body of a fixed response cannot be longer than '1024' characters")
    kind = config.get("ContentType")
    if kind is not None and kind not in CONTENT_TYPES:
        raise invalid(f"The content type '{kind}' is not valid; valid values are {', '.join(CONTENT_TYPES)}")
    return {
        "StatusCode": code,
        **({"ContentType": kind} if kind is not None else {}),
        **({"MessageBody": config["MessageBody"]} if config.get("MessageBody") is not None else {}),
    }


def _redirect(action: Wire) -> dict[str, Any]:
    config = action.get("RedirectConfig") or {}
    if config.get("StatusCode") not in ("HTTP_301", "HTTP_302"):
        raise invalid("The status code of a redirect must be HTTP_301 or HTTP_302")
    parts = {
        "Protocol": "#{protocol}",
        "Host": "#{host}",
        "Port": "#{port}",
        "Path": "/#{path}",
        "Query": "#{query}",
    }
    whole = {name: config.get(name, kept) for name, kept in parts.items()}
    if whole == parts:
        raise ApiError("InvalidLoadBalancerAction", "The redirect action would result in a redirection loop")
    if not whole["Path"].startswith("/"):
        raise invalid("The path of a redirect must begin with '/'")
    return {**whole, "StatusCode": config["StatusCode"]}


def compiled_action(action: Wire) -> dataplane.Action:
    """A normalised action for the data plane."""
    match action["Type"]:
        case "forward":
            return Forward(tuple(forwarded_groups(action)))
        case "fixed-response":
            config = action["FixedResponseConfig"]
            return FixedResponse(
                int(config["StatusCode"]), config.get("ContentType", "text/plain"), config.get("MessageBody", "")
            )
        case _:
            config = action["RedirectConfig"]
            return Redirect(
                int(config["StatusCode"].removeprefix("HTTP_")),
                *(config[part] for part in ("Protocol", "Host", "Port", "Path", "Query")),
            )


# ------------------------------------------------------------------------------------------------------ conditions


def normal_conditions(conditions: Sequence[Wire]) -> list[dict[str, Any]]:
    """A rule's conditions as DescribeRules shows them, both spellings of a value filled in."""
    if not conditions:
        raise invalid("A condition must be specified")
    seen: set[Field] = set()
    values = wildcards = 0
    made = []
    for condition in conditions:
        if condition.get("RegexValues") or any(
            isinstance(part, Mapping) and part.get("RegexValues") for part in condition.values()
        ):
            raise NotSimulated("regular expressions in conditions")
        kind = condition.get("Field", "")
        if kind not in list(Field):
            raise invalid(f"Condition field '{kind}' must be one of '[{', '.join(Field)}]'")
        field = Field(kind)
        if field in seen and field in _ONCE_PER_RULE:
            raise invalid(f"A rule can only have one '{field}' condition")
        seen.add(field)
        normal = _normal_condition(field, condition)
        made.append(normal)
        texts = _texts(normal)
        values += len(texts)
        wildcards += sum(text.count("*") + text.count("?") for text in texts)
    if values > VALUES_PER_RULE:
        raise invalid(f"Rules cannot have more than {VALUES_PER_RULE} condition values")
    if wildcards > WILDCARDS_PER_RULE:
        raise invalid(f"Rules cannot have more than {WILDCARDS_PER_RULE} wildcards")
    return made


def _texts(condition: Wire) -> list[str]:
    config = condition[_CONFIGS[Field(condition["Field"])]]
    return [value["Value"] if isinstance(value, Mapping) else value for value in config["Values"]]


def _normal_condition(field: Field, condition: Wire) -> dict[str, Any]:
    others = [name for other, name in _CONFIGS.items() if other is not field and condition.get(name)]
    if others:
        raise invalid(f"You cannot specify '{others[0]}' for a condition of field '{field}'")
    config = condition.get(_CONFIGS[field]) or {}
    plain = condition.get("Values") or []
    if plain and config:
        raise invalid(f"You cannot specify both 'Values' and '{_CONFIGS[field]}'")
    if plain and field not in (Field.PATH, Field.HOST):
        raise invalid(f"'Values' is not valid for a condition of field '{field}'")
    values = list(config.get("Values") or plain)
    if not values:
        raise invalid("A condition value must be specified")
    match field:
        case Field.QUERY:
            pairs = [_pair(value) for value in values]
            return {"Field": str(field), _CONFIGS[field]: {"Values": pairs}}
        case Field.HEADER:
            name = config.get("HttpHeaderName") or ""
            if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,40}", name):
                raise invalid(f"The HTTP header name '{name}' is not valid")
            if name.lower() == "host":
                raise invalid(
                    "You cannot use an HTTP header condition for the host header; use a host header condition"
                )
            _check_values(values, 128)
            return {"Field": str(field), _CONFIGS[field]: {"HttpHeaderName": name, "Values": values}}
        case Field.METHOD:
            for value in values:
                if not re.fullmatch(r"[A-Z_-]{1,40}", value):
                    raise invalid(f"The HTTP request method '{value}' is not valid")
            return {"Field": str(field), _CONFIGS[field]: {"Values": values}}
        case Field.SOURCE:
            for value in values:
                try:
                    ipaddress.ip_network(value)
                except ValueError:
                    raise invalid(f"The CIDR block '{value}' is not valid") from None
                if "/" not in value:
                    raise invalid(f"The CIDR block '{value}' is not valid")
            return {"Field": str(field), _CONFIGS[field]: {"Values": values}}
        case Field.HOST:
            for value in values:
                if not re.fullmatch(r"[A-Za-z0-9.*?-]{1,128}", value):
                    raise invalid(f"The host header value '{value}' contains invalid characters")
                if "." not in value:
                    raise invalid(f"The host header value '{value}' must contain at least one '.' character")
        case Field.PATH:
            _check_values(values, 128)
            for value in values:
                if not re.fullmatch(r"[A-Za-z0-9_\-.$/~\"'@:+&*?]+", value):
                    raise invalid(f"The path pattern '{value}' contains invalid characters")
    return {"Field": str(field), "Values": values, _CONFIGS[field]: {"Values": values}}


def _check_values(values: Sequence[str], limit: int) -> None:
    for value in values:
        if not 1 <= len(value) <= limit:
            raise invalid(f"Condition value '{value}' must be 1 to {limit} characters")


def _pair(value: Wire) -> dict[str, str]:
    if not value.get("Value"):
        raise invalid("A query string condition must have a value")
    _check_values([value["Value"], *([value["Key"]] if value.get("Key") else [])], 128)
    return {**({"Key": value["Key"]} if value.get("Key") else {}), "Value": value["Value"]}


def compiled_condition(condition: Wire) -> Condition:
    """A normalised condition for the data plane."""
    field = Field(condition["Field"])
    config = condition[_CONFIGS[field]]
    if field is Field.QUERY:
        return Condition(field, pairs=tuple((pair.get("Key"), pair["Value"]) for pair in config["Values"]))
    return Condition(field, tuple(config["Values"]), config.get("HttpHeaderName", ""))


# --------------------------------------------------------------------------------------------------- target groups

HEALTH_CHECK_FIELDS = (
    "HealthCheckProtocol",
    "HealthCheckPort",
    "HealthCheckEnabled",
    "HealthCheckPath",
    "HealthCheckIntervalSeconds",
    "HealthCheckTimeoutSeconds",
    "HealthyThresholdCount",
    "UnhealthyThresholdCount",
    "Matcher",
)

HEALTH_CHECK_DEFAULTS: dict[str, Any] = {
    "HealthCheckProtocol": "HTTP",
    "HealthCheckPort": "traffic-port",
    "HealthCheckEnabled": True,
    "HealthCheckPath": "/",
    "HealthCheckIntervalSeconds": 30,
    "HealthCheckTimeoutSeconds": 5,
    "HealthyThresholdCount": 5,
    "UnhealthyThresholdCount": 2,
    "Matcher": {"HttpCode": "200"},
}

SLOW_START = "slow_start.duration_seconds"
ALGORITHM = "load_balancing.algorithm.type"

ATTRIBUTE_DEFAULTS = {
    "deregistration_delay.timeout_seconds": "300",
    "load_balancing.algorithm.anomaly_mitigation": "off",
    "load_balancing.algorithm.type": "round_robin",
    "load_balancing.cross_zone.enabled": "use_load_balancer_configuration",
    "slow_start.duration_seconds": "0",
    "stickiness.app_cookie.cookie_name": "",
    "stickiness.app_cookie.duration_seconds": "86400",
    "stickiness.enabled": "false",
    "stickiness.lb_cookie.duration_seconds": "86400",
    "stickiness.type": "lb_cookie",
    "target_group_health.dns_failover.minimum_healthy_targets.count": "1",
    "target_group_health.dns_failover.minimum_healthy_targets.percentage": "off",
    "target_group_health.unhealthy_state_routing.minimum_healthy_targets.count": "1",
    "target_group_health.unhealthy_state_routing.minimum_healthy_targets.percentage": "off",
}


def check_health_settings(settings: Wire) -> None:
    """Refuse settings of a health check that an Application Load Balancer would."""
    _within(settings, "HealthCheckIntervalSeconds", "Health check interval", 5, 300)
    _within(settings, "HealthCheckTimeoutSeconds", "Health check timeout", 2, 120)
    _within(settings, "HealthyThresholdCount", "Healthy threshold count", 2, 10)
    _within(settings, "UnhealthyThresholdCount", "Unhealthy threshold count", 2, 10)
    if settings["HealthCheckIntervalSeconds"] <= settings["HealthCheckTimeoutSeconds"]:
        raise invalid("Health check interval must be greater than the timeout.")
    if settings["HealthCheckProtocol"] not in ("HTTP", "HTTPS"):
        raise invalid(f"Health check protocol '{settings['HealthCheckProtocol']}' must be one of 'HTTP, HTTPS'")
    if settings["HealthCheckProtocol"] == "HTTPS":
        raise NotSimulated("health checks by HTTPS")
    if not settings["HealthCheckEnabled"]:
        raise ApiError(
            "InvalidConfigurationRequest",
            "Health checks cannot be disabled for target groups with target type instance",
        )
    port = settings["HealthCheckPort"]
    if port != "traffic-port" and not (port.isdigit() and 1 <= int(port) <= 65535):
        raise invalid(f"Health check port '{port}' must be in the range [1-65535] or 'traffic-port'")
    path = settings["HealthCheckPath"]
    if not path.startswith("/") or len(path) > 1024:
        raise invalid(f"Health check path '{path}' must begin with a '/' character, and can be at most 1024 characters")
    matcher = settings["Matcher"]
    if "GrpcCode" in matcher:
        raise NotSimulated("matching gRPC codes")
    try:
        accepted_codes(matcher.get("HttpCode", ""))
    except ValueError:
        raise invalid(
            f"Health check matcher HTTP code '{matcher.get('HttpCode', '')}' must be within '200-499' inclusive"
        ) from None


def _within(settings: Wire, name: str, spoken: str, low: int, high: int) -> None:
    if not low <= settings[name] <= high:
        raise invalid(f"{spoken} '{settings[name]}' must be in the range [{low}-{high}]")


def health_check(settings: Wire) -> HealthCheck:
    """A target group's settings for :mod:`osvdeploy.sandbox.health`."""
    port = settings["HealthCheckPort"]
    return HealthCheck(
        settings["HealthCheckPath"],
        None if port == "traffic-port" else int(port),
        settings["HealthCheckIntervalSeconds"],
        settings["HealthCheckTimeoutSeconds"],
        settings["HealthyThresholdCount"],
        settings["UnhealthyThresholdCount"],
        settings["Matcher"]["HttpCode"],
    )


def check_together(attributes: Mapping[str, str]) -> None:
    """Refuse attributes of a target group that do not go together."""
    attributes = {**ATTRIBUTE_DEFAULTS, **attributes}
    if attributes[SLOW_START] != "0" and attributes[ALGORITHM] != "round_robin":
        raise ApiError(
            "InvalidConfigurationRequest",
            f"Slow start cannot be enabled with the load balancing algorithm '{attributes[ALGORITHM]}'",
        )


def check_attribute(key: str, value: str) -> None:
    """Refuse a target group attribute that does not exist, is out of bounds, or would change what is simulated."""
    if key not in ATTRIBUTE_DEFAULTS:
        raise invalid(f"Target group attribute key '{key}' is not recognized")
    if key == "deregistration_delay.timeout_seconds":
        if not value.isdigit() or int(value) > 3600:
            raise invalid(f"'{key}' value '{value}' must be in the range [0-3600]")
    elif key == SLOW_START:
        if not value.isdigit() or (int(value) and not 30 <= int(value) <= 900):
            raise invalid(f"'{key}' value '{value}' must be 0 or in the range [30-900]")
    elif value != ATTRIBUTE_DEFAULTS[key]:
        raise NotSimulated(f"target group attribute {key}={value}")
