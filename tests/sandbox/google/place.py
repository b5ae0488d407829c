"""A project with a bucket in the sandbox, asked as any HTTP client asks."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import google_crc32c
import requests

from osvdeploy.context import VirtualClock
from osvdeploy.sandbox.core import Sandbox
from osvdeploy.sandbox.google.compute.archive import BLOCK
from osvdeploy.sandbox.google.inprocess import connect
from osvdeploy.sandbox.runners.inline import InlineRunner

HOST = "https://storage.googleapis.com"
BUCKETS = f"{HOST}/storage/v1/b"
ACME = f"{BUCKETS}/acme"
OBJECTS = f"{ACME}/o"
UPLOADS = f"{HOST}/upload/storage/v1/b/acme/o"

Answer = requests.Response


def crc32c(content: bytes) -> str:
    return base64.b64encode(google_crc32c.value(content).to_bytes(4, "big")).decode()


def md5(content: bytes) -> str:
    return base64.b64encode(hashlib.md5(content).digest()).decode()


class Project:
    """A sandbox with one bucket, ``acme``."""

    def __init__(self, path: Path | None = None, *, empty: bool = True) -> None:
        self.clock = VirtualClock()
        self.sandbox = Sandbox(path, runner=InlineRunner())
        self.session = connect(self.sandbox, self.clock)
        if empty:
            assert self.ask("POST", f"{BUCKETS}?project=p", {"name": "acme"}).ok

    def ask(self, verb: str, url: str, document: Any = None, **headers: str) -> Answer:
        data = None if document is None else json.dumps(document)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.session.request(verb, url, data=data, headers=named)

    def put(self, name: str, content: bytes = b"", body: Mapping[str, Any] | None = None, **query: object) -> Answer:
        """An upload of both the document and the bytes."""
        document = json.dumps({"name": name, **(body or {})}).encode()
        made = (
            b"--x\r\ncontent-type: application/json\r\n\r\n" + document + b"\r\n--x\r\ncontent-type: text/plain\r\n\r\n"
        ) + content
        return self.session.post(
            UPLOADS,
            params={"uploadType": "multipart", **{key: str(value) for key, value in query.items()}},
            data=made + b"\r\n--x--",
            headers={"content-type": "multipart/related; boundary=x"},
        )

    def made(self, name: str, content: bytes = b"", **query: int) -> dict[str, Any]:
        answer = self.put(name, content, None, **query)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def url(self, name: str) -> str:
        return f"{OBJECTS}/{quote(name, safe='')}"

    def read(self, name: str, **headers: str) -> Answer:
        return self.ask("GET", f"{self.url(name)}?alt=media", **headers)

    def compose(self, name: str, sources: list[Any], query: str = "", **destination: object) -> Answer:
        document = {"sourceObjects": sources, "destination": destination}
        return self.ask("POST", f"{self.url(name)}/compose{query}", document)

    def image(self, key: str) -> bytes:
        """The disk of an image, told by project and name, up to its last block that is not all zeros."""
        return b"".join(disk_of(self.sandbox, key))

    def begin(self, name: str, query: str = "", body: Any = None, **headers: str) -> str:
        """Begin a resumable upload; its address."""
        answer = self.ask("POST", f"{UPLOADS}?uploadType=resumable&name={quote(name)}{query}", body, **headers)
        assert (answer.status_code, answer.content) == (200, b""), answer.text
        return str(answer.headers["location"])

    def send(self, address: str, content: bytes, said: str | None = None, **headers: str) -> Answer:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if said is not None:
            named["content-range"] = said
        return self.session.put(address, data=content, headers=named)


def disk_of(sandbox: Sandbox, key: str) -> list[bytes]:
    """The blocks of an image's disk, up to the last one that is not all zeros."""
    document = sandbox.store.begin().get("", "compute.image", key)
    assert document is not None
    blocks = {int(index): sandbox.store.blobs.get(blob) for index, blob in document["blocks"].items()}
    return [blocks.get(index, bytes(BLOCK)) for index in range(max(blocks, default=-1) + 1)]


def refused(answer: Answer, status: int, reason: str, message: str = "") -> None:
    """Hold an answer to be Google's refusal, whole."""
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert (error["code"], error["errors"][0]["reason"], error["errors"][0]["domain"]) == (status, reason, "global")
    assert error["message"] == error["errors"][0]["message"]
    assert message in error["message"]
