"""Image and getImage, through the real process."""

from __future__ import annotations

import shutil
import typing
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from osvdeploy.provider import spec
from osvdeploy.provider.declare import EnumOf, ListOf, ObjectOf, properties
from osvdeploy.provider.values import UNKNOWN, Secret, Value, has_secrets
from osvdeploy.spec import model
from tests.pulumi.lifecycle import lives_a_whole_life
from tests.pulumi.process import Failed, ProviderProcess, running
from tests.pulumi.projects import app_folder

pytestmark = pytest.mark.slow

IMAGE = "osvdeploy:index:Image"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A program's folder with an app in it."""
    return app_folder(tmp_path)


@pytest.fixture
def provider(folder: Path, tmp_path: Path) -> Iterator[ProviderProcess]:
    with running(folder, {"OSVDEPLOY_CACHE": str(tmp_path / "cache")}) as provider:
        yield provider


@pytest.fixture(scope="module")
def looking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProviderProcess]:
    """One for tests that build nothing."""
    home = tmp_path_factory.mktemp("looking")
    with running(app_folder(home), {"OSVDEPLOY_CACHE": str(home / "cache")}) as provider:
        yield provider


def inline(**image: Value) -> dict[str, Value]:
    return {
        "spec": {
            "name": "app",
            "version": "1.0.0",
            "kernel": {"file": "loader.img"},
            "image": {"command": ["/app"], **image},
            "files": [{"from": "app", "to": "/app"}],
        },
        "directory": "app",
    }


def test_life(provider: ProviderProcess) -> None:
    """An Image lives a whole life, and imports by its osv.toml."""
    lives_a_whole_life(provider, IMAGE, {"file": "app"}, {"file": "app", "set": {"image.env.LOG": "debug"}})


def test_life_inline(provider: ProviderProcess) -> None:
    """So does one whose spec the program gives, but for the import."""
    lives_a_whole_life(provider, IMAGE, inline(), inline(env={"PORT": "80"}, boot={"verbose": True}), imported=False)


def test_what_cannot_be_imported_is_told(provider: ProviderProcess) -> None:
    """An Image whose spec the program gives has an id that is no path: the error says why, and what to do instead,
    which makes the same resource out of what is there."""
    given = inline()
    spec = given["spec"]
    assert isinstance(spec, dict)
    given["spec"] = {**spec, "name": "orders"}
    id, outputs = provider.create(IMAGE, provider.check(IMAGE, given)[0])
    with pytest.raises(Failed, match="imported by the path of its osv") as failed:
        provider.read(IMAGE, id)
    assert failed.value.code is grpc.StatusCode.INVALID_ARGUMENT
    assert "nothing but the program has its spec" in failed.value.message
    assert provider.create(IMAGE, provider.check(IMAGE, given)[0]) == (id, outputs)


def test_preview_says_the_digest_where_it_is_known(provider: ProviderProcess) -> None:
    """Before the first build nobody knows the digest; afterwards a preview says it."""
    inputs, _ = provider.check(IMAGE, {"file": "app"})
    _, foreseen = provider.create(IMAGE, inputs, preview=True)
    assert (foreseen["digest"], foreseen["name"], foreseen["version"]) == (UNKNOWN, "app", "1.0.0")
    _, outputs = provider.create(IMAGE, inputs)
    _, foreseen = provider.create(IMAGE, inputs, preview=True)
    assert foreseen == outputs


def test_a_changed_source_is_an_update(provider: ProviderProcess, folder: Path) -> None:
    """Another byte in a file of the image is another plan: an update in place, to another digest."""
    inputs, _ = provider.check(IMAGE, {"file": "app"})
    id, outputs = provider.create(IMAGE, inputs)
    (folder / "app" / "app").write_bytes(b"another program")
    news, _ = provider.check(IMAGE, {"file": "app"}, inputs)
    diff = provider.diff(IMAGE, id, outputs, inputs, news)
    assert (diff.changes, diff.detailed, diff.replaces) == ("DIFF_SOME", {"plan": "UPDATE"}, [])
    assert provider.update(IMAGE, id, outputs, inputs, news)["digest"] != outputs["digest"]


