"""Declarations: what is parsed, formatted and compared by them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osvdeploy.provider.base import Naming, NamingMode
from osvdeploy.provider.declare import camel, declared, prop, properties
from osvdeploy.provider.diffing import changes
from osvdeploy.provider.parsing import Parser, formatted, wrapped_as
from osvdeploy.provider.settings import Applied, Endpoints, Settings, environment
from osvdeploy.provider.values import UNKNOWN, Secret, Value, has_secrets, is_known, revealed
from tests.pulumi.probe import Colour, Part, ProbeInputs
from tests.pulumi.test_codec import values

texts = st.text(max_size=4)
parts = st.builds(Part, size=st.integers(-9, 9), colour=st.sampled_from(Colour), place=texts)
inputs = st.builds(
    ProbeInputs,
    text=texts | st.just(UNKNOWN),
    fails=st.none() | texts,
    wait=st.floats(0, 9),
    halfway=st.booleans(),
    parts=st.lists(parts, max_size=2).map(tuple),
    tags=st.dictionaries(texts, texts, max_size=2),
    password=st.none() | texts,
)


@given(inputs)
def test_round_trip(value: ProbeInputs) -> None:
    """What is formatted is parsed as it was."""
    parser = Parser()
    assert parser.parse(ProbeInputs, formatted(value)) == value
    assert parser.failures == []


@given(inputs, inputs)
def test_changes(old: ProbeInputs, new: ProbeInputs) -> None:
    """Nothing differs from itself, as long as it is known; whatever else does is told, below its own property."""
    assert (changes(old, old) == ()) == is_known(old)
    found = changes(old, new)
    assert bool(found) == (old != new or not is_known(new))
    assert {each.property for each in found} <= set(properties(ProbeInputs))
    for name, each in properties(ProbeInputs).items():
        if getattr(old, each.attribute) != getattr(new, each.attribute):
            assert name in {change.property for change in found}


@given(st.dictionaries(texts, values, max_size=3), st.sampled_from([ProbeInputs, Part]))
def test_lenient(given: Mapping[str, Value], kind: type) -> None:
    """Whatever was recorded is read, and what is not understood is unknown; nothing fails."""
    parser = Parser(lenient=True)
    parser.parse(kind, given)
    assert parser.failures == []
    Parser().parse(kind, given)


@given(values, values)
def test_wrapped(given: Value, value: Value) -> None:
    """Putting secrets back changes no value, and where any was given there is one again."""
    plain = revealed(value)
    again = wrapped_as(given, plain)
    assert revealed(again) == plain
    if isinstance(given, Secret):
        assert has_secrets(again)


def test_texts() -> None:
    """Configuration is all texts: numbers, truths and objects in them are read."""
    parser = Parser(texts=True)
    given: dict[str, Value] = {
        "text": "3",
        "wait": "1.5",
        "halfway": "true",
        "parts": '[{"size": 2}]',
        "tags": '{"a": "1"}',
    }
    assert parser.parse(ProbeInputs, given) == ProbeInputs(
        text="3", wait=1.5, halfway=True, parts=(Part(size=2),), tags={"a": "1"}
    )
    assert parser.failures == []


def test_names() -> None:
    """Names are in camel case for programs, and may be words of Python's own."""
    assert [camel(name) for name in ("text", "keep_warm", "set_", "a_b_c")] == ["text", "keepWarm", "set", "aBC"]


def test_what_is_not_declared() -> None:
    """A field without prop() is a mistake of ours that is told at once, and so is a type that no property has."""
    with pytest.raises(TypeError, match="is not declared by prop"):

        @declared
        class Bare:
            text: str = "x"

    @declared
    class Odd:
        either: int | str = prop("Either.")

    with pytest.raises(TypeError, match="more than one type"):
        properties(Odd)


def test_names_that_are_made() -> None:
    """A name that was left out is the program's with a suffix, within the length, and stays what it was."""
    naming = Naming("orders-of-the-day", b"seed")
    made = naming.choose(None, longest=12)
    assert made is not None
    assert made.startswith("orde-")
    assert len(made) == 12
    assert naming.choose("old", longest=12) == "old"
    assert replace(naming, proposed="exact", mode=NamingMode.ENFORCE).choose(None) == "exact"
    assert replace(naming, mode=NamingMode.DISABLE).choose(None) is None


def test_environment_of_settings() -> None:
    """What is configured wins over the environment, keys over a profile too; what is not leaves it alone."""
    assert environment(Settings()) == {}
    assert environment(
        Settings(region="eu-west-1", profile="mine", role="arn", endpoints=Endpoints(aws="http://a", storage="http://s"))
    ) == {
        "AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "eu-west-1", "AWS_PROFILE": "mine",
        "AWS_DEFAULT_PROFILE": None, "AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None,
        "AWS_SESSION_TOKEN": None, "OSVDEPLOY_AWS_ROLE": "arn", "AWS_ENDPOINT_URL": "http://a",
        "STORAGE_EMULATOR_HOST": "http://s",
    }  # fmt: skip


def test_settings_are_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is configured anew has the environment that it began with, but for what is configured now."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "theirs")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    for name in ("AWS_DEFAULT_PROFILE", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "GOOGLE_CLOUD_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    applied = Applied()
    before = dict(os.environ)
    applied.apply(Settings(profile="mine"))
    assert (os.environ["AWS_PROFILE"], os.environ.get("AWS_ACCESS_KEY_ID")) == ("mine", None)
    applied.apply(Settings(project="p"))
    assert dict(os.environ) == {**before, "GOOGLE_CLOUD_PROJECT": "p"}
    applied.apply(Settings())
    assert dict(os.environ) == before
