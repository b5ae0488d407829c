"""What scales a managed group on Google: its autoscaler, and how it replaces machines (its update policy).

An autoscaler is a resource of its own, whose target cannot be changed; a group has one at most, and tells which. So the
group that comes gets one of its own, under the group's name, with the policy that the other's has. While a group must
not get smaller its autoscaler may only add machines: it still does when the load rises.

Sources: Compute Engine API reference (autoscalers, regionAutoscalers; instanceGroupManagers: status.autoscaler,
updatePolicy and its defaults); guide, "Managing autoscalers" (turn off or restrict).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from osvdeploy.cloud import rules
from osvdeploy.cloud.gcp.backends import LONGEST_CHANGE, write
from osvdeploy.cloud.gcp.scope import address_of, link_of
from osvdeploy.cloud.gcp.session import Document, Gcp, request_id
from osvdeploy.cloud.interfaces import Scaling
from osvdeploy.context import Context
from osvdeploy.errors import NotFound

ON, OFF, GROWS = "ON", "OFF", "ONLY_SCALE_OUT"
"""Modes of an autoscaler."""

_OLD_NAMES = {"ONLY_UP": GROWS}


class Autoscalers:
    """Autoscalers and update policies in one zone or region: ``area`` is its path. Not a port: a part of the groups."""

    def __init__(self, gcp: Gcp, area: str) -> None:
        self._gcp = gcp
        self._area = area

    def of(self, ctx: Context, group: Document) -> Document | None:
        """The group's autoscaler."""
        link = group.get("status", {}).get("autoscaler")
        if not link:
            return None
        link = link_of(link)
        try:
            return self._gcp.get(ctx, address_of(self._gcp, link), f"autoscaler {link}")
        except NotFound:
            return None

    def scaling(self, ctx: Context, group: Document) -> Scaling:
        """What scales a group, as it is read."""
        return _scaling(group, self.of(ctx, group))

    def pause(self, ctx: Context, group: Document) -> None:
        there = self.of(ctx, group)
        if there is not None and mode_of(there) == ON:
            self._set_mode(ctx, there, GROWS)

    def resume(self, ctx: Context, group: Document, scaling: Scaling, *, grown: bool = False) -> None:
        there = self.of(ctx, group)
        if there is None:
            return
        now, before = mode_of(there), rules.read(scaling.rules, {}).get("autoscaler")
        if now == GROWS and not scaling.paused:
            self._set_mode(ctx, there, ON)
        elif grown and now == OFF and before is not None and mode_of(before) != OFF:
            self._set_mode(ctx, there, mode_of(before))

    def apply(self, ctx: Context, group: Document, scaling: Scaling) -> None:
        there = self.of(ctx, group)
        scaling = rules.told_fitting(ctx, f"instance group {group['name']}", scaling, _size(group))
        wanted = _wanted(group, scaling)
        policy = wanted.get("updatePolicy") or usual_policy(group)
        if _bare(group.get("updatePolicy") or {}) != policy:
            link = f"{self._area}/instanceGroupManagers/{group['name']}"
            changed = {"fingerprint": group["fingerprint"], "updatePolicy": policy}
            write(self._gcp, ctx, link, changed, f"instance group {group['name']}")
        autoscaler = wanted.get("autoscaler")
        if autoscaler is None:
            self._delete(ctx, there)
        elif there is None:
            self._insert(ctx, group, autoscaler)
        elif _autoscaler(there) != autoscaler:
            document = {"name": there["name"], "target": there["target"], **autoscaler}
            self._change(ctx, "PUT", there, document)

    def follows(self, ctx: Context, group: Document, scaling: Scaling) -> bool:
        fitting = replace(scaling, maximum=scaling.most(_size(group)))
        return self.scaling(ctx, group).rules == rules.written(_wanted(group, fitting), _own(group))

    def turn_off(self, ctx: Context, group: Document) -> None:
        """Let a group be made another size: Google refuses that while an autoscaler may change it, or undoes it."""
        there = self.of(ctx, group)
        if there is not None and mode_of(there) != OFF:
            self._set_mode(ctx, there, OFF)

    def leave(self, ctx: Context, group: Document) -> None:
        """Take a group's autoscaler away: without that Google does not delete the group."""
        self._delete(ctx, self.of(ctx, group))

    # ------------------------------------------------------------------------------------------------------- changes

    @property
    def _url(self) -> str:
        return address_of(self._gcp, f"{self._area}/autoscalers")

    def _set_mode(self, ctx: Context, there: Document, mode: str) -> None:
        self._change(ctx, "PATCH", there, {"autoscalingPolicy": {"mode": mode}})

    def _change(self, ctx: Context, method: str, there: Document, document: Document) -> None:
        name = str(there["name"])
        # To and fro within an hour are the same request, and both must happen.
        token = request_id(method, "autoscaler", name, ctx.nonce())
        self._gcp.perform(
            ctx,
            method,
            f"{self._url}?autoscaler={name}",
            f"autoscaler {name}",
            document,
            request_id=token,
            seconds=LONGEST_CHANGE,
        )

    def _insert(self, ctx: Context, group: Document, autoscaler: Document) -> None:
        name = str(group["name"])
        target = address_of(self._gcp, f"{self._area}/instanceGroupManagers/{name}")
        # The name makes it once; the id is this call's alone, so that one deleted since is not taken for the answer.
        token = request_id("autoscalers.insert", name, ctx.nonce())
        document = {"name": name, "target": target, **autoscaler}
        self._gcp.perform(
            ctx, "POST", self._url, f"autoscaler {name}", document, request_id=token, seconds=LONGEST_CHANGE
        )

    def _delete(self, ctx: Context, there: Document | None) -> None:
        if there is None:
            return
        name = str(there["name"])
        token = request_id("delete", "autoscaler", name, str(there["id"]), ctx.nonce())
        try:
            self._gcp.perform(
                ctx, "DELETE", f"{self._url}/{name}", f"autoscaler {name}", request_id=token, seconds=LONGEST_CHANGE
            )
        except NotFound:
            pass


