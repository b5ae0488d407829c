"""ROFS against `cat`, and a build of nothing new against a bare interpreter. Ratios of one run on one machine."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from osvdeploy.osv.filetree import FileTree, TreeBuilder
from osvdeploy.osv.rofs import lay_out, write_rofs
from tests.osv.images import write_loader

FILES, TOTAL, ROUNDS = 10_000, 200_000_000, 7


@dataclass(frozen=True, slots=True)
class Corpus:
    """10,000 files of 200 MB in 100 directories."""

    root: Path
    listing: Path
    """Their paths, each ended by a NUL."""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    base = tmp_path_factory.mktemp("corpus")
    sizes = random.Random(1)
    mean, paths = TOTAL // FILES, []
    block = os.urandom(2 * mean)
    for number in range(FILES):
        path = base / "files" / f"{number % 100:02}" / f"{number}.dat"
        path.parent.mkdir(parents=True, exist_ok=True)
        size = sizes.randrange(mean * 2)
        path.write_bytes(number.to_bytes(8, "big") + block[:size])
        paths.append(os.fsencode(path))
    listing = base / "listing"
    listing.write_bytes(b"\0".join(sorted(paths)) + b"\0")
    return Corpus(base / "files", listing)


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


def test_rofs_against_cat(corpus: Corpus, tmp_path: Path) -> None:
    """A ROFS with its digest, against `cat` of the same files into one file (goal: 1.3)."""
    joined, image = tmp_path / "joined", tmp_path / "image"
    tree = scan(corpus.root)

    def cat() -> None:
        joined.unlink(missing_ok=True)
        with joined.open("wb") as target, corpus.listing.open("rb") as names:
            subprocess.run(["xargs", "-0", "cat"], stdin=names, stdout=target, check=True)

    def rofs(tree: FileTree) -> None:
        image.unlink(missing_ok=True)
        fd = os.open(image, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        try:
            write_rofs(lay_out(tree), lambda view: os.write(fd, view))
        finally:
            os.close(fd)

    plain, written, whole = best_of(cat, lambda: rofs(tree), lambda: rofs(scan(corpus.root)))
    print(f"\nROFS of {FILES} files, {joined.stat().st_size / 1e6:.0f} MB, digest included (best of {ROUNDS}):")
    print(f"  cat                     {plain * 1000:6.0f} ms")
    print(f"  ROFS                    {written * 1000:6.0f} ms   {written / plain:.2f} x cat")
    print(f"  ROFS, with the scan     {whole * 1000:6.0f} ms   {whole / plain:.2f} x cat")
    assert image.stat().st_size > joined.stat().st_size


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
from osvdeploy.context import Context
base = Path(sys.argv[1])
files = (FileMapping(sys.argv[2], "/data/"),)
inputs = ImageInputs("bench", "1", base, "loader.img", ("/data",), files=files)
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
    print(f"  {FILES} files            {large * 1000:6.0f} ms")
