"""Service Quotas: what an account may have, as far as plans ask for it.

Sources: Service Quotas API reference, GetServiceQuota (its answer and errors) and ServiceQuota; EC2 user guide, "Amazon
EC2 instance quotas" (on-demand instances are bounded by their vCPUs, by family). A new account may have 32 of the
standard families.

Not simulated: other quotas, usage metrics, requests for more. What is told here is not enforced: machines are started
beyond it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from osvdeploy.sandbox.errors import ApiError
from osvdeploy.sandbox.services.scope import Doc, Operation, Scope

STANDARD: Final = "L-1216C47A"
"""vCPUs of running on-demand instances of the standard families."""

DEFAULT: Final = 32.0


def get_service_quota(scope: Scope, params: Mapping[str, Any]) -> Doc:
    service, code = params["ServiceCode"], params["QuotaCode"]
    if (service, code) != ("ec2", STANDARD):
        raise ApiError("NoSuchResourceException", "The request failed because the specified service does not exist.")
    return {
        "Quota": {
            "ServiceCode": service,
            "ServiceName": "Amazon Elastic Compute Cloud (Amazon EC2)",
            "QuotaArn": f"arn:aws:servicequotas:{scope.region}:{scope.account}:{service}/{code}",
            "QuotaCode": code,
            "QuotaName": "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances",
            "Value": DEFAULT,
            "Unit": "None",
            "Adjustable": True,
            "GlobalQuota": False,
            "QuotaAppliedAtLevel": "ACCOUNT",
        }
    }


OPERATIONS: Mapping[str, Operation] = {"GetServiceQuota": get_service_quota}

PARAMETERS: Mapping[str, frozenset[str]] = {"GetServiceQuota": frozenset({"ServiceCode", "QuotaCode"})}
