"""Groups of machines in memory."""

from __future__ import annotations

import json
from dataclasses import replace

from osvdeploy.cloud import rules
from osvdeploy.cloud import tags as labels
from osvdeploy.cloud.interfaces import (
    AttachRequest,
    GroupCount,
    GroupRequest,
    GroupShape,
    GroupState,
    Machine,
    MachineState,
    ReleaseId,
    Scaling,
    Tags,
)
from osvdeploy.cloud.memory.world import Group, Instance, Scaler, Template, World, carries
from osvdeploy.context import Context
from osvdeploy.errors import NotFound, NotOurs, Refused, Unavailable


class MemoryGroups:
    """:class:`~osvdeploy.cloud.interfaces.InstanceGroups` on a :class:`~osvdeploy.cloud.memory.world.World`."""

    def __init__(self, world: World) -> None:
        self._world = world

    def ensure(self, ctx: Context, request: GroupRequest) -> None:
        world = self._world
        with world.lock:
            world.settle()
            group, template = world.groups.get(request.name), world.templates.get(request.name)
            _refuse_foreign(request, "group", group)
            _refuse_foreign(request, "template", template)
            if group is not None and (group.release, group.image) != (request.release, request.image):
                raise Refused(
                    f"group {request.name}: holds {group.release} from {group.image}, "
                    f"not {request.release} from {request.image}"
                )
        if group is not None and group.deleting:
            raise Unavailable(f"{request.name}: an earlier group of this name is still being deleted")
        if group is not None:
            if group.capacity != request.capacity:
                with world.calls.around("groups.resize", request.name, request.capacity), world.lock:
                    group.capacity = request.capacity
                    world.fill(group, world.settle())
            return
        ctx.check()
        if template is not None and template.image != request.image:
            # No group uses it: it stayed from an earlier deploy, and the image was registered anew since.
            with world.calls.around("groups.delete_template", request.name), world.lock:
                world.templates.pop(request.name, None)
            template = None
        if template is None:
            with world.calls.around("groups.create_template", request.name), world.lock:
                # What another process has made since the look above stays as it is.
                world.templates.setdefault(
                    request.name,
                    Template(
                        request.name,
                        request.image,
                        request.release,
                        dict(request.tags),
                        request.machine_type,
                        request.networks,
                        request.firewalls,
                    ),
                )
        ctx.check()
        with world.calls.around("groups.create_group", request.name, request.capacity), world.lock:
            now = world.settle()
            if not world.image_exists(request.image):
                raise Refused(f"{request.name}: image {request.image} does not exist")
            if request.backend not in world.backends:
                raise NotFound(f"{request.name}: backend {request.backend} does not exist")
            if request.name in world.groups:
                # As above, and as a cloud refuses it.
                return
            group = Group(
                request.name, request.release, request.image, request.capacity, request.backend, dict(request.tags)
            )
            group.created = world.clock.now()
            world.groups[request.name] = group
            world.fill(group, now)

    def observe(self, ctx: Context, name: str) -> GroupState | None:
        world = self._world
        with world.calls.around("groups.observe", name), world.lock:
            world.settle()
            group = world.groups.get(name)
            return None if group is None else _state(group)

    def machines(self, ctx: Context, name: str) -> tuple[Machine, ...]:
        world = self._world
        with world.calls.around("groups.machines", name), world.lock:
            world.settle()
            group = world.groups.get(name)
            if group is None:
                return ()
            return tuple(_machine(each) for each in sorted(group.machines, key=lambda each: -each.started))

    def delete(self, ctx: Context, name: str) -> None:
        world = self._world
        with world.calls.around("groups.delete", name), world.lock:
            now = world.settle()
            group = world.groups.get(name)
            if group is None or group.deleting:
                return
            if not labels.is_ours(group.tags):
                raise NotOurs(f"group {name}: something else made it")
            if labels.is_kept(group.tags):
                self._let_go(group)
            else:
                world.remove_group(group, now)

    def _let_go(self, group: Group) -> None:
        backend = self._world.backends.get(group.beside)
        for machine in group.machines:
            if backend is not None:
                backend.targets.pop(machine.id, None)
        group.beside = ""
        group.tags = {name: value for name, value in group.tags.items() if not name.startswith(labels.SCHEMA)}

    def attach(self, ctx: Context, request: AttachRequest) -> None:
        world = self._world
        with world.lock:
            world.settle()
            group = world.groups.get(request.name)
            if group is None or group.deleting:
                raise NotFound(f"group {request.name}: does not exist")
            if labels.is_ours(group.tags) and any(
                group.tags.get(key) != request.tags.get(key) for key in (labels.SERVICE, labels.RELEASE)
            ):
                raise NotOurs(f"group {request.name}: is {group.tags.get(labels.RELEASE)}'s")
            if request.backend not in world.backends:
                raise NotFound(f"{request.name}: backend {request.backend} does not exist")
        if group.beside != request.backend:
            with world.calls.around("groups.attach", request.name, request.backend), world.lock:
                now = world.settle()
                group.beside = request.backend
                for machine in group.kept:
                    if machine.running is not None:
                        world.register(machine, request.backend, now)
        if group.capacity < request.capacity:
            ctx.check()
            with world.calls.around("groups.resize", request.name, request.capacity), world.lock:
                group.capacity = request.capacity
                world.fill(group, world.settle())
        if group.tags != {**group.tags, **request.tags}:
            ctx.check()
            with world.calls.around("groups.tag", request.name), world.lock:
                group.tags = {**group.tags, **request.tags}

    def owned(self, ctx: Context, tags: Tags) -> list[GroupState]:
        world = self._world
        with world.calls.around("groups.owned"), world.lock:
            world.settle()
            return [_state(group) for group in world.groups.values() if carries(group.tags, tags)]

    def shape(self, ctx: Context, name: str) -> GroupShape | None:
        world = self._world
        with world.calls.around("groups.shape", name), world.lock:
            world.settle()
            template = world.templates.get(name)
            if name not in world.groups or template is None:
                return None
            return GroupShape(template.image, template.machine_type, template.networks, template.firewalls)

    def counted(self, ctx: Context, tags: Tags) -> list[GroupCount]:
        world = self._world
        with world.calls.around("groups.counted"), world.lock:
            world.settle()
            states = [_state(group) for group in world.groups.values() if carries(group.tags, tags)]
        running = MachineState.RUNNING
        return [
            GroupCount(each.name, each.capacity, sum(one.state is running for one in each.machines), each.deleting)
            for each in states
        ]

    def scaling(self, ctx: Context, name: str) -> Scaling | None:
        world = self._world
        with world.calls.around("groups.scaling", name), world.lock:
            world.settle()
            group = world.groups.get(name)
            return None if group is None or group.deleting else _scaling(group)

    def pause(self, ctx: Context, name: str) -> None:
        self._set_paused(name, paused=True)

    def resume(self, ctx: Context, name: str, scaling: Scaling, *, grown: bool = False) -> None:
        self._set_paused(name, paused=scaling.paused)

    def unpaused(self, there: Scaling, before: Scaling) -> Scaling:
        return there if there.fixed or before.paused else replace(there, paused=False)

    def apply(self, ctx: Context, name: str, scaling: Scaling) -> None:
        world = self._world
        with world.calls.around("groups.scaling", name), world.lock:
            now = world.settle()
            group = world.groups.get(name)
            if group is None or group.deleting:
                raise NotFound(f"group {name} does not exist")
            if _is(group, scaling):
                return
        with world.calls.around("groups.apply_scaling", name), world.lock:
            if scaling.fixed:
                group.scaler = None
                return
            wanted = group.scaler.wanted if group.scaler is not None else group.capacity
            attached: dict[str, str] = json.loads(scaling.rules)
            most = rules.told_fitting(ctx, name, scaling, group.capacity).maximum
            low, high = (scaling.minimum, most) if scaling.moves else (group.capacity, group.capacity)
            group.scaler = Scaler(low, high, wanted, attached, scaling.paused)
            world.rescale(group, now)

    def follows(self, ctx: Context, name: str, scaling: Scaling) -> bool:
        world = self._world
        with world.calls.around("groups.scaling", name), world.lock:
            world.settle()
            group = world.groups.get(name)
            return group is not None and _is(group, scaling)

    def _set_paused(self, name: str, *, paused: bool) -> None:
        world = self._world
        with world.lock:
            group = world.groups.get(name)
            scaler = group.scaler if group is not None else None
        if group is None or scaler is None or scaler.paused == paused:
            return
        with world.calls.around("groups.pause_scaling" if paused else "groups.resume_scaling", name), world.lock:
            scaler.paused = paused
            world.rescale(group, world.settle())

    def templates(self, ctx: Context, tags: Tags) -> list[str]:
        world = self._world
        with world.calls.around("groups.templates"), world.lock:
            return [template.name for template in world.templates.values() if carries(template.tags, tags)]

    def delete_template(self, ctx: Context, name: str) -> None:
        world = self._world
        with world.calls.around("groups.delete_template", name), world.lock:
            template = world.templates.get(name)
            if template is not None and not labels.is_ours(template.tags):
                raise NotOurs(f"template {name}: something else made it")
            world.templates.pop(name, None)


