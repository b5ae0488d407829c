from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from osvdeploy.checks.finding import Finding, Severity
from osvdeploy.checks.loader import ImageFiles
from osvdeploy.checks.programs import RULES, check_programs, check_starts
from osvdeploy.checks.rules import require_known
from osvdeploy.errors import UsageError
from osvdeploy.osv.elf import read_elf
from osvdeploy.osv.filetree import Symlink, TreeBuilder
from osvdeploy.osv.kernel_facts import KernelFacts, KernelFormat
from osvdeploy.osv.starts import Misread, Start, Starts
from tests.osv.elves import Made, Symbol, make_elf
from tests.osv.go_programs import GoProgram, make_go

APP = Start(("/app",))
LD = b"/lib64/ld-linux-x86-64.so.2"
LIBC = [b"libc.so.6"]
KERNEL = KernelFacts(
    KernelFormat.LOADER_IMAGE, "x86_64", 3_800_000,
    symbols=frozenset({b"printf", b"dlopen", b"fork", b"setuid", b"inotify_init", b"stdout"}), hidden=False,
    tls_reservation=512, base=0x40200000, end=0x40900000, static_executables=True,
)  # fmt: skip
PROGRAM = Made(interpreter=LD, needed=LIBC, pie=True, symbols={b"main": Symbol.DEFINED, b"printf": Symbol.UNDEFINED})

Files = Mapping[str, Made | bytes | Symlink]


def image(files: Files) -> ImageFiles:
    """An image of made ELF files, of other bytes, and of links."""
    builder = TreeBuilder()
    elves = {}
    for path, given_ in files.items():
        match given_:
            case Symlink(target):
                builder.add_symlink(path.encode(), target, origin="test")
            case bytes():
                builder.add_content(path.encode(), given_, origin="test")
            case made:
                content = make_elf(made)
                builder.add_content(path.encode(), content, origin="test")
                elves[path.encode()] = read_elf(
                    lambda at, size, content=content: content[at : at + size],  # type: ignore[misc]  # the default binds it
                    len(content),
                    path,
                )
    return ImageFiles(builder.tree(), elves)


def check(files: Files, *words: str, kernel: KernelFacts | None = KERNEL) -> list[Finding]:
    found = check_programs(kernel, [Start(words or ("/app",))], image(files))
    assert {finding.rule for finding in found} <= RULES.keys()
    return found


def told(findings: list[Finding]) -> list[tuple[str, str, str]]:
    return [(finding.severity.value, finding.rule, finding.subject) for finding in findings]


def library(soname: str, *, needed: list[bytes] | None = None, **symbols: Symbol) -> Made:
    return Made(
        soname=soname.encode(),
        needed=needed or [],
        symbols={name.encode(): symbol for name, symbol in symbols.items()},
    )


def needing(*names: str, **symbols: Symbol) -> Made:
    """The program, needing these libraries and symbols as well."""
    return replace(
        PROGRAM,
        needed=[*LIBC, *(name.encode() for name in names)],
        symbols={**PROGRAM.symbols, **{name.encode(): symbol for name, symbol in symbols.items()}},
    )


# --------------------------------------------------------------------------------------------------- the program alone


@pytest.mark.parametrize(
    "program",
    [
        PROGRAM,
        replace(PROGRAM, type=2, base=0x400000, pie=False),
        Made(type=2, base=0x400000, dynamic=False),
        Made(pie=True),
        Made(symbols={b"main": Symbol.DEFINED}),
        replace(PROGRAM, osabi=3),
    ],
)
def test_each_kind_that_runs_gives_no_finding(program: Made) -> None:
    """Dynamic and static, position-dependent or not, and a library with main: OSv runs all five."""
    assert check({"/app": program}) == []


