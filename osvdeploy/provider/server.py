"""The provider's service: gRPC in, :mod:`osvdeploy.provider.lifecycle` in the middle, gRPC out.

Every call has a cancel of its own, which the engine's Cancel, a client that hangs up and the process's end set; the
deadline is the program's `customTimeouts`. No answer, message or line has a secret in it that was not marked as one.
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import grpc
from google.protobuf import empty_pb2, struct_pb2
from pulumi.runtime.proto import plugin_pb2, provider_pb2, provider_pb2_grpc

from osvdeploy.context import CancelToken, Context
from osvdeploy.errors import Interrupted, OsvDeployError
from osvdeploy.provider import lifecycle
from osvdeploy.provider.base import Call, Function, Naming, NamingMode, Operation, Resource
from osvdeploy.provider.codec import MalformedValue, decode, encode
from osvdeploy.provider.declare import PACKAGE
from osvdeploy.provider.diffing import Change, ChangeKind, changes
from osvdeploy.provider.engine import Engine, Row, Severity
from osvdeploy.provider.failures import DETAILS, code_of, told, unfinished_status
from osvdeploy.provider.parsing import Failure, Parser
from osvdeploy.provider.schema import schema_text
from osvdeploy.provider.settings import Applied, Settings
from osvdeploy.provider.values import Properties, Value, is_known
from osvdeploy.version import __version__

_NOT_CONFIG = frozenset({"version", "pluginDownloadURL"})
"""What the engine puts among a provider's inputs for itself."""

_DIFFS: Mapping[tuple[ChangeKind, bool], provider_pb2.PropertyDiff.Kind.ValueType] = {
    (ChangeKind.ADD, False): provider_pb2.PropertyDiff.ADD,
    (ChangeKind.ADD, True): provider_pb2.PropertyDiff.ADD_REPLACE,
    (ChangeKind.DELETE, False): provider_pb2.PropertyDiff.DELETE,
    (ChangeKind.DELETE, True): provider_pb2.PropertyDiff.DELETE_REPLACE,
    (ChangeKind.UPDATE, False): provider_pb2.PropertyDiff.UPDATE,
    (ChangeKind.UPDATE, True): provider_pb2.PropertyDiff.UPDATE_REPLACE,
}

_NAMING = {
    provider_pb2.CheckRequest.AutonamingOptions.PROPOSE: NamingMode.PROPOSE,
    provider_pb2.CheckRequest.AutonamingOptions.ENFORCE: NamingMode.ENFORCE,
    provider_pb2.CheckRequest.AutonamingOptions.DISABLE: NamingMode.DISABLE,
}


