"""Builds with a source tree: a fake one that behaves as OSv's does, exit status and all."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from osvdeploy import api
from osvdeploy.build.builder import BuildResult, build, upgrade_lock
from osvdeploy.build.cache import BuildCache
from osvdeploy.build.lock import LOCK_NAME, TreePin, read_lock
from osvdeploy.build.osvtree.process import locked
from osvdeploy.build.plan import FileMapping, ImageInputs, TreeInputs
from osvdeploy.context import Context
from osvdeploy.errors import (
    Interrupted,
    PinMismatch,
    SizeInvalid,
    SourceChanged,
    TreeBuildFailed,
    TreeInvalid,
    UsageError,
)
from osvdeploy.events import Event, Note, Progress, Recorder, Waiting, Warned
from osvdeploy.osv.disk import read_disk
from osvdeploy.osv.image import image_digest
from osvdeploy.sizes import GIB, MIB
from tests.alive import lives, until
from tests.build.fake_tree import HAS_TOOLS, FakeTree, make_tree

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not HAS_TOOLS, reason="git, make and bash are what a tree is built with; one of them is not here"
    ),
]


@dataclass(frozen=True, slots=True)
class Desk:
    """A project beside a tree, and a cache."""

    tree: FakeTree
    inputs: ImageInputs
    cache: BuildCache
    recorder: Recorder

    def build(self, ctx: Context | None = None, *, tree: TreeInputs | None = None, **changes: object) -> BuildResult:
        inputs = replace(self.inputs, tree=tree or self.inputs.tree, **changes)  # type: ignore[arg-type]  # the caller names fields
        return build(ctx or Context(reporter=self.recorder), inputs, self.cache)

    def with_fs(self, fs: str, **changes: object) -> TreeInputs:
        assert self.inputs.tree is not None
        return replace(self.inputs.tree, fs=fs, **changes)  # type: ignore[arg-type]  # the caller names fields

    def refused(self, **changes: object) -> TreeBuildFailed:
        with pytest.raises(TreeBuildFailed) as raised:
            self.build(**changes)  # type: ignore[arg-type]  # the caller names fields
        return raised.value

    def told(self, kind: type[Event]) -> list[str]:
        return [str(getattr(event, "text", event)) for event in self.recorder.events if isinstance(event, kind)]

    def called(self) -> dict[str, object]:
        document: dict[str, object] = json.loads((self.tree.path / "build" / "called.json").read_text())
        return document


def desk_at(root: Path, tree: FakeTree) -> Desk:
    base = root / "project"
    (base / "site" / "empty").mkdir(parents=True)
    (base / "hello").write_bytes(b"a program")
    (base / "site" / "page").write_bytes(b"a page")
    (base / "site" / "link").symlink_to("page")
    inputs = ImageInputs(
        app="hello",
        version="1.0.0",
        base=base,
        kernel=None,
        command=("/hello", "--port", "8080"),
        environment=(("LOG", "two words"),),
        files=(FileMapping("hello", "/hello"), FileMapping("site/", "/site/")),
        tree=TreeInputs("../osv"),
    )
    return Desk(tree, inputs, BuildCache(root / "cache"), Recorder())


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    tree = make_tree(tmp_path / "osv")
    monkeypatch.setenv("PATH", f"{tree.tools}:{os.environ['PATH']}")
    return desk_at(tmp_path, tree)


# ---------------------------------------------------------------------------------------------------- what is built


def test_a_rofs_is_what_the_tree_made(desk: Desk) -> None:
    """The image has the tree's kernel, its own files beside ours, our command line, whole GiB, and its true digests."""
    image = desk.build().image
    disk = read_disk(image.path)
    kernel = (desk.tree.output / "loader.img").read_bytes()
    rofs = disk.rofs()

    assert {b"/hello", b"/site/page", b"/site/link", b"/site/empty", b"/etc/fstab"} <= rofs.nodes.keys()
    assert disk.boot.words == ("/hello", "--port", "8080")
    assert disk.boot.environment == (("LOG", "two words"),)
    assert image.size == image.path.stat().st_size == GIB
    assert image.path.stat().st_blocks * 512 < 8 * MIB, "the disk is not sparse"
    assert image.kernel == hashlib.sha256(kernel).hexdigest()
    content = disk.source.pread(disk.partition.start, disk.partition.end - disk.partition.start)
    assert image.rofs == hashlib.sha256(content).hexdigest()
    assert image.digest == image_digest(
        kernel=image.kernel, rofs=image.rofs, partition=disk.partition, size=GIB, boot=disk.boot
    )
    assert image.read[-1] == disk.partition


