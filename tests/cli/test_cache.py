"""`osvdeploy cache`: what is kept on this machine, and room again."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from osvdeploy.build.uses import in_use
from tests.cli.projects import built_project
from tests.cli.running import osvdeploy


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose image is built, and a kernel in the store."""
    folder = built_project(tmp_path, monkeypatch)
    assert osvdeploy("kernel", "add", "loader.img", folder=folder).code == 0
    return folder


def let_pass(folder: Path, days: float) -> None:
    """Let everything be used last so many days ago."""
    then = time.time() - days * 86_400
    for path in (folder.parent / "cache").rglob("*"):
        os.utime(path, (then, then), follow_symlinks=False)


def test_what_is_in_the_cache_is_shown_by_kind(folder: Path) -> None:
    """How many, how large on the disk, and where; with the holes of a disk left out."""
    ran = osvdeploy("cache", "show", folder=folder)
    assert ran.code == 0 and str(folder.parent / "cache") in ran.stdout
    rows = {line.split()[0]: line.split()[1] for line in ran.stdout.splitlines()[1:] if line}
    assert (rows["images"], rows["kernels"], rows["facts"]) == ("1", "1", "1")
    document = osvdeploy("cache", "show", "--json", folder=folder).document
    assert document["command"] == "cache show" and document["size"] == sum(kind["size"] for kind in document["kinds"])
    assert document["size"] < 10 << 20
    (image,) = [entry for entry in document["entries"] if entry["kind"] == "images"]
    assert image["path"] == osvdeploy("build", folder=folder).stdout.strip().removesuffix("/disk.raw")
    assert not image["busy"]


def test_each_entry_is_shown_where_asked_for(folder: Path) -> None:
    """With what keeps it."""
    let_pass(folder, 2)
    with in_use():
        path = osvdeploy("build", folder=folder).stdout
        ran = osvdeploy("cache", "show", "--entries", folder=folder)
    lines = ran.stdout.splitlines()
    assert lines[1].startswith("images") and lines[1].endswith("in use") and path.split("/")[-2] in lines[1]
    assert any(line.startswith("kernels") and line.endswith("by hand") for line in lines)


def test_looking_is_not_using(folder: Path) -> None:
    """To show the cache, or the kernels in it, keeps nothing in it."""
    let_pass(folder, 40)
    for words in (("cache", "show"), ("kernel", "list"), ("cache", "prune", "--dry-run")):
        assert osvdeploy(*words, folder=folder).code == 0
    ran = osvdeploy("cache", "prune", folder=folder)
    assert "removed images/" in ran.stderr and "kept: kernels/" in ran.stdout and "not used for 40 days" in ran.stdout


def test_a_dry_run_removes_nothing(folder: Path) -> None:
    """And says what would go, and why; then the same goes."""
    let_pass(folder, 40)
    would = osvdeploy("cache", "prune", "--dry-run", "--json", folder=folder).document
    before = set(folder.parent.rglob("*"))
    told = osvdeploy("cache", "prune", "--dry-run", folder=folder)
    assert set(folder.parent.rglob("*")) == before
    assert "would go" in told.stdout and "not used for 40 days" in told.stdout
    assert [(each["kind"], each["because"]) for each in would["kept"]] == [
        ("kernels", "put here by hand, or no longer where it came from")
    ]

    done = osvdeploy("cache", "prune", "--json", folder=folder).document
    assert done["removed"] == would["removed"] and done["left"] == would["left"] and done["freed"] > 0
    assert (would["dry_run"], done["dry_run"]) == (True, False)
    assert osvdeploy("kernel", "list", "--json", folder=folder).document["kernels"]
    assert not osvdeploy("build", "--json", folder=folder).document["reused"]


def test_each_removal_is_told_as_it_is_done(folder: Path) -> None:
    """On stderr; the result says what is left."""
    ran = osvdeploy("cache", "prune", "--older", "0s", "--kernels", folder=folder)
    assert ran.code == 0
    assert "removed images/" in ran.stderr and "removed kernels/" in ran.stderr
    assert " gone, " in ran.stdout and f"left in {folder.parent / 'cache'}" in ran.stdout
    assert osvdeploy("kernel", "list", folder=folder).stdout == "no kernel is in the store\n"


def test_a_size_is_kept_to(folder: Path) -> None:
    """What was used longest ago goes; nothing does where there is room."""
    assert osvdeploy("cache", "prune", "--max-size", "1GiB", folder=folder).stdout.startswith("0 entries gone")
    (folder / "app").write_bytes(b"another program")
    time.sleep(0.01)  # file times are to differ
    newest = osvdeploy("build", folder=folder).stdout
    size = osvdeploy("cache", "show", "--json", folder=folder).document["size"]
    ran = osvdeploy("cache", "prune", "--max-size", f"{size - 1}B", folder=folder)
    assert ran.stdout.startswith("1 entry gone") and Path(newest.strip()).exists()


def test_an_empty_cache_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And stays unmade."""
    monkeypatch.setenv("OSVDEPLOY_CACHE", str(tmp_path / "cache"))
    assert osvdeploy("cache", "show").stdout == f"nothing is in {tmp_path / 'cache'}\n"
    assert osvdeploy("cache", "prune").stdout.startswith("0 entries gone, 0B; 0B left")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(("option", "value"), [("--older", "30"), ("--max-size", "5GB"), ("--older", "soon")])
def test_a_limit_has_a_unit(option: str, value: str) -> None:
    """A bare number could be mistaken."""
    ran = osvdeploy("cache", "prune", option, value)
    assert ran.code == 2 and option in ran.stderr and "Traceback" not in ran.stderr


def test_a_cache_that_cannot_be_written_is_told(folder: Path) -> None:
    """A file where its workspaces should be."""
    let_pass(folder, 40)
    work = folder.parent / "cache" / "work"
    work.rmdir()
    work.write_text("in the way")
    ran = osvdeploy("cache", "prune", folder=folder)
    assert ran.code == 1 and "the build cache cannot be written" in ran.stderr
