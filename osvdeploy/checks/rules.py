"""Every rule by name, which commands act by it, and the refusal of a name that is none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Final

from osvdeploy.checks import links, lint, origin, preflight, programs
from osvdeploy.errors import UsageError


@dataclass(frozen=True, slots=True)
class Family:
    """Rules about one thing. ``rules``: name to what it says, in one line; ``commands`` refuse by them, and ``run_by``
    says for people what each command makes of them."""

    name: str
    about: str
    rules: Mapping[str, str]
    commands: tuple[str, ...]
    run_by: str


FAMILIES: Final = (
    Family(
        "preflight",
        "kernel, place, boot options, disk",
        preflight.RULES,
        ("check", "build", "run", "publish", "deploy"),
        "`check`, `publish`, `deploy`; `build`: what holds everywhere; `run`: what holds for the machine that it makes",
    ),
    Family(
        "programs",
        "will it run? programs and libraries as OSv's loader takes them",
        {**programs.RULES, **links.RULES},
        ("check", "publish", "deploy"),
        "`check`, `publish`, `deploy`; `build` tells how many there are",
    ),
    Family(
        "lint",
        "what should not go into production",
        lint.RULES,
        ("check", "publish", "deploy"),
        "`check`, `publish`, `deploy`; `build` tells how many there are",
    ),
    Family(
        "release",
        "a release that is deployed from another environment",
        origin.RULES,
        ("deploy",),
        "`deploy --release`",
    ),
)

RULES: Final[Mapping[str, str]] = {name: what for family in FAMILIES for name, what in family.rules.items()}
"""Name to what the rule says, in one line."""

_ALIKE: Final = 0.7
"""How alike two names are of which one may be meant by the other: 1 for the same one."""


def nearest(name: str) -> list[str]:
    """The rules that a name may mean, at most three, the likeliest first; none where nothing is like it."""
    likeness = {rule: _likeness(name.lower().replace("_", "-")[:100], rule) for rule in RULES}
    best = max(likeness.values())
    near = [rule for rule, alike in likeness.items() if alike >= max(_ALIKE, best - 0.1)]
    return sorted(near, key=lambda rule: (-likeness[rule], rule))[:3]


def _likeness(name: str, rule: str) -> float:
    """By all letters, or a little less by its words: who writes "secret" means a rule with that word."""
    words = [word for word in name.split("-") if word]
    by_words = [max(_alike(word, other) for other in rule.split("-")) for word in words]
    return max(_alike(name, rule), 0.9 * sum(by_words) / len(by_words) if by_words else 0.0)


def _alike(one: str, other: str) -> float:
    return SequenceMatcher(None, one, other).ratio()


def require_known(names: Iterable[str], *, where: str) -> None:
    """Raise UsageError for a rule that does not exist. ``where`` the names stand: ``--force``, ``[waive]``."""
    for name in names:
        if name not in RULES:
            near = [repr(rule) for rule in nearest(name)]
            meant = f"; did you mean {' or '.join(near)}?" if near else ""
            raise UsageError(f"{where}: there is no rule {name!r}{meant}", hint="`osvdeploy check --rules` lists them")
