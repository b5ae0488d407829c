"""CPython: its standard library, packages, extension modules, bytecode and environment.

An interpreter is known by its name and by the standard library that stands where it looks for it: to
``PREFIX/bin/python3`` belongs ``PREFIX/lib/python3.11/os.py`` (Modules/getpath). That holds for Debian's, Fedora's
(``lib64``), pyenv's, one built from source, and python-build-standalone; a virtual environment's is followed to the one
it was made of.

In the guest it is the same layout again: PREFIX is what stands before ``/bin/`` in the program's path, else ``/usr``.
PYTHONHOME tells it so, whatever prefix it was compiled for.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Callable
from dataclasses import dataclass

from osvdeploy.build.closure import Collector, Linked, Missing, Part
from osvdeploy.build.hostroot import Found, HostRoot
from osvdeploy.build.program import Packages
from osvdeploy.build.runtimes import Brought, Workshop
from osvdeploy.build.runtimes.bytecode import CannotRun, compile_sources
from osvdeploy.build.runtimes.requirements import Installed, installed
from osvdeploy.context import Context
from osvdeploy.errors import ProgramInvalid
from osvdeploy.events import Note, Warned
from osvdeploy.osv.elf import Elf
from osvdeploy.osv.filetree import Content, HostFile, show

LEFT_OUT = (
    "__pycache__", "test", "tests", "idle_test", "idlelib", "turtledemo", "ensurepip", "tkinter", "turtle.py",
    "site-packages", "dist-packages",
)  # fmt: skip
"""Names in the standard library that stay out, wherever they stand: tests, what draws windows, what installs packages.
Bytecode is made anew; packages come by `packages`."""

_LEFT_OUT = frozenset(name.encode() for name in LEFT_OUT)
_LEFT_OUT_PATTERN = re.compile(
    rb"config-[^/]*|.*\.(?:a|pyc|pyo)|(?:_tkinter|_test|_ctypes_test|_xx|xxlimited)[^/]*\.so"
)
"""The static library and its build files, and extension modules that only the tests load."""

_PACKAGES_LEFT_OUT = re.compile(
    rb"(?:.*/)?(?:__pycache__|pip|pip-[^/]*\.dist-info)|[^/]*\.dist-info/(?:INSTALLER|REQUESTED|direct_url\.json|uv_cache\.json)"
    rb"|(?:__)?_?virtualenv\.(?:py|pth)"
)
"""pip has nowhere to install to; the others tell which tool installed a package, and from where on this machine."""

SOCKETPAIR = b"import _socket; vars(_socket).pop('socketpair', None)\n"
"""``osv.pth`` in the image. The two ends that OSv's socketpair(2) gives are no sockets (getsockname and send say
ENOTSOCK; seen on v0.57.0-398), and asyncio cannot start without a pair. A Python whose ``_socket`` has no such function
makes the pair of two connected TCP sockets instead (Lib/socket.py)."""

_NAME = re.compile(rb"python(?:[23](?:\.\d+)?)?t?d?")
_VERSION = re.compile(rb"python(\d\.\d+t?)d?")
_LIBPYTHON = re.compile(rb"libpython(\d\.\d+t?)m?d?\.so")
_SHARED = re.compile(rb".*\.so(?:\.\d+)*")
_CONFIG_LIMIT = 1 << 16
_SITE_LIMIT = 1 << 18


@dataclass(frozen=True, slots=True)
class Layout:
    """Where an interpreter's things are in its root. ``library``: the standard library below ``prefix``, such as
    ``lib/python3.11``; ``debian``: whether packages are in dist-packages; ``venv``: the environment it was named in."""

    prefix: bytes
    library: bytes
    version: bytes
    debian: bool
    venv: bytes | None

    @property
    def site(self) -> bytes:
        """Where packages go, below the prefix: the directory that this interpreter's site.py adds to its path."""
        return b"lib/python3/dist-packages" if self.debian else self.library + b"/site-packages"

    @property
    def text_version(self) -> str:
        return self.version.decode()


