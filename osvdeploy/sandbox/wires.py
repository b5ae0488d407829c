"""The clouds' ways of speaking, side by side: whose a request is, by the look of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from osvdeploy.sandbox import wire as aws
from osvdeploy.sandbox.errors import ApiError
from osvdeploy.sandbox.google import wire as google
from osvdeploy.sandbox.wire import ApiRequest, ApiResponse, Call


class Wire(Protocol):
    """What the core asks of one cloud's way of speaking. A module of such functions is one."""

    def speaks(self, request: ApiRequest) -> bool:
        """Whether a request is this cloud's."""

    def parse(self, request: ApiRequest) -> Call:
        """The call a request means. Raises :class:`~osvdeploy.sandbox.wire.Unreadable`."""

    def admit(self, call: Call, access_key: str | None) -> None:
        """Raise ApiError for a caller that is not let in. ``access_key`` is the only one that is, None for any."""

    def answer(self, call: Call, result: Mapping[str, Any], identifier: str) -> ApiResponse: ...
    def refusal(self, call: Call, refused: ApiError, identifier: str) -> ApiResponse: ...


_WIRES: tuple[Wire, ...] = (google, aws)
"""The last one takes whatever is no other's."""


def wire_of(request: ApiRequest) -> Wire:
    return next(wire for wire in _WIRES if wire.speaks(request))
