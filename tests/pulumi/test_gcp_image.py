"""gcp.Image, through the real process and against the sandbox."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import requests

from osvdeploy.provider.values import UNKNOWN, Value
from tests.pulumi.clouds import PROJECT, Clouds, clouds
from tests.pulumi.lifecycle import NOTHING, lives_a_whole_life
from tests.pulumi.process import Failed

pytestmark = [pytest.mark.slow, pytest.mark.sandbox]

IMAGE = "osvdeploy:gcp:Image"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clouds]:
    """One sandbox for all tests; each has a version of its own."""
    with clouds(tmp_path_factory.mktemp("google")) as world:
        yield world


def given(world: Clouds, version: str, **more: Value) -> dict[str, Value]:
    return {"disk": world.disk(version), "bucket": "acme-images", **more}


def of_version(world: Clouds, version: str) -> set[str]:
    return {name for name in world.google() if name.startswith(f"app-{version.replace('.', '-')}")}


def test_life(world: Clouds) -> None:
    """An Image lives a whole life, and imports by its id; nothing is left of it, in the bucket neither."""
    lives_a_whole_life(
        world.provider,
        IMAGE,
        given(world, "1.0.0", labels={"team": "a", "cost": "1"}),
        given(world, "1.0.0", labels={"team": "b"}, family="app", machineTypes=["e2-small"]),
    )
    assert of_version(world, "1.0.0") == set()
    assert requests.get(f"{world.shell.url}/storage/v1/b/acme-images/o", timeout=10).json().get("items", []) == []


def test_what_is_made_is_a_releases_image(world: Clouds) -> None:
    """It is labelled so, and for no service; its id is all that a deployment needs, its selfLink what others take."""
    inputs = given(world, "1.1.0", env={"A": "1"}, labels={"team": "a"}, family="app-blue")
    id, _, outputs = world.made(IMAGE, inputs)
    name = str(outputs["name"])
    assert id == f"projects/acme-prod/global/images/{name}"
    assert outputs["selfLink"] == f"https://www.googleapis.com/compute/v1/{id}"
    image = world.google()[name]
    labels = image["labels"]
    assert (labels["team"], image["family"]) == ("a", "app-blue")
    assert {"osvdeploy-release", "osvdeploy-configuration", "osvdeploy-programs"} <= set(labels)
    assert not {"osvdeploy-service", "osvdeploy-ledger", "osvdeploy-retired"} & set(labels)
    assert world.google()["app-1-1-0"]["labels"]["osvdeploy-below"] == "releases"


def test_a_preview_says_the_release(world: Clouds) -> None:
    """Where the disk is known."""
    inputs, _ = world.provider.check(IMAGE, given(world, "1.2.0"))
    _, foreseen = world.provider.create(IMAGE, inputs, preview=True)
    assert isinstance(foreseen["release"], str) and foreseen["release"].startswith("app-1.2.0-")
    assert foreseen["selfLink"] == UNKNOWN
    assert of_version(world, "1.2.0") == set()


def test_what_changes_in_place(world: Clouds) -> None:
    """Labels and family, which it also leaves again; variables and project make another image."""
    start = given(world, "1.3.0", family="app-a", labels={"team": "a"})
    id, inputs, outputs = world.made(IMAGE, start)
    name = str(outputs["name"])
    others: dict[str, Value] = {"family": "app-b"}
    none: dict[str, Value] = {"family": None, "labels": {}}
    for changed, family, team in ((others, "app-b", "a"), (none, None, None)):
        news, _ = world.provider.check(IMAGE, {**start, **changed}, inputs)
        assert world.provider.diff(IMAGE, id, outputs, inputs, news).replaces == []
        outputs = world.provider.update(IMAGE, id, outputs, inputs, news)
        inputs = news
        image = world.google()[name]
        assert (image.get("family"), image["labels"].get("team")) == (family, team)
    for name, value in (("env", {"A": "1"}), ("project", "acme-test")):
        news, _ = world.provider.check(IMAGE, {**start, name: value}, inputs)
        assert world.provider.diff(IMAGE, id, outputs, inputs, news).replaces != []


def test_replaced_the_new_one_is_there_first(world: Clouds) -> None:
    """Created before the old one is deleted, on the same image of the app, which goes with the last."""
    start = given(world, "1.4.0")
    old, old_inputs, old_outputs = world.made(IMAGE, start)
    new, inputs, outputs = world.made(IMAGE, {**start, "env": {"A": "1"}})
    world.provider.delete(IMAGE, old, old_outputs, old_inputs)
    assert of_version(world, "1.4.0") == {"app-1-4-0", str(outputs["name"])}
    world.provider.delete(IMAGE, new, outputs, inputs)
    assert of_version(world, "1.4.0") == set()


def test_what_is_needed_is_retired(world: Clouds) -> None:
    """Another's template has it: it is marked, and taken up again by who makes the same."""
    start = given(world, "1.5.0")
    id, inputs, outputs = world.made(IMAGE, start)
    name = str(outputs["name"])
    template = {
        "name": "theirs",
        "properties": {
            "machineType": "e2-small",
            "disks": [{"boot": True, "initializeParams": {"sourceImage": id}}],
            "networkInterfaces": [{"network": "global/networks/default"}],
        },
    }
    url = f"{world.shell.url}/{PROJECT}/instanceTemplates"
    assert requests.post(url, json=template, timeout=10).ok
    world.provider.delete(IMAGE, id, outputs, inputs)
    labels = world.google()[name]["labels"]
    assert "osvdeploy-retired" in labels and "osvdeploy-programs" not in labels
    again, _, outputs = world.made(IMAGE, start)
    assert again == id and "osvdeploy-retired" not in world.google()[name]["labels"]
    operation = requests.delete(f"{url}/theirs", timeout=10).json()
    while operation["status"] != "DONE":
        operation = requests.post(f"{operation['selfLink']}/wait", timeout=10).json()
    world.provider.delete(IMAGE, id, outputs, inputs)
    assert of_version(world, "1.5.0") == set()


