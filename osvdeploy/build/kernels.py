"""Any kernel source to a loader.img on this machine, and the facts of a kernel.

    kernels/<sha256>                a loader.img, whole, or not there
    kernels/sources/<key>.json      which of them a release or an address last was
    facts/<sha256>.json             what read_kernel_facts said of a file with this digest

They lie in the build cache (osvdeploy.build.cache). A stored kernel is held against its name at every use, facts
against a checksum of their own and the version of what read them; what is damaged is fetched or read again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Any

from osvdeploy.build.cache import BuildCache
from osvdeploy.build.files import replace_file, sync
from osvdeploy.build.sources import (
    FileKernel,
    KernelSource,
    ReleaseKernel,
    RemoteKernel,
    address_of,
    source_of,
    source_table,
)
from osvdeploy.build.stamped import sealed, unsealed
from osvdeploy.build.statcache import StatCache
from osvdeploy.build.uses import touch, use
from osvdeploy.context import Context
from osvdeploy.digests import Digest, sha256
from osvdeploy.errors import BuildError, DownloadFailed, KernelInvalid, SourceChanged
from osvdeploy.events import Note, Warned
from osvdeploy.osv.filetree import HostFile, stamp_of
from osvdeploy.osv.kernel import MAX_SIZE, Kernel, Payload, read_kernel

if TYPE_CHECKING:
    from osvdeploy.osv.kernel_facts import KernelFacts

FACTS_VERSION = 2
"""Raised when the reader of facts learns more, so that what it said before is not believed."""

_DIGITS = frozenset("0123456789abcdef")


@dataclass(frozen=True, slots=True)
class StoredKernel:
    """A kernel in the store: ``sources`` are the releases and addresses that it is, newest knowledge first."""

    sha256: Digest
    path: Path
    size: int
    sources: tuple[RemoteKernel, ...]


def resolve_kernel(
    ctx: Context,
    source: KernelSource,
    base: Path,
    *,
    cache: BuildCache,
    stats: StatCache,
    pinned: Digest | None = None,
    fresh: bool = False,
) -> Kernel:
    """The loader.img that a source names. ``base`` is the spec's folder.

    For what comes from elsewhere the store answers, where it has the ``pinned`` digest, or without a pin what a release
    is; else, and with ``fresh``, it is downloaded. Whether it is the pinned one then is the caller's to see.
    Raises KernelInvalid, DownloadFailed (what to do without a network is its hint), BuildError.
    """
    if isinstance(source, FileKernel):
        return _read(ctx, base / source.path, stats)
    store = KernelStore(cache)
    if not fresh:
        known = pinned if pinned is not None else store.known(source) if isinstance(source, ReleaseKernel) else None
        if known is not None and (kernel := store.find(ctx, known, stats)) is not None:
            return kernel
    try:
        return _read(ctx, store.fetch(ctx, source), stats)
    except DownloadFailed as error:
        known = store.known(source) if pinned is None or fresh else None
        if error.transient and known is not None and (kernel := store.find(ctx, known, stats)) is not None:
            ctx.report(Warned(f"{error.message}; the copy in the store is taken, {known[:12]}"))
            return kernel
        raise DownloadFailed(
            error.url, error.reason, transient=error.transient, hint=_without(source, pinned)
        ) from None


def kernel_facts(ctx: Context, kernel: Kernel, cache: BuildCache) -> KernelFacts:
    """What the kernel's bytes tell, read once for each digest. Raises KernelInvalid."""

    def read() -> KernelFacts:
        # Here alone: a build whose kernel is pinned asks for no facts, and starts sooner without their reader.
        from osvdeploy.osv.kernel_image import read_kernel_facts

        # What is remembered under a digest must be of the bytes that have it.
        content = kernel.path.read_bytes()
        if sha256(content) != kernel.sha256:
            raise SourceChanged(
                f"{kernel.path}: changed while it was read",
                hint="let nothing write to the sources while they are built",
            )
        return read_kernel_facts(content, name=str(kernel.path))

    return facts_by_digest(ctx, kernel.sha256, cache, read)


