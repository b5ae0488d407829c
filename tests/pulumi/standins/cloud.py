"""What the stand-ins of all clouds share: Pulumi's protocol, as a bridged provider is seen to speak it.

A type of resource is a small class with four verbs and the names of its properties; all else follows from these: what
Check refuses, autonaming, the diff with its replacements, previews with unknown outputs, refresh and import.

    class Bucket(Resource[Account]):
        token = "aws:s3/bucket:Bucket"
        required = ("bucket",)
        replaces = ("bucket",)
        outputs = ("arn",)

        def create(self, call, given): ...   # -> id
        def read(self, call, id): ...        # -> all properties as the cloud has them, or None where it is gone
        def update(self, call, id, given, state): ...
        def delete(self, call, id, state): ...

    if __name__ == "__main__":
        serve(StandIn("aws", "7.51.1", Account, [Bucket()], []))
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import signal
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
from contextlib import contextmanager
from types import FrameType
from typing import Any, ClassVar, Generic, NoReturn, TypeVar

import grpc
from google.protobuf import empty_pb2
from pulumi.runtime.proto import plugin_pb2, provider_pb2, provider_pb2_grpc

from osvdeploy.provider.codec import decode, encode
from osvdeploy.provider.engine import on_parent_gone
from osvdeploy.provider.failures import DETAILS, unfinished_status
from osvdeploy.provider.main import engine_address
from osvdeploy.provider.values import UNKNOWN, Properties, Value, is_known, revealed

Document = dict[str, Any]
"""Properties in plain Python: no secrets, and unknowns in previews alone."""

C = TypeVar("C")

MAPS = frozenset({"labels", "tags"})
"""Inputs whose keys are the program's own: one more is a difference."""

_OF_THE_ENGINE = frozenset({"version", "pluginDownloadURL"})
_DIFF = provider_pb2.PropertyDiff


class Refused(Exception):
    """The cloud refused a call, or the stand-in does not do what was asked. The message is for people."""


class Interrupted(Exception):
    """The engine has said Cancel."""


class Call(Generic[C]):
    """One operation: the cloud, and the engine's Cancel."""

    def __init__(self, connect: Callable[[], C], cancelled: threading.Event) -> None:
        self._connect, self._cancelled = connect, cancelled
        self.begun: str | None = None

    @functools.cached_property
    def cloud(self) -> C:
        return self._connect()

    def made(self, id: str) -> str:
        """From here on something is there: what ends the call leaves it in the state, and the next run goes on."""
        self.begun = id
        return id

    def until(self, reached: Callable[[], bool], what: str, *, seconds: float = 120.0, interval: float = 0.05) -> None:
        """Ask again and again. Raises Interrupted, or Refused after so many seconds."""
        for _ in range(max(1, round(seconds / interval))):
            if reached():
                return
            if self._cancelled.wait(interval):
                raise Interrupted(f"interrupted while waiting for {what}")
        raise Refused(f"timeout while waiting for {what}")


class Resource(ABC, Generic[C]):
    """A type of resource. Names of properties are the SDK's, in camel case."""

    token: ClassVar[str]
    required: ClassVar[Sequence[str]] = ()
    optional: ClassVar[Sequence[str]] = ()
    """Of the inputs that the real type has, those that are served; others are refused by Check."""
    replaces: ClassVar[Sequence[str]] = ()
    """Inputs of which another value makes another resource."""
    in_place: ClassVar[Sequence[str]] = ()
    """Inputs that ``update`` changes. Those in neither list are refused when they change."""
    whole: ClassVar[Sequence[str]] = ()
    """Inputs that say all there is to be: what is there and was left out is a difference. Of others it is the cloud's
    affair."""
    outputs: ClassVar[Sequence[str]] = ()
    """What the cloud adds, unknown until it is made."""
    follows: ClassVar[Mapping[str, str]] = {}
    """Outputs that are other ones when an input is: `{"tagsAll": "tags"}`. No preview knows them then."""
    longest_name: ClassVar[int | None] = None
    """Where a `name` that is left out is made up: the resource's own and 7 digits, of so many characters at most."""

    @property
    def inputs(self) -> frozenset[str]:
        return frozenset((*self.required, *self.optional))

    def fits(self, name: str, wanted: Value, there: Value) -> bool:
        """Whether what is there of an input is what is wanted."""
        return fits(wanted, there)

    def changes(self, news: Document, olds: Document, state: Document, ignored: Sequence[str] = ()) -> list[str]:
        """The inputs that differ from what is there, but for those that the program ignores."""
        changed = []
        for name in sorted({*news, *olds, *self.whole} - set(ignored)):
            there = state.get(name, olds.get(name))
            wanted = news.get(name)
            if name not in news:
                differs = not empty(there if name in self.whole else olds.get(name))
            elif name in MAPS and is_known(wanted):
                differs = (wanted or {}) != (there or {})
            else:
                differs = not self.fits(name, wanted, there)
            if differs:
                changed.append(name)
        return changed

    @abstractmethod
    def create(self, call: Call[C], given: Document) -> str:
        """Make it; its id."""

    @abstractmethod
    def read(self, call: Call[C], id: str) -> Document | None:
        """All inputs and outputs as the cloud has them now; None where there is none. The id alone must do."""

    def update(self, call: Call[C], id: str, given: Document, state: Document) -> None:
        """Change what differs of ``in_place``."""

    @abstractmethod
    def delete(self, call: Call[C], id: str, state: Document) -> None:
        """Take it away; what is gone already is no failure."""


