"""What holds of every type that a stand-in serves."""

from __future__ import annotations

from typing import Any

from osvdeploy.sandbox.core import Sandbox
from tests.pulumi.standins.cloud import Call, Document, Resource


def lives_as_told(sandbox: Sandbox, call: Call[Any], type: Resource[Any], given: Document, changed: Document) -> None:
    """What was made is what was said, and no change; so it is after a change; what is read by the id alone says all
    that was said; and it goes, also twice."""
    before = sandbox.inventory()
    assert set(type.required) <= set(given) <= type.inputs
    id = type.create(call, given)
    state = type.read(call, id)
    assert state is not None
    assert type.changes(given, given, state) == []
    assert set(type.outputs) <= set(state) <= {*type.inputs, *type.outputs}

    wanted = {**given, **changed}
    there = {**given, **state}
    differing = type.changes(wanted, given, there)
    assert sorted(differing) == sorted(changed)
    assert set(differing) <= set(type.in_place), "in place means without another one"
    if differing:
        type.update(call, id, wanted, there)
    seen = type.read(call, id)
    assert seen is not None
    assert type.changes(wanted, given, seen) == []

    type.delete(call, id, {**wanted, **state})
    assert type.read(call, id) is None
    type.delete(call, id, {**wanted, **state})
    assert sandbox.inventory() == before
