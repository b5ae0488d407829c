"""Our errors -> gRPC's codes, and the details that tell the engine what a failure left behind.

INTERNAL, DATA_LOSS and UNKNOWN make the engine say that the resource may be corrupt, so they are for bugs alone; every
other code is a clean failure: nothing is recorded but what the details say.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import grpc
from google.protobuf import any_pb2, struct_pb2

# Not pulumi's copy of it: protobuf takes one message of a name, and Google's libraries bring this one.
from google.rpc import status_pb2
from pulumi.runtime.proto import provider_pb2

from osvdeploy.errors import (
    BuildError,
    CloudError,
    CredentialsMissing,
    DeadlineExceeded,
    DownloadFailed,
    ImageError,
    Interrupted,
    LeaseHeld,
    LeaseLost,
    LockInvalid,
    OsvDeployError,
    PinMismatch,
    Refused,
    RolledBack,
    ToolMissing,
    Unavailable,
    Unready,
    UsageError,
)

DETAILS: Final = "grpc-status-details-bin"
"""The trailer that carries a google.rpc.Status."""

# The first that fits, so the particular stand before the general.
_CODES: Final[Sequence[tuple[type[Exception], grpc.StatusCode]]] = (
    (Interrupted, grpc.StatusCode.CANCELLED),
    (DeadlineExceeded, grpc.StatusCode.DEADLINE_EXCEEDED),
    (LeaseHeld, grpc.StatusCode.ABORTED),
    (LeaseLost, grpc.StatusCode.ABORTED),
    (RolledBack, grpc.StatusCode.ABORTED),
    (CredentialsMissing, grpc.StatusCode.PERMISSION_DENIED),
    (Unready, grpc.StatusCode.FAILED_PRECONDITION),
    # Not UNAVAILABLE: the engine would take it for its own connection to us.
    (Unavailable, grpc.StatusCode.ABORTED),
    (DownloadFailed, grpc.StatusCode.ABORTED),
    (BuildError, grpc.StatusCode.FAILED_PRECONDITION),
    (PinMismatch, grpc.StatusCode.FAILED_PRECONDITION),
    (LockInvalid, grpc.StatusCode.FAILED_PRECONDITION),
    (ToolMissing, grpc.StatusCode.FAILED_PRECONDITION),
    (ImageError, grpc.StatusCode.INVALID_ARGUMENT),
    (UsageError, grpc.StatusCode.INVALID_ARGUMENT),
    (OsvDeployError, grpc.StatusCode.FAILED_PRECONDITION),
)

# What the codes of AWS and the reasons of Google have in them, in lower case.
_EXHAUSTED: Final = ("limitexceeded", "quota", "insufficient", "exhausted", "throttl", "slowdown", "ratelimit")
_DENIED: Final = ("accessdenied", "unauthorized", "forbidden", "permission", "optinrequired", "authfailure")


def code_of(error: Exception) -> grpc.StatusCode:
    """The code of an error; INTERNAL for what is none of ours, which is a bug."""
    if isinstance(error, Refused) and not isinstance(error, Unready):
        code = "".join(filter(str.isalnum, (error.code or "").lower()))
        if any(each in code for each in _EXHAUSTED):
            return grpc.StatusCode.RESOURCE_EXHAUSTED
        if any(each in code for each in _DENIED):
            return grpc.StatusCode.PERMISSION_DENIED
    return next((code for kind, code in _CODES if isinstance(error, kind)), grpc.StatusCode.INTERNAL)


def told(error: Exception) -> str:
    """What an error says to a person: what is wrong, and the way out."""
    if not isinstance(error, OsvDeployError):
        return f"osvdeploy failed in a way that it should not: {type(error).__name__}: {error}"
    operation = f" ({error.operation})" if isinstance(error, CloudError) and error.operation else ""
    hint = f"\n{error.hint}" if error.hint else ""
    return f"{error.message}{operation}{hint}"


def unfinished_status(
    code: grpc.StatusCode,
    message: str,
    *,
    id: str,
    properties: struct_pb2.Struct,
    inputs: struct_pb2.Struct,
    reasons: Sequence[str],
    refresh_before_update: bool,
) -> bytes:
    """The status of something that was begun: the engine records ``properties``, shows ``reasons``, and goes on next
    time."""
    detail = any_pb2.Any()
    detail.Pack(
        provider_pb2.ErrorResourceInitFailed(
            id=id,
            properties=properties,
            inputs=inputs,
            reasons=reasons,
            refresh_before_update=refresh_before_update,
        )
    )
    number: int = code.value[0]
    status: bytes = status_pb2.Status(code=number, message=message, details=[detail]).SerializeToString()
    return status
