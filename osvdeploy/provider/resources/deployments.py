"""`osvdeploy:aws:BlueGreenDeployment` and `osvdeploy:gcp:BlueGreenDeployment`.

A deployment is a service of the ledger, the same that the command line knows. What serves is read from ledger and cloud
before each change, and told in the outputs; what a program asks for stays as it is recorded. So a rollback from the
command line shows as what it is, and its hold keeps the next `up` from rolling the same image out again.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, replace
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NoReturn, TypeGuard

from osvdeploy.context import CancelToken, Context
from osvdeploy.errors import (
    CloudError,
    LeaseHeld,
    LeaseLost,
    OsvDeployError,
    RollbackFailed,
    RolledBack,
    RolloutFailed,
    RolloutWaiting,
    UsageError,
)
from osvdeploy.events import silent
from osvdeploy.provider.base import (
    Call,
    Checked,
    Created,
    Operation,
    Resource,
    Seen,
    State,
    Unfinished,
    Verdict,
    all_unknown,
)
from osvdeploy.provider.declare import camel, declared, prop
from osvdeploy.provider.deployments import (
    DeploymentInputs,
    DeploymentOutputs,
    DeploymentRoute,
    DeploymentStatus,
    I,
    at_work,
    common_inputs,
    evidence_of,
    frozen,
    held,
    id_of,
    ledger_in,
    ledger_of,
    left_out,
    outputs_of,
    problems_of,
    service_of,
    spelled_out,
    told_plan,
)
from osvdeploy.provider.diffing import Change, changes
from osvdeploy.provider.parsing import Failure
from osvdeploy.provider.spelling import Spelling
from osvdeploy.provider.values import UNKNOWN, is_known

if TYPE_CHECKING:
    from osvdeploy.api import RolledOut, Service, Standing
    from osvdeploy.cloud.interfaces import Ground
    from osvdeploy.rollout.releases import Release, Settings

LAST_LOOK = 2.0
"""Seconds for asking the cloud what stands once a rollout was interrupted, and as many then for the ledger alone: the
engine waits for that."""

STAND_INS: Mapping[str, object] = {
    "route": {"path": "/*", "priority": 3},
    "port": 80,
    "ledger": "ledger",
}


class _Deployment(Resource[I, DeploymentOutputs], Generic[I]):
    """What both clouds' deployments do."""

    OUTPUTS = DeploymentOutputs
    REFRESH_BEFORE_UPDATE = True
    # A rollout's own stages have their limits, and baking takes as long as the program says.
    TIMEOUTS: ClassVar[Mapping[Operation, float]] = {Operation.READ: 300.0, Operation.DELETE: 3600.0}

    CLOUD: ClassVar[str]
    BOOT_TIMEOUT: ClassVar[str]
    SPELLING: ClassVar[Spelling]
    MACHINES: ClassVar[Mapping[str, str]]
    """The inputs that machines are made from, so that a release which serves cannot change them, by the names that the
    settings have for them."""

    # -------------------------------------------------------------------------------------------------- each cloud's

    @abstractmethod
    def completed(self, call: Call, wanted: I) -> tuple[I, list[Failure]]:
        """The inputs with what the provider's configuration fills in, in the form that they are compared in."""

    @abstractmethod
    def project(self, wanted: I) -> str:
        """The project on Google."""

    def settings(self, wanted: I) -> Settings:
        """What a rollout is given."""
        return self.SPELLING.settings(wanted, self.project(wanted))

    @abstractmethod
    def seen_as(self, settings: Settings, account: str) -> I:
        """The inputs that settings were made from; without image and ledger."""

    # ----------------------------------------------------------------------------------------------------- the resource

    def check(self, call: Call, wanted: I, before: I | None) -> Checked[I]:
        wanted, failures = self.completed(call, wanted)
        ledger = wanted.ledger
        if ledger is not UNKNOWN:
            ledger = ledger_of(ledger, call.settings.ledger)
        if ledger is None:
            reason = "is needed: here, in the provider's configuration, or as OSVDEPLOY_LEDGER"
            failures = [*failures, Failure("ledger", reason)]
            return Checked(wanted, [*failures, *self.SPELLING.judged(replace(wanted, ledger=UNKNOWN))])
        wanted = replace(wanted, ledger=ledger)
        if is_known(wanted.image) and not wanted.image:
            failures.append(Failure("image", "is empty"))
        return Checked(wanted, [*failures, *self.SPELLING.judged(wanted)])

    def judge(self, before: State[I, DeploymentOutputs], wanted: I, changes_: Sequence[Change]) -> Verdict:
        found = changes(spelled_out(before.actual, self.BOOT_TIMEOUT), spelled_out(wanted, self.BOOT_TIMEOUT))
        warnings = []
        forced = wanted.force_rollout is not None and any(each.property == "forceRollout" for each in found)
        if any(each.property == "image" for each in found) and is_known(wanted.image) and not forced:
            refusal = _refusal(before, wanted)
            if refusal is not None:
                found = tuple(each for each in found if each.property != "image")
                warnings.append(refusal)
        if fixed := list(dict.fromkeys(each.path for each in found if each.replaces)):
            warnings.append(
                f"another {', '.join(fixed)} takes the service away and makes it anew: nothing serves in between"
            )
        return Verdict(found, delete_before_replace=True, warnings=warnings)

    def preview(self, call: Call, wanted: I, before: State[I, DeploymentOutputs] | None) -> DeploymentOutputs:
        unknown = all_unknown(DeploymentOutputs) if before is None else _kept(before.outputs)
        if not is_known(wanted):
            call.info("what is rolled out is not known yet")
            return unknown
        from osvdeploy.api.wiring import notifier
        from osvdeploy.rollout.courier import warn_of_unready
        from osvdeploy.rollout.refusals import refuse_held, refuse_waiting

        quiet = call.ctx.reporting_to(silent)
        release, settings, ground = self._release(quiet, wanted)
        standing = self._standing(quiet, release.service, wanted, ground)
        if before is not None:
            self._require_same_service(before, release)
        elif standing is not None and standing.head.stable is not None:
            call.info(f"{release.service} is in service already, and this goes on with it")
        forced = self._forces(before, wanted)
        if before is not None and standing is not None and _refusal(before, wanted) is not None and not forced:
            release, settings, image = self._of_what_serves(before, wanted, standing, release, settings)
        else:
            image = wanted.image
            self._require_same_machines(standing, release, settings)
        if standing is not None:
            refuse_waiting(standing.head, release, call.ctx.now())
            refuse_held(standing.head, release.id, forced=forced)
            if missed := left_out(standing, settings):
                call.warn(missed)
        if unready := _unready(quiet, settings):
            call.warn(unready)
        warn_of_unready(call.ctx, notifier(ground), settings.notify)
        call.info(told_plan(standing, release.id, settings, call.ctx.now()))
        return _foreseen(unknown, standing, release, image)

    def create(self, call: Call, wanted: I) -> Created[DeploymentOutputs]:
        release, settings, ground = self._release(call.ctx, wanted)
        service = self._service(release.service, wanted)
        forced = self._forces(None, wanted)
        outputs = self._brought(call, wanted, service, settings, wanted.image, ground, forced=forced)
        return Created(self._id(service, wanted), outputs)

    def read(
        self, call: Call, id: str, before: State[I, DeploymentOutputs] | None
    ) -> Seen[I, DeploymentOutputs] | None:
        from osvdeploy import api

        given = before.inputs.ledger if before is not None and is_known(before.inputs.ledger) else None
        ledger = ledger_in(id) or ledger_of(given, call.settings.ledger)
        standing = api.standing(call.ctx, service_of(id, ledger), known=before is not None)
        if standing is None:
            return None
        if standing.place.cloud != self.CLOUD:
            raise UsageError(
                f"{id} is a service on {standing.place.cloud}",
                hint=f"import it as osvdeploy:{standing.place.cloud}:BlueGreenDeployment",
            )
        outputs = outputs_of(standing)
        if before is None:
            actual = self._imported(standing, ledger)
        else:
            # What a program asked for stays what it asked for, but for what the cloud shows of it.
            image = outputs.active_image or ""
            if not image and before.outputs.active_release == outputs.active_release:
                image = before.outputs.active_image or ""
            actual = replace(before.inputs, image=image)
            if standing.head.stable is not None and not standing.scales and not at_work(standing.head, call.ctx.now()):
                actual = replace(actual, capacity=standing.capacity)
        return Seen(outputs, actual, problems_of(standing, call.ctx.now()))

    def update(self, call: Call, before: State[I, DeploymentOutputs], wanted: I) -> DeploymentOutputs:
        from osvdeploy import api

        release, settings, ground = self._release(call.ctx, wanted)
        self._require_same_service(before, release)
        service = self._service(release.service, wanted)
        standing = self._standing(call.ctx, release.service, wanted, ground)
        image, forced = wanted.image, self._forces(before, wanted)
        if standing is not None and not forced and any(hold.release == release.id for hold in standing.head.holds):
            release, settings, image = self._of_what_serves(before, wanted, standing, release, settings)
        else:
            self._require_same_machines(standing, release, settings)
        if standing is not None and standing.astray and not at_work(standing.head, call.ctx.now()):
            api.realign(call.ctx, service, ground=ground)
        return self._brought(call, wanted, service, settings, image, ground, forced=forced)

    def delete(self, call: Call, before: State[I, DeploymentOutputs]) -> None:
        from osvdeploy import api

        given = before.inputs.ledger if is_known(before.inputs.ledger) else None
        service = service_of(before.id, ledger_of(given, call.settings.ledger))
        head = api.open_ledger(service).head(call.ctx)
        if head is None or head.place is None:
            # But for a ledger that is away: what it tells of serves.
            api.standing(call.ctx, service, look=False, known=True)
            return
        if not head.destroyed:
            api.destroy(call.ctx, service)
        try:
            for kept in api.sweep_retired(call.ctx, service).kept:
                call.info(f"{kept.image.name} stays, though no program has it any more: {kept.why}")
        except (CloudError, LeaseHeld) as error:
            # The service is gone, and what is left is only kept for nothing.
            call.warn(f"{service.name}: images that no program has any more could not be removed: {error}")

    # ---------------------------------------------------------------------------------------------------------- details

    def _release(self, ctx: Context, wanted: I) -> tuple[Release, Settings, Ground]:
        """The release that the image is, what it is to be deployed with, and where."""
        from osvdeploy import api

        settings = self.settings(wanted)
        ground = api.ground(ctx, settings.cloud, self.project(wanted), settings.region)
        return api.release_in(ctx, ground, settings, wanted.image), settings, ground

    def _service(self, name: str, wanted: I) -> Service:
        return service_of(name, wanted.ledger)

    def _id(self, service: Service, wanted: I) -> str:
        return id_of(service.name, wanted.ledger or service.ledger)

    def _standing(self, ctx: Context, name: str, wanted: I, ground: Ground) -> Standing | None:
        from osvdeploy import api

        return api.standing(ctx, self._service(name, wanted), ground=ground)

    @staticmethod
    def _forces(before: State[I, DeploymentOutputs] | None, wanted: I) -> bool:
        given = None if before is None else before.inputs.force_rollout
        return wanted.force_rollout is not None and wanted.force_rollout != given

    @staticmethod
    def _require_same_service(before: State[I, DeploymentOutputs], release: Release) -> None:
        name = before.id.partition("@")[0]
        if release.service != name:
            raise UsageError(
                f"the image is one of {release.app}, but this deployment is {name}",
                hint="a deployment is of one app: give another one to a deployment of its own",
            )

    def _require_same_machines(self, standing: Standing | None, release: Release, settings: Settings) -> None:
        """Raise UsageError, as the rollout would, where a release that serves were to have other machines."""
        if standing is None or standing.release is None or standing.release.id != release.id:
            return
        own = standing.release.settings
        self._refuse_other_machines(
            release, [name for name, told in self.MACHINES.items() if getattr(own, told) != getattr(settings, told)]
        )

    @staticmethod
    def _refuse_other_machines(release: Release, changed: Sequence[str]) -> None:
        if changed:
            raise UsageError(
                f"{release.id} serves already, on machines with another {' and '.join(map(camel, changed))}",
                hint="machines are replaced by a new release: publish the app under another version, and give its "
                "image",
            )

    def _of_what_serves(
        self,
        before: State[I, DeploymentOutputs],
        wanted: I,
        standing: Standing,
        release: Release,
        settings: Settings,
    ) -> tuple[Release, Settings, str]:
        """Where a hold refuses the image, it stays so: what else was changed is for the release that serves, on the
        machines that it has. The release, what it is deployed with, and its image."""
        serving = standing.release
        if serving is None or serving.id == release.id or serving.id not in standing.images:
            return release, settings, wanted.image
        self._refuse_other_machines(
            serving, [name for name in self.MACHINES if getattr(before.inputs, name) != getattr(wanted, name)]
        )
        own = {told: getattr(serving.settings, told) for told in self.MACHINES.values()}
        return serving, replace(settings, **own), standing.images[serving.id]

    def _imported(self, standing: Standing, ledger: str | None) -> I:
        """The inputs that a service was deployed with."""
        head = standing.head
        settings = standing.release.settings if standing.release is not None else head.run and head.run.settings
        if not settings:
            raise UsageError(f"{head.service}: its ledger does not tell what was deployed", hint="deploy it first")
        release = standing.release.id if standing.release is not None else head.run and head.run.candidate
        image = standing.images.get(release) if release else None
        seen = replace(self.seen_as(settings, standing.place.account), image=image or "", ledger=ledger)
        return replace(seen, capacity=standing.capacity) if standing.capacity else seen

    def _brought(
        self,
        call: Call,
        wanted: I,
        service: Service,
        settings: Settings,
        image: str,
        ground: Ground,
        *,
        forced: bool,
    ) -> DeploymentOutputs:
        """Roll the image out. Raises what went wrong, Unfinished where something is left to be gone on with."""
        from osvdeploy import api

        standing: Standing | None = None
        # A release begins with as many machines as the one before had, if those were more: so it may take two.
        for _ in range(2):
            try:
                rolled = api.roll_out(
                    call.ctx,
                    settings,
                    image,
                    account=self.project(wanted),
                    forced=forced,
                    ground=ground,
                    # Of the number of machines a preview has told.
                    exactly=True,
                )
            except (LeaseHeld, LeaseLost):
                raise
            except OsvDeployError as error:
                self._tell_unfinished(call, wanted, service, error, ground)
            if rolled.rollout.exit_code:
                self._tell_failed(call, wanted, service, rolled, ground)
            standing = api.standing(call.ctx, service, ground=ground)
            if standing is None or standing.scales or standing.capacity == settings.capacity:
                break
        if standing is None:
            raise RolloutFailed(f"{service.name}: was destroyed by somebody meanwhile", hint="run `pulumi up` again")
        return outputs_of(standing)

    def _tell_unfinished(
        self, call: Call, wanted: I, service: Service, error: OsvDeployError, ground: Ground
    ) -> NoReturn:
        """Raise Unfinished where the error left a rollout behind, else the error."""
        standing = _last_look(call, service, ground)
        if standing is None or standing.head.unfinished is None or not (left := problems_of(standing, call.ctx.now())):
            raise error
        reasons = [f"{error.message}: {left[0]}"]
        raise Unfinished(reasons, outputs_of(standing), id=self._id(service, wanted), cause=error) from None

    def _tell_failed(self, call: Call, wanted: I, service: Service, rolled: RolledOut, ground: Ground) -> NoReturn:
        """Raise what became of a rollout that did not succeed."""
        from osvdeploy.rollout.model import Outcome

        rollout = rolled.rollout
        evidence = list(evidence_of(rollout.run)) if rollout.run is not None else []
        told = "\n".join([rollout.told, *evidence])
        standing = _last_look(call, service, ground)
        problems = problems_of(standing, call.ctx.now()) if standing is not None else ()
        waits = rollout.outcome is Outcome.WAITING
        if standing is not None and rollout.run is not None and rollout.run.stable_gone:
            # What failed is what serves: the state of before is no more.
            cause = RollbackFailed(
                told, hint="give an image that is well; `osvdeploy rollback` starts what served before"
            )
            raise Unfinished([told, *problems], outputs_of(standing), id=self._id(service, wanted), cause=cause)
        if standing is None or not problems:
            if waits:
                raise RolloutWaiting(told, hint="somebody has gone on with it since: run `pulumi up` again")
            raise RolledBack(told, hint="the state is as it was; give an image that is well")
        error: OsvDeployError
        if waits:
            error = RolloutWaiting(told)
        else:
            error = RolloutFailed(told) if standing.head.stable is None else RollbackFailed(told)
        # That it waits is said by the problem too, with the ways on.
        reasons = ["\n".join([*problems, *evidence])] if waits else [told, *problems]
        raise Unfinished(reasons, outputs_of(standing), id=self._id(service, wanted), cause=error)


