"""Bytecode of Python sources, the same on every machine and in every directory.

Only the interpreter itself can compile, so the very one that goes into the image is run for it: another release of the
same magic number may compile another way. Nothing of the packages is run or imported.

- The file holds a hash of its source instead of a time, and is never checked against it (PEP 552, unchecked): OSv's
  ROFS has no times, and asking costs a read of every source.
- ``co_filename`` is the guest's path.
- Each file is compiled in a process forked for it alone. marshal writes an object's reference count into the file (as a
  flag, w_ref in Python/marshal.c), so what was compiled before would show; hash randomization is off likewise.

So bytecode is a function of interpreter, source and guest path, and is kept in the build cache by their digests.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from osvdeploy.build.cache import BuildCache
from osvdeploy.build.files import replace_file
from osvdeploy.build.statcache import StatCache
from osvdeploy.build.uses import note_files, use
from osvdeploy.context import Context
from osvdeploy.digests import Digest, digest_of
from osvdeploy.errors import BuildError, SourceChanged
from osvdeploy.events import Progress
from osvdeploy.osv.filetree import HostFile, show, stamp_of
from osvdeploy.processes import run_tool

BYTECODE_VERSION = 2
"""Raised when :data:`_COMPILE` makes other bytes of the same source."""

_COMPILE = r"""
import importlib._bootstrap_external as external, json, marshal, os, sys
jobs = json.load(sys.stdin)
sys.setrecursionlimit(20000)
def make(source, guest, out):
    with open(source, "rb") as file:
        text = file.read()
    code = compile(text, guest, "exec", dont_inherit=True, optimize=0)
    data = external._code_to_hash_pyc(code, external._imp.source_hash(external._RAW_MAGIC_NUMBER, text), False)
    with open(out + ".part", "wb") as file:
        file.write(data)
    os.rename(out + ".part", out)
running, failed, limit = set(), 0, max(1, os.cpu_count() or 1)
def reap():
    global failed
    child, status = os.wait()
    running.discard(child)
    failed = failed or status
for source, guest, out in jobs:
    if len(running) >= limit:
        reap()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            make(source, guest, out)
            status = 0
        except (SyntaxError, ValueError, RecursionError, OverflowError):
            # No Python of this version: an empty file says so.
            open(out, "wb").close()
            status = 0
        finally:
            os._exit(status)
    running.add(child)
while running:
    reap()
sys.exit(1 if failed else 0)
"""

_TELL = r"""
import importlib._bootstrap_external as external, json, sys
print(json.dumps({"tag": sys.implementation.cache_tag, "magic": external._RAW_MAGIC_NUMBER,
                  "name": sys.implementation.name, "version": list(sys.version_info[:2])}))
"""

_ENVIRONMENT: Mapping[str, str] = {"PYTHONHASHSEED": "0", "PYTHONUTF8": "1", "LC_ALL": "C", "PATH": os.defpath}


class CannotRun(Exception):
    """The interpreter does not run on this machine, and why."""


def interpreter_words(interpreter: HostFile) -> list[bytes]:
    """Started without site, user site and environment's say, so that nothing but the interpreter itself is run."""
    return [interpreter.path, b"-S", b"-s", b"-B", b"-W", b"ignore"]


