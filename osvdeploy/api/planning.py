"""What a deploy would do, before it does it; and that it does so only where nothing has changed since."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Any

from osvdeploy.api import wiring
from osvdeploy.api.building import foresee, tell_of
from osvdeploy.api.declared import Service, environment_of, release_named, settings_of
from osvdeploy.api.differing import SettingChange, changed_settings
from osvdeploy.api.looking import judge, look, place_findings, place_of, place_on_google, require_rules
from osvdeploy.api.services import refuse_in_use
from osvdeploy.build.uses import in_use
from osvdeploy.cloud.interfaces import ReleaseId
from osvdeploy.context import Context
from osvdeploy.digests import Digest
from osvdeploy.errors import (
    CloudError,
    LeaseHeld,
    OsvDeployError,
    PlanOutdated,
    Refused,
    ReleaseHeld,
    RolloutWaiting,
    UsageError,
)
from osvdeploy.events import Note, Warned, silent
from osvdeploy.sizes import GIB

if TYPE_CHECKING:
    from osvdeploy.cloud.gcp.machines import GceMachineTypes
    from osvdeploy.cloud.interfaces import Cloud, Ground, Quota, Scaling
    from osvdeploy.osv.image import RawImage
    from osvdeploy.rollout.ledger import Head, Ledger
    from osvdeploy.rollout.manager import RolloutManager
    from osvdeploy.rollout.model import Run
    from osvdeploy.rollout.planning import Basis, Caution, Estimate, Leg, Prices
    from osvdeploy.rollout.rehearsal import Deed, Rehearsed
    from osvdeploy.rollout.releases import Release, Settings
    from osvdeploy.rollout.retention import Garbage
    from osvdeploy.spec import LoadedSpec

_UNKNOWN = "????????"
"""Stands for eight digits of what follows from bytes that are not built yet."""

_PAST = 20
"""Runs of the past that an estimate is made of."""


@dataclass(frozen=True, slots=True)
class Publishing:
    """What has to be sent before a rollout. ``image`` and ``release`` are the cloud's ids of what is there already,
    None for what is not. ``blocks`` and ``size`` (in bytes, before any compression) are those of what is to be sent,
    None where that is not known: ``why`` says so. ``calls`` are the changing ones in the cloud's own words, and how
    many of each; at most so many, where an upload that was cut off goes on. How many a bucket takes for an object on
    its way, its size tells once it is packed: they are not in it."""

    image: str | None
    release: str | None
    blocks: int | None
    size: int | None
    why: str = ""
    calls: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Capacity:
    """Machines by machine type: now, the most at any time, at the end, and how many of these are kept warm only.
    ``cpus`` are those of one machine of each type, as the cloud tells; a type that it does not tell of is left out."""

    now: Mapping[str, int]
    most: Mapping[str, int]
    after: Mapping[str, int]
    warm: Mapping[str, int]
    cpus: Mapping[str, int]

    @property
    def lasting(self) -> dict[str, int]:
        """What is left once nothing is kept warm any more."""
        return {kind: left for kind, count in self.after.items() if (left := count - self.warm.get(kind, 0))}

    def cpus_of(self, machines: Mapping[str, int]) -> int | None:
        """Processors of so many machines, None where a type's are not known."""
        if any(kind not in self.cpus for kind, count in machines.items() if count):
            return None
        return sum(self.cpus[kind] * count for kind, count in machines.items() if count)


@dataclass(frozen=True, slots=True)
class Objection:
    """Why a deploy would be refused now. ``kind`` is the error's class."""

    kind: str
    told: str
    hint: str | None


