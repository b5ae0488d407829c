"""What the journal remembers, and what it survives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from osvdeploy.context import Context
from osvdeploy.digests import sha256
from osvdeploy.events import Recorder, Warned
from osvdeploy.publish.journal import KEPT, STATE_VARIABLE, Journal, UploadKey, UploadLog

KEY = UploadKey("orders-1.0.0", sha256(b"1.0.0"), "aws", "111122223333", "eu-west-1")


def log_at(root: Path, ctx: Context | None = None) -> UploadLog:
    return Journal(root).upload(ctx or Context(), KEY)


def known(log: UploadLog) -> tuple[int, str | None, set[int], bool]:
    return log.attempt, log.upload, log.stored, log.finished


def test_nothing_is_known_at_first(tmp_path: Path) -> None:
    """The first attempt is 0."""
    assert known(log_at(tmp_path)) == (0, None, set(), False)


def test_another_process_knows_what_this_one_did(tmp_path: Path) -> None:
    """What was appended is read back: attempt, id, blocks, the end."""
    ctx = Context()
    log = log_at(tmp_path)
    log.begin(ctx, 2)
    log.opened(ctx, "snap-1")
    log.store(ctx, 0)
    log.store(ctx, 17)
    assert known(log_at(tmp_path)) == (2, "snap-1", {0, 17}, False)
    log.finish(ctx)
    assert known(log_at(tmp_path)) == (2, "snap-1", {0, 17}, True)


def test_a_new_attempt_begins_empty(tmp_path: Path) -> None:
    """Blocks of an earlier attempt are no blocks of the next one."""
    ctx = Context()
    log = log_at(tmp_path)
    log.begin(ctx, 0)
    log.opened(ctx, "snap-1")
    log.store(ctx, 3)
    log.begin(ctx, 1)
    assert known(log) == known(log_at(tmp_path)) == (1, None, set(), False)


def test_another_upload_under_the_same_attempt(tmp_path: Path) -> None:
    """Where the cloud names another upload for the same attempt, what was stored in the first says nothing."""
    ctx = Context()
    log = log_at(tmp_path)
    log.begin(ctx, 0)
    log.opened(ctx, "snap-1")
    log.store(ctx, 3)
    log.opened(ctx, "snap-2")
    assert known(log) == known(log_at(tmp_path)) == (0, "snap-2", set(), False)


def test_what_is_to_be_removed_is_remembered(tmp_path: Path) -> None:
    """A refused upload is known until it is removed, and its attempt is over from then on."""
    ctx = Context()
    log = log_at(tmp_path)
    log.begin(ctx, 0)
    log.opened(ctx, "snap-1")
    log.leave(ctx, "snap-1")
    assert (log_at(tmp_path).attempt, log_at(tmp_path).leaving) == (1, {"snap-1"})
    log.left(ctx, "snap-1")
    assert log_at(tmp_path).leaving == set()


def test_uploads_are_apart(tmp_path: Path) -> None:
    """Another name, digest, account or region is another upload."""
    ctx = Context()
    log_at(tmp_path).begin(ctx, 5)
    others = [
        UploadKey("orders-1.0.1", KEY.digest, KEY.cloud, KEY.account, KEY.region),
        UploadKey(KEY.name, sha256(b"other"), KEY.cloud, KEY.account, KEY.region),
        UploadKey(KEY.name, KEY.digest, KEY.cloud, "444455556666", KEY.region),
        UploadKey(KEY.name, KEY.digest, KEY.cloud, KEY.account, "us-east-1"),
    ]
    assert [Journal(tmp_path).upload(ctx, other).attempt for other in others] == [0, 0, 0, 0]
    assert log_at(tmp_path).attempt == 5


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_a_torn_file_is_a_hint_still(data: st.DataObject) -> None:
    """Cut anywhere, a file tells a prefix of what happened, and what is appended after that is not lost."""
    ctx = Context()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        log = log_at(root)
        states = [known(log_at(root))]
        log.begin(ctx, 0)
        log.opened(ctx, "snap-1")
        states.append(known(log_at(root)))
        for index in (0, 1, 2):
            log.store(ctx, index)
            states.append(known(log_at(root)))
        log.begin(ctx, 1)
        states.append(known(log_at(root)))
        content = log.path.read_bytes()
        log.path.write_bytes(content[: data.draw(st.integers(0, len(content)))])

        torn = log_at(root)

        assert known(torn) in states or known(torn) == (0, "snap-1", set(), False)
        torn.begin(ctx, 7)
        torn.opened(ctx, "snap-7")
        torn.store(ctx, 9)
        assert known(log_at(root)) == (7, "snap-7", {9}, False)


@settings(max_examples=80, deadline=None)
@given(st.binary(max_size=200))
def test_garbage_is_not_believed(content: bytes) -> None:
    """Whatever bytes stand in the file, reading it never fails and invents no stored block."""
    with tempfile.TemporaryDirectory() as folder:
        log = log_at(Path(folder))
        heading = log.path.read_bytes()
        for damaged in (content, heading + content):
            log.path.write_bytes(damaged)
            assert log_at(Path(folder)).stored == set()


def test_a_newer_versions_file_is_not_believed(tmp_path: Path) -> None:
    """A journal of another version is begun anew."""
    log = log_at(tmp_path)
    log.begin(Context(), 4)
    log.path.write_bytes(log.path.read_bytes().replace(b'"journal": 1', b'"journal": 2'))
    assert log_at(tmp_path).attempt == 0


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    """Without a journal publishing goes on; it is said once what that costs."""
    (tmp_path / "file").write_text("")
    recorder = Recorder()
    ctx = Context(reporter=recorder)
    log = Journal(tmp_path / "file").upload(ctx, KEY)
    log.begin(ctx, 1)
    log.opened(ctx, "snap-1")
    log.store(ctx, 0)
    assert known(log) == (1, "snap-1", {0}, False)
    [warned] = recorder.events
    assert isinstance(warned, Warned)
    assert STATE_VARIABLE in str(warned.hint)


def test_the_user_may_say_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OSVDEPLOY_STATE names the directory."""
    monkeypatch.setenv(STATE_VARIABLE, str(tmp_path / "state"))
    log = Journal.of_user().upload(Context(), KEY)
    assert log.path.is_relative_to(tmp_path / "state")


def test_old_files_go(tmp_path: Path) -> None:
    """Files nobody touched for a week go away when another upload begins."""
    old = log_at(tmp_path).path
    age = Context().now().timestamp() - KEPT - 60
    os.utime(old, (age, age))
    Journal(tmp_path).upload(Context(), UploadKey("other", KEY.digest, "aws", "1", "r"))
    assert not old.exists()


@pytest.mark.slow
def test_a_killed_process_leaves_what_it_wrote(tmp_path: Path) -> None:
    """After kill -9 the attempt and every block told so far are known."""
    program = f"""
from pathlib import Path
from osvdeploy.context import Context
from tests.publish.test_journal import log_at
ctx, log = Context(), log_at(Path({str(tmp_path)!r}))
log.begin(ctx, 3); log.opened(ctx, "snap-3")
for index in range(10_000_000):
    log.store(ctx, index)
    if index == 50: print("ready", flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGKILL)
        process.wait()
    log = log_at(tmp_path)
    assert (log.attempt, log.upload) == (3, "snap-3")
    assert set(range(51)) <= log.stored
    assert log.stored == set(range(len(log.stored)))
