"""Our tags as a balancer's on AWS."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from osvdeploy.cloud.elb_tags import LONGEST, refuse_untaggable, text_of, value_of
from osvdeploy.errors import UsageError


def taken(value: str) -> bool:
    """By the pattern of TagValue: ``^([\\p{L}\\p{Z}\\p{N}_.:/=+\\-@]*)$``."""
    return all(each in "_.:/=+-@" or unicodedata.category(each)[0] in "LZN" for each in value)


@given(st.text(max_size=100))
@example("=:/srv/a")
@example("=:=41")
@example("/srv/e\u0301")
@example("/srv/\udcff")
def test_a_tag_comes_back_from_its_value(text: str) -> None:
    """Whatever is in it; and its value is one that is taken."""
    assert text_of(value_of(text)) == text
    assert taken(value_of(text))


@given(st.text(st.characters(categories=["L", "N", "Z"], include_characters="_.:/=+-@"), max_size=100))
@example("s3://acme-releases/orders=41@7")
def test_what_is_taken_is_as_it_is(text: str) -> None:
    """So services that stand keep their tags. All but what looks as if it were written anew."""
    if not text.startswith("=:"):
        assert value_of(text) == text_of(text) == text


@given(st.text(max_size=100))
def test_any_value_is_read(value: str) -> None:
    """What others wrote there is no reason to fail."""
    text_of(value)


def test_a_home_directory_stays_readable() -> None:
    """For whoever looks at the console."""
    assert value_of("/srv/ledger (prod)") == "=:/srv/ledger =28prod=29"


@pytest.mark.parametrize(
    ("ledger", "told"),
    [
        ("/srv/" + "x" * (LONGEST - 4), f"deploy.production.ledger: /srv/x.* is {LONGEST + 1} characters long"),
        ("/srv/" + "~" * 90, "is 277 characters long, as it has to be written there,"),
        ("/srv/\x01", r"has the character '\\x01', which no tag on AWS can have"),
        ("/srv/\udcff", r"has the character '\\udcff', which no tag on AWS can have"),
    ],
)
def test_what_no_tag_can_carry_is_refused(ledger: str, told: str) -> None:
    """With the setting that names it."""
    with pytest.raises(UsageError, match=told):
        refuse_untaggable(ledger, "deploy.production.ledger")


def test_the_longest_that_fits_is_taken() -> None:
    """Of both."""
    refuse_untaggable("/srv/" + "x" * (LONGEST - 5), "ledger")
    refuse_untaggable("/" + "~" * 84, "ledger")
