"""Google's APIs over HTTP: each call reported, repeated and translated in one way.

A thin client of ours and not google-cloud-compute, which takes 1.6 s to import, polls operations at Google's own
address whatever endpoint is set, sends no request ids, and repeats neither 429 nor 500. Its types judge our requests in
the tests. google-auth finds and refreshes credentials.

An adapter writes::

    answer = gcp.get(ctx, f"{gcp.project_path}/global/images/{name}", f"image {name}")
    gcp.finish(ctx, gcp.post(ctx, path, document, "image x", request_id=token), "image x")

Each attempt becomes a :class:`~osvdeploy.events.CloudCall`; one that is throttled or not answered is repeated on the
Context's clock, so that a cancel or the deadline ends it and nothing sleeps in virtual time. A call that changes
something carries a ``requestId``, the same in each of its attempts: Compute Engine then does it once.
"""

from __future__ import annotations

import functools
import json
import os
import threading
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from osvdeploy.cloud.connecting import looking_when_connected
from osvdeploy.cloud.gcp.errors import Fault, refusal, translate
from osvdeploy.context import Context
from osvdeploy.errors import NotFound, OsvDeployError, Unavailable, UsageError
from osvdeploy.events import CloudCall
from osvdeploy.retry import retrying
from osvdeploy.version import __version__

if TYPE_CHECKING:
    import requests

COMPUTE = "https://compute.googleapis.com"
STORAGE = "https://storage.googleapis.com"
MONITORING = "https://monitoring.googleapis.com"
PUBSUB = "https://pubsub.googleapis.com"

COMPUTE_VARIABLE = "OSVDEPLOY_GCP_COMPUTE_ENDPOINT"
PUBSUB_VARIABLE = "PUBSUB_EMULATOR_HOST"
MONITORING_VARIABLE = "OSVDEPLOY_GCP_MONITORING_ENDPOINT"
STORAGE_VARIABLE = "STORAGE_EMULATOR_HOST"
"""google-cloud-storage's own variable."""

CONNECT_TIMEOUT = 3.0
READ_TIMEOUT = 15.0
"""Seconds."""

HELD = 5.0
"""Seconds for which we let Compute Engine's ``wait`` hold a request. It would for two minutes, in which no cancel would
reach us."""

ATTEMPTS = 4

CONNECTIONS = 32
"""Kept open at once: more than any adapter has calls in flight."""

SCOPE = "https://www.googleapis.com/auth/cloud-platform"

Document = dict[str, Any]

