"""Several calls of one adapter in flight at once; everything else stays in the caller's thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import TypeVar

from osvdeploy.context import Context
from osvdeploy.errors import OsvDeployError
from osvdeploy.events import Event

T = TypeVar("T")
R = TypeVar("R")


def in_flight(
    ctx: Context,
    items: Iterable[T],
    work: Callable[[Context, T, threading.Event], R],
    done: Callable[[R], None],
    *,
    width: int,
    name: str,
) -> None:
    """Have ``work`` done for each item, ``width`` of them at once, in threads called ``name``.

    Items are taken, ``done`` is called and events are reported in the caller's thread, so memory holds ``width`` items.
    The first thing to fail ends it, be it the items, the work, ``done``, a cancel or the deadline: no more is begun,
    what is in flight is waited for and told of (its :class:`threading.Event` says that it should not be repeated), and
    then it is raised.
    """
    stop = threading.Event()
    flying: set[Future[tuple[list[Event], R | OsvDeployError]]] = set()
    source = iter(items)
    trouble: BaseException | None = None

    def one(item: T) -> tuple[list[Event], R | OsvDeployError]:
        events: list[Event] = []
        try:
            return events, work(ctx.reporting_to(events.append), item, stop)
        except OsvDeployError as error:
            return events, error

    with ThreadPoolExecutor(width, thread_name_prefix=name) as pool:
        while True:
            if trouble is None:
                try:
                    ctx.check()
                    flying.update(pool.submit(one, item) for item in islice(source, width - len(flying)))
                except BaseException as error:
                    trouble = error
                    stop.set()
            if not flying:
                break
            for future in wait(flying, return_when=FIRST_COMPLETED).done:
                flying.discard(future)
                try:
                    events, result = future.result()
                    for event in events:
                        ctx.report(event)
                    if isinstance(result, OsvDeployError):
                        raise result
                    done(result)
                except BaseException as error:
                    trouble = trouble or error
                    stop.set()
    if trouble is not None:
        raise trouble
