"""The Python SDK, which Pulumi's generator made of the schema."""

from __future__ import annotations

import importlib
import inspect
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from osvdeploy.provider.schema import schema_text

pytestmark = pytest.mark.slow  # importing pulumi takes a while

SCHEMA: dict[str, Any] = json.loads(schema_text())


def snake(name: str) -> str:
    """How Pulumi's generator writes a name in Python."""
    written = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name).lower()
    return f"{written}_" if written in ("from", "import", "in", "is", "as") else written


def module_of(token: str) -> Any:
    _, module, _ = token.split(":")
    return importlib.import_module("pulumi_osvdeploy" + ("" if module == "index" else f".{module}"))


def name_of(token: str) -> str:
    return token.rpartition(":")[2]


def parts() -> Iterator[tuple[str, type, list[str]]]:
    """Classes of the SDK, and the properties that each has to have."""
    for token, told in SCHEMA["resources"].items():
        module, name = module_of(token), name_of(token)
        yield token, getattr(module, name), [*told["properties"]]
        yield f"{token}'s arguments", getattr(module, f"{name}Args"), [*told["inputProperties"]]
    provider = importlib.import_module("pulumi_osvdeploy")
    yield "provider", provider.ProviderArgs, [*SCHEMA["provider"]["inputProperties"]]
    for token, told in SCHEMA["functions"].items():
        module, name = module_of(token), name_of(token)
        yield token, getattr(module, f"{name[0].upper()}{name[1:]}Result"), [*told["outputs"]["properties"]]


def test_has_every_property() -> None:
    """Every resource and property of the schema is in the SDK; `make sdk` makes it anew."""
    for told, made, names in parts():
        for name in names:
            assert isinstance(inspect.getattr_static(made, snake(name), None), property), f"{told}: {name}"


def test_has_every_type() -> None:
    """Every nested type and enum of the schema is in the SDK, with all its parts."""
    for token, told in SCHEMA["types"].items():
        module = module_of(token)
        if "enum" in told:
            values = {each.value for each in getattr(module, name_of(token))}
            assert values == {each["value"] for each in told["enum"]}, token
            continue
        found = [getattr(module, f"{name_of(token)}Args", None), getattr(module.outputs, name_of(token), None)]
        assert any(found), token
        for made in filter(None, found):
            for name in told["properties"]:
                assert isinstance(inspect.getattr_static(made, snake(name), None), property), f"{token}: {name}"


def test_has_every_function() -> None:
    """Every function takes what the schema says."""
    for token, told in SCHEMA["functions"].items():
        function = getattr(module_of(token), snake(name_of(token)))
        taken = inspect.signature(function).parameters
        assert {snake(name) for name in told["inputs"]["properties"]} <= set(taken), token
