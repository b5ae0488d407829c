"""HTTP probes, as a client sends them, over a connection of their own."""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import SplitResult, urlsplit

from osvdeploy.cloud.interfaces import ProbeAnswer, ProbeRequest
from osvdeploy.context import Context
from osvdeploy.sizes import format_duration
from osvdeploy.version import __version__

_BODY = 2048
_PORTS = {"http": 80, "https": 443}

HELD = 1.0
"""Seconds that a connection has to stand to be one that is held."""


class HttpProber:
    """:class:`~osvdeploy.cloud.interfaces.Prober` over the network. Safe to share between threads.

    HTTPS certificates are checked against the Host that is asked for. A name that has to be looked up may take the
    resolver's own time on top of the request's.
    """

    def __init__(self) -> None:
        self._trust: ssl.SSLContext | None = None
        self._loading = threading.Lock()

    def probe(self, ctx: Context, request: ProbeRequest) -> ProbeAnswer:
        if request.kind == "tcp":
            return self._connect(ctx, request)
        return self.fetch(ctx, request, _BODY)

    def _connect(self, ctx: Context, request: ProbeRequest) -> ProbeAnswer:
        """A connection, and whether it is held. Behind a proxy it is made with the proxy, which closes it at once
        where nobody is behind it."""
        left = ctx.remaining()
        timeout = request.timeout if left is None else min(request.timeout, left)
        until = ctx.monotonic() + timeout

        def remaining() -> float:
            if (rest := until - ctx.monotonic()) <= 0:
                raise TimeoutError
            return rest

        target = ""
        try:
            url = urlsplit(request.url)
            if not url.hostname or (url.port is None and url.scheme not in _PORTS):
                return ProbeAnswer(None, error=f"{request.url!r} has no host and port")
            host, port = _dialled(url, request.address)
            target = f"{host}:{port}"
            with _connected(host, port, remaining) as connection:
                watched = min(HELD, remaining())
                connection.settimeout(watched)
                try:
                    said = connection.recv(_BODY)
                except TimeoutError:
                    if watched < HELD:
                        # A proxy that has nobody behind it may close it yet.
                        told = f"{target} took the connection, and {format_duration(timeout)} were over before it "
                        return ProbeAnswer(None, error=f"{told}was seen held for {format_duration(HELD)}")
                    return ProbeAnswer(None, held=True)
                if said:
                    return ProbeAnswer(None, body=said, held=True)
                return ProbeAnswer(None, error=f"{target} closed the connection at once")
        except TimeoutError:
            return ProbeAnswer(None, error=f"no connection to {target} within {format_duration(timeout)}")
        except OSError as error:
            return ProbeAnswer(None, error=f"{target}: {(error.strerror or str(error)).lower()}")
        except ValueError as error:
            return ProbeAnswer(None, error=f"{request.url!r}: {error}")

    def fetch(
        self,
        ctx: Context,
        request: ProbeRequest,
        most: int,
        *,
        posted: bytes | None = None,
        opened: Callable[[socket.socket], None] | None = None,
    ) -> ProbeAnswer:
        """The same with the first ``most`` bytes of the body. ``posted`` makes it a POST of these bytes; ``opened`` is
        given the connection, whose end ends the request."""
        left = ctx.remaining()
        timeout = request.timeout if left is None else min(request.timeout, left)
        until = ctx.monotonic() + timeout

        def remaining() -> float:
            rest = until - ctx.monotonic()
            if rest <= 0:
                raise TimeoutError
            return rest

        target = ""
        try:
            url = urlsplit(request.url)
            if url.scheme not in _PORTS or not url.hostname:
                return ProbeAnswer(None, error=f"{request.url!r} is no http or https URL")
            host, port = _dialled(url, request.address)
            target = f"{host}:{port}"
            asked = next((value for name, value in request.headers.items() if name.lower() == "host"), url.netloc)
            with _connected(host, port, remaining) as connection:
                if opened is not None:
                    opened(connection)
                if url.scheme == "https":
                    connection.settimeout(remaining())
                    name = urlsplit(f"//{asked}").hostname or url.hostname
                    with self._context().wrap_socket(connection, server_hostname=name) as secured:
                        return _exchange(secured, url, asked, request, remaining, most, posted)
                return _exchange(connection, url, asked, request, remaining, most, posted)
        except TimeoutError:
            return ProbeAnswer(None, error=f"no answer from {target} within {format_duration(timeout)}")
        except http.client.RemoteDisconnected:
            return ProbeAnswer(None, error=f"{target} closed the connection without an answer")
        except OSError as error:
            return ProbeAnswer(None, error=f"{target}: {(error.strerror or str(error)).lower()}")
        except (http.client.HTTPException, ValueError) as error:
            said = " ".join(f"{type(error).__name__} {error}".split())
            return ProbeAnswer(None, error=f"{target}: no HTTP answer ({said[:200]})")

    def _context(self) -> ssl.SSLContext:
        # Loading the certificates takes some 10 ms; plain HTTP does not pay for it.
        with self._loading:
            if self._trust is None:
                self._trust = ssl.create_default_context()
            return self._trust


def _dialled(url: SplitResult, address: str | None) -> tuple[str, int]:
    """Host and port to connect to. Raises ValueError for a port that is none."""
    port = url.port or _PORTS[url.scheme or "http"]
    if address is None:
        return str(url.hostname), port
    if address.count(":") > 1 and not address.startswith("["):
        return address, port
    dialled = urlsplit(f"//{address}")
    return dialled.hostname or address, dialled.port or port


def _connected(host: str, port: int, remaining: Callable[[], float]) -> socket.socket:
    """A connection to the first of the host's addresses that takes one."""
    failure: OSError = OSError(f"{host} has no address")
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(remaining())
            connection.connect(address)
            return connection
        except OSError as error:
            connection.close()
            failure = error
    raise failure


def _exchange(
    connection: socket.socket,
    url: SplitResult,
    host: str,
    request: ProbeRequest,
    remaining: Callable[[], float],
    most: int,
    posted: bytes | None,
) -> ProbeAnswer:
    client = http.client.HTTPConnection("unused")
    client.sock = cast("Any", _TimedSocket(connection, remaining))
    path = url.path or "/"
    verb, target = "GET" if posted is None else "POST", f"{path}?{url.query}" if url.query else path
    client.putrequest(verb, target, skip_host=True, skip_accept_encoding=True)
    headers = {
        "host": host,
        "user-agent": f"osvdeploy/{__version__}",
        "connection": "close",
        **{name.lower(): value for name, value in request.headers.items()},
    }
    for name, value in headers.items():
        client.putheader(name, value)
    if posted is not None:
        client.putheader("content-length", str(len(posted)))
    client.endheaders(posted)
    response = client.getresponse()
    answered: dict[str, str] = {}
    for name, value in response.getheaders():
        key = name.lower()
        answered[key] = f"{answered[key]}, {value}" if key in answered else value
    return ProbeAnswer(response.status, answered, response.read(most))


@dataclass(frozen=True, slots=True)
class _TimedSocket:
    """As much of a socket as http.client uses, with one time limit over everything: the standard one begins afresh
    with every byte that trickles in."""

    connection: socket.socket
    remaining: Callable[[], float]

    def sendall(self, content: bytes) -> None:
        self.connection.settimeout(self.remaining())
        self.connection.sendall(content)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_TimedReader(self))

    def close(self) -> None:
        """The connection is closed by who opened it."""


class _TimedReader(io.RawIOBase):
    def __init__(self, source: _TimedSocket) -> None:
        self._source = source

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._source.connection.settimeout(self._source.remaining())
        return self._source.connection.recv_into(buffer)
