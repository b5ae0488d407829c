"""What is brought with a CPython, on roots that look like one."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from osvdeploy.build.closure import Part
from osvdeploy.build.hostroot import HostRoot
from osvdeploy.build.program import Packages
from osvdeploy.build.runtimes.python import Layout, config_value, guest_prefix, layout_of, record_of
from osvdeploy.build.runtimes.requirements import asked_digest
from osvdeploy.errors import ProgramInvalid, ToolMissing
from osvdeploy.events import Note, Warned
from osvdeploy.osv.elf import read_elf_file
from osvdeploy.osv.filetree import Content
from tests.build.roots import Root, placed, root_at


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return root_at(tmp_path / "root")


def python_at(
    root: Root, prefix: str, version: str = "3.11", *needed: str, library: str = "lib", debian: bool = False
) -> str:
    """A CPython with a small standard library; the path of its program."""
    program = f"{prefix}/bin/python{version}"
    root.program(program, *needed)
    root.link(f"{prefix}/bin/python3", f"python{version}")
    base = f"{prefix}/{library}/python{version}"
    root.file(f"{base}/site.py", "dist-packages" if debian else "site-packages")
    for name in ("os.py", "json/__init__.py", "test/test_os.py", "json/tests/x.py", "__pycache__/os.cpython-311.pyc"):
        root.file(f"{base}/{name}", name)
    for name in ("idlelib/idle.py", "config-3.11-x/libpython3.11.a", "site-packages/pip/x.py", "turtle.py"):
        root.file(f"{base}/{name}", name)
    root.library(f"{base}/lib-dynload/_ssl.cpython-311.so", "libssl.so.3")
    root.library(f"{base}/lib-dynload/_testcapi.cpython-311.so", "libgone.so")
    root.library(f"{base}/lib-dynload/_tkinter.cpython-311.so", "libtk.so")
    root.library("/usr/lib/x86_64-linux-gnu/libssl.so.3", "libcrypto.so.3")
    root.library("/usr/lib/x86_64-linux-gnu/libcrypto.so.3")
    return f"{prefix}/bin/python3"


def layout(root: Root, path: str) -> Layout | None:
    found = root.root.find(path.encode())
    assert found is not None
    elf = read_elf_file(found.file.path)
    assert elf is not None
    return layout_of(root.root, path.encode(), found, elf)


def test_a_python_comes_whole(root: Root) -> None:
    """Interpreter, standard library, extension modules and their libraries; no tests, no windows, no old bytecode."""
    closure = root.close(python_at(root, "/usr", debian=True))

    assert list(placed(closure)) == [
        "/usr/bin/python3",
        "/usr/lib/libcrypto.so.3",
        "/usr/lib/libssl.so.3",
        "/usr/lib/python3.11/json",
        "/usr/lib/python3.11/json/__init__.py",
        "/usr/lib/python3.11/lib-dynload",
        "/usr/lib/python3.11/lib-dynload/_ssl.cpython-311.so",
        "/usr/lib/python3.11/os.py",
        "/usr/lib/python3.11/site.py",
        "/usr/lib/python3/dist-packages/osv.pth",
    ]
    assert closure.environment == (("PYTHONHOME", "/usr"), ("PYTHONUTF8", "1"), ("PYTHONDONTWRITEBYTECODE", "1"))


@pytest.mark.parametrize(
    ("to", "prefix"),
    [("/usr/bin/python3", "/usr"), ("/python", "/usr"), ("/opt/py/bin/python3.11", "/opt/py"), ("/bin/python3", "/")],
)
def test_its_library_goes_where_the_program_looks(root: Root, to: str, prefix: str) -> None:
    """PREFIX in the guest is what stands before /bin/, and PYTHONHOME says so."""
    closure = root.close(python_at(root, "/home/me/.pyenv/versions/3.11.7"), to=to)

    assert guest_prefix(to.encode()) == prefix.encode()
    assert f"{prefix.rstrip('/')}/lib/python3.11/os.py" in placed(closure)
    assert dict(closure.environment)["PYTHONHOME"] == prefix


def test_layouts_are_known_without_running(root: Root) -> None:
    """Debian's, Fedora's and a plain one are told apart by their files; packages go where site.py looks."""
    for prefix, library, debian in (("/usr", "lib", True), ("/fedora", "lib64", False), ("/opt", "lib", False)):
        python_at(root, prefix, library=library, debian=debian)

    assert layout(root, "/usr/bin/python3") == Layout(b"/usr", b"lib/python3.11", b"3.11", True, None)
    seen = [layout(root, f"{prefix}/bin/python3") for prefix in ("/usr", "/fedora", "/opt")]
    assert [each and each.site for each in seen] == [
        b"lib/python3/dist-packages", b"lib64/python3.11/site-packages", b"lib/python3.11/site-packages",
    ]  # fmt: skip


def test_of_several_versions_the_interpreters_own_is_taken(root: Root) -> None:
    """Its libpython tells, else its name; where neither does, nothing is guessed."""
    python_at(root, "/opt", "3.12")
    python_at(root, "/opt/../opt2", "3.11")
    for version in ("3.12", "3.13", "3.13t"):
        root.file(f"/opt/lib/python{version}/os.py")
    for name, needed in (("python3.13t", ()), ("pythonx", ()), ("python", ("libpython3.13.so.1.0",))):
        root.program(f"/opt/bin/{name}", *needed)

    versions = [layout(root, f"/opt/bin/{name}") for name in ("python3.12", "python3.13t", "python", "pythonx")]

    assert [each and each.version for each in versions] == [b"3.12", b"3.13t", b"3.13", None]


def test_libpython_comes_where_it_is_shared(root: Root) -> None:
    """By its RUNPATH beside the interpreter, as python-build-standalone has it."""
    python_at(root, "/opt", "3.11")
    root.program("/opt/bin/python3.11", "libpython3.11.so.1.0", runpath="$ORIGIN/../lib")
    root.library("/opt/lib/libpython3.11.so.1.0")

    assert placed(root.close("/opt/bin/python3"))["/opt/lib/libpython3.11.so.1.0"] == "/opt/lib/libpython3.11.so.1.0"


def test_a_virtual_environment_brings_its_packages(root: Root) -> None:
    """Its interpreter is the one it was made of; its packages come as they are, but for what is this machine's."""
    python_at(root, "/usr", debian=True)
    root.link("/srv/venv/bin/python", "/usr/bin/python3")
    root.file("/srv/venv/pyvenv.cfg", "home = /usr/bin\n")
    site = "/srv/venv/lib/python3.11/site-packages"
    root.file(f"{site}/flask/__init__.py")
    root.file(f"{site}/flask/tests/test_x.py")
    root.file(f"{site}/flask/__pycache__/x.pyc")
    root.file(f"{site}/pip/__init__.py")
    root.file(f"{site}/flask-3.dist-info/INSTALLER", "pip")
    root.file(f"{site}/flask-3.dist-info/direct_url.json", "{}")
    root.file(
        f"{site}/flask-3.dist-info/RECORD",
        "../../../bin/flask,,\nflask/__init__.py,sha256=x,1\nflask/__pycache__/x.pyc,,\n",
    )
    root.file(f"{site}/__editable__.mine.pth", "/home/me/mine\n")

    closure = root.close("/srv/venv/bin/python", to="/usr/bin/python3")

    site = "/usr/lib/python3/dist-packages"
    assert {path.decode() for path, each in closure.entries.items() if each.part is Part.PACKAGES} == {
        f"{site}/__editable__.mine.pth", f"{site}/flask", f"{site}/flask-3.dist-info",
        f"{site}/flask-3.dist-info/RECORD", f"{site}/flask/__init__.py", f"{site}/flask/tests",
        f"{site}/flask/tests/test_x.py",
    }  # fmt: skip
    record = closure.entries[f"{site}/flask-3.dist-info/RECORD".encode()].entry
    assert record == Content(b"flask/__init__.py,sha256=x,1\n")
    assert [event.text for event in root.events if isinstance(event, Warned)] == [
        f"{root.top}/srv/venv/lib/python3.11/site-packages/__editable__.mine.pth: adds /home/me/mine of this machine "
        "to the path, not of the image"
    ]


