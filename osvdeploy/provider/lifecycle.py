"""What the engine asks of a resource, between its properties and the resource's typed values. No gRPC.

Here stands what holds for every resource: secrets stay secret, what the engine recorded is read leniently, outputs are
the inputs and what the resource answered, what is gone is gone, and a diff follows from the declaration.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from osvdeploy.errors import UsageError
from osvdeploy.provider.base import Call, Function, Resource, Seen, State, Unfinished, Verdict
from osvdeploy.provider.declare import properties
from osvdeploy.provider.diffing import changes
from osvdeploy.provider.parsing import Failure, Parser, formatted, wrapped_as
from osvdeploy.provider.values import UNKNOWN, Properties, Secret, Value, has_secrets, is_known, secret_texts

T = TypeVar("T")
AnyResource = Resource[Any, Any]
AnyFunction = Function[Any, Any]

_SHORTEST = 4
"""Characters of a secret that is looked for in what is said."""


class InputsInvalid(UsageError):
    """Inputs that no check let through: of a function, or of a resource that was not checked."""

    def __init__(self, failures: Sequence[Failure]) -> None:
        super().__init__("\n".join(f"{each.path}: {each.reason}" if each.path else each.reason for each in failures))
        self.failures = tuple(failures)


@dataclass(frozen=True, slots=True)
class CheckedProperties:
    """A check's answer as the engine gets it."""

    inputs: Properties
    failures: Sequence[Failure]


@dataclass(frozen=True, slots=True)
class Made:
    """The answer to a creation, an update or a read. ``inputs`` None: they stay as they are recorded. ``problems``: why
    it is not finished, or not healthy."""

    id: str
    outputs: Properties
    inputs: Properties | None = None
    problems: Sequence[str] = ()
    cause: Exception | None = None


# ------------------------------------------------------------------------------------------------------------- check


def check(resource: AnyResource, call: Call, news: Properties, olds: Properties) -> CheckedProperties:
    """Judge what a program gave and fill in the rest."""
    parser = Parser()
    wanted = parser.parse(resource.INPUTS, news)
    failures = list(parser.failures)
    if not failures:
        checked = resource.check(call, wanted, lenient(resource.INPUTS, olds) if olds else None)
        wanted, failures = checked.inputs, list(checked.failures)
    if failures:
        return CheckedProperties(news, failures)
    return CheckedProperties(echoed(news, wanted), ())


def echoed(given: Properties, inputs: object) -> dict[str, Value]:
    """Inputs as properties, secret where they were given so; and what the engine keeps with them for itself."""
    own = {name: value for name, value in given.items() if name.startswith("__")}
    told = {name: value for name, value in formatted(inputs).items() if name in given or value not in ([], {})}
    return own | {name: wrapped_as(given.get(name), value) for name, value in told.items()}


# -------------------------------------------------------------------------------------------------------------- diff


def diff(resource: AnyResource, id: str, olds: Properties, old_inputs: Properties | None, news: Properties) -> Verdict:
    """What is to change. Pure."""
    before = recorded(resource, id, olds, old_inputs)
    wanted = lenient(resource.INPUTS, news)
    return resource.judge(before, wanted, changes(before.actual, wanted))


def recorded(resource: AnyResource, id: str, olds: Properties, old_inputs: Properties | None) -> State[Any, Any]:
    """What the engine has of a resource."""
    inputs = olds if old_inputs is None else old_inputs
    # What an earlier version did not write among the outputs is as it was asked for.
    return State(
        id=id,
        inputs=lenient(resource.INPUTS, inputs),
        actual=lenient(resource.INPUTS, {**inputs, **olds}),
        outputs=lenient(resource.OUTPUTS, olds),
    )


def lenient(declaring: type[T], given: Properties) -> T:
    """What was recorded, as far as it is understood."""
    return Parser(lenient=True).parse(declaring, given)


# ------------------------------------------------------------------------------------- create, update, read, delete


def create(resource: AnyResource, call: Call, news: Properties) -> Made:
    wanted = _wanted(resource, call, news)
    if call.preview:
        return Made("", outputs_of(news, wanted, resource.preview(call, wanted, None), preview=True))
    try:
        created = resource.create(call, wanted)
    except Unfinished as error:
        if not error.id:
            raise AssertionError(f"{resource.TOKEN}: an unfinished creation without an id") from error
        outputs = outputs_of(news, wanted, error.outputs, preview=False)
        return Made(error.id, outputs, dict(news), error.reasons, error.cause)
    return Made(created.id, outputs_of(news, wanted, created.outputs, preview=False))


