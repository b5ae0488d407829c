"""AWS's wire: one HTTP request to the call it means, and a result or refusal to the HTTP answer.

Shapes come from botocore's service models, parsing and serialising from moto's generic parsers and serialisers (pinned
in pyproject.toml). Behaviour is not here. Which service is meant is told by the credential scope of the signature (AWS
Signature Version 4), else by the host name, path or ``Version``; signatures themselves are not checked.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit
from xml.sax.saxutils import escape

from botocore.awsrequest import HeadersDict
from botocore.loaders import Loader
from moto.core.model import OperationModel, ServiceModel
from moto.core.parse import PROTOCOL_PARSERS, EC2QueryParser, RequestParserError
from moto.core.serialize import SerializationContext, get_serializer_class
from werkzeug.datastructures import MultiDict

from osvdeploy.sandbox import s3wire
from osvdeploy.sandbox.errors import ApiError, NotSimulated
from osvdeploy.sizes import KIB

SIGNING_NAMES = {
    "ec2": "ec2",
    "ebs": "ebs",
    "sts": "sts",
    "autoscaling": "autoscaling",
    "elasticloadbalancing": "elbv2",
    "iam": "iam",
    "monitoring": "cloudwatch",
    "servicequotas": "service-quotas",
    "s3": "s3",
    "sns": "sns",
}
"""What a signature calls a service, and what botocore (and everything here) does."""

SERVICES = tuple(SIGNING_NAMES.values())

REGION = re.compile(r"[a-z]{2}(-[a-z]+)+-\d")

LOADER = Loader()
"""Reads botocore's models, each once: they take longer to read than most calls to carry out."""

_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 has no way to write ("2.2 Characters")."""

_READ_VERBS = ("describe", "get", "head", "list", "aggregatedlist", "testiampermissions", "validate", "wait")

FORMS = ("query", "ec2")
"""Protocols whose requests are a form and nothing else, and whose answers are the result's plain values as XML."""

STATUS = "$status"
"""In a result: an HTTP status other than the model's."""


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """One HTTP request. ``url`` is whole or begins with the path; header names in lower case."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class ApiResponse:
    """One HTTP answer; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Call:
    """What a request asks for. ``params`` has the shape of the service's model; ``access_key`` is "" without
    credentials."""

    service: str
    region: str
    operation: str
    params: Mapping[str, Any]
    access_key: str = ""
    protocol: str = field(default="", compare=False)
    """What it was written in, and is answered in."""

    @property
    def mutating(self) -> bool:
        """Whether it changes anything, by the clouds' naming of operations: GetObject, objects.get."""
        return not self.operation.rpartition(".")[2].lower().startswith(_READ_VERBS)


class Unreadable(Exception):
    """The request means no call that can be made. ``call`` is what could be told of it, for the log."""

    def __init__(self, refusal: ApiError, call: Call) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal
        self.call = call


@dataclass(frozen=True, slots=True)
class _Parts:
    """A request taken apart. ``values`` holds query and form; ``scope`` access key, date, region and service."""

    path: str
    values: dict[str, str]
    scope: tuple[str, ...]


@cache
def model(service: str) -> ServiceModel:
    """botocore's model of a service, in moto's classes."""
    return ServiceModel(LOADER.load_service_model(service, "service-2"), service)


def speaks(request: ApiRequest) -> bool:
    """AWS's are all requests that are nobody else's: what they mean is told by their signature."""
    return True


