"""Worker processes: what they do is what one process does, whatever happens to them."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from osvdeploy.errors import Interrupted, SourceChanged
from osvdeploy.osv import contents, worker, workers
from osvdeploy.osv.filetree import Content, FileTree, HostFile, TreeBuilder
from osvdeploy.osv.image import Extent
from osvdeploy.osv.rofs import Draft, Rofs, digests_of, lay_out, outline_of, reading, write_on_disk, writer
from osvdeploy.sizes import GIB, KIB, MIB
from tests.qemu.fake import alive

pytestmark = pytest.mark.slow
"""They start processes, one and all."""

PARTITION = Extent(16 * MIB, GIB)
BATCH = 64 * KIB

sizes = st.one_of(
    st.integers(0, 2000),
    st.sampled_from([511, 512, 513, BATCH - 1, BATCH, BATCH + 1, 3 * BATCH, MIB - 1, MIB, MIB + 70_000]),
)


@pytest.fixture(scope="module", autouse=True)
def small_batches() -> Iterator[None]:
    """A few files are many batches, so that every worker gets some."""
    patch = pytest.MonkeyPatch()
    for module in (workers, writer, reading):
        patch.setattr(module, "BATCH", BATCH)
    yield
    patch.undo()


def tree_of(folder: Path, drawn: list[int], given: list[int] = []) -> FileTree:  # noqa: B006 (never changed)
    """Files of these sizes, and contents that are given."""
    builder, noise = TreeBuilder(), random.Random(len(drawn))
    for number, size in enumerate(drawn):
        path = folder / f"{number}.dat"
        path.write_bytes(noise.randbytes(size))
        builder.add_file(b"/files/%d" % number, os.fsencode(path))
    for number, size in enumerate(given):
        builder.add_content(b"/given/%d" % number, noise.randbytes(size), origin="a test")
    return builder.tree()


def files_of(tree: FileTree) -> list[HostFile | Content]:
    return [file for _, file in tree.files()]


def written(path: Path, tree: FileTree, count: int, told: Callable[[int], object] = id) -> tuple[Rofs, str]:
    """What is said of the disk, and a digest of its partition's data."""
    with path.open("w+b") as file:
        _, rofs = write_on_disk(lay_out(tree), file.fileno(), PARTITION, told, workers=count)
        return rofs, data_of(file.fileno())


def data_of(fd: int) -> str:
    """A digest of what is not zero in a file."""
    digest, at, end = sha256(), 0, os.fstat(fd).st_size
    while at < end:
        try:
            at = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:
            break
        piece = os.pread(fd, min(4096, end - at), at)
        if any(piece):
            digest.update(b"%d " % at + piece.ljust(4096, b"\0"))
        at += len(piece)
    return digest.hexdigest()


def drafted(path: Path, tree: FileTree, count: int, some: slice) -> tuple[Rofs, str]:
    """Likewise, with a draft of some of the files before."""
    outline, files = outline_of(tree), files_of(tree)
    draft = Draft.begin(outline, PARTITION)
    assert draft is not None
    chosen = range(len(files))[some]
    with path.open("w+b") as file:
        found = dict(zip(chosen, draft.copy(file.fileno(), chosen, workers=count), strict=True))
        digests = [found[at] if at in found else digests_of([one])[0] for at, one in enumerate(files)]
        layout = lay_out(tree, digests, outline=outline)
        _, rofs = write_on_disk(layout, file.fileno(), PARTITION, workers=count, draft=draft)
        return rofs, data_of(file.fileno())


