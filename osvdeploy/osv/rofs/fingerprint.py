"""What placing needs to know of a content: its digest, and a sketch that most changes of a large file leave alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, cast

from osvdeploy.digests import Digest
from osvdeploy.osv.collector import paused
from osvdeploy.osv.contents import SKETCHED, Hasher, hash_sources, pack
from osvdeploy.osv.filetree import Content, HostFile
from osvdeploy.osv.workers import BATCH, FILE_WEIGHT, Crew, in_batches, worth

LARGE = SKETCHED
"""Bytes from which on a file has a group, and so a place, by itself. Its last block it shares with small ones."""


class Fingerprint(NamedTuple):
    """``sha256`` of a content and, where it is large, its ``sketch``: the lowest of the checksums of its 64 KiB pieces,
    else 0. Two contents of which most pieces agree have most often one sketch, which is where they want to stand;
    nothing else depends on it."""

    sha256: Digest
    sketch: int = 0

    @property
    def key(self) -> int:
        """What the content's place is drawn from."""
        return self.sketch or int(self.sha256[:16], 16)


def fingerprint(content: bytes) -> Fingerprint:
    """Of a content in memory."""
    hasher = Hasher()
    hasher.update(content)
    sha256, sketch = hasher.result()
    return Fingerprint(Digest(sha256), sketch)


@paused()
def fingerprints(
    files: Sequence[HostFile | Content],
    going_on: Callable[[], object] = lambda: None,
    *,
    workers: int | None = None,
) -> list[Fingerprint]:
    """One for each file, in order. ``going_on`` is called at least once per MiB, or ten times a second, and may raise.
    ``workers`` says how many processes help; None is as many as are worth it. Raises SourceChanged."""
    weight = len(files) * FILE_WEIGHT
    if workers is None:
        workers = worth(weight) or worth(weight + sum([file.size for file in files]))
    with Crew(workers, ["hash"]) as crew:
        crew.start()
        reading = _Reading(files, going_on)
        crew.do(reading, in_batches(reading.of_this_machine(), reading.sizes))
    return reading.found


class _Reading:
    """What is read by this process, and what workers are told and say."""

    def __init__(self, files: Sequence[HostFile | Content], going_on: Callable[[], object]) -> None:
        self._files, self.going_on = files, going_on
        self.sizes = [file.size for file in files]
        self.found = [_EMPTY] * len(files)

    def of_this_machine(self) -> Iterator[int]:
        """The largest first: as the last they would keep one worker busy when nothing is left for the others."""
        for wanted in (True, False):
            for index, size in enumerate(self.sizes):
                if (size >= BATCH) is wanted and type(self._files[index]) is HostFile:
                    yield index

    def meanwhile(self) -> Iterator[None]:
        """Take the digests of what is in this process already."""
        indices = (index for index, file in enumerate(self._files) if type(file) is Content)
        for batch in in_batches(indices, self.sizes):
            self.done(batch, self.alone(batch))
            yield

    def told(self, indices: list[int]) -> tuple[bytes, bytes]:
        return told(self._files, indices)

    def alone(self, indices: list[int]) -> list[tuple[str, int]]:
        return hash_sources([self._files[index].source for index in indices], self.going_on)

    def done(self, indices: list[int], answers: list[tuple[str, int]]) -> None:
        for index, (sha256, sketch) in zip(indices, answers, strict=True):
            self.found[index] = Fingerprint(Digest(sha256), sketch)


def told(files: Sequence[HostFile | Content], indices: Sequence[int]) -> tuple[bytes, bytes]:
    """Files of this machine as a worker is told of them."""
    chosen = cast("list[HostFile]", [files[index] for index in indices])
    return pack([file.path for file in chosen], [file.stamp for file in chosen])


_EMPTY = fingerprint(b"")
