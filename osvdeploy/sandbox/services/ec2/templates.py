"""Launch templates and their versions.

Sources: EC2 API reference (CreateLaunchTemplate, CreateLaunchTemplateVersion, DescribeLaunchTemplateVersions), error
codes. As on AWS a template may name an image or a type that does not exist; starting from it is what fails.
"""

from __future__ import annotations

import re

from osvdeploy.sandbox.errors import ApiError, NotSimulated
from osvdeploy.sandbox.services.ec2.resources import (
    IMAGE,
    SECURITY_GROUP,
    TEMPLATE,
    Query,
    Wire,
    chosen,
    invalid,
    missing,
    only,
    remember,
    repeated,
    required,
    shown,
    specified_tags,
)
from osvdeploy.sandbox.services.scope import Doc, Scope

DATA = "ImageId InstanceType SecurityGroupIds InstanceInitiatedShutdownBehavior MetadataOptions TagSpecifications"
"""What of a template's data is simulated."""

_NAME = re.compile(r"[A-Za-z0-9()./_-]{3,128}")


def create_launch_template(scope: Scope, params: Wire) -> Doc:
    if (earlier := repeated(scope, "CreateLaunchTemplate", params)) is not None:
        return {"LaunchTemplate": shown(earlier)}
    name = required(params, "LaunchTemplateName")
    if _NAME.fullmatch(name) is None:
        raise ApiError(
            "InvalidLaunchTemplateName.MalformedException",
            "A launch template name must be between 3 and 128 characters, and may contain letters, numbers, and the "
            "following characters: - ( ) . / _.",
        )
    data = _checked(required(params, "LaunchTemplateData"))
    tags = specified_tags(params.get("TagSpecifications"), "launch-template")["launch-template"]
    if _named(scope, name) is not None:
        raise ApiError("InvalidLaunchTemplateName.AlreadyExistsException", "Launch template name already in use.")
    template: Doc = {
        "LaunchTemplateId": TEMPLATE.new_id(scope),
        "LaunchTemplateName": name,
        "CreateTime": scope.now.isoformat(timespec="seconds"),
        "CreatedBy": _caller(scope),
        "DefaultVersionNumber": 1,
        "LatestVersionNumber": 1,
        "versions": [_version(scope, 1, data, params)],
        "tags": tags,
    }
    TEMPLATE.keep(scope, template)
    remember(scope, "CreateLaunchTemplate", params, template)
    return {"LaunchTemplate": shown(template)}


def _caller(scope: Scope) -> str:
    return f"arn:aws:iam::{scope.account}:user/sandbox"


def _checked(data: Wire) -> Doc:
    only(data, DATA, "LaunchTemplateData")
    if data.get("ImageId"):
        IMAGE.check(data["ImageId"])
    for group in data.get("SecurityGroupIds") or []:
        SECURITY_GROUP.check(group)
    specified_tags(data.get("TagSpecifications"), "instance", "volume", "network-interface")
    return dict(data)


def _version(scope: Scope, number: int, data: Doc, params: Wire) -> Doc:
    described = {"VersionDescription": params["VersionDescription"]} if params.get("VersionDescription") else {}
    return {
        "VersionNumber": number,
        "CreateTime": scope.now.isoformat(timespec="seconds"),
        "CreatedBy": _caller(scope),
        "LaunchTemplateData": data,
        **described,
    }


def create_launch_template_version(scope: Scope, params: Wire) -> Doc:
    template = find(scope, params.get("LaunchTemplateId"), params.get("LaunchTemplateName"))
    if (earlier := repeated(scope, "CreateLaunchTemplateVersion", params)) is not None:
        return {"LaunchTemplateVersion": _shown_version(template, earlier)}
    data = _checked(required(params, "LaunchTemplateData"))
    if params.get("SourceVersion"):
        data = {**version_of(template, params["SourceVersion"])["LaunchTemplateData"], **data}
    number = template["LatestVersionNumber"] + 1
    version = _version(scope, number, data, params)
    template["versions"].append(version)
    template["LatestVersionNumber"] = number
    TEMPLATE.keep(scope, template)
    remember(scope, "CreateLaunchTemplateVersion", params, version)
    return {"LaunchTemplateVersion": _shown_version(template, version)}


def _shown_version(template: Doc, version: Doc) -> Doc:
    return {
        "LaunchTemplateId": template["LaunchTemplateId"],
        "LaunchTemplateName": template["LaunchTemplateName"],
        "DefaultVersion": version["VersionNumber"] == template["DefaultVersionNumber"],
        **shown(version),
    }


