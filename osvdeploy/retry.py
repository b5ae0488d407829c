"""Repeating what may work later, by tenacity, on the Context's clock: a cancel or the deadline ends it at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
)

from osvdeploy.context import Context
from osvdeploy.errors import Unavailable
from osvdeploy.events import Waiting

T = TypeVar("T")

PATIENCE = 120.0
"""Seconds for which a command that nobody waits at in an emergency bears with a cloud that cannot now: accounts are
throttled for seconds, and services recover within minutes or not soon."""


def retrying(
    ctx: Context,
    call: Callable[[], T],
    *,
    when: Callable[[BaseException], bool],
    attempts: int | None = None,
    seconds: float | None = None,
    first_wait: float = 0.2,
    longest_wait: float = 5.0,
) -> T:
    """Call until it succeeds, raises what ``when`` does not accept, or ``attempts`` or ``seconds`` are used up.

    Waits grow exponentially with full jitter between ``first_wait`` and ``longest_wait`` seconds. The last error is
    raised as it is. :class:`~osvdeploy.errors.Interrupted` and :class:`~osvdeploy.errors.DeadlineExceeded` come from
    the context's sleep.
    """
    began = ctx.monotonic()

    def over(state: RetryCallState) -> bool:
        # tenacity's own stop_after_delay reads the machine's clock; ours may be virtual.
        if seconds is not None and ctx.monotonic() - began >= seconds:
            return True
        return attempts is not None and state.attempt_number >= attempts

    def pause(state: RetryCallState) -> float:
        # tenacity's own draws from Python's generator, and not from the Context: no run would be as the one before.
        share = int.from_bytes(ctx.entropy(4), "big") / 2**32
        return share * float(min(longest_wait, first_wait * 2 ** (state.attempt_number - 1)))

    loop = Retrying(
        sleep=ctx.sleep,
        stop=over,
        wait=pause,
        retry=retry_if_exception(when),
        reraise=True,
    )
    return loop(call)


def insisting(ctx: Context, call: Callable[[], T], seconds: float = PATIENCE, whom: str = "the cloud") -> T:
    """Call until it raises no :class:`~osvdeploy.errors.Unavailable`, for so many seconds; the last one is raised. Each
    is told while it is waited for ``whom``."""

    def unavailable(error: BaseException) -> bool:
        if not isinstance(error, Unavailable):
            return False
        ctx.report(Waiting(f"{whom} to answer", str(error)))
        return True

    return retrying(ctx, call, when=unavailable, seconds=seconds, first_wait=1.0, longest_wait=15.0)


def until_next_look(waited: float) -> float:
    """Seconds until one looks again at what a cloud does by itself, having waited for ``waited`` seconds so far.

    Its end is seen within 0.8 s for the first eight minutes, in 600 looks; later within a 600th of the time that it
    takes, so that an hour costs no more than 1,800. EC2 gives each account 20 such calls a second, and lets 100 gather
    (Amazon EC2 API reference, "Request throttling", of Describe* actions).
    """
    return max(min(max(0.3, waited / 5), 0.8), waited / 600)
