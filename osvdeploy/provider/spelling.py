"""How a program's inputs are written in a spec, whose own model judges them: one set of rules and of messages for both.
What it finds is told at properties, by the names that programs have for them.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from osvdeploy.errors import SpecError
from osvdeploy.provider.declare import Kind, ListOf, MapOf, Nested, ObjectOf, camel, properties
from osvdeploy.provider.parsing import Failure, joined
from osvdeploy.provider.values import is_known
from osvdeploy.sizes import parse_duration

if TYPE_CHECKING:
    from osvdeploy.rollout.releases import Settings

_NOT_IN_A_SPEC = frozenset({"image", "environment", "force_rollout", "project", "family"})

_EACH_BY_ITSELF = ("gates", "hooks", "notify")
"""Lists of which what is known is judged without the rest, wherever it stands."""

_SEEN_BESIDE = {"gates": ("strategy",)}
"""What else has to be known for what is said of a whole list."""


class Spelled(Nested):
    """A type whose values are written otherwise in a spec than by their properties."""

    __slots__ = ()

    def in_a_spec(self) -> object:
        raise NotImplementedError


class Environment(Protocol):
    """Declared inputs that are an environment of a spec, by this name."""

    @property
    def environment(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Spelling:
    """How a cloud's properties are called in a spec: by attribute, where the name is not the same with dashes."""

    cloud: str
    keys: Mapping[str, str]
    stand_ins: Mapping[str, object]
    """What stands for a value that is not known yet, so that all the others can be judged."""
    values: Mapping[str, Callable[[Any], object]] = field(default_factory=dict)
    """How a value is written there, where it is otherwise."""

    def document(self, inputs: Environment) -> dict[str, Any]:
        """The inputs as an environment of a spec."""
        found: dict[str, Any] = {"cloud": self.cloud}
        for each in fields(inputs):  # type: ignore[arg-type]  # what is declared is a dataclass
            if each.name in _NOT_IN_A_SPEC:
                continue
            value = getattr(inputs, each.name)
            if each.name in _EACH_BY_ITSELF and isinstance(value, tuple):
                value = tuple(item for item in value if is_known(item))
            if not is_known(value):
                value = self.stand_ins.get(each.name)
            elif value is not None and each.name in self.values:
                value = self.values[each.name](value)
            if value is not None and value != ():
                found[self.key(each.name)] = plain(value)
        return found

    def key(self, attribute: str) -> str:
        return self.keys.get(attribute, kebab(attribute))

    def property_of(self, path: str, inputs: type) -> str:
        """The property that a path of a spec's problem is about: `deploy.production.health.min-ready`."""
        parts = re.findall(r'"(?:[^"\\]|\\.)*"|\[\d+\]|[^.\[\]"]+', path)[2:]
        if not parts:
            return "environment"
        first = next((name for name, key in self.keys.items() if key == parts[0]), parts[0].replace("-", "_"))
        told, kind = camel(first), _part(inputs, camel(first))
        for part in parts[1:]:
            if part.startswith("["):
                told, kind = f"{told}{part}", getattr(kind, "item", None)
            elif isinstance(kind, MapOf):
                # Its keys are the user's.
                told, kind = joined(told, json.loads(part) if part.startswith('"') else part), kind.item
            else:
                name = camel(part.replace("-", "_"))
                told, kind = f"{told}.{name}", _part(kind.type, name) if isinstance(kind, ObjectOf) else None
        return told

    def judged(self, inputs: Environment) -> list[Failure]:
        """What is wrong with the inputs that are known, each at its property."""
        from osvdeploy.spec import environment_of_document

        name = inputs.environment if is_known(inputs.environment) else "unknown"
        try:
            environment_of_document(self.document(inputs), name)
        except SpecError as error:
            found = [(self.property_of(each.path, type(inputs)), each.message) for each in error.problems]
            return [
                Failure(_where_it_stands(path, inputs), self.in_properties(message, type(inputs)))
                for path, message in found
                if _is_judged(path, inputs)
            ]
        return []

    def in_properties(self, message: str, inputs: type) -> str:
        """A message of the spec's, by the names that programs have: `max-ratio` is `maxRatio`."""
        # A word without a dash may be a word like any other.
        names = dict(_dashed(inputs)) | {key: camel(name) for name, key in self.keys.items() if "-" in key}
        return re.sub(r"[a-z]+(?:-[a-z]+)+", lambda found: names.get(found[0], found[0]), message)

    def settings(self, inputs: Environment, project: str = "", family: str | None = None) -> Settings:
        """What a rollout is given. A ledger directory and a gate's program are relative to the program's folder."""
        from osvdeploy import api
        from osvdeploy.spec import environment_of_document

        wanted = environment_of_document(self.document(inputs), inputs.environment)
        return api.settings_for(inputs.environment, wanted, Path.cwd(), project=project, family=family)


