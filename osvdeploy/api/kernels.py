"""Kernels by name: what one is, and the store of those that are here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from osvdeploy.build.uses import in_use
from osvdeploy.context import Context
from osvdeploy.digests import Digest
from osvdeploy.errors import KernelInvalid, UsageError

if TYPE_CHECKING:
    from osvdeploy.build.kernels import StoredKernel
    from osvdeploy.build.sources import RemoteKernel
    from osvdeploy.osv.kernel_facts import KernelFacts


@dataclass(frozen=True, slots=True)
class InspectedKernel:
    """A kernel's file and what its bytes tell. ``source`` is how it was named; the digest is that of the file itself,
    unpacked where it is gzip."""

    source: str
    sha256: Digest
    facts: KernelFacts


@in_use()
def inspect_kernel(ctx: Context, named: str) -> InspectedKernel:
    """What a file, an address or a release (``v0.57.0``, ``v0.57.0/hidden``) is for a kernel. A release comes from the
    store, or into it; what is at an address is looked at and not kept."""
    from osvdeploy.build import kernels
    from osvdeploy.build.cache import BuildCache
    from osvdeploy.build.sources import parse_source

    cache = BuildCache.of_user()
    source = parse_source(named)
    digest, facts = kernels.inspect(ctx, source, cache)
    return InspectedKernel(str(source), digest, facts)


@dataclass(frozen=True, slots=True)
class AddedKernel:
    """A kernel that is in the store now, by its digest; ``source``: what specs may name it by, None for a pin alone."""

    sha256: Digest
    path: Path
    source: RemoteKernel | None
    facts: KernelFacts


@in_use()
def add_kernel(ctx: Context, named: str, *, named_as: str | None = None) -> AddedKernel:
    """Put a loader.img into the store: a file, an address or a release. ``named_as`` is the release or address that a
    file is: builds without a network then find it."""
    from osvdeploy.build import kernels
    from osvdeploy.build.cache import BuildCache
    from osvdeploy.build.sources import FileKernel, parse_source
    from osvdeploy.build.statcache import StatCache

    cache = BuildCache.of_user()
    source = parse_source(named)
    alias = None if named_as is None else parse_source(named_as)
    if isinstance(alias, FileKernel):
        raise UsageError(
            f"--as {named_as}: neither a release nor an address", hint="write --as v0.57.0, or --as https://…"
        )
    store = kernels.KernelStore(cache)
    if isinstance(source, FileKernel):
        path, known = store.add(ctx, Path(source.path), alias), alias
    elif alias is not None:
        raise UsageError(f"{named} says itself what it is", hint="--as is for a file")
    else:
        path, known = store.fetch(ctx, source), source
    kernel = store.find(ctx, Digest(path.name), StatCache())
    assert kernel is not None, "it was put there just now"
    return AddedKernel(kernel.sha256, path, known, kernels.kernel_facts(ctx, kernel, cache))


def stored_kernels(ctx: Context) -> tuple[tuple[StoredKernel, KernelFacts | None], ...]:
    """What is in the store; no facts of what is damaged."""
    from osvdeploy.build import kernels
    from osvdeploy.build.cache import BuildCache
    from osvdeploy.build.statcache import StatCache

    cache = BuildCache.of_user()
    store = kernels.KernelStore(cache)
    found: list[tuple[StoredKernel, KernelFacts | None]] = []
    for each in store.stored():
        kernel = store.find(ctx, each.sha256, StatCache(), using=False)
        if kernel is None:
            continue
        try:
            found.append((each, kernels.kernel_facts(ctx, kernel, cache)))
        except KernelInvalid:
            found.append((each, None))
    return tuple(found)
