"""The forwarder behind a balancer's listener, on real sockets."""

from __future__ import annotations

import http.client
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from osvdeploy.sandbox.dataplane import (
    Answer,
    Decision,
    Endpoint,
    Forward,
    Hangup,
    Headers,
    HttpRequest,
    Listener,
    Rule,
    SendTo,
    Target,
    TargetState,
    View,
)
from osvdeploy.sandbox.proxy import DataPlane, ListenerServer
from osvdeploy.sandbox.traffic import Traffic

pytestmark = pytest.mark.slow


class Echo(BaseHTTPRequestHandler):
    """A program that answers with what it was asked."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/torn":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
            self.close_connection = True
            return
        if self.path == "/silent":
            self.close_connection = True
            return
        self._answer(b"x" * 300_000 if self.path == "/large" else str(self.headers["X-Forwarded-For"]).encode())

    def do_POST(self) -> None:
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(body)

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("X-Release", str(getattr(self.server, "release", "")))
        if self.path == "/chunked":
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")
            return
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def program(release: str) -> Iterator[Target]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        server.release = release  # type: ignore[attr-defined]  # for its handler
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield Target(release, "127.0.0.1", server.server_port, TargetState.HEALTHY)
        finally:
            server.shutdown()
            thread.join()


class Balancer:
    """Decides whatever ``decision`` is at the moment."""

    def __init__(self) -> None:
        self.decision: Decision = Answer(503)
        self.seen: list[HttpRequest] = []

    def decide(self, request: HttpRequest) -> Decision:
        self.seen.append(request)
        return self.decision


@pytest.fixture
def balancer() -> Balancer:
    return Balancer()


@pytest.fixture
def client(balancer: Balancer) -> Iterator[http.client.HTTPConnection]:
    server = ListenerServer("127.0.0.1", 0, balancer.decide)
    server.start()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    yield connection
    connection.close()
    server.stop()


def test_what_is_forwarded_is_counted() -> None:
    """By the group that it was sent to, with what the target answered, or the balancer in its place; the balancer's own
    answers are nobody's."""
    traffic, balancer = Traffic(), Balancer()
    server = ListenerServer("127.0.0.1", 0, balancer.decide, traffic)
    server.start()
    client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    began = datetime.now(UTC) - timedelta(minutes=2)
    with program("blue") as target:
        balancer.decision = SendTo("group-a", target)
        for path in ("/", "/", "/silent"):
            get(client, path)
    balancer.decision = SendTo("group-a", Target("gone", "127.0.0.1", 1, TargetState.HEALTHY))
    get(client)
    balancer.decision = Answer(503)
    get(client)
    client.close()
    server.stop()
    minutes = [minute for _, minute in traffic.between("group-a", began, began + timedelta(hours=1))]
    answers = sum((Counter(minute.answers) for minute in minutes), Counter[int]())
    failed = sum((Counter(minute.failed) for minute in minutes), Counter[int]())
    assert (answers, failed) == ({200: 2}, {502: 2})
    assert sum(minute.unconnected for minute in minutes) == 1
    assert sum(minute.seconds.total() for minute in minutes) == 2


def get(client: http.client.HTTPConnection, path: str = "/") -> tuple[int, bytes]:
    client.request("GET", path)
    answer = client.getresponse()
    return answer.status, answer.read()


def test_each_request_of_a_kept_connection_goes_by_the_rules_then_in_force(
    balancer: Balancer, client: http.client.HTTPConnection
) -> None:
    """A switch in the middle of a connection sends its next request to the other release and loses none."""
    with program("1.0.0") as stable, program("1.1.0") as candidate:
        releases = []
        for target in [stable, stable, candidate, stable]:
            balancer.decision = SendTo("group", target)
            client.request("GET", "/")
            answer = client.getresponse()
            releases.append(answer.getheader("X-Release"))
            assert answer.read() == b"127.0.0.1"
    assert releases == ["1.0.0", "1.0.0", "1.1.0", "1.0.0"]


def test_bodies_pass_unchanged(balancer: Balancer, client: http.client.HTTPConnection) -> None:
    """Sized, chunked, empty and large bodies arrive as they were sent, both ways."""
    with program("1") as target:
        balancer.decision = SendTo("group", target)
        assert get(client, "/large") == (200, b"x" * 300_000)
        assert get(client, "/chunked") == (200, b"onetwo")
        client.request("POST", "/", body=b"y" * 200_000)
        assert client.getresponse().read() == b"y" * 200_000
        client.request("POST", "/", body=iter([b"ab", b"c" * 70_000]), encode_chunked=True)
        assert client.getresponse().read() == b"ab" + b"c" * 70_000


