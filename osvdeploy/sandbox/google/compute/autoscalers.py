"""Autoscalers: bounds of a group's size. What they would do about a load is not simulated, nor is any load.

Sources: Compute Engine API reference (Autoscaler), "Turn off or restrict an autoscaler".
"""

from __future__ import annotations

import math
from typing import Final

from osvdeploy.sandbox.errors import ApiError
from osvdeploy.sandbox.google.compute import geography, managing
from osvdeploy.sandbox.google.compute.operations import Wire, place_of
from osvdeploy.sandbox.google.compute.resources import (
    AUTOSCALER,
    MANAGER,
    begun,
    changers,
    found,
    in_use,
    invalid,
    its_path,
    link,
    made,
    merged,
    missing,
    named,
    once,
    path_of,
    referred,
)
from osvdeploy.sandbox.services.scope import Doc, Scope

BODY: Final = (
    "name description target autoscalingPolicy.minNumReplicas autoscalingPolicy.maxNumReplicas autoscalingPolicy.mode "
    "autoscalingPolicy.coolDownPeriodSec autoscalingPolicy.cpuUtilization "
    "autoscalingPolicy.loadBalancingUtilization autoscalingPolicy.customMetricUtilizations "
    "autoscalingPolicy.scaleInControl autoscalingPolicy.stabilizationPeriodSec"
)

_SIGNALS: Final = ("cpuUtilization", "loadBalancingUtilization", "customMetricUtilizations")
"""What a policy follows; without any it is the processors, at 60 %."""

_TARGETS: Final = {"cpuUtilization": 1.0, "loadBalancingUtilization": math.inf}
"""The greatest share of each that can be aimed at."""

_MODES: Final = {"ON": "ON", "OFF": "OFF", "ONLY_SCALE_OUT": "ONLY_SCALE_OUT", "ONLY_UP": "ONLY_SCALE_OUT"}


@once("insert")
def insert(scope: Scope, params: Wire) -> Doc:
    geography.check_place(params)
    body = params.get("body") or {}
    name = named(body)
    if "target" not in body:
        raise missing("target")
    path, group = referred(scope, params, body["target"], MANAGER, "target")
    if group["place"] != place_of(params):
        raise invalid("target", body["target"], "The group is in another place.")
    other = managing.autoscaler_of(scope, path)
    if other is not None:
        raise in_use(MANAGER, path, AUTOSCALER, its_path(AUTOSCALER, other))
    policy = _policy(body.get("autoscalingPolicy") or {})
    described = {"description": body["description"]} if "description" in body else {}
    fields = {"name": name, **described, "target": link(path), "autoscalingPolicy": policy, "status": "ACTIVE"}
    document = made(scope, params, AUTOSCALER, fields)
    managing.look_soon(scope, group)
    return begun(scope, params, AUTOSCALER, "insert", document)


def _policy(given: Wire) -> Doc:
    if "maxNumReplicas" not in given:
        raise missing("autoscalingPolicy.maxNumReplicas")
    mode = _MODES[given.get("mode") or "ON"]
    signals = {} if any(given.get(each) for each in _SIGNALS) else {"cpuUtilization": {"utilizationTarget": 0.6}}
    high = given["maxNumReplicas"]
    policy = {"minNumReplicas": min(2, high), "coolDownPeriodSec": 60, **given, **signals, "mode": mode}
    if not 0 <= policy["minNumReplicas"] <= high:
        told = "minNumReplicas must be between 0 and it."
        raise invalid("autoscalingPolicy.maxNumReplicas", high, told)
    for signal, most in _TARGETS.items():
        target = (policy.get(signal) or {}).get("utilizationTarget")
        if target is not None and not 0 < target <= most:
            bound = f" and at most {most:g}" if math.isfinite(most) else ""
            raise invalid(f"autoscalingPolicy.{signal}.utilizationTarget", target, f"Must be greater than 0{bound}.")
    return policy


def _change(scope: Scope, params: Wire, verb: str) -> Doc:
    body = params.get("body") or {}
    name = params.get("autoscaler") or body.get("name")
    if name is None:
        raise ApiError("required", "Required field 'autoscaler' not specified")
    document = found(scope, {**params, "autoscaler": name}, AUTOSCALER, ready=True)
    resource = document["resource"]
    given = body.get("autoscalingPolicy") or {}
    resource["autoscalingPolicy"] = _policy(merged(resource["autoscalingPolicy"], given) if verb == "patch" else given)
    if "target" in body and referred(scope, params, body["target"], MANAGER, "target")[0] != path_of(
        resource["target"]
    ):
        raise invalid("target", body["target"], "The target cannot be changed.")
    scope.put(AUTOSCALER.store, its_path(AUTOSCALER, document), document)
    group = scope.get(MANAGER.store, path_of(resource["target"]))
    if group is not None:
        managing.look_soon(scope, group)
    return begun(scope, params, AUTOSCALER, verb, document)


patch, update = changers(_change)


def shown(scope: Scope, document: Doc) -> Doc:
    group = scope.get(MANAGER.store, path_of(document["resource"]["target"]))
    size = {} if group is None else {"recommendedSize": group["resource"]["targetSize"]}
    return {**document["resource"], **size}


def refuse_deletion(scope: Scope, path: str, document: Doc) -> None:
    """Nothing needs an autoscaler."""
