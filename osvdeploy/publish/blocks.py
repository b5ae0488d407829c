"""Which blocks of a raw disk must be sent, and the blocks themselves.

A block is sent when it holds a byte that something reads, zeros included: on an encrypted volume an absent block reads
back as the decryption of zeros, which is noise. No other block is sent, as nothing reads it. Each block is read once
and hashed once, so memory holds one block at a time, whatever the disk's size.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Container, Iterator, Sequence

from osvdeploy.cloud.interfaces import Block
from osvdeploy.errors import DiskInvalid, SourceChanged
from osvdeploy.osv.image import Extent, RawImage


def needed(read: Sequence[Extent], block_size: int) -> list[int]:
    """Indexes, in ascending order, of the blocks of ``block_size`` bytes that hold a byte of ``read``."""
    indexes: set[int] = set()
    for extent in read:
        if extent.end > extent.start:
            indexes.update(range(extent.start // block_size, -(-extent.end // block_size)))
    return sorted(indexes)


class Outgoing:
    """The blocks of a disk on their way out, in index order; those in ``stored`` are hashed but not handed out.

    Iterate once, then ask for :meth:`checksum`.
    """

    def __init__(self, raw: RawImage, block_size: int, stored: Container[int] = ()) -> None:
        """Raises :class:`~osvdeploy.errors.DiskInvalid` where the disk reads beyond its own size."""
        beyond = [extent for extent in raw.read if extent.start < 0 or extent.end > raw.size]
        if beyond or raw.size % block_size:
            raise DiskInvalid(
                f"{raw.path}: {beyond or 'its size'} does not fit {raw.size} bytes in blocks of {block_size}"
            )
        self.indexes = needed(raw.read, block_size)
        self._raw = raw
        self._block_size = block_size
        self._stored = stored
        self._digests: dict[int, bytes] = {}

    def __iter__(self) -> Iterator[Block]:
        with self._raw.path.open("rb", buffering=0) as file:
            for index in self.indexes:
                content = os.pread(file.fileno(), self._block_size, index * self._block_size)
                if len(content) != self._block_size:
                    raise SourceChanged(
                        f"{self._raw.path}: ends within block {index} of {self._block_size} bytes",
                        hint="the file was cut short; build it again",
                    )
                digest = hashlib.sha256(content).digest()
                self._digests[index] = digest
                if index not in self._stored:
                    yield Block(index, content, digest)

    def checksum(self) -> bytes:
        """sha256 over the raw sha256s of all blocks in index order: what EBS calls a LINEAR checksum."""
        if len(self._digests) != len(self.indexes):
            raise ValueError("the blocks have not all been read yet")
        return linear(self._digests[index] for index in self.indexes)


def linear(digests: Iterator[bytes]) -> bytes:
    """sha256 over these digests, in this order."""
    total = hashlib.sha256()
    for digest in digests:
        total.update(digest)
    return total.digest()


def first_block(raw: RawImage, block_size: int) -> bytes:
    """Block 0: what a release's own first block is made from."""
    with raw.path.open("rb", buffering=0) as file:
        content = os.pread(file.fileno(), block_size, 0)
    if len(content) != block_size:
        raise SourceChanged(f"{raw.path}: shorter than one block of {block_size} bytes", hint="build it again")
    return content
