"""Images of any origin, taken apart."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from osvdeploy.api.building import image_path
from osvdeploy.build.uses import in_use
from osvdeploy.context import Context
from osvdeploy.errors import DiskInvalid, KernelInvalid

if TYPE_CHECKING:
    from osvdeploy.osv.anatomy import Anatomy, Totals
    from osvdeploy.osv.compare import Comparison
    from osvdeploy.osv.extract import Extracted
    from osvdeploy.osv.kernel_facts import KernelFacts
    from osvdeploy.osv.rofs import RofsReader
    from osvdeploy.osv.source import ImageFile


@dataclass(frozen=True, slots=True)
class Inspection:
    """An image taken apart. ``allocated`` is what its file takes here, in bytes. ``kernel`` is None without one, and
    where it cannot be read, which ``kernel_problem`` then says. ``totals`` is None where its files cannot be listed;
    ``unlisted`` says why."""

    path: Path
    format: str
    detail: str
    allocated: int
    anatomy: Anatomy
    kernel: KernelFacts | None
    kernel_problem: str | None
    totals: Totals | None
    unlisted: str | None


@contextmanager
def opened(ctx: Context, image: Path | str) -> Iterator[tuple[ImageFile, Anatomy]]:
    """An image of any origin, open and taken apart: a raw or qcow2 disk, a rofs.img, or an osv.toml (or its folder), of
    which the built image is meant; it is built where it is not.

    Raises DiskInvalid where it is no image.
    """
    from osvdeploy.osv.anatomy import look
    from osvdeploy.osv.source import open_image

    with in_use():
        path = image_path(ctx, image)
        with open_image(path) as file:
            try:
                anatomy = look(file.source)
            except DiskInvalid as error:
                named = error.message if error.message.startswith(f"{path}: ") else f"{path}: {error.message}"
                raise DiskInvalid(named, hint=error.hint) from None
            yield file, anatomy


def inspect(ctx: Context, image: Path | str) -> Inspection:
    """What an image consists of. What is wrong with a part of it is told there. Raises DiskInvalid."""
    from osvdeploy.osv.anatomy import kernel_facts, totals

    with opened(ctx, image) as (file, anatomy):
        facts = counted = problem = unlisted = None
        try:
            facts = kernel_facts(file.source, anatomy.kernel) if anatomy.kernel is not None else None
        except KernelInvalid as error:
            problem = error.message
        try:
            counted = totals(anatomy.tree())
        except DiskInvalid as error:
            unlisted = error.message
        return Inspection(
            path=file.path,
            format=file.format.value,
            detail=file.detail,
            allocated=file.allocated,
            anatomy=anatomy,
            kernel=facts,
            kernel_problem=problem,
            totals=counted,
            unlisted=unlisted,
        )


def compare(ctx: Context, image: Path | str, other: Path | str) -> Comparison:
    """What makes ``image`` another than ``other``: files, and what would be sent were ``other`` its parent snapshot.

    Raises DiskInvalid.
    """
    from osvdeploy.osv.compare import Side
    from osvdeploy.osv.compare import compare as compare_images

    with opened(ctx, image) as (file, anatomy), opened(ctx, other) as (other_file, other_anatomy):
        return compare_images(
            Side(str(image), file.source, anatomy),
            Side(str(other), other_file.source, other_anatomy),
            check=ctx.check,
        )


def extract(ctx: Context, image: Path | str, path: bytes | str, into: Path | str) -> Extracted:
    """Write ``path`` of an image and all below it under ``into``, and nothing outside of it. Text is a path as
    ``osvdeploy inspect ls`` shows it.

    Raises UsageError where ``path`` is not there or something is in the way; DiskInvalid.
    """
    from osvdeploy.osv.extract import extract as extract_files
    from osvdeploy.osv.extract import find

    with opened(ctx, image) as (file, anatomy):
        tree = listed(file, anatomy)
        return extract_files(tree, find(tree, path), Path(into), check=ctx.check)


def listed(file: ImageFile, anatomy: Anatomy) -> RofsReader:
    """The files of an open image. Raises DiskInvalid that names it and says why there are none."""
    try:
        return anatomy.tree()
    except DiskInvalid as error:
        raise DiskInvalid(f"{file.path}: {error.message}", hint=error.hint) from None
