"""protobuf's Struct <-> :mod:`osvdeploy.provider.values`.

A Struct has no unknowns, secrets or assets; Pulumi writes them as a text, or as a map with a signature in it
(sdk/go/common/resource/properties.go and plugin/rpc.go of pulumi/pulumi).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf import struct_pb2

from osvdeploy.provider.values import (
    UNKNOWN,
    Archive,
    Asset,
    Output,
    Properties,
    ResourceReference,
    Secret,
    Unknown,
    Value,
)

UNKNOWN_TEXT = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
# A type that is unknown has a text of its own; the engine sends each where it knows what will come.
_UNKNOWN_TEXTS = frozenset(
    {
        UNKNOWN_TEXT,
        "1c4a061d-8072-4f0a-a4cb-0ff528b18fe7",  # a bool
        "3eeb2bf0-c639-47a8-9e75-3b44932eb421",  # a number
        "6a19a0b0-7e62-4c92-b797-7f8e31da9cc2",  # a list
        "030794c1-ac77-496b-92df-f27374a8bd58",  # an asset
        "e48ece36-62e2-4504-bad9-02848725956a",  # an archive
        "dd056dcd-154b-4c76-9bd3-c8f88648b5ff",  # an object
    }
)
SIGNATURE = "4dabf18193072939515e22adb298388d"
_SECRET = "1b47061264138c4ac30d75fd1eb44270"
_ASSET = "c44067f5952c0a294b673a41bacd8c17"
_ARCHIVE = "0def7320c3a5731c473e5ecbe6d01bc7"
_RESOURCE = "5cf8f73096256a8f31e491e813e4eb8e"
_OUTPUT = "d0e6a833031e9bbcd3f4e8bde6ca49a4"


class MalformedValue(ValueError):
    """What was sent is no value of Pulumi's: a signature that nobody knows, or without its parts."""


def decode(struct: struct_pb2.Struct | None) -> dict[str, Value]:
    """The properties in a Struct. Raises MalformedValue."""
    return {} if struct is None else {name: _decoded(value) for name, value in struct.fields.items()}


def encode(properties: Properties) -> struct_pb2.Struct:
    """A Struct with these properties. Raises MalformedValue for what is no value."""
    struct = struct_pb2.Struct()
    for name, value in properties.items():
        _encode(value, struct.fields[name])
    return struct


def _decoded(value: struct_pb2.Value) -> Value:
    match value.WhichOneof("kind"):
        case "bool_value":
            return bool(value.bool_value)
        case "number_value":
            return float(value.number_value)
        case "string_value":
            return UNKNOWN if value.string_value in _UNKNOWN_TEXTS else str(value.string_value)
        case "list_value":
            return [_decoded(each) for each in value.list_value.values]
        case "struct_value":
            fields = value.struct_value.fields
            if SIGNATURE in fields and fields[SIGNATURE].WhichOneof("kind") == "string_value":
                return _signed(fields[SIGNATURE].string_value, fields)
            return {name: _decoded(each) for name, each in fields.items()}
        case _:
            return None


def _signed(signature: str, fields: Mapping[str, struct_pb2.Value]) -> Value:
    parts = {name: _decoded(each) for name, each in fields.items() if name != SIGNATURE}
    match signature:
        case _ if signature == _SECRET:
            if "value" not in parts:
                raise MalformedValue("a secret without a value")
            return Secret(parts["value"])
        case _ if signature == _ASSET:
            return Asset(_text(parts, "hash"), _text(parts, "text"), _text(parts, "path"), _text(parts, "uri"))
        case _ if signature == _ARCHIVE:
            assets = parts.get("assets")
            if assets is not None and not isinstance(assets, Mapping):
                raise MalformedValue("an archive whose assets are no map")
            return Archive(_text(parts, "hash"), assets, _text(parts, "path"), _text(parts, "uri"))
        case _ if signature == _RESOURCE:
            urn, id_ = parts.get("urn"), parts.get("id")
            if not isinstance(urn, str):
                raise MalformedValue("a reference to a resource without its urn")
            if id_ is not None and not isinstance(id_, str | Unknown):
                raise MalformedValue("a reference to a resource whose id is no text")
            return ResourceReference(urn, id_, _text(parts, "packageVersion") or "")
        case _ if signature == _OUTPUT:
            dependencies = parts.get("dependencies") or []
            if not isinstance(dependencies, list):
                raise MalformedValue("an output whose dependencies are no list")
            return Output(
                parts.get("value", UNKNOWN),
                parts.get("secret") is True,
                tuple(each for each in dependencies if isinstance(each, str)),
            )
        case _:
            raise MalformedValue(f"a value with the signature {signature[:40]}, which this version does not know")


def _text(parts: Mapping[str, Value], name: str) -> str | None:
    value = parts.get(name)
    if value is None or isinstance(value, str):
        return value or None if name == "hash" else value
    raise MalformedValue(f"{name} is no text")


def _encode(value: Value, into: struct_pb2.Value) -> None:
    match value:
        case None:
            into.null_value = struct_pb2.NULL_VALUE
        case bool():
            into.bool_value = value
        case int() | float():
            into.number_value = value
        case str():
            into.string_value = str(value)  # of an enum too
        case Unknown():
            into.string_value = UNKNOWN_TEXT
        case Secret():
            _sign(into, _SECRET, [("value", value.value)])
        case Asset():
            given = [("text", value.text), ("path", value.path), ("uri", value.uri), ("hash", value.hash)]
            _sign(into, _ASSET, [each for each in given if each[1] is not None])
        case Archive():
            of_archive: list[tuple[str, Value]] = [
                ("assets", value.assets), ("path", value.path), ("uri", value.uri), ("hash", value.hash),
            ]  # fmt: skip
            _sign(into, _ARCHIVE, [each for each in of_archive if each[1] is not None])
        case ResourceReference():
            parts: list[tuple[str, Value]] = [("urn", value.urn)]
            if value.id is not None:
                parts.append(("id", value.id))
            if value.version:
                parts.append(("packageVersion", value.version))
            _sign(into, _RESOURCE, parts)
        case Output():
            told: list[tuple[str, Value]] = [] if value.value is UNKNOWN else [("value", value.value)]
            if value.secret:
                told.append(("secret", True))
            if value.dependencies:
                told.append(("dependencies", list(value.dependencies)))
            _sign(into, _OUTPUT, told)
        case list():
            into.list_value.SetInParent()
            for each in value:
                _encode(each, into.list_value.values.add())
        case Mapping():
            into.struct_value.SetInParent()
            for name, each in value.items():
                _encode(each, into.struct_value.fields[name])
        case _:
            raise MalformedValue(f"{type(value).__name__} is no value of Pulumi's")


def _sign(into: struct_pb2.Value, signature: str, parts: Iterable[tuple[str, Any]]) -> None:
    fields = into.struct_value.fields
    fields[SIGNATURE].string_value = signature
    for name, value in parts:
        _encode(value, fields[name])
