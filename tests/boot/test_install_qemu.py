"""scripts/install-qemu: installs, or says in one line what is left out; never a failure, never a question."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.demo.test_toolchain import executable

SCRIPT = Path(__file__).parents[2] / "scripts" / "install-qemu"

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="a POSIX shell script")]


@pytest.fixture
def commands(tmp_path: Path) -> Path:
    """A PATH with nothing on it but what any POSIX system has; a test adds the rest."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sh", "env", "mktemp", "rm", "grep", "tail", "cat", "touch"):
        found = shutil.which(name)
        assert found is not None
        (folder / name).symlink_to(found)
    return folder


def run(commands: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [commands / "sh", SCRIPT],
        env={"PATH": str(commands)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


def assert_left_out(ended: subprocess.CompletedProcess[str], reason: str) -> None:
    assert ended.returncode == 0
    assert ended.stdout == ""
    assert len(ended.stderr.splitlines()) == 1
    assert reason in ended.stderr and "left out" in ended.stderr


def apt_get(commands: Path, *, succeeds: str = "true") -> Path:
    """An apt-get that writes down how it was called, and succeeds where the shell expression says so."""
    calls = commands.parent / "calls"
    executable(commands / "apt-get", f'echo "$*" >> {calls}; {succeeds} || {{ echo "E: no such luck"; exit 100; }}')
    return calls


def test_nothing_is_done_where_qemu_is_already_there(commands: Path) -> None:
    """With both programs on PATH it is silent."""
    calls = apt_get(commands)
    executable(commands / "qemu-system-x86_64", "true")
    executable(commands / "qemu-img", "true")
    ended = run(commands)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    assert not calls.exists()


def test_another_system_is_told_to_install_it_itself(commands: Path) -> None:
    """Without apt-get nothing is tried."""
    assert_left_out(run(commands), "no apt-get here")


def test_a_user_who_may_not_install_is_not_asked_for_a_password(commands: Path) -> None:
    """Neither root nor a sudo that works without a password: said, and left."""
    calls = apt_get(commands)
    executable(commands / "id", "echo 1000")
    assert_left_out(run(commands), "neither root nor sudo")
    executable(commands / "sudo", 'test "$1" = -n || sleep 100; exit 1')
    assert_left_out(run(commands), "neither root nor sudo")
    assert not calls.exists()


def test_root_installs_both_packages_quietly(commands: Path) -> None:
    """The two packages and no recommended ones, without a question, without a word."""
    calls = apt_get(commands, succeeds='test "$DEBIAN_FRONTEND" = noninteractive')
    executable(commands / "id", "echo 0")
    ended = run(commands)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    (call,) = calls.read_text().splitlines()
    assert "install -y --no-install-recommends qemu-system-x86 qemu-utils" in call


def test_sudo_without_a_password_is_used(commands: Path) -> None:
    """A user whom sudo does not ask installs as root does."""
    calls = apt_get(commands)
    executable(commands / "id", "echo 1000")
    executable(commands / "sudo", 'test "$1" = -n || exit 1; shift; exec "$@"')
    executable(commands / "true", "exit 0")
    assert run(commands).stderr == ""
    assert "qemu-system-x86" in calls.read_text()


def test_missing_package_lists_are_fetched_once(commands: Path) -> None:
    """A fresh container has no package lists: they are fetched, and the installation is tried again."""
    mark = commands.parent / "updated"
    succeeds = f'case "$*" in *update*) touch {mark};; *) test -e {mark};; esac'
    calls = apt_get(commands, succeeds=succeeds)
    executable(commands / "id", "echo 0")
    ended = run(commands)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ["install" in call for call in calls.read_text().splitlines()] == [True, False, True]


def test_a_failed_installation_is_no_failure_but_is_told(commands: Path) -> None:
    """apt-get's own words are in the one line."""
    apt_get(commands, succeeds="false")
    executable(commands / "id", "echo 0")
    assert_left_out(run(commands), "no such luck")
