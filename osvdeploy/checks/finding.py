"""A finding: what a rule has to say of one thing; and what waivers, ``--force`` and ``--strict`` make of many."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from osvdeploy.errors import CheckFailed


class Severity(StrEnum):
    """What a finding leads to."""

    ERROR = "error"
    """Known to fail: refused unless forced or waived by the rule's name."""
    WARNING = "warning"
    """Possible, or believed but not proved: told, and refused under ``--strict`` alone."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a rule found.

    ``rule`` is its name, by which it is forced or waived (kebab-case); ``subject`` is the thing itself, such as a guest
    path, an environment or a boot option. ``what`` is wrong with it, ``why`` that matters, ``cure`` is what to do, and
    ``source`` where it is known from: an upstream file, an API's page, a seen boot.
    """

    rule: str
    severity: Severity
    subject: str
    what: str
    why: str
    cure: str
    source: str

    def __str__(self) -> str:
        return f"{self.subject}: {self.what} [{self.rule}]"


@dataclass(frozen=True, slots=True)
class Judged:
    """Findings, sorted by what becomes of them. ``allowed`` were errors or warnings that a waiver or ``--force`` named,
    each with the reason given."""

    refused: tuple[Finding, ...]
    warned: tuple[Finding, ...]
    allowed: tuple[tuple[Finding, str], ...]

    def require(self, *, here: bool = False) -> None:
        """Raise :class:`~osvdeploy.errors.CheckFailed` when anything is refused. ``here``: `osvdeploy check` knows
        nothing of it, so that each cure is told."""
        if self.refused:
            rules = " ".join(dict.fromkeys(f"--force {finding.rule}" for finding in self.refused))
            cures = dict.fromkeys(finding.cure for finding in self.refused)
            if here:
                hint = f"{'; '.join(cures)}; to boot it all the same: {rules}"
            elif len(cures) == 1:
                hint = next(iter(cures))
            else:
                hint = f"`osvdeploy check` tells each cure; to go on all the same: {rules}, or [waive] in the spec"
            raise CheckFailed([f"{finding}: {finding.why}" for finding in self.refused], hint=hint)


def judge(
    findings: Iterable[Finding],
    *,
    waived: Mapping[str, str] | None = None,
    forced: Collection[str] = (),
    strict: bool = False,
) -> Judged:
    """Sort findings. ``waived`` maps rules to the reasons that the spec gives; ``forced`` are the rules that this call
    overrides; ``strict`` refuses warnings too."""
    refused: list[Finding] = []
    warned: list[Finding] = []
    allowed: list[tuple[Finding, str]] = []
    for finding in findings:
        if finding.rule in forced:
            allowed.append((finding, "forced"))
        elif waived and finding.rule in waived:
            allowed.append((finding, waived[finding.rule]))
        elif strict or finding.severity is Severity.ERROR:
            refused.append(finding)
        else:
            warned.append(finding)
    return Judged(tuple(refused), tuple(warned), tuple(allowed))
