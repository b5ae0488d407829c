"""Several calls of one adapter in flight at once; everything else stays in the caller's thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from itertools import islice
from typing import Generic, TypeVar

from osvdeploy.context import Context
from osvdeploy.errors import OsvDeployError
from osvdeploy.events import Event

T = TypeVar("T")
R = TypeVar("R")

Work = Callable[[Context, T, threading.Event], R]
"""What is done for an item, in a thread of its own. The event says that it should not be repeated any more."""

Ended = tuple[list[Event], R | OsvDeployError]
"""What a work has reported, and its answer or what it failed with."""


def in_flight(
    ctx: Context,
    items: Iterable[T],
    work: Work[T, R],
    done: Callable[[R], None],
    *,
    width: int,
    name: str,
) -> None:
    """Have ``work`` done for each item, ``width`` of them at once, in threads called ``name``.

    Items are taken, ``done`` is called and events are reported in the caller's thread, so memory holds ``width`` items.
    The first thing to fail ends it, be it the items, the work, ``done``, a cancel or the deadline: no more is begun,
    what is in flight is waited for and told of, and then it is raised.
    """
    stop = threading.Event()
    flying: set[Future[Ended[R]]] = set()
    source = iter(items)
    trouble: BaseException | None = None

    with ThreadPoolExecutor(width, thread_name_prefix=name) as pool:
        while True:
            if trouble is None:
                try:
                    ctx.check()
                    flying.update(
                        pool.submit(_one, ctx, work, item, stop) for item in islice(source, width - len(flying))
                    )
                except BaseException as error:
                    trouble = error
                    stop.set()
            if not flying:
                break
            for future in wait(flying, return_when=FIRST_COMPLETED).done:
                flying.discard(future)
                try:
                    done(_answer(ctx, future))
                except BaseException as error:
                    trouble = trouble or error
                    stop.set()
    if trouble is not None:
        raise trouble


class Beside(Generic[R]):
    """Works that go on. ``answers`` are theirs, in the order of their items, once all is over."""

    def __init__(self, futures: Sequence[Future[Ended[R]]]) -> None:
        self.answers: list[R] = []
        self._futures = futures

    @property
    def over(self) -> bool:
        """Whether none goes on any more."""
        return all(each.done() for each in self._futures)


@contextmanager
def beside(ctx: Context, items: Sequence[T], work: Work[T, R], *, name: str) -> Iterator[Beside[R]]:
    """Have ``work`` done for each item, all at once in threads called ``name``, while the caller's does what the block
    says.

    They are waited for behind the block, and their events are reported then, in the caller's thread. What the block
    raises is raised, else what the first of the items failed with.
    """
    stop = threading.Event()
    with ThreadPoolExecutor(len(items), thread_name_prefix=name) as pool:
        going = Beside([pool.submit(_one, ctx, work, each, stop) for each in items])
        trouble: BaseException | None = None
        try:
            yield going
        except BaseException as error:
            stop.set()
            trouble = error
        for future in going._futures:
            try:
                going.answers.append(_answer(ctx, future))
            except BaseException as error:
                stop.set()
                trouble = trouble or error
    if trouble is not None:
        raise trouble


def _one(ctx: Context, work: Work[T, R], item: T, stop: threading.Event) -> Ended[R]:
    events: list[Event] = []
    try:
        return events, work(ctx.reporting_to(events.append), item, stop)
    except OsvDeployError as error:
        return events, error


def _answer(ctx: Context, future: Future[Ended[R]]) -> R:
    """What a work has answered, its events reported. Raises what it failed with."""
    events, result = future.result()
    for event in events:
        ctx.report(event)
    if isinstance(result, OsvDeployError):
        raise result
    return result