def facts_by_digest(ctx: Context, digest: Digest, cache: BuildCache, read: Callable[[], KernelFacts]) -> KernelFacts:
    """The facts of the file with this digest: remembered, else what ``read`` gives, which is remembered then."""
    path = cache.root / "facts" / f"{digest}.json"
    try:
        known = parse_facts(path.read_bytes())
        touch(path)
        return known
    except (OSError, ValueError):
        pass
    facts = read()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not synced: the checksum tells a torn one.
        replace_file(path, format_facts(facts), nonce=ctx.nonce(), durable=False)
    except OSError:
        pass  # a cache that cannot be written is no error
    return facts


def inspect(ctx: Context, source: KernelSource, cache: BuildCache) -> tuple[Digest, KernelFacts]:
    """Digest (unpacked, where it is gzip) and facts of any kernel; of a disk image, those of the loader.img that it was
    made of. Raises KernelInvalid, DiskInvalid for a disk that cannot be read, DownloadFailed."""
    from osvdeploy.build.download import download
    from osvdeploy.osv.kernel_image import gunzip, read_file, read_kernel_facts

    if isinstance(source, ReleaseKernel):
        kernel = resolve_kernel(ctx, source, Path(), cache=cache, stats=StatCache())
        return kernel.sha256, kernel_facts(ctx, kernel, cache)
    if isinstance(source, FileKernel):
        content = _content_of(ctx, Path(source.path))
    else:
        with cache.workspace(ctx) as work:
            file = work.path / "kernel"
            with _writing(file):
                download(ctx, source.url, file, limit=MAX_SIZE)
            content = read_file(file)
    content = gunzip(content, name=str(source))
    digest = sha256(content)
    return digest, facts_by_digest(ctx, digest, cache, lambda: read_kernel_facts(content, name=str(source)))


def _content_of(ctx: Context, path: Path) -> bytes:
    """A kernel's file, or of a disk image the loader.img on it. Raises KernelInvalid, DiskInvalid."""
    from osvdeploy.osv.kernel_image import read_file

    content = _loader_on_disk(ctx, path)
    return read_file(path) if content is None else content


def _loader_on_disk(ctx: Context, path: Path) -> bytes | None:
    """The loader.img that a disk was made of, None where the file is no disk. Raises KernelInvalid, DiskInvalid."""
    from osvdeploy.osv.anatomy import loader_image, look
    from osvdeploy.osv.source import is_disk, open_image

    if not is_disk(path):
        return None
    with open_image(path) as file:
        found = look(file.source)
        hint = f"`osvdeploy inspect {path}` tells what else is on it"
        if found.kernel is None:
            raise KernelInvalid(f"{path}: a disk image without a kernel", hint=hint)
        if found.kernel.sha256 is None:
            raise KernelInvalid(f"{path}: a disk image, whose kernel cannot be read: {found.problems[0]}", hint=hint)
        ctx.report(Note(f"{path} is a disk image, and this is the kernel on it; {hint}"))
        return b"".join(loader_image(file.source, found.kernel))


