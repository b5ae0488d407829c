"""What the images of releases have in common as resources, whichever cloud they are in.

An image is named by what is in it: app, version, and the digest of disk and variables. So one that is there already is
the one that is meant, whoever made it, and several resources may have it. Each leaves a word of its own in the image's
tags; who is the last to leave takes the image away, or retires it where something still needs it.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from osvdeploy.build.uses import in_use
from osvdeploy.cloud import tags
from osvdeploy.digests import Digest, sha256
from osvdeploy.errors import CloudError, LedgerError, NotFound, OsvDeployError, UsageError
from osvdeploy.events import silent
from osvdeploy.provider.base import Call, Checked, Created, Operation, Resource, Seen, State, Verdict, all_unknown
from osvdeploy.provider.declare import camel, declared, prop
from osvdeploy.provider.diffing import Change
from osvdeploy.provider.disks import Disk, Recipe, disk_here, kept
from osvdeploy.provider.lifecycle import InputsInvalid
from osvdeploy.provider.parsing import Failure, joined
from osvdeploy.provider.values import is_known

if TYPE_CHECKING:
    from pydantic import BaseModel

    from osvdeploy.api.release_images import AppImage, ReleaseOn
    from osvdeploy.checks import Judged
    from osvdeploy.checks.places import Place
    from osvdeploy.cloud.interfaces import CloudImage, ImageRegistry
    from osvdeploy.context import Context
    from osvdeploy.osv.image import RawImage


@declared
class ReleaseInputs:
    """What the image of a release is made of."""

    disk: Disk = prop("The disk, an Image's `disk`.", replaces=True)
    env: Mapping[str, str] = prop(
        "Variables of the release's own, beside those of the Image: they make another release of the same disk.",
        default_factory=dict,
        replaces=True,
    )


@declared
class ReleaseOutputs:
    """What was made."""

    name: str = prop("The image's name in the cloud.")
    release: str = prop("The release's id, which the program sees as OSVDEPLOY_RELEASE.")
    digest: str = prop("The release's digest, over disk and variables.")
    image_digest: str = prop("The disk's digest.")
    configuration: str = prop("The digest of the variables.")
    claim: str = prop("The word among the image's tags that says that this resource has it.")


I = TypeVar("I", bound=ReleaseInputs)  # noqa: E741 (inputs)
O = TypeVar("O", bound=ReleaseOutputs)  # noqa: E741 (outputs)


class Site(ABC):
    """The place of an image: the adapters, and what the clouds do each in its own way."""

    images: ImageRegistry

    @abstractmethod
    def publish(self, ctx: Context, raw: RawImage, image: AppImage, release: ReleaseOn) -> CloudImage:
        """Make the image ``app-version`` and the release's on it; that one."""

    @abstractmethod
    def place_of(self, ctx: Context, machine: str) -> Place:
        """What a machine type offers. Raises UsageError for one that is not there."""

    @abstractmethod
    def users(self, ctx: Context, image: CloudImage) -> Sequence[str]:
        """The groups and templates that need the image, in words."""

    @abstractmethod
    def remove(self, ctx: Context, image: CloudImage) -> None:
        """Take an image away, with the disk that is its own."""


