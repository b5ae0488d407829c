"""Metric gates, judged: samples in, a verdict and its figures out. Pure.

**Counts** (errors of requests) are judged by evidence. A *test martingale* is kept for the hypothesis that the bound
holds: the likelihood of what was counted if the rate were so many times the bound, over that at the bound, averaged
over some multiples (:data:`MULTIPLES`). Where the bound holds its expectation never rises, so that by Ville's
inequality it ever comes to 1/(1-confidence) with a probability of at most 1-confidence, **however often one looks**: a
rollout looks each minute, and fails at the first proof. Against a bound counts are taken for Poisson's, which errs on
the side of the release where each request has one outcome (binomial). Against stable each error is a draw: were the
rates at the bound, it would be the candidate's with a probability that follows from the requests each has had in that
very interval. So what hits both alike is held against nobody, and no rate has to be known. Sources: Robbins,
"Statistical methods related to the law of the iterated logarithm" (1970), mixtures; Ville (1939); Przyborowski and
Wilenski, "Homogeneity of results in testing samples from Poisson series" (1940), the conditional test. What it cannot
know: errors that come in bursts are more alike than independent ones, so it is too sure of them.

What is over its bound at the end of the bake, and not proven to be, is *inconclusive*.

**Other numbers** (latencies, gauges) follow no distribution that anybody knows, and there is a handful of them. No test
is done: each sample is in its bounds or not, against stable by what stable had in the same interval, and more than half
decide. So one outlier decides nothing. Rejected: Mann-Whitney with an effect size. Of three samples against three its
p-value is 0.05 at best, successive minutes are not independent, and each further look at it adds to the error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from osvdeploy.cloud.interfaces import CommandMetric, Grid, JsonMetric, Metric, Sample

MULTIPLES = (1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0)
"""How many times its bound a rate is supposed to be, each with the same weight. A rate between two of them is proven
nearly as soon; one of 1.1 times its bound takes long."""


GRACE = 60.0
"""Seconds at least that are waited for samples which come later than was said, or a source that does not answer."""


class GateStage(StrEnum):
    """When a gate is judged: while a release bakes with a share of the traffic, or with all of it."""

    STEP = "step"
    BAKE = "bake"


class NoData(StrEnum):
    """What it means that there are fewer samples at the end than were asked for."""

    FAIL = "fail"
    PASS = "pass"
    INCONCLUSIVE = "inconclusive"


class Compared(StrEnum):
    """What is held to a bound: the number itself, or the candidate's against stable's."""

    VALUE = "value"
    RATIO = "ratio"
    DIFFERENCE = "difference"


@dataclass(frozen=True, slots=True)
class Bound:
    """The most (``upper``) or the least that may be."""

    limit: float
    upper: bool = True
    compared: Compared = Compared.VALUE

    def holds(self, candidate: float, stable: float = 0.0) -> bool:
        match self.compared:
            case Compared.VALUE:
                allowed = self.limit
            case Compared.RATIO:
                allowed = self.limit * stable
            case Compared.DIFFERENCE:
                allowed = self.limit + stable
        return candidate <= allowed if self.upper else candidate >= allowed

    def __str__(self) -> str:
        most = "max" if self.upper else "min"
        return f"{most}{'' if self.compared is Compared.VALUE else f'-{self.compared}'} {self.limit:g}"


@dataclass(frozen=True, slots=True)
class Gate:
    """A metric gate, as it was declared. Times in seconds; ``window`` None counts from the beginning of the bake."""

    name: str
    metric: Metric
    bounds: tuple[Bound, ...]
    on: tuple[GateStage, ...]
    interval: float
    delay: float
    window: float | None = None
    min_samples: int = 3
    no_data: NoData = NoData.FAIL
    confidence: float = 0.95
    dry_run: bool = False

    @property
    def against_stable(self) -> bool:
        return any(bound.compared is not Compared.VALUE for bound in self.bounds)

    @property
    def fails_unread(self) -> bool:
        """Whether a release fails where nothing can be read of it."""
        return not self.dry_run and self.no_data is NoData.FAIL

    @property
    def remembered(self) -> bool:
        """Whether its source can be asked again for what was: if not, samples have to be kept."""
        return not isinstance(self.metric, JsonMetric | CommandMetric)

    def grid(self, entered: datetime, bake: float) -> Grid:
        """The intervals of a bake that are whole, and as many as the gate asks for where these are fewer."""
        since = entered.timestamp()
        first = math.ceil(since / self.interval) * self.interval
        whole = int(max(0.0, since + bake - first) // self.interval)
        return Grid(datetime.fromtimestamp(first, entered.tzinfo), self.interval, max(whole, self.min_samples))

    def extended(self, grid: Grid, since: datetime | None) -> Grid:
        """The grid, long enough for samples that are taken from ``since`` on: what a source does not remember, and
        nobody was there to ask for, is lost."""
        if self.remembered or since is None:
            return grid
        before = max(0, math.ceil((since - grid.begin).total_seconds() / self.interval))
        return Grid(grid.begin, grid.interval, max(grid.count, before + self.min_samples))

    def readable(self, grid: Grid, now: datetime) -> Grid:
        """What of a grid can be read by now."""
        passed = (now - grid.begin).total_seconds() - self.delay
        count = int(max(0.0, passed) // self.interval)
        return Grid(grid.begin, grid.interval, min(count, grid.count))

    def over(self, grid: Grid, reading: Reading, samples: int) -> bool:
        """Whether no more is to be waited for than a reading told, which made so many samples: all of the grid could be
        read by then, and what is late has had its time."""
        end = grid.end + timedelta(seconds=self.delay)
        late = end + timedelta(seconds=max(self.interval, GRACE))
        return reading.at >= (end if samples >= self.min_samples else late)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a gate's source told at ``at`` of the first ``count`` intervals from ``begin`` on. ``trouble``: why it told
    nothing then; what it had told before is here still. ``fresh``: just now."""

    begin: datetime
    count: int
    at: datetime
    candidate: tuple[Sample, ...] = ()
    stable: tuple[Sample, ...] = ()
    trouble: str = ""
    fresh: bool = False


