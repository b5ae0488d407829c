"""Reading an osv.toml: TOML, ``${NAME}``, ``--set``, the model, and every problem at once with its line."""

from __future__ import annotations

import copy
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from osvdeploy.errors import Problem, SpecError
from osvdeploy.spec.gates import Gate
from osvdeploy.spec.hooks import Hook, Notify
from osvdeploy.spec.model import Deploy, DeployGcp, Environments, Spec
from osvdeploy.spec.table import Table

if TYPE_CHECKING:
    from osvdeploy.spec.problems import Found

T = TypeVar("T", bound=Table)

_REFERENCE = re.compile(r"\$\$\{|\$\{([^}]*)(\}?)")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_WHOLE = re.compile(r"[+-]?[0-9]{1,20}")


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
        # Editors on Windows begin UTF-8 with a mark; TOML knows none.
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        hint = None if path.name != "osv.toml" else "name the spec with -f, or go to its folder"
        raise SpecError([Problem(str(path), None, "", f"cannot be read: {error.strerror}")], hint=hint) from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise SpecError([Problem(str(path), line, "", f"is not UTF-8: {error.reason}")]) from None
    except ValueError as error:
        raise SpecError([Problem(repr(str(path)), None, "", f"cannot be read: {error}")]) from None
    return parse(text, path=path, environ=environ, sets=sets)


def parse(text: str, *, path: Path, environ: Mapping[str, str], sets: Sequence[str] = ()) -> LoadedSpec:
    """The spec in a text that was read from ``path``. Raises as :func:`load` does."""
    return _loaded(_document(text, str(path)), text, path=path, environ=environ, sets=sets)


def of_document(document: Mapping[str, Any], *, base: Path, sets: Sequence[str] = (), name: str = "spec") -> LoadedSpec:
    """The spec in a document with osv.toml's keys that a program gives; its paths are relative to ``base``. Texts are
    taken as they stand: a program has its own ways to its environment. Raises as :func:`load` does, and a problem's
    file is ``name``."""
    copied: dict[str, Any] = copy.deepcopy(dict(document))
    loaded = _loaded(copied, "", path=Path(name), environ=None, sets=sets)
    return replace(loaded, base=base.resolve())


def environment_of_document(document: Mapping[str, Any], name: str) -> Deploy | DeployGcp:
    """One environment, in a document with the keys of a ``[deploy.NAME]`` that a program gives. Raises
    :class:`~osvdeploy.errors.SpecError`, whose paths begin with ``deploy.NAME``."""
    try:
        found = Environments.model_validate({"deploy": {name: dict(document)}}, by_alias=True, by_name=False)
    except ValidationError as error:
        from osvdeploy.spec.problems import found_in, spec_error

        raise spec_error(found_in(error), "", "deployment") from None
    return found.deploy[name]


def gate_of_document(document: Mapping[str, Any]) -> Gate:
    """One gate, in a document with the keys of a ``[[deploy.NAME.gates]]`` that a program gives. Raises
    :class:`~osvdeploy.errors.SpecError`."""
    return _table_of(Gate, document, "gate")


def hook_of_document(document: Mapping[str, Any]) -> Hook:
    """The same of a ``[[deploy.NAME.hooks]]``."""
    return _table_of(Hook, document, "hook")


def notify_of_document(document: Mapping[str, Any]) -> Notify:
    """The same of a ``[[deploy.NAME.notify]]``."""
    return _table_of(Notify, document, "notify")


def _table_of(table: type[T], document: Mapping[str, Any], what: str) -> T:
    try:
        return table.model_validate(dict(document), by_alias=True, by_name=False)
    except ValidationError as error:
        from osvdeploy.spec.problems import found_in, spec_error

        raise spec_error(found_in(error), "", what) from None


def _loaded(
    document: dict[str, Any], text: str, *, path: Path, environ: Mapping[str, str] | None, sets: Sequence[str]
) -> LoadedSpec:
    file = str(path)
    missing = [] if environ is None else _substitute(document, environ)
    later = [each for each in missing if len(each.path) > 2 and each.path[0] == "deploy"]
    problems = [each for each in missing if each not in later]
    overridden: list[tuple[str | int, ...]] = []
    if sets:
        problems += _override(document, sets, overridden)
        # What --set gives, the file need not.
        problems = [each for each in problems if each.overridden or each.path not in overridden]
        later = [each for each in later if each.path not in overridden]
    try:
        # By alias alone: in the file, instance_type is a mistake for instance-type.
        spec = Spec.model_validate(document, by_alias=True, by_name=False)
    except ValidationError as error:
        from osvdeploy.spec.problems import found_in, spec_error

        # In front, so that a variable that is not set is told as that, and not as what its name looks like as a value.
        raise spec_error([*problems, *later, *found_in(error)], text, file, overridden) from None
    unset: dict[str, tuple[Problem, ...]] = {}
    if problems or later:
        from osvdeploy.spec.problems import spec_error

        if problems:
            raise spec_error([*problems, *later], text, file, overridden)
        for name in dict.fromkeys(str(each.path[1]) for each in later):
            unset[name] = spec_error([each for each in later if each.path[1] == name], text, file, overridden).problems
    return LoadedSpec(spec, path, path.resolve().parent, unset)


