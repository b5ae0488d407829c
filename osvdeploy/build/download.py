"""Downloads one file over HTTP: bounded in size, with timeouts, resumed where the connection drops.

The standard library's client does what one file needs. It obeys the usual proxy variables.
"""

from __future__ import annotations

import http.client
import re
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from osvdeploy.context import Context
from osvdeploy.errors import DownloadFailed
from osvdeploy.events import Progress
from osvdeploy.retry import retrying
from osvdeploy.sizes import format_size
from osvdeploy.version import __version__

SILENCE = 10.0
"""Seconds without a byte after which a connection counts as dropped. A cancel waits for it at most."""

ATTEMPTS = 6
_CHUNK = 1 << 16
_LENGTH = re.compile(r"[0-9]{1,18}")
_RANGE = re.compile(r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18}|\*)")


def download(ctx: Context, url: str, into: Path, *, limit: int, silence: float = SILENCE) -> None:
    """Fetch ``url`` to the file ``into``, no more than ``limit`` bytes. What is there on an error is not whole.

    Raises DownloadFailed; OSError where ``into`` cannot be written; Interrupted.
    """
    if _scheme(url) not in ("http", "https"):
        raise DownloadFailed(url, "only http:// and https:// can be downloaded")
    with into.open("wb") as file:
        transfer = _Transfer(ctx, url, file, limit, silence)
        retrying(ctx, transfer.attempt, when=_may_work_later, attempts=ATTEMPTS, first_wait=0.3)


def _may_work_later(error: BaseException) -> bool:
    return isinstance(error, DownloadFailed) and error.transient


@dataclass(slots=True)
class _Transfer:
    """What is there of a file, and what the server calls its state (ETag), so that the rest is the rest of the same."""

    ctx: Context
    url: str
    file: IO[bytes]
    limit: int
    silence: float
    done: int = 0
    validator: str | None = None
    opener: urllib.request.OpenerDirector = field(default_factory=lambda: urllib.request.build_opener(_Redirects()))

    def attempt(self) -> None:
        self.ctx.check()
        headers = {"User-Agent": f"osvdeploy/{__version__}", "Accept-Encoding": "identity"}
        if self.done and self.validator is not None:
            headers |= {"Range": f"bytes={self.done}-", "If-Range": self.validator}
        else:
            self._restart()
        try:
            with self.opener.open(
                urllib.request.Request(self.url, headers=headers),
                timeout=self.silence,
            ) as answer:
                self._take(answer.status, answer.headers, answer)
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 416:
                    # The file became shorter than what is there of it.
                    self._restart()
                later = error.code >= 500 or error.code in (408, 416, 429)
                raise DownloadFailed(
                    self.url, f"the server says {error.code} {error.reason}", transient=later
                ) from None
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
            reason = getattr(error, "reason", None) or error
            raise DownloadFailed(self.url, str(reason) or type(reason).__name__, transient=True) from None

    def _take(self, status: int, headers: Mapping[str, str], answer: http.client.HTTPResponse) -> None:
        rest = _RANGE.fullmatch(headers.get("Content-Range", "")) if status == 206 else None
        if status not in (200, 206) or (status == 206 and (rest is None or int(rest[1]) != self.done)):
            self._restart()
            raise DownloadFailed(self.url, f"the server answers {status} with another part", transient=True)
        if status == 200:
            self._restart()
            tag = headers.get("ETag", "")
            # A weak tag does not promise the same bytes.
            self.validator = tag if tag.startswith('"') else headers.get("Last-Modified")
        length = headers.get("Content-Length", "")
        total = self.done + int(length) if _LENGTH.fullmatch(length) else None
        if total is not None and total > self.limit:
            raise self._too_large(total)
        while chunk := self._read(answer):
            self.ctx.check()
            self.done += len(chunk)
            if self.done > self.limit:
                raise self._too_large(self.done)
            self.file.write(chunk)
            self.ctx.report(Progress("download", self.done, total, "bytes"))
        if total is not None and self.done < total:
            raise DownloadFailed(self.url, f"the connection ended after {self.done} of {total} bytes", transient=True)
        self.file.flush()

    def _read(self, answer: http.client.HTTPResponse) -> bytes:
        try:
            return answer.read(_CHUNK)
        except OSError as error:
            # A TLS error is one too, and must not pass for one of the file that is written.
            raise DownloadFailed(self.url, str(error) or type(error).__name__, transient=True) from None

    def _restart(self) -> None:
        self.file.seek(0)
        self.file.truncate()
        self.done, self.validator = 0, None

    def _too_large(self, size: int) -> DownloadFailed:
        return DownloadFailed(
            self.url, f"has {format_size(size)} or more, and no more than {format_size(self.limit)} is taken"
        )


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Redirects as ever, but never from https:// to less."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        to = _scheme(newurl)
        if to not in ("http", "https") or (req.type == "https" and to != "https"):
            raise DownloadFailed(req.full_url, f"the server leads to {newurl}, which is less safe")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _scheme(url: str) -> str:
    try:
        return urlsplit(url).scheme
    except ValueError:
        return ""  # no address at all: "http://[bad"
