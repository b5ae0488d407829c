"""The plugin in Pulumi's cache: whole or not there, found to be there, mended."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from osvdeploy.context import Context
from osvdeploy.errors import OsvDeployError, UsageError
from osvdeploy.plugin import installing
from osvdeploy.plugin.installing import Did, Installed
from osvdeploy.plugin.places import COMMAND, Way, beside, cache_folder, cached, find
from osvdeploy.version import __version__


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """An environment whose Pulumi has a home of its own, and nothing on PATH."""
    return {"PULUMI_HOME": str(tmp_path / "home"), "PATH": str(tmp_path / "bin")}


def install(home: dict[str, str], interpreter: str = "/venv/bin/python") -> Installed:
    return installing.install(Context(), home, Path(interpreter))


def names(folder: Path) -> set[str]:
    return {each.name for each in folder.iterdir()}


def test_once_and_again(home: dict[str, str]) -> None:
    """The first call puts it there, where Pulumi finds it and nothing else; the second finds nothing to do."""
    first = install(home)
    folder = cache_folder(home, __version__)
    assert (first.did, first.path, first.before) == (Did.INSTALLED, folder / COMMAND, None)
    assert names(folder) == {COMMAND} and names(folder.parent) == {folder.name, f"{folder.name}.lock"}
    before = first.path.stat()
    assert install(home).did is Did.KEPT
    assert first.path.stat() == before
    found = find(None, __version__, home)
    assert found is not None and (found.way, found.command, found.runs) == (Way.CACHE, first.path, True)


def test_another_environment_takes_its_place(home: dict[str, str]) -> None:
    """It runs the provider of whoever installed it last, and the call says what it ran before."""
    install(home, "/it's old/bin/python")
    again = install(home)
    assert (again.did, again.before) == (Did.REPLACED, "/it's old/bin/python")
    assert install(home).did is Did.KEPT


@pytest.mark.parametrize("left", ["", "#!/bin/sh\n", 'exec \'x -P -m osvdeploy.provider.main "$@"\n'])
def test_what_is_broken_is_mended(home: dict[str, str], left: str) -> None:
    """A half-made file, one of something else, one that cannot be run; and the marks and folders of who was killed."""
    folder = cache_folder(home, __version__)
    folder.mkdir(parents=True)
    (folder / COMMAND).write_text(left)
    beside(folder, ".partial").touch()
    beside(folder, ".tmp123").mkdir()
    assert cached(home) == []
    mended = install(home)
    assert mended.did is Did.REPLACED
    assert mended.before == ("another plugin" if left else "an empty file")
    assert names(folder.parent) == {folder.name, f"{folder.name}.lock"}
    mended.path.chmod(0o644)
    assert install(home).did is Did.REPLACED
    mended.path.unlink()
    assert install(home).did is Did.REPLACED
    beside(folder, ".partial").touch()
    assert install(home).did is Did.REPLACED and install(home).did is Did.KEPT


def test_other_versions_are_told(home: dict[str, str]) -> None:
    """They stay. The newest is taken where a program asks for none, so one that is newer than this is named."""
    plugins = cache_folder(home, __version__).parent
    for version in ("0.0.9", "12.3.0", "12.4.0-beta.1", "x"):
        (plugins / f"resource-osvdeploy-v{version}").mkdir(parents=True)
    (plugins / "resource-osvdeployer-v99.0.0").mkdir()
    installed = install(home)
    assert installed.others == ("12.3.0", "0.0.9", "12.4.0-beta.1") and installed.newer == "12.3.0"
    picked = [find(None, wanted, home) for wanted in (None, __version__, "0.0.9", "1.0.0")]
    assert [each and each.version for each in picked] == ["12.3.0", __version__, "0.0.9", None]


def test_what_stands_in_its_place_is_told(home: dict[str, str], tmp_path: Path) -> None:
    """Nothing of somebody's is removed."""
    folder = cache_folder(home, __version__)
    folder.parent.mkdir(parents=True)
    folder.touch()
    with pytest.raises(UsageError, match="is no folder") as raised:
        install(home)
    assert raised.value.hint == f"rm {folder}"
    folder.unlink()
    (folder / COMMAND).mkdir(parents=True)
    with pytest.raises(UsageError, match="is a folder"):
        install(home)
    (tmp_path / "file").touch()
    with pytest.raises(OsvDeployError, match="cannot be written: Not a directory"):
        install({"PULUMI_HOME": str(tmp_path / "file")})


def test_who_comes_second_waits(home: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """For as long as a download may take; then it says what it waited for."""
    monkeypatch.setattr(installing, "_PATIENCE", 0.05)
    folder = cache_folder(home, __version__)
    folder.parent.mkdir(parents=True)
    with FileLock(beside(folder, ".lock")), pytest.raises(OsvDeployError, match="another installation of"):
        install(home)


def test_the_project_comes_first_then_path_then_the_cache(home: dict[str, str], tmp_path: Path) -> None:
    """As Pulumi looks; what a project names counts even where nothing is there to run."""
    install(home)
    script = tmp_path / "bin" / COMMAND
    script.parent.mkdir()
    script.touch(0o755)
    by_path, by_project = find(None, None, home), find(tmp_path / "nowhere", None, home)
    assert by_path is not None and by_project is not None
    assert (by_path.way, by_path.command) == (Way.PATH, script)
    assert (by_project.way, by_project.runs) == (Way.PROJECT, False)
    ignoring = find(None, None, {**home, "PULUMI_IGNORE_AMBIENT_PLUGINS": "1"})
    assert ignoring is not None and ignoring.way is Way.CACHE


@pytest.mark.slow
def test_it_runs_this_interpreter_alone(home: dict[str, str], tmp_path: Path) -> None:
    """Whatever modules the program's folder has, and with a word of its own where the environment is gone."""
    python = tmp_path / "it's a venv" / "python"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\necho "$0" "$@"; exec {sys.executable} -c "import sys; print(sys.path)"\n')
    python.chmod(0o755)
    installed = install(home, str(python))
    ran = subprocess.run([installed.path, "127.0.0.1:1", "-v=9"], capture_output=True, text=True)
    assert ran.stdout.startswith(f"{python} -P -m osvdeploy.provider.main 127.0.0.1:1 -v=9\n")
    python.unlink()
    ran = subprocess.run([installed.path], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert f"osvdeploy is gone: {python}" in ran.stderr and "`osvdeploy pulumi install`" in ran.stderr
