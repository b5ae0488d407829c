"""A small engine: runs real Pulumi programs against real provider processes, with a state in a JSON file.

What it does is what Pulumi's engine was seen to do, as far as a provider notices: the order of Check, Diff, Create,
Update, Delete and Read, what each is given, replacements, refreshes before updates, partial failures, defaults and
explicit providers, envelopes stripped. It has no policies, aliases, targets or parallel deletes.

    stack = MiniStack(folder, {"osvdeploy": [SCRIPT]}, environ={...})
    report = stack.up("program.py")
    assert report.ok and report.changes == {"create": 2}
"""

from __future__ import annotations

import json
import os
import re
import threading
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent import futures
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import empty_pb2, json_format, struct_pb2
from pulumi.runtime.proto import (
    engine_pb2,
    engine_pb2_grpc,
    provider_pb2,
    resource_pb2,
    resource_pb2_grpc,
)

from osvdeploy.provider.codec import decode, encode
from osvdeploy.provider.values import UNKNOWN, Output, Properties, Secret, Value, is_known
from tests.pulumi.process import Failed, Logged, ProviderProcess, start
from tests.pulumi.program import Programs

ROOT = Path(__file__).parents[2]
MODULES = os.pathsep.join([str(ROOT), str(ROOT / "sdk" / "python")])
"""What programs and providers import is this checkout's."""
PROVIDERS = "pulumi:providers:"
STACK = "pulumi:pulumi:Stack"
_FEATURES = frozenset({"secrets", "resourceReferences", "outputValues"})
_DIFF = provider_pb2.DiffResponse
_PATIENCE = 300.0
_PROGRAMS = Programs()


@dataclass
class Record:
    """One resource in the state. ``inputs`` and ``outputs`` as JSON of their Structs."""

    urn: str
    type: str
    custom: bool
    id: str = ""
    provider: str = ""
    inputs: dict[str, Any] = field(default_factory=dict)
    outputs: dict[str, Any] = field(default_factory=dict)
    init_errors: list[str] = field(default_factory=list)
    refresh_before_update: bool = False
    retain_on_delete: bool = False
    delete: bool = False
    external: bool = False


@dataclass(frozen=True)
class Step:
    """What was done to a resource: same, create, update, replace, delete, refresh, read; ``paths`` of what changed."""

    op: str
    urn: str
    paths: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.urn.rpartition("::")[2]


@dataclass
class Report:
    """How a run ended."""

    steps: list[Step] = field(default_factory=list)
    lines: list[Logged] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    outputs: dict[str, Value] = field(default_factory=dict)
    program: str = ""

    @property
    def ok(self) -> bool:
        return not self.errors

    @property
    def changes(self) -> dict[str, int]:
        """How many resources each was done to, but for the stack, providers and those that stay."""
        return dict(Counter(each.op for each in self.steps if each.op != "same"))

    def step(self, name: str) -> Step:
        (found,) = [each for each in self.steps if each.name == name]
        return found

    def said(self) -> str:
        """All lines that stay and that users see, and the errors."""
        shown = [each.text for each in self.lines if not each.ephemeral and each.severity != engine_pb2.DEBUG]
        return "\n".join([*shown, *self.errors])


