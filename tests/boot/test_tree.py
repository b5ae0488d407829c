"""A real OSv source tree builds images of every file system, and they boot. Needs OSV_TREE, a checkout with submodules.

The tree is built in, in its own build directory: minutes the first time. What a file system needs and this machine
lacks is told by the test that is skipped.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from osvdeploy import api
from osvdeploy.build.builder import BuildResult, build
from osvdeploy.build.cache import BuildCache
from osvdeploy.build.plan import FileMapping, ImageInputs, TreeInputs
from osvdeploy.context import Context
from osvdeploy.demo.toolchain import compile_program, find_compilers
from osvdeploy.errors import FileTreeInvalid, TreeBuildFailed, TreeInvalid
from osvdeploy.events import Recorder, Warned
from osvdeploy.osv.disk import read_disk
from osvdeploy.osv.image import RawImage
from tests.boot.qemu import boot, needs_qemu

pytestmark = [
    pytest.mark.osv,
    needs_qemu,
    pytest.mark.timeout(3600),
    pytest.mark.skipif("OSV_TREE" not in os.environ, reason="OSV_TREE does not name an OSv source tree"),
    pytest.mark.skipif(not find_compilers(), reason="no compiler for the program of the tests"),
    pytest.mark.xdist_group("osv-tree"),
]

EXAMPLE = Path(__file__).parents[2] / "examples" / "tree-modules"

PROGRAM = r"""
#include <dirent.h>
#include <stdio.h>
static int reads(const char *path)
{
    char text[64] = "";
    FILE *file = fopen(path, "r");
    if (file && !fgets(text, sizeof text, file))
        text[0] = 0;
    if (file)
        fclose(file);
    printf("%s: %s\n", path, file ? text : "not there");
    return file != 0;
}
int main(int argc, char **argv)
{
    printf("hello of %s, %d words\n", argv[1], argc);
    reads("/deep/er/file");
    reads("/links/link");
    printf("/empty: %s\n", opendir("/empty") ? "there" : "not there");
    for (const char **path = (const char *[]){"/written", "/data/written", "/tmp/written", 0}; *path; path++) {
        FILE *file = fopen(*path, "w");
        int kept = file && fputs("kept", file) >= 0 && fclose(file) == 0;
        printf("%s: %s\n", *path, kept ? "written" : "read-only");
    }
    printf("end\n");
    return 0;
}
"""

WRITABLE = {
    "rofs": {"/tmp"},
    "rofs_with_zfs": {"/tmp", "/data"},
    "ramfs": {"", "/tmp"},
    "zfs": {"", "/tmp"},
    "ext": {"", "/tmp"},
    "virtiofs": {"/tmp"},
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> BuildCache:
    return BuildCache(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> ImageInputs:
    base = tmp_path_factory.mktemp("project")
    (base / "program.c").write_text(PROGRAM)
    compile_program([base / "program.c"], base / "program")
    (base / "file").write_text("what the file says")
    (base / "tree" / "empty").mkdir(parents=True)
    # Below the root: OSv does not follow a relative link that stands in the root directory itself.
    (base / "tree" / "links").mkdir()
    (base / "tree" / "links" / "link").symlink_to("../deep/er/file")
    return ImageInputs(
        app="hello",
        version="1",
        base=base,
        kernel=None,
        command=("/program", "the tree"),
        options=(("power-off-on-abort", None),),
        files=(FileMapping("program", "/program"), FileMapping("file", "/deep/er/file"), FileMapping("tree/", "/")),
        tree=TreeInputs(os.environ["OSV_TREE"]),
    )


def built(inputs: ImageInputs, cache: BuildCache, fs: str, **options: str | int | bool) -> BuildResult:
    tree = TreeInputs(os.environ["OSV_TREE"], tuple(options.items()), (), fs)
    try:
        return build(Context(), replace(inputs, tree=tree), cache)
    except TreeInvalid as error:
        if "not found" in error.message:
            pytest.skip(error.message)
        raise
    except TreeBuildFailed as error:
        if error.reason in ("network", "root", "tool"):
            pytest.skip(error.message.splitlines()[0])
        raise


@contextmanager
def shared(image: RawImage) -> Iterator[list[str]]:
    """QEMU's arguments for an image whose root is a directory of this host."""
    places = [*os.environ["PATH"].split(":"), "/usr/libexec", "/usr/lib/qemu"]
    daemon = shutil.which("virtiofsd", path=":".join(places))
    if image.share is None:
        yield []
        return
    if daemon is None:
        pytest.skip("virtiofsd: not found; it gives a virtiofs its files")
    with tempfile.TemporaryDirectory(prefix="osvd-") as scratch:
        socket = Path(scratch, "s")
        rust = b"--shared-dir" in subprocess.run([daemon, "--help"], capture_output=True).stdout
        source = ["--shared-dir", str(image.share)] if rust else ["-o", f"source={image.share}"]
        process = subprocess.Popen(
            [daemon, f"--socket-path={socket}", *source],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            for _ in range(100):
                if socket.exists() or process.poll() is not None:
                    break
                time.sleep(0.05)  # polled: virtiofsd tells nobody that it listens
            if not socket.exists():
                pytest.skip("virtiofsd does not start here (it wants root and namespaces of its own)")
            yield [
                *("-object", "memory-backend-memfd,id=m,size=512M,share=on", "-numa", "node,memdev=m"),
                *("-chardev", f"socket,id=fs0,path={socket}", "-device", "vhost-user-fs-pci,chardev=fs0,tag=root"),
            ]
        finally:
            process.terminate()
            process.wait()


@pytest.mark.parametrize("fs", list(WRITABLE))
def test_every_file_system_builds_and_boots(inputs: ImageInputs, cache: BuildCache, fs: str) -> None:
    """The image boots, its program runs with its words, reads what we gave it, and may write where the file system
    allows it. A second build finds it made."""
    result = built(inputs, cache, fs)
    with (
        shared(result.image) as arguments,
        boot(result.image.path, memory=512, interface="virtio", arguments=["-cpu", "max", *arguments]) as machine,
    ):
        console = machine.wait_until_off().decode(errors="replace").replace("\r", "")

    assert "hello of the tree, 2 words" in console, console
    assert "/deep/er/file: what the file says" in console
    assert "/links/link: what the file says" in console
    assert "/empty: there" in console
    told = {path for path in ("", "/data", "/tmp") if f"\n{path}/written: written" in console}
    assert told == WRITABLE[fs], console
    assert built(inputs, cache, fs).reused


def test_nothing_changed_takes_little(inputs: ImageInputs, cache: BuildCache, record_property: object) -> None:
    """Finding that nothing changed takes git's looks at the tree and little else."""
    built(inputs, cache, "rofs")
    seconds = []
    for _ in range(3):
        began = time.monotonic()
        assert built(inputs, cache, "rofs").reused
        seconds.append(time.monotonic() - began)
    assert callable(record_property)
    record_property("told", f"a tree build with nothing changed: {min(seconds) * 1000:.0f} ms")


def test_options_reach_the_kernel(inputs: ImageInputs, cache: BuildCache) -> None:
    """A Kconfig option changes the kernel, and the headers that it was compiled with say so (or the build fails)."""
    # The profile has no clock but KVM's: without KVM its kernel dies in the scheduler, unless there is HPET.
    options: dict[str, str | int | bool] = {
        "conf_drivers_profile": "virtio-pci",
        "conf_drivers_hpet": 1,
        "conf_core_debug_buffer_size": "0x8000",
    }
    plain = built(inputs, cache, "rofs").image
    other = built(inputs, cache, "rofs", **options).image

    assert plain.kernel != other.kernel
    header = Path(os.environ["OSV_TREE"], "build/release.x64/gen/include/osv/kernel_config_core_debug_buffer_size.h")
    assert "0x8000" in header.read_text()
    with boot(other.path, memory=512, interface="virtio", arguments=["-cpu", "max"]) as machine:
        assert b"hello of the tree" in machine.wait_until_off()


def test_a_name_beyond_ascii_is_refused_for_a_rofs(inputs: ImageInputs, cache: BuildCache) -> None:
    """What OSv's own ROFS writer would damage is refused before the build; a ZFS takes it."""
    files = (*inputs.files, FileMapping("file", "/é"))
    with pytest.raises(FileTreeInvalid, match="not ASCII"):
        built(replace(inputs, files=files), cache, "rofs")


def test_the_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """examples/tree-modules builds with the tree and does what its README says."""
    project = tmp_path / "tree-modules"
    shutil.copytree(EXAMPLE, project, ignore=shutil.ignore_patterns("build", "osv.lock"))
    compile_program([project / "notes.c"], project / "build" / "notes")
    monkeypatch.setenv("OSVDEPLOY_CACHE", str(tmp_path / "cache"))
    recorder = Recorder()
    image = api.build(Context(reporter=recorder), api.load_spec(project / "osv.toml")).image

    with boot(image.path, memory=512, interface="virtio", arguments=["-cpu", "max"]) as machine:
        console = machine.wait_until_off()
    assert b"notes: 2 notes, and all is well" in console, console.decode(errors="replace")
    assert read_disk(image.path).boot == image.boot
    assert not [event for event in recorder.events if isinstance(event, Warned) and "power off" in event.text]
