"""What is wrong with a spec, in our words and with its line. Only errors ask for it: nothing here costs a good spec."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from osvdeploy.errors import Problem, SpecError
from osvdeploy.spec.boot import shown
from osvdeploy.spec.keys import Path, keys_of, kind_at, later, nearest
from osvdeploy.spec.lines import line_of, lines_of
from osvdeploy.spec.table import UNION, Elsewhere, Inside

OVERRIDE = "--set"


@dataclass(frozen=True, slots=True)
class Found:
    """One thing that is wrong; ``overridden`` where it came by ``--set`` and stands in no line."""

    path: Path
    message: str
    overridden: bool = False


def found_in(error: ValidationError) -> Iterator[Found]:
    """The model's errors in our words."""
    for each in error.errors(include_url=False):
        # pydantic marks a dict's bad key by "[key]" after it; in the file it is that key itself.
        path = tuple(part for part in each["loc"] if part != "[key]" and not str(part).startswith(UNION))
        cloud = ""
        if path[:1] == ("deploy",) and len(each["loc"]) > 2 and each["loc"][2] != "[key]":
            # And it tells the cloud by which it has chosen an environment's keys.
            cloud, path = str(path[2]), (*path[:2], *path[3:])
        raised = each.get("ctx", {}).get("error")
        if isinstance(raised, Elsewhere):
            yield from (Found((*path, table, key), message) for table, key, message in raised.places)
        elif isinstance(raised, Inside):
            yield from (Found((*path, key), message) for key, message in raised.problems)
        elif each["type"].startswith("union_tag"):
            yield Found((*path, "cloud"), _of_cloud(each))
        else:
            yield Found(path, _told(each, path, cloud))


def spec_error(problems: Iterable[Found], text: str, file: str, overridden: Sequence[Path] = ()) -> SpecError:
    """All of them, in the order of the file, without what only follows from another at the same place."""
    lines = lines_of(text)
    told: dict[tuple[Path, str], Problem] = {}
    for each in problems:
        by_set = each.overridden or any(each.path[: len(path)] == path for path in overridden)
        line = None if by_set else line_of(each.path, lines)
        problem = Problem(OVERRIDE if by_set else file, line, dotted(each.path), each.message)
        told.setdefault((each.path, each.message if not each.path else ""), problem)
    return SpecError(sorted(told.values(), key=lambda problem: (problem.line is None, problem.line or 0)))


def dotted(path: Path) -> str:
    """A path as one writes it: ``files[1].to``, ``deploy."a b".port``."""
    written = ""
    for part in path:
        if isinstance(part, int):
            written += f"[{part}]"
        else:
            name = part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else json.dumps(part[:60])
            written += f".{name}" if written else name
    return written


def unknown(path: Path, cloud: str = "") -> str:
    """What to say of a key that the model does not have, at least for an environment of this cloud."""
    if reason := later(path, cloud):
        return f"is not supported: {reason}"
    return f"unknown key{nearest(str(path[-1]), keys_of(kind_at(path[:-1], cloud)))}"


def _of_cloud(error: ErrorDetails) -> str:
    """What to say of an environment without a cloud that there is."""
    if error["type"] == "union_tag_not_found":
        return "is missing"
    allowed = str(error["ctx"]["expected_tags"]).replace("'", '"')
    return f"{shown(error['input']['cloud'])} is not supported; allowed: {allowed}"


_EXPECTED = {
    "dict_type": "a table",
    "list_type": "an array",
    "model_type": "a table",
    "model_attributes_type": "a table",
    "string_type": "a string",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
}


def _told(error: ErrorDetails, path: Path, cloud: str) -> str:
    given, context = error.get("input"), error.get("ctx", {})
    match error["type"]:
        case "extra_forbidden":
            return unknown(path, cloud)
        case "missing":
            return "is missing"
        case "value_error":
            return _one_line(str(context["error"]))
        case "literal_error":
            allowed = str(context["expected"]).replace("'", '"')
            return f"{shown(given)} is not supported; allowed: {allowed}"
        case "string_type" if isinstance(given, int | float) and not isinstance(given, bool):
            return f"should be a string, not a number: put {shown(given)} in quotes"
        case "string_too_short" | "too_short":
            return "is empty"
        case kind if kind in _EXPECTED:
            return f"should be {_EXPECTED[kind]}, not {_of_toml(given)}"
        case _:
            message = error["msg"].replace("Input should be", "should be")
            return _one_line(f"{message[:1].lower()}{message[1:]}, not {shown(given)}")


def _of_toml(value: object) -> str:
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else shown(value)


def _one_line(message: str) -> str:
    """Whatever was in it: a problem is one line of a report."""
    return message if message.isprintable() else " ".join(message.split())
