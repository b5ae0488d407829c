"""The real data plane: one HTTP/1.1 server per balancer listener, which sends each request where it is told to.

A target is picked per request, also on a connection that a client keeps open, so a switch never breaks one: what was
begun on the old target ends there, the next request goes by the weights then in force. Refused by the target: 502; no
answer within the idle timeout: 504; both with a balancer's own page. A request is never sent twice.
"""

from __future__ import annotations

import http.client
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from osvdeploy.sandbox.dataplane import (
    Answer,
    Decision,
    Hangup,
    HttpRequest,
    SendTo,
    View,
    page,
    unavailable,
)
from osvdeploy.sandbox.traffic import Traffic

Decide = Callable[[HttpRequest], Decision]
"""Where a request goes by the rules in force; called in the connection's own thread."""

IDLE_TIMEOUT = 60.0
"""Seconds without a byte after which a client's connection is closed or a target given up: AWS's default."""

CONNECT_TIMEOUT = 10.0
"""Seconds a balancer waits for a target to accept ("HTTP 504: Gateway timeout")."""

_PIECE = 64 * 1024
_HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)


class _BodyInvalid(Exception):
    """The request's body does not have the form its header says."""


class ListenerServer:
    """Serves one listener from :meth:`start` to :meth:`stop`. Raises OSError at once where the port is taken."""

    def __init__(self, address: str, port: int, decide: Decide, traffic: Traffic | None = None) -> None:
        """``traffic`` counts what is forwarded."""
        self._server = _Server((address, port), decide, traffic if traffic is not None else Traffic())
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, name=f"listener-{address}:{port}"
        )
        self._thread.daemon = True

    @property
    def port(self) -> int:
        """The port it listens on (the one chosen, where it was made with 0)."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Accept no more; requests under way end in their own threads, connections kept open get no further one."""
        self._server.stopping = True
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()


class DataPlane:
    """All listeners of all balancers, on real sockets.

    :meth:`update` is given a view whenever something changed; requests read the newest one without a lock.
    """

    def __init__(self, draw: Callable[[], float] = random.random, traffic: Traffic | None = None) -> None:
        """``traffic`` counts what is forwarded."""
        self._view = View({}, {})
        self._draw = draw
        self._traffic = traffic if traffic is not None else Traffic()
        self._servers: dict[tuple[str, int], tuple[str, ListenerServer]] = {}

    def update(self, view: View) -> list[str]:
        """Decide by ``view`` from now on; open and close listeners to match. What could not be opened is said, and
        tried again with the next view."""
        self._view = view
        wanted = {(each.address, each.listener.port): arn for arn, each in view.endpoints.items()}
        for place, (arn, server) in list(self._servers.items()):
            if wanted.get(place) != arn:
                del self._servers[place]
                server.stop()
        failed = []
        for (address, port), arn in wanted.items():
            if (address, port) in self._servers:
                continue
            try:
                server = ListenerServer(address, port, partial(self._decide, arn), self._traffic)
            except OSError as error:
                failed.append(f"{address}:{port}: cannot be opened: {error.strerror}")
                continue
            server.start()
            self._servers[address, port] = arn, server
        return failed

    def _decide(self, arn: str, request: HttpRequest) -> Decision:
        view = self._view
        endpoint = view.endpoints.get(arn)
        if endpoint is None:
            return unavailable()
        return endpoint.listener.decide(request, view.targets_at(datetime.now(UTC)), self._draw())

    def close(self) -> None:
        """Close every listener."""
        self.update(View({}, {}))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # server_close() would wait for every kept-open connection otherwise.
    block_on_close = False
    request_queue_size = 128
    stopping = False

    def __init__(self, address: tuple[str, int], decide: Decide, traffic: Traffic) -> None:
        self.decide = decide
        self.traffic = traffic
        super().__init__(address, _Connection)

    def server_bind(self) -> None:
        # HTTPServer's own asks the resolver for a name, which may take seconds.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is no event; the balancer writes no log."""