@pytest.mark.parametrize("fs", ["zfs", "ext", "ramfs", "virtiofs", "rofs_with_zfs"])
def test_every_file_system_is_built(desk: Desk, fs: str) -> None:
    """Whatever the file system, the kernel is told of it, and the image says what may be read, in order."""
    image = desk.build(tree=desk.with_fs(fs)).image

    assert (image.fs, image.size) == (fs, GIB)
    assert dict(image.boot.options).get("rootfs") == (None if fs == "rofs_with_zfs" else fs)
    assert len(image.read) == 2 + {"zfs": 1, "ext": 1, "rofs_with_zfs": 2}.get(fs, 0)
    assert image.read == tuple(sorted(image.read, key=lambda extent: extent.start))
    assert desk.build(tree=desk.with_fs(fs)).reused


def test_zfs_fills_the_disk(desk: Desk) -> None:
    """A file system that is written to reaches to the end of the disk, and all of it is read, zeros too."""
    image = desk.build(tree=desk.with_fs("zfs"), size=2 * GIB).image

    assert image.read[-1].end == image.size == 2 * GIB
    assert image.read[-1].start == 2 * MIB


def test_virtiofs_has_its_files_beside(desk: Desk) -> None:
    """The root of a virtiofs is a directory in the cache entry, and a change of its files is another image."""
    first = desk.build(tree=desk.with_fs("virtiofs")).image
    (desk.inputs.base / "hello").write_bytes(b"b program")
    second = desk.build(tree=desk.with_fs("virtiofs")).image

    assert first.share is not None and second.share is not None
    assert (first.share / "hello").read_bytes() == b"a program"
    assert (second.share / "hello").read_bytes() == b"b program"
    assert (second.share / "etc" / "fstab").exists()
    assert first.kernel == second.kernel and first.digest != second.digest


def test_modules_come_with_their_files(desk: Desk) -> None:
    """Modules bring their files, and their own command line gives way to the spec's, which is told."""
    image = desk.build(tree=desk.with_fs("rofs", modules=("web",))).image

    assert b"/web" in read_disk(image.path).rofs().nodes
    assert read_disk(image.path).boot.words[0] == "/hello"
    assert any("/of-a-module" in text for text in desk.told(Note))


def test_odd_names_arrive(desk: Desk) -> None:
    """What a manifest treats specially in a host's name (%, a colon, .so below the tree, a link) arrives as it is."""
    base = desk.inputs.base
    (base / "100%s: x").write_bytes(b"percent")
    (base / "é").write_bytes(b"accent")
    (base / "to-hello").symlink_to("hello")
    desk.tree.write("build/x-stripped.so", "library")
    files = (
        FileMapping("100%s: x", "/percent%d"),
        FileMapping("é", "/accent"),
        FileMapping("to-hello", "/hello"),
        FileMapping(str(desk.tree.path / "build" / "x-stripped.so"), "/x.so"),
    )
    image = desk.build(files=files).image
    rofs = read_disk(image.path).rofs()

    read = {path: rofs.read(node) for path, node in rofs.nodes.items() if hasattr(node, "offset")}  # type: ignore[arg-type]  # a file has an offset
    assert [read[path] for path in (b"/percent%d", b"/accent", b"/hello", b"/x.so")] == [
        b"percent",
        b"accent",
        b"a program",
        b"library",
    ]


