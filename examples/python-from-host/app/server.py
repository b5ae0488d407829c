"""Greets whoever the path names; what it is called must not be able to put markup into the page."""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import platform
import sqlite3
import ssl
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import markupsafe
from markupsafe import _speedups  # its C extension


async def add(one: int, other: int) -> int:
    await asyncio.sleep(0.01)
    return one + other


def about() -> dict[str, object]:
    """What works here."""
    with sqlite3.connect(":memory:") as database:
        (sqlite,) = database.execute("select sqlite_version()").fetchone()
    return {
        "python": platform.python_version(),
        "encoding": sys.stdout.encoding,
        "bytecode": json.__cached__ is not None and Path(json.__cached__).exists(),
        "ssl": ssl.OPENSSL_VERSION,
        "sqlite": sqlite,
        "sha256": hashlib.sha256(b"osv").hexdigest(),
        "asyncio": asyncio.run(add(2, 3)),
        "markupsafe": markupsafe.__file__,
        "extension": _speedups.__file__,
    }


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/about":
            self.answer("application/json", json.dumps(about()))
        else:
            name = markupsafe.escape(unquote(self.path.strip("/")) or "world")
            self.answer("text/html; charset=utf-8", f"<p>hello, {name}</p>\n")

    def answer(self, kind: str, text: str) -> None:
        body = text.encode()
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        if release := os.environ.get("OSVDEPLOY_RELEASE"):
            self.send_header("x-release", release)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing of each request."""


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--port", type=int, default=8080)
    port = arguments.parse_args().port
    server = ThreadingHTTPServer(("", port), Handler)
    print(f"listens on {port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
