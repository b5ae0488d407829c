from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from osvdeploy.cli.tables import folded, table, wrapped_table

WORDS = st.lists(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=30), min_size=1)


@given(WORDS, st.integers(0, 40), st.integers(30, 120))
def test_folded_text_is_the_same_words_in_narrow_lines(words: list[str], indent: int, width: int) -> None:
    """None of them broken, and no line longer than it must be."""
    lines = folded(" ".join(words), indent, width).split("\n")
    assert " ".join(lines).split() == words
    longest = max(map(len, words))
    assert all(line.startswith(" " * indent) for line in lines[1:])
    assert all(len(line.strip()) <= max(24, width - indent, longest) for line in lines)


def test_a_table_is_folded_at_its_last_column() -> None:
    """What does not fit stands below its own beginning."""
    told = table(("AT", "WHAT"), [("0", "boot sector"), ("65536", "kernel: lzloader, 114 chunks")], fold=33)
    assert told.splitlines() == [
        "AT     WHAT",
        "0      boot sector",
        "65536  kernel: lzloader, 114",
        "       chunks",
    ]


@given(st.integers(60, 200), WORDS, WORDS)
def test_a_table_of_prose_is_never_wider_than_the_terminal(width: int, what: list[str], cure: list[str]) -> None:
    """Where its columns would be too narrow, prose stands below."""
    heading = ("", "RULE", "SUBJECT", "WHAT", "CURE")
    rows = [("warning", "nitro-traffic", "t3.small", " ".join(what), " ".join(cure))]
    told = wrapped_table(heading, rows, width=width)
    assert max(map(len, told.splitlines())) <= width
    assert (told.splitlines()[0].split() == list(heading[1:])) == (width - 36 >= 50), (
        "36 for the rest, and 50 for prose"
    )


def test_prose_without_room_stands_below() -> None:
    """The cure by its name."""
    row = ("warning", "vga-console", "[image.boot]", "console is all", 'set console = "serial"')
    assert wrapped_table(("", "RULE", "SUBJECT", "WHAT", "CURE"), [row], width=60).splitlines() == [
        "warning  vga-console  [image.boot]",
        "  console is all",
        '  cure: set console = "serial"',
    ]


def test_a_last_column_without_room_stands_below() -> None:
    """Below its own row, cut to the terminal; a row that has nothing there stays one line."""
    rows = [("2026-11-27", "rolled-back", "boot log: Aborted, again and again"), ("2026-11-26", "succeeded", "")]
    told = table(("STARTED", "OUTCOME", "REASON"), rows, last_width=60, within=30)
    assert told.splitlines() == [
        "STARTED     OUTCOME",
        "2026-11-27  rolled-back",
        "  reason: boot log: Aborted, …",
        "2026-11-26  succeeded",
    ]


def test_what_has_no_room_beside_it_stands_below_too() -> None:
    """Of a table whose other columns alone are wider than the terminal."""
    rows = [("hello-1.0.0-9c1de7a0", "serves", "2026-11-27 10:00", "succeeded", "ami-1")]
    told = table(("RELEASE", "STATE", "DEPLOYED (UTC)", "OUTCOME", "IMAGE"), rows, within=52)
    assert told.splitlines() == [
        "RELEASE               STATE   DEPLOYED (UTC)",
        "hello-1.0.0-9c1de7a0  serves  2026-11-27 10:00",
        "  outcome: succeeded",
        "  image: ami-1",
    ]


@given(st.integers(40, 200), WORDS)
def test_a_table_that_is_cut_is_never_wider_than_the_terminal(width: int, reason: list[str]) -> None:
    """Wherever its last column stands; with room for it, it is as without a terminal."""
    rows = [("2026-11-27", "rolled-back", " ".join(reason))]
    told = table(("STARTED", "OUTCOME", "REASON"), rows, last_width=60, within=width)
    assert max(map(len, told.splitlines())) <= width
    if width >= 25 + 60:
        assert told == table(("STARTED", "OUTCOME", "REASON"), rows, last_width=60)
