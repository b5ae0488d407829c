"""`osvdeploy:index:Image`: a raw disk, built on this machine; and `getImage`.

An image is named by what is in it. So nothing is ever replaced, the disk is not deleted (the cache is not a program's
own), and a disk that is not on this machine is no drift: it is built again by whoever needs it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from osvdeploy.errors import (
    BuildError,
    FileTreeInvalid,
    KernelInvalid,
    OsvDeployError,
    ProgramInvalid,
    SpecError,
    TreeInvalid,
    UsageError,
)
from osvdeploy.provider.base import Call, Checked, Created, Function, Resource, Seen, State, Verdict, all_unknown
from osvdeploy.provider.declare import declared, prop
from osvdeploy.provider.diffing import Change
from osvdeploy.provider.disks import Disk, Recipe
from osvdeploy.provider.parsing import Failure, joined
from osvdeploy.provider.spec import Spec, document
from osvdeploy.provider.values import is_known

if TYPE_CHECKING:
    from osvdeploy.osv.image import RawImage
    from osvdeploy.spec import LoadedSpec

NOT_THERE_YET = (FileTreeInvalid, KernelInvalid, ProgramInvalid, TreeInvalid, BuildError)
"""What a build raises of sources that another resource of the program may still be about to make."""


class ImageFormat(StrEnum):
    """A format of disks."""

    QCOW2 = "qcow2"
    VMDK = "vmdk"
    VHD = "vhd"
    GCE = "gce"


_ENDINGS = {ImageFormat.GCE: "tar.gz"}
"""Of files in a format, where it is not the format's own name."""


@declared
class ImageInputs:
    """What an image is built from."""

    file: str | None = prop(
        "The osv.toml, or its folder, relative to the program's folder. Either this or `spec`.", default=None
    )
    set_: Mapping[str, str] = prop(
        'Single values in place of those that the spec has, by their path: `{"version": "1.4.0"}`.',
        default_factory=dict,
    )
    spec: Spec | None = prop("The spec itself, by the names that an osv.toml has.", default=None)
    directory: str | None = prop(
        "With `spec`: the folder that its paths are relative to, and where osv.lock is; left out, the program's.",
        default=None,
    )
    formats: tuple[ImageFormat, ...] = prop(
        "What else the disk is written as, into `folder`: for other clouds and hypervisors.", default_factory=tuple
    )
    folder: str | None = prop(
        "With `formats`: the folder that they are written to, relative to the program's.", default=None
    )
    plan: str | None = prop(
        "Names all that the image's bytes depend on: its files' contents, the kernel, the command line.",
        default=None,
        derived=True,
    )
    named: str | None = prop(
        "App and version, as the spec says them: `orders-1.4.0`. The same bytes by another name are another release.",
        default=None,
        derived=True,
    )

    @property
    def recipe(self) -> Recipe:
        return _recipe(self.file, self.spec, self.directory, self.set_)


@declared
class ImageOutputs:
    """What was built."""

    digest: str = prop("The image's digest: the same for the same bytes, on every machine.")
    path: str = prop("The raw disk, on the machine that built it.")
    size: int = prop("The disk's size in bytes, whole GiB.")
    name: str = prop("The app, as the spec names it.")
    version: str = prop("The app's version, as the spec has it.")
    kernel: str = prop("The kernel's sha256.")
    files: Mapping[str, str] = prop("What else the disk was written as, by format.")
    disk: Disk = prop(
        "The disk for the resources of the clouds, which build it again where it is not on their machine."
    )