# ------------------------------------------------------------------------------------------------- options that act


def test_options_go_where_they_act(desk: Desk) -> None:
    """Kernel options stand in .config and not on the command line, make's own on the command line alone."""
    options = (
        ("mode", "release"),
        ("conf_lazy_stack", True),
        ("conf_memory_l1_pool_size", 128),
        ("conf_zfs", "bsd"),
        ("conf_drivers_profile", "aws"),
        ("conf_drivers_nvme", 1),
        ("app_local_exec_tls_size", 1024),
    )
    desk.build(tree=desk.with_fs("rofs", options=options))
    config = (desk.tree.output / ".config").read_text().splitlines()
    arguments = desk.called()["arguments"]

    assert isinstance(arguments, list)
    assert {"CONF_lazy_stack=y", "CONF_memory_l1_pool_size=128", "CONF_preempt=y"} <= set(config)
    assert {"conf_zfs=bsd", "conf_drivers_profile=aws", "conf_drivers_nvme=1", "app_local_exec_tls_size=1024"} <= set(
        arguments
    )
    assert not [argument for argument in arguments if "lazy_stack" in argument]


def test_an_option_that_cannot_be_is_refused(desk: Desk) -> None:
    """An option whose dependency is off does not vanish: it is refused by name, and nothing is built."""
    options = (("conf_tracepoints", 0), ("conf_tracepoints_strace", 1))
    with pytest.raises(TreeInvalid, match="conf_tracepoints_strace: cannot be y"):
        desk.build(tree=desk.with_fs("rofs", options=options))

    assert not (desk.tree.path / "build" / "called.json").exists()


def test_an_option_that_was_lost_fails_the_build(desk: Desk) -> None:
    """What the generated headers do not have did not take effect, whatever the build says."""
    desk.tree.fault("option-lost")

    error = desk.refused(tree=desk.with_fs("rofs", options=(("conf_lazy_stack", 1),)))
    assert "conf_lazy_stack = y did not take effect" in error.message


def test_a_config_by_hand_is_kept(desk: Desk) -> None:
    """Options that somebody set in the tree do not leak into the image, and are not lost either."""
    desk.tree.write("build/release.x64/.config", "CONF_by_hand=y\n")
    desk.build()

    assert "by_hand" not in (desk.tree.output / ".config").read_text()
    assert (desk.tree.output / ".config.before-osvdeploy").read_text() == "CONF_by_hand=y\n"
    before = (desk.tree.output / ".config").stat().st_ino
    (desk.inputs.base / "hello").write_bytes(b"other")
    desk.build()
    assert (desk.tree.output / ".config").stat().st_ino == before, ".config was written again, and all is recompiled"


def test_other_compiler_flags_compile_anew(desk: Desk) -> None:
    """Objects of other flags, which make would keep, are removed first."""
    desk.build()
    (desk.tree.output / "old.o").touch()
    desk.build(tree=desk.with_fs("rofs", options=(("conf_compiler_opt", "-O3"),)))

    assert not (desk.tree.output / "old.o").exists()


def test_a_tree_before_kconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a tree of v0.57.0's kind the same options go on the command line, in that tree's spelling."""
    tree = make_tree(tmp_path / "osv", kconfig=False)
    monkeypatch.setenv("PATH", f"{tree.tools}:{os.environ['PATH']}")
    desk = desk_at(tmp_path, tree)
    options = (("conf_lazy_stack", True), ("conf_hide_symbols", 1), ("conf_drivers_profile", "aws"))
    desk.build(tree=desk.with_fs("rofs", options=options))
    arguments = desk.called()["arguments"]

    assert isinstance(arguments, list)
    assert {"conf-lazy_stack=1", "conf_hide_symbols=1", "drivers_profile=aws"} <= set(arguments)


def test_the_caller_does_not_leak_in(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The build does not see MAKEFLAGS, CFLAGS, GIT_DIR or the caller's language."""
    for name in ("MAKEFLAGS", "CFLAGS", "ARCH", "LANG"):
        monkeypatch.setenv(name, "leaked")
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    desk.build()
    environment = desk.called()["environment"]

    assert isinstance(environment, dict)
    assert environment["LC_ALL"] == "C.UTF-8"
    assert "leaked" not in environment.values()


