"""AWS clients without a socket: botocore's requests go to a sandbox in this process, at the time of the caller's clock.

    sandbox = Sandbox(runner=InlineRunner())
    session = connect(sandbox, clock)          # a boto3 session
    session.client("ec2").describe_images(Owners=["self"])

The client serialises, parses and retries as ever; only the sending is replaced, by botocore's ``before-send`` event.
An answer that a fault lost becomes the exception that botocore raises for a lost connection. Because thousands of calls
are made so, :func:`connect` spares what costs most and shows nothing: equal answers are parsed once, and calls whose
signature is nothing but a header name their caller without one, since the sandbox checks none.
"""

from __future__ import annotations

import io
import pickle
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any, Protocol, cast, runtime_checkable

import boto3
import botocore.session
from botocore import UNSIGNED
from botocore.awsrequest import AWSPreparedRequest, AWSRequest, AWSResponse
from botocore.config import Config
from botocore.exceptions import ConnectionClosedError, EndpointConnectionError, ReadTimeoutError
from botocore.parsers import QueryParser, ResponseParserFactory

from osvdeploy.sandbox.core import Sandbox
from osvdeploy.sandbox.dataplane import HttpRequest
from osvdeploy.sandbox.faults import Lost
from osvdeploy.sandbox.runners import GuestAnswer, NoAnswer
from osvdeploy.sandbox.wire import LOADER, ApiRequest

REGION = "eu-west-1"

_GOLDEN = 0.6180339887498949


class Clock(Protocol):
    """What the sandbox asks of a clock."""

    def now(self) -> datetime: ...


@runtime_checkable
class MovableClock(Clock, Protocol):
    """A clock of virtual time."""

    def advance(self, seconds: float) -> None: ...


def connect(sandbox: Sandbox, clock: Clock, region: str = REGION) -> boto3.Session:
    """A session all of whose clients talk to the sandbox. No setting of this machine is read."""
    core = botocore.session.Session()
    core.register_component("data_loader", LOADER)
    core.set_config_variable("config_file", "/dev/null")
    core.set_config_variable("credentials_file", "/dev/null")
    core.set_config_variable("region", region)
    core.set_config_variable("ignore_configured_endpoint_urls", True)
    core.set_credentials("AKIASANDBOXINPROCESS", "in-process")
    # The one that botocore makes is made anew for each call, twice, out of a dozen parts.
    core.set_default_client_config(Config(user_agent="osvdeploy-sandbox"))
    core.register_component("response_parser_factory", _Parsers())
    events = core.get_component("event_emitter")
    events.register("choose-signer", _choose_signer)
    events.register("before-sign", _name_caller)
    deliver(events, sandbox, clock)
    return boto3.Session(botocore_session=core, region_name=region)


def deliver(events: Any, sandbox: Sandbox, clock: Clock) -> None:
    """Deliver what goes through an event system to the sandbox: a session's, before its clients are made, or one
    client's ``meta.events``."""
    delivery = _Delivery(sandbox, clock)
    events.register("request-created", delivery.note_patience)
    events.register("before-send", delivery)


class _Delivery:
    def __init__(self, sandbox: Sandbox, clock: Clock) -> None:
        self._sandbox = sandbox
        self._clock = clock
        self._sending = threading.local()

    def note_patience(self, request: AWSRequest, **_: object) -> None:
        """How long the client waits for the answer of what this thread sends next."""
        self._sending.read_timeout = float(request.context["client_config"].read_timeout)

    def __call__(self, request: AWSPreparedRequest, **_: object) -> AWSResponse:
        headers = {as_text(name).lower(): as_text(value) for name, value in request.headers.items()}
        asked = ApiRequest(request.method, request.url, headers, as_bytes(request.body))
        match self._sandbox.handle(asked, self._clock.now()):
            case Lost.CLOSED:
                raise ConnectionClosedError(endpoint_url=request.url)
            case Lost.HANGS:
                # The time that the client has waited is gone, where it is ours to let it pass.
                if isinstance(self._clock, MovableClock):
                    self._clock.advance(self._sending.read_timeout)
                raise ReadTimeoutError(endpoint_url=request.url)
            case Lost.UNREACHABLE:
                raise EndpointConnectionError(endpoint_url=request.url, error="refused")
            case answer:
                return AWSResponse(request.url, answer.status, cast("Any", answer.headers), _Body(answer.body))


