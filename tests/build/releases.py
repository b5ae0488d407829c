"""A server of kernels on loopback that does what real ones do: drop, refuse, redirect, change, tell no length, hang."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass
class Releases:
    """``files`` by path; ``drops``: bytes after which the next answers end; ``statuses``: what is said before that.

    ``believes``: takes a Range for granted, whatever If-Range says; ``tags``: ``etag``, ``date`` or nothing tells its
    files' states; ``hangs``: bytes after which the next answers say no more until ``go`` is set; ``drips``: a byte a
    time, at so many seconds' distance.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    drops: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    redirects: dict[str, str] = field(default_factory=dict)
    ranges: bool = True
    lengths: bool = True
    believes: bool = False
    tags: str = "etag"
    modified: str = "Tue, 01 Jan 2030 00:00:00 GMT"
    now: str = "Tue, 01 Jan 2030 01:00:00 GMT"
    hangs: list[int] = field(default_factory=list)
    drips: float | None = None
    go: threading.Event = field(default_factory=threading.Event)
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    url: str = ""


@contextmanager
def serving(tls: ssl.SSLContext | None = None) -> Iterator[Releases]:
    releases = Releases()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            releases.asked.append((self.path, wanted))
            if releases.statuses:
                self._say(releases.statuses.pop(0))
                return
            if (to := releases.redirects.get(self.path)) is not None:
                self.send_response(302)
                self.send_header("Location", to)
                self.end_headers()
                return
            content = releases.files.get(self.path)
            if content is None:
                self._say(404)
                return
            tags = {"etag": ("ETag", f'"{hash(content):x}"'), "date": ("Last-Modified", releases.modified)}
            tag = tags.get(releases.tags, ("", ""))
            start = 0
            if wanted and releases.ranges and (releases.believes or self.headers.get("If-Range") == tag[1]):
                start = int(wanted.removeprefix("bytes=").rstrip("-"))
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            else:
                self.send_response(200)
            if tag[0]:
                self.send_header(*tag)
            if releases.lengths:
                self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            end = start + releases.drops.pop(0) if releases.drops else len(content)
            if releases.hangs:
                end = start + releases.hangs.pop(0)
                self.wfile.write(content[start:end])
                releases.go.wait(60)
            elif releases.drips is not None:
                for at in range(start, end):
                    self.wfile.write(content[at : at + 1])
                    if releases.go.wait(releases.drips):
                        break
            else:
                self.wfile.write(content[start:end])

        def _say(self, status: int) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def date_time_string(self, timestamp: float | None = None) -> str:
            return releases.now

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            pass  # a client that went away

    with Server(("127.0.0.1", 0), Handler) as server:
        releases.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield releases
        finally:
            releases.go.set()
            server.shutdown()
            thread.join()


def certificate(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """For 127.0.0.1, signed by itself: a server's context, and the file that makes a client believe it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(issuer_name=name, subject_name=name, public_key=key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    public, private = folder / "certificate.pem", folder / "key.pem"
    public.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(public, private)
    return context, public
