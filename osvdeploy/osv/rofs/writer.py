"""Writes a tree as a ROFS (osvdeploy.osv.rofs.layout): as a stream, or into a disk.

Every byte is known from the contents' digests and sizes before one of them is read, and so is the image's digest. Where
they are not known, a draft writes the files while it takes their digests, so that none is read twice.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from osvdeploy.digests import Digest, sha256
from osvdeploy.osv.collector import paused
from osvdeploy.osv.contents import copy_sources, hash_sources, pwrite_all, write_sources
from osvdeploy.osv.filetree import Content, HostFile
from osvdeploy.osv.image import Extent
from osvdeploy.osv.rofs.format import BLOCK_SIZE, blocks, rofs_digest
from osvdeploy.osv.rofs.layout import NO_CONTENT, Outline, RofsLayout
from osvdeploy.osv.rofs.reading import largest_first, told, worth_for
from osvdeploy.osv.workers import BATCH, FILE_WEIGHT, Crew, in_batches, worth
from osvdeploy.sizes import KIB

_PIECE = 1 << 20
_EMPTY = sha256(b"")

_SUSPECT = 64 * KIB
"""Bytes from which on a file of the same size as another is not written before its digest is known."""

WriteAt = Callable[[int, memoryview], object]
"""Takes bytes of the image by their offset, all of them, before it returns."""

Sink = Callable[[memoryview], object]
"""Takes the next bytes of the image, all of them, before it returns."""


@dataclass(frozen=True, slots=True)
class Rofs:
    """A ROFS that was written: ``size`` in bytes to the end of the last thing stored, ``sha256`` as
    :func:`rofs_digest` defines it, ``contents`` the number of different ones."""

    size: int
    sha256: Digest
    contents: int


def write_at(layout: RofsLayout, write: WriteAt) -> Rofs:
    """Write all that is stored, in ascending order and in pieces of at most 1 MiB; between them nothing is written.

    Raises SourceChanged when a file is no longer what it was when the tree was made, and what ``write`` raises.
    """
    head, order = _write_head(layout, write), layout.ascending()
    for batch in _batches(layout, order):
        _write_batch(layout, batch, write)
    return _written(layout, head, order)


@paused()
def write_on_disk(
    layout: RofsLayout,
    fd: int,
    partition: Extent,
    written: Callable[[int], object] = lambda count: None,
    *,
    workers: int | None = None,
    draft: Draft | None = None,
) -> tuple[RofsLayout, Rofs]:
    """Write the tree into ``partition`` of the disk in the file ``fd``, each content at a place of its own choice, in
    no certain order; and say where all stands there (see :meth:`RofsLayout.on_disk`).

    ``written`` is told how many bytes of the outline's size are done, since they are written or equal to others, each
    time that it is some MiB more and at least ten times a second, and may raise. ``workers`` says how many processes
    help; None is as many as are worth it. ``draft``: what was written to ``fd`` already, for this very partition and
    outline.

    Raises SourceChanged, OSError and what ``written`` raises; nobody writes then any more.
    """
    files, sizes = layout.outline.files, layout.outline.sizes
    there = bytes(len(sizes)) if draft is None else draft.there
    left = [number for number in layout.distinct() if not there[number]]
    if workers is None:
        workers = worth(sum([sizes[number] for number in left]) + len(left) * FILE_WEIGHT)
    with Crew(workers, ["write", str(fd), str(partition.start)], [fd]) as crew:
        # They start while places are chosen.
        crew.start()
        placed = layout.on_disk(partition, None if draft is None else draft.starts)
        # In the tree's order and not in that of places: it takes less to open files of one directory one after another.
        own = [number for number in left if type(files[number]) is Content]
        writing = _Writing(placed, fd, partition.start, written, own)
        writing.count = sum(map(blocks, sizes)) * BLOCK_SIZE
        writing.count -= sum([blocks(sizes[number]) for number in left]) * BLOCK_SIZE
        if draft is not None:
            draft.clean(fd, layout.firsts, writing.going_on)
        crew.do(writing, _batches(placed, (number for number in left if type(files[number]) is HostFile)))
    return writing.layout, writing.rofs


class Draft:
    """Files that are written where they will stand, while their digests are taken: each is read once. The places do not
    depend on what is in the files, but a file may turn out to be equal to another.

    ``starts`` has the block of each file by its number in ``outline``, ``there`` is 1 for each that was written.
    """

    def __init__(self, outline: Outline, partition: Extent, starts: Sequence[int]) -> None:
        self.outline, self.partition, self.starts = outline, partition, starts
        self.there = bytearray(len(outline.sizes))
        self._suspects = {
            size for size, count in Counter(size for size in outline.sizes if size >= _SUSPECT).items() if count > 1
        }

    @classmethod
    def begin(cls, outline: Outline, partition: Extent) -> Draft | None:
        """None where the partition has no room for a place of each file."""
        starts = outline.places(partition)
        return None if starts is None else cls(outline, partition, starts)

    @paused()
    def copy(
        self,
        fd: int,
        chosen: Sequence[int],
        written: Callable[[int], object] = lambda count: None,
        *,
        workers: int | None = None,
    ) -> list[Digest]:
        """Write these of ``tree.files()`` to the disk in the file ``fd``, and say the sha256 of each, in their order.
        Those that may well be equal to another, by their size, are read only.

        ``written`` and ``workers`` as for :func:`write_on_disk`. Raises SourceChanged, OSError and what ``written``
        raises; nobody writes then any more.
        """
        numbers = [self.outline.numbers[index] for index in chosen]
        copying = _Copying(self, fd, written, [number for number in numbers if number != NO_CONTENT])
        files = [self.outline.files[number] for number in copying.wanted]
        if workers is None:
            workers = worth_for(files)
        with Crew(workers, ["copy", str(fd), str(self.partition.start)], [fd]) as crew:
            crew.start()
            crew.do(copying, copying.batches(HostFile))
        return [_EMPTY if number == NO_CONTENT else copying.found[number] for number in numbers]

    def suspected(self, number: int) -> bool:
        """Whether a file may well be equal to another, and is so large that it should not be written to be wiped."""
        return self.outline.sizes[number] in self._suspects

    def clean(self, fd: int, firsts: Sequence[int], going_on: Callable[[], object] = lambda: None) -> None:
        """Wipe what turned out to be equal to another file. Raises OSError and what ``going_on`` raises, which is
        called each time."""
        for number, there in enumerate(self.there):
            if there and firsts[number] != number:
                wiped = bytes(blocks(self.outline.sizes[number]) * BLOCK_SIZE)
                pwrite_all(fd, wiped, self.partition.start + self.starts[number] * BLOCK_SIZE)
                going_on()


class _Copying:
    """What is copied by this process, and what workers are told and say."""

    def __init__(self, draft: Draft, fd: int, written: Callable[[int], object], wanted: list[int]) -> None:
        self.wanted = wanted
        self.found: dict[int, Digest] = {}
        self._draft, self._fd, self._written = draft, fd, written
        self._count = 0

    def batches(self, kind: type[HostFile | Content]) -> Iterator[_Batch]:
        outline, draft = self._draft.outline, self._draft
        ours = [number for number in self.wanted if type(outline.files[number]) is kind]
        # First those that are not written: of these one may take long.
        for suspected in (True, False):
            some = (number for number in ours if draft.suspected(number) is suspected)
            for batch in in_batches(largest_first(outline.sizes, some), outline.sizes):
                size = 0 if suspected else sum([blocks(outline.sizes[number]) for number in batch]) * BLOCK_SIZE
                yield _Batch(batch, size)

    def meanwhile(self) -> Iterator[None]:
        """Copy what is in this process already."""
        for batch in self.batches(Content):
            self.done(batch, self.alone(batch))
            yield

    def told(self, batch: _Batch) -> tuple[object, ...]:
        return (*told(self._draft.outline.files, batch.indices), array("Q", self._blocks(batch)).tobytes())

    def alone(self, batch: _Batch) -> list[str]:
        sources = [self._draft.outline.files[number].source for number in batch.indices]
        if not batch.size:
            return hash_sources(sources, self.going_on)
        return copy_sources(sources, self._blocks(batch), self._write)

    def done(self, batch: _Batch, answers: list[str]) -> None:
        for number, answer in zip(batch.indices, answers, strict=True):
            self.found[number] = Digest(answer)
            self._draft.there[number] = batch.size > 0
        self._count += batch.size
        self.going_on()

    def going_on(self) -> None:
        self._written(self._count)

    def _blocks(self, batch: _Batch) -> list[int]:
        return [self._draft.starts[number] for number in batch.indices] if batch.size else []

    def _write(self, offset: int, view: memoryview) -> None:
        pwrite_all(self._fd, view, self._draft.partition.start + offset)
        self.going_on()


class _Writing:
    """What is written by this process, and what workers are told and say. ``own`` is in this process already."""

    def __init__(
        self, layout: RofsLayout, fd: int, start: int, written: Callable[[int], object], own: Sequence[int]
    ) -> None:
        self.layout, self._fd, self._start, self._written, self._own = layout, fd, start, written, own
        self._order = layout.ascending()
        self.count = 0
        self.rofs = Rofs(0, Digest(""), 0)

    def meanwhile(self) -> Iterator[None]:
        """Write what is in this process already. All else is read by whoever writes it."""
        head = _write_head(self.layout, self._write)
        self.count += len(head)
        self.going_on()
        yield
        self.rofs = _written(self.layout, head, self._order)
        for batch in _batches(self.layout, self._own):
            self.done(batch, self.alone(batch))
            yield

    def told(self, batch: _Batch) -> tuple[object, ...]:
        places = array("Q", _blocks(self.layout, batch)).tobytes()
        return (*told(self.layout.outline.files, batch.indices), places, *batch.part)

    def alone(self, batch: _Batch) -> bool:
        _write_batch(self.layout, batch, self._write)
        return True

    def done(self, batch: _Batch, answer: bool) -> None:
        self.count += batch.size
        self.going_on()

    def going_on(self) -> None:
        if self.count:
            self._written(self.count)

    def _write(self, offset: int, view: memoryview) -> None:
        pwrite_all(self._fd, view, self._start + offset)
        self.going_on()


def write_rofs(layout: RofsLayout, sink: Sink) -> Rofs:
    """As :func:`write_at`, as one stream from the image's first byte to its last, with zeros for what is not stored."""
    end = 0

    def write(offset: int, view: memoryview) -> None:
        nonlocal end
        for at in range(end, offset, _PIECE):
            sink(memoryview(bytes(min(_PIECE, offset - at))))
        sink(view)
        end = offset + len(view)

    return write_at(layout, write)