def update(
    resource: AnyResource, call: Call, id: str, olds: Properties, old_inputs: Properties | None, news: Properties
) -> Made:
    wanted = _wanted(resource, call, news)
    before = recorded(resource, id, olds, old_inputs)
    if call.preview:
        return Made(id, outputs_of(news, wanted, resource.preview(call, wanted, before), preview=True))
    try:
        outputs = resource.update(call, before, wanted)
    except Unfinished as error:
        # The inputs that are recorded stay the old ones: the next `up` finds the same difference and goes on.
        inputs = dict(olds if old_inputs is None else old_inputs)
        return Made(id, outputs_of(news, wanted, error.outputs, preview=False), inputs, error.reasons, error.cause)
    return Made(id, outputs_of(news, wanted, outputs, preview=False))


def read(resource: AnyResource, call: Call, id: str, properties_: Properties, inputs: Properties | None) -> Made | None:
    """What is there; None where it is gone. With neither properties nor inputs it is an import."""
    importing = not properties_ and not inputs
    before = None if importing else recorded(resource, id, properties_, inputs)
    seen: Seen[Any, Any] | None = resource.read(call, id, before)
    if seen is None:
        return None
    given = inputs if inputs is not None else properties_
    actual = seen.actual if seen.actual is not None else before and before.inputs
    if actual is None:
        raise AssertionError(f"{resource.TOKEN}: an import that says nothing of the inputs")
    secrets = {**given, **properties_}
    outputs = outputs_of(secrets, actual, seen.outputs, preview=False)
    return Made(id, outputs, as_given(actual) if importing else dict(given) if seen.problems else None, seen.problems)


def delete(resource: AnyResource, call: Call, id: str, olds: Properties, old_inputs: Properties | None) -> None:
    resource.delete(call, recorded(resource, id, olds, old_inputs))


def _wanted(resource: AnyResource, call: Call, news: Properties) -> Any:
    parser = Parser()
    wanted = parser.parse(resource.INPUTS, news)
    if parser.failures:
        raise InputsInvalid(parser.failures)
    if not call.preview and not is_known(wanted):
        raise InputsInvalid([Failure("", "a value is not known yet, outside of a preview")])
    return wanted


def as_given(inputs: object) -> dict[str, Value]:
    """The inputs as a program would give them: without what a check fills in, and without what is the default."""
    declared = properties(type(inputs))
    return {
        name: value
        for name, value in formatted(inputs).items()
        if not declared[name].derived and getattr(inputs, declared[name].attribute) != declared[name].default
    }


def outputs_of(given: Properties, inputs: object, outputs: object, *, preview: bool) -> dict[str, Value]:
    """All properties of a resource: its inputs, secret where they were given so, and its outputs. Outside of a preview
    what is unknown is left out."""
    told = echoed(given, inputs) | veiled(formatted(outputs), texts_to_hide(given))
    told = {name: value for name, value in told.items() if not name.startswith("__")}
    return told if preview else {name: value for name, value in told.items() if is_known(value)}


def texts_to_hide(*given: Properties) -> frozenset[str]:
    """What no message or output may show: every secret text, also as JSON writes it. Short ones (`1`, `yes`) would hide
    half of all that is said, and nobody could tell what."""
    found: set[str] = set()
    for each in given:
        for text in secret_texts(dict(each)):
            if len(text) >= _SHORTEST:
                found |= {text, json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1], repr(text)[1:-1]}
                found |= {line for line in text.splitlines() if len(line) >= _SHORTEST}
    return frozenset(found)


def veiled(outputs: Mapping[str, Value], hidden: Collection[str]) -> dict[str, Value]:
    """Outputs in which every text that has a secret of the inputs in it is a secret too."""

    def veil(value: Value) -> Value:
        if isinstance(value, str):
            return Secret(value) if any(each in value for each in hidden) else value
        if isinstance(value, Mapping):
            return {name: veil(each) for name, each in value.items()}
        return [veil(each) for each in value] if isinstance(value, list) else value

    return {name: veil(value) if hidden else value for name, value in outputs.items()}


# ---------------------------------------------------------------------------------------------------------- functions


def invoke(function: AnyFunction, call: Call, asked: Properties) -> tuple[Properties, Sequence[Failure]]:
    """A function's answer, or what is wrong with the question. Secret where any of the question was."""
    parser = Parser()
    parsed = parser.parse(function.INPUTS, asked)
    if parser.failures:
        return {}, parser.failures
    if not is_known(parsed):
        # In a preview of what is not there yet.
        fields: Mapping[str, Value] = dict.fromkeys(properties(function.OUTPUTS), UNKNOWN)
        return fields, ()
    answer = formatted(function.invoke(call, parsed))
    if has_secrets(dict(asked)):
        answer = {name: value if isinstance(value, Secret) else Secret(value) for name, value in answer.items()}
    return answer, ()
