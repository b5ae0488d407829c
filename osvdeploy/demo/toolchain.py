"""Finds a C compiler for the demo's own programs, and compiles with it.

No compiler is assumed. A Linux x86-64 machine's own one is taken where there is one (``$CC``, else ``cc``, ``gcc`` or
``clang``); anywhere else the PyPI package ``ziglang`` is a whole cross compiler. What comes out is the same bytes each
time for one compiler: no debug information, no build id, no path of this machine.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from osvdeploy.errors import BuildError, OsvDeployError

ZIG_GLIBC = "2.28"
"""The glibc that zig links for: old enough for any Linux host in support, and all of its names are OSv's too."""

_HINT = "install a C compiler (Debian: apt-get install gcc libc6-dev), or the PyPI package: pip install ziglang"
_COMPILE_TIMEOUT = 300.0
"""Seconds. zig builds its start files and libc's stubs when it is first used, which takes about 15."""


Made = TypeVar("Made")


class CompilerKind(StrEnum):
    HOST = "host"
    """gcc or clang for x86-64 Linux."""
    ZIG = "zig"
    """``zig cc``: a cross compiler on any host."""


@dataclass(frozen=True, slots=True)
class Compiler:
    """A C compiler: the words that start it, and which of the two it is."""

    command: tuple[str, ...]
    kind: CompilerKind

    def __str__(self) -> str:
        return " ".join(self.command)


class CompileFailed(BuildError):
    """The compiler ended with an error; ``output`` is what it said."""

    def __init__(self, message: str, *, output: str) -> None:
        super().__init__(message, hint=output.strip() or None)
        self.output = output


def find_compilers(environ: Mapping[str, str] | None = None) -> tuple[Compiler, ...]:
    """Every usable compiler, the preferred one first. ``$CC``, where set, comes before all others.

    A host compiler counts only if it makes x86-64 Linux programs, by its own word (``-dumpmachine``).
    """
    environ = os.environ if environ is None else environ
    found: list[Compiler] = []
    named = shlex.split(environ.get("CC", ""))
    for command in [*([named] if named else []), ["cc"], ["gcc"], ["clang"]]:
        path = shutil.which(command[0], path=environ.get("PATH"))
        if path is not None and _is_x86_64_linux([path, *command[1:]]):
            found.append(Compiler((path, *command[1:]), CompilerKind.HOST))
            break
    if importlib.util.find_spec("ziglang") is not None:
        found.append(Compiler((sys.executable, "-m", "ziglang", "cc"), CompilerKind.ZIG))
    return tuple(found)


def find_compiler(environ: Mapping[str, str] | None = None) -> Compiler:
    """The compiler to use. Raises OsvDeployError where there is none."""
    compilers = find_compilers(environ)
    if not compilers:
        raise _no_compiler()
    return compilers[0]


def _no_compiler() -> OsvDeployError:
    return OsvDeployError("no C compiler for x86-64 Linux: neither cc nor the PyPI package ziglang is here", hint=_HINT)


def compile_program(
    sources: Sequence[Path],
    out: Path,
    *,
    defines: Mapping[str, str] | None = None,
    compiler: Compiler | None = None,
) -> Path:
    """Compile C ``sources`` to ``out``: a program for x86-64 Linux that OSv runs too.

    It is a dynamic PIE that needs libc.so.6 alone, which OSv's kernel supplies (core/elf.cc, supplied_modules).
    ``defines`` are preprocessor macros, values as they stand in the source: ``{"HELLO_VERSION": '"1.0.0"'}``.
    Without ``compiler`` every one found is tried in order: a host's may lack libc's headers. Raises CompileFailed with
    the words of the first where all fail, and OsvDeployError where there is none.
    """
    paths = [_source(path) for path in sources]

    def compile_with(compiler: Compiler) -> Path:
        run_compiler(compiler, [*_program_flags(compiler, defines or {}), *paths], out)
        return out

    return first_that_works(compile_with, compiler)


