"""An image that is in the cloud already, brought into service by the library."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from osvdeploy import api
from osvdeploy.context import Context
from osvdeploy.errors import UsageError
from osvdeploy.rollout.model import Outcome
from tests.cli.running import osvdeploy
from tests.cli.test_bad_input import DEPLOYMENT, Account, User, account, customer, guest, refused, user  # noqa: F401 (fixtures, found by their names)

pytestmark = pytest.mark.slow

LIVE = 'host = "live.example", priority = 50'


def test_what_was_made_for_one_environment_serves_in_another(account: Account, guest: User) -> None:  # noqa: F811 (a fixture)
    """Nothing is built, nothing uploaded: the same image, another service; and the image of no release is refused."""
    deployed = guest.run("deploy", "--json").document
    images = account.client("ec2").describe_images(Owners=["self"])["Images"]
    release = next(image for image in images if image["Name"] == deployed["release"])
    plain = next(image for image in images if image["Name"] == f"hello-{guest.version}")
    settings = api.settings_of(api.load_spec(guest.project / "osv.toml"), "test")
    other = replace(settings, environment="staging", priority=settings.priority + 10, path="/staging*", host=None)
    ctx = Context()

    with pytest.raises(UsageError, match="is no release's image"):
        api.roll_out(ctx, other, plain["ImageId"])
    with pytest.raises(UsageError, match="there is no such image"):
        api.roll_out(ctx, other, "ami-0123456789abcdef0")
    rolled = api.roll_out(ctx, other, release["ImageId"])

    assert rolled.rollout.outcome is Outcome.SUCCEEDED, rolled.rollout.told
    service = api.Service("hello", "staging", settings.ledger)
    head = api.status(ctx, service).head
    assert head.stable is not None and head.stable.release == deployed["release"]
    again = api.roll_out(ctx, other, release["ImageId"])
    assert again.rollout.run is None, "it serves already"
    api.destroy(ctx, service)


def test_what_one_environment_has_proved_is_deployed_in_another_by_the_command(
    account: Account,  # noqa: F811 (a fixture)
    guest: User,  # noqa: F811 (a fixture)
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From a folder with osv.toml alone, without cache and state; what makes no sense is refused before anything."""
    deployed = guest.run("deploy", "--json").document
    spec = (guest.project / "osv.toml").read_text()
    live = DEPLOYMENT.replace("deploy.test", "deploy.live").replace('path = "/*", priority = 100', LIVE)
    pipeline = tmp_path / "pipeline"
    pipeline.mkdir()
    (pipeline / "osv.toml").write_text(spec + live + 'env = { STAGE = "live" }\n')
    for name in ("CACHE", "STATE"):
        monkeypatch.setenv(f"OSVDEPLOY_{name}", str(pipeline / name.lower()))

    ran = osvdeploy("deploy", "--env", "live", "--from", "test", folder=pipeline)
    refused(ran, 2, "--from says where a release comes from", hint="--release")
    refused(
        osvdeploy("deploy", "--env", "live", "--release", "9", folder=pipeline), 2, "no release '9' was ever deployed"
    )
    ran = osvdeploy("plan", "--env", "live", "--from", "test", folder=pipeline)
    refused(ran, 2, "--from says where a release comes from", hint="--release")
    named = ("--env", "live", "--release", guest.version)
    ran = osvdeploy("plan", *named, "--out", "plan.json", folder=pipeline)
    assert ran.code == 0 and "publishing: 512KiB in 1 block, on ami-" in ran.stdout, ran.stderr
    assert f"osvdeploy deploy --env live --release {guest.version} --plan plan.json" in " ".join(ran.stdout.split())
    ran = osvdeploy("deploy", *named, "--plan", "plan.json", "--json", folder=pipeline)
    assert ran.code == 0, ran.stderr
    assert ran.document["outcome"] == "succeeded" and ran.document["origin"] == "hello/test"
    assert ran.document["image"]["digest"] == deployed["image"]["digest"]
    assert ran.document["release"] != deployed["release"]
    assert "settings are those of [deploy.live] here, its variables are STAGE" in ran.stderr
    history = osvdeploy("history", "hello/live", "--json", folder=pipeline).document
    assert [each["origin"] for each in history["releases"]] == ["hello/test"]
    both = osvdeploy("status", "--all", "--env", "live", folder=pipeline)
    assert both.code == 0 and "hello/live" in both.stdout and "hello/test" in both.stdout, both.stderr
    assert osvdeploy("destroy", "hello/live", "--yes", folder=pipeline).code == 0
