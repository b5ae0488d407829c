"""What a cloud has of a service that its ledger does not say, and the repair of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from osvdeploy.api import wiring
from osvdeploy.api.declared import Service
from osvdeploy.api.services import realign, standing
from osvdeploy.cloud.interfaces import Slot
from osvdeploy.context import Context
from osvdeploy.errors import CloudError, UsageError
from osvdeploy.events import Warned

if TYPE_CHECKING:
    from osvdeploy.api.services import Standing
    from osvdeploy.cloud.interfaces import Ground, HealthRule
    from osvdeploy.rollout.drifting import Drift
    from osvdeploy.rollout.lease import Absence
    from osvdeploy.rollout.ledger import Ledger


@dataclass(frozen=True, slots=True)
class Drifted:
    """What differs now, and what differed before it was repaired. ``under_way``: a rollout is, and nobody looked;
    ``awaits`` is then what a person has to do before it goes on, "" for nothing, and ``absence``: nobody is at work on
    it."""

    service: str
    found: tuple[Drift, ...]
    repaired: tuple[Drift, ...] = ()
    under_way: bool = False
    awaits: str = ""
    absence: Absence | None = None


def drift(ctx: Context, service: Service, *, repair: bool = False) -> Drifted:
    """Look for what is not as the ledger says: the route, machines and what they are started by, strangers, images,
    health checks, what scales it. With ``repair`` traffic is sent where the ledger says, as far as machines there are
    healthy.

    Raises :class:`~osvdeploy.errors.UsageError` for a service that is not deployed, :class:`~osvdeploy.errors.Refused`
    where traffic stays where it is, and why.

    Promise: without ``repair`` nothing is changed. With it traffic moves only to where machines are healthy.
    """
    found = _look(ctx, service)
    if not repair or not any(each.repairable for each in found.found):
        return found
    realign(ctx, service)
    after = _look(ctx, service)
    return Drifted(after.service, after.found, tuple(each for each in found.found if each not in after.found))


def _look(ctx: Context, service: Service) -> Drifted:
    from osvdeploy.rollout.drifting import Drift, DriftKind
    from osvdeploy.rollout.lease import absence

    head = wiring.head(ctx, service)
    ground = wiring.ground_of(ctx, head.place) if head.place is not None and not head.destroyed else None
    found = standing(ctx, service, ground=ground)
    if found is None or ground is None:
        raise UsageError(f"{service.name}: nothing is deployed", hint="`osvdeploy history` tells what was")
    if (run := found.head.unfinished) is not None:
        absent = absence(ctx, found.head)
        return Drifted(service.name, (), under_way=True, awaits=run.awaits(ctx.now()), absence=absent)
    if found.state is None:
        route = Drift(DriftKind.ROUTE, found.trouble, "bring the way in back, or `osvdeploy destroy` the service")
        return Drifted(service.name, (route,))
    return Drifted(service.name, tuple(differing(ctx, wiring.open_ledger(service), ground, found)))


def differing(ctx: Context, ledger: Ledger, ground: Ground, found: Standing) -> list[Drift]:
    """What is not as the ledger says of a service that stands, and whose way in is there."""
    from osvdeploy.cloud import tags
    from osvdeploy.rollout.drifting import Shaped, drift_of

    assert found.state is not None
    head, route, groups = found.head, found.place.route, found.groups
    shapes: dict[Slot, Shaped] = {}
    checks: dict[Slot, HealthRule | None] = {}
    try:
        for slot, record in head.slots.items():
            group, release = groups.get(record.group), ledger.release(ctx, record.release)
            if group is None or group.deleting or tags.ADOPTED in group.tags or release is None:
                continue
            image = ground.images.find(ctx, record.release)
            there = ground.groups.shape(ctx, group.name)
            shapes[slot] = Shaped(there, image.id if image is not None else "", release.settings.machine_type)
        checks = {slot: ground.router.check_of(ctx, route, slot) for slot in Slot}
    except CloudError as error:
        # Traffic that is not where it should be is not left there for that.
        ctx.report(Warned(f"templates and health checks are not compared: {error}", hint=error.hint))
    return drift_of(
        head,
        found.release,
        found.state,
        groups,
        frozenset(found.images),
        found.scaling,
        {slot: ground.router.slow_start(ctx, route, slot) for slot in Slot},
        shapes,
        checks,
        {slot: ground.router.health(ctx, route, slot) for slot in found.state.backends},
    )
