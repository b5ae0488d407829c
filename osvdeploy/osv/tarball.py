"""Reads the archives that disks are given to Google's Compute Engine in: gzip over a tar that holds ``disk.raw``.

Sources: GNU tar's manual, "Basic Tar Format", "Storing Sparse Files" and "Extensions to the Archive Format" (old GNU
sparse files, and the three ways of pax), POSIX's pax, RFC 1952 (gzip).

A deflated stream has no places to go to, so a disk is read once, from its beginning to its end, in pieces; the archive
is read to its own end, where gzip has the checksum of all. Python's tarfile would hold a pax header of any length in
memory, and a megabyte of gzip unpacks to one of a gigabyte.
"""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Iterator
from typing import TYPE_CHECKING, NoReturn

from osvdeploy.errors import DiskInvalid
from osvdeploy.osv.disk import RandomAccess
from osvdeploy.osv.names import escaped
from osvdeploy.sizes import KIB, MIB, TIB

if TYPE_CHECKING:
    from types import ModuleType

MAGIC = b"\x1f\x8b"
MEMBER = b"disk.raw"

PIECE = MIB
"""Bytes of the disk that are handed out at once, at most."""

SIZE_LIMIT = 64 * TIB
"""The largest disk of Compute Engine (its documentation, "Persistent Disk performance limits")."""

RANGES_LIMIT = 1 << 19
"""Entries of a sparse map that are read: 8 MiB of memory. A disk of OSv has a few hundred."""

MEMBERS_LIMIT = 1000
"""Files of an archive that should hold one: a megabyte of gzip may unpack to two million headers."""

_RECORD = 512
_FED = 256 * KIB
_PAX_LIMIT = 16 * MIB
"""Bytes of one pax header: room for as many entries of a sparse map."""
_NAMES_LIMIT = 64 * KIB
_DAMAGED = "the archive was cut short, or is damaged: make or download it again"


class Unpacked:
    """What a gzip file holds, in order. ``read`` raises DiskInvalid where it is damaged; memory is a piece."""

    def __init__(self, file: RandomAccess) -> None:
        self._file = file
        self._at = 0
        self._rest = b""
        self._zlib = _deflater()
        self._stream = self._zlib.decompressobj(wbits=31)
        self._ended = False

    def some(self, most: int) -> bytes:
        """Up to ``most`` bytes, none at the end."""
        while not self._ended:
            if self._stream.eof and not self._next_member():
                break
            if not self._rest:
                self._rest = self._file.pread(self._at, _FED)
                self._at += len(self._rest)
                if not self._rest:
                    raise DiskInvalid(f"gzip: ends within its data, after {self._at} bytes", hint=_DAMAGED)
            try:
                found: bytes = self._stream.decompress(self._rest, most)
            except self._zlib.error as error:
                raise DiskInvalid(f"gzip: cannot be unpacked: {error}", hint=_DAMAGED) from None
            self._rest = self._stream.unused_data if self._stream.eof else self._stream.unconsumed_tail
            if found:
                return found
        self._ended = True
        return b""

    def read(self, length: int, what: str) -> bytes:
        """Exactly so many bytes."""
        pieces, left = [], length
        while left:
            piece = self.some(left)
            if not piece:
                raise DiskInvalid(f"tar: ends within {what}", hint=_DAMAGED)
            pieces.append(piece)
            left -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def skip(self, length: int, what: str) -> None:
        while length:
            piece = self.some(min(length, PIECE))
            if not piece:
                raise DiskInvalid(f"tar: ends within {what}", hint=_DAMAGED)
            length -= len(piece)

    def drain(self) -> None:
        """To the end, where the checksum is."""
        while self.some(PIECE):
            pass

    def _next_member(self) -> bool:
        """Whether another gzip member follows; what else follows, such as zeros that fill up, is no part of it."""
        if len(self._rest) < 2:
            more = self._file.pread(self._at, _FED)
            self._at += len(more)
            self._rest += more
        if not self._rest.startswith(MAGIC):
            return False
        self._stream = self._zlib.decompressobj(wbits=31)
        return True


class Tarball:
    """A disk in an archive, which can be read once. ``size`` in bytes; ``stored`` are those of it that the archive has.
    ``detail`` says for people how they are kept."""

    def __init__(self, stream: Unpacked, size: int, ranges: array[int], detail: str) -> None:
        self._stream = stream
        self._ranges = ranges
        self.size = size
        self.stored = sum(ranges[1::2])
        self.detail = detail

    def pieces(self) -> Iterator[tuple[int, bytes]]:
        """(place, content) of all that is stored, ascending, at most 1 MiB each; once.

        Raises DiskInvalid where the archive is damaged, or holds a second disk.
        """
        for index in range(0, len(self._ranges), 2):
            at, left = self._ranges[index], self._ranges[index + 1]
            while left:
                content = self._stream.read(min(left, PIECE), "disk.raw")
                yield at, content
                at, left = at + len(content), left - len(content)
        self._stream.skip(-self.stored % _RECORD, "disk.raw")
        for name, _, size, _ in _members(self._stream, first=False):
            if _is_disk(name):
                raise DiskInvalid("tar: holds disk.raw twice")
            self._stream.skip(size + -size % _RECORD, escaped(name))
        self._stream.drain()


