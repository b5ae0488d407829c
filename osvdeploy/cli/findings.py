"""Findings for people, as a table, and for programs."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING, Any, Final

from osvdeploy.cli.tables import wrapped_table

if TYPE_CHECKING:
    from osvdeploy.checks import Finding, Judged

_WIDTH_IN_A_PIPE: Final = 160


def findings_text(judged: Judged) -> str:
    """A table of the findings, what is refused first, and how many there are; empty where there is none."""
    rows = [_row("refused", finding, finding.cure) for finding in judged.refused]
    rows += [_row("warning", finding, finding.cure) for finding in judged.warned]
    rows += [_row("allowed", finding, f"allowed: {reason}") for finding, reason in judged.allowed]
    if not rows:
        return ""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else _WIDTH_IN_A_PIPE
    counted = ((len(judged.refused), "refused"), (len(judged.warned), "warned of"), (len(judged.allowed), "allowed"))
    told = ", ".join(f"{count} {what}" for count, what in counted if count)
    return wrapped_table(("", "RULE", "SUBJECT", "WHAT", "CURE"), rows, width=width) + f"\n\nfindings: {told}"


def findings_document(judged: Judged) -> list[dict[str, Any]]:
    """The ``findings`` of docs/json.md."""
    return [
        *(_document(finding, "refused") for finding in judged.refused),
        *(_document(finding, "warned") for finding in judged.warned),
        *(_document(finding, "allowed", reason) for finding, reason in judged.allowed),
    ]


def _row(judgement: str, finding: Finding, cure: str) -> tuple[str, ...]:
    return judgement, finding.rule, finding.subject, f"{finding.what}. {finding.why}", cure


def _document(finding: Finding, judgement: str, reason: str | None = None) -> dict[str, Any]:
    return {
        "rule": finding.rule,
        "severity": finding.severity.value,
        "subject": finding.subject,
        "what": finding.what,
        "why": finding.why,
        "cure": finding.cure,
        "source": finding.source,
        "judgement": judgement,
        "reason": reason,
    }