def _is_judged(path: str, inputs: Environment) -> bool:
    """Whether what is said of a property is said of what is known."""
    first = re.split(r"[.\[]", path)[0]
    known = properties(type(inputs))
    if first not in known:
        return True
    name = known[first].attribute
    if path == first and not all(is_known(getattr(inputs, each)) for each in _SEEN_BESIDE.get(name, ())):
        return False
    value = getattr(inputs, name)
    return is_known(value) or (name in _EACH_BY_ITSELF and isinstance(value, tuple))


def _where_it_stands(path: str, inputs: Environment) -> str:
    """A path whose index counts what is known alone, as it is in the program."""
    if (found := re.match(r"(\w+)\[(\d+)\]", path)) and (name := kebab(found[1])) in _EACH_BY_ITSELF:
        known = [index for index, each in enumerate(getattr(inputs, name)) if is_known(each)]
        return f"{found[1]}[{known[int(found[2])]}]{path[found.end() :]}"
    return path


def _part(declaring: type, name: str) -> Kind | None:
    known = properties(declaring)
    return known[name].kind if name in known else None


def _dashed(declaring: type) -> Iterator[tuple[str, str]]:
    """The names of more than one word that a declaration and its parts have: in a spec, and in programs."""
    for each in properties(declaring).values():
        if "_" in each.attribute:
            yield kebab(each.attribute), each.name
        kind = each.kind
        while isinstance(kind, ListOf | MapOf):
            kind = kind.item
        if isinstance(kind, ObjectOf):
            yield from _dashed(kind.type)


def kebab(name: str) -> str:
    return name.replace("_", "-")


def plain(value: object) -> object:
    """A value as a spec has it: enums as their texts, what was left out left out."""
    if isinstance(value, Spelled):
        return plain(value.in_a_spec())
    if isinstance(value, Nested):
        told = ((each.name, getattr(value, each.name)) for each in fields(value))  # type: ignore[arg-type]
        return {kebab(name): plain(each) for name, each in told if each is not None}
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, Mapping):
        return {name: plain(each) for name, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, tuple) else value


def even(text: str) -> str:
    """A duration in the form that all are compared in."""
    if not is_known(text):
        return text
    try:
        return spell(parse_duration(text))
    except ValueError:
        return text  # what no check has let through


def spell(seconds: float) -> str:
    """A duration as one writes it: the largest unit that it is a whole number of."""
    for unit, length in (("h", 3600.0), ("m", 60.0)):
        if seconds and seconds % length == 0:
            return f"{seconds / length:.0f}{unit}"
    number, unit = (seconds, "s") if seconds >= 1 or not seconds else (seconds * 1000, "ms")
    # Exactly: what `g` leaves of 1234567 is another number.
    return f"{number:.6f}".rstrip("0").rstrip(".") + unit


def program(words: tuple[str, ...]) -> tuple[str, ...]:
    """A program and its arguments in the form that all are compared in."""
    from osvdeploy.api.declared import program_of

    first, *others = program_of(words, Path.cwd())
    return (beside_the_program(first), *others)


def beside_the_program(path: str) -> str:
    """A path in the program's folder as relative to it: another copy of the project has it elsewhere."""
    folder = f"{Path.cwd()}{os.sep}"
    return f".{os.sep}{path.removeprefix(folder)}" if path.startswith(folder) else path