def test_another_version_in_the_spec_is_an_update(provider: ProviderProcess, folder: Path) -> None:
    """An osv.toml that says another version of the same bytes is an update in place, which the clouds' images follow;
    the state of an image that was recorded without its name shows no change for that."""
    inputs, _ = provider.check(IMAGE, {"file": "app"})
    id, outputs = provider.create(IMAGE, inputs)
    recorded = {name: {each: value for each, value in of.items() if each != "named"} for name, of in
                (("inputs", inputs), ("outputs", outputs))}  # fmt: skip
    assert provider.diff(IMAGE, id, recorded["outputs"], recorded["inputs"], inputs).changes == "DIFF_NONE"
    spec = folder / "app" / "osv.toml"
    spec.write_text(spec.read_text().replace('version = "1.0.0"', 'version = "1.1.0"'))
    news, _ = provider.check(IMAGE, {"file": "app"}, inputs)
    for kind, before in (("UPDATE", {"inputs": inputs, "outputs": outputs}), ("ADD", recorded)):
        diff = provider.diff(IMAGE, id, before["outputs"], before["inputs"], news)
        assert (diff.changes, diff.detailed, diff.replaces) == ("DIFF_SOME", {"named": kind}, [])
    updated = provider.update(IMAGE, id, outputs, inputs, news)
    assert (updated["version"], updated["digest"]) == ("1.1.0", outputs["digest"])


def test_a_missing_disk_is_no_drift(provider: ProviderProcess, tmp_path: Path) -> None:
    """A disk that is not on this machine changes nothing: it is the same image wherever it is built."""
    inputs, _ = provider.check(IMAGE, {"file": "app"})
    id, outputs = provider.create(IMAGE, inputs)
    shutil.rmtree(tmp_path / "cache" / "images")
    _, read, _ = provider.read(IMAGE, id, outputs, inputs)
    assert read == outputs
    again, _ = provider.check(IMAGE, {"file": "app"}, inputs)
    assert provider.diff(IMAGE, id, read, inputs, again).changes == "DIFF_NONE"


def test_sources_that_are_not_there_yet(provider: ProviderProcess, folder: Path) -> None:
    """A file that another resource will make is no failure of a preview; the real creation says which is missing."""
    (folder / "app" / "app").unlink()
    inputs, failures = provider.check(IMAGE, {"file": "app"})
    assert failures == []
    _, foreseen = provider.create(IMAGE, inputs, preview=True)
    assert foreseen["digest"] is UNKNOWN
    with pytest.raises(Failed) as caught:
        provider.create(IMAGE, inputs)
    assert "from = 'app': no such file or directory" in caught.value.message


@pytest.mark.parametrize(
    ("given", "path", "reason"),
    [
        ({}, "file", "is needed"),
        (inline() | {"file": "app"}, "spec", "is one too many"),
        ({"file": "app", "directory": "app"}, "directory", "goes with `spec`"),
        ({"file": "nowhere.toml"}, "file", "cannot be read"),
        ({"file": "app", "set": {"image.colour": "red"}}, 'set["image.colour"]', "unknown key"),
        ({"file": "app", "fiel": "app"}, "fiel", "did you mean file?"),
        ({"file": 3.0}, "file", "is no text"),
        ({"spec": {"name": "app"}}, "spec.version", "is required"),
        ({"spec": "app"}, "spec", "is no object"),
        ({"file": "app", "formats": ["qcow2"]}, "folder", "is needed"),
        ({"file": "app", "formats": ["iso"]}, "formats[0]", "is none of qcow2, vmdk"),
    ],
)
def test_failures_name_their_property(
    looking: ProviderProcess, given: dict[str, Value], path: str, reason: str
) -> None:
    """What is wrong is told at the property that it is about."""
    _, failures = looking.check(IMAGE, given)
    assert any(where == path and reason in told for where, told in failures), failures


def test_unknown_inputs(looking: ProviderProcess) -> None:
    """In a preview an input may be unknown: nothing is judged, and nothing is known of the image."""
    inputs, failures = looking.check(IMAGE, {"file": "app", "set": {"version": UNKNOWN}})
    assert failures == []
    _, foreseen = looking.create(IMAGE, inputs, preview=True)
    assert foreseen["digest"] is UNKNOWN
    assert foreseen["set"] == {"version": UNKNOWN}


