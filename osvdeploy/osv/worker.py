"""The program of a worker process: takes digests of files, or puts files on a disk, batch by batch as it is asked.

    main(["hash"])                batch: what pack() makes of files    answer: sha256 of each
    main(["write", FD, START])    batch: that; blocks, where each goes in what begins at START of the file FD; the part
                                  of each that is wanted               answer: True
    main(["copy", FD, START])     batch: that; blocks, or nothing      answer: sha256 of each, once it is written

Asked on standard input, answered on standard output, each a marshalled value behind its length. The answer None says
that something failed: whoever asks does it again and sees what. One batch at a time, so neither side ever waits for the
other to read. It ends when its standard input does, also within a batch: then nobody wants the rest, or is there.

Not for people: osvdeploy.osv.workers starts it. Nothing is imported here that takes time to import.
"""

from __future__ import annotations

import gc
import marshal
import os
import select

from osvdeploy.osv.contents import copy_sources, hash_sources, pwrite_all, unpack, write_sources

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


PLAIN = 2
"""The version of marshal that looks for no value that is there twice, which takes as long as all else."""


def main(words: Sequence[str]) -> None:
    gc.disable()  # no cycles are made here, and a batch is thousands of values
    poll = select.poll()
    poll.register(0, 0)  # of its own accord it tells of the other end's closing only

    def go_on() -> None:
        if poll.poll(0):
            os._exit(0)

    def write(offset: int, view: memoryview) -> None:
        go_on()
        pwrite_all(fd, view, start + offset)

    task = words[0]
    fd, start = (-1, 0) if task == "hash" else (int(words[1]), int(words[2]))
    while request := take(0):
        answer: list[str] | bool | None = None
        try:
            if task == "hash":
                answer = hash_sources(unpack(*marshal.loads(request)), go_on)
            else:
                paths, stamps, packed, *part = marshal.loads(request)
                sources, blocks = unpack(paths, stamps), memoryview(packed).cast("Q")
                if task == "copy":
                    answer = copy_sources(sources, blocks, write) if packed else hash_sources(sources, go_on)
                else:
                    write_sources(sources, blocks, write, *part)
                    answer = True
        except Exception:  # whatever it is, it is met again where it can be told
            pass
        give(1, marshal.dumps(answer, PLAIN))


def give(fd: int, content: bytes) -> None:
    """Raises BrokenPipeError where nobody reads."""
    view = memoryview(len(content).to_bytes(8, "little") + content)
    while view:
        view = view[os.write(fd, view) :]


def take(fd: int) -> bytes:
    """The next value; nothing where the other side has ended."""
    return _exactly(fd, int.from_bytes(_exactly(fd, 8), "little"))


def _exactly(fd: int, count: int) -> bytes:
    pieces = []
    while count:
        piece = os.read(fd, min(count, 1 << 20))
        if not piece:
            return b""
        pieces.append(piece)
        count -= len(piece)
    return b"".join(pieces)