@dataclass(frozen=True, slots=True)
class Plan:
    """What a deploy would do, as things stand.

    ``release`` is None where the image is not built yet; so is ``image``, its digest. ``serving`` is what serves now,
    ``settings`` what of its settings would be others. ``deeds`` are the changing calls, action by action, None where
    they follow from a rollout that is under way. ``quotas`` None: the cloud was not asked.
    """

    service: Service
    cloud: str
    account: str
    region: str
    version: str
    release: ReleaseId | None
    image: Digest | None
    configuration: Digest
    serving: Release | None
    settings: tuple[SettingChange, ...]
    publishing: Publishing
    told: str
    course: tuple[Leg, ...]
    deeds: tuple[Deed, ...] | None
    capacity: Capacity | None
    quotas: tuple[Quota, ...] | None
    prices: Prices | None
    estimate: Estimate
    cautions: tuple[Caution, ...]
    objections: tuple[Objection, ...]
    basis: Basis

    @property
    def same_image(self) -> bool | None:
        """Whether what serves has this image; None where one of both is not known."""
        return None if self.serving is None or self.image is None else self.serving.image == self.image

    @property
    def same_configuration(self) -> bool | None:
        return None if self.serving is None else self.serving.configuration == self.configuration


@in_use()
def plan(
    ctx: Context,
    loaded: LoadedSpec,
    environment: str | None = None,
    *,
    forced: Collection[str] = (),
    prices: Prices | None = None,
    people: bool = True,
    take_over: bool = False,
    displace: bool = False,
) -> Plan:
    """What :func:`~osvdeploy.api.releasing.deploy` would do with this spec now. ``people``: somebody is there to be
    asked. ``prices`` are those of :func:`prices_of`, the others as for a deploy.

    Builds nothing and changes nothing: no call that changes the cloud, no document of the ledger. Raises what the
    deploy would for what is the caller's to mend; what stands in its way for now (a hold, a rollout under way) is told.
    """
    require_rules(loaded, forced)
    settings = settings_of(loaded, environment_of(loaded, environment))
    ground, machines = _place(ctx, loaded, settings)
    _require_sound(ctx, loaded, settings, ground, machines, forced)
    foreseen = foresee(ctx, loaded)
    raw = foreseen.image
    image = raw.digest if raw is not None else None
    # Of no image yet: names that follow from its bytes are put out of what is told.
    release, _ = release_named(ctx, loaded, settings, image or Digest("0" * 64))
    publishing, taken = _publishing(ctx, loaded, ground, release, raw)
    wanted = Wanted(release, image, foreseen.plan, publishing, taken)
    return plan_of(ctx, ground, machines, wanted, prices=prices, people=people, take_over=take_over, displace=displace)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a plan is of: the release as it would go out; the digest of its ``image``, None where that is not built yet,
    and of all that it is made of (``build``); what is to be published first, and why that would be refused."""

    release: Release
    image: Digest | None
    build: Digest
    publishing: Publishing
    taken: Objection | None = None


def plan_of(
    ctx: Context,
    ground: Ground,
    machines: GceMachineTypes | None,
    wanted: Wanted,
    *,
    prices: Prices | None,
    people: bool,
    take_over: bool,
    displace: bool,
) -> Plan:
    """What a rollout of this release would do now. As :func:`plan` otherwise."""
    from osvdeploy.rollout import planning

    release, publishing, settings = wanted.release, wanted.publishing, wanted.release.settings
    service = Service(release.app, settings.environment, settings.ledger)
    ledger = wiring.open_ledger(service)
    head = ledger.head(ctx)
    manager = wiring.rollouts(ledger, ground, take_over=take_over)
    ledger.store.refuse_unwritable(ctx, ledger.service)
    if not displace:
        refuse_in_use(ctx, ledger, ground, release)
    objections = _objections(ctx, manager, release, head)
    if wanted.taken is not None:
        objections.append(wanted.taken)
    basis = basis_now(ctx, ledger, ground, release, wanted.build, wanted.image)
    rehearsed, deeds = _rehearsed(ctx, ground, ledger, wanted, head, objections, take_over)
    run = rehearsed.rollout.run if rehearsed is not None else None
    serving = ledger.release(ctx, head.stable.release) if head is not None and head.stable is not None else None
    nothing = rehearsed is not None and run is None
    legs = () if nothing else planning.course(settings, first=serving is None)
    capacity = _capacity(ctx, rehearsed, ground, machines) if rehearsed is not None else None
    quotas, more = _quotas(ctx, ground, settings, capacity)
    return Plan(
        service=service,
        cloud=ground.kind,
        account=ground.account,
        region=ground.region,
        version=release.version,
        release=release.id if wanted.image is not None else None,
        image=wanted.image,
        configuration=release.configuration,
        serving=serving,
        settings=changed_settings(serving.settings, settings) if serving is not None else (),
        publishing=publishing,
        told=rehearsed.rollout.told if nothing and rehearsed is not None else "",
        course=legs,
        deeds=deeds,
        capacity=capacity,
        quotas=quotas,
        prices=prices,
        estimate=planning.estimate(legs, _past(ctx, ledger) if legs else (), settings, manager.limits),
        cautions=tuple(
            planning.cautions(
                settings,
                head,
                sticky=_sticky(ctx, ground, release, head),
                scaling=_scaling(ctx, ground, head),
                quotas=quotas or (),
                more=more,
                one_zone=_one_zone(ctx, ground, settings),
                people=people,
                missing_prices=_unpriced(prices, capacity),
            )
        ),
        objections=tuple(objections),
        basis=basis,
    )


def basis_now(
    ctx: Context, ledger: Ledger, ground: Ground, release: Release, build: Digest, image: Digest | None
) -> Basis:
    """What a plan of this release is made on, as it is now."""
    from osvdeploy.cloud import tags
    from osvdeploy.rollout.planning import basis_of
    from osvdeploy.rollout.releases import route_of, settings_digest

    groups = ground.groups.owned(ctx, {tags.SERVICE: release.service})
    head = ledger.head(ctx)
    stable = head.stable if head is not None else None
    return basis_of(
        release.service,
        ledger.store.address,
        head,
        {group.name: group.capacity for group in groups if not group.deleting},
        ground.router.observe(ctx, route_of(release)),
        version=release.version,
        settings=settings_digest(release.settings),
        build=build,
        configuration=release.configuration,
        image=image,
        scaling=ground.groups.scaling(ctx, stable.group) if stable is not None else None,
    )


def require_unchanged(planned: Basis, now: Basis) -> None:
    """Raise :class:`~osvdeploy.errors.PlanOutdated` where something is not as it was when a plan was made."""
    from osvdeploy.rollout.planning import changed_since

    if changes := changed_since(planned, now):
        raise PlanOutdated(
            f"{now.service}: is not as it was when the plan was made: {'; '.join(changes)}",
            changes=changes,
            hint="make a new plan, or deploy without one",
        )


def basis_document(basis: Basis) -> dict[str, Any]:
    """A basis as a plan's document has it."""
    from pydantic import TypeAdapter

    from osvdeploy.rollout.planning import Basis

    found: dict[str, Any] = TypeAdapter(Basis).dump_python(basis, mode="json")
    return found


