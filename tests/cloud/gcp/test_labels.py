"""Our tags as Google's labels."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from osvdeploy.cloud import tags
from osvdeploy.cloud.gcp.labels import labels_of, tags_of
from osvdeploy.cloud.interfaces import ReleaseId
from osvdeploy.digests import sha256

OURS = st.sampled_from([tags.SCHEMA, tags.APP, tags.VERSION, tags.DIGEST, tags.LEDGER, tags.STORE, tags.NAME])
THEIRS = st.from_regex(r"[a-z][a-z0-9_-]{0,20}", fullmatch=True).filter(lambda name: not name.startswith("osvdeploy"))


@given(
    st.dictionaries(OURS, st.text(max_size=200)),
    st.dictionaries(THEIRS, st.from_regex(r"[a-z0-9_-]{0,63}", fullmatch=True)),
)
def test_tags_come_back_from_labels(ours: dict[str, str], theirs: dict[str, str]) -> None:
    """Whatever is in them, and each label is one that Google takes."""
    labels = labels_of({**ours, **theirs})
    assert tags_of(labels) == {**ours, **theirs}
    for name, value in labels.items():
        assert re.fullmatch(r"[a-z][a-z0-9_-]{0,62}", name)
        assert re.fullmatch(r"[a-z0-9_-]{0,63}", value)


@given(st.dictionaries(st.text(max_size=80), st.text(max_size=80)))
def test_any_labels_are_read(labels: dict[str, str]) -> None:
    """What others wrote into them is no reason to fail."""
    tags_of(labels)


def test_a_releases_labels_are_few_and_readable() -> None:
    """The app is as it is, and a digest begins with its own digits."""
    digest = sha256(b"release")
    labels = labels_of(
        tags.release_tags(
            tags.service_tags("orders", "orders/production", "gs://acme-releases/orders"),
            release=ReleaseId("orders-1.4.0-1a2b3c4d"),
            version="1.4.0",
            image=digest,
            configuration=digest,
            digest=digest,
        )
    )
    assert len(labels) < 24
    assert labels["osvdeploy-app"] == "orders"
    assert labels["osvdeploy-digest"] == digest[:63]
    assert labels["osvdeploy-version"] == "1_2e4_2e0"
