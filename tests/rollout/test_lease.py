"""The lease: one process at a time."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from osvdeploy.cloud.local.store import DirectoryStore
from osvdeploy.context import CancelToken, Context, ProcessIdentity, VirtualClock, _process_start
from osvdeploy.errors import DeadlineExceeded, Interrupted, LeaseHeld, LeaseLost, Unavailable
from osvdeploy.rollout import lease
from osvdeploy.rollout.ledger import Ledger
from osvdeploy.rollout.model import Outcome
from tests.rollout.made import NOW
from tests.rollout.service import Service
from tests.rollout.test_control import CANARY, Controlled, serving

ELSEWHERE = ProcessIdentity(host="far", boot="another-kernel", namespace="pid:[1]", pid=7, started="1", user="ann")


@pytest.fixture
def ctx() -> Context:
    return Context(clock=VirtualClock(NOW))


@pytest.fixture
def service() -> Controlled:
    """A rollout is under way, and waits."""
    made = serving(replace(CANARY, approve=True))
    assert made.deploy("1.1.0").outcome is Outcome.WAITING
    return made


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(DirectoryStore(tmp_path), "hello", "production")


def test_the_second_process_of_this_host_is_refused_while_the_first_lives(ledger: Ledger, ctx: Context) -> None:
    """A living holder of the same machine is a refusal at once, which names it."""
    with lease.held(ctx, ledger, "deploy"):
        with pytest.raises(LeaseHeld, match=str(ctx.process.pid)) as refused:
            lease.acquire(ctx, ledger, "another")
        assert refused.value.exit_code == 4
        assert ctx.monotonic() == 0.0
    assert lease.acquire(ctx, ledger, "afterwards").head.epoch == 2


def test_whoever_is_refused_for_a_rollout_is_told_what_keeps_and_what_ends_it(
    service: Controlled, ctx: Context
) -> None:
    """By commands that are heard by whoever is at work; a signal is for what hangs."""
    living = replace(ctx, process=replace(ctx.process, pid=os.getppid(), started=_process_start(os.getppid())))
    lease.acquire(living, service.ledger, "deploy")
    with pytest.raises(LeaseHeld) as refused:
        lease.acquire(ctx, service.ledger, "hold")
    hint = refused.value.hint or ""
    assert "`osvdeploy pause hello/production` keeps its traffic" in hint and "`osvdeploy abort hello/produ" in hint
    assert hint.index("pause") < hint.index("where it hangs, `kill -9") and "Ctrl-C" not in hint


def test_a_second_thread_is_not_told_to_kill_its_own_process(ledger: Ledger, ctx: Context) -> None:
    """As of a program that uses the library twice."""
    with lease.held(ctx, ledger, "deploy"), pytest.raises(LeaseHeld) as refused:
        lease.acquire(ctx, ledger, "another")
    assert "another thread of this very process" in (refused.value.hint or "")
    assert "kill" not in (refused.value.hint or "")


def test_a_dead_process_of_this_host_loses_its_lease_at_once(ledger: Ledger, ctx: Context) -> None:
    """Nobody waits for a process that is known to be gone."""
    child = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True
    )
    dead = replace(ctx.process, pid=int(child.stdout), started="12345")
    lease.acquire(replace(ctx, process=dead), ledger, "deploy")
    taken = lease.acquire(ctx, ledger, "another")
    assert taken.head.epoch == 2 and ctx.monotonic() == 0.0


def test_a_silent_process_elsewhere_is_waited_out(ledger: Ledger, ctx: Context) -> None:
    """Where nobody can know, the lease's whole length must pass without a sign, on the watcher's clock."""
    lease.acquire(replace(ctx, process=ELSEWHERE), ledger, "deploy")
    taken = lease.acquire(ctx, ledger, "another")
    assert taken.head.epoch == 2 and ctx.monotonic() >= lease.LENGTH


def test_by_force_nobody_elsewhere_is_waited_for(ledger: Ledger, ctx: Context) -> None:
    """Somebody knows that it is dead; a process of this machine that lives is refused all the same."""
    lease.acquire(replace(ctx, process=ELSEWHERE), ledger, "deploy")
    taken = lease.acquire(ctx, ledger, "another", force=True)
    assert taken.head.epoch == 2 and ctx.monotonic() == 0.0
    with pytest.raises(LeaseHeld):
        lease.acquire(ctx, ledger, "a third", force=True)


def test_a_change_of_the_cloud_is_over_before_the_lease_can_be_taken_over(ledger: Ledger, ctx: Context) -> None:
    """Its time is what is left of the lease, less one call; what takes longer is looked at again."""
    holder = lease.acquire(ctx, ledger, "deploy")
    ctx.sleep(29.0)
    with pytest.raises(Unavailable, match="longer than the lease lasts"), holder.acting(ctx) as acting:
        assert acting.remaining() == lease.LENGTH - 29.0 - 15.0
        acting.sleep(100.0)
    assert ctx.monotonic() == lease.LENGTH - 15.0


def test_a_lease_that_is_half_over_is_renewed_before_the_cloud_is_changed(ledger: Ledger, ctx: Context) -> None:
    """So there is time for the change."""
    holder = lease.acquire(ctx, ledger, "deploy")
    ctx.sleep(31.0)
    with holder.acting(ctx) as acting:
        assert acting.remaining() == lease.LENGTH - 15.0
    assert holder.head.n == 2


def test_the_users_own_deadline_ends_a_change_as_itself(ledger: Ledger, ctx: Context) -> None:
    """It is not taken for the lease's."""
    holder = lease.acquire(ctx, ledger, "deploy")
    short = ctx.within(5.0)
    with pytest.raises(DeadlineExceeded, match="the time given is over"), holder.acting(short) as acting:
        acting.sleep(100.0)


