"""One run that is gone on with in many ways: at a moment, in a process of its own for each of them.

To begin anew for each of a hundred troubles costs all that comes before the trouble a hundred times. A fork has it.
"""

from __future__ import annotations

import gc
import os
import pickle
import signal
import threading
import traceback
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NoReturn

from tests.world import files_in, let_be


class Branches:
    """Splits the process that runs something. A branch has all that is in memory, and may change it; files in
    ``folders`` are put back after it, others are not its own. ``wrong`` is what came of those that were."""

    def __init__(self, *folders: Path) -> None:
        self.wrong: list[str] = []
        self._folders = folders
        self._thread, self._threads = threading.current_thread(), threading.active_count()
        self._pipe: int | None = None

    @property
    def is_branch(self) -> bool:
        return self._pipe is not None

    @property
    def splits(self) -> bool:
        """Whether all that goes on does so in this thread: a fork has no other."""
        return threading.current_thread() is self._thread and threading.active_count() == self._threads

    def run(self, work: Callable[[], Iterable[str]]) -> None:
        """Do something, also in each branch that it comes to: it answers what is wrong with its end.

        A branch never returns from here; what it raises is told as wrong.
        """
        # What is there now is left alone by the collector, so that branches and the run go on sharing it.
        gc.freeze()
        try:
            found = list(work())
        except BaseException as error:
            if self.is_branch:
                self._end(["".join(traceback.format_exception(error)[-4:])])
            raise
        finally:
            gc.unfreeze()
        if self.is_branch:
            self._end(found)
        self.wrong += found

    def here(self) -> bool:
        """Let a branch go on from here, to its end: True in that branch, then False where it came from."""
        files = files_in(*self._folders)
        reading, writing = os.pipe()
        with warnings.catch_warnings():
            # The threads of whoever runs tests wait for the next one.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            os.close(reading)
            self._pipe = writing
            return True
        os.close(writing)
        try:
            with os.fdopen(reading, "rb") as pipe:
                told = pipe.read()
        except BaseException:
            os.kill(child, signal.SIGKILL)
            raise
        finally:
            _, status = os.waitpid(child, 0)
        let_be(self._folders, files)
        self.wrong += pickle.loads(told) if told else [f"a branch ended by itself, with {status}"]
        return False

    def ends(self, told: Iterable[str]) -> NoReturn:
        """End a branch in the midst of what it was in, which nobody goes on with."""
        self._end(list(told))

    def _end(self, told: list[str]) -> NoReturn:
        """Nothing of this process goes on."""
        assert self._pipe is not None
        with os.fdopen(self._pipe, "wb") as pipe:
            pickle.dump(told, pipe)
        os._exit(0)
