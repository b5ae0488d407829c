"""JSON over HTTP, for metrics: bounded in time and size, by the prober's own client, which follows no redirect and uses
no proxy."""

from __future__ import annotations

import json
import os
from typing import Any

from osvdeploy.cloud.interfaces import ProbeRequest
from osvdeploy.cloud.local.prober import HttpProber
from osvdeploy.context import Context
from osvdeploy.errors import Refused, Unavailable

TIME_LIMIT = 10.0
"""Seconds for all of a request: a rollout waits for it, and its lease is to be renewed."""

SIZE_LIMIT = 1 << 20
"""Bytes of an answer."""

_PASSING = (408, 429)


def get_json(ctx: Context, http: HttpProber, url: str, what: str, token_variable: str | None) -> Any:
    """The document at ``url``; an error names ``what``.

    Raises :class:`~osvdeploy.errors.Unavailable` where nobody answers, or not now, and
    :class:`~osvdeploy.errors.Refused` for what is no document.
    """
    headers = {"accept": "application/json"}
    if token_variable is not None:
        token = os.environ.get(token_variable, "")
        if not token.strip():
            raise Refused(f"{what}: the variable {token_variable} is not set", hint=f"export {token_variable}")
        headers["authorization"] = f"Bearer {token.strip()}"
    request = ProbeRequest(url, headers, TIME_LIMIT)
    answer = http.fetch(ctx, request, SIZE_LIMIT + 1)
    if answer.status is None:
        raise Unavailable(f"{what}: {answer.error}", hint="check its address, and the network from here")
    said = " ".join(answer.body[:200].decode(errors="replace").split())
    if answer.status >= 500 or answer.status in _PASSING:
        raise Unavailable(f"{what}: answered {answer.status}: {said}", code=str(answer.status))
    if not 200 <= answer.status < 300:
        told = "it wants credentials; name a variable with a token as `token-variable`"
        hint = told if answer.status in (401, 403) else None
        raise Refused(f"{what}: answered {answer.status}: {said}", code=str(answer.status), hint=hint)
    if len(answer.body) > SIZE_LIMIT:
        raise Refused(f"{what}: answered more than {SIZE_LIMIT >> 20} MiB")
    try:
        return json.loads(answer.body)
    except (ValueError, RecursionError):
        raise Refused(f"{what}: answered no JSON: {said[:80]}") from None
