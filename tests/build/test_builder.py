from __future__ import annotations

import errno
import hashlib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import pytest

from osvdeploy.build import builder as builder_module
from osvdeploy.build import drafting as drafting_module
from osvdeploy.build import stamped
from osvdeploy.build.builder import build
from osvdeploy.build.lock import KernelPin
from osvdeploy.build.plan import FileMapping
from osvdeploy.build.sources import FileKernel
from osvdeploy.build.statcache import StatCache
from osvdeploy.build.surroundings import SURROUNDINGS
from osvdeploy.context import CancelToken, Context
from osvdeploy.errors import (
    BuildError,
    CommandLineInvalid,
    FileTreeInvalid,
    Interrupted,
    KernelInvalid,
    PinMismatch,
    SizeInvalid,
    SourceChanged,
)
from osvdeploy.events import Event, Note, Progress
from osvdeploy.osv import disk as disk_module
from osvdeploy.osv import rofs as rofs_module
from osvdeploy.osv import workers
from osvdeploy.osv.cmdline import BootCommand
from osvdeploy.osv.disk import compose, read_disk
from osvdeploy.osv.image import image_digest
from osvdeploy.osv.rofs import Draft, Outline, RofsLayout
from tests.build.projects import Project, make_project
from tests.osv.images import write_loader


def digest_of_file(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        # Only what is not a hole: the rest is zeros, and there are a billion of them.
        at, end = 0, path.stat().st_size
        while at < end:
            try:
                at = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError as error:
                assert error.errno == errno.ENXIO
                break
            stop = os.lseek(file.fileno(), at, os.SEEK_HOLE)
            piece = os.pread(file.fileno(), stop - at, at)
            for offset in range(0, len(piece), 512):
                if any(piece[offset : offset + 512]):
                    digest.update((at + offset).to_bytes(8, "big") + piece[offset : offset + 512])
            at = stop
    return digest.hexdigest()


def left_in(project: Project) -> list[str]:
    """What a build left in the cache beside finished images and remembered digests."""
    return [path.name for path in (project.cache.root / "work").iterdir()]


def test_a_project_becomes_a_disk_with_its_files(project: Project) -> None:
    """The disk holds what was declared: kernel, command line, every file that is not left out, and what all have."""
    result = project.build()
    disk = read_disk(result.image.path)
    assert not result.reused
    assert disk.boot == result.image.boot
    assert disk.boot == BootCommand((("verbose", None),), (("LOG", "info"),), ("/hello", "--port", "8080"))
    declared = [b"/hello", b"/srv", b"/srv/home", b"/srv/index.html", b"/srv/js", b"/srv/js/app.js", "/srv/ü".encode()]
    assert sorted(disk.rofs().nodes) == sorted([b"/", b"/etc", *SURROUNDINGS, *declared])
    assert result.image.size == result.image.path.stat().st_size == 1 << 30
    assert left_in(project) == []


def test_the_image_digest_is_that_of_what_is_on_the_disk(project: Project) -> None:
    """Anyone who reads the disk can compute the digest that names it."""
    image = project.build().image
    disk = read_disk(image.path)
    assert image.rofs == disk.rofs().digest()
    assert image.kernel == hashlib.sha256((project.root / "loader.img").read_bytes()).hexdigest()
    assert image.digest == image_digest(
        kernel=image.kernel, rofs=image.rofs, partition=disk.partition, size=disk.source.size, boot=disk.boot
    )
    assert image.read == disk.read()


def test_a_second_build_finds_the_first(project: Project) -> None:
    """Nothing changed, nothing is built: the same image from the cache, and it says so."""
    first = project.build()
    written = first.image.path.stat().st_mtime_ns
    second = project.build()
    assert (first.reused, second.reused) == (False, True)
    assert second.image == first.image
    assert second.image.path.stat().st_mtime_ns == written
    assert any(isinstance(event, Note) and "nothing changed" in event.text for event in project.events)


def test_a_file_that_changes_gives_another_image(project: Project) -> None:
    """Also when its size is the same, and its time was set back."""
    first = project.build()
    status = (project.root / "build/hello").stat()
    project.write("build/hello", "THIS is build/hello")
    os.utime(project.root / "build/hello", ns=(status.st_atime_ns, status.st_mtime_ns))
    second = project.build()
    assert not second.reused
    assert second.image.rofs != first.image.rofs
    assert second.image.digest != first.image.digest


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"version": "2.0.0", "app": "other"}, True),
        ({"command": ("/hello",)}, False),
        ({"environment": ()}, False),
        ({"options": ()}, False),
        ({"size": 2 << 30}, False),
        ({"files": (FileMapping("build/hello", "/hello"),)}, False),
    ],
)
def test_an_image_depends_on_what_is_in_its_bytes_alone(
    project: Project, change: dict[str, object], same: bool
) -> None:
    """A name is in no byte: it gives the same image. Everything else gives another."""
    assert (project.build(**change).image.digest == project.build().image.digest) is same