def children() -> list[int]:
    """Worker processes of this one that run."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        for pid in (task / "children").read_text().split():
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            if b"osvdeploy.osv.worker" in command and alive(int(pid)):
                found.append(int(pid))
    return found


def gone(pids: list[int]) -> bool:
    deadline = time.monotonic() + 10
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.01)  # polled: no children of ours
    return not any(alive(pid) for pid in pids)


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(sizes, max_size=12), st.lists(sizes, max_size=2), st.integers(1, 3))
@example([10, 3 * BATCH, 0, 512, BATCH + 1, 20, MIB + 70_000, MIB - 1, 511, MIB], [700, 2 * BATCH, 0], 2)
def test_workers_say_and_write_what_one_process_does(
    tmp_path: Path, drawn: list[int], given: list[int], count: int
) -> None:
    """Digests and every byte of the disk, for files of all sizes and contents that are given."""
    tree = tree_of(tmp_path, drawn, given)
    files = files_of(tree)
    alone = digests_of(files, workers=0)
    assert digests_of(files, workers=count) == alone
    assert alone == [
        sha256(file.content if isinstance(file, Content) else Path(os.fsdecode(file.path)).read_bytes()).hexdigest()
        for file in files
    ]
    assert written(tmp_path / "disk", tree, count) == written(tmp_path / "disk", tree, 0)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(sizes, min_size=1, max_size=12), st.lists(sizes, max_size=2), st.integers(0, 2), st.integers(1, 3))
@example([10, 3 * BATCH, 0, 512, BATCH + 1, 20, MIB + 70_000, MIB - 1, 511, MIB], [700, 2 * BATCH, 0], 2, 1)
def test_a_draft_becomes_the_disk_that_is_written_without_one(
    tmp_path: Path, drawn: list[int], given: list[int], count: int, step: int
) -> None:
    """Of all files or some, with contents that are there twice, small and large."""
    tree = tree_of(tmp_path, drawn, given)
    builder = TreeBuilder()
    for place in (b"/one", b"/other"):
        builder.add_tree(place, os.fsencode(tmp_path))
    doubled = FileTree(
        {**builder.tree().entries, **{path: file for path, file in tree.entries.items() if path != b"/"}}
    )
    for each in (tree, doubled):
        expected = written(tmp_path.with_suffix(".disk"), each, 0)
        assert drafted(tmp_path.with_suffix(".disk"), each, count, slice(None, None, step)) == expected


def test_wiping_what_is_equal_can_be_interrupted(tmp_path: Path) -> None:
    """It may be gigabytes of small files."""
    builder = TreeBuilder()
    for number in range(20):
        builder.add_content(b"/%d" % number, b"the same" * 2000, origin="a test")
    tree = builder.tree()
    outline = outline_of(tree)
    draft = Draft.begin(outline, PARTITION)
    assert draft is not None

    def stop() -> None:
        raise Interrupted("interrupted")

    with (tmp_path / "disk").open("w+b") as file:
        layout = lay_out(tree, draft.copy(file.fileno(), range(20), workers=0), outline=outline)
        with pytest.raises(Interrupted):
            draft.clean(file.fileno(), layout.firsts, stop)
        # Goes on where it was left.
        draft.clean(file.fileno(), layout.firsts)
        assert not any(
            any(os.pread(file.fileno(), 16_000, PARTITION.start + start * 512)) for start in draft.starts[1:]
        )


def kill_one(_: object = None) -> None:
    for pid in children()[:1]:
        os.kill(pid, signal.SIGKILL)


def kill_all(_: object = None) -> None:
    for pid in children():
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("kill", [kill_one, kill_all])
def test_what_a_killed_worker_had_is_done_without_it(tmp_path: Path, kill: Callable[..., None]) -> None:
    """As the kernel kills one when memory is short: nothing is lost, and nobody waits for it."""
    tree = tree_of(tmp_path, [50_000] * 40)
    files = files_of(tree)
    assert digests_of(files, kill, workers=3) == digests_of(files, workers=0)
    assert written(tmp_path / "disk", tree, 3, kill) == written(tmp_path / "disk", tree, 0)


@pytest.mark.parametrize("python", ["", "/nowhere/python", "/bin/false"])
def test_where_no_worker_can_be_started_one_process_does_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, python: str
) -> None:
    """No interpreter to be found, none there, or one that ends at once."""
    tree = tree_of(tmp_path, [50_000] * 20, [300])
    expected = written(tmp_path / "disk", tree, 0)
    monkeypatch.setattr(sys, "executable", python)
    assert digests_of(files_of(tree), workers=2) == digests_of(files_of(tree), workers=0)
    assert written(tmp_path / "disk", tree, 2) == expected


@pytest.mark.parametrize("change", ["rewritten", "shorter", "longer", "gone", "pipe", "directory", "several"])
def test_a_file_that_changes_is_told_as_by_one_process(tmp_path: Path, change: str) -> None:
    """The same words, by whomever it was read, for its digest or for the disk; the first of several."""
    tree = tree_of(tmp_path, [50_000] * 20)
    files, tight = files_of(tree), lay_out(tree)
    path = tmp_path / "13.dat"
    content = path.read_bytes()
    match change:
        case "rewritten":
            path.write_bytes(content)
        case "shorter":
            path.write_bytes(content[:-1])
        case "longer":
            path.write_bytes(content + b"1")
        case "gone" | "pipe" | "directory":
            path.unlink()
        case "several":
            for number in (19, 2, 13, 4):
                (tmp_path / f"{number}.dat").unlink()
    if change == "pipe":
        os.mkfifo(path)
    elif change == "directory":
        path.mkdir()
    told = set()
    for count in (0, 2):
        with pytest.raises(SourceChanged) as refused:
            digests_of(files, workers=count)
        told.add((str(refused.value), refused.value.hint))
        with (tmp_path / "disk").open("w+b") as disk, pytest.raises(SourceChanged) as refused:
            write_on_disk(tight, disk.fileno(), PARTITION, workers=count)
        told.add((str(refused.value), refused.value.hint))
    assert len(told) == 1 and str(path) in str(refused.value)
    assert children() == []


@pytest.mark.parametrize("count", [0, 2])
def test_a_large_file_that_changes_is_noticed_in_any_part(tmp_path: Path, count: int) -> None:
    """Each of its parts is held to what the file was."""
    tree = tree_of(tmp_path, [3 * MIB])
    tight, path = lay_out(tree), tmp_path / "0.dat"
    with path.open("r+b") as file:
        file.seek(2 * MIB)
        file.write(b"other")
    with (tmp_path / "disk").open("w+b") as disk, pytest.raises(SourceChanged, match="changed while it was read"):
        write_on_disk(tight, disk.fileno(), PARTITION, workers=count)


def test_an_error_that_only_workers_meet_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What they cannot do is done here: these may open no file."""
    limited = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3)); main("
    monkeypatch.setattr(workers, "_PROGRAM", workers._PROGRAM.replace("main(", limited))
    tree = tree_of(tmp_path, [50_000] * 20)
    assert digests_of(files_of(tree), workers=2) == digests_of(files_of(tree), workers=0)
    assert written(tmp_path / "disk", tree, 2) == written(tmp_path / "disk", tree, 0)


@pytest.mark.parametrize("count", [0, 2])
def test_a_full_disk_is_told_as_by_one_process(tmp_path: Path, count: int) -> None:
    """The system's own error, and no worker left that writes on."""
    tree = tree_of(tmp_path, [50_000] * 20)
    with open("/dev/full", "r+b", buffering=0) as full, pytest.raises(OSError, match="No space left") as refused:  # noqa: PTH123 (a device)
        write_on_disk(lay_out(tree), full.fileno(), PARTITION, workers=count)
    assert refused.value.filename is None
    assert children() == []


def test_a_disk_that_fills_up_under_workers_is_told(tmp_path: Path) -> None:
    """A limit that all of it but the head exceeds: met by a worker, told here."""
    script = """
import resource, signal, sys
from pathlib import Path
from osvdeploy.osv.rofs import lay_out, write_on_disk
from tests.osv import test_workers as here
from osvdeploy.osv import workers
tree = here.tree_of(Path(sys.argv[1]), [50_000] * 20)
tight = lay_out(tree)
end = here.PARTITION.start + tight.superblock.tables_blocks * 512 + 512
resource.setrlimit(resource.RLIMIT_FSIZE, (end, end))
with (Path(sys.argv[1]) / "disk").open("w+b") as disk:
    try:
        write_on_disk(tight, disk.fileno(), here.PARTITION, workers=2)
    except OSError as error:
        print(error.strerror, len(here.children()))
"""
    ran = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, timeout=60)
    assert (ran.stdout, ran.stderr) == ("File too large 0\n", "")


