"""[[programs]] from a spec's inputs to plan, lock and tree."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from osvdeploy.build.builder import upgrade_lock
from osvdeploy.build.cache import BuildCache
from osvdeploy.build.lock import Lock, format_lock, parse_lock, read_lock
from osvdeploy.build.plan import BuildPlan, FileMapping, ImageInputs, pin, plan
from osvdeploy.build.program import ProgramRequest
from osvdeploy.build.program_lock import PackagesPin, ProgramPin, hold
from osvdeploy.build.programs import bring_programs
from osvdeploy.build.runtimes import Workshop
from osvdeploy.build.sources import FileKernel
from osvdeploy.build.statcache import StatCache
from osvdeploy.context import Context
from osvdeploy.digests import Digest
from osvdeploy.errors import CommandLineInvalid, FileTreeInvalid, PinMismatch, ProgramInvalid
from osvdeploy.osv.filetree import Content, Directory, HostFile, TreeBuilder
from tests.build.roots import Root, root_at
from tests.build.test_python import python_at
from tests.osv.images import write_loader

digests = st.binary(min_size=32, max_size=32).map(bytes.hex).map(Digest)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
packages = st.builds(PackagesPin, digests, st.integers(0, 2**40), st.integers(0, 2**40), st.none() | digests)
pins = st.builds(
    ProgramPin, texts, texts, digests, st.integers(0, 2**40), st.integers(0, 2**40),
    st.dictionaries(texts, digests, max_size=3), st.none() | packages,
)  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Root:
    write_loader(tmp_path / "loader.img")
    root = root_at(tmp_path / "root")
    root.program("/usr/bin/app", "liba.so")
    root.library("/lib/liba.so")
    return root


def inputs_of(root: Root, *programs: ProgramRequest, **changes: object) -> ImageInputs:
    inputs = ImageInputs(
        app="app",
        version="1",
        base=root.top.parent,
        kernel=FileKernel("loader.img"),
        command=("/usr/bin/app",),
        programs=programs,
    )
    return replace(inputs, **changes)  # type: ignore[arg-type]  # the caller names fields


def planned(root: Root, *programs: ProgramRequest, **changes: object) -> BuildPlan:
    """Planned, and pinned as after its build."""
    ctx, inputs = Context(reporter=root.recorder), inputs_of(root, *programs, **changes)
    cache = BuildCache(root.top.parent / "cache")
    wanted = plan(ctx, inputs, StatCache(), cache)
    pin(ctx, inputs, wanted, cache)
    return wanted


APP = ProgramRequest("/usr/bin/app", root="root")


def test_a_program_is_in_the_image_as_it_was_pinned(root: Root) -> None:
    """One that changes after its closure was read is seen by its stamp, and not taken for what was pinned."""
    programs = bring_programs(Context(), [APP], Workshop(root.top.parent, StatCache(), None))
    before = programs.entries[b"/usr/bin/app"].entry
    root.library("/usr/bin/app", "libb.so")
    builder = TreeBuilder()
    programs.put_into(builder)
    assert builder.tree().entries[b"/usr/bin/app"] == before


def test_a_program_is_in_the_image_with_what_it_takes_for_granted(root: Root) -> None:
    """Its closure, and the mount points and hosts that OSv does not make by itself; the spec's own come first."""
    (root.top.parent / "hosts").write_text("10.0.0.1 db\n")

    tree = planned(root, APP, files=(FileMapping("hosts", "/etc/hosts"),)).tree

    assert [path for path in tree.entries if isinstance(tree.entries[path], Directory)] == [
        b"/", b"/dev", b"/etc", b"/proc", b"/sys", b"/tmp", b"/usr", b"/usr/bin", b"/usr/lib",
    ]  # fmt: skip
    fstab, hosts = tree.entries[b"/etc/fstab"], tree.entries[b"/etc/hosts"]
    assert isinstance(fstab, Content) and b"none /tmp ramfs defaults 0 0\n" in fstab.content
    assert isinstance(hosts, HostFile)
    assert tree.file(b"/usr/lib/liba.so") is not None


