"""What the crash suites share."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

MEMORY = Path("/dev/shm")
ROOM = 256 << 20


@pytest.fixture
def tmp_path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in memory, where the machine has room for one there.

    A ledger writes through to its disk, and a case that goes back to an earlier moment puts all its files back: on a
    disk, waiting for that takes as long as everything else that a case does. What a kill -9 leaves is the same.
    """
    try:
        free = os.statvfs(MEMORY)
        in_memory = os.access(MEMORY, os.W_OK) and free.f_bavail * free.f_frsize >= ROOM
    except OSError:
        in_memory = False
    if not in_memory:
        yield tmp_path_factory.mktemp("crash")
        return
    folder = Path(tempfile.mkdtemp(dir=MEMORY, prefix="osvdeploy-crash-"))
    yield folder
    shutil.rmtree(folder)
