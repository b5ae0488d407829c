"""Google's clients without a socket: what a ``requests`` session sends goes to a sandbox in this process.

    sandbox = Sandbox(runner=InlineRunner())
    session = connect(sandbox, clock)          # a requests session

Only the sending is replaced. An answer that a fault lost becomes the exception that requests raises for a lost
connection, at the time of the caller's clock.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import requests
from requests.adapters import BaseAdapter, HTTPAdapter
from requests.structures import CaseInsensitiveDict
from requests.utils import check_header_validity, get_encoding_from_headers
from urllib3 import HTTPResponse

from osvdeploy.sandbox.core import Sandbox
from osvdeploy.sandbox.faults import Lost
from osvdeploy.sandbox.inprocess import Clock, MovableClock, as_bytes, as_text
from osvdeploy.sandbox.wire import ApiRequest, ApiResponse


def connect(sandbox: Sandbox, clock: Clock) -> requests.Session:
    """A session whose every request goes to the sandbox, whatever its address. No setting of this machine is read."""
    session = _Session()
    session.trust_env = False
    delivery = Delivery(sandbox, clock)
    session.mount("https://", delivery)
    session.mount("http://", delivery)
    return session


class _Session(requests.Session):
    """A session that has no settings of its own but headers, and delivers at once what asks for nothing else either: to
    look for settings, to merge them, and to be ready for cookies and for answers that go elsewhere, takes requests as
    long as most calls are carried out in."""

    def request(self, method: str | bytes, url: str | bytes, *args: Any, **wanted: Any) -> requests.Response:
        asks = {name for name, value in wanted.items() if value is not None}
        if args or not asks <= _PLAIN or wanted.get("allow_redirects") is not False:
            return super().request(method, url, *args, **wanted)
        settled = self.trust_env or self.auth or self.params or self.cookies or self.hooks["response"]
        data, address = wanted.get("data"), as_text(url)
        if settled or not isinstance(data, bytes | None):
            return super().request(method, url, *args, **wanted)
        prepared = requests.PreparedRequest()
        prepared.method = as_text(method).upper()
        prepared.url = _address(address, tuple((wanted.get("params") or {}).items()))
        # Texts alone: requests' types allow bytes in a session's headers, and not in a request's.
        prepared.headers = CaseInsensitiveDict(self.headers.items())  # type: ignore[arg-type]
        for name, value in (wanted.get("headers") or {}).items():
            check_header_validity((name, value))
            prepared.headers[name] = value
        prepared.body = data
        if wanted.get("auth") is not None:
            prepared.prepare_auth(wanted["auth"])
        else:
            prepared.prepare_content_length(data)
        return self.get_adapter(address).send(prepared, timeout=wanted.get("timeout"))


_PLAIN = frozenset({"params", "data", "headers", "timeout", "allow_redirects", "auth"})
"""What a request may ask for that is delivered at once."""


@lru_cache(maxsize=4096)
def _address(url: str, params: tuple[tuple[str, str], ...]) -> str:
    """As requests encodes it."""
    prepared = requests.PreparedRequest()
    prepared.prepare_url(url, dict(params))
    assert prepared.url is not None
    return prepared.url


class Delivery(BaseAdapter):
    """Delivers requests to a sandbox."""

    def __init__(self, sandbox: Sandbox, clock: Clock) -> None:
        super().__init__()
        self._sandbox = sandbox
        self._clock = clock
        self._building = HTTPAdapter()

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: float | tuple[float, float] | tuple[float, None] | None = None,
        verify: bool | str = True,
        cert: bytes | str | tuple[bytes | str, bytes | str] | None = None,
        proxies: Mapping[str, str] | None = None,
    ) -> requests.Response:
        assert request.method is not None and request.url is not None
        headers = {name.lower(): as_text(value) for name, value in request.headers.items()}
        asked = ApiRequest(request.method, request.url, headers, as_bytes(request.body))
        match self._sandbox.handle(asked, self._clock.now()):
            case Lost.CLOSED:
                raise requests.ConnectionError("the connection ended without an answer", request=request)
            case Lost.HANGS:
                # The time that the client has waited is gone, where it is ours to let it pass.
                patience = timeout[1] if isinstance(timeout, tuple) else timeout
                if patience is not None and isinstance(self._clock, MovableClock):
                    self._clock.advance(float(patience))
                raise requests.ReadTimeout("no answer in time", request=request)
            case Lost.UNREACHABLE:
                raise requests.ConnectionError("connection refused", request=request)
            case answer:
                assert isinstance(answer, ApiResponse)
                return self._answered(request, answer)

    def _answered(self, request: requests.PreparedRequest, answer: ApiResponse) -> requests.Response:
        if "content-encoding" not in answer.headers:
            return self._plain(request, answer)
        raw = HTTPResponse(
            io.BytesIO(answer.body),
            headers=dict(answer.headers),
            status=answer.status,
            preload_content=False,
            request_method=request.method,
        )
        return self._building.build_response(request, raw)

    def _plain(self, request: requests.PreparedRequest, answer: ApiResponse) -> requests.Response:
        """Made of what it has: a connection's response, and one of that, are much to make for a body that is here."""
        response = requests.Response()
        response.status_code = answer.status
        response.headers = CaseInsensitiveDict(answer.headers)
        response.encoding = get_encoding_from_headers(response.headers)
        response.raw = io.BytesIO(answer.body)
        response.url, response.request = str(request.url), request
        return response

    def close(self) -> None:
        self._building.close()