def load_plan(path: Path | str) -> Basis:
    """What the plan in a file was made on. Raises :class:`~osvdeploy.errors.UsageError` for what is no plan."""
    from pydantic import TypeAdapter, ValidationError

    from osvdeploy.rollout.planning import Basis

    try:
        document = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise UsageError(
            f"{path}: cannot be read: {error.strerror}", hint="`osvdeploy plan --out FILE` makes one"
        ) from None
    except ValueError:
        document = None
    if not isinstance(document, dict) or document.get("command") != "plan" or "basis" not in document:
        raise UsageError(f"{path}: is no plan", hint="`osvdeploy plan --out FILE` makes one")
    if document.get("schema") != 1:
        raise UsageError(f"{path}: was made by another version of osvdeploy", hint="make the plan anew")
    try:
        return TypeAdapter(Basis).validate_json(json.dumps(document["basis"]))
    except ValidationError:
        raise UsageError(
            f"{path}: is no plan that this version of osvdeploy can read", hint="make the plan anew"
        ) from None


# ------------------------------------------------------------------------------------------------------------ prices


def prices_of(loaded: LoadedSpec | None, given: Sequence[str] = ()) -> Prices | None:
    """The spec's [prices], with those that were ``given`` as ``KIND=AMOUNT`` over them: KIND is a machine type,
    ``snapshot-gib-month``, ``image-gib-month`` or ``currency``. None where nobody gave any.

    Raises :class:`~osvdeploy.errors.UsageError` for what is no price, and where no currency is named.
    """
    from osvdeploy.rollout.planning import Prices

    declared = loaded.spec.prices if loaded is not None else None
    if declared is None and not given:
        return None
    prices = Prices("")
    if declared is not None:
        prices = Prices(
            declared.currency, dict(declared.machines), declared.snapshot_gib_month, declared.image_gib_month
        )
    for each in given:
        kind, equals, amount = each.partition("=")
        if not (equals and kind and amount):
            raise UsageError(f"--price {each}: is no price", hint="--price t3.small=0.0228 --price currency=USD")
        if kind == "currency":
            if len(amount) != 3 or not amount.isalpha() or not amount.isupper():
                raise UsageError(f"--price {each}: is no currency", hint="--price currency=USD")
            prices = replace(prices, currency=amount)
        elif kind == "snapshot-gib-month":
            prices = replace(prices, snapshot_gib_month=_amount(each, amount))
        elif kind == "image-gib-month":
            prices = replace(prices, image_gib_month=_amount(each, amount))
        else:
            prices = replace(prices, machines={**prices.machines, kind: _amount(each, amount)})
    if not prices.currency:
        raise UsageError("these prices are in no currency", hint="add --price currency=USD")
    return prices


