"""What `osvdeploy status` tells of a service that is not as its ledger says, or that goes no further."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from osvdeploy.api import wiring
from osvdeploy.cloud.interfaces import ObjectStore
from osvdeploy.cloud.memory import Call, Moment
from osvdeploy.context import ProcessIdentity
from osvdeploy.rollout.hooks import Notify
from osvdeploy.rollout.ledger import Lease
from osvdeploy.rollout.model import Outcome, RequestKind, Stage
from tests.cli.running import Ran, osvdeploy
from tests.rollout.test_told import EVERY, HOOK, REFUSED
from tests.rollout.unledgered import Died, Gone, Unledgered, dies_entering

pytestmark = pytest.mark.whole


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Unledgered:
    """1.1.0 serves, 1.0.0 stands warm beside it."""
    service = Unledgered()
    for version in ("1.0.0", "1.1.0"):
        assert service.deploy(version).outcome is Outcome.SUCCEEDED

    def opened(address: str) -> ObjectStore:
        return Gone() if service.lost else service.cloud.store

    monkeypatch.setattr(wiring, "open_store", opened)
    monkeypatch.setattr(wiring, "ground_of", lambda ctx, place: service.cloud.cloud)
    return service


def status(*words: str) -> Ran:
    ran = osvdeploy("status", "hello/production", "--ledger", "memory", *words)
    assert ran.code == 0, ran.stderr
    return ran


def back_without_the_ledger(service: Unledgered, to: str) -> None:
    service.lost = True
    service.back(to=to)
    service.clock.advance(120)
    service.lost = False


def test_what_serves_by_the_cloud_comes_first_until_the_ledger_knows(service: Unledgered) -> None:
    """With what the ledger learns it by, and in the document; after that, nothing is said of it."""
    back_without_the_ledger(service, "1.0.0")
    old, new = service.id("1.0.0"), service.id("1.1.0")
    first, second, *_ = status().stdout.splitlines()
    assert first.startswith(f"hello/production: {old} has the traffic at http://")
    assert first.endswith(f": it was taken from {new} without the ledger, which does not know that yet")
    assert "`osvdeploy drift --repair`" in second
    document = status("--json").document
    assert (document["left"], document["carrying"], document["serving"]) == (new, old, new)
    service.manager().realign(service.context())
    assert status().stdout.startswith(f"hello/production: {old} serves at http://")
    document = status("--json").document
    assert (document["left"], document["carrying"], document["serving"]) == (None, None, old)


def test_so_it_does_while_a_rollout_is_under_way(service: Unledgered) -> None:
    """Which `recover` ends."""
    dies_entering(service, Stage.SHIFT)
    back_without_the_ledger(service, "1.0.0")
    first, second, *_ = status().stdout.splitlines()
    assert first.startswith(f"hello/production: {service.id('1.0.0')} has the traffic at http://")
    assert "`osvdeploy recover`" in second
    service.manager().recover(service.context())
    assert status().stdout.startswith(f"hello/production: {service.id('1.0.0')} serves at http://")


@pytest.mark.parametrize("word", ["recover", "abort"])
def test_so_it_does_where_traffic_went_back_to_what_the_rollout_had_found(service: Unledgered, word: str) -> None:
    """What is told to be typed is enough: the ledger knows what was left and holds it, and nothing differs any more."""
    dies_entering(service, Stage.BAKE)
    back_without_the_ledger(service, "1.1.0")
    assert "`osvdeploy recover`" in status().stdout
    if word == "recover":
        assert service.manager().recover(service.context()).outcome is Outcome.ABORTED
    else:
        assert service.manager().request(service.context(), RequestKind.ABORT).done
    assert status().stdout.startswith(f"hello/production: {service.id('1.1.0')} serves at http://")
    document = status("--json").document
    assert document["left"] is None and [each["release"] for each in document["holds"]] == [service.id("1.2.0")]
    assert drift(0).document["drift"] == []


def test_a_note_that_nothing_followed_is_told_as_such(service: Unledgered) -> None:
    """Whoever wrote it died before traffic moved."""

    def dies(call: Call, moment: Moment) -> None:
        if call.operation == "router.note_left" and moment is Moment.AFTER:
            raise Died

    service.lost = True
    service.cloud.on_call(dies)
    with pytest.raises(Died):
        service.back(to="1.0.0")
    service.cloud.on_call(None)
    service.lost = False
    first, second, *_ = status().stdout.splitlines()
    new = service.id("1.1.0")
    assert first.startswith(f"hello/production: {new} serves at http://")
    assert second == f"a rollback without the ledger was to take traffic from {new}, and has not done so"


def test_a_rollout_that_is_held_is_said_to_go_no_further(service: Unledgered) -> None:
    """Rather than what would let it go on."""
    service.settings = replace(service.settings, strategy=replace(service.settings.strategy, approve=True))
    assert service.deploy("1.2.0").outcome is Outcome.WAITING
    assert "osvdeploy approve" in status().stdout
    service.manager().hold(service.context(), None, "freeze until Monday")
    told = status().stdout
    assert "goes no further: every release is held since" in told and "\n`osvdeploy approve" not in told
    assert "`osvdeploy unhold hello/production`, then `osvdeploy approve hello/production` lets it go on" in told


def test_bounds_alone_scale_nothing(service: Unledgered) -> None:
    """Nothing is paused where nothing would go on."""
    service.cloud.scale(service.group("1.1.0"), 2, 4)
    told = status().stdout
    assert "green may have 2 to 4 machines; nothing changes their number by itself" in told and "paused" not in told
    service.scale("1.1.0", 2, 4)
    assert "green scales by itself, 2 to 4 machines (" in status().stdout


def test_what_others_are_yet_to_be_told_is_told_by_rollout(service: Unledgered) -> None:
    """In a line for each of them, as at the end of a command."""
    service.settings = replace(service.settings, notify=(Notify(HOOK, EVERY),))
    service.cloud.notifier.behaves = lambda to, message: (0.0, REFUSED)
    for version in ("1.2.0", "1.3.0"):
        assert service.deploy(version).outcome is Outcome.SUCCEEDED
    (told,) = [line for line in status().stdout.splitlines() if "yet to be told" in line]
    of_each = [f"begun, shifted, succeeded (the deploy of {service.id(version)})" for version in ("1.2.0", "1.3.0")]
    assert f"is yet to be told of {'; '.join(of_each)}: answered 500" in told


def dead_here(service: Unledgered, stage: Stage = Stage.BAKE) -> int:
    """A deploy of 1.2.0 whose process, of this machine, was killed in a stage; the number of that process."""
    dies_entering(service, stage)
    child = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    held_by(service, replace(ProcessIdentity.current(), pid=int(child.stdout), started="12345"))
    return int(child.stdout)


def held_by(service: Unledgered, holder: ProcessIdentity | None) -> None:
    """Who has the lease from now on, by the clock that commands have; None: nobody."""
    head, lease = service.head, Lease(holder, 60.0) if holder is not None else None
    newer = replace(head, n=head.n + 1, nonce="held", lease=lease, written=datetime.now(UTC))
    service.ledger.write(service.context(), newer)


def drift(code: int) -> Ran:
    ran = osvdeploy("drift", "hello/production", "--ledger", "memory", "--json")
    assert ran.code == code, ran.stderr
    return ran


def test_a_rollout_whose_process_is_dead_is_said_to_be_nobodys(service: Unledgered) -> None:
    """By whatever looks at it: in one line, in all services' and in the documents; with what goes on with it."""
    pid = dead_here(service)
    told = status().stdout
    assert f"nobody is at work on it: process {pid} on " in told and "is dead" in told
    assert "`osvdeploy recover hello/production` goes on with it, `osvdeploy abort hello/production` ends it" in told
    document = status("--json").document
    assert document["held_by"] is None and "is dead" in document["deserted"]
    [everything] = osvdeploy("status", "--all", "--ledger", "memory", "--json").document["services"]
    assert f"nobody is at work: process {pid} on " in everything["told"]
    assert "is dead" in drift(1).document["deserted"]
    assert "watches by itself" not in osvdeploy("drift", "hello/production", "--ledger", "memory").stdout