class ReleaseImage(Resource[I, O]):
    """The image of a release, in one cloud."""

    CLOUD: ClassVar[str]
    TAGS: ClassVar[str]
    """The attribute with the user's own tags."""
    MACHINES: ClassVar[str]
    """The attribute with the machine types that the image is judged for."""
    TIMEOUTS: ClassVar[Mapping[Operation, float]] = {Operation.CREATE: 3600.0}

    @abstractmethod
    def placed(self, call: Call, wanted: I, before: I | None) -> tuple[I, Sequence[Failure]]:
        """The inputs with the place in them, and what is wrong with it."""

    @abstractmethod
    def model(self, wanted: I) -> tuple[type[BaseModel], Mapping[str, object]]:
        """The part of a spec that the inputs stand for, and what of it is known, by the spec's names."""

    @abstractmethod
    def site(self, call: Call, inputs: I) -> Site:
        """The adapters."""

    @abstractmethod
    def told(self, image: CloudImage, common: ReleaseOutputs) -> O:
        """The outputs."""

    @abstractmethod
    def foreseen(self, common: ReleaseOutputs) -> O:
        """The outputs of an image that is not there yet."""

    @abstractmethod
    def imported(self, call: Call, id: str) -> I:
        """Inputs that lead to the image of an id, but for what its tags tell. Raises UsageError for what is no id."""

    def complete(self, ctx: Context, site: Site, inputs: I, image: CloudImage) -> I:
        """The same with what an image tells of the rest."""
        return inputs

    def settle(self, ctx: Context, site: Site, image: CloudImage, wanted: I) -> None:
        """See to what can be changed of an image beside its tags."""

    # ------------------------------------------------------------------------------------------------ check, diff

    def check(self, call: Call, wanted: I, before: I | None) -> Checked[I]:
        wanted, failures = self.placed(call, wanted, before)
        failures = [*failures, *_misnamed(wanted), *self._misfitting(wanted)]
        if not failures and is_known(wanted) and self._machines(wanted) and not self._judged(wanted, before):
            failures = list(self._by_name(call, wanted))
        return Checked(wanted, failures)

    def judge(self, before: State[I, O], wanted: I, changes: Sequence[Change]) -> Verdict:
        labels = _labels(wanted)
        made = (before.outputs.release, before.outputs.digest)
        same = labels is not None and (labels[tags.RELEASE], labels[tags.DIGEST]) == made
        found = []
        for each in changes:
            if each.property not in ("disk", "env"):
                found.append(each)
            elif not same and each.path not in ("disk.path", "disk.recipe"):
                found.append(replace(each, replaces=True))
        if labels is not None and not same and is_known(made) and not any(each.replaces for each in found):
            # Of an image that was imported, the variables are not always known.
            found.append(Change("env", replaces=True))
        return Verdict(found)

    def preview(self, call: Call, wanted: I, before: State[I, O] | None) -> O:
        unknown = all_unknown(ReleaseOutputs)
        if before is not None:
            return replace(before.outputs, claim=before.outputs.claim or unknown.claim)
        labels = _labels(wanted)
        if labels is None:
            return self.foreseen(unknown)
        return self.foreseen(_common(labels, unknown.claim))

    # ---------------------------------------------------------------------------------- create, read, update, delete

    def create(self, call: Call, wanted: I) -> Created[O]:
        from osvdeploy.api.release_images import AppImage, ReleaseOn

        ctx, site, labels = call.ctx, self.site(call, wanted), _labels(wanted)
        assert labels is not None, "outside of a preview all is known"
        release = ReleaseOn(_variables(wanted), labels)
        image = site.images.find(ctx, release.id)
        if image is None or image.digest != release.digest:
            with in_use():
                raw = disk_here(ctx, wanted.disk)
                self._require_sound(ctx, site, wanted, raw)
                below = AppImage(wanted.disk.name, wanted.disk.version, self._tags(wanted), {tags.BELOW: "releases"})
                image = site.publish(ctx, raw, below, release)
        claim, programs = _claimed(call.urn, image)
        # Another program may have the same image, and tags of its own on it.
        site.images.retag(ctx, image.id, {**self._tags(wanted), tags.PROGRAMS: programs}, without=[tags.RETIRED])
        self.settle(ctx, site, image, wanted)
        return Created(image.id, self.told(image, _common(labels, claim)))

    def read(self, call: Call, id: str, before: State[I, O] | None) -> Seen[I, O] | None:
        inputs = self.imported(call, id) if before is None else before.inputs
        site = self.site(call, inputs)
        image = site.images.get(call.ctx, id)
        if image is None:
            return None
        there = tags.users_own(image.tags)
        if before is not None:
            # What others add is theirs: a policy of the account, another program that has the same image.
            own = {name: there[name] for name in self._tags(before.inputs) if name in there}
            return Seen(before.outputs, self._tagged(before.inputs, own))
        labels = _labels_of(image)
        disk = Disk(digest=labels[tags.IMAGE], path="", name=labels[tags.APP], version=labels[tags.VERSION], recipe="")
        seen = self.complete(call.ctx, site, self._tagged(replace(inputs, disk=disk), there), image)
        if _labels(seen) != labels:
            call.warn(f"{image.name} has variables of its own, which cannot be told from it: say them as `env`")
        return Seen(self.told(image, _common(labels, "")), seen)

    def update(self, call: Call, before: State[I, O], wanted: I) -> O:
        ctx, site = call.ctx, self.site(call, wanted)
        image = site.images.get(ctx, before.id)
        if image is None:
            raise NotFound(f"{before.id}: is not there any more", hint="`pulumi up --refresh` makes it again")
        if self._machines(wanted) and not self._judged(wanted, before.inputs):
            with in_use():
                self._require_sound(ctx, site, wanted, disk_here(ctx, wanted.disk))
        dropped = {*self._tags(before.inputs), *self._tags(before.actual)} - set(self._tags(wanted))
        outputs, claimed = before.outputs, dict[str, str]()
        if not outputs.claim:
            # It was imported.
            claim, programs = _claimed(call.urn, image)
            outputs, claimed = replace(outputs, claim=claim), {tags.PROGRAMS: programs}
        site.images.retag(ctx, image.id, {**self._tags(wanted), **claimed}, without=sorted(dropped))
        self.settle(ctx, site, image, wanted)
        return outputs

    def delete(self, call: Call, before: State[I, O]) -> None:
        ctx, site = call.ctx, self.site(call, before.inputs)
        image = site.images.get(ctx, before.id)
        if image is None:
            return
        others = [each for each in image.tags.get(tags.PROGRAMS, "").split() if each != before.outputs.claim]
        if others:
            site.images.retag(ctx, image.id, {tags.PROGRAMS: " ".join(others)})
            call.info(f"{image.name} stays: another resource has it too")
            return
        needed = [*site.users(ctx, image), *_in_ledgers(call, image)]
        if needed:
            retired = {tags.RETIRED: ctx.now().isoformat()}
            site.images.retag(ctx, image.id, retired, without=[tags.PROGRAMS])
            for each in _below(ctx, site, image):
                site.images.retag(ctx, each.id, retired)
            call.info(f"{image.name} is retired and not deleted: {needed[0]}; `osvdeploy gc` takes it away then")
            return
        site.remove(ctx, image)
        for each in _below(ctx, site, image):
            site.remove(ctx, each)

    # -------------------------------------------------------------------------------------------------------- details

    def _tags(self, inputs: I) -> Mapping[str, str]:
        found = getattr(inputs, self.TAGS)
        # What an earlier version did not write is none that has to go.
        return dict(found) if is_known(found) else {}

    def _tagged(self, inputs: I, own: Mapping[str, str]) -> I:
        changed: dict[str, Any] = {self.TAGS: own}
        return replace(inputs, **changed)

    def _machines(self, inputs: I) -> Sequence[str]:
        return tuple(getattr(inputs, self.MACHINES))

    def _judged(self, wanted: I, before: I | None) -> bool:
        """Whether the same disk was judged for the same machine types."""
        if before is None or not is_known((before.disk.digest, getattr(before, self.MACHINES))):
            return False
        return (before.disk.digest, self._machines(before)) == (wanted.disk.digest, self._machines(wanted))

    def _misfitting(self, wanted: I) -> Iterator[Failure]:
        """What a spec would not take either, each at its property."""
        from pydantic import ValidationError

        from osvdeploy.spec.problems import found_in

        model, document = self.model(wanted)
        try:
            model.model_validate({name: value for name, value in document.items() if is_known(value)})
        except ValidationError as error:
            for each in found_in(error):
                name, *rest = each.path
                if is_known(document.get(str(name))):
                    path = camel(str(name).replace("-", "_"))
                    yield Failure(joined(path, str(rest[0])) if rest else path, each.message)

    def _by_name(self, call: Call, wanted: I) -> Iterator[Failure]:
        """What the names of machine types tell of the disk's way into them, as far as the disk is here."""
        from osvdeploy.checks.places import named

        with in_use():
            raw = kept(wanted.disk)
            if raw is None:
                return
            places = [named(self.CLOUD, machine) for machine in self._machines(wanted)]
            try:
                yield from self._failures(call.ctx.reporting_to(silent), wanted, raw, places)
            except OsvDeployError:
                # Its sources are not all there: what makes the image looks again, and says so.
                return

    def _require_sound(self, ctx: Context, site: Site, wanted: I, raw: RawImage) -> None:
        """Refuse what is known to fail. Raises InputsInvalid."""
        places: list[Place | None] = []
        failures = []
        for index, machine in enumerate(self._machines(wanted)):
            try:
                places.append(site.place_of(ctx, machine))
            except UsageError as error:
                places.append(None)
                failures.append(Failure(self._machine(index), f"{error.message} ({error.hint})"))
        failures += self._failures(ctx, wanted, raw, places)
        if failures:
            raise InputsInvalid(failures)

    def _failures(self, ctx: Context, wanted: I, raw: RawImage, places: Sequence[Place | None]) -> Iterator[Failure]:
        from osvdeploy.api.building import judge_built, tell_of

        known = [(index, place) for index, place in enumerate(places) if place is not None]
        itself, each = judge_built(ctx, Recipe.of(wanted.disk.recipe).load(), raw, [place for _, place in known])
        yield from (Failure("disk", reason) for reason in _reasons(itself))
        tell_of(ctx, itself)
        for (index, _), judged in zip(known, each, strict=True):
            tell_of(ctx, judged)
            told = set(_reasons(itself))
            yield from (Failure(self._machine(index), reason) for reason in _reasons(judged) if reason not in told)

    def _machine(self, index: int) -> str:
        return f"{camel(self.MACHINES)}[{index}]"


