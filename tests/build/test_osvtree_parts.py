"""What is decided about a tree without running anything: options, manifests, logs, the lock, QEMU's arguments."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from osvdeploy.build.lock import Lock, TreePin, format_lock, parse_lock
from osvdeploy.build.osvtree import vm
from osvdeploy.build.osvtree.failures import ended_badly, explain, failed
from osvdeploy.build.osvtree.manifest import check_names, write_manifest
from osvdeploy.build.osvtree.settings import OptionValue, Settings, settings_for
from osvdeploy.build.osvtree.source import OsvTree, open_tree
from osvdeploy.build.osvtree.vm import changed, network
from osvdeploy.errors import FileTreeInvalid, TreeInvalid
from osvdeploy.osv.filetree import Content, FileTree, Symlink, TreeBuilder
from tests.build.fake_tree import make_tree
from tests.build.qcow2 import to_raw, write_qcow2
from tests.osv.images import file_trees


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> OsvTree:
    return open_tree(make_tree(tmp_path_factory.mktemp("tree") / "osv", git=False).path, named="../osv")


@pytest.fixture(scope="module")
def old_tree(tmp_path_factory: pytest.TempPathFactory) -> OsvTree:
    path = make_tree(tmp_path_factory.mktemp("old") / "osv", kconfig=False, git=False).path
    return open_tree(path, named="../osv")


def sorted_(tree: OsvTree, modules: tuple[str, ...] = (), fs: str = "rofs", **options: OptionValue) -> Settings:
    return settings_for(tree, options, modules, fs=fs)


# ----------------------------------------------------------------------------------------------------------- a tree


@pytest.mark.parametrize("missing", ["scripts/build", "Makefile", "conf/base.mk"])
def test_a_directory_that_is_no_tree(tmp_path: Path, missing: str) -> None:
    """A directory without what every OSv tree has is refused, with what it lacks."""
    path = make_tree(tmp_path / "osv", git=False).path
    (path / missing).unlink()
    with pytest.raises(TreeInvalid, match=missing):
        open_tree(path, named="../osv")
    with pytest.raises(TreeInvalid, match="no such directory"):
        open_tree(tmp_path / "nowhere", named="nowhere")


def test_a_missing_submodule_is_named(tmp_path: Path) -> None:
    """A submodule that every kernel needs and that was not fetched is told with the command that fetches it."""
    fake = make_tree(tmp_path / "osv", git=False)
    fake.write(".gitmodules", '[submodule "musl_1.2.1"]\n\tpath = musl_1.2.1\n\turl = x\n')
    (fake.path / "musl").symlink_to("musl_1.2.1")
    with pytest.raises(TreeInvalid, match=r"musl_1\.2\.1 is not there") as raised:
        open_tree(fake.path, named="../osv")
    assert "git -C ../osv submodule update --init --recursive" in (raised.value.hint or "")


# ---------------------------------------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("name", "value", "written"),
    [
        ("conf_preempt", False, "n"),
        ("conf_preempt", 1, "y"),
        ("conf_lazy_stack", "y", "y"),
        ("conf_memory_l1_pool_size", 128, "128"),
        ("conf_core_debug_buffer_size", 4096, "0x1000"),
        ("conf_core_debug_buffer_size", "0x2000", "0x2000"),
        ("conf_compiler_opt", '-O1 -DX="y"', '"-O1 -DX=\\"y\\""'),
    ],
)
def test_kernel_options_as_kconfig_spells_them(tree: OsvTree, name: str, value: OptionValue, written: str) -> None:
    """Each type of Kconfig has its own spelling in .config."""
    assert settings_for(tree, {name: value}, (), fs="rofs").kconfig == ((name.removeprefix("conf_"), written),)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("conf_lazy_stak", 1, "did you mean 'conf_lazy_stack'"),
        ("conf_preempt", "maybe", "true or false"),
        ("conf_memory_l1_pool_size", "many", "is a number"),
        ("conf_memory_l1_pool_size", True, "is a number"),
        ("conf_drivers_profile", "aws_nitro", "no such drivers profile"),
        ("conf_drivers_profile_aws_nitro", 1, "no such drivers profile"),
        ("fs_size", 1, r"\[image\] size"),
        ("modules", "x", r"\[image\] modules"),
        ("export", "all", "virtiofs"),
        ("app_local_exec_tls", 1, "knows no such option"),
        ("mode", "fast", "release or debug"),
        ("conf_zfs", "$(shell touch x)", r"holds a \$"),
        ("conf_zfs", "a\nb", "control character"),
        ("bad name", 1, "not a name"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(tree: OsvTree, name: str, value: OptionValue, told: str) -> None:
    """A name or value that the tree would ignore, or take for something else, is an error by name."""
    with pytest.raises(TreeInvalid, match=told) as raised:
        settings_for(tree, {name: value}, (), fs="rofs")
    assert name in raised.value.message


def test_a_modules_variable_is_known(tree: OsvTree) -> None:
    """A variable that a module's recipe reads goes on the command line."""
    assert sorted_(tree, ("web",), WEB_COLOUR="red").arguments == (("WEB_COLOUR", "red"),)