class Image(Resource[ImageInputs, ImageOutputs]):
    """An OSv image: a program, its files and a kernel on one raw disk, the same bytes on every machine. It is built
    when it is created, and again when anything that it is built from changes."""

    TOKEN = "osvdeploy:index:Image"
    INPUTS = ImageInputs
    OUTPUTS = ImageOutputs

    def check(self, call: Call, wanted: ImageInputs, before: ImageInputs | None) -> Checked[ImageInputs]:
        failures = list(_misplaced(wanted))
        if failures or not is_known(replace(wanted, plan=None)):
            return Checked(replace(wanted, plan=None, named=None), failures)
        try:
            loaded = wanted.recipe.load()
        except SpecError as error:
            return Checked(wanted, _failures(wanted, error))
        wanted = replace(wanted, named=f"{loaded.spec.name}-{loaded.spec.version}")
        try:
            return Checked(replace(wanted, plan=_foresee(call.without_warnings(), loaded)[0]))
        except NOT_THERE_YET:
            # In a preview, what makes the sources may not have run; whoever builds says what is missing.
            return Checked(replace(wanted, plan=None))
        except OsvDeployError as error:
            return Checked(
                wanted, [Failure(_given(wanted), f"{error.message}{f' ({error.hint})' if error.hint else ''}")]
            )

    def judge(
        self, before: State[ImageInputs, ImageOutputs], wanted: ImageInputs, changes: Sequence[Change]
    ) -> Verdict:
        # A state that was recorded before there was `named` has it in the outputs alone.
        if wanted.named in (None, before.actual.named or f"{before.outputs.name}-{before.outputs.version}"):
            changes = [each for each in changes if each.property != "named"]
        if wanted.plan is not None and wanted.plan == before.actual.plan:
            # However it is put, it is the same image; it is named and versioned by what was said, though.
            return Verdict([each for each in changes if each.property != "plan"])
        return Verdict([Change("plan") if each.property == "plan" else each for each in changes])

    def preview(self, call: Call, wanted: ImageInputs, before: State[ImageInputs, ImageOutputs] | None) -> ImageOutputs:
        unknown = all_unknown(ImageOutputs)
        if not is_known(replace(wanted, plan=None)):
            return unknown
        loaded = wanted.recipe.load()
        named = replace(unknown, name=loaded.spec.name, version=loaded.spec.version)
        try:
            _, image = _foresee(call.without_warnings(), loaded)
        except NOT_THERE_YET as error:
            call.info(f"what it is built from is not all there yet, so its digest is not known: {error.message}")
            return named
        return named if image is None else _outputs(wanted, loaded, image)

    def create(self, call: Call, wanted: ImageInputs) -> Created[ImageOutputs]:
        loaded = wanted.recipe.load()
        return Created(wanted.file or loaded.spec.name, _built(call, wanted, loaded))

    def read(
        self, call: Call, id: str, before: State[ImageInputs, ImageOutputs] | None
    ) -> Seen[ImageInputs, ImageOutputs] | None:
        if before is not None:
            return Seen(before.outputs)
        # An import: the id is an osv.toml, or its folder.
        if not Path(id).exists():
            raise UsageError(
                f"{id}: there is no such file or folder. An Image is imported by the path of its osv.toml, from the "
                "program's folder",
                hint="one whose `spec` the program gives cannot be imported, since nothing but the program has its "
                "spec: leave the import out and run `pulumi up`, which finds the disk where it is built already",
            )
        given = ImageInputs(file=id)
        loaded = given.recipe.load()
        outputs = _built(call, given, loaded)
        return Seen(outputs, replace(given, plan=_foresee(call, loaded)[0]))

    def update(self, call: Call, before: State[ImageInputs, ImageOutputs], wanted: ImageInputs) -> ImageOutputs:
        outputs = _built(call, wanted, wanted.recipe.load())
        _remove(before, kept=outputs.files.values())
        return outputs

    def delete(self, call: Call, before: State[ImageInputs, ImageOutputs]) -> None:
        _remove(before)


@declared
class GetImageInputs:
    """Which image."""

    file: str | None = prop("The osv.toml, or its folder. Either this or `spec`.", default=None)
    set_: Mapping[str, str] = prop("Single values in place of those that the spec has.", default_factory=dict)
    spec: Spec | None = prop("The spec itself, by the names that an osv.toml has.", default=None)
    directory: str | None = prop("With `spec`: the folder that its paths are relative to.", default=None)


@declared
class GetImageOutputs:
    """What is known of it."""

    plan: str = prop("Names all that the image's bytes depend on.")
    name: str = prop("The app, as the spec names it.")
    version: str = prop("The app's version, as the spec has it.")
    built: bool = prop("Whether it is built on this machine.")
    digest: str | None = prop("The image's digest, where it is built.", default=None)
    path: str | None = prop("The raw disk, where it is built.", default=None)
    size: int | None = prop("The disk's size in bytes, where it is built.", default=None)