@pytest.mark.parametrize("moment", [1, 5])
def test_an_interrupt_leaves_no_worker(tmp_path: Path, moment: int) -> None:
    """What is called meanwhile may raise; then workers have ended, and none writes any more."""
    tree = tree_of(tmp_path, [50_000] * 40)
    calls: list[list[int]] = []

    def stop(_: object = None) -> None:
        calls.append(children())
        if len(calls) % moment == 0:
            raise Interrupted("interrupted")

    with pytest.raises(Interrupted):
        digests_of(files_of(tree), stop, workers=2)
    assert children() == []
    with (tmp_path / "disk").open("w+b") as disk, pytest.raises(Interrupted):
        write_on_disk(lay_out(tree), disk.fileno(), PARTITION, stop, workers=2)
    assert children() == []
    assert any(calls) and gone([pid for pids in calls for pid in pids])


@pytest.mark.slow
@pytest.mark.parametrize("size", [100 * GIB, 50_000])
def test_workers_end_when_their_process_is_killed(tmp_path: Path, size: int) -> None:
    """In the middle of a file that takes minutes, or with nothing to do: they are gone in no time."""
    for number in range(4):
        with (tmp_path / f"{number}.dat").open("wb") as file:
            file.truncate(size)
    script = """
import os, sys, time
from osvdeploy.osv.filetree import TreeBuilder
from osvdeploy.osv.rofs import digests_of
from tests.osv.test_workers import children
builder = TreeBuilder()
builder.add_tree(b"/", os.fsencode(sys.argv[1]))
def going_on():
    if pids := children():
        print(*pids, flush=True)
        time.sleep(60)
digests_of([file for _, file in builder.tree().files()], going_on, workers=2)
"""
    with subprocess.Popen([sys.executable, "-c", script, tmp_path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pids = [int(pid) for pid in process.stdout.readline().split()]
        time.sleep(0.3)  # time to end by mistake
        assert pids and all(alive(pid) for pid in pids)
        process.kill()
    assert gone(pids)


def test_progress_is_told_and_ends_where_all_is_written(tmp_path: Path) -> None:
    """More each time, up to the tables and every content's whole blocks."""
    tree = tree_of(tmp_path, [50_000] * 40, [700])
    tight = lay_out(tree)
    for count in (0, 2):
        told: list[int] = []
        with (tmp_path / "disk").open("w+b") as disk:
            write_on_disk(tight, disk.fileno(), PARTITION, told.append, workers=count)
        assert told == sorted(told) and len(set(told)) > 10 and told[0] > 0
        assert told[-1] == tight.size


def test_small_trees_start_no_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor do large ones on one core; on many there are four."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    assert [workers.worth(weight) for weight in (0, 7 * BATCH, 8 * BATCH)] == [0, 0, 2]
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3})
    assert workers.worth(GIB) == 0
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)))
    assert workers.worth(GIB) == 4


def test_a_worker_imports_only_what_it_needs() -> None:
    """Some hundred milliseconds of imports would cost more than workers save."""
    program = workers._PROGRAM.replace("main(", "print(*sys.modules, file=sys.stderr); main(")
    command = [sys.executable, "-I", "-S", "-c", program, workers._ROOT, "hash"]
    modules = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True
    ).stderr.split()
    ours = {module for module in modules if module.startswith("osvdeploy.osv.")}
    assert ours == {worker.__name__, contents.__name__}
    assert not {"typing", "dataclasses", "enum", "re", "subprocess", "osvdeploy.errors"} & set(modules)