class Verdict(StrEnum):
    UNDECIDED = "undecided"
    PASSED = "passed"
    FAILED = "failed"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict, and the figures that it stands on, in a sentence."""

    verdict: Verdict
    told: str


_WORST = (Verdict.FAILED, Verdict.INCONCLUSIVE, Verdict.UNDECIDED, Verdict.PASSED)


def judge(
    gate: Gate, candidate: Sequence[Sample], stable: Sequence[Sample] = (), *, over: bool, trouble: str = ""
) -> Judgement:
    """Judge a gate by the samples so far, in the order of time. ``over``: no more will come. ``trouble``: why there are
    none, where the source has said so."""
    candidate = _within(gate, candidate)
    if gate.against_stable:
        times = {sample.at for sample in stable}
        candidate = [sample for sample in candidate if sample.at in times]
        times = {sample.at for sample in candidate}
        stable = [sample for sample in stable if sample.at in times]
    found = [_by_bound(gate, bound, candidate, stable, over=over, trouble=trouble) for bound in gate.bounds]
    # What is not decided yet may still fail, and nothing worse can follow from it.
    order = _WORST if over else (Verdict.FAILED, Verdict.UNDECIDED, Verdict.INCONCLUSIVE, Verdict.PASSED)
    verdict = min((each.verdict for each in found), key=order.index)
    told = dict.fromkeys(each.told for each in found if each.verdict is verdict or verdict is Verdict.PASSED)
    return Judgement(verdict, "; ".join(told))


def _within(gate: Gate, samples: Sequence[Sample]) -> list[Sample]:
    if gate.window is None or not samples:
        return list(samples)
    oldest = samples[-1].at - timedelta(seconds=gate.window - gate.interval)
    return [sample for sample in samples if sample.at >= oldest]


def _by_bound(
    gate: Gate, bound: Bound, candidate: Sequence[Sample], stable: Sequence[Sample], *, over: bool, trouble: str
) -> Judgement:
    counted = [sample for sample in candidate if sample.of is not None]
    if counted:
        failed, told = _counts(gate, bound, counted, [sample for sample in stable if sample.of is not None])
    else:
        failed, told = _majority(bound, candidate, stable)
    proven = failed is True and (bool(counted) or len(candidate) >= gate.min_samples)
    if proven:
        return Judgement(Verdict.FAILED, told)
    if not over:
        return Judgement(Verdict.UNDECIDED, told if candidate else _missing(gate, candidate, trouble, over=False))
    if len(candidate) < gate.min_samples:
        verdict = {
            NoData.FAIL: Verdict.FAILED,
            NoData.PASS: Verdict.PASSED,
            NoData.INCONCLUSIVE: Verdict.INCONCLUSIVE,
        }[gate.no_data]
        return Judgement(verdict, _missing(gate, candidate, trouble, over=True))
    return Judgement(Verdict.PASSED if failed is False else Verdict.INCONCLUSIVE, told)


def _missing(gate: Gate, candidate: Sequence[Sample], trouble: str, *, over: bool) -> str:
    told = f"{len(candidate)} of {gate.min_samples} samples"
    if trouble:
        told += f": {trouble}"
    if over:
        told += f"; no-data = {gate.no_data}"
    return told


# ------------------------------------------------------------------------------------------------------------- counts


def _counts(gate: Gate, bound: Bound, candidate: Sequence[Sample], stable: Sequence[Sample]) -> tuple[bool | None, str]:
    """Whether counts break a bound (None: it may be chance), in figures."""
    evidence = (
        evidence_against(bound, candidate)
        if bound.compared is Compared.VALUE
        else evidence_between(bound, candidate, stable)
    )
    needed = -math.log1p(-gate.confidence)
    count, of = _pooled(candidate)
    told = f"{_figure(count)} of {_figure(of)}, {_share(count, of)}"
    their_count, their_of = _pooled(stable)
    if bound.compared is Compared.VALUE:
        held = bound.holds(count / of if of else 0.0)
    else:
        told += f", stable {_figure(their_count)} of {_figure(their_of)}, {_share(their_count, their_of)}"
        # Without a division, which nothing of stable's could be done by.
        held = bound.holds(count * their_of, their_count * of)
    told += f"; {bound}, {len(candidate)} samples"
    if evidence >= needed:
        return True, f"{told}: proven at {gate.confidence:g} ({_times(evidence)} to 1)"
    if held:
        return False, told
    return None, f"{told}: may be chance ({_times(evidence)} to 1 of {_times(needed)} needed)"


def evidence_against(bound: Bound, samples: Sequence[Sample]) -> float:
    """Logarithm of the evidence that a rate is beyond its bound: a mixture of Poisson likelihood ratios."""
    count, of = _pooled(samples)
    expected = bound.limit * of
    if bound.upper and expected == 0:
        return math.inf if count > 0 else 0.0
    return _mixture(bound, lambda multiple: count * math.log(multiple) - (multiple - 1) * expected)


def evidence_between(bound: Bound, candidate: Sequence[Sample], stable: Sequence[Sample]) -> float:
    """Logarithm of the evidence that the candidate's rate is beyond ``limit`` times stable's: each error is a draw
    between the two, interval by interval. An interval in which one of them had no requests tells nothing."""
    pairs = [(mine, theirs) for mine, theirs in zip(candidate, stable, strict=True) if mine.of and theirs.of]

    def ratio(multiple: float) -> float:
        total = 0.0
        for mine, theirs in pairs:
            share = bound.limit * (mine.of or 0.0)
            draws = math.log(share + (theirs.of or 0.0)) - math.log(multiple * share + (theirs.of or 0.0))
            total += mine.value * math.log(multiple) + (mine.value + theirs.value) * draws
        return total

    return _mixture(bound, ratio)


def _mixture(bound: Bound, ratio: Callable[[float], float]) -> float:
    """Logarithm of the mean of likelihood ratios, given by their logarithms."""
    found = [ratio(multiple if bound.upper else 1 / multiple) for multiple in MULTIPLES]
    most = max(found)
    return most + math.log(sum(math.exp(each - most) for each in found) / len(found))


def _pooled(samples: Sequence[Sample]) -> tuple[float, float]:
    return sum(sample.value for sample in samples), sum(sample.of or 0.0 for sample in samples)


# ---------------------------------------------------------------------------------------------------- other numbers


def _majority(bound: Bound, candidate: Sequence[Sample], stable: Sequence[Sample]) -> tuple[bool | None, str]:
    """Whether more than half of the samples break a bound (None: exactly half), in figures."""
    theirs = {sample.at: sample.value for sample in stable}
    out = [sample for sample in candidate if not bound.holds(sample.value, theirs.get(sample.at, 0.0))]
    told = f"{len(out)} of {len(candidate)} samples beyond {bound}"
    if candidate:
        told += f"; median {_median(candidate)}"
        told += f", stable {_median(stable)}" if stable else ""
    if len(out) * 2 == len(candidate):
        return None, told
    return len(out) * 2 > len(candidate), told


def _median(samples: Sequence[Sample]) -> str:
    values = sorted(sample.value for sample in samples)
    half = len(values) // 2
    return _figure(values[half] if len(values) % 2 else (values[half - 1] + values[half]) / 2)


# -------------------------------------------------------------------------------------------------------- in figures


def _figure(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.4g}"


def _share(count: float, of: float) -> str:
    return f"{count / of:.3g}" if of else "nothing"


def _times(evidence: float) -> str:
    if evidence >= math.log(1000):
        return "over 1,000"
    odds = math.exp(evidence)
    return f"{odds:.0f}" if odds >= 10 else f"{odds:.1f}"