@pytest.mark.parametrize(
    ("program", "kernel", "rule"),
    [
        (replace(PROGRAM, machine=183), KERNEL, "wrong-machine"),
        (replace(PROGRAM, bits=32, machine=3), KERNEL, "wrong-machine"),
        (replace(PROGRAM, order=2, machine=21), KERNEL, "wrong-machine"),
        (PROGRAM, replace(KERNEL, arch="aarch64"), "wrong-machine"),
        (replace(PROGRAM, type=1), KERNEL, "elf-not-accepted"),
        (replace(PROGRAM, osabi=9), KERNEL, "elf-not-accepted"),
        (replace(PROGRAM, tags=[(17, 0)]), KERNEL, "elf-not-accepted"),
        (replace(PROGRAM, segments=[0x6474E554]), KERNEL, "unknown-segment"),
        (Made(type=2, base=0x40300000, interpreter=LD), KERNEL, "collides-with-kernel"),
        (Made(type=2, base=0x408FFF00), KERNEL, "collides-with-kernel"),
        (replace(PROGRAM, tls=(513, 1)), KERNEL, "tls-too-large"),
        (replace(PROGRAM, tls=(500, 64)), replace(KERNEL, tls_reservation=511), "tls-too-large"),
        (Made(type=2, base=0x400000), replace(KERNEL, static_executables=False), "static-executable"),
        (Made(pie=True), replace(KERNEL, static_executables=False), "static-executable"),
    ],
)
def test_what_osv_does_not_load_is_an_error(program: Made, kernel: KernelFacts, rule: str) -> None:
    """Each is refused, with the rule's name and the guest path."""
    assert told(check({"/app": program}, kernel=kernel)) == [("error", rule, "/app")]


@pytest.mark.parametrize(
    ("program", "kernel"),
    [
        (Made(type=2, base=0x40300000, interpreter=LD), replace(KERNEL, base=None)),
        (Made(type=2, base=0x40900000), KERNEL),
        (replace(PROGRAM, tls=(512, 64)), KERNEL),
        (replace(PROGRAM, tls=(5000, 64)), replace(KERNEL, tls_reservation=None)),
        (Made(symbols={b"main": Symbol.DEFINED}, tls=(5000, 64)), KERNEL),
        (Made(pie=True), replace(KERNEL, static_executables=None)),
        (needing(nobody=Symbol.UNDEFINED), None),
        (needing(nobody=Symbol.UNDEFINED), replace(KERNEL, symbols=frozenset())),
        (replace(PROGRAM, machine=183), None),
    ],
)
def test_a_fact_that_is_not_known_says_nothing(program: Made, kernel: KernelFacts | None) -> None:
    """No rule takes None for "none"; what fits exactly, and a library's thread-local data, fit."""
    assert check({"/app": program}, kernel=kernel) == []


GO = make_go(GoProgram())
GO_MAPPED = make_go(GoProgram(sections=(b".note.osv-mlock",)))
GO_DYNAMIC = make_go(GoProgram(interpreter=LD))
STANDS_STILL = replace(KERNEL, faults_through_thread_pointer=True)


@pytest.mark.parametrize(
    ("program", "kernel", "rules"),
    [
        (GO, STANDS_STILL, ["tls-untouched"]),
        (GO, replace(STANDS_STILL, faults_through_thread_pointer=False), []),
        (GO, replace(STANDS_STILL, faults_through_thread_pointer=None), []),
        (GO, replace(STANDS_STILL, static_executables=False), ["static-executable"]),
        (GO, None, []),
        (GO_MAPPED, STANDS_STILL, []),
        (GO_DYNAMIC, STANDS_STILL, ["entry-without-libc"]),
        (GO_DYNAMIC, KERNEL, ["entry-without-libc"]),
    ],
)
def test_what_go_linked_itself_is_refused_where_it_does_not_start(
    program: bytes, kernel: KernelFacts | None, rules: list[str]
) -> None:
    """A static one by where its linker has put its first thread, a dynamic one always; each with what to do instead."""
    elf = read_elf(lambda at, size: program[at : at + size], len(program), "/app")
    found = check_programs(kernel, [APP], ImageFiles(image({"/app": program}).tree, {b"/app": elf}))
    assert told(found) == [("error", rule, "/app") for rule in rules]
    assert all("go build" in finding.cure for finding in found if finding.rule != "static-executable")