def read_tarball(file: RandomAccess) -> Tarball:
    """Find the disk in an archive. Raises DiskInvalid that says what is there instead."""
    stream = Unpacked(file)
    first = None
    for name, kind, size, pax in _members(stream):
        if not _is_disk(name):
            first = first or name
            stream.skip(size + -size % _RECORD, escaped(name))
            continue
        if kind == b"S":
            disk, ranges = _old_map(stream, pax[_HEADER])
            how = "sparse, old GNU format"
        elif any(key.startswith("GNU.sparse.") for key in pax):
            disk, ranges, taken = _pax_map(stream, pax, size)
            size -= taken
            how = "sparse, pax format"
        else:
            disk, ranges, how = size, array("Q", [0, size]), "not sparse"
        return Tarball(stream, disk, _checked(ranges, disk, size), how)
    found = "no file" if first is None else f"{escaped(first)!r}"
    raise DiskInvalid(
        f"tar: holds {found} and no disk.raw", hint="Google takes archives with one file, which is named disk.raw"
    )


_HEADER = "header"
"""Under this name the block itself, among what pax says of a member: no pax keyword is without a dot or known to us."""

_Said = dict[str, bytes]


def _members(stream: Unpacked, *, first: bool = True) -> Iterator[tuple[bytes, bytes, int, _Said]]:
    """Name, kind, bytes that follow, and what was said of it before, of each file. Who asks for the next one has read
    those bytes. ``first``: the archive begins here."""
    said: _Said = {}
    long_name: bytes | None = None
    for _ in range(MEMBERS_LIMIT):
        block = stream.some(_RECORD)
        if not block and not first:
            return  # not all who write a tar end it with zeros
        if len(block) < _RECORD:
            block += stream.read(_RECORD - len(block), "a header")
        if not any(block) and not first:
            return
        _check_sum(block, first)
        first = False
        kind, size = block[156:157], _number(block[124:136], "a size")
        if kind in (b"x", b"g"):
            content = _held(stream, size, _PAX_LIMIT, "a pax header")
            if kind == b"x":
                said = _pax(content)
            continue
        if kind in (b"L", b"K"):
            content = _held(stream, size, _NAMES_LIMIT, "a long name")
            long_name = content.rstrip(b"\0") if kind == b"L" else long_name
            continue
        prefix = block[345:500].split(b"\0")[0] if block[257:263] == b"ustar\0" else b""
        plain = block[:100].split(b"\0")[0]
        name = said.get("GNU.sparse.name") or said.get("path") or long_name
        if "size" in said:
            size = _decimal(said["size"], "a size")
        if kind in (b"0", b"\0", b"7", b"S"):
            yield name or (prefix + b"/" + plain if prefix else plain), kind, size, {**said, _HEADER: block}
        elif size and kind not in (b"1", b"2", b"3", b"4", b"5", b"6"):
            stream.skip(size + -size % _RECORD, "a member of unknown kind")
        said, long_name = {}, None
    raise DiskInvalid(f"tar: more than {MEMBERS_LIMIT} files", hint="Google takes archives with disk.raw alone")


def _is_disk(name: bytes) -> bool:
    return name.removeprefix(b"./") == MEMBER


def _check_sum(block: bytes, first: bool) -> None:
    blank = block[:148] + b" " * 8 + block[156:]
    digits = block[148:156].strip(b" \0")
    if not digits or digits.strip(b"01234567") or int(digits, 8) != sum(blank):
        if first:
            raise DiskInvalid(
                "gzip: what is in it is no tar archive",
                hint="a disk that is compressed alone is unpacked first: gunzip -k IMAGE",
            )
        raise DiskInvalid("tar: a header with a wrong checksum", hint=_DAMAGED)


def _held(stream: Unpacked, size: int, most: int, what: str) -> bytes:
    if size > most:
        raise DiskInvalid(f"tar: {what} of {size} bytes; {most} are read")
    content = stream.read(size, what)
    stream.skip(-size % _RECORD, what)
    return content


