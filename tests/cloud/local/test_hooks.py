"""Hooks of this host: programs that are started and ended whatever they do, and addresses that are posted to."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osvdeploy.cloud.interfaces import HOOK_OUTPUT, CommandHook, HookAction, HookAnswer, HttpHook
from osvdeploy.cloud.local.hooks import LocalHooks, last_line, shown_end
from osvdeploy.context import Context
from osvdeploy.errors import UsageError
from tests.alive import lives, until

FACTS = json.dumps({"schema": 1, "event": "run-1/verify/0/smoke/1"}).encode()
CTX = Context()


def program(folder: Path, body: str) -> tuple[str, ...]:
    path = folder / "hook"
    path.write_text(f"#!{sys.executable}\nimport os, sys, time, json, subprocess\n{body}\n")
    path.chmod(0o755)
    return (str(path),)


def answer(
    action: HookAction, *, environ: Mapping[str, str] | None = None, timeout: float = 20.0, patience: float = 20.0
) -> HookAnswer:
    running = LocalHooks(environ).start(CTX, action, FACTS, timeout)
    try:
        until = time.monotonic() + patience
        while (found := running.answer()) is None:
            assert time.monotonic() < until, "it does not end"
            time.sleep(0.01)
        return found
    finally:
        running.close()


# -------------------------------------------------------------------------------------------------------- programs


def test_a_program_has_the_facts_on_its_stdin(tmp_path: Path) -> None:
    argv = program(tmp_path, "facts = json.load(sys.stdin); print('it is', facts['event'], *sys.argv[1:])")
    assert answer(CommandHook((*argv, "--quick", "a b"))) == HookAnswer(
        True, "it is run-1/verify/0/smoke/1 --quick a b", "it is run-1/verify/0/smoke/1 --quick a b\n"
    )


def test_any_other_exit_status_than_0_has_failed_with_its_last_words(tmp_path: Path) -> None:
    argv = program(tmp_path, "print('one'); print('two', file=sys.stderr); sys.stderr.flush(); sys.exit(3)")
    found = answer(CommandHook(argv))
    assert (found.passed, found.told[:15]) == (False, "exit status 3: ")
    assert set(found.output.split()) == {"one", "two"}


def test_a_program_that_a_signal_ends_has_failed(tmp_path: Path) -> None:
    found = answer(CommandHook(program(tmp_path, "os.kill(os.getpid(), 9)")))
    assert (found.passed, found.told) == (False, "ended by signal 9")


def test_the_end_of_what_it_says_is_kept_however_much_that_is(tmp_path: Path) -> None:
    found = answer(CommandHook(program(tmp_path, "sys.stdout.write('x' * 5_000_000 + '\\nthe end\\n')")))
    assert found.passed
    assert found.told == "the end"
    assert len(found.output) == HOOK_OUTPUT


def test_a_program_that_reads_nothing_is_not_waited_for(tmp_path: Path) -> None:
    running = LocalHooks().start(CTX, CommandHook(program(tmp_path, "print('ok')")), b"x" * 5_000_000, 10.0)
    until(lambda: running.answer() is not None)
    running.close()


def test_stop_does_not_wait_and_close_ends_all_that_it_started(tmp_path: Path) -> None:
    child = (
        f"import time; open({str(tmp_path / 'child')!r}, 'w').write(str(__import__('os').getpid())); time.sleep(100)"
    )
    body = f"subprocess.Popen([sys.executable, '-c', {child!r}])\ntime.sleep(100)"
    running = LocalHooks().start(CTX, CommandHook(program(tmp_path, body)), FACTS, 100.0)
    until(lambda: (tmp_path / "child").exists() and (tmp_path / "child").read_text())
    pid = int((tmp_path / "child").read_text())
    began = time.monotonic()
    running.stop()
    assert time.monotonic() - began < 0.5
    running.close()
    assert not lives(pid)


def test_a_program_that_ignores_sigterm_is_ended_all_the_same(tmp_path: Path) -> None:
    body = (
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(100)"
    )
    running = LocalHooks().start(CTX, CommandHook(program(tmp_path, body)), FACTS, 100.0)
    until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    running.close()
    assert not lives(int((tmp_path / "pid").read_text()))


def test_a_hook_ends_with_the_process_that_asked_it_also_by_kill_9(tmp_path: Path) -> None:
    argv = program(tmp_path, f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(100)")
    code = (
        "import sys, time\nfrom osvdeploy.cloud.local.hooks import LocalHooks\n"
        "from osvdeploy.cloud.interfaces import CommandHook\nfrom osvdeploy.context import Context\n"
        "r = LocalHooks().start(Context(), CommandHook((sys.argv[1],)), b'{}', 100.0)\ntime.sleep(100)"
    )
    with subprocess.Popen([sys.executable, "-c", code, *argv]) as process:
        until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
        os.kill(process.pid, signal.SIGKILL)
    until(lambda: not lives(int((tmp_path / "pid").read_text())))


@pytest.mark.parametrize("name", ["./not-there", "there-is-no-such-program"])
def test_a_program_that_is_not_there_is_refused_and_has_failed(name: str) -> None:
    with pytest.raises(UsageError):
        LocalHooks().refuse_unready(CTX, CommandHook((name,)))
    found = answer(CommandHook((name,)))
    assert (found.passed, found.told.partition(":")[0]) == (False, name)


def test_a_program_that_may_not_be_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "hook").write_text("#!/bin/sh\n")
    with pytest.raises(UsageError, match="may not be run"):
        LocalHooks().refuse_unready(CTX, CommandHook((str(tmp_path / "hook"),)))


def test_a_program_that_cannot_be_started_has_failed(tmp_path: Path) -> None:
    (tmp_path / "hook").write_text("#!/there/is/no/such/interpreter\n")
    (tmp_path / "hook").chmod(0o755)
    found = answer(CommandHook((str(tmp_path / "hook"),)))
    assert (found.passed, found.told) == (False, "cannot be started: No such file or directory")


# ------------------------------------------------------------------------------------------------------- addresses


@contextmanager
def receiver(
    status: int = 200, body: bytes = b"", wait: threading.Event | None = None
) -> Iterator[tuple[str, list[Any]]]:
    got: list[Any] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["content-length"]))
            got.append((self.path, dict(self.headers), content))
            if wait is not None:
                wait.wait(20)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook?a=1", got
    finally:
        server.shutdown()
        server.server_close()


def test_an_address_is_posted_the_facts_with_its_headers() -> None:
    with receiver(204) as (url, got):
        action = HttpHook(url, {"X-Team": "payments"}, {"Authorization": "TOKEN"})
        found = answer(action, environ={"TOKEN": "Bearer s3cret\n"})
    ((path, headers, content),) = got
    assert found == HookAnswer(True, "answered 204", "")
    assert (path, content) == ("/hook?a=1", FACTS)
    seen = {name.lower(): value for name, value in headers.items()}
    assert (seen["authorization"], seen["x-team"]) == ("Bearer s3cret", "payments")
    assert seen["content-type"] == "application/json"


@pytest.mark.parametrize("status", [199 + 103, 400, 404, 500])
def test_any_answer_but_2xx_has_failed(status: int) -> None:
    with receiver(status, b"no, thank you") as (url, _):
        assert answer(HttpHook(url)) == HookAnswer(False, f"answered {status}: no, thank you", "no, thank you")


def test_a_secret_that_is_echoed_is_not_kept() -> None:
    with receiver(403, b"bad token s3cret, go away") as (url, _):
        found = answer(HttpHook(url, {}, {"Authorization": "TOKEN"}), environ={"TOKEN": "s3cret"})
    assert "s3cret" not in found.told + found.output


@pytest.mark.parametrize(
    "said",
    [b"invalid token s3cret-s3cret", b"x" * (HOOK_OUTPUT - 10) + b"s3cret-s3cret and more"],
    ids=["alone", "cut"],
)
def test_no_part_of_a_secret_is_kept(said: bytes) -> None:
    """Neither the token without the word before it, nor its beginning where what is kept ends."""
    with receiver(401, said) as (url, _):
        found = answer(HttpHook(url, {}, {"Authorization": "TOKEN"}), environ={"TOKEN": "Bearer s3cret-s3cret"})
    assert "s3cret" not in found.told + found.output


def test_a_request_that_goes_wrong_in_a_way_nobody_knows_has_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else its hook would be waited for until its deadline."""

    def broken(*words: object, **named: object) -> None:
        raise KeyError("unforeseen")

    monkeypatch.setattr("osvdeploy.cloud.local.prober.HttpProber.fetch", broken)
    assert answer(HttpHook("http://127.0.0.1:9/")) == HookAnswer(False, "cannot be asked: KeyError")


