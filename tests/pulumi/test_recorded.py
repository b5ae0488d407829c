"""States that earlier versions wrote: a later version previews them as no changes.

recorded/NAME-VERSION.json is what a state has of one resource: token, id, inputs and outputs as JSON of their Structs.
Once released, none is changed; a new version adds its own.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format, struct_pb2

from osvdeploy.provider import lifecycle
from osvdeploy.provider.codec import decode
from osvdeploy.provider.registry import RESOURCES
from osvdeploy.provider.values import Value, is_known

FOLDER = Path(__file__).with_name("recorded")
RECORDS = sorted(FOLDER.glob("*.json"))


def properties_in(document: dict[str, Any]) -> dict[str, Value]:
    return decode(json_format.ParseDict(document, struct_pb2.Struct()))


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_no_changes(path: Path) -> None:
    """What the same program gives is no change to what was recorded, and all of it is still understood."""
    record = json.loads(path.read_text())
    resource = RESOURCES[record["token"]]
    inputs, outputs = properties_in(record["inputs"]), properties_in(record["outputs"])
    verdict = lifecycle.diff(resource, record["id"], outputs, inputs, inputs)
    assert list(verdict.changes) == []
    state = lifecycle.recorded(resource, record["id"], outputs, inputs)
    assert is_known(state.inputs)
    assert is_known(state.actual)
    assert is_known(state.outputs)


def test_every_resource_is_recorded() -> None:
    """There is a record of each resource."""
    assert {json.loads(path.read_text())["token"] for path in RECORDS} == set(RESOURCES)
