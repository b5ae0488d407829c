"""The provider as the engine has it: a process of its own, asked over gRPC. And an engine that listens."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import empty_pb2, struct_pb2
from google.rpc import status_pb2
from pulumi.runtime.proto import engine_pb2, engine_pb2_grpc, provider_pb2, provider_pb2_grpc

from osvdeploy.provider.codec import decode, encode
from osvdeploy.provider.failures import DETAILS
from osvdeploy.provider.values import Properties, Value

SCRIPT = Path(sys.executable).parent / "pulumi-resource-osvdeploy"
PATIENCE = 60.0
"""Seconds that an answer may take, on a machine that has other things to do."""


def urn_of(token: str, name: str = "it") -> str:
    return f"urn:pulumi:dev::project::{token}::{name}"


@dataclass(frozen=True, slots=True)
class Logged:
    """A line that the engine was given."""

    severity: int
    text: str
    urn: str
    ephemeral: bool


class ListeningEngine(engine_pb2_grpc.EngineServicer):
    """The engine's side of a provider's lines."""

    def __init__(self) -> None:
        self.lines: list[Logged] = []
        self.server = grpc.server(futures.ThreadPoolExecutor(8))
        engine_pb2_grpc.add_EngineServicer_to_server(self, self.server)
        self.address = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        self.server.start()

    def Log(self, request: engine_pb2.LogRequest, context: grpc.ServicerContext) -> empty_pb2.Empty:
        self.lines.append(Logged(request.severity, request.message, request.urn, request.ephemeral))
        return empty_pb2.Empty()

    def stop(self) -> None:
        self.server.stop(grace=None).wait()


class Failed(Exception):
    """A call that ended with an error; ``unfinished`` where the details tell of something that was begun."""

    def __init__(
        self, code: grpc.StatusCode, message: str, unfinished: provider_pb2.ErrorResourceInitFailed | None = None
    ) -> None:
        super().__init__(f"{code.name}: {message}")
        self.code, self.message, self.unfinished = code, message, unfinished


@dataclass(frozen=True)
class Diffed:
    changes: str
    detailed: Mapping[str, str]
    replaces: Sequence[str]
    delete_before_replace: bool = False


@dataclass
class ProviderProcess:
    """A provider process and what one says to it, in Python's own values."""

    process: subprocess.Popen[bytes]
    port: int
    channel: grpc.Channel
    stub: provider_pb2_grpc.ResourceProviderStub
    said: list[str] = field(default_factory=list)

    @property
    def pid(self) -> int:
        return self.process.pid

    def ask(self, method: str, request: Any, timeout: float = PATIENCE) -> Any:
        """A call's answer. Raises Failed."""
        try:
            return getattr(self.stub, method)(request, timeout=timeout)
        except grpc.RpcError as error:
            raise failed(error) from None

    def configure(self, **values: Value) -> provider_pb2.ConfigureResponse:
        response: provider_pb2.ConfigureResponse = self.ask(
            "Configure", provider_pb2.ConfigureRequest(args=encode(values), acceptSecrets=True, acceptResources=True)
        )
        return response

    def check(
        self, token: str, news: Properties, olds: Properties | None = None, **more: Any
    ) -> tuple[dict[str, Value], list[tuple[str, str]]]:
        """The checked inputs, and failures by property."""
        request = provider_pb2.CheckRequest(
            **{"urn": urn_of(token), "olds": encode(olds or {}), "news": encode(news), "randomSeed": b"seed"} | more
        )
        response = self.ask("Check", request)
        return decode(response.inputs), [(each.property, each.reason) for each in response.failures]

    def diff(
        self, token: str, id: str, olds: Properties, old_inputs: Properties, news: Properties, **more: Any
    ) -> Diffed:
        request = provider_pb2.DiffRequest(
            **{"urn": urn_of(token), "id": id, "olds": encode(olds), "old_inputs": encode(old_inputs)}
            | {"news": encode(news)}
            | more
        )
        response = self.ask("Diff", request)
        kinds = provider_pb2.PropertyDiff.Kind
        return Diffed(
            provider_pb2.DiffResponse.DiffChanges.Name(response.changes),
            {path: kinds.Name(each.kind) for path, each in response.detailedDiff.items()},
            list(response.replaces),
            response.deleteBeforeReplace,
        )

    def create(self, token: str, news: Properties, **more: Any) -> tuple[str, dict[str, Value]]:
        request = provider_pb2.CreateRequest(**{"urn": urn_of(token), "properties": encode(news)} | more)
        response = self.ask("Create", request)
        return response.id, decode(response.properties)

    def read(
        self, token: str, id: str, olds: Properties | None = None, inputs: Properties | None = None, **more: Any
    ) -> tuple[str, dict[str, Value], dict[str, Value] | None]:
        request = provider_pb2.ReadRequest(**{"urn": urn_of(token), "id": id, "properties": encode(olds or {})} | more)
        if inputs is not None:
            request.inputs.CopyFrom(encode(inputs))
        response = self.ask("Read", request)
        told = decode(response.inputs) if response.HasField("inputs") else None
        return response.id, decode(response.properties), told

    def update(
        self, token: str, id: str, olds: Properties, old_inputs: Properties, news: Properties, **more: Any
    ) -> dict[str, Value]:
        request = provider_pb2.UpdateRequest(
            **{"urn": urn_of(token), "id": id, "olds": encode(olds), "old_inputs": encode(old_inputs)}
            | {"news": encode(news)}
            | more
        )
        return decode(self.ask("Update", request).properties)

    def delete(self, token: str, id: str, olds: Properties, old_inputs: Properties, **more: Any) -> None:
        request = provider_pb2.DeleteRequest(
            **{"urn": urn_of(token), "id": id, "properties": encode(olds), "old_inputs": encode(old_inputs)} | more
        )
        self.ask("Delete", request)

    def invoke(self, token: str, asked: Properties) -> tuple[dict[str, Value], list[tuple[str, str]]]:
        response = self.ask("Invoke", provider_pb2.InvokeRequest(tok=token, args=encode(asked)))
        answer: struct_pb2.Struct = getattr(response, "return")
        return decode(answer), [(each.property, each.reason) for each in response.failures]

    def cancel(self) -> None:
        self.ask("Cancel", empty_pb2.Empty())

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        """The exit code after a signal."""
        self.channel.close()
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.process.wait(PATIENCE)

    def output(self) -> str:
        """All that it has printed; once it has ended."""
        assert self.process.stdout is not None
        return self.process.stdout.read().decode()


