"""One call that somebody else answers, on a thread of its own: what is sent beside a rollout waits for nobody."""

from __future__ import annotations

import threading
from collections.abc import Callable

from osvdeploy.cloud.interfaces import HookAnswer
from osvdeploy.errors import OsvDeployError

_LAST_WORDS = 2.0


class Sending:
    """:class:`~osvdeploy.cloud.interfaces.RunningHook` of a call. What it refuses with is its answer. A call that is
    under way cannot be ended; it has its own time limit, and its thread ends with the process."""

    def __init__(self, call: Callable[[], str]) -> None:
        """``call`` answers in words."""
        self._call = call
        self._answer: HookAnswer | None = None
        self._thread = threading.Thread(target=self._run, name="osvdeploy-sending", daemon=True)
        self._thread.start()

    def answer(self) -> HookAnswer | None:
        return self._answer

    def wait(self, seconds: float) -> None:
        self._thread.join(seconds)

    def stop(self) -> None:
        """It has its own time limit."""

    def close(self) -> None:
        self._thread.join(_LAST_WORDS)

    def _run(self) -> None:
        try:
            self._answer = HookAnswer(True, self._call())
        except OsvDeployError as error:
            self._answer = HookAnswer(False, " ".join(str(error).split()))
        except Exception as error:  # a bug of ours must not leave a rollout waiting
            self._answer = HookAnswer(False, f"{type(error).__name__}: {' '.join(str(error).split())}")
