"""A cloud in the sandbox, in process and in virtual time, and hello going live in it: what every cloud has in common.

Everything of the product is real here, from the disk's bytes to the requests; only sockets and clocks are not.
"""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

from osvdeploy.build import builder
from osvdeploy.build.cache import BuildCache
from osvdeploy.build.plan import FileMapping, ImageInputs
from osvdeploy.build.sources import FileKernel
from osvdeploy.cloud.interfaces import ProbeAnswer, ProbeRequest, ReleaseId
from osvdeploy.cloud.local.store import DirectoryStore
from osvdeploy.cloud.memory.hooks import MemoryHooks
from osvdeploy.cloud.memory.notifier import MemoryNotifier
from osvdeploy.context import Clock, Context, ProcessIdentity, VirtualClock
from osvdeploy.events import Recorder
from osvdeploy.publish.journal import Journal
from osvdeploy.rollout.ledger import Head, Ledger
from osvdeploy.rollout.releases import Release, Settings, configuration_digest, release_digest, release_id
from osvdeploy.sandbox.core import Sandbox
from osvdeploy.sandbox.inprocess import Client
from osvdeploy.sandbox.runners import NoAnswer
from osvdeploy.sandbox.runners.inline import InlineRunner
from tests.rollout.made import NOW

GOOD: Mapping[str, Any] = {"headers": {"x-release": "$OSVDEPLOY_RELEASE"}, "answers": {"*": 200}}
BAD: Mapping[str, Any] = {**GOOD, "answers": {"*": 500}}
ABORTING: Mapping[str, Any] = {"boot": "abort", "after": 1.0}


MIN_READY = 2.0
"""Seconds that machines have to stay healthy, in those suites: meanwhile a rollout looks almost every second."""

SETTLED = 180.0
"""Seconds after which nothing goes on by itself any more that a rollout began: machines have ended, targets are
drained, a lease that nobody renews is over. Each costs the health checks of a whole fleet."""


class SandboxProber:
    """:class:`~osvdeploy.cloud.interfaces.Prober` through the sandbox's balancers, without a socket."""

    def __init__(self, sandbox: Sandbox, clock: Clock) -> None:
        self.client = Client(sandbox, clock)

    def probe(self, ctx: Context, request: ProbeRequest) -> ProbeAnswer:
        split = urlsplit(request.url)
        host, _, port = (request.address or split.netloc).partition(":")
        answer = self.client.get(
            host, int(port or split.port or 80), split.path or "/", dict(request.headers), request.timeout
        )
        if isinstance(answer, NoAnswer):
            return ProbeAnswer(None, error=answer.value)
        if request.kind == "tcp":
            return ProbeAnswer(None, held=True)
        headers = {name.lower(): value for name, value in answer.headers.items()}
        return ProbeAnswer(answer.status, headers, answer.body[:2048])


def newest_group(heads: Iterable[Head], release: ReleaseId) -> str:
    """The name of the newest group that was made for a release; ``heads`` begin with the newest."""
    for head in heads:
        if head.run is not None and head.run.candidate == release:
            return head.run.group
        for record in head.slots.values():
            if record.release == release:
                return record.group
    raise AssertionError(f"no group was ever made of {release}")


_NUMBERED = re.compile(r"(osvd-[0-9a-f]{10}-[0-9a-f]{8})-\d+\b")


def unnumbered(name: str) -> str:
    """The name of a group or template, or what has it in it, without the number of the lease that it was made under:
    that differs with how often a command ran."""
    return _NUMBERED.sub(r"\1", name)


def named_alike(kind: str, names: Iterable[str]) -> list[str]:
    """What stands of a kind, however often commands ran: without numbers, and the templates of one release as one, of
    which each attempt leaves its own for `gc`."""
    found = [unnumbered(name) for name in names]
    return sorted(set(found) if kind.lower().endswith("template") else found)


def loader_image() -> bytes:
    """The smallest file that has a loader.img's form."""
    head = bytearray(65536 + 32768)
    head[0] = 0xEA
    head[0x10:0x12] = (1).to_bytes(2, "little")
    head[510:512] = b"\x55\xaa"
    # ELF32, little endian, i386 executable: what stands at LBA 128 of OSv's own.
    head[65536:65556] = b"\x7fELF\x01\x01\x01" + bytes(9) + b"\x02\x00\x03\x00"
    return bytes(head)