ARM = KernelFacts(
    KernelFormat.ARM_IMAGE, "aarch64", 6_000_000, version="v0.57.0-398-g0e34e4dc",
    symbols=KERNEL.symbols, supplied=frozenset({"libc.so.6", "ld-linux-aarch64.so.1"}), static_executables=True,
)  # fmt: skip


@pytest.mark.parametrize(
    ("program", "told_of"),
    [
        (replace(PROGRAM, machine=183, needed=[b"libc.so.6", b"ld-linux-aarch64.so.1"]), []),
        (Made(type=2, base=0x400000, dynamic=False, machine=183), []),
        (replace(PROGRAM, machine=183, tls=(5000, 64)), []),
        (PROGRAM, ["wrong-machine"]),
        (replace(PROGRAM, bits=32, machine=40), ["wrong-machine"]),
        (replace(PROGRAM, machine=183, needed=[b"ld-linux-x86-64.so.2"]), ["library-missing"]),
    ],
)
def test_a_kernel_for_arm_is_judged_by_what_is_known_of_it(program: Made, told_of: list[str]) -> None:
    """Its own machine's programs, its own linker's name; what only x86's kernels tell refuses nothing."""
    assert [finding.rule for finding in check({"/app": program}, kernel=ARM)] == told_of


def test_what_go_made_for_arm_is_not_judged_by_x86s_code() -> None:
    """The same bytes by another e_machine."""
    content = make_go(GoProgram(machine=183))
    elf = read_elf(lambda at, size: content[at : at + size], len(content), "/app")
    files = ImageFiles(image({"/app": content}).tree, {b"/app": elf})
    assert check_programs(replace(ARM, faults_through_thread_pointer=True), [APP], files) == []


def test_the_machine_of_a_kernel_that_is_yet_to_be_built_is_known() -> None:
    """A source tree's kernel is for the processor that the spec names; nothing else is known of it."""
    files = image({"/app": replace(PROGRAM, machine=183)})
    assert told(check_programs(None, [APP], files, arch="x86_64")) == [("error", "wrong-machine", "/app")]
    assert check_programs(None, [APP], files) == []


def test_a_script_is_no_program() -> None:
    """OSv knows no "#!": the cure is the interpreter in the command line."""
    (finding,) = check({"/app": b"#!/python3\n"})
    assert told([finding]) == [("error", "program-not-elf", "/app")]
    assert "interpreter" in finding.cure


def test_a_damaged_program_is_told_as_that() -> None:
    """What cannot be read as ELF is not called a script."""
    files = image({"/app": b"\x7fELF and no more"})
    found = check_programs(KERNEL, [APP], ImageFiles(files.tree, {}, {b"/app": "truncated"}))
    assert told(found) == [("error", "elf-damaged", "/app")]
    assert "truncated" in found[0].what


def test_a_library_without_main_cannot_be_started() -> None:
    """It has an entry of 0, which OSv would jump to."""
    content = bytearray(make_elf(Made()))
    content[24:32] = bytes(8)
    files = image({"/app": bytes(content)})
    elf = read_elf(lambda at, size: bytes(content[at : at + size]), len(content), "/app")
    found = check_programs(KERNEL, [APP], ImageFiles(files.tree, {b"/app": elf}))
    assert told(found) == [("error", "program-without-start", "/app")]


@pytest.mark.parametrize("word", ["/bin/app", "app", "./app", "/link"])
def test_the_program_is_found_as_osv_finds_it(word: str) -> None:
    """By path, from the working directory, by name in / and /usr/lib, through links."""
    files: dict[str, Made | bytes | Symlink] = {
        "/bin/app": replace(PROGRAM, osabi=9),
        "/app": Symlink(b"bin/app"),
        "/link": Symlink(b"/app"),
    }
    assert [finding.rule for finding in check(files, word)] == ["elf-not-accepted"]