class Function(ABC, Generic[C]):
    """A function of the package. ``arguments`` are those that are served."""

    token: ClassVar[str]
    arguments: ClassVar[Sequence[str]] = ()

    @abstractmethod
    def invoke(self, call: Call[C], given: Document) -> Document: ...


class StandIn(provider_pb2_grpc.ResourceProviderServicer, Generic[C]):
    """A provider. ``connect`` makes of its configuration, as texts, what the types ask; when it is asked for first.

    ``refusals`` are the exceptions by which the cloud's own SDK says no: they fail an operation with their words.
    """

    def __init__(
        self,
        package: str,
        version: str,
        connect: Callable[[Mapping[str, str]], C],
        resources: Sequence[Resource[C]],
        functions: Sequence[Function[C]] = (),
        *,
        configuration: Sequence[str] = (),
        refusals: Callable[[], tuple[type[Exception], ...]] = lambda: (),
    ) -> None:
        self._package, self._version = package, version
        self._connect, self._refusals = connect, refusals
        self._resources = {each.token: each for each in resources}
        self._functions = {each.token: each for each in functions}
        self._configuration = frozenset(configuration) | _OF_THE_ENGINE
        self._configured: dict[str, str] = {}
        self._cloud: C | None = None
        self._cancelled = threading.Event()
        self._connecting = threading.Lock()

    # ------------------------------------------------------------------------------------------------------ the plugin

    def Handshake(
        self, request: provider_pb2.ProviderHandshakeRequest, context: grpc.ServicerContext
    ) -> provider_pb2.ProviderHandshakeResponse:
        return provider_pb2.ProviderHandshakeResponse(accept_secrets=False, accept_resources=False)

    def GetPluginInfo(self, request: empty_pb2.Empty, context: grpc.ServicerContext) -> plugin_pb2.PluginInfo:
        return plugin_pb2.PluginInfo(version=self._version)

    def Cancel(self, request: empty_pb2.Empty, context: grpc.ServicerContext) -> empty_pb2.Empty:
        self._cancelled.set()
        return empty_pb2.Empty()

    def CheckConfig(
        self, request: provider_pb2.CheckRequest, context: grpc.ServicerContext
    ) -> provider_pb2.CheckResponse:
        unserved = sorted(set(decode(request.news)) - self._configuration)
        return provider_pb2.CheckResponse(inputs=request.news, failures=[self._unserved(each) for each in unserved])

    def DiffConfig(self, request: provider_pb2.DiffRequest, context: grpc.ServicerContext) -> provider_pb2.DiffResponse:
        old, new = decode(request.old_inputs), decode(request.news)
        changed = any(old.get(name) != new.get(name) for name in {*old, *new} - _OF_THE_ENGINE)
        some, none = provider_pb2.DiffResponse.DIFF_SOME, provider_pb2.DiffResponse.DIFF_NONE
        return provider_pb2.DiffResponse(changes=some if changed else none)

    def Configure(
        self, request: provider_pb2.ConfigureRequest, context: grpc.ServicerContext
    ) -> provider_pb2.ConfigureResponse:
        given = _plain(decode(request.args))
        prefix = f"{self._package}:config:"
        named = {name.removeprefix(prefix): text for name, text in request.variables.items() if name.startswith(prefix)}
        self._configured = {name: text for name, text in {**named, **given}.items() if isinstance(text, str)}
        return provider_pb2.ConfigureResponse(acceptSecrets=False, supportsPreview=True, acceptResources=False)

    # ------------------------------------------------------------------------------------------------------- resources

    def Check(self, request: provider_pb2.CheckRequest, context: grpc.ServicerContext) -> provider_pb2.CheckResponse:
        with self._asked(context, request.urn) as (type, _):
            news, olds = _plain(decode(request.news)), _plain(decode(request.olds))
            failures = [self._unserved(each) for each in sorted(set(news) - type.inputs)]
            failures += [
                provider_pb2.CheckFailure(property=name, reason="Missing required argument")
                for name in type.required
                if news.get(name) is None
            ]
            if type.longest_name is not None and "name" not in news:
                news["name"] = olds.get("name") or _made_up(request)
                if len(news["name"]) > type.longest_name:
                    reason = f"name {news['name']!r} is longer than {type.longest_name} characters: give a shorter one"
                    failures.append(provider_pb2.CheckFailure(property="name", reason=reason))
            return provider_pb2.CheckResponse(inputs=encode(news), failures=failures)

    def _unserved(self, name: str) -> provider_pb2.CheckFailure:
        reason = f"the stand-in of pulumi-resource-{self._package} does not serve it"
        return provider_pb2.CheckFailure(property=name, reason=reason)

    def Diff(self, request: provider_pb2.DiffRequest, context: grpc.ServicerContext) -> provider_pb2.DiffResponse:
        with self._asked(context, request.urn) as (type, _):
            news, state = _plain(decode(request.news)), _plain(decode(request.olds))
            changed = type.changes(news, _plain(decode(request.old_inputs)), state, request.ignoreChanges)
            replaces = [name for name in changed if name in type.replaces]
            detailed = {
                name: _DIFF(kind=_DIFF.UPDATE_REPLACE if name in replaces else _DIFF.UPDATE, inputDiff=False)
                for name in changed
            }
            some, none = provider_pb2.DiffResponse.DIFF_SOME, provider_pb2.DiffResponse.DIFF_NONE
            return provider_pb2.DiffResponse(
                changes=some if changed else none,
                diffs=changed,
                replaces=replaces,
                detailedDiff=detailed,
                hasDetailedDiff=True,
            )

    def Create(self, request: provider_pb2.CreateRequest, context: grpc.ServicerContext) -> provider_pb2.CreateResponse:
        given = _plain(decode(request.properties))
        with self._asked(context, request.urn, given) as (type, call):
            if request.preview:
                return provider_pb2.CreateResponse(properties=encode({**dict.fromkeys(type.outputs, UNKNOWN), **given}))
            id = type.create(call, given)
            call.made(id)
            return provider_pb2.CreateResponse(id=id, properties=encode(self._state(type, call, id, given)))

    def Read(self, request: provider_pb2.ReadRequest, context: grpc.ServicerContext) -> provider_pb2.ReadResponse:
        with self._asked(context, request.urn) as (type, call):
            seen = type.read(call, request.id)
            if seen is None:
                return provider_pb2.ReadResponse()
            before = _plain(decode(request.inputs)) if request.HasField("inputs") else {}
            # What was left out stays so; of what is taken over, all that says something.
            names = before or [name for name in sorted(type.inputs) if not empty(seen.get(name))]
            inputs = {
                name: before[name] if type.fits(name, before.get(name), seen.get(name)) else seen.get(name)
                for name in names
            }
            properties = encode({**before, **seen})
            return provider_pb2.ReadResponse(id=request.id, properties=properties, inputs=encode(inputs))

    def Update(self, request: provider_pb2.UpdateRequest, context: grpc.ServicerContext) -> provider_pb2.UpdateResponse:
        given, state = _plain(decode(request.news)), _plain(decode(request.olds))
        with self._asked(context, request.urn, given) as (type, call):
            changed = type.changes(given, _plain(decode(request.old_inputs)), state, request.ignoreChanges)
            # What is ignored is written as it was last seen.
            given |= {name: state[name] for name in request.ignoreChanges if name in state}
            if fixed := [name for name in changed if name not in type.in_place]:
                raise Refused(f"the stand-in of pulumi-resource-{self._package} does not change {', '.join(fixed)}")
            if request.preview:
                unknown = {name: UNKNOWN for name, cause in type.follows.items() if cause in changed}
                return provider_pb2.UpdateResponse(properties=encode({**state, **given, **unknown}))
            # Nothing has changed of what was begun: then its state is to be made whole.
            if changed:
                type.update(call, request.id, given, state)
            return provider_pb2.UpdateResponse(properties=encode(self._state(type, call, request.id, given)))

    def Delete(self, request: provider_pb2.DeleteRequest, context: grpc.ServicerContext) -> empty_pb2.Empty:
        with self._asked(context, request.urn) as (type, call):
            type.delete(call, request.id, _plain(decode(request.properties)))
            return empty_pb2.Empty()

    def Invoke(self, request: provider_pb2.InvokeRequest, context: grpc.ServicerContext) -> provider_pb2.InvokeResponse:
        function = self._functions.get(request.tok)
        if function is None:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, self._without(request.tok, self._functions))
        given = {name: value for name, value in _plain(decode(request.args)).items() if value is not None}
        if unserved := sorted(set(given) - set(function.arguments)):
            return provider_pb2.InvokeResponse(failures=[self._unserved(each) for each in unserved])
        with self._calling(context) as call:
            return provider_pb2.InvokeResponse(**{"return": encode(function.invoke(call, given))})

    # --------------------------------------------------------------------------------------------------------- calling

    def _state(self, type: Resource[C], call: Call[C], id: str, given: Document) -> Document:
        seen = type.read(call, id)
        if seen is None:
            raise Refused(f"{id} was made, and is not there")
        return {**given, **seen}

    def _connected(self) -> C:
        """The cloud, which only those ask for who need it: a run that changes nothing imports no SDK."""
        with self._connecting:
            if self._cloud is None:
                self._cloud = self._connect(self._configured)
            return self._cloud

    def _without(self, token: str, served: Mapping[str, object]) -> str:
        return (
            f"the stand-in of pulumi-resource-{self._package} does not serve {token}, but {', '.join(sorted(served))}"
        )

    @contextmanager
    def _asked(
        self, context: grpc.ServicerContext, urn: str, given: Document | None = None
    ) -> Iterator[tuple[Resource[C], Call[C]]]:
        token = urn.split("::")[2].rpartition("$")[2]
        type = self._resources.get(token)
        if type is None:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, self._without(token, self._resources))
        with self._calling(context, given) as call:
            yield type, call

    @contextmanager
    def _calling(self, context: grpc.ServicerContext, given: Document | None = None) -> Iterator[Call[C]]:
        """A call whose failures are told as the engine wants them: of a code, and with what is there all the same."""
        call = Call(self._connected, self._cancelled)
        try:
            yield call
        except Exception as error:
            if not isinstance(error, (Refused, Interrupted, *self._refusals())):
                raise
            code = grpc.StatusCode.CANCELLED if isinstance(error, Interrupted) else grpc.StatusCode.FAILED_PRECONDITION
            if call.begun is not None:
                known = encode(given or {})
                status = unfinished_status(
                    code, str(error), id=call.begun, properties=known, inputs=known, reasons=[str(error)],
                    refresh_before_update=True,
                )  # fmt: skip
                context.set_trailing_metadata(((DETAILS, status),))
            context.abort(code, str(error))