class MiniStack:
    """A stack of a project in a folder. ``plugins`` are the commands of the providers by package."""

    def __init__(
        self,
        folder: Path,
        plugins: Mapping[str, Sequence[str | Path]],
        *,
        environ: Mapping[str, str] | None = None,
        config: Mapping[str, str] | None = None,
        project: str = "project",
        name: str = "dev",
    ) -> None:
        self.folder, self.plugins = folder, plugins
        self.environ = dict(environ or {})
        self.config = dict(config or {})
        self.project, self.name = project, name
        self.file = folder / f".state.{name}.json"
        self.running: _Run | None = None

    def preview(self, program: str) -> Report:
        return self._run(program, preview=True)

    def up(self, program: str) -> Report:
        return self._run(program, preview=False)

    def refresh(self) -> Report:
        with self._open(preview=False) as run:
            run.refresh_all()
        return run.report

    def destroy(self) -> Report:
        with self._open(preview=False) as run:
            run.destroy_all()
        return run.report

    def interrupt(self) -> None:
        """^C, from another thread."""
        if self.running is not None:
            self.running.interrupt()

    @property
    def records(self) -> list[Record]:
        if not self.file.exists():
            return []
        return [Record(**each) for each in json.loads(self.file.read_text())]

    def save(self, records: Sequence[Record]) -> None:
        part = self.file.with_suffix(".part")
        part.write_text(json.dumps([asdict(each) for each in records], indent=1))
        part.replace(self.file)

    def record(self, name: str) -> Record:
        (found,) = [each for each in self.records if each.urn.endswith(f"::{name}") and not each.delete]
        return found

    @contextmanager
    def _open(self, preview: bool) -> Iterator[_Run]:
        run = _Run(self, preview)
        self.running = run
        try:
            yield run
        except _Stop as error:
            run.report.errors.append(str(error))
        finally:
            self.running = None
            run.close()

    def _run(self, program: str, preview: bool) -> Report:
        with self._open(preview) as run:
            config = {f"{key if ':' in key else f'{self.project}:{key}'}": text for key, text in self.config.items()}
            words = (program, run.address, run.address, self.project, self.name, "preview" if preview else "up")
            environ = {**os.environ, "PYTHONPATH": MODULES, **self.environ, "PULUMI_CONFIG": json.dumps(config)}
            code, printed = _PROGRAMS.run(words, self.folder, environ, self.file.with_suffix(".program"), _PATIENCE)
            run.report.program = printed
            if code and not run.report.errors:
                run.report.errors.append(printed)
            if not run.report.errors:
                run.finish()
        return run.report


class _Stop(Exception):
    """The run cannot go on."""


@dataclass
class _Connected:
    """A provider that is asked; ``process`` is None where its configuration is not known yet."""

    process: ProviderProcess | None


