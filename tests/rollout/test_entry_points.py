"""A balancer has several entry points, at each of which a change is in force at another time."""

from __future__ import annotations

import pytest

from osvdeploy.cloud.memory import Call, Moment, Timing
from osvdeploy.rollout.model import Outcome, RequestKind, Stage
from tests.rollout.made import SETTINGS
from tests.rollout.test_control import Controlled, serving

pytestmark = pytest.mark.whole


def behind(service: Controlled, *propagation: float) -> Controlled:
    service.cloud.world.timing = Timing(propagation=propagation)
    service.clock.advance(max(propagation) + 1.0)
    return service


@pytest.mark.parametrize("propagation", [(1.0, 25.0), (25.0, 1.0)])
def test_a_switch_is_proved_at_the_slowest_of_them(propagation: tuple[float, float]) -> None:
    """Whichever it is."""
    service = behind(serving(), *propagation)
    service.deploy("1.1.0")
    run = service.head.run
    assert run is not None and run.verdict is Outcome.SUCCEEDED and run.shifted is not None
    proved = next(record.left for record in run.stages if record.stage is Stage.SHIFT)
    assert (proved - run.shifted).total_seconds() >= 25.0


def test_a_switch_that_is_taken_back_at_once_is_waited_for_all_the_same() -> None:
    """It comes into force before what takes it back does: its machines stay until then."""
    service = behind(serving(SETTINGS.strategy), 1.0, 10.0)
    moved: list[float] = []
    gone: list[float] = []

    def look(call: Call, moment: Moment) -> None:
        if call.operation == "router.modify_rule" and moment is Moment.AFTER and not moved:
            moved.append(service.time.monotonic())
            service.say(RequestKind.ABORT)
        if call.operation == "groups.delete" and moment is Moment.BEFORE:
            gone.append(service.time.monotonic())

    service.cloud.on_call(look)
    assert service.deploy("1.1.0").outcome is Outcome.ABORTED
    service.cloud.on_call(None)
    assert gone[0] - moved[0] > 10.0 + 10.0
