"""What an image is made of: a gzip tar in GNU's format with one file, ``disk.raw``.

Sources: "Manually import boot disks" (whole GB, the name, ``--format=oldgnu``). The words are those of refusals that
users report.
"""

from __future__ import annotations

import io
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from osvdeploy.sizes import GIB, KIB, TIB

BLOCK: Final = 512 * KIB
LARGEST: Final = 64 * TIB
MEMBER: Final = "disk.raw"

_GNU = b"ustar  \0"


class Unfit(Exception):
    """No image can be made of it: in Google's words."""


@dataclass(frozen=True, slots=True)
class Disk:
    """The disk in an archive: ``size`` in bytes, and those of its blocks that are not all zeros."""

    size: int
    blocks: Iterator[tuple[int, bytes]]


def opened(pieces: Iterable[bytes]) -> Disk:
    """The disk in the archive that these bytes are. Raises :class:`Unfit`, also while its blocks are read."""
    content = _inflated(pieces)
    if content[257:265] != _GNU:
        if content[257:262] == b"ustar":
            raise Unfit("The tar archive format is not supported. Supported formats are: GNU and OLDGNU.")
        raise Unfit("The tar archive is not a valid image.")
    try:
        archive = tarfile.TarFile(fileobj=io.BytesIO(content))
        members = archive.getmembers()
    except (tarfile.TarError, ValueError, EOFError):
        raise Unfit("The tar archive is not a valid image.") from None
    if len(members) != 1 or not members[0].isreg():
        raise Unfit("The tar archive is not a valid image.")
    [member] = members
    if member.name != MEMBER:
        raise Unfit(f"The file inside the tar archive was named ''{member.name}''. It should be named ''{MEMBER}''.")
    if not member.size or member.size % GIB:
        raise Unfit(f"The size of the disk in the tar archive, {member.size} bytes, is not a multiple of 1 GB.")
    if member.size > LARGEST:
        raise Unfit("The disk in the tar archive is larger than a disk may be.")
    return Disk(member.size, _blocks(archive, member))


def _inflated(pieces: Iterable[bytes]) -> bytes:
    """All of one gzip member, whose sum and length agree."""
    inflating, found = zlib.decompressobj(31), []
    try:
        for piece in pieces:
            if inflating.eof:
                raise Unfit("The tar archive is not a valid image.")
            found.append(inflating.decompress(piece))
    except zlib.error:
        raise Unfit("The tar archive is not a valid image.") from None
    if not inflating.eof or inflating.unused_data:
        raise Unfit("The tar archive is not a valid image.")
    return b"".join(found)


def _blocks(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Iterator[tuple[int, bytes]]:
    # What a sparse member's map says; a plain one is all there.
    sparse: Any = member.sparse
    ranges = [(0, member.size)] if sparse is None else sparse
    indexes: set[int] = set()
    for start, length in ranges:
        indexes.update(range(start // BLOCK, -(-(start + length) // BLOCK)))
    disk = archive.extractfile(member)
    assert disk is not None
    for index in sorted(indexes):
        disk.seek(index * BLOCK)
        try:
            content = disk.read(BLOCK)
        except tarfile.ReadError:
            raise Unfit("The tar archive is not a valid image.") from None
        if content.count(0) != len(content):
            yield index, content