def _unready(ctx: Context, settings: Settings) -> str | None:
    """Why an `up` on this machine would be refused for a hook or a gate; it may well be another machine's."""
    from osvdeploy.api.wiring import hooks
    from osvdeploy.cloud.local.metrics import MetricSources
    from osvdeploy.rollout.refusals import refuse_unready

    try:
        refuse_unready(ctx, hooks(), MetricSources(), settings)
    except UsageError as error:
        return f"{error.message}; an `up` from here would be refused"
    return None


def _refusal(before: State[Any, DeploymentOutputs], wanted: DeploymentInputs) -> str | None:
    """Why an image is not rolled out by itself, with the ways out; None where nothing keeps it."""
    outputs = before.outputs
    if not is_known(outputs.holds):
        return None
    hold = held(outputs.holds, wanted.image)
    if hold is None and wanted.image == before.inputs.image:
        # Of a program that did not ask for another image: all stays as it is. One that did is refused.
        hold = frozen(outputs.holds)
    if hold is None:
        return None
    serving = f"{outputs.active_release} goes on serving" if is_known(outputs.active_release) else "nothing changes"
    name, _, ledger = before.id.partition("@")
    which = f" --release {hold.release}" if hold.release else ""
    unhold = f"`osvdeploy unhold {name}{which} --ledger {ledger}`"
    ways = f"Ways out: another image; {unhold}; another `forceRollout`" if hold.release else f"The way out: {unhold}"
    return (
        f"{hold.release or 'every release'} is held since {hold.at[:16].replace('T', ' ')} UTC by {hold.by} "
        f"({hold.why}), so {serving}. {ways}"
    )


