"""All rules together."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osvdeploy.checks import links, lint, origin, preflight, programs
from osvdeploy.checks.rules import FAMILIES, RULES, nearest, require_known
from osvdeploy.errors import UsageError


def test_no_two_rules_share_a_name() -> None:
    """A waiver means one rule."""
    assert len(RULES) == sum(len(each.RULES) for each in (links, lint, origin, preflight, programs))


def test_every_rule_is_documented() -> None:
    """docs/spec.md has each with its line; where one lacks, this shows the row to put there."""
    documented = (Path(__file__).parents[2] / "docs" / "spec.md").read_text()
    missing = [row for name, told in RULES.items() if (row := f"| `{name}` | {told} |") not in documented]
    assert missing == []


def test_a_rule_is_of_one_family_and_every_family_says_who_runs_it() -> None:
    """docs/spec.md says the same of each family."""
    documented = (Path(__file__).parents[2] / "docs" / "spec.md").read_text()
    assert [name for family in FAMILIES for name in family.rules] == list(RULES)
    missing = [row for each in FAMILIES if (row := f"| {each.name} | {each.about} | {each.run_by} |") not in documented]
    assert missing == []


@pytest.mark.parametrize(
    ("meant", "near"),
    [
        ("disk-drivr", ["disk-driver"]),
        ("bootoption", ["boot-option"]),
        ("start-process", ["starts-processes"]),
        ("secret", ["secret-file-name", "secret-in-env", "secret-in-file"]),
        ("driver", ["bus-driver", "disk-driver", "network-driver"]),
        ("symbol_missing", ["symbols-missing", "symbol-missing-at-load"]),
        ("Memory", ["memory"]),
        ("nosuch", []),
        ("all", []),
        ("", []),
    ],
)
def test_an_unknown_rule_is_refused_with_those_it_may_mean(meant: str, near: list[str]) -> None:
    """By its letters and by its words; nothing is suggested that is only a little like it. The list is named."""
    assert nearest(meant) == near
    with pytest.raises(UsageError, match=f"--force: there is no rule '{meant}'") as refused:
        require_known(["disk-size", meant], where="--force")
    assert [name for name in RULES if f"'{name}'" in refused.value.message] == sorted(near)
    assert refused.value.hint == "`osvdeploy check --rules` lists them"


@given(name=st.text(max_size=300))
def test_any_word_is_answered(name: str) -> None:
    """What no rule could be called is refused too, and no rule is ever taken for another."""
    assert len(nearest(name)) <= 3
    assert nearest(name)[:1] == [name] or name not in RULES
