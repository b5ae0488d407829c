"""Will it run? Each program and library of an image against the kernel that shall load it.

The loader is modelled as core/elf.cc has it: which files it takes, where it looks for what they need, what it does
about a name that nobody defines. It is lazier than Linux's: a library that is not there is passed over in silence, and
so is a missing function, until it is called, which stops the guest. What keeps a program that OSv starts from its
work is an error: a file that OSv does not load, a library it lacks. What stops it only once it gets there is a warning,
and so is everything of files that it may load later by itself (Python's extension modules, plugins). Those are told
together, one finding for each rule.

Pure: facts in, findings out. A fact that the kernel's bytes do not tell is asked of no rule.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from osvdeploy.checks.calls import CALLS, PROCESSES
from osvdeploy.checks.fault import Fault, count, more, some, some_names
from osvdeploy.checks.finding import Finding, Severity
from osvdeploy.checks.loader import LIBSTDCXX, LINUX_LOADERS, ImageFiles, Loaded, Loader
from osvdeploy.osv.elf import Elf, ElfKind, Machine, SegmentType
from osvdeploy.osv.filetree import show
from osvdeploy.osv.kernel_facts import KernelFacts
from osvdeploy.osv.starts import COMMAND_LINE, Start, Starts

RULES: Final[Mapping[str, str]] = {
    "program-missing": "What OSv is to start is not in the image.",
    "program-not-elf": "What OSv is to start is a script or another file that it cannot execute.",
    "program-without-start": "What OSv is to start is a library that has neither main nor an entry point.",
    "start-script": "A file in /init, or a runscript, is read by OSv otherwise than it is written.",
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

_MACHINES: Final = {"x86_64": Machine.X86_64, "aarch64": Machine.AARCH64}

_NEVER_EXPORTED: Final = frozenset({
    b"memfd_create", b"mq_open", b"mq_send", b"mq_receive", b"quick_exit", b"at_quick_exit", b"fts_open", b"fts_read",
    b"sched_setscheduler", b"capget", b"capset", b"ptrace", b"dlmopen", b"setns", b"unshare", b"clone", b"semget",
    b"msgget", b"getxattr", b"lgetxattr", b"fgetxattr", b"setxattr", b"personality",
})  # fmt: skip
"""Names of glibc that no OSv up to v0.57.0-398 exports: all that can be said of a kernel whose symbols are unknown."""

_DLOPEN: Final = frozenset({b"dlopen", b"dlmopen", b"__libc_dlopen_mode"})


def check_programs(
    kernel: KernelFacts | None, starts: Sequence[Start], files: ImageFiles, *, arch: str | None = None
) -> list[Finding]:
    """Everything that keeps, or may keep, the programs that are started from running. One that is not in the image
    gives no finding here: only its build knows whether that is meant (:func:`check_starts`). ``arch``: that of a kernel
    which is yet to be built, where it is known."""
    arch = arch if kernel is None else kernel.arch
    found: list[Finding] = []
    loaded, by_linux, unknown, refused = Loaded(), False, not starts, False
    for start in starts:
        check = _Check(kernel, arch, files, Loader(kernel, files))
        program, ended = check.program(start, found)
        if ended:
            refused = True
        elif program is None:
            unknown = True
        else:
            brought = check.loader.load(program)
            found += check.reached(program, brought)
            loaded.add(brought)
        by_linux = by_linux or check.loader.linux
    if loaded.names or unknown or not refused:
        found += _Check(kernel, arch, files, Loader(kernel, files, by_linux)).later(loaded, unknown=unknown)
    return list(dict.fromkeys(found))


def check_starts(starts: Starts, missing: Sequence[Start]) -> list[Finding]:
    """What is wrong with the files that OSv reads commands from, and programs that are not in the image."""
    found = [
        Finding(
            "program-missing",
            Severity.ERROR,
            start.words[0],
            f"{_who(start)} starts it, and no file of the image is there",
            'OSv ends with "Failed to load object. Powering off." when it comes to it',
            "name the program by its path in the image, the `to` of one of [[files]] or [[programs]]",
            "core/app.cc; seen on v0.57.0-398",
        )
        for start in missing
    ]
    return found + [
        Finding(
            "start-script",
            Severity.ERROR if misread.fatal else Severity.WARNING,
            misread.by,
            misread.what,
            "OSv reads /init and runscripts by a grammar of its own, which is no shell's, and says nothing of what it "
            "does not understand",
            misread.cure,
            "core/commands.cc, loader.cc; seen on v0.57.0-398",
        )
        for misread in starts.misread
    ]


def _who(start: Start) -> str:
    return "the command line" if start.by == COMMAND_LINE else start.by


@dataclass(slots=True)
class _Check:
    """The rules over one program, or over what any of several may load later."""

    kernel: KernelFacts | None
    arch: str | None
    files: ImageFiles
    loader: Loader

    def program(self, start: Start, found: list[Finding]) -> tuple[bytes | None, bool]:
        """The file that is to be loaded, None where only the guest knows; and whether OSv refuses it, as ``found``
        says."""
        program = self.loader.program(start.words[0])
        if program is not None and self.loader.is_linux_loader(program):
            found += self._local(program, Severity.ERROR)
            program = self.loader.hand_over(start.words[1:])
        refused = None if program is None else self._unstartable(program, start)
        if refused is not None:
            found.append(refused)
        return program, refused is not None

    def _unstartable(self, program: bytes, start: Start) -> Finding | None:
        elf = self.files.elves.get(program)
        if elf is None:
            if program in self.files.damaged:
                return _damaged(self.files.damaged[program]).of(show(program), Severity.ERROR)
            return Finding(
                "program-not-elf",
                Severity.ERROR,
                show(program),
                f"{_who(start)} starts it, and it is not an ELF file",
                'OSv executes ELF files alone; it ends with "bad elf header. Powering off." and knows no "#!"',
                'start the interpreter with the script, as in command = ["/python3", "/script.py"]',
                "core/elf.cc load_elf_header; seen on v0.57.0-398",
            )
        if elf.kind is ElfKind.SHARED_LIBRARY and not elf.has_main and elf.entry == 0 and not self.loader.linux:
            return Finding(
                "program-without-start",
                Severity.ERROR,
                show(program),
                f"{_who(start)} starts it, and it is a library without main",
                "OSv calls main, or jumps to the entry point, and it has neither",
                "name the program instead of it, or link the library with a main",
                "core/app.cc application::application",
            )
        return None

    # ------------------------------------------------------------------------------- what the program needs to start

    def reached(self, program: bytes, loaded: Loaded) -> Iterator[Finding]:
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
        if not self.loader.linux:
            for path, again in loaded.cycles:
                yield _cycle(path, again).of(show(again), Severity.ERROR)
            yield from self._symbols_at_load(loaded)
            yield from self._symbols(loaded)
        yield from self._calls(program, loaded.paths)

    def _local(self, path: bytes, severity: Severity) -> Iterator[Finding]:
        return (fault.of(show(path), severity) for fault in self._faults(self.files.elves[path]))

    def _faults(self, elf: Elf) -> Iterator[Fault]:
        """What is wrong with one file, whoever loads it."""
        kernel = self.kernel
        machine = None if self.arch is None else _MACHINES.get(self.arch)
        if elf.bits != 64 or not elf.little_endian or (machine is not None and elf.machine != machine):
            yield Fault(
                "wrong-machine",
                f"is for {_machine(elf)}, and the kernel is for {self.arch or '64-bit processors'}",
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
            yield Fault(
                "unknown-segment",
                f"has {some([f'{number:#x}' for number in unknown])} among its segment types",
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
            yield Fault(
                "collides-with-kernel",
                f"is linked to {start:#x}-{end:#x}, and the kernel is at {kernel.base:#x}-{kernel.end:#x}",
                "A position-dependent executable can be nowhere else; OSv aborts with `collides with kernel`",
                "link it with -pie, or to another address (-Wl,-Ttext-segment=0x400000)",
                "core/elf.cc set_base; seen on v0.57.0-398",
            )
        if elf.interpreter is not None and kernel.tls_reservation is not None and elf.tls_size > kernel.tls_reservation:
            yield Fault(
                "tls-too-large",
                f"has {elf.tls_size} bytes of thread-local data, and the kernel has room for {kernel.tls_reservation}",
                "OSv only prints a warning and lets it write over the kernel's own thread-local data",
                f"build the kernel with app_local_exec_tls_size={-(-elf.tls_size // 64) * 64}, or link the program as "
                "a shared library with main (-shared)",
                "core/elf.cc process_headers",
            )
        linux_loader = elf.soname in LINUX_LOADERS
        if kernel.static_executables is False and (elf.kind.static or linux_loader):
            yield Fault(
                "static-executable",
                f"is {'the loader of Linux' if linux_loader else f'a {elf.kind.value}'}",
                "This kernel runs programs that it links itself, and no other",
                "link it dynamically, or take a kernel from August 2023 or later",
                "OSv's commits e154fc59, f0414b64",
            )
        elif elf.thread_untouched and kernel.faults_through_thread_pointer:
            yield Fault(
                "tls-untouched",
                "is linked by Go itself, with its first thread's pointer to memory that nothing has touched before",
                "This kernel handles a fault by reading there first, which is a fault: the guest stands still and says "
                "nothing. Where Go puts this memory differs with every version of Go and of the program",
                "have OSv map it all at once, with `objcopy --add-section .note.osv-mlock=/dev/null PROGRAM`; or have "
                "the C compiler link it: go build -ldflags '-linkmode external -extldflags -static'",
                "arch/x64/entry.S exception_entry, core/elf.cc object::mlocked; seen on v0.57.0-398",
            )
        if elf.go and elf.interpreter is not None:
            yield Fault(
                "entry-without-libc",
                "is a dynamic executable that Go has linked itself",
                "It looks for its arguments on the stack, where Linux puts them and OSv does not: it aborts, or stands "
                "still",
                "have the C compiler link it, go build -ldflags '-linkmode external'; or make it static: CGO_ENABLED=0 "
                "go build",
                "core/app.cc application::main, Go's runtime/asm_amd64.s rt0_go; seen on v0.57.0-398",
            )

    def _absent(self, name: bytes, needed_by: Sequence[bytes]) -> Fault:
        by = some([show(path) for path in needed_by])
        elsewhere = self.loader.elsewhere(name)
        unreplaced = {
            show(directory)
            for path in needed_by
            for directory in self.files.elves[path].runpath
            if b"$" in directory.replace(b"$ORIGIN", b"") and not self.loader.linux
        }
        runpath = f" (of its RUNPATH, OSv replaces $ORIGIN alone, not {some(sorted(unreplaced))})" if unreplaced else ""
        looks = "where Linux's loader looks" if self.loader.linux else "the file's RUNPATH, / and /usr/lib"
        silent = (
            "Linux's loader ends the program"
            if self.loader.linux
            else "OSv passes over it in silence and stops the guest where the first function of it is called"
        )
        if elsewhere:
            return Fault(
                "library-misplaced",
                f"needed by {by}, and only at {some([show(path) for path in elsewhere])}{runpath}",
                f"It is not in {looks}: {silent}",
                f'put it there with to = "{show(b"/usr/lib/" + name)}"',
                "core/elf.cc load_object, program::program",
            )
        if name == LIBSTDCXX:
            cure = f'this kernel hides its own: put it into the image with to = "{show(b"/usr/lib/" + name)}"'
        else:
            cure = f'put it into the image with to = "{show(b"/usr/lib/" + name)}"'
        return Fault(
            "library-missing",
            f"needed by {by}, and neither in the image nor part of the kernel{runpath}",
            silent,
            cure,
            "core/elf.cc load_needed, supplied_modules; seen on v0.57.0-398",
        )

    # --------------------------------------------------------------------------------------------------- symbols

    def _symbols_at_load(self, loaded: Loaded) -> Iterator[Finding]:
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
                yield Fault(
                    "symbol-missing-at-load",
                    f"needs {count(missing, 'variable')} that nothing defines: {some_names(missing)}",
                    "They are bound while it is loaded, and OSv aborts with `failed looking up symbol`",
                    "put the library that defines them into the image, or link the program without them",
                    "core/elf.cc symbol, symbol_other; seen on v0.57.0-398",
                ).of(show(path), Severity.ERROR)

    def _symbols(self, loaded: Loaded) -> Iterator[Finding]:
        lacking = loaded.lacking()
        for path in loaded.paths:
            if path not in lacking and (missing := self._missing(path, loaded.paths)):
                yield _symbols_fault(missing).of(show(path), Severity.WARNING)

    def _missing(self, path: bytes, others: Sequence[bytes]) -> set[bytes]:
        """Strong names that a file looks for and nobody defines, without those that other rules tell of."""
        elf = self.files.elves[path]
        if elf.kind.static or elf.soname in LINUX_LOADERS:
            return set()
        if self.kernel is None:
            return set()
        if self.kernel.symbols:
            missing = elf.undefined - self.kernel.symbols - elf.defined - elf.at_load
        else:
            missing = elf.undefined & _NEVER_EXPORTED
        missing -= PROCESSES.keys()
        for other in others:
            if not missing:
                break
            missing -= self.files.elves[other].defined
        return set(missing)

    def _calls(self, program: bytes, paths: Sequence[bytes]) -> Iterator[Finding]:
        """What is imported and does not do what it says: of the program alone, then of its libraries together."""
        for told in CALLS:
            if names := self._imported(program, told.names):
                yield told.fault(self.kernel, names).of(show(program), Severity.WARNING)
            yield from self._together(
                ((path, names) for path in paths if path != program and (names := self._imported(path, told.names))),
                functools.partial(told.fault, self.kernel),
            )

    def _imported(self, path: bytes, names: Mapping[bytes, str]) -> set[bytes]:
        elf = self.files.elves[path]
        if elf.soname in LINUX_LOADERS:
            return set()
        return {name for name in names if name in elf.undefined}

    def _together(
        self, found: Iterable[tuple[bytes, set[bytes]]], fault_of: Callable[[set[bytes]], Fault]
    ) -> Iterator[Finding]:
        """One warning for many files and their names."""
        files = list(found)
        if not files:
            return
        fault = fault_of({name for _, names in files for name in names})
        yield fault.of(show(files[0][0]), Severity.WARNING, f"{fault.what}{more([path for path, _ in files])}")

    # ------------------------------------------------------------------------------------- what it may load by itself

    def later(self, loaded: Loaded, *, unknown: bool) -> Iterator[Finding]:
        """Warnings of files that are not loaded with the programs, but may be by them: one for each rule.

        Where nothing that is loaded can load more, they are data. A program that only the guest will know (a variable,
        a mounted file system), ``unknown``, may be any of the executables.
        """
        if not unknown and not any(self.files.elves[path].undefined & _DLOPEN for path in loaded.paths):
            return
        reached = {*loaded.paths, *loaded.unreadable}
        others = [
            path
            for path, elf in self.files.elves.items()
            if path not in reached and ((elf.type == 3 and elf.kind in _LIBRARIES) or (unknown and elf.type in (2, 3)))
        ]
        faults: dict[str, tuple[Fault, list[bytes]]] = {}
        absent: dict[bytes, list[bytes]] = {}
        missing: list[tuple[bytes, set[bytes]]] = []
        cycles: dict[tuple[bytes, bytes], None] = {}
        for path in others:
            wrong = list(self._faults(self.files.elves[path]))
            for fault in wrong:
                faults.setdefault(fault.rule, (fault, []))[1].append(path)
            if wrong:
                continue
            brought = self.loader.load(path, loaded)
            cycles |= dict.fromkeys(() if self.loader.linux else brought.cycles)
            for each in brought.absent:
                if each.by == path:
                    absent.setdefault(each.name, []).append(path)
            if brought.absent or self.loader.linux:
                continue
            if names := self._missing(path, [*loaded.paths, *brought.paths]):
                missing.append((path, names))
        for fault, paths in faults.values():
            yield fault.of(show(paths[0]), Severity.WARNING, f"{fault.what}{more(paths)}")
        yield from self._absent_later(absent)
        if cycles:
            (path, again), *_ = cycles
            fault = _cycle(path, again)
            yield fault.of(show(again), Severity.WARNING, f"{fault.what}{more([again for _, again in cycles])}")
        yield from self._together(missing, _symbols_fault)
        for told in CALLS:
            yield from self._together(
                ((path, names) for path in others if (names := self._imported(path, told.names))),
                functools.partial(told.fault, self.kernel),
            )
        if unread := [path for path in self.files.damaged if path not in reached and b".so" in path]:
            fault = _damaged(self.files.damaged[unread[0]])
            yield fault.of(show(unread[0]), Severity.WARNING, f"{fault.what}{more(unread)}")

    def _absent_later(self, absent: Mapping[bytes, Sequence[bytes]]) -> Iterator[Finding]:
        by_rule: dict[str, list[tuple[bytes, Fault]]] = {}
        for name, needed_by in absent.items():
            fault = self._absent(name, needed_by)
            by_rule.setdefault(fault.rule, []).append((name, fault))
        for found in by_rule.values():
            (name, fault), *rest = found
            what = fault.what + (f"; and {len(rest)} more: {some([show(each) for each, _ in rest])}" if rest else "")
            yield fault.of(show(name), Severity.WARNING, what)


_LIBRARIES: Final = frozenset({ElfKind.SHARED_LIBRARY, ElfKind.OTHER})


def _symbols_fault(missing: set[bytes]) -> Fault:
    return Fault(
        "symbols-missing",
        f"looks for {count(missing, 'name')} that neither the image nor the kernel has: {some_names(missing)}",
        "OSv goes on without, and the first use of one stops the guest with `failed looking up symbol`",
        "put the library that defines them into the image; what the C library of this kernel lacks, the program must "
        "not call",
        "core/elf.cc symbol, relocate_pltgot; seen on v0.57.0-398",
    )


def _damaged(what: str) -> Fault:
    return Fault(
        "elf-damaged",
        what,
        "OSv's loader ends, or reads beyond what there is",
        "build or fetch the file again",
        "core/elf.cc",
    )


def _not_accepted(what: str) -> Fault:
    return Fault(
        "elf-not-accepted",
        what,
        "OSv's loader refuses it and powers off, or aborts",
        "link it as an executable or a shared library for Linux",
        "core/elf.cc load_elf_header, relocate",
    )


def _cycle(path: bytes, again: bytes) -> Fault:
    return Fault(
        "library-cycle",
        f"is needed by {show(path)}, which it needs itself, maybe by way of others",
        "OSv's loader knows a library once all that it needs is loaded: it loads these again and again, until its "
        "stack is at an end",
        f"link {show(path)} without it, or take the name out with `patchelf --remove-needed`: what it defines is found "
        "all the same, since it is loaded by then",
        "core/elf.cc load_object; seen on v0.57.0-398",
    )


def _machine(elf: Elf) -> str:
    names = {Machine.X86_64.value: "x86_64", Machine.AARCH64.value: "aarch64", 3: "i386", 40: "arm", 243: "riscv"}
    name = names.get(elf.machine, f"machine {elf.machine}")
    return f"{name}, {elf.bits} bits" + ("" if elf.little_endian else ", big-endian")