_when_connected: ContextVar[Callable[[], None] | None] = ContextVar("osvdeploy-gcp-when-connected", default=None)
"""What a connection asks when it is made, and before anything is sent by it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer that is a success. Header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Document:
        found = json.loads(self.body) if self.body else {}
        return found if isinstance(found, dict) else {}


class Gcp:
    """One project, which Cloud Storage does without. Safe to share between threads."""

    def __init__(
        self,
        project: str = "",
        *,
        compute: str | None = None,
        storage: str | None = None,
        monitoring: str | None = None,
        pubsub: str | None = None,
        declared: str | None = None,
        session: requests.Session | None = None,
    ) -> None:
        """``compute``, ``storage``, ``monitoring`` and ``pubsub`` are base addresses; without one the environment's,
        else Google's own.
        ``declared`` is Compute Engine's, where the environment has none. ``session`` is a prepared one, credentials and
        all (tests deliver its requests in process).

        Raises :class:`~osvdeploy.errors.UsageError` for an address that is none.
        """
        self.project = project
        self.declared = declared
        self.compute = _base(compute or os.environ.get(COMPUTE_VARIABLE) or declared or COMPUTE)
        self.storage = _base(storage or os.environ.get(STORAGE_VARIABLE) or STORAGE)
        self.monitoring = _base(monitoring or os.environ.get(MONITORING_VARIABLE) or MONITORING)
        # Google's own clients take a host and a port there.
        emulator = os.environ.get(PUBSUB_VARIABLE)
        if emulator and "://" not in emulator:
            emulator = f"http://{emulator}"
        self.pubsub = _base(pubsub or emulator or PUBSUB)
        self._given = session
        self._sessions: dict[bool, requests.Session] = {}
        """By whether they show credentials."""
        self._making = threading.Lock()

    @property
    def project_path(self) -> str:
        """What every address of Compute Engine's begins with."""
        return f"{self.compute}/compute/v1/projects/{quote(self.project, safe='')}"

    # ----------------------------------------------------------------------------------------------------- calling

    def get(
        self, ctx: Context, url: str, what: str, query: Mapping[str, str] | None = None, *, attempts: int = ATTEMPTS
    ) -> Document:
        """Read one thing. Raises :class:`~osvdeploy.errors.NotFound`."""
        return self.send(ctx, "GET", url, what, query=query, attempts=attempts).json()

    def counted_on(self, ctx: Context, url: str, what: str, *, key: str, made_by: str) -> Document:
        """As :meth:`get`, for what the user makes and the spec names as ``key``: where it is missing, that is said."""
        try:
            return self.get(ctx, url, what)
        except NotFound as missing:
            missing.hint = f"make it first ({made_by}), or mend `{key}` in the spec"
            raise

    def ask(self, ctx: Context, url: str, what: str, document: Document | None = None) -> Document:
        """Read what has to be posted for (``getHealth``)."""
        return self.send(
            ctx, "POST", url, what, body=None if document is None else json.dumps(document).encode()
        ).json()

    def pages(
        self, ctx: Context, url: str, what: str, query: Mapping[str, str] | None = None, *, attempts: int = ATTEMPTS
    ) -> Iterator[Document]:
        """Every page of a list."""
        asked = dict(query or {})
        while True:
            page = self.get(ctx, url, what, asked, attempts=attempts)
            yield page
            token = page.get("nextPageToken")
            if not token:
                return
            asked["pageToken"] = token

    def change(
        self,
        ctx: Context,
        method: str,
        url: str,
        what: str,
        document: Document | None = None,
        *,
        request_id: str | None,
    ) -> Document:
        """Ask Compute Engine for a change; the operation that it is. ``request_id`` is a UUID: the same one twice is
        one change; None where the method knows none."""
        body = None if document is None else json.dumps(document).encode()
        query = {} if request_id is None else {"requestId": request_id}
        return self.send(ctx, method, url, what, query=query, body=body).json()

    def perform(
        self,
        ctx: Context,
        method: str,
        url: str,
        what: str,
        document: Document | None = None,
        *,
        request_id: str | None,
        seconds: float | None = None,
    ) -> Document:
        """Ask for a change and wait for its end, as :meth:`change` and :meth:`finish` do."""
        return self.finish(ctx, self.change(ctx, method, url, what, document, request_id=request_id), what, seconds)

    def finish(self, ctx: Context, operation: Document, what: str, seconds: float | None = None) -> Document:
        """Wait until an operation is done, for ``seconds`` at most; the operation as it ended.

        The server holds a request until it is, so that its end is known at once. Raises what
        :func:`osvdeploy.cloud.gcp.errors.refusal` makes of its error, and :class:`~osvdeploy.errors.Unavailable` where
        it is still under way when the time is over.
        """
        began, lost = ctx.monotonic(), 0
        name = str(operation.get("operationType", "operation"))
        while operation.get("status") != "DONE":
            if seconds is not None and ctx.monotonic() - began >= seconds:
                raise Unavailable(
                    f"{what}: {name} {operation.get('name')} is still under way ({operation.get('progress', 0)} %)",
                    operation=name,
                    hint="it goes on by itself; the same command looks at it again",
                )
            before = ctx.monotonic()
            link = self._own(str(operation["selfLink"]))
            try:
                operation = self.send(ctx, "POST", f"{link}/wait", what, seconds=HELD, attempts=1).json()
                lost = 0
            except Unavailable as error:
                lost += error.code != "ReadTimeout"
                if lost >= ATTEMPTS:
                    raise
            if operation.get("status") != "DONE" and ctx.monotonic() - before < 0.2:
                ctx.sleep(0.5 * 2**lost)  # it may come back at once, and without end
        fault = Fault.of_operation(operation)
        if fault is not None:
            raise refusal(fault, what, name)
        return operation

    def send(
        self,
        ctx: Context,
        method: str,
        url: str,
        what: str,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        seconds: float = READ_TIMEOUT,
        attempts: int = ATTEMPTS,
    ) -> Answer:
        """One request, repeated while it may be answered otherwise; ``seconds`` is the time each attempt has."""
        return retrying(
            ctx,
            lambda: self._attempt(ctx, method, url, what, query or {}, body, headers or {}, seconds),
            when=lambda error: isinstance(error, Unavailable),
            attempts=attempts,
            first_wait=0.5,
            longest_wait=20.0,
        )

    def _attempt(
        self,
        ctx: Context,
        method: str,
        url: str,
        what: str,
        query: Mapping[str, str],
        body: bytes | None,
        headers: Mapping[str, str],
        seconds: float,
    ) -> Answer:
        ctx.check()
        left = ctx.remaining()
        service, operation = named(method, url)
        began = ctx.monotonic()
        failed: str | None = None
        late = False

        def look() -> None:
            nonlocal late
            late = ctx.remaining() == 0.0
            if late:
                ctx.check()

        def in_time(prepared: requests.PreparedRequest) -> requests.PreparedRequest:
            # Called when all is there to be sent, behind a sign-in that may have taken its time.
            look()
            return prepared

        # Likewise behind a connection that is made now.
        token = _when_connected.set(look)
        try:
            answer = self._http(url).request(
                method,
                url,
                params=dict(query),
                data=body,
                headers={"content-type": "application/json", **headers} if body is not None else dict(headers),
                timeout=(CONNECT_TIMEOUT, seconds if left is None else max(0.1, min(seconds, left))),
                allow_redirects=False,
                auth=in_time,
            )
            if answer.status_code >= 300 and answer.status_code != 308:
                fault = Fault.of_answer(answer.status_code, answer.content)
                failed = fault.reason or str(fault.status)
                raise refusal(fault, what, operation)
            lowered = {name.lower(): value for name, value in answer.headers.items()}
            return Answer(answer.status_code, lowered, answer.content)
        except OsvDeployError:
            raise
        except Exception as error:
            if not _from_client(error):
                raise
            failed = type(error).__name__
            raise translate(error, what, operation) from error
        finally:
            _when_connected.reset(token)
            if not late:
                reading = method == "GET" or operation.endswith(_READING)
                ctx.report(CloudCall(service, operation, not reading, ctx.monotonic() - began, failed))

    def _http(self, url: str) -> requests.Session:
        if self._given is not None:
            return self._given
        google = _is_google(url)
        with self._making:
            if google not in self._sessions:
                self._sessions[google] = self._make(credentials=google)
            return self._sessions[google]

    def _make(self, *, credentials: bool) -> requests.Session:
        try:
            import google.auth
            import requests
            from google.auth.transport.requests import AuthorizedSession
        except ModuleNotFoundError as error:
            raise UsageError(f"Google Cloud needs {error.name}", hint="pip install 'osvdeploy[gcp]'") from None
        session: requests.Session
        pool = _looking_adapter()(pool_maxsize=CONNECTIONS)
        if not credentials:
            # Another's address is a sandbox, an emulator or a proxy: none of them is shown an account's token.
            session = requests.Session()
        else:
            try:
                # It warns, on standard error, of a gcloud user's own credentials: they name no project for quotas.
                with warnings.catch_warnings(action="ignore"):
                    found, _ = google.auth.default(scopes=[SCOPE])
            except Exception as error:
                raise translate(error) from error
            session = AuthorizedSession(found, max_refresh_attempts=1)  # type: ignore[no-untyped-call]  # google-auth has no annotations
        session.mount("https://", pool)
        session.mount("http://", pool)
        session.headers["user-agent"] = f"osvdeploy/{__version__}"
        return session

    def _own(self, link: str) -> str:
        """An address from an answer, at the endpoint that is set: Google names its own host in it."""
        return f"{self.compute}/{link.split('/', 3)[3]}"