def _scaling(group: Document, autoscaler: Document | None) -> Scaling:
    size = _size(group)
    found: dict[str, Any] = {}
    parts = []
    update = _bare(group.get("updatePolicy") or {})
    if update != usual_policy(group):
        found["updatePolicy"] = update
        parts.append(f"update policy {update.get('type', '')}".rstrip())
    low = high = size
    paused = True
    if autoscaler is not None:
        found["autoscaler"] = _autoscaler(autoscaler)
        policy = autoscaler["autoscalingPolicy"]
        low, high = int(policy.get("minNumReplicas", 0)), int(policy["maxNumReplicas"])
        paused = mode_of(autoscaler) != ON
        parts.insert(0, f"autoscaler {autoscaler['name']}, {mode_of(autoscaler)}")
    return Scaling(low, size, high, tuple(parts), paused, rules.written(found, _own(group)))


def unpaused(there: Scaling, before: Scaling) -> Scaling:
    """As it would be told after a resume."""
    found = rules.read(there.rules, {})
    autoscaler = found.get("autoscaler")
    if autoscaler is None or before.paused:
        return there
    mode = mode_of(autoscaler)
    if mode != GROWS:
        return replace(there, paused=mode != ON)
    autoscaler["autoscalingPolicy"]["mode"] = ON
    parts = (there.parts[0].removesuffix(f", {GROWS}") + f", {ON}", *there.parts[1:])
    return replace(there, parts=parts, paused=False, rules=rules.written(found, {}))


def _wanted(group: Document, scaling: Scaling) -> dict[str, Any]:
    """What is given to a group: the rules, with the maximum that the scaling has for it."""
    wanted = rules.read(scaling.rules, _own(group))
    if "autoscaler" in wanted:
        wanted["autoscaler"]["autoscalingPolicy"]["maxNumReplicas"] = scaling.maximum
    return wanted


def _size(group: Document) -> int:
    return int(group.get("targetSize", 0))


def _own(group: Document) -> Mapping[str, str]:
    """What a group's documents say of the group itself: a metric's filter may name it."""
    return {"$(group)": str(group["name"])}


def mode_of(autoscaler: Document) -> str:
    """An autoscaler's mode, by its present name."""
    mode = str(autoscaler["autoscalingPolicy"].get("mode", ON))
    return _OLD_NAMES.get(mode, mode)


def _autoscaler(there: Document) -> Document:
    """Of an autoscaler, what is given to another one."""
    policy = {**_bare(there["autoscalingPolicy"]), "mode": mode_of(there)}
    return {"autoscalingPolicy": policy, **({"description": there["description"]} if there.get("description") else {})}


def usual_policy(group: Document) -> Document:
    """The update policy that a group has to which nobody gave one."""
    zones = max(1, len(group.get("distributionPolicy", {}).get("zones", [])))
    return {
        "type": "OPPORTUNISTIC",
        "minimalAction": "REPLACE",
        "replacementMethod": "SUBSTITUTE",
        "maxSurge": {"fixed": zones},
        "maxUnavailable": {"fixed": zones},
        **({"instanceRedistributionType": "PROACTIVE"} if "region" in group else {}),
    }


def _bare(value: Any) -> Any:
    """A document without what Google works out by itself."""
    if isinstance(value, Mapping):
        return {key: _bare(each) for key, each in value.items() if key != "calculated"}
    return [_bare(each) for each in value] if isinstance(value, list) else value