def failed(error: grpc.RpcError) -> Failed:
    details: dict[str, Any] = {each.key: each.value for each in error.trailing_metadata() or ()}
    unfinished = None
    if DETAILS in details:
        status = status_pb2.Status.FromString(details[DETAILS])
        assert status.code == error.code().value[0]
        for each in status.details:
            message = provider_pb2.ErrorResourceInitFailed()
            if each.Unpack(message):
                unfinished = message
    return Failed(error.code(), error.details() or "", unfinished)


def start(
    folder: Path,
    environ: Mapping[str, str],
    *,
    engine: str | None = None,
    command: Sequence[str | Path] = (SCRIPT,),
    arguments: Sequence[str] = (),
) -> ProviderProcess:
    """A provider process as the engine starts it: in the program's folder, with what it prints kept."""
    process = subprocess.Popen(
        [*map(str, command), *arguments, *([engine] if engine else [])],
        cwd=folder,
        env={**os.environ, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    assert process.stdout is not None
    watchdog = threading.Timer(PATIENCE, process.kill)
    watchdog.start()
    line = process.stdout.readline()
    watchdog.cancel()
    assert line.strip().isdigit(), (line + process.stdout.read()).decode()
    port = int(line)
    channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.enable_http_proxy", 0)])
    return ProviderProcess(process, port, channel, provider_pb2_grpc.ResourceProviderStub(channel))


@contextmanager
def running(folder: Path, environ: Mapping[str, str], **how: Any) -> Iterator[ProviderProcess]:
    """A provider that was shaken hands with and configured, ended afterwards."""
    provider = start(folder, environ, **how)
    try:
        provider.ask("Handshake", provider_pb2.ProviderHandshakeRequest(engine_address=how.get("engine") or ""))
        provider.configure()
        yield provider
    finally:
        provider.end(signal.SIGKILL)
        assert provider.process.stdout is not None
        provider.process.stdout.close()