def test_every_program_that_is_started_is_judged() -> None:
    """Those of /init as the command line's own; what two of them need is told once."""
    files: Files = {
        "/app": needing("liba.so"),
        "/metrics": needing("liba.so", "libb.so"),
        "/script": b"#!/app\n",
        "/usr/lib/liba.so": replace(PROGRAM, osabi=9),
    }
    starts = [APP, Start(("/metrics",), "/init/10"), Start(("/script",), "/init/20"), Start(("/gone",), "/init/30")]
    found = check_programs(KERNEL, starts, image(files))
    assert told(found) == [
        ("error", "elf-not-accepted", "/usr/lib/liba.so"),
        ("error", "library-missing", "libb.so"),
        ("error", "program-not-elf", "/script"),
    ]
    assert found[-1].what.startswith("/init/20 starts it")


def test_what_any_of_several_programs_may_load_is_looked_at() -> None:
    """A plugin of the second one, which alone can load more."""
    files = {
        "/app": PROGRAM,
        "/host": needing(dlopen=Symbol.UNDEFINED),
        "/plugin.so": library("x", needed=[b"libz.so"]),
    }
    assert told(check_programs(KERNEL, [APP], image(files))) == []
    assert told(check_programs(KERNEL, [APP, Start(("/host",), "/init/1")], image(files))) == [
        ("warning", "library-missing", "libz.so")
    ]


def test_what_is_missing_or_misread_names_who_starts_it() -> None:
    """An error where a program does not come to run, a warning where it gets another argument."""
    read = Starts([APP], [Misread("/init/1", "reads x", "write y"), Misread("/s", "reads z", "write y", fatal=False)])
    found = check_starts(read, [APP, Start(("/m", "x"), "/init/2")])
    assert told(found) == [
        ("error", "program-missing", "/app"),
        ("error", "program-missing", "/m"),
        ("error", "start-script", "/init/1"),
        ("warning", "start-script", "/s"),
    ]
    assert found[0].what.startswith("the command line starts it")
    assert found[1].what.startswith("/init/2 starts it")


# ------------------------------------------------------------------------------------------------------- libraries


def test_libraries_are_found_where_osv_looks() -> None:
    """In the root, in /usr/lib, in the directories of RUNPATH with $ORIGIN, at their paths, through links."""
    program = replace(
        needing("libroot.so", "libusr.so.1", "libown.so", "liblink.so", "/opt/libpath.so"), runpath=b"$ORIGIN/../own"
    )
    files: Files = {
        "/bin/app": program,
        "/libroot.so": library("libroot.so"),
        "/usr/lib/libusr.so.1": Symlink(b"libusr.so.1.2"),
        "/usr/lib/libusr.so.1.2": library("libusr.so.1"),
        "/own/libown.so": library("libown.so"),
        "/usr/lib/liblink.so": Symlink(b"/data/it.so"),
        "/data/it.so": library("liblink.so"),
        "/opt/libpath.so": library("libpath.so"),
    }
    assert check(files, "/bin/app") == []


def test_origin_is_the_directory_of_the_file_not_of_the_link() -> None:
    """OSv resolves links before it replaces $ORIGIN."""
    program = replace(needing("libown.so"), runpath=b"$ORIGIN")
    files: Files = {
        "/app": Symlink(b"/opt/app/app"),
        "/opt/app/app": program,
        "/opt/app/libown.so": library("libown.so"),
    }
    assert check(files) == []


@pytest.mark.parametrize(
    "place", ["/lib", "/lib64", "/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/usr/lib64"]
)
def test_where_a_linux_host_has_them_osv_does_not_look(place: str) -> None:
    """The finding says where the library is, and where to put it."""
    (finding,) = check({"/app": needing("libz.so.1"), f"{place}/libz.so.1": library("libz.so.1")})
    assert told([finding]) == [("error", "library-misplaced", "libz.so.1")]
    assert f"{place}/libz.so.1" in finding.what
    assert 'to = "/usr/lib/libz.so.1"' in finding.cure


def test_origin_in_braces_is_named_as_the_reason() -> None:
    """OSv replaces $ORIGIN and nothing else."""
    program = replace(needing("libz.so.1"), runpath=b"${ORIGIN}/lib")
    (finding,) = check({"/app": program, "/lib/libz.so.1": library("libz.so.1")})
    assert finding.rule == "library-misplaced"
    assert "${ORIGIN}/lib" in finding.what