def _kept(outputs: DeploymentOutputs) -> DeploymentOutputs:
    """Of an update it is known that the service stays the same one, at the same place."""
    return replace(all_unknown(DeploymentOutputs), service=outputs.service, url=outputs.url)


def _foreseen(unknown: DeploymentOutputs, standing: Standing | None, release: Release, image: str) -> DeploymentOutputs:
    head = standing.head if standing is not None else None
    stable = head.stable if head is not None else None
    common = replace(
        unknown,
        service=release.service,
        status=DeploymentStatus.SERVING,
        active_release=release.id,
        active_image=image,
    )
    if head is not None and head.unfinished is not None:
        return common
    if head is None or stable is None or head.serving is None:
        from osvdeploy.cloud.interfaces import Slot

        return replace(common, active_slot=Slot.BLUE)
    if stable.release == release.id:
        return replace(common, active_slot=head.serving)
    return replace(common, active_slot=head.serving.other)


def _last_look(call: Call, service: Service, ground: Ground) -> Standing | None:
    """What stands, also after a cancel; None where that cannot be told."""
    from osvdeploy import api

    ctx = replace(call.ctx, cancel=CancelToken(), deadline=None, reporter=silent)
    for look in (True, False):
        try:
            return api.standing(ctx.within(LAST_LOOK), service, look=look, ground=ground)
        except OsvDeployError:
            continue
    return None


