"""Many services in one ledger and one memory cloud: each as hello/production was deployed, under a name of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from osvdeploy.cloud.interfaces import ObjectStore, Slot
from osvdeploy.cloud.memory.world import Rule
from osvdeploy.context import Context
from osvdeploy.rollout.ledger import Head, Ledger
from osvdeploy.rollout.releases import service_key
from tests.rollout.service import Service

PER_LISTENER = 33
"""Services whose rules one balancer of AWS takes: three each of a hundred."""


def names(count: int) -> Iterator[str]:
    for number in range(count):
        yield f"app{number // 2:03d}/{'staging' if number % 2 else 'production'}"


def spread(service: Service, count: int, store: ObjectStore, *, per_listener: int = PER_LISTENER) -> list[Head]:
    """What ``service`` is, again under ``count`` other names, in ``store`` and in the service's own cloud."""
    made = service.head
    assert made.place is not None and made.run is not None
    ctx, heads = Context(clock=service.clock), []
    for number, name in enumerate(names(count)):
        key, listener = service_key(name), f"balancer-{number // per_listener}"
        groups = {slot: f"osvd-{key}-{record.group[-8:]}" for slot, record in made.slots.items()}
        route = replace(
            made.place.route,
            key=key,
            service=name,
            listener=listener,
            priority=3 * (number % per_listener) + 3,
            tags={**made.place.route.tags, "osvdeploy:service": name},
        )
        head = replace(
            made,
            service=name,
            n=1,
            place=replace(made.place, route=route),
            slots={slot: replace(record, group=groups[slot]) for slot, record in made.slots.items()},
        )
        app, _, environment = name.partition("/")
        Ledger(store, app, environment).write(ctx, head)
        heads.append(head)
        copy(service, made, head, groups)
    return heads


def copy(service: Service, made: Head, head: Head, groups: dict[Slot, str]) -> None:
    """The cloud's side: listener, rule, groups."""
    world = service.cloud.world
    assert made.place is not None and head.place is not None
    route = head.place.route
    if route.listener not in world.listeners:
        world.listeners[route.listener] = replace(world.listeners[made.place.route.listener], id=route.listener)
    for slot, name in groups.items():
        there = world.groups[made.slots[slot].group]
        world.groups[name] = replace(there, name=name, tags={**there.tags, "osvdeploy:service": head.service})
    rule = Rule(f"rule-{world.number()}", route.listener, route.priority, None, None, None, route.tags, preview=False)
    shares = {f"osvd-{route.key}-{slot}": 100 * (slot is head.serving) for slot in Slot}
    rule.history.append((world.settle(), shares))
    world.rules[rule.id] = rule
