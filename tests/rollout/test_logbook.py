"""What the ledger's documents tell, one after the other: who did what, and when."""

from __future__ import annotations

from dataclasses import replace

import pytest

from osvdeploy.cloud.interfaces import Slot
from osvdeploy.rollout.ledger import Lease
from osvdeploy.rollout.logbook import Entry, EntryKind, between, entries, spells, unheard
from osvdeploy.rollout.model import Outcome, Request, RequestKind, Run
from osvdeploy.rollout.releases import OnFailure
from tests.rollout.test_control import APPROVED, CANARY, Controlled, serving

pytestmark = pytest.mark.whole


def told(service: Controlled, *kinds: EntryKind) -> list[Entry]:
    """What the service's ledger tells of those kinds; of all where none is named."""
    heads = list(service.ledger.heads(service.context()))[::-1]
    return [entry for entry in entries(heads) if not kinds or entry.kind in kinds]


def last_run(service: Controlled) -> Run:
    run = service.head.run
    assert run is not None
    return run


def of_last_run(service: Controlled) -> list[Entry]:
    return [entry for entry in told(service) if entry.run == last_run(service).id]


def test_a_rollout_is_told_from_its_beginning_to_its_end() -> None:
    """Each stage after the gate that let the one before be left; each share; what serves; the end."""
    service = serving(CANARY)
    service.deploy("1.1.0")
    found = [(entry.kind, entry.told.partition(":")[0]) for entry in of_last_run(service)]
    new, old = service.id("1.1.0"), service.id("1.0.0")
    passed = f"{EntryKind.TRAFFIC} passed"
    assert found == [
        (EntryKind.BEGUN, f"deploy of {new} over {old}"),
        (EntryKind.STAGE, "boot"),
        (EntryKind.GATE, "healthy targets passed"),
        (EntryKind.STAGE, "verify"),
        (EntryKind.GATE, "preview probe passed"),
        (EntryKind.STAGE, "shift"),
        (EntryKind.TRAFFIC, f"5 % of the traffic to {new}"),
        (EntryKind.GATE, passed),
        (EntryKind.STAGE, "bake"),
        (EntryKind.STAGE, "shift"),
        (EntryKind.TRAFFIC, f"50 % of the traffic to {new}"),
        (EntryKind.GATE, passed),
        (EntryKind.STAGE, "bake"),
        (EntryKind.STAGE, "shift"),
        (EntryKind.TRAFFIC, f"100 % of the traffic to {new}"),
        (EntryKind.GATE, passed),
        (EntryKind.STAGE, "bake"),
        (EntryKind.STAGE, "clean-up"),
        (EntryKind.SERVES, f"{new} serves instead of {old}"),
        (EntryKind.ENDED, f"deploy of {new}"),
    ]


def test_entries_are_in_order_and_each_has_somebody() -> None:
    """Ids rise, times never fall, and whoever was at work is named as user@host."""
    service = serving(CANARY)
    service.when(lambda: service.weights().get(Slot.GREEN) == 5, lambda: service.say(RequestKind.PROMOTE_FULL, "hurry"))
    service.deploy("1.1.0")
    service.rollback()
    found = told(service)
    assert [entry.id for entry in found] == sorted({entry.id for entry in found})
    assert [entry.at for entry in found] == sorted(entry.at for entry in found)
    assert all("@" in entry.who for entry in found)
    assert {entry.who for entry in found if entry.kind is EntryKind.REQUEST} == {"ann@desk"}


def test_every_document_but_renewals_is_told() -> None:
    """Whatever is written and differs from the one before has an entry: nothing happens behind the log's back."""
    service = serving(replace(CANARY, on_failure=OnFailure.PAUSE))
    service.manager().hold(service.context(), None, "freeze")
    service.manager().unhold(service.context())
    service.manager().pin(service.context(), service.id("1.0.0"))
    service.manager().pin(service.context(), service.id("1.0.0"), pinned=False)
    service.deploy("1.1.0")
    service.rollback()
    service.destroy()
    heads = list(service.ledger.heads(service.context()))
    numbers = {entry.id[0] for entry in told(service)}
    silent = {head.why for head in heads if head.n not in numbers}
    assert silent <= {"lease renewed"}


