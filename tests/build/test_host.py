from __future__ import annotations

import os
from pathlib import Path

import pytest

from osvdeploy.build import closure as closure_module
from osvdeploy.build.closure import Collector, Part
from osvdeploy.build.host import close_program, merge
from osvdeploy.build.hostroot import HostRoot
from osvdeploy.build.program import ProgramRequest
from osvdeploy.build.runtimes import Workshop
from osvdeploy.build.statcache import StatCache
from osvdeploy.context import Context
from osvdeploy.errors import ProgramInvalid
from osvdeploy.events import Warned
from osvdeploy.osv.elf import Machine
from osvdeploy.osv.filetree import Symlink
from tests.build.roots import MUSL, Root, placed, root_at
from tests.osv.elves import Made, make_elf


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return root_at(tmp_path / "root")


def test_libraries_come_with_theirs_to_where_osv_looks(root: Root) -> None:
    """What ld.so finds by its cache or its directories becomes /usr/lib/<name>; the C library is the kernel's."""
    root.program("/usr/bin/app", "liba.so.1", "libc.so.6", "libm.so.6")
    root.library("/opt/a/liba.so.1.2", "libb.so.2", "libc.so.6")
    root.link("/opt/a/liba.so.1", "liba.so.1.2")
    root.library("/usr/lib/x86_64-linux-gnu/libb.so.2", "ld-linux-x86-64.so.2")
    root.link("/lib", "usr/lib")
    root.cache(("liba.so.1", "/opt/a/liba.so.1"))

    closure = root.close("/usr/bin/app")

    assert placed(closure) == {
        "/usr/bin/app": "/usr/bin/app",
        "/usr/lib/liba.so.1": "/opt/a/liba.so.1.2",
        "/usr/lib/libb.so.2": "/usr/lib/x86_64-linux-gnu/libb.so.2",
    }
    assert (closure.command, closure.environment) == (("/usr/bin/app",), ())


def test_origin_keeps_its_place(root: Root) -> None:
    """A library beside its program stays beside it, wherever the program goes; so does one of a library's own."""
    root.program("/opt/app/bin/app", "liba.so", runpath="$ORIGIN/../lib")
    root.library("/opt/app/lib/liba.so", "libb.so", rpath="$ORIGIN/private")
    root.library("/opt/app/lib/private/libb.so")

    assert list(placed(root.close("/opt/app/bin/app"))) == [
        "/opt/app/bin/app", "/opt/app/lib/liba.so", "/opt/app/lib/private/libb.so",
    ]  # fmt: skip
    assert list(placed(root.close("/opt/app/bin/app", to="/srv/bin/app"))) == [
        "/srv/bin/app", "/srv/lib/liba.so", "/srv/lib/private/libb.so",
    ]  # fmt: skip


@pytest.mark.parametrize("runpath", ["${ORIGIN}", "/opt/app", "/opt/$PLATFORM", "/opt/$LIB"])
def test_what_osv_does_not_read_in_a_path_is_found_all_the_same(root: Root, runpath: str) -> None:
    """OSv knows $ORIGIN alone; a library found another way goes to /usr/lib."""
    root.program("/opt/app/app", "liba.so", runpath=runpath)
    for directory in ("app", "x86_64", "lib64"):
        root.library(f"/opt/{directory}/liba.so")

    assert list(placed(root.close("/opt/app/app"))) == ["/opt/app/app", "/usr/lib/liba.so"]


def test_rpath_is_handed_down_and_runpath_is_not(root: Root) -> None:
    """As ld.so has it: a program's RPATH serves its libraries, and a RUNPATH only the object itself."""
    root.library("/a/liba.so", "libb.so")
    root.library("/a/libb.so")
    root.program("/bin/with-rpath", "liba.so", rpath="/a")
    root.program("/bin/with-runpath", "liba.so", runpath="/a")

    assert "/usr/lib/libb.so" in placed(root.close("/bin/with-rpath"))
    with pytest.raises(ProgramInvalid, match=r"libb\.so, needed by /usr/lib/liba\.so"):
        root.close("/bin/with-runpath")


def test_rpath_comes_before_the_cache_and_other_machines_are_passed_over(root: Root) -> None:
    """ld.so's order; a library of another machine, or a file that is none, is not the one that is meant."""
    root.program("/bin/app", "liba.so", rpath="/arm:/text:/mine")
    root.library("/arm/liba.so", machine=Machine.AARCH64)
    root.file("/text/liba.so", "INPUT(liba.so.1)")
    root.library("/mine/liba.so")
    root.library("/cached/liba.so")
    root.cache(("liba.so", "/cached/liba.so"))

    assert placed(root.close("/bin/app"))["/usr/lib/liba.so"] == "/mine/liba.so"


def test_all_that_is_missing_is_told_with_who_needs_it(root: Root) -> None:
    """One error names every library, not the first."""
    root.program("/bin/app", "liba.so", "libgone.so.1")
    root.library("/lib/liba.so", "libgone.so.1", "libother.so")

    with pytest.raises(ProgramInvalid) as refused:
        root.close("/bin/app")

    assert "libgone.so.1, needed by /bin/app, /usr/lib/liba.so; libother.so, needed by /usr/lib/liba.so" in str(
        refused.value
    )
    assert refused.value.hint is not None and "glibc's ld.so" in refused.value.hint


