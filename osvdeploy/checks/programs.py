"""Will it run? Each program and library of an image against the kernel that shall load it.

The loader is modelled as core/elf.cc has it: which files it takes, where it looks for what they need, what it does
about a name that nobody defines. It is lazier than Linux's: a library that is not there is passed over in silence, and
so is a missing function, until it is called, which stops the guest. What keeps a program of the command line from its
work is an error: a file that OSv does not load, a library it lacks. What stops it only once it gets there is a warning,
and so is everything of files that it may load later by itself (Python's extension modules, plugins). Those are told
together, one finding for each rule.

Pure: facts in, findings out. A fact that the kernel's bytes do not tell is asked of no rule.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from osvdeploy.checks.finding import Finding, Severity
from osvdeploy.osv.elf import Elf, ElfKind, Machine, SegmentType
from osvdeploy.osv.filetree import Directory, FileTree, Symlink, resolve, show
from osvdeploy.osv.kernel_facts import KernelFacts

RULES: Final[Mapping[str, str]] = {
    "program-missing": "What the command line starts is not in the image.",
    "program-not-elf": "What the command line starts is a script or another file that OSv cannot execute.",
    "program-without-start": "What the command line starts is a library that has neither main nor an entry point.",
    "elf-damaged": "A program or library cannot be read as ELF: truncated, or its tables are wrong.",
    "elf-not-accepted": "An ELF file of a kind that OSv's loader refuses: relocatable, for another system.",
    "wrong-machine": "An ELF file for another processor than the kernel's.",
    "unknown-segment": "An ELF file has a segment type that OSv's loader does not know, at which it aborts.",
    "collides-with-kernel": "A position-dependent executable is linked to addresses that the kernel occupies.",
    "tls-too-large": "An executable's thread-local data is larger than what the kernel has reserved for it.",
    "static-executable": "A static executable on a kernel that runs dynamic ones only.",
    "tls-untouched": "A program that Go linked itself, which this kernel leaves standing still at its start.",
    "entry-without-libc": "A dynamic executable that starts without the C library, and so finds no arguments.",
    "library-missing": "A needed library is neither in the image nor part of the kernel.",
    "library-misplaced": "A needed library is in the image, but not where OSv's loader looks.",
    "library-cycle": "Libraries need each other in a circle, which OSv's loader follows without end.",
    "symbol-missing-at-load": "A variable that must be found while a program is loaded is defined nowhere.",
    "symbols-missing": "Names that neither the image nor the kernel defines; the first use of one stops the guest.",
    "starts-processes": "A program imports what starts other processes, of which OSv has none.",
    "drops-privileges": "A program imports what changes its user; any but root stops the guest.",
    "stubbed-calls": "A program imports functions that this kernel has in name only.",
}
"""Every rule of this module, and what it says."""

_NAMES_SHOWN: Final = 6
_FILES_SHOWN: Final = 4

_SEARCHED: Final = (b"/", b"/usr/lib")
_SEARCHED_BY_GLIBC: Final = (
    b"/lib/x86_64-linux-gnu", b"/usr/lib/x86_64-linux-gnu", b"/lib/aarch64-linux-gnu", b"/usr/lib/aarch64-linux-gnu",
    b"/lib64", b"/usr/lib64", b"/lib", b"/usr/lib",
)  # fmt: skip
"""Where ld.so looks after the cache, on Debian's layout and on Fedora's."""

_LINUX_LOADERS: Final = (b"ld-linux-x86-64.so.2", b"ld-linux-aarch64.so.1")

_SUPPLIED: Final = frozenset({
    b"libresolv.so.2", b"libc.so.6", b"libm.so.6", b"libpthread.so.0", b"libdl.so.2", b"librt.so.1", b"libaio.so.1",
    b"libxenstore.so.3.0", b"libcrypt.so.1", b"libutil.so",
})  # fmt: skip
"""What a kernel answers for in place of a file (core/elf.cc); its machine's own names are in _supplied."""

_LIBSTDCXX: Final = b"libstdc++.so.6"

_MACHINES: Final = {"x86_64": Machine.X86_64, "aarch64": Machine.AARCH64}