class World:
    """One account, one service, any number of processes that deploy it one after the other."""

    options: Sequence[tuple[str, str | None]] = ()
    """Boot options of what is built."""

    def __init__(self, folder: Path, sandbox: Sandbox, clock: VirtualClock, settings: Settings) -> None:
        self.folder = folder
        self.clock = clock
        self.sandbox = sandbox
        self.settings = settings
        self.prober = SandboxProber(sandbox, clock)
        self.recorder = Recorder()
        self.empty = sandbox.inventory()
        self.hooks: MemoryHooks | None = None
        self.notifier: MemoryNotifier | None = None
        """In place of the cloud's own."""
        self._processes = 0

    # -------------------------------------------------------------------------------------------------- as a user

    def build(self, version: str, program: Mapping[str, Any] = GOOD) -> Release:
        """Write the program's source, build its image, and name the release it makes. Nothing leaves this machine."""
        base = self.folder / "hello"
        base.mkdir(exist_ok=True)
        (base / "loader.img").write_bytes(loader_image())
        (base / "app").write_bytes(b"#!inline\n" + json.dumps({**program, "says": f"hello {version}"}).encode())
        inputs = ImageInputs(
            app="hello",
            version=version,
            base=base,
            kernel=FileKernel("loader.img"),
            command=("/app",),
            options=tuple(self.options),
            files=(FileMapping("app", "/app"),),
        )
        self.raw = builder.build(Context(), inputs, BuildCache(self.folder / "cache")).image
        configuration = configuration_digest((), ())
        digest = release_digest(self.raw.digest, configuration)
        return Release(
            id=release_id("hello", version, digest),
            app="hello",
            version=version,
            image=self.raw.digest,
            configuration=configuration,
            digest=digest,
            created=NOW,
            by="somebody",
            settings=self.settings,
        )

    def next_context(self) -> Context:
        """That of a new process: another identity. What it draws at random, the pauses between its tries among that, is
        the same in each run."""
        self._processes += 1
        return Context(
            clock=self.clock,
            reporter=self.recorder,
            process=self.identity(self._processes),
            entropy=random.Random(self._processes).randbytes,
        )

    def identity(self, number: int) -> ProcessIdentity:
        """Whose process the ``number``-th is: each on a host of its own, so that nobody can know that it is dead."""
        return ProcessIdentity(f"host-{number}", "", "", number, "1", "somebody")

    @property
    def ledger(self) -> Ledger:
        return Ledger(DirectoryStore(self.folder / "ledger"), "hello", "production")

    @property
    def journal(self) -> Journal:
        return Journal(self.folder / "state")

    @property
    def head(self) -> Head:
        head = self.ledger.head(Context(clock=self.clock))
        assert head is not None
        return head

    # ------------------------------------------------------------------------------------------------- to look at it

    def group_of(self, release: Release) -> str:
        """The name of the newest group that was made for a release, by the ledger."""
        return newest_group(self.ledger.heads(Context(clock=self.clock)), release.id)

    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.sandbox.settle(self.clock.now())

    def held(self) -> dict[str, list[str]]:
        """What the account holds beyond the network, by kind."""
        self.sandbox.settle(self.clock.now())
        now = self.sandbox.inventory()
        found = {kind: sorted(set(keys) - set(self.empty.get(kind, []))) for kind, keys in now.items()}
        return {kind: keys for kind, keys in found.items() if keys}

    def answer(self) -> ProbeAnswer:
        """What a client gets now."""
        route = self.head.place
        assert route is not None
        return self.prober.probe(Context(clock=self.clock), ProbeRequest(f"{route.base_url}/"))

    def calls(self, since: int = 0) -> list[str]:
        """``service.Operation`` of every call since that number."""
        return [f"{call.service}.{call.operation}" for call in self.sandbox.calls(since)]

    # ------------------------------------------------------------------------------------------------ to go back to it

    def kept(self) -> Kept:
        """The account, the guests, the files and the time as they are this moment: what a kill -9 leaves."""
        with self.sandbox._lock:
            store, runner = self.sandbox.store, self.sandbox.runner
            assert isinstance(runner, InlineRunner)
            return Kept(
                documents={at: dict(found) for at, found in store._documents.items()},
                database=store._database.serialize(),
                version=store.version,
                now=self.sandbox._now,
                answered=self.sandbox._answered,
                guests=dict(runner._guests),
                passed=self.clock.monotonic(),
                files=files_in(*self.kept_folders),
            )

    def put_back(self, kept: Kept) -> None:
        """Let everything be as it was then. Blobs stay: they go by their digests. Whoever was asked or told anything
        remembers nothing of it."""
        if self.hooks is not None:
            self.hooks.asked.clear()
        if self.notifier is not None:
            self.notifier.sent.clear()
        store, runner = self.sandbox.store, self.sandbox.runner
        assert isinstance(runner, InlineRunner)
        store._documents = {at: dict(found) for at, found in kept.documents.items()}
        store._database.deserialize(kept.database)
        # Never a number that it had: what was worked out at one would be taken for what is true of the other.
        store.version += 1
        store.soonest = None
        self.sandbox._now, self.sandbox._answered = kept.now, kept.answered
        runner._guests = dict(kept.guests)
        self.clock._passed = kept.passed
        let_be(self.kept_folders, kept.files)

    @property
    def kept_folders(self) -> tuple[Path, ...]:
        return tuple(self.folder / folder for folder in _KEPT_FOLDERS)


W = TypeVar("W", bound=World)


class Prepared(Generic[W]):
    """A world that was brought somewhere once, and is there again for each test that wants to begin there."""

    def __init__(self, world: W) -> None:
        self._world, self._kept, self._own = world, world.kept(), dict(vars(world))

    def again(self) -> W:
        """All of it, also what a test set on it; nothing is in its way, and nobody was told anything yet."""
        vars(self._world).clear()
        vars(self._world).update(self._own)
        self._world.put_back(self._kept)
        self._world.recorder = Recorder()
        self._world.sandbox.faults.clear()
        self._world.sandbox.hook = None
        return self._world


_KEPT_FOLDERS = ("ledger", "state")


def files_in(*folders: Path) -> dict[Path, bytes]:
    """All files of some folders, with what they contain."""
    return {path: path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file()}


def let_be(folders: tuple[Path, ...], files: Mapping[Path, bytes]) -> None:
    """Let these be all the files of some folders."""
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@dataclass(frozen=True)
class Kept:
    """An :class:`AwsWorld` at one moment."""

    documents: dict[tuple[str, str], dict[str, bytes]]
    database: bytes
    version: int
    now: datetime
    answered: int
    guests: dict[str, Any]
    passed: float
    files: dict[Path, bytes]

    @property
    def mark(self) -> tuple[int, float, int, int]:
        """Equal for two moments of one run between which nothing happened."""
        return self.version, self.passed, len(self.files), sum(map(len, self.files.values()))
