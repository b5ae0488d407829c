"""`getDeployment` and `getRelease`: what a ledger tells of services, whoever deployed them."""

from __future__ import annotations

from dataclasses import KW_ONLY, fields
from typing import TYPE_CHECKING

from osvdeploy.errors import UsageError
from osvdeploy.provider.base import Call, Function
from osvdeploy.provider.declare import declared, prop
from osvdeploy.provider.deployments import DeploymentOutputs, ledger_of, outputs_of, service_of

if TYPE_CHECKING:
    from osvdeploy.api import Standing


@declared
class GetDeploymentInputs:
    """Which service."""

    service: str = prop("The service: APP/ENVIRONMENT.")
    ledger: str | None = prop("Where it is written down; left out, the provider's.", default=None)


@declared
class GetDeploymentOutputs(DeploymentOutputs):
    """What is told of it."""

    _: KW_ONLY

    cloud: str = prop("The cloud that it is on: `aws` or `gcp`.")
    account: str = prop("The account or project.")
    region: str = prop("The region or zone.")
    capacity: int = prop("How many machines the release that serves has.")


class GetDeployment(Function[GetDeploymentInputs, GetDeploymentOutputs]):
    """A service that was deployed, by Pulumi or by the command line: what serves, what is held, what ran before."""

    TOKEN = "osvdeploy:index:getDeployment"
    INPUTS = GetDeploymentInputs
    OUTPUTS = GetDeploymentOutputs

    def invoke(self, call: Call, asked: GetDeploymentInputs) -> GetDeploymentOutputs:
        standing = _required(call, asked.service, asked.ledger)
        told = outputs_of(standing)
        place = standing.place
        return GetDeploymentOutputs(
            **{each.name: getattr(told, each.name) for each in fields(told)},
            cloud=place.cloud,
            account=place.account,
            region=place.region,
            capacity=standing.capacity,
        )


@declared
class GetReleaseInputs:
    """Which release."""

    service: str = prop("The service: APP/ENVIRONMENT.")
    release: str | None = prop("The release's id, or a version; left out, the release that serves.", default=None)
    ledger: str | None = prop("Where it is written down; left out, the provider's.", default=None)


@declared
class GetReleaseOutputs:
    """What is known of it."""

    id: str = prop("The release's id, which the program gets as OSVDEPLOY_RELEASE.")
    app: str = prop("The app.")
    version: str = prop("The app's version.")
    image_digest: str = prop("The digest of the app's image.")
    configuration_digest: str = prop("The digest of the environment's own variables.")
    digest: str = prop("The digest over both.")
    created: str = prop("When it was made.")
    by: str = prop("Who deployed it.")
    serving: bool = prop("Whether it serves.")
    image: str | None = prop("Its image in the cloud, where that is still there.", default=None)
    hold: str | None = prop("Why it is held, where it is.", default=None)


class GetRelease(Function[GetReleaseInputs, GetReleaseOutputs]):
    """A release of a service that was deployed: which image and configuration it is."""

    TOKEN = "osvdeploy:index:getRelease"
    INPUTS = GetReleaseInputs
    OUTPUTS = GetReleaseOutputs

    def invoke(self, call: Call, asked: GetReleaseInputs) -> GetReleaseOutputs:
        from osvdeploy import api

        standing = _required(call, asked.service, asked.ledger)
        release = standing.release
        if asked.release is not None:
            release = api.find_release(call.ctx, api.open_ledger(standing.service), asked.release)
        if release is None:
            raise UsageError(f"{asked.service}: nothing serves", hint="name a release or a version")
        holds = standing.head.holds
        return GetReleaseOutputs(
            id=release.id,
            app=release.app,
            version=release.version,
            image=standing.images.get(release.id),
            image_digest=release.image,
            configuration_digest=release.configuration,
            digest=release.digest,
            created=release.created.isoformat(),
            by=release.by,
            serving=standing.release is not None and standing.release.id == release.id,
            hold=next((each.why for each in holds if each.release in (None, release.id)), None),
        )


def _required(call: Call, name: str, ledger: str | None) -> Standing:
    from osvdeploy import api

    service = service_of(name, ledger_of(ledger, call.settings.ledger))
    standing = api.standing(call.ctx, service)
    if standing is None:
        raise UsageError(
            f"{service.name}: is not deployed, as far as the ledger {service.ledger} knows",
            hint="give the ledger that it was deployed with",
        )
    return standing