def parse(request: ApiRequest) -> Call:
    """The call a request means. Raises :class:`Unreadable`."""
    parts = _take_apart(request)
    access_key, _, region, signed_for = parts.scope or ("", "", _region_of_host(request), "")
    service, operation, protocol = _service(request, parts), "", ""
    try:
        if service == "":
            if signed_for:
                raise NotSimulated(f"the service '{signed_for}'")
            raise ApiError("MissingAuthenticationToken", "Request is missing Authentication Token", 403)
        in_path: dict[str, str] = {}
        protocol = _protocol(service, request.headers)
        if protocol == "json":
            operation = _targeted(service, request.headers)
        elif protocol == "rest-json":
            operation, in_path = _routed(service, request.method, parts.path)
        elif protocol == "rest-xml":
            operation, in_path = s3wire.route(
                model(service), request.method, request.url, request.headers, parts.values
            )
            headers, body = s3wire.unwrapped(request.headers, request.body)
            request = replace(request, headers=headers, body=body)
        else:
            operation = _action(service, parts)
        params = _parsed(service, operation, request, parts, in_path)
    except ApiError as refusal:
        raise Unreadable(refusal, Call(service, region, operation, {}, access_key, protocol)) from None
    return Call(service, region, operation, params, access_key, protocol)


def _protocol(service: str, headers: Mapping[str, str]) -> str:
    """What a request is written in. CloudWatch speaks several: botocore chooses JSON, earlier ones the query
    protocol."""
    its = model(service).metadata
    if "json" in its.get("protocols", ()):
        return "json" if _TARGET in headers else "query"
    return str(its["protocol"])


_TARGET = "x-amz-target"


def _targeted(service: str, headers: Mapping[str, str]) -> str:
    prefix, _, name = headers[_TARGET].rpartition(".")
    if prefix != model(service).metadata.get("targetPrefix") or name not in model(service).operation_names:
        raise ApiError("UnknownOperationException", f"{headers[_TARGET]} is no operation", 404)
    return name


def _take_apart(request: ApiRequest) -> _Parts:
    split = urlsplit(request.url)
    values = dict(parse_qsl(split.query, keep_blank_values=True))
    if request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        values |= parse_qsl(request.body.decode(errors="replace"), keep_blank_values=True)
    said = re.search(r"Credential=([^,\s]+)", request.headers.get("authorization", ""))
    scope = (said[1] if said else values.get("X-Amz-Credential", "")).split("/")
    signed = len(scope) == 5 and scope[4] == "aws4_request"
    return _Parts(split.path or "/", values, tuple(scope[:4]) if signed else ())


def _service(request: ApiRequest, parts: _Parts) -> str:
    """The service that is meant, "" where that cannot be told."""
    if parts.scope:
        return SIGNING_NAMES.get(parts.scope[3], "")
    first = request.headers.get("host", "").partition(".")[0]
    if first in SIGNING_NAMES:
        return SIGNING_NAMES[first]
    if parts.path.startswith("/snapshots"):
        return "ebs"
    version = parts.values.get("Version", "")
    return next((name for name in SERVICES if model(name).api_version == version), "")


def _region_of_host(request: ApiRequest) -> str:
    found = REGION.search(request.headers.get("host", ""))
    return found[0] if found else ""


def _action(service: str, parts: _Parts) -> str:
    action, version = parts.values.get("Action"), parts.values.get("Version")
    if not action:
        raise ApiError("MissingAction", "The request must contain the parameter Action")
    expected = model(service).api_version
    if version != expected:
        # Also the classic load balancers: they share the signing name.
        raise NotSimulated(f"version {version} of the {service} API, only {expected}")
    if action not in model(service).operation_names:
        raise ApiError("InvalidAction", f"The action {action} is not valid for this web service.")
    return action


@cache
def _routes(service: str) -> list[tuple[str, re.Pattern[str], str]]:
    found = []
    for name in model(service).operation_names:
        http = model(service).operation_model(name).http
        pattern = re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(http["requestUri"].partition("?")[0]))
        found.append((http["method"], re.compile(pattern), name))
    return found


def _routed(service: str, method: str, path: str) -> tuple[str, dict[str, str]]:
    for its_method, pattern, name in _routes(service):
        found = pattern.fullmatch(path) if its_method == method else None
        if found:
            return name, {key: unquote(value) for key, value in found.groupdict().items()}
    raise ApiError("UnknownOperationException", f"{method} {path} is no operation of {service}", 404)


