"""Hooks and notifications, as they were declared: who is asked at stages of a rollout, and who is told of it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from osvdeploy.cloud.interfaces import HookAction, NoticeTarget


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


@dataclass(frozen=True, slots=True)
class Notify:
    """``on`` are the names of the sorts of news that the target is told."""

    target: NoticeTarget
    on: tuple[str, ...]
