"""ROFS against `cat` and `tar`, what a change sends, and a build of nothing new. Ratios of one run on one machine."""

from __future__ import annotations

import hashlib
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from osvdeploy.digests import Digest, sha256
from osvdeploy.osv.filetree import Content, FileTree, HostFile, TreeBuilder
from osvdeploy.osv.image import Extent
from osvdeploy.osv.rofs import Draft, RofsLayout, digests_of, lay_out, outline_of, write_on_disk
from osvdeploy.osv.rofs.placement import GRID
from osvdeploy.osv.workers import worth
from osvdeploy.publish.blocks import needed
from osvdeploy.sizes import GIB, MIB
from tests.osv.images import write_loader

ROUNDS = 7


@dataclass(frozen=True, slots=True)
class Corpus:
    """Many files of random sizes in 100 directories."""

    root: Path
    listing: Path
    """Their paths, each ended by a NUL."""
    files: int
    size: int


@contextmanager
def made(base: Path, files: int, size: int) -> Iterator[Corpus]:
    """Gone afterwards: pytest would keep it for days."""
    sizes = random.Random(1)
    mean, paths, total = size // files, [], 0
    block = os.urandom(2 * mean)
    for number in range(files):
        path = base / "files" / f"{number % 100:02}" / f"{number}.dat"
        path.parent.mkdir(parents=True, exist_ok=True)
        total += path.write_bytes(number.to_bytes(8, "big") + block[: sizes.randrange(mean * 2)])
        paths.append(os.fsencode(path))
    listing = base / "listing"
    listing.write_bytes(b"\0".join(sorted(paths)) + b"\0")
    try:
        yield Corpus(base / "files", listing, files, total)
    finally:
        shutil.rmtree(base / "files")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Corpus]:
    """10,000 files of 200 MB."""
    with made(tmp_path_factory.mktemp("corpus"), 10_000, 200_000_000) as corpus:
        yield corpus


@pytest.fixture(scope="module")
def large_corpus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Corpus]:
    """50,000 files of 900 MB."""
    with made(tmp_path_factory.mktemp("corpus"), 50_000, 900_000_000) as corpus:
        yield corpus


def in_turns(*runs: Callable[[], object], before: Callable[[], object] = lambda: None) -> list[list[float]]:
    """The times of each, in seconds, run in turns so that the machine's moods hit all of them. ``before`` each of them
    something is done that is not measured."""
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(ROUNDS):
        for run, taken in zip(runs, times, strict=True):
            before()
            begin = time.perf_counter()
            run()
            taken.append(time.perf_counter() - begin)
    return times


def best_of(*runs: Callable[[], object]) -> list[float]:
    """The shortest time of each, in seconds."""
    return [min(taken) for taken in in_turns(*runs)]


def ratio(taken: Sequence[float], other: Sequence[float]) -> float:
    """The median of those of one turn each."""
    return statistics.median(one / another for one, another in zip(taken, other, strict=True))


def scan(root: Path) -> FileTree:
    builder = TreeBuilder()
    builder.add_tree(b"/", os.fsencode(root))
    return builder.tree()