def test_what_is_equal_is_built_once_however_it_was_declared(project: Project) -> None:
    """Files named one by one and by a pattern are the same plan."""
    by_one = [FileMapping(f"web/{name}", f"/srv/{name}") for name in ("index.html", "js/app.js")]
    by_pattern = FileMapping("web/**/[a-i]*.?[!a]*", "/srv/", ("*.map", ".git"))
    first = project.build(files=(*by_one, FileMapping("build/hello", "/hello")))
    assert project.build(files=(FileMapping("build/hello", "/hello"), by_pattern)).plan == first.plan


def test_a_build_by_workers_is_the_build_by_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same image, byte for byte, and the same digests remembered, so that the next build reads nothing."""
    disks, remembered, started = [], [], []
    start = workers._Worker.start

    def counted(words: Sequence[str], handed: Sequence[int]) -> object:
        started.append(words)
        return start(words, handed)

    monkeypatch.setattr(stamped, "TICK", 0)
    for cores in ({0}, {0, 1}):
        project = make_project(tmp_path / f"{len(cores)}", tmp_path / f"cache-{len(cores)}")
        noise = random.Random(1)
        for number in range(40):
            project.write(f"web/{number}.bin", noise.randbytes(noise.randrange(60_000)))
        with monkeypatch.context() as patch:
            patch.setattr(os, "sched_getaffinity", lambda pid, cores=cores: cores)
            patch.setattr(workers, "BATCH", 64 << 10)
            patch.setattr(workers._Worker, "start", counted)
            result = project.build()
        disks.append((result.plan, result.image.digest, digest_of_file(result.image.path)))
        stats = StatCache.load(project.cache.stats_file(project.root))
        remembered.append({Path(os.fsdecode(path)).name: known for path, (_, known) in stats._known.items()})
        assert project.build().reused and left_in(project) == []
        assert [words[0] for words in started] == ["copy"] * 2 * (len(cores) - 1)
    assert disks[0] == disks[1]
    assert remembered[0] == remembered[1] and len(remembered[0]) > 40


def test_progress_is_told_without_a_look_at_every_file(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """How large the image gets is found once, not each time that something is written: that took minutes."""
    looked: list[int] = []

    def counting(kind: type[RofsLayout | Outline]) -> property:
        size = vars(kind)["size"].fget

        def counted(layout: RofsLayout | Outline) -> int:
            looked.append(len(told()))
            return int(size(layout))

        return property(counted)

    def told() -> list[Progress]:
        return [event for event in project.events if isinstance(event, Progress)]

    for kind in (RofsLayout, Outline):
        monkeypatch.setattr(kind, "size", counting(kind))
    monkeypatch.setattr(workers, "BATCH", 64 << 10)
    for number in range(20):
        project.write(f"web/{number}.bin", os.urandom(60_000))
    project.build()
    assert len(told()) > 20 and len(looked) < 10


def test_progress_never_goes_back(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither when what was drafted is wiped because it is there twice, nor from the draft to the rest."""
    monkeypatch.setattr(workers, "BATCH", 64 << 10)
    for number in range(20):
        content = os.urandom(50_000)
        project.write(f"web/a{number}.bin", content)
        project.write(f"web/b{number}.bin", content if number % 2 else os.urandom(60_000))
    project.build()
    told = [event for event in project.events if isinstance(event, Progress)]
    done = [event.done / (event.total or 1) for event in told]
    assert len(done) > 20 and done == sorted(done) and done[-1] == 1