def test_a_target_that_refuses_or_hangs_up_is_a_502(balancer: Balancer, client: http.client.HTTPConnection) -> None:
    """The balancer answers for it, once, and the client's connection goes on."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        balancer.decision = SendTo("group", Target("i-1", "127.0.0.1", unused.getsockname()[1], TargetState.HEALTHY))
        assert get(client)[0] == 502
    with program("1") as target:
        balancer.decision = SendTo("group", target)
        assert get(client, "/silent")[0] == 502
        assert get(client)[0] == 200


def test_a_torn_answer_is_not_completed(balancer: Balancer, client: http.client.HTTPConnection) -> None:
    """Where a target breaks off, the client sees a broken connection, never a whole answer."""
    with program("1") as target:
        balancer.decision = SendTo("group", target)
        client.request("GET", "/torn")
        with pytest.raises(http.client.IncompleteRead):
            client.getresponse().read()


def test_the_balancer_answers_by_itself(balancer: Balancer, client: http.client.HTTPConnection) -> None:
    """Fixed answers need no target; a request's body before them does not disturb what follows."""
    balancer.decision = Answer(418, "text/plain", "teapot")
    client.request("POST", "/", body=b"z" * 1000)
    answer = client.getresponse()
    assert (answer.status, answer.read(), answer.getheader("Server")) == (418, b"teapot", "awselb/2.0")
    assert get(client, "/a?b=c") == (418, b"teapot")
    assert (balancer.seen[-1].path, balancer.seen[-1].query) == ("/a", "b=c")


def test_two_lengths_for_one_body_are_refused(balancer: Balancer, client: http.client.HTTPConnection) -> None:
    """A request that could be read as two is none."""
    headers = {"Content-Length": "3", "Transfer-Encoding": "chunked"}
    client.request("POST", "/", body=b"0\r\n\r\n", headers=headers)
    assert client.getresponse().status == 400
    assert not balancer.seen


def test_listeners_open_and_close_with_the_view() -> None:
    """A listener in force is served where the view says, one that left it is not; a taken port is told."""
    with program("1.0.0") as target, socket.socket() as taken, socket.socket() as spare:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        spare.bind(("127.0.0.1", 0))
        port = int(spare.getsockname()[1])
        spare.close()
        rules = (Rule(1, (), Forward((("group", 1),))),)
        open_, blocked = Listener(port, rules, "a"), Listener(int(taken.getsockname()[1]), rules, "b")
        plane = DataPlane()
        view = View({"a": Endpoint("127.0.0.1", open_), "b": Endpoint("127.0.0.1", blocked)}, {"group": (target,)})
        (said,) = plane.update(view)
        assert "cannot be opened" in said
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        assert get(client) == (200, b"127.0.0.1")
        plane.update(View(view.endpoints, {}))
        assert get(client)[0] == 503
        client.close()
        plane.close()
        with pytest.raises(ConnectionRefusedError):
            get(client)


def test_no_request_is_lost_while_traffic_is_switched() -> None:
    """Clients with kept-open and with new connections, all through many switches: every request is answered."""
    with program("1.0.0") as stable, program("1.1.0") as candidate:
        port = 0
        with socket.socket() as spare:
            spare.bind(("127.0.0.1", 0))
            port = int(spare.getsockname()[1])

        def view(blue: int, green: int) -> View:
            rules = (Rule(1, (), Forward((("blue", blue), ("green", green)))),)
            endpoint = Endpoint("127.0.0.1", Listener(port, rules, "a"))
            return View({"a": endpoint}, {"blue": (stable,), "green": (candidate,)})

        plane = DataPlane()
        assert plane.update(view(1, 0)) == []
        seen: list[str | None] = []
        failures: list[Exception] = []

        def ask(keep: bool) -> None:
            client = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            try:
                for _ in range(60):
                    client.request("GET", "/", headers={} if keep else {"Connection": "close"})
                    answer = client.getresponse()
                    answer.read()
                    seen.append(answer.getheader("X-Release"))
            except (OSError, http.client.HTTPException) as failure:
                failures.append(failure)
            finally:
                client.close()

        clients = [threading.Thread(target=ask, args=(keep,)) for keep in (True, False)]
        for client in clients:
            client.start()
        turn = 0
        while any(client.is_alive() for client in clients):
            turn += 1
            plane.update(view(turn % 2, 1 - turn % 2))
            clients[0].join(0.005)
        for client in clients:
            client.join()
        plane.close()
    assert failures == []
    assert len(seen) == 120
    assert set(seen) <= {"1.0.0", "1.1.0"}


def test_headers_change_on_their_way(balancer: Balancer, client: http.client.HTTPConnection) -> None:
    """As the decision says: one in the place of another, one taken away; errors are the decision's own."""
    with program("app-1") as target:
        instead = Headers((("X-Release", "front", True), ("X-More", "1", False)), frozenset({"server"}))
        balancer.decision = SendTo("g", target, answer=instead, refused=Answer(503, "text/plain", "no"))
        client.request("GET", "/")
        response = client.getresponse()
        response.read()
        assert (response.headers.get_all("X-Release"), response.headers["X-More"]) == (["front"], "1")
        assert response.headers["Server"] is None
    assert get(client) == (503, b"no")


def test_bytes_pass_without_a_word_of_the_client(balancer: Balancer, client: http.client.HTTPConnection) -> None:
    """What a balancer of HTTP tells its targets, one of TCP does not; and where it has none, it hangs up."""
    with program("app-1") as target:
        balancer.decision = SendTo("g", target, plain=True)
        assert get(client) == (200, b"None")
        client.request("GET", "/", headers={"X-Forwarded-For": "the client's own"})
        assert client.getresponse().read() == b"the client's own"
        for ended, path in ((SendTo("g", target, refused=Hangup(), plain=True), "/silent"), (Hangup(), "/")):
            balancer.decision = ended
            client.request("GET", path)
            with pytest.raises(http.client.RemoteDisconnected):
                client.getresponse()
            client.close()
