"""What a rollout's changes are in calls to AWS, told before they are made.

Beside the adapters, and by what they read: which part exists decides whether it is made or changed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from osvdeploy.cloud.aws.groups import AutoScalingGroups
from osvdeploy.cloud.aws.router import PREVIEW_PRIORITY, AlbRouter, group_name
from osvdeploy.cloud.aws.scaling import FRESH, Rules, changes
from osvdeploy.cloud.interfaces import CloudImage, Foretold, GroupRequest, PlannedCall, ReleaseId, Route, Scaling, Slot
from osvdeploy.context import Context


@dataclass(slots=True)
class _Route:
    """What of a route there would be by now."""

    rule: bool
    previews: set[Slot]
    groups: dict[Slot, bool]


@dataclass(slots=True)
class AwsForesight:
    """:class:`~osvdeploy.cloud.interfaces.Foresight` on AWS."""

    router: AlbRouter
    groups: AutoScalingGroups
    _routes: dict[str, _Route] = field(default_factory=dict)
    _sizes: dict[str, int] = field(default_factory=dict)
    """Of the groups that are there, or would be by now."""
    _templates: set[str] = field(default_factory=set)
    """Those that would have been made by now."""
    _removed: set[str] = field(default_factory=set)
    """Services whose target groups would be gone by now: they are found by the service, whatever its route."""

    def backend(self, route: Route, slot: Slot) -> str:
        return group_name(route, slot)

    def renamed(self, route: Route) -> bool:
        return False

    def ensure_slots(self, ctx: Context, route: Route, missing: Collection[Slot]) -> Foretold:
        there, told = self._of(ctx, route), list[PlannedCall]()
        for slot in (each for each in Slot if each in missing):
            name = group_name(route, slot)
            if there.groups.get(slot) is False:
                told.append(_elb("DeleteTargetGroup", name))
                del there.groups[slot]
            told.append(_elb("ModifyTargetGroup" if slot in there.groups else "CreateTargetGroup", name))
            told.append(_elb("ModifyTargetGroupAttributes", name))
            made = slot in there.previews
            told.append(_elb("ModifyRule" if made else "CreateRule", _rule(route, PREVIEW_PRIORITY[slot])))
            there.groups[slot] = True
            there.previews.add(slot)
        return told

    def set_weights(self, ctx: Context, route: Route, weights: Mapping[Slot, int]) -> Foretold:
        there = self._of(ctx, route)
        made, there.rule = there.rule, True
        shares = ", ".join(f"{slot} {weights[slot]}" for slot in Slot)
        return [_elb("ModifyRule" if made else "CreateRule", f"{_rule(route, 0)}: {shares}")]

    def remove(self, ctx: Context, route: Route) -> Foretold:
        there = self._of(ctx, route)
        told = [_elb("DeleteRule", _rule(route, 0))] if there.rule else []
        told += [_elb("DeleteRule", _rule(route, PREVIEW_PRIORITY[slot])) for slot in Slot if slot in there.previews]
        told += [_elb("DeleteTargetGroup", group_name(route, slot)) for slot in Slot if slot in there.groups]
        self._routes[_key(route)] = _Route(False, set(), {})
        self._removed.add(route.service)
        return told

    def take_over(self, ctx: Context, route: Route, epoch: int) -> Foretold:
        return []

    def note_left(self, ctx: Context, route: Route, left: ReleaseId | None) -> Foretold:
        return [_elb("RemoveTags" if left is None else "AddTags", _rule(route, 0))]

    def set_slow_start(self, ctx: Context, route: Route) -> Foretold:
        there = self._of(ctx, route)
        return [_elb("ModifyTargetGroupAttributes", group_name(route, slot)) for slot in Slot if slot in there.groups]

    def ensure(self, ctx: Context, request: GroupRequest) -> Foretold:
        name, size = request.name, self._size(ctx, request.name)
        before, self._sizes[name] = size, request.capacity
        if before is not None:
            told = _scaling("UpdateAutoScalingGroup", f"{name}: {request.capacity} machines")
            return [] if before == request.capacity else [told]
        calls: list[PlannedCall] = []
        fits = True if name in self._templates else self.groups.template_fits(ctx, request)
        if fits is False:
            calls.append(PlannedCall("ec2", "DeleteLaunchTemplate", name))
        if not fits:
            calls.append(PlannedCall("ec2", "CreateLaunchTemplate", name))
        self._templates.add(name)
        return [*calls, _scaling("CreateAutoScalingGroup", f"{name}: {request.capacity} machines")]

    def delete(self, ctx: Context, name: str, *, kept: bool) -> Foretold:
        self._sizes.pop(name, None)
        if kept:
            return [_scaling("DetachLoadBalancerTargetGroups", name), _scaling("DeleteTags", name)]
        return [_scaling("DeleteAutoScalingGroup", name)]

    def pause(self, ctx: Context, name: str) -> Foretold:
        return [_scaling("SuspendProcesses", name)]

    def resume(self, ctx: Context, name: str, scaling: Scaling, *, grown: bool) -> Foretold:
        return [_scaling("ResumeProcesses", name)]

    def apply(self, ctx: Context, name: str, scaling: Scaling) -> Foretold:
        size = self._sizes.get(name, scaling.desired)
        wanted = Rules.read(scaling.rules, {}).still_due(ctx.now())
        found = changes(FRESH, wanted, {"MinSize": size, "MaxSize": size}, scaling)
        return [_scaling(each.operation, f"{name}: {each.about}" if each.about else name) for each in found]

    def restore(self, ctx: Context, image: CloudImage) -> Foretold:
        return []

    def offer(self, ctx: Context, image: CloudImage, family: str) -> Foretold:
        return []

    def withdraw(self, ctx: Context, image: CloudImage) -> Foretold:
        return []

    def sticky(self, ctx: Context, route: Route) -> float | None:
        return self.router.sticky(ctx, route)

    def _of(self, ctx: Context, route: Route) -> _Route:
        found = self._routes.get(_key(route))
        if found is None:
            parts = self.router.parts(ctx, route)
            groups = {} if route.service in self._removed else dict(parts.groups)
            found = _Route(parts.rule is not None, set(parts.previews), groups)
            self._routes[_key(route)] = found
        return found

    def _size(self, ctx: Context, name: str) -> int | None:
        if name not in self._sizes:
            there = self.groups.observe(ctx, name)
            if there is None or there.deleting:
                return None
            self._sizes[name] = there.capacity
        return self._sizes[name]


def _key(route: Route) -> str:
    return f"{route.listener} {route.priority}"


def _rule(route: Route, offset: int) -> str:
    which = {offset: slot for slot, offset in PREVIEW_PRIORITY.items()}
    use = f"preview {which[offset]}" if offset in which else "the route"
    return f"rule at priority {route.priority + offset}, {use}"


def _elb(operation: str, resource: str) -> PlannedCall:
    return PlannedCall("elbv2", operation, resource)


def _scaling(operation: str, resource: str) -> PlannedCall:
    return PlannedCall("autoscaling", operation, resource)