# ------------------------------------------------------------------------------------------------ cache, state, lock


def test_nothing_changed_is_reused(desk: Desk) -> None:
    """The second build runs nothing, even where modules left files in the tree."""
    web = desk.with_fs("rofs", modules=("web",))
    first = desk.build(tree=web)
    (desk.tree.path / "build" / "called.json").unlink()
    second = desk.build(tree=web)

    assert (first.reused, second.reused) == (False, True)
    assert first.image == second.image
    assert not (desk.tree.path / "build" / "called.json").exists()


@pytest.mark.parametrize("change", ["tracked", "untracked", "deleted", "commit", "file", "command", "fs", "option"])
def test_a_change_is_seen(desk: Desk, change: str) -> None:
    """Whatever went in, a change of it is another build."""
    first = desk.build()
    tree, command = desk.inputs.tree, desk.inputs.command
    match change:
        case "tracked":
            desk.tree.write("core/app.cc", "int other;\n")
        case "untracked":
            desk.tree.write("core/new.cc", "int fresh;\n")
        case "deleted":
            (desk.tree.path / "modules/web/web.bin").unlink()
        case "commit":
            desk.tree.commit()
            (desk.inputs.base / LOCK_NAME).unlink()
        case "file":
            (desk.inputs.base / "site" / "page").write_bytes(b"b page")
        case "command":
            command = ("/hello",)
        case "fs":
            tree = desk.with_fs("ramfs")
        case "option":
            tree = desk.with_fs("rofs", options=(("conf_lazy_stack", 1),))
    second = desk.build(tree=tree, command=command)

    assert not second.reused and second.plan != first.plan