def compile_sources(
    ctx: Context,
    cache: Path,
    stats: StatCache,
    interpreter: HostFile,
    libraries: Sequence[HostFile],
    sources: Sequence[tuple[bytes, HostFile]],
) -> tuple[tuple[bytes, HostFile], ...]:
    """Bytecode for ``sources`` (guest path and file), by guest path; a source that is no Python of this version has
    none. ``libraries``: libpython, where the interpreter is linked with it.

    Raises CannotRun where the interpreter does not run here, and BuildError where the cache cannot be written.
    """
    identity = digest_of(
        {
            "version": BYTECODE_VERSION,
            "interpreter": stats.digest(ctx, interpreter),
            "libraries": [stats.digest(ctx, library) for library in libraries],
        }
    )
    store = cache / "bytecode" / identity[:32]
    use(cache, store, making=True)
    try:
        store.mkdir(parents=True, exist_ok=True)
        tag = _cache_tag(ctx, store, interpreter)
        wanted = [
            (guest, source, store / f"{_key(guest, stats.digest(ctx, source))}.pyc")
            for guest, source in sources
            if _is_text(guest)
        ]
        made = _made(store)
        if missing := [each for each in wanted if each[2].name not in made]:
            _compile(ctx, BuildCache(cache), interpreter, missing)
        note_files(cache, store, [out.name for _, _, out in wanted], nonce=ctx.nonce())
        return tuple(
            (_cached_name(guest, tag), HostFile(os.fsencode(out), stamp_of(status)))
            for guest, _, out in wanted
            if (status := out.stat()).st_size
        )
    except OSError as error:
        raise BuildError(
            f"{error.filename or store}: the cache of bytecode cannot be written: {error.strerror}",
            hint="set OSVDEPLOY_CACHE to a directory that can be",
        ) from None


def _compile(
    ctx: Context, cache: BuildCache, interpreter: HostFile, missing: Sequence[tuple[bytes, HostFile, Path]]
) -> None:
    ctx.report(Progress("bytecode", 0, len(missing), "files"))
    with cache.workspace(ctx) as work:
        jobs = [(os.fsdecode(source.path), guest.decode(), str(work.path / out.name)) for guest, source, out in missing]
        ended = run_tool(
            ctx,
            [*interpreter_words(interpreter), b"-c", _COMPILE.encode()],
            cwd=work.path,
            env=_ENVIRONMENT,
            held=(work.lock,),
            given=json.dumps(jobs).encode(),
        )
        if ended.status != 0:
            raise BuildError(
                f"{show(interpreter.path)}: could not compile: {ended.last(3) or f'it ended with {ended.status}'}",
                hint="is there room in the cache, and memory? Run the build again: what is compiled is kept",
            )
        for _, source, out in missing:
            if stamp_of(os.stat(source.path)) != source.stamp:  # noqa: PTH116 (names are bytes)
                raise SourceChanged(
                    f"{show(source.path)}: changed while it was compiled",
                    hint="let nothing write to the sources while they are built",
                )
            try:
                # Never in the place of one that is there: another build may have noted its stamp.
                os.link(work.path / out.name, out)
            except FileExistsError:
                pass
    ctx.report(Progress("bytecode", len(missing), len(missing), "files"))


def _cache_tag(ctx: Context, store: Path, interpreter: HostFile) -> str:
    """How the interpreter names its bytecode ("cpython-311"), asked once."""
    told = store / "interpreter.json"
    try:
        return str(json.loads(told.read_bytes())["tag"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    try:
        ended = run_tool(ctx, [*interpreter_words(interpreter), b"-c", _TELL.encode()], cwd=store, env=_ENVIRONMENT)
    except OSError as error:
        raise CannotRun(str(error.strerror)) from None
    try:
        document = json.loads(ended.out)
        if ended.status == 0 and document["name"] == "cpython" and document["version"] >= [3, 7]:
            replace_file(told, ended.out, nonce=ctx.nonce())
            return str(document["tag"])
    except (ValueError, KeyError, TypeError):
        pass
    raise CannotRun(ended.last(3) or f"it ended with {ended.status}")


def _key(guest: bytes, source: Digest) -> Digest:
    return digest_of({"guest": guest.decode(), "source": source})


def _is_text(guest: bytes) -> bool:
    try:
        guest.decode()
    except UnicodeDecodeError:
        return False
    return True


def _made(store: Path) -> frozenset[str]:
    return frozenset(os.listdir(store))  # noqa: PTH208 (names alone)


def _cached_name(guest: bytes, tag: str) -> bytes:
    directory, _, name = guest.rpartition(b"/")
    return directory + b"/__pycache__/" + name.removesuffix(b".py") + b"." + tag.encode() + b".pyc"
