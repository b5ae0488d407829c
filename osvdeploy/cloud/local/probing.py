"""Probes that leave from elsewhere: what a command is given and answers, both ends of it.

The command gets one request as JSON on its stdin, and prints one answer as JSON on its stdout:

    {"schema": 1, "probe": "http" | "tcp", "url": "...", "headers": {...}, "timeout": seconds, "address": "..." | null}
    {"schema": 1, "status": 200 | null, "headers": {...}, "body": "the first 2 KiB", "held": false, "error": ""}

``osvdeploy probe`` is the other end. Every text is one that JSON holds; a body's undecodable bytes are replaced.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Mapping
from tempfile import TemporaryFile
from typing import IO, Any

from osvdeploy.cloud.interfaces import ProbeAnswer, ProbeRequest
from osvdeploy.cloud.local.hooks import last_line, shown_end
from osvdeploy.cloud.local.prober import HttpProber
from osvdeploy.context import Context
from osvdeploy.errors import UsageError
from osvdeploy.processes import Guarded, status_of

SCHEMA = 1
BODY = 2048
"""Bytes of a body that an answer has."""

ON_THE_WAY = 10.0
"""Seconds that a command may take beyond the probe's own time limit: a connection to another machine is made."""

_LONGEST = 300.0
_MOST = 256 << 10
"""Bytes that a command may print."""
_LOOK = 0.2


class LocalProber:
    """:class:`~osvdeploy.cloud.interfaces.Prober` over the network: from here, or by a command."""

    def __init__(self) -> None:
        self._http = HttpProber()

    def probe(self, ctx: Context, request: ProbeRequest) -> ProbeAnswer:
        if request.via:
            return _by_command(ctx, request)
        return self._http.probe(ctx, request)


def request_document(request: ProbeRequest) -> dict[str, Any]:
    """A request, as a command is given it."""
    return {
        "schema": SCHEMA,
        "probe": request.kind,
        "url": request.url,
        "headers": dict(request.headers),
        "timeout": request.timeout,
        "address": request.address,
    }


def request_of(content: bytes) -> ProbeRequest:
    """The request that a command was given. Raises :class:`~osvdeploy.errors.UsageError` for what is none."""
    document = _object(content)
    _refuse_newer(document)
    kind, url, address = document.get("probe"), document.get("url"), document.get("address")
    timeout = document.get("timeout", 5.0)
    if kind not in ("http", "tcp"):
        raise UsageError(f'"probe" is "http" or "tcp", not {_shown(kind)}')
    if not isinstance(url, str) or not url:
        raise UsageError(f'"url" is an address, not {_shown(url)}')
    if address is not None and (not isinstance(address, str) or not address):
        raise UsageError(f'"address" is host:port or null, not {_shown(address)}')
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout <= _LONGEST:
        raise UsageError(f'"timeout" is seconds, more than 0 and at most {_LONGEST:.0f}, not {_shown(timeout)}')
    return ProbeRequest(url, _headers(document), float(timeout), address, kind)


def answer_document(answer: ProbeAnswer) -> dict[str, Any]:
    """An answer, as a command prints it."""
    return {
        "schema": SCHEMA,
        "status": answer.status,
        "headers": dict(answer.headers),
        "body": answer.body[:BODY].decode(errors="replace"),
        "held": answer.held,
        "error": answer.error,
    }


def answer_of(content: bytes) -> ProbeAnswer:
    """The answer that a command printed. Raises :class:`~osvdeploy.errors.UsageError` for what is none."""
    document = _object(content)
    _refuse_newer(document)
    status, body, held, error = (document.get(key) for key in ("status", "body", "held", "error"))
    if status is not None and (isinstance(status, bool) or not isinstance(status, int) or not 100 <= status <= 999):
        raise UsageError(f'"status" is a number from 100 to 999 or null, not {_shown(status)}')
    if not isinstance(body if body is not None else "", str):
        raise UsageError(f'"body" is a text, not {_shown(body)}')
    if not isinstance(error if error is not None else "", str):
        raise UsageError(f'"error" is a text, not {_shown(error)}')
    if held not in (None, True, False) or (held is not None and not isinstance(held, bool)):
        raise UsageError(f'"held" is true or false, not {_shown(held)}')
    if status is None and not held and not error:
        raise UsageError('has neither "status" nor "error"')
    headers = {name.lower(): value for name, value in _headers(document).items()}
    said = (body or "").encode(errors="replace")[:BODY]
    return ProbeAnswer(status, headers, said, " ".join((error or "").split())[:500], bool(held))


