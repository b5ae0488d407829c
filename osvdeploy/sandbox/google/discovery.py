"""Google's discovery documents: which request means which method, and what its parameters, bodies and answers may hold.

The documents are those that google-api-python-client carries; nothing of it is imported. Sources: "Google API discovery
service", "Using the discovery document" (types and formats); the refusals are worded as Google's front ends do it.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache, cached_property
from importlib.resources import files
from typing import Any
from urllib.parse import unquote

from osvdeploy.sandbox.errors import ApiError

Schema = Mapping[str, Any]

_BOUNDS = {
    "int32": (-(1 << 31), (1 << 31) - 1),
    "uint32": (0, (1 << 32) - 1),
    "int64": (-(1 << 63), (1 << 63) - 1),
    "uint64": (0, (1 << 64) - 1),
}
_VARIABLE = re.compile(r"\{(\w+)\}")
_NAMED = re.compile(r"v[13]/\{\+(\w+)\}")
_NUMBER = re.compile(r"-?\d{1,20}")


class Mismatch(Exception):
    """A value that its schema does not allow: where, and what is wrong with it."""

    def __init__(self, path: str, told: str) -> None:
        super().__init__(f"{path}: {told}")
        self.path = path
        self.told = told


@dataclass(frozen=True)
class Method:
    """One method: ``name`` as ``objects.insert``."""

    api: Api
    name: str
    document: Schema = field(repr=False)

    @property
    def verb(self) -> str:
        return str(self.document["httpMethod"])

    @cached_property
    def parameters(self) -> Mapping[str, Schema]:
        """Those in the path and the query, the API's own included."""
        return {**self.api.document["parameters"], **self.document.get("parameters", {})}

    def query(self, pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
        """The query's parameters, each of its type. Raises ApiError."""
        found: dict[str, Any] = {}
        for name, text in pairs:
            schema = self.parameters.get(name)
            if schema is None or schema.get("location") != "query":
                told = f'Invalid JSON payload received. Unknown name "{name}": Cannot bind query parameter.'
                raise ApiError("badRequest", told)
            value = _parsed(name, schema, text)
            if schema.get("repeated"):
                found.setdefault(name, []).append(value)
            else:
                found[name] = value
        return found

    def require(self, params: Mapping[str, Any]) -> None:
        """Raise ApiError where a parameter that must be given is not, or one in the path cannot be one."""
        for name, schema in self.parameters.items():
            if schema.get("required") and name not in params:
                raise ApiError("required", f"Required parameter: {name}")
            if schema.get("location") == "path" and name in params:
                _parsed(name, schema, params[name])

    def body(self, document: Any) -> dict[str, Any]:
        """The request's document, if it is one of this method's. Raises ApiError.

        A null stands for what is to be taken away, and so for nothing at all where there is nothing yet: nor in a list,
        which a patch replaces whole.
        """
        reference = self.document.get("request")
        if reference is None:
            raise ApiError("badRequest", "Invalid JSON payload received. The method takes no body.")
        if not isinstance(document, dict):
            raise ApiError("parseError", "Parse Error")
        kept = (_without_nulls_in_lists if self.verb == "PATCH" else _without_nulls)(document)
        try:
            self.api.check(reference, kept, "", strict=False)
        except Mismatch as wrong:
            at = f" at '{wrong.path.rpartition('.')[0]}'" if "." in wrong.path else ""
            if wrong.told == _UNKNOWN:
                name = wrong.path.rpartition(".")[2]
                told = f'Invalid JSON payload received. Unknown name "{name}"{at}: Cannot find field.'
                raise ApiError("badRequest", told) from None
            raise ApiError("invalid", f"Invalid value for field '{wrong.path}': {wrong.told}") from None
        return dict(kept)

    def answer(self, document: Mapping[str, Any]) -> None:
        """Raise :class:`Mismatch` for an answer that Google would not give: a fault of the sandbox itself."""
        reference = self.document.get("response")
        if reference is None:
            if document:
                raise Mismatch("", f"{self.name} answers nothing")
        else:
            self.api.check(reference, document, "", strict=True)


class Api:
    """One service by its discovery document."""

    def __init__(self, service: str, version: str) -> None:
        path = files("googleapiclient") / "discovery_cache" / "documents" / f"{service}.{version}.json"
        self.service = service
        self.document: Schema = json.loads(path.read_text("utf-8"))
        self.methods = {name: Method(self, name, each) for name, each in _methods(self.document["resources"], "")}

    @cached_property
    def _routes(self) -> dict[tuple[str, int], list[tuple[re.Pattern[str], Method]]]:
        """By verb and number of parts; what has fewer variables comes first."""
        found: dict[tuple[str, int], list[tuple[re.Pattern[str], Method]]] = {}
        ordered = sorted(self.methods.values(), key=lambda each: len(_VARIABLE.findall(_path(each))))
        for method in ordered:
            path = _path(method)
            pattern = re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(path)))
            if path != method.document["path"] and (whole := _NAMED.match(method.document["path"])) is not None:
                # A variable that stands for several parts; the flat path has one for each.
                named = method.parameters[whole[1]]["pattern"].strip("^$")
                pattern = re.compile(f"(?P<{whole[1]}>{named}){re.escape(method.document['path'][whole.end() :])}")
            found.setdefault((method.verb, path.count("/")), []).append((pattern, method))
        return found

    def route(self, verb: str, path: str) -> tuple[Method, dict[str, str]] | None:
        """The method, and what stands in its path; ``path`` is what follows the service's own."""
        for pattern, method in self._routes.get((verb, path.count("/")), ()):
            found = pattern.fullmatch(path)
            if found:
                return method, {name: unquote(value) for name, value in found.groupdict().items()}
        return None

    def check(self, schema: Schema, value: Any, path: str, *, strict: bool) -> None:
        """Hold a JSON value to its schema. ``strict``: as Google writes it, without what it also reads.

        Raises :class:`Mismatch`.
        """
        schema = self._resolved(schema)
        kind = schema.get("type", "object")
        if value is None and not strict:
            return
        if kind == "any":
            return
        if kind == "object":
            self._check_object(schema, value, path, strict=strict)
        elif kind == "array":
            if not isinstance(value, list):
                raise Mismatch(path, "not a list")
            for number, each in enumerate(value):
                self.check(schema["items"], each, f"{path}[{number}]", strict=strict)
        else:
            _check_scalar(schema, value, path, strict=strict)

    def _check_object(self, schema: Schema, value: Any, path: str, *, strict: bool) -> None:
        if not isinstance(value, dict):
            raise Mismatch(path, "not an object")
        members, others = schema.get("properties", {}), schema.get("additionalProperties")
        for name, each in value.items():
            at = f"{path}.{name}" if path else name
            member = members.get(name, others)
            if member is None:
                raise Mismatch(at, _UNKNOWN)
            self.check(member, each, at, strict=strict)

    def _resolved(self, schema: Schema) -> Schema:
        return self.document["schemas"][schema["$ref"]] if "$ref" in schema else schema