class Provider(provider_pb2_grpc.ResourceProviderServicer):
    """One provider: its configuration, the calls that are under way, and the engine that asks."""

    def __init__(
        self,
        resources: Mapping[str, Resource[Any, Any]],
        functions: Mapping[str, Function[Any, Any]],
        engine: Engine,
    ) -> None:
        self._resources, self._functions = resources, functions
        self._engine = engine
        self._settings = Settings()
        self._applied = Applied()
        self._running: set[CancelToken] = set()
        self._cancelled = False
        self._checked: set[str] = set()
        self._lock = threading.Lock()

    # ------------------------------------------------------------------------------------------------------ the plugin

    def Handshake(
        self, request: provider_pb2.ProviderHandshakeRequest, context: grpc.ServicerContext
    ) -> provider_pb2.ProviderHandshakeResponse:
        self._listen_to(request.engine_address)
        return provider_pb2.ProviderHandshakeResponse(
            accept_secrets=True,
            accept_resources=True,
            accept_outputs=False,
            supports_autonaming_configuration=True,
        )

    def Attach(self, request: plugin_pb2.PluginAttach, context: grpc.ServicerContext) -> empty_pb2.Empty:
        self._listen_to(request.address)
        return empty_pb2.Empty()

    def _listen_to(self, address: str) -> None:
        """A new run of the engine's has begun."""
        with self._lock:
            self._cancelled = False
            old = self._engine
            if not address or address == old.address:
                return
            self._engine = Engine(address)
        old.close()

    def GetPluginInfo(self, request: empty_pb2.Empty, context: grpc.ServicerContext) -> plugin_pb2.PluginInfo:
        return plugin_pb2.PluginInfo(version=__version__)

    def GetSchema(
        self, request: provider_pb2.GetSchemaRequest, context: grpc.ServicerContext
    ) -> provider_pb2.GetSchemaResponse:
        if request.version not in (0, 1):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"schema version {request.version} is not known")
        return provider_pb2.GetSchemaResponse(schema=schema_text())

    def Cancel(self, request: empty_pb2.Empty, context: grpc.ServicerContext) -> empty_pb2.Empty:
        self.cancel()
        return empty_pb2.Empty()

    def cancel(self) -> None:
        """End what runs, as soon as it is safe, and begin nothing more in this run of the engine's. Does not wait."""
        with self._lock:
            self._cancelled = True
            running = list(self._running)
        for each in running:
            each.cancel()

    def wait(self, seconds: float) -> None:
        """Until nothing runs, but not longer than that."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with self._lock:
                if not self._running:
                    return
            time.sleep(0.02)

    # --------------------------------------------------------------------------------------------------- configuration

    def CheckConfig(
        self, request: provider_pb2.CheckRequest, context: grpc.ServicerContext
    ) -> provider_pb2.CheckResponse:
        with self._answering(context):
            parser = Parser(texts=True)
            parser.parse(Settings, decode(request.news), ignored=_NOT_CONFIG)
            # As it came: what the environment says is read when it is used, and never recorded.
            return provider_pb2.CheckResponse(inputs=request.news, failures=_failures(parser.failures))

    def DiffConfig(self, request: provider_pb2.DiffRequest, context: grpc.ServicerContext) -> provider_pb2.DiffResponse:
        with self._answering(context):
            old = request.old_inputs if request.HasField("old_inputs") else request.olds
            before, wanted = (
                Parser(texts=True, lenient=True).parse(Settings, decode(each)) for each in (old, request.news)
            )
            return _diff_response(changes(before, wanted))

    def Configure(
        self, request: provider_pb2.ConfigureRequest, context: grpc.ServicerContext
    ) -> provider_pb2.ConfigureResponse:
        with self._answering(context):
            given: dict[str, Value] = dict(decode(request.args))
            if not given:
                prefix = f"{PACKAGE}:config:"
                given = {
                    name.removeprefix(prefix): value
                    for name, value in request.variables.items()
                    if name.startswith(prefix)
                }
            parser = Parser(texts=True)
            settings = parser.parse(Settings, given, ignored=_NOT_CONFIG)
            if parser.failures:
                raise lifecycle.InputsInvalid(
                    [replace(each, path=f"{PACKAGE}:{each.path}") for each in parser.failures]
                )
            with self._lock:
                self._cancelled = False
                self._settings = settings
                if is_known(settings):
                    self._applied.apply(settings)
            return provider_pb2.ConfigureResponse(
                acceptSecrets=True,
                supportsPreview=True,
                acceptResources=True,
                acceptOutputs=False,
                supports_autonaming_configuration=True,
            )

    # ------------------------------------------------------------------------------------------------------- resources

    def Check(self, request: provider_pb2.CheckRequest, context: grpc.ServicerContext) -> provider_pb2.CheckResponse:
        news, olds = self._decoded(context, request.news, request.olds)
        naming = Naming(name=request.name or request.urn.rpartition("::")[2], seed=request.randomSeed)
        if request.HasField("autonaming"):
            asked = request.autonaming
            naming = replace(naming, proposed=asked.proposed_name, mode=_NAMING.get(asked.mode, NamingMode.PROPOSE))
        with self._call(context, request.urn, news, naming=naming) as (resource, call, clean):
            checked = lifecycle.check(resource, call, news, olds)
            with self._lock:
                self._checked.add(request.urn)
            failures = [Failure(each.path, clean(each.reason)) for each in checked.failures]
            return provider_pb2.CheckResponse(inputs=encode(checked.inputs), failures=_failures(failures))

    def Diff(self, request: provider_pb2.DiffRequest, context: grpc.ServicerContext) -> provider_pb2.DiffResponse:
        olds, news, old_inputs = self._decoded(context, request.olds, request.news, request.old_inputs)
        with self._call(context, request.urn, {**olds, **news}) as (resource, call, _):
            recorded = old_inputs if request.HasField("old_inputs") else None
            verdict = lifecycle.diff(resource, request.id, olds, recorded, news)
            with self._lock:
                # A refresh asks too, before the program has said what it wants: then a warning may be out of date.
                planned = request.urn in self._checked
            for warning in verdict.warnings if planned else ():
                call.warn(warning)
            response = _diff_response(_visible(verdict.changes, request.ignoreChanges))
            response.deleteBeforeReplace = verdict.delete_before_replace and bool(response.replaces)
            return response

    def Create(self, request: provider_pb2.CreateRequest, context: grpc.ServicerContext) -> provider_pb2.CreateResponse:
        (news,) = self._decoded(context, request.properties)
        with self._call(
            context, request.urn, news, operation=Operation.CREATE, timeout=request.timeout, preview=request.preview
        ) as (resource, call, clean):
            made = lifecycle.create(resource, call, news)
            _require_finished(resource, made, clean)
            return provider_pb2.CreateResponse(
                id=made.id,
                properties=encode(made.outputs),
                refresh_before_update=resource.REFRESH_BEFORE_UPDATE,
            )

    def Read(self, request: provider_pb2.ReadRequest, context: grpc.ServicerContext) -> provider_pb2.ReadResponse:
        olds, inputs = self._decoded(context, request.properties, request.inputs)
        timeout = getattr(request, "timeout", 0.0)
        with self._call(context, request.urn, {**olds, **inputs}, operation=Operation.READ, timeout=timeout) as (
            resource,
            call,
            clean,
        ):
            recorded = inputs if request.HasField("inputs") and inputs else None
            found = lifecycle.read(resource, call, request.id, olds, recorded)
            if found is None:
                return provider_pb2.ReadResponse()
            _require_finished(resource, found, clean)
            response = provider_pb2.ReadResponse(
                id=found.id,
                properties=encode(found.outputs),
                refresh_before_update=resource.REFRESH_BEFORE_UPDATE,
            )
            if found.inputs is not None:
                response.inputs.CopyFrom(encode(found.inputs))
            return response

    def Update(self, request: provider_pb2.UpdateRequest, context: grpc.ServicerContext) -> provider_pb2.UpdateResponse:
        olds, news, old_inputs = self._decoded(context, request.olds, request.news, request.old_inputs)
        with self._call(
            context,
            request.urn,
            {**olds, **news},
            operation=Operation.UPDATE,
            timeout=request.timeout,
            preview=request.preview,
        ) as (resource, call, clean):
            recorded = old_inputs if request.HasField("old_inputs") else None
            made = lifecycle.update(resource, call, request.id, olds, recorded, news)
            _require_finished(resource, made, clean)
            return provider_pb2.UpdateResponse(
                properties=encode(made.outputs), refresh_before_update=resource.REFRESH_BEFORE_UPDATE
            )

    def Delete(self, request: provider_pb2.DeleteRequest, context: grpc.ServicerContext) -> empty_pb2.Empty:
        olds, old_inputs = self._decoded(context, request.properties, request.old_inputs)
        with self._call(
            context, request.urn, {**olds, **old_inputs}, operation=Operation.DELETE, timeout=request.timeout
        ) as (resource, call, _):
            recorded = old_inputs if request.HasField("old_inputs") else None
            lifecycle.delete(resource, call, request.id, olds, recorded)
            return empty_pb2.Empty()

    def Invoke(self, request: provider_pb2.InvokeRequest, context: grpc.ServicerContext) -> provider_pb2.InvokeResponse:
        (asked,) = self._decoded(context, request.args)
        function = self._functions.get(request.tok)
        if function is None:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"there is no function {request.tok}")
        with self._running_call(context, "", asked, preview=request.preview) as (call, clean):
            answer, failures = lifecycle.invoke(function, call, asked)
            cleaned = [Failure(each.path, clean(each.reason)) for each in failures]
            return provider_pb2.InvokeResponse(**{"return": encode(answer)}, failures=_failures(cleaned))

    # ------------------------------------------------------------------------------------------------- around each call

    @staticmethod
    def _decoded(context: grpc.ServicerContext, *structs: struct_pb2.Struct) -> list[dict[str, Value]]:
        try:
            return [decode(each) for each in structs]
        except MalformedValue as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"the engine sent {error}")

    @contextmanager
    def _call(
        self, context: grpc.ServicerContext, urn: str, given: Properties, **options: Any
    ) -> Iterator[tuple[Resource[Any, Any], Call, Callable[[str], str]]]:
        """A call about a resource, by its URN."""
        # urn:pulumi:STACK::PROJECT::PARENT$TYPE::NAME
        parts = urn.split("::")
        token = parts[2].rpartition("$")[2] if len(parts) > 3 else ""
        resource = self._resources.get(token)
        if resource is None:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"there is no resource {token or urn}")
        if (operation := options.get("operation")) and not options.get("timeout"):
            options["timeout"] = resource.TIMEOUTS.get(operation, 0.0)
        with self._running_call(context, urn, given, **options) as (call, clean):
            yield resource, call, clean

    @contextmanager
    def _running_call(
        self,
        context: grpc.ServicerContext,
        urn: str,
        given: Properties,
        *,
        operation: Operation | None = None,
        timeout: float = 0.0,
        preview: bool = False,
        naming: Naming | None = None,
    ) -> Iterator[tuple[Call, Callable[[str], str]]]:
        hidden = lifecycle.texts_to_hide(given)

        def clean(text: str) -> str:
            # The longest first: one secret may be part of another.
            for each in sorted(hidden, key=len, reverse=True):
                text = text.replace(each, "[secret]")
            return text

        token = CancelToken()
        row = Row(self._engine, urn, clean)
        call = Call(
            ctx=Context(cancel=token, reporter=row).within(timeout or None),
            urn=urn,
            settings=self._settings,
            preview=preview,
            naming=naming or Naming(urn.rpartition("::")[2]),
            status=row.status,
            info=lambda text: row.line(Severity.INFO, text),
            warn=lambda text: row.line(Severity.WARNING, text),
        )
        with self._lock:
            self._running.add(token)
            if self._cancelled:
                token.cancel()
        # Called when the call is over, however: then nothing listens to the token any more.
        if not context.add_callback(token.cancel):
            token.cancel()  # it was over before it began
        try:
            with self._answering(context, clean):
                if operation is not None:
                    call.ctx.check()
                yield call, clean
        finally:
            with self._lock:
                self._running.discard(token)

    @contextmanager
    def _answering(self, context: grpc.ServicerContext, clean: Callable[[str], str] = str) -> Iterator[None]:
        """Errors become gRPC's, with what a person needs to know and nothing secret."""
        try:
            yield
        except OsvDeployError as error:
            if isinstance(error, Interrupted):
                error = Interrupted("interrupted", hint="run `pulumi up` again: nothing is lost")
            context.abort(code_of(error), clean(told(error)))
        except MalformedValue as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, clean(f"the engine sent {error}"))
        except _Unfinished as error:
            context.set_trailing_metadata(((DETAILS, error.status),))
            context.abort(error.code, str(error))
        except Exception as error:
            print(clean(traceback.format_exc()), file=sys.stderr, flush=True)
            context.abort(code_of(error), clean(told(error)))


