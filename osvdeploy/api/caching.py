"""The build cache of this user: what is in it, and what may go."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from osvdeploy.context import Context
from osvdeploy.events import Note

if TYPE_CHECKING:
    from osvdeploy.build.prune import Entry, Removal


@dataclass(frozen=True, slots=True)
class CacheContents:
    """All entries of the cache in ``directory``."""

    directory: Path
    entries: tuple[Entry, ...]

    @property
    def size(self) -> int:
        """What they take on the disk, in bytes."""
        return sum(entry.size for entry in self.entries)


@dataclass(frozen=True, slots=True)
class Pruned:
    """What went, or with a dry run would go, what would have but is ``kept``, and the bytes that are ``left``."""

    directory: Path
    removed: tuple[Removal, ...]
    kept: tuple[Removal, ...]
    left: int

    @property
    def freed(self) -> int:
        """Bytes."""
        return sum(each.entry.size for each in self.removed)


def cache_contents(ctx: Context) -> CacheContents:
    """What is in the cache. Changes nothing."""
    from osvdeploy.build.cache import BuildCache
    from osvdeploy.build.prune import survey

    cache = BuildCache.of_user()
    return CacheContents(cache.root, tuple(survey(cache)))


def prune_cache(
    ctx: Context, *, older: float | None = None, most: int | None = None, by_hand: bool = False, dry_run: bool = False
) -> Pruned:
    """Remove what was not used for ``older`` seconds, and then what was used longest ago until no more than ``most``
    bytes are left; with neither, what was not used for 30 days. What a process uses now stays, and so does a kernel
    that nothing could fetch again, unless ``by_hand``.

    Raises :class:`~osvdeploy.errors.BuildError` where the cache cannot be written, Interrupted.
    """
    from osvdeploy.build.cache import BuildCache
    from osvdeploy.build.prune import OLDER, choose, remove, survey

    cache = BuildCache.of_user()
    entries = survey(cache)
    wanted = choose(
        entries,
        now=ctx.now().timestamp(),
        older=OLDER if older is None and most is None else older,
        most=most,
        by_hand=by_hand,
    )
    done = wanted
    # A cache that is not there need not be made to find it empty.
    if not dry_run and cache.root.is_dir():
        done = []
        for removal in remove(ctx, cache, wanted):
            done.append(removal)
            if removal.kept is None:
                entry = removal.entry
                ctx.report(Note(f"removed {entry.kind}/{entry.name}: {removal.why}"))
    removed = tuple(each for each in done if each.kept is None)
    left = sum(entry.size for entry in entries) - sum(each.entry.size for each in removed)
    return Pruned(cache.root, removed, tuple(each for each in done if each.kept is not None), left)
