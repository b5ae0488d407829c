"""The build cache gets room again: what goes, what stays, and what happens when it is used meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osvdeploy.build.cache import BuildCache
from osvdeploy.build.kernels import KernelStore
from osvdeploy.build.prune import Entry, Kind, Removal, choose, remove, survey
from osvdeploy.build.sources import ReleaseKernel, UrlKernel
from osvdeploy.build.statcache import StatCache
from osvdeploy.build.uses import in_use, note_files, use
from osvdeploy.context import Context, VirtualClock
from osvdeploy.digests import Digest
from osvdeploy.osv.filetree import HostFile, stamp_of
from tests.build.projects import Project
from tests.osv.images import loader_image
from tests.osv.kernels import kernel_elf, lzloader, pack

CTX = Context()
DAY = 86_400.0


def pruned(cache: BuildCache, *, older: float | None = 0.0, most: int | None = None, **more: bool) -> list[Removal]:
    """Prune, a moment from now: what was just used is older than 0 seconds then."""
    wanted = choose(survey(cache), now=time.time() + 1, older=older, most=most, **more)
    return list(remove(CTX, cache, wanted))


def names(removals: Sequence[Removal]) -> set[str]:
    return {f"{each.entry.kind}/{each.entry.name}" for each in removals if each.kept is None}


def age(cache: BuildCache, days: float, entry: Path) -> None:
    """Let an entry be used last so many days ago."""
    use(cache.root, entry, making=True)
    for marker in (cache.root / "used").glob(f"{entry.parent.name}-{entry.name}*"):
        os.utime(marker, (time.time() - days * DAY,) * 2)


# ------------------------------------------------------------------------------------------------------ the decision

entries = st.lists(
    st.builds(
        Entry,
        kind=st.sampled_from(Kind),
        path=st.integers(0, 99).map(lambda number: Path(f"/cache/{number}")),
        size=st.integers(0, 100),
        used=st.floats(0, 100),
        busy=st.booleans(),
        by_hand=st.booleans(),
    ),
    max_size=12,
)


@given(
    found=entries,
    older=st.none() | st.floats(0, 100),
    most=st.none() | st.integers(0, 400),
    by_hand=st.booleans(),
)
def test_what_goes_is_old_or_too_much_and_never_needed(
    found: list[Entry], older: float | None, most: int | None, by_hand: bool
) -> None:
    """Whatever is there: nothing in use, nothing that cannot be had again, nothing more than was asked for."""
    removals = choose(found, now=100.0, older=older, most=most, by_hand=by_hand)
    gone = [each.entry for each in removals if each.kept is None]
    assert not any(entry.busy or (entry.by_hand and not by_hand) for entry in gone)
    left = [entry for entry in found if not any(entry is other for other in gone)]
    small = {Kind.FACTS, Kind.STATS, Kind.LOG}
    free = [entry for entry in left if not entry.busy and (by_hand or not entry.by_hand)]
    assert not any(entry.kind is Kind.WORK for entry in free)
    if older is not None:
        assert not any(100.0 - entry.used > older for entry in free)
    if most is not None and (movable := [entry for entry in free if entry.kind not in small]):
        assert sum(entry.size for entry in left) <= most
        for entry in gone:
            young = entry.kind is not Kind.WORK and (older is None or 100.0 - entry.used <= older)
            assert not young or entry.used <= min(other.used for other in movable)
    if most is None:
        old = [e for e in found if e.kind is Kind.WORK or (older is not None and 100.0 - e.used > older)]
        assert all(any(entry is other for other in old) for entry in gone)


# -------------------------------------------------------------------------------------------------------- the cache


def test_what_was_not_used_for_long_goes(project: Project) -> None:
    """An image, with its marker; the one of yesterday stays, and is found."""
    old = project.build().image.path.parent
    project.write("build/hello", "another")
    new = project.build().image.path.parent
    age(project.cache, 40, old)
    age(project.cache, 1, new)
    assert names(pruned(project.cache, older=30 * DAY)) == {f"images/{old.name}"}
    assert not old.exists() and not list((project.cache.root / "used").glob(f"*{old.name}*"))
    assert project.build().reused
    assert list((project.cache.root / "work").iterdir()) == []


def test_finding_an_image_is_using_it(project: Project) -> None:
    """Though nothing is written to it: builds remember files by their times."""
    image = project.build().image
    before = image.path.stat()
    age(project.cache, 40, image.path.parent)
    assert project.build().reused
    assert pruned(project.cache, older=30 * DAY) == [] and image.path.stat() == before


def test_what_was_used_longest_ago_goes_first(project: Project) -> None:
    """Until it is small enough."""
    images = []
    for _ in range(3):
        project.write("build/hello", os.urandom(200_000))
        images.append(project.build().image.path.parent)
    for number, image in enumerate(images):
        age(project.cache, (2, 3, 1)[number], image)
    total = sum(entry.size for entry in survey(project.cache))
    assert names(pruned(project.cache, older=None, most=total - 1)) == {f"images/{images[1].name}"}
    assert names(pruned(project.cache, older=None, most=0)) == {f"images/{images[0].name}", f"images/{images[2].name}"}


def test_what_is_used_now_stays(project: Project) -> None:
    """As long as the block lasts that a command runs in, and not longer."""
    with in_use():
        image = project.build().image
        (kept,) = [each for each in pruned(project.cache) if each.entry.kind is Kind.IMAGE]
        assert kept.kept == "in use" and image.path.exists()
        assert pruned(project.cache, older=None, most=0)[0].kept is not None
    assert f"images/{image.path.parent.name}" in names(pruned(project.cache))
    assert not project.build().reused


def test_what_was_used_since_we_looked_stays(project: Project) -> None:
    """A build is faster than who decides."""
    image = project.build().image
    age(project.cache, 40, image.path.parent)
    wanted = choose(survey(project.cache), now=time.time(), older=DAY, most=None)
    assert project.build().reused
    (kept,) = remove(CTX, project.cache, wanted)
    assert kept.kept == "used again" and image.path.exists()


def test_entries_of_before_there_were_markers_are_as_old_as_they_are(project: Project) -> None:
    """They can go like any other."""
    image = project.build().image.path.parent
    for marker in (project.cache.root / "used").iterdir():
        marker.unlink()
    assert names(pruned(project.cache, older=DAY)) == set()
    assert f"images/{image.name}" in names(pruned(project.cache))


def kernel_image(version: str) -> bytes:
    return loader_image(payload=lzloader(pack(kernel_elf(version=version))))


def test_kernels_that_nothing_could_fetch_again_stay(tmp_path: Path) -> None:
    """Put there from a file, under a release's name or none, or no longer what is at its address; unless asked for."""
    cache = BuildCache(tmp_path / "cache")
    store = KernelStore(cache)
    file = tmp_path / "loader.img"
    kernels = {}
    for version in ("v0.54.0", "v0.55.0", "v0.56.0", "v0.57.0"):
        file.write_bytes(kernel_image(version))
        source = ReleaseKernel(version) if version == "v0.55.0" else None
        kernels[version] = store.add(CTX, file, source).name
    url = UrlKernel("https://x.example/nightly")
    for version in ("v0.56.0", "v0.57.0"):  # first this, then that was there
        store._remember(CTX, url, Digest(kernels[version]), downloaded=True)
    assert store.by_hand() == {kernels[version] for version in ("v0.54.0", "v0.55.0", "v0.56.0")}

    gone = names(pruned(cache))
    assert {name for name in gone if name.startswith("kernels/")} == {f"kernels/{kernels['v0.57.0']}"}
    assert [each.sha256 for each in store.stored()] == sorted(store.by_hand())
    assert store.known(url) is None, "what was remembered of it is forgotten too"
    assert {name for name in names(pruned(cache, by_hand=True)) if name.startswith("kernels/")} == {
        f"kernels/{kernels[version]}" for version in ("v0.54.0", "v0.55.0", "v0.56.0")
    }
    assert store.stored() == ()