def _parsed(
    service: str, operation: str, request: ApiRequest, parts: _Parts, in_path: Mapping[str, str]
) -> dict[str, Any]:
    protocol = _protocol(service, request.headers)
    if protocol in FORMS:
        read: dict[str, Any] = pickle.loads(_read_form(service, protocol, operation, tuple(parts.values.items())))
        return read
    rest = protocol.startswith("rest-")
    pieces: Any = {
        "method": request.method,
        "url_path": parts.path,
        "url_params": in_path,
        "values": MultiDict(parts.values) if rest else parts.values,
        "headers": HeadersDict(request.headers),
        "body": request.body,
    }
    return _read(service, protocol, operation, pieces)


@lru_cache(maxsize=1024)
def _read_form(service: str, protocol: str, operation: str, values: tuple[tuple[str, str], ...]) -> bytes:
    """The parameters that a form has, pickled: who polls asks the same again and again, and each call may change its
    own."""
    parameters = _read(service, protocol, operation, {"values": dict(values)})
    return pickle.dumps(parameters, pickle.HIGHEST_PROTOCOL)


def _read(service: str, protocol: str, operation: str, pieces: Any) -> dict[str, Any]:
    operation_model = model(service).operation_model(operation)
    try:
        parsed = PROTOCOL_PARSERS[protocol](operation_model).parse(pieces)
    except (ValueError, KeyError, TypeError, AttributeError, RequestParserError) as error:
        raise _unreadable(protocol, error) from None
    if service == "ec2":
        _refuse_unknown(operation_model, pieces["values"])
    params = {name: value for name, value in parsed.items() if value is not None}
    if operation_model.input_shape is not None:
        for refusal in _wrong(service, operation_model.input_shape, params, ""):
            raise refusal
    return params


def _unreadable(protocol: str, error: Exception) -> ApiError:
    match protocol:
        case "rest-json":
            return _invalid("ebs", f"The request cannot be read: {error}")
        case "rest-xml":
            return ApiError("MalformedXML", "The XML you provided was not well-formed or did not validate.")
    return ApiError("MalformedQueryString", f"The query string cannot be read: {error}", 404)


def _refuse_unknown(operation_model: OperationModel, values: Mapping[str, str]) -> None:
    known = {"Action", "Version"}
    if operation_model.input_shape is not None:
        parser = EC2QueryParser(operation_model)
        members = operation_model.input_shape.members.items()
        known |= {parser._get_serialized_name(shape, name) for name, shape in members}
    for name in values:
        first = name.partition(".")[0]
        if first not in known and not first.startswith("X-Amz-"):
            raise ApiError("UnknownParameter", f"The parameter {first} is not recognized")


# ------------------------------------------------------------------------------------- what the model does not allow


def _wrong(service: str, shape: Any, value: Any, path: str) -> Iterator[ApiError]:
    """What the service's model forbids: AWS looks at this before anything else."""
    if shape.type_name == "structure" and isinstance(value, dict):
        for name in shape.required_members:
            if value.get(name) is None:
                yield _missing(service, f"{path}{name}")
        for name, member in value.items():
            yield from _wrong(service, shape.members[name], member, f"{path}{name}.")
    elif shape.type_name == "list" and isinstance(value, list):
        for number, member in enumerate(value, 1):
            yield from _wrong(service, shape.member, member, f"{path}{number}.")
    elif service != "ec2" and value is not None:
        # EC2 has a code of its own for each of these; its operations look at them.
        yield from _out_of_bounds(service, shape, value, path.rstrip("."))


def _out_of_bounds(service: str, shape: Any, value: Any, path: str) -> Iterator[ApiError]:
    text = isinstance(value, str)
    if text and getattr(shape, "enum", None) and value not in shape.enum:
        yield _constraint(service, value, path, f"satisfy enum value set: [{', '.join(shape.enum)}]")
    measure, what = (len(value), "length") if text else (value, "value")
    if isinstance(measure, int) and not isinstance(measure, bool):
        if "min" in shape.metadata and measure < shape.metadata["min"]:
            yield _constraint(service, value, path, f"have {what} greater than or equal to {shape.metadata['min']}")
        if "max" in shape.metadata and measure > shape.metadata["max"]:
            yield _constraint(service, value, path, f"have {what} less than or equal to {shape.metadata['max']}")


