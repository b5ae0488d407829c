"""JSON Schema of osv.toml, for editors."""

from __future__ import annotations

from typing import Any

from osvdeploy.spec.model import Spec


def json_schema() -> dict[str, Any]:
    """A JSON Schema (draft 2020-12) with osv.toml's own key names and their descriptions."""
    schema = Spec.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "osv.toml"}