_PROCESSES: Final[Mapping[bytes, str]] = {
    **dict.fromkeys((b"fork", b"vfork", b"daemon", b"system"), "failing with -1"),
    **dict.fromkeys((b"forkpty", b"execvp"), "failing with -1"),
    **dict.fromkeys((b"execve", b"execv", b"execl", b"execle"), "failing with ENOEXEC"),
    b"popen": "returning NULL",
    **dict.fromkeys(
        (b"posix_spawn", b"posix_spawnp", b"execvpe", b"execlp", b"fexecve"),
        "in no kernel up to v0.57.0-398: a call stops the guest",
    ),
}
"""How starting a process ends (runtime.cc, libc/process); where a kernel lacks the name, a call stops the guest."""

_PRIVILEGES: Final[Mapping[bytes, str]] = {
    **dict.fromkeys(
        (b"setuid", b"setgid", b"seteuid", b"setegid", b"setfsuid", b"setfsgid"),
        "stopping the guest by an assertion for any id but 0",
    ),
    b"initgroups": "failing with -1",
    **dict.fromkeys(
        (b"setreuid", b"setregid", b"setresuid", b"setresgid"), "failing with EPERM for any id but 0 and -1"
    ),
}
"""How changing the user ends (libc/user.cc)."""

_STUBS: Final[Mapping[bytes, str]] = {
    **dict.fromkeys((b"inotify_init", b"inotify_init1"), "failing with EMFILE: no file is watched"),
    **dict.fromkeys((b"inotify_add_watch", b"inotify_rm_watch"), "failing with EINVAL: no file is watched"),
    b"signalfd": "failing with ENOSYS",
    **dict.fromkeys((b"mkfifo", b"mkfifoat", b"fchmodat"), "failing with ENOSYS"),
    b"chroot": "failing with ENOSYS",
    b"sigsuspend": "stopping the guest",
    b"pthread_cancel": "failing with ESRCH: no thread is cancelled",
    b"openpty": "failing: there are no pseudo-terminals",
    b"sysctl": "failing with ENOTDIR",
    b"fpathconf": "failing with -1",
    **dict.fromkeys((b"mlock", b"mlockall"), "succeeding without doing anything"),
}
"""What links and does not do what it says (runtime.cc, libc/, fs/vfs/main.cc)."""

_NEVER_EXPORTED: Final = frozenset({
    b"memfd_create", b"mq_open", b"mq_send", b"mq_receive", b"quick_exit", b"at_quick_exit", b"fts_open", b"fts_read",
    b"sched_setscheduler", b"capget", b"capset", b"ptrace", b"dlmopen", b"setns", b"unshare", b"clone", b"semget",
    b"msgget", b"getxattr", b"lgetxattr", b"fgetxattr", b"setxattr", b"personality",
})  # fmt: skip
"""Names of glibc that no OSv up to v0.57.0-398 exports: all that can be said of a kernel whose symbols are unknown."""

_DLOPEN: Final = frozenset({b"dlopen", b"dlmopen", b"__libc_dlopen_mode"})


@dataclass(frozen=True, slots=True)
class ImageFiles:
    """What an image holds, as far as loaders care. ``elves``: every ELF file by its guest path, links not among them;
    ``damaged``: those that claim to be ELF and cannot be read, with what is wrong."""

    tree: FileTree
    elves: Mapping[bytes, Elf]
    damaged: Mapping[bytes, str] = field(default_factory=dict)

    def locate(self, path: bytes) -> bytes | None:
        """The regular file that a path leads to, links followed."""
        resolved = resolve(path, self._look)
        return resolved if resolved is not None and self._look(resolved) is False else None

    def _look(self, path: bytes) -> bytes | bool | None:
        entry = self.tree.entries.get(path)
        return entry.target if isinstance(entry, Symlink) else None if entry is None else isinstance(entry, Directory)


def program_missing(program: str) -> Finding:
    """The finding for a command line whose program, as it names it, no file of the image is."""
    return Finding(
        "program-missing",
        Severity.ERROR,
        program,
        "the command line starts it, and no file of the image is there",
        'OSv ends with "Failed to load object. Powering off." before anything has run',
        "name the program by its path in the image, the `to` of one of [[files]] or [[programs]]",
        "core/app.cc; seen on v0.57.0-398",
    )


