"""A server of kernels on loopback that does what real ones do: drop, refuse, redirect, change, tell no length."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Releases:
    """``files`` by path; ``drops``: bytes after which the next answers end; ``statuses``: what is said before that."""

    files: dict[str, bytes] = field(default_factory=dict)
    drops: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    redirects: dict[str, str] = field(default_factory=dict)
    ranges: bool = True
    lengths: bool = True
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    url: str = ""


@contextmanager
def serving() -> Iterator[Releases]:
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
            tag = f'"{hash(content):x}"'
            start = 0
            if wanted and releases.ranges and self.headers.get("If-Range") == tag:
                start = int(wanted.removeprefix("bytes=").rstrip("-"))
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            else:
                self.send_response(200)
            self.send_header("ETag", tag)
            if releases.lengths:
                self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            end = start + releases.drops.pop(0) if releases.drops else len(content)
            self.wfile.write(content[start:end])

        def _say(self, status: int) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        releases.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield releases
        finally:
            server.shutdown()
            thread.join()