def layout_of(root: HostRoot, named: bytes, found: Found, elf: Elf) -> Layout | None:
    """The layout around an interpreter, None where there is none."""
    venv, home = _environment(root, named)
    prefixes = [_up(_up(path)) for path in (found.path, named)]
    if home is not None:
        prefixes.insert(0, _up(home))
    for prefix in dict.fromkeys(prefixes):
        for directory in (b"lib", b"lib64"):
            base = (prefix.rstrip(b"/") + b"/" + directory) if prefix != b"/" else b"/" + directory
            versions = [
                match[1]
                for name in root.names(base)
                if (match := _VERSION.fullmatch(name)) and root.find(base + b"/" + name + b"/os.py")
            ]
            version = _choose(versions, found, elf)
            if version is not None:
                library = directory + b"/python" + version
                site = root.read(prefix.rstrip(b"/") + b"/" + library + b"/site.py", _SITE_LIMIT) or b""
                return Layout(prefix, library, version, b"dist-packages" in site, venv)
    return None


def _choose(versions: list[bytes], found: Found, elf: Elf) -> bytes | None:
    """Which of several standard libraries is the interpreter's: its libpython says so, else its name."""
    said = [match[1] for name in elf.needed if (match := _LIBPYTHON.match(name))]
    if not said and (match := _VERSION.fullmatch(found.path.rpartition(b"/")[2])):
        said = [match[1]]
    if said:
        return said[0] if said[0] in versions else None
    return versions[0] if len(versions) == 1 else None


def _environment(root: HostRoot, named: bytes) -> tuple[bytes | None, bytes | None]:
    """The virtual environment that a path is in, and the ``home`` it says its interpreter is from (PEP 405)."""
    for place in (_up(_up(named)), _up(named)):
        config = root.read(place.rstrip(b"/") + b"/pyvenv.cfg", _CONFIG_LIMIT)
        if config is not None:
            return place, config_value(config, b"home")
    return None, None


def config_value(config: bytes, key: bytes) -> bytes | None:
    """One key of a pyvenv.cfg."""
    for line in config.splitlines():
        name, equals, value = line.partition(b"=")
        if equals and name.strip().lower() == key:
            return value.strip()
    return None


def _up(path: bytes) -> bytes:
    return path.rstrip(b"/").rpartition(b"/")[0] or b"/"


@dataclass(slots=True)
class Python:
    """CPython 3."""

    name: str = "CPython"

    def recognize(self, root: HostRoot, named: bytes, found: Found, elf: Elf) -> bool:
        names = {path.rpartition(b"/")[2] for path in (named, found.path)}
        return any(_NAME.fullmatch(name) for name in names) and layout_of(root, named, found, elf) is not None

    def bring(
        self,
        ctx: Context,
        into: Collector,
        program: Linked,
        *,
        named: bytes,
        found: Found,
        packages: Packages | None,
        workshop: Workshop,
    ) -> Brought:
        layout = layout_of(into.root, named, found, program.elf)
        assert layout is not None, "recognized"
        prefix = guest_prefix(program.guest)
        task = _Task(ctx, into, program, layout, prefix, workshop)
        task.standard_library()
        done = task.packages(packages)
        task.extension_modules()
        task.bytecode(found.file)
        return Brought(
            environment(prefix), None if done is None else done.asked, done is None or done.directory is not None
        )


def guest_prefix(program: bytes) -> bytes:
    """PREFIX in the guest."""
    directory = _up(program)
    return _up(directory) if directory.endswith(b"/bin") else b"/usr"


def environment(prefix: bytes) -> tuple[tuple[str, str], ...]:
    """What the interpreter must be told on OSv.

    PYTHONHOME: where its library is. PYTHONUTF8: OSv has the C locale alone, in which Python 3.11 takes every text for
    ASCII, so that printing "ä" is an error. PYTHONDONTWRITEBYTECODE: an image is read-only.
    """
    return (("PYTHONHOME", show(prefix)), ("PYTHONUTF8", "1"), ("PYTHONDONTWRITEBYTECODE", "1"))