def fits(wanted: Value, there: Value) -> bool:
    """Whether what is there is what is wanted: the cloud may tell more of it, lists in another order, JSON otherwise
    written."""
    if not (is_known(wanted) and is_known(there)):
        return False
    if isinstance(wanted, Mapping) and isinstance(there, Mapping):
        return all(fits(each, there.get(name)) for name, each in wanted.items())
    if isinstance(wanted, list) and isinstance(there, list):
        left = list(there)
        for each in wanted:
            found = next((other for other in left if fits(each, other)), None)
            if found is None:
                return False
            left.remove(found)
        return not left
    if isinstance(wanted, str) and isinstance(there, str) and wanted[:1] == there[:1] == "{":
        return bool(json.loads(wanted) == json.loads(there))
    return wanted == there or (empty(wanted) and empty(there))


def empty(value: Value) -> bool:
    """Whether a value says no more than one that is left out."""
    return value is None or value is False or value in ("", [], {})


def _made_up(request: provider_pb2.CheckRequest) -> str:
    """A name as the bridge makes them up: the resource's, and 7 hex digits that are the same in preview and up."""
    digits = hashlib.sha256(request.randomSeed + request.urn.encode()).hexdigest()[:7]
    return f"{request.urn.rpartition('::')[2]}-{digits}"


def _plain(properties: Properties) -> Document:
    return {name: revealed(value) for name, value in properties.items() if not name.startswith("__")}


def serve(provider: StandIn[Any]) -> NoReturn:
    """Serve until the engine is done with us. Ends the process."""
    parent = os.getppid()
    # A pipe and no Event: a signal's handler runs in the thread that waits, maybe while that holds the Event's lock.
    ended, ending = os.pipe()

    def end() -> None:
        os.write(ending, b"\0")

    def stop(signum: int, frame: FrameType | None) -> None:
        end()

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    server = grpc.server(futures.ThreadPoolExecutor(64))
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(provider, server)
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    server.start()
    if engine_address(sys.argv[1:]) is not None:
        on_parent_gone(parent, end)
    os.read(ended, 1)
    server.stop(grace=0.5).wait()
    sys.stdout.flush()
    os._exit(0)