def monthly_cost(garbage: Garbage, prices: Prices | None) -> Decimal | None:
    """What a month of the images and disks that go costs, as far as their bytes are known; None where nobody gave the
    prices."""
    if prices is None:
        return None
    parts = [(garbage.disk_bytes, True)] if garbage.disks else []
    parts += [(garbage.image_bytes, False)] if garbage.image_bytes else []
    costs = [prices.monthly(Decimal(size) / GIB, snapshots=snapshots) for size, snapshots in parts]
    known = [each for each in costs if each is not None]
    return sum(known, Decimal(0)).quantize(Decimal("0.000001")) if len(known) == len(costs) else None


def _amount(given: str, text: str) -> Decimal:
    try:
        amount = Decimal(text)
    except InvalidOperation:
        amount = Decimal(-1)
    if not amount.is_finite() or amount < 0:
        raise UsageError(f"--price {given}: {text!r} is no amount", hint="--price t3.small=0.0228")
    return amount


def _unpriced(prices: Prices | None, capacity: Capacity | None) -> set[str]:
    if prices is None or capacity is None:
        return set()
    return {kind for kind, count in capacity.most.items() if count and kind not in prices.machines}


# ------------------------------------------------------------------------------------------------------- what is there


def _place(ctx: Context, loaded: LoadedSpec, settings: Settings) -> tuple[Ground, GceMachineTypes | None]:
    """The place of an environment; on Google its machine types are a port of their own."""
    google = loaded.spec.publish.gcp
    if settings.cloud != "gcp":
        return wiring.connect(ctx, settings.cloud, settings.region), None
    assert google is not None, "the model asks for it"
    ground = wiring.ground(ctx, settings.cloud, google.project, settings.region, google.compute_endpoint)
    return ground, wiring.google_machines(google, settings.region)


def _require_sound(
    ctx: Context,
    loaded: LoadedSpec,
    settings: Settings,
    ground: Ground,
    machines: GceMachineTypes | None,
    forced: Collection[str],
) -> None:
    """Refuse what a deploy would refuse of the image, as far as that is known before a build."""
    from osvdeploy.cloud.interfaces import Cloud

    if machines is not None:
        place = place_on_google(ctx, machines, settings.machine_type)
    else:
        assert isinstance(ground, Cloud)
        place = place_of(ctx, ground, settings.machine_type)
    judged = judge(loaded, place_findings(loaded, look(ctx.reporting_to(silent), loaded), [place]), forced)
    judged.require()
    tell_of(ctx, judged)