def _constraint(service: str, value: object, path: str, rule: str) -> ApiError:
    told = f"Value '{value}' at '{_in_lower_case(path)}' failed to satisfy constraint: Member must {rule}"
    return _invalid(service, f"1 validation error detected: {told}")


def _missing(service: str, path: str) -> ApiError:
    if service == "ec2":
        return ApiError("MissingParameter", f"The request must contain the parameter {path}")
    told = f"Value null at '{_in_lower_case(path)}' failed to satisfy constraint: Member must not be null"
    return _invalid(service, f"1 validation error detected: {told}")


def _in_lower_case(path: str) -> str:
    return ".".join(part[0].lower() + part[1:] for part in path.split("."))


def _invalid(service: str, message: str) -> ApiError:
    if service == "ebs":
        return ApiError("ValidationException", message, fields={"Reason": "INVALID_PARAMETER_VALUE"})
    return ApiError("InvalidArgument" if service == "s3" else "ValidationError", message)


# ---------------------------------------------------------------------------------------- what an operation understands


def refuse_unsupported(call: Call, declared: frozenset[str]) -> None:
    """Raise :class:`NotSimulated` for a parameter that the operation would silently ignore.

    ``declared`` holds dotted paths, list positions left out: ``BlockDeviceMappings.Ebs.SnapshotId``. A path stands
    for all below it.
    """
    for path in _leaves(call.params, ""):
        names = path.split(".")
        if not any(".".join(names[:length]) in declared for length in range(1, len(names) + 1)):
            raise NotSimulated(f"the parameter {path} of {call.service} {call.operation}")


def _leaves(value: Any, path: str) -> Iterator[str]:
    """Paths of what was given. An empty list or structure says nothing."""
    if isinstance(value, Mapping):
        for name, member in value.items():
            yield from _leaves(member, f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        for member in value:
            yield from _leaves(member, path)
    else:
        yield path


# ----------------------------------------------------------------------------------------------------------- callers


def admit(call: Call, access_key: str | None) -> None:
    """Raise ApiError for a caller without credentials, for another one than ``access_key`` where that is given, and for
    what is no region."""
    if not call.access_key:
        if call.service == "s3":
            raise ApiError("AccessDenied", "Access Denied", 403)
        code = "MissingAuthenticationTokenException" if call.service == "ebs" else "MissingAuthenticationToken"
        raise ApiError(code, "Request is missing Authentication Token", 403)
    if access_key is not None and call.access_key != access_key:
        if call.service == "ec2":
            raise ApiError("AuthFailure", "AWS was not able to validate the provided access credentials", 401)
        if call.service == "s3":
            told = "The AWS Access Key Id you provided does not exist in our records."
            raise ApiError("InvalidAccessKeyId", told, 403)
        code = "UnrecognizedClientException" if call.service == "ebs" else "InvalidClientTokenId"
        raise ApiError(code, "The security token included in the request is invalid.", 403)
    if REGION.fullmatch(call.region) is None:
        raise NotSimulated(f"the region '{call.region}'")


# ------------------------------------------------------------------------------------------------------------ answers


def request_id(seed: str) -> str:
    """An id in AWS's form."""
    digits = hashlib.sha256(seed.encode()).hexdigest()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:32]))


def answer(call: Call, result: Mapping[str, Any], identifier: str) -> ApiResponse:
    """A result as the service sends it."""
    protocol = call.protocol or str(model(call.service).protocol)
    if protocol in FORMS:
        told = pickle.dumps(dict(result), pickle.HIGHEST_PROTOCOL)
        if len(told) <= _WORTH_KEEPING and _NOBODYS.encode() not in told:
            made = _remembered(call.service, protocol, call.operation, told)
            headers = {name: value.replace(_NOBODYS, identifier) for name, value in made.headers.items()}
            return ApiResponse(made.status, headers, made.body.replace(_NOBODYS.encode(), identifier.encode()))
    return _serialized(call.service, protocol, call.operation, result, identifier)


