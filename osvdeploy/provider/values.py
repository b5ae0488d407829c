"""The values that Pulumi's engine and a provider send each other, as Python has them.

A number is a float, as on the wire; a property that is declared an integer becomes an int when it is parsed
(:mod:`osvdeploy.provider.parsing`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias


class Unknown:
    """A value that nobody has yet: what a preview says of an output that only the real run will tell."""

    _only: Unknown | None = None

    def __new__(cls) -> Unknown:
        if cls._only is None:
            cls._only = super().__new__(cls)
        return cls._only

    def __repr__(self) -> str:
        return "UNKNOWN"

    def __copy__(self) -> Unknown:
        return self

    def __deepcopy__(self, memo: object) -> Unknown:
        return self


UNKNOWN: Final[Any] = Unknown()
"""The one unknown. Of any type, so that it fits each field of what a resource is given in a preview, and of what it
answers there; :func:`is_known` tells."""


@dataclass(frozen=True, slots=True)
class Secret:
    """A value that nobody is to see: it is kept encrypted in the state, and no message has it."""

    value: Value

    def __repr__(self) -> str:
        return "Secret(...)"


@dataclass(frozen=True, slots=True)
class Asset:
    """A file: one of ``text``, ``path``, ``uri``. ``hash`` is all there is of one in an old state."""

    hash: str | None = None
    text: str | None = None
    path: str | None = None
    uri: str | None = None


@dataclass(frozen=True, slots=True)
class Archive:
    """Many files: one of ``assets`` (by name, of assets and archives), ``path``, ``uri``."""

    hash: str | None = None
    assets: Mapping[str, Value] | None = None
    path: str | None = None
    uri: str | None = None


@dataclass(frozen=True, slots=True)
class ResourceReference:
    """A resource as a value. ``id`` is None of one that has none (a component), and may be unknown."""

    urn: str
    id: str | Unknown | None = None
    version: str = ""


@dataclass(frozen=True, slots=True)
class Output:
    """A value with what it depends on. ``value`` is UNKNOWN where nobody has it yet."""

    value: Value
    secret: bool = False
    dependencies: tuple[str, ...] = ()


Value: TypeAlias = (
    "bool | int | float | str | Unknown | Secret | Asset | Archive | ResourceReference | Output"
    " | list[Value] | Mapping[str, Value] | None"
)
Properties: TypeAlias = Mapping[str, Value]
"""Of a resource, of a provider's configuration, of a function's arguments: by name, in camel case."""


def is_known(value: object) -> bool:
    """Whether nothing in a value is unknown, however deep; also of a dataclass that was parsed."""
    if value is UNKNOWN:
        return False
    if isinstance(value, Secret):
        return is_known(value.value)
    if isinstance(value, Output):
        return is_known(value.value)
    if isinstance(value, ResourceReference):
        return value.id is not UNKNOWN
    if isinstance(value, Mapping):
        return all(is_known(each) for each in value.values())
    if isinstance(value, list | tuple):
        return all(is_known(each) for each in value)
    if fields := getattr(type(value), "__dataclass_fields__", None):
        return all(is_known(getattr(value, name)) for name in fields)
    return True


def revealed(value: Value) -> Value:
    """The same without Secret and Output around any part of it: to compare, and to work with."""
    if isinstance(value, Secret | Output):
        return revealed(value.value)
    if isinstance(value, Mapping):
        return {name: revealed(each) for name, each in value.items()}
    if isinstance(value, list):
        return [revealed(each) for each in value]
    return value


def has_secrets(value: Value) -> bool:
    """Whether any part of a value is secret."""
    if isinstance(value, Secret):
        return True
    if isinstance(value, Output):
        return value.secret or has_secrets(value.value)
    if isinstance(value, Mapping):
        return any(has_secrets(each) for each in value.values())
    return isinstance(value, list) and any(has_secrets(each) for each in value)


def secret_texts(value: Value, inside: bool = False) -> Iterator[str]:
    """Every text and number in a value that is secret, as it would look in a message."""
    if isinstance(value, Secret):
        yield from secret_texts(value.value, True)
    elif isinstance(value, Output):
        yield from secret_texts(value.value, inside or value.secret)
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from secret_texts(each, inside)
    elif isinstance(value, list):
        for each in value:
            yield from secret_texts(each, inside)
    elif inside and isinstance(value, Asset):
        yield from filter(None, (value.text, value.path, value.uri))
    elif inside and isinstance(value, str):
        yield value
    elif inside and isinstance(value, int | float) and not isinstance(value, bool):
        yield f"{value:g}"
