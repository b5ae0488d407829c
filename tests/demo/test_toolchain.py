"""The finder of compilers, and what is compiled with each."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from osvdeploy.demo.toolchain import (
    CompileFailed,
    Compiler,
    CompilerKind,
    compile_program,
    find_compiler,
    find_compilers,
)
from osvdeploy.errors import BuildError, OsvDeployError

COMPILERS = find_compilers()

each_compiler = pytest.mark.parametrize("compiler", COMPILERS, ids=lambda compiler: compiler.kind.value)


def executable(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_no_compiler_at_all_is_a_clear_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without cc and without ziglang the error names both, and the hint says what to install."""
    monkeypatch.setitem(sys.modules, "ziglang", None)
    with pytest.raises(OsvDeployError, match="neither cc nor") as caught:
        find_compiler({"PATH": str(tmp_path)})
    assert caught.value.hint is not None and "pip install ziglang" in caught.value.hint


def test_the_compiler_that_the_user_names_comes_first(tmp_path: Path) -> None:
    """$CC, words and all, goes before cc on PATH."""
    cc = executable(tmp_path / "cc", "echo x86_64-linux-gnu")
    mine = executable(tmp_path / "my-cc", 'test "$1" = --mine && echo x86_64-pc-linux-gnu')
    assert find_compiler({"PATH": str(tmp_path)}) == Compiler((str(cc),), CompilerKind.HOST)
    named = find_compiler({"PATH": str(tmp_path), "CC": "my-cc --mine"})
    assert named == Compiler((str(mine), "--mine"), CompilerKind.HOST)


@pytest.mark.parametrize("machine", ["aarch64-linux-gnu", "arm64-apple-darwin23.1.0", "x86_64-w64-mingw32", ""])
def test_a_compiler_for_another_machine_is_passed_over(machine: str, tmp_path: Path) -> None:
    """A host compiler that makes no x86-64 Linux programs is not used, whatever its name."""
    executable(tmp_path / "cc", f"echo {machine}")
    assert [compiler.kind for compiler in find_compilers({"PATH": str(tmp_path)})] == [CompilerKind.ZIG]


def test_a_broken_compiler_is_an_error_with_its_own_words(tmp_path: Path) -> None:
    """What the compiler says reaches the user, and no output or scratch file stays."""
    broken = executable(tmp_path / "bin" / "cc", "echo 'internal error: out of luck' >&2; exit 1")
    source = tmp_path / "program.c"
    source.write_text("int main(void) { return 0; }\n")
    out = tmp_path / "out" / "program"
    with pytest.raises(CompileFailed, match="could not make program") as caught:
        compile_program([source], out, compiler=Compiler((str(broken),), CompilerKind.HOST))
    assert "out of luck" in caught.value.output
    assert list(out.parent.iterdir()) == []


def test_a_failed_compilation_keeps_the_program_that_was_there(tmp_path: Path) -> None:
    """The output is replaced whole or not at all."""
    broken = executable(tmp_path / "cc", 'for last; do :; done; echo torn > "$last"; exit 1')
    source, out = tmp_path / "program.c", tmp_path / "program"
    source.touch()
    out.write_text("old")
    with pytest.raises(CompileFailed):
        compile_program([source], out, compiler=Compiler((str(broken),), CompilerKind.HOST))
    assert out.read_text() == "old"


def test_a_missing_source_is_named(tmp_path: Path) -> None:
    """A source that is not there is told by its path, before any compiler runs."""
    with pytest.raises(BuildError, match=r"gone\.c"):
        compile_program(
            [tmp_path / "gone.c"], tmp_path / "program", compiler=Compiler(("/nowhere",), CompilerKind.HOST)
        )


@pytest.mark.slow
@each_compiler
def test_a_program_is_one_that_osv_can_load(compiler: Compiler, tmp_path: Path) -> None:
    """A dynamic PIE for x86-64 that needs libc.so.6 alone, has no TLS, and imports nothing that only glibc has."""
    source = tmp_path / "program.c"
    source.write_text('#include <stdio.h>\nint main(void) { return printf("%s\\n", WORD) < 0; }\n')
    out = compile_program([source], tmp_path / "program", defines={"WORD": '"a word"'}, compiler=compiler)
    with out.open("rb") as file:
        elf = ELFFile(file)
        assert (elf["e_type"], elf["e_machine"]) == ("ET_DYN", "EM_X86_64")
        assert not any(segment["p_type"] == "PT_TLS" for segment in elf.iter_segments())
        dynamic = elf.get_section_by_name(".dynamic")
        assert isinstance(dynamic, DynamicSection)
        assert [getattr(tag, "needed", None) for tag in dynamic.iter_tags("DT_NEEDED")] == ["libc.so.6"]
        symbols = elf.get_section_by_name(".dynsym")
        assert isinstance(symbols, SymbolTableSection)
        imported = [symbol.name for symbol in symbols.iter_symbols()]
        assert not any(name.endswith("_chk") or name.startswith("__isoc") for name in imported)
    assert b"a word" in out.read_bytes()


@pytest.mark.parametrize("home", [None, "/dev/null/home"], ids=["unset", "not writable"])
def test_a_user_without_a_home_can_compile_too(
    home: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """zig is given a cache for its one run where it would find no place for its own."""
    told = executable(tmp_path / "cc", 'for last; do :; done; echo "$ZIG_GLOBAL_CACHE_DIR" > "$last"')
    compiler = Compiler((str(told),), CompilerKind.ZIG)
    for name in ("HOME", "XDG_CACHE_HOME", "ZIG_GLOBAL_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    if home is not None:
        monkeypatch.setenv("HOME", home)
    source = tmp_path / "program.c"
    source.touch()
    given = compile_program([source], tmp_path / "program", compiler=compiler).read_text().strip()
    assert Path(given).is_relative_to(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert compile_program([source], tmp_path / "program", compiler=compiler).read_text().strip() == ""


@pytest.mark.slow
@each_compiler
def test_same_source_same_bytes(compiler: Compiler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is compiled, and from where, leaves no trace in the program."""
    made = []
    for folder in (tmp_path / "a", tmp_path / "elsewhere" / "b"):
        folder.mkdir(parents=True)
        monkeypatch.chdir(folder)
        (folder / "program.c").write_text('#include <stdio.h>\nint main(void) { puts("x"); return 0; }\n')
        made.append(compile_program([folder / "program.c"], folder / "program", compiler=compiler).read_bytes())
    assert made[0] == made[1]
    assert str(tmp_path).encode() not in made[0]
