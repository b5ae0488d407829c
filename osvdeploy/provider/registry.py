"""All resources and functions of the provider, by an explicit list."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from osvdeploy.provider.base import Function, Resource
from osvdeploy.provider.resources.ami import Ami
from osvdeploy.provider.resources.deployments import AwsDeployment, GcpDeployment
from osvdeploy.provider.resources.gcp_image import GcpImage
from osvdeploy.provider.resources.image import GetImage, Image
from osvdeploy.provider.resources.services import GetDeployment, GetRelease

RESOURCES: Final[Mapping[str, Resource[Any, Any]]] = {
    each.TOKEN: each
    for each in (
        Image(),
        Ami(),
        GcpImage(),
        AwsDeployment(),
        GcpDeployment(),
    )
}  # fmt: skip

FUNCTIONS: Final[Mapping[str, Function[Any, Any]]] = {
    each.TOKEN: each
    for each in (
        GetImage(),
        GetDeployment(),
        GetRelease(),
    )
}  # fmt: skip
