"""How resources, functions and the configuration are declared: dataclasses, whose fields say everything once.

    @declared
    class Health(Nested):
        \"\"\"When a machine counts as healthy.\"\"\"   # the description of the type

        path: str = prop("The path that is asked for.", default="/")

    @declared
    class Inputs:
        image: str = prop("The image to run.", replaces=True)
        health: Health | None = prop("...", default=None)
        tags: Mapping[str, str] = prop("Your own tags.", default_factory=dict)

Names are in snake case here and in camel case everywhere else. Types are ``str``, ``int``, ``float``, ``bool``, an enum
of texts, a :class:`Nested`, ``Any`` (whatever JSON has), ``tuple[X, ...]`` for a list, ``Mapping[str, X]`` for a map,
and ``| None`` for what may be left out. What has no default is required.
"""

from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass
from enum import Enum, StrEnum
from typing import Any, ClassVar, TypeAlias, TypeVar

T = TypeVar("T")

PACKAGE = "osvdeploy"
_METADATA = "osvdeploy"


class Nested:
    """Base of the types that properties may have beside the plain ones. ``MODULE`` is the part of the package that
    the type is named in: index, aws, gcp."""

    __slots__ = ()
    MODULE: ClassVar[str] = "index"


class Scalar(Enum):
    """Kinds without parts, by their names in the schema."""

    STRING = "string"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    ANY = "any"


@dataclass(frozen=True, slots=True)
class ListOf:
    item: Kind


@dataclass(frozen=True, slots=True)
class MapOf:
    item: Kind


@dataclass(frozen=True, slots=True)
class EnumOf:
    type: type[StrEnum]


@dataclass(frozen=True, slots=True)
class ObjectOf:
    type: type[Nested]


Kind: TypeAlias = "Scalar | ListOf | MapOf | EnumOf | ObjectOf"


@dataclass(frozen=True, slots=True)
class _Said:
    """What :func:`prop` was given that a dataclass's field has no place for."""

    description: str
    secret: bool
    replaces: bool
    derived: bool
    deprecated: str


@dataclass(frozen=True, slots=True)
class Property:
    """One property. ``name`` is the one that programs use, ``attribute`` the dataclass's field; ``optional``: None
    where it is left out; ``default`` MISSING where there is none."""

    name: str
    attribute: str
    kind: Kind
    description: str
    required: bool
    optional: bool
    default: object
    secret: bool = False
    replaces: bool = False
    derived: bool = False
    deprecated: str = ""

    @property
    def has_default(self) -> bool:
        """Whether a value of its own stands where none is given."""
        return self.default is not MISSING and self.default is not None


def prop(
    description: str,
    *,
    default: Any = MISSING,
    default_factory: Callable[[], Any] | None = None,
    secret: bool = False,
    replaces: bool = False,
    derived: bool = False,
    deprecated: str = "",
) -> Any:
    """A property, as a field of a dataclass.

    ``secret``: always kept secret, given or answered. ``replaces``: another value takes another resource, since the
    cloud cannot change it in place. ``derived``: an input that no program gives, since the resource's check fills it
    in; programs see it among the outputs.
    """
    metadata = {_METADATA: _Said(description, secret, replaces, derived, deprecated)}
    if default_factory is not None:
        return dataclasses.field(default_factory=default_factory, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@typing.dataclass_transform(frozen_default=True, field_specifiers=(prop,))
def declared(declaring: type[T]) -> type[T]:
    """A frozen, slotted dataclass whose fields are all properties. Raises TypeError for a field that is none."""
    made = dataclass(frozen=True, slots=True)(declaring)
    for field in dataclasses.fields(made):  # type: ignore[arg-type]  # it is a dataclass now
        if not isinstance(field.metadata.get(_METADATA), _Said):
            raise TypeError(f"{made.__qualname__}.{field.name} is not declared by prop()")
    return made


_known: dict[type, Mapping[str, Property]] = {}


def properties(declaring: type) -> Mapping[str, Property]:
    """The properties of what is ``declared``, by their names, in order. Raises TypeError for a type that no property
    may have."""
    if declaring not in _known:
        _known[declaring] = _properties(declaring)
    return _known[declaring]


def _properties(declaring: type) -> Mapping[str, Property]:
    hints = typing.get_type_hints(declaring)
    found = {}
    for field in dataclasses.fields(declaring):
        said: _Said = field.metadata[_METADATA]
        kind, optional = _kind(hints[field.name], f"{declaring.__qualname__}.{field.name}")
        default = field.default
        if field.default_factory is not MISSING:
            default = field.default_factory()
        name = camel(field.name)
        found[name] = Property(
            name=name,
            attribute=field.name,
            kind=kind,
            description=said.description,
            required=default is MISSING,
            optional=optional,
            default=default,
            secret=said.secret,
            replaces=said.replaces,
            derived=said.derived,
            deprecated=said.deprecated,
        )
    return found


def description_of(declaring: type) -> str:
    """A type's own words, unwrapped to one paragraph a line."""
    told = inspect.cleandoc(declaring.__doc__ or "")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in told.split("\n\n"))


def camel(name: str) -> str:
    """``keep_warm`` -> ``keepWarm``; a last underline, as in ``set_``, is there for Python alone."""
    first, *others = name.rstrip("_").split("_")
    return first + "".join(other[:1].upper() + other[1:] for other in others)


def token_of(declaring: type[Nested] | type[StrEnum]) -> str:
    """A nested type's or an enum's name in the schema."""
    module = declaring.MODULE if issubclass(declaring, Nested) else "index"
    return f"{PACKAGE}:{module}:{declaring.__name__}"


_SCALARS: Mapping[Any, Scalar] = {
    str: Scalar.STRING,
    int: Scalar.INTEGER,
    float: Scalar.NUMBER,
    bool: Scalar.BOOLEAN,
    Any: Scalar.ANY,
}


def _kind(hint: Any, where: str) -> tuple[Kind, bool]:
    """The kind that a type hint says, and whether None may stand for it."""
    origin = typing.get_origin(hint)
    arguments = typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        others = [each for each in arguments if each is not type(None)]
        if len(others) != 1 or len(others) == len(arguments):
            raise TypeError(f"{where}: {hint} is more than one type")
        return _kind(others[0], where)[0], True
    if hint in _SCALARS:
        return _SCALARS[hint], False
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return ListOf(_kind(arguments[0], where)[0]), False
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping) and arguments[0] is str:
        return MapOf(_kind(arguments[1], where)[0]), False
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return EnumOf(hint), False
    if isinstance(hint, type) and issubclass(hint, Nested) and dataclasses.is_dataclass(hint):
        return ObjectOf(hint), False
    raise TypeError(f"{where}: {hint} is no type of a property")
