"""The keys of osv.toml, walked by path: what may stand where. Read off the model, so that each is listed once."""

from __future__ import annotations

from typing import Annotated, Any, Final, get_args, get_origin

from pydantic import BaseModel

from osvdeploy.spec.model import Spec

Path = tuple[str | int, ...]

_STEPS = "this version shifts all traffic at once, by blue-green"
_EBS = "this version publishes to the region of the deployment, without encryption"
_AWS = 'this version deploys to cloud = "aws" alone'

# Keys of which the documentation of later versions, or of a neighbour, may speak: nearest names would mislead.
_LATER: Final[dict[tuple[str, ...], str]] = {
    ("publish", "aws", "regions"): _EBS,
    ("publish", "aws", "encrypted"): _EBS,
    ("publish", "aws", "share"): _EBS,
    ("publish", "aws", "deprecate-after"): _EBS,
    ("publish", "gcp"): "this version publishes to AWS alone",
    ("deploy", "*", "gates"): "this version judges by health, preview probe and boot log alone",
    ("deploy", "*", "strategy", "steps"): _STEPS,
    ("deploy", "*", "default-action"): "this version takes its traffic by a rule, `route`",
    ("deploy", "*", "zone"): _AWS,
    ("deploy", "*", "machine-type"): _AWS,
    ("deploy", "*", "url-map"): _AWS,
    ("deploy", "*", "memory"): _AWS,
}


def later(path: Path) -> str | None:
    """Why this version has no such key, where it is one that others know."""
    names = tuple(part for part in path if isinstance(part, str))
    if names[:1] == ("deploy",) and len(names) > 2:
        names = ("deploy", "*", *names[2:])
    return _LATER.get(names)


def kind_at(path: Path) -> Any:
    """The type of what stands at a path, None where nothing can."""
    kind: Any = Spec
    for part in path:
        kind = inner(kind, part)
    return kind


def inner(kind: Any, part: str | int) -> Any:
    """What stands at ``part`` of a value of this kind: a model's field, a list's element, a dict's value; or None."""
    if is_table(kind):
        fields = {field.alias or name: field.annotation for name, field in kind.model_fields.items()}
        return plain(fields.get(str(part)))
    arguments = get_args(kind)
    return plain(arguments[-1]) if get_origin(kind) in (dict, list) else None


def is_table(kind: Any) -> bool:
    """Whether it is a table with fixed keys."""
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def is_array(kind: Any) -> bool:
    return get_origin(kind) is list


def holds_many(kind: Any) -> bool:
    """Whether it is an array, or a table with keys of the user's own."""
    return get_origin(kind) in (dict, list)


def keys_of(kind: Any) -> list[str]:
    """The keys that a value of this kind may have, in the model's order."""
    return [field.alias or name for name, field in kind.model_fields.items()] if is_table(kind) else []


def plain(kind: Any) -> Any:
    """The type alone: ``Model`` of ``Model | None``, ``str`` of ``Annotated[str, ...]``."""
    if get_origin(kind) is Annotated:
        return plain(get_args(kind)[0])
    others = [each for each in get_args(kind) if each is not type(None)]
    return plain(others[0]) if type(None) in get_args(kind) and len(others) == 1 else kind


def nearest(name: str, known: list[str]) -> str:
    """What to say of a name that is not known: the nearest one, and all that are allowed."""
    import difflib

    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    meant = f" (did you mean {close[0]!r}?)" if close else ""
    return f"{meant}; allowed: {', '.join(known)}" if known else meant
