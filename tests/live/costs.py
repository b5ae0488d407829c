"""What a live run may cost, by the table in docs/live.md, before anything is made."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.live.settings import Account

PAGE = Path(__file__).parents[2] / "docs" / "live.md"

_ROW = re.compile(
    r"\| `(?P<key>[a-z0-9-]+)` \| (?P<price>[0-9.]+) \| (?P<unit>[^|]+) \| (?P<source>[^|]+) \| (?P<date>[^|]+) \|"
)


@dataclass(frozen=True, slots=True)
class Price:
    """What one ``unit`` of something costs, in USD; where that is said, and when it was looked up."""

    usd: float
    unit: str
    source: str
    date: str


@functools.cache
def prices(page: Path = PAGE) -> Mapping[str, Price]:
    """The table's rows, by their keys."""
    found = [match for line in page.read_text().splitlines() if (match := _ROW.match(line))]
    return {
        match["key"]: Price(
            float(match["price"]), match["unit"].strip(), match["source"].strip(), match["date"].strip()
        )
        for match in found
    }


@dataclass(frozen=True, slots=True)
class Makes:
    """What one test makes at most, by prices' keys.

    ``minutes`` is how long it takes on an account, ``each`` what it uses for itself, in the prices' units, ``shared``
    how many things it needs that all tests share, each paid for by the hour. ``guests``: it starts machines, which need
    a kernel.
    """

    account: Account
    minutes: float
    each: Mapping[str, float] = field(default_factory=dict)
    shared: Mapping[str, float] = field(default_factory=dict)
    guests: bool = False


@dataclass(frozen=True, slots=True)
class Estimate:
    """``usd`` for ``tests``, which take ``hours``."""

    usd: float
    hours: float
    tests: int


def estimate(made: Iterable[Makes]) -> Estimate:
    """Of tests that run one after the other. What is shared is paid for by the hour begun, while its tests run."""
    made = list(made)
    table = prices()
    usd = sum(table[key].usd * amount for each in made for key, amount in each.each.items())
    for account in Account:
        ours = [each for each in made if each.account is account]
        hours = math.ceil(sum(each.minutes for each in ours) / 60)
        shared: dict[str, float] = {}
        for each in ours:
            shared |= {key: max(amount, shared.get(key, 0)) for key, amount in each.shared.items()}
        usd += sum(table[key].usd * amount * hours for key, amount in shared.items())
    return Estimate(usd, sum(each.minutes for each in made) / 60, len(made))


def within(budget: float, suites: Mapping[str, list[Makes]]) -> tuple[list[str], list[str]]:
    """The suites that fit into a budget, the cheapest first, and those that it leaves out."""
    fit: list[str] = []
    for name in sorted(suites, key=lambda name: estimate(suites[name]).usd):
        if estimate(each for taken in [*fit, name] for each in suites[taken]).usd > budget:
            break
        fit.append(name)
    return sorted(fit), sorted(set(suites) - set(fit))
