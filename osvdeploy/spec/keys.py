"""The keys of osv.toml, walked by path: what may stand where. Read off the model, so that each is listed once."""

from __future__ import annotations

from types import UnionType
from typing import Annotated, Any, Final, Union, get_args, get_origin

from pydantic import BaseModel

from osvdeploy.spec.model import Deploy, DeployGcp, Spec

Path = tuple[str | int, ...]

_EBS = "this version publishes to the region of the deployment, without encryption"
_GCP = 'it is of an environment with cloud = "gcp"'
_AWS = 'it is of an environment with cloud = "aws"'

# Keys of which the documentation of later versions, or of a neighbour, may speak: nearest names would mislead.
_LATER: Final[dict[tuple[str, ...], str]] = {
    ("publish", "aws", "regions"): _EBS,
    ("publish", "aws", "encrypted"): _EBS,
    ("publish", "aws", "share"): _EBS,
    ("publish", "aws", "deprecate-after"): _EBS,
    ("publish", "gcp", "guest-os-features"): "an image claims what its kernel drives, and no OSv drives any of these",
    ("deploy", "*", "default-action"): "this version takes its traffic by a rule, `route`",
    ("deploy", "*", "zone"): _GCP,
    ("deploy", "*", "machine-type"): _GCP,
    ("deploy", "*", "url-map"): _GCP,
    ("deploy", "*", "forwarding-rule"): _GCP,
    ("deploy", "*", "subnetwork"): _GCP,
    ("deploy", "*", "network-tags"): _GCP,
    ("deploy", "*", "health", "slow-start"): "Google's balancers have none; let traffic rise by the strategy's steps",
    ("deploy", "*", "memory"): "this version deploys to clouds alone",
}


def later(path: Path, cloud: str = "") -> str | None:
    """Why this version has no such key, where it is one that others know; ``cloud`` is the environment's."""
    if cloud == "gcp" and len(path) == 3 and path[2] in keys_of(Deploy):
        return _AWS
    names = tuple(part for part in path if isinstance(part, str))
    if names[:1] == ("deploy",) and len(names) > 2:
        names = ("deploy", "*", *names[2:])
    return _LATER.get(names)


_ENVIRONMENTS: Final[dict[str, type[BaseModel]]] = {"aws": Deploy, "gcp": DeployGcp}


def kind_at(path: Path, cloud: str = "") -> Any:
    """The type of what stands at a path, None where nothing can; ``cloud`` is that of an environment."""
    if len(path) == 2 and path[0] == "deploy" and cloud in _ENVIRONMENTS:
        return _ENVIRONMENTS[cloud]
    kind: Any = Spec
    for part in path:
        kind = inner(kind, part)
    return kind


def inner(kind: Any, part: str | int) -> Any:
    """What stands at ``part`` of a value of this kind: a model's field, a list's element, a dict's value; or None."""
    for table in tables(kind):
        fields = {field.alias or name: field.annotation for name, field in table.model_fields.items()}
        if part in fields:
            return plain(fields[str(part)])
    if is_table(kind):
        return None
    arguments = get_args(kind)
    return plain(arguments[-1]) if get_origin(kind) in (dict, list) else None


def tables(kind: Any) -> list[type[BaseModel]]:
    """The table with fixed keys that it is, or those of which it is one; none where it is no such thing."""
    found = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    return [each for each in found if isinstance(each, type) and issubclass(each, BaseModel)]


def is_table(kind: Any) -> bool:
    """Whether it is a table with fixed keys."""
    return bool(tables(kind))


def is_array(kind: Any) -> bool:
    return get_origin(kind) is list


def holds_many(kind: Any) -> bool:
    """Whether it is an array, or a table with keys of the user's own."""
    return get_origin(kind) in (dict, list)


def keys_of(kind: Any) -> list[str]:
    """The keys that a value of this kind may have, in the model's order."""
    found = [(field.alias or name) for table in tables(kind) for name, field in table.model_fields.items()]
    return list(dict.fromkeys(found))


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
