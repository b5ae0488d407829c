"""Probes by a command: what it is given, what it may answer, and what is made of one that does neither."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osvdeploy.cloud.interfaces import ProbeAnswer, ProbeRequest
from osvdeploy.cloud.local import probing
from osvdeploy.cloud.local.prober import HttpProber
from osvdeploy.cloud.local.probing import (
    BODY,
    LocalProber,
    answer_document,
    answer_of,
    request_document,
    request_of,
)
from osvdeploy.context import Context
from osvdeploy.errors import UsageError
from tests.cloud.local.test_hooks import program

CTX = Context()
REQUEST = ProbeRequest("http://service.invalid:8080/healthz", {"Host": "acme.example"}, 2.0, "10.0.0.1")

texts = st.text(st.characters(codec="utf-8"), max_size=40)
requests = st.builds(
    ProbeRequest,
    url=texts.filter(bool),
    headers=st.dictionaries(texts, texts, max_size=4),
    timeout=st.floats(0.1, 300),
    address=st.none() | texts.filter(bool),
    kind=st.sampled_from(["http", "tcp"]),
)
answers = st.one_of(
    st.builds(
        ProbeAnswer,
        status=st.integers(100, 999),
        headers=st.dictionaries(texts.map(str.lower).filter(lambda name: name == name.lower()), texts, max_size=4),
        body=texts.map(str.encode),
    ),
    st.builds(ProbeAnswer, status=st.none(), error=st.just("connection refused")),
    st.builds(ProbeAnswer, status=st.none(), held=st.just(True)),
)  # fmt: skip


def asked(argv: tuple[str, ...], request: ProbeRequest = REQUEST) -> ProbeAnswer:
    via = ProbeRequest(request.url, request.headers, request.timeout, request.address, request.kind, argv)
    return LocalProber().probe(CTX, via)


# -------------------------------------------------------------------------------------------------------- contract


@given(requests)
def test_a_request_reads_back_as_it_was_written(request: ProbeRequest) -> None:
    assert request_of(json.dumps(request_document(request)).encode()) == request


@given(answers)
def test_an_answer_reads_back_as_it_was_written(answer: ProbeAnswer) -> None:
    assert answer_of(json.dumps(answer_document(answer)).encode()) == answer


@given(st.binary(max_size=200) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from(["schema", "status", "headers", "body", "held", "error", "probe", "url", "timeout", "address"]),
        inner, max_size=6,
    ),
    max_leaves=12,
).map(lambda value: json.dumps(value).encode()))  # fmt: skip
def test_whatever_is_printed_is_an_answer_or_refused(printed: bytes) -> None:
    """By words, and never by another error."""
    for reading in (answer_of, request_of):
        try:
            found: Any = reading(printed)
        except UsageError as error:
            assert str(error)
        else:
            assert isinstance(found, ProbeAnswer | ProbeRequest)


@given(st.binary(max_size=3 * BODY))
def test_any_body_can_be_told(body: bytes) -> None:
    """What is no text is replaced; nothing is longer than 2 KiB."""
    answer = answer_of(json.dumps(answer_document(ProbeAnswer(200, {}, body))).encode())
    assert len(answer.body) <= BODY
    assert answer.status == 200


# -------------------------------------------------------------------------------------------------------- commands


def test_a_command_is_given_the_request_and_its_answer_counts(tmp_path: Path) -> None:
    body = (
        "request = json.load(sys.stdin)\n"
        "print(json.dumps({'schema': 1, 'status': 200, 'headers': {'X-Release': 'hello-1'},"
        " 'body': request['url'] + ' ' + request['address'] + ' ' + request['headers']['Host']}))"
    )
    answer = asked(program(tmp_path, body))
    assert (answer.status, answer.headers) == (200, {"x-release": "hello-1"})
    assert answer.body == b"http://service.invalid:8080/healthz 10.0.0.1 acme.example"


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("print('ok')", "what it printed is no JSON: 'ok'"),
        ("pass", "what it printed is empty"),
        ("print('[]')", "what it printed is no JSON object, but []"),
        ('print(\'{"status": "200"}\')', 'what it printed "status" is a number'),
        ('print(\'{"schema": 2, "status": 200}\')', "what it printed has schema 2"),
        ("print('x' * 1_000_000)", "what it printed is no JSON"),
        ("sys.exit('ssh: no route to host')", "exit status 1: ssh: no route to host"),
        ("os.kill(os.getpid(), 9)", "ended by signal 9"),
    ],
)
def test_a_command_that_gives_no_answer_has_reached_nobody(tmp_path: Path, body: str, told: str) -> None:
    answer = asked(program(tmp_path, body))
    assert answer.status is None
    assert told in answer.error


def test_a_command_that_is_not_there_has_reached_nobody() -> None:
    answer = asked(("./not-there",))
    assert (answer.status, answer.error) == (None, "./not-there: cannot be started: No such file or directory")


def test_a_command_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "ON_THE_WAY", 0.0)
    pid = tmp_path / "pid"
    argv = program(tmp_path, f"open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(100)")
    answer = asked(argv, ProbeRequest(REQUEST.url, timeout=1.0))
    assert answer.error.endswith("did not end within 1 s")
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_osvdeploy_probe_is_the_other_end() -> None:
    """What it prints of an address that nobody listens at is what asking there gives here."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    request = ProbeRequest(f"http://127.0.0.1:{port}/", timeout=2.0)
    answer = asked((sys.executable, "-m", "osvdeploy", "probe"), request)
    assert answer == HttpProber().probe(CTX, request)