def _objections(ctx: Context, manager: RolloutManager, release: Release, head: Head | None) -> list[Objection]:
    """Why the deploy would be refused now, and may not be later. What is the caller's to mend is raised."""
    from osvdeploy.rollout.refusals import refuse_waiting

    found: list[Objection] = []
    try:
        manager.preflight(ctx, release)
        if head is not None:
            refuse_waiting(head, release, ctx.now())
    except (LeaseHeld, ReleaseHeld, RolloutWaiting) as error:
        found.append(_objection(error))
    if head is not None and head.lease is not None and not head.lease.holder.known_dead() and not found:
        holder = head.lease.holder
        told = f"{head.service}: process {holder.pid} of {holder.user or 'somebody'} on {holder.host} may be at work: "
        found.append(Objection("LeaseHeld", f"{told}{head.why}", "a deploy waits a minute for a sign of it"))
    return found


def _objection(error: OsvDeployError) -> Objection:
    return Objection(type(error).__name__, error.message, error.hint)


def _publishing(
    ctx: Context, loaded: LoadedSpec, ground: Ground, release: Release, raw: RawImage | None
) -> tuple[Publishing, Objection | None]:
    """What is to be sent first, and why that would be refused."""
    from osvdeploy.cloud.interfaces import Cloud
    from osvdeploy.publish.blocks import needed

    name = f"{release.app}-{release.version}"
    below = ground.images.find(ctx, name)
    above = ground.images.find(ctx, release.id) if raw is not None else None
    image, made = below.id if below is not None else None, above.id if above is not None else None
    if raw is None:
        return Publishing(image, None, None, None, "the image is not built yet"), None
    taken = None
    if below is not None and below.digest != raw.digest:
        told = f"{below.name}: registered with {below.digest[:12]}, but this build is {raw.digest[:12]}"
        taken = Objection("ImageNameTaken", told, "raise `version` in the spec")
    if made is not None:
        return Publishing(image, made, 0, 0), taken
    read = sum(extent.end - extent.start for extent in raw.read)
    if isinstance(ground, Cloud):
        size, aws = ground.snapshots.block_size, loaded.spec.publish.aws
        through = aws is not None and aws.bucket is not None
        sent = len(needed(raw.read, size)) if image is None else 0
        calls = publishing_calls(ctx, ground, None if image is not None else name, release.id, sent, through=through)
        if image is None and aws is not None and through:
            return Publishing(image, made, None, read, f"the disk goes through s3://{aws.bucket}", calls), taken
        # A release is one block on top of its image.
        return Publishing(image, made, 1 + sent, (1 + sent) * size, calls=calls), taken
    gcp = loaded.spec.publish.gcp
    told = f"the disk is packed on its way through gs://{gcp.bucket}" if gcp is not None else ""
    return Publishing(image, made, None, read, told, {"images.insert": 1 + (image is None)}), taken


def publishing_calls(
    ctx: Context, cloud: Cloud, image: str | None, release: str, blocks: int, *, through: bool
) -> dict[str, int]:
    """The changing calls that make a release's image, and before it that of its app where it has a name (``image``) and
    so many ``blocks``. A disk that an earlier run has brought is there. ``through``: the image's disk goes through a
    bucket."""
    calls: Counter[str] = Counter()
    for name, count in ((image, blocks), (release, 1)):
        if name is None:
            continue
        if cloud.snapshots.find(ctx, name) is None:
            if name == image and through:
                calls["ImportSnapshot"] += 1
            else:
                calls.update({"StartSnapshot": 1, "PutSnapshotBlock": count, "CompleteSnapshot": 1})
        calls["RegisterImage"] += 1
    return dict(calls)


def _rehearsed(
    ctx: Context,
    ground: Ground,
    ledger: Ledger,
    wanted: Wanted,
    head: Head | None,
    objections: list[Objection],
    take_over: bool,
) -> tuple[Rehearsed | None, tuple[Deed, ...] | None]:
    from osvdeploy.rollout.model import Outcome
    from osvdeploy.rollout.rehearsal import rehearse

    release = wanted.release
    under_way = head is not None and head.unfinished is not None
    if under_way and any(each.kind in ("LeaseHeld", "RolloutWaiting") for each in objections):
        # What that rollout leaves behind is what this one begins on.
        return None, None
    image = ground.images.find(ctx, release.id) if wanted.image is not None else None
    found = rehearse(ctx, ground, ledger, release, image=image, take_over=take_over)
    if found.rollout.outcome is not Outcome.SUCCEEDED:
        objections.append(Objection("Refused", found.rollout.told, None))
    if wanted.image is not None:
        return found, found.deeds
    return found, tuple(_unnamed(deed, release) for deed in found.deeds)


