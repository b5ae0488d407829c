"""Hooks, webhooks and probes by a command, as whoever types `osvdeploy deploy` has them: a real kill -9 among them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.alive import lives, until
from tests.cli.test_bad_input import Account, User, account, customer, guest, refused, user  # noqa: F401 (fixtures, found by their names)
from tests.cli.test_control import elsewhere, newer
from tests.cloud.local.test_hooks import receiver

pytestmark = pytest.mark.slow


def declared(user: User, text: str) -> None:  # noqa: F811 (a fixture's name)
    spec = user.project / "osv.toml"
    spec.write_text(f"{spec.read_text()}\n{text}")


def program(user: User, name: str, body: str) -> Path:  # noqa: F811 (a fixture's name)
    path = user.project / name
    path.write_text(f"#!{sys.executable}\nimport json, os, pathlib, sys, time\nfacts = json.load(sys.stdin)\n{body}\n")
    path.chmod(0o755)
    return path


def asked(user: User) -> list[dict[str, Any]]:  # noqa: F811 (a fixture's name)
    log = user.project / "asked"
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


SMOKE = '[[deploy.test.hooks]]\nname = "smoke"\non = ["verify"]\ncommand = ["./smoke"]\n'
LOGS = "open('asked', 'a').write(json.dumps(facts | {'pid': os.getpid()}) + '\\n')\n"


def test_a_hook_outlives_no_kill_9_and_is_asked_again_as_the_same_event(guest: User) -> None:  # noqa: F811 (a fixture)
    """And the webhook is told of the whole rollout, its address in no document."""
    program(guest, "smoke", f"{LOGS}time.sleep(0 if pathlib.Path('go').exists() else 600)\nprint('all is well')")
    with receiver(200) as (url, got), pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROLLOUTS_WEBHOOK", url)
        declared(
            guest, '[[deploy.test.hooks]]\nname = "smoke"\non = ["verify"]\ncommand = ["./smoke"]\ntimeout = "15m"'
        )
        declared(guest, '[[deploy.test.notify]]\nwebhook-variable = "ROLLOUTS_WEBHOOK"')
        with elsewhere(guest, "deploy") as deploying:
            until(lambda: asked(guest), 90)
            deploying.kill()
        (first,) = asked(guest)
        until(lambda: not lives(first["pid"]), 15)
        (guest.project / "go").touch()
        recovered = guest.run("recover", "--json")
        assert (recovered.code, recovered.document["outcome"]) == (0, "succeeded"), recovered.stderr
    _, second = asked(guest)
    assert (first["event"], first["attempt"], second["attempt"]) == (second["event"], 1, 2)
    (record,) = recovered.document["run"]["hooks"]
    assert (record["passed"], record["told"], record["attempt"]) == (True, "all is well", 2)
    told = {json.loads(body)["event"]: json.loads(body)["notice"] for _, _, body in got}
    assert list(told.values()) == ["begun", "succeeded"]
    assert guest.run("status", "--json").document["notices"] == []
    documents = [path.read_bytes() for path in Path(guest.ledger).rglob("*.json")]
    assert documents
    assert not [each for each in documents if url.encode() in each]


def test_a_hook_that_says_no_ends_the_deploy_and_is_told(guest: User) -> None:  # noqa: F811 (a fixture)
    assert guest.run("deploy").code == 0
    guest.edit(f'version = "{guest.version}"', f'version = "{newer(guest, 1)}"')
    program(guest, "smoke", "print('the preview is cold'); sys.exit(7)")
    declared(guest, SMOKE)
    done = guest.run("deploy")
    assert done.code == 3
    assert "hook failed: smoke (verify): exit status 7: the preview is cold" in done.stderr
    assert "smoke (verify) failed: exit status 7" in guest.run("events").stdout
    assert guest.run("deploy", "--quiet").code == 3


def test_what_cannot_be_asked_is_refused_before_anything_is_made(guest: User) -> None:  # noqa: F811 (a fixture)
    declared(guest, '[[deploy.test.hooks]]\nname = "smoke"\non = ["done"]\ncommand = ["./not-there"]')
    refused(guest.run("deploy"), 2, "hook smoke:", "not-there: is not there")
    assert "hook-program" in guest.run("check").stderr + guest.run("check").stdout


def test_what_cannot_be_measured_is_refused_before_anything_is_made(guest: User) -> None:  # noqa: F811 (a fixture)
    """A program that is not there would fail the release after its bake, under traffic."""
    guest.edit('bake = "0s"', 'bake = "1m"')
    declared(guest, '[[deploy.test.gates]]\nname = "lag"\nmetric = { command = ["./not-there"], max = 30 }')
    refused(guest.run("deploy"), 2, "gate lag:", "not-there: is not there")
    assert "gate-source" in guest.run("check").stderr + guest.run("check").stdout


def test_probes_leave_from_where_is_declared(guest: User) -> None:  # noqa: F811 (a fixture)
    """By the other end that osvdeploy ships."""
    bastion = guest.project / "bastion"
    bastion.write_text(f"#!/bin/sh\necho probe >> asked-there\nexec {sys.executable} -m osvdeploy probe\n")
    bastion.chmod(0o755)
    text = (guest.project / "osv.toml").read_text()
    assert "health = {" in text, text
    guest.edit("health = {", 'health = { probe-from = { command = ["./bastion"] },')
    done = guest.run("deploy")
    assert done.code == 0, done.stderr
    assert (guest.project / "asked-there").read_text().count("probe") >= 10