def test_a_library_that_is_nowhere_is_one_error_and_its_symbols_are_not_told_again() -> None:
    """Who needs it is named, of a library that is reached by way of others too."""
    files: Files = {
        "/app": needing("liba.so", deflate=Symbol.UNDEFINED),
        "/usr/lib/liba.so": library(
            "liba.so", needed=[b"libz.so.1"], inflate=Symbol.UNDEFINED, zdata=Symbol.TLS_UNDEFINED
        ),
    }
    first, second = check(files)
    assert told([first, second]) == [
        ("error", "library-missing", "libz.so.1"),
        ("warning", "symbols-missing", "/app"),
    ]
    assert "/usr/lib/liba.so" in first.what


@pytest.mark.parametrize(("hidden", "missing"), [(True, ["library-missing"]), (False, []), (None, [])])
def test_libstdcxx_must_be_beside_a_kernel_that_hides_it(hidden: bool | None, missing: list[str]) -> None:
    """A kernel with all its symbols supplies libstdc++; libgcc_s none does."""
    assert [
        f.rule for f in check({"/app": needing("libstdc++.so.6")}, kernel=replace(KERNEL, hidden=hidden))
    ] == missing
    assert told(check({"/app": needing("libgcc_s.so.1")})) == [("error", "library-missing", "libgcc_s.so.1")]


def test_a_name_once_loaded_is_not_looked_for_again() -> None:
    """A library that one file finds by its RUNPATH is there for the next that needs its soname."""
    files: Files = {
        "/app": replace(needing("libown.so", "libb.so"), runpath=b"/own"),
        "/own/libown.so": library("libown.so"),
        "/usr/lib/libb.so": library("libb.so", needed=[b"libown.so"]),
    }
    assert check(files) == []


def test_libraries_in_a_circle_are_an_error() -> None:
    """OSv follows them until its stack is at an end."""
    files: Files = {
        "/app": needing("liba.so"),
        "/usr/lib/liba.so": library("liba.so", needed=[b"libb.so"]),
        "/usr/lib/libb.so": library("libb.so", needed=[b"liba.so"]),
    }
    (finding,) = check(files)
    assert told([finding]) == [("error", "library-cycle", "/usr/lib/liba.so")]
    assert finding.cure.startswith("link /usr/lib/libb.so without it")


def test_a_circle_that_may_be_loaded_later_is_a_warning() -> None:
    """Of plugins; told once for both of them."""
    files = {
        "/app": needing(dlopen=Symbol.UNDEFINED),
        "/a.so": library("a.so", needed=[b"b.so"]),
        "/b.so": library("b.so", needed=[b"a.so"]),
    }
    assert told(check(files)) == [("warning", "library-cycle", "/a.so")]


def test_a_chain_of_two_thousand_libraries_is_followed() -> None:
    """Depth costs no recursion."""
    elf = image({"/l": Made()}).elves[b"/l"]
    builder = TreeBuilder()
    elves = {b"/app": replace(elf, needed=(b"l0",), defined=frozenset({b"main"}))}
    builder.add_content(b"/app", b"", origin="test")
    for number in range(2000):
        path = b"/l%d" % number
        builder.add_content(path, b"", origin="test")
        elves[path] = replace(elf, needed=(b"l%d" % (number + 1),))
    assert told(check_programs(KERNEL, [APP], ImageFiles(builder.tree(), elves))) == [
        ("error", "library-missing", "l2000")
    ]


# --------------------------------------------------------------------------------------------------------- symbols


def test_missing_names_are_one_warning_with_their_number() -> None:
    """OSv binds a function at its first call, so that a missing one may never matter."""
    names = {f"gone{number:02}": Symbol.UNDEFINED for number in range(30)}
    (finding,) = check({"/app": needing(**names)})
    assert told([finding]) == [("warning", "symbols-missing", "/app")]
    assert "30 names" in finding.what
    assert "gone00" in finding.what
    assert "and 24 more" in finding.what


