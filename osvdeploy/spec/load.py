"""Reading an osv.toml: TOML, ``${NAME}``, ``--set``, the model, and every problem at once with its line."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from osvdeploy.errors import Problem, SpecError
from osvdeploy.spec.model import Spec

_REFERENCE = re.compile(r"\$(?:(\$)\{|\{([^}]*)\})")
_LATER = {
    ("kernel", "release"): "this version takes a kernel as `file`",
    ("kernel", "url"): "this version takes a kernel as `file`",
    ("kernel", "tree"): "this version takes a prebuilt kernel as `file`",
    ("programs",): "this version takes [[files]]",
    ("image", "modules"): "modules need a kernel built from a source tree, which this version does not do",
}


@dataclass(frozen=True, slots=True)
class LoadedSpec:
    """A spec and where it was read: ``base`` is the folder that its paths are relative to.

    ``unset`` are references in a ``[deploy.NAME]`` to variables that the environment lacks: building needs none of
    them, and deploying to one place none of another's.
    """

    spec: Spec
    path: Path
    base: Path
    unset: Mapping[str, tuple[Problem, ...]] = field(default_factory=dict)

    def require(self, environment: str) -> None:
        """Raise :class:`~osvdeploy.errors.SpecError` when ``[deploy.NAME]`` refers to variables that are not set."""
        if problems := self.unset.get(environment):
            raise SpecError(problems)


def load(path: Path, *, environ: Mapping[str, str], sets: Sequence[str] = ()) -> LoadedSpec:
    """Read a spec.

    ``environ`` gives ``${NAME}`` in any string (``$${`` is a literal ``${``); ``sets`` are ``path=value`` overrides.
    What is missing for a deployment is kept in ``unset``, for :meth:`LoadedSpec.require`.
    Raises :class:`~osvdeploy.errors.SpecError` with every problem: file, line, path, what is wrong, what is allowed.
    """
    try:
        text = path.read_bytes().decode()
    except OSError as error:
        hint = None if path.name != "osv.toml" else "name the spec with -f, or go to its folder"
        raise SpecError([Problem(str(path), None, "", f"cannot be read: {error.strerror}")], hint=hint) from None
    except UnicodeDecodeError as error:
        problem = Problem(str(path), None, "", f"is not UTF-8: byte {error.start}")
        raise SpecError([problem]) from None
    return parse(text, path=path, environ=environ, sets=sets)


def parse(text: str, *, path: Path, environ: Mapping[str, str], sets: Sequence[str] = ()) -> LoadedSpec:
    """The spec in a text that was read from ``path``. Raises as :func:`load` does."""
    file = str(path)
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        from osvdeploy.spec.lines import syntax_error

        line, told = syntax_error(error)
        raise SpecError([Problem(file, line, "", f"is not TOML: {told}")]) from None
    except RecursionError:
        raise SpecError([Problem(file, None, "", "is not TOML that can be read: nested too deeply")]) from None
    missing = [_Found(place, message, None) for place, message in _substitute(document, environ)]
    later = [each for each in missing if len(each.path) > 2 and each.path[0] == "deploy"]
    problems = [each for each in missing if each not in later]
    problems += [_Found((), message, "--set") for message in _override(document, sets)]
    try:
        spec = Spec.model_validate(document)
    except ValidationError as error:
        problems += [_found(each) for each in error.errors(include_url=False)]
    else:
        if not problems:
            unset: dict[str, tuple[Problem, ...]] = {}
            for name in dict.fromkeys(str(each.path[1]) for each in later):
                unset[name] = _spec_error([each for each in later if each.path[1] == name], text, file).problems
            return LoadedSpec(spec, path, path.resolve().parent, unset)
    raise _spec_error([*problems, *later], text, file)


# ----------------------------------------------------------------------------------------------------------- ${NAME}


def _substitute(document: dict[str, Any], environ: Mapping[str, str]) -> list[tuple[tuple[str | int, ...], str]]:
    """Replace ``${NAME}`` in every string value, in place; the problems."""
    problems: list[tuple[tuple[str | int, ...], str]] = []
    for container, key, path in _strings(document, ()):
        missing: list[str] = []

        def value_of(match: re.Match[str], missing: list[str] = missing) -> str:
            if match[1]:
                return "${"
            if match[2] in environ:
                return environ[match[2]]
            missing.append(match[2])
            return ""

        replaced = _REFERENCE.sub(value_of, container[key])
        if missing:
            names = ", ".join(f"${{{name}}}" for name in missing)
            problems.append(
                (path, f"{names} is not set in the environment; export it, or write $${{ for a literal ${{")
            )
        else:
            container[key] = replaced
    return problems


def _strings(node: Any, path: tuple[str | int, ...]) -> Iterator[tuple[Any, Any, tuple[str | int, ...]]]:
    """Every string value below, as (container, key, path)."""
    entries = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in list(entries):
        if isinstance(value, str):
            yield node, key, (*path, key)
        else:
            yield from _strings(value, (*path, key))


# ------------------------------------------------------------------------------------------------------------- --set


def _override(document: dict[str, Any], sets: Sequence[str]) -> list[str]:
    """Apply ``path=value`` in place; the problems. A value is TOML where it reads as such, else a string."""
    problems = []
    for assignment in sets:
        path, equals, value = assignment.partition("=")
        keys = path.strip().split(".")
        if not equals or not all(keys):
            problems.append(f"{assignment!r} is not path=value, as in version=1.4.0")
            continue
        table: Any = document
        for key in keys[:-1]:
            table = table.setdefault(key, {}) if isinstance(table, dict) else None
        if not isinstance(table, dict) or isinstance(table.get(keys[-1]), dict | list):
            problems.append(f"{path.strip()}: is not a scalar of the spec")
            continue
        table[keys[-1]] = _typed(value, table.get(keys[-1]))
    return problems


def _typed(value: str, old: object) -> object:
    """``true``, ``5`` and the like are what TOML reads them as, unless the value they replace is a string."""
    if isinstance(old, str):
        return value
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        return value
    # 1.4 is a version more often than a number; no key of the spec is a bare float.
    return parsed if isinstance(parsed, bool | int) else value


# ----------------------------------------------------------------------------------------------------------- problems


@dataclass(frozen=True, slots=True)
class _Found:
    path: tuple[str | int, ...]
    message: str
    file: str | None


def _found(error: ErrorDetails) -> _Found:
    """One of pydantic's errors in our words."""
    path = tuple(part for part in error["loc"] if part != "[key]")
    given = error.get("input")
    match error["type"]:
        case "extra_forbidden":
            return _Found(path, _unknown(path), None)
        case "missing":
            return _Found(path, "is missing", None)
        case "value_error":
            return _Found(path, str(error["ctx"]["error"]), None)
        case "literal_error":
            allowed = str(error["ctx"]["expected"])
            return _Found(path, f"{given!r} is not supported; allowed: {allowed.replace(chr(39), chr(34))}", None)
        case _:
            told = error["msg"][:1].lower() + error["msg"][1:]
            shown = f", not {given!r}" if isinstance(given, str | int | float | bool) else ""
            return _Found(path, told.replace("input should be", "should be") + shown, None)


def _unknown(path: tuple[str | int, ...]) -> str:
    names = tuple(part for part in path if isinstance(part, str))
    if names in _LATER:
        return f"is not supported: {_LATER[names]}"
    known = _keys_at(path[:-1])
    close = difflib.get_close_matches(str(path[-1]), known, n=1, cutoff=0.5)
    meant = f" (did you mean {close[0]!r}?)" if close else ""
    return f"unknown key{meant}; allowed: {', '.join(known)}"


def _keys_at(path: tuple[str | int, ...]) -> list[str]:
    """The keys that the table at a path may have."""
    kind: Any = Spec
    for part in path:
        kind = _inner(kind, part)
    kind = _without_none(kind)
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return [field.alias or name for name, field in kind.model_fields.items()]
    return []


def _inner(kind: Any, part: str | int) -> Any:
    """What stands at ``part`` of a value of this kind: a model's field, an element of a list, a value of a dict."""
    kind = _without_none(kind)
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        fields = {field.alias or name: field.annotation for name, field in kind.model_fields.items()}
        return fields.get(str(part))
    arguments = get_args(kind)
    return arguments[-1] if get_origin(kind) in (dict, list) else None


def _without_none(kind: Any) -> Any:
    """``Model`` of ``Model | None``."""
    others = [each for each in get_args(kind) if each is not type(None)]
    return others[0] if type(None) in get_args(kind) and len(others) == 1 else kind


def _spec_error(problems: Sequence[_Found], text: str, file: str) -> SpecError:
    from osvdeploy.spec.lines import line_of, lines_of

    lines = lines_of(text)
    told = [
        Problem(each.file or file, None if each.file else line_of(each.path, lines), _shown(each.path), each.message)
        for each in problems
    ]
    unique = dict.fromkeys(told)
    return SpecError(sorted(unique, key=lambda problem: (problem.line is None, problem.line or 0)))


def _shown(path: tuple[str | int, ...]) -> str:
    shown = ""
    for part in path:
        shown += f"[{part}]" if isinstance(part, int) else f".{part}" if shown else part
    return shown
