"""Hooks of this host: programs, which end with us whatever they do, and addresses that are posted to."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from tempfile import TemporaryFile
from typing import IO

from osvdeploy.cloud.interfaces import (
    HOOK_OUTPUT,
    CommandHook,
    HookAction,
    HookAnswer,
    HttpHook,
    ProbeRequest,
    RunningHook,
)
from osvdeploy.cloud.local.prober import HttpProber
from osvdeploy.context import Context
from osvdeploy.errors import UsageError
from osvdeploy.processes import Guarded, program_file, status_of

_LAST_WORDS = 2.0
"""Seconds that what was said last may take to be read, once a program has ended."""
_PIECE = 64 << 10
_WORD = 8
"""Letters from which on a part of a secret is one itself."""
_LINE = 200


class LocalHooks:
    """:class:`~osvdeploy.cloud.interfaces.Hooks` of the machine that this process runs on."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        """``environ`` is what programs get, and where variables are looked up: os.environ where left out."""
        self._environ = os.environ if environ is None else environ
        self._http = HttpProber()

    def refuse_unready(self, ctx: Context, action: HookAction) -> None:
        if isinstance(action, CommandHook):
            self._program(action.argv[0])
        else:
            self._headers(action)

    def start(self, ctx: Context, action: HookAction, content: bytes, timeout: float) -> RunningHook:
        try:
            if isinstance(action, CommandHook):
                return _Command((self._program(action.argv[0]), *action.argv[1:]), content, self._environ)
            headers = self._headers(action)
            secrets = [headers[name] for name in action.header_variables]
            return Post(ctx, self._http, action.url, headers, content, timeout, secrets)
        except UsageError as error:
            return Over(HookAnswer(False, str(error)))
        except OSError as error:
            return Over(HookAnswer(False, f"cannot be started: {error.strerror or error}"))
        except RuntimeError as error:  # no thread more
            return Over(HookAnswer(False, f"cannot be started: {error}"))

    def _program(self, name: str) -> str:
        return program_file(name, self._environ.get("PATH"), "the hook")

    def _headers(self, action: HttpHook) -> dict[str, str]:
        found = dict(action.headers)
        for header, variable in action.header_variables.items():
            value = self._environ.get(variable, "").strip()
            if not value:
                raise UsageError(f"the variable {variable} is not set", hint=f"export {variable}: the header {header}")
            if not re.fullmatch(r"[ -~\t]+", value):
                raise UsageError(f"the variable {variable} holds what no header can", hint="one line of ASCII")
            found[header] = value
        return found


class Over:
    """What was answered before anything was started."""

    def __init__(self, answer: HookAnswer) -> None:
        self._answer = answer

    def answer(self) -> HookAnswer:
        return self._answer

    def wait(self, seconds: float) -> None:
        """It is there."""

    def stop(self) -> None:
        """There is nothing."""

    def close(self) -> None:
        """Likewise."""


class _Command:
    """A program behind a guard; a thread reads what it says, of which only the end is kept."""

    def __init__(self, argv: Sequence[str], content: bytes, environ: Mapping[str, str]) -> None:
        # No pipe: a program that does not read its stdin must not hold us up.
        with TemporaryFile() as given:
            given.write(content)
            given.seek(0)
            self._tool = Guarded(argv, cwd=None, env=environ, stdin=given.fileno(), stderr=subprocess.STDOUT)
        self._said = b""
        self._answer: HookAnswer | None = None
        self._closed = False
        assert self._tool.process.stdout is not None
        self._reader = threading.Thread(
            target=self._read, args=(self._tool.process.stdout,), name="osvdeploy-hook", daemon=True
        )
        self._reader.start()

    def answer(self) -> HookAnswer | None:
        if self._answer is None and self._tool.process.poll() is not None:
            self._reader.join(_LAST_WORDS)
            self._answer = self._ended()
        return self._answer

    def wait(self, seconds: float) -> None:
        with suppress(subprocess.TimeoutExpired):
            self._tool.process.wait(seconds)

    def stop(self) -> None:
        if not self._closed:
            self._tool.stop()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            self._tool.close()
        except OSError as error:
            self._answer = HookAnswer(False, f"cannot be started: {error.strerror or error}")

    def _ended(self) -> HookAnswer:
        # Whether it could be started at all, its guard says.
        self.close()
        if self._answer is not None:
            return self._answer
        status = status_of(self._tool.process)
        said = shown_end(self._said)
        last = last_line(said)
        if status == 0:
            return HookAnswer(True, last or "exit status 0", said)
        how = f"exit status {status}" if status <= 128 else f"ended by signal {status - 128}"
        return HookAnswer(False, f"{how}: {last}" if last else how, said)

    def _read(self, said: IO[bytes]) -> None:
        try:
            while piece := os.read(said.fileno(), _PIECE):
                self._said = (self._said + piece)[-HOOK_OUTPUT:]
        except (OSError, ValueError):
            pass  # it was closed: whoever did it asks no more


class Post:
    """A request on a thread of its own. ``secrets`` are in nothing that is told of it."""

    def __init__(
        self,
        ctx: Context,
        http: HttpProber,
        url: str,
        headers: Mapping[str, str],
        content: bytes,
        timeout: float,
        secrets: Sequence[str] = (),
    ) -> None:
        self._http = http
        self._secrets = secrets
        self._request = ProbeRequest(url, {"accept": "*/*", **headers, "content-type": "application/json"}, timeout)
        self._answer: HookAnswer | None = None
        self._connection: socket.socket | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._post, args=(ctx, content), name="osvdeploy-hook", daemon=True)
        self._thread.start()

    def answer(self) -> HookAnswer | None:
        return self._answer

    def wait(self, seconds: float) -> None:
        self._thread.join(seconds)

    def stop(self) -> None:
        self._stopped.set()
        if (connection := self._connection) is not None:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it is closed

    def close(self) -> None:
        self.stop()
        # A name that is still looked up cannot be hurried; the thread ends with the process.
        self._thread.join(_LAST_WORDS)

    def _opened(self, connection: socket.socket) -> None:
        self._connection = connection
        if self._stopped.is_set():
            self.stop()

    def _post(self, ctx: Context, content: bytes) -> None:
        try:
            self._answer = self._asked(ctx, content)
        except Exception as error:
            # Whoever waits for an answer is to have one; this thread has nobody to raise to.
            self._answer = HookAnswer(False, f"cannot be asked: {type(error).__name__}")

    def _asked(self, ctx: Context, content: bytes) -> HookAnswer:
        answer = self._http.fetch(ctx, self._request, HOOK_OUTPUT, posted=content, opened=self._opened)
        said = self._without_secrets(shown_end(answer.body))
        if answer.status is None:
            return HookAnswer(False, self._without_secrets(answer.error), said)
        first = " ".join(said.split())[:_LINE]
        passed = 200 <= answer.status < 300
        told = f"answered {answer.status}" if passed or not first else f"answered {answer.status}: {first}"
        return HookAnswer(passed, told, said)

    def _without_secrets(self, text: str) -> str:
        """Also without the words of a secret ("Bearer TOKEN"), and the beginning of one where the text was cut."""
        words = {each for secret in self._secrets for each in re.split(r"[\s/?&=]+", secret) if len(each) >= _WORD}
        for secret in sorted({*self._secrets, *words}, key=len, reverse=True):
            text = text.replace(secret, "***")
            cut = next((n for n in range(len(secret) - 1, _WORD - 1, -1) if text.endswith(secret[:n])), 0)
            text = f"{text[:-cut]}***" if cut else text
        return text


def shown_end(said: bytes) -> str:
    """The end of what was said, as text of at most :data:`~osvdeploy.cloud.interfaces.HOOK_OUTPUT` bytes."""
    text = said[-HOOK_OUTPUT:].decode(errors="replace").replace("\0", "\N{REPLACEMENT CHARACTER}")
    # What is replaced is longer than it was.
    return text.encode()[-HOOK_OUTPUT:].decode(errors="ignore")


def last_line(said: str) -> str:
    lines = [" ".join(line.split()) for line in said.splitlines() if line.strip()]
    return lines[-1][:_LINE] if lines else ""