@dataclass(slots=True)
class _Task:
    """One interpreter being brought."""

    ctx: Context
    into: Collector
    program: Linked
    layout: Layout
    prefix: bytes
    workshop: Workshop

    def standard_library(self) -> None:
        source = self._in_root(self.layout.library)
        files = self.into.put_tree(
            source, self._in_guest(self.layout.library), Part.PROGRAM, root=self.into.root, wanted=_in_library
        )
        for guest, found in files:
            self.into.put_file(guest, found, Part.PROGRAM)
        place = self._in_guest(self.layout.site)
        self.into.put(place + b"/osv.pth", Content(SOCKETPAIR), "osvdeploy", Part.DERIVED)

    def packages(self, packages: Packages | None) -> Installed | None:
        """Bring them; what was installed for it, where something was."""
        if packages is None:
            if self.layout.venv is not None:
                self._venv(self.into.root, self.layout.venv)
            return None
        if packages.host:
            self._host_packages()
            return None
        if packages.venv is not None:
            venv = os.path.abspath(os.path.join(os.fsencode(self.workshop.base), os.fsencode(packages.venv)))  # noqa: PTH100, PTH118 (names are bytes)
            self._venv(HostRoot(), venv)
            return None
        assert packages.requirements is not None, "one of three, as the model has it"
        done = installed(
            self.ctx,
            self.workshop,
            packages.requirements,
            interpreter=self.program_file,
            runs=self.into.root.top == b"/",
            version=self.layout.text_version,
        )
        if done.directory is not None:
            self._packages(HostRoot(), os.fsencode(done.directory), target=True)
        return done

    def _host_packages(self) -> None:
        """What is installed for this interpreter, at its own places below the prefix."""
        places = [self.layout.site]
        if self.layout.debian:
            places.append(b"local/lib/python" + self.layout.version + b"/dist-packages")
        else:
            # Fedora keeps pure packages apart from those with extension modules.
            places.append(self.layout.library.replace(b"lib64/", b"lib/") + b"/site-packages")
        for place in dict.fromkeys(places):
            self._packages(self.into.root, self._in_root(place), at=place)

    def _venv(self, root: HostRoot, venv: bytes) -> None:
        config = root.read(venv + b"/pyvenv.cfg", _CONFIG_LIMIT)
        if config is None:
            raise ProgramInvalid(
                f"{show(venv)}: no virtual environment: it has no pyvenv.cfg",
                hint="make one with `python3 -m venv`, or name its folder, relative to the spec",
            )
        source = venv + b"/lib/python" + self.layout.version + b"/site-packages"
        if not root.is_directory(source):
            there = [show(name) for name in root.names(venv + b"/lib") if name.startswith(b"python")]
            raise ProgramInvalid(
                f"{show(venv)}: made for {', '.join(there) or 'another interpreter'}, and the program is Python "
                f"{self.layout.text_version}",
                hint="make the environment with the interpreter that [[programs]] names",
            )
        self._packages(root, source)
        if (config_value(config, b"include-system-site-packages") or b"").lower() == b"true":
            self._host_packages()

    def _packages(self, root: HostRoot, source: bytes, *, target: bool = False, at: bytes | None = None) -> None:
        wanted = _in_target if target else _in_packages
        place = self._in_guest(self.layout.site if at is None else at)
        for guest, found in self.into.put_tree(source, place, Part.PACKAGES, root=root, wanted=wanted):
            inner = guest[len(place) + 1 :]
            if inner.endswith(b".dist-info/RECORD") and inner.count(b"/") == 1:
                record = root.read(found.path, 1 << 26) or b""
                self.into.put(guest, Content(record_of(record, wanted)), show(found.file.path), Part.PACKAGES)
            else:
                if inner.endswith(b".pth") and b"/" not in inner:
                    self._look_at_pth(root, found)
                self.into.put_file(guest, found, Part.PACKAGES)

    def _look_at_pth(self, root: HostRoot, found: Found) -> None:
        for line in (root.read(found.path, _CONFIG_LIMIT) or b"").splitlines():
            if line.startswith(b"/"):
                self.ctx.report(
                    Warned(
                        f"{show(found.file.path)}: adds {show(line)} of this machine to the path, not of the image",
                        hint="install that package without --editable, or bring the folder by [[files]]",
                    )
                )

    def extension_modules(self) -> None:
        """The libraries of all that may be imported. One that lacks a library fails there as it does here."""
        missing = Missing()
        for guest, placed in sorted(self.into.entries.items()):
            entry = placed.entry
            if isinstance(entry, HostFile) and guest != self.program.guest and _SHARED.fullmatch(guest):
                self.into.link_module(guest, Found(self._path_in_root(entry.path), entry), self.program, missing)
        if missing.needed:
            self.ctx.report(
                Warned(
                    f"not found in {self.into.root}: {missing.told()}; importing it will fail, as it does there",
                    hint="install what has the library, or do without the module",
                )
            )

    def bytecode(self, interpreter: HostFile) -> None:
        if self.workshop.cache is None:
            return
        if self.into.root.top != b"/":
            self.ctx.report(
                Note(f"no bytecode: programs of {self.into.root} are not run, and only the interpreter itself compiles")
            )
            return
        entries = sorted(self.into.entries.items())
        sources = [
            (guest, placed.entry)
            for guest, placed in entries
            if guest.endswith(b".py") and isinstance(placed.entry, HostFile) and placed.part is not Part.OWN
        ]
        libraries = [
            placed.entry
            for guest, placed in entries
            if isinstance(placed.entry, HostFile) and _LIBPYTHON.match(guest.rpartition(b"/")[2])
        ]
        try:
            made = compile_sources(self.ctx, self.workshop.cache, self.workshop.stats, interpreter, libraries, sources)
        except CannotRun as why:
            self.ctx.report(Note(f"no bytecode: {show(interpreter.path)} does not run here: {why}"))
            return
        for guest, file in made:
            self.into.put(guest, file, f"bytecode by {show(interpreter.path)}", Part.DERIVED)

    @property
    def program_file(self) -> HostFile:
        entry = self.into.entries[self.program.guest].entry
        assert isinstance(entry, HostFile)
        return entry

    def _in_root(self, inner: bytes) -> bytes:
        return self.layout.prefix.rstrip(b"/") + b"/" + inner

    def _in_guest(self, inner: bytes) -> bytes:
        return self.prefix.rstrip(b"/") + b"/" + inner

    def _path_in_root(self, host: bytes) -> bytes:
        top = self.into.root.top.rstrip(b"/")
        return host[len(top) :] if top and host.startswith(top + b"/") else host


def _in_library(inner: bytes) -> bool:
    name = inner.rpartition(b"/")[2]
    return name not in _LEFT_OUT and not _LEFT_OUT_PATTERN.fullmatch(name)


def _in_packages(inner: bytes) -> bool:
    return not _PACKAGES_LEFT_OUT.fullmatch(inner)


def _in_target(inner: bytes) -> bool:
    """Of ``pip install --target``, which puts commands into ``bin``: scripts with this machine's path in them."""
    return inner != b"bin" and _in_packages(inner)


def record_of(record: bytes, wanted: Callable[[bytes], bool]) -> bytes:
    """A package's RECORD without what is not in the image: the commands, bytecode, and notes of the installer."""
    try:
        rows = list(csv.reader(io.StringIO(record.decode())))
    except (UnicodeDecodeError, csv.Error):
        return record
    kept = []
    for row in rows:
        path = row[0].encode() if row else b""
        names = path.split(b"/")
        parents = [b"/".join(names[: count + 1]) for count in range(len(names))]
        if path and b".." not in names and not path.startswith(b"/") and all(wanted(each) for each in parents):
            kept.append(row)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(sorted(kept))
    return text.getvalue().encode()