def _reasons(judged: Judged) -> list[str]:
    return [f"{finding}: {finding.why}; {finding.cure}" for finding in judged.refused]


def _misnamed(wanted: ReleaseInputs) -> Iterator[Failure]:
    """What is wrong with the names of variables."""
    from pydantic import TypeAdapter, ValidationError

    from osvdeploy.spec.model import Variables

    if not isinstance(wanted.env, Mapping):
        return
    try:
        TypeAdapter(Variables).validate_python(dict.fromkeys(wanted.env, ""))
    except ValidationError as error:
        for each in error.errors(include_url=False):
            name = str(each["loc"][0])
            yield Failure(joined("env", name), each["msg"].removeprefix("Value error, "))


def _variables(wanted: ReleaseInputs) -> dict[str, str]:
    # Pulumi keeps no order of a map, and a release is named by all of its variables in theirs.
    return dict(sorted(wanted.env.items()))


def _labels(wanted: ReleaseInputs) -> dict[str, str] | None:
    """The release's tags, as far as they can be told: of a disk and variables that are known."""
    from osvdeploy.api.declared import labels_of

    disk = wanted.disk
    if not is_known(disk) and not isinstance(disk, Disk):
        return None
    if not is_known((disk.digest, disk.name, disk.version, wanted.env)):
        return None
    return labels_of(disk.name, disk.version, Digest(disk.digest), _variables(wanted))


