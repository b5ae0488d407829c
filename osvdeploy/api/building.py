"""Building an image, refused first where it is known to fail."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from osvdeploy.api.declared import image_inputs, load_spec
from osvdeploy.api.looking import Looked, findings, judge, look, look_at_built, place_findings, require_rules
from osvdeploy.build.uses import in_use
from osvdeploy.context import Context
from osvdeploy.errors import SourceChanged
from osvdeploy.events import Note, Warned, silent

if TYPE_CHECKING:
    from osvdeploy.build.builder import BuildResult
    from osvdeploy.build.lock import KernelPin, TreePin
    from osvdeploy.build.program_lock import ProgramPin
    from osvdeploy.checks import Judged
    from osvdeploy.checks.places import Place
    from osvdeploy.digests import Digest
    from osvdeploy.osv.image import RawImage
    from osvdeploy.spec import LoadedSpec


@in_use()
def build(ctx: Context, loaded: LoadedSpec, *, forced: Collection[str] = ()) -> BuildResult:
    """Build the image's raw disk in the user's cache, or find it there. Same input, same bytes, on every machine.

    Raises :class:`~osvdeploy.errors.CheckFailed` first for what would not start anywhere: a boot option that this
    kernel does not take, a file system that it does not mount. ``forced`` are rules to override. What other rules say
    of an image that is new is told in one line: it may be wanted all the same, to be looked into or run here.
    """
    require_rules(loaded, forced)
    looked = None
    if loaded.spec.image.boot and loaded.spec.kernel.tree is None:
        # Without options there is nothing that kernels differ in, and an unchanged build need not know its kernel.
        looked = look(ctx.reporting_to(silent), loaded)
        judge(loaded, place_findings(loaded, looked, ()), forced).require()
    built = _build(ctx, loaded)
    if not built.reused:
        try:
            looked = looked or look(ctx.reporting_to(silent), loaded)
            if looked.kernel is None:
                looked = look_at_built(looked, built.image)
            _tell_of_findings(ctx, judge(loaded, findings(ctx, loaded, looked, ()), forced))
        except SourceChanged:
            pass  # the image is of what was there before; the next command sees the change
    return built


def _tell_of_findings(ctx: Context, judged: Judged) -> None:
    warned = _counted(len(judged.warned), "warning") if judged.warned else None
    if judged.refused:
        others = [_counted(len(judged.refused) - 1, "other finding")] if len(judged.refused) > 1 else []
        listed = " and ".join([*others, *filter(None, [warned])])
        ctx.report(
            Warned(
                f"the image is built, but `publish` and `deploy` would refuse it: {judged.refused[0]}",
                hint=f"`osvdeploy check` tells why and what to do{f', and lists {listed}' if listed else ''}",
            )
        )
    elif warned:
        ctx.report(Note(f"{warned} about the image: `osvdeploy check` lists what it finds"))


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _build(ctx: Context, loaded: LoadedSpec) -> BuildResult:
    from osvdeploy.build import builder
    from osvdeploy.build.cache import BuildCache

    return builder.build(ctx, image_inputs(loaded), BuildCache.of_user())


@dataclass(frozen=True, slots=True)
class Foreseen:
    """What a build would give: ``plan`` names all that its bytes depend on, ``image`` is there where it was built here
    already."""

    plan: Digest
    image: RawImage | None


@in_use()
def foresee(ctx: Context, loaded: LoadedSpec) -> Foreseen:
    """Look at all sources, as a build does, and tell what it would give. Builds and pins nothing; what comes from
    elsewhere, a kernel or packages, is downloaded into the cache where it is not there yet.

    Raises what a build raises before it writes.
    """
    from osvdeploy.build.cache import BuildCache
    from osvdeploy.build.plan import plan
    from osvdeploy.build.statcache import StatCache

    cache, inputs = BuildCache.of_user(), image_inputs(loaded)
    stats = StatCache.load(cache.stats_file(inputs.base))
    if inputs.tree is None:
        digest = plan(ctx, inputs, stats, cache).digest
    else:
        from osvdeploy.build.osvtree.builder import plan_tree

        digest = plan_tree(ctx, inputs, stats, cache=cache.root).digest
    stats.save(ctx)
    return Foreseen(digest, cache.find(digest))


@in_use()
def sound_build(ctx: Context, loaded: LoadedSpec, place: Place, forced: Collection[str]) -> BuildResult:
    """Build if needed, unless it is known to fail at ``place``: that is refused before anything is made, or as soon as
    a source tree has built the kernel to be judged.

    Raises :class:`~osvdeploy.errors.CheckFailed`.
    """
    looked = look(ctx.reporting_to(silent), loaded)
    if looked.kernel is not None:
        _require_sound(ctx, loaded, looked, place, forced)
        return _build(ctx, loaded)
    judge(loaded, findings(ctx, loaded, looked, [place]), forced).require()
    built = _build(ctx, loaded)
    _require_sound(ctx, loaded, look_at_built(looked, built.image), place, forced)
    return built


def _require_sound(ctx: Context, loaded: LoadedSpec, looked: Looked, place: Place, forced: Collection[str]) -> None:
    """Refuse what is known to fail there; tell what is believed to. Raises CheckFailed."""
    from osvdeploy.checks.preflight import RULES

    judged = judge(loaded, findings(ctx, loaded, looked, [place]), forced)
    judged.require()
    for finding in judged.warned:
        if finding.rule in RULES:
            ctx.report(Warned(f"{finding}: {finding.why}", hint=finding.cure))
    if others := sum(finding.rule not in RULES for finding in judged.warned):
        ctx.report(Note(f"{_counted(others, 'more warning')} about the image: `osvdeploy check` lists what it finds"))
    for finding, reason in judged.allowed:
        ctx.report(Note(f"allowed: {finding} ({reason})"))


@in_use()
def upgrade_lock(ctx: Context, loaded: LoadedSpec) -> KernelPin | TreePin:
    """Pin the kernel, or the commit of its source tree, and the programs that the spec names now in osv.lock."""
    from osvdeploy.build import builder
    from osvdeploy.build.cache import BuildCache

    return builder.upgrade_lock(ctx, image_inputs(loaded), BuildCache.of_user())


def spec_of(image: Path | str) -> Path | None:
    """The osv.toml that an image is named by as commands name it, be it by its folder; None for a file of its own."""
    path = Path(image)
    if (path / "osv.toml").is_file():
        return path / "osv.toml"
    return path if path.suffix == ".toml" else None


def image_path(ctx: Context, image: Path | str) -> Path:
    """The file of an image as commands name it: itself, or of an osv.toml (or its folder) the built image, which is
    built where it is not; to be called, and used, within :func:`~osvdeploy.build.uses.in_use`."""
    spec = spec_of(image)
    return Path(image) if spec is None else build(ctx, load_spec(spec)).image.path


def pinned(loaded: LoadedSpec) -> KernelPin | TreePin | None:
    """What osv.lock says of the kernel or its source tree; None where nothing is pinned yet."""
    from osvdeploy.build.lock import LOCK_NAME, read_lock

    lock = read_lock(loaded.base / LOCK_NAME)
    if lock is None:
        return None
    return lock.kernel if loaded.spec.kernel.tree is None else lock.tree


def pinned_programs(loaded: LoadedSpec) -> tuple[ProgramPin, ...]:
    """What osv.lock says of the host's programs."""
    from osvdeploy.build.lock import LOCK_NAME, read_lock

    lock = read_lock(loaded.base / LOCK_NAME)
    return lock.programs if lock is not None else ()
