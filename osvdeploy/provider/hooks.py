"""Hooks as a program declares them, and as they come back from a ledger: as of gates (:mod:`osvdeploy.provider.gates`),
the words are the spec's, what was left out is for its model to fill in, and compared is what a rollout has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from osvdeploy.cloud.interfaces import CommandHook
from osvdeploy.errors import SpecError
from osvdeploy.provider.declare import Nested, declared, prop
from osvdeploy.provider.spelling import beside_the_program, plain, spell
from osvdeploy.provider.values import UNKNOWN, is_known
from osvdeploy.rollout.hooks import HookFailure

if TYPE_CHECKING:
    from osvdeploy.rollout.hooks import Hook


class HookStage(StrEnum):
    """A stage of a rollout at which a hook is asked."""

    PREPARE = "prepare"
    BOOT = "boot"
    VERIFY = "verify"
    SHIFT = "shift"
    BAKE = "bake"
    REVERT = "revert"
    CLEAN_UP = "clean-up"
    DONE = "done"


@declared
class DeploymentHook(Nested):
    """A program or an address that is asked at certain stages of a rollout. It is given the rollout's facts as JSON."""

    MODULE: ClassVar[str] = "index"

    name: str = prop("What it is called in the record.")
    on: tuple[HookStage, ...] = prop("At which stages: prepare, boot, verify, shift, bake, revert, clean-up, done.")
    command: tuple[str, ...] | None = prop(
        "A program of this host and its arguments, as words; no shell. The facts are on its stdin; any other exit "
        "status than 0 is a failure. The provider starts it, on the machine that `pulumi up` runs on; a path with a "
        "slash is relative to the program's folder.",
        default=None,
    )
    url: str | None = prop(
        "In place of command: an address that the facts are posted to; any answer but 2xx is a failure.", default=None
    )
    headers: Mapping[str, str] | None = prop(
        "Of url: further headers of the request. None that is secret.", default=None
    )
    header_variables: Mapping[str, str] | None = prop(
        "Of url: headers whose values are in environment variables of whoever deploys, by their names.", default=None
    )
    timeout: str | None = prop("How long it may take; from 1s to 1h. Left out: 60s.", default=None)
    on_failure: HookFailure | None = prop(
        "What a failure means on the way up: as a gate that failed, or a warning. On the way back it is always a "
        "warning. Left out: fail.",
        default=None,
    )


def as_a_rollout_has_it(hook: DeploymentHook) -> Any:
    """The hook with all that follows from what it says in its place. Itself where no check has let it through; UNKNOWN
    where any of it is."""
    if not is_known(hook):
        return UNKNOWN
    from osvdeploy.api.declared import hook_for
    from osvdeploy.spec import hook_of_document

    told = plain(hook)
    assert isinstance(told, dict)
    try:
        return spelled_out(hook_for(hook_of_document(told), Path.cwd()))
    except SpecError:
        return hook


def spelled_out(hook: Hook) -> DeploymentHook:
    """A rollout's hook with everything said that it has."""
    told = DeploymentHook(
        name=hook.name,
        on=tuple(stage for stage in HookStage if stage in hook.on),
        timeout=spell(hook.timeout),
        on_failure=hook.on_failure,
    )
    action = hook.action
    if isinstance(action, CommandHook):
        program, *arguments = action.argv
        return replace(told, command=(beside_the_program(program), *arguments))
    return replace(
        told,
        url=action.url,
        headers=dict(action.headers) or None,
        header_variables=dict(action.header_variables) or None,
    )


def as_one_writes_it(hook: Hook) -> DeploymentHook:
    """A rollout's hook as a program declares it: without what follows from the rest."""
    whole = shortest = spelled_out(hook)
    for name in ("timeout", "on_failure"):
        left: dict[str, Any] = {name: None}
        tried = replace(shortest, **left)
        if as_a_rollout_has_it(tried) == whole:
            shortest = tried
    return shortest
