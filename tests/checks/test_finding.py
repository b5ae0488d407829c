"""What becomes of findings."""

from __future__ import annotations

from dataclasses import replace

import pytest

from osvdeploy.checks import Finding, Severity, judge
from osvdeploy.errors import CheckFailed

ERROR = Finding(
    rule="needs-nvme",
    severity=Severity.ERROR,
    subject="production",
    what="t3.nano has NVMe disks alone, and this kernel has no driver for them",
    why="it would never find its disk",
    cure="build a kernel with conf_drivers_nvme=1",
    source="drivers/nvme.cc",
)
WARNING = replace(ERROR, rule="vga-console", severity=Severity.WARNING)


def test_an_error_refuses_and_a_warning_does_not() -> None:
    """What is known refuses; what is only believed is told."""
    judged = judge([ERROR, WARNING])
    assert (judged.refused, judged.warned, judged.allowed) == ((ERROR,), (WARNING,), ())
    with pytest.raises(CheckFailed, match="needs-nvme") as refused:
        judged.require()
    assert refused.value.hint == ERROR.cure
    judge([WARNING]).require()


def test_strict_refuses_warnings_too() -> None:
    """Under --strict nothing is only told."""
    assert judge([WARNING], strict=True).refused == (WARNING,)


def test_one_rule_is_overridden_by_its_name_and_no_other() -> None:
    """--force and a waiver name a rule; both are kept with their reason, and the rest stands."""
    judged = judge([ERROR, WARNING], waived={"vga-console": "a person looks at it"}, forced=["needs-nvme"], strict=True)
    assert judged.refused == ()
    assert judged.allowed == ((ERROR, "forced"), (WARNING, "a person looks at it"))


def test_several_refusals_are_told_at_once() -> None:
    """All that is refused stands in the one error, each with its rule, and the hint names how to go on."""
    second = replace(ERROR, rule="needs-ena", cure="build a kernel with conf_drivers_ena=1")
    with pytest.raises(CheckFailed) as refused:
        judge([ERROR, second]).require()
    assert len(refused.value.problems) == 2
    assert refused.value.hint is not None
    assert "--force needs-nvme --force needs-ena" in refused.value.hint