def _unnamed(deed: Deed, release: Release) -> Deed:
    """A release that is not built yet has no name, nor has its group."""
    from osvdeploy.rollout.releases import group_stem

    def told(resource: str) -> str:
        for name in (group_stem(release.service, release.id), release.id):
            resource = resource.replace(name, f"{name.rpartition('-')[0]}-{_UNKNOWN}")
        return resource

    return replace(deed, calls=tuple(replace(call, resource=told(call.resource)) for call in deed.calls))


def _capacity(ctx: Context, found: Rehearsed, ground: Ground, machines: GceMachineTypes | None) -> Capacity:
    from osvdeploy.cloud.interfaces import Cloud

    cpus: dict[str, int] = {}
    types = machines if machines is not None else ground.machines if isinstance(ground, Cloud) else None
    for kind in found.most:
        try:
            told = types.describe(ctx, kind) if types is not None else None
        except Refused as error:
            ctx.report(Warned(f"{kind}: how many processors it has cannot be asked: {error}", hint=error.hint))
            continue
        if told is not None:
            cpus[kind] = told.cpus
    return Capacity(found.now, found.most, found.after, found.warm, cpus)


def _quotas(
    ctx: Context, ground: Ground, settings: Settings, capacity: Capacity | None
) -> tuple[tuple[Quota, ...] | None, dict[str, float]]:
    """The quotas, and what the deploy takes of each beside what is used now."""
    if ground.quotas is None:
        return None, {}
    try:
        found = ground.quotas.of(ctx, settings.machine_type)
    except (CloudError, UsageError) as error:
        # A plan does without: no deploy asks for them.
        ctx.report(Warned(f"quotas cannot be asked: {error}", hint=error.hint))
        return None, {}
    if capacity is None:
        return found, {}
    more = {kind: count - capacity.now.get(kind, 0) for kind, count in capacity.most.items()}
    own = more.get(settings.machine_type, 0) * capacity.cpus.get(settings.machine_type, 0)
    return found, {each.name: float(sum(more.values()) if each.name == "INSTANCES" else own) for each in found}


def _past(ctx: Context, ledger: Ledger) -> list[Run]:
    from osvdeploy.rollout.ledger import MANY

    runs: dict[str, Run] = {}
    for head in ledger.heads(ctx, width=MANY):
        if head.run is not None and head.run.id not in runs:
            if len(runs) == _PAST:
                break
            runs[head.run.id] = head.run
    return list(runs.values())


def _sticky(ctx: Context, ground: Ground, release: Release, head: Head | None) -> float | None:
    from osvdeploy.rollout.releases import route_of

    if ground.foresee is None or head is None or head.stable is None:
        return None
    try:
        return ground.foresee().sticky(ctx, route_of(release))
    except CloudError as error:
        ctx.report(Note(f"whether clients stay with a machine cannot be asked: {error}"))
        return None


def _scaling(ctx: Context, ground: Ground, head: Head | None) -> Scaling | None:
    stable = head.stable if head is not None else None
    return ground.groups.scaling(ctx, stable.group) if stable is not None else None


def _one_zone(ctx: Context, ground: Ground, settings: Settings) -> bool:
    """Whether all machines are known to stand in one zone."""
    if settings.cloud == "gcp":
        # A zone's name is its region's and a letter.
        return settings.region.rpartition("-")[2].isalpha()
    if len(settings.networks) > 1 and ground.zones is not None:
        try:
            return len(ground.zones.of(ctx, settings.networks)) == 1
        except CloudError as error:
            ctx.report(Warned(f"zones of subnets cannot be asked: {error}", hint=error.hint))
    return len(settings.networks) == 1