def test_an_address_that_nobody_listens_at_has_failed() -> None:
    with receiver() as (url, _):
        pass
    found = answer(HttpHook(url))
    assert (found.passed, "refused" in found.told) == (False, True)


def test_a_request_that_is_stopped_ends_at_once() -> None:
    hanging = threading.Event()
    with receiver(200, b"", hanging) as (url, got):
        running = LocalHooks().start(CTX, HttpHook(url), FACTS, 100.0)
        until(lambda: got)
        assert running.answer() is None
        began = time.monotonic()
        running.close()
        assert time.monotonic() - began < 1.5
        hanging.set()


def test_a_variable_that_is_not_set_is_refused_and_has_failed() -> None:
    action = HttpHook("https://acme.example/", {}, {"Authorization": "TOKEN"})
    with pytest.raises(UsageError, match="TOKEN is not set"):
        LocalHooks({}).refuse_unready(CTX, action)
    assert answer(action, environ={}) == HookAnswer(False, "the variable TOKEN is not set")


@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "\x00", "é"])
def test_a_variable_cannot_add_headers(value: str) -> None:
    action = HttpHook("https://acme.example/", {}, {"Authorization": "TOKEN"})
    with pytest.raises(UsageError, match="holds what no header can"):
        LocalHooks({"TOKEN": value}).refuse_unready(CTX, action)


# ------------------------------------------------------------------------------------------------------ properties


@given(st.binary(max_size=3 * HOOK_OUTPUT))
def test_whatever_is_said_is_kept_as_text_within_bounds(said: bytes) -> None:
    kept = shown_end(said)
    assert len(kept.encode()) <= HOOK_OUTPUT
    assert "\0" not in kept
    assert len(last_line(kept)) <= 200
    assert "\n" not in last_line(kept)


@given(st.text(st.characters(codec="ascii", exclude_characters="\0"), max_size=HOOK_OUTPUT))
def test_what_is_short_and_plain_is_kept_as_it_is(said: str) -> None:
    assert shown_end(said.encode()) == said