def check_programs(kernel: KernelFacts | None, words: Sequence[str], files: ImageFiles) -> list[Finding]:
    """Everything that keeps, or may keep, the command line's program from running. ``words`` are the program and its
    arguments. A program that is not in the image gives no finding here: only its build knows whether that is meant."""
    return list(_Check(kernel, files).findings(words))


@dataclass(frozen=True, slots=True)
class _Fault:
    """A finding without its subject and severity, which depend on who loads the file."""

    rule: str
    what: str
    why: str
    cure: str
    source: str

    def of(self, subject: str, severity: Severity, what: str | None = None) -> Finding:
        return Finding(self.rule, severity, subject, what or self.what, self.why, self.cure, self.source)


@dataclass(frozen=True, slots=True)
class _Absent:
    """A library that was not found: its name, and the file that needs it."""

    name: bytes
    by: bytes


@dataclass(slots=True)
class _Loaded:
    """What a loader has brought in, in its order, and what it could not find."""

    paths: list[bytes] = field(default_factory=list)
    absent: list[_Absent] = field(default_factory=list)
    unreadable: list[bytes] = field(default_factory=list)
    cycles: list[tuple[bytes, bytes]] = field(default_factory=list)
    names: set[bytes] = field(default_factory=set)

    def lacking(self) -> frozenset[bytes]:
        """Files that something they need is missing for."""
        return frozenset(absent.by for absent in self.absent)