def _pax(content: bytes) -> _Said:
    """``LENGTH KEY=VALUE\\n``, again and again. Of sparse maps in version 0.0 keys are repeated: their values are
    joined as version 0.1 writes them."""
    said: _Said = {}
    pairs: list[bytes] = []
    at = 0
    while at < len(content):
        space = content.find(b" ", at, at + 20)
        length = _decimal(content[at:space], "the length of a pax record") if space > 0 else 0
        record = content[space + 1 : at + length]
        key, equals, value = record.partition(b"=")
        if length <= space - at or at + length > len(content) or not equals or not value.endswith(b"\n"):
            _damaged("a pax header that is none")
        value = value[:-1]
        if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            pairs.append(value)
            _limited(len(pairs) // 2)
        elif len(key) <= 64:
            said[key.decode("latin-1")] = value
        at += length
    if pairs:
        said["GNU.sparse.map"] = b",".join(pairs)
    return said


def _old_map(stream: Unpacked, block: bytes) -> tuple[int, array[int]]:
    ranges = array("Q")
    _take(ranges, block[386:482])
    size, more = _number(block[483:495], "a size"), block[482]
    while more:
        extension = stream.read(_RECORD, "a sparse map")
        _take(ranges, extension[:504])
        more = extension[504]
    return size, ranges


def _take(ranges: array[int], entries: bytes) -> None:
    for at in range(0, len(entries), 24):
        start, length = entries[at : at + 12], entries[at + 12 : at + 24]
        if not start.strip(b" \0") and not length.strip(b" \0"):
            return
        ranges.append(_number(start, "a sparse map"))
        ranges.append(_number(length, "a sparse map"))
        _limited(len(ranges) // 2)


def _pax_map(stream: Unpacked, pax: _Said, size: int) -> tuple[int, array[int], int]:
    """The disk's size, its map, and how many bytes of the member the map took."""
    told = pax.get("GNU.sparse.realsize") or pax.get("GNU.sparse.size")
    if told is None:
        _damaged("a sparse file that does not say how long it is")
    disk = _decimal(told, "a size")
    if pax.get("GNU.sparse.major") != b"1":
        content = pax.get("GNU.sparse.map", b"")
        if content.count(b",") >= 2 * RANGES_LIMIT:
            _limited(RANGES_LIMIT + 1)
        numbers = [_decimal(each, "a sparse map") for each in content.split(b",")] if content else []
        if len(numbers) % 2:
            _damaged("a sparse map with half an entry")
        return disk, array("Q", numbers), 0
    # Version 1.0: decimal lines before the data, filled up to whole records; the first says how many pairs follow.
    lines = _Lines(stream, size)
    count = lines.number()
    _limited(count)
    ranges = array("Q")
    for _ in range(2 * count):
        ranges.append(lines.number())
    return disk, ranges, lines.taken


class _Lines:
    def __init__(self, stream: Unpacked, most: int) -> None:
        self._stream = stream
        self._most = most
        self._rest = b""
        self.taken = 0

    def number(self) -> int:
        while b"\n" not in self._rest:
            if len(self._rest) > 32 or self.taken + _RECORD > self._most:
                _damaged("a sparse map without an end")
            self._rest += self._stream.read(_RECORD, "a sparse map")
            self.taken += _RECORD
        line, _, self._rest = self._rest.partition(b"\n")
        return _decimal(line, "a sparse map")


def _checked(ranges: array[int], disk: int, stored: int) -> array[int]:
    """Raise DiskInvalid where ranges do not ascend, lie outside of the disk, or are not as long as what is stored."""
    if not 0 < disk <= SIZE_LIMIT:
        raise DiskInvalid(f"tar: disk.raw has {disk} bytes; disks have 1 byte to 64 TiB")
    end = 0
    for index in range(0, len(ranges), 2):
        if ranges[index] < end or ranges[index] + ranges[index + 1] > disk:
            _damaged(f"a sparse map that says bytes {ranges[index]} to {ranges[index] + ranges[index + 1]} of {disk}")
        end = ranges[index] + ranges[index + 1]
    if sum(ranges[1::2]) != stored:
        _damaged(f"a sparse map of {sum(ranges[1::2])} bytes, where {stored} are stored")
    return ranges


def _limited(count: int) -> None:
    if count > RANGES_LIMIT:
        raise DiskInvalid(f"tar: disk.raw is in more than {RANGES_LIMIT} pieces")


def _number(field: bytes, what: str) -> int:
    """Octal digits, or base 256 where the first bit is set."""
    if field[0] & 0x80:
        value = int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
    else:
        digits = field.strip(b" \0")
        if digits.strip(b"01234567"):
            _damaged(f"{what} that is no number")
        value = int(digits or b"0", 8)
    if value > 1 << 62:
        _damaged(f"{what} of {value}")
    return value


def _decimal(digits: bytes, what: str) -> int:
    if not digits.isdigit() or len(digits) > 18:
        _damaged(f"{what} that is no number")
    return int(digits)


def _damaged(what: str) -> NoReturn:
    raise DiskInvalid(f"tar: {what}", hint=_DAMAGED)


def _deflater() -> ModuleType:
    """isal inflates three times as fast as zlib, where it is installed; to the same bytes."""
    try:
        from isal import isal_zlib
    except ImportError:
        return zlib
    found: ModuleType = isal_zlib
    return found
