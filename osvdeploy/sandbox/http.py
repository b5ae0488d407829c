"""The shell: the sandbox on sockets, for people and for programs of other processes.

One HTTP endpoint takes AWS's and Google's API calls, the data plane opens each balancer's listeners, and a ticker lets
happen what is due. All behaviour is the core's; here are threads and the time of day. Below ``/_sandbox/`` the shell
answers for itself: ``GET ping``, ``GET status``, ``GET calls?after=N``, ``POST faults``, ``DELETE faults``, ``POST
stop``; see :mod:`osvdeploy.sandbox.control`.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from osvdeploy.sandbox import wire, wires
from osvdeploy.sandbox.control import ADMIN_HEADER, ADMIN_PATH
from osvdeploy.sandbox.core import Sandbox
from osvdeploy.sandbox.errors import ApiError
from osvdeploy.sandbox.faults import Fault, FaultKind, Lost
from osvdeploy.sandbox.proxy import DataPlane
from osvdeploy.sandbox.store import CallRecord
from osvdeploy.sandbox.wire import ApiRequest, ApiResponse, Call

TICK = 0.1
"""Seconds between looks at guests; what is due sooner is not waited for that long."""

WORKERS = 32
"""Threads for what waits for guests: health checks above all."""

LARGEST_BODY = 256 << 20
"""Bytes. S3 takes parts of up to 5 GiB, but here a request is held in memory."""


def utc_now() -> datetime:
    return datetime.now(UTC)


class Shell:
    """Serves a sandbox from :meth:`start` to :meth:`stop`. Port 0 takes any that is free.

    Raises OSError at once where the port is taken.
    """

    def __init__(self, sandbox: Sandbox, host: str = "127.0.0.1", port: int = 0) -> None:
        self.sandbox = sandbox
        self.started = utc_now()
        self.ended = threading.Event()
        """Set when somebody asks over HTTP for the sandbox to stop."""
        self._server = _Server((host, port), self)
        self._plane = DataPlane(traffic=sandbox.traffic)
        self._problems: list[str] = []
        self._shown = -1
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._workers = ThreadPoolExecutor(WORKERS, thread_name_prefix="outside")
        self._threads = [
            threading.Thread(
                target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, name="api", daemon=True
            ),
            threading.Thread(target=self._tick, name="ticker", daemon=True),
        ]
        sandbox.clock = utc_now
        sandbox.work_outside = self._work

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://{self._server.server_address[0]!s}:{self.port}"

    def start(self) -> None:
        """Go on where the store stands, and answer."""
        self.sandbox.resume(utc_now())
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Accept no more, end every guest, close the store. The account stays as it is."""
        self._stopping.set()
        self._wake.set()
        if self._threads[0].is_alive():
            self._server.shutdown()
        self._server.server_close()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(timeout=10)
        self._workers.shutdown(wait=False, cancel_futures=True)
        self._plane.close()
        self.sandbox.close()

    def serve(self, request: ApiRequest) -> ApiResponse | Lost:
        """Answer one API call, and let the data plane see at once what it changed."""
        before = self.sandbox.version
        try:
            answer = self.sandbox.handle(request, utc_now())
        except Exception:
            traceback.print_exc()
            told = ApiError("InternalFailure", "a fault in the sandbox itself; its log has the traceback", 500)
            unknown = Call("", "", "", {})
            return wires.wire_of(request).refusal(unknown, told, wire.request_id(utc_now().isoformat()))
        if self.sandbox.version != before:
            self._wake.set()
        return answer

    # ---------------------------------------------------------------------------------------------------- the ticker

    def _work(self, job: Callable[[], None]) -> None:
        def done() -> None:
            try:
                job()
            except Exception:
                if not self._stopping.is_set():
                    traceback.print_exc()

        if not self._stopping.is_set():
            self._workers.submit(done)

    def _tick(self) -> None:
        while not self._stopping.is_set():
            try:
                self._look()
            except Exception:
                # One event's fault must not end everything else that happens by itself.
                traceback.print_exc()
            due = self.sandbox.next_due()
            pause = TICK if due is None else (due - utc_now()).total_seconds()
            self._wake.wait(min(max(pause, 0.0), TICK))
            self._wake.clear()

    def _look(self) -> None:
        now = utc_now()
        self.sandbox.settle(now)
        if not self.sandbox.runner.instant:
            self.sandbox.look(now)
        version = self.sandbox.version
        if version != self._shown or self._problems:
            problems = self._plane.update(self.sandbox.view())
            self._shown = version
            for problem in problems:
                if problem not in self._problems:
                    print(f"listener {problem}", file=sys.stderr, flush=True)
            self._problems = problems

    # ---------------------------------------------------------------------------------------------- the shell's own

    def status(self) -> dict[str, object]:
        """What ``osvdeploy sandbox status`` tells."""
        endpoints = self.sandbox.view().endpoints.values()
        return {
            "pid": os.getpid(),
            "url": self.url,
            "speed": self.sandbox.speed,
            "started": self.started.isoformat(),
            "account": self.sandbox.account,
            "inventory": self.sandbox.inventory(),
            "listeners": sorted(f"{each.address}:{each.listener.port}" for each in endpoints),
            "problems": self._problems,
            "faults": [
                {"operation": each.operation, "kind": str(each.kind), "skip": each.skip, "times": each.times}
                for each in self.sandbox.faults.waiting()
            ],
        }

    def answer_admin(self, method: str, url: str, body: bytes) -> tuple[int, object]:
        """Status and JSON document for a request below ``/_sandbox/``."""
        split = urlsplit(url)
        match method, split.path.removeprefix(ADMIN_PATH):
            case "GET", "ping":
                return 200, {"pid": os.getpid()}
            case "GET", "status":
                return 200, self.status()
            case "GET", "calls":
                after = parse_qs(split.query).get("after", ["0"])[0]
                return 200, {"calls": [_shown(each) for each in self.sandbox.calls(int(after))]}
            case "POST", "faults":
                wanted = json.loads(body)
                fault = Fault(wanted["operation"], FaultKind(wanted["kind"]), wanted["skip"], wanted["times"])
                self.sandbox.faults.add(fault)
                return 200, {}
            case "DELETE", "faults":
                self.sandbox.faults.clear()
                return 200, {}
            case "POST", "stop":
                self.ended.set()
                return 200, {}
        return 404, {"error": f"{method} {split.path}: nothing here"}