def _program_flags(compiler: Compiler, defines: Mapping[str, str]) -> list[str]:
    # Fortified calls and stack protectors are names of glibc's that OSv's libc need not have.
    flags = [
        "-std=gnu11",
        "-O2",
        "-g0",
        "-fPIE",
        "-pie",
        "-s",
        "-Wall",
        "-Wextra",
        "-Werror=implicit-function-declaration",
    ]
    flags += ["-U_FORTIFY_SOURCE", "-fno-stack-protector", "-Wl,--build-id=none"]
    if compiler.kind is CompilerKind.ZIG:
        # zig's own checks call into a runtime that is larger than the program.
        flags += ["-target", f"x86_64-linux-gnu.{ZIG_GLIBC}", "-fno-sanitize=all"]
    return [*flags, *(f"-D{name}={value}" for name, value in sorted(defines.items()))]


def first_that_works(make: Callable[[Compiler], Made], compiler: Compiler | None = None) -> Made:
    """What ``make`` makes with ``compiler``, or else with the first of all compilers found that does not fail.

    Raises the first CompileFailed where all fail, and OsvDeployError where there is none.
    """
    compilers = find_compilers() if compiler is None else (compiler,)
    failure: CompileFailed | None = None
    for candidate in compilers:
        try:
            return make(candidate)
        except CompileFailed as failed:
            failure = failure or failed
    raise failure or _no_compiler()


def run_compiler(compiler: Compiler, arguments: Sequence[str], out: Path) -> None:
    """Run ``compiler`` with ``arguments``; ``out`` appears whole, or not at all.

    Raises CompileFailed with the compiler's words.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
        # The output's own name, in a directory of its own: some linkers write it into the file.
        made = Path(scratch, out.name)
        command = [*compiler.command, *arguments, f"-ffile-prefix-map={scratch}=.", "-o", str(made)]
        environment = dict(os.environ, LC_ALL="C", SOURCE_DATE_EPOCH="0", ZIG_LOCAL_CACHE_DIR=str(Path(scratch, "zig")))
        if not _has_cache_directory():
            environment["ZIG_GLOBAL_CACHE_DIR"] = str(Path(scratch, "zig-global"))
        try:
            ended = subprocess.run(
                command, capture_output=True, text=True, errors="replace", env=environment, timeout=_COMPILE_TIMEOUT
            )
        except OSError as error:
            raise CompileFailed(f"{compiler}: cannot be run: {error.strerror}", output="") from None
        except subprocess.TimeoutExpired:
            raise CompileFailed(f"{compiler}: gave no result in {_COMPILE_TIMEOUT:.0f} s", output="") from None
        if ended.returncode != 0 or not made.is_file():
            raise CompileFailed(f"{compiler}: could not make {out.name}", output=ended.stdout + ended.stderr)
        made.replace(out)


def _has_cache_directory() -> bool:
    """Whether zig finds a place for its cache: it gives up without one, as in a container or a service without HOME."""
    if os.environ.get("ZIG_GLOBAL_CACHE_DIR"):
        return True
    cache, home = os.environ.get("XDG_CACHE_HOME"), os.environ.get("HOME")
    place = Path(cache) if cache else Path(home, ".cache") if home else None
    while place is not None and not place.exists() and place != place.parent:
        place = place.parent
    return place is not None and place.is_dir() and os.access(place, os.W_OK)


def _source(path: Path) -> str:
    if not path.is_file():
        raise BuildError(f"{path}: no such source file")
    return str(path)


def _is_x86_64_linux(command: Sequence[str]) -> bool:
    try:
        ended = subprocess.run([*command, "-dumpmachine"], capture_output=True, text=True, errors="replace", timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return False
    parts = ended.stdout.strip().split("-")
    return ended.returncode == 0 and parts[0] in ("x86_64", "amd64") and "linux" in parts
