"""Packages installed by pip and by uv, from a wheel beside the requirements file: real processes, no index."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest

from osvdeploy.build.cache import BuildCache, cache_directory
from osvdeploy.build.program import Packages
from osvdeploy.build.prune import Kind, survey
from osvdeploy.build.runtimes import Workshop
from osvdeploy.build.runtimes.asked import asked_for
from osvdeploy.build.runtimes.requirements import Installed, installed
from osvdeploy.build.statcache import StatCache
from osvdeploy.build.uses import in_use
from osvdeploy.context import CancelToken, Context
from osvdeploy.errors import BuildError, Interrupted, ProgramInvalid
from osvdeploy.osv.filetree import HostFile, stamp_of
from tests.alive import lives, until
from tests.build.projects import files_in
from tests.build.roots import placed, root_at
from tests.build.test_python import python_at

pytestmark = pytest.mark.slow

VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"


def wheel_in(folder: Path, *, content: str = "x = 1\n") -> str:
    """A wheel with a module and a command; its sha256."""
    path = folder / "mine-1.0-py3-none-any.whl"
    info = "mine-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in (
            ("mine/__init__.py", content),
            (f"{info}/METADATA", "Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n"),
            (f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"),
            (f"{info}/entry_points.txt", "[console_scripts]\nmine = mine:main\n"),
            (f"{info}/RECORD", f"mine/__init__.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n"),
        ):
            archive.writestr(zipfile.ZipInfo(name), text)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def requirements_in(folder: Path, digest: str) -> None:
    (folder / "requirements.txt").write_text(f"--no-index\n./mine-1.0-py3-none-any.whl --hash=sha256:{digest}\n")


@pytest.fixture
def python() -> HostFile:
    """The interpreter of the environment that runs the tests, if it has pip."""
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True).returncode:
        pytest.skip(f"{sys.executable} has no pip")
    return HostFile(os.fsencode(sys.executable), stamp_of(Path(sys.executable).stat()))


def install(folder: Path, python: HostFile, *, refresh: bool = False, ctx: Context | None = None) -> Installed:
    workshop = Workshop(folder, StatCache(), folder / "cache", refresh)
    return installed(ctx or Context(), workshop, "requirements.txt", interpreter=python, runs=True, version=VERSION)


def test_a_package_is_installed_once(tmp_path: Path, python: HostFile) -> None:
    """By what was asked for; asked again, it is there, and refreshed, it is made anew in the same place."""
    requirements_in(tmp_path, wheel_in(tmp_path))

    first = install(tmp_path, python)
    assert first.directory is not None
    made = first.directory / "mine" / "__init__.py"
    assert made.read_text() == "x = 1\n"
    inode = made.stat().st_ino
    assert install(tmp_path, python) == first
    assert made.stat().st_ino == inode
    assert install(tmp_path, python, refresh=True) == first
    assert made.stat().st_ino != inode


def test_what_a_running_build_reads_is_not_taken_from_it(tmp_path: Path, python: HostFile) -> None:
    """Another one's upgrade goes beside it, and is what the next build finds; once free, the old one goes."""
    requirements_in(tmp_path, wheel_in(tmp_path))
    upgraded: list[Installed] = []

    def upgrade() -> None:
        with in_use():
            upgraded.append(install(tmp_path, python, refresh=True))

    # A thread has a context of its own, and so is another build.
    other = threading.Thread(target=upgrade)
    with in_use():
        first = install(tmp_path, python)
        assert first.directory is not None
        before = (first.directory / "mine" / "__init__.py").stat()
        other.start()
        other.join()
        assert (first.directory / "mine" / "__init__.py").stat() == before
    [second] = upgraded
    assert second.directory is not None and second.directory != first.directory
    assert (second.directory / "mine" / "__init__.py").read_text() == "x = 1\n"
    assert install(tmp_path, python) == second
    assert {each.name for each in survey(BuildCache(tmp_path / "cache")) if each.kind is Kind.PACKAGES} == {
        first.directory.name,
        second.directory.name,
    }
    install(tmp_path, python, refresh=True)
    assert len(list((tmp_path / "cache" / "packages").iterdir())) == 1


def test_files_are_named_as_pip_takes_them(tmp_path: Path, python: HostFile) -> None:
    """Of an included file, what it includes is relative to it, and a wheel to the file that the spec names."""
    (tmp_path / "sub").mkdir()
    wheel_in(tmp_path, content="where = 'beside the first file'\n")
    files_in(
        tmp_path,
        requirements="--no-index\n-r sub/more.txt\n",
        sub__more="-c 'const raints.txt'\n./mine-1.0-py3-none-any.whl\n",
        **{"sub__const raints": "mine==1.0\n"},
    )

    def asked() -> str:
        return asked_for(Context(), tmp_path / "requirements.txt", StatCache()).digest

    first = install(tmp_path, python)
    assert first.directory is not None and first.asked == asked()
    assert (first.directory / "mine" / "__init__.py").read_text() == "where = 'beside the first file'\n"

    wheel_in(tmp_path / "sub", content="where = 'beside the second'\n")
    assert asked() == first.asked, "a wheel that nobody asked for"
    wheel_in(tmp_path, content="where = 'another'\n")
    assert asked() != first.asked
    wheel_in(tmp_path, content="where = 'beside the first file'\n")
    assert asked() == first.asked
    files_in(tmp_path, **{"sub__const raints": "mine<2\n"})
    assert asked() != first.asked


