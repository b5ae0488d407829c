"""What goes wrong on purpose: a call refused, an answer lost, a client left waiting.

A fault waits in :class:`Faults` for the calls it names and is used up by them. What a client sees of it is made where
requests arrive: :mod:`osvdeploy.sandbox.inprocess` raises what botocore would, :mod:`osvdeploy.sandbox.http` closes or
holds the connection.
"""

from __future__ import annotations

import threading
from collections.abc import Container
from dataclasses import dataclass, replace
from enum import StrEnum
from fnmatch import fnmatchcase

from osvdeploy.sandbox.errors import ApiError
from osvdeploy.sandbox.wire import Call


class FaultKind(StrEnum):
    """What happens to a call."""

    BEFORE = "before"
    """The connection ends before anything happened."""

    AFTER = "after"
    """It took effect, and the connection ends before the answer."""

    HANG = "hang"
    """Nothing happened, and no answer comes until the client gives up."""

    HANG_AFTER = "hang-after"
    """It took effect, and no answer comes until the client gives up."""

    UNREACHABLE = "unreachable"
    """No connection: nothing happened."""

    THROTTLED = "throttled"
    """Refused with the service's own throttling code."""

    DENIED = "denied"
    """Refused for want of permission."""

    BROKEN = "broken"
    """Refused with the service's internal error; nothing happened."""

    STALE = "stale"
    """A read that is answered as things were some seconds ago (``Sandbox.stale``), as where a cloud is eventually
    consistent."""

    EXHAUSTED = "exhausted"
    """Refused since the zone has no such machine left."""

    QUOTA = "quota"
    """Refused since the account may have no more."""


SHORTAGES = frozenset({FaultKind.EXHAUSTED, FaultKind.QUOTA})
"""Kinds that strike machines too that a group starts by itself: as the operation ``instances.insert`` on Google."""


class Lost(StrEnum):
    """What a client gets in place of an answer."""

    CLOSED = "closed"
    HANGS = "hangs"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True)
class Fault:
    """``operation`` is a name or a pattern (``RunInstances``, ``ec2:Describe*``, ``*``). The fault lets ``skip``
    matching calls pass, then strikes the next ``times`` of them (None: all)."""

    operation: str
    kind: FaultKind
    skip: int = 0
    times: int | None = 1

    def matches(self, call: Call) -> bool:
        names = (call.operation, f"{call.service}:{call.operation}")
        return any(fnmatchcase(name, self.operation) for name in names)


class Faults:
    """The faults that wait. Safe to use from any thread."""

    def __init__(self) -> None:
        self._waiting: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> None:
        with self._lock:
            self._waiting.append(fault)

    def clear(self) -> None:
        with self._lock:
            self._waiting.clear()

    def waiting(self) -> list[Fault]:
        """What has not struck yet, or will strike again, as it stands."""
        with self._lock:
            return list(self._waiting)

    def take(self, call: Call, kinds: Container[FaultKind] = frozenset(FaultKind)) -> FaultKind | None:
        """What strikes this call, None for nothing. One strikes, the first that was added of these ``kinds``; all of
        them count the call."""
        struck: FaultKind | None = None
        with self._lock:
            kept = []
            for fault in self._waiting:
                if fault.kind not in kinds or not fault.matches(call):
                    kept.append(fault)
                elif fault.skip:
                    kept.append(replace(fault, skip=fault.skip - 1))
                elif struck is not None:
                    kept.append(fault)
                else:
                    struck = fault.kind
                    if fault.times is None:
                        kept.append(fault)
                    elif fault.times > 1:
                        kept.append(replace(fault, times=fault.times - 1))
            self._waiting = kept
        return struck


