"""What publish and deploy ask a cloud of a machine type."""

from __future__ import annotations

from dataclasses import replace

import pytest

from osvdeploy import api
from osvdeploy.api import wiring
from osvdeploy.checks.places import Certainty
from osvdeploy.cloud.interfaces import Cloud
from osvdeploy.cloud.memory import MemoryCloud
from osvdeploy.context import Context, VirtualClock
from osvdeploy.errors import Refused, Unavailable, UsageError
from osvdeploy.events import Recorder, Warned


class Asking:
    def __init__(self) -> None:
        clock, self.events = VirtualClock(), Recorder()
        self.ctx = Context(clock=clock, reporter=self.events)
        self.memory = MemoryCloud(clock)
        self.cloud: Cloud = replace(self.memory.cloud, kind="aws")


@pytest.fixture
def asking() -> Asking:
    return Asking()


def test_the_cloud_s_answer_counts(asking: Asking) -> None:
    """With memory and processors, which no name tells."""
    place = api.place_of(asking.ctx, asking.cloud, "small")
    assert (place.machine, place.cpus, place.memory) == ("small", 1, 512 << 20)
    assert place.certainty is Certainty.KNOWN


def test_an_unknown_type_is_refused_with_the_nearest(asking: Asking) -> None:
    """Nothing was changed by then."""
    with pytest.raises(UsageError, match="smal: nowhere-1 has no machine type") as caught:
        api.place_of(asking.ctx, asking.cloud, "smal")
    assert caught.value.hint == "the nearest are small"
    assert asking.memory.mutations == []


def test_a_cloud_that_does_not_let_us_ask_leaves_the_name(asking: Asking) -> None:
    """Told as a warning, with the permission that lacks; a deploy that worked before goes on working."""
    asking.memory.faults.fail("machines.find", Refused("AWS refused DescribeInstanceTypes", hint="allow the action"))
    place = api.place_of(asking.ctx, asking.cloud, "t2.micro")
    assert place.hypervisor == "xen"
    (warned,) = (event for event in asking.events.events if isinstance(event, Warned))
    assert "by its name alone" in warned.text and warned.hint == "allow the action"


def test_a_cloud_that_does_not_answer_is_not_guessed_at(asking: Asking) -> None:
    """The same command goes on later."""
    asking.memory.faults.fail("machines.find", Unavailable("no answer"))
    with pytest.raises(Unavailable):
        api.place_of(asking.ctx, asking.cloud, "t2.micro")


def test_how_long_changes_take_may_be_known_better(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the environment: of what a cloud is known for, the time alone is another."""
    asked = Context(), "gcp", "acme-prod", "europe-west1-b", "http://127.0.0.1:1"
    monkeypatch.delenv(wiring.PROPAGATION_VARIABLE, raising=False)
    usual = wiring.ground(*asked)
    monkeypatch.setenv(wiring.PROPAGATION_VARIABLE, "20s")
    monkeypatch.setenv(wiring.DRAIN_VARIABLE, "2m")
    known = wiring.ground(*asked)
    assert usual.drain is None and known.drain == 120.0
    assert (usual.spread, usual.late) == (120.0, 0.0) and (known.spread, known.late) == (20.0, 0.0)
    monkeypatch.setenv(wiring.PROPAGATION_VARIABLE, "soon")
    with pytest.raises(UsageError, match="OSVDEPLOY_PROPAGATION: 'soon' is not a duration"):
        wiring.ground(*asked)
