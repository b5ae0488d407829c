"""Archives of one disk in a store that joins them of parts: the body, which they share, sent once.

What can go on at once does: the head goes up beside the body, and the trailer as soon as the last of the disk is
deflated, while the body's own last parts are on their way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Event

from osvdeploy.cloud.interfaces import JoiningStore, StoredObject
from osvdeploy.cloud.parallel import beside
from osvdeploy.context import Context
from osvdeploy.digests import Digest
from osvdeploy.errors import NotFound
from osvdeploy.events import Note
from osvdeploy.osv.image import Extent
from osvdeploy.publish.archive import Archive, Disk, Sum, trailer

MOST_TIMES = 5
"""Times that one run sees the body, or a part, taken away by another before the archive is joined."""


@dataclass(frozen=True, slots=True)
class ArchiveKeys:
    """Where an archive is to stand, and what is its alone of what it is joined of."""

    head: str
    trailer: str
    archive: str


class Joiner:
    """Joins archives of one disk; the source of their body (:class:`~osvdeploy.cloud.interfaces.ObjectSource`).

    ``key`` is the body's, ``digest`` what it is known by. Raises what :class:`~osvdeploy.publish.archive.Archive` does.
    """

    size: int | None = None

    def __init__(self, store: JoiningStore, disk: Disk, read: Sequence[Extent], key: str, digest: Digest) -> None:
        self.digest = digest
        self._store = store
        self._made = Archive(disk, read)
        self._key = key
        self._there = False
        self._sum: Future[Sum | None] = Future()
        """None where it is not coming any more."""

    def pieces(self) -> Iterator[bytes]:
        body = self._made.body()
        yield from body
        self._tell(body.sum)

    def join(self, ctx: Context, keys: ArchiveKeys, digest: Digest, block: bytes | None = None) -> StoredObject:
        """Put an archive, if it is not there. ``block`` stands for the disk's first 512 KiB where it is given.

        Raises what the store's ``put_file`` and ``join`` raise.
        """
        for number in range(1, MOST_TIMES + 1):
            try:
                self._put_parts(ctx, keys, block)
                return self._store.join(ctx, keys.archive, [keys.head, self._key, keys.trailer], digest)
            except NotFound:
                # Another process has cleared up behind its own image.
                self._there = False
                if number == MOST_TIMES:
                    raise
        raise AssertionError("the last time has raised")

    def keep(self, ctx: Context) -> tuple[bytes, Sum]:
        """Put the body, if it is not there; the head of the disk as it is, and what the body sums up to."""
        head, _ = self._made.head()
        self._put_body(ctx)
        total = self._sum.result()
        assert total is not None, "it was put"
        return head, total

    def _put_parts(self, ctx: Context, keys: ArchiveKeys, block: bytes | None) -> None:
        head, total = self._made.head(block)

        def put(ctx: Context, key: str, stop: Event) -> None:
            if key == keys.head:
                self._store.put_if_absent(ctx, key, head)
            elif (body := self._sum.result()) is not None:
                self._store.put_if_absent(ctx, key, trailer(total + body))

        with beside(ctx, (keys.head, keys.trailer), put, name="ends"):
            self._put_body(ctx)

    def _put_body(self, ctx: Context) -> None:
        if self._there:
            return
        if self._sum.done() and self._sum.result() is None:
            self._sum = Future()
        try:
            stored = self._store.put_file(ctx, self._key, self)
            if not self._sum.done():
                # It was there before: what it sums up to is known by reading the disk again.
                self._tell(self._made.body().summed())
        except BaseException:
            self._tell(None)
            raise
        self._there = True
        ctx.report(Note(f"the disk is in {self._store.address}: {stored.size} bytes"))

    def _tell(self, total: Sum | None) -> None:
        if not self._sum.done():
            self._sum.set_result(total)