def test_bundled_libraries_of_a_package_stay_beside_it(root: Root, tmp_path: Path) -> None:
    """What $ORIGIN finds in a package is there already; a library of the root that it needs comes to /usr/lib."""
    python = python_at(root, "/usr")
    outside = root_at(tmp_path / "venv")
    outside.file("pyvenv.cfg", "home = /usr/bin\n")
    site = "lib/python3.11/site-packages"
    outside.library(
        f"{site}/numpy/_core/m.cpython-311.so", "libblas-1a2b.so", "libz.so.1", runpath="$ORIGIN/../../numpy.libs"
    )
    outside.library(f"{site}/numpy.libs/libblas-1a2b.so", "libgfortran-3c.so", runpath="$ORIGIN")
    outside.library(f"{site}/numpy.libs/libgfortran-3c.so")
    outside.link(f"{site}/numpy.libs/libgfortran.so", "libgfortran-3c.so")
    root.library("/lib/libz.so.1")

    there = placed(root.close(python, packages=Packages(venv="venv")))

    libs = "/usr/lib/python3.11/site-packages/numpy.libs"
    assert there["/usr/lib/libz.so.1"] == "/lib/libz.so.1"
    assert there[f"{libs}/libgfortran.so"] == "-> libgfortran-3c.so"
    assert {f"{libs}/libblas-1a2b.so", f"{libs}/libgfortran-3c.so"} <= set(there)
    assert not any(path.startswith("/usr/lib/libblas") for path in there)
    assert root.events == []


def test_a_module_without_its_library_is_warned_of(root: Root) -> None:
    """Whether it is imported is not known; here it would fail the same way."""
    python = python_at(root, "/usr")
    root.library("/usr/lib/python3.11/lib-dynload/_dbm.cpython-311.so", "libdb.so.9")

    root.close(python)

    assert [event.text for event in root.events if isinstance(event, Warned)] == [
        f"not found in {root.top}: libdb.so.9, needed by /usr/lib/python3.11/lib-dynload/_dbm.cpython-311.so; "
        "importing it will fail, as it does there"
    ]


