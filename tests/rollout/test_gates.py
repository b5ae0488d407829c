"""Metric gates, judged: what is proven, what may be chance, what is missing."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osvdeploy.cloud.interfaces import CloudWatchMetric, CommandMetric, Sample, Statistic
from osvdeploy.rollout.gates import (
    MULTIPLES,
    Bound,
    Compared,
    Gate,
    GateStage,
    NoData,
    Reading,
    Verdict,
    evidence_against,
    evidence_between,
    judge,
)

BEGAN = datetime(2030, 1, 1, 12, tzinfo=UTC)
ERRORS = CloudWatchMetric("HTTPCode_Target_5XX_Count", "RequestCount", Statistic.SUM)
LATENCY = CloudWatchMetric("TargetResponseTime", None, Statistic.P99)
GATE = Gate("errors", ERRORS, (Bound(0.01),), (GateStage.STEP, GateStage.BAKE), interval=60.0, delay=120.0)
SLOW = replace(GATE, name="latency", metric=LATENCY, bounds=(Bound(0.5),))
AGAINST = replace(GATE, bounds=(Bound(2.0, compared=Compared.RATIO),))


def counts(*pairs: tuple[float, float]) -> list[Sample]:
    return [Sample(BEGAN + timedelta(minutes=number), value, of) for number, (value, of) in enumerate(pairs)]


def values(*found: float) -> list[Sample]:
    return [Sample(BEGAN + timedelta(minutes=number), value) for number, value in enumerate(found)]


# ------------------------------------------------------------------------------------------------- counts: evidence

rates = st.floats(0.001, 0.2)
requests = st.integers(1, 400)


@given(st.lists(st.tuples(st.integers(0, 8), requests), min_size=1, max_size=8), rates)
def test_evidence_is_the_mean_of_poissons_likelihood_ratios(pairs: list[tuple[int, int]], limit: float) -> None:
    """As it is when every interval's probabilities are written out and multiplied."""
    ratios = [
        math.prod(math.exp(_poisson(count, multiple * limit * of) - _poisson(count, limit * of)) for count, of in pairs)
        for multiple in MULTIPLES
    ]
    assert evidence_against(Bound(limit), counts(*pairs)) == pytest.approx(
        math.log(sum(ratios) / len(ratios)), rel=1e-6, abs=1e-6
    )


def _poisson(count: int, mean: float) -> float:
    return count * math.log(mean) - mean - math.lgamma(count + 1)


@given(requests, rates, st.floats(0.0, 1.0))
def test_a_rate_within_its_bound_is_not_expected_to_give_evidence(of: int, limit: float, share: float) -> None:
    """Summed over all that may be counted of requests that fail or do not, at any rate up to the bound: 1 at most."""
    found = [evidence_against(Bound(limit), counts((count, of))) for count in range(of + 1)]
    assert _expected(found, share * limit) <= 1 + 1e-9


@given(requests, st.floats(0.5, 0.999), st.floats(0.0, 1.0))
def test_likewise_a_rate_above_its_least(of: int, limit: float, share: float) -> None:
    """Of successes, say, that are to be many."""
    found = [evidence_against(Bound(limit, upper=False), counts((count, of))) for count in range(of + 1)]
    assert _expected(found, limit + share * (1 - limit)) <= 1 + 1e-9


def _expected(evidence: Sequence[float], chance: float) -> float:
    """The mean of evidence by the table of the binomial distribution; ``evidence`` is its logarithm, by the count."""
    of = len(evidence) - 1
    if chance in (0.0, 1.0):
        return math.exp(evidence[round(chance) * of])
    return sum(
        math.exp(math.log(math.comb(of, count)) + count * math.log(chance) + (of - count) * math.log1p(-chance) + found)
        for count, found in enumerate(evidence)
    )