def test_it_does_not_matter_where_we_are_called(
    tmp_path: Path, python: HostFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither with a spec that is named relatively, nor with such a cache."""
    (tmp_path / "app").mkdir()
    wheel_in(tmp_path / "app")
    files_in(tmp_path, app__requirements="--no-index\n./mine-1.0-py3-none-any.whl\n")
    monkeypatch.setenv("OSVDEPLOY_CACHE", "cache")
    found = []
    for where, base in [(tmp_path, "app"), (tmp_path / "app", ".")]:
        monkeypatch.chdir(where)
        workshop = Workshop(Path(base), StatCache(), cache_directory())
        made = installed(Context(), workshop, "requirements.txt", interpreter=python, runs=True, version=VERSION)
        assert made.directory is not None and (made.directory / "mine" / "__init__.py").exists()
        assert made.directory.is_relative_to(where / "cache")
        found.append((made.asked, made.directory.name))
    assert found[0] == found[1]
    assert not (tmp_path / "app" / "app").exists()


def test_another_wheel_than_the_hash_says_is_refused_with_pips_words(tmp_path: Path, python: HostFile) -> None:
    """The error is pip's own, and nothing is left in the cache."""
    wheel_in(tmp_path)
    requirements_in(tmp_path, "0" * 64)

    with pytest.raises(BuildError, match="could not install it") as refused:
        install(tmp_path, python)

    assert refused.value.hint is not None and "HASH" in refused.value.hint.upper()
    assert not list((tmp_path / "cache").rglob("mine"))
    assert not list((tmp_path / "cache" / "work").iterdir())


def test_an_interrupt_ends_pip(tmp_path: Path, python: HostFile) -> None:
    """A cancelled build takes its tool with it, and leaves no half of a package."""
    requirements_in(tmp_path, wheel_in(tmp_path))
    token = CancelToken()
    timer = threading.Timer(0.1, token.cancel)
    timer.start()
    with pytest.raises(Interrupted):
        # A pip that never ends: the timer is what ends it.
        sleeper = tmp_path / "python3"
        sleeper.write_text("#!/bin/sh\nexec sleep 60\n")
        sleeper.chmod(0o755)
        slow = HostFile(os.fsencode(sleeper), stamp_of(sleeper.stat()))
        install(tmp_path, slow, ctx=Context(cancel=token))
    timer.join()
    assert not (tmp_path / "cache" / "packages").exists()


def free(lock: Path) -> bool:
    with lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def test_kill_9_ends_pip_and_the_next_build_goes_on(tmp_path: Path, python: HostFile) -> None:
    """pip and what it started end by themselves; what they had made is swept, and the packages are installed."""
    requirements_in(tmp_path, wheel_in(tmp_path))
    greedy = tmp_path / "python3"
    greedy.write_text(
        "#!/bin/sh\nset -- $(echo \"$*\" | sed -n 's/.*--target \\([^ ]*\\).*/\\1/p')\n[ $# = 1 ] || exit 0\n"
        f"(while :; do mkdir -p $1/mine; echo x >> $1/mine/half; done) & echo $! $$ > {tmp_path}/made\n"
        f"mktemp -d; mv {tmp_path}/made {tmp_path}/pids; wait\n"
    )
    greedy.chmod(0o755)
    script = f"""
import os, sys
from pathlib import Path
from osvdeploy.osv.filetree import HostFile, stamp_of
from tests.build.test_requirements import install
path = Path({str(greedy)!r})
install(Path({str(tmp_path)!r}), HostFile(os.fsencode(path), stamp_of(path.stat())))
"""
    work = tmp_path / "cache" / "work"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", script], env=environment) as us:
        until((tmp_path / "pids").exists)
        us.kill()
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert list(work.glob("*/packages/mine")) and list(work.glob("*/tmp/tmp.*"))
    until(lambda: not [pid for pid in pids if lives(pid)])
    until(lambda: free(next(work.glob("*.lock"))))

    installed = install(tmp_path, python).directory
    assert installed is not None and (installed / "mine" / "__init__.py").exists()
    assert not list(work.iterdir())


def test_uv_installs_for_another_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of that root is run, and its Python need not be one of this machine."""
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    if uv is None:
        pytest.skip("uv is not here")
    monkeypatch.setenv("PATH", f"{Path(uv).parent}:{os.environ['PATH']}")
    requirements_in(tmp_path, wheel_in(tmp_path))
    root = root_at(tmp_path / "root")
    python = python_at(root, "/usr", "3.12")

    closure = root.close(python, packages=Packages(requirements="requirements.txt"), cache=tmp_path / "cache")

    site = "/usr/lib/python3.12/site-packages"
    assert [path for path in placed(closure) if "mine" in path] == [
        f"{site}/mine", f"{site}/mine-1.0.dist-info", f"{site}/mine-1.0.dist-info/METADATA",
        f"{site}/mine-1.0.dist-info/RECORD", f"{site}/mine-1.0.dist-info/WHEEL",
        f"{site}/mine-1.0.dist-info/entry_points.txt", f"{site}/mine/__init__.py",
    ]  # fmt: skip


@pytest.mark.parametrize("line", ["./mine", "-e ./mine", "mine @ file://{folder}/mine"])
def test_no_program_of_a_package_s_author_is_run(tmp_path: Path, python: HostFile, line: str) -> None:
    """A directory is not built, also where pip would: what it is made of is pinned by nobody."""
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "mine"\nversion = "1.0"\n'
    )
    (mine / "backend.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    (tmp_path / "requirements.txt").write_text(f"--no-index\n{line.format(folder=tmp_path)}\n")
    with pytest.raises(ProgramInvalid, match="wheels alone"):
        install(tmp_path, python)
    assert not (tmp_path / "ran").exists()
