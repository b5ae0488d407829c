"""Every rule by name, and the refusal of a name that is none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from osvdeploy.checks import links, lint, preflight, programs
from osvdeploy.errors import UsageError

RULES: Final[Mapping[str, str]] = {**preflight.RULES, **programs.RULES, **links.RULES, **lint.RULES}
"""Name to what the rule says, in one line."""


def require_known(names: Iterable[str], *, where: str) -> None:
    """Raise UsageError for a rule that does not exist. ``where`` the names stand: ``--force``, ``[waive]``."""
    for name in names:
        if name not in RULES:
            from difflib import get_close_matches

            near = get_close_matches(name, RULES, n=1, cutoff=0.5)
            known = "the rules are " + ", ".join(sorted(RULES))
            raise UsageError(
                f"{where}: there is no rule {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""),
                hint=known,
            )