def test_what_a_step_keeps_for_the_next_is_no_event() -> None:
    """A run that counts something, and saves it, has come by nothing."""
    service = serving(APPROVED)
    service.deploy("1.1.0")
    head, run = service.head, last_run(service)
    counted = replace(head, n=head.n + 1, run=replace(run, scaled=not run.scaled))
    assert not between(head, replace(counted, why=f"deploy {run.candidate}: {run.stage}"))
    (other,) = between(head, replace(counted, why="by hand"))
    assert (other.kind, other.told) == (EntryKind.OTHER, "by hand")


def test_holds_and_pins_are_told_with_who_set_them() -> None:
    """And what took them away."""
    service = serving()
    service.manager().hold(service.context(), None, "freeze")
    service.manager().unhold(service.context())
    service.manager().pin(service.context(), service.id("1.0.0"))
    service.manager().pin(service.context(), service.id("1.0.0"), pinned=False)
    kinds = (EntryKind.HOLD, EntryKind.UNHOLD, EntryKind.PIN, EntryKind.UNPIN)
    assert [(entry.told, entry.who.partition("@")[0]) for entry in told(service, *kinds)] == [
        ("every release is held: freeze", "somebody"),
        ("every release is held no more", "somebody"),
        (f"{service.id('1.0.0')} is pinned", "somebody"),
        (f"{service.id('1.0.0')} is pinned no more", "somebody"),
    ]


def test_what_a_person_asked_is_told_once() -> None:
    """A pause is their request; one that the strategy makes is osvdeploy's."""
    service = serving(replace(CANARY, on_failure=OnFailure.PAUSE))
    service.cloud.behave(service.id("1.1.0"), sick_after=150.0)
    service.when(lambda: service.weights().get(Slot.GREEN) == 5, lambda: service.say(RequestKind.PAUSE, "lunch"))
    assert service.deploy("1.1.0").outcome is Outcome.WAITING
    service.manager().request(service.context(), RequestKind.RESUME)
    found = [(entry.who, entry.told.partition(":")[0]) for entry in told(service, EntryKind.REQUEST, EntryKind.PAUSED)]
    assert found[0] == ("ann@desk", "pause (lunch)")
    assert ("osvdeploy", "paused") in found[1:]
    assert found.count(("ann@desk", "pause (lunch)")) == 1


def test_a_process_that_died_is_told_by_the_next() -> None:
    """Who took over, from whom, and when that one was last heard of; the time between belongs to nobody."""
    service = serving(APPROVED)
    service.deploy("1.1.0")
    service.say(RequestKind.APPROVE)
    head = service.head
    dead = service.context().process
    lost = replace(head, n=head.n + 1, nonce="lost", epoch=head.epoch + 1, lease=None, why="deploy")
    service.ledger.write(service.context(), replace(lost, lease=Lease(dead, 60.0)))
    service.time.advance(300)
    service.manager().recover(service.context())
    (taken,) = [entry for entry in told(service, EntryKind.LEASE) if "never gave" in entry.told]
    assert f"process {dead.pid} of somebody@{dead.host}" in taken.told
    spell = next(each for each in spells(list(service.ledger.heads(service.context()))[::-1]) if each.holder == dead)
    assert not spell.given_back
    assert (taken.at - spell.ended).total_seconds() > 300


def test_what_nobody_heard_is_told_too() -> None:
    """A request that came too late says so; one of a run under way waits."""
    service = serving()
    service.deploy("1.1.0")
    asked = Request(RequestKind.ABORT, "ann@desk", service.time.now(), 0, "wrong one")
    (late,) = unheard(last_run(service), [asked], service.head.n)
    assert late.told == "abort (wrong one): the run was over before it was heard"
    assert late.who == "ann@desk"


def test_an_audit_leaves_the_course_out() -> None:
    """What people did and what came of it stays: no gate, no stage, no share."""
    service = serving(CANARY)
    service.deploy("1.1.0")
    kinds = {entry.kind for entry in told(service) if entry.kind.by_people}
    assert kinds == {EntryKind.LEASE, EntryKind.BEGUN, EntryKind.SERVES, EntryKind.ENDED}
