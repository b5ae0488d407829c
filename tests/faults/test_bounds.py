"""How quickly traffic is back: by looks, by changes, by the time that machines need; on both clouds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from osvdeploy.context import Context
from osvdeploy.rollout.model import Limits, Observation, Run
from osvdeploy.rollout.observe import Observer
from osvdeploy.sandbox.core import Moment
from osvdeploy.sandbox.wire import Call
from tests.faults.matrix import Site
from tests.faults.scenarios import SITES

pytestmark = [pytest.mark.slow, pytest.mark.sandbox]


def until_the_switch(site: Site, monkeypatch: pytest.MonkeyPatch, back: Callable[[], object]) -> tuple[int, int, float]:
    """Looks, changes of the cloud and seconds that a rollback takes until traffic was sent back."""
    look, looks, changes, switched = Observer.look, list[Run](), list[str](), list[float]()
    began = site.world.clock.monotonic()

    def looked(self: Observer, ctx: Context, run: Run) -> Observation:
        if not switched:
            looks.append(run)
        return look(self, ctx, run)

    def called(moment: Moment, call: Call) -> None:
        if moment is Moment.BEFORE and call.mutating and not switched:
            changes.append(call.operation)
        run = site.world.head.run if moment is Moment.AFTER and call.mutating else None
        if run is not None and run.shifted is not None and not run.over and not switched:
            switched.append(site.world.clock.monotonic() - began)

    monkeypatch.setattr(Observer, "look", looked)
    site.world.sandbox.hook = called
    back()
    site.world.sandbox.hook = None
    return len(looks), len(changes), switched[0]


@pytest.mark.parametrize("kind", SITES)
def test_a_warm_rollback_takes_three_looks_and_one_change(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most, until traffic is sent back."""
    site = SITES[kind](tmp_path)
    site.limits = Limits()
    site.put_into_service("1.0.0", "1.1.0")
    looks, changes, _ = until_the_switch(site, monkeypatch, lambda: site.rollback("1.0.0"))
    assert looks <= 3
    assert changes == 1


@pytest.mark.parametrize("kind", SITES)
def test_a_cold_rollback_takes_a_boot_and_five_looks(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time that machines have to boot and to be healthy in, and no more."""
    site = SITES[kind](tmp_path)
    site.limits = Limits()
    site.put_into_service("1.0.0", "1.1.0")
    here = site.place.process(site.limits)
    here.manager.rollback(here.ctx, site.releases["1.0.0"])
    site.world.wait(120)
    site.rollback("1.1.0")
    site.world.wait(120)
    run = site.world.head.run
    assert run is not None
    health = run.settings.health
    _, _, seconds = until_the_switch(site, monkeypatch, lambda: site.rollback("1.0.0"))
    run = site.world.head.run
    assert run is not None and not run.warm
    assert seconds <= health.boot_timeout + health.min_ready + 5 * site.limits.poll