class _Run(engine_pb2_grpc.EngineServicer, resource_pb2_grpc.ResourceMonitorServicer):
    """One preview, up, refresh or destroy."""

    def __init__(self, stack: MiniStack, preview: bool) -> None:
        self.stack, self.preview = stack, preview
        self.report = Report()
        self.records = stack.records
        self.old = {each.urn: each for each in self.records if not each.delete}
        self.seen: set[str] = set()
        self.lock = threading.RLock()
        self.starting = threading.Lock()
        self.providers: dict[str, _Connected] = {}
        self.root = ""
        self.interrupted = False
        self.server = grpc.server(futures.ThreadPoolExecutor(64))
        engine_pb2_grpc.add_EngineServicer_to_server(self, self.server)
        resource_pb2_grpc.add_ResourceMonitorServicer_to_server(self, self.server)
        self.address = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        self.server.start()

    def close(self) -> None:
        for each in self.providers.values():
            if each.process is not None:
                # The engine says Cancel to each at a normal end too.
                each.process.cancel()
                each.process.end()
                assert each.process.process.stdout is not None
                each.process.process.stdout.close()
        self.server.stop(grace=None).wait()

    def interrupt(self) -> None:
        self.interrupted = True
        for each in list(self.providers.values()):
            if each.process is not None:
                each.process.cancel()

    # --------------------------------------------------------------------------------------------- the engine's service

    def Log(self, request: engine_pb2.LogRequest, context: grpc.ServicerContext) -> empty_pb2.Empty:
        with self.lock:
            self.report.lines.append(Logged(request.severity, request.message, request.urn, request.ephemeral))
        return empty_pb2.Empty()

    def GetRootResource(
        self, request: engine_pb2.GetRootResourceRequest, context: grpc.ServicerContext
    ) -> engine_pb2.GetRootResourceResponse:
        return engine_pb2.GetRootResourceResponse(urn=self.root)

    def SetRootResource(
        self, request: engine_pb2.SetRootResourceRequest, context: grpc.ServicerContext
    ) -> engine_pb2.SetRootResourceResponse:
        self.root = request.urn
        return engine_pb2.SetRootResourceResponse()

    def RequirePulumiVersion(
        self, request: engine_pb2.RequirePulumiVersionRequest, context: grpc.ServicerContext
    ) -> engine_pb2.RequirePulumiVersionResponse:
        return engine_pb2.RequirePulumiVersionResponse()

    # -------------------------------------------------------------------------------------------- the monitor's service

    def SupportsFeature(
        self, request: resource_pb2.SupportsFeatureRequest, context: grpc.ServicerContext
    ) -> resource_pb2.SupportsFeatureResponse:
        return resource_pb2.SupportsFeatureResponse(hasSupport=request.id in _FEATURES)

    def GetDeploymentInfo(self, request: empty_pb2.Empty, context: grpc.ServicerContext) -> resource_pb2.DeploymentInfo:
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "an engine of before that")

    def SignalAndWaitForShutdown(self, request: empty_pb2.Empty, context: grpc.ServicerContext) -> empty_pb2.Empty:
        return empty_pb2.Empty()

    def RegisterResource(
        self, request: resource_pb2.RegisterResourceRequest, context: grpc.ServicerContext
    ) -> resource_pb2.RegisterResourceResponse:
        try:
            record = self._register(request)
        except _Stop as error:
            with self.lock:
                self.report.errors.append(str(error))
            context.abort(grpc.StatusCode.UNKNOWN, str(error))
        return resource_pb2.RegisterResourceResponse(urn=record.urn, id=record.id, object=_struct(record.outputs))

    def RegisterResourceOutputs(
        self, request: resource_pb2.RegisterResourceOutputsRequest, context: grpc.ServicerContext
    ) -> empty_pb2.Empty:
        outputs = stripped(decode(request.outputs))
        with self.lock:
            for each in self.records:
                if each.urn == request.urn and not each.delete:
                    each.outputs = _json(outputs)
            if f"::{STACK}::" in request.urn:
                self.report.outputs = outputs
        self._save()
        return empty_pb2.Empty()

    def ReadResource(
        self, request: resource_pb2.ReadResourceRequest, context: grpc.ServicerContext
    ) -> resource_pb2.ReadResourceResponse:
        urn = self._urn(request.type, request.name, request.parent)
        try:
            provider = self._provider(request.provider or self._default(request.type))
            if provider is None:
                return resource_pb2.ReadResourceResponse(urn=urn)
            id, outputs, _ = provider.read(request.type, request.id, stripped(decode(request.properties)), urn=urn)
        except (Failed, _Stop) as error:
            self.report.errors.append(f"{urn}: {error}")
            context.abort(grpc.StatusCode.UNKNOWN, str(error))
        if not id:
            context.abort(grpc.StatusCode.NOT_FOUND, f"resource '{request.id}' does not exist")
        self._put(Record(urn, request.type, True, id, outputs=_json(outputs), external=True), Step("read", urn))
        return resource_pb2.ReadResourceResponse(urn=urn, properties=encode(outputs))

    def Invoke(
        self, request: resource_pb2.ResourceInvokeRequest, context: grpc.ServicerContext
    ) -> provider_pb2.InvokeResponse:
        try:
            provider = self._provider(request.provider or self._default(request.tok))
            if provider is None:
                return provider_pb2.InvokeResponse()
            asked = encode(stripped(decode(request.args)))
            response: provider_pb2.InvokeResponse = provider.ask(
                "Invoke", provider_pb2.InvokeRequest(tok=request.tok, args=asked, preview=self.preview)
            )
        except (Failed, _Stop) as error:
            context.abort(grpc.StatusCode.UNKNOWN, str(error))
        return response

    # ------------------------------------------------------------------------------------------------------ registering

    def _urn(self, type: str, name: str, parent: str) -> str:
        above = parent.split("::")[2] if parent and f"::{STACK}::" not in parent else ""
        return f"urn:pulumi:{self.stack.name}::{self.stack.project}::{f'{above}$' if above else ''}{type}::{name}"

    def _register(self, request: resource_pb2.RegisterResourceRequest) -> Record:
        if self.interrupted:
            raise _Stop("interrupted")
        urn = self._urn(request.type, request.name, request.parent)
        with self.lock:
            if urn in self.seen:
                raise _Stop(f"{urn}: Duplicate resource URN")
            self.seen.add(urn)
            old = self.old.get(urn)
        news = stripped(decode(request.object))
        if not request.custom:
            record = Record(urn, request.type, False, inputs=_json(news), outputs=_json(news))
            return self._put(record, Step("same" if old else "create", urn), old)
        try:
            if request.type.startswith(PROVIDERS):
                return self._register_provider(request, urn, news, old)
            return self._register_custom(request, urn, news, old)
        except Failed as error:
            raise _Stop(f"{urn}: {error.message}") from None

    def _register_provider(
        self, request: resource_pb2.RegisterResourceRequest, urn: str, news: Properties, old: Record | None
    ) -> Record:
        news = {name: json.dumps(value) if isinstance(value, dict | list) else value for name, value in news.items()}
        if request.version:
            news["version"] = request.version
        id = old.id if old is not None else str(uuid.uuid4())
        record = Record(urn, request.type, True, id, inputs=_json(news), outputs=_json(news))
        self._connect(f"{urn}::{id}", request.type.removeprefix(PROVIDERS), news)
        if old is None:
            return self._put(record, Step("create", urn))
        changed = _decoded(old.inputs) != news
        return self._put(record, Step("update" if changed else "same", urn), old)

    def _register_custom(
        self, request: resource_pb2.RegisterResourceRequest, urn: str, news: Properties, old: Record | None
    ) -> Record:
        reference = request.provider or self._default(request.type)
        provider = self._provider(reference)
        kind, timeouts = request.type, request.customTimeouts
        if provider is None:
            # Its configuration is not known yet: the engine does not ask it at all.
            return self._put(Record(urn, kind, True, "", reference), Step("update" if old else "create", urn), old)
        if old is not None and old.refresh_before_update:
            read = self._read(provider, old)
            if read is None:
                self._drop(old)
            old = read
        old_inputs = _decoded(old.inputs) if old is not None else {}
        if old is not None:
            for ignored in request.ignoreChanges:
                if ignored in old_inputs:
                    news = {**news, ignored: old_inputs[ignored]}
        inputs, failures = provider.check(kind, news, old_inputs, urn=urn, randomSeed=urn.encode())
        if failures:
            told = "; ".join(f"property {path}: {reason}" if path else reason for path, reason in failures)
            raise _Stop(f"{urn}: {told}")
        made = Record(urn, kind, True, "", reference, _json(inputs), retain_on_delete=request.retainOnDelete)
        if old is None:
            return self._create(provider, made, inputs, seconds(timeouts.create), "create", None, {})
        given = {"urn": urn, "ignoreChanges": list(request.ignoreChanges)}
        diff = provider.diff(kind, old.id, _decoded(old.outputs), old_inputs, inputs, **given)
        if diff.replaces:
            if diff.delete_before_replace or request.deleteBeforeReplace:
                if not self.preview:
                    self._delete(provider, old)
                self._drop(old)
            else:
                old.delete = True
            return self._create(provider, made, inputs, seconds(timeouts.create), "replace", None, diff.detailed)
        if diff.changes == _DIFF.DiffChanges.Name(_DIFF.DIFF_NONE) and not old.init_errors:
            made.id, made.outputs, made.refresh_before_update = old.id, old.outputs, old.refresh_before_update
            return self._put(made, Step("same", urn), old)
        return self._update(
            provider, made, inputs, old, old_inputs, seconds(timeouts.update), diff.detailed, request.ignoreChanges
        )

    def _create(
        self, provider: ProviderProcess, made: Record, inputs: Properties, timeout: float, op: str,
        old: Record | None, paths: Mapping[str, str],
    ) -> Record:  # fmt: skip
        request = provider_pb2.CreateRequest(
            urn=made.urn, properties=encode(inputs), timeout=timeout, preview=self.preview
        )
        try:
            answer = provider.ask("Create", request, _PATIENCE)
        except Failed as error:
            self._keep_unfinished(error, made, None)
            raise
        made.id = answer.id
        made.outputs = _json(decode(answer.properties))
        made.refresh_before_update = answer.refresh_before_update
        if not self.preview and not (made.id and is_known(decode(answer.properties))):
            raise _Stop(f"{made.urn}: a creation without an id, or with unknown outputs")
        return self._put(made, Step(op, made.urn, paths), old)

    def _update(
        self, provider: ProviderProcess, made: Record, inputs: Properties, old: Record, old_inputs: Properties,
        timeout: float, paths: Mapping[str, str], ignored: Sequence[str],
    ) -> Record:  # fmt: skip
        made.id = old.id
        request = provider_pb2.UpdateRequest(
            urn=made.urn, id=old.id, olds=_struct(old.outputs), old_inputs=encode(old_inputs), news=encode(inputs),
            timeout=timeout, preview=self.preview, ignoreChanges=ignored,
        )  # fmt: skip
        try:
            answer = provider.ask("Update", request, _PATIENCE)
        except Failed as error:
            self._keep_unfinished(error, made, old)
            raise
        made.outputs = _json(decode(answer.properties))
        made.refresh_before_update = answer.refresh_before_update
        return self._put(made, Step("update", made.urn, paths), old)

    def _keep_unfinished(self, error: Failed, made: Record, old: Record | None) -> None:
        """What was begun is recorded, with the inputs that the provider says."""
        told = error.unfinished
        if told is None or self.preview:
            return
        made.id, made.init_errors = told.id, list(told.reasons)
        made.inputs, made.outputs = _json(decode(told.inputs)), _json(decode(told.properties))
        made.refresh_before_update = told.refresh_before_update
        self._put(made, Step("failed", made.urn), old)
        error.message = "; ".join(told.reasons)

    # ------------------------------------------------------------------------------------------ refreshing and deleting

    def _read(self, provider: ProviderProcess, record: Record) -> Record | None:
        """The record as it is seen now, None where it is gone."""
        request = provider_pb2.ReadRequest(
            urn=record.urn, id=record.id, properties=_struct(record.outputs), inputs=_struct(record.inputs)
        )
        try:
            answer = provider.ask("Read", request, _PATIENCE)
        except Failed as error:
            if error.unfinished is None:
                raise
            record.init_errors = list(error.unfinished.reasons)
            record.outputs = _json(decode(error.unfinished.properties))
            record.inputs = _json(decode(error.unfinished.inputs))
            record.refresh_before_update = error.unfinished.refresh_before_update
            return record
        if not answer.id:
            return None
        record.init_errors = []
        record.outputs = _json(decode(answer.properties))
        if answer.HasField("inputs"):
            record.inputs = _json(decode(answer.inputs))
        record.refresh_before_update = answer.refresh_before_update
        return record

    def refresh_all(self) -> None:
        for record in list(self.records):
            provider = self._of(record)
            if provider is None:
                continue
            inputs, outputs = record.inputs, record.outputs
            try:
                read = self._read(provider, record)
            except Failed as error:
                raise _Stop(f"{record.urn}: {error.message}") from None
            if read is None:
                self._drop(record)
                self.report.steps.append(Step("delete", record.urn))
                continue
            # Asked with the roles exchanged: what is there is old, what was given is new.
            diff = provider.diff(
                record.type, record.id, _decoded(read.outputs), _decoded(read.inputs), _decoded(inputs), urn=record.urn
            )
            changed = diff.changes != "DIFF_NONE" or read.outputs != outputs
            self.report.steps.append(Step("refresh" if changed else "same", record.urn, diff.detailed))
        self._save()

    def destroy_all(self) -> None:
        for record in reversed(list(self.records)):
            provider = self._of(record)
            if provider is not None:
                try:
                    if record.refresh_before_update and self._read(provider, record) is None:
                        self._drop(record)
                        continue
                    self._delete(provider, record)
                except Failed as error:
                    raise _Stop(f"{record.urn}: {error.message}") from None
                self.report.steps.append(Step("delete", record.urn))
            self._drop(record)

    def finish(self) -> None:
        """Delete what the program does not have any more, and what was replaced; the last that was made first."""
        for record in reversed(list(self.records)):
            if record.urn in self.seen and not record.delete:
                continue
            provider = self._of(record)
            if provider is not None:
                if not self.preview:
                    try:
                        self._delete(provider, record)
                    except Failed as error:
                        raise _Stop(f"{record.urn}: {error.message}") from None
                self.report.steps.append(Step("delete", record.urn))
            self._drop(record)

    def _delete(self, provider: ProviderProcess, record: Record) -> None:
        if not record.retain_on_delete:
            provider.delete(record.type, record.id, _decoded(record.outputs), _decoded(record.inputs), urn=record.urn)

    # ------------------------------------------------------------------------------------------------------- providers

    def _of(self, record: Record) -> ProviderProcess | None:
        """Who answers for a record; None for components, providers and what was only read."""
        if not record.custom or record.external or record.type.startswith(PROVIDERS):
            return None
        return self._provider(record.provider)

    def _default(self, token: str) -> str:
        return f"default::{token.partition(':')[0]}"

    def _provider(self, reference: str) -> ProviderProcess | None:
        """A provider by its reference; None where its configuration is not known yet."""
        with self.starting:
            if reference not in self.providers:
                if reference.startswith("default::"):
                    package = reference.removeprefix("default::")
                    prefix = f"{package}:"
                    config: Properties = {
                        key.removeprefix(prefix): text
                        for key, text in self.stack.config.items()
                        if key.startswith(prefix)
                    }
                else:
                    urn, _, id = reference.rpartition("::")
                    (record,) = [each for each in self.records if each.urn == urn and each.id == id]
                    package, config = record.type.removeprefix(PROVIDERS), _decoded(record.inputs)
                self._connect(reference, package, config)
            return self.providers[reference].process

    def _connect(self, reference: str, package: str, config: Properties) -> None:
        if package not in self.stack.plugins:
            raise _Stop(f"no plugin for {package}")
        environ = {"PYTHONPATH": MODULES, **self.stack.environ, "PULUMI_PROJECT": self.stack.project}
        process = start(self.stack.folder, environ, engine=self.address, command=self.stack.plugins[package])
        self.providers[reference] = _Connected(process)
        process.ask("Handshake", provider_pb2.ProviderHandshakeRequest(engine_address=self.address))
        checked = process.ask("CheckConfig", provider_pb2.CheckRequest(urn=reference, news=encode(config)))
        if checked.failures:
            raise _Stop("; ".join(f"{package}:{each.property}: {each.reason}" for each in checked.failures))
        if not is_known(dict(config)):
            self.providers[reference] = _Connected(None)
            process.end()
            assert process.process.stdout is not None
            process.process.stdout.close()
            return
        process.configure(**config)

    # ----------------------------------------------------------------------------------------------------------- state

    def _put(self, record: Record, step: Step, old: Record | None = None) -> Record:
        with self.lock:
            if old is not None and old in self.records:
                self.records.remove(old)
            self.records.append(record)
            if record.type != STACK and not record.type.startswith(PROVIDERS):
                self.report.steps.append(step)
        self._save()
        return record

    def _drop(self, record: Record) -> None:
        with self.lock:
            self.records.remove(record)
        self._save()

    def _save(self) -> None:
        if not self.preview:
            with self.lock:
                self.stack.save(self.records)