_NOBODYS = "00000000-0000-0000-0000-000000000000"
"""Stands for the request's id in an answer that is kept. No request has it."""

_WORTH_KEEPING = 64 * KIB
"""Larger results, in bytes, are asked for seldom."""


@lru_cache(maxsize=1024)
def _remembered(service: str, protocol: str, operation: str, told: bytes) -> ApiResponse:
    """The answer to a result as it was pickled: who polls gets the same one many times, and writing it takes longer
    than everything else of a call."""
    return _serialized(service, protocol, operation, pickle.loads(told), _NOBODYS)


def _serialized(service: str, protocol: str, operation: str, result: Mapping[str, Any], identifier: str) -> ApiResponse:
    its_model = model(service)
    serializer = get_serializer_class(service, protocol)
    told = dict(result)
    status = told.pop(STATUS, None)
    made = serializer(its_model.operation_model(operation), SerializationContext(identifier)).serialize(told)
    body = made["body"]
    if isinstance(body, str):
        body = (body if protocol in ("json", "rest-json") else _NO_XML.sub("\ufffd", body)).encode()
    headers = {name.lower(): str(value) for name, value in made["headers"].items()}
    if service == "s3" and "ContentType" in told:
        headers["content-type"] = told["ContentType"]  # the object's own, which the serialiser takes for XML
    status = made["status_code"] if status is None else status
    return ApiResponse(status, {**headers, "x-amzn-requestid": identifier}, bytes(body or b""))


@cache
def _error_statuses(service: str) -> dict[str, int]:
    found = {}
    for shape in model(service).error_shapes:
        error = shape.metadata.get("error", {})
        found[error.get("code", shape.name)] = error.get("httpStatusCode", 400)
    return found


def refusal(call: Call, refused: ApiError, identifier: str) -> ApiResponse:
    """A refusal as the service sends it; in the query protocol's form where no service could be told."""
    service, status = call.service, refused.status
    if status == 400 and service in SERVICES:
        status = _error_statuses(service).get(refused.code, 400)
    headers = {"x-amzn-requestid": identifier, "content-type": "text/xml", **refused.headers}
    if call.protocol == "json":
        fault = "Receiver" if status >= 500 else "Sender"
        headers |= {"content-type": "application/x-amz-json-1.0", "x-amzn-query-error": f"{refused.code};{fault}"}
        return ApiResponse(status, headers, json.dumps({"__type": refused.code, "message": refused.message}).encode())
    if service == "s3":
        headers |= {"x-amz-request-id": identifier, "content-type": "application/xml"}
        # What asks with HEAD gets no document; whoever sends the answer leaves it out.
        return ApiResponse(status, headers, s3wire.refusal(refused, identifier))
    if service == "ebs":
        headers |= {"content-type": "application/json", "x-amzn-errortype": refused.code}
        return ApiResponse(status, headers, json.dumps({"Message": refused.message, **refused.fields}).encode())
    told = f"<Code>{escape(refused.code)}</Code><Message>{escape(refused.message)}</Message>"
    if service == "ec2":
        body = f"<Response><Errors><Error>{told}</Error></Errors><RequestID>{identifier}</RequestID></Response>"
    else:
        space = model(service).metadata.get("xmlNamespace", "") if service else ""
        fault = "Receiver" if status >= 500 else "Sender"
        body = (
            f'<ErrorResponse xmlns="{space}"><Error><Type>{fault}</Type>{told}</Error>'
            f"<RequestId>{identifier}</RequestId></ErrorResponse>"
        )
    declaration = '<?xml version="1.0" encoding="UTF-8"?>\n'
    return ApiResponse(status, headers, (declaration + _NO_XML.sub("\ufffd", body)).encode())
