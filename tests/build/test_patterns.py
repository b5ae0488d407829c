from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from osvdeploy.build.patterns import excluder, find, is_pattern, split_pattern
from osvdeploy.errors import FileTreeInvalid


@pytest.mark.parametrize(
    ("pattern", "path", "left_out"),
    [
        (".git", b".git", True),
        (".git", b"a/b/.git", True),
        (".git", b".github", False),
        ("*.map", b"a.map", True),
        ("*.map", b"a/.map", True),
        ("a/*.map", b"a/b.map", True),
        ("a/*.map", b"b/a/b.map", False),
        ("a/*.map", b"a/b/c.map", False),
        ("/a.map", b"a.map", True),
        ("/a.map", b"b/a.map", False),
        ("**/*.map", b"a/b/c.map", True),
        ("**/*.map", b"c.map", True),
        ("a/**/b", b"a/b", True),
        ("a/**/b", b"a/x/y/b", True),
        ("a/**", b"a/x/y", True),
        ("a/**", b"a", False),
        ("node_modules/", b"x/node_modules", True),
        ("[abc].js", b"b.js", True),
        ("[!abc].js", b"b.js", False),
        ("[a-c-].js", b"-.js", True),
        ("[]].js", b"].js", True),
        ("[a.js", b"[a.js", True),
        ("?.js", "ü.js".encode(), True),
        ("?.js", b"\xff.js", True),
        ("?.js", b"ab.js", False),
        ("a.b", b"axb", False),
        ("*", b"line\nbreak", True),
    ],
)
def test_what_a_pattern_leaves_out(pattern: str, path: bytes, left_out: bool) -> None:
    """Without a slash a name anywhere, with one a path from the top; every character but the wildcards is itself."""
    excluded = excluder([pattern])
    assert excluded is not None and excluded(path) is left_out


def test_no_pattern_leaves_nothing_out() -> None:
    """None spares the caller a question for each file."""
    assert excluder([]) is None


@settings(max_examples=150, deadline=None)
@given(st.text("ab*?[]!-./ü^\\", max_size=10), st.binary(max_size=8))
def test_any_pattern_answers_or_is_refused(pattern: str, path: bytes) -> None:
    """Any text is a pattern, or refused by name; a text without wildcards matches itself."""
    try:
        excluded = excluder([pattern])
        assert excluded is not None
        excluded(path)
        if not is_pattern(pattern) and pattern.strip("/") and "//" not in pattern:
            assert excluded(pattern.strip("/").encode())
    except FileTreeInvalid as refusal:
        assert "range" in str(refusal)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(["**", "*", "a", "?", "[ab]", "*.c"]), min_size=1, max_size=4))
def test_what_is_found_is_there_once_and_sorted(tmp_path: Path, components: list[str]) -> None:
    """Whatever the pattern, each match exists, is named once, and loops of links are not walked."""
    for path in ("a/b/x.c", "b/a/y.c", "x.c"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    if not (tmp_path / "a/loop").is_symlink():
        (tmp_path / "a/loop").symlink_to("..")
    found = find(str(tmp_path).encode(), components)
    assert found == sorted(set(found))
    assert all((tmp_path / path.decode()).exists() for path in found)
    assert not any(b"loop/" in path for path in found)


@pytest.mark.parametrize(
    ("pattern", "fixed", "rest"),
    [
        ("*.js", "", ["*.js"]),
        ("web/js/*.js", "web/js", ["*.js"]),
        ("/abs/**/x", "/abs", ["**", "x"]),
        ("/*", "/", ["*"]),
        ("a/*/b//c", "a", ["*", "b", "c"]),
    ],
)
def test_the_fixed_part_ends_at_the_first_wildcard(pattern: str, fixed: str, rest: list[str]) -> None:
    """What stands in front of it is where the search begins."""
    assert split_pattern(pattern) == (fixed, rest)