def write_disk(
    path: Path, tree: FileTree, digests: Sequence[Digest] | None = None, workers: int | None = None
) -> RofsLayout:
    """The file system's part of a new disk, as a build writes it; ``digests`` None: nothing is known of the files."""
    outline, draft = outline_of(tree), None
    partition = Extent(16 * MIB, -(-(16 * MIB + outline.size) // GIB) * GIB)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    try:
        if digests is None and (draft := Draft.begin(outline, partition)) is not None:
            digests = draft.copy(fd, range(len(outline.numbers)), workers=workers)
        tight = lay_out(tree, digests, outline=outline)
        layout, _ = write_on_disk(tight, fd, partition, workers=workers, draft=draft)
    finally:
        os.close(fd)
    return layout


def test_rofs_against_cat_and_tar(large_corpus: Corpus, tmp_path: Path) -> None:
    """A ROFS with all digests, against `cat` of the same files into one file (goal: 1.3) and `tar -cf` (goal: faster).

    Nothing is known of the files before, and each is read once. All write a new file; the one before is removed first,
    which is not measured: it takes a second where that one is just being written to the medium.
    """
    output = tmp_path / "output"
    tree = scan(large_corpus.root)
    files = [file for _, file in tree.files()]
    known = digests_of(files)

    def cat() -> None:
        with output.open("wb") as target, large_corpus.listing.open("rb") as names:
            subprocess.run(["xargs", "-0", "cat"], stdin=names, stdout=target, check=True)

    def tar() -> None:
        subprocess.run(["tar", "-cf", output, "-C", large_corpus.root, "."], check=True)

    names = ("cat", "tar -cf", "ROFS, digests included", "digests known", "with the scan", "in one process")
    times = in_turns(
        cat,
        tar,
        lambda: write_disk(output, tree),
        lambda: write_disk(output, tree, known),
        lambda: write_disk(output, scan(large_corpus.root)),
        lambda: write_disk(output, tree, workers=0),
        before=lambda: output.unlink(missing_ok=True),
    )
    output.unlink()
    layout = write_disk(output, tree, known)
    sent, tight = len(needed(layout.stored, GRID)), -(-lay_out(tree, known).size // GRID)
    print(f"\nROFS of {large_corpus.files} files, {large_corpus.size / 1e6:.0f} MB, {worth(large_corpus.size)} workers")
    print(f"{'':26}best of {ROUNDS}   median of pairs")
    for name, taken in zip(names, times, strict=True):
        best, beside_cat, beside_tar = min(taken) * 1000, ratio(taken, times[0]), ratio(taken, times[1])
        print(f"  {name:24}{best:6.0f} ms   {beside_cat:.2f} x cat   {beside_tar:.2f} x tar")
    print(f"  {sent} blocks of 512 KiB to send, back to back {tight}: {sent / tight - 1:+.1%}")
    assert output.stat().st_size > large_corpus.size


def highest_memory(process: subprocess.Popen[str]) -> tuple[int, int]:
    """Of a process and the processes that it starts, in bytes: the highest sum of what each of those that run has had
    at most, as seen every 2 ms, and the largest of those that it started. Not what getrusage(2) says, in which a new
    process begins with the memory of the one that started it."""
    highest = started = 0
    while process.poll() is None:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        each = [resident(pid) for pid in children]
        highest, started = max(highest, resident(process.pid) + sum(each)), max(started, *each, 0)
        time.sleep(0.002)  # how often its memory is looked at
    return highest, started


def resident(pid: int | str) -> int:
    """The most memory that a process has had since it became the program that it is, in bytes; 0 where it ended."""
    try:
        found = re.search(r"^VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(found[1]) * 1024 if found else 0


def test_memory(tmp_path: Path) -> None:
    """The highest memory of all processes that take the digests of 2 GB in 20,000 files, lay them out and write them
    (goal: 200 MB in all). Pages that they share are counted for each."""
    script = """
import sys
from pathlib import Path
from tests.benchmarks.test_rofs import scan, write_disk
write_disk(Path(sys.argv[2]), scan(Path(sys.argv[1])))
"""
    with made(tmp_path, 20_000, 2_000_000_000) as corpus:
        command = [sys.executable, "-c", script, str(corpus.root), str(tmp_path / "image")]
        environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
        with subprocess.Popen(command, env=environment, text=True) as process:
            highest, started = highest_memory(process)
        assert process.returncode == 0
    (tmp_path / "image").unlink()
    print(f"\nmemory for {corpus.files} files of {corpus.size / 1e6:.0f} MB: {highest / 1e6:.0f} MB in all, ", end="")
    print(f"a worker {started / 1e6:.0f}")


def test_blocks_after_a_small_change(corpus: Corpus) -> None:
    """Blocks to send after one change in 10,000 files of 200 MB, tables and superblock included (goal: 4)."""
    tree = scan(corpus.root)
    sources = {path: file for path, file in tree.files() if isinstance(file, HostFile) and 8_000 < file.size < 12_000}
    known = dict(zip((path for path, _ in tree.files()), digests_of([f for _, f in tree.files()]), strict=True))
    before, tight = blocks_of(tree, known)
    print(
        f"\nof {corpus.files} files, {corpus.size / 1e6:.0f} MB, {len(before)} blocks ({len(before) / tight - 1:+.1%})"
    )
    print("one file of 10 KB is ... and blocks to send, of 40 files:  half   9 of 10   most")
    chance = random.Random(5)
    for change in ("rewritten", "grown by 1 %", "grown by half", "shrunk by a third", "added", "removed", "renamed"):
        counts = []
        for path in chance.sample(sorted(sources), 40):
            entries, digests = dict(tree.entries), dict(known)
            other = bytearray(Path(os.fsdecode(sources[path].path)).read_bytes())
            other[100:104] = chance.randbytes(4)
            match change:
                case "grown by 1 %":
                    other += chance.randbytes(len(other) // 100)
                case "grown by half":
                    other += chance.randbytes(len(other) // 2)
                case "shrunk by a third":
                    del other[-len(other) // 3 :]
            if change in ("removed", "renamed"):
                moved = entries.pop(path), digests.pop(path)
                if change == "renamed":
                    entries[path + b".new"], digests[path + b".new"] = moved
            else:
                target = path + b".new" if change == "added" else path
                entries[target], digests[target] = Content(bytes(other)), sha256(bytes(other))
            order = sorted(entries, key=lambda name: name.replace(b"/", b"\0"))
            after, _ = blocks_of(FileTree({name: entries[name] for name in order}), digests)
            counts.append(sum(before.get(block) != held for block, held in after.items()))
        counts.sort()
        print(f"  {change:55}{counts[20]:6} {counts[36]:9} {counts[-1]:6}")
    assert before


def blocks_of(tree: FileTree, digests: Mapping[bytes, Digest]) -> tuple[dict[int, bytes], int]:
    """A digest of what each block holds of the file system, and how many there would be back to back."""
    partition = Extent(16 * MIB, GIB)
    tight = lay_out(tree, [digests[path] for path, _ in tree.files()])
    layout = tight.on_disk(partition)
    held: dict[int, list[bytes]] = {}
    head = layout.superblock.pack() + layout.tables
    for at in range(0, len(head), GRID):
        held[at // GRID] = [head[at : at + GRID]]
    for content in layout.contents:
        for block in range(content.extent.start // GRID, -(-content.extent.end // GRID)):
            held.setdefault(block, []).append(b"%d %s" % (content.block, content.sha256.encode()))
    return {block: hashlib.sha256(b"".join(parts)).digest() for block, parts in held.items()}, -(-tight.size // GRID)


BUILD = """
import sys
from pathlib import Path
from osvdeploy.build.builder import build
from osvdeploy.build.cache import BuildCache
from osvdeploy.build.plan import FileMapping, ImageInputs
from osvdeploy.build.sources import FileKernel
from osvdeploy.context import Context
base = Path(sys.argv[1])
files = (FileMapping(sys.argv[2], "/data/"),)
inputs = ImageInputs("bench", "1", base, FileKernel("loader.img"), ("/data",), files=files)
print(build(Context(), inputs, BuildCache(base / "cache")).reused)
"""


def test_build_of_all_new(large_corpus: Corpus, tmp_path: Path) -> None:
    """A build with nothing known as a whole process: scan, digests, checks of files, disk, and the disk on the medium.
    Against `cat` of the files into one file that is brought to the medium too."""
    write_loader(tmp_path / "loader.img", chunks=114)
    command = [sys.executable, "-c", BUILD, str(tmp_path), str(large_corpus.root)]

    def clean() -> None:
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
        (tmp_path / "osv.lock").unlink(missing_ok=True)
        (tmp_path / "joined").unlink(missing_ok=True)

    def cat() -> None:
        with (tmp_path / "joined").open("wb") as target, large_corpus.listing.open("rb") as names:
            subprocess.run(["xargs", "-0", "cat"], stdin=names, stdout=target, check=True)
            os.fsync(target.fileno())

    def build() -> None:
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "False"

    joined, built = in_turns(cat, build, before=clean)
    clean()
    print(f"\nbuild of {large_corpus.files} files, {large_corpus.size / 1e6:.0f} MB, with nothing known:")
    print(f"  cat and fsync           {min(joined) * 1000:6.0f} ms")
    print(f"  build                   {min(built) * 1000:6.0f} ms   {ratio(built, joined):.2f} times")


def test_build_of_nothing_new(corpus: Corpus, tmp_path: Path) -> None:
    """A build with nothing changed as a whole process, for one file and for 10,000 (goal: 200 ms)."""
    one = next(path for path in sorted(corpus.root.rglob("*")) if path.is_file())
    # A folder for each: what is remembered of files is kept by folder.
    folders = {one: tmp_path / "one", corpus.root: tmp_path / "all"}
    for folder in folders.values():
        folder.mkdir()
        write_loader(folder / "loader.img", chunks=114)

    def run(source: Path) -> str:
        command = [sys.executable, "-c", BUILD, str(folders[source]), str(source)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    # What was written within the last two seconds is not remembered.
    time.sleep(2.1)
    for source in (one, corpus.root):
        run(source)
    bare, small, large = best_of(
        lambda: subprocess.run([sys.executable, "-c", "pass"], check=True), lambda: run(one), lambda: run(corpus.root)
    )
    assert run(one) == run(corpus.root) == "True"
    print(f"\nbuild with nothing changed, process included (best of {ROUNDS}):")
    print(f"  bare python             {bare * 1000:6.0f} ms")
    print(f"  1 file                  {small * 1000:6.0f} ms")
    print(f"  {corpus.files} files            {large * 1000:6.0f} ms")
