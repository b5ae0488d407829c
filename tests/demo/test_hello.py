"""The example's program, as a process of this host. On OSv it runs in tests/boot/test_osv.py."""

from __future__ import annotations

import http.client
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from osvdeploy.demo.hello import EXAMPLE, build_hello, releases
from osvdeploy.errors import BuildError
from osvdeploy.spec import load
from tests.spec.specs import on_aws

HERE = platform.system() == "Linux" and platform.machine() == "x86_64"

runs_here = pytest.mark.skipif(not HERE, reason="hello runs on x86-64 Linux")

pytestmark = pytest.mark.slow


@pytest.fixture
def address() -> tuple[str, int]:
    """An address of loopback's own, and a port of it that is free."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.77", 0))
        port: int = probe.getsockname()[1]
        return "127.0.0.77", port


@contextmanager
def serving(program: Path, address: tuple[str, int], *, release: str | None = "hello-1-abc") -> Iterator[None]:
    environment = {"OSV_IP": address[0]} | ({"OSVDEPLOY_RELEASE": release} if release else {})
    process = subprocess.Popen([program, "--port", str(address[1])], stdout=subprocess.PIPE, env=environment)
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if b"listens on" in line:
                break
        else:
            raise AssertionError(f"hello ended with {process.wait()}")
        yield
        assert process.poll() is None, "hello ended while it served"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def ask(address: tuple[str, int], path: str, method: str = "GET") -> tuple[int, str | None, str]:
    connection = http.client.HTTPConnection(*address, timeout=10)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.headers["x-release"], answer.read().decode()
    finally:
        connection.close()


def test_the_story_has_its_releases() -> None:
    """Two good ones, two bad ones and one more good one, in the order of their versions."""
    assert releases() == ("1.0.0", "1.1.0", "1.2.0", "1.3.0", "1.4.0")


def test_the_examples_spec_is_valid() -> None:
    """osv.toml loads with the variables that the README names, and fits the program: port, health path, header."""
    names = re.findall(r"`(HELLO_\w+)`", (EXAMPLE / "README.md").read_text())
    spec = load(EXAMPLE / "osv.toml", environ=dict.fromkeys(names, "x")).spec
    sandbox = on_aws(spec, "sandbox")
    assert spec.image.command == ["/hello", "--port", str(sandbox.port)]
    assert (sandbox.health.path, sandbox.health.version_header) == ("/healthz", "x-release")
    assert spec.version == releases()[0]


def test_an_unknown_release_is_refused(tmp_path: Path) -> None:
    """A version without sources is an error that lists those that there are, and so is a folder without any."""
    with pytest.raises(BuildError, match=r"hello 9\.9\.9: no such release") as caught:
        build_hello("9.9.9", tmp_path / "hello")
    assert caught.value.hint is not None and "1.4.0" in caught.value.hint
    with pytest.raises(BuildError, match="no releases of hello"):
        build_hello("1.0.0", tmp_path / "hello", example=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(shutil.which("make") is None, reason="no make here")
def test_the_makefile_builds_the_release_that_is_asked_for(tmp_path: Path) -> None:
    """What the README says works: make builds 1.0.0, and another version when told, without a clean between."""
    example = shutil.copytree(EXAMPLE, tmp_path / "hello", ignore=shutil.ignore_patterns("build"))
    for arguments, version in (([], b"1.0.0"), (["VERSION=1.4.0"], b"1.4.0")):
        subprocess.run(["make", "-s", *arguments], cwd=example, check=True, timeout=300, capture_output=True)
        assert version in (example / "build" / "hello").read_bytes()


@runs_here
def test_every_answer_names_version_and_release(address: tuple[str, int], tmp_path: Path) -> None:
    """Body and header say whose answer it is, refusals too."""
    with serving(build_hello("1.0.0", tmp_path / "hello"), address):
        assert ask(address, "/") == (200, "hello-1-abc", "hello 1.0.0\n")
        assert ask(address, "/healthz?deep=1") == (200, "hello-1-abc", "hello 1.0.0 is well\n")
        assert ask(address, "/gone") == (404, "hello-1-abc", "hello 1.0.0: Not Found\n")
        assert ask(address, "/", "POST")[:2] == (405, "hello-1-abc")
        assert ask(address, "/", "HEAD") == (200, "hello-1-abc", "")


@runs_here
def test_many_quick_connections_all_get_their_answer(address: tuple[str, int], tmp_path: Path) -> None:
    """Thousands of short connections, some at once, and not one fails."""
    with serving(build_hello("1.1.0", tmp_path / "hello"), address), ThreadPoolExecutor(16) as clients:
        answers = set(clients.map(lambda _: ask(address, "/you"), range(2000)))
    assert answers == {(200, "hello-1-abc", "hello 1.1.0 greets you\n")}


@runs_here
def test_clients_that_misbehave_hurt_nobody_else(address: tuple[str, int], tmp_path: Path) -> None:
    """Silence, garbage, an endless head or a reset do not keep the next client from its answer."""
    with serving(build_hello("1.4.0", tmp_path / "hello"), address):
        silent = [socket.create_connection(address, 10) for _ in range(100)]
        with socket.create_connection(address, 10) as endless:
            endless.sendall(b"GET / HTTP/1.1\r\nx: " + b"a" * 5000)
            assert endless.recv(64).startswith(b"HTTP/1.1 431 ")
        with socket.create_connection(address, 10) as garbage:
            garbage.sendall(b"\0\xff\r\n\r\n")
            assert garbage.recv(64).startswith(b"HTTP/1.1 400 ")
        with socket.create_connection(address, 10) as reset:
            reset.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            reset.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert ask(address, "/healthz")[0] == 200
        for connection in silent:
            connection.close()


@runs_here
def test_release_1_2_0_answers_500_to_everything(address: tuple[str, int], tmp_path: Path) -> None:
    """The first bad release serves, and every answer is an error that says why."""
    with serving(build_hello("1.2.0", tmp_path / "hello"), address, release=None):
        for path in ("/", "/healthz", "/any"):
            status, release, body = ask(address, path)
            assert (status, release) == (500, "unreleased")
            assert "cannot read /etc/hello/greeting" in body


@runs_here
def test_release_1_3_0_aborts_while_it_starts(address: tuple[str, int], tmp_path: Path) -> None:
    """The second bad release says why, before it aborts."""
    program = build_hello("1.3.0", tmp_path / "hello")
    ended = subprocess.run([program, "--port", str(address[1])], capture_output=True, env={}, timeout=30)
    assert ended.returncode == -signal.SIGABRT
    assert b"HELLO_GREETING is not set" in ended.stdout


@runs_here
@pytest.mark.parametrize("arguments", [[], ["--port"], ["--port", "http"], ["--port", "0"], ["--port", "65536"]])
def test_a_wrong_port_is_refused(arguments: list[str], tmp_path: Path) -> None:
    """What is no port gets the usage line and exit code 2."""
    program = build_hello("1.0.0", tmp_path / "hello")
    ended = subprocess.run([program, *arguments], capture_output=True, env=dict(os.environ), timeout=30)
    assert (ended.returncode, ended.stdout) == (2, b"usage: hello --port NUMBER\n")


@runs_here
def test_a_taken_port_is_told(address: tuple[str, int], tmp_path: Path) -> None:
    """A second hello on one port ends at once and says what is in its way."""
    program = build_hello("1.0.0", tmp_path / "hello")
    with serving(program, address):
        environment = {"OSV_IP": address[0]}
        ended = subprocess.run([program, "--port", str(address[1])], capture_output=True, env=environment, timeout=30)
    assert ended.returncode == 1
    assert b"bind: Address already in use" in ended.stdout