def test_a_tree_without_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tree that is no checkout builds, unpinned, and a change of its files is seen."""
    tree = make_tree(tmp_path / "osv", git=False)
    monkeypatch.setenv("PATH", f"{tree.tools}:{os.environ['PATH']}")
    desk = desk_at(tmp_path, tree)

    assert not desk.build().reused
    assert desk.build().reused
    tree.write("core/app.cc", "int other;\n")
    assert not desk.build().reused
    assert read_lock(desk.inputs.base / LOCK_NAME) is None
    assert any("cannot pin" in text for text in desk.told(Warned))


def test_another_commit_than_pinned_stops(desk: Desk) -> None:
    """The first build pins the tree's commit; another one stops the next, which says which side moved; lock --upgrade
    takes it."""
    old = desk.tree.git("rev-parse", "HEAD")
    desk.build()
    new = desk.tree.commit()

    with pytest.raises(PinMismatch, match="the tree moved on by 1 commit") as raised:
        desk.build()
    assert old in raised.value.message and new in raised.value.message
    upgrade_lock(Context(), desk.inputs, desk.cache)
    desk.build()
    desk.tree.git("checkout", "-q", old)
    with pytest.raises(PinMismatch, match="the tree is behind"):
        desk.build()


def test_a_local_change_is_told_and_not_fought(desk: Desk) -> None:
    """Changes on top of the pinned commit build, with a warning that names them."""
    desk.build()
    desk.tree.write("core/app.cc", "int hack;\n")
    desk.build()

    assert any("core/app.cc" in text for text in desk.told(Warned))


def test_a_tree_that_changes_meanwhile(desk: Desk) -> None:
    """An image of a tree that was changed while it was built is not found again."""
    desk.tree.fault("wait")

    def change() -> None:
        until((desk.tree.path / "build" / "waiting").exists)
        desk.tree.write("core/app.cc", "int late;\n")
        (desk.tree.path / "build" / "go").touch()

    thread = threading.Thread(target=change)
    thread.start()
    desk.build()
    thread.join()

    assert any("core/app.cc: changed in the tree" in text for text in desk.told(Warned))
    assert not desk.build().reused


def test_a_file_of_ours_that_changes_meanwhile(desk: Desk) -> None:
    """A file of the image that changes while it is built is an error, as it is without a tree."""
    desk.tree.fault("wait")

    def change() -> None:
        until((desk.tree.path / "build" / "waiting").exists)
        (desk.inputs.base / "hello").write_bytes(b"z program")
        (desk.tree.path / "build" / "go").touch()

    thread = threading.Thread(target=change)
    thread.start()
    with pytest.raises(SourceChanged, match="hello"):
        desk.build()
    thread.join()


# ---------------------------------------------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize(
    ("fault", "reason", "told"),
    [
        ("memory", "memory", "jobs = 1"),
        ("disk-full", "disk-full", "make room"),
        ("compile", "compile", "core/elf.cc:12: expected ';'"),
        ("link", "link", "undefined reference"),
        ("tool", "tool", "cmake: not found"),
        ("compiler", "compiler", "libstdc++.a needs to be installed"),
        ("submodule", "submodule", "git submodule update"),
        ("profile", "profile", "conf_drivers_profile"),
        ("config", "config", "was rejected"),
        ("trap", "files", "libgcc_s_dir"),
        ("network", "network", "http_proxy"),
        ("qemu-img", "tool", "qemu-img: not found"),
        ("no-image", "unknown", "made no usr.img"),
        ("other-kernel", "unknown", "does not begin with loader.img"),
        ("no-file-system", "unknown", "not right"),
        ("lost-file", "unknown", "/hello"),
    ],
)
def test_a_known_failure_has_its_cure(desk: Desk, fault: str, reason: str, told: str) -> None:
    """Each failure is an error that names its cause and cure, with the log's own lines and where the log is."""
    desk.tree.fault(fault)

    error = desk.refused()
    assert error.reason == reason
    assert told in f"{error.message} {error.hint}"
    assert Path(error.log).is_file() and error.log in error.message
    assert not list((desk.cache.root / "work").iterdir()), "something half-made is left behind"
    desk.tree.fault("")
    assert not desk.build().reused


@pytest.mark.parametrize(
    ("fault", "fs", "reason"),
    [
        ("kvm", "zfs", "builder-vm"),
        ("port", "zfs", "builder-port"),
        ("sudo", "ext", "root"),
        ("reset", "zfs", "builder-vm"),
    ],
)
def test_a_failure_that_the_build_passes_over(desk: Desk, fault: str, fs: str, reason: str) -> None:
    """A step that fails without stopping scripts/build, which leaves a disk and status 0, is a failure."""
    desk.tree.fault(fault)

    assert desk.refused(tree=desk.with_fs(fs)).reason == reason


def test_a_disk_that_is_too_small_is_a_refusal_with_its_cure(desk: Desk) -> None:
    """As it is of an image that is composed: the size is the user's to mend, and nothing is left half-made."""
    with pytest.raises(SizeInvalid, match=r"osv: kernel and file system take .* more than the disk of 1MiB") as raised:
        desk.build(size=MIB)
    assert raised.value.exit_code == 2
    assert raised.value.hint == 'write size = "1GiB" under [image], or leave it out'
    assert not list((desk.cache.root / "work").iterdir())


@pytest.mark.parametrize(("fs", "size"), [("rofs", GIB), ("ext", GIB), ("ext", None)])
def test_files_that_no_disk_of_that_size_holds_are_refused_before_the_build(
    desk: Desk, fs: str, size: int | None
) -> None:
    """ext is a GiB where nothing is said."""
    os.truncate(desk.inputs.base / "hello", GIB)
    with pytest.raises(SizeInvalid, match="the files take") as raised:
        desk.build(tree=desk.with_fs(fs), size=size)
    assert raised.value.hint == 'write size = "2GiB" or more under [image]'
    assert not (desk.tree.path / "build" / "called.json").exists()