def stripped(properties: Properties) -> dict[str, Value]:
    """Without the envelopes of outputs, as providers are given them: plain, secret or unknown."""

    def strip(value: Value) -> Value:
        if isinstance(value, Output):
            inner = strip(value.value)
            return Secret(inner) if value.secret else inner
        if isinstance(value, Secret):
            return Secret(strip(value.value))
        if isinstance(value, Mapping):
            return {name: strip(each) for name, each in value.items()}
        return [strip(each) for each in value] if isinstance(value, list) else value

    return {name: strip(value) for name, value in properties.items()}


def seconds(duration: str) -> float:
    """Go's way of writing a duration: ``1h30m``, ``90s``, ``250ms``; 0 for none."""
    units = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
    return sum(float(number) * units[unit] for number, unit in re.findall(r"([0-9.]+)(ms|h|m|s)", duration))


def _json(properties: Properties) -> dict[str, Any]:
    document: dict[str, Any] = json_format.MessageToDict(encode(properties))
    return document


def _struct(recorded: Mapping[str, Any]) -> struct_pb2.Struct:
    return json_format.ParseDict(recorded, struct_pb2.Struct())


def _decoded(recorded: Mapping[str, Any]) -> dict[str, Value]:
    return decode(_struct(recorded))


__all__ = ["UNKNOWN", "MiniStack", "Record", "Report", "Step"]
