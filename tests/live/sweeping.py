"""Taking away what live tests made, found by its labels: at the end of a test, of a run, and of runs that were killed.

There is one way for all three: nothing is remembered of what was made, since the process that knows may be gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from osvdeploy.context import Context
from osvdeploy.errors import CredentialsMissing, OsvDeployError
from osvdeploy.events import Note

PATIENCE = 1200.0
"""Seconds for things of one kind to go. A balancer's network interfaces hold its subnets for some minutes."""

PAUSE = 5.0


@dataclass(frozen=True, slots=True)
class Left:
    """A thing that a live run made and that is there: ``label`` is its test's, ``remove`` begins to take it away and
    may be called again."""

    what: str
    label: str
    remove: Callable[[], None]


Listing = Callable[[Context], Iterator[Left]]
"""All things of one kind that live runs left."""


class LeftBehind(OsvDeployError):
    """Something that a live run made could not be taken away."""


def sweep(ctx: Context, kinds: Sequence[Listing], mine: Callable[[str], bool]) -> list[str]:
    """Take away what has a label that is ``mine``, kind by kind in their order, and wait until it is gone.

    Goes on with the next kind where one cannot be taken away. Returns what was; raises :class:`LeftBehind` for what is
    still there in the end.
    """
    gone: dict[str, None] = {}
    problems: list[str] = []
    for kind in kinds:
        began = ctx.monotonic()
        while found := [each for each in kind(ctx) if mine(each.label)]:
            said: list[str] = []
            for each in found:
                if each.what not in gone:
                    ctx.report(Note(f"taking away {each.what}"))
                gone[each.what] = None
                try:
                    each.remove()
                except CredentialsMissing:
                    raise
                except OsvDeployError as error:
                    said.append(f"{each.what}: {error}")
            if ctx.monotonic() - began > PATIENCE:
                problems += said or [f"{each.what}: is still there" for each in found]
                break
            ctx.sleep(PAUSE)
    if problems:
        raise LeftBehind(
            "\n".join(problems), hint="python -m tests.live.sweep looks again, and takes away what it finds"
        )
    return list(gone)


def left(ctx: Context, kinds: Sequence[Listing]) -> list[Left]:
    """All that live runs left."""
    return [each for kind in kinds for each in kind(ctx)]
