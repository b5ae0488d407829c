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


class Ahead(Iterator[bytes]):
    """Parts, of which some are made before anybody takes them: what they are made of takes time, and so does the look
    whether they are wanted."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        self._parts = parts
        self._made: deque[bytes] = deque()

    def make(self, most: int, until: Callable[[], bool]) -> None:
        """Make some, up to ``most`` that nobody has taken."""
        while len(self._made) < most and not until():
            made = next(self._parts, None)
            if made is None:
                break
            self._made.append(made)

    def __next__(self) -> bytes:
        return self._made.popleft() if self._made else next(self._parts)


def agreed(address: str, there: StoredObject, source: ObjectSource) -> StoredObject:
    """The object that stands where a source was to be put. Raises :class:`~osvdeploy.errors.ObjectTaken` where it is
    another."""
    if there.digest != source.digest:
        raise ObjectTaken(f"{address}/{there.key}", held=there.digest, ours=source.digest)
    return there
