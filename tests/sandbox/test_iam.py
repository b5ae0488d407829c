"""IAM in the sandbox: roles and what is written into them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from osvdeploy.context import VirtualClock
from osvdeploy.sandbox.core import Sandbox
from osvdeploy.sandbox.inprocess import connect
from osvdeploy.sandbox.runners.inline import InlineRunner

TRUST = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole"}]}


@pytest.fixture
def iam() -> Any:
    return connect(Sandbox(runner=InlineRunner()), VirtualClock(), "eu-west-1").client("iam")


def test_a_role_is_known_whole(iam: Any) -> None:
    """As it was made, with the account's ARN; its policies by name; in every region."""
    made = iam.create_role(RoleName="vmimport", AssumeRolePolicyDocument=json.dumps(TRUST))["Role"]
    assert made["Arn"] == "arn:aws:iam::123456789012:role/vmimport"
    assert iam.get_role(RoleName="vmimport")["Role"]["AssumeRolePolicyDocument"] == TRUST
    trusted = {**TRUST, "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"AWS": "*"}}]}
    iam.update_assume_role_policy(RoleName="vmimport", PolicyDocument=json.dumps(trusted))
    assert iam.get_role(RoleName="vmimport")["Role"]["AssumeRolePolicyDocument"] == trusted
    iam.put_role_policy(RoleName="vmimport", PolicyName="disks", PolicyDocument=json.dumps(TRUST))
    assert iam.list_role_policies(RoleName="vmimport")["PolicyNames"] == ["disks"]
    assert iam.get_role_policy(RoleName="vmimport", PolicyName="disks")["PolicyDocument"] == TRUST
    with pytest.raises(ClientError, match="DeleteConflict"):
        iam.delete_role(RoleName="vmimport")
    iam.delete_role_policy(RoleName="vmimport", PolicyName="disks")
    iam.delete_role(RoleName="vmimport")
    with pytest.raises(ClientError, match="NoSuchEntity"):
        iam.get_role(RoleName="vmimport")


def test_what_iam_refuses(iam: Any) -> None:
    """The same name twice, a name out of its alphabet, a policy that is none, policies that are not there."""
    iam.create_role(RoleName="vmimport", AssumeRolePolicyDocument=json.dumps(TRUST))
    with pytest.raises(ClientError, match="EntityAlreadyExists"):
        iam.create_role(RoleName="vmimport", AssumeRolePolicyDocument=json.dumps(TRUST))
    with pytest.raises(ClientError, match="ValidationError"):
        iam.create_role(RoleName="vm import", AssumeRolePolicyDocument=json.dumps(TRUST))
    with pytest.raises(ClientError, match="MalformedPolicyDocument"):
        iam.create_role(RoleName="other", AssumeRolePolicyDocument="no policy")
    with pytest.raises(ClientError, match="MalformedPolicyDocument"):
        iam.update_assume_role_policy(RoleName="vmimport", PolicyDocument="[]")
    with pytest.raises(ClientError, match="NoSuchEntity"):
        iam.update_assume_role_policy(RoleName="other", PolicyDocument=json.dumps(TRUST))
    for ask in (iam.get_role_policy, iam.delete_role_policy):
        with pytest.raises(ClientError, match="NoSuchEntity"):
            ask(RoleName="vmimport", PolicyName="none")
    with pytest.raises(ClientError, match="NotSimulated"):
        iam.list_roles()
