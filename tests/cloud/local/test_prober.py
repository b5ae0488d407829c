"""The HTTP prober against servers that behave well, badly, or not at all."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from osvdeploy.cloud.interfaces import ProbeAnswer, ProbeRequest
from osvdeploy.cloud.local.prober import HttpProber
from osvdeploy.context import Context

Serve = Callable[[socket.socket, bytes], None]


class Server:
    """Takes connections on loopback, reads one request's head, and lets ``serve`` do what it will with it."""

    def __init__(self, serve: Serve) -> None:
        self.requests: list[bytes] = []
        self._serve = serve
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.over = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        with connection:
            head = b""
            # A TLS greeting begins with 0x16 and never has the end that is waited for.
            while b"\r\n\r\n" not in head and not head.startswith(b"\x16") and (more := connection.recv(65536)):
                head += more
            self.requests.append(head)
            try:
                self._serve(connection, head)
            except OSError:
                pass  # the prober has hung up

    def close(self) -> None:
        self.over.set()
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()


Start = Callable[[Serve], Server]


@pytest.fixture
def start() -> Iterator[Start]:
    servers: list[Server] = []

    def begin(serve: Serve) -> Server:
        servers.append(Server(serve))
        return servers[-1]

    yield begin
    for server in servers:
        server.close()


def sends(*parts: bytes) -> Serve:
    def serve(connection: socket.socket, head: bytes) -> None:
        for part in parts:
            connection.sendall(part)

    return serve


def probe(
    port: int, path: str = "/healthz", headers: dict[str, str] | None = None, timeout: float = 5.0
) -> ProbeAnswer:
    request = ProbeRequest(f"http://127.0.0.1:{port}{path}", headers or {}, timeout)
    return HttpProber().probe(Context(), request)


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Release: hello-1\r\n\r\nok"


def test_an_answer_comes_back_whole(start: Start) -> None:
    """Status, headers by lower-case names, and the body."""
    answer = probe(start(sends(OK)).port)
    assert (answer.status, answer.body, answer.error) == (200, b"ok", "")
    assert answer.headers == {"content-length": "2", "x-release": "hello-1"}


def test_the_request_is_a_plain_get(start: Start) -> None:
    """Path and query, the URL's host, the headers given, and a connection that is closed behind it."""
    server = start(sends(OK))
    probe(server.port, "/a?b=c", {"X-Preview": "green"})
    lines = server.requests[0].decode().split("\r\n")
    assert lines[0] == "GET /a?b=c HTTP/1.1"
    assert {f"host: 127.0.0.1:{server.port}", "x-preview: green", "connection: close"} <= set(lines)
    assert not any(line.lower().startswith("accept-encoding") for line in lines)


def test_a_given_host_replaces_the_urls(start: Start) -> None:
    """There is one Host header: the one asked for."""
    server = start(sends(OK))
    probe(server.port, headers={"Host": "orders.example"})
    hosts = [line for line in server.requests[0].decode().split("\r\n") if line.lower().startswith("host:")]
    assert hosts == ["host: orders.example"]


@pytest.mark.parametrize("with_port", [True, False])
def test_the_address_is_dialled_instead(start: Start, with_port: bool) -> None:
    """A probe reaches one entry point of a name by its address; the name goes into Host."""
    server = start(sends(OK))
    url = f"http://name.invalid:{1 if with_port else server.port}/"
    address = f"127.0.0.1:{server.port}" if with_port else "127.0.0.1"
    answer = HttpProber().probe(Context(), ProbeRequest(url, address=address))
    assert answer.status == 200
    assert b"host: name.invalid" in server.requests[0]


