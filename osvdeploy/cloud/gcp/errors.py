"""Google's errors become ours, here and nowhere else.

What decides is the HTTP status and the ``reason`` of the first error in the answer; an operation that ended badly has a
``code`` in its place. Sources: "Troubleshooting API errors" and "Handling API errors" of the Compute Engine
documentation, "HTTP status and error codes for JSON" of the Cloud Storage one, google.rpc.Code for operations.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from osvdeploy.errors import (
    CloudError,
    CredentialsMissing,
    NotFound,
    NotSimulated,
    OsvDeployError,
    Refused,
    Unavailable,
    UsageError,
)
from osvdeploy.visible import in_a_line

CREDENTIALS_HINT = (
    "give credentials as for gcloud (`gcloud auth application-default login`, or GOOGLE_APPLICATION_CREDENTIALS); "
    'for the sandbox: eval "$(osvdeploy sandbox env)"'
)

PASSING = frozenset(
    {
        "rateLimitExceeded",
        "userRateLimitExceeded",
        "backendError",
        "internalError",
        "resourceNotReady",
        "resourceOperationInProgress",
        "RESOURCE_OPERATION_RATE_EXCEEDED",
        "RESOURCE_NOT_READY",
        "INTERNAL_ERROR",
        "UNAVAILABLE",
        "RATE_LIMIT_EXCEEDED",
    }
)
"""Reasons and operation codes after which the same request may be answered otherwise soon, whatever the status."""

NO_ROOM = frozenset(
    {
        "ZONE_RESOURCE_POOL_EXHAUSTED",
        "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS",
        "STOCKOUT",
        "RESOURCE_POOL_EXHAUSTED",
    }
)
"""A zone has no machines of that kind now."""

_QUOTA = frozenset({"quotaExceeded", "QUOTA_EXCEEDED", "limitExceeded", "LIMIT_EXCEEDED"})
_GONE = frozenset({"notFound", "RESOURCE_NOT_FOUND"})
_STALE = 412


class Stale(Refused):
    """What was to be changed is not as it was when it was read: somebody else changed it meanwhile (412)."""


class AlreadyThere(Refused):
    """Something of that name exists (409)."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One error as Google tells it: HTTP status (0 for an operation's), reason or code, and its words."""

    status: int
    reason: str
    message: str

    @classmethod
    def of_answer(cls, status: int, body: bytes) -> Fault:
        """What an answer that is no success says, whatever it is made of."""
        try:
            told = json.loads(body)["error"]
        except (ValueError, KeyError, TypeError):
            told = {}
        if not isinstance(told, Mapping):
            # OAuth's form: {"error": "invalid_grant", "error_description": "..."}
            return cls(status, str(told), "")
        errors = told.get("errors")
        first: Mapping[str, Any] = errors[0] if isinstance(errors, list) and errors else {}
        reason = str(first.get("reason") or told.get("status") or "")
        text = str(told.get("message") or first.get("message") or in_a_line(body, 200))
        return cls(status, reason, " ".join(text.split()))

    @classmethod
    def of_operation(cls, operation: Mapping[str, Any]) -> Fault | None:
        """Why an operation that is done failed; None where it did not."""
        errors = (operation.get("error") or {}).get("errors") or []
        if not errors:
            return None
        first = errors[0]
        message = " ".join(str(first.get("message") or operation.get("httpErrorMessage") or "").split())
        return cls(int(operation.get("httpErrorStatusCode") or 0), str(first.get("code") or ""), message)

    @property
    def passing(self) -> bool:
        """Whether the same request may be answered otherwise soon: throttled, timed out, or the server's own fault."""
        return self.reason in PASSING or self.status in (408, 429) or self.status >= 500


def refusal(fault: Fault, what: str, operation: str) -> OsvDeployError:
    """Ours for one of Google's; ``what`` names the thing the call was about, ``operation`` the call."""
    about = f"{what}: " if what else ""
    mark = fault.reason or str(fault.status)
    said = f"{fault.message} ({mark})" if fault.message else mark
    if fault.reason == "notSimulated":
        return NotSimulated(f"{about}the sandbox does not simulate this: {said}", operation=operation, code=mark)
    if fault.status == 401 or fault.reason in ("invalid_grant", "authError", "UNAUTHENTICATED"):
        return CredentialsMissing(
            f"Google does not accept the credentials: {said}", operation=operation, code=mark, hint=CREDENTIALS_HINT
        )
    if fault.reason in NO_ROOM:
        return Refused(
            f"{about}Google has no room for it now: {said}",
            operation=operation,
            code=mark,
            hint="try another zone or machine type, or later",
        )
    if fault.reason in _QUOTA:
        return Refused(
            f"{about}Google refused {operation}: {said}",
            operation=operation,
            code=mark,
            hint="raise the quota, or remove what is not needed (`osvdeploy gc`)",
        )
    if fault.passing:
        return Unavailable(
            f"{about}Google could not do {operation} now: {said}",
            operation=operation,
            code=mark,
            hint="the same command goes on from here",
        )
    if fault.status == 403:
        # The permission to list in one place is the one to list in all.
        hint = f"allow {operation.replace('aggregatedList', 'list')} to the account that is used"
        if fault.reason in ("accessNotConfigured", "SERVICE_DISABLED"):
            hint = "enable the API in the project"
        return Refused(f"{about}Google refused {operation}: {said}", operation=operation, code=mark, hint=hint)
    if fault.status == 404 or fault.reason in _GONE:
        return NotFound(f"{about}{said}", operation=operation, code=mark)
    if fault.status == _STALE:
        return Stale(f"{about}changed by somebody else meanwhile: {said}", operation=operation, code=mark)
    if fault.status == 409:
        return AlreadyThere(f"{about}{said}", operation=operation, code=mark)
    return Refused(f"{about}Google refused {operation}: {said}", operation=operation, code=mark)


def translate(error: Exception, what: str = "", operation: str = "") -> OsvDeployError:
    """Ours for one of google-auth's or requests'. An error that is ours already comes back as it is."""
    from google.auth import exceptions as auth
    from requests import exceptions as transport

    if isinstance(error, OsvDeployError):
        return error
    about = f"{what}: " if what else ""
    called = f" while calling {operation}" if operation else ""
    text = " ".join(str(error).split())
    if isinstance(error, auth.TransportError):
        return Unavailable(
            f"{about}no answer from Google's sign-in{called}: {text}",
            operation=operation,
            code=type(error).__name__,
            hint="check the network; the same command goes on from here",
        )
    if isinstance(error, auth.GoogleAuthError):
        return CredentialsMissing(f"no usable Google credentials: {text}", operation=operation, hint=CREDENTIALS_HINT)
    if isinstance(error, transport.SSLError):
        return Refused(
            f"{about}TLS failed{called}: {text}",
            operation=operation,
            hint="set REQUESTS_CA_BUNDLE if Google is behind a proxy",
        )
    if isinstance(error, transport.InvalidURL | transport.MissingSchema | transport.InvalidSchema):
        return UsageError(f"the address of Google's API does not work: {text}", hint="check the endpoint that is set")
    if isinstance(error, transport.RequestException):
        return Unavailable(
            f"{about}no answer from Google{called}: {text}",
            operation=operation,
            code=type(error).__name__,
            hint="check the network and the endpoint that is set; the same command goes on from here",
        )
    return CloudError(f"{about}Google's client failed{called}: {type(error).__name__}: {text}", operation=operation)