# ----------------------------------------------------------------------------------------------------------------- AWS


@declared
class AwsDeploymentInputs(DeploymentInputs):
    """A deployment on AWS."""

    _: KW_ONLY

    route: DeploymentRoute = prop("Which requests are the service's.", replaces=True)
    listener_arn: str = prop(
        "The ARN of the balancer's listener. Three rules on it are made and owned by the deployment.", replaces=True
    )
    subnet_ids: tuple[str, ...] = prop("The subnets that machines stand in; two zones or more outlive one.")
    security_group_ids: tuple[str, ...] = prop("The security groups that machines are in.", default_factory=tuple)
    instance_type: str = prop("The machines' type.", default="t3.nano")
    region: str | None = prop("The region; left out, the provider's, else the listener's.", default=None, replaces=True)


class AwsDeployment(_Deployment[AwsDeploymentInputs]):
    """A service on AWS: a release of an app on an Auto Scaling group, behind rules of a listener. Another image is
    rolled out blue-green: machines of the new release are started beside the old ones, proved to be well, and get the
    traffic; one that is bad never keeps it, and the update fails with what its machines said.

    It is the service that the command line knows as APP/ENVIRONMENT, in the same ledger: `osvdeploy rollback` works on
    it, and leaves a hold, by which the next `pulumi up` with the same program changes nothing.

    To import: `APP/ENVIRONMENT@LEDGER`.
    """

    TOKEN = "osvdeploy:aws:BlueGreenDeployment"
    INPUTS = AwsDeploymentInputs
    CLOUD = "aws"
    BOOT_TIMEOUT = "60s"
    MACHINES: ClassVar[Mapping[str, str]] = {
        "instance_type": "machine_type",
        "subnet_ids": "networks",
        "security_group_ids": "firewalls",
    }
    SPELLING = Spelling(
        cloud="aws",
        keys={"listener_arn": "listener", "subnet_ids": "subnets", "security_group_ids": "security-groups"},
        stand_ins={
            **STAND_INS,
            "listener_arn": "listener",
            "subnet_ids": ("subnet",),
            "region": "eu-west-1",
        },
    )

    def completed(self, call: Call, wanted: AwsDeploymentInputs) -> tuple[AwsDeploymentInputs, list[Failure]]:
        region = wanted.region
        of_listener = UNKNOWN
        if is_known(wanted.listener_arn):
            # arn:aws:elasticloadbalancing:REGION:ACCOUNT:listener/app/NAME/ID/ID
            parts = wanted.listener_arn.split(":")
            if len(parts) < 6 or parts[2] != "elasticloadbalancing" or not parts[5].startswith("listener/"):
                return wanted, [Failure("listenerArn", "is no ARN of a load balancer's listener")]
            of_listener = parts[3]
        if region is None:
            region = of_listener if call.settings.region is None else call.settings.region
        failures = []
        if is_known(region) and is_known(of_listener) and region != of_listener:
            failures.append(Failure("listenerArn", f"is of {of_listener}, and the deployment of {region}"))
        return replace(wanted, region=region), failures

    def project(self, wanted: AwsDeploymentInputs) -> str:
        return ""

    def seen_as(self, settings: Settings, account: str) -> AwsDeploymentInputs:
        return AwsDeploymentInputs(
            **common_inputs(settings, self.BOOT_TIMEOUT, None),
            image="",
            listener_arn=settings.listener,
            subnet_ids=settings.networks,
            security_group_ids=settings.firewalls,
            instance_type=settings.machine_type,
            region=settings.region,
        )


