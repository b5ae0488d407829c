"""Writes files to the disk that is to be built while their digests are taken, so that none is read twice.

Only the digests tell whether the disk is in the cache already, so a draft may be for nothing; then it has cost little
more than the reading.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType

from osvdeploy.build.cache import DISK_NAME, BuildCache, Workspace
from osvdeploy.context import Context
from osvdeploy.digests import Digest
from osvdeploy.errors import BuildError, SizeInvalid, SourceChanged
from osvdeploy.events import Progress
from osvdeploy.osv.disk import lay_out_disk
from osvdeploy.osv.filetree import FileTree, HostFile
from osvdeploy.osv.kernel import Kernel
from osvdeploy.osv.rofs import Draft, digests_of, outline_of


class Drafting:
    """A place for a draft, made when there is something to draft. ``draft`` is in ``workspace``'s disk, or None.

    ``size`` is the disk's, in bytes, or None for the smallest.
    """

    def __init__(self, ctx: Context, cache: BuildCache, size: int | None) -> None:
        self._ctx, self._cache, self._size = ctx, cache, size
        self._stack = ExitStack()
        self._workspace: Workspace | None = None
        self.draft: Draft | None = None

    def __enter__(self) -> Drafting:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Nothing is left of the workspace, unless the cache took it."""
        self._stack.close()

    def workspace(self) -> Workspace:
        """Raises BuildError where the cache cannot be written."""
        if self._workspace is None:
            self._workspace = self._stack.enter_context(self._cache.workspace(self._ctx))
        return self._workspace

    def read(self, kernel: Kernel, tree: FileTree, chosen: Sequence[int]) -> Sequence[Digest]:
        """sha256 of these of ``tree.files()``, which may be in the draft then. What does not let a draft be written is
        told when the disk is. Raises FileTreeInvalid, SourceChanged, Interrupted."""
        files = [file for _, file in tree.files()]
        if any(type(files[index]) is HostFile for index in chosen):
            try:
                return self._copy(kernel, tree, chosen)
            except SourceChanged:
                raise
            except (OSError, SizeInvalid, BuildError):
                if self._workspace is not None:
                    (self._workspace.path / DISK_NAME).unlink(missing_ok=True)
        return digests_of([files[index] for index in chosen], self._ctx.check)

    def _copy(self, kernel: Kernel, tree: FileTree, chosen: Sequence[int]) -> Sequence[Digest]:
        outline = outline_of(tree)
        total = outline.size  # once: it looks at every file
        layout = lay_out_disk(kernel, total, size=self._size)
        draft = Draft.begin(outline, layout.partition)
        if draft is None:
            raise SizeInvalid("no room for a place of each file")

        def written(count: int) -> None:
            self._ctx.check()
            if count:
                self._ctx.report(Progress("image", count, total, "bytes"))

        fd = os.open(self.workspace().path / DISK_NAME, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        try:
            os.ftruncate(fd, layout.size)
            digests = draft.copy(fd, chosen, written)
        finally:
            os.close(fd)
        self.draft = draft
        return digests
