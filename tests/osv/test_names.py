from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osvdeploy.osv.names import escaped, unescaped

NAMES = st.binary(max_size=40) | st.text(max_size=20).map(lambda text: text.encode("utf-8", "ignore"))


@given(NAMES, st.booleans())
def test_any_name_is_read_back_as_it_is_shown(name: bytes, plain: bool) -> None:
    """In one line that moves no cursor; with ``plain`` in ASCII."""
    shown = escaped(name, plain=plain)
    assert unescaped(shown) == name
    assert shown.isprintable() and (shown.isascii() or not plain)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"/etc/hosts", "/etc/hosts"),
        ("/straße".encode(), "/straße"),
        (b"\xff", r"\xff"),
        (b"a\\xff", r"a\\xff"),
        ("a\u00a0b\u202e".encode(), r"a\xc2\xa0b\xe2\x80\xae"),
        (b"\x1b[2J\n\t", r"\x1b[2J\n\t"),
    ],
)
def test_names_look_like_this(name: bytes, shown: str) -> None:
    """A byte that is no text, a backslash, a space that does not break, a mark that turns text around."""
    assert escaped(name) == shown


@given(st.text(st.characters(exclude_characters="\\", exclude_categories=["Cs"]), max_size=20))
def test_text_without_a_backslash_is_itself(text: str) -> None:
    """Whoever types a name need not know of escapes; a backslash that begins none is one too."""
    assert unescaped(text) == text.encode()
    assert unescaped(text + r"\q") == text.encode() + rb"\q"
