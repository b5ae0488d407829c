"""Health checks of a target group: what a check's end does to a target's health. Pure.

Who performs a check is not decided here: :func:`perform` asks a runner, which may take real time; the ELBv2 service
keeps when the next one is due. Sources: Elastic Load Balancing, "Health checks for Application Load Balancer target
groups" (thresholds, the first passing check, matcher), API reference of TargetHealth (states, reason codes).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import lru_cache

from osvdeploy.sandbox.dataplane import TargetState
from osvdeploy.sandbox.runners import GuestAnswer, GuestRequest, NoAnswer, Runner


class Outcome(StrEnum):
    """How one health check ended."""

    STATUS = "status"
    TIMEOUT = "timeout"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One health check's end; ``status`` where an HTTP answer came."""

    outcome: Outcome
    status: int = 0


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """How a target group checks its targets. ``port`` None is the port traffic goes to; times in seconds."""

    path: str = "/"
    port: int | None = None
    interval: int = 30
    timeout: int = 5
    healthy: int = 5
    unhealthy: int = 2
    codes: str = "200"

    def passes(self, result: CheckResult) -> bool:
        return result.outcome is Outcome.STATUS and result.status in accepted_codes(self.codes)


@lru_cache(maxsize=256)
def accepted_codes(matcher: str) -> frozenset[int]:
    """``"200"``, ``"200,202"``, ``"200-299"`` and mixtures of them. Raises ValueError for anything else or a code
    outside 200-499, the range of an Application Load Balancer."""
    codes: set[int] = set()
    for part in matcher.split(","):
        first, dash, last = part.partition("-")
        if not re.fullmatch(r"\d{3}", first) or (dash and not re.fullmatch(r"\d{3}", last)):
            raise ValueError(matcher)
        low, high = int(first), int(last or first)
        if not 200 <= low <= high <= 499:
            raise ValueError(matcher)
        codes.update(range(low, high + 1))
    return frozenset(codes)


@dataclass(frozen=True, slots=True)
class TargetHealth:
    """A target's state with the API's reason code and description; ``passed`` and ``failed`` count checks in a row."""

    state: TargetState
    reason: str = ""
    description: str = ""
    passed: int = 0
    failed: int = 0
    first: bool = True
    """No check has passed or decided yet: one pass is enough."""


REGISTERING = TargetHealth(TargetState.INITIAL, "Elb.RegistrationInProgress", "Target registration is in progress")
CHECKING = TargetHealth(TargetState.INITIAL, "Elb.InitialHealthChecking", "Initial health checks in progress")
NOT_IN_USE = TargetHealth(
    TargetState.UNUSED,
    "Target.NotInUse",
    "Target group is not configured to receive traffic from the load balancer",
)
NOT_REGISTERED = TargetHealth(
    TargetState.UNUSED, "Target.NotRegistered", "Target is not registered to the target group"
)
DEREGISTERING = TargetHealth(
    TargetState.DRAINING, "Target.DeregistrationInProgress", "Target deregistration is in progress"
)


def stopped(instance_state: str) -> TargetHealth:
    """A registered instance that does not run."""
    return TargetHealth(TargetState.UNUSED, "Target.InvalidState", f"Target is in the {instance_state} state")


def after_check(health: TargetHealth, check: HealthCheck, result: CheckResult) -> TargetHealth:
    """A target's health after one more check.

    A newly registered target is healthy after one passing check; later changes need the thresholds ("Health checks
    for your target groups"). Targets that are draining or unused are not checked: they stay as they are. It is counted
    no further than to the threshold, so that what stays well stays the same.
    """
    if health.state in (TargetState.DRAINING, TargetState.UNUSED):
        return health
    if check.passes(result):
        passed = health.passed + 1
        if health.state is TargetState.HEALTHY or health.first or passed >= check.healthy:
            return TargetHealth(TargetState.HEALTHY, passed=min(passed, check.healthy), first=False)
        return TargetHealth(health.state, health.reason, health.description, passed=passed, first=health.first)
    failed = health.failed + 1
    if health.state is TargetState.UNHEALTHY or failed >= check.unhealthy:
        reason, description = _why(result)
        return TargetHealth(
            TargetState.UNHEALTHY, reason, description, failed=min(failed, check.unhealthy), first=False
        )
    return TargetHealth(health.state, health.reason, health.description, failed=failed, first=health.first)


def _why(result: CheckResult) -> tuple[str, str]:
    match result.outcome:
        case Outcome.STATUS:
            return "Target.ResponseCodeMismatch", f"Health checks failed with these codes: [{result.status}]"
        case Outcome.TIMEOUT:
            return "Target.Timeout", "Request timed out"
        case Outcome.FAILED:
            return "Target.FailedHealthChecks", "Health checks failed"


def perform(
    runner: Runner,
    guest_id: str,
    address: str,
    port: int,
    check: HealthCheck,
    now: datetime,
    agent: str = "ELB-HealthChecker/2.0",
) -> CheckResult:
    """Do one check: GET the path, as a balancer's node does. May block for the check's timeout."""
    headers = (("Host", f"{address}:{port}"), ("Connection", "close"), ("User-Agent", agent))
    answer = runner.ask(guest_id, address, port, GuestRequest("GET", check.path, headers), check.timeout, now)
    match answer:
        case GuestAnswer(status=status):
            return CheckResult(Outcome.STATUS, status)
        case NoAnswer.TIMEOUT:
            return CheckResult(Outcome.TIMEOUT)
        case _:
            return CheckResult(Outcome.FAILED)
