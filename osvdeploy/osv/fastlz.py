"""Unpacks FastLZ, the compression of OSv's kernel inside loader.img (fastlz/lz.cc packs, lzloader unpacks).

A block is a row of instructions. The top three bits of an instruction's first byte are its kind, the rest is data:

    0        a run of literal bytes: 1 + data of them follow
    1 to 6   a match of 2 + kind bytes
    7        a match of 9 bytes and more: the byte that follows is added; in level 2 also the next one, as long as they
             are 255

A match repeats what was unpacked ``1 + data * 256 + the next byte`` bytes ago; in level 2 the farthest of these
distances stands for another: 8,192 and a 16-bit number (high byte first) that follows. A match may reach into what it
writes itself. The top bits of the very first byte are the level, less one; that instruction is always a literal run.
"""

from __future__ import annotations

_FARTHEST = 31 << 8 | 255


def decompress(block: bytes | memoryview, size: int) -> bytes:
    """The ``size`` bytes that ``block`` holds. Raises ValueError for anything that does not unpack to exactly that
    many; memory is bounded by ``size`` and time by both lengths, whatever the bytes are."""
    packed = bytes(block)
    if not packed:
        if size:
            raise ValueError("an empty block")
        return b""
    level = packed[0] >> 5
    if level > 1:
        raise ValueError(f"level {level + 1} of the compression is not known")
    try:
        unpacked = _level_2(packed, size) if level else _level_1(packed, size)
    except IndexError:
        raise ValueError("it ends within an instruction") from None
    if len(unpacked) != size:
        raise ValueError(f"it unpacks to {len(unpacked)} bytes, not {size}")
    return bytes(unpacked)


# Two loops, and few names in each: they run a million times for one kernel.


def _level_1(packed: bytes, size: int) -> bytearray:
    out = bytearray()
    end = len(packed)
    at = (packed[0] & 31) + 2
    out += packed[1:at]
    while at < end:
        code = packed[at]
        if code < 32:
            following = at + code + 2
            out += packed[at + 1 : following]
            at = following
            continue
        if code < 224:
            length = (code >> 5) + 2
            distance = ((code & 31) << 8) + packed[at + 1] + 1
            at += 2
        else:
            length = packed[at + 1] + 9
            distance = ((code & 31) << 8) + packed[at + 2] + 1
            at += 3
        done = len(out)
        start = done - distance
        # Here alone the size is looked at: literals are bounded by the block's own length.
        if start < 0 or done + length > size:
            raise _overrun(start)
        if distance >= length:
            out += out[start : start + length]
        else:
            out += _repeated(out, start, length)
    if at > end:
        raise IndexError
    return out


def _level_2(packed: bytes, size: int) -> bytearray:
    out = bytearray()
    end = len(packed)
    at = (packed[0] & 31) + 2
    out += packed[1:at]
    while at < end:
        code = packed[at]
        if code < 32:
            following = at + code + 2
            out += packed[at + 1 : following]
            at = following
            continue
        at += 1
        length = (code >> 5) + 2
        if code >= 224:
            while (more := packed[at]) == 255:
                length += 255
                at += 1
            length += more
            at += 1
        distance = ((code & 31) << 8) + packed[at]
        at += 1
        if distance == _FARTHEST:
            distance += (packed[at] << 8) + packed[at + 1]
            at += 2
        distance += 1
        done = len(out)
        start = done - distance
        if start < 0 or done + length > size:
            raise _overrun(start)
        if distance >= length:
            out += out[start : start + length]
        else:
            out += _repeated(out, start, length)
    if at > end:
        raise IndexError
    return out


def _repeated(out: bytearray, start: int, length: int) -> bytes:
    """What a match gives that reaches into what it writes: the tail from ``start`` on, over and over."""
    tail = bytes(out[start:])
    return (tail * (length // len(tail) + 1))[:length]


def _overrun(start: int) -> ValueError:
    return ValueError("a match begins before the first byte" if start < 0 else "it unpacks to more than it should")