def test_bytecode_goes_by_what_was_used_of_it(tmp_path: Path) -> None:
    """Of one interpreter, what no image of late has; the rest stays, until nothing of it is used."""
    cache = BuildCache(tmp_path)
    store = tmp_path / "bytecode" / ("a" * 32)
    store.mkdir(parents=True)
    for name in ("old.pyc", "both.pyc", "new.pyc", "lost.pyc", "interpreter.json"):
        (store / name).write_bytes(b"x" * 5000)
    note_files(cache.root, store, ["old.pyc", "both.pyc"], nonce=CTX.nonce())
    age(cache, 40, store)
    os.utime(store / "lost.pyc", (time.time() - 40 * DAY,) * 2)
    note_files(cache.root, store, ["both.pyc", "new.pyc"], nonce=CTX.nonce())
    use(cache.root, store)

    size = sum(entry.size for entry in survey(cache))
    done = pruned(cache, older=30 * DAY)
    assert all(each.kept is None for each in done)
    assert {path.name for path in store.iterdir()} == {"both.pyc", "new.pyc", "interpreter.json"}
    assert sum(entry.size for entry in survey(cache)) == size - sum(each.entry.size for each in done)
    assert pruned(cache, older=30 * DAY) == []
    pruned(cache)
    assert not store.exists() and list((tmp_path / "used").iterdir()) == []


