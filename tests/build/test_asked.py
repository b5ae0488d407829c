"""What a requirements file asks for, without pip."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from osvdeploy.build.runtimes.asked import asked_for
from osvdeploy.build.statcache import StatCache
from osvdeploy.context import Context
from osvdeploy.errors import ProgramInvalid
from tests.build.projects import files_in


def test_what_was_asked_for_is_over_all_that_the_file_names(tmp_path: Path) -> None:
    """Another line, another included file or another wheel beside it is another request; comments too, to be safe."""
    (tmp_path / "wheels").mkdir()
    parts = {
        "requirements.txt": "-r more.txt\n--constraint=limits.txt\n./wheels/mine-1-py3-none-any.whl\n-r "
        "requirements.txt\n",
        "more.txt": "a==1\n",
        "limits.txt": "b<2\n",
        "wheels/mine-1-py3-none-any.whl": "zip",
    }
    for name, text in parts.items():
        (tmp_path / name).write_text(text)

    def asked() -> str:
        return asked_for(Context(), tmp_path / "requirements.txt", StatCache()).digest

    seen = {asked()}
    for name, text in parts.items():
        (tmp_path / name).write_text(text + "#")
        seen.add(asked())
        (tmp_path / name).write_text(text)

    assert len(seen) == 1 + len(parts)
    assert asked() in seen


@pytest.mark.parametrize(
    "line",
    ["-r more.txt", "-rmore.txt", "--requirement more.txt", "--requirement=more.txt", "-r 'more.txt'  # why",
     "-r \\\n  more.txt", "-r \\\r\n  more.txt", "-c more.txt", "--constraint=more.txt", "-r ${WHAT}.txt",
     "./more.txt.whl", "more.txt.whl", "mine @ file:more.txt.whl", "./more.txt.whl ; python_version > '3'",
     "./more.txt.whl --hash=sha256:00", "./more.txt.whl[extra]", "--find-links wheels", "-f wheels",
     "--find-links=wheels"],
)  # fmt: skip
def test_what_a_line_names_is_asked_for_too(tmp_path: Path, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However it is written: when it changes, it is asked for something else."""
    monkeypatch.setenv("WHAT", "more")
    (tmp_path / "requirements.txt").write_bytes(line.encode() + b"\n")
    (tmp_path / "wheels").mkdir()
    asked = set()
    for content in ("a==1\n", "a==2\n"):
        for name in ("more.txt", "more.txt.whl", "wheels/a-1-py3-none-any.whl"):
            (tmp_path / name).write_text(content)
        asked.add(asked_for(Context(), tmp_path / "requirements.txt", StatCache()).digest)
    assert len(asked) == 2


@pytest.mark.parametrize("line", ["-r https://x.example/more.txt", "# -r more.txt", "a==1 # -r more.txt", "-r ''"])
def test_what_a_line_does_not_name_is_not_looked_for(tmp_path: Path, line: str) -> None:
    """An address is the index's, a comment nobody's."""
    files_in(tmp_path, requirements=f"{line}\n")
    assert asked_for(Context(), tmp_path / "requirements.txt", StatCache()).digest


def test_a_file_that_is_included_and_not_there_is_named(tmp_path: Path) -> None:
    """Where it was looked for; and files that include each other end somewhere."""
    files_in(tmp_path, requirements="-r sub/more.txt\n", sub__more="-r ../requirements.txt\n-r nothing.txt\n")
    with pytest.raises(ProgramInvalid, match=r"sub/nothing\.txt: cannot be read: No such file") as refused:
        asked_for(Context(), tmp_path / "requirements.txt", StatCache())
    assert refused.value.hint is not None and "sub/more.txt" in refused.value.hint


@given(content=st.binary(max_size=400))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_requirements_file_is_read(tmp_path: Path, content: bytes) -> None:
    """pip says what is wrong with one; we say what we cannot find, and nothing else."""
    (tmp_path / "requirements.txt").write_bytes(content)
    try:
        asked_for(Context(), tmp_path / "requirements.txt", StatCache())
    except ProgramInvalid as error:
        assert "cannot be read" in error.message or "would be built" in error.message


@pytest.mark.parametrize("option", ["--requirement", "--requirem", "-r", "--constraint=", "--cons", "-c"])
def test_an_included_file_is_read_by_whatever_name_of_the_option(tmp_path: Path, option: str) -> None:
    """pip takes the beginning of an option for it, where that is no other's."""
    files_in(tmp_path, requirements=f"{option} more.txt\n".replace("= ", "="), more="./mine\n")
    with pytest.raises(ProgramInvalid, match="would be built"):
        asked_for(Context(), tmp_path / "requirements.txt", StatCache())


def test_hashes_anywhere_are_required_everywhere(tmp_path: Path) -> None:
    """As pip has it; uv is told."""
    files_in(tmp_path, requirements="-r more.txt\n", more="a==1 --hash=sha256:00\n")
    assert asked_for(Context(), tmp_path / "requirements.txt", StatCache()).hashed


@pytest.mark.parametrize(
    "line",
    [
        "./mine",
        ".",
        "vendor/mine",
        "/srv/mine",
        "mine @ file:///srv/mine",
        "mine[extra] @ ../mine ; python_version > '3'",
        "./mine-1.0.tar.gz",
        "mine-1.0.zip --hash=sha256:00",
        "https://example.org/mine-1.0.tar.gz#sha256=00",
        "git+https://example.org/mine.git@v1",
        "mine @ git+ssh://git@example.org/mine.git",
        "-e ./mine",
        "--editable=./mine",
        "-e./mine-1.0-py3-none-any.whl",
        "--edit ./mine",
        "--pre -f wheels -e ./mine",
        "file:mine",
        "mine.tar.gz[extra]",
        "--no-binary mine",
        "--no-binary=:all:",
        "--no-bin mine",
        "mine --no-binary=mine",
    ],
)
def test_what_would_be_built_is_refused(tmp_path: Path, line: str) -> None:
    """pip builds what is named by its place, though it is told to take wheels alone; what it says is refused first."""
    files_in(tmp_path, requirements="--no-index\n-r sub/more.txt\n", sub__more=f"six\n{line}\n")
    with pytest.raises(ProgramInvalid, match="would be built from its source") as raised:
        asked_for(Context(), tmp_path / "requirements.txt", StatCache())
    assert "sub/more.txt" in raised.value.message and line.split(" ;")[0].split(" --")[0] in raised.value.message
    assert "pip wheel" in str(raised.value.hint)


@pytest.mark.parametrize(
    "line",
    [
        "six",
        "six==1.16.0 --hash=sha256:00",
        "six ; sys_platform != 'a/b'",
        "six[a,b]>=1,<2",
        "./mine-1.0-py3-none-any.whl",
        "./mine-1.0-py3-none-any.whl[extra] ; python_version > '3'",
        "mine @ file:///srv/mine-1.0-py3-none-any.whl",
        "https://example.org/mine-1.0-py3-none-any.whl#sha256=00",
        "mine @ https://example.org/mine-1.0-py3-none-any.whl?token=a/b",
        "--index-url https://example.org/simple",
        "--find-links ./wheels",
        "--no-binary :none:",
        "--only-binary=six",
        "file:mine-1.0-py3-none-any.whl",
        "six --config-settings=a=b",
    ],
)
def test_what_comes_as_a_wheel_is_asked_for(tmp_path: Path, line: str) -> None:
    """By name, from an index or a directory, or as the wheel itself."""
    files_in(tmp_path, requirements=f"{line}\n")
    assert asked_for(Context(), tmp_path / "requirements.txt", StatCache()).digest