def test_a_rollout_whose_lease_was_given_back_is_said_to_be_nobodys(service: Unledgered) -> None:
    """As after `resume --no-wait`, of which nobody has heard yet."""
    service.settings = replace(service.settings, strategy=replace(service.settings.strategy, approve=True))
    assert service.deploy("1.2.0").outcome is Outcome.WAITING
    [everything] = osvdeploy("status", "--all", "--ledger", "memory", "--json").document["services"]
    assert "waits for approval before" in everything["told"] and drift(0).document["under_way"]
    assert "osvdeploy recover" not in status().stdout
    said = osvdeploy("approve", "hello/production", "--ledger", "memory", "--no-wait")
    assert said.code == 0, said.stderr
    told = status().stdout
    assert "nobody is at work on it\n`osvdeploy recover hello/production` goes on with it" in told


def test_of_a_process_elsewhere_it_is_said_when_it_was_heard_of(service: Unledgered) -> None:
    """Nobody knows from here whether it lives; while its lease lasts nothing is said."""
    dies_entering(service, Stage.BAKE)
    far = ProcessIdentity(host="far", boot="another-kernel", namespace="pid:[1]", pid=7, started="1", user="ann")
    held_by(service, far)
    told = status().stdout
    assert "nobody" not in told and status("--json").document["deserted"] is None
    assert "watches by itself" in osvdeploy("drift", "hello/production", "--ledger", "memory").stdout
    head = service.head
    past = head.written - timedelta(minutes=4)
    service.ledger.write(service.context(), replace(head, n=head.n + 1, nonce="past", written=past))
    told = status().stdout
    assert "nobody seems to be at work on it: process 7 on far was last heard of 4m" in told
    assert "where it is gone, `osvdeploy recover hello/production` goes on with it" in told
    assert status("--json").document["held_by"] == "process 7 on far"


def test_whoever_waits_for_a_rollout_of_a_dead_process_hears_so_at_once(service: Unledgered) -> None:
    """And when time is over what goes on with it; meanwhile somebody may, so it is waited for."""
    pid = dead_here(service)
    ran = osvdeploy("wait", "hello/production", "--ledger", "memory", "--timeout", "3s")
    assert ran.code == 1
    assert f"nobody is at work on it: process {pid} on " in ran.stderr, "in what is waited for"
    assert "warning: hello/production: nobody is at work on the deploy of" in ran.stderr
    hint = ran.stderr.splitlines()[-1]
    assert "`osvdeploy recover hello/production --ledger memory` goes on with it" in hint and "wait again" not in hint


def test_a_pause_is_told_in_the_line_of_each_service(service: Unledgered) -> None:
    """And that nobody watches what has a share of the traffic meanwhile."""
    dies_entering(service, Stage.BAKE)
    held_by(service, None)
    assert osvdeploy("pause", "hello/production", "--ledger", "memory", "--why", "lunch").code == 0
    [everything] = osvdeploy("status", "--all", "--ledger", "memory", "--json").document["services"]
    assert "paused by" in everything["told"] and "lunch" in everything["told"]
    told = status().stdout
    assert "nobody is at work on it; `osvdeploy recover hello/production --stay` watches it meanwhile" in told
    assert drift(0).document["deserted"] is not None
