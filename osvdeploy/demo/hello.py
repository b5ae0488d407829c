"""Builds the releases of the example program, hello, from the sources in examples/hello."""

from __future__ import annotations

from pathlib import Path

from osvdeploy.demo.toolchain import Compiler, compile_program
from osvdeploy.errors import BuildError

_EXAMPLES = Path(__file__).parent / "examples"

EXAMPLE = (_EXAMPLES if _EXAMPLES.is_dir() else Path(__file__).parents[2] / "examples") / "hello"
"""The example's folder: in a wheel a part of this package, in a checkout where its users look for it."""


def releases(example: Path = EXAMPLE) -> tuple[str, ...]:
    """The versions there are sources for, in order. Raises BuildError where ``example`` is not the example's folder."""
    versions = [path.stem for path in (example / "releases").glob("*.c")]
    if not versions:
        raise BuildError(f"{example}: no releases of hello here", hint="run it in a checkout of osvdeploy")
    return tuple(sorted(versions, key=lambda version: [int(part) for part in version.split(".")]))


def build_hello(version: str, out: Path, *, example: Path = EXAMPLE, compiler: Compiler | None = None) -> Path:
    """Compile one release of hello to ``out``. Raises BuildError for one that does not exist, and where it fails."""
    known = releases(example)
    if version not in known:
        raise BuildError(f"hello {version}: no such release", hint=f"there are {', '.join(known)}")
    sources = [example / "hello.c", example / "releases" / f"{version}.c"]
    return compile_program(sources, out, defines={"HELLO_VERSION": f'"{version}"'}, compiler=compiler)