@given(st.integers(0, 30), requests, requests, st.floats(0.2, 5.0), st.booleans(), st.floats(0.0, 1.0))
def test_errors_that_are_shared_out_by_requests_give_no_evidence_against_stable(
    errors: int, mine: int, theirs: int, limit: float, upper: bool, share: float
) -> None:
    """Whoever's each error is: by the table of the binomial distribution, at the bound and on its good side."""
    at_bound = limit * mine / (limit * mine + theirs)
    chance = share * at_bound if upper else at_bound + share * (1 - at_bound)
    bound = Bound(limit, upper, Compared.RATIO)
    found = [evidence_between(bound, counts((own, mine)), counts((errors - own, theirs))) for own in range(errors + 1)]
    expected = _expected(found, chance)
    assert expected <= 1 + 1e-9
    if chance == at_bound:
        assert expected == pytest.approx(1.0)


@given(st.integers(1, 60), requests, requests, st.floats(0.2, 5.0))
def test_what_fails_against_stable_fails_the_exact_conditional_test_too(
    errors: int, mine: int, theirs: int, limit: float
) -> None:
    """At one look, by the tail of Przyborowski and Wilenski's test: what is proven at 0.95 has a p-value of 0.05 at
    most."""
    chance = limit * mine / (limit * mine + theirs)
    bound = Bound(limit, compared=Compared.RATIO)
    rejected = [
        own
        for own in range(errors + 1)
        if evidence_between(bound, counts((own, mine)), counts((errors - own, theirs))) >= math.log(20)
    ]
    if rejected:
        tail = sum(
            math.comb(errors, own) * chance**own * (1 - chance) ** (errors - own)
            for own in range(min(rejected), errors + 1)
        )
        assert rejected == list(range(min(rejected), errors + 1)), "more errors, more evidence"
        assert tail <= 0.05 + 1e-9


def test_looking_at_every_minute_does_not_fail_more_good_releases_than_was_said() -> None:
    """Of 500 hours at exactly the bound, looked at 60 times each, at most one in twenty fails."""
    draw = random.Random(7)
    failed = 0
    for _ in range(500):
        count = of = 0
        for _ in range(60):
            of += 50
            count += sum(draw.random() < 0.02 for _ in range(50))
            if evidence_against(Bound(0.02), counts((count, of))) >= math.log(20):
                failed += 1
                break
    assert 0 < failed <= 25


def test_common_trouble_is_held_against_nobody() -> None:
    """A database that fails both alike: 30 % of all requests, and the candidate has 5 % of them."""
    candidate, stable = counts((15, 50), (14, 50), (16, 50)), counts((285, 950), (280, 950), (290, 950))
    assert judge(AGAINST, candidate, stable, over=False).verdict is Verdict.UNDECIDED
    assert judge(AGAINST, candidate, stable, over=True).verdict is Verdict.PASSED
    assert judge(GATE, candidate, over=False).verdict is Verdict.FAILED


# --------------------------------------------------------------------------------------------------------- verdicts


def test_what_is_proven_fails_at_once() -> None:
    """Before min-samples are there: evidence says by itself whether there is enough of it."""
    judged = judge(GATE, counts((31, 2400)), over=False)
    assert judged.verdict is Verdict.UNDECIDED
    judged = judge(GATE, counts((310, 2400)), over=False)
    assert judged.verdict is Verdict.FAILED
    assert judged.told.startswith("310 of 2,400, 0.129; max 0.01, 1 samples: proven at 0.95")


def test_a_few_errors_of_few_requests_prove_nothing() -> None:
    """One of twenty is five per cent and may be chance: at the end a person decides."""
    few = counts((1, 20), (0, 10), (0, 20))
    assert judge(GATE, few, over=False).verdict is Verdict.UNDECIDED
    judged = judge(GATE, few, over=True)
    assert judged.verdict is Verdict.INCONCLUSIVE
    assert "1 of 50, 0.02; max 0.01" in judged.told
    assert "may be chance" in judged.told


def test_one_error_where_none_may_be_fails() -> None:
    none = replace(GATE, bounds=(Bound(0.0),))
    assert judge(none, counts((0, 500)), over=False).verdict is Verdict.UNDECIDED
    assert judge(none, counts((0, 500), (1, 500)), over=False).verdict is Verdict.FAILED


