"""Digests of files, remembered (osvdeploy.build.stamped)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from osvdeploy.build.stamped import Stamped, now
from osvdeploy.context import Context
from osvdeploy.digests import Digest
from osvdeploy.osv.filetree import Content, HostFile
from osvdeploy.osv.rofs import digests_of


class StatCache(Stamped[Digest]):
    """sha256 by path."""

    VERSION = 3

    def digest(self, ctx: Context, file: HostFile) -> Digest:
        """sha256 of a file as it was when it was found. Raises SourceChanged when it is not so any more."""
        return self.digests(ctx, [file])[0]

    def digests(
        self,
        ctx: Context,
        files: Sequence[HostFile | Content],
        read: Callable[[Sequence[int]], Sequence[Digest]] | None = None,
    ) -> list[Digest]:
        """One for each of these, in order. What is not known is read, or ``read`` says it of those files, by their
        indices. Raises SourceChanged, and what ``read`` raises."""
        found: list[Digest | None] = []
        unknown: list[int] = []
        for index, file in enumerate(files):
            row = self.recall(file) if isinstance(file, HostFile) else None
            if row is None:
                unknown.append(index)
            found.append(None if row is None else row[1])
        if unknown:
            ctx.check()
            began = now(ctx)
            if read is None:
                answers: Sequence[Digest] = digests_of([files[index] for index in unknown], ctx.check)
            else:
                answers = read(unknown)
            for index, sha256 in zip(unknown, answers, strict=True):
                file, found[index] = files[index], sha256
                if isinstance(file, HostFile):
                    self.learn(file, sha256, began=began)
        return [each for each in found if each is not None]

    @staticmethod
    def _row(known: Digest) -> Sequence[object]:
        return [known]

    @staticmethod
    def _of_row(row: list[Any]) -> Digest:
        (sha256,) = row
        return Digest(sha256)
