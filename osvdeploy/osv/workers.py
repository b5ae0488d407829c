"""Spreads the reading of many files over worker processes, one for each core.

Threads are of little use for many small files: what Python does between two system calls keeps the others waiting. A
worker holds nothing that is not done anew where it fails: one that cannot be started, is killed or meets an error costs
time only, since what it was asked for is then done in this process, which raises what there is to raise.

Workers end when this process does, however it ends: their standard input ends too.
"""

from __future__ import annotations

import itertools
import marshal
import os
import select
import struct
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, Protocol, TypeVar

from osvdeploy.osv.worker import PLAIN, give, take
from osvdeploy.sizes import KIB, MIB

MOST = 4
"""Workers at most: writes into one file wait for one another, and each worker takes 15 MB of memory."""

BATCH = 16 * MIB
"""What a worker is asked for at once, as weight: some milliseconds of work."""

FILE_WEIGHT = 16 * KIB
"""Bytes that are read in the time that it takes to open and close a file."""

_WORTH = 8
"""Batches from which on workers are started: it takes them 20 ms, about as long as two batches."""

_TICK = 100
"""Milliseconds between two calls of ``going_on`` at most."""

_PROGRAM = "import sys; sys.path.append(sys.argv[1]); from osvdeploy.osv.worker import main; main(sys.argv[2:])"
_ROOT = str(Path(__file__).parents[2])

Batch = TypeVar("Batch")
Asked = TypeVar("Asked", contravariant=True)
Answer = TypeVar("Answer")


class Job(Protocol[Asked, Answer]):
    """What workers and this process do together. All but ``told`` may raise, which ends it."""

    def told(self, batch: Asked) -> Any:
        """What a worker needs to know of a batch: a value for marshal. ValueError or struct.error: there is none."""
        ...

    def alone(self, batch: Asked) -> Answer:
        """What a worker would have answered."""
        ...

    def done(self, batch: Asked, answer: Answer) -> None:
        """A batch is done. They come in no certain order."""
        ...

    def going_on(self) -> object:
        """Called at least ten times a second while workers are busy."""
        ...

    def meanwhile(self) -> Iterator[None]:
        """What there is to do here, in steps that are taken while no worker wants anything."""
        ...


def worth(weight: int) -> int:
    """How many workers are worth starting for files of this weight: their bytes, and FILE_WEIGHT for each."""
    if weight < _WORTH * BATCH:
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MOST) if cores > 1 else 0


def in_batches(indices: Iterable[int], sizes: Sequence[int]) -> Iterator[list[int]]:
    """Files by their indices, in batches that a worker is asked for at once; one of BATCH bytes and more is a last."""
    batch: list[int] = []
    left = BATCH
    for index in indices:
        batch.append(index)
        left -= sizes[index] + FILE_WEIGHT
        if left <= 0:
            yield batch
            batch, left = [], BATCH
    if batch:
        yield batch


class Crew:
    """Up to ``wanted`` worker processes, as many as can be started. None of them is left when its context is.

    ``words`` are those of ``osvdeploy.osv.worker``; ``handed`` are descriptors that workers get under their numbers.
    """

    def __init__(self, wanted: int, words: Sequence[str], handed: Sequence[int] = ()) -> None:
        self._wanted, self._words, self._handed = wanted, words, handed
        self._workers: list[_Worker] = []
        self._idle: list[_Worker] = []

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *error: object) -> None:
        for worker in self._workers:
            worker.kill()
        for worker in self._workers:
            worker.wait()

    def start(self) -> None:
        """Start all of them now, which takes them some time, and not when there is something to do."""
        while (worker := self._started()) is not None:
            self._idle.append(worker)

    def _started(self) -> _Worker | None:
        if len(self._workers) >= self._wanted:
            return None
        worker = _Worker.start(self._words, self._handed)
        if worker is None:
            self._wanted = len(self._workers)
        else:
            self._workers.append(worker)
        return worker

    def do(self, job: Job[Batch, Answer], batches: Iterable[Batch]) -> None:
        """Have all batches done. Raises what the job raises: of several errors the one that it meets first alone."""
        following = enumerate(batches)
        for _, batch in itertools.chain(sorted(self._by_workers(job, following), key=itemgetter(0)), following):
            job.done(batch, job.alone(batch))

    def _by_workers(self, job: Job[Batch, Answer], following: Iterator[tuple[int, Batch]]) -> list[tuple[int, Batch]]:
        """Returns what was begun and is not done: what workers had that died or met an error, after which nothing is
        begun, and a batch that nobody was left for."""
        idle, busy = self._idle, dict[int, tuple[_Worker, tuple[int, Batch]]]()
        failed: list[tuple[int, Batch]] = []
        answered: list[tuple[Batch, Answer]] = []
        poll, refused = select.poll(), False
        steps, rest = job.meanwhile(), True

        def prepared() -> tuple[tuple[int, Batch], bytes] | None:
            for batch in following:
                try:
                    return batch, marshal.dumps(job.told(batch[1]), PLAIN)
                except (ValueError, struct.error):  # no worker can be told of it
                    failed.append(batch)
            return None

        # A batch is ready before a worker wants it, and an answer is looked at once its worker is busy again.
        ahead = prepared() if self._wanted else None
        while True:
            while ahead and not refused and (worker := idle.pop() if idle else self._started()):
                batch, message = ahead
                if worker.ask(message):
                    busy[worker.answers] = worker, batch
                    poll.register(worker.answers, select.POLLIN)
                else:
                    failed.append(batch)
                ahead = prepared()
            for done, answer in answered:
                job.done(done, answer)
            answered.clear()
            job.going_on()
            if not busy:
                deque(steps, 0)
                return failed if ahead is None else [*failed, ahead[0]]
            ready = poll.poll(0 if rest else _TICK)
            if not ready and rest:
                rest = next(steps, self) is None
            for answers, _ in ready:
                worker, batch = busy.pop(answers)
                poll.unregister(answers)
                said = take(answers)
                found = marshal.loads(said) if said else None
                if found is None:
                    failed.append(batch)
                else:
                    answered.append((batch[1], found))
                if said:
                    idle.append(worker)
                    refused = refused or found is None


class _Worker:
    """A process that is asked for one batch at a time."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None and process.stdout is not None
        self._process = process
        self._questions = process.stdin.fileno()
        self.answers = process.stdout.fileno()

    @classmethod
    def start(cls, words: Sequence[str], handed: Sequence[int]) -> _Worker | None:
        """None where it cannot be started."""
        if not sys.executable or any(fd <= 2 for fd in handed):
            return None
        try:
            # -I -S: nothing of the user's environment, and no packages, which take time to find. A process group of its
            # own: a Ctrl-C is for this process, which ends its workers.
            return cls(
                subprocess.Popen(
                    [sys.executable, "-I", "-S", "-c", _PROGRAM, _ROOT, *words],
                    bufsize=0,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    pass_fds=handed,
                    process_group=0,
                )
            )
        except OSError:
            return None

    def ask(self, message: bytes) -> bool:
        """False where it has ended."""
        try:
            give(self._questions, message)
        except OSError:
            return False
        return True

    def kill(self) -> None:
        """It holds nothing."""
        self._process.kill()

    def wait(self) -> None:
        with self._process:
            pass
