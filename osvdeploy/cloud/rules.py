"""A place's own documents of what scales a group, as text that is kept and given to another group.

Numbers may be fractions here (a target of 0.6), which canonical JSON has not: nothing but the place that wrote a
document reads it again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from osvdeploy.cloud.interfaces import Scaling
from osvdeploy.context import Context
from osvdeploy.events import Warned


def written(rules: Mapping[str, Any], own: Mapping[str, str], others: Mapping[str, str] = MappingProxyType({})) -> str:
    """The text of a group's rules, equal for equal ones. ``own`` are names that the group alone has, each by what
    stands in its place: the same rules of two groups are then the same text. ``others`` is what stands in the place of
    further names of it, by these. Names are replaced in their order, ``others`` first."""
    return json.dumps(
        _replaced(rules, {**others, **{name: mark for mark, name in own.items()}}),
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=False,
    )


def read(text: str, own: Mapping[str, str]) -> dict[str, Any]:
    """The rules, as those of a group with these names."""
    found = _replaced(json.loads(text), own)
    return found if isinstance(found, dict) else {}


def _replaced(value: Any, words: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        for word, instead in words.items():
            value = value.replace(word, instead)
        return value
    if isinstance(value, Mapping):
        return {key: _replaced(each, words) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_replaced(each, words) for each in value]
    return value


def told_fitting(ctx: Context, group: str, scaling: Scaling, size: int) -> Scaling:
    """What scales a group of ``size`` machines so that it is not made smaller than it is to be, which is told."""
    most = scaling.most(size)
    if most != scaling.maximum:
        ctx.report(
            Warned(
                f"{group}: has {size} machines, and what is to scale it a maximum of {scaling.maximum}; it gets one of "
                f"{most}, so that none of those that are needed is taken away",
                hint="lower it again where fewer are enough",
            )
        )
    return replace(scaling, maximum=most)
