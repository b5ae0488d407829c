"""Which image families an app has on Google: its own, and one for each environment that has images of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from osvdeploy.api.withdrawing import _families
from osvdeploy.spec import parse
from tests.spec.specs import GOOGLE, SMALL

BOTH = ["hello", "hello-europe"]
BARE = GOOGLE.replace('env = { DATABASE_HOST = "db" }\n', "")


@pytest.mark.parametrize(
    ("environment", "families"),
    [
        (GOOGLE, BOTH),
        (BARE, ["hello"]),
        (f'{BARE}url-map = "w"\nroute = {{ path = "/*", priority = 9 }}\nport = 1\nledger = "x"\n', BOTH),
        (f'{BARE}forwarding-rule = "w"\nport = 1\nledger = "x"\n', BOTH),
    ],
    ids=["variables", "none", "url-map", "forwarding-rule"],
)
def test_what_is_rolled_out_has_a_family(environment: str, families: list[str], tmp_path: Path) -> None:
    """By whichever way in; so has what has variables, and nothing else."""
    loaded = parse(SMALL + environment, path=tmp_path / "osv.toml", environ={})
    assert _families(loaded) == families