def test_a_zfs_that_was_not_filled(desk: Desk) -> None:
    """A ZFS whose filling was not seen to its end is not believed."""
    desk.tree.fault("unfilled")

    assert "did not tell that it had all files" in desk.refused(tree=desk.with_fs("zfs")).message


def test_what_an_earlier_run_left_is_no_success(desk: Desk) -> None:
    """A build that ends with status 0 and made nothing fails, though an earlier one's artefacts were all there."""
    desk.build()
    assert (desk.tree.output / "usr.img").exists()
    desk.tree.fault("nothing")
    (desk.inputs.base / "hello").write_bytes(b"other")

    assert "made no usr.img" in desk.refused().message


def test_an_unknown_module_is_told_before_anything_runs(desk: Desk) -> None:
    """A module that the tree does not have is refused with the nearest that it has; nothing is run for that."""
    with pytest.raises(TreeInvalid, match=r"image\.modules: wed: .*did you mean web") as raised:
        desk.build(tree=desk.with_fs("rofs", modules=("wed",)))

    assert raised.value.exit_code == 2
    assert not (desk.tree.path / "build").exists()


def test_append_manifest_of_the_users_comes_back(desk: Desk) -> None:
    """What stood in append.manifest is there again after a build, good or bad."""
    desk.tree.write("build/release.x64/append.manifest", "/mine: /etc/hosts\n")
    desk.build()
    desk.tree.fault("compile")
    (desk.inputs.base / "hello").write_bytes(b"other")
    desk.refused()

    assert (desk.tree.output / "append.manifest").read_text() == "/mine: /etc/hosts\n"


@pytest.mark.parametrize("mine", ["/mine: /etc/hosts\n", None])
def test_append_manifest_comes_back_after_a_kill_9(desk: Desk, mine: str | None) -> None:
    """A build that was killed left its own lines there; the next one does not take them for the user's."""
    if mine is not None:
        desk.tree.write("build/release.x64/append.manifest", mine)
    desk.tree.fault("hang")
    with _command(desk) as process:
        _pids(desk.tree)
        process.kill()
        process.wait()
    desk.tree.fault("")
    place = desk.tree.output / "append.manifest"
    assert "/hello" in place.read_text()

    desk.build()
    assert (place.read_text() if place.exists() else None) == mine
    assert not list(desk.tree.output.glob(".append*"))


def test_progress_is_the_builds_own(desk: Desk) -> None:
    """What is compiled and packed is counted as the build says it, and its stages are told."""
    desk.build()

    counted = {event.what: event.done for event in desk.recorder.events if isinstance(event, Progress)}
    assert counted["compiled"] == 3
    assert counted["file system"] >= 4
    assert {"  modules", "  linking the kernel", "  raw disk"} <= set(desk.told(Note))


# ------------------------------------------------------------------------------------------------- by the spec and api

EXAMPLE = Path(__file__).parents[2] / "examples" / "tree-modules"