def refusal(kind: FaultKind, call: Call) -> ApiError | None:
    """What a service answers for a fault of this kind, None where it answers nothing of its own."""
    reason = {"Reason": "ACCOUNT_THROTTLED" if kind is FaultKind.THROTTLED else "UNAUTHORIZED_ACCOUNT"}
    match kind, call.service:
        case FaultKind.THROTTLED, "ec2":
            return ApiError("RequestLimitExceeded", "Request limit exceeded.", 503)
        case FaultKind.THROTTLED, "ebs":
            return ApiError("RequestThrottledException", "The number of API requests is too high.", fields=reason)
        case FaultKind.THROTTLED, "s3":
            return ApiError("SlowDown", "Please reduce your request rate.", 503)
        case FaultKind.THROTTLED, "storage":
            return ApiError("rateLimitExceeded", "The rate limit was exceeded, please reduce your request rate.", 429)
        case FaultKind.THROTTLED, "monitoring" | "pubsub":
            return ApiError("rateLimitExceeded", "Quota exceeded for quota metric of requests per minute.", 429)
        case FaultKind.THROTTLED, "compute":
            return ApiError("rateLimitExceeded", "Rate Limit Exceeded", 403)
        case FaultKind.THROTTLED, _:
            return ApiError("Throttling", "Rate exceeded")
        case FaultKind.DENIED, "ec2":
            return ApiError("UnauthorizedOperation", "You are not authorized to perform this operation.", 403)
        case FaultKind.DENIED, "ebs":
            return ApiError("AccessDeniedException", "You do not have sufficient access.", 403, reason)
        case FaultKind.DENIED, "s3":
            return ApiError("AccessDenied", "Access Denied", 403)
        case FaultKind.DENIED, "storage":
            return ApiError("forbidden", f"The caller does not have access to {call.operation}.", 403)
        case FaultKind.DENIED, "monitoring" | "pubsub":
            return ApiError("forbidden", f"Permission denied for {call.operation} (or it may not exist).", 403)
        case FaultKind.DENIED, "compute":
            return ApiError("forbidden", f"Required 'compute.{call.operation}' permission", 403)
        case FaultKind.DENIED, service:
            return ApiError("AccessDenied", f"User is not authorized to perform: {service}:{call.operation}", 403)
        case FaultKind.EXHAUSTED, "compute":
            told = "The zone does not have enough resources available to fulfill the request. Try a different zone."
            return ApiError("resourcePoolExhausted", told, 503)
        case FaultKind.EXHAUSTED, _:
            told = "We currently do not have sufficient capacity in the Availability Zone you requested."
            return ApiError("InsufficientInstanceCapacity", told, 500)
        case FaultKind.QUOTA, "compute":
            return ApiError("quotaExceeded", "Quota exceeded.", 403)
        case FaultKind.QUOTA, _:
            return ApiError(
                "VcpuLimitExceeded", "You have requested more vCPU capacity than your current limit allows."
            )
        case FaultKind.BROKEN, "ec2" | "s3":
            return ApiError("InternalError", "An internal error has occurred", 500)
        case FaultKind.BROKEN, "ebs":
            return ApiError("InternalServerException", "An internal error has occurred", 500)
        case FaultKind.BROKEN, "compute" | "monitoring" | "pubsub" | "storage":
            return ApiError("backendError", "We encountered an internal error. Please try again.", 503)
        case FaultKind.BROKEN, _:
            return ApiError("InternalFailure", "An internal error has occurred", 500)
    return None


def lost(kind: FaultKind) -> Lost | None:
    """What the client gets in place of an answer, None where it gets one."""
    match kind:
        case FaultKind.BEFORE | FaultKind.AFTER:
            return Lost.CLOSED
        case FaultKind.HANG | FaultKind.HANG_AFTER:
            return Lost.HANGS
        case FaultKind.UNREACHABLE:
            return Lost.UNREACHABLE
    return None


def takes_effect(kind: FaultKind) -> bool:
    """Whether the call is carried out all the same."""
    return kind in (FaultKind.AFTER, FaultKind.HANG_AFTER, FaultKind.STALE)
