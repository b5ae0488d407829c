"""Lists in pages."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Final

from osvdeploy.sandbox.errors import ApiError
from osvdeploy.sandbox.google.storage.conditions import Wire
from osvdeploy.sandbox.services.scope import Doc

MOST: Final = 1000


def page(lines: Sequence[str], params: Wire) -> tuple[Sequence[str], Doc]:
    """One page of ``lines``, which are in the order of their bytes, and where the next one begins.

    Raises ApiError for a token that is none.
    """
    after = _opened(params["pageToken"]) if params.get("pageToken") else None
    rest = lines if after is None else [line for line in lines if line.encode() > after]
    shown = rest[: min(params.get("maxResults") or MOST, MOST)]
    if len(shown) == len(rest):
        return shown, {}
    return shown, {"nextPageToken": base64.urlsafe_b64encode(shown[-1].encode()).decode()}


def _opened(token: str) -> bytes:
    try:
        return base64.b64decode(token, altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        raise ApiError("invalid", f"Invalid value for pageToken: {token}") from None
