"""Secrets in files, by their content. No secret in here is one: each is put together when the tests run."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osvdeploy.build import secrets
from osvdeploy.build.secrets import MOST_BYTES, Secret, SecretCache, find_secrets, scan, secrets_of_variable
from osvdeploy.context import Context, VirtualClock
from osvdeploy.osv.filetree import TreeBuilder

LETTERS = "Ab1Cd2Ef3Gh4Ij5Kl6Mn7Op8Qr9St0Uv1Wx2Yz3Ab4Cd5Ef6Gh7Ij8Kl9Mn0Op1Qr2St3Uv4Wx5Yz6Ab7Cd8Ef9Gh0Ij"
KEY = "-----BEGIN {}PRIVATE KEY-----\n" + "{}\n" * 3
SAMPLES = {
    "Private Key": KEY.format("RSA ", LETTERS[:64], LETTERS[:64], LETTERS[:64]),
    "AWS Access Key": "id = AKIA" + "Q7" * 8,
    "Azure Storage Account access key": "AccountKey=" + LETTERS[:88],
    "GitHub Token": "ghp_" + LETTERS[:36],
    "GitLab Token": "glpat-" + LETTERS[:20],
    "NPM tokens": "//registry.example/:_authToken=npm_" + LETTERS[:36],
    "OpenAI Token": "sk-" + LETTERS[:20] + "T3BlbkFJ" + LETTERS[:20],
    "PyPI Token": "pypi-AgEIcHlwaS5vcmc" + LETTERS[:70],
    "SendGrid API Key": "SG." + LETTERS[:22] + "." + LETTERS[:43],
    "Slack Token": "xoxb-" + "123456-" * 2 + "abcdef",
    "Stripe Access Key": "sk_live_" + LETTERS[:24],
    "Square OAuth Secret": "sq0csp-" + LETTERS[:43],
}


@pytest.mark.parametrize("kind", SAMPLES)
def test_each_kind_is_found_with_its_line(kind: str) -> None:
    """The marks that are searched for let every kind through to the rule that knows it."""
    content = f"first\nsecond = 1\n{SAMPLES[kind]}\nlast\n".encode()
    assert find_secrets(content) == (Secret(kind, 3),)


def test_every_mark_has_a_rule_that_can_be_loaded() -> None:
    """A plugin that detect-secrets renames is found here, not by a user."""
    for name in {*secrets._MARKS.values(), *secrets._IN_VARIABLES.values()}:
        assert secrets._rule(name).secret_type


@pytest.mark.parametrize(
    "content",
    [
        b'HEADER = "-----BEGIN RSA PRIVATE KEY-----"\n',
        b"if line == '-----BEGIN PRIVATE KEY-----':\n    return parse(line)\n",
        b"aws_access_key_id = AKIAIOSFODNN7EXAMPLE\n",
        b"-----BEGIN CERTIFICATE-----\n" + LETTERS[:64].encode() + b"\n",
        b"https://user:password@example.com/\n",
        b"\0\0" + SAMPLES["GitHub Token"].encode(),
        SAMPLES["GitHub Token"].encode() + b"\n" * MOST_BYTES,
    ],
    ids=["a name of a key", "code about keys", "AWS's example", "certificate", "address", "binary", "data"],
)
def test_what_is_no_secret_is_not_told(content: bytes) -> None:
    """Libraries speak of keys without holding any."""
    assert find_secrets(content) == ()


def test_a_key_inside_json() -> None:
    """A service account's file writes line ends as two characters."""
    key = SAMPLES["Private Key"].replace("\n", "\\n")
    assert find_secrets(f'{{"a": 1,\n"private_key": "{key}"}}'.encode()) == (Secret("Private Key", 2),)


def test_variables() -> None:
    """An address with a password in it counts there."""
    assert secrets_of_variable("postgres://app:hunter2@db/orders") == ("Basic Auth Credentials",)
    assert secrets_of_variable(SAMPLES["AWS Access Key"]) == ("AWS Access Key",)
    assert secrets_of_variable("https://example.com/") == ()


@given(st.binary(max_size=2000))
def test_any_bytes_are_answered(content: bytes) -> None:
    """No content is an error."""
    assert all(found.line >= 1 for found in find_secrets(content))


@pytest.mark.slow
def test_hostile_files_take_bounded_time() -> None:
    """One line of marks, and lines of them, up to the largest file that is read."""
    for content in (b"AKIA" * (MOST_BYTES // 4), b"aws\n" * (MOST_BYTES // 4), b"PRIVATE KEY" * (MOST_BYTES // 11)):
        began = time.process_time()
        find_secrets(content)
        assert time.process_time() - began < 2


def test_an_unchanged_file_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was found is remembered, the secret itself is not; a change is seen."""
    token = SAMPLES["GitHub Token"]
    source = tmp_path / "conf"
    source.write_text(token)
    os.utime(source, (1_000_000_000, 1_000_000_000))
    cache = tmp_path / "secrets.json"
    ctx = Context(clock=VirtualClock())

    def look() -> dict[bytes, tuple[Secret, ...]]:
        builder = TreeBuilder()
        builder.add_file(b"/etc/conf", os.fsencode(source))
        known = SecretCache.load(cache)
        found = scan(ctx, builder.tree(), known)
        known.save(ctx)
        return found

    ctx.clock.advance(10_000_000_000)  # type: ignore[attr-defined]  # a VirtualClock
    assert look() == {b"/etc/conf": (Secret("GitHub Token", 1),)}
    assert token not in cache.read_text()
    reads: list[object] = []
    monkeypatch.setattr(secrets, "_read", reads.append)
    assert look() == {b"/etc/conf": (Secret("GitHub Token", 1),)}
    assert reads == []
    cache.write_bytes(cache.read_bytes()[:-3])
    assert SecretCache.load(cache)._known == {}
