"""What suites' fixtures say of themselves where they run on an account: which one, and what one test makes there."""

from __future__ import annotations

from typing import Any

import pytest

from tests.live.costs import Makes
from tests.live.settings import Account

AWS_OBJECTS = Makes(Account.AWS, minutes=1, each={"aws-request": 1000})
AWS_DISKS = Makes(Account.AWS, minutes=1, each={"aws-block": 20, "aws-snapshot": 1})
AWS_IMPORTS = Makes(Account.AWS, minutes=15, each={"aws-request": 100, "aws-block": 20, "aws-snapshot": 1})
AWS_SCENE = Makes(
    Account.AWS,
    minutes=5,
    # Six machines at a time, each with a GiB of disk, the blocks of two images, and what scales two groups.
    each={"aws-machine": 1, "aws-volume": 1, "aws-block": 200, "aws-snapshot": 1, "aws-alarm": 1},
    shared={"aws-balancer": 1, "aws-capacity": 1, "aws-address": 2},
    guests=True,
)
GCP_OBJECTS = Makes(Account.GCP, minutes=1, each={"gcp-request": 1000})
GCP_IMAGES = Makes(Account.GCP, minutes=3, each={"gcp-request": 100, "gcp-image": 1})
GCP_SCENE = Makes(
    Account.GCP,
    minutes=6,
    each={"gcp-machine": 1, "gcp-address": 1, "gcp-disk": 1, "gcp-request": 100, "gcp-image": 1},
    shared={"gcp-rule": 1},
    guests=True,
)


def live(name: str, makes: Makes) -> Any:
    """A fixture's parameter that stands for an account."""
    return pytest.param(name, marks=pytest.mark.live(makes))
