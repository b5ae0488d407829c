"""Consoles of instance types that cannot show the present one, and of instances that have said nothing."""

from __future__ import annotations

import pytest

from osvdeploy.cloud.aws.console import Ec2Console
from osvdeploy.context import Context, VirtualClock
from osvdeploy.errors import NotFound, Refused
from osvdeploy.events import Recorder, Warned
from tests.cloud.aws.script import No, Script


@pytest.fixture
def ctx() -> Context:
    return Context(clock=VirtualClock())


def test_what_cannot_be_had_now_is_had_late(ctx: Context) -> None:
    """A type without live console gives what was kept; it is not asked for the live one again."""
    script = Script({"GetConsoleOutput": [No("UnsupportedOperation"), {"Output": "OSv"}]})
    console = Ec2Console(script.aws())
    assert console.read(ctx, "i-1") == "OSv"
    assert console.read(ctx, "i-1") == "OSv"
    assert len(script.asked) == 3


def test_a_console_that_lags_is_said_to_lag_once(ctx: Context) -> None:
    """Whoever waits for a boot is told that a fault would be seen late."""
    script = Script({"GetConsoleOutput": [No("UnsupportedOperation"), {"Output": "OSv"}]})
    console, told = Ec2Console(script.aws()), Recorder()
    for machine in ("i-1", "i-2", "i-1"):
        console.read(ctx.reporting_to(told), machine)
    warned = [each.text for each in told.events if isinstance(each, Warned)]
    assert len(warned) == 1 and "some time after" in warned[0]


def test_nothing_said_is_nothing(ctx: Context) -> None:
    """AWS leaves the field out while there is no output."""
    assert Ec2Console(Script({"GetConsoleOutput": [{"InstanceId": "i-1"}]}).aws()).read(ctx, "i-1") == ""


@pytest.mark.parametrize(
    ("answer", "error"), [(No("InvalidInstanceID.NotFound"), NotFound), (No("UnauthorizedOperation", 403), Refused)]
)
def test_other_refusals_are_told(ctx: Context, answer: No, error: type[Exception]) -> None:
    """They are not taken for a console that says nothing."""
    with pytest.raises(error):
        Ec2Console(Script({"GetConsoleOutput": [answer]}).aws()).read(ctx, "i-1")
