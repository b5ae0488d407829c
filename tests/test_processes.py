"""Tools as real processes: what they say, and that nothing of them is left however they or we end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from osvdeploy.context import Context
from osvdeploy.errors import Interrupted
from osvdeploy.processes import Ended, run_tool
from tests.alive import lives, until

pytestmark = pytest.mark.slow

STUBBORN = "trap '' TERM; sleep 60 & echo $$ $! > made; mv made pids; wait; wait"
"""A tool that will not end when asked, and a child of it likewise: an ignored signal is inherited."""


def run(folder: Path, script: str, *, ctx: Context | None = None, given: bytes = b"") -> Ended:
    return run_tool(ctx or Context(), ["sh", "-c", script], cwd=folder, env={"PATH": os.defpath}, given=given)


def pids_in(folder: Path) -> list[int]:
    place = folder / "pids"
    until(place.exists)
    return [int(pid) for pid in place.read_text().split()]


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path: Path) -> Iterator[None]:
    yield
    if (tmp_path / "pids").exists():
        for pid in pids_in(tmp_path):
            if lives(pid):
                os.kill(pid, signal.SIGKILL)


def test_a_tool_is_given_and_says(tmp_path: Path) -> None:
    """Stdin, stdout, stderr and status go through, more of each than a pipe holds."""
    text = b"x" * 200_000
    ended = run(tmp_path, "cat; echo words >&2; exit 3", given=text)
    assert (ended.status, ended.out, ended.said) == (3, text, "words\n")


def test_a_tool_that_is_slow_to_read_gets_all(tmp_path: Path) -> None:
    """An interpreter that starts on a busy machine takes longer than we wait between two looks at a cancel."""
    ended = run(tmp_path, "sleep 0.5; wc -c", given=b"x" * 200_000, ctx=Context().within(20))
    assert ended.out.strip() == b"200000"


def test_a_tool_that_reads_nothing_does_not_hold_us_up(tmp_path: Path) -> None:
    """It may end before it has taken what it was given."""
    assert run(tmp_path, "exit 0", given=b"x" * 2_000_000).status == 0


def test_a_tool_that_a_signal_ended_says_so_as_a_shell_does(tmp_path: Path) -> None:
    """128 and the signal's number."""
    assert run(tmp_path, "kill -KILL $$").status == 128 + signal.SIGKILL


@pytest.mark.parametrize(("word", "reason"), [("nosuch", "No such file"), ("folder", "Permission denied")])
def test_a_tool_that_cannot_be_started_is_an_error(tmp_path: Path, word: str, reason: str) -> None:
    """With the system's reason, and not a status that the tool itself could have had."""
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match=reason):
        run_tool(Context(), [str(tmp_path / word)], cwd=tmp_path, env={"PATH": os.defpath})


def test_a_cancel_ends_a_tool_and_what_it_started(tmp_path: Path) -> None:
    """Also what ignores the first, polite signal."""
    ctx = Context()

    def cancel() -> None:
        pids_in(tmp_path)
        ctx.cancel.cancel()

    thread = threading.Thread(target=cancel)
    thread.start()
    with pytest.raises(Interrupted):
        run(tmp_path, STUBBORN, ctx=ctx)
    thread.join()
    pids = pids_in(tmp_path)
    assert len(pids) == 2 and not [pid for pid in pids if lives(pid)]


def test_what_a_tool_leaves_in_the_background_ends_with_it(tmp_path: Path) -> None:
    """It holds our pipes, and would be waited for."""
    begun = time.monotonic()
    assert run(tmp_path, "sleep 60 & echo $! > made; mv made pids; exit 5").status == 5
    assert time.monotonic() - begun < 10
    assert not lives(*pids_in(tmp_path))


def test_kill_9_of_us_ends_a_tool_and_what_it_started(tmp_path: Path) -> None:
    """Nobody is there to tell it: it ends because we are gone."""
    script = f"""
import sys
from pathlib import Path
from tests.test_processes import STUBBORN, run
run(Path({str(tmp_path)!r}), STUBBORN)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", script], env=environment) as us:
        pids = pids_in(tmp_path)
        us.kill()
    assert len(pids) == 2
    until(lambda: not [pid for pid in pids if lives(pid)])
