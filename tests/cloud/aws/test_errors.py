"""Every error botocore can raise, and every one AWS declares, becomes one of ours."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import botocore.exceptions
import botocore.loaders
import pytest
from botocore.exceptions import BotoCoreError, ClientError

from osvdeploy import errors
from osvdeploy.cloud.aws.errors import CREDENTIALS, PASSING, PERMISSION, THROTTLED, is_passing, translate
from osvdeploy.cloud.aws.session import mutating

SERVICES = ("autoscaling", "ebs", "ec2", "elbv2", "iam", "s3", "sts")

FINAL = """
    ALPNPolicyNotSupported AccountNotManagementOrDelegatedAdministratorException AlreadyExists AnnotationLimitExceeded
    AnnotationNameTooLong AvailabilityZoneNotSupported BucketAlreadyExists BucketAlreadyOwnedByYou
    CallerIsNotManagementAccountException CapacityDecreaseRequestLimitExceeded CapacityUnitsLimitExceeded
    ConcurrentLimitExceededException ConflictException DeleteAssociationSameAccount DeleteConflict
    DuplicateCertificate DuplicateListener DuplicateLoadBalancerName DuplicateSSHPublicKey DuplicateTagKeys
    DuplicateTargetGroupName DuplicateTrustStoreName EncryptionTypeMismatch EntityAlreadyExists
    ExpiredTradeInTokenException FeatureDisabled FeatureEnabled IDPRejectedClaim IdempotencyParameterMismatch
    IdempotentParameterMismatch IncompatibleProtocols InstanceRefreshInProgress InvalidAnnotationName
    InvalidAuthenticationCode InvalidAuthorizationMessageException InvalidCaCertificatesBundle InvalidCertificate
    InvalidConfigurationRequest InvalidIdentityToken InvalidInput InvalidLoadBalancerAction InvalidNextToken
    InvalidObjectState InvalidPrefix InvalidPublicKey InvalidRequest InvalidRevocationContent InvalidScheme
    InvalidSecurityGroup InvalidSubnet InvalidTarget InvalidUserType InvalidWriteOffset IrreversibleInstanceRefresh
    JWTPayloadSizeExceededException KeyPairMismatch LimitExceeded MalformedCertificate MalformedPolicyDocument
    NameConflict NoSuchAnnotation NotSupportedService ObjectAlreadyInActiveTierError ObjectNotInActiveTierError
    OpenIdIdpCommunicationError OrganizationNotInAllFeaturesModeException
    OutboundWebIdentityFederationDisabledException PackedPolicyTooLarge PasswordPolicyViolation PolicyNotAttachable
    PriorityInUse RegionDisabledException ReportExpired ReportGenerationLimitExceeded ReportNotPresent ResourceInUse
    RoleModified RoleTemplateDisabled ServiceAccessNotEnabledException ServiceLinkedRoleFailure
    ServiceQuotaExceededException SessionDurationEscalationException TargetGroupAssociationLimit TooManyActions
    TooManyCertificates TooManyListeners TooManyLoadBalancers TooManyParts TooManyRegistrationsForTargetId
    TooManyRules TooManyTags TooManyTargetGroups TooManyTargets TooManyTrustStoreRevocationEntries TooManyTrustStores
    TooManyUniqueTargetGroupsPerLoadBalancer TrustStoreInUse TrustStoreNotReady UnmodifiableEntity
    UnrecognizedPublicKeyEncoding UnsupportedMediaType UnsupportedProtocol ValidationException
"""
"""Declared codes that repeating does not help with."""

WRITES = """
    Abort Accept Acquire Add Advertise Allocate Apply Assign Associate Assume Attach Authorize Batch Bundle Cancel
    Change Complete Confirm Copy Create Deactivate Delete Deprovision Deregister Detach Disable Disassociate Enable
    Enter Execute Exit Export Generate Import Launch Lock Modify Monitor Move Provision Purchase Put Reboot Record
    Register Reject Release Remove Rename Replace Report Request Reset Restore Resume Resync Revoke Rollback Run Send
    Set Start Stop Suspend Tag Terminate Unassign Unlock Unmonitor Untag Update Upload Withdraw Write
