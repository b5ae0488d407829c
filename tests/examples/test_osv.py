"""The examples boot on a real OSv and answer. Needs OSV_KERNEL, the path of a loader.img that OSv's own build made."""

from __future__ import annotations

import hashlib
import json
import os
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from osvdeploy.osv.console import read_boot_log
from tests.boot.qemu import Machine, boot, free_port, needs_qemu
from tests.examples.projects import INTERPRETERS, built, copy_of, make_static_go, needs_index

pytestmark = [pytest.mark.osv, pytest.mark.slow, needs_qemu]


@pytest.fixture(scope="session")
def kernel() -> Path:
    path = os.environ.get("OSV_KERNEL")
    if not path:
        pytest.skip("OSV_KERNEL is not set: name a loader.img of OSv (build/last/loader.img) to boot a real one")
    return Path(path)


@contextmanager
def serving(disk: Path, *, memory: int) -> Iterator[tuple[Machine, int]]:
    """The machine once its program listens, and the port of this host that reaches it."""
    port = free_port()
    arguments = ["-cpu", "max", "-netdev", f"user,id=net0,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:8080"]
    arguments += ["-device", "virtio-net-pci,netdev=net0", "-device", "virtio-rng-pci"]
    with boot(disk, memory=memory, interface="virtio", arguments=arguments) as machine:
        machine.wait_for(lambda seen: b"listens on" in seen)
        yield machine, port


def get(port: int, path: str) -> str:
    # No proxy: one set for the user would be asked for the guest.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{port}{path}", timeout=60) as answer:
        text: str = answer.read().decode()
        return text


@pytest.mark.parametrize("interpreter", INTERPRETERS)
def test_python_from_host_answers(interpreter: str, kernel: Path, tmp_path: Path) -> None:
    """A Python of this host serves from OSv: ssl, sqlite, hashes, asyncio, UTF-8, bytecode, a C extension."""
    needs_index(interpreter)
    example = copy_of("python-from-host", tmp_path, kernel)
    result = built(example, tmp_path / "cache", f"programs.0.path={interpreter}")

    with serving(result.image.path, memory=512) as (machine, port):
        assert get(port, "/%3Cb%3E%C3%A4") == "<p>hello, &lt;b&gt;ä</p>\n"
        about = json.loads(get(port, "/about"))
        assert machine.running
        console = machine.console.decode()

    assert read_boot_log(console).fault is None
    assert about["sha256"] == "5148d04a6c781343f70c5fcc0cf73dc6d166e243156ccf83e9031a74b98c1c90"
    assert (about["encoding"], about["bytecode"], about["asyncio"]) == ("utf-8", True, 5)
    assert about["ssl"].startswith(("OpenSSL", "LibreSSL")) and about["sqlite"].startswith("3.")
    assert about["extension"].startswith("/usr/lib/python3") and about["extension"].endswith(".so")


def test_static_go_answers(kernel: Path, tmp_path: Path) -> None:
    """A program that has no dynamic section asks the kernel by system calls alone, and serves."""
    example = copy_of("static-go", tmp_path, kernel)
    make_static_go(example)
    result = built(example, tmp_path / "cache")

    with serving(result.image.path, memory=256) as (_, port):
        assert get(port, "/").startswith("hello from go1.")


def test_a_program_of_this_host_runs(kernel: Path, tmp_path: Path) -> None:
    """A program that knows nothing of OSv, with the libraries that ld.so would give it here."""
    if not Path("/usr/bin/openssl").exists():
        pytest.skip("/usr/bin/openssl is not here")
    (tmp_path / "osv.toml").write_text(
        f"""
        name = "openssl"
        version = "1"
        kernel.file = "{kernel.resolve()}"
        image.command = ["/usr/bin/openssl", "dgst", "-sha256", "/etc/hosts"]
        image.boot.power-off-on-abort = true
        [[programs]]
        path = "/usr/bin/openssl"
        """
    )
    result = built(tmp_path, tmp_path / "cache")

    with boot(result.image.path, memory=256, interface="virtio", arguments=["-cpu", "max"]) as machine:
        console = machine.wait_until_off().decode()

    digest = hashlib.sha256(b"127.0.0.1 localhost\n").hexdigest()
    assert f"(/etc/hosts)= {digest}" in console
