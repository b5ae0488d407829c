"""Answers of Google, scripted: for what a simulator has no reason to do."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Any

import requests
from requests.adapters import BaseAdapter, HTTPAdapter
from urllib3 import HTTPResponse

from osvdeploy.cloud.gcp.session import Gcp

Scripted = tuple[int, bytes] | Exception


@dataclass
class Script:
    """Answers each request with the next of ``answers``, the last again and again; keeps what was asked."""

    answers: list[Scripted]
    asked: list[requests.PreparedRequest] = field(default_factory=list)

    def gcp(self) -> Gcp:
        session = requests.Session()
        self.serve(session)
        return Gcp("p", compute="https://compute.test", storage="https://storage.test", session=session)

    def serve(self, session: requests.Session) -> None:
        """Answer all that is sent by it."""
        session.mount("https://", _Delivery(self))

    def next(self, request: requests.PreparedRequest) -> Scripted:
        self.asked.append(request)
        return self.answers[min(len(self.asked), len(self.answers)) - 1]


class _Delivery(BaseAdapter):
    def __init__(self, script: Script) -> None:
        super().__init__()
        self._script = script

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        answer = self._script.next(request)
        if isinstance(answer, Exception):
            raise answer
        status, body = answer
        raw = HTTPResponse(io.BytesIO(body), status=status, preload_content=False)
        return HTTPAdapter().build_response(request, raw)

    def close(self) -> None:
        pass
