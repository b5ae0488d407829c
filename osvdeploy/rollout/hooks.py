"""Hooks, as they were declared: programs and addresses that are asked at stages of a rollout. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from osvdeploy.cloud.interfaces import HookAction


class HookFailure(StrEnum):
    """What a hook's failure means on the way up: as a gate that failed, or a warning."""

    FAIL = "fail"
    WARN = "warn"


@dataclass(frozen=True, slots=True)
class Hook:
    """``on`` are the names of the stages that it is asked at; ``timeout`` in seconds."""

    name: str
    action: HookAction
    on: tuple[str, ...]
    timeout: float = 60.0
    on_failure: HookFailure = HookFailure.FAIL
