"""The package's schema, from the declarations: what GetSchema answers and Pulumi makes every language's SDK of.

``python -m osvdeploy.provider.schema`` prints it; schema.json beside this is what it printed, and a test says so.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import MISSING
from enum import StrEnum
from functools import cache
from importlib import resources
from typing import Any

from osvdeploy.provider.declare import (
    PACKAGE,
    EnumOf,
    Kind,
    ListOf,
    MapOf,
    Nested,
    ObjectOf,
    Property,
    Scalar,
    description_of,
    properties,
    token_of,
)
from osvdeploy.version import __version__

NAME = "schema.json"


@cache
def schema_text() -> str:
    """The schema as it is packaged."""
    return resources.files("osvdeploy.provider").joinpath(NAME).read_text(encoding="utf-8")


def schema() -> dict[str, Any]:
    """The schema as the declarations have it: Pulumi's package metaschema."""
    from osvdeploy.provider.registry import FUNCTIONS, RESOURCES
    from osvdeploy.provider.settings import Settings

    types: dict[str, Any] = {}
    document: dict[str, Any] = {
        "name": PACKAGE,
        "displayName": "osvdeploy",
        "version": __version__,
        "description": description_of(Settings),
        "keywords": ["pulumi", "osv", "unikernel", "category/infrastructure", "kind/native"],
        "publisher": "osvdeploy",
        "meta": {"moduleFormat": "(.*)"},
        "language": {
            "python": {
                "packageName": "pulumi_osvdeploy",
                "pyproject": {"enabled": True},
                "respectSchemaVersion": True,
            },
            "nodejs": {"packageName": "pulumi-osvdeploy", "respectSchemaVersion": True},
            "go": {"respectSchemaVersion": True, "generateResourceContainerTypes": True},
            "csharp": {"rootNamespace": "Pulumi", "respectSchemaVersion": True},
            "java": {},
        },
        "config": {"variables": _properties(Settings, types), "defaults": []},
        "provider": {
            "description": "The provider of osvdeploy: where the clouds are, and who it is there.",
            "inputProperties": _properties(Settings, types),
        },
        "types": types,
        "resources": {},
        "functions": {},
    }
    for token, resource in RESOURCES.items():
        inputs, outputs = properties(resource.INPUTS), properties(resource.OUTPUTS)
        given = {name: each for name, each in inputs.items() if not each.derived}
        document["resources"][token] = {
            "description": description_of(type(resource)),
            "inputProperties": {name: _property(each, types, as_input=True) for name, each in given.items()},
            "requiredInputs": [name for name, each in given.items() if each.required],
            "properties": {name: _property(each, types) for name, each in [*inputs.items(), *outputs.items()]},
            "required": [name for name, each in [*inputs.items(), *outputs.items()] if not _may_be_missing(each)],
        }
    for token, function in FUNCTIONS.items():
        document["functions"][token] = {
            "description": description_of(type(function)),
            "inputs": _object(function.INPUTS, types, as_input=True),
            "outputs": _object(function.OUTPUTS, types),
        }
    return document


def printed(document: Mapping[str, Any]) -> str:
    """As it stands in the file."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _may_be_missing(each: Property) -> bool:
    """Whether an answer may be without it: what was left out, and what is empty and was not given."""
    return each.optional or not (each.required or each.default)


def _object(declaring: type, types: dict[str, Any], *, as_input: bool = False) -> dict[str, Any]:
    known = properties(declaring)
    return {
        "type": "object",
        "properties": {name: _property(each, types, as_input=as_input) for name, each in known.items()},
        "required": [name for name, each in known.items() if each.required],
    }


def _properties(declaring: type, types: dict[str, Any]) -> dict[str, Any]:
    return {name: _property(each, types, as_input=True) for name, each in properties(declaring).items()}


def _property(each: Property, types: dict[str, Any], *, as_input: bool = False) -> dict[str, Any]:
    told = {**_type(each.kind, types), "description": each.description}
    if each.secret:
        told["secret"] = True
    if each.deprecated:
        told["deprecationMessage"] = each.deprecated
    if as_input:
        if each.replaces:
            told["willReplaceOnChanges"] = True
        default = each.default
        # What is no plain value has its default in the provider alone; the schema has no way to say it.
        if default is not MISSING and isinstance(default, str | int | float | bool):
            told["default"] = default.value if isinstance(default, StrEnum) else default
    return told


def _type(kind: Kind, types: dict[str, Any]) -> dict[str, Any]:
    match kind:
        case ListOf():
            return {"type": "array", "items": _type(kind.item, types)}
        case MapOf():
            return {"type": "object", "additionalProperties": _type(kind.item, types)}
        case EnumOf():
            token = token_of(kind.type)
            if token not in types:
                types[token] = {
                    "type": "string",
                    "description": description_of(kind.type),
                    "enum": [{"name": _enum_name(each), "value": each.value} for each in kind.type],
                }
            return {"$ref": f"#/types/{token}"}
        case ObjectOf():
            token = token_of(kind.type)
            if token not in types:
                types[token] = {}  # first, for a type that has itself as a part
                types[token] = {"description": description_of(kind.type), **_object(kind.type, types)}
            return {"$ref": f"#/types/{token}"}
        case Scalar.ANY:
            return {"$ref": "pulumi.json#/Any"}
        case _:
            return {"type": kind.value}


def _enum_name(each: StrEnum) -> str:
    return "".join(part.capitalize() for part in each.name.split("_"))


def nested_types(declaring: type) -> Iterator[type[Nested]]:
    """The nested types that a declaration has, however deep."""
    for each in properties(declaring).values():
        kind = each.kind
        while isinstance(kind, ListOf | MapOf):
            kind = kind.item
        if isinstance(kind, ObjectOf):
            yield kind.type
            yield from nested_types(kind.type)


if __name__ == "__main__":
    print(printed(schema()), end="")
