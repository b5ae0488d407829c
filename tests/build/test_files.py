"""Files that are replaced: whole, or as they were, and nothing beside them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from osvdeploy.build.files import part_of, replace_file
from osvdeploy.context import Context

CTX = Context()


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    """And nothing else is in its directory."""
    place = tmp_path / "osv.lock"
    for content in (b"one", b"two" * 100_000):
        replace_file(place, content, nonce=CTX.nonce())
        assert place.read_bytes() == content
    assert names_in(tmp_path) == {"osv.lock"}


def test_what_fails_leaves_the_old_file(tmp_path: Path) -> None:
    """Whatever goes wrong while it is written."""
    place = tmp_path / "osv.lock"
    place.write_bytes(b"old")
    with pytest.raises(KeyError), part_of(place, nonce=CTX.nonce()) as file:
        file.write(b"new")
        raise KeyError
    assert place.read_bytes() == b"old" and names_in(tmp_path) == {"osv.lock"}


@pytest.mark.slow
def test_what_a_killed_writer_left_goes_with_the_next_one(tmp_path: Path) -> None:
    """Whichever file of the directory that writes."""
    script = f"""
import os, signal
from pathlib import Path
from osvdeploy.build.files import part_of
with part_of(Path({str(tmp_path)!r}) / "osv.lock", nonce="0" * 32) as file:
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert len(names_in(tmp_path)) == 1
    replace_file(tmp_path / "other", b"", nonce=CTX.nonce())
    assert names_in(tmp_path) == {"other"}


def test_a_living_writer_is_left_alone(tmp_path: Path) -> None:
    """Two write to one file at once: both parts stay until they are whole, and the last one stands."""
    place = tmp_path / "osv.lock"
    with part_of(place, nonce=CTX.nonce()) as first:
        first.write(b"first")
        with part_of(place, nonce=CTX.nonce()) as second:
            second.write(b"second")
        assert place.read_bytes() == b"second"
    assert place.read_bytes() == b"first" and names_in(tmp_path) == {"osv.lock"}


def test_files_of_others_are_never_swept(tmp_path: Path) -> None:
    """Names that resemble a part's, and links to somewhere else."""
    (tmp_path / "kept").write_bytes(b"")
    names = [".osvdeploy", ".osvdeploy-lock", f".osvdeploy-{'0' * 31}", f".osvdeploy-{'0' * 32}.toml"]
    for name in names:
        (tmp_path / name).write_bytes(b"")
    link = tmp_path / f".osvdeploy-{'1' * 32}"
    link.symlink_to("kept")
    replace_file(tmp_path / "osv.lock", b"", nonce=CTX.nonce())
    assert names_in(tmp_path) == {*names, link.name, "kept", "osv.lock"}