@pytest.mark.slow
def test_two_clean_builds_give_the_same_bytes(tmp_path: Path) -> None:
    """Another directory, locale, umask, time zone, hash seed, file times and order of making: the same disk."""
    script = """
import os, sys
from pathlib import Path
os.umask(int(sys.argv[3], 8))
from tests.build.projects import project_at
result = project_at(Path(sys.argv[1]), Path(sys.argv[2])).build()
print(result.image.path, result.plan, result.image.digest)
"""
    outcomes = []
    for name, umask, locale, zone, seed in [
        ("a", "022", "C.UTF-8", "UTC", "1"),
        ("b/deep/er", "077", "POSIX", "Asia/Tokyo", "2"),
    ]:
        root = tmp_path / name
        project = make_project(root, tmp_path / "unused")
        if name == "a":
            # The same files in another order of directory entries, with other times and modes.
            for page in sorted((root / "web").rglob("*"), reverse=True):
                if page.is_file() and not page.is_symlink():
                    content = page.read_bytes()
                    page.unlink()
                    project.write(str(page.relative_to(root)), content, age=10**6)
                    page.chmod(0o600)
        environment = {
            **os.environ, "LC_ALL": locale, "TZ": zone, "PYTHONHASHSEED": seed, "PYTHONPATH": str(Path.cwd()),
            "PYTHONUTF8": "0" if locale == "POSIX" else "1", "PYTHONCOERCECLOCALE": "0",
        }  # fmt: skip
        command = [sys.executable, "-c", script, str(root), str(tmp_path / f"cache-{seed}"), umask]
        run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        path, plan, digest = run.stdout.split()
        outcomes.append((plan, digest, digest_of_file(Path(path)), Path(path).stat().st_size))
    assert outcomes[0] == outcomes[1]


