"""The releases of a service in a file, and from there into a ledger."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from osvdeploy import api
from osvdeploy.cloud.interfaces import PrometheusMetric
from osvdeploy.cloud.local.store import DirectoryStore
from osvdeploy.context import Context
from osvdeploy.errors import UsageError
from osvdeploy.rollout.gates import Bound, Gate, GateStage
from osvdeploy.rollout.ledger import Head, Ledger
from osvdeploy.rollout.releases import Release
from tests.cli.running import osvdeploy
from tests.report.recorded import Kept
from tests.rollout.made import NOW, SETTINGS
from tests.rollout.made import release as made_release

pytestmark = pytest.mark.whole

CTX = Context()

texts = st.text(max_size=12)
gates = st.builds(
    Gate,
    name=texts,
    metric=st.builds(PrometheusMetric, address=texts, query=texts),
    bounds=st.lists(st.builds(Bound, st.floats(0, 1e9), st.booleans()), max_size=2).map(tuple),
    on=st.just((GateStage.BAKE,)),
    interval=st.floats(1, 600),
    delay=st.floats(0, 600),
)


@st.composite
def release_documents(draw: st.DrawFn) -> list[list[Release]]:
    """Some releases, each with the settings of one deploy or several; none follows its like."""
    found = []
    for number in range(draw(st.integers(1, 4))):
        revisions: list[Release] = []
        for _ in range(draw(st.integers(1, 3))):
            health = replace(SETTINGS.health, min_ready=draw(st.floats(0, 1e6)), path=f"/{draw(texts)}")
            wanted = replace(
                SETTINGS,
                health=health,
                capacity=draw(st.integers(1, 3)),
                ledger="before",
                gates=tuple(draw(st.lists(gates, max_size=2))),
            )
            if not revisions or revisions[-1].settings != wanted:
                made = replace(made_release(f"1.{number}"), settings=wanted, by=draw(texts))
                revisions.append(replace(made, created=NOW.replace(day=number + 1)))
        found.append(revisions)
    return found


def put(ledger: Ledger, releases: Sequence[Sequence[Release]]) -> None:
    for revisions in releases:
        for each in revisions:
            ledger.put_release(CTX, each)


def service_in(folder: str | Path) -> api.Service:
    return api.Service("hello", "production", str(folder))


def ledger_in(folder: str | Path) -> Ledger:
    return Ledger(DirectoryStore(Path(folder)), "hello", "production")


def exported(folder: str | Path) -> dict[str, object]:
    document = api.manifest_document(api.export_releases(CTX, service_in(folder), look=False))
    return {"schema": 1, "command": "releases export", **document}


@pytest.mark.slow
@given(release_documents(), st.booleans(), st.integers(0, 12))
@settings(max_examples=40, deadline=None)
def test_what_was_exported_is_imported_whole(releases: list[list[Release]], by_yaml: bool, before: int) -> None:
    """As JSON and as YAML, also where an earlier import was interrupted after any document; and twice is once."""
    with tempfile.TemporaryDirectory() as old, tempfile.TemporaryDirectory() as new:
        put(ledger_in(old), releases)
        document = exported(old)
        text = yaml.safe_dump(document) if by_yaml else json.dumps(document)
        read = api.read_manifest(yaml.safe_load(text) if by_yaml else json.loads(text), "a file")
        assert read == [list(each) for each in releases]

        address = str(Path(new).resolve())
        moved = [[replace(one, settings=replace(one.settings, ledger=address)) for one in each] for each in releases]
        put(ledger_in(new), [[one] for one in [one for each in moved for one in each][:before]])
        first = api.import_releases(CTX, service_in(new), read)
        assert {*first.put, *first.there} == {each[0].id for each in releases}
        assert [ledger_in(new).revisions(CTX, each[0].id) for each in releases] == moved
        assert api.import_releases(CTX, service_in(new), read).put == ()
        again = exported(new)
        assert [api.read_manifest(again, "x"), ledger_in(new).head(CTX)] == [moved, None]


def test_what_differs_is_refused_before_anything_is_put(tmp_path: Path) -> None:
    """Other digests, other settings, another service: each by name, and the others are not put either."""
    here = made_release("1.0.0")
    put(ledger_in(tmp_path), [[here]])
    for wrong, told in (
        (replace(here, image=made_release("9").image), "other digests"),
        (replace(here, settings=replace(here.settings, capacity=9)), "other settings"),
        (replace(here, settings=replace(here.settings, environment="staging")), "is of hello/staging"),
    ):
        with pytest.raises(UsageError, match=told):
            api.import_releases(CTX, service_in(tmp_path), [[made_release("2.0.0")], [wrong]])
    assert [each.id for each in ledger_in(tmp_path).releases(CTX)] == [here.id]


def test_what_a_ledger_lacks_is_put_beside_what_it_has_otherwise(tmp_path: Path) -> None:
    """As after it was written anew by tags. Who asks for all is told of that way, and nothing is put."""
    here, other = made_release("1.0.0"), made_release("2.0.0")
    put(ledger_in(tmp_path), [[here]])
    changed = replace(here, settings=replace(here.settings, capacity=9))
    with pytest.raises(UsageError, match="other settings") as refused:
        api.import_releases(CTX, service_in(tmp_path), [[other], [changed]])
    assert "--missing puts the others" in str(refused.value.hint)
    found = api.import_releases(CTX, service_in(tmp_path), [[other], [changed]], missing_only=True)
    assert (found.put, found.there, found.left) == ((other.id,), (), (here.id,))
    assert ledger_in(tmp_path).release(CTX, here.id) == here
    with pytest.raises(UsageError, match="other digests"):
        stranger = replace(here, image=made_release("9").image)
        api.import_releases(CTX, service_in(tmp_path), [[stranger]], missing_only=True)


def test_a_ledger_that_has_gone_on_is_not_set_back(tmp_path: Path) -> None:
    """What was exported before the last deploy is there already."""
    address = str(tmp_path.resolve())
    old = made_release("1.0.0", settings=replace(SETTINGS, ledger=address))
    new = replace(old, settings=replace(old.settings, capacity=5))
    put(ledger_in(tmp_path), [[old, new]])
    assert api.import_releases(CTX, service_in(tmp_path), [[old]]).there == (old.id,)
    assert ledger_in(tmp_path).release(CTX, old.id) == new


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    """1.0.0 and 1.1.0, the first of them pinned."""
    service = Kept(tmp_path_factory.mktemp("ledger"))
    service.deploy("1.1.0")
    service.manager().pin(service.context(), service.id("1.0.0"))
    return service


def test_the_commands_tell_and_carry_releases(recorded: Kept, tmp_path: Path) -> None:
    """Text for people; JSON and YAML for a file; the heads of neither ledger change."""
    asked = ["hello/production", "--ledger", str(recorded.folder), "--offline"]
    before: Head = recorded.head
    ran = osvdeploy("releases", "export", *asked)
    serving, warm = ran.stdout.splitlines()[1:3]
    assert ran.code == 0 and serving.split()[:2] == [recorded.id("1.1.0"), "serving"] and "succeeded" in serving
    assert "pinned" in warm and "not asked" in warm

    document = osvdeploy("releases", "export", *asked, "--json").document
    assert [each["version"] for each in document["releases"]] == ["1.0.0", "1.1.0"]
    assert document["releases"][1]["outcome"] == "succeeded" and document["releases"][0]["pinned"]
    for kind in ("json", "yaml"):
        file = tmp_path / f"releases.{kind}"
        file.write_text(osvdeploy("releases", "export", *asked, "--format", kind).stdout)
        into = [str(file), "hello/production", "--ledger", str(tmp_path / kind)]
        ran = osvdeploy("releases", "import", *into, "--dry-run", "--json")
        assert len(ran.document["put"]) == 2 and not (tmp_path / kind).exists()
        assert osvdeploy("releases", "import", *into).stdout.startswith("hello/production: 2 put, 0 there already")
        assert osvdeploy("diff", "1.0.0", "1.1.0", "hello/production", "--ledger", str(tmp_path / kind)).code == 0
    assert recorded.head == before


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("r.json", None, "cannot be read"),
        ("r.json", "{", "is no JSON"),
        ("r.json", "[]", "no list of releases"),
        ("r.json", '{"schema": 1, "command": "plan"}', "no list of releases"),
        ("r.json", '{"schema": 9, "command": "releases export", "releases": []}', "another version"),
        ("r.json", '{"schema": 1, "command": "releases export", "releases": [{}]}', "no documents"),
        ("r.json", '{"schema": 1, "command": "releases export", "releases": [{"documents": [{}]}]}', "cannot be read"),
        ("r.yaml", "a: [", "is no YAML"),
        ("r.yaml", "!!python/object/apply:os.system [true]", "is no YAML"),
        ("r.yaml", "2030-01-01", "no list of releases"),
    ],
)
def test_what_is_no_export_is_refused(tmp_path: Path, name: str, content: str | None, told: str) -> None:
    """With 2, by its file, and nothing is made."""
    if content is not None:
        (tmp_path / name).write_text(content)
    ran = osvdeploy("releases", "import", str(tmp_path / name), "hello/x", "--ledger", str(tmp_path / "ledger"))
    assert ran.code == 2 and told in ran.stderr and name in ran.stderr, ran.stderr
    assert not (tmp_path / "ledger").exists()


def test_without_its_library_yaml_is_refused_with_the_way_out(recorded: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """JSON needs none."""
    import sys

    monkeypatch.setitem(sys.modules, "yaml", None)
    ran = osvdeploy(
        "releases", "export", "hello/production", "--ledger", str(recorded.folder), "--offline", "--format", "yaml"
    )
    assert ran.code == 2 and "PyYAML" in ran.stderr and "osvdeploy[yaml]" in ran.stderr
