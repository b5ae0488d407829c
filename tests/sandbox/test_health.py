"""How checks change a target's health."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from osvdeploy.sandbox.dataplane import TargetState
from osvdeploy.sandbox.health import (
    CHECKING,
    DEREGISTERING,
    NOT_IN_USE,
    CheckResult,
    HealthCheck,
    Outcome,
    TargetHealth,
    accepted_codes,
    after_check,
)

PASS = CheckResult(Outcome.STATUS, 200)
FAIL = CheckResult(Outcome.STATUS, 500)
CHECK = HealthCheck(interval=5, timeout=2, healthy=3, unhealthy=2)


def after(health: TargetHealth, *results: CheckResult, check: HealthCheck = CHECK) -> TargetHealth:
    for result in results:
        health = after_check(health, check, result)
    return health


def test_one_pass_makes_a_new_target_healthy() -> None:
    """The healthy threshold does not hold for a target that was just registered, even after a failure."""
    assert after(CHECKING, PASS).state is TargetState.HEALTHY
    assert after(CHECKING, FAIL, PASS).state is TargetState.HEALTHY


def test_later_changes_need_the_thresholds() -> None:
    """Two failures in a row make it unhealthy, three passes in a row healthy again; one in between starts over."""
    assert after(CHECKING, PASS, FAIL).state is TargetState.HEALTHY
    assert after(CHECKING, PASS, FAIL, PASS, FAIL).state is TargetState.HEALTHY
    sick = after(CHECKING, PASS, FAIL, FAIL)
    assert sick.state is TargetState.UNHEALTHY
    assert after(sick, PASS, PASS, FAIL, PASS, PASS).state is TargetState.UNHEALTHY
    assert after(sick, PASS, PASS, PASS).state is TargetState.HEALTHY


@pytest.mark.parametrize(
    ("result", "reason", "description"),
    [
        (FAIL, "Target.ResponseCodeMismatch", "Health checks failed with these codes: [500]"),
        (CheckResult(Outcome.TIMEOUT), "Target.Timeout", "Request timed out"),
        (CheckResult(Outcome.FAILED), "Target.FailedHealthChecks", "Health checks failed"),
    ],
)
def test_why_a_target_is_unhealthy(result: CheckResult, reason: str, description: str) -> None:
    """The reason names what the last check met."""
    sick = after(CHECKING, result, result)
    assert (sick.state, sick.reason, sick.description) == (TargetState.UNHEALTHY, reason, description)


def test_what_stays_well_or_sick_stays_the_same() -> None:
    """It is counted to the threshold and no further: nothing has to be written for it."""
    well = after(CHECKING, PASS, PASS, PASS)
    assert after(well, PASS, PASS) == well
    sick = after(well, FAIL, FAIL)
    assert after(sick, FAIL, FAIL) == sick


def test_what_is_not_checked_stays_as_it_is() -> None:
    """A late result changes nothing on a target that is draining or unused."""
    assert after(DEREGISTERING, PASS) == DEREGISTERING
    assert after(NOT_IN_USE, FAIL, FAIL) == NOT_IN_USE


@given(st.lists(st.sampled_from([PASS, FAIL]), max_size=30), st.integers(2, 10), st.integers(2, 10))
@settings(max_examples=100, deadline=None)
def test_a_flip_needs_its_threshold(results: list[CheckResult], healthy: int, unhealthy: int) -> None:
    """Whatever came before: a target that turns unhealthy just failed that often in a row, and one that turns
    healthy again just passed that often."""
    check = HealthCheck(healthy=healthy, unhealthy=unhealthy)
    health = CHECKING
    for index, result in enumerate(results):
        before, health = health, after_check(health, check, result)
        if before.state is health.state:
            continue
        wanted = unhealthy if health.state is TargetState.UNHEALTHY else 1 if before.first else healthy
        assert set(results[max(0, index + 1 - wanted) : index + 1]) == {result}
        assert index + 1 >= wanted


@pytest.mark.parametrize(
    ("matcher", "inside", "outside"), [("200", 200, 201), ("200,404", 404, 403), ("200-299", 299, 300)]
)
def test_matchers(matcher: str, inside: int, outside: int) -> None:
    """A matcher is a code, a list or a range."""
    assert inside in accepted_codes(matcher)
    assert outside not in accepted_codes(matcher)


@pytest.mark.parametrize("matcher", ["", "abc", "199", "200-", "299-200", "500", "200,", "2000"])
def test_bad_matchers(matcher: str) -> None:
    """Anything else, and codes outside 200-499, is refused."""
    with pytest.raises(ValueError, match="^" + matcher):
        accepted_codes(matcher)