def _document(text: str, file: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise SpecError([Problem(file, None, "", "is not TOML that can be read: nested too deeply")]) from None
    except tomllib.TOMLDecodeError as error:
        from osvdeploy.spec.lines import syntax_error

        line, told = syntax_error(error, text)
        raise SpecError([Problem(file, line, "", f"is not TOML: {told}")]) from None
    except ValueError as error:
        # int() refuses thousands of digits by an error of its own, which tomllib lets through.
        raise SpecError([Problem(file, None, "", f"is not TOML that can be read: {error}")]) from None


# ----------------------------------------------------------------------------------------------------------- ${NAME}


def _substitute(document: dict[str, Any], environ: Mapping[str, str]) -> list[Found]:
    """Replace ``${NAME}`` in every string value, in place; the problems."""
    problems: list[Found] = []
    # No recursion: dotted keys nest as deeply as one likes.
    waiting: list[tuple[Any, tuple[str | int, ...]]] = [(document, ())]
    while waiting:
        node, path = waiting.pop()
        entries = node.items() if isinstance(node, dict) else enumerate(node)
        for key, value in entries:
            if isinstance(value, dict | list):
                waiting.append((value, (*path, key)))
            elif isinstance(value, str) and "${" in value:
                node[key], wrong = _replaced(value, environ)
                if wrong:
                    from osvdeploy.spec.problems import Found

                    problems.append(Found((*path, key), wrong))
    return problems


def _replaced(value: str, environ: Mapping[str, str]) -> tuple[str, str]:
    """The value with every reference replaced, and what is wrong with them."""
    wrong: list[str] = []

    def value_of(match: re.Match[str]) -> str:
        if match[0] == "$${":
            return "${"
        name, close = match[1], match[2]
        if not close:
            wrong.append("${ is not closed by }; write $${ for a literal ${")
        elif not _NAME.fullmatch(name):
            wrong.append(f"${{{name[:40]}}} names no environment variable; write $${{ for a literal ${{")
        elif name in environ:
            return environ[name]
        else:
            wrong.append(f"${{{name}}} is not set in the environment; export {name}, or write $${{ for a literal ${{")
        return match[0]

    replaced = _REFERENCE.sub(value_of, value)
    return replaced, " ".join("; ".join(dict.fromkeys(wrong)).split())


# ------------------------------------------------------------------------------------------------------------- --set


def _override(document: dict[str, Any], sets: Sequence[str], overridden: list[tuple[str | int, ...]]) -> list[Found]:
    """Apply ``path=value`` in place, each value typed as the model has it; the problems."""
    from osvdeploy.spec.problems import Found

    problems = []
    for assignment in sets:
        written, equals, value = assignment.partition("=")
        keys = tuple(int(key) if key.isdecimal() and key.isascii() else key for key in written.strip().split("."))
        if not equals or not all(str(key) for key in keys):
            problems.append(Found((), f"{assignment!r} is not path=value, as in version=1.4.0", overridden=True))
            continue
        wrong = _set(document, keys, value)
        if wrong is None:
            overridden.append(keys)
        else:
            problems.append(Found(wrong[0], wrong[1], overridden=True))
    return problems


def _set(document: dict[str, Any], keys: tuple[str | int, ...], value: str) -> tuple[tuple[str | int, ...], str] | None:
    """Put a value at a path, making tables on the way; or where and what is wrong."""
    from osvdeploy.spec import keys as known
    from osvdeploy.spec.problems import unknown

    kind: Any = Spec
    node: Any = document
    for number, key in enumerate(keys):
        here = keys[: number + 1]
        last = number == len(keys) - 1
        if known.is_table(kind):
            if key not in known.keys_of(kind):
                return here, unknown(here)
        elif isinstance(node, list):
            if not isinstance(key, int) or key >= len(node):
                return here, f"there are {len(node)} of them, counted from 0"
        elif not last and isinstance(node, dict) and key not in node:
            there = ", ".join(node) or "none"
            return here, f"is not in the spec; there is: {there}"
        inner = known.inner(kind, key)
        if last:
            if inner is None or known.is_table(inner) or known.holds_many(inner):
                return here, _not_single(
                    inner, ".".join(map(str, here))
                ) if inner is not None else "has nothing below it"
            # A node of another kind is told by the model, which sees it unchanged.
            if isinstance(node, dict):
                node[key] = _typed(inner, here, value)
            elif isinstance(node, list):
                node[int(key)] = _typed(inner, here, value)
            return None
        if inner is None:
            return here, "has nothing below it"
        kind = inner
        if isinstance(node, dict):
            node = node.setdefault(key, [] if known.is_array(kind) else {})
        elif isinstance(node, list):
            node = node[int(key)]
    return None


def _not_single(kind: Any, here: str) -> str:
    from osvdeploy.spec import keys as known

    below = next(iter(known.keys_of(kind)), "KEY") if known.is_table(kind) else "0"
    return f"is not a single value; name one of it, as {here}.{below}"


def _typed(kind: Any, path: tuple[str | int, ...], value: str) -> object:
    """A number, or yes and no, where the model has one, else the text as it is; of a boot option, what TOML reads it
    as."""
    if kind is bool and value in ("true", "false"):
        return value == "true"
    if kind is int and _WHOLE.fullmatch(value):
        return int(value)
    if kind is Any and path[:2] == ("image", "boot"):
        try:
            parsed = tomllib.loads(f"value = {value}")["value"]
        except (ValueError, RecursionError):
            return value
        return parsed if isinstance(parsed, bool | int | float) else value
    return value
