"""Refusals, as the simulated services answer them."""

from __future__ import annotations

from collections.abc import Mapping

from osvdeploy.errors import UsageError


class ApiError(Exception):
    """The service says no: ``code`` and ``message`` in AWS's words, ``status`` the HTTP status.

    With ``status`` left at 400 the service's model decides, where it knows the code. ``fields`` are further members
    of the answer (EBS direct's ``Reason``), ``headers`` further headers (S3's region of a bucket).
    """

    def __init__(
        self,
        code: str,
        message: str,
        status: int = 400,
        fields: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status
        self.fields = dict(fields or {})
        self.headers = dict(headers or {})


class NotSimulated(ApiError):
    """AWS may well do this; the sandbox does not, and does not guess. Not a 5xx: SDKs would try those again."""

    def __init__(self, what: str) -> None:
        super().__init__("NotSimulated", f"the sandbox does not simulate {what}")


class StoreUnusable(UsageError):
    """The sandbox's directory cannot be used: in use by another process, written by a newer one, or no store."""
