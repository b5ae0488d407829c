"""An image that is in the cloud already, brought into service by the library."""

from __future__ import annotations

from dataclasses import replace

import pytest

from osvdeploy import api
from osvdeploy.context import Context
from osvdeploy.errors import UsageError
from osvdeploy.rollout.model import Outcome
from tests.cli.test_bad_input import Account, User, account, customer, guest, user  # noqa: F401 (fixtures, found by their names)

pytestmark = pytest.mark.slow


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