def test_what_the_image_defines_and_what_is_weak_is_not_missing() -> None:
    """Any loaded object may define a name; a weak one may be absent."""
    files: Files = {
        "/app": needing("liba.so", helper=Symbol.UNDEFINED, __gmon_start__=Symbol.WEAK),
        "/usr/lib/liba.so": library("liba.so", helper=Symbol.DEFINED, callback=Symbol.UNDEFINED),
    }
    assert told(check(files)) == [("warning", "symbols-missing", "/usr/lib/liba.so")]


@pytest.mark.parametrize("symbol", [Symbol.COPIED, Symbol.TLS_UNDEFINED])
def test_what_is_bound_while_loading_is_an_error(symbol: Symbol) -> None:
    """Data that is copied into the executable, and thread-local variables, must be there."""
    program = needing("liba.so", variable=symbol)
    without: Files = {"/app": program, "/usr/lib/liba.so": library("liba.so")}
    assert told(check(without)) == [("error", "symbol-missing-at-load", "/app")]
    defined: Files = {"/app": program, "/usr/lib/liba.so": library("liba.so", variable=Symbol.DEFINED)}
    assert check(defined) == []
    assert check({"/app": needing(stdout=Symbol.COPIED)}) == []


def test_without_a_list_of_symbols_only_what_no_kernel_has_is_told() -> None:
    """The names of glibc that OSv never had."""
    (finding,) = check(
        {"/app": needing(memfd_create=Symbol.UNDEFINED, other=Symbol.UNDEFINED)},
        kernel=replace(KERNEL, symbols=frozenset()),
    )
    assert finding.rule == "symbols-missing"
    assert "1 name " in finding.what


# ------------------------------------------------------------------------------------------------- stubs that lie


@pytest.mark.parametrize(
    ("name", "rule", "end"),
    [
        ("fork", "starts-processes", "-1"),
        ("posix_spawn", "starts-processes", "stops the guest"),
        ("setuid", "drops-privileges", "assertion"),
        ("inotify_init", "stubbed-calls", "EMFILE"),
    ],
)
def test_a_stub_is_told_with_what_it_does(name: str, rule: str, end: str) -> None:
    """Of the program by itself, and never as a missing symbol."""
    (finding,) = check({"/app": needing(**{name: Symbol.UNDEFINED})})
    assert told([finding]) == [("warning", rule, "/app")]
    assert name in finding.what
    assert end in finding.what


def test_stubs_of_libraries_are_told_together() -> None:
    """One warning for all of them, beside the program's own."""
    files: dict[str, Made | bytes | Symlink] = {
        f"/usr/lib/lib{number}.so": library(f"lib{number}.so", fork=Symbol.UNDEFINED) for number in range(7)
    }
    files["/app"] = needing(*(f"lib{number}.so" for number in range(7)), fork=Symbol.UNDEFINED)
    own, others = check(files)
    assert told([own, others]) == [
        ("warning", "starts-processes", "/app"),
        ("warning", "starts-processes", "/usr/lib/lib0.so"),
    ]
    assert "6 more" in others.what


# ------------------------------------------------------------------------------------------------ what comes later

MODULES: Files = {
    "/usr/lib/m/a.so": replace(library("a.so"), machine=183),
    "/usr/lib/m/b.so": library("b.so", needed=[b"libtk.so"]),
    "/usr/lib/m/c.so": library("c.so", PyInit=Symbol.DEFINED, PyObject_New=Symbol.UNDEFINED, gone=Symbol.UNDEFINED),
    "/usr/lib/m/d.so": replace(library("d.so"), segments=[0x6474E554]),
    "/usr/lib/m/e.so": library("e.so", fork=Symbol.UNDEFINED, gone=Symbol.UNDEFINED),
    "/usr/lib/m/f.o": Made(type=1),
    "/usr/bin/other": replace(PROGRAM, osabi=9),
}


