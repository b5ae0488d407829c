"""A plugin is started and asked, as Pulumi's engine does it before anything else: its port, Handshake, its version, and
what it thinks of a configuration.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from osvdeploy.context import Context
from osvdeploy.errors import OsvDeployError
from osvdeploy.plugin.places import PACKAGE

PATIENCE: Final = 10.0
"""Seconds from the port to the answered Handshake that the engine gives a plugin, pulumi 3.260; to the port it waits
without limit, which helps nobody who asks what is wrong."""


class PluginFailed(OsvDeployError):
    """The plugin did not start, or did not answer as one does."""


@dataclass(frozen=True, slots=True)
class Answered:
    """``port`` and ``handshake`` are seconds from the start; ``problems`` what is wrong with the configuration, each
    with its property and the reason."""

    version: str
    port: float
    handshake: float
    problems: Sequence[tuple[str, str]]


def ask(
    ctx: Context, command: Path, folder: Path, configuration: Mapping[str, str], environ: Mapping[str, str]
) -> Answered:
    """Start a plugin in a project's folder, ask it, and end it. Raises PluginFailed, with what it printed."""
    with tempfile.TemporaryFile() as said:
        began = time.perf_counter()
        try:
            process = subprocess.Popen(
                [command], cwd=folder, env=dict(environ), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=said, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise PluginFailed(f"{command} cannot be started: {error.strerror}") from None
        try:
            port = _port(ctx, process, began + PATIENCE)
            listening = time.perf_counter() - began
            version, problems, answered = _conversation(port, configuration)
            return Answered(version, listening, answered - began, problems)
        except PluginFailed as error:
            _end(process)
            said.seek(0)
            printed = " ".join(said.read()[-2000:].decode("utf-8", "replace").split())
            raise PluginFailed(f"{command} {error.message}{f': {printed}' if printed else ''}") from None
        finally:
            _end(process)
            if process.stdout is not None:
                process.stdout.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            try:
                os.killpg(process.pid, number)
                process.wait(5.0)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                pass


def _port(ctx: Context, process: subprocess.Popen[bytes], until: float) -> int:
    assert process.stdout is not None
    line = _line(ctx, process.stdout, until)
    if line is None:
        raise PluginFailed(f"has told no port in {PATIENCE:.0f} s")
    if not line:
        raise PluginFailed(f"ended with {process.wait()} before it told its port")
    if not line.strip().isdigit():
        raise PluginFailed(f"began with {line[:80]!r}, where a plugin tells its port")
    return int(line)


def _line(ctx: Context, stream: IO[bytes], until: float) -> str | None:
    """The first line; "" where there is none, None where time is over."""
    got = b""
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while time.perf_counter() < until:
            ctx.check()
            if not selector.select(0.1):
                continue
            piece = os.read(stream.fileno(), 4096)
            got += piece
            if b"\n" in got or not piece:
                return got.partition(b"\n")[0].decode("utf-8", "replace")
    return None


def _conversation(port: int, configuration: Mapping[str, str]) -> tuple[str, list[tuple[str, str]], float]:
    import grpc
    from google.protobuf import empty_pb2, struct_pb2
    from pulumi.runtime.proto import provider_pb2, provider_pb2_grpc

    urn = f"urn:pulumi:doctor::doctor::pulumi:providers:{PACKAGE}::default"
    news = struct_pb2.Struct()
    news.update(dict(configuration))

    def asked(method: str, request: Any) -> Any:
        return getattr(stub, method)(request, timeout=PATIENCE, wait_for_ready=True)

    with grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.enable_http_proxy", 0)]) as channel:
        stub = provider_pb2_grpc.ResourceProviderStub(channel)
        try:
            asked("Handshake", provider_pb2.ProviderHandshakeRequest())
        except grpc.RpcError as error:
            # One that is older than Handshake answers so, and the engine goes on.
            if error.code() is not grpc.StatusCode.UNIMPLEMENTED:
                raise PluginFailed(f"did not answer the engine's Handshake ({error.details()})") from None
        answered = time.perf_counter()
        try:
            version = asked("GetPluginInfo", empty_pb2.Empty()).version
            checked = asked("CheckConfig", provider_pb2.CheckRequest(urn=urn, news=news))
        except grpc.RpcError as error:
            raise PluginFailed(f"did not answer ({error.details()})") from None
    return version, [(each.property, each.reason) for each in checked.failures], answered