def test_what_a_killed_build_left_goes(project: Project) -> None:
    """With or without its lock; what is under way stays."""
    work = project.cache.root / "work"
    with project.cache.workspace(CTX) as busy:
        (work / ("1" * 32)).mkdir()
        (work / ("1" * 32) / "disk.raw").write_bytes(b"x" * 10_000)
        (work / f"{'1' * 32}.lock").touch()
        (work / f"{'2' * 32}.damaged").mkdir()
        assert names(pruned(project.cache, older=None)) == {f"work/{'1' * 32}", f"work/{'2' * 32}.damaged"}
        assert busy.path.is_dir() and len(list(work.iterdir())) == 2


def test_what_is_not_ours_stays(project: Project) -> None:
    """A file that somebody put into the cache, whatever its age."""
    project.build()
    others = [
        project.cache.root / name
        for name in ("README", "images/note.txt", "kernels/loader.img", "stats/x.txt", "packages/mine", "used/x")
    ]
    for path in others:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
        os.utime(path, (0, 0))
    pruned(project.cache, most=0, by_hand=True)
    assert [path for path in others[:-1] if not path.exists()] == []


def test_hints_go_with_age_alone(project: Project) -> None:
    """What is known of a project's files takes no room, and costs time to find again."""
    stats = project.cache.stats_file(project.root)
    hints = StatCache(stats)
    hello = project.root / "build" / "hello"
    later = Context(clock=VirtualClock())  # its time is years after every file's
    hints.digest(later, HostFile(os.fsencode(hello), stamp_of(hello.stat())))
    hints.save(later)
    assert names(pruned(project.cache, older=None, most=0)) == set()
    os.utime(stats, (time.time() - 40 * DAY,) * 2)
    StatCache.load(stats)
    assert names(pruned(project.cache, older=30 * DAY)) == set(), "it was used"
    os.utime(stats, (time.time() - 40 * DAY,) * 2)
    assert names(pruned(project.cache, older=30 * DAY)) == {f"stats/{stats.name}"}
    assert not stats.exists()


def test_what_cannot_be_removed_is_told(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the rest goes all the same."""
    image = project.build().image.path.parent
    project.write("build/hello", "another")
    project.build()
    rename = Path.rename

    def refuse(path: Path, to: Path) -> Path:
        if path == image:
            raise PermissionError(13, "Permission denied")
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", refuse)
    done = {each.entry.path: each.kept for each in pruned(project.cache) if each.entry.kind is Kind.IMAGE}
    assert done.pop(image) == "cannot be removed: Permission denied" and list(done.values()) == [None]


def test_a_cache_that_is_not_there_is_empty(tmp_path: Path) -> None:
    """And is not made for being looked at."""
    assert survey(BuildCache(tmp_path / "nothing")) == []
    assert not (tmp_path / "nothing").exists()


@pytest.mark.slow
def test_a_prune_that_was_killed_leaves_nothing_by_half(project: Project) -> None:
    """What it was at is whole in its place, or swept by the next command."""
    image = project.build().image.path.parent
    script = """
import os, shutil, signal, sys
from pathlib import Path
from osvdeploy.build import prune
from tests.build.test_prune import BuildCache, pruned
def killed(*arguments, **options):
    os.kill(os.getpid(), signal.SIGKILL)
prune.shutil.rmtree = killed
pruned(BuildCache(Path(sys.argv[1])))
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run([sys.executable, "-c", script, project.cache.root], env=environment)
    assert ended.returncode == -signal.SIGKILL
    assert not image.exists() and list((project.cache.root / "work").glob("*/*/disk.raw"))
    assert not project.build().reused
    assert list((project.cache.root / "work").iterdir()) == []


@pytest.mark.slow
def test_builds_go_on_while_everything_is_pruned(project: Project) -> None:
    """Over and over, to the last byte: no build finds half of anything, and none loses what it has."""
    over = threading.Event()
    failed: list[BaseException] = []

    def prune() -> None:
        try:
            while not over.is_set():
                pruned(project.cache, most=0, by_hand=True)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=prune) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for number in range(12):
            project.write("build/hello", f"hello {number % 3}")
            with in_use():
                image = project.build().image
                assert len(image.path.read_bytes()) == image.size > 0 if number % 5 == 0 else image.path.exists()
                again = project.build()
                assert again.reused and again.image == image
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert failed == []
