"""A spec that a program gives: what osv.toml says of an image, by the same names.

The model of osv.toml is not used for it, since it takes a tenth of a second to import and most programs name a file;
a test holds the two to each other, and what is wrong with a value is for the model to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from osvdeploy.provider.declare import Nested, declared, prop
from osvdeploy.provider.parsing import formatted
from osvdeploy.provider.values import revealed


class KernelVariant(StrEnum):
    """One of the kernels of a release of OSv."""

    LOADER = "loader"
    HIDDEN = "hidden"
    WITH_ZFS = "with-zfs"
    WITH_ZFS_HIDDEN = "with-zfs-hidden"
    MICROVM = "microvm"


class FileSystem(StrEnum):
    """The root file system of an image."""

    ROFS = "rofs"
    ZFS = "zfs"
    EXT = "ext"
    RAMFS = "ramfs"
    ROFS_WITH_ZFS = "rofs_with_zfs"
    VIRTIOFS = "virtiofs"


class Architecture(StrEnum):
    """A machine's architecture."""

    X86_64 = "x86_64"


@declared
class SpecKernel(Nested):
    """Where the kernel comes from: one of file, release, url and tree. What it is is pinned in osv.lock."""

    file: str | None = prop("A loader.img, relative to the spec.", default=None)
    release: str | None = prop("A release of OSv, by its tag.", default=None)
    variant: KernelVariant | None = prop(
        "Which of the release's kernels; left out: loader, which has everything but ZFS.", default=None
    )
    url: str | None = prop("The address of a loader.img, plain or gzip.", default=None)
    tree: str | None = prop("An OSv source tree to build with. Its commit is pinned in osv.lock.", default=None)
    options: Mapping[str, Any] | None = prop(
        "The tree's own options: mode, conf_..., variables of modules.", default=None
    )
    jobs: int | None = prop("Compilers at once in the tree; left out: as many as there is room for.", default=None)


@declared
class SpecImage(Nested):
    """What is booted."""

    command: tuple[str, ...] = prop("The program and its arguments, as words.")
    env: Mapping[str, str] | None = prop("Environment variables of the program.", default=None)
    fs: FileSystem | None = prop("The root file system; all but rofs need kernel.tree.", default=None)
    modules: tuple[str, ...] | None = prop(
        "OSv's own modules and apps, of kernel.tree; what they need comes with them.", default=None
    )
    arch: Architecture | None = prop("The machine's architecture.", default=None)
    size: str | None = prop('The disk, whole GiB, such as "1GiB"; left out: the smallest that holds it.', default=None)
    boot: Mapping[str, Any] | None = prop(
        "OSv's boot options by their own names: true for a flag, an array for one that repeats.", default=None
    )


@declared
class SpecFile(Nested):
    """Files of this host that go into the image."""

    from_: str = prop("A file, a directory or a pattern, relative to the spec.")
    to: str = prop("The path in the guest; ending in / it is a directory to put things into.")
    exclude: tuple[str, ...] | None = prop("Patterns of what to leave out.", default=None)


@declared
class SpecPackages(Nested):
    """What a language's interpreter is to find beside its standard library: one of three."""

    requirements: str | None = prop(
        "A requirements file, relative to the spec; the interpreter's own pip installs it, from wheels.", default=None
    )
    venv: str | None = prop("A virtual environment, relative to the spec; its packages come as they are.", default=None)
    host: bool | None = prop("What is installed for this interpreter on the host.", default=None)


@declared
class SpecProgram(Nested):
    """A program of this host with all that it needs to run."""

    path: str = prop("An absolute path, a name on PATH, or a path relative to the spec, which then needs `to`.")
    to: str | None = prop("Its path in the guest; left out, the same as on the host.", default=None)
    root: str | None = prop(
        "A root file system, relative to the spec, to take it from; left out, this host's.", default=None
    )
    packages: SpecPackages | None = prop(
        "Packages of an interpreter; left out, its standard library alone.", default=None
    )


@declared
class Spec(Nested):
    """What an osv.toml says of an image. Paths in it are relative to the Image's `directory`."""

    name: str = prop("The app.")
    version: str = prop("Its version; never reused for other bytes.")
    kernel: SpecKernel = prop("Where the kernel comes from.")
    image: SpecImage = prop("What is booted.")
    files: tuple[SpecFile, ...] | None = prop("Files of this host that go into the image.", default=None)
    programs: tuple[SpecProgram, ...] | None = prop(
        "Programs of this host, each with all that it needs to run.", default=None
    )
    waive: Mapping[str, str] | None = prop(
        "Rules of `osvdeploy check` that do not refuse this image, each with the reason.", default=None
    )


def document(spec: Spec) -> dict[str, Any]:
    """The same as osv.toml would have it."""
    return {name: revealed(value) for name, value in formatted(spec).items()}