def test_import(world: Clouds) -> None:
    """By the id or the selfLink, with the bucket that it came through; variables have to be said."""
    id, _, outputs = world.made(IMAGE, given(world, "1.6.0", labels={"team": "a"}))
    for told_by in (id, str(outputs["selfLink"])):
        _, state, told = world.provider.read(IMAGE, told_by)
        assert told is not None
        assert (told["bucket"], told["project"], told["labels"]) == ("acme-images", "acme-prod", {"team": "a"})
        checked, failures = world.provider.check(IMAGE, told)
        assert failures == []
        assert world.provider.diff(IMAGE, id, state, told, checked) == NOTHING
    for wrong in ("app-1-6-0", "ami-1"):
        with pytest.raises(Failed, match="is no image on Google"):
            world.provider.read(IMAGE, wrong)
    assert world.provider.read(IMAGE, "projects/acme-prod/global/images/nobodys")[0] == ""


def test_what_is_wrong_is_told_at_its_property(world: Clouds) -> None:
    """Before anything is sent."""
    start = given(world, "1.7.0")
    wrong: dict[str, Value] = {**start, "labels": {"Team": "a"}, "family": "App", "storageLocation": "Mars"}
    _, failures = world.provider.check(IMAGE, wrong)
    assert {path for path, _ in failures} == {"labels.Team", "family", "storageLocation"}
    inputs, failures = world.provider.check(
        IMAGE, {**start, "machineTypes": ["e2-small", "e2-smal"], "zone": "europe-west1-b"}
    )
    assert failures == []
    with pytest.raises(Failed, match=r"machineTypes\[1\]: e2-smal: europe-west1-b has no machine type"):
        world.provider.create(IMAGE, inputs)
    inputs, _ = world.provider.check(IMAGE, {**start, "bucket": "nobodys-bucket"})
    with pytest.raises(Failed, match="there is no bucket nobodys-bucket"):
        world.provider.create(IMAGE, inputs)
    assert of_version(world, "1.7.0") == set()