@given(st.lists(st.tuples(st.integers(0, 20), requests), min_size=3, max_size=8))
def test_within_its_bound_it_passes_at_the_end(pairs: list[tuple[int, int]]) -> None:
    """And never before; over it, it fails or is not decided, and never passes."""
    samples = counts(*pairs)
    assert judge(GATE, samples, over=False).verdict in (Verdict.UNDECIDED, Verdict.FAILED)
    held = sum(count for count, _ in pairs) <= 0.01 * sum(of for _, of in pairs)
    verdict = judge(GATE, samples, over=True).verdict
    assert (verdict is Verdict.PASSED) is held


@given(st.lists(st.floats(0, 1), min_size=3, max_size=9), st.booleans())
def test_of_other_numbers_more_than_half_decide(found: list[float], upper: bool) -> None:
    """Beyond the bound: failed; within it: passed; exactly half: inconclusive."""
    gate = replace(SLOW, bounds=(Bound(0.5, upper),))
    out = sum(value > 0.5 if upper else value < 0.5 for value in found)
    expected = (
        Verdict.FAILED
        if out * 2 > len(found)
        else Verdict.INCONCLUSIVE if out * 2 == len(found) else Verdict.PASSED
    )  # fmt: skip
    assert judge(gate, values(*found), over=True).verdict is expected
    early = judge(gate, values(*found), over=False).verdict
    assert early is (Verdict.FAILED if expected is Verdict.FAILED else Verdict.UNDECIDED)


def test_one_outlier_decides_nothing() -> None:
    judged = judge(SLOW, values(0.2, 90.0, 0.2), over=True)
    assert judged == replace(judged, verdict=Verdict.PASSED, told="1 of 3 samples beyond max 0.5; median 0.2")


def test_other_numbers_do_not_decide_before_there_are_enough() -> None:
    assert judge(SLOW, values(9.0, 9.0), over=False).verdict is Verdict.UNDECIDED
    assert judge(SLOW, values(9.0, 9.0, 9.0), over=False).verdict is Verdict.FAILED


@pytest.mark.parametrize(
    ("bound", "candidate", "verdict"),
    [
        (Bound(1.2, compared=Compared.RATIO), (0.11, 0.21, 0.31), Verdict.PASSED),
        (Bound(1.2, compared=Compared.RATIO), (0.2, 0.3, 0.31), Verdict.FAILED),
        (Bound(0.05, compared=Compared.DIFFERENCE), (0.12, 0.24, 0.5), Verdict.PASSED),
        (Bound(0.05, compared=Compared.DIFFERENCE), (0.3, 0.4, 0.5), Verdict.FAILED),
        (Bound(0.5, False, Compared.RATIO), (0.01, 0.01, 0.3), Verdict.FAILED),
        (Bound(-0.1, False, Compared.DIFFERENCE), (0.1, 0.15, 0.25), Verdict.PASSED),
    ],
)
def test_stable_of_the_same_minute_is_what_counts(bound: Bound, candidate: Sequence[float], verdict: Verdict) -> None:
    """Both get slower through the day; each sample is held to stable's own at that time."""
    gate = replace(SLOW, bounds=(bound,))
    judged = judge(gate, values(*candidate), values(0.1, 0.2, 0.3), over=True)
    assert judged.verdict is verdict
    assert "stable 0.2" in judged.told


def test_a_minute_that_stable_has_not_is_no_sample() -> None:
    gate = replace(SLOW, bounds=(Bound(1.2, compared=Compared.RATIO),))
    judged = judge(gate, values(0.1, 0.1, 0.1), values(0.1, 0.1), over=True)
    assert (judged.verdict, judged.told) == (Verdict.FAILED, "2 of 3 samples; no-data = fail")


@pytest.mark.parametrize(
    ("no_data", "verdict"),
    [
        (NoData.FAIL, Verdict.FAILED),
        (NoData.PASS, Verdict.PASSED),
        (NoData.INCONCLUSIVE, Verdict.INCONCLUSIVE),
    ],
)
def test_no_data_means_what_was_declared(no_data: NoData, verdict: Verdict) -> None:
    """At the end, and with the source's own words; until then nothing is decided."""
    gate = replace(GATE, no_data=no_data)
    assert judge(gate, (), over=False, trouble="refused").verdict is Verdict.UNDECIDED
    judged = judge(gate, (), over=True, trouble="AWS refused GetMetricData")
    assert judged.verdict is verdict
    assert judged.told == f"0 of 3 samples: AWS refused GetMetricData; no-data = {no_data}"