@dataclass(frozen=True, slots=True)
class KernelStore:
    """Kernels that came from elsewhere, by digest, under the build cache."""

    cache: BuildCache

    @property
    def root(self) -> Path:
        return self.cache.root / "kernels"

    def find(self, ctx: Context, digest: Digest, stats: StatCache, *, using: bool = True) -> Kernel | None:
        """A kernel by its digest; None where it is not there, or damaged: then it is removed. Not ``using``: it is only
        looked at."""
        path = self.root / digest
        if using:
            use(self.cache.root, path)
        if not path.is_file():
            return None
        try:
            kernel = _read(ctx, path, stats)
            if kernel.sha256 == digest:
                return kernel
        except KernelInvalid:
            pass
        ctx.report(Warned(f"{path}: damaged; it is not used"))
        try:
            path.unlink()
        except OSError:
            pass  # another process was faster, or may write where this one may not
        return None

    def known(self, source: RemoteKernel) -> Digest | None:
        """What a source was when it was last fetched or added."""
        try:
            document = json.loads(self._source_file(source).read_bytes())
            digest = document["sha256"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        return Digest(digest) if _is_digest(digest) else None

    def fetch(self, ctx: Context, source: RemoteKernel) -> Path:
        """Download a kernel into the store, and remember that the source is this.

        Raises DownloadFailed, KernelInvalid, BuildError where the store cannot be written.
        """
        from osvdeploy.build.download import download

        address = address_of(source)
        ctx.report(Note(f"kernel {source}: downloading {address}"))
        with self.cache.workspace(ctx) as work:
            file = work.path / "kernel"
            with _writing(file):
                download(ctx, address, file, limit=MAX_SIZE)
            return self._keep(ctx, file, source, address, downloaded=True)

    def add(self, ctx: Context, file: Path, source: RemoteKernel | None) -> Path:
        """Copy a kernel's file, plain or gzip, into the store; with ``source``, as what that names. Of a disk image, it
        is the loader.img that it was made of.

        Raises KernelInvalid, DiskInvalid for a disk that cannot be read, BuildError where the store cannot be written.
        """
        content = _content_of(ctx, file)
        with self.cache.workspace(ctx) as work:
            copy = work.path / "kernel"
            with _writing(copy):
                copy.write_bytes(content)
            return self._keep(ctx, copy, source, str(file))

    def stored(self) -> tuple[StoredKernel, ...]:
        """All of them, by digest."""
        sources: dict[str, list[tuple[str, RemoteKernel]]] = {}
        for _, document in self._documents():
            try:
                source = source_of(document["source"])
                if not isinstance(source, FileKernel):
                    sources.setdefault(document["sha256"], []).append((document["at"], source))
            except (ValueError, KeyError, TypeError):
                continue
        found = []
        for path in self._kernels():
            named = sorted(sources.get(path.name, []), key=lambda each: each[0], reverse=True)
            found.append(
                StoredKernel(Digest(path.name), path, path.stat().st_size, tuple(source for _, source in named))
            )
        return tuple(found)

    def _keep(
        self, ctx: Context, file: Path, source: RemoteKernel | None, shown: str, *, downloaded: bool = False
    ) -> Path:
        from osvdeploy.osv.kernel_image import gunzip, read_kernel_facts

        content = file.read_bytes()
        unpacked = gunzip(content, name=shown)
        with _writing(file):
            if unpacked is not content:
                file.write_bytes(unpacked)
            try:
                kernel = read_kernel(file)
            except KernelInvalid as error:
                raise KernelInvalid(error.message.replace(str(file), shown, 1), hint=error.hint) from None
            facts = facts_by_digest(ctx, kernel.sha256, self.cache, lambda: read_kernel_facts(unpacked, name=shown))
            if isinstance(source, ReleaseKernel):
                _check_release(source, kernel, facts, shown)
            path = self.root / kernel.sha256
            use(self.cache.root, path, making=True)
            path.parent.mkdir(parents=True, exist_ok=True)
            sync(file)
            file.chmod(0o644)
            try:
                # Not in the place of one that is there: another process may be reading it.
                path.hardlink_to(file)
            except FileExistsError:
                if sha256(path.read_bytes()) != kernel.sha256:
                    file.rename(path)
            except OSError:
                file.rename(path)  # a file system without links
            sync(path.parent)
            if source is not None:
                self._remember(ctx, source, kernel.sha256, downloaded=downloaded)
        told = facts.version or "no OSv that says its version"
        ctx.report(Note(f"kernel {source or shown}: {told}, {kernel.sha256[:12]}, in the store"))
        return path

    def by_hand(self) -> frozenset[str]:
        """The digests of those that nothing could fetch again: put here from a file, or no longer what is at the
        address that they came from."""
        fetched = {document["sha256"] for _, document in self._documents() if document.get("downloaded") is True}
        return frozenset(path.name for path in self._kernels()) - fetched

    def forget(self, digest: Digest) -> None:
        """Remember no longer what a kernel is that was removed. Raises OSError."""
        for path, document in self._documents():
            if document["sha256"] == digest:
                path.unlink(missing_ok=True)

    def _kernels(self) -> list[Path]:
        found = sorted(self.root.glob("*")) if self.root.is_dir() else []
        return [path for path in found if _is_digest(path.name) and path.is_file()]

    def _documents(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        """What is remembered of sources: those that can be read."""
        for path in sorted((self.root / "sources").glob("*.json")):
            try:
                document = json.loads(path.read_bytes())
                if isinstance(document, dict) and _is_digest(document["sha256"]):
                    yield path, document
            except (OSError, ValueError, KeyError, RecursionError):
                continue

    def _remember(self, ctx: Context, source: RemoteKernel, digest: Digest, *, downloaded: bool) -> None:
        path = self._source_file(source)
        path.parent.mkdir(parents=True, exist_ok=True)
        document = {"source": source_table(source), "sha256": digest, "at": ctx.now().astimezone(UTC).isoformat()}
        replace_file(path, json.dumps(document | {"downloaded": downloaded}).encode(), nonce=ctx.nonce())

    def _source_file(self, source: RemoteKernel) -> Path:
        key = sha256(json.dumps(source_table(source), sort_keys=True).encode())[:32]
        return self.root / "sources" / f"{key}.json"


def format_facts(facts: KernelFacts) -> bytes:
    """A checksum, and facts as JSON: one line each."""
    document: dict[str, object] = {"version": FACTS_VERSION}
    document["facts"] = {each.name: _plain(getattr(facts, each.name)) for each in fields(facts)}
    body = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    return sealed(body)


def parse_facts(content: bytes) -> KernelFacts:
    """Raises ValueError for anything that format_facts of this version does not write."""
    from osvdeploy.osv.kernel_facts import Driver, KernelFacts, KernelFormat

    document = json.loads(unsealed(content))
    if document["version"] != FACTS_VERSION:
        raise ValueError("another version")
    try:
        found = document["facts"]
        for name in ("boot_options", "filesystems", "syscalls", "supplied"):
            found[name] = None if found[name] is None else frozenset(found[name])
        if found["drivers"] is not None:
            found["drivers"] = frozenset(Driver(name) for name in found["drivers"])
        found["format"] = KernelFormat(found["format"])
        found["symbols"] = frozenset(name.encode("latin-1") for name in found["symbols"])
        return KernelFacts(**found)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not facts as they are written: {error}") from None


def _plain(value: object) -> object:
    if isinstance(value, frozenset):
        return sorted(each.decode("latin-1") if isinstance(each, bytes) else str(each) for each in value)
    return value


def _read(ctx: Context, path: Path, stats: StatCache) -> Kernel:
    return read_kernel(path, digest=lambda: stats.digest(ctx, HostFile(os.fsencode(path), stamp_of(path.stat()))))


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BuildError(
            f"{error.filename or path}: a kernel cannot be written to the store: {error.strerror}",
            hint="make room, or set OSVDEPLOY_CACHE to a directory that can be written",
        ) from None


def _check_release(source: ReleaseKernel, kernel: Kernel, facts: KernelFacts, shown: str) -> None:
    if kernel.payload is not Payload.LZLOADER:
        raise KernelInvalid(f"{shown}: not a kernel of OSv, so not {source}", hint="look at where it came from")
    if facts.version is not None and facts.version != source.tag:
        raise KernelInvalid(
            f"{shown}: says that it is OSv {facts.version}, not {source.tag}",
            hint=f"give the file that {address_of(source)} is",
        )


def _without(source: RemoteKernel, pinned: Digest | None) -> str:
    named = f" --as {source}" if pinned is None else ""
    return f"fetch {address_of(source)} where there is a network, then `osvdeploy kernel add FILE{named}`"


def _is_digest(text: object) -> bool:
    return isinstance(text, str) and len(text) == 64 and set(text) <= _DIGITS