def test_a_tree_before_kconfig_has_its_own_names(old_tree: OsvTree) -> None:
    """v0.57.0 spells most options with a dash and drivers_profile without conf_; what it lacks is told to be so."""
    settings = sorted_(old_tree, conf_lazy_stack=1, conf_hide_symbols=True, conf_drivers_profile="aws")
    assert dict(settings.arguments) == {"conf-lazy_stack": "1", "conf_hide_symbols": "1", "drivers_profile": "aws"}
    assert settings.kconfig == ()
    with pytest.raises(TreeInvalid, match="from before OSv's Kconfig"):
        sorted_(old_tree, conf_memory_l1_pool_size=1)


@pytest.mark.parametrize(
    ("modules", "fs", "image"),
    [((), "rofs", "empty"), (("web", "java.x"), "zfs", "web,java.x"), (("empty",), "rofs", "empty"),
     ((), "rofs_with_zfs", "zfs"), (("web",), "rofs_with_zfs", "web,zfs")],
)  # fmt: skip
def test_modules_are_an_image(tree: OsvTree, modules: tuple[str, ...], fs: str, image: str) -> None:
    """Modules go in as an image, to which scripts/build adds none of its own; a ZFS beside a ROFS needs its driver."""
    assert sorted_(tree, modules, fs).image == image


@pytest.mark.parametrize("modules", [("nowhere",), ("default",), ("-web",), ("web; x",)])
def test_modules_that_there_are_not(tree: OsvTree, modules: tuple[str, ...]) -> None:
    """What is no module of the tree, or would be taken for something else, is refused."""
    with pytest.raises(TreeInvalid, match=r"image\.modules"):
        sorted_(tree, modules)


# --------------------------------------------------------------------------------------------------------- manifest


def _read(text: str) -> dict[str, str]:
    """A manifest as OSv's scripts read it."""
    found = {}
    for line in text.split("\n"):
        if line.strip():
            guest, host = line.rstrip().split(": ", 2)[:2]
            found[guest.strip()] = host.strip() % {}
    return found


