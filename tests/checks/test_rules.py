"""All rules together."""

from __future__ import annotations

from pathlib import Path

import pytest

from osvdeploy.checks import links, lint, preflight, programs
from osvdeploy.checks.rules import RULES, require_known
from osvdeploy.errors import UsageError


def test_no_two_rules_share_a_name() -> None:
    """A waiver means one rule."""
    assert len(RULES) == sum(len(each.RULES) for each in (links, lint, preflight, programs))


def test_every_rule_is_documented() -> None:
    """docs/spec.md has each with its line; where one lacks, this shows the row to put there."""
    documented = (Path(__file__).parents[2] / "docs" / "spec.md").read_text()
    missing = [row for name, told in RULES.items() if (row := f"| `{name}` | {told} |") not in documented]
    assert missing == []


def test_an_unknown_rule_is_refused_with_the_nearest() -> None:
    """Wherever it stands."""
    with pytest.raises(UsageError, match=r"--force: there is no rule 'disk-drivr'; did you mean 'disk-driver'\?"):
        require_known(["disk-size", "disk-drivr"], where="--force")
