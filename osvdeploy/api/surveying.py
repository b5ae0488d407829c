"""All services of a ledger at once: what serves, what is under way, and how much of it is up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from osvdeploy.api import wiring
from osvdeploy.context import Context
from osvdeploy.errors import CloudError, LedgerError, UsageError

if TYPE_CHECKING:
    from osvdeploy.cloud.interfaces import GroupCount, ReleaseId, Slot
    from osvdeploy.rollout.lease import Absence
    from osvdeploy.rollout.ledger import Head, Place


@dataclass(frozen=True, slots=True)
class ServiceSeen:
    """One service among many. ``head`` is None where ``trouble`` says why its ledger cannot be read.

    ``weights`` are its shares by slot and ``machines`` what stands in each, by slot; both None where nobody looked, and
    ``weights`` also where its rule, or its listener, is gone. Machines are counted as their groups have them: what the
    balancer thinks of each is for :func:`~osvdeploy.api.status` to tell. ``awaits`` is what a person has to do before
    its rollout goes on, "" for nothing; ``absence``: nobody is at work on that.
    """

    service: str
    head: Head | None
    weights: Mapping[Slot, int] | None = None
    machines: Mapping[Slot, GroupCount] | None = None
    trouble: str = ""
    awaits: str = ""
    absence: Absence | None = None

    @property
    def serving(self) -> ReleaseId | None:
        return self.head.stable.release if self.head is not None and self.head.stable is not None else None

    @property
    def stable(self) -> GroupCount | None:
        """The machines of the release that serves."""
        slot = self.head.serving if self.head is not None else None
        return None if slot is None or self.machines is None else self.machines.get(slot)


@dataclass(frozen=True, slots=True)
class Survey:
    """All services of a ledger, by name. ``cloud_errors`` are the places that could not be asked, and why."""

    ledger: str
    services: tuple[ServiceSeen, ...]
    cloud_errors: Mapping[str, str]


def survey(ctx: Context, address: str, *, app: str | None = None, look: bool = True) -> Survey:
    """What a ledger has of every service, or of one ``app``'s, and with ``look`` what the clouds show of them now.

    Two reads of the ledger for each service, several at once. A place (an account's region, a project's zone) is asked
    for all that it has together: by pages of groups, and once for each listener. Raises what the ledger's store raises.
    """
    from osvdeploy.rollout.lease import absence
    from osvdeploy.rollout.ledger import Ledger, heads_of, services

    store = wiring.open_store(address)
    ledgers = [Ledger(store, *named) for named in services(ctx, store, app)]
    heads = {
        ledger.service: head for ledger, head in zip(ledgers, heads_of(ctx, ledgers), strict=True) if head is not None
    }
    if not heads and wiring.is_missing(store):
        raise UsageError(f"{address}: there is no such directory", hint=wiring.IF_MISSING)
    if not heads:
        what = "no service" if app is None else f"no service of {app}"
        raise UsageError(
            f"{address}: has {what}", hint="name the ledger with --ledger; it is what `ledger` in an osv.toml says"
        )
    seen: dict[str, ServiceSeen] = {}
    standing: dict[tuple[str, str, str, str | None], list[Head]] = {}
    for service, head in heads.items():
        if isinstance(head, LedgerError):
            seen[service] = ServiceSeen(service, None, trouble=head.message)
            continue
        awaits = head.unfinished.awaits(ctx.now()) if head.unfinished is not None else ""
        seen[service] = ServiceSeen(service, head, awaits=awaits, absence=absence(ctx, head))
        if head.place is not None and not head.destroyed:
            place = head.place
            standing.setdefault((place.cloud, place.account, place.region, place.endpoint), []).append(head)
    troubles: dict[str, str] = {}
    for (cloud, account, region, _), there in sorted(standing.items(), key=_by_place) if look else ():
        try:
            for service, (weights, machines) in _looked(ctx, there).items():
                seen[service] = replace(seen[service], weights=weights, machines=machines)
        except (CloudError, UsageError) as error:
            troubles[f"{cloud} {region}, {account}"] = error.message
    return Survey(address, tuple(seen[service] for service in sorted(seen)), troubles)


def _by_place(standing: tuple[tuple[str | None, ...], object]) -> str:
    """Not the heads with it: to write a thousand of them out took a tenth of the whole time."""
    return str(standing[0])


def _looked(
    ctx: Context, heads: Sequence[Head]
) -> dict[str, tuple[Mapping[Slot, int] | None, Mapping[Slot, GroupCount]]]:
    """What one place shows of its services: weights and machines."""
    places = [_place(head) for head in heads]
    ground = wiring.ground_of(ctx, places[0])
    counts = {each.name: each for each in ground.groups.counted(ctx, {}) if not each.deleting}
    weights = ground.router.weights_of(ctx, [place.route for place in places])
    return {
        head.service: (
            weights.get(place.route.key),
            {slot: counts[name] for slot, name in _groups(head).items() if name in counts},
        )
        for head, place in zip(heads, places, strict=True)
    }


def _groups(head: Head) -> dict[Slot, str]:
    """The group in each slot: while a rollout is under way, its candidate's."""
    groups = {slot: record.group for slot, record in head.slots.items()}
    run = head.unfinished
    return groups if run is None else {**groups, run.slot: run.group}


def _place(head: Head) -> Place:
    assert head.place is not None, "the caller has looked"
    return head.place


def told(seen: ServiceSeen) -> str:
    """Where a service is, in a few words for people, and what asks for somebody."""
    head = seen.head
    if head is None:
        return seen.trouble
    if head.destroyed:
        return "destroyed"
    words = []
    if (run := head.unfinished) is not None:
        share = (seen.weights or {}).get(run.slot)
        words.append(f"{run.kind} of {run.candidate} in {run.stage}" + ("" if share is None else f" at {share} %"))
        if seen.awaits:
            words.append(seen.awaits if run.paused is not None else f"waits for {seen.awaits}")
        elif seen.absence is not None:
            words.append(seen.absence.told.replace(" on it", ""))
    elif seen.machines is not None and head.serving is not None:
        if seen.weights is None:
            words.append("its rule is gone")
        elif seen.weights.get(head.serving) == 0 or seen.weights.get(head.serving.other):
            words.append("traffic is not where the ledger says")
        if seen.stable is None:
            words.append("its machines are gone")
    words += ["held" if hold.release is None else f"{hold.release} held" for hold in head.holds]
    return ", ".join(words)
