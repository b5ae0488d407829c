from __future__ import annotations

import struct
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from osvdeploy.osv.fastlz import decompress


@st.composite
def blocks(draw: st.DrawFn, level: int) -> tuple[bytes, bytes]:
    """A block of the level and what it holds, made of instructions of every kind."""
    first = draw(st.binary(min_size=1, max_size=32))
    block, content = bytearray([level - 1 << 5 | len(first) - 1]) + first, bytearray(first)
    for _ in range(draw(st.integers(0, 12))):
        if draw(st.booleans()):
            run = draw(st.binary(min_size=1, max_size=32))
            block += bytes([len(run) - 1]) + run
            content += run
            continue
        far = level == 2 and len(content) > 8192 and draw(st.booleans())
        distance = draw(st.integers(8192 if far else 1, len(content) if far else min(len(content), 8191)))
        length = draw(st.integers(3, 264) | st.integers(3, 8) | st.integers(3, 9000 if level == 2 else 264))
        block += match(level, length, distance)
        for _ in range(length):
            content.append(content[-distance])
    return bytes(block), bytes(content)


def match(level: int, length: int, distance: int) -> bytes:
    """The instruction that repeats ``length`` bytes from ``distance`` bytes ago."""
    back = min(distance - 1, 8191)
    code, low = back >> 8, bytes([back & 255])
    if level == 2 and back == 8191:
        low += struct.pack(">H", distance - 1 - 8191)
    if length <= 8:
        return bytes([length - 2 << 5 | code]) + low
    more = length - 9
    lengths = bytes([more]) if level == 1 else b"\xff" * (more // 255) + bytes([more % 255])
    return bytes([7 << 5 | code]) + lengths + low


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([1, 2]).flatmap(blocks))
def test_what_the_instructions_say_is_unpacked(made: tuple[bytes, bytes]) -> None:
    """Literals, matches short and long, near and far, and into themselves: each gives the bytes it stands for."""
    block, content = made
    assert decompress(block, len(content)) == content


@pytest.mark.parametrize(
    ("block", "size", "says"),
    [
        (b"", 1, "empty"),
        (b"\x00a", 2, "unpacks to 1 bytes, not 2"),
        (b"\x00a\x20\x05", 9, "before the first"),
        (b"\x20a\x20\x05", 9, "before the first"),
        (b"\x01ab\x00", 3, "within an instruction"),
        (b"\x01ab\x20", 9, "within an instruction"),
        (b"\x20a\xe0\xff", 999, "within an instruction"),
        (b"\x05ab", 6, "within an instruction"),
        (b"\x00a\xe0\xff\x00", 5, "more than it should"),
        (b"\x20a\xe0\xff\xff\x00\x00", 5, "more than it should"),
        (b"\x40a", 1, "level 3"),
    ],
)
def test_a_damaged_block_is_refused_with_what_is_wrong(block: bytes, size: int, says: str) -> None:
    """Nothing is read or written beyond a block's ends."""
    with pytest.raises(ValueError, match=says):
        decompress(block, size)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 4000))
def test_any_bytes_unpack_to_what_was_asked_or_are_refused(block: bytes, size: int) -> None:
    """Whatever the bytes are, the answer has exactly the size that was asked for, or is a ValueError."""
    try:
        assert len(decompress(block, size)) == size
    except ValueError as error:
        assert str(error)


def test_a_block_that_would_be_gigabytes_is_refused_at_once() -> None:
    """A length of 16 million in 64 KiB, over and over, is not followed beyond the size that was asked for."""
    bomb = b"\x20a" + (b"\xe0" + b"\xff" * 65_536 + b"\x00\x00") * 4
    started = time.process_time()
    with pytest.raises(ValueError, match="more than it should"):
        decompress(bomb, 1 << 20)
    assert time.process_time() - started < 1
