"""Sizes, digests, time: what everything stands on."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osvdeploy.context import CancelToken, Context, ProcessIdentity, VirtualClock
from osvdeploy.digests import canonical_json
from osvdeploy.errors import DeadlineExceeded, Interrupted, Unavailable
from osvdeploy.retry import retrying
from osvdeploy.sizes import format_duration, format_size, parse_duration, parse_size
from osvdeploy.visible import in_a_line


@given(st.integers(0, 1 << 45))
def test_a_formatted_size_means_what_it_was(size: int) -> None:
    """What is shown exactly reads back exactly."""
    shown = format_size(size)
    if "." not in shown:
        assert parse_size(shown) == size


@pytest.mark.parametrize("text", ["64", "64 mib", "", "1,5GiB", "-1s", "1.0.0GiB"])
def test_a_quantity_without_a_known_unit_is_refused(text: str) -> None:
    """A bare number could be mistaken, so none is taken."""
    with pytest.raises(ValueError, match=r"unit|is not a"):
        parse_size(text)
    with pytest.raises(ValueError, match=r"unit|is not a"):
        parse_duration(text)


def test_durations_for_people() -> None:
    """Two units at most."""
    shown = [format_duration(seconds) for seconds in (0.85, 4.2, 60, 200, 7500)]
    assert shown == ["850ms", "4.2s", "1m", "3m 20s", "2h 5m"]


def test_canonical_json_is_one_text() -> None:
    """Keys sorted, no white space, text as it is; no floats, wherever they hide."""
    assert canonical_json({"b": [1, None, True], "a": "é"}) == '{"a":"é","b":[1,null,true]}'.encode()
    with pytest.raises(ValueError, match="no floats"):
        canonical_json({"a": [{"b": 1.5}]})  # type: ignore[dict-item]  # what is refused


def test_sleeping_ends_at_the_deadline_and_at_a_cancel() -> None:
    """Nobody waits past the time given, or after Ctrl-C."""
    clock, cancel = VirtualClock(), CancelToken()
    ctx = Context(clock=clock, cancel=cancel)
    with pytest.raises(DeadlineExceeded):
        ctx.within(5).sleep(10)
    assert clock.monotonic() == 5.0
    cancel.cancel()
    with pytest.raises(Interrupted):
        ctx.sleep(1)
    assert clock.monotonic() == 5.0


def test_a_nearer_deadline_wins() -> None:
    """within() never gives more time than there was."""
    ctx = Context(clock=VirtualClock()).within(5)
    assert ctx.within(60).remaining() == 5.0 and ctx.within(2).remaining() == 2.0


def test_retrying_waits_in_virtual_time_and_gives_up() -> None:
    """Only what may work later is tried again, and the last error comes out as it is."""
    clock, tries = VirtualClock(), []

    def failing() -> None:
        tries.append(clock.monotonic())
        raise Unavailable("not now")

    with pytest.raises(Unavailable):
        retrying(Context(clock=clock), failing, when=lambda error: isinstance(error, Unavailable), attempts=4)
    assert len(tries) == 4
    with pytest.raises(ZeroDivisionError):
        retrying(Context(clock=clock), lambda: 1 / 0, when=lambda error: isinstance(error, Unavailable))


def test_pauses_between_tries_are_drawn_from_the_context() -> None:
    """A run that draws the same waits the same; each pause is a share of one that doubles, up to the longest."""
    clock, tries = VirtualClock(), []

    def failing() -> None:
        tries.append(clock.monotonic())
        raise Unavailable("not now")

    ctx = Context(clock=clock, entropy=lambda count: b"\x80".ljust(count, b"\0"))
    with pytest.raises(Unavailable):
        retrying(ctx, failing, when=lambda error: True, attempts=5, first_wait=1.0, longest_wait=3.0)
    assert tries == [0.0, 0.5, 1.5, 3.0, 4.5]


def test_a_process_is_dead_only_where_that_is_certain() -> None:
    """The same process is alive, one that ended is dead, and of one elsewhere nobody can know."""
    here = ProcessIdentity.current()
    assert not here.known_dead()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert replace(here, pid=ended.pid, started="1").known_dead()
    assert replace(here, started="1").known_dead(), "the number was given to another process"
    assert not replace(here, boot="another kernel").known_dead()
    assert not replace(here, namespace="pid:[1]", pid=1).known_dead()
    assert here.pid == os.getpid()


PAGE = b"""<html>
<head><title>503 Service Temporarily Unavailable</title></head>
<body>
<center><h1>503 Service Temporarily Unavailable</h1></center>
</body>
</html>
"""


def test_what_an_answer_says_is_told_on_one_line() -> None:
    """A page says its title, else its first heading, else nothing; what only mentions HTML is no page."""
    assert in_a_line(PAGE) == "503 Service Temporarily Unavailable"
    assert in_a_line(b"<!-- x -->\n<!DOCTYPE html><BODY><h2 class=a>Bad <b>gate</b>way &amp;\n more</h2>") == (
        "Bad gate way & more"
    )
    assert in_a_line(b"<html><title> </title><body>it<br>failed") == ""
    assert in_a_line(b"no pool:\r\n  <html> is\n not known\n") == "no pool: <html> is not known"
    assert in_a_line(b"\xff" + b"x" * 500, 10) == "\N{REPLACEMENT CHARACTER}" + "x" * 9
    assert in_a_line(b"") == ""
