"""AWS's errors become ours, here and nowhere else.

What decides is the error code; a few services say several things with one code, and then the message or the
``Reason`` field decides. Sources: the error lists of the EC2, EBS direct, Elastic Load Balancing v2, Auto Scaling, IAM,
S3 and STS API references, and botocore's service models, against which ``tests/cloud/aws/test_errors.py`` holds the
tables. What S3 refuses of a HEAD has no document, so the HTTP status is its code.
"""

from __future__ import annotations

import re

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

CREDENTIALS = frozenset(
    {
        "AuthFailure",
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "InvalidToken",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "RequestExpired",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
PERMISSION = frozenset(
    {
        "403",
        "AccessDenied",
        "AccessDeniedException",
        "AllAccessDisabled",
        "AuthorizationError",
        "NotAuthorized",
        "OperationNotPermitted",
        "OptInRequired",
        "UnauthorizedOperation",
    }
)
THROTTLED = frozenset(
    {
        "BandwidthLimitExceeded",
        "EC2ThrottledException",
        "KMSThrottling",
        "PriorRequestNotComplete",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "SlowDown",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
        "TransactionInProgressException",
    }
)
PASSING = frozenset(
    {
        "BadDigest",
        "CapacityReservationPending",
        "ConcurrentModification",
        "ConditionalRequestConflict",
        "EntityTemporarilyUnmodifiable",
        "HealthUnavailable",
        "IDPCommunicationError",
        "IdempotentCallInProgress",
        "IncompleteBody",
        "InsufficientCapacity",
        "InsufficientInstanceCapacity",
        "InternalError",
        "InternalFailure",
        "InternalServerError",
        "InternalServerException",
        "OperationAborted",
        "PolicyEvaluation",
        "ReportInProgress",
        "RequestTimeout",
        "RequestTimeoutException",
        "ResourceContention",
        "ScalingActivityInProgress",
        "ServiceFailure",
        "ServiceUnavailable",
        "ServiceUnavailableException",
        "Unavailable",
        "XAmzContentSHA256Mismatch",
    }
)
"""Server-side trouble, something under way that ends by itself, or bytes that were altered on their way."""

FINAL_THOUGH_5XX = frozenset({"ServiceLinkedRoleFailure"})

_NOT_FOUND = re.compile(
    r"(?<!Api)NotFound(Exception)?$|\.NotFoundException$|^InvalidAMIID\.Unavailable$|^404$"
    r"|^NoSuch(Bucket|Entity|Key|Upload)(Exception)?$"
)
_QUOTA = re.compile(r"LimitExceeded|QuotaExceeded|^TooMany|AssociationLimit$|PendingSnapshotLimit")
_NAMED_NOT_FOUND = re.compile(r"\bnot found\b|\bdoes not exist\b", re.IGNORECASE)

_CREDENTIALS_HINT = (
    "give credentials as for the AWS CLI (AWS_PROFILE, `aws sso login`, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY); "
    'for the sandbox: eval "$(osvdeploy sandbox env)"'
)
_SANDBOX_HINT = (
    "AWS_ENDPOINT_URL names an address of this machine: if it is the sandbox's, `osvdeploy sandbox start` starts it "
    "again, and `osvdeploy sandbox env` tells where it is"
)
_ON_LOOPBACK = re.compile(r"https?://(127\.|localhost\b|\[::1\])")
_CREDENTIAL_FAULTS = (
    "CredentialRetrievalError",
    "LoginError",
    "MetadataRetrievalError",
    "NoAuthTokenError",
    "NoCredentialsError",
    "PartialCredentialsError",
    "ProfileNotFound",
    "RefreshWithMFAUnsupportedError",
    "SSOError",
    "TokenRetrievalError",
    "UnknownCredentialError",
)
_SETTING_FAULTS = (
    "BaseEndpointResolverError",
    "ConfigNotFound",
    "ConfigParseError",
    "EndpointProviderError",
    "InvalidConfigError",
    "InvalidDefaultsMode",
    "InvalidEndpointConfigurationError",
    "InvalidRegionError",
    "InvalidRetryConfigurationError",
    "InvalidProxiesConfigError",
    "InvalidSTSRegionalEndpointsConfigError",
    "UnknownRegionError",
)
_TRANSPORT_FAULTS = ("ChecksumError", "ConnectionError", "HTTPClientError", "IncompleteReadError")


def translate(error: Exception, what: str = "", operation: str = "") -> OsvDeployError:
    """Ours for one of botocore's; ``what`` names the thing the call was about, ``operation`` the call.

    An error that is ours already, or none of botocore's, comes back as it is where it can be raised, else wrapped.
    """
    from botocore import exceptions as sdk
    from botocore.parsers import ResponseParserError

    if isinstance(error, OsvDeployError):
        return error
    about = f"{what}: " if what else ""
    if isinstance(error, sdk.ClientError):
        return _refusal(error.response, about, error.operation_name)
    text = " ".join(str(error).split())
    called = f" while calling {operation}" if operation else ""
    if _is_one_of(error, _CREDENTIAL_FAULTS):
        return CredentialsMissing(f"no usable AWS credentials: {text}", operation=operation, hint=_CREDENTIALS_HINT)
    if isinstance(error, sdk.SSLError):
        # A certificate that is not trusted now will not be in a second either.
        return Refused(
            f"{about}TLS failed{called}: {text}", operation=operation, hint="set AWS_CA_BUNDLE if AWS is behind a proxy"
        )
    if isinstance(error, ResponseParserError) or _is_one_of(error, _TRANSPORT_FAULTS):
        return Unavailable(
            f"{about}no answer from AWS{called}: {text}",
            operation=operation,
            code=type(error).__name__,
            hint=f"{_SANDBOX_HINT if _ON_LOOPBACK.search(text) else 'check the network and AWS_ENDPOINT_URL'}; "
            "the same command goes on from here",
        )
    if isinstance(error, sdk.ParamValidationError):
        return Refused(f"{about}not sent, the SDK refuses it{called}: {text}", operation=operation)
    if _is_one_of(error, _SETTING_FAULTS) or isinstance(error, ValueError):
        return UsageError(
            f"the AWS SDK's settings do not work: {text}",
            hint="check the region, ~/.aws/config and the AWS_... variables",
        )
    return CloudError(f"{about}the AWS SDK failed{called}: {type(error).__name__}: {text}", operation=operation)


def _refusal(response: object, about: str, operation: str) -> OsvDeployError:
    answer = response if isinstance(response, dict) else {}
    error = answer.get("Error") or {}
    code, message = str(error.get("Code") or "Unknown"), str(error.get("Message") or "").strip()
    status = (answer.get("ResponseMetadata") or {}).get("HTTPStatusCode") or 0
    reason = str(answer.get("Reason") or "")
    said = (
        f"{message} ({code}{', ' + reason if reason else ''})" if message else f"{code}{' ' + reason if reason else ''}"
    )
    if code == "NotSimulated":
        return NotSimulated(f"{about}the sandbox does not simulate this: {said}", operation=operation, code=code)
    if code in CREDENTIALS and not message.startswith("Not authorized"):
        return CredentialsMissing(
            f"AWS does not accept the credentials: {said}", operation=operation, code=code, hint=_CREDENTIALS_HINT
        )
    if code in PERMISSION or code in CREDENTIALS:
        return Refused(
            f"{about}AWS refused {operation}: {said}",
            operation=operation,
            code=code,
            hint=f"allow the action {operation}",
        )
    if is_passing(code, status, reason, message):
        return Unavailable(
            f"{about}AWS could not do {operation} now: {said}",
            operation=operation,
            code=code,
            hint="the same command goes on from here",
        )
    if _NOT_FOUND.search(code) or (code == "ValidationError" and _NAMED_NOT_FOUND.search(message)):
        return NotFound(f"{about}{said}", operation=operation, code=code)
    hint = "raise the quota, or remove what is not needed (`osvdeploy gc`)" if _QUOTA.search(code) else None
    return Refused(f"{about}AWS refused {operation}: {said}", operation=operation, code=code, hint=hint)


def is_passing(code: str, status: int, reason: str = "", message: str = "") -> bool:
    """Whether the same call may be answered otherwise soon: throttled, timed out, or the server's own fault."""
    if code in THROTTLED or code in PASSING:
        return True
    # EBS direct says these with ValidationException, a final code otherwise: the block came too slowly, was cut off on
    # its way, or an earlier attempt of ours to put it is still under way.
    if reason in ("WRITE_REQUEST_TIMEOUT", "CONFLICTING_BLOCK_UPDATE") or "ailed to read block data" in message:
        return True
    return status >= 500 and code not in FINAL_THOUGH_5XX


def _is_one_of(error: Exception, names: tuple[str, ...]) -> bool:
    """By class name: newer botocores add classes, and this must import with those that lack one."""
    return any(cls.__name__ in names for cls in type(error).__mro__ if cls.__module__.startswith("botocore"))
