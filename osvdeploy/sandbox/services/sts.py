"""STS: who is asking. Whoever asks is one user of the one account. Source: AWS STS API reference, GetCallerIdentity."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from osvdeploy.sandbox.services.scope import Doc, Operation, Scope

USER: Final = "sandbox"
USER_ID: Final = "AIDASANDBOXSANDBOX000"
"""Of the form that IAM gives users: AIDA and 17 capital letters or digits."""


def get_caller_identity(scope: Scope, params: Mapping[str, Any]) -> Doc:
    return {"UserId": USER_ID, "Account": scope.account, "Arn": f"arn:aws:iam::{scope.account}:user/{USER}"}


OPERATIONS: Mapping[str, Operation] = {"GetCallerIdentity": get_caller_identity}

PARAMETERS: Mapping[str, frozenset[str]] = {"GetCallerIdentity": frozenset()}
