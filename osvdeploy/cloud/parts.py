"""What every object store does with a large object, whatever it is stored in: cut it, and agree about what is there."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator

from osvdeploy.cloud.interfaces import ObjectSource, StoredObject
from osvdeploy.errors import (
    CredentialsMissing,
    DeadlineExceeded,
    Interrupted,
    ObjectTaken,
    OsvDeployError,
    Unavailable,
    UploadGone,
)


def is_refusal(error: OsvDeployError) -> bool:
    """Whether what ended with this is to be taken away. Else it stays: the same command, run again, may finish it."""
    return not isinstance(error, Interrupted | DeadlineExceeded | Unavailable | CredentialsMissing | UploadGone)


def cut(pieces: Iterable[bytes], size: Callable[[int], int]) -> Iterator[bytes]:
    """The same bytes in parts: part ``number``, from 1 on, of ``size(number)`` bytes, the last of what remains."""
    number, gathered, held = 1, list[bytes](), 0
    for piece in pieces:
        view = memoryview(piece)
        while held + len(view) >= (wanted := size(number)):
            gathered.append(bytes(view[: wanted - held]))
            view = view[wanted - held :]
            yield b"".join(gathered)
            number, gathered, held = number + 1, [], 0
        if view:
            gathered.append(bytes(view))
            held += len(view)
    if held:
        yield b"".join(gathered)


MOST_AHEAD = 4
"""Parts that are made before it is known whether they are wanted: two cores deflate as much in 60 ms."""


class Ahead(Iterator[bytes]):
    """Parts, of which some are made before anybody takes them: what they are made of takes time, and so does the look
    whether they are wanted."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        self._parts = parts
        self._made: deque[bytes] = deque()
        self._trouble: Exception | None = None

    def make(self, *, until: Callable[[], bool]) -> None:
        """Make some, a few at most that nobody has taken. What fails then is told to whoever has taken all before."""
        while len(self._made) < MOST_AHEAD and self._trouble is None and not until():
            try:
                self._made.append(next(self._parts))
            except Exception as error:
                self._trouble = error

    def __next__(self) -> bytes:
        if self._made:
            return self._made.popleft()
        if self._trouble is not None:
            raise self._trouble
        return next(self._parts)


def agreed(address: str, there: StoredObject, source: ObjectSource) -> StoredObject:
    """The object that stands where a source was to be put. Raises :class:`~osvdeploy.errors.ObjectTaken` where it is
    another."""
    if there.digest != source.digest:
        raise ObjectTaken(f"{address}/{there.key}", held=there.digest, ours=source.digest)
    return there
