"""Google's clients without a socket: what a ``requests`` session sends goes to a sandbox in this process.

    sandbox = Sandbox(runner=InlineRunner())
    session = connect(sandbox, clock)          # a requests session

Only the sending is replaced. An answer that a fault lost becomes the exception that requests raises for a lost
connection, at the time of the caller's clock.
"""

from __future__ import annotations

import io
from collections.abc import Mapping

import requests
from requests.adapters import BaseAdapter, HTTPAdapter
from requests.sessions import merge_hooks
from requests.structures import CaseInsensitiveDict
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
    """A session that has no settings of its own but headers: looking for others, to merge them with a request's, takes
    longer than most calls are carried out in."""

    def prepare_request(self, request: requests.Request) -> requests.PreparedRequest:
        if self.trust_env or self.auth or self.params or self.cookies or request.cookies:
            return super().prepare_request(request)
        headers = CaseInsensitiveDict(self.headers)
        headers.update(request.headers or {})
        for name in [name for name, value in headers.items() if value is None]:
            del headers[name]
        prepared = requests.PreparedRequest()
        prepared.prepare(
            method=str(request.method).upper(),
            url=request.url,
            files=request.files,
            data=request.data,
            json=request.json,
            headers=headers,
            params=request.params,
            auth=request.auth,
            hooks=merge_hooks(request.hooks, self.hooks),
        )
        return prepared


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
        raw = HTTPResponse(
            io.BytesIO(answer.body),
            headers=dict(answer.headers),
            status=answer.status,
            preload_content=False,
            request_method=request.method,
        )
        return self._building.build_response(request, raw)

    def close(self) -> None:
        self._building.close()