_BY_HEADER = frozenset({"autoscaling", "ec2", "elasticloadbalancing"})
"""Signing names of services whose signature says nothing of the body, and leaves it as it is."""


def _choose_signer(signing_name: str, signature_version: object, context: dict[str, Any], **_: object) -> object:
    if signing_name not in _BY_HEADER or signature_version != "v4":
        return None
    context["sandbox_caller"] = True
    return UNSIGNED


def _name_caller(request: AWSRequest, signing_name: str, region_name: str, request_signer: Any, **_: object) -> None:
    if request.context.get("sandbox_caller") and request_signer._credentials is not None:
        scope = f"{request_signer._credentials.access_key}/20000101/{region_name}/{signing_name}/aws4_request"
        request.headers["Authorization"] = f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=none"


class _Parsers(ResponseParserFactory):
    """botocore's parsers, of which those of XML parse equal answers once."""

    def create_parser(self, protocol_name: str) -> Any:
        parser: Any = super().create_parser(protocol_name)
        if issubclass(type(parser), QueryParser):
            parser._do_parse = _ParsedOnce(parser._do_parse)
        return parser


class _ParsedOnce:
    """A parser's own ``_do_parse``, which is asked for what was not seen before."""

    def __init__(self, do_parse: Callable[[Mapping[str, Any], Any], dict[str, Any]]) -> None:
        self._do_parse = do_parse

    def __call__(self, response: Mapping[str, Any], shape: Any) -> dict[str, Any]:
        identifier = response["headers"].get("x-amzn-requestid", "")
        body = response["body"]
        # The document's own name and namespace tell service and operation.
        known = body.replace(identifier.encode(), b"") if identifier else body
        pickled = _parsed.get(known)
        if pickled is None:
            pickled = pickle.dumps(self._do_parse(response, shape))
            while len(_parsed) >= _PARSED:
                _parsed.pop(next(iter(_parsed)), None)
            _parsed[known] = pickled
        parsed: dict[str, Any] = pickle.loads(pickled)
        if "RequestId" in parsed.get("ResponseMetadata", {}):
            parsed["ResponseMetadata"]["RequestId"] = identifier
        return parsed


_PARSED = 1024
_parsed: dict[bytes, bytes] = {}
"""What answers were parsed to, by their bodies without the request's id; pickled, for each caller gets its own."""


class _Body(io.BytesIO):
    """An answer's body, as urllib3 hands it out."""

    def stream(self, amt: int = 1 << 20, **_: object) -> Iterator[bytes]:
        while piece := self.read(amt):
            yield piece


def as_text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def as_bytes(body: Any) -> bytes:
    if body is None:
        return b""
    if isinstance(body, str):
        return body.encode()
    return bytes(body.read() if hasattr(body, "read") else body)


class Client:
    """Asks balancers as an HTTP client does, in process. Targets are drawn evenly: one in turn, not by chance."""

    def __init__(self, sandbox: Sandbox, clock: Clock) -> None:
        self._sandbox = sandbox
        self._clock = clock
        self._asked = 0

    def get(
        self, address: str, port: int, target: str, headers: Mapping[str, str] | None = None, timeout: float = 5.0
    ) -> GuestAnswer | NoAnswer:
        """GET ``target`` (path and query) from the listener at ``address:port``; ``timeout`` in seconds."""
        self._asked += 1
        request = HttpRequest("GET", target, tuple((headers or {}).items()))
        # Multiples of the golden ratio spread evenly over [0, 1), however many there are.
        draw = self._asked * _GOLDEN % 1.0
        return self._sandbox.forward(address, port, request, self._clock.now(), draw=draw, timeout=timeout)
