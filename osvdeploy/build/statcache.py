"""Digests and sketches of files, remembered (osvdeploy.build.stamped)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from osvdeploy.build.stamped import Stamped, now
from osvdeploy.context import Context
from osvdeploy.digests import Digest
from osvdeploy.osv.filetree import Content, HostFile
from osvdeploy.osv.rofs import Fingerprint, fingerprints


class StatCache(Stamped[Fingerprint]):
    """Digests and sketches by path."""

    VERSION = 2

    def digest(self, ctx: Context, file: HostFile) -> Digest:
        """sha256 of a file as it was when it was found. Raises SourceChanged when it is not so any more."""
        return self.fingerprints(ctx, [file])[0].sha256

    def fingerprints(self, ctx: Context, files: Sequence[HostFile | Content]) -> list[Fingerprint]:
        """One for each of these, in order. What is not known is read. Raises SourceChanged."""
        found: list[Fingerprint | None] = []
        unknown: list[HostFile | Content] = []
        for file in files:
            row = self.recall(file) if isinstance(file, HostFile) else None
            if row is None:
                unknown.append(file)
            found.append(None if row is None else row[1])
        if not unknown:
            return [each for each in found if each is not None]
        ctx.check()
        began = now(ctx)
        read = fingerprints(unknown, ctx.check)
        for file, answer in zip(unknown, read, strict=True):
            if isinstance(file, HostFile):
                self.learn(file, answer, began=began)
        following = iter(read)
        return [next(following) if each is None else each for each in found]

    @staticmethod
    def _row(known: Fingerprint) -> Sequence[object]:
        return known

    @staticmethod
    def _of_row(row: list[Any]) -> Fingerprint:
        return Fingerprint(*row)
