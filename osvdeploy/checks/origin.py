"""A release on its way from one environment to another: what its own environment knows of it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from osvdeploy.checks.finding import Finding, Severity

RULES: Final[Mapping[str, str]] = {
    "release-not-proved": "The release did not succeed in the environment that it comes from, or is held there.",
    "release-not-recorded": "The ledger that it comes from does not say how its image's disk begins.",
}
"""Each rule's name and what it says, in a line."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What a ledger says of a release. ``service`` has deployed it; ``succeeded``: it came to serve there by a rollout
    that ended well; ``held`` is why it is refused there, "" where it is not; ``recorded``: its image can be held to
    what was deployed."""

    service: str
    release: str
    succeeded: bool
    held: str
    recorded: bool


def check_origin(origin: Origin, *, reads: bool) -> Iterator[Finding]:
    """What speaks against deploying it elsewhere. ``reads``: its image is read to make another one of it."""
    subject = f"{origin.release} in {origin.service}"
    if origin.held:
        yield Finding(
            "release-not-proved",
            Severity.ERROR,
            subject,
            f"it is held there: {origin.held}",
            "somebody went back from it, or said that it must not serve",
            f"`osvdeploy unhold {origin.service} --release {origin.release}` where that is over, or "
            "--force release-not-proved",
            "the ledger",
        )
    elif not origin.succeeded:
        yield Finding(
            "release-not-proved",
            Severity.ERROR,
            subject,
            "it did not come to serve there",
            "what was not proved there is not what was tried",
            f"see `osvdeploy history {origin.service}`; deploy it there first, or --force release-not-proved",
            "the ledger",
        )
    if reads and not origin.recorded:
        yield Finding(
            "release-not-recorded",
            Severity.ERROR,
            subject,
            "its ledger does not say how the image's disk begins",
            "the image could be another one than was deployed there, and nobody would see it",
            "`osvdeploy deploy` it there once more where its sources are, or --force release-not-recorded",
            "the ledger",
        )
