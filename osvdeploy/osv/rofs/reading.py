"""Takes the digests of a tree's files, by as many processes as are worth it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import cast

from osvdeploy.digests import Digest
from osvdeploy.osv.collector import paused
from osvdeploy.osv.contents import hash_sources, pack
from osvdeploy.osv.filetree import Content, HostFile
from osvdeploy.osv.workers import BATCH, FILE_WEIGHT, Crew, in_batches, worth


@paused()
def digests_of(
    files: Sequence[HostFile | Content],
    going_on: Callable[[], object] = lambda: None,
    *,
    workers: int | None = None,
) -> list[Digest]:
    """sha256 of each file's content, in order. ``going_on`` is called at least once per MiB, or ten times a second, and
    may raise. ``workers`` says how many processes help; None is as many as are worth it. Raises SourceChanged."""
    if workers is None:
        workers = worth_for(files)
    with Crew(workers, ["hash"]) as crew:
        crew.start()
        reading = _Reading(files, going_on)
        indices = largest_first(reading.sizes, of(HostFile, files))
        crew.do(reading, in_batches(indices, reading.sizes))
    return reading.found


class _Reading:
    """What is read by this process, and what workers are told and say."""

    def __init__(self, files: Sequence[HostFile | Content], going_on: Callable[[], object]) -> None:
        self._files, self.going_on = files, going_on
        self.sizes = [file.size for file in files]
        self.found = [Digest("")] * len(files)

    def meanwhile(self) -> Iterator[None]:
        """Take the digests of what is in this process already."""
        for batch in in_batches(of(Content, self._files), self.sizes):
            self.done(batch, self.alone(batch))
            yield

    def told(self, indices: list[int]) -> tuple[bytes, bytes]:
        return told(self._files, indices)

    def alone(self, indices: list[int]) -> list[str]:
        return hash_sources([self._files[index].source for index in indices], self.going_on)

    def done(self, indices: list[int], answers: list[str]) -> None:
        for index, sha256 in zip(indices, answers, strict=True):
            self.found[index] = Digest(sha256)


def worth_for(files: Sequence[HostFile | Content]) -> int:
    """How many workers are worth starting to read these."""
    weight = len(files) * FILE_WEIGHT
    return worth(weight) or worth(weight + sum([file.size for file in files]))


def of(kind: type[HostFile | Content], files: Sequence[HostFile | Content]) -> Iterator[int]:
    """Those on this machine, or those in this process, by their indices."""
    return (index for index, file in enumerate(files) if type(file) is kind)


def largest_first(sizes: Sequence[int], indices: Iterator[int]) -> list[int]:
    """What is a batch by itself comes first: as the last it would keep one worker busy when nothing is left for the
    others."""
    return sorted(indices, key=lambda index: sizes[index] < BATCH)


def told(files: Sequence[HostFile | Content], indices: Sequence[int]) -> tuple[bytes, bytes]:
    """Files of this machine as a worker is told of them."""
    chosen = cast("list[HostFile]", [files[index] for index in indices])
    return pack([file.path for file in chosen], [file.stamp for file in chosen])
