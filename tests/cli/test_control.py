"""A rollout under way, and several terminals: pause, approve, promote, abort, wait, recover, retry, pin."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.alive import until
from tests.cli.test_bad_input import Account, User, account, customer, guest, refused, user  # noqa: F401 (fixtures, found by their names)

pytestmark = pytest.mark.slow

CANARY = 'strategy = { kind = "canary", steps = [{ weight = 10, bake = "10m" }], keep-warm = "1h" }'


@pytest.fixture
def served(guest: User) -> User:  # noqa: F811 (a fixture)
    """1.0.0 serves; the next version goes by a canary that bakes for longer than anybody waits."""
    assert guest.run("deploy").code == 0
    guest.edit('strategy = { kind = "blue-green", bake = "0s", keep-warm = "1h" }', CANARY)
    guest.edit(f'version = "{guest.version}"', f'version = "{newer(guest, 1)}"')
    return guest


def newer(user: User, minor: int) -> str:  # noqa: F811 (a fixture's name)
    """A version after the one that a test begins with; all tests share an account."""
    return f"1.{minor}.{user.version.rpartition('.')[2]}"


def begun(user: User) -> None:  # noqa: F811 (a fixture's name)
    """Wait until the new version's rollout is in the ledger, and bakes its first share."""
    until(lambda: newer(user, 1) in str(run_of(user)["candidate"]), 60)
    assert user.run("wait", "--for", "bake", "--timeout", "60s").code == 0


@contextmanager
def elsewhere(user: User, *words: str) -> Iterator[subprocess.Popen[str]]:  # noqa: F811 (a fixture's name)
    """A command in another terminal; at the end it has ended by itself."""
    command = [sys.executable, "-m", "osvdeploy", *words]
    started = subprocess.Popen(
        command, cwd=user.project, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
    )
    try:
        yield started
        started.wait(60)
    finally:
        started.kill()
        started.communicate()


def run_of(user: User) -> dict[str, object]:  # noqa: F811 (a fixture's name)
    found = user.run("status", "--offline", "--json").document["run"]
    assert isinstance(found, dict)
    return found


def test_a_rollout_is_said_something_to_from_another_terminal(served: User) -> None:
    """Paused, resumed, promoted: each is told to whoever works on it, and its command goes on."""
    with elsewhere(served, "deploy", "--stay") as deploying:
        begun(served)
        paused = served.run("pause", "--why", "lunch", "--json")
        assert paused.code == 0 and paused.document["done"] and paused.document["rollout"] is None, paused.stderr
        refused(served.run("approve"), 2, "nothing waits for approval; it is in stage bake")
        waited = served.run("wait", "--timeout", "1s")
        assert waited.code == 5 and "waits: paused by" in waited.stdout and "lunch" in waited.stdout
        assert "osvdeploy resume hello/test" in served.run("status").stdout
        assert served.run("resume").code == 0
        assert served.run("promote").code == 0
    assert deploying.returncode == 0
    run = run_of(served)
    assert [each["request"] for each in run["requests"]] == ["pause", "resume", "promote"]  # type: ignore[attr-defined]
    assert served.run("wait", "--json").document["outcome"] == "succeeded"


def test_an_approval_is_asked_of_a_pipeline_by_its_exit_code(served: User) -> None:
    """The deploy ends with 5 and says what to type; whoever approves from where nothing can be reached says so alone,
    and it is gone on with elsewhere."""
    served.edit(CANARY, 'strategy = { approve = true, keep-warm = "1h" }')
    asked = served.run("deploy")
    assert asked.code == 5 and "osvdeploy approve hello/test" in asked.stdout
    assert served.run("deploy", "--json").document["outcome"] == "waiting"
    assert served.run("wait", "--for", "approval").code == 0
    other = ("--set", f"version={newer(served, 2)}")
    waits = (f"the deploy of hello-{newer(served, 1)}", "waits: approval before")
    refused(served.run("deploy", *other), 4, *waits, hint="osvdeploy abort")
    approved = served.run("approve", "--no-wait", "--json")
    assert approved.code == 0 and approved.document["rollout"] is None
    assert "`osvdeploy recover hello/test` does" in approved.document["told"]
    recovered = served.run("recover", "--json")
    assert recovered.code == 0 and recovered.document["outcome"] == "succeeded"


def test_whoever_approves_goes_on_with_it_where_nobody_works_on_it(served: User) -> None:
    """And ends as it ends."""
    served.edit(CANARY, 'strategy = { approve = true, keep-warm = "1h" }')
    assert served.run("deploy").code == 5
    approved = served.run("approve", "--json")
    assert approved.code == 0 and approved.document["rollout"]["outcome"] == "succeeded"


def test_an_abort_ends_the_other_command_with_three(served: User) -> None:
    """And a second one finds nothing to abort."""
    with elsewhere(served, "deploy") as deploying:
        begun(served)
        assert served.run("abort", "--why", "wrong version").code == 0
    assert deploying.returncode == 3
    assert "wrong version" in str(run_of(served)["reason"])
    refused(served.run("abort"), 2, "hello/test: no rollout is under way")


def test_what_is_left_to_the_background_goes_on_there(served: User) -> None:
    """``--no-wait`` returns when another process has the lease; ``wait`` sees its end."""
    served.edit(CANARY, 'strategy = { keep-warm = "1h" }')
    began = time.monotonic()
    left = served.run("deploy", "--no-wait", "--json")
    assert left.code == 0 and left.document["outcome"] == "begun", left.stderr
    assert time.monotonic() - began < 30
    assert served.run("wait", "--timeout", "60s").code == 0
    assert newer(served, 1) in str(served.run("status", "--json").document["serving"])
    assert newer(served, 1) in Path(left.document["log"]).read_text()


def test_what_is_left_to_the_background_is_watched_while_it_is_paused(served: User) -> None:
    """Its process stays, hears the word that lets it go on, and brings it to its end."""
    served.edit(CANARY, 'strategy = { bake = "20s", keep-warm = "1h" }')
    assert served.run("deploy", "--no-wait").code == 0
    begun(served)
    assert served.run("pause", "--why", "looking at it").code == 0
    assert "looking at it" in served.run("status").stdout
    # Longer than a look of the bake takes, after which it would end.
    time.sleep(6)
    asked = served.run("resume", "--json")
    assert asked.code == 0 and asked.document["rollout"] is None, "whoever works on it goes on with it"
    assert served.run("wait", "--timeout", "60s").code == 0


def test_a_rollout_whose_process_was_killed_is_gone_on_with_without_its_spec(served: User) -> None:
    """By the service's name and its ledger; with nothing under way it says so. What has served can be pinned."""
    with elsewhere(served, "deploy") as deploying:
        begun(served)
        deploying.kill()
    name = ("hello/test", "--ledger", str(served.ledger))
    refused(served.run("wait", *name, "--timeout", "1s"), 1, "is still in stage bake")
    assert served.run("promote", *name, "--full").code == 0
    assert "no rollout is under way" in served.run("recover", *name).stdout
    refused(served.run("retry", *name), 2, f"the last deploy, of hello-{newer(served, 1)}", "succeeded")
    pinned = served.run("pin", *name, "--release", served.version, "--json").document["pins"]
    assert len(pinned) == 1 and pinned[0].startswith(f"hello-{served.version}-")
    assert served.run("unpin", *name, "--release", served.version, "--json").document["pins"] == []
    refused(served.run("pin", *name, "--release", "9"), 2, "no release '9'")