@pytest.mark.parametrize("after", [False, True])
def test_a_write_without_an_answer_is_not_taken_for_another_process(after: bool) -> None:
    """Whether it came through is seen at the next one; the lease is given back all the same."""
    service = Service()
    ctx, ledger = service.context(), service.ledger
    holder = lease.acquire(ctx, ledger, "deploy")
    service.cloud.faults.fail("store.put", Unavailable("no answer"), after=after)
    with pytest.raises(Unavailable):
        holder.save(ctx, "first")
    holder.confirm(ctx)
    assert holder.save(ctx, "second").n == (3 if after else 2)
    holder.give_up(ctx)
    assert service.head.lease is None


def test_a_sign_of_life_from_elsewhere_is_a_refusal(ledger: Ledger, ctx: Context) -> None:
    """A holder that renews while it is watched keeps its lease."""
    there = replace(ctx, process=ELSEWHERE)
    holder = lease.acquire(there, ledger, "deploy")

    class Renewing(VirtualClock):
        def wait(self, seconds: float, cancelled: object) -> None:
            self.advance(seconds)
            if self.monotonic() > 20:
                holder.save(there, "lease renewed")

    with pytest.raises(LeaseHeld, match="far"):
        lease.acquire(replace(ctx, clock=Renewing(NOW)), ledger, "another")


def test_who_lost_the_lease_learns_it_at_the_next_write(ledger: Ledger, ctx: Context) -> None:
    """A holder that slept too long stops instead of writing over its successor."""
    first = lease.acquire(replace(ctx, process=ELSEWHERE), ledger, "deploy")
    lease.acquire(ctx, ledger, "another")
    with pytest.raises(LeaseLost):
        first.save(replace(ctx, process=ELSEWHERE), "too late")


def test_the_lease_is_renewed_at_half(ledger: Ledger, ctx: Context) -> None:
    """renew() writes nothing before half of the length is over."""
    holder = lease.acquire(ctx, ledger, "deploy")
    clock = ctx.clock
    assert isinstance(clock, VirtualClock)
    holder.renew(ctx)
    before = holder.head.n
    clock.advance(29)
    holder.renew(ctx)
    assert holder.head.n == before
    clock.advance(2)
    holder.renew(ctx)
    assert holder.head.n == before + 1


def test_ctrl_c_gives_the_lease_back(ledger: Ledger, ctx: Context) -> None:
    """An interrupted holder leaves no lease behind, so the next command need not wait."""
    cancel = CancelToken()
    with pytest.raises(Interrupted), lease.held(replace(ctx, cancel=cancel), ledger, "deploy"):
        cancel.cancel()
        replace(ctx, cancel=cancel).check()
    head = ledger.head(ctx)
    assert head is not None and head.lease is None