def _shown(call: CallRecord) -> dict[str, object]:
    return {
        "number": call.number,
        "time": call.at.isoformat(),
        "region": call.region,
        "service": call.service,
        "operation": call.operation,
        "mutating": call.mutating,
        "error": call.error or None,
        "client": call.client,
    }


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # server_close() would wait for every connection that a client keeps open.
    block_on_close = False
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], shell: Shell) -> None:
        self.shell = shell
        super().__init__(address, _Connection)

    def server_bind(self) -> None:
        # HTTPServer's own asks the resolver for a name, which may take seconds.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is no event."""


class _Connection(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 64 * 1024
    timeout = 300.0
    server: _Server

    def __getattr__(self, name: str) -> object:
        # The base class calls do_GET and so on; which methods there are is for the services to say.
        if name.startswith("do_"):
            return self._serve
        raise AttributeError(name)

    def log_message(self, format: str, *args: object) -> None:
        """No log of requests: the store has one of calls."""

    def handle_expect_100(self) -> bool:
        # The base class leaves this in our buffer, and the client would wait for it before it sends the body.
        super().handle_expect_100()
        self.wfile.flush()
        return True

    def _read_body(self) -> bytes | None:
        """The request's body, None for one that is not taken."""
        coding, length = self.headers.get("Transfer-Encoding"), self.headers.get("Content-Length", "0")
        if coding is None:
            taken = length.isdigit() and int(length) <= LARGEST_BODY
            return self._whole(int(length)) if taken else None
        if coding.lower() != "chunked":
            return None
        chunks, held = [], 0
        while size := int(self.rfile.readline(1024).partition(b";")[0], 16):
            held += size
            if held > LARGEST_BODY:
                return None
            chunks.append(self._whole(size))
            self.rfile.readline(1024)
        while self.rfile.readline(65536).strip():
            pass  # trailers of HTTP's own: nobody sends any
        return b"".join(chunks)

    def _whole(self, length: int) -> bytes:
        body = self.rfile.read(length)
        if len(body) < length:
            # Of a client that is gone: what it has not sent must not happen, not even in part.
            raise ConnectionResetError
        return body

    def _serve(self) -> None:
        try:
            body = self._read_body()
        except ConnectionResetError:
            self.close_connection = True
            return
        except ValueError:
            body = None
        if body is None:
            self.close_connection = True
            self.send_error(HTTPStatus.LENGTH_REQUIRED, f"a Content-Length of at most {LARGEST_BODY} is needed")
            return
        if self.path.startswith(ADMIN_PATH):
            self._serve_admin(body)
            return
        headers = {name.lower(): str(value) for name, value in self.headers.items()}
        match self.server.shell.serve(ApiRequest(self.command, self.path, headers, body)):
            case Lost() as lost:
                self._lose(lost)
            case answer:
                self._send(answer.status, dict(answer.headers), answer.body)

    def _serve_admin(self, body: bytes) -> None:
        # A page in a browser can send a request here, but not with a header of its own.
        if self.headers.get(ADMIN_HEADER) is None:
            self._send(403, {}, b"")
            return
        try:
            status, document = self.server.shell.answer_admin(self.command, self.path, body)
        except (ValueError, KeyError) as wrong:
            status, document = 400, {"error": str(wrong)}
        self._send(status, {"content-type": "application/json"}, json.dumps(document).encode())

    def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response_only(status)
        # What asks with HEAD is told how long the body would be.
        length = headers.pop("content-length", str(len(body))) if self.command == "HEAD" else str(len(body))
        for name, value in headers.items():
            if name.lower() != "content-length":
                self.send_header(name, value)
        if status >= 200 and status not in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED):
            self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD" and status not in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED):
            self.wfile.write(body)
        self.wfile.flush()

    def _lose(self, lost: Lost) -> None:
        """Let the client have no answer."""
        self.close_connection = True
        if lost is Lost.HANGS:
            # Until the client gives up and closes, or the sandbox stops.
            self.connection.settimeout(None)
            self.connection.recv(1)
        elif lost is Lost.UNREACHABLE:
            # Reset, as a host that knows of no connection answers.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