_VERSIONS = {"monitoring": "v3"}


@cache
def api(service: str) -> Api:
    """A service's description, read once."""
    return Api(service, _VERSIONS.get(service, "v1"))


_UNKNOWN = "Cannot find field."


def _methods(resources: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Schema]]:
    for name, resource in resources.items():
        for verb, method in resource.get("methods", {}).items():
            yield f"{prefix}{name}.{verb}", method
        yield from _methods(resource.get("resources", {}), f"{prefix}{name}.")


def _path(method: Method) -> str:
    """What follows the API's own place, which some documents have in it."""
    return str(method.document.get("flatPath") or method.document["path"]).removeprefix("v3/").removeprefix("v1/")


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(each) for name, each in value.items() if each is not None}
    if isinstance(value, list):
        return [_without_nulls(each) for each in value]
    return value


def _without_nulls_in_lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls_in_lists(each) for name, each in value.items()}
    return _without_nulls(value) if isinstance(value, list) else value


def _parsed(name: str, schema: Schema, text: str) -> Any:
    """A parameter of the query."""
    value: Any = text
    match schema.get("type"):
        case "boolean":
            value = {"true": True, "false": False}.get(text.lower(), text)
        case "integer" if _NUMBER.fullmatch(text):
            value = int(text)
    try:
        _check_scalar(schema, value, name, strict=True)
    except Mismatch as wrong:
        raise ApiError("invalidParameter", f"Invalid value for {name}: {text} ({wrong.told})") from None
    return value


def _check_scalar(schema: Schema, value: Any, path: str, *, strict: bool) -> None:
    kind, form = schema.get("type"), schema.get("format", "")
    if kind == "boolean":
        if not isinstance(value, bool):
            raise Mismatch(path, f"{value!r} is not a boolean")
    elif kind == "number":
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise Mismatch(path, f"{value!r} is not a number")
    elif kind == "integer" or form in ("int64", "uint64"):
        _check_integer(schema, value, path, strict=strict)
    elif not isinstance(value, str):
        raise Mismatch(path, f"{value!r} is not a string")
    else:
        _check_text(schema, value, path)


def _check_integer(schema: Schema, value: Any, path: str, *, strict: bool) -> None:
    text = isinstance(value, str)
    if isinstance(value, bool) or not (isinstance(value, int) or (text and _NUMBER.fullmatch(value))):
        raise Mismatch(path, f"{value!r} is not an integer")
    if strict and text is not (schema.get("type") == "string"):
        raise Mismatch(path, f"{value!r} is not written as Google does")
    least, most = _BOUNDS[schema.get("format", "int32")]
    least, most = max(least, int(schema.get("minimum", least))), min(most, int(schema.get("maximum", most)))
    if not least <= int(value) <= most:
        raise Mismatch(path, f"{value} is not between {least} and {most}")


def _check_text(schema: Schema, value: str, path: str) -> None:
    if "enum" in schema and value not in schema["enum"]:
        raise Mismatch(path, f"'{value}' is none of {', '.join(schema['enum'])}")
    if "pattern" in schema and not re.fullmatch(schema["pattern"], value):
        raise Mismatch(path, f"'{value}'. Must be a match of regex '{schema['pattern']}'")
    try:
        if schema.get("format") in ("date-time", "google-datetime"):
            datetime.fromisoformat(value)
        elif schema.get("format") == "byte":
            base64.b64decode(value, altchars=b"-_" if set(value) & set("-_") else None, validate=True)
    except (ValueError, binascii.Error):
        raise Mismatch(path, f"'{value}' is not of the format {schema['format']}") from None