def test_what_is_proven_fails_where_no_data_would_pass() -> None:
    gate = replace(GATE, no_data=NoData.PASS)
    assert judge(gate, counts((50, 100)), over=True).verdict is Verdict.FAILED


def test_a_window_forgets_what_was_before_it() -> None:
    """A release that goes bad after a good hour is found by its last minutes."""
    hour = counts(*[(0, 100)] * 60, *[(6, 100)] * 3)
    assert judge(GATE, hour, over=False).verdict is Verdict.UNDECIDED
    judged = judge(replace(GATE, window=180.0), hour, over=False)
    assert judged.verdict is Verdict.FAILED
    assert "18 of 300" in judged.told


def test_both_bounds_count() -> None:
    gate = replace(SLOW, bounds=(Bound(0.5), Bound(0.1, upper=False)))
    assert judge(gate, values(0.2, 0.3, 0.4), over=True).verdict is Verdict.PASSED
    assert judge(gate, values(0.01, 0.01, 0.4), over=True).verdict is Verdict.FAILED
    assert judge(gate, values(0.7, 0.6, 0.4), over=True).verdict is Verdict.FAILED


# -------------------------------------------------------------------------------------------------------- intervals


@given(st.floats(0, 7200), st.floats(0, 7200), st.sampled_from([5.0, 60.0, 300.0]), st.integers(1, 10))
def test_a_bake_is_measured_in_whole_intervals(entered: float, bake: float, interval: float, samples: int) -> None:
    """They begin on the clock's own, none before the bake, and are as many as it has or the gate asks for."""
    gate = replace(GATE, interval=interval, min_samples=samples)
    began = BEGAN + timedelta(seconds=entered)
    grid = gate.grid(began, bake)
    assert grid.begin.timestamp() % interval == 0
    assert timedelta(0) <= grid.begin - began < timedelta(seconds=interval)
    assert grid.count == samples or grid.end <= began + timedelta(seconds=bake)
    assert grid.end + timedelta(seconds=interval) > began + timedelta(seconds=bake)


def test_only_what_is_over_and_told_by_then_is_read() -> None:
    """An interval that is still going on, or of which not all is published, would look better than it is."""
    grid = GATE.grid(BEGAN + timedelta(seconds=10), 600.0)
    assert (grid.begin, grid.count) == (BEGAN + timedelta(seconds=60), 9)

    def readable(seconds: float) -> int:
        return GATE.readable(grid, BEGAN + timedelta(seconds=seconds)).count

    assert [readable(0), readable(239), readable(240), readable(300), readable(9999)] == [0, 0, 1, 2, 9]


def test_a_gate_is_over_when_all_could_be_read_or_was_waited_for_long_enough() -> None:
    """With enough samples at the first look that could have had all; else what is late has a minute more."""
    grid = GATE.grid(BEGAN, 300.0)

    def over(seconds: float, samples: int) -> bool:
        return GATE.over(grid, Reading(BEGAN, 5, BEGAN + timedelta(seconds=seconds)), samples)

    assert (over(419, 3), over(420, 3)) == (False, True)
    assert (over(479, 2), over(480, 2)) == (False, True)


def test_what_nobody_was_there_to_ask_for_is_measured_later() -> None:
    """Where the source tells only what is now; others are asked for what was."""
    command = replace(GATE, metric=CommandMetric(("./rate",)))
    grid = command.grid(BEGAN, 300.0)
    assert command.extended(grid, BEGAN) == grid
    assert command.extended(grid, None) == grid
    assert command.extended(grid, BEGAN + timedelta(seconds=1000)).count == 20
    assert GATE.extended(grid, BEGAN + timedelta(seconds=1000)) == grid


def test_what_a_command_printed_cannot_be_asked_for_again() -> None:
    assert GATE.remembered
    assert not replace(GATE, metric=CommandMetric(("./rate",))).remembered