@dataclass(slots=True)
class _Check:
    kernel: KernelFacts | None
    files: ImageFiles
    by_linux_loader: bool = False
    given_directories: tuple[bytes, ...] = ()
    supplied: frozenset[bytes] = frozenset()

    def findings(self, words: Sequence[str]) -> Iterator[Finding]:
        self.supplied = self._supplied()
        program = self._program(words[0]) if words else None
        if program is not None and self._is_linux_loader(program):
            yield from self._local(program, Severity.ERROR)
            self.by_linux_loader, self.supplied = True, frozenset()
            program = self._after_loader(words[1:])
        loaded = _Loaded()
        if program is not None:
            refused = self._unstartable(program)
            if refused is not None:
                yield refused
                return
            loaded = self._load(program)
            yield from self._reached(program, loaded)
        yield from self._later(program, loaded)

    # ------------------------------------------------------------------------------------------------ the program

    def _program(self, word: str) -> bytes | None:
        """The file that the command line starts; a name without a slash is looked for as a library is (core/app.cc)."""
        name = word.encode("utf-8", "surrogateescape")
        if b"$" in name:
            return None
        return self.files.locate(_from_root(name)) if b"/" in name else self._find(name, ())

    def _is_linux_loader(self, program: bytes) -> bool:
        elf = self.files.elves.get(program)
        return elf is not None and elf.soname in _LINUX_LOADERS

    def _after_loader(self, words: Sequence[str]) -> bytes | None:
        """The program that ld.so is told to run, past its own options."""
        waiting = list(words)
        while waiting and waiting[0].startswith("--"):
            option = waiting.pop(0)
            if option in ("--library-path", "--preload", "--audit", "--argv0", "--glibc-hwcaps-prepend") and waiting:
                value = waiting.pop(0)
                if option == "--library-path":
                    self.given_directories = tuple(part.encode() for part in value.split(":") if part)
        return self._program(waiting[0]) if waiting and "/" in waiting[0] else None

    def _unstartable(self, program: bytes) -> Finding | None:
        elf = self.files.elves.get(program)
        if elf is None:
            if program in self.files.damaged:
                return _damaged(self.files.damaged[program]).of(show(program), Severity.ERROR)
            return Finding(
                "program-not-elf",
                Severity.ERROR,
                show(program),
                "the command line starts it, and it is not an ELF file",
                'OSv executes ELF files alone; it ends with "bad elf header. Powering off." and knows no "#!"',
                'name the interpreter in the command line, as in command = ["/python3", "/script.py"]',
                "core/elf.cc load_elf_header; seen on v0.57.0-398",
            )
        if elf.kind is ElfKind.SHARED_LIBRARY and not elf.has_main and elf.entry == 0 and not self.by_linux_loader:
            return Finding(
                "program-without-start",
                Severity.ERROR,
                show(program),
                "the command line starts it, and it is a library without main",
                "OSv calls main, or jumps to the entry point, and it has neither",
                "name the program in the command line, or link the library with a main",
                "core/app.cc application::application",
            )
        return None

    # --------------------------------------------------------------------------------------------------- loading

    def _supplied(self) -> frozenset[bytes]:
        names = set(_SUPPLIED)
        if self.kernel is None or self.kernel.hidden is not True:
            # What is not known to be missing is not told as missing.
            names.add(_LIBSTDCXX)
        if self.kernel is not None and self.kernel.arch == "aarch64":
            names.add(b"ld-linux-aarch64.so.1")
        else:
            names |= {b"ld-linux-x86-64.so.2", b"libc.musl-x86_64.so.1", b"ld-musl-x86_64.so.1"}
        return frozenset(names)

    def _find(self, name: bytes, directories: Iterable[bytes]) -> bytes | None:
        """Where a loader finds a needed name; None where it does not."""
        if b"/" in name:
            return self.files.locate(_from_root(name))
        if self.by_linux_loader:
            searched: tuple[bytes, ...] = (*self.given_directories, *directories, *_SEARCHED_BY_GLIBC)
        else:
            searched = (*directories, *_SEARCHED)
        for directory in searched:
            if found := self.files.locate(_from_root(directory) + b"/" + name):
                return found
        if self.by_linux_loader and self.files.locate(b"/etc/ld.so.cache"):
            # Its content is the host's; what it names is where the host has it.
            return next(iter(self._elsewhere(name)), None)
        return None

    def _elsewhere(self, name: bytes) -> list[bytes]:
        """Files of the image that would be a needed library, wherever they are."""
        return [path for path, elf in self.files.elves.items() if elf.soname == name or path.endswith(b"/" + name)]

    def _load(self, first: bytes, before: _Loaded | None = None) -> _Loaded:
        """What loading a file brings in, depth first as OSv does it; ``before`` is what is loaded already.

        A name is known once its file and all that it needs are loaded, so one that is asked for in between is loaded
        again: a circle has no end.
        """
        loaded = _Loaded(names=set(before.names) if before is not None else set())
        if first in loaded.names or not self._open(first, loaded):
            return loaded
        stack = [(first, iter(self.files.elves[first].needed))]
        under_way = {first}
        while stack:
            path, waiting = stack[-1]
            needed = next(waiting, None)
            if needed is None:
                stack.pop()
                under_way.discard(path)
                loaded.names |= {path, self.files.elves[path].soname or path}
                continue
            if needed in self.supplied or needed in loaded.names:
                continue
            found = self._find(needed, self._runpath(path))
            if found is None:
                loaded.absent.append(_Absent(needed, path))
            elif found in under_way:
                loaded.cycles.append((path, found))
            elif found not in loaded.names and self._open(found, loaded):
                stack.append((found, iter(self.files.elves[found].needed)))
                under_way.add(found)
        return loaded

    def _open(self, path: bytes, loaded: _Loaded) -> bool:
        elf = self.files.elves.get(path)
        if elf is None:
            loaded.unreadable.append(path)
            loaded.names.add(path)
            return False
        loaded.paths.append(path)
        # A static program brings its own linker, and OSv leaves what it names alone.
        if elf.kind.static or elf.kind is ElfKind.OTHER:
            loaded.names.add(path)
            return False
        return True

    def _runpath(self, path: bytes) -> list[bytes]:
        origin = path[: path.rfind(b"/")] or b"/"
        directories = []
        for directory in self.files.elves[path].runpath:
            if self.by_linux_loader:
                directory = directory.replace(b"${ORIGIN}", b"$ORIGIN")
            directories.append(directory.replace(b"$ORIGIN", origin))
        return directories

    # ------------------------------------------------------------------------------- what the program needs to start

    def _reached(self, program: bytes, loaded: _Loaded) -> Iterator[Finding]:
        for path in loaded.paths:
            yield from self._local(path, Severity.ERROR)
        for path in loaded.unreadable:
            what = self.files.damaged.get(path, "it is needed as a library and is not an ELF file")
            yield _damaged(what).of(show(path), Severity.ERROR)
        by_name: dict[bytes, list[bytes]] = {}
        for absent in loaded.absent:
            by_name.setdefault(absent.name, []).append(absent.by)
        for name, needed_by in by_name.items():
            yield self._absent(name, needed_by).of(show(name), Severity.ERROR)
        if not self.by_linux_loader:
            for path, again in loaded.cycles:
                yield _cycle(path, again).of(show(again), Severity.ERROR)
            yield from self._symbols_at_load(loaded)
            yield from self._symbols(loaded)
        yield from self._calls(program, loaded.paths)

    def _local(self, path: bytes, severity: Severity) -> Iterator[Finding]:
        return (fault.of(show(path), severity) for fault in self._faults(self.files.elves[path]))

    def _faults(self, elf: Elf) -> Iterator[_Fault]:
        """What is wrong with one file, whoever loads it."""
        kernel = self.kernel
        machine = _MACHINES.get(kernel.arch) if kernel is not None else None
        if elf.bits != 64 or not elf.little_endian or (machine is not None and elf.machine != machine):
            yield _Fault(
                "wrong-machine",
                f"is for {_machine(elf)}, and the kernel is for {kernel.arch if kernel else '64-bit processors'}",
                "OSv ends with `machine type differs from the kernel` or `bad elf class`",
                "build it, or fetch the package, for the kernel's processor",
                "core/elf.cc load_elf_header",
            )
            return
        if elf.kind is ElfKind.OTHER:
            yield _not_accepted(f"has ELF type {elf.type}, and OSv loads executables and shared libraries alone")
            return
        if elf.osabi not in (0, 3):
            yield _not_accepted(f"is for another system (OSABI {elf.osabi}), and OSv takes System V's and Linux's")
        if elf.has_rel and not elf.kind.static:
            yield _not_accepted("has relocations without addends (DT_REL), which OSv does not know")
        known = set(SegmentType)
        if unknown := sorted({segment.type for segment in elf.segments} - known):
            yield _Fault(
                "unknown-segment",
                f"has {_some([f'{number:#x}' for number in unknown])} among its segment types",
                "OSv aborts with `Unknown p_type` at a type that it does not know",
                "link it without: an older linker, or the option that makes the segment turned off",
                "core/elf.cc process_headers; seen on v0.57.0-398",
            )
        if kernel is None:
            return
        start, end = elf.loaded
        if (
            elf.kind in (ElfKind.DYNAMIC_PDE, ElfKind.STATIC_PDE)
            and kernel.base is not None
            and kernel.end is not None
            and start < kernel.end
            and end > kernel.base
        ):
            yield _Fault(
                "collides-with-kernel",
                f"is linked to {start:#x}-{end:#x}, and the kernel is at {kernel.base:#x}-{kernel.end:#x}",
                "A position-dependent executable can be nowhere else; OSv aborts with `collides with kernel`",
                "link it with -pie, or to another address (-Wl,-Ttext-segment=0x400000)",
                "core/elf.cc set_base; seen on v0.57.0-398",
            )
        if elf.interpreter is not None and kernel.tls_reservation is not None and elf.tls_size > kernel.tls_reservation:
            yield _Fault(
                "tls-too-large",
                f"has {elf.tls_size} bytes of thread-local data, and the kernel has room for {kernel.tls_reservation}",
                "OSv only prints a warning and lets it write over the kernel's own thread-local data",
                f"build the kernel with app_local_exec_tls_size={-(-elf.tls_size // 64) * 64}, or link the program as "
                "a shared library with main (-shared)",
                "core/elf.cc process_headers",
            )
        linux_loader = elf.soname in _LINUX_LOADERS
        if kernel.static_executables is False and (elf.kind.static or linux_loader):
            yield _Fault(
                "static-executable",
                f"is {'the loader of Linux' if linux_loader else f'a {elf.kind.value}'}",
                "This kernel runs programs that it links itself, and no other",
                "link it dynamically, or take a kernel from August 2023 or later",
                "OSv's commits e154fc59, f0414b64",
            )
        elif elf.thread_untouched and kernel.faults_through_thread_pointer:
            yield _Fault(
                "tls-untouched",
                "is linked by Go itself, with its first thread's pointer to memory that nothing has touched before",
                "This kernel handles a fault by reading there first, which is a fault: the guest stands still and says "
                "nothing. Where Go puts this memory differs with every version of Go and of the program",
                "have OSv map it all at once, with `objcopy --add-section .note.osv-mlock=/dev/null PROGRAM`; or have "
                "the C compiler link it: go build -ldflags '-linkmode external -extldflags -static'",
                "arch/x64/entry.S exception_entry, core/elf.cc object::mlocked; seen on v0.57.0-398",
            )
        if elf.go and elf.interpreter is not None:
            yield _Fault(
                "entry-without-libc",
                "is a dynamic executable that Go has linked itself",
                "It looks for its arguments on the stack, where Linux puts them and OSv does not: it aborts, or stands "
                "still",
                "have the C compiler link it, go build -ldflags '-linkmode external'; or make it static: CGO_ENABLED=0 "
                "go build",
                "core/app.cc application::main, Go's runtime/asm_amd64.s rt0_go; seen on v0.57.0-398",
            )

    def _absent(self, name: bytes, needed_by: Sequence[bytes]) -> _Fault:
        by = _some([show(path) for path in needed_by])
        elsewhere = self._elsewhere(name)
        unreplaced = {
            show(directory)
            for path in needed_by
            for directory in self.files.elves[path].runpath
            if b"$" in directory.replace(b"$ORIGIN", b"") and not self.by_linux_loader
        }
        runpath = (
            f" (of its RUNPATH, OSv replaces $ORIGIN alone, not {_some(sorted(unreplaced))})" if unreplaced else ""
        )
        looks = "where Linux's loader looks" if self.by_linux_loader else "the file's RUNPATH, / and /usr/lib"
        silent = (
            "Linux's loader ends the program"
            if self.by_linux_loader
            else "OSv passes over it in silence and stops the guest where the first function of it is called"
        )
        if elsewhere:
            return _Fault(
                "library-misplaced",
                f"needed by {by}, and only at {_some([show(path) for path in elsewhere])}{runpath}",
                f"It is not in {looks}: {silent}",
                f'put it there with to = "{show(b"/usr/lib/" + name)}"',
                "core/elf.cc load_object, program::program",
            )
        if name == _LIBSTDCXX:
            cure = f'this kernel hides its own: put it into the image with to = "{show(b"/usr/lib/" + name)}"'
        else:
            cure = f'put it into the image with to = "{show(b"/usr/lib/" + name)}"'
        return _Fault(
            "library-missing",
            f"needed by {by}, and neither in the image nor part of the kernel{runpath}",
            silent,
            cure,
            "core/elf.cc load_needed, supplied_modules; seen on v0.57.0-398",
        )

    # --------------------------------------------------------------------------------------------------- symbols

    def _symbols_at_load(self, loaded: _Loaded) -> Iterator[Finding]:
        if self.kernel is None or not self.kernel.symbols:
            return
        lacking = loaded.lacking()
        for path in loaded.paths:
            elf = self.files.elves[path]
            names = elf.at_load - self.kernel.symbols
            missing = {
                name
                for name in names
                if not any(name in self.files.elves[other].defined for other in loaded.paths if other != path)
            }
            # What a missing library defines is that finding's.
            if missing and path not in lacking and not elf.kind.static:
                yield _Fault(
                    "symbol-missing-at-load",
                    f"needs {_count(missing, 'variable')} that nothing defines: {_some_names(missing)}",
                    "They are bound while it is loaded, and OSv aborts with `failed looking up symbol`",
                    "put the library that defines them into the image, or link the program without them",
                    "core/elf.cc symbol, symbol_other; seen on v0.57.0-398",
                ).of(show(path), Severity.ERROR)

    def _symbols(self, loaded: _Loaded) -> Iterator[Finding]:
        lacking = loaded.lacking()
        for path in loaded.paths:
            if path not in lacking and (missing := self._missing(path, loaded.paths)):
                yield _symbols_fault(missing).of(show(path), Severity.WARNING)

    def _missing(self, path: bytes, others: Sequence[bytes]) -> set[bytes]:
        """Strong names that a file looks for and nobody defines, without those that other rules tell of."""
        elf = self.files.elves[path]
        if elf.kind.static or elf.soname in _LINUX_LOADERS:
            return set()
        if self.kernel is None:
            return set()
        if self.kernel.symbols:
            missing = elf.undefined - self.kernel.symbols - elf.defined - elf.at_load
        else:
            missing = elf.undefined & _NEVER_EXPORTED
        missing -= _PROCESSES.keys()
        for other in others:
            if not missing:
                break
            missing -= self.files.elves[other].defined
        return set(missing)

    def _calls(self, program: bytes, paths: Sequence[bytes]) -> Iterator[Finding]:
        """What is imported and does not do what it says: of the program alone, then of its libraries together."""
        for told in _CALLS:
            if names := self._imported(program, told.names):
                yield told.fault(self.kernel, names).of(show(program), Severity.WARNING)
            yield from self._together(
                ((path, names) for path in paths if path != program and (names := self._imported(path, told.names))),
                functools.partial(told.fault, self.kernel),
            )

    def _imported(self, path: bytes, names: Mapping[bytes, str]) -> set[bytes]:
        elf = self.files.elves[path]
        if elf.soname in _LINUX_LOADERS:
            return set()
        return {name for name in names if name in elf.undefined}

    def _together(
        self, found: Iterable[tuple[bytes, set[bytes]]], fault_of: Callable[[set[bytes]], _Fault]
    ) -> Iterator[Finding]:
        """One warning for many files and their names."""
        files = list(found)
        if not files:
            return
        fault = fault_of({name for _, names in files for name in names})
        yield fault.of(show(files[0][0]), Severity.WARNING, f"{fault.what}{_more([path for path, _ in files])}")

    # ------------------------------------------------------------------------------------- what it may load by itself

    def _later(self, program: bytes | None, loaded: _Loaded) -> Iterator[Finding]:
        """Warnings of files that are not loaded with the program, but may be by it: one for each rule.

        Where nothing that is loaded can load more, they are data. A program that only the guest will know (a variable,
        a mounted file system, a script of /init) may be any of the executables.
        """
        unknown = program is None or any(path.startswith(b"/init/") for path in self.files.tree.entries)
        if not unknown and not any(self.files.elves[path].undefined & _DLOPEN for path in loaded.paths):
            return
        reached = {*loaded.paths, *loaded.unreadable}
        others = [
            path
            for path, elf in self.files.elves.items()
            if path not in reached and ((elf.type == 3 and elf.kind in _LIBRARIES) or (unknown and elf.type in (2, 3)))
        ]
        faults: dict[str, tuple[_Fault, list[bytes]]] = {}
        absent: dict[bytes, list[bytes]] = {}
        missing: list[tuple[bytes, set[bytes]]] = []
        for path in others:
            wrong = list(self._faults(self.files.elves[path]))
            for fault in wrong:
                faults.setdefault(fault.rule, (fault, []))[1].append(path)
            if wrong:
                continue
            brought = self._load(path, loaded)
            for each in brought.absent:
                if each.by == path:
                    absent.setdefault(each.name, []).append(path)
            if brought.absent or self.by_linux_loader:
                continue
            if names := self._missing(path, [*loaded.paths, *brought.paths]):
                missing.append((path, names))
        for fault, paths in faults.values():
            yield fault.of(show(paths[0]), Severity.WARNING, f"{fault.what}{_more(paths)}")
        yield from self._absent_later(absent)
        yield from self._together(missing, _symbols_fault)
        for told in _CALLS:
            yield from self._together(
                ((path, names) for path in others if (names := self._imported(path, told.names))),
                functools.partial(told.fault, self.kernel),
            )
        if unread := [path for path in self.files.damaged if path not in reached and b".so" in path]:
            fault = _damaged(self.files.damaged[unread[0]])
            yield fault.of(show(unread[0]), Severity.WARNING, f"{fault.what}{_more(unread)}")

    def _absent_later(self, absent: Mapping[bytes, Sequence[bytes]]) -> Iterator[Finding]:
        by_rule: dict[str, list[tuple[bytes, _Fault]]] = {}
        for name, needed_by in absent.items():
            fault = self._absent(name, needed_by)
            by_rule.setdefault(fault.rule, []).append((name, fault))
        for found in by_rule.values():
            (name, fault), *rest = found
            what = fault.what + (f"; and {len(rest)} more: {_some([show(each) for each, _ in rest])}" if rest else "")
            yield fault.of(show(name), Severity.WARNING, what)