def test_libstdcxx_comes_unless_the_kernel_has_it(root: Root) -> None:
    """A kernel with hidden symbols lacks it; one that has it never loads another."""
    root.program("/bin/app", "libstdc++.so.6", "libgcc_s.so.1")
    root.library("/lib/libstdc++.so.6", "libgcc_s.so.1")
    root.library("/lib/libgcc_s.so.1")

    assert "/usr/lib/libstdc++.so.6" in placed(root.close("/bin/app", cxx=False))
    assert list(placed(root.close("/bin/app", cxx=True))) == ["/bin/app", "/usr/lib/libgcc_s.so.1"]


def test_a_musl_program_is_searched_as_musl_does(root: Root) -> None:
    """It has no cache, looks in other directories, and its C library goes by other names."""
    root.program("/bin/app", "libz.so.1", "libc.musl-x86_64.so.1", interpreter=MUSL, runpath="/inherited")
    root.library("/usr/local/lib/libz.so.1", "libc.so", "liby.so")
    root.library("/inherited/liby.so")
    root.cache(("libz.so.1", "/gone/libz.so.1"))

    assert placed(root.close("/bin/app")) == {
        "/bin/app": "/bin/app",
        "/usr/lib/liby.so": "/inherited/liby.so",
        "/usr/lib/libz.so.1": "/usr/local/lib/libz.so.1",
    }
    root.program("/bin/bad", "libgone.so", interpreter=MUSL)
    with pytest.raises(ProgramInvalid) as refused:
        root.close("/bin/bad")
    assert refused.value.hint is not None and "musl's ld.so" in refused.value.hint


def test_a_root_is_never_left(root: Root, tmp_path: Path) -> None:
    """Absolute links are the root's own, and no number of dots leads out of it."""
    (tmp_path / "secret.so").write_bytes(make_elf(Made()))
    root.program("/bin/app", "liba.so", "libb.so", runpath="/links")
    root.link("/links/liba.so", "/real/liba.so")
    root.library("/real/liba.so")
    root.link("/links/libb.so", "../../../../secret.so")

    with pytest.raises(ProgramInvalid, match=r"libb\.so, needed by /bin/app") as refused:
        root.close("/bin/app")
    assert "liba.so" not in str(refused.value)


def test_one_file_by_two_names_is_one_file_and_a_link(root: Root) -> None:
    """OSv loads by path: a copy would be a second library with state of its own."""
    root.program("/bin/app", "liba.so", "liba.so.1")
    root.library("/lib/liba.so.1")
    root.link("/lib/liba.so", "liba.so.1")

    assert placed(root.close("/bin/app")) == {
        "/bin/app": "/bin/app",
        "/usr/lib/liba.so": "/lib/liba.so.1",
        "/usr/lib/liba.so.1": "-> /usr/lib/liba.so",
    }


def test_two_libraries_of_one_name_are_refused_by_both_names(root: Root) -> None:
    """OSv keeps one library for each name, so two users of different ones cannot both be right."""
    root.program("/bin/app", "libx.so", "liby.so", runpath="/x:/y")
    root.library("/x/libx.so", "libz.so", runpath="/x")
    root.library("/y/liby.so", "libz.so", runpath="/y")
    root.library("/x/libz.so")
    root.library("/y/libz.so")

    with pytest.raises(ProgramInvalid, match=r"/usr/lib/libz\.so: two files .*/x/libz\.so and .*/y/libz\.so"):
        root.close("/bin/app")


def test_a_script_brings_its_interpreter(root: Root) -> None:
    """The words that start it on OSv, which runs no script by itself, are known."""
    root.program("/usr/bin/lua5.4", "liblua.so")
    root.link("/usr/bin/lua", "lua5.4")
    root.library("/lib/liblua.so")
    root.file("/usr/local/bin/tool", "#!/usr/bin/env -S lua -W\nprint(1)\n")

    closure = root.close("tool")

    assert closure.command == ("/usr/bin/lua", "-W", "/usr/local/bin/tool")
    assert list(placed(closure)) == ["/usr/bin/lua", "/usr/lib/liblua.so", "/usr/local/bin/tool"]
    assert root.events == []


def test_a_shell_script_is_warned_of(root: Root) -> None:
    """A shell starts programs, and OSv runs one."""
    root.program("/bin/sh")
    root.file("/bin/run", "#!/bin/sh\nexec /bin/true\n")

    assert root.close("/bin/run").command == ("/bin/sh", "/bin/run")
    assert [type(event) for event in root.events] == [Warned]