def test_what_the_host_has_installed_comes_from_every_place(root: Root) -> None:
    """Debian's packages and those of its administrator, each at its own path."""
    python = python_at(root, "/usr", debian=True)
    root.file("/usr/lib/python3/dist-packages/yaml/__init__.py")
    root.file("/usr/local/lib/python3.11/dist-packages/mine/__init__.py")

    there = placed(root.close(python, packages=Packages(host=True)))

    assert "/usr/lib/python3/dist-packages/yaml/__init__.py" in there
    assert "/usr/local/lib/python3.11/dist-packages/mine/__init__.py" in there


def test_packages_that_fit_nothing_are_refused(root: Root, tmp_path: Path) -> None:
    """A venv of another version, a folder that is none, and a program that takes no packages."""
    python = python_at(root, "/usr")
    other = root_at(tmp_path / "venv")
    other.file("lib/python3.12/site-packages/x.py")

    with pytest.raises(ProgramInvalid, match="no virtual environment"):
        root.close(python, packages=Packages(venv="venv"))
    other.file("pyvenv.cfg", "home = /usr/bin\n")
    with pytest.raises(ProgramInvalid, match=r"made for python3\.12, and the program is Python 3\.11"):
        root.close(python, packages=Packages(venv="venv"))
    root.program("/bin/app")
    with pytest.raises(ProgramInvalid, match="is no interpreter that they could be for"):
        root.close("/bin/app", packages=Packages(host=True))
    with pytest.raises(ProgramInvalid, match=r"gone\.txt: cannot be read"):
        root.close(python, packages=Packages(requirements="gone.txt"))


def test_nothing_of_another_root_is_run(root: Root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No bytecode, said so; and requirements need a tool that installs for another machine."""
    (tmp_path / "requirements.txt").write_text("markupsafe==3.0.2\n")
    python = python_at(root, "/usr")
    monkeypatch.setenv("PATH", str(tmp_path))

    closure = root.close(python, cache=tmp_path / "cache")
    assert not any(path.endswith(b".pyc") for path in closure.entries)
    assert next(event for event in root.events if isinstance(event, Note)).text.startswith("no bytecode: ")
    with pytest.raises(ToolMissing, match="the interpreter is in another root"):
        root.close(python, packages=Packages(requirements="requirements.txt"), cache=tmp_path / "cache")


def test_a_look_installs_nothing(root: Root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`check` writes nothing: packages that are not there yet are left out, and it is said."""
    (tmp_path / "requirements.txt").write_text("markupsafe==3.0.2\n")
    monkeypatch.setenv("OSVDEPLOY_CACHE", str(tmp_path / "cache"))

    closure = root.close(python_at(root, "/usr"), packages=Packages(requirements="requirements.txt"))

    assert closure.complete is False and closure.requirements is not None
    assert not (tmp_path / "cache").exists()


def test_what_was_asked_for_is_over_all_that_the_file_names(tmp_path: Path) -> None:
    """Another line, another included file or another wheel beside it is another request; comments too, to be safe."""
    (tmp_path / "wheels").mkdir()
    parts = {
        "requirements.txt": "-r more.txt\n--constraint=limits.txt\n./wheels/mine-1-py3-none-any.whl\n-r "
        "requirements.txt\n",
        "more.txt": "a==1\n",
        "limits.txt": "b<2\n",
        "wheels/mine-1-py3-none-any.whl": "zip",
    }
    for name, text in parts.items():
        (tmp_path / name).write_text(text)
    seen = {asked_digest(tmp_path / "requirements.txt")}
    for name, text in parts.items():
        (tmp_path / name).write_text(text + "#")
        seen.add(asked_digest(tmp_path / "requirements.txt"))
        (tmp_path / name).write_text(text)

    assert len(seen) == 1 + len(parts)
    assert asked_digest(tmp_path / "requirements.txt") in seen


def test_a_record_that_is_none_is_kept() -> None:
    """RECORD is a package's own; what cannot be read is not touched."""
    assert record_of(b"\xff\xfe", lambda path: True) == b"\xff\xfe"
    assert record_of(b'"a,b.py",,\nbin/x,,\n/abs,,\n', lambda path: path != b"bin") == b'"a,b.py",,\n'


def test_a_config_is_read_by_key() -> None:
    """pyvenv.cfg has spaces around its equals signs, or has not."""
    assert config_value(b"a = 1\nHome=/usr/bin\n", b"home") == b"/usr/bin"
    assert config_value(b"home", b"home") is None


@pytest.mark.slow
def test_this_very_python_is_known() -> None:
    """The interpreter that runs the tests has its layout read right off its files."""
    path = os.fsencode(os.path.realpath(sys.executable))
    found = HostRoot().find(path)
    assert found is not None
    elf = read_elf_file(found.file.path)
    assert elf is not None
    seen = layout_of(HostRoot(), path, found, elf)

    assert seen is not None
    assert seen.prefix == os.fsencode(os.path.realpath(sys.base_prefix))
    assert seen.version.decode() == f"{sys.version_info.major}.{sys.version_info.minor}"
