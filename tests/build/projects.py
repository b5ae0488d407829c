"""A small project on disk, and what is declared of it."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from pathlib import Path

from osvdeploy.build.builder import BuildResult, build
from osvdeploy.build.cache import BuildCache
from osvdeploy.build.plan import FileMapping, ImageInputs
from osvdeploy.build.sources import FileKernel
from osvdeploy.context import Context
from osvdeploy.events import Event, Recorder
from tests.osv.images import write_loader


@dataclass(frozen=True, slots=True)
class Project:
    """A folder with a kernel, a program and some pages; a cache beside it."""

    root: Path
    inputs: ImageInputs
    cache: BuildCache
    recorder: Recorder

    def build(self, **changes: object) -> BuildResult:
        return build(self.context, replace(self.inputs, **changes), self.cache)  # type: ignore[arg-type]  # the caller names fields

    @property
    def context(self) -> Context:
        return Context(reporter=self.recorder)

    @property
    def events(self) -> list[Event]:
        return self.recorder.events

    def write(self, name: str, content: str | bytes, *, age: float = 60.0) -> Path:
        """A file that was last written ``age`` seconds ago."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        then = time.time() - age
        os.utime(path, (then, then))
        return path


def project_at(root: Path, cache: Path) -> Project:
    """What is declared; the files are those that are there."""
    inputs = ImageInputs(
        app="hello",
        version="1.0.0",
        base=root,
        kernel=FileKernel("loader.img"),
        command=("/hello", "--port", "8080"),
        environment=(("LOG", "info"),),
        options=(("verbose", None),),
        files=(FileMapping("build/hello", "/hello"), FileMapping("web/", "/srv/", (".git", "**/*.map"))),
    )
    return Project(root, inputs, BuildCache(cache), Recorder())


def make_project(root: Path, cache: Path) -> Project:
    """The same, with all its files."""
    root.mkdir(parents=True, exist_ok=True)
    project = project_at(root, cache)
    write_loader(root / "loader.img")
    for name in ("build/hello", "web/index.html", "web/js/app.js", "web/js/app.js.map", "web/.git/config", "web/ü"):
        project.write(name, f"this is {name}")
    (root / "web/home").symlink_to("index.html")
    return project


def files_in(folder: Path, **files: str) -> None:
    """Text files by their names, in which __ stands for a slash."""
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
