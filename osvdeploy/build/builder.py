"""Plan to raw disk: a prebuilt kernel and our own ROFS, composed straight into the cache, with no copy in between."""

from __future__ import annotations

import errno
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from osvdeploy.build.cache import DISK_NAME, IMAGE_NAME, BuildCache, format_image
from osvdeploy.build.drafting import Drafting
from osvdeploy.build.files import sync
from osvdeploy.build.kernels import kernel_facts
from osvdeploy.build.lock import LOCK_NAME, KernelPin, TreePin, pin_kernel, pin_programs
from osvdeploy.build.plan import BuildPlan, ImageInputs, load_kernel, pin, plan, programs_of, supplies_cxx
from osvdeploy.build.statcache import StatCache
from osvdeploy.context import Context
from osvdeploy.digests import Digest
from osvdeploy.errors import BuildError
from osvdeploy.events import Note, Progress
from osvdeploy.osv.disk import compose, lay_out_disk
from osvdeploy.osv.image import RawImage, image_digest
from osvdeploy.osv.kernel import Payload
from osvdeploy.osv.rofs import lay_out
from osvdeploy.sizes import format_size

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})


@dataclass(frozen=True, slots=True)
class BuildResult:
    """A built disk. ``reused``: it was in the cache already. ``plan`` names its entry there."""

    image: RawImage
    reused: bool
    plan: Digest


def build(ctx: Context, inputs: ImageInputs, cache: BuildCache) -> BuildResult:
    """Build the image, or find that it is built. Same inputs, same bytes, wherever and whenever.

    What came from elsewhere is pinned when the image is there. Raises what :func:`osvdeploy.build.plan.plan` raises,
    SizeInvalid, SourceChanged, BuildError when the disk is full or the cache cannot be written, Interrupted; nothing
    half-made is left behind by any of them.
    """
    if inputs.tree is not None:
        from osvdeploy.build.osvtree.builder import build_tree  # only here: most builds have no tree

        return build_tree(ctx, inputs, cache)
    stats = StatCache.load(cache.stats_file(inputs.base))
    with Drafting(ctx, cache, inputs.size) as drafting:
        wanted = plan(ctx, inputs, stats, cache, drafting.read)
        stats.save(ctx)
        if image := cache.find(wanted.digest):
            pin(ctx, inputs, wanted, cache)
            ctx.report(Note(f"image {image.digest[:12]}: nothing changed, {image.path} is reused"))
            return BuildResult(image, True, wanted.digest)
        image = _compose(ctx, wanted, cache, drafting)
    # Only now: what cannot be built leaves no lock behind.
    pin(ctx, inputs, wanted, cache)
    ctx.report(Note(f"image {image.digest[:12]}: built, {format_size(_bytes_read(image))} in {image.path}"))
    return BuildResult(image, False, wanted.digest)


def upgrade_lock(ctx: Context, inputs: ImageInputs, cache: BuildCache) -> KernelPin | TreePin:
    """Pin the kernel, or the commit of the tree, and the programs that the spec names now, whatever was pinned before.
    A kernel from elsewhere, and packages, are downloaded anew."""
    if inputs.tree is not None:
        from osvdeploy.build.osvtree.builder import upgrade_tree

        return upgrade_tree(ctx, inputs, cache)
    stats = StatCache.load(cache.stats_file(inputs.base))
    path = inputs.base / LOCK_NAME
    kernel = load_kernel(ctx, inputs, stats, cache, fresh=True)
    programs = programs_of(
        ctx, inputs, stats, cache=cache.root, refresh=True, cxx=supplies_cxx(ctx, inputs, kernel, cache)
    )
    pins = () if programs is None else programs.pins(ctx, stats, ())
    stats.save(ctx)
    held = pin_kernel(
        ctx, path, kernel, source=inputs.prebuilt, facts=lambda: kernel_facts(ctx, kernel, cache), upgrade=True
    )
    pin_programs(ctx, path, pins)
    return held


def _compose(ctx: Context, wanted: BuildPlan, cache: BuildCache, drafting: Drafting) -> RawImage:
    draft = drafting.draft
    rofs = lay_out(wanted.tree, wanted.digests, outline=None if draft is None else draft.outline)
    tight, total = rofs.size, rofs.outline.size  # once: they look at every file
    needed = wanted.kernel.size + tight
    layout = lay_out_disk(wanted.kernel, tight, size=wanted.size)

    def written(count: int) -> None:
        ctx.check()
        ctx.report(Progress("image", count, total, "bytes"))

    try:
        work = drafting.workspace()
        disk = work.path / DISK_NAME
        composing = partial(compose, disk, wanted.kernel, rofs, wanted.boot, size=wanted.size, written=written)
        try:
            composed = composing(draft=draft)
        except OSError as error:
            if draft is None or error.errno not in _NO_ROOM:
                raise
            # What was drafted of files that are equal to others takes room too, also once it is wiped.
            disk.unlink()
            composed = composing()
        image = RawImage(
            path=disk,
            size=layout.size,
            digest=image_digest(
                kernel=wanted.kernel.sha256,
                rofs=composed.rofs.sha256,
                partition=layout.partition,
                size=layout.size,
                boot=wanted.boot,
            ),
            kernel=wanted.kernel.sha256,
            rofs=composed.rofs.sha256,
            read=composed.read,
            boot=wanted.boot,
            label="OSv" if wanted.kernel.payload is Payload.LZLOADER else "unknown",
        )
        (work.path / IMAGE_NAME).write_bytes(format_image(image))
        sync(disk)
        sync(work.path / IMAGE_NAME)
        return cache.keep(wanted.digest, work.path)
    except OSError as error:
        # First, so that what is free is what the next try finds.
        drafting.close()
        raise _build_error(error, cache.root, needed, layout.size) from None


def _build_error(error: OSError, root: Path, needed: int, size: int) -> BuildError:
    if error.errno == errno.EFBIG:
        return BuildError(
            f"{root}: cannot hold the image, a sparse file of {format_size(size)}: {error.strerror}",
            hint="lift the limit (ulimit -f), or set OSVDEPLOY_CACHE to a directory on another file system",
        )
    if error.errno not in _NO_ROOM:
        return BuildError(f"{error.filename or root}: the image could not be written: {error.strerror}")
    try:
        free = f", {format_size(shutil.disk_usage(root).free)} are free"
    except OSError:
        free = ""
    return BuildError(
        f"{root}: no room for the image: it takes {format_size(needed)}{free} ({error.strerror})",
        hint="make room there (`osvdeploy cache prune`), or set OSVDEPLOY_CACHE to a directory on another disk",
    )


def _bytes_read(image: RawImage) -> int:
    return sum(extent.end - extent.start for extent in image.read)
