"""Downloads one file over HTTP: bounded in size, with timeouts, resumed where the connection drops.

The standard library's client does what one file needs. It obeys the usual proxy variables.
"""

from __future__ import annotations

import http.client
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from email.utils import parsedate_to_datetime
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

SLOWEST = 100
"""Bytes per second, over as long as the above, below which a server counts as silent: it may be a byte now and then."""

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
    """What is there of a file, and what the server calls its state, so that the rest is the rest of the same: by
    ``validator`` (an ETag, a time), and by ``total``, its bytes in all where the server tells them."""

    ctx: Context
    url: str
    file: IO[bytes]
    limit: int
    silence: float
    done: int = 0
    total: int | None = None
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
        except (http.client.InvalidURL, UnicodeError) as error:
            raise DownloadFailed(self.url, f"no address: {error}") from None
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
            reason = getattr(error, "reason", None) or error
            # What urllib itself has to say of an address is text; of a connection, an exception.
            later = isinstance(reason, Exception) and not isinstance(reason, ssl.SSLCertVerificationError)
            raise DownloadFailed(self.url, str(reason) or type(reason).__name__, transient=later) from None

    def _take(self, status: int, headers: Mapping[str, str], answer: http.client.HTTPResponse) -> None:
        if (status == 206 and not self._continues(headers)) or status not in (200, 206):
            self._restart()
            raise DownloadFailed(self.url, f"the server answers {status} with another part", transient=True)
        if status == 200:
            self._restart()
            self.validator = _validator(headers)
            length = headers.get("Content-Length", "")
            self.total = int(length) if _LENGTH.fullmatch(length) else None
        if self.total is not None and self.total > self.limit:
            raise self._too_large(self.total)
        since, at = self.ctx.monotonic(), self.done
        while chunk := self._read(answer):
            self.ctx.check()
            self.done += len(chunk)
            if self.done > self.limit:
                raise self._too_large(self.done)
            self.file.write(chunk)
            self.ctx.report(Progress("download", self.done, self.total, "bytes"))
            if (passed := self.ctx.monotonic() - since) >= self.silence and self.done != self.total:
                if self.done - at < SLOWEST * passed:
                    told = f"the server is too slow: {self.done - at} bytes in {passed:.0f} seconds"
                    raise DownloadFailed(self.url, told, transient=True)
                since, at = self.ctx.monotonic(), self.done
        if self.total is not None and self.done < self.total:
            raise DownloadFailed(
                self.url, f"the connection ended after {self.done} of {self.total} bytes", transient=True
            )
        self.file.flush()

    def _continues(self, headers: Mapping[str, str]) -> bool:
        """Whether a part is the rest of what is there. Not every server looks at If-Range."""
        rest = _RANGE.fullmatch(headers.get("Content-Range", ""))
        if rest is None or int(rest[1]) != self.done:
            return False
        if self.total is not None and rest[2] not in ("*", str(self.total)):
            return False
        told = {headers.get(name) for name in ("ETag", "Last-Modified")} - {None}
        return not told or self.validator in told

    def _read(self, answer: http.client.HTTPResponse) -> bytes:
        try:
            # What has come, and not a whole piece: a server that sends a byte now and then would hold us for hours.
            return answer.read1(_CHUNK)
        except OSError as error:
            # A TLS error is one too, and must not pass for one of the file that is written.
            raise DownloadFailed(self.url, str(error) or type(error).__name__, transient=True) from None

    def _restart(self) -> None:
        self.file.seek(0)
        self.file.truncate()
        self.done, self.total, self.validator = 0, None, None

    def _too_large(self, size: int) -> DownloadFailed:
        return DownloadFailed(
            self.url, f"has {format_size(size)} or more, and no more than {format_size(self.limit)} is taken"
        )


def _validator(headers: Mapping[str, str]) -> str | None:
    """What tells a file from its next version; None where nothing does for sure (RFC 9110, 8.8)."""
    tag = headers.get("ETag", "")
    if tag.startswith('"'):  # a weak one does not promise the same bytes
        return tag
    try:
        modified, now = (parsedate_to_datetime(headers.get(name, "")) for name in ("Last-Modified", "Date"))
        # What was written this very second may be written again in it.
        return headers.get("Last-Modified") if now - modified > timedelta(seconds=1) else None
    except (TypeError, ValueError):
        return None


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
