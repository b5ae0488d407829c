"""Google, as the sandbox simulates it, delivered in process and in virtual time."""

from __future__ import annotations

from types import MappingProxyType

import requests

from osvdeploy.cloud.gcp.objects import GcsStore
from osvdeploy.cloud.gcp.session import Document, Gcp, request_id
from osvdeploy.cloud.interfaces import Tags
from osvdeploy.context import Clock, Context, VirtualClock
from osvdeploy.sandbox.core import Sandbox
from osvdeploy.sandbox.google.inprocess import Delivery, connect
from osvdeploy.sandbox.runners.inline import InlineRunner
from tests.google_types import Judge, Judged

PROJECT = "sandbox"
STORAGE = "https://storage.googleapis.com"
COMPUTE = "https://compute.googleapis.com"


judge: Judge | None = None
"""What every request of our client is held to; the suite sets it for tests marked ``sandbox``."""


class GcpSandbox:
    """A new project with a bucket, ``acme``, and sessions that reach it."""

    def __init__(self, clock: Clock | None = None, speed: float = 1.0) -> None:
        self.clock = clock or VirtualClock()
        self.ctx = Context(clock=self.clock)
        self.sandbox = Sandbox(runner=InlineRunner(), speed=speed)
        url = f"{STORAGE}/storage/v1/b?project={PROJECT}"
        assert self.session().post(url, json={"name": "acme", "location": "EUROPE-WEST1"}).status_code == 200

    def session(self) -> requests.Session:
        return connect(self.sandbox, self.clock)

    def gcp(self) -> Gcp:
        session = self.session()
        if judge is not None:
            session.mount("https://", Judged(Delivery(self.sandbox, self.clock), judge))
        return Gcp(PROJECT, compute=COMPUTE, storage=STORAGE, session=session)

    def store(self, address: str = "gs://acme") -> GcsStore:
        return GcsStore(address, self.gcp())

    def put_foreign(self, name: str, archive: bytes) -> None:
        """An image of that name, ready, as somebody else would make it: without our labels."""
        put_foreign(self.ctx, self.gcp(), self.store(), name, archive)


def put_foreign(
    ctx: Context, gcp: Gcp, store: GcsStore, name: str, archive: bytes, labels: Tags = MappingProxyType({})
) -> None:
    """As :meth:`GcpSandbox.put_foreign`. ``labels`` are not ours."""
    key = f"theirs/{name}.tar.gz"
    store.put_if_absent(ctx, key, archive)
    source = f"{store.address.replace('gs:/', STORAGE, 1)}/{key}"
    insert(ctx, gcp, "global/images", {"name": name, "labels": dict(labels), "rawDisk": {"source": source}})


def insert(ctx: Context, gcp: Gcp, collection: str, document: Document) -> None:
    """Make something as any client would."""
    url = f"{gcp.project_path}/{collection}"
    gcp.perform(ctx, "POST", url, collection, document, request_id=request_id(collection, ctx.nonce()))