@pytest.fixture
def example(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The example's spec, with a stand-in for its program, beside the fake tree."""
    project = tmp_path / "example"
    shutil.copytree(EXAMPLE, project, ignore=shutil.ignore_patterns("build", "osv.lock"))
    (project / "build").mkdir()
    (project / "build" / "notes").write_bytes(b"a program")
    monkeypatch.setenv("OSV_TREE", str(desk.tree.path))
    monkeypatch.setenv("OSVDEPLOY_CACHE", str(desk.cache.root))
    return project / "osv.toml"


def test_the_example_builds(desk: Desk, example: Path) -> None:
    """examples/tree-modules is checked, built, pinned and found again by the same functions as any spec."""
    loaded = api.load_spec(example)
    checked = api.check(Context(), loaded)
    assert not (example.parent / LOCK_NAME).exists(), "a check writes nothing"
    built = api.build(Context(), loaded)

    assert (checked.kernel, checked.kernel_pinned, checked.files) == (None, False, 2)
    assert checked.tree is not None and "fs zfs, image zfs" in checked.tree
    assert checked.command_line == "--rootfs=zfs --power-off-on-abort /notes /var/notes"
    assert "CONF_memory_l1_pool_size=128" in (desk.tree.output / ".config").read_text()
    assert built.image.fs == "zfs" and api.build(Context(), loaded).reused
    pin = api.pinned(loaded)
    assert isinstance(pin, TreePin) and pin.commit == desk.tree.git("rev-parse", "HEAD")
    assert api.check(Context(), loaded).kernel_pinned
    assert api.upgrade_lock(Context(), loaded) == pin


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('modules = ["zfs"]', 'modules = ["zsf"]', "did you mean zfs"),
        ("conf_memory_l1_pool_size", "conf_memory_pool", "knows no such option"),
        ('"${OSV_TREE}"', '"nowhere"', "no such directory"),
    ],
)
def test_a_check_tells_before_a_build(example: Path, old: str, new: str, told: str) -> None:
    """What the tree does not know is told by `check`, and nothing runs."""
    example.write_text(example.read_text().replace(old, new))
    with pytest.raises(TreeInvalid, match=told):
        api.check(Context(), api.load_spec(example))


