"""Publishing to Google as a user meets it: the image, an environment's own, and what is said when something is amiss.

Google is the sandbox on a socket, so that the whole command runs as it does elsewhere.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from osvdeploy.sandbox.faults import Fault, FaultKind
from osvdeploy.sandbox.google.compute.archive import BLOCK
from tests.cli.google import FORCED, PROJECT, Google, google_project
from tests.cli.projects import SPEC
from tests.cli.test_bad_input import refused
from tests.sandbox.google.place import disk_of

pytestmark = pytest.mark.slow

GOOGLE = """
[publish.gcp]
project = "acme-prod"
bucket = "acme-images"
family = "app"
labels = { team = "payments" }

[deploy.plain]
cloud = "gcp"
zone = "europe-west1-b"

[deploy.europe]
cloud = "gcp"
zone = "europe-west1-b"
machine-type = "n2-standard-2"
env = { DATABASE_HOST = "db.eu" }
"""


@pytest.fixture
def google(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Google]:
    yield from google_project(tmp_path, monkeypatch, SPEC + GOOGLE)


def test_an_image_is_published_once(google: Google) -> None:
    """The id is the result; the family leads to it; nothing is left in the bucket; and again, nothing is done."""
    google.make_bucket()
    ran = google.run("publish", "--env", "plain", *FORCED)
    assert (ran.code, ran.stdout) == (0, "projects/acme-prod/global/images/app-1-0-0\n"), ran.stderr
    image = google.get(f"{PROJECT}/images/family/app")
    assert (image["name"], image["status"], image["storageLocations"]) == ("app-1-0-0", "READY", ["eu"])
    assert image["labels"]["team"] == "payments"
    assert google.objects() == []
    again = google.run("publish", "--env", "plain", "--json", *FORCED).document
    assert (again["reused"], again["release"], again["calls"]["mutating"]) == (True, None, 0)
    assert (again["cloud"], again["account"]) == ("gcp", "acme-prod")


def test_an_environments_own_image_differs_in_one_block(google: Google) -> None:
    """It has its variables in the command line, and a family of its own."""
    google.make_bucket()
    document = google.run("publish", "--env", "europe", "--json", *FORCED).document
    release = document["release"]
    assert document["image"]["id"].endswith("/app-1-0-0") and release["name"].startswith("app-1.0.0-")
    name = release["id"].rpartition("/")[2]
    below, above = (disk_of(google.shell.sandbox, f"acme-prod/{each}") for each in ("app-1-0-0", name))
    assert [index for index in range(len(below)) if below[index] != above[index]] == [0]
    assert b"DATABASE_HOST=db.eu" in above[0] and release["name"].encode() in above[0]
    assert len(below[0]) == BLOCK
    assert google.get(f"{PROJECT}/images/family/app-europe")["name"] == name
    ran = google.run("publish", "--env", "europe", *FORCED)
    assert ran.stdout == f"{release['id']}\n"
    assert google.objects() == []


def test_a_name_never_stands_for_other_bytes(google: Google) -> None:
    """What is there stays, and what to do is told."""
    google.make_bucket()
    assert google.run("publish", "--env", "plain", *FORCED).code == 0
    (google.folder / "app").write_bytes(b"another program")
    refused(google.run("publish", "--env", "plain", *FORCED), 2, "app-1.0.0: registered with", hint="raise `version`")
    assert google.images() == ["app-1-0-0"]


def test_what_is_amiss_is_told_before_anything_is_made(google: Google) -> None:
    """A bucket, a zone or a machine type that is not there; a type that OSv does not start on; a rollout."""
    ran = google.run("publish", "--env", "plain", *FORCED)
    refused(ran, 2, "there is no bucket acme-images", hint="gcloud storage")
    assert "could not remove" not in ran.stderr
    google.make_bucket()
    ran = google.run("publish", "--env", "plain", "--set", "deploy.plain.machine-type=e2-smal", *FORCED)
    refused(ran, 2, "e2-smal: europe-west1-b has no machine type", hint="e2-small")
    ran = google.run("publish", "--env", "plain", "--set", "deploy.plain.machine-type=t2a-standard-1", *FORCED)
    refused(ran, 2, "architecture")
    refused(google.run("deploy", "--env", "plain"), 2, "has no url-map", hint="osvdeploy publish --env plain")
    for command in ("status", "rollback", "gc"):
        refused(google.run(command, "app/plain"), 2, "has no url-map")
    assert google.images() == [] and google.objects() == []


def test_who_may_not_ask_for_machine_types_is_judged_by_their_names(google: Google) -> None:
    """With a warning, and the image is made."""
    google.make_bucket()
    google.shell.sandbox.faults.add(Fault("machineTypes.get", FaultKind.DENIED))
    ran = google.run("publish", "--env", "plain", *FORCED)
    assert ran.code == 0 and "e2-small: judged by its name alone" in ran.stderr


def test_several_at_once_make_one_image(google: Google) -> None:
    """Processes that know nothing of one another, of the same version and of another one with the same bytes."""
    google.make_bucket()
    assert google.run("build").code == 0
    command = [sys.executable, "-m", "osvdeploy", "publish", "--env", "europe", *FORCED]
    running = [
        subprocess.Popen(
            [*command, "--set", f"version={version}"], cwd=google.folder, stderr=subprocess.PIPE, text=True
        )
        for version in ("1.0.0", "1.0.0", "1.0.1")
    ]
    for process in running:
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0, said
    begun = [each["operationType"] for each in google.get(f"{PROJECT}/operations")["items"]]
    assert begun.count("insert") == 4 == len(google.images())
    assert google.objects() == []


def test_check_judges_the_types_of_google(google: Google) -> None:
    """By their names, as it does for those of AWS."""
    ran = google.run("check", "--set", "deploy.plain.machine-type=t2a-standard-1", "--json", *FORCED)
    found = [(each["rule"], each["subject"]) for each in ran.document["findings"]]
    assert ("architecture", "t2a-standard-1") in found
    assert not any(subject == "n2-standard-2" for _, subject in found)


def test_the_spec_names_compute_engines_address(google: Google, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment's comes before it; what is no address is told."""
    google.make_bucket()
    elsewhere = f"publish.gcp.compute-endpoint={google.shell.url}"
    monkeypatch.delenv("OSVDEPLOY_GCP_COMPUTE_ENDPOINT")
    ran = google.run("publish", "--env", "plain", "--set", elsewhere, *FORCED)
    assert (ran.code, google.images()) == (0, ["app-1-0-0"]), ran.stderr
    monkeypatch.setenv("OSVDEPLOY_GCP_COMPUTE_ENDPOINT", google.shell.url)
    nowhere = "publish.gcp.compute-endpoint=http://127.0.0.1:1"
    assert google.run("publish", "--env", "plain", "--set", nowhere, *FORCED).code == 0
    refused(google.run("check", "--set", "publish.gcp.compute-endpoint=compute"), 2, "compute-endpoint", hint=None)