"""
"""Verbs that begin the names of operations that change something."""


def declared() -> Iterator[tuple[str, int]]:
    loader = botocore.loaders.Loader()
    for service in SERVICES:
        shapes = loader.load_service_model(service, "service-2")["shapes"]
        for name, shape in shapes.items():
            if shape.get("exception"):
                error = shape.get("error", {})
                yield error.get("code", name), error.get("httpStatusCode", 400)


def refusal(code: str, message: str = "no", status: int = 400, **more: object) -> ClientError:
    response = {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"HTTPStatusCode": status},
        **more,
    }
    return ClientError(response, "Operation")  # type: ignore[arg-type]  # as damaged as the test wants it


def test_every_declared_code_is_judged() -> None:
    """A code that AWS adds to one of our services has to be put in a class by hand before this passes again."""
    codes = dict(declared())
    assert len(codes) > 60
    for code, status in codes.items():
        ours = translate(refusal(code, status=status))
        if isinstance(ours, errors.NotFound):
            assert "NotFound" in code or code.startswith("NoSuch")
        elif isinstance(ours, errors.Refused):
            assert code in FINAL.split() or code in PERMISSION, f"{code} is judged final by default alone"
        elif isinstance(ours, errors.Unavailable):
            assert code in THROTTLED or code in PASSING, f"{code} is judged passing by its status {status} alone"
        else:
            assert code in CREDENTIALS, f"{code} became {type(ours).__name__}"


def test_no_sdk_exception_is_forgotten() -> None:
    """Every exception class of botocore comes out as one of ours, with the SDK's own words in it."""
    for _, cls in inspect.getmembers(botocore.exceptions, inspect.isclass):
        if not issubclass(cls, BotoCoreError):
            continue
        error = cls.__new__(cls)
        Exception.__init__(error, "the words of the SDK")
        ours = translate(error, "image api-1.0.0", "DescribeImages")
        assert isinstance(ours, errors.OsvDeployError), cls
        assert "the words of the SDK" in str(ours), cls


@pytest.mark.parametrize(
    ("code", "message", "status", "expected"),
    [
        ("RequestLimitExceeded", "", 503, errors.Unavailable),
        ("Throttling", "Rate exceeded", 400, errors.Unavailable),
        ("RequestThrottledException", "", 400, errors.Unavailable),
        ("Whatever", "", 503, errors.Unavailable),
        ("InvalidAMIID.NotFound", "", 400, errors.NotFound),
        ("InvalidAMIID.Unavailable", "", 400, errors.NotFound),
        ("InvalidAMIID.Malformed", "", 400, errors.Refused),
        ("InvalidLaunchTemplateName.NotFoundException", "", 400, errors.NotFound),
        ("ResourceNotFoundException", "", 404, errors.NotFound),
        ("ValidationError", "AutoScalingGroup name not found - null", 400, errors.NotFound),
        ("ValidationError", "Max bound, 2, must be greater", 400, errors.Refused),
        ("InvalidAMIName.Duplicate", "", 400, errors.Refused),
        ("InvalidSnapshot.InUse", "", 400, errors.Refused),
        ("AccessDeniedException", "", 403, errors.Refused),
        ("UnauthorizedOperation", "", 403, errors.Refused),
        ("ConflictException", "", 409, errors.Refused),
        ("AuthFailure", "AWS was not able to validate the provided access credentials", 401, errors.CredentialsMissing),
        ("AuthFailure", "Not authorized for images: [ami-1]", 403, errors.Refused),
        ("ExpiredTokenException", "", 400, errors.CredentialsMissing),
        ("404", "Not Found", 404, errors.NotFound),
        ("403", "Forbidden", 403, errors.Refused),
        ("NoSuchKey", "", 404, errors.NotFound),
        ("NoSuchUpload", "", 404, errors.NotFound),
        ("PreconditionFailed", "", 412, errors.Refused),
        ("ConditionalRequestConflict", "", 409, errors.Unavailable),
        ("BadDigest", "", 400, errors.Unavailable),
        ("SlowDown", "", 503, errors.Unavailable),
        ("NotSimulated", "", 501, errors.NotSimulated),
    ],
)
def test_codes(code: str, message: str, status: int, expected: type[errors.CloudError]) -> None:
    """Each code seen in practice ends in the class that says what to do about it."""
    ours = translate(refusal(code, message, status), "image api-1.0.0")
    assert type(ours) is expected
    assert ours.code == code
    assert ours.operation == "Operation"
    assert code in str(ours)


def test_a_slow_block_is_repeated_and_a_wrong_one_is_not() -> None:
    """EBS direct says both with ValidationException; the reason decides."""
    assert is_passing("ValidationException", 400, "WRITE_REQUEST_TIMEOUT")
    slow = translate(refusal("ValidationException", Reason="WRITE_REQUEST_TIMEOUT"))
    wrong = translate(refusal("ValidationException", Reason="INVALID_BLOCK"))
    assert isinstance(slow, errors.Unavailable)
    assert isinstance(wrong, errors.Refused)
    assert "INVALID_BLOCK" in str(wrong)


def test_refusals_say_what_to_do() -> None:
    """A missing permission names the action to allow, a quota the way to room, credentials the ways to give them."""
    assert "Operation" in str(translate(refusal("UnauthorizedOperation")).hint)
    assert "gc" in str(translate(refusal("ServiceQuotaExceededException", status=402)).hint)
    missing = translate(botocore.exceptions.NoCredentialsError())
    assert isinstance(missing, errors.CredentialsMissing)
    assert "AWS_PROFILE" in str(missing.hint)


def test_an_error_of_ours_passes_through() -> None:
    """What is ours already is not wrapped again."""
    ours = errors.UploadGone("gone")
    assert translate(ours) is ours


def test_every_operation_is_mutating_or_not() -> None:
    """An operation with a verb that nobody has judged fails here until somebody does."""
    loader = botocore.loaders.Loader()
    for service in SERVICES:
        for operation in loader.load_service_model(service, "service-2")["operations"]:
            assert mutating(operation) == operation.startswith(tuple(WRITES.split())), operation