_LIBRARIES: Final = frozenset({ElfKind.SHARED_LIBRARY, ElfKind.OTHER})


@dataclass(frozen=True, slots=True)
class _Calls:
    """A family of functions that do not do what they say, and how each ends."""

    rule: str
    names: Mapping[bytes, str]
    why: str
    cure: str
    source: str

    def fault(self, kernel: KernelFacts | None, names: set[bytes]) -> _Fault:
        ends: dict[str, list[bytes]] = {}
        for name in sorted(names):
            gone = kernel is not None and kernel.symbols and name not in kernel.symbols
            ends.setdefault("not in this kernel: a call stops the guest" if gone else self.names[name], []).append(name)
        told = "; ".join(f"{', '.join(map(show, group))} ({end})" for end, group in ends.items())
        return _Fault(self.rule, f"imports {told}", self.why, self.cure, self.source)


_CALLS: Final = (
    _Calls(
        "starts-processes",
        _PROCESSES,
        "OSv is one process: what a program leaves to another one (a shell, a worker, a helper) does not happen",
        "set the program to work in one process, with threads in place of workers; if it never starts one, waive this",
        "runtime.cc, libc/process; seen on v0.57.0-398",
    ),
    _Calls(
        "drops-privileges",
        _PRIVILEGES,
        "OSv has root alone; a server that changes to another user ends there",
        "set the program to stay root (no `user` or `group` in its configuration)",
        "libc/user.cc; seen on v0.57.0-398",
    ),
    _Calls(
        "stubbed-calls",
        _STUBS,
        "These link and do not do what they say; each prints `NAME() stubbed` or `not implemented` when first called",
        "turn off what needs them, or make sure that the program takes the failure",
        "runtime.cc, libc/, fs/vfs/main.cc",
    ),
)


