"""IAM: roles and the policies written into them, for the services that take one on.

Sources: IAM API reference (CreateRole, GetRole, DeleteRole, UpdateAssumeRolePolicy, PutRolePolicy, GetRolePolicy,
ListRolePolicies, DeleteRolePolicy). Not simulated: users, groups, managed policies, and what a policy lets callers do:
whoever asks the sandbox may do everything. Document ``iam.role``, in no region: what answers show, ``policies``
({name: document}).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote

from osvdeploy.sandbox.errors import ApiError
from osvdeploy.sandbox.services.scope import Doc, Operation, Scope

Wire = Mapping[str, Any]

ROLE: Final = "iam.role"
_NAME = re.compile(r"[\w+=,.@-]{1,64}")


def create_role(scope: Scope, params: Wire) -> Doc:
    name, path = params["RoleName"], params.get("Path") or "/"
    if _NAME.fullmatch(name) is None:
        raise ApiError(
            "ValidationError",
            "The specified value for roleName is invalid. It must contain only alphanumeric characters and/or the "
            "following: +=,.@_-",
        )
    if scope.everywhere.get(ROLE, name) is not None:
        raise ApiError("EntityAlreadyExists", f"Role with name {name} already exists.", 409)
    role: Doc = {
        "Path": path,
        "RoleName": name,
        "RoleId": "AROA" + scope.new_id(17).upper(),
        "Arn": f"arn:aws:iam::{scope.account}:role{path}{name}",
        "CreateDate": scope.now.replace(microsecond=0).isoformat(),
        "AssumeRolePolicyDocument": _policy(params["AssumeRolePolicyDocument"]),
        "MaxSessionDuration": 3600,
        "policies": {},
    }
    if params.get("Description"):
        role["Description"] = params["Description"]
    scope.everywhere.put(ROLE, name, role)
    return {"Role": _shown(role)}


def get_role(scope: Scope, params: Wire) -> Doc:
    return {"Role": _shown(_role(scope, params))}


def delete_role(scope: Scope, params: Wire) -> Doc:
    role = _role(scope, params)
    if role["policies"]:
        raise ApiError("DeleteConflict", "Cannot delete entity, must delete policies first.", 409)
    scope.everywhere.delete(ROLE, role["RoleName"])
    return {}


def update_assume_role_policy(scope: Scope, params: Wire) -> Doc:
    role = _role(scope, params)
    role["AssumeRolePolicyDocument"] = _policy(params["PolicyDocument"])
    scope.everywhere.put(ROLE, role["RoleName"], role)
    return {}


def put_role_policy(scope: Scope, params: Wire) -> Doc:
    role = _role(scope, params)
    role["policies"][params["PolicyName"]] = _policy(params["PolicyDocument"])
    scope.everywhere.put(ROLE, role["RoleName"], role)
    return {}


def get_role_policy(scope: Scope, params: Wire) -> Doc:
    role, name = _role(scope, params), params["PolicyName"]
    if name not in role["policies"]:
        raise ApiError("NoSuchEntity", f"The role policy with name {name} cannot be found.", 404)
    return {"RoleName": role["RoleName"], "PolicyName": name, "PolicyDocument": quote(role["policies"][name])}


def list_role_policies(scope: Scope, params: Wire) -> Doc:
    return {"PolicyNames": sorted(_role(scope, params)["policies"]), "IsTruncated": False}


def delete_role_policy(scope: Scope, params: Wire) -> Doc:
    role, name = _role(scope, params), params["PolicyName"]
    if role["policies"].pop(name, None) is None:
        raise ApiError("NoSuchEntity", f"The role policy with name {name} cannot be found.", 404)
    scope.everywhere.put(ROLE, role["RoleName"], role)
    return {}


def _role(scope: Scope, params: Wire) -> Doc:
    role = scope.everywhere.get(ROLE, params["RoleName"])
    if role is None:
        raise ApiError("NoSuchEntity", f"The role with name {params['RoleName']} cannot be found.", 404)
    return role


def _policy(given: str) -> str:
    try:
        document = json.loads(given)
        if not isinstance(document, dict) or "Statement" not in document:
            raise ValueError(given)
    except ValueError:
        raise ApiError("MalformedPolicyDocument", "This policy contains invalid Json") from None
    return given


def _shown(role: Doc) -> Doc:
    shown = {name: value for name, value in role.items() if name[0].isupper()}
    shown["CreateDate"] = datetime.fromisoformat(role["CreateDate"])
    shown["AssumeRolePolicyDocument"] = quote(role["AssumeRolePolicyDocument"])
    return shown


OPERATIONS: Mapping[str, Operation] = {
    "CreateRole": create_role,
    "DeleteRole": delete_role,
    "DeleteRolePolicy": delete_role_policy,
    "GetRole": get_role,
    "GetRolePolicy": get_role_policy,
    "ListRolePolicies": list_role_policies,
    "PutRolePolicy": put_role_policy,
    "UpdateAssumeRolePolicy": update_assume_role_policy,
}

PARAMETERS: Mapping[str, frozenset[str]] = {
    "CreateRole": frozenset({"RoleName", "Path", "AssumeRolePolicyDocument", "Description"}),
    "DeleteRole": frozenset({"RoleName"}),
    "DeleteRolePolicy": frozenset({"RoleName", "PolicyName"}),
    "GetRole": frozenset({"RoleName"}),
    "GetRolePolicy": frozenset({"RoleName", "PolicyName"}),
    "ListRolePolicies": frozenset({"RoleName"}),
    "PutRolePolicy": frozenset({"RoleName", "PolicyName", "PolicyDocument"}),
    "UpdateAssumeRolePolicy": frozenset({"RoleName", "PolicyDocument"}),
}