def test_the_plan_depends_on_content_and_not_on_place(tmp_path: Path) -> None:
    """The same root elsewhere gives the same plan; another library another one."""
    digests = []
    for name, mark in (("one", "1"), ("two", "1"), ("three", "2")):
        root = root_at(tmp_path / name / "root")
        write_loader(tmp_path / name / "loader.img")
        root.program("/usr/bin/app", "liba.so")
        root.library("/lib/liba.so", mark=mark)
        digests.append(planned(root, APP).digest)

    assert digests[0] == digests[1] != digests[2]


def test_a_file_of_the_spec_and_one_of_a_program_are_both_named(root: Root) -> None:
    """Neither silently wins."""
    (root.top.parent / "liba.so").write_text("mine")
    with pytest.raises(FileTreeInvalid, match=r"/usr/lib/liba\.so: given twice: .*liba\.so, and .*root/lib/liba\.so"):
        planned(root, APP, files=(FileMapping("liba.so", "/usr/lib/liba.so"),))


def test_the_lock_says_which_file_moved(root: Root) -> None:
    """A library's update stops the build by its name; an upgrade takes it."""
    planned(root, APP)
    lock = root.top.parent / "osv.lock"
    before = lock.read_text()
    planned(root, APP)
    assert lock.read_text() == before

    root.library("/lib/liba.so", mark="updated")
    root.library("/lib/libnew.so")
    root.program("/usr/bin/app", "liba.so", "libnew.so")
    with pytest.raises(PinMismatch) as refused:
        planned(root, APP)
    assert "/usr/bin/app: the program on this host, or a library of it, is not the one that osv.lock pins: " in str(
        refused.value
    )
    assert "/usr/bin/app changed, /usr/lib/liba.so changed, /usr/lib/libnew.so is new" in str(refused.value)
    assert lock.read_text() == before

    upgrade_lock(Context(), inputs_of(root, APP), BuildCache(root.top.parent / "cache"))
    assert lock.read_text() != before
    planned(root, APP)


def test_the_spec_s_own_program_is_not_pinned(tmp_path: Path) -> None:
    """What is built beside the spec changes with every build; only what it takes from the host is held."""
    write_loader(tmp_path / "loader.img")
    root = root_at(tmp_path / "root")
    own = root_at(tmp_path)
    own.program("/build/app", mark="1")
    request = ProgramRequest("build/app", "/app")
    first = planned(root, request, command=("/app",))
    own.program("/build/app", mark="2")
    second = planned(root, request, command=("/app",))

    assert first.digest != second.digest


def test_what_a_program_needs_to_be_told_is_told(root: Root) -> None:
    """The environment of a Python goes into the command line, where the spec does not set it."""
    python_at(root, "/usr")
    request = ProgramRequest("/usr/bin/python3", root="root")

    boot = planned(root, request, command=("/usr/bin/python3", "/app.py"), environment=(("PYTHONUTF8", "0"),)).boot

    assert boot.environment == (("PYTHONUTF8", "0"), ("PYTHONHOME", "/usr"), ("PYTHONDONTWRITEBYTECODE", "1"))


def test_two_pythons_need_a_word_of_the_user(root: Root) -> None:
    """Only one PYTHONHOME can be set: that of the program that is started, else the spec's."""
    python_at(root, "/opt/one")
    python_at(root, "/opt/two")
    both = [ProgramRequest(f"/opt/{name}/bin/python3", root="root") for name in ("one", "two")]

    boot = planned(root, *both, command=("/opt/two/bin/python3", "x.py")).boot
    assert dict(boot.environment)["PYTHONHOME"] == "/opt/two"
    with pytest.raises(ProgramInvalid, match="PYTHONHOME: /opt/one/bin/python3 needs '/opt/one'"):
        planned(root, *both, command=("/other",))
    planned(root, *both, command=("/other",), environment=(("PYTHONHOME", "/opt/one"),))


def test_a_script_is_not_started_as_a_program(root: Root) -> None:
    """OSv runs ELF alone; the command to write is told."""
    root.program("/usr/bin/lua")
    root.file("/usr/bin/tool", "#!/usr/bin/lua -W\n")
    request = ProgramRequest("/usr/bin/tool", root="root")

    with pytest.raises(CommandLineInvalid, match="is a script") as refused:
        planned(root, request, command=("/usr/bin/tool", "--port", "1"))
    assert refused.value.hint == 'write command = ["/usr/bin/lua", "-W", "/usr/bin/tool", "--port", "1"]'


