"""Secrets in an image's files and variables, by their content. The rules are detect-secrets' (Yelp): those of them that
go by a token's form. Those that guess by entropy or by a variable's name would cry wolf over any library.

Every token has letters that hardly anything else has, so a search for these finds the few lines that the rules have to
look at, and the library is imported only when there is one. What was found is remembered by what stat(2) says of a
file, in the manner of osvdeploy.build.statcache.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from osvdeploy.build.files import replace_file
from osvdeploy.build.statcache import TICK
from osvdeploy.context import Context
from osvdeploy.osv.filetree import Content, FileTree, HostFile, Stamp, unreadable

if TYPE_CHECKING:
    from detect_secrets.plugins.base import BasePlugin

MOST_BYTES: Final = 2 << 20
"""Larger files are data, not configuration."""

MOST_LINES: Final = 2_000
"""Lines of one file that are looked at for one mark; and of each, so many bytes around what was found:"""
_REACH: Final = 512

_VERSION: Final = 1
_MARKS: Final[Mapping[bytes, str]] = {
    b"PRIVATE KEY": "private_key.PrivateKeyDetector",
    b"PuTTY-User-Key-File": "private_key.PrivateKeyDetector",
    b"AKIA": "aws.AWSKeyDetector",
    b"ASIA": "aws.AWSKeyDetector",
    b"aws": "aws.AWSKeyDetector",
    b"AWS": "aws.AWSKeyDetector",
    b"AccountKey=": "azure_storage_key.AzureStorageKeyDetector",
    b"ghp_": "github_token.GitHubTokenDetector",
    b"gho_": "github_token.GitHubTokenDetector",
    b"ghs_": "github_token.GitHubTokenDetector",
    b"glpat-": "gitlab_token.GitLabTokenDetector",
    b":_authToken": "npm.NpmDetector",
    b"T3BlbkFJ": "openai.OpenAIDetector",
    b"pypi-AgE": "pypi_token.PypiTokenDetector",
    b"SG.": "sendgrid.SendGridDetector",
    b"xox": "slack.SlackDetector",
    b"hooks.slack.com/services/": "slack.SlackDetector",
    b"_live_": "stripe.StripeDetector",
    b"sq0csp-": "square_oauth.SquareOAuthDetector",
}
"""What stands in every token of a kind, and the class of ``detect_secrets.plugins`` that knows the kind."""

_IN_VARIABLES: Final[Mapping[bytes, str]] = {**_MARKS, b"://": "basic_auth.BasicAuthDetector"}
"""An address with a password in it is an example in most files, and meant in a variable."""

# The name alone stands in every library that reads keys; a key has its base64 behind it, with line ends as they are or
# as JSON writes them.
_KEY_BODY = re.compile(
    rb"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----(?:\s|\\[rn]|[A-Za-z-]+: [^\n]*\n)+[A-Za-z0-9+/=]{40}"
    rb"|PuTTY-User-Key-File-[23]: \S+[\s\S]{0,400}Private-Lines: "
)
_EXAMPLES: Final = (b"EXAMPLE", b"XXXX")
"""Stands in the keys of AWS's documentation."""


class Secret(NamedTuple):
    """``kind`` is the rule's own word ("AWS Access Key"); ``line`` counts from 1. The secret itself is not kept."""

    kind: str
    line: int


def find_secrets(content: bytes) -> tuple[Secret, ...]:
    """The secrets in a file's content, each kind once a line; none in what is no text or larger than MOST_BYTES."""
    if len(content) > MOST_BYTES or b"\0" in content[:8192]:
        return ()
    return tuple(sorted(set(_find(content, _MARKS))))


def secrets_of_variable(value: str) -> tuple[str, ...]:
    """The kinds of secrets in a variable's value."""
    return tuple(dict.fromkeys(found.kind for found in _find(value.encode("utf-8", "replace"), _IN_VARIABLES)))


def _find(content: bytes, marks: Mapping[bytes, str]) -> Iterator[Secret]:
    looked: set[tuple[int, str]] = set()
    for mark, rule in marks.items():
        at, lines = content.find(mark), 0
        while at >= 0 and lines < MOST_LINES:
            lines += 1
            start = max(content.rfind(b"\n", 0, at) + 1, at - _REACH)
            end = content.find(b"\n", at)
            end = min(len(content) if end < 0 else end, at + _REACH)
            if (start, rule) not in looked:
                looked.add((start, rule))
                line = content[start:end]
                plugin = _rule(rule)
                if any(_meant(content, start, found) for found in _matches(plugin, line)):
                    yield Secret(plugin.secret_type, content.count(b"\n", 0, at) + 1)
            at = content.find(mark, end)


