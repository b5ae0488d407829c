"""The schema that every SDK is made of."""

from __future__ import annotations

import json

from osvdeploy.provider.declare import properties
from osvdeploy.provider.registry import FUNCTIONS, RESOURCES
from osvdeploy.provider.schema import printed, schema, schema_text


def test_is_what_the_declarations_say() -> None:
    """schema.json is up to date; `python -m osvdeploy.provider.schema > osvdeploy/provider/schema.json` makes it so."""
    assert printed(schema()) == schema_text()


def test_is_complete() -> None:
    """Everything has a description, and no resource has a property that is an input and an output of its own."""
    document = json.loads(schema_text())
    for token, resource in RESOURCES.items():
        assert not set(properties(resource.INPUTS)) & set(properties(resource.OUTPUTS)), token
        told = document["resources"][token]
        assert told["description"]
        for each in [*told["properties"].values(), *told["inputProperties"].values()]:
            assert each["description"]
        assert set(told["inputProperties"]) <= set(told["properties"])
    assert set(document["functions"]) == set(FUNCTIONS)
    for told in [*document["functions"].values(), *document["types"].values()]:
        assert told["description"]


def test_has_nothing_ambient() -> None:
    """No default comes from the environment, since an SDK would write it into the state."""
    assert '"defaultInfo":' not in schema_text()