@pytest.mark.parametrize(
    ("path", "content", "says"),
    [
        ("/gone", None, "no such program"),
        ("gone", None, "not on PATH"),
        ("build/app", None, "a path within root = 'root' begins with /"),
        ("/text", "hello", "neither an ELF program nor a script"),
        ("/script", "#!/bin/gone\n", "its interpreter /bin/gone is not in"),
        ("/empty", "#!\n", "names no interpreter"),
        ("/env", "#!/usr/bin/env A=1 x\n", "is not known without running it"),
        ("/circle", "#!/circle\n", "a script whose interpreter is a script"),
        ("/arm", make_elf(Made(machine=Machine.AARCH64, interpreter=b"/l")), "not a program for 64-bit x86"),
        ("/library", make_elf(Made()), "without `main`"),
    ],
)
def test_what_is_no_program_is_refused(root: Root, path: str, content: str | bytes | None, says: str) -> None:
    """Each with its name, and what it is instead."""
    if content is not None:
        root.file(path, content)
    with pytest.raises(ProgramInvalid, match=says) as refused:
        root.close(path)
    assert path in str(refused.value)


def test_a_program_beside_the_spec_is_the_users_own(tmp_path: Path) -> None:
    """Its place on this machine means nothing, so it needs one in the guest; its libraries are the host's."""
    root = root_at(tmp_path)
    root.program("/build/app", "liba.so", runpath="$ORIGIN/lib")
    root.library("/build/lib/liba.so")
    workshop = Workshop(tmp_path, StatCache(), None)

    with pytest.raises(ProgramInvalid, match="has no place in the guest") as refused:
        close_program(Context(), ProgramRequest("build/app"), workshop, cxx=True)
    assert refused.value.hint == 'write to = "/app"'

    closure = close_program(Context(), ProgramRequest("build/app", "/app"), workshop, cxx=True)
    assert {path: placed.part for path, placed in closure.entries.items()} == {
        b"/app": "own", b"/lib/liba.so": "program",
    }  # fmt: skip


def test_identical_content_of_two_closures_is_no_conflict(tmp_path: Path) -> None:
    """The same library from two roots is one file; another one is refused with both of its places."""
    roots = [root_at(tmp_path / name / "root") for name in ("one", "two")]
    for number, root in enumerate(roots):
        root.program("/bin/app", "liba.so", mark=str(number))
        root.library("/lib/liba.so", mark="same")
    closures = [root.close("/bin/app", to=f"/{root.top.parent.name}") for root in roots]

    merged = merge(Context(), closures, StatCache())
    assert sorted(merged) == [b"/one", b"/two", b"/usr/lib/liba.so"]

    roots[1].library("/lib/liba.so", mark="else")
    closures[1] = roots[1].close("/bin/app", to="/two")
    with pytest.raises(ProgramInvalid, match=r"/usr/lib/liba\.so: two programs .*/one/root/.* and .*/two/root/"):
        merge(Context(), closures, StatCache())


def test_a_damaged_program_is_refused_and_a_damaged_library_passed_over(root: Root) -> None:
    """ld.so would not load the library either; the next one on its way is taken."""
    whole = make_elf(Made())
    root.program("/bin/app", "liba.so", runpath="/torn:/whole")
    root.file("/torn/liba.so", whole[:80])
    root.file("/whole/liba.so", whole)
    assert placed(root.close("/bin/app"))["/usr/lib/liba.so"] == "/whole/liba.so"


def test_links_that_cross_are_no_endless_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders that lead to each other by links outside the tree multiply; that ends, with a reason."""
    monkeypatch.setattr(closure_module, "_FOLDER_LIMIT", 1000)
    for number in range(12):
        folder = tmp_path / "out" / str(number)
        folder.mkdir(parents=True)
        for name in ("a", "b"):
            (folder / name).symlink_to(f"/out/{number + 1}")
    (tmp_path / "out" / "12").mkdir()
    (tmp_path / "top").mkdir()
    (tmp_path / "top" / "in").symlink_to("/out/0")
    root = HostRoot(os.fsencode(tmp_path))
    with pytest.raises(ProgramInvalid, match="more than 1000 files and directories, links followed"):
        Collector(root, cxx=False).put_tree(b"/top", b"/app", Part.PACKAGES, root=root, wanted=lambda path: True)


def test_a_link_within_a_tree_is_one_that_osv_follows(root: Root) -> None:
    """Relative below a directory, absolute in `/`, and never with a bare dot in front."""
    root.file("/src/.libs/liba.so.1")
    root.link("/src/.libs/liba.so", "liba.so.1")
    root.link("/src/liba.so", ".libs/liba.so")
    root.link("/src/lib", ".libs")
    into = Collector(root.root, cxx=False)
    into.put_tree(b"/src", b"/opt", Part.PACKAGES, root=root.root, wanted=lambda _: True)
    into.put_tree(b"/src", b"/", Part.PACKAGES, root=root.root, wanted=lambda _: True)

    links = {path: placed.entry.target for path, placed in into.entries.items() if isinstance(placed.entry, Symlink)}
    assert links == {
        b"/opt/.libs/liba.so": b"liba.so.1",
        b"/opt/liba.so": b"./.libs/liba.so.1",
        b"/opt/lib": b"./.libs",
        b"/.libs/liba.so": b"liba.so.1",
        b"/liba.so": b"/.libs/liba.so.1",
        b"/lib": b"/.libs",
    }