def _matches(plugin: BasePlugin, line: bytes) -> Iterator[str]:
    # Bytes that are no UTF-8 stand for themselves: no token has any.
    return iter(plugin.analyze_string(line.decode("latin-1")))


def _meant(content: bytes, start: int, found: str) -> bool:
    token = found.encode("latin-1")
    if b"PRIVATE KEY" in token or b"PuTTY" in token:
        return _KEY_BODY.search(content, start, start + 4096) is not None
    return not any(example in token.upper() for example in _EXAMPLES)


@functools.cache
def _rule(name: str) -> BasePlugin:
    from importlib import import_module

    module, _, attribute = name.partition(".")
    plugin: BasePlugin = getattr(import_module(f"detect_secrets.plugins.{module}"), attribute)()
    return plugin


@dataclass(slots=True)
class SecretCache:
    """What was found in files of this machine, by path. ``file`` None remembers nothing beyond this process."""

    file: Path | None = None
    _known: dict[bytes, tuple[Stamp, tuple[Secret, ...]]] = field(default_factory=dict)
    _used: dict[bytes, tuple[Stamp, tuple[Secret, ...]]] = field(default_factory=dict)
    _new: bool = False

    @classmethod
    def load(cls, file: Path) -> SecretCache:
        """Never fails: at worst it knows nothing."""
        return cls(file, _parse(file))

    def look(self, ctx: Context, file: HostFile) -> tuple[Secret, ...]:
        """What is in a file. Raises SourceChanged for one that cannot be read."""
        known = self._known.get(file.path)
        if known is not None and known[0] == file.stamp:
            self._used[file.path] = known
            return known[1]
        ctx.check()
        before = int(ctx.now().timestamp() * 1e9)
        found = find_secrets(_read(file)) if file.size <= MOST_BYTES else ()
        if max(file.stamp.modified, file.stamp.changed) + TICK < before:
            self._used[file.path] = (file.stamp, found)
            self._new = True
        return found

    def save(self, ctx: Context) -> None:
        """Keep what this run used, and nothing else. A cache that cannot be written is no error."""
        if self.file is None or not (self._new or len(self._used) != len(self._known)):
            return
        files = {os.fsdecode(path): [*stamp, *found] for path, (stamp, found) in self._used.items()}
        body = json.dumps({"version": _VERSION, "files": files}, separators=(",", ":")).encode()
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            # Not synced: the checksum tells a torn one.
            replace_file(self.file, _checksum(body) + b"\n" + body, nonce=ctx.nonce(), durable=False)
        except OSError:
            pass


def scan(ctx: Context, tree: FileTree, cache: SecretCache) -> dict[bytes, tuple[Secret, ...]]:
    """The files of a tree that hold secrets, by guest path. Raises SourceChanged, Interrupted."""
    found = {
        path: find_secrets(entry.content) if isinstance(entry, Content) else cache.look(ctx, entry)
        for path, entry in tree.files()
    }
    return {path: secrets for path, secrets in found.items() if secrets}


def _read(file: HostFile) -> bytes:
    try:
        fd = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)
        try:
            start = os.read(fd, 8192)
            if b"\0" in start:
                return b""
            pieces = [start]
            while sum(map(len, pieces)) <= MOST_BYTES and (piece := os.read(fd, 1 << 20)):
                pieces.append(piece)
            return b"".join(pieces)
        finally:
            os.close(fd)
    except OSError as error:
        raise unreadable(file.path, error) from None


def _parse(file: Path) -> dict[bytes, tuple[Stamp, tuple[Secret, ...]]]:
    try:
        checksum, _, body = file.read_bytes().partition(b"\n")
        if checksum != _checksum(body):
            return {}
        document = json.loads(body)
        if document["version"] != _VERSION:
            return {}
        return {
            os.fsencode(path): (Stamp(*row[:5]), tuple(Secret(kind, line) for kind, line in row[5:]))
            for path, row in document["files"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        return {}


def _checksum(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest().encode()
