"""What differs between two values of one declaration, property by property. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

from osvdeploy.provider.declare import Kind, ListOf, MapOf, ObjectOf, properties
from osvdeploy.provider.parsing import formatted, joined
from osvdeploy.provider.values import UNKNOWN, Value, is_known, revealed


class ChangeKind(Enum):
    ADD = "add"
    DELETE = "delete"
    UPDATE = "update"


@dataclass(frozen=True, slots=True)
class Change:
    """One property that is to become another. ``replaces``: by another resource, since it cannot be changed in place.
    ``of_inputs``: what is shown is old inputs against new ones, else the old state against new inputs."""

    path: str
    kind: ChangeKind = ChangeKind.UPDATE
    replaces: bool = False
    of_inputs: bool = False

    @property
    def property(self) -> str:
        """The top-level property that it is part of."""
        return self.path.partition(".")[0].partition("[")[0]


def changes(old: object, new: object) -> tuple[Change, ...]:
    """What differs between two instances of one dataclass, in the order of its properties. What is unknown in ``new``
    counts as another value: nobody can say that it is the same."""
    return tuple(_of_object(type(new), _plain(old), _plain(new), "", False))


def _plain(instance: object) -> Mapping[str, Value]:
    return {name: revealed(value) for name, value in formatted(instance).items()}


def _of_object(
    declared: type, old: Mapping[str, Value], new: Mapping[str, Value], path: str, replaces: bool
) -> Iterator[Change]:
    for name, each in properties(declared).items():
        where = joined(path, name)
        yield from _of_value(each.kind, old.get(name), new.get(name), where, replaces or each.replaces)


def _of_value(kind: Kind, old: Value, new: Value, path: str, replaces: bool) -> Iterator[Change]:
    # Missing and empty are one: a program that leaves a list out means the same as one that gives none.
    if (old == new and is_known(new)) or (_is_nothing(old) and _is_nothing(new)):
        return
    if old is None or new is None:
        yield Change(path, ChangeKind.ADD if old is None else ChangeKind.DELETE, replaces)
    elif old is UNKNOWN or new is UNKNOWN:
        yield Change(path, ChangeKind.UPDATE, replaces)
    elif isinstance(kind, ObjectOf) and isinstance(old, Mapping) and isinstance(new, Mapping):
        yield from _of_object(kind.type, old, new, path, replaces)
    elif isinstance(kind, MapOf) and isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in [*old, *(name for name in new if name not in old)]:
            yield from _of_value(kind.item, old.get(name), new.get(name), joined(path, name), replaces)
    elif isinstance(kind, ListOf) and isinstance(old, list) and isinstance(new, list):
        for index in range(max(len(old), len(new))):
            before = old[index] if index < len(old) else None
            after = new[index] if index < len(new) else None
            yield from _of_value(kind.item, before, after, f"{path}[{index}]", replaces)
    else:
        yield Change(path, ChangeKind.UPDATE, replaces)


def _is_nothing(value: Value) -> bool:
    return value is None or (isinstance(value, list | Mapping) and not value)
