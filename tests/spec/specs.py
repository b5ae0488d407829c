"""Texts of specs for tests: small ones that are valid, to be broken in one place each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from osvdeploy.errors import SpecError
from osvdeploy.spec import Spec, parse
from osvdeploy.spec.model import Deploy

SMALL = """\
name = "hello"
version = "1.0.0"

[kernel]
file = "loader.img"

[image]
command = ["/hello", "--port", "8080"]

[[files]]
from = "build/hello"
to = "/hello"
"""

DEPLOY = """\

[deploy.production]
cloud = "aws"
region = "eu-west-1"
subnets = ["subnet-0a"]
listener = "arn:aws:elasticloadbalancing:eu-west-1:111122223333:listener/app/web/1/2"
route = { path = "/*", priority = 100 }
port = 8080
ledger = "releases"
"""


GOOGLE = """\

[publish.gcp]
project = "acme-prod"
bucket = "acme-images"
family = "hello"

[deploy.europe]
cloud = "gcp"
zone = "europe-west1-b"
env = { DATABASE_HOST = "db" }
"""


ROLLED_OUT = """\
url-map = "web"
route = { path = "/*", priority = 100 }
port = 8080
ledger = "releases"
"""


def on_aws(spec: Spec, name: str = "production") -> Deploy:
    """An environment that is on AWS."""
    found = spec.deploy[name]
    assert isinstance(found, Deploy)
    return found


def read(text: str, *, sets: Sequence[str] = (), environ: Mapping[str, str] | None = None) -> Spec:
    loaded = parse(text, path=Path("osv.toml"), environ=environ or {}, sets=sets)
    assert not loaded.unset
    return loaded.spec


def problems(text: str, *, sets: Sequence[str] = (), environ: Mapping[str, str] | None = None) -> list[str]:
    """What is said of a text that is no spec, line by line."""
    with pytest.raises(SpecError) as raised:
        read(text, sets=sets, environ=environ)
    assert raised.value.exit_code == 2
    told = [str(problem) for problem in raised.value.problems]
    assert told, "an error without a problem"
    return told
