"""Properties -> the dataclass that declares them, and back; every problem at once, each with its path."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import MISSING, dataclass, field
from typing import Any, TypeVar

from osvdeploy.provider.declare import EnumOf, Kind, ListOf, MapOf, ObjectOf, Property, Scalar, properties
from osvdeploy.provider.values import UNKNOWN, Properties, Secret, Value, has_secrets, revealed

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Failure:
    """What is wrong with one property. ``path`` as Pulumi writes it: ``health.path``, ``files[0].from``,
    ``tags["a b"]``; empty for the whole."""

    path: str
    reason: str


@dataclass(slots=True)
class Parser:
    """Parses values of declared kinds and collects what is wrong.

    ``texts``: configuration, where the engine hands everything over as a text (``"3"``, ``"true"``, objects as JSON).
    ``lenient``: what the provider itself wrote, maybe an older version of it: what is missing or not understood is
    UNKNOWN, and nothing fails.
    """

    texts: bool = False
    lenient: bool = False
    failures: list[Failure] = field(default_factory=list)

    def parse(self, declaring: type[T], given: Properties, path: str = "", ignored: Collection[str] = ()) -> T:
        """The dataclass with what was given; only of use where ``failures`` stays empty."""
        known = properties(declaring)
        values: dict[str, Any] = {}
        for name, each in known.items():
            value = revealed(given[name]) if name in given else None
            values[each.attribute] = self._property(each, value, joined(path, name))
        if not self.lenient:
            for name in given:
                if name not in known and name not in ignored and not name.startswith("__") and given[name] is not None:
                    self._fail(joined(path, name), _unknown(name, known))
        return declaring(**values)

    def _property(self, each: Property, value: Value, path: str) -> Any:
        if value is None:
            if each.default is not MISSING:
                return each.default
            if not self.lenient:
                self._fail(path, "is required, and was left out")
            return UNKNOWN
        return self._value(each.kind, value, path)

    def _value(self, kind: Kind, value: Value, path: str) -> Any:
        if value is UNKNOWN:
            return UNKNOWN
        if self.texts and isinstance(value, str):
            value = _of_text(kind, value)
        match kind:
            case ListOf():
                if not isinstance(value, list):
                    return self._fail(path, "is no list")
                return tuple(self._value(kind.item, each, f"{path}[{index}]") for index, each in enumerate(value))
            case MapOf():
                if not isinstance(value, Mapping):
                    return self._fail(path, "is no map")
                return {
                    name: self._value(kind.item, each, joined(path, name))
                    for name, each in value.items()
                    if each is not None
                }
            case ObjectOf():
                if not isinstance(value, Mapping):
                    return self._fail(path, f"is no object with {', '.join(properties(kind.type))}")
                return self.parse(kind.type, value, path)
            case EnumOf():
                try:
                    return kind.type(str(value))
                except ValueError:
                    return self._fail(path, f"is none of {', '.join(each.value for each in kind.type)}")
            case Scalar.ANY:
                return _whole(value)
            case Scalar.STRING:
                return value if isinstance(value, str) else self._fail(path, "is no text")
            case Scalar.BOOLEAN:
                return value if isinstance(value, bool) else self._fail(path, "is neither true nor false")
            case Scalar.INTEGER | Scalar.NUMBER:
                if isinstance(value, bool) or not isinstance(value, int | float):
                    return self._fail(path, "is no number")
                if kind is Scalar.NUMBER:
                    return float(value)
                return int(value) if float(value).is_integer() else self._fail(path, "is no whole number")
        raise AssertionError(kind)

    def _fail(self, path: str, reason: str) -> Any:
        """Note what is wrong. No reason repeats a value: it may be secret."""
        if not self.lenient:
            self.failures.append(Failure(path, reason))
        return UNKNOWN


def _whole(value: Value) -> Value:
    """JSON as a program wrote it: a Struct has no integers."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return {name: _whole(each) for name, each in value.items()}
    return [_whole(each) for each in value] if isinstance(value, list) else value


def joined(path: str, name: str) -> str:
    """The path of a part, as Pulumi writes it."""
    if not re.fullmatch(r"[A-Za-z_$][\w$]*", name, re.ASCII):
        quoted = name.replace("\\", "\\\\").replace('"', '\\"')
        return f'{path}["{quoted}"]'
    return f"{path}.{name}" if path else name


def formatted(instance: object) -> dict[str, Value]:
    """The properties of a dataclass: what is None is left out, what is declared secret is wrapped."""
    found: dict[str, Value] = {}
    for name, each in properties(type(instance)).items():
        value = _formatted(each.kind, getattr(instance, each.attribute))
        if value is not None:
            found[name] = Secret(value) if each.secret else value
    return found


def _formatted(kind: Kind, value: Any) -> Value:
    if value is None or value is UNKNOWN:
        return value
    match kind:
        case ListOf():
            return [_formatted(kind.item, each) for each in value]
        case MapOf():
            return {name: _formatted(kind.item, each) for name, each in value.items()}
        case ObjectOf():
            return formatted(value)
        case EnumOf():
            return str(value.value)
        case _:
            return value  # type: ignore[no-any-return]  # as it was parsed


def wrapped_as(given: Value, value: Value) -> Value:
    """A value with the secrets that ``given``, of the same shape as far as it goes, has in it: so that what was given
    as a secret is answered as one."""
    if isinstance(given, Secret):
        return value if isinstance(value, Secret) else Secret(value)
    if isinstance(given, Mapping) and isinstance(value, Mapping):
        return {name: wrapped_as(given.get(name), each) for name, each in value.items()}
    if isinstance(given, list) and isinstance(value, list):
        if len(given) == len(value):
            return [wrapped_as(old, new) for old, new in zip(given, value, strict=True)]
        return Secret(value) if has_secrets(given) else value
    return value if not has_secrets(given) or isinstance(value, Secret) else Secret(value)


def _unknown(name: str, known: Mapping[str, Property]) -> str:
    import difflib

    close = difflib.get_close_matches(name, known, n=1)
    meant = f"; did you mean {close[0]}?" if close else f", which has {', '.join(known)}"
    return f"is no property of this{meant}"


def _of_text(kind: Kind, text: str) -> Value:
    """What a text of the configuration says; itself where it says nothing of that kind."""
    if kind is Scalar.STRING or isinstance(kind, EnumOf):
        return text
    if kind is Scalar.BOOLEAN:
        return {"true": True, "false": False}.get(text.strip().lower(), text)
    try:
        parsed: Value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return parsed
