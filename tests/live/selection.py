"""Which of the live tests that were asked for run: those that variables and budget let."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import pytest

from tests.live import settings
from tests.live.costs import Makes, estimate, within

LONGEST = 3 * 3600
"""Seconds for one test, with what it sets up and takes away: it is the Context's deadlines that end it, not this."""


def hold(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip those of the live tests that cannot run, each with its reason.

    Raises pytest.UsageError, before anything is made, where the others may cost more than the budget, and in one of
    several processes: each would have a balancer and a budget of its own.
    """
    if hasattr(config, "workerinput"):
        raise pytest.UsageError("live tests are run by one process: add -n 0")
    suites: dict[str, list[Makes]] = defaultdict(list)
    for item in items:
        mark = item.get_closest_marker("live")
        if mark is None:
            continue
        makes: Makes = mark.args[0]
        reason = _why_not(item, makes)
        item.add_marker(pytest.mark.timeout(LONGEST), append=False)
        if reason is None:
            suites[f"{item.path.stem} on {makes.account}"].append(makes)
        else:
            item.add_marker(pytest.mark.skip(reason=reason))
    if suites:
        _refuse_above(settings.budget(), suites)


def _why_not(item: pytest.Item, makes: Makes) -> str | None:
    kept = item.get_closest_marker("not_live")
    if kept is not None:
        return str(kept.args[0])
    return settings.missing(makes.account, guests=makes.guests)


def _refuse_above(budget: float, suites: Mapping[str, list[Makes]]) -> None:
    whole = estimate(each for made in suites.values() for each in made)
    if whole.usd <= budget:
        print(f"{whole.tests} live tests: at most {whole.usd:.2f} USD, in at most {whole.hours:.1f} h")
        return
    fit, out = within(budget, suites)
    told = {name: f"{name} ({estimate(suites[name]).usd:.2f} USD alone)" for name in suites}
    raise pytest.UsageError(
        f"{whole.tests} live tests may cost {whole.usd:.2f} USD, {settings.BUDGET} is {budget:.2f}: nothing was made. "
        f"The budget leaves out {', '.join(told[name] for name in out)}; "
        f"it is enough for {', '.join(told[name] for name in fit) or 'no suite'}. "
        "Name some with files or -k, or raise it"
    )