@settings(max_examples=25)
@given(files=file_trees())
def test_a_manifest_says_the_tree_or_is_refused(files: FileTree, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Any tree is refused by name, or its manifest reads back as that tree, whatever bytes the names have."""
    try:
        check_names(files, "zfs")
    except FileTreeInvalid as error:
        assert error.hint
        return
    stage = tmp_path_factory.mktemp("stage")
    written = _read(write_manifest(files, stage, fs="zfs", sources=Path("/osv")).text)

    for path, entry in files.entries.items():
        name = path.decode()
        if isinstance(entry, Symlink):
            assert written[name] == "->" + entry.target.decode()
        elif isinstance(entry, Content):
            assert Path(written[name]).read_bytes() == entry.content
        elif name in written:
            assert Path(written[name]).is_dir()
        else:
            assert path == b"/" or any(other.startswith(path + b"/") for other in files.entries)


@pytest.mark.parametrize(
    ("name", "fs", "told"),
    [
        (b"/a: b", "zfs", "splits"),
        (b"/a\nb", "zfs", "line break"),
        (b"/a ", "zfs", "white space"),
        (b"/\xff", "zfs", "not UTF-8"),
        ("/é".encode(), "rofs", "not ASCII"),
        (b"/a/**", "zfs", "pattern"),
        (b"/" + b"n" * 110, "ramfs", "holds 110"),
        (b"/x-stripped.so", "ramfs", "-stripped.so"),
    ],
)
def test_a_name_that_a_manifest_cannot_say(name: bytes, fs: str, told: str) -> None:
    """A name that OSv's scripts would misread is refused before anything is built, by its path."""
    builder = TreeBuilder()
    builder.add_content(name, b"x", origin="a test")
    with pytest.raises(FileTreeInvalid, match=told):
        check_names(builder.tree(), fs)


def test_accents_are_for_zfs() -> None:
    """A name beyond ASCII is refused for a ROFS alone: only its writer damages it."""
    builder = TreeBuilder()
    builder.add_content("/é".encode(), b"x", origin="a test")
    for fs in ("zfs", "ext", "ramfs", "virtiofs"):
        check_names(builder.tree(), fs)


# ------------------------------------------------------------------------------------------------------------- logs


@settings(max_examples=25)
@given(st.lists(st.text(max_size=200), max_size=20))
def test_any_log_is_explained_or_shown(lines: list[str]) -> None:
    """No log, whatever it holds, breaks the telling of a failure."""
    error = failed(Path("/log"), lines, what="../osv", because="it stopped")
    assert "/log" in error.message and error.reason


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("Exception: Module not found: foo. Please check configuration: /osv/config.json", "module"),
        ("make[1]: g++: No such file or directory", "tool"),
        ("scripts/build: line 12: qemu-img: command not found", "tool"),
        ("FileNotFoundError: [Errno 2] No such file or directory: 'qemu-nbd'", "tool"),
        ("cc1plus: out of memory allocating 65536 bytes", "memory"),
        ("'qemu-system-x86_64' binary not found. Please install the qemu-system-x86_64 package.", "tool"),
        ('Makefile:192: *** Missing external/x64/acpica/ directory. Please run "git submodule".  Stop.', "submodule"),
        ("qemu-system-x86_64: ../../target/i386/kvm/kvm.c:3183: kvm_buf_set_msrs: Assertion failed", "builder-vm"),
        ("mkfs.ext4: Permission denied while trying to determine filesystem size", "root"),
    ],
)
def test_the_words_of_real_tools(line: str, reason: str) -> None:
    """What OSv's scripts and the tools below them print is understood."""
    found = explain(["  CXX core/mmu.cc", line, "make failed. Exiting from build script"])
    assert found is not None and found.reason == reason


def test_status_says_least() -> None:
    """The trap's line is a failure at status 0; a status alone is one too; a quiet log is none."""
    assert ended_badly(["./scripts/build failed: cp x y"], 0) == "scripts/build stopped at: cp x y"
    assert ended_badly(["make: *** [Makefile:3: x] Error 1"], 0)
    assert ended_badly(["  CXX a.cc"], 2) == "scripts/build ended with status 2"
    assert ended_badly(["  CXX a.cc", "Adding /failed: x"], 0) is None


# ------------------------------------------------------------------------------------------------------------- lock


def test_a_tree_is_pinned_by_its_commit() -> None:
    """A lock with a tree reads back, and what is no commit is refused."""
    lock = Lock(tree=TreePin("../osv", "a" * 40))
    assert parse_lock(format_lock(lock)) == lock
    for wrong in ('[tree]\npath = "x"', '[tree]\npath = "x"\ncommit = "zz"', "tree = 1",
                  f'[tree]\npath = "x"\ncommit = "{"a" * 40}"\nmore = 1'):  # fmt: skip
        with pytest.raises(ValueError, match="tree"):
            parse_lock(f"version = 1\n{wrong}\n")