def test_no_proxy_is_asked(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment's proxy settings do not matter."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert probe(start(sends(OK)).port).status == 200


def test_redirects_are_answers(start: Start) -> None:
    """A redirect is not followed: it is what the service said."""
    server = start(sends(b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n"))
    answer = probe(server.port)
    assert (answer.status, answer.headers["location"], len(server.requests)) == (302, "/elsewhere", 1)


def test_each_probe_has_its_own_connection(start: Start) -> None:
    """Kept connections would stay with one target while the weights have moved on."""
    server = start(sends(OK))
    prober = HttpProber()
    for _ in range(3):
        assert prober.probe(Context(), ProbeRequest(f"http://127.0.0.1:{server.port}/")).status == 200
    assert len(server.requests) == 3


def test_a_long_body_is_cut(start: Start) -> None:
    """2 KiB of it, without waiting for the rest."""
    server: Server

    def serve(connection: socket.socket, head: bytes) -> None:
        connection.sendall(b"HTTP/1.1 500 Oops\r\n\r\n" + b"x" * 3000)
        server.over.wait()

    server = start(serve)
    answer = probe(server.port)
    assert (answer.status, answer.body) == (500, b"x" * 2048)


def test_chunks_are_joined_and_repeated_headers_too(start: Start) -> None:
    """Transfer coding is not the caller's business."""
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nVia: a\r\nVIA: b\r\n\r\n"
    answer = probe(start(sends(head, b"3\r\nabc\r\n", b"2\r\nde\r\n", b"0\r\n\r\n")).port)
    assert (answer.body, answer.headers["via"]) == (b"abcde", "a, b")


def trickles(connection: socket.socket, head: bytes) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        connection.sendall(b"X-More: 1\r\n")
        threading.Event().wait(0.02)


def test_one_time_limit_covers_everything(start: Start) -> None:
    """A server that says something all the time, but never all of it, has not answered."""
    answer = probe(start(trickles).port, timeout=0.2)
    assert answer.status is None
    assert "within 200ms" in answer.error


def test_silence_is_no_answer(start: Start) -> None:
    """A server that takes the connection and says nothing."""
    server: Server

    def serve(connection: socket.socket, head: bytes) -> None:
        server.over.wait()

    server = start(serve)
    answer = probe(server.port, timeout=0.1)
    assert (answer.status, answer.error) == (None, f"no answer from 127.0.0.1:{server.port} within 100ms")


def test_the_deadline_counts_too(start: Start) -> None:
    """Where less time is left than the probe may take, that is what it gets."""
    server: Server

    def serve(connection: socket.socket, head: bytes) -> None:
        server.over.wait()

    server = start(serve)
    request = ProbeRequest(f"http://127.0.0.1:{server.port}/", timeout=600)
    assert HttpProber().probe(Context().within(0.1), request).status is None
    assert HttpProber().probe(Context().within(0.0), request).status is None


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (b"", "without an answer"),
        (b"SSH-2.0-OpenSSH_9\r\n\r\n", "no HTTP answer"),
        (b"HTTP/1.1 abc\r\n\r\n", "no HTTP answer"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 70_000 + b"\r\n\r\n", "no HTTP answer"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "no HTTP answer"),
    ],
)
def test_what_is_no_http_is_said_to_be(start: Start, sent: bytes, said: str) -> None:
    """Whatever a server sends, a probe answers, and says what was wrong."""
    answer = probe(start(sends(sent)).port)
    assert answer.status is None
    assert said in answer.error


def test_a_closed_port_refuses() -> None:
    """Nobody listens there, and the error names the place."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    assert probe(port).error == f"127.0.0.1:{port}: connection refused"


@pytest.mark.parametrize(
    "request_",
    [
        ProbeRequest("ftp://127.0.0.1/"),
        ProbeRequest("http://"),
        ProbeRequest("http://127.0.0.1:99999/"),
        ProbeRequest("http://127.0.0.1:abc/"),
        ProbeRequest("http://[::1/"),
        ProbeRequest("http://127.0.0.1/", address="127.0.0.1:abc"),
    ],
)
def test_a_bad_url_is_an_answer_too(request_: ProbeRequest) -> None:
    """Never raises, whatever it is given."""
    answer = HttpProber().probe(Context(), request_)
    assert answer.status is None
    assert answer.error


def test_a_header_cannot_smuggle_another(start: Start) -> None:
    """A value with a line break is refused, not sent."""
    server = start(sends(OK))
    assert probe(server.port, headers={"X-A": "b\r\nX-C: d"}).status is None
    assert not any(b"X-C" in request for request in server.requests)


def test_https_speaks_tls(start: Start) -> None:
    """A server that speaks no TLS gives an error to an https probe, not an answer."""
    server = start(sends(OK))
    answer = HttpProber().probe(Context(), ProbeRequest(f"https://127.0.0.1:{server.port}/"))
    assert answer.status is None
    assert "ssl" in answer.error
    assert server.requests[0].startswith(b"\x16")
