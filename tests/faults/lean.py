"""Work in a process that has imported little.

A process that runs tests has imported all of them, and keeps what they made: a gigabyte, after a while. To fork it
takes a tenth of a second, as long as what most branches do. Here a server that has little forks, once for each piece of
work, and what that forks has as little.
"""

from __future__ import annotations

import gc
import importlib
import inspect
import multiprocessing
import os
import re
import traceback
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any, ParamSpec, TypeVar

import pytest

from tests import google_types
from tests.contract import gcp_place

P = ParamSpec("P")
T = TypeVar("T")

_SERVER = multiprocessing.get_context("forkserver")
# It imports once what each piece of work would.
_SERVER.set_forkserver_preload(
    ["tests.faults.test_matrix", "tests.faults.test_rollout_crashes", "tests.faults.test_two_controllers"]
)


def lean(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What ``work`` returns, done elsewhere; it and all that it takes and returns can be pickled. Where requests are
    held to Google's own types here, they are there, by the same process.

    Raises AssertionError, with where it was, for whatever it raised, or that its process ended.
    """
    ours, theirs = _SERVER.Pipe(duplex=False)
    lent = google_types.process.lent() if gcp_place.judge is not None else ()
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
    judge: tuple[Connection, Connection] | tuple[()],
    work: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> None:
    # Nothing waits for a disk here either (no_power_cuts in tests/conftest.py): what fstat answers, nobody reads.
    os.fsync = os.fstat  # type: ignore[assignment]
    gc.set_threshold(20_000)
    if judge:
        google_types.process.borrow(*judge)
        gcp_place.judge = google_types.Judge()
    try:
        answer = True, work(*args, **kwargs)
    except BaseException:
        answer = False, traceback.format_exc()
    answers.send(answer)


def run(test: pytest.Function) -> None:
    """Run a test elsewhere. What it is parametrized with stays there; of fixtures it may have what can be pickled, and
    ``record_property``.

    Where it fails it is run here, too: there is nobody there who explains an assert.
    """
    params: Mapping[str, object] = test.callspec.params if hasattr(test, "callspec") else {}
    chosen = [
        next(at for at, values in enumerate(found) if all(params[name] is values[name] for name in values))
        for found in _choices(test.obj)
    ]
    names = inspect.signature(test.obj).parameters
    given: dict[str, Any] = {
        name: test.funcargs[name] for name in names if name not in params and name != "record_property"
    }
    if "tmp_path" in given:
        # Apart from what a second run makes here.
        given["tmp_path"] /= "elsewhere"
        given["tmp_path"].mkdir()
    try:
        recorded = lean(_run, test.module.__name__, test.originalname, chosen, given)
    except AssertionError:
        test.obj(**{name: test.funcargs[name] for name in names})
        raise
    for name, value in recorded:
        test.user_properties.append((name, value))


def _choices(test: Callable[..., object]) -> list[list[dict[str, object]]]:
    """What each parametrization of a test gives it, one of them at a time."""
    found = []
    for mark in (each for each in getattr(test, "pytestmark", ()) if each.name == "parametrize"):
        names = re.split(r", *", mark.args[0]) if isinstance(mark.args[0], str) else mark.args[0]
        found.append([dict(zip(names, each if len(names) > 1 else (each,), strict=True)) for each in mark.args[1]])
    return found


def _run(module: str, name: str, chosen: Sequence[int], given: Mapping[str, Any]) -> list[tuple[str, object]]:
    """What it recorded."""
    test, recorded = getattr(importlib.import_module(module), name), list[tuple[str, object]]()
    arguments = {**given, "record_property": lambda name, value: recorded.append((name, value))}
    for at, found in zip(chosen, _choices(test), strict=True):
        arguments |= found[at]
    test(**{name: arguments[name] for name in inspect.signature(test).parameters})
    return recorded
