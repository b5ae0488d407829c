"""stacks/gcp, run whole: its program, our provider, the stand-in of pulumi_gcp and a sandbox whose machines run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import requests

from tests.pulumi.places import Place, free_port, needs_loopback, on_google
from tests.pulumi.stacks import Copied, Story

pytestmark = [pytest.mark.slow, needs_loopback]

LEDGER = "gs://acme-releases/service"
QUICK = {"minReady": "0s", "bootTimeout": "30s", "bake": "0s", "gcp:project": "acme-prod"}
"""In place of what is for machines that boot: for those that are processes."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A project with a balancer of somebody's, and the bucket of the ledger."""
    with on_google(tmp_path_factory.mktemp("google")) as place:
        bucket = {"name": "acme-releases", "location": "EU"}
        assert requests.post(f"{place.shell.url}/storage/v1/b?project=acme-prod", json=bucket, timeout=10).ok
        environ = {
            "GOOGLE_COMPUTE_CUSTOM_ENDPOINT": f"{place.shell.url}/compute/v1/",
            "GOOGLE_STORAGE_CUSTOM_ENDPOINT": f"{place.shell.url}/storage/v1/",
        }
        yield replace(place, environ={**place.environ, **environ})


def test_story(place: Place, tmp_path: Path) -> None:
    copied = Copied.of("gcp", tmp_path, place)
    before = copied.held()
    story = Story(copied, "gcp", **QUICK, listenerPort=str(free_port()))
    copied.release("1.0.0")
    planned = story.preview()
    assert (planned.errors, planned.changes) == ([], {"create": 12})
    assert copied.held() == before
    first = story.brought("1.0.0")
    assert first.changes == planned.changes
    story.unchanged()
    gone = story.stack.destroy()
    assert gone.ok, gone.said()
    assert story.stack.records == []
    assert copied.held() == before