def test_secrets_stay_secret(provider: ProviderProcess) -> None:
    """A secret in the spec is one in every answer, also where an output is made of it."""
    given = inline(env={"TOKEN": Secret("hunter2-of-mine")})
    inputs, _ = provider.check(IMAGE, given)
    _, outputs = provider.create(IMAGE, inputs)
    for answer in (inputs, outputs):
        assert has_secrets(answer["spec"])
        assert "hunter2" not in str(answer)
    disk = outputs["disk"]
    assert isinstance(disk, dict)
    assert isinstance(disk["recipe"], Secret)
    assert isinstance(outputs["digest"], str)


def test_get_image(provider: ProviderProcess) -> None:
    """getImage tells what an osv.toml would build, and of the image once it is built."""
    answer, failures = provider.invoke("osvdeploy:index:getImage", {"file": "app"})
    assert failures == []
    assert (answer["built"], answer.get("digest")) == (False, None)
    inputs, _ = provider.check(IMAGE, {"file": "app"})
    _, outputs = provider.create(IMAGE, inputs)
    answer, _ = provider.invoke("osvdeploy:index:getImage", {"file": "app"})
    assert (answer["built"], answer["digest"], answer["path"]) == (True, outputs["digest"], outputs["path"])
    assert answer["plan"] == inputs["plan"]


def test_model_and_declaration() -> None:
    """A program may say of a spec what osv.toml may say of an image: names, needs, choices and words."""
    _agree(spec.Spec, model.Spec)


def _agree(declaring: type, table: Any) -> None:
    given = properties(declaring)
    fields = {each.alias or name: each for name, each in table.model_fields.items()}
    if declaring is spec.Spec:
        # Where it runs is for other resources.
        assert set(fields) - set(given) == {"publish", "deploy", "retention", "prices"}
    else:
        assert set(fields) == set(given)
    for name, each in given.items():
        told = fields[name]
        words = (told.description or "").replace("relative to this file", "relative to the spec")
        assert (each.description, each.required) == (words, told.is_required()), name
        parts = [told.annotation, *typing.get_args(told.annotation)]
        if isinstance(each.kind, EnumOf):
            choices = next(part for part in parts if typing.get_origin(part) is typing.Literal)
            assert [choice.value for choice in each.kind.type] == list(typing.get_args(choices)), name
        kind = each.kind.item if isinstance(each.kind, ListOf) else each.kind
        if isinstance(kind, ObjectOf):
            inner = next(part for part in parts if hasattr(part, "model_fields"))
            _agree(kind.type, inner)


def test_formats(provider: ProviderProcess, folder: Path) -> None:
    """An Image is written in other formats too, anew with each version; they go with it, and the old ones before."""
    given: dict[str, Value] = {"file": "app", "formats": ["qcow2", "gce"], "folder": "disks"}
    inputs, _ = provider.check(IMAGE, given)
    id, outputs = provider.create(IMAGE, inputs)
    assert outputs["files"] == {"qcow2": "disks/app-1.0.0.qcow2", "gce": "disks/app-1.0.0.tar.gz"}
    assert (folder / "disks" / "app-1.0.0.qcow2").read_bytes()[:4] == b"QFI\xfb"
    news, _ = provider.check(IMAGE, {**given, "set": {"version": "1.1.0"}}, inputs)
    updated = provider.update(IMAGE, id, outputs, inputs, news)
    names = {"app-1.1.0.qcow2", "app-1.1.0.tar.gz"}
    assert {each.name for each in (folder / "disks").iterdir()} == names
    for _ in range(2):
        provider.delete(IMAGE, id, updated, news)
    assert list((folder / "disks").iterdir()) == []


def test_thirty_images_at_once(provider: ProviderProcess, folder: Path) -> None:
    """Thirty images are built at once, each its own."""
    base = inline()["spec"]
    assert isinstance(base, dict)
    given: list[dict[str, Value]] = [
        {"spec": {**base, "name": f"app-{number}", "image": {"command": ["/app", str(number)]}}, "directory": "app"}
        for number in range(30)
    ]

    def build(each: dict[str, Value]) -> dict[str, Value]:
        inputs, failures = provider.check(IMAGE, each)
        assert failures == []
        return provider.create(IMAGE, inputs)[1]

    with ThreadPoolExecutor(30) as threads:
        made = list(threads.map(build, given))
    assert len({str(each["digest"]) for each in made}) == 30