@functools.cache
def _looking_adapter() -> type[requests.adapters.HTTPAdapter]:
    """Of requests' adapters, one whose connections ask :data:`_when_connected`."""
    import requests

    def look() -> None:
        if (asked := _when_connected.get()) is not None:
            asked()

    class Adapter(requests.adapters.HTTPAdapter):
        def init_poolmanager(self, *settings: Any, **more: Any) -> None:
            super().init_poolmanager(*settings, **more)
            manager: Any = self.poolmanager
            manager.pool_classes_by_scheme = looking_when_connected(manager.pool_classes_by_scheme, look)

        def proxy_manager_for(self, proxy: str, **settings: Any) -> Any:
            there = proxy in self.proxy_manager
            manager: Any = super().proxy_manager_for(proxy, **settings)
            if not there:
                manager.pool_classes_by_scheme = looking_when_connected(manager.pool_classes_by_scheme, look)
            return manager

    return Adapter


def request_id(*parts: str) -> str:
    """A request id that follows from what it is for: the same parts, from any process, ask for one change."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, "osvdeploy:" + "\n".join(parts)))


_READING = (".wait", ".validate", ".getHealth", ".listManagedInstances")
"""Methods that are posted, and change nothing."""

_COLLECTIONS = ("projects", "zones", "regions", "global", "aggregated")


def named(method: str, url: str) -> tuple[str, str]:
    """Service and operation of a request, for the log: ``compute`` and ``instances.delete``."""
    path = urlsplit(url).path.strip("/").split("/")
    if path[0] == "v3":
        return "monitoring", f"{path[-1]}.list"
    if path[0] == "v1":
        return "pubsub", f"topics.{path[-1].partition(':')[2] or method.lower()}"
    if path[:2] != ["compute", "v1"]:
        return "storage", _storage_operation(method, path)
    words = path[2:]
    scope, all_of = "", words[2:3] == ["aggregated"]
    while words and words[0] in _COLLECTIONS:
        scope = words[0] if words[0] != "projects" else scope
        words = words[1:] if words[0] in ("global", "aggregated") else words[2:]
    kind = words[0] if words else "projects"
    if kind == "operations":
        kind = f"{ {'zones': 'zone', 'regions': 'region'}.get(scope, 'global') }Operations"
    verb = words[2] if len(words) > 2 else ""
    if all_of:
        verb = "aggregatedList"
    elif not verb:
        one = len(words) > 1
        verb = {"GET": "get" if one else "list", "POST": "insert", "PATCH": "patch", "PUT": "update"}.get(
            method, method.lower()
        )
    return "compute", f"{kind}.{verb}"


def _storage_operation(method: str, path: list[str]) -> str:
    """Of ``[upload/]storage/v1/b/BUCKET/o/OBJECT/compose``."""
    words = path[path.index("v1") + 1 :] if "v1" in path else path
    kind, words = ("objects", words[3:]) if words[2:3] == ["o"] else ("buckets", words[1:])
    if words[1:] == ["compose"]:
        return f"{kind}.compose"
    if words[1:] == ["iam", "testPermissions"]:
        return f"{kind}.testIamPermissions"
    verb = {"GET": "get" if words else "list", "POST": "insert", "PUT": "insert", "PATCH": "patch"}
    return f"{kind}.{verb.get(method, 'delete')}"


def _base(address: str) -> str:
    address = address.rstrip("/")
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise UsageError(f"{address!r} is no address of an API", hint="write it whole: http://127.0.0.1:4566")
    return address


def _is_google(url: str) -> bool:
    """Whether an address is Google's own, over TLS: the one that all use, a region's (REP), a private one (PSC)."""
    parts = urlsplit(url)
    return parts.scheme == "https" and (parts.hostname or "").endswith(".googleapis.com")


def _from_client(error: Exception) -> bool:
    return any(cls.__module__.partition(".")[0] in ("requests", "google", "urllib3") for cls in type(error).__mro__)
