"""Values to and from protobuf's Struct."""

from __future__ import annotations

import pytest
from google.protobuf import json_format, struct_pb2
from hypothesis import given
from hypothesis import strategies as st

from osvdeploy.provider.codec import SIGNATURE, UNKNOWN_TEXT, MalformedValue, decode, encode
from osvdeploy.provider.values import (
    UNKNOWN,
    Archive,
    Asset,
    Output,
    Properties,
    ResourceReference,
    Secret,
    Value,
    has_secrets,
    is_known,
    revealed,
)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
names = texts.filter(lambda name: name != SIGNATURE)
leaves: st.SearchStrategy[Value] = st.one_of(
    st.none(),
    st.booleans(),
    st.floats(allow_nan=False),
    texts,
    st.just(UNKNOWN),
    st.builds(Asset, hash=st.none() | st.just("aa"), text=texts | st.none(), path=texts | st.none()),
    st.builds(Archive, path=texts),
    st.builds(
        ResourceReference,
        urn=texts,
        id=st.none() | st.just(UNKNOWN) | texts,
        version=texts,
    ),
)
values: st.SearchStrategy[Value] = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(names, inner, max_size=3),
        st.builds(Secret, inner),
        st.builds(Output, value=inner, secret=st.booleans(), dependencies=st.lists(texts, max_size=2).map(tuple)),
        st.builds(Archive, assets=st.dictionaries(names, inner, max_size=2)),
    ),
    max_leaves=8,
)


@given(st.dictionaries(names, values, max_size=4))
def test_round_trip(properties: Properties) -> None:
    """Whatever is sent is what was meant: unknowns, secrets, assets and references however deep."""
    assert decode(encode(properties)) == properties


@given(st.dictionaries(names, values, max_size=4))
def test_revealed(properties: Properties) -> None:
    """What is revealed has no secret left, and is known as far as it was."""
    shown = revealed(dict(properties))
    assert not has_secrets(shown) or any(isinstance(each, Archive) for each in properties.values())
    assert is_known(shown) == is_known(dict(properties))


def test_as_the_sdk_writes_it() -> None:
    """A secret and an unknown stand as Pulumi's own SDK writes them."""
    struct = encode({"a": Secret("b"), "c": UNKNOWN})
    assert json_format.MessageToDict(struct) == {
        "a": {SIGNATURE: "1b47061264138c4ac30d75fd1eb44270", "value": "b"},
        "c": UNKNOWN_TEXT,
    }


@pytest.mark.parametrize(
    "signature", ["1b47061264138c4ac30d75fd1eb44270", "5cf8f73096256a8f31e491e813e4eb8e", "nobody knows this one"]
)
def test_malformed(signature: str) -> None:
    """A signature without its parts, or one that nobody knows, is refused and not taken for a map."""
    struct = struct_pb2.Struct()
    struct.fields["a"].struct_value.fields[SIGNATURE].string_value = signature
    with pytest.raises(MalformedValue):
        decode(struct)


def test_a_secret_is_not_shown() -> None:
    """Whoever prints a secret by mistake prints nothing of it."""
    assert "hunter2" not in repr(Secret("hunter2"))