@pytest.mark.parametrize("given", [b"", b"{}", b'{"probe": "icmp", "url": "x"}', b'{"probe": "http", "url": 1}'])
def test_osvdeploy_probe_refuses_what_is_no_request(given: bytes) -> None:
    done = subprocess.run([sys.executable, "-m", "osvdeploy", "probe"], input=given, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"the request on stdin" in done.stderr


# ------------------------------------------------------------------------------------------------------------- tcp


@contextmanager
def listening(says: bytes | None = None, *, closes: bool = False) -> Iterator[str]:
    """A server that takes connections, says something or nothing, and holds them or closes them at once."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        held: list[socket.socket] = []

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                if says:
                    connection.sendall(says)
                if closes:
                    connection.close()
                else:
                    held.append(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/"
        # A thread that accepts keeps a closed socket open.
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
        for connection in held:
            connection.close()


def connect(url: str, timeout: float = 3.0) -> ProbeAnswer:
    return LocalProber().probe(CTX, ProbeRequest(url, timeout=timeout, kind="tcp"))


@pytest.mark.parametrize("says", [None, b"220 mail.acme.example\r\n"])
def test_a_connection_that_is_held_or_answered_is_well(says: bytes | None) -> None:
    with listening(says) as url:
        answer = connect(url)
    assert (answer.held, answer.body) == (True, says or b"")


def test_a_connection_that_is_closed_at_once_is_not() -> None:
    """Behind a proxy it is made with the proxy, whoever is behind it."""
    with listening(closes=True) as url:
        answer = connect(url)
    assert not answer.held
    assert answer.error.endswith("closed the connection at once")


def test_one_that_there_was_no_time_to_see_held_is_not() -> None:
    """A proxy may close it after that."""
    with listening() as url:
        answer = connect(url, timeout=0.2)
    assert not answer.held
    assert "200ms were over before it was seen held for 1s" in answer.error


def test_a_connection_that_nobody_takes_is_not() -> None:
    with listening() as url:
        pass
    assert (connect(url).held, "refused" in connect(url).error) == (False, True)


@pytest.mark.parametrize("url", ["", "http://", "x", "ftp://acme.example/", "http://a:b/", "http://[::1"])
def test_an_address_without_host_and_port_is_told(url: str) -> None:
    assert connect(url).error
