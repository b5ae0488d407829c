"""ROFS against `cat` and `tar`, what a change sends, and a build of nothing new. Ratios of one run on one machine."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from osvdeploy.osv.filetree import Content, FileTree, HostFile, TreeBuilder
from osvdeploy.osv.image import Extent
from osvdeploy.osv.rofs import Fingerprint, RofsLayout, fingerprint, fingerprints, lay_out, write_at
from osvdeploy.osv.rofs.placement import GRID
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


def best_of(*runs: Callable[[], object]) -> list[float]:
    """The shortest time of each, in seconds, run in turns so that the machine's moods hit all of them."""
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(ROUNDS):
        for run, taken in zip(runs, times, strict=True):
            begin = time.perf_counter()
            run()
            taken.append(time.perf_counter() - begin)
    return [min(taken) for taken in times]


def scan(root: Path) -> FileTree:
    builder = TreeBuilder()
    builder.add_tree(b"/", os.fsencode(root))
    return builder.tree()


def write_disk(path: Path, tree: FileTree, prints: Sequence[Fingerprint]) -> RofsLayout:
    """The file system's part of a disk."""
    tight = lay_out(tree, prints)
    partition = Extent(16 * MIB, -(-(16 * MIB + tight.size) // GIB) * GIB)
    layout = tight.on_disk(partition)
    path.unlink(missing_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    try:
        write_at(layout, lambda offset, view: os.pwrite(fd, view, partition.start + offset))
    finally:
        os.close(fd)
    return layout


def test_rofs_against_cat_and_tar(large_corpus: Corpus, tmp_path: Path) -> None:
    """A ROFS with all digests, against `cat` of the same files into one file (goal: 1.3) and `tar -cf` (goal: faster).

    Nothing is known of the files before: each is read twice, for its digest and into its place.
    """
    joined, archive, image = tmp_path / "joined", tmp_path / "archive", tmp_path / "image"
    tree = scan(large_corpus.root)
    files = [file for _, file in tree.files()]
    known = fingerprints(files)

    def cat() -> None:
        joined.unlink(missing_ok=True)
        with joined.open("wb") as target, large_corpus.listing.open("rb") as names:
            subprocess.run(["xargs", "-0", "cat"], stdin=names, stdout=target, check=True)

    def tar() -> None:
        archive.unlink(missing_ok=True)
        subprocess.run(["tar", "-cf", archive, "-C", large_corpus.root, "."], check=True)

    plain, packed, rofs, rebuilt, whole = best_of(
        cat,
        tar,
        lambda: write_disk(image, tree, fingerprints(files)),
        lambda: write_disk(image, tree, known),
        lambda: write_disk(image, scanned := scan(large_corpus.root), fingerprints([f for _, f in scanned.files()])),
    )
    layout = write_disk(image, tree, known)
    sent, tight = len(needed(layout.stored, GRID)), -(-lay_out(tree, known).size // GRID)
    print(f"\nROFS of {large_corpus.files} files, {large_corpus.size / 1e6:.0f} MB (best of {ROUNDS}):")
    for name, taken in (
        ("cat", plain),
        ("tar -cf", packed),
        ("ROFS, digests included", rofs),
        ("ROFS, digests known", rebuilt),
        ("ROFS, with the scan", whole),
    ):
        print(f"  {name:24}{taken * 1000:6.0f} ms   {taken / plain:.2f} x cat   {taken / packed:.2f} x tar")
    print(f"  {sent} blocks of 512 KiB to send, back to back {tight}: {sent / tight - 1:+.1%}")
    assert image.stat().st_size > joined.stat().st_size


def test_memory(tmp_path: Path) -> None:
    """The highest memory of a process that lays out and writes 2 GB in 20,000 files (goal: 200 MB)."""
    script = """
import os, resource, sys
from pathlib import Path
from osvdeploy.osv.filetree import HostFile
from osvdeploy.osv.rofs import fingerprints
from tests.benchmarks.test_rofs import scan, write_disk
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
tree = scan(Path(sys.argv[1]))
write_disk(Path(sys.argv[2]), tree, fingerprints([file for _, file in tree.files()]))
print(before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    with made(tmp_path, 20_000, 2_000_000_000) as corpus:
        command = [sys.executable, "-c", script, str(corpus.root), str(tmp_path / "image")]
        environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
        run = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    (tmp_path / "image").unlink()
    before, highest = (int(count) * 1024 / 1e6 for count in run.stdout.split())
    print(
        f"\nmemory for {corpus.files} files of {corpus.size / 1e6:.0f} MB: {highest:.0f} MB, {before:.0f} before them"
    )


def test_blocks_after_a_small_change(corpus: Corpus) -> None:
    """Blocks to send after one change in 10,000 files of 200 MB, tables and superblock included (goal: 4)."""
    tree = scan(corpus.root)
    sources = {path: file for path, file in tree.files() if isinstance(file, HostFile) and 8_000 < file.size < 12_000}
    known = dict(zip((path for path, _ in tree.files()), fingerprints([f for _, f in tree.files()]), strict=True))
    before, tight = blocks_of(tree, known)
    print(
        f"\nof {corpus.files} files, {corpus.size / 1e6:.0f} MB, {len(before)} blocks ({len(before) / tight - 1:+.1%})"
    )
    print("one file of 10 KB is ... and blocks to send, of 40 files:  half   9 of 10   most")
    chance = random.Random(5)
    for change in ("rewritten", "grown by 1 %", "grown by half", "shrunk by a third", "added", "removed", "renamed"):
        counts = []
        for path in chance.sample(sorted(sources), 40):
            entries, prints = dict(tree.entries), dict(known)
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
                moved = entries.pop(path), prints.pop(path)
                if change == "renamed":
                    entries[path + b".new"], prints[path + b".new"] = moved
            else:
                target = path + b".new" if change == "added" else path
                entries[target], prints[target] = Content(bytes(other)), fingerprint(bytes(other))
            order = sorted(entries, key=lambda name: name.replace(b"/", b"\0"))
            after, _ = blocks_of(FileTree({name: entries[name] for name in order}), prints)
            counts.append(sum(before.get(block) != held for block, held in after.items()))
        counts.sort()
        print(f"  {change:55}{counts[20]:6} {counts[36]:9} {counts[-1]:6}")
    assert before


def blocks_of(tree: FileTree, prints: Mapping[bytes, Fingerprint]) -> tuple[dict[int, bytes], int]:
    """A digest of what each block holds of the file system, and how many there would be back to back."""
    partition = Extent(16 * MIB, GIB)
    tight = lay_out(tree, [prints[path] for path, _ in tree.files()])
    layout = tight.on_disk(partition)
    held: dict[int, list[bytes]] = {}
    head = layout.superblock.pack() + layout.tables
    for at in range(0, len(head), GRID):
        held[at // GRID] = [head[at : at + GRID]]
    for content in layout.contents:
        for block in range(content.extent.start // GRID, -(-content.extent.end // GRID)):
            held.setdefault(block, []).append(b"%d %s" % (content.block, content.fingerprint.sha256.encode()))
    return {block: hashlib.sha256(b"".join(parts)).digest() for block, parts in held.items()}, -(-tight.size // GRID)


def test_build_of_nothing_new(corpus: Corpus, tmp_path: Path) -> None:
    """A build with nothing changed as a whole process, for one file and for 10,000 (goal: 200 ms)."""
    one = next(path for path in sorted(corpus.root.rglob("*")) if path.is_file())
    # A folder for each: what is remembered of files is kept by folder.
    folders = {one: tmp_path / "one", corpus.root: tmp_path / "all"}
    for folder in folders.values():
        folder.mkdir()
        write_loader(folder / "loader.img", chunks=114)
    script = """
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

    def run(source: Path) -> str:
        command = [sys.executable, "-c", script, str(folders[source]), str(source)]
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
