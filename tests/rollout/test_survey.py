"""All services of a ledger at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from osvdeploy.api import wiring
from osvdeploy.api.surveying import Survey, survey, told
from osvdeploy.cloud.interfaces import Ground, ObjectStore, Slot
from osvdeploy.context import Context
from osvdeploy.errors import Unavailable, UsageError
from osvdeploy.rollout.ledger import Hold, Ledger, Place
from tests.cli.running import osvdeploy
from tests.rollout.many import spread
from tests.rollout.service import Service

pytestmark = pytest.mark.whole

COUNT = 70


@pytest.fixture
def service() -> Service:
    """Two releases of one service; the second serves, the first is warm."""
    made = Service()
    made.deploy("1.0.0")
    made.deploy("1.1.0")
    made.clock.advance(60)
    return made


@pytest.fixture
def store(service: Service, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    """The ledger of the service alone, at any address."""
    monkeypatch.setattr(wiring, "open_store", lambda address: service.cloud.store)
    monkeypatch.setattr(wiring, "ground_of", lambda ctx, place: service.cloud.cloud)
    yield service.cloud.store


def surveyed(service: Service, app: str | None = None, *, look: bool = True) -> Survey:
    return survey(service.context(), "memory", app=app, look=look)


def test_every_service_is_told_of(service: Service, store: ObjectStore) -> None:
    """By name, with what serves, its share and its machines; an app's alone where it is named."""
    spread(service, COUNT, store)
    found = surveyed(service)
    assert len(found.services) == COUNT + 1 and not found.cloud_errors
    assert [each.service for each in found.services] == sorted(each.service for each in found.services)
    for each in found.services:
        assert each.serving == service.id("1.1.0") and told(each) == ""
        assert each.weights == {Slot.BLUE: 0, Slot.GREEN: 100}
        assert each.stable is not None and (each.stable.up, each.stable.capacity) == (2, 2)
    assert {each.service for each in surveyed(service, "app003").services} == {"app003/production", "app003/staging"}


def test_the_cloud_is_asked_by_listeners_and_not_by_services(service: Service, store: ObjectStore) -> None:
    """Two reads of the ledger for each service, one for each app; offline nothing but those."""
    spread(service, COUNT, store)
    for look in (True, False):
        before = len(service.cloud.calls)
        surveyed(service, look=look)
        calls = [call.operation for call in service.cloud.calls[before:]]
        assert calls.count("store.keys") == calls.count("store.get") == COUNT + 1
        assert calls.count("store.folders") == 1 + COUNT // 2 + 1
        others = sorted(call for call in calls if not call.startswith("store."))
        assert others == (["groups.counted", *["router.weights_of"] * 4] if look else [])


def test_a_place_that_cannot_be_looked_at_keeps_no_other_from_being_told(
    service: Service, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its SDK is not installed here, or these credentials are another account's."""
    heads = spread(service, 4, store)
    elsewhere = heads[0].place
    assert elsewhere is not None
    moved = replace(heads[0], n=heads[0].n + 1, nonce="moved", place=replace(elsewhere, cloud="gcp", account="acme"))
    Ledger(store, *heads[0].service.split("/")).write(service.context(), moved)

    def ground_of(ctx: Context, place: Place) -> Ground:
        if place.cloud == "gcp":
            raise UsageError("Google Cloud needs google.auth")
        return service.cloud.cloud

    monkeypatch.setattr(wiring, "ground_of", ground_of)
    found = surveyed(service)
    assert len(found.services) == 5 and list(found.cloud_errors.values()) == ["Google Cloud needs google.auth"]
    assert [each.service for each in found.services if each.weights is None] == [moved.service]


def test_what_asks_for_somebody_is_told(service: Service, store: ObjectStore) -> None:
    """A rule that somebody changed or took away, machines that are gone, a hold, a rollout under way."""
    heads = spread(service, 5, store)
    world = service.cloud.world
    rules = {rule.tags["osvdeploy:service"]: rule for rule in world.rules.values() if not rule.preview}
    shared, ruleless, machineless = (head.service for head in heads[:3])
    rules[shared].history.append((world.settle(), dict.fromkeys(rules[shared].weights or {}, 50)))
    del world.rules[rules[ruleless].id]
    del world.groups[heads[2].slots[Slot.GREEN].group]
    service.manager().hold(service.context(), None, "freeze")
    found = {each.service: told(each) for each in surveyed(service).services}
    assert found[shared] == "traffic is not where the ledger says"
    assert found[ruleless] == "its rule is gone"
    assert found[machineless] == "its machines are gone"
    assert found["hello/production"] == "held"
    assert found[heads[4].service] == ""


def test_a_damaged_document_and_a_silent_place_hide_nothing_else(
    service: Service, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is told of; services of other places, and the rest of the ledger, are there."""
    spread(service, 4, store)
    store.put_if_absent(service.context(), "app000/production/head/000000000000.json", b"{")
    store.put_if_absent(service.context(), "notes/of/somebody", b"hello")

    def silent(*_: object) -> None:
        raise Unavailable("no answer from nowhere-1")

    monkeypatch.setattr(wiring, "ground_of", silent)
    found = surveyed(service)
    assert list(found.cloud_errors.values()) == ["no answer from nowhere-1"]
    by_name = {each.service: each for each in found.services}
    assert "is not a document of this ledger" in told(by_name["app000/production"])
    assert by_name["app001/production"].serving == service.id("1.1.0")
    assert by_name["app001/production"].weights is None and "notes/of" not in by_name


def test_a_ledger_without_services_is_refused(service: Service, store: ObjectStore) -> None:
    with pytest.raises(UsageError, match="has no service of nobody"):
        surveyed(service, "nobody")


def test_a_table_and_a_document(
    service: Service, store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line for each that fits 80 columns, and the same for programs; what does not go together is refused."""
    spread(service, 3, store)
    monkeypatch.chdir(tmp_path)
    ran = osvdeploy("status", "--all", "--ledger", "memory")
    assert ran.code == 0, ran.stderr
    heading, *lines = ran.stdout.splitlines()
    assert heading.split() == ["SERVICE", "SERVES", "SHARE", "UP", "STATE"]
    assert lines[0].split() == ["app000/production", service.id("1.1.0"), "100", "%", "2/2"]
    assert max(map(len, ran.stdout.splitlines())) <= 80
    [first, *_] = osvdeploy("status", "--all", "--ledger", "memory", "--json").document["services"]
    assert first["service"] == "app000/production" and first["weights"] == {"blue": 0, "green": 100}
    assert first["machines"]["green"] == {"up": 2, "capacity": 2} and first["run"] is None
    assert osvdeploy("status", "--all", "--watch", "--ledger", "memory").code == 2
    assert "is one service" in osvdeploy("status", "a/b", "--all", "--ledger", "memory").stderr
    assert "where is the ledger" in osvdeploy("status", "--all").stderr
    of_one = osvdeploy("status", "app001", "--all", "--ledger", "memory", "--json").document["services"]
    assert [each["service"] for each in of_one] == ["app001/production"]


def test_a_hold_of_a_release_names_it(service: Service, store: ObjectStore) -> None:
    """So that a line says what may not come."""
    service.rollback()
    [found] = surveyed(service).services
    assert found.head is not None and isinstance(found.head.holds[0], Hold)
    assert told(found) == f"{service.id('1.1.0')} held"
    assert replace(found, machines=None, weights=None).stable is None
