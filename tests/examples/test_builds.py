"""Each example builds where its tools are present."""

from __future__ import annotations

from pathlib import Path

import pytest

from osvdeploy.errors import BuildError
from tests.examples.projects import INTERPRETERS, built, copy_of, make_static_go, needs_index
from tests.osv.images import write_loader

pytestmark = pytest.mark.slow


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    return write_loader(tmp_path / "loader.img")


@pytest.mark.parametrize("interpreter", INTERPRETERS)
def test_python_from_host_is_the_same_bytes_in_two_places(interpreter: str, kernel: Path, tmp_path: Path) -> None:
    """Two folders and two caches, so that packages and bytecode are made twice: one image."""
    needs_index(interpreter)
    results = []
    for name in ("one", "a/longer/name"):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        example = copy_of("python-from-host", folder, kernel)
        try:
            results.append(built(example, tmp_path / f"{name}-cache", f"programs.0.path={interpreter}"))
        except BuildError as error:
            if "could not install" in str(error) and "onnect" in (error.hint or ""):
                pytest.skip(f"no package index in reach: {error.hint}")
            raise

    assert not any(result.reused for result in results)
    assert len({result.image.digest for result in results}) == 1
    assert results[0].image.path.read_bytes() == results[1].image.path.read_bytes()


def test_static_go_builds(kernel: Path, tmp_path: Path) -> None:
    """One program, made by the example's own Makefile."""
    example = copy_of("static-go", tmp_path, kernel)
    make_static_go(example)

    result = built(example, tmp_path / "cache")

    assert result.image.boot.words == ("/server", "--port", "8080")