def _labels_of(image: CloudImage) -> dict[str, str]:
    """The release's tags that an image has. Raises UsageError for one that is no release's."""
    from osvdeploy.rollout.releases import release_tags_of

    return release_tags_of(image)


def _common(labels: Mapping[str, str], claim: str) -> ReleaseOutputs:
    return ReleaseOutputs(
        name=labels[tags.RELEASE],
        release=labels[tags.RELEASE],
        digest=labels[tags.DIGEST],
        image_digest=labels[tags.IMAGE],
        configuration=labels[tags.CONFIGURATION],
        claim=claim,
    )


def _claimed(urn: str, image: CloudImage) -> tuple[str, str]:
    """A word for this resource, and all words of the image with it.

    The resource may have left one before: a creation whose answer was lost, or the resource that this one replaces,
    whose deletion must not take the image along. So the new word takes the place of the old one.
    """
    mine = sha256(urn.encode())[:8]
    words = image.tags.get(tags.PROGRAMS, "").split()
    numbers = [int(number) for word in words if (number := word.removeprefix(f"{mine}.")).isdecimal()]
    claim = f"{mine}.{max(numbers, default=0) + 1}"
    return claim, " ".join(sorted([*(word for word in words if not word.startswith(f"{mine}.")), claim]))


def _below(ctx: Context, site: Site, image: CloudImage) -> list[CloudImage]:
    """The image that a release stands on, where it was made for that alone and no other release stands on it."""
    labels = {key: image.tags[key] for key in (tags.APP, tags.VERSION, tags.IMAGE)}
    others = [each for each in site.images.owned(ctx, labels) if each.id != image.id]
    if any(tags.RELEASE in each.tags for each in others):
        return []
    return [each for each in others if tags.BELOW in each.tags]


def _in_ledgers(call: Call, image: CloudImage) -> list[str]:
    """What the ledgers that are known say needs the image's release."""
    from osvdeploy.api import LEDGER_VARIABLE
    from osvdeploy.api.release_images import needed_in

    told: list[str] = []
    addresses = filter(None, [os.environ.get(LEDGER_VARIABLE), image.tags.get(tags.LEDGER)])
    for address in dict.fromkeys(addresses):
        try:
            told += needed_in(call.ctx, address, image.tags[tags.APP], image.tags[tags.RELEASE])
        except (CloudError, LedgerError, UsageError) as error:
            call.warn(f"{image.name}: the ledger {address} cannot be asked who needs it: {error.message}")
            told.append(f"the ledger {address} may need it")
    return told
