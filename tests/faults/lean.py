"""Work in a process that has imported little.

A process that runs tests has imported all of them, and keeps what they made: a gigabyte, after a while. To fork it
takes a tenth of a second, as long as what most branches do. Here a server that has little forks, once for each piece of
work, and what that forks has as little.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, ParamSpec, TypeVar

from tests import google_types

P = ParamSpec("P")
T = TypeVar("T")

_SERVER = multiprocessing.get_context("forkserver")
# It imports once what each piece of work would.
_SERVER.set_forkserver_preload(["tests.faults.scenarios"])


def lean(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What ``work`` returns, done elsewhere; it and all that it takes and returns can be pickled. What judges requests
    by Google's types there is what does here.

    Raises AssertionError, with where it was, for whatever it raised, or that its process ended.
    """
    ours, theirs = _SERVER.Pipe(duplex=False)
    lent = google_types.process.lent()
    process = _SERVER.Process(target=_do, args=(theirs, lent, work, args, kwargs))
    process.start()
    for each in (theirs, *lent):
        each.close()
    try:
        done, answer = ours.recv()
    except EOFError:
        process.join()
        done, answer = False, f"the process of {work.__name__} ended by itself, with {process.exitcode}"
    except BaseException:
        process.kill()
        google_types.process.end()  # there may be an answer left that nobody waits for
        raise
    finally:
        ours.close()
        process.join()
        process.close()
    assert done, answer
    result: T = answer
    return result


def _do(
    answers: Connection,
    judge: tuple[Connection, Connection],
    work: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> None:
    # As tests/conftest.py has it for whoever runs tests.
    os.fsync = os.fstat  # type: ignore[assignment]
    gc.set_threshold(20_000)
    google_types.process.borrow(*judge)
    try:
        answer = True, work(*args, **kwargs)
    except BaseException:
        answer = False, traceback.format_exc()
    answers.send(answer)