class GetImage(Function[GetImageInputs, GetImageOutputs]):
    """What an osv.toml would build now, and the image where it is built on this machine. Builds nothing."""

    TOKEN = "osvdeploy:index:getImage"
    INPUTS = GetImageInputs
    OUTPUTS = GetImageOutputs

    def invoke(self, call: Call, asked: GetImageInputs) -> GetImageOutputs:
        loaded = _recipe(asked.file, asked.spec, asked.directory, asked.set_).load()
        plan, image = _foresee(call, loaded)
        known = GetImageOutputs(plan, loaded.spec.name, loaded.spec.version, image is not None)
        return known if image is None else replace(known, digest=image.digest, path=str(image.path), size=image.size)


def _misplaced(wanted: ImageInputs) -> Sequence[Failure]:
    if wanted.file is None and wanted.spec is None:
        return [Failure("file", "is needed: the osv.toml, or its folder; or give the spec itself as `spec`")]
    if wanted.file is not None and wanted.spec is not None:
        return [Failure("spec", "is one too many: there is `file`")]
    if wanted.directory is not None and wanted.spec is None:
        return [Failure("directory", "goes with `spec`; the paths in an osv.toml are relative to its own folder")]
    if wanted.formats and wanted.folder is None:
        return [Failure("folder", "is needed with `formats`: where they are written to")]
    if len(set(wanted.formats)) < len(wanted.formats):
        return [Failure("formats", "has one more than once")]
    return []


def _given(wanted: ImageInputs) -> str:
    return "file" if wanted.spec is None else "spec"


def _failures(wanted: ImageInputs, error: SpecError) -> list[Failure]:
    """The spec's problems, each at the property that it is about."""
    failures = []
    for each in error.problems:
        if each.file == "--set":
            failures.append(Failure(joined("set", each.path) if each.path else "set", each.message))
        elif wanted.spec is not None:
            failures.append(Failure(f"spec.{each.path}" if each.path else "spec", each.message))
        else:
            failures.append(Failure("file", f"{each}{f' ({error.hint})' if error.hint else ''}"))
    return failures


def _foresee(call: Call, loaded: LoadedSpec) -> tuple[str, RawImage | None]:
    from osvdeploy import api

    foreseen = api.foresee(call.ctx, loaded)
    return foreseen.plan, foreseen.image


def _recipe(file: str | None, spec: Spec | None, directory: str | None, sets: Mapping[str, str]) -> Recipe:
    given = None if spec is None else document(spec)
    return Recipe(file, given, directory, tuple(f"{key}={text}" for key, text in sets.items()))


def _built(call: Call, wanted: ImageInputs, loaded: LoadedSpec) -> ImageOutputs:
    from osvdeploy import api
    from osvdeploy.build.uses import in_use

    with in_use():
        image = api.build(call.ctx, loaded).image
        outputs = _outputs(wanted, loaded, image)
        for kind, target in outputs.files.items():
            Path(target).parent.mkdir(parents=True, exist_ok=True)
            api.convert(call.ctx, image.path, Path(target), wanted=kind, expected="raw", force=True)
    return outputs


def _outputs(wanted: ImageInputs, loaded: LoadedSpec, image: RawImage) -> ImageOutputs:
    name, version, path = loaded.spec.name, loaded.spec.version, str(image.path)
    recipe = wanted.recipe.written()
    folder = Path(wanted.folder or ".")
    return ImageOutputs(
        digest=image.digest,
        path=path,
        size=image.size,
        name=name,
        version=version,
        kernel=image.kernel,
        files={each.value: str(folder / f"{name}-{version}.{_ENDINGS.get(each, each)}") for each in wanted.formats},
        disk=Disk(digest=image.digest, path=path, name=name, version=version, recipe=recipe),
    )


def _remove(before: State[ImageInputs, ImageOutputs], kept: Collection[str] = ()) -> None:
    """Take away what an image was written as; the disk itself is the cache's."""
    if is_known(before.outputs.files):
        for each in set(before.outputs.files.values()) - set(kept):
            try:
                Path(each).unlink(missing_ok=True)
            except OSError as error:
                raise BuildError(f"{each}: cannot be removed: {error.strerror}") from None
