"""Somebody on call, without ledger and without spec: rollback and adopt by the tags in the cloud."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.test_bad_input import Account, User, account, customer, guest, refused, user  # noqa: F401 (fixtures, found by their names)
from tests.cli.test_control import newer

FROM_CLOUD = ("--from-cloud", "--region", "eu-west-1")


@pytest.mark.slow
def test_a_name_and_a_region_are_enough(guest: User, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811 (a fixture)
    """One is warm: back at once. The ledger, back again, learns it; lost, it is written anew."""
    for version in (guest.version, newer(guest, 1)):
        assert guest.run("deploy", "--set", f"version={version}").code == 0
    away = guest.ledger.rename(guest.ledger.with_name("away"))
    guest.project.joinpath("osv.toml").rename(tmp_path / "osv.toml")

    ran = guest.run("rollback", "hello/test", *FROM_CLOUD, "--json")
    assert ran.code == 0, ran.stderr
    found = ran.document
    assert found["outcome"] == "succeeded" and found["noted"] is True
    assert found["left"].startswith(f"hello-{newer(guest, 1)}-")
    assert found["ledger"] == str(guest.ledger)
    assert "nobody can be asked for the lease" in ran.stderr

    away.rename(guest.ledger)
    named = ("hello/test", "--ledger", str(guest.ledger))
    refused(guest.run("rollback", *named, *FROM_CLOUD), 2, "can be read", hint="osvdeploy rollback hello/test")
    mistyped = ("hello/test", "--ledger", "s4://releases", "--from-cloud")
    refused(guest.run("rollback", *mistyped, "--region", "eu-west-1"), 2, "s4://", hint="s3://BUCKET")
    assert guest.run("drift", *named, "--repair").code == 0
    status = guest.run("status", *named, "--json").document
    assert status["serving"].startswith(f"hello-{guest.version}-")
    assert [hold["release"] for hold in status["holds"]] == [found["left"]]

    guest.ledger.rename(guest.ledger.with_name("away"))
    made = guest.run("adopt", *named, *FROM_CLOUD, "--json")
    assert made.code == 0, made.stderr
    assert made.document["serving"] == status["serving"]
    assert made.document["learnt"] is False
    assert guest.run("status", *named, "--json").document["serving"] == status["serving"]
    assert guest.run("destroy", *named, "--yes").code == 0


def test_a_rollback_whose_ledger_is_gone_is_told_the_way_without_it(tmp_path: Path, customer: User) -> None:  # noqa: F811 (a fixture)
    """At 3 am nobody knows that option by heart."""
    there = tmp_path / "no-folder"
    there.write_text("")
    for ledger, code in (("/nowhere/at/all", 2), (str(there), 1)):
        ran = customer.run("rollback", "hello/test", "--ledger", ledger)
        refused(ran, code, ledger, hint="osvdeploy rollback hello/test --from-cloud")


def test_where_it_is_has_to_be_said(tmp_path: Path, customer: User, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811 (a fixture)
    """Without a spec: whose it is, and in which project or region; and options that would do nothing are refused."""
    monkeypatch.delenv("AWS_REGION", raising=False)
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    customer.project.joinpath("osv.toml").rename(tmp_path / "osv.toml")
    refused(customer.run("rollback", "--from-cloud"), 2, "which service is meant?", hint="APP/ENV")
    refused(customer.run("rollback", "hello/test", "--from-cloud", "--cloud", "gcp"), 2, "project", hint="--project")
    refused(customer.run("rollback", "hello/test", "--from-cloud"), 2, "region", hint="--region")
    refused(customer.run("rollback", "hello/test", "--region", "eu-west-1"), 2, "--region", hint="--from-cloud")
    ran = customer.run("rollback", "hello/test", *FROM_CLOUD, "--take-over")
    refused(ran, 2, "--take-over", hint="leave it out")
    refused(customer.run("adopt", "hello/test"), 2, "what is to be adopted?", hint="--from-cloud")
