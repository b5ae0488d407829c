"""The copy on write of a disk is a qcow2 file as QEMU's specification has it, and holds one cluster at most."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from osvdeploy.osv.qcow2 import read_qcow2
from osvdeploy.qemu.overlay import CLUSTER, overlay
from osvdeploy.sizes import GIB, TIB


class Bytes:
    """Bytes as a file to read anywhere."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    @property
    def size(self) -> int:
        return len(self.content)

    def pread(self, offset: int, length: int) -> bytes:
        return self.content[offset : offset + length]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 2 * TIB), st.binary(max_size=CLUSTER))
def test_the_head_is_read_back_and_nothing_else(size: int, head: bytes) -> None:
    """For a disk of any size, our reader of qcow2 finds the head at its beginning, zeros behind it, the disk's size."""
    disk = read_qcow2(Bytes(overlay(size, head)))
    assert disk.size == -(-size // 512) * 512
    shown = head[: disk.size].ljust(min(CLUSTER, disk.size), b"\0")
    assert disk.pread(0, CLUSTER) == shown
    assert not any(disk.pread(CLUSTER, 4096)) and not any(disk.pread(max(0, disk.size - 512), 512)[len(head) :])


def test_without_a_head_it_holds_nothing() -> None:
    """What is not in it is read from the disk below: it says of no cluster that it has it."""
    disk = read_qcow2(Bytes(overlay(2 * TIB)))
    assert list(disk.data(0, disk.size)) == []
    assert len(overlay(2 * TIB)) == 4 * CLUSTER


def test_a_head_beyond_its_cluster_is_refused() -> None:
    """Half a command line would boot something else."""
    with pytest.raises(ValueError, match="65537 bytes"):
        overlay(GIB, b"x" * (CLUSTER + 1))
