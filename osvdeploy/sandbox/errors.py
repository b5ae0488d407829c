"""Refusals, as the simulated services answer them."""

from __future__ import annotations


class ApiError(Exception):
    """The service says no: ``code`` and ``message`` in AWS's words, ``status`` the HTTP status."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status


class NotSimulated(ApiError):
    """AWS may well do this; the sandbox does not, and does not guess. Not a 5xx: SDKs would try those again."""

    def __init__(self, what: str) -> None:
        super().__init__("NotSimulated", f"the sandbox does not simulate {what}")