def _named(scope: Scope, name: str) -> Doc | None:
    for template in scope.all(TEMPLATE.name):
        if template["LaunchTemplateName"] == name:
            return template
    return None


def find(scope: Scope, template_id: str | None, name: str | None) -> Doc:
    """By id or by name, one of them. Raises ApiError as RunInstances does."""
    if bool(template_id) == bool(name):
        raise ApiError(
            "MissingParameter" if not template_id else "InvalidParameterCombination",
            "Either a launch template ID or a launch template name must be specified, not both.",
        )
    if template_id:
        return TEMPLATE.find(scope, template_id)
    template = _named(scope, name or "")
    if template is None:
        raise ApiError(
            "InvalidLaunchTemplateName.NotFoundException",
            "At least one of the launch templates specified in the request does not exist.",
        )
    return template


def version_of(template: Doc, wanted: str) -> Doc:
    """A version by number, or by $Latest and $Default. Raises ApiError for one that does not exist."""
    named = {"$Latest": template["LatestVersionNumber"], "$Default": template["DefaultVersionNumber"]}
    number = named.get(wanted, wanted)
    for version in template["versions"]:
        if str(version["VersionNumber"]) == str(number):
            found: Doc = version
            return found
    raise ApiError(
        "InvalidLaunchTemplateId.VersionNotFound",
        f"Could not find the specified version {wanted} for the launch template with ID "
        f"{template['LaunchTemplateId']}.",
    )


_DESCRIBE = Query(
    "DescribeLaunchTemplates",
    {"create-time": "CreateTime", "launch-template-name": "LaunchTemplateName"},
    "LaunchTemplateId",
    (1, 200),
)


def describe_launch_templates(scope: Scope, params: Wire) -> Doc:
    names = params.get("LaunchTemplateNames") or []
    if names and params.get("LaunchTemplateIds"):
        raise ApiError(
            "InvalidParameterCombination", "Launch template IDs and launch template names cannot be specified together"
        )
    if names:
        found = [find(scope, None, name) for name in dict.fromkeys(names)]
    else:
        found = chosen(scope, TEMPLATE, params.get("LaunchTemplateIds"))
    selected = _DESCRIBE.select(params, [shown(template) for template in found])
    return _DESCRIBE.page(params, "LaunchTemplates", selected)


_DESCRIBE_VERSIONS = Query(
    "DescribeLaunchTemplateVersions",
    {
        "create-time": "CreateTime",
        "image-id": "LaunchTemplateData.ImageId",
        "instance-type": "LaunchTemplateData.InstanceType",
        "is-default-version": "DefaultVersion",
    },
    "key",
    (1, 200),
    tagged=False,
)


def describe_launch_template_versions(scope: Scope, params: Wire) -> Doc:
    """Newest first, as AWS gives them."""
    wanted = list(params.get("Versions") or [])
    if params.get("LaunchTemplateId") or params.get("LaunchTemplateName"):
        templates = [find(scope, params.get("LaunchTemplateId"), params.get("LaunchTemplateName"))]
    elif wanted and set(wanted) <= {"$Latest", "$Default"}:
        templates = list(scope.all(TEMPLATE.name))
    else:
        raise missing("LaunchTemplateId or LaunchTemplateName")
    low, high = _bound(params, "MinVersion"), _bound(params, "MaxVersion")
    if wanted and (low is not None or high is not None):
        raise ApiError("InvalidParameterCombination", "Versions cannot be specified with MinVersion or MaxVersion")
    found: list[Doc] = []
    for template in templates:
        versions = [version_of(template, version) for version in wanted] or template["versions"]
        shown_ones = {version["VersionNumber"]: _shown_version(template, version) for version in versions}
        found += [
            {**shown_ones[number], "key": f"{template['LaunchTemplateId']} {number}"}
            for number in sorted(shown_ones, reverse=True)
            if (low is None or number >= low) and (high is None or number <= high)
        ]
    answer = _DESCRIBE_VERSIONS.page(params, "LaunchTemplateVersions", _DESCRIBE_VERSIONS.select(params, found))
    for version in answer["LaunchTemplateVersions"]:
        del version["key"]
    return answer


def _bound(params: Wire, name: str) -> int | None:
    given = params.get(name)
    if given is None:
        return None
    if not given.isdigit():
        raise NotSimulated(f"{name} {given}") if given.startswith("$") else invalid(f"Invalid {name}: {given}")
    return int(given)


def delete_launch_template(scope: Scope, params: Wire) -> Doc:
    """With all its versions. Instances started from it run on."""
    template = find(scope, params.get("LaunchTemplateId"), params.get("LaunchTemplateName"))
    TEMPLATE.drop(scope, template)
    return {"LaunchTemplate": shown(template)}