def _symbols_fault(missing: set[bytes]) -> _Fault:
    return _Fault(
        "symbols-missing",
        f"looks for {_count(missing, 'name')} that neither the image nor the kernel has: {_some_names(missing)}",
        "OSv goes on without, and the first use of one stops the guest with `failed looking up symbol`",
        "put the library that defines them into the image; what the C library of this kernel lacks, the program must "
        "not call",
        "core/elf.cc symbol, relocate_pltgot; seen on v0.57.0-398",
    )


def _damaged(what: str) -> _Fault:
    return _Fault(
        "elf-damaged",
        what,
        "OSv's loader ends, or reads beyond what there is",
        "build or fetch the file again",
        "core/elf.cc",
    )


def _not_accepted(what: str) -> _Fault:
    return _Fault(
        "elf-not-accepted",
        what,
        "OSv's loader refuses it and powers off, or aborts",
        "link it as an executable or a shared library for Linux",
        "core/elf.cc load_elf_header, relocate",
    )


def _cycle(path: bytes, again: bytes) -> _Fault:
    return _Fault(
        "library-cycle",
        f"needs, by way of others, {show(path)}, which needs it again",
        "OSv's loader loads them again and again until its stack is at an end",
        "link one of the two without the other: the name is found all the same once both are loaded",
        "core/elf.cc load_object; seen on v0.57.0-398",
    )


def _machine(elf: Elf) -> str:
    names = {Machine.X86_64.value: "x86_64", Machine.AARCH64.value: "aarch64", 3: "i386", 40: "arm", 243: "riscv"}
    name = names.get(elf.machine, f"machine {elf.machine}")
    return f"{name}, {elf.bits} bits" + ("" if elf.little_endian else ", big-endian")


def _from_root(path: bytes) -> bytes:
    """A path as the guest means it: its working directory is / unless --cwd says otherwise."""
    return path if path.startswith(b"/") else b"/" + path


def _some_names(names: Iterable[bytes]) -> str:
    return _some([show(name) for name in sorted(names)], _NAMES_SHOWN)


def _some(told: Sequence[str], shown: int = _FILES_SHOWN) -> str:
    more = len(told) - shown
    return ", ".join(told[:shown]) + (f" and {more} more" if more > 0 else "")


def _count(things: set[bytes], noun: str) -> str:
    return f"{len(things)} {noun}" + ("" if len(things) == 1 else "s")


def _more(paths: Sequence[bytes]) -> str:
    return f"; so do {len(paths) - 1} more: {_some([show(path) for path in paths[1:]])}" if len(paths) > 1 else ""
