"""What docs/probes.md shows is what is read, and what it says is so."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from osvdeploy.cloud.interfaces import ProbeAnswer, ProbeRequest
from osvdeploy.cloud.local.probing import answer_document, answer_of, request_document, request_of
from osvdeploy.spec.model import DeployGcp, ProbeCommand
from tests.spec.specs import DEPLOY, GOOGLE, ROLLED_OUT, SMALL, on_aws, problems, read

PAGE = (Path(__file__).parents[2] / "docs" / "probes.md").read_text()
POINTER = """
[deploy.mail]
cloud = "gcp"
zone = "europe-west1-b"
forwarding-rule = "mail"
port = 25
ledger = "gs://acme-releases/mail"
"""


def test_the_examples_are_taken() -> None:
    aws, google = re.findall(r"```toml\n(.*?)```", PAGE, re.S)
    health = on_aws(read(f"{SMALL}{DEPLOY}\n{aws}")).health
    assert health.probe_from == ProbeCommand(command=["ssh", "bastion", "osvdeploy", "probe"])
    found = read(f"{SMALL}{GOOGLE}\n{google}").deploy["mail"]
    assert isinstance(found, DeployGcp)
    assert found.health.kind == "tcp"


def test_the_documents_shown_are_the_contract() -> None:
    """With every key that there is."""
    request, answer = [json.loads(shown) for shown in re.findall(r"```json\n(.*?)```", PAGE, re.S)]
    assert request_of(json.dumps(request).encode()).address == "10.0.0.8"
    assert answer_of(json.dumps(answer).encode()).status == 200
    assert set(request) == set(request_document(ProbeRequest("http://a/")))
    assert set(answer) == set(answer_document(ProbeAnswer(200)))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f'{DEPLOY}health = {{ kind = "tcp" }}', "asks by HTTP alone"),
        (f'{GOOGLE}{ROLLED_OUT}health = {{ kind = "tcp" }}', "a URL map takes HTTP alone"),
        (f'{GOOGLE}{POINTER}health = {{ kind = "tcp", path = "/x" }}', "is of HTTP"),
        (f'{GOOGLE}{POINTER}health = {{ probe-from = "requests" }}', "not counted behind a forwarding rule"),
        (f'{DEPLOY}health = {{ probe-from = "there" }}', "probe-from"),
        (f"{DEPLOY}health = {{ probe-from = {{ command = [] }} }}", "probe-from"),
        (f'{DEPLOY}health = {{ kind = "udp" }}', "kind"),
    ],
)
def test_what_cannot_be_is_refused(text: str, told: str) -> None:
    found = problems(f"{SMALL}{text}")
    assert any(told in each for each in found), found
    assert len(found) == 1, found
