"""Works in threads of their own, beside a block in the caller's."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from osvdeploy.cloud.parallel import beside
from osvdeploy.cloud.parts import MOST_AHEAD, Ahead
from osvdeploy.context import Context
from osvdeploy.errors import Refused, Unavailable
from osvdeploy.events import Note, Recorder


def test_a_block_and_what_is_beside_it_go_on_at_once() -> None:
    """Each may wait for the other; answers come in the items' order, events in the caller's thread at the end."""
    events, met = Recorder(), threading.Barrier(3, timeout=30)
    ctx = Context(reporter=events)

    def work(ctx: Context, item: int, stop: threading.Event) -> int:
        met.wait()
        ctx.report(Note(f"{item}"))
        return item * 10

    with beside(ctx, (1, 2), work, name="test") as going:
        assert not going.over
        met.wait()
        assert events.events == []
    assert (going.answers, going.over) == ([10, 20], True)
    assert [str(each.text) for each in events.events if isinstance(each, Note)] == ["1", "2"]


def test_the_block_s_own_failure_is_told() -> None:
    """Before any of the works', which are told that they should not be repeated, and are waited for."""
    ended: list[bool] = []

    def work(ctx: Context, item: int, stop: threading.Event) -> None:
        ended.append(stop.wait(30))
        raise Unavailable("too late")

    with pytest.raises(Refused, match="the block"), beside(Context(), (1,), work, name="test"):
        raise Refused("the block")
    assert ended == [True]


def test_the_first_item_s_failure_is_told() -> None:
    """Where the block ends well; a fault in the work itself too."""

    def work(ctx: Context, item: str, stop: threading.Event) -> None:
        raise Refused(item) if item != "bug" else ZeroDivisionError

    with pytest.raises(Refused, match="first"), beside(Context(), ("first", "second"), work, name="test"):
        pass
    with pytest.raises(ZeroDivisionError), beside(replace(Context()), ("bug", "second"), work, name="test"):
        pass


def test_parts_that_were_made_ahead_are_taken_in_their_order() -> None:
    """A few at most, and none behind the last."""
    made: list[int] = []

    def parts() -> Iterator[bytes]:
        for number in range(MOST_AHEAD + 2):
            made.append(number)
            yield b"%d" % number

    ahead = Ahead(parts())
    ahead.make(until=lambda: len(made) == 2)
    assert (made, next(ahead)) == ([0, 1], b"0")
    ahead.make(until=lambda: False)
    assert len(made) == MOST_AHEAD + 1
    assert next(ahead) == b"1"
    ahead.make(until=lambda: False)
    ahead.make(until=lambda: False)
    assert list(ahead) == [b"%d" % number for number in range(2, MOST_AHEAD + 2)]


def test_what_fails_ahead_is_told_behind_what_was_made() -> None:
    """To whoever takes the part that could not be made."""

    def parts() -> Iterator[bytes]:
        yield b"1"
        raise Refused("damaged")

    ahead = Ahead(parts())
    ahead.make(until=lambda: False)
    ahead.make(until=lambda: False)
    assert next(ahead) == b"1"
    with pytest.raises(Refused, match="damaged"):
        next(ahead)