class _Connection(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = IDLE_TIMEOUT
    disable_nagle_algorithm = True
    wbufsize = _PIECE
    server: _Server

    def __getattr__(self, name: str) -> object:
        # The base class calls do_GET and so on; a balancer passes every method on.
        if name.startswith("do_"):
            return self._serve
        raise AttributeError(name)

    def log_message(self, format: str, *args: object) -> None:
        """No log on stderr: the sandbox's own call log is for its API."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        self._answer(page(code, message or http.client.responses.get(code, "")))
        self.close_connection = True

    def _serve(self) -> None:
        if self.server.stopping:
            self.close_connection = True
            return
        if self.headers.get("Upgrade"):
            self._answer(Answer(501, "text/plain", "sandbox: protocol upgrades are not simulated\n"))
            self.close_connection = True
            return
        if self.headers.get("Transfer-Encoding") and self.headers.get("Content-Length"):
            # Two lengths for one body are how requests are smuggled; a balancer refuses them.
            self.send_error(400, "Bad Request")
            return
        request = HttpRequest(
            self.command, self.path, tuple((name, str(value)) for name, value in self.headers.items()), self._client
        )
        try:
            match self.server.decide(request):
                case Answer() as answer:
                    self._drop_body()
                    self._answer(answer)
                case SendTo() as sent:
                    self._forward(sent)
                case Hangup():
                    self.close_connection = True
        except _BodyInvalid:
            self.send_error(400, "Bad Request")

    @property
    def _client(self) -> str:
        return str(self.client_address[0])

    def _answer(self, answer: Answer) -> None:
        body = answer.body.encode()
        self.send_response_only(answer.status)
        self.send_header(*answer.sign)
        self.send_header("Date", self.date_time_string())
        if body or answer.status not in (204, 304):
            self.send_header("Content-Type", answer.content_type)
            self.send_header("Content-Length", str(len(body)))
        if answer.location is not None:
            self.send_header("Location", answer.location)
        self.end_headers()
        if self.command != "HEAD" and answer.status not in (204, 304):
            self.wfile.write(body)
        self.wfile.flush()

    # ------------------------------------------------------------------------------------------------- to the target

    def _forward(self, sent: SendTo) -> None:
        target = sent.target
        upstream = http.client.HTTPConnection(target.address, target.port, timeout=CONNECT_TIMEOUT)
        connected, asked = False, time.monotonic()
        try:
            try:
                upstream.connect()
                connected = True
                upstream.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                upstream.sock.settimeout(IDLE_TIMEOUT)
                self._send_request(upstream, sent)
                asked = time.monotonic()
                response = upstream.getresponse()
            except TimeoutError:
                self._fail(sent, connected=connected, in_time=False)
            except (OSError, http.client.HTTPException):
                self._fail(sent, connected=connected, in_time=True)
            else:
                took = time.monotonic() - asked
                self.server.traffic.answered(sent.group, response.status, took, datetime.now(UTC))
                self._pass_back(response, sent)
        finally:
            upstream.close()

    def _fail(self, sent: SendTo, *, connected: bool, in_time: bool) -> None:
        answer = sent.failed(in_time=in_time)
        status = answer.status if isinstance(answer, Answer) else 0
        self.server.traffic.failed(sent.group, status, datetime.now(UTC), connected=connected)
        if isinstance(answer, Hangup):
            self.close_connection = True
            return
        # Part of the request's body may be unread: what follows on this connection could not be told from it.
        if self.headers.get("Content-Length", "0") != "0" or self.headers.get("Transfer-Encoding"):
            self.close_connection = True
        self._answer(answer)

    def _send_request(self, upstream: http.client.HTTPConnection, sent: SendTo) -> None:
        upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        named = {name.strip().lower() for name in self.headers.get("Connection", "").split(",")}
        for name, value in sent.request.applied(self.headers.items()):
            told = not sent.plain and name.lower().startswith("x-forwarded-")
            if name.lower() not in _HOP_BY_HOP | named and not told:
                upstream.putheader(name, value)
        if not sent.plain:
            before = self.headers.get("X-Forwarded-For")
            upstream.putheader("X-Forwarded-For", f"{before}, {self._client}" if before else self._client)
            upstream.putheader("X-Forwarded-Proto", "http")
            upstream.putheader("X-Forwarded-Port", str(self.server.server_port))
        chunked = self._chunked
        if chunked:
            upstream.putheader("Transfer-Encoding", "chunked")
        upstream.putheader("Connection", "close")
        upstream.endheaders()
        for piece in self._body():
            upstream.send(f"{len(piece):x}\r\n".encode() + piece + b"\r\n" if chunked else piece)
        if chunked:
            upstream.send(b"0\r\n\r\n")

    @property
    def _chunked(self) -> bool:
        encoding = self.headers.get("Transfer-Encoding", "").strip().lower()
        if encoding not in ("", "chunked"):
            raise _BodyInvalid
        return encoding == "chunked"

    def _drop_body(self) -> None:
        for _ in self._body():
            pass

    def _body(self) -> Iterator[bytes]:
        """The request's body in pieces, without its chunks' frames."""
        if not self._chunked:
            length = self.headers.get("Content-Length", "0")
            if not length.isdigit():
                raise _BodyInvalid
            yield from self._exactly(int(length))
            return
        while True:
            size = self.rfile.readline(1024).partition(b";")[0].strip()
            try:
                left = int(size, 16)
            except ValueError:
                raise _BodyInvalid from None
            if left == 0:
                break
            yield from self._exactly(left)
            if self.rfile.readline(3) not in (b"\r\n", b"\n"):
                raise _BodyInvalid
        while self.rfile.readline(_PIECE).strip():
            pass

    def _exactly(self, length: int) -> Iterator[bytes]:
        while length:
            piece = self.rfile.read1(min(length, _PIECE))
            if not piece:
                raise _BodyInvalid
            length -= len(piece)
            yield piece

    def _pass_back(self, response: http.client.HTTPResponse, sent: SendTo) -> None:
        bare = self.command == "HEAD" or response.status in (204, 304)
        length = response.getheader("Content-Length")
        rechunk = not bare and length is None and self.request_version == "HTTP/1.1"
        if not bare and length is None and not rechunk:
            self.close_connection = True
        self.send_response_only(response.status, response.reason)
        for name, value in sent.answer.applied(response.getheaders()):
            if name.lower() not in _HOP_BY_HOP:
                self.send_header(name, value)
        if rechunk:
            self.send_header("Transfer-Encoding", "chunked")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.flush()
        try:
            while not bare and (piece := response.read1(_PIECE)):
                self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n" if rechunk else piece)
                self.wfile.flush()
        except (http.client.HTTPException, TimeoutError, ConnectionError):
            # Half an answer is already out: only a broken connection tells the client so.
            self.close_connection = True
            return
        if length is not None and not bare and response.length:
            self.close_connection = True
            return
        if rechunk:
            self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()