# ------------------------------------------------------------------------------------------------------- QEMU, qcow2

RUN_PY = ["-m", "512", "-gdb", "tcp::1234,server,nowait", "-enable-kvm", "-cpu", "host,+x2apic", "-kernel", "host",
          "-netdev", "user,id=un0,net=192.168.122.0/24,hostfwd=tcp:127.0.0.1:5-:10000", "-append", "a b"]  # fmt: skip


def test_the_vm_is_made_to_work_here() -> None:
    """KVM is asked for only where it works, the debugger's port never, and the guest's port is opened later."""
    kept, rule = changed(RUN_PY, kvm=False)
    assert kept == ["-m", "512", "-cpu", "max", "-kernel", "host", "-netdev", "user,id=un0,net=192.168.122.0/24",
                    "-append", "a b"]  # fmt: skip
    assert rule == "tcp:127.0.0.1:5-:10000"
    assert network(kept) == "un0"
    assert {"-enable-kvm", "host,+x2apic"} <= set(changed(RUN_PY, kvm=True)[0])
    assert changed(["-m", "512"], kvm=False) == (["-m", "512"], None)


QEMU = """\
#!{python}
import re, socket, sys
monitor = socket.socket(fileno=int(re.search(r"fd=([0-9]+)", " ".join(sys.argv))[1]))
monitor.sendall(b"QEMU 8 monitor\\r\\n(qemu) ")
print("Waiting for connection from host", flush=True)
asked = b""
while not asked.endswith(b"\\n"):
    asked += monitor.recv(1)
monitor.sendall(asked + b"(qemu) ")
open("asked", "wb").write(asked)
sys.exit(7)
"""


@pytest.mark.slow
def test_the_port_is_opened_when_the_guest_waits(tmp_path: Path) -> None:
    """By QEMU's monitor, over a socket without a name: nothing is left of it, however the machine ends."""
    qemu = tmp_path / "qemu"
    qemu.write_text(QEMU.format(python=sys.executable))
    qemu.chmod(0o755)
    (tmp_path / "tmp").mkdir()
    words = [sys.executable, "-I", "-S", vm.__file__, str(qemu), "tcg", *RUN_PY]
    environment = {**os.environ, "TMPDIR": str(tmp_path / "tmp")}
    with subprocess.Popen(words, cwd=tmp_path, env=environment, stdout=subprocess.PIPE) as machine:
        assert machine.stdout is not None
        assert machine.stdout.readline() == b"Waiting for connection from host\n"
        assert not list((tmp_path / "tmp").iterdir())
    assert machine.returncode == 7
    assert (tmp_path / "asked").read_text() == "hostfwd_add un0 tcp:127.0.0.1:5-:10000\n"


@settings(max_examples=25)
@given(content=st.lists(st.sampled_from([bytes(65536), b"x" * 65536, b"y" * 1000]), max_size=6).map(b"".join))
def test_the_qcow2_of_the_tests_reads_back(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    """What stands in for qemu-img in these tests is right about what it writes."""
    path = tmp_path_factory.mktemp("qcow2")
    size = len(content) + 100_000
    write_qcow2(path / "image", content, size)
    to_raw(path / "image", path / "raw")
    assert (path / "raw").read_bytes() == content.ljust(size, b"\0")


def test_flags_that_make_does_not_see(tree: OsvTree) -> None:
    """Options that change every object without make's knowledge are told apart from those that it rebuilds for."""
    plain = sorted_(tree)
    assert plain.flags == sorted_(tree, conf_lazy_stack=1, conf_drivers_nvme=1).flags == ""
    assert sorted_(tree, conf_compiler_opt="-O3").flags != plain.flags
    assert replace(plain, mode="debug").output != plain.output