# -------------------------------------------------------------------------------------------------------------- Google


@declared
class GcpDeploymentInputs(DeploymentInputs):
    """A deployment on Google."""

    _: KW_ONLY

    url_map: str | None = prop(
        "The URL map of the balancer, by its link or name. Three rules in it are made and owned by the deployment. "
        "Either this or `forwardingRule`.",
        default=None,
        replaces=True,
    )
    forwarding_rule: str | None = prop(
        "In place of a URL map: a forwarding rule that leads to a target TCP proxy, by its link or name. It has no "
        "weights and no preview: all of its traffic moves at once.",
        default=None,
        replaces=True,
    )
    route: DeploymentRoute | None = prop(
        "Which requests that come to the URL map are the service's.", default=None, replaces=True
    )
    zone: str | None = prop("The zone that machines stand in.", default=None, replaces=True)
    region: str | None = prop(
        "In place of a zone: a region, over whose zones machines are spread.", default=None, replaces=True
    )
    machine_type: str = prop("The machines' type.", default="e2-small")
    subnetwork: str | None = prop(
        "The subnetwork that machines stand in, by its link or name; left out, the network default.", default=None
    )
    network_tags: tuple[str, ...] = prop(
        "The machines' network tags, by which firewalls know them.", default_factory=tuple
    )
    family: str | None = prop("The image family that is to lead to what serves.", default=None)
    project: str | None = prop(
        "The project; left out, the provider's, else the URL map's.", default=None, replaces=True
    )