def _refuse_foreign(request: GroupRequest, what: str, there: Group | Template | None) -> None:
    if there is None:
        return
    if not labels.is_ours(there.tags):
        raise NotOurs(f"{what} {request.name}: exists, and something else made it")
    if there.release != request.release:
        raise Refused(f"{what} {request.name}: is {there.release}'s, not {request.release}'s")


def _scaling(group: Group) -> Scaling:
    scaler = group.scaler
    if scaler is None:
        return Scaling(group.capacity, group.capacity, group.capacity, paused=True)
    rules = json.dumps(dict(scaler.rules), sort_keys=True)
    return Scaling(scaler.minimum, group.capacity, scaler.maximum, tuple(sorted(scaler.rules)), scaler.paused, rules)


def _is(group: Group, scaling: Scaling) -> bool:
    """Whether a group has this scaling, whatever its size."""
    there = _scaling(group)
    if scaling.fixed:
        return there.fixed
    most = scaling.most(group.capacity)
    bounds = (there.minimum, there.maximum) == (scaling.minimum, most) or not scaling.moves
    return bounds and (there.rules, there.paused) == (scaling.rules, scaling.paused)


def _machine(machine: Instance) -> Machine:
    return Machine(machine.id, machine.state, machine.note)


def _state(group: Group) -> GroupState:
    return GroupState(
        name=group.name,
        release=ReleaseId(group.tags.get(labels.RELEASE, group.release)),
        capacity=0 if labels.BACKEND in group.tags and not group.beside else group.capacity,
        machines=tuple(_machine(machine) for machine in group.alive),
        troubles=tuple(group.troubles) if len(group.kept) < group.capacity else (),
        deleting=group.deleting,
        tags=dict(group.tags),
        created=group.created,
    )