class _Unfinished(Exception):
    """Ends a call as one that left something begun."""

    def __init__(self, code: grpc.StatusCode, message: str, status: bytes) -> None:
        super().__init__(message)
        self.code, self.status = code, status


def _require_finished(resource: Resource[Any, Any], made: lifecycle.Made, clean: Callable[[str], str]) -> None:
    """Raise _Unfinished where something was begun, or is not healthy."""
    if made.problems:
        code = grpc.StatusCode.FAILED_PRECONDITION if made.cause is None else code_of(made.cause)
        reasons = [clean(each) for each in made.problems]
        message = "; ".join(reasons)
        status = unfinished_status(
            code,
            message,
            id=made.id,
            properties=encode(made.outputs),
            inputs=encode(made.inputs or {}),
            reasons=reasons,
            refresh_before_update=resource.REFRESH_BEFORE_UPDATE,
        )
        raise _Unfinished(code, message, status)


def _failures(failures: Sequence[Failure]) -> list[provider_pb2.CheckFailure]:
    return [provider_pb2.CheckFailure(property=each.path, reason=each.reason) for each in failures]


def _diff_response(found: Sequence[Change]) -> provider_pb2.DiffResponse:
    """The same said three times, since each is read by someone."""
    changed = list(dict.fromkeys(each.property for each in found))
    return provider_pb2.DiffResponse(
        changes=provider_pb2.DiffResponse.DIFF_SOME if found else provider_pb2.DiffResponse.DIFF_NONE,
        diffs=changed,
        replaces=list(dict.fromkeys(each.property for each in found if each.replaces)),
        detailedDiff={
            each.path: provider_pb2.PropertyDiff(kind=_DIFFS[each.kind, each.replaces], inputDiff=each.of_inputs)
            for each in found
        },
        hasDetailedDiff=bool(found),
    )


def _visible(found: Sequence[Change], ignored: Sequence[str]) -> list[Change]:
    """Without what the program wants to be ignored."""

    def inside(path: str) -> bool:
        return any(path == each or path.startswith((f"{each}.", f"{each}[")) for each in ignored)

    return [each for each in found if not inside(each.path)]