def test_two_programs_of_one_place_are_both_named(root: Root) -> None:
    """The guest's path is a program's name in the lock, too."""
    root.program("/bin/other")
    with pytest.raises(ProgramInvalid, match="/usr/bin/app: two programs for one place: /usr/bin/app and /bin/other"):
        planned(root, APP, ProgramRequest("/bin/other", "/usr/bin/app", "root"))


@settings(max_examples=50, deadline=None)
@given(st.lists(pins, max_size=3, unique_by=lambda pin: pin.path))
def test_any_pins_read_back_as_written(pins: list[ProgramPin]) -> None:
    """Whatever a file is called, its pin survives."""
    lock = Lock(programs=tuple(sorted(pins, key=lambda pin: pin.path)))
    assert parse_lock(format_lock(lock)) == lock


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("programs = 1", "programs is not an array of tables"),
        ("programs = [1]", r"programs\[0\] is not a table"),
        ("[[programs]]\npath = 1", r"programs\[0\]\.path is not there, or not a text"),
        ("[[programs]]\npath = 'a'\nfrom = ''\nsha256 = 'x'", r"sha256 is not 64 hex digits"),
        (f"[[programs]]\npath = 'a'\nfrom = ''\nsha256 = '{'0' * 64}'\nfiles = true", "files is not there, or not a n"),
    ],
)
def test_a_pin_that_is_none_is_refused(text: str, says: str) -> None:
    """Each with the key that is wrong."""
    with pytest.raises(ValueError, match=says):
        parse_lock(f"version = 1\n{text}")


def test_unknown_keys_of_a_pin_are_refused() -> None:
    """A newer osvdeploy may pin something by them."""
    pin = ProgramPin("/a", "a", Digest("0" * 64), 1, 1, {}, PackagesPin(Digest("1" * 64), 1, 1))
    text = format_lock(Lock(programs=(pin,)))
    for extra, where in (("extra = 1\n", "programs[0].extra"), ("[programs.packages.x]\n", "programs[0].packages.x")):
        with pytest.raises(ValueError, match=r"unknown key|packages") as refused:
            parse_lock(text + extra)
        assert where in str(refused.value) or "packages" in str(refused.value)


def test_each_side_of_packages_is_told_apart() -> None:
    """Whether the user asked for other packages, or other ones came for the same request, is another story."""
    held = ProgramPin("/py", "py", Digest("0" * 64), 9, 9, {}, PackagesPin(Digest("1" * 64), 5, 50, Digest("a" * 64)))
    asked = replace(held, packages=PackagesPin(Digest("2" * 64), 5, 51, Digest("b" * 64)))
    moved = replace(held, packages=PackagesPin(Digest("2" * 64), 6, 51, Digest("a" * 64)))
    gone = replace(held, packages=None)
    counted = replace(held, sha256=Digest("3" * 64), files=10)

    for now, says in (
        (asked, "its requirements were changed since"),
        (moved, "its packages are not those that osv.lock pins, though what was asked for is the same: 6 files of 51"),
        (gone, "pins it with packages"),
        (counted, "10 files of 9 bytes here, 9 of 9 pinned"),
    ):
        with pytest.raises(PinMismatch, match=says):
            hold([held], [now], lock="osv.lock")
    other = replace(held, path="/other")
    assert hold([other], [held], lock="osv.lock") == (other, held)


def test_an_upgrade_drops_what_the_spec_no_longer_has(root: Root) -> None:
    """A pin of a program that is gone from the spec holds nothing, and goes with the next upgrade."""
    planned(root, APP)
    path = root.top.parent / "osv.lock"
    lock = read_lock(path)
    assert lock is not None and [pin.path for pin in lock.programs] == ["/usr/bin/app"]

    upgrade_lock(Context(), inputs_of(root), BuildCache(root.top.parent / "cache"))

    lock = read_lock(path)
    assert lock is not None and lock.programs == () and lock.kernel is not None
