"""diff: two releases of a ledger, and their disks where the build cache has them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from osvdeploy.digests import Digest
from osvdeploy.rollout.releases import Release, release_digest, release_id
from tests.cli.projects import built_project
from tests.cli.running import osvdeploy
from tests.report.recorded import Kept
from tests.rollout.made import release as made_release

pytestmark = pytest.mark.whole


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    """1.0.0, and 1.1.0 with a third machine and another way."""
    service = Kept(tmp_path_factory.mktemp("ledger"))
    service.settings = replace(service.settings, capacity=3, machine_type="t3.small")
    service.deploy("1.1.0")
    return service


def asked(service: Kept, *words: str) -> list[str]:
    return ["diff", *words, "hello/production", "--ledger", str(service.folder)]


def test_each_setting_that_differs_is_told_with_both_values(recorded: Kept) -> None:
    """By the spec's spelling; what is the same is not told."""
    ran = osvdeploy(*asked(recorded, "1.0.0", "1.1.0"))
    lines = ran.stdout.splitlines()
    assert ran.code == 0 and lines[0] == f"{recorded.id('1.0.0')} -> {recorded.id('1.1.0')}"
    settings = lines[lines.index("settings:") + 1 :]
    assert "  capacity: 2 -> 3" in settings and "  machine-type: t3.nano -> t3.small" in settings
    assert "  strategy.kind: blue-green -> canary" in settings and "  strategy.steps[1].bake: none -> 300" in settings
    assert not any("listener" in line for line in settings)
    found = osvdeploy(*asked(recorded, "1.0.0", "1.1.0"), "--json").document
    assert {"key": "capacity", "before": 2, "after": 3} in found["settings"]
    assert (found["image_differs"], found["configuration_differs"]) == (True, False)
    assert (found["from"]["version"], found["to"]["version"]) == ("1.0.0", "1.1.0")


def test_a_release_against_itself_differs_in_nothing(recorded: Kept) -> None:
    """Nor is anything said to be not compared."""
    ran = osvdeploy(*asked(recorded, "1.1.0", str(recorded.id("1.1.0"))))
    assert "settings: the same" in ran.stdout and "not compared" not in ran.stdout
    assert ran.stdout.count("the same (") == 2


def test_a_release_that_is_not_there_is_refused(recorded: Kept) -> None:
    """With those that are."""
    ran = osvdeploy(*asked(recorded, "1.0.0", "7.7"))
    assert ran.code == 2 and "no release '7.7'" in ran.stderr and "1.1.0" in ran.stderr


def test_images_that_are_not_here_are_said_to_be_not_compared(
    recorded: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which of them."""
    monkeypatch.setenv("OSVDEPLOY_CACHE", str(tmp_path))
    found = osvdeploy(*asked(recorded, "1.0.0", "1.1.0"), "--json").document
    assert found["compared"] is None and recorded.id("1.0.0") in found["not_compared"]


def test_files_are_compared_where_both_images_were_built_here(
    recorded: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By their image digests, whatever they were built of; a disk that has lost its end is none."""
    project = built_project(tmp_path, monkeypatch)
    old = built(recorded, "2.0.0", project)
    (project / "app").write_bytes(b"a longer program")
    new = built(recorded, "2.1.0", project)
    lines = osvdeploy(*asked(recorded, "2.0.0", "2.1.0")).stdout.splitlines()
    assert f"image: {old.image[:12]} -> {new.image[:12]}" in lines
    assert "    changed  /app (9B -> 16B)" in lines and "  kernel: the same" in lines
    found = osvdeploy(*asked(recorded, "2.0.0", "2.1.0"), "--json").document
    assert [each["path"] for each in found["compared"]["files"]] == ["/app"] and found["not_compared"] is None

    for disk in (tmp_path / "cache" / "images").glob("*/disk.raw"):
        disk.write_bytes(b"")
    assert "not compared" in osvdeploy(*asked(recorded, "2.0.0", "2.1.0")).stdout


def built(service: Kept, version: str, project: Path) -> Release:
    """A release of what the project builds now, in the service's ledger."""
    image = Digest(osvdeploy("build", "--json", folder=project).document["digest"])
    made = made_release(version)
    digest = release_digest(image, made.configuration)
    found = replace(made, image=image, digest=digest, id=release_id(made.app, version, digest))
    service.ledger.put_release(service.context(), found)
    return found