def _is_link(way: object) -> TypeGuard[str]:
    return isinstance(way, str) and way.startswith("projects/") and way.count("/") > 2


def _within(link: str) -> str:
    """The path of a link in its project."""
    return link.split("/", 2)[2] if link.startswith("projects/") else link


class GcpDeployment(_Deployment[GcpDeploymentInputs]):
    """A service on Google Cloud: a release of an app on a managed instance group, behind rules of a URL map. Another
    image is rolled out blue-green: machines of the new release are started beside the old ones, proved to be well, and
    get the traffic; one that is bad never keeps it, and the update fails with what its machines said.

    It is the service that the command line knows as APP/ENVIRONMENT, in the same ledger: `osvdeploy rollback` works on
    it, and leaves a hold, by which the next `pulumi up` with the same program changes nothing.

    To import: `APP/ENVIRONMENT@LEDGER`.
    """

    TOKEN = "osvdeploy:gcp:BlueGreenDeployment"
    INPUTS = GcpDeploymentInputs
    CLOUD = "gcp"
    BOOT_TIMEOUT = "300s"
    MACHINES: ClassVar[Mapping[str, str]] = {
        "machine_type": "machine_type",
        "subnetwork": "networks",
        "network_tags": "firewalls",
    }
    SPELLING = Spelling(
        cloud="gcp",
        keys={},
        stand_ins={
            **STAND_INS,
            "url_map": "map",
            "forwarding_rule": "rule",
            "zone": "europe-west1-b",
            "region": "europe-west1",
        },
        values={"url_map": _within, "forwarding_rule": _within},
    )

    def completed(self, call: Call, wanted: GcpDeploymentInputs) -> tuple[GcpDeploymentInputs, list[Failure]]:
        from osvdeploy.cloud.gcp.scope import link_of

        def linked(value: Any) -> Any:
            return link_of(value) if isinstance(value, str) else value

        wanted = replace(
            wanted,
            image=linked(wanted.image),
            url_map=linked(wanted.url_map),
            forwarding_rule=linked(wanted.forwarding_rule),
            subnetwork=linked(wanted.subnetwork),
        )
        failures = []
        if wanted.url_map is None and wanted.forwarding_rule is None:
            failures.append(Failure("urlMap", "is needed, or forwardingRule: the way in of what is rolled out"))
        elif wanted.url_map is not None and wanted.route is None:
            failures.append(Failure("route", "is required beside urlMap, and was left out"))
        # The project is the provider's, or that of what is named by its link.
        project = wanted.project
        ways = {"urlMap": wanted.url_map, "forwardingRule": wanted.forwarding_rule}
        linked_to = {name: way.split("/")[1] for name, way in ways.items() if _is_link(way)}
        if project is None:
            project = call.settings.project or os.environ.get("GOOGLE_CLOUD_PROJECT")
        if project is None and linked_to:
            project = next(iter(linked_to.values()))
        if project is None and any(way is UNKNOWN for way in ways.values()):
            project = UNKNOWN
        if project is None:
            failures.append(Failure("project", "is needed: here, in the provider's configuration, or in the way in"))
            return wanted, failures
        for name, other in linked_to.items():
            if is_known(project) and other != project:
                failures.append(Failure(name, f"is of the project {other}, and the deployment of {project}"))
        return replace(self._whole(wanted, project), project=project), failures

    @staticmethod
    def _whole(wanted: GcpDeploymentInputs, project: str) -> GcpDeploymentInputs:
        """Ways in and subnetwork by their links, where they are named plainly: as an import has them."""
        if not is_known(project):
            return wanted
        if is_known(wanted.url_map) and wanted.url_map and not _is_link(wanted.url_map):
            path = wanted.url_map if "/" in wanted.url_map else f"global/urlMaps/{wanted.url_map}"
            wanted = replace(wanted, url_map=f"projects/{project}/{path}")
        place = wanted.region or (wanted.zone.rpartition("-")[0] if is_known(wanted.zone) and wanted.zone else None)
        placed = place is not None and is_known(place)
        network = wanted.subnetwork
        if is_known(network) and network and "/" not in network and placed:
            wanted = replace(wanted, subnetwork=f"projects/{project}/regions/{place}/subnetworks/{network}")
        rule = wanted.forwarding_rule
        if is_known(rule) and rule and not _is_link(rule) and ("/" in rule or placed):
            path = rule if "/" in rule else f"regions/{place}/forwardingRules/{rule}"
            wanted = replace(wanted, forwarding_rule=f"projects/{project}/{path}")
        return wanted

    def project(self, wanted: GcpDeploymentInputs) -> str:
        return wanted.project or ""

    def settings(self, wanted: GcpDeploymentInputs) -> Settings:
        return self.SPELLING.settings(wanted, self.project(wanted), wanted.family)

    def seen_as(self, settings: Settings, account: str) -> GcpDeploymentInputs:
        from osvdeploy.cloud.gcp.scope import area_of
        from osvdeploy.cloud.gcp.urlmap import RELEASE_HEADER

        zonal = area_of(settings.region).startswith("zones/")
        routed = "/urlMaps/" in settings.listener
        return GcpDeploymentInputs(
            **common_inputs(settings, self.BOOT_TIMEOUT, RELEASE_HEADER if routed else None),
            image="",
            url_map=settings.listener if routed else None,
            forwarding_rule=None if routed else settings.listener,
            zone=settings.region if zonal else None,
            region=None if zonal else settings.region,
            machine_type=settings.machine_type,
            subnetwork=settings.networks[0] if settings.networks else None,
            network_tags=settings.firewalls,
            family=settings.family,
            project=account,
        )