def test_what_may_be_loaded_later_warns_once_for_each_rule() -> None:
    """Extension modules are no errors; the program's own symbols are theirs too; another executable is data."""
    program = needing(dlopen=Symbol.UNDEFINED, PyObject_New=Symbol.DEFINED)
    found = check({"/app": program, **MODULES})
    assert told(found) == [
        ("warning", "wrong-machine", "/usr/lib/m/a.so"),
        ("warning", "unknown-segment", "/usr/lib/m/d.so"),
        ("warning", "library-missing", "libtk.so"),
        ("warning", "symbols-missing", "/usr/lib/m/c.so"),
        ("warning", "starts-processes", "/usr/lib/m/e.so"),
    ]
    assert "1 name " in found[3].what
    assert "/usr/lib/m/e.so" in found[3].what


@pytest.mark.parametrize("program", [PROGRAM, Made(type=2, base=0x400000)])
def test_where_nothing_can_load_more_other_files_are_data(program: Made) -> None:
    """A program without dlopen, and a static one, load nothing by themselves."""
    assert check({"/app": program, **MODULES}) == []


@pytest.mark.parametrize("word", ["$PROGRAM", "runscript", "/mounted/app"])
def test_a_program_that_only_the_guest_knows_may_be_any(word: str) -> None:
    """Then executables are looked at as well, and nothing is an error."""
    found = check(MODULES, word)
    assert {finding.severity for finding in found} == {Severity.WARNING}
    assert ("warning", "elf-not-accepted", "/usr/bin/other") in told(found)


# ----------------------------------------------------------------------------------------------------- ld.so itself


def test_under_linux_loader_its_own_rules_hold() -> None:
    """The program is the word behind its options, libraries are where glibc looks, libc among them; the kernel's names
    do not count."""
    loader = Made(soname=b"ld-linux-x86-64.so.2")
    words = ("/lib64/ld-linux-x86-64.so.2", "--library-path", "/opt", "/app")
    files: dict[str, Made | bytes | Symlink] = {
        "/lib64/ld-linux-x86-64.so.2": loader,
        "/app": needing("libown.so", nobody=Symbol.UNDEFINED),
        "/opt/libown.so": library("libown.so"),
    }
    assert told(check(files, *words)) == [("error", "library-missing", "libc.so.6")]
    files["/lib/x86_64-linux-gnu/libc.so.6"] = library("libc.so.6", needed=[b"ld-linux-x86-64.so.2"])
    assert check(files, *words) == []
    old = replace(KERNEL, static_executables=False)
    assert ("error", "static-executable", words[0]) in told(check(files, *words, kernel=old))


# ----------------------------------------------------------------------------------------------------------- all of it


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["/app", "/usr/lib/liba.so", "/lib/libb.so", "/x/libc.so"]),
        st.builds(
            Made,
            type=st.sampled_from([1, 2, 3]),
            base=st.sampled_from([0, 0x400000, 0x40200000]),
            interpreter=st.sampled_from([None, LD]),
            needed=st.lists(st.sampled_from([b"liba.so", b"libb.so", b"/x/libc.so", b"libc.so.6", b"."]), max_size=3),
            runpath=st.sampled_from([None, b"$ORIGIN:/lib", b"${LIB}"]),
            pie=st.booleans(),
            symbols=st.dictionaries(
                st.sampled_from([b"main", b"fork", b"dlopen", b"zz"]), st.sampled_from(list(Symbol)), max_size=3
            ),
            osabi=st.sampled_from([0, 9]),
        ),
    ),
    st.sampled_from([None, KERNEL]),
)
def test_any_image_is_answered(files: dict[str, Made], kernel: KernelFacts | None) -> None:
    """Whatever an image holds, the rules end and every finding is one that people can act on."""
    for finding in check_programs(kernel, [APP], image(files)):
        assert finding.rule in RULES
        assert finding.subject
        assert finding.what
        assert finding.why
        assert finding.cure
        assert finding.source


def test_a_rule_that_does_not_exist_is_refused_with_the_nearest() -> None:
    """A typing error in --force must not pass for an override."""
    require_known(["library-missing"], where="--force")
    with pytest.raises(UsageError, match=r"--force: .*'librarymissing'; did you mean 'library-missing'\?"):
        require_known(["librarymissing"], where="--force")