@pytest.mark.parametrize("tool", ["qemu-img", "g++", "qemu-system-x86_64"])
def test_a_missing_tool_is_told_by_a_check(
    desk: Desk, example: Path, tool: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A tool that is not on this machine is named before anything runs, with the package that has it."""
    (desk.tree.tools / tool).unlink()
    monkeypatch.setenv("PATH", f"{desk.tree.tools}:{_only(tmp_path / 'only', 'bash', 'make', 'python3', 'git')}")
    with pytest.raises(TreeInvalid, match=f"{re.escape(tool)}: not found") as raised:
        api.check(Context(), api.load_spec(example))
    assert "apt-get install" in (raised.value.hint or "")


def test_a_virtiofs_is_not_published(example: Path) -> None:
    """An image whose files are on the machine's host is refused before it is built or a cloud is asked."""
    loaded = api.load_spec(example, sets=["image.fs=virtiofs"])
    with pytest.raises(UsageError, match="virtiofs"):
        api.publish(Context(), loaded)


@pytest.mark.parametrize("name", ["disk.tar.gz", "disk.vmdk", "disk.vhd"])
def test_a_virtiofs_is_not_converted_for_who_cannot_give_it(example: Path, tmp_path: Path, name: str) -> None:
    """Formats of places without virtio-fs are refused, named by the spec's folder too, before anything is built."""
    loaded = api.load_spec(example, sets=["image.fs=virtiofs"])
    with pytest.raises(UsageError, match="virtiofs"):
        api.convert(Context(), loaded, tmp_path / name)
    example.write_text(example.read_text().replace('fs = "zfs"', 'fs = "virtiofs"'))
    with pytest.raises(UsageError, match="virtiofs"):
        api.convert(Context(), example.parent, tmp_path / name)
    assert not (tmp_path / name).exists()


def test_a_converted_virtiofs_tells_where_its_files_are(example: Path, tmp_path: Path) -> None:
    """In a format for QEMU, which may be given them; of another file system nothing is told."""
    recorder = Recorder()
    loaded = api.load_spec(example, sets=["image.fs=virtiofs"])
    api.convert(Context(reporter=recorder), loaded, tmp_path / "disk.qcow2")
    share = api.build(Context(), loaded).image.share
    assert share is not None
    [warned] = [each for each in recorder.events if isinstance(each, Warned) and "virtiofs" in each.text]
    assert str(share) in warned.text
    recorder.events.clear()
    api.convert(Context(reporter=recorder), api.load_spec(example), tmp_path / "zfs.qcow2")
    assert not [each for each in recorder.events if isinstance(each, Warned) and "virtiofs" in each.text]


def _only(directory: Path, *names: str) -> Path:
    directory.mkdir()
    for name in names:
        found = shutil.which(name)
        assert found is not None
        (directory / name).symlink_to(found)
    return directory


# --------------------------------------------------------------------------------------- interrupted, killed, at once


def test_ctrl_c_leaves_no_process(desk: Desk) -> None:
    """A cancelled build ends with all that it started, gives the tree free, and the next one goes on."""
    desk.tree.fault("hang")
    ctx = Context()
    pids: list[int] = []

    def cancel() -> None:
        pids.extend(_pids(desk.tree))
        ctx.cancel.cancel()

    thread = threading.Thread(target=cancel)
    thread.start()
    with pytest.raises(Interrupted):
        desk.build(ctx)
    thread.join()

    assert len(pids) == 2 and not [pid for pid in pids if lives(pid)]
    desk.tree.fault("")
    assert not desk.build().reused


def test_kill_9_leaves_no_process_and_the_next_run_goes_on(desk: Desk) -> None:
    """A build whose osvdeploy was killed ends by itself; the next run waits for that, and builds."""
    desk.tree.fault("hang")
    with _command(desk) as process:
        pids = _pids(desk.tree)
        process.kill()
        process.wait()
    desk.tree.fault("")

    assert not desk.build().reused
    assert not [pid for pid in pids if lives(pid)]


def test_a_second_build_waits_for_the_first(desk: Desk) -> None:
    """Two builds of one tree do not run at once: the second is told who holds it, and then finds the image made."""
    desk.tree.fault("wait")
    results: list[BuildResult] = []
    first = threading.Thread(target=lambda: results.append(desk.build(Context())))
    first.start()
    until((desk.tree.path / "build" / "waiting").exists)

    heard: list[str] = []

    def go(event: Event) -> None:
        if isinstance(event, Waiting):
            heard.append(event.seen)
            (desk.tree.path / "build" / "go").touch()

    second = desk.build(Context(reporter=go))
    first.join()

    assert str(os.getpid()) in heard[0] and "hello" in heard[0]
    assert second.reused and second.image == results[0].image


def test_the_lock_is_told_and_left(tmp_path: Path) -> None:
    """Waiting for a tree can be cancelled, and a lock whose holder is gone is free."""
    ctx = Context()
    with locked(ctx, tmp_path / "build", what="one"):
        other = Context(reporter=lambda event: other.cancel.cancel())
        with pytest.raises(Interrupted), locked(other, tmp_path / "build", what="two"):
            pass
    with locked(ctx, tmp_path / "build", what="three"):
        pass


class _command:  # noqa: N801 (a context manager)
    """osvdeploy build as a process of its own."""

    def __init__(self, desk: Desk) -> None:
        spec = desk.inputs.base / "osv.toml"
        spec.write_text(
            'name = "hello"\nversion = "1.0.0"\n[kernel]\ntree = "../osv"\n[image]\ncommand = ["/hello"]\n'
            '[[files]]\nfrom = "hello"\nto = "/hello"\n'
        )
        self._process = subprocess.Popen(
            [sys.executable, "-m", "osvdeploy", "build", "-f", spec],
            env=dict(os.environ, OSVDEPLOY_CACHE=str(desk.cache.root), PYTHONPATH=os.pathsep.join(sys.path)),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def __enter__(self) -> subprocess.Popen[bytes]:
        return self._process

    def __exit__(self, *raised: object) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
        self._process.wait()


def _pids(tree: FakeTree) -> list[int]:
    place = tree.path / "build" / "pids"
    until(lambda: place.exists() and len(place.read_text().split()) == 2)
    return [int(pid) for pid in place.read_text().split()]


@pytest.fixture(autouse=True)
def _no_build_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    desk = request.node.funcargs.get("desk")
    if isinstance(desk, Desk) and (desk.tree.path / "build" / "pids").exists():
        for pid in (desk.tree.path / "build" / "pids").read_text().split():
            if lives(int(pid)):
                os.kill(int(pid), signal.SIGKILL)
