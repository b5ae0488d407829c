"""Take away what live runs left that were killed, or could not clear up after themselves.

    python -m tests.live.sweep                 # runs that began more than a day ago
    python -m tests.live.sweep --older-than 0  # all: whoever runs live tests in the account now loses what they made
    python -m tests.live.sweep --dry-run       # only tell

It looks in the accounts that the variables name (docs/live.md), and finds what there is by its tags and names alone.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from osvdeploy.context import Context
from osvdeploy.errors import OsvDeployError
from tests.live import settings
from tests.live.aws import AwsAccount
from tests.live.gcp import GcpAccount
from tests.live.run import HurriedClock, Run
from tests.live.settings import Account
from tests.live.sweeping import left, sweep

DAY = 24.0
"""Hours. No run takes longer."""


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.live.sweep", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--older-than", type=float, default=DAY, metavar="HOURS", help=f"default {DAY:g}")
    parser.add_argument("--run", metavar="ID", help="this run alone, whenever it began")
    parser.add_argument("--dry-run", action="store_true", help="only tell what there is")
    arguments = parser.parse_args()

    before = datetime.now(UTC) - timedelta(hours=arguments.older_than)

    def wanted(label: str) -> bool:
        run = Run.of(label)
        if arguments.run is not None:
            return run == Run(arguments.run)
        return run.began is not None and run.began <= before

    looked = failed = False
    for account in Account:
        if (reason := settings.no_place(account)) is not None:
            print(f"{account}: {reason}", file=sys.stderr)
            continue
        looked = True
        try:
            _sweep(account, wanted, only_tell=arguments.dry_run)
        except OsvDeployError as error:
            print(f"{account}: {error}" + (f"\n{error.hint}" if error.hint else ""), file=sys.stderr)
            failed = True
    if not looked:
        return 2
    return 1 if failed else 0


def _sweep(account: Account, wanted: Callable[[str], bool], *, only_tell: bool) -> None:
    ctx = Context(clock=HurriedClock(settings.speed()))
    kind = AwsAccount if account is Account.AWS else GcpAccount
    place = kind(ctx, Run.begin(ctx.now()))
    found = left(ctx, place.kinds)
    for each in found:
        which = "to be taken away" if wanted(each.label) else "too young, or another run's: left"
        print(f"{account}: {each.what}, of {each.label}: {which}")
    if not found:
        print(f"{account}: nothing of live runs is there")
    elif not only_tell:
        gone = sweep(ctx, place.kinds, wanted)
        print(f"{account}: {len(gone)} things taken away")


if __name__ == "__main__":
    sys.exit(main())