def test_two_builds_of_one_plan_at_once_both_succeed(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever comes second uses what the first put into the cache, though both built it."""
    together = threading.Barrier(2)
    compose = disk_module.compose

    def compose_together(*args: object, **kwargs: object) -> object:
        composed = compose(*args, **kwargs)  # type: ignore[arg-type]  # handed through
        together.wait(timeout=20)
        return composed

    monkeypatch.setattr(builder_module, "compose", compose_together)
    results = []
    threads = [threading.Thread(target=lambda: results.append(project.build())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 2
    assert results[0].image == results[1].image
    assert [result.reused for result in results] == [False, False]
    assert left_in(project) == []


@pytest.mark.slow
def test_what_a_killed_build_left_is_swept(project: Project) -> None:
    """A build that was killed while it wrote leaves no entry, and the next one removes what it left."""
    script = """
import os, signal, sys
from pathlib import Path
from osvdeploy.build import builder
from tests.build.projects import project_at
def written(*args, **kwargs):
    compose(*args, **kwargs)
    os.kill(os.getpid(), signal.SIGKILL)
compose, builder.compose = builder.compose, written
project_at(Path(sys.argv[1]), Path(sys.argv[2])).build()
"""
    command = [sys.executable, "-c", script, str(project.root), str(project.cache.root)]
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    killed = subprocess.run(command, capture_output=True, env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(left_in(project)) == 2
    assert not project.build().reused
    assert left_in(project) == []


def test_work_without_a_lock_is_swept(project: Project) -> None:
    """A workspace that something made again after it was cleared belongs to nobody."""
    for name in ("0" * 32, f"{'0' * 32}.damaged"):
        (project.cache.root / "work" / name / "packages").mkdir(parents=True)
    project.build()
    assert left_in(project) == []


def test_the_workspace_of_a_tool_that_outlived_us_is_left_until_it_ends(project: Project, tmp_path: Path) -> None:
    """Who still writes there has the lock's descriptor, and holds it."""
    with project.cache.workspace(project.context) as work:
        held = os.dup(work.lock)
        (work.path / "half").touch()
        # As after a kill -9: nothing of the block's end is done.
        lock, left = work.path.with_suffix(".lock"), tmp_path / "left"
        shutil.copytree(work.path, left)
        os.link(lock, tmp_path / "lock")
    left.rename(work.path)
    (tmp_path / "lock").rename(lock)
    project.build()
    assert (work.path / "half").exists()
    os.close(held)
    project.write("build/hello", "other")
    project.build()
    assert left_in(project) == []


def test_the_workspace_of_a_living_build_is_left_alone(project: Project) -> None:
    """Sweeping takes only what no process holds."""
    with project.cache.workspace(project.context) as busy:
        (busy.path / "disk.raw").write_bytes(b"half")
        project.build()
        assert (busy.path / "disk.raw").read_bytes() == b"half"
    assert left_in(project) == []


@pytest.mark.slow
def test_a_limit_on_file_sizes_is_told(project: Project) -> None:
    """Where the disk's whole size is more than a file may have, the build ends, and leaves nothing."""
    script = f"""
import resource, signal, sys
from pathlib import Path
from osvdeploy.errors import BuildError
from tests.build.projects import project_at
project = project_at(Path(sys.argv[1]), Path(sys.argv[2]))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({1 << 20}, {resource.RLIM_INFINITY}))
try:
    project.build()
except BuildError as error:
    print(error, error.hint)
"""
    command = [sys.executable, "-c", script, str(project.root), str(project.cache.root)]
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "cannot hold the image, a sparse file of 1GiB" in run.stdout
    assert str(project.cache.root) in run.stdout and "OSVDEPLOY_CACHE" in run.stdout
    assert left_in(project) == []
    assert not list((project.cache.root).glob("images/*"))


@pytest.mark.parametrize("room", [0, 65536, 2 << 20, (2 << 20) + 2048])
def test_a_disk_that_fills_up_anywhere_leaves_nothing(
    project: Project, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    """At whatever byte the disk is full, the error is the same and the cache is as before."""
    pwrite = os.pwrite

    def until_full(fd: int, content: memoryview, offset: int) -> int:
        if offset + len(content) > room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return pwrite(fd, content, offset)

    monkeypatch.setattr(os, "pwrite", until_full)
    with pytest.raises(BuildError, match=r"no room for the image: it takes .* are free") as refused:
        project.build()
    assert refused.value.hint is not None and "OSVDEPLOY_CACHE" in refused.value.hint
    assert left_in(project) == [] and not (project.root / "osv.lock").exists()
    monkeypatch.setattr(os, "pwrite", pwrite)
    assert not project.build().reused


def test_a_cache_that_cannot_be_written_is_named(project: Project) -> None:
    """A file in the place of the cache is an error with the way out, not a traceback."""
    project.cache.root.write_text("in the way")
    with pytest.raises(BuildError, match="build cache cannot be written"):
        project.build()


def test_an_interrupted_build_leaves_nothing(project: Project) -> None:
    """Ctrl-C in the middle of writing ends the build with nothing half-made."""
    cancel = CancelToken()

    def interrupt(event: Event) -> None:
        if isinstance(event, Progress):
            cancel.cancel()

    project.write("build/hello", bytes(3 << 20))
    with pytest.raises(Interrupted):
        build(Context(reporter=interrupt, cancel=cancel), project.inputs, project.cache)
    assert left_in(project) == []
    assert not project.build().reused


def test_a_source_that_changes_while_it_is_built_stops_the_build(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was planned is what is written, or nothing is: with the digests known, and with a draft."""
    for module, name, known in ((builder_module, "lay_out", True), (drafting_module, "outline_of", False)):
        meanwhile = getattr(module, name)

        def changed_meanwhile(*args: object, meanwhile: Any = meanwhile, **named: object) -> object:
            project.write("web/index.html", "changed")
            return meanwhile(*args, **named)

        with monkeypatch.context() as patch:
            if known:
                patch.setattr(stamped, "TICK", 0)
                project.build()
                project.write("web/index.html", "other")
                project.build(command=("/hello", "x"))
            patch.setattr(module, name, changed_meanwhile)
            with pytest.raises(SourceChanged, match=r"web/index\.html"):
                project.build(command=("/hello", "y"))
        assert left_in(project) == []


def test_a_source_that_changes_once_it_was_drafted_is_built_as_it_was(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was read once, and that is what the digest is of; the next build sees what it is now."""
    expected = project.build().image.digest
    project.write("web/index.html", (project.root / "web/index.html").read_text())
    shutil.rmtree(project.cache.root)
    lay_out = rofs_module.lay_out

    def changed_meanwhile(*args: Any, **named: Any) -> object:
        project.write("web/index.html", "changed")
        return lay_out(*args, **named)

    with monkeypatch.context() as patch:
        patch.setattr(builder_module, "lay_out", changed_meanwhile)
        assert project.build().image.digest == expected
    assert project.build().image.digest != expected


def test_a_disk_on_which_there_is_no_room_for_a_draft_is_built_all_the_same(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever keeps a draft from being written, the disk is the same."""

    def full(*_: object) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    expected = digest_of_file(project.build().image.path)
    shutil.rmtree(project.cache.root)
    with monkeypatch.context() as patch:
        patch.setattr(Draft, "copy", full)
        assert digest_of_file(project.build().image.path) == expected
    shutil.rmtree(project.cache.root)
    with monkeypatch.context() as patch:
        patch.setattr(Draft, "begin", lambda *_: None)
        assert digest_of_file(project.build().image.path) == expected
    assert left_in(project) == []


def test_a_draft_that_leaves_no_room_for_the_disk_is_given_up(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was drafted and is equal to another file takes room that the disk alone would not take."""
    expected = digest_of_file(project.build().image.path)
    shutil.rmtree(project.cache.root)
    drafts: list[bool] = []

    def full(*args: Any, **named: Any) -> object:
        composed = compose(*args, **named)
        drafts.append(named.get("draft") is not None)
        if drafts[-1]:
            raise OSError(errno.ENOSPC, "No space left on device")
        return composed

    with monkeypatch.context() as patch:
        patch.setattr(builder_module, "compose", full)
        assert digest_of_file(project.build().image.path) == expected
    assert drafts == [True, False]
    assert left_in(project) == []


def test_a_source_that_changes_in_a_draft_is_not_read_again(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """The build cannot go on, whatever the other files hold."""

    def changed(*_: object) -> NoReturn:
        raise SourceChanged("web/index.html: changed while it was read")

    def read(*_: object) -> NoReturn:
        raise AssertionError("read again")

    monkeypatch.setattr(Draft, "copy", changed)
    monkeypatch.setattr(drafting_module, "digests_of", read)
    with pytest.raises(SourceChanged):
        project.build()
    assert left_in(project) == []


@pytest.mark.parametrize("damage", ["no disk", "short disk", "no json", "torn json", "other json", "newer"])
def test_a_damaged_entry_is_built_again(project: Project, damage: str) -> None:
    """The cache never answers with a disk that it cannot vouch for."""
    good = project.build()
    json = good.image.path.with_name("image.json")
    match damage:
        case "no disk":
            good.image.path.unlink()
        case "short disk":
            os.truncate(good.image.path, 4096)
        case "no json":
            json.unlink()
        case "torn json":
            json.write_bytes(json.read_bytes()[:50])
        case "other json":
            json.write_text('{"version": 2, "boot": []}')
        case "newer":
            json.write_bytes(json.read_bytes().replace(b'"version": 2', b'"version": 3'))
    again = project.build()
    assert not again.reused
    assert again.image == good.image
    assert project.build().reused
    assert left_in(project) == []


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"kernel": FileKernel("nothing.img")}, KernelInvalid, r"nothing\.img: cannot be read: No such file"),
        ({"kernel": FileKernel("build/hello")}, KernelInvalid, "build/hello: text, not a kernel"),
        ({"command": ()}, CommandLineInvalid, "names no program"),
        ({"command": ("/hello", "a$b")}, CommandLineInvalid, "'a\\$b'"),
        ({"size": 100}, SizeInvalid, "whole GiB"),
        ({"files": (FileMapping("nothing", "/a"),)}, FileTreeInvalid, "from = 'nothing': no such file"),
    ],
)
def test_what_cannot_be_built_is_refused_before_anything_is_made(
    project: Project, change: dict[str, object], error: type[Exception], says: str
) -> None:
    """Bad input is an error that names it; no image appears."""
    with pytest.raises(error, match=says):
        project.build(**change)
    assert not list(project.cache.root.glob("images/*"))


def test_a_build_that_is_refused_pins_nothing(project: Project) -> None:
    """Not by the disk's layout either, which is known last; the lock is there with the first image."""
    os.truncate(project.write("build/hello", b""), 1 << 30)
    with pytest.raises(SizeInvalid, match="need 2GiB"):
        project.build(size=1 << 30)
    assert not (project.root / "osv.lock").exists()
    project.write("build/hello", b"smaller")
    project.build()
    assert (project.root / "osv.lock").exists()


def test_another_kernel_than_the_pinned_one_stops_the_build(project: Project) -> None:
    """The first build pins its kernel; a change of it is refused until the lock is upgraded."""
    pinned = project.build().image.kernel
    assert any(isinstance(event, Note) and "pinned loader.img" in event.text for event in project.events)
    write_loader(project.root / "loader.img", chunks=3)
    with pytest.raises(PinMismatch) as refused:
        project.build()
    changed = hashlib.sha256((project.root / "loader.img").read_bytes()).hexdigest()
    assert pinned in str(refused.value) and changed in str(refused.value)
    assert "osvdeploy lock --upgrade" in (refused.value.hint or "")
    pin = builder_module.upgrade_lock(project.context, project.inputs, project.cache)
    assert isinstance(pin, KernelPin) and pin.sha256 == changed
    assert project.build().image.kernel == changed