# ---------------------------------------------------------------------------------------------------------- withdraw


def published(google: Google, *versions: str) -> None:
    google.make_bucket()
    for version in versions:
        ran = google.run("publish", "--env", "europe", "--set", f"version={version}", "-q", *FORCED)
        assert ran.code == 0, ran.stderr


def test_a_withdrawn_version_is_led_past(google: Google) -> None:
    """By the app's family and by the environment's; to and fro; and machines are told of what to take instead."""
    published(google, "1.0.0", "1.1.0")
    ran = google.run("withdraw", "1.1.0", "--json")
    families = ran.document["families"]
    assert families["app"] == "app-1.0.0" and families["app-europe"].startswith("app-1.0.0-")
    assert len(ran.document["images"]) == 2
    deprecated = google.get(f"{PROJECT}/images/app-1-1-0")["deprecated"]
    assert deprecated["state"] == "DEPRECATED"
    assert deprecated["replacement"].endswith("/projects/acme-prod/global/images/app-1-0-0")
    again = google.run("withdraw", "1.1.0")
    assert again.code == 0 and again.stdout.splitlines()[0] == "app -> app-1.0.0"
    assert google.run("withdraw", "1.1.0", "--undo").stdout.splitlines()[0] == "app -> app-1.1.0"
    assert google.run("withdraw", "1.1.0", "--obsolete", "--json").document["state"] == "obsolete"
    assert google.get(f"{PROJECT}/images/app-1-1-0")["deprecated"]["state"] == "OBSOLETE"
    assert google.run("withdraw", "1.1.0", "--delete").code == 0
    assert len(google.images()) == 2


def test_a_family_is_never_left_without_a_lead(google: Google) -> None:
    """Nor is a version withdrawn that is not there; nothing is changed then."""
    published(google, "1.0.0")
    for more in ((), ("--obsolete",), ("--delete",)):
        refused(
            google.run("withdraw", "1.0.0", *more), 2, "family app would lead to nothing", hint="publish or restore"
        )
    refused(google.run("withdraw", "2.0.0"), 2, "has no image of it", hint="there are images of: 1.0.0")
    refused(google.run("withdraw", "1.0.0", "--undo", "--delete"), 2, "exclude each other")
    (google.folder / "osv.toml").write_text(SPEC)
    refused(google.run("withdraw", "1.0.0"), 2, "has no [publish.gcp]", hint="osvdeploy rollback")
    assert len(google.images()) == 2