def _object(content: bytes) -> dict[str, Any]:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        shown = " ".join(content[:80].decode(errors="replace").split())
        raise UsageError(f"is no JSON: {shown!r}" if shown else "is empty") from None
    if not isinstance(document, dict):
        raise UsageError(f"is no JSON object, but {_shown(document)}")
    return document


def _refuse_newer(document: Mapping[str, Any]) -> None:
    schema = document.get("schema", SCHEMA)
    if isinstance(schema, bool) or schema != SCHEMA:
        raise UsageError(f"has schema {_shown(schema)}; this osvdeploy knows {SCHEMA}", hint="update osvdeploy there")


def _headers(document: Mapping[str, Any]) -> dict[str, str]:
    headers = document.get("headers") or {}
    if not isinstance(headers, dict) or not all(isinstance(value, str) for value in headers.values()):
        raise UsageError(f'"headers" are names and texts, not {_shown(headers)}')
    return headers


def _shown(value: object) -> str:
    return json.dumps(value)[:60]


def _by_command(ctx: Context, request: ProbeRequest) -> ProbeAnswer:
    """Have a command send it. Never raises but for a cancel and the end of the time that is given."""
    name = request.via[0]
    try:
        status, printed, said = _run(ctx, request)
    except OSError as error:
        return ProbeAnswer(None, error=f"{name}: cannot be started: {error.strerror or error}")
    if status is None:
        return ProbeAnswer(None, error=f"{name}: did not end within {request.timeout + ON_THE_WAY:.0f} s")
    last = last_line(shown_end(said))
    if status != 0:
        how = f"exit status {status}" if status <= 128 else f"ended by signal {status - 128}"
        return ProbeAnswer(None, error=f"{name}: {how}{': ' if last else ''}{last}")
    try:
        return answer_of(printed)
    except UsageError as error:
        return ProbeAnswer(None, error=f"{name}: what it printed {error}")


def _run(ctx: Context, request: ProbeRequest) -> tuple[int | None, bytes, bytes]:
    """Its exit status, None where it took too long, and what it printed and said."""
    with TemporaryFile() as given, TemporaryFile() as said:
        given.write(json.dumps(request_document(request)).encode() + b"\n")
        given.seek(0)
        tool = Guarded(request.via, cwd=None, env=os.environ, stdin=given.fileno(), stderr=said.fileno())
        printed: list[bytes] = []
        assert tool.process.stdout is not None
        reader = threading.Thread(target=_read, args=(tool.process.stdout, printed), daemon=True)
        reader.start()
        status: int | None = None
        try:
            # By counting, and not by the context's clock, which does not pass while a test's stands still.
            for _ in range(round((request.timeout + ON_THE_WAY) / _LOOK)):
                try:
                    tool.process.wait(_LOOK)
                    break
                except subprocess.TimeoutExpired:
                    ctx.check()
            if tool.process.poll() is not None:
                reader.join(2.0)
                status = status_of(tool.process)
        finally:
            tool.close()
        said.seek(0)
        return status, b"".join(printed), said.read(_MOST)


def _read(stdout: IO[bytes], printed: list[bytes]) -> None:
    left = _MOST
    try:
        while piece := os.read(stdout.fileno(), 65536):
            # More than an answer has is read, so that nobody waits, and dropped.
            printed.append(piece[:left])
            left -= len(printed[-1])
    except (OSError, ValueError):
        pass  # it was closed: nobody waits for it
