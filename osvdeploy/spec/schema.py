"""JSON Schema of osv.toml, for editors."""

from __future__ import annotations

from typing import Any

from osvdeploy.sizes import format_duration
from osvdeploy.spec.boot import OPTIONS, Takes
from osvdeploy.spec.model import Image, Spec

_TEXTS = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}
_BOOT = {
    Takes.NOTHING: {"type": "boolean"},
    Takes.TEXT: {"type": "string"},
    Takes.SECONDS: {"type": "number", "minimum": 0},
    Takes.COUNT: {"type": "integer", "minimum": 1},
    Takes.TEXTS: _TEXTS,
}


def json_schema() -> dict[str, Any]:
    """A JSON Schema (draft 2020-12) with osv.toml's own key names and their descriptions."""
    schema = _as_toml(Spec.model_json_schema(by_alias=True))
    boot = schema["$defs"][Image.__name__]["properties"]["boot"]
    boot["properties"] = {name: _BOOT[takes] for name, takes in OPTIONS.items()}
    boot["additionalProperties"] = False
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "osv.toml"}


def _as_toml(node: Any) -> Any:
    """The same without what TOML has not: null, and durations as numbers."""
    if isinstance(node, list):
        return [_as_toml(each) for each in node]
    if not isinstance(node, dict):
        return node
    told = {key: _as_toml(value) for key, value in node.items()}
    choices = [each for each in told.get("anyOf", []) if each != {"type": "null"}]
    if len(choices) == 1:
        del told["anyOf"]
        told = {**choices[0], **told}
    if told.get("default", "") is None:
        del told["default"]
    if told.get("type") == "string" and isinstance(told.get("default"), float):
        told["default"] = format_duration(told["default"])
    return told