def _write_head(layout: RofsLayout, write: WriteAt) -> bytes:
    """Superblock and tables."""
    head = layout.superblock.pack() + layout.tables
    for at in range(0, len(head), _PIECE):
        write(at, memoryview(head)[at : at + _PIECE])
    return head


class _Batch(NamedTuple):
    """Contents by their indices, the part of each that is wanted unless all is, and how many bytes of whole blocks
    that takes."""

    indices: list[int]
    size: int
    part: tuple[int, int] | tuple[()] = ()


def _batches(layout: RofsLayout, indices: Iterable[int]) -> Iterator[_Batch]:
    """Ascending by place within each. A large content is cut into several, which more than one can write."""
    sizes, starts = layout.outline.sizes, layout.starts
    for batch in in_batches(indices, sizes):
        # A large one is the last of its batch.
        cut = batch.pop() if sizes[batch[-1]] > BATCH else None
        if batch:
            batch.sort(key=starts.__getitem__)
            yield _Batch(batch, sum([-(-sizes[index] // BLOCK_SIZE) for index in batch]) * BLOCK_SIZE)
        if cut is not None:
            for start in range(0, sizes[cut], BATCH):
                end = min(start + BATCH, sizes[cut])
                yield _Batch([cut], blocks(end - start) * BLOCK_SIZE, (start, end))


def _blocks(layout: RofsLayout, batch: _Batch) -> list[int]:
    """Where each goes."""
    begin = batch.part[0] // BLOCK_SIZE if batch.part else 0
    return [layout.starts[index] + begin for index in batch.indices]


def _write_batch(layout: RofsLayout, batch: _Batch, write: WriteAt) -> None:
    sources = [layout.outline.files[index].source for index in batch.indices]
    write_sources(sources, _blocks(layout, batch), write, *batch.part)


def _written(layout: RofsLayout, head: bytes, order: Sequence[int]) -> Rofs:
    return Rofs(layout.size, rofs_digest(head, [layout.digests[number] for number in order]), len(order))
