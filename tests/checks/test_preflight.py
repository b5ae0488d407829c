"""Kernel, place, boot options and disk against each other."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from osvdeploy.checks.finding import Finding, Severity
from osvdeploy.checks.places import TYPICAL, Place, aws, firecracker, gce, qemu
from osvdeploy.checks.preflight import (
    RULES,
    Contents,
    ImageFacts,
    Verdict,
    preflight,
    serves,
    serving_table,
    where_it_serves,
)
from osvdeploy.cloud.interfaces import Bus
from osvdeploy.osv.filetree import TreeBuilder
from osvdeploy.osv.kernel_facts import Driver, KernelFacts, KernelFormat
from osvdeploy.sizes import GIB, MIB
from tests.checks.known_kernels import AWS_PROFILE, KNOWN, MASTER, MICROVM, V0_57, facts

ERROR, WARNING = Severity.ERROR, Severity.WARNING
PLAIN = ImageFacts()


def image(**changes: object) -> ImageFacts:
    return replace(PLAIN, **changes)  # type: ignore[arg-type]  # by name


def contents(tables: int = 0, least: int = 0, most: int | None = None) -> Contents:
    return Contents(tables, least, least if most is None else most)


def asked_for(**options: str | None) -> ImageFacts:
    return image(options=tuple((name.replace("_", "-"), value) for name, value in options.items()))


CASES: dict[str, tuple[KernelFacts | None, ImageFacts, Place | None, dict[str, Severity]]] = {
    "no NVMe and no ENA on Nitro": (V0_57, PLAIN, aws("t3.nano"), {"disk-driver": ERROR, "network-driver": ERROR}),
    "ENA alone on Nitro": (AWS_PROFILE, PLAIN, aws("t3.nano"), {"disk-driver": ERROR}),
    "upstream's drivers on Nitro": (MASTER, PLAIN, aws("m5.large"), {"nitro-traffic": WARNING}),
    "a family nobody knows": (
        V0_57, PLAIN, aws("q9.large"),
        {"disk-driver": WARNING, "network-driver": WARNING, "machine-family": WARNING},
    ),
    "ROFS on Xen before the fix": (V0_57, PLAIN, aws("t2.micro"), {"rofs-on-xen": ERROR}),
    "ROFS on Xen, not told": (
        replace(V0_57, contiguous_mount_buffers=None), PLAIN, aws("t2.micro"), {"rofs-on-xen": WARNING},
    ),
    "ROFS on Xen after the fix": (MASTER, PLAIN, aws("t2.micro"), {}),
    "another file system on Xen": (V0_57, image(fs="zfs"), aws("t2.micro"), {}),
    "Xen with an ENA card": (
        V0_57, image(fs="zfs"), aws("r4.large"), {"network-driver": ERROR},
    ),
    "no virtio-scsi for GCE": (
        facts(V0_57.drivers and V0_57.drivers - {Driver.VIRTIO_SCSI}), PLAIN, gce("e2-small"), {"disk-driver": ERROR},
    ),
    "GCE's first generations": (V0_57, PLAIN, gce("n1-standard-1"), {}),
    "gVNIC and NVMe": (
        MASTER, PLAIN, gce("c3-standard-4"), {"network-driver": WARNING, "machine-family": WARNING},
    ),
    "gVNIC and NVMe, known": (MASTER, PLAIN, TYPICAL["GCE gVNIC series"], {"network-driver": ERROR}),
    "Graviton": (MASTER, PLAIN, aws("t4g.nano"), {"architecture": ERROR}),
    "Graviton, and no OSv": (None, PLAIN, aws("t4g.nano"), {"architecture": ERROR}),
    "UEFI alone": (
        MASTER, PLAIN, replace(TYPICAL["GCE N1, N2, E2"], boot_modes=aws("t4g.nano").boot_modes), {"boot-mode": ERROR},
    ),
    "metal": (MASTER, PLAIN, aws("m5.metal"), {"bare-metal": WARNING}),
    "too many processors": (
        MASTER, PLAIN, aws("c5.24xlarge"), {"cpu-count": ERROR, "nitro-traffic": WARNING},
    ),
    "disks of its own": (
        MASTER, PLAIN, aws("m5d.large"), {"instance-store": WARNING, "nitro-traffic": WARNING},
    ),
    "microvm on a PCI machine": (MICROVM, PLAIN, aws("t3.nano"), {"bus-driver": ERROR}),
    "microvm in QEMU's pc": (MICROVM, PLAIN, qemu(), {"bus-driver": ERROR}),
    "no virtio-mmio in Firecracker": (
        replace(AWS_PROFILE, format=KernelFormat.ELF), PLAIN, firecracker(), {"bus-driver": ERROR},
    ),
    "microvm's ELF in Firecracker": (replace(MICROVM, format=KernelFormat.ELF), PLAIN, firecracker(), {}),
    "a loader.img in Firecracker": (MICROVM, PLAIN, firecracker(), {"kernel-format": ERROR}),
    "an ELF file on EC2": (
        replace(MASTER, format=KernelFormat.ELF), PLAIN, aws("t2.micro"), {"kernel-format": ERROR},
    ),
    "nopci on a PCI machine": (MASTER, asked_for(nopci=None), aws("t2.micro"), {"nopci": ERROR}),
    "nopci in Firecracker": (replace(MICROVM, format=KernelFormat.ELF), asked_for(nopci=None), firecracker(), {}),
    "an option this kernel does not know": (V0_57, asked_for(strace=None), None, {"boot-option": ERROR}),
    "options it knows": (V0_57, asked_for(verbose=None, console="serial"), None, {}),
    "assign-net, whatever the usage says": (
        replace(V0_57, boot_options=frozenset({"assign-net"})), asked_for(assign_net=None), None,
        {"boot-option": ERROR},
    ),
    "options of a kernel that does not tell": (replace(V0_57, boot_options=None), asked_for(strace=None), None, {}),
    "a root it cannot mount": (V0_57, image(fs="ext"), None, {"root-file-system": ERROR}),
    "a disk that is too small": (
        MASTER, image(disk=GIB, kernel_size=4 * MIB, contents=contents(0, GIB)), None, {"disk-size": ERROR},
    ),
    "a disk that is too small by the room in front": (
        # The partition begins at 16 MiB, whatever the kernel takes of them.
        MASTER, image(disk=GIB, kernel_size=4 * MIB, contents=contents(0, GIB - 10 * MIB)), None, {"disk-size": ERROR},
    ),
    "a disk that may be too small": (
        MASTER, image(disk=GIB, kernel_size=4 * MIB, contents=contents(0, MIB, GIB)), None, {"disk-size": WARNING},
    ),
    "a disk that is large enough": (
        MASTER, image(disk=GIB, kernel_size=4 * MIB, contents=contents(MIB, 500 * MIB)), None, {},
    ),
    "memory for no kernel": (
        MASTER, PLAIN, replace(aws("t2.micro"), memory=8 * MIB), {"memory": ERROR},
    ),
    "memory for no tables": (
        MASTER, image(contents=contents(500 * MIB)), replace(aws("t2.micro"), memory=256 * MIB), {"memory": ERROR},
    ),
    "files larger than memory": (
        MASTER, image(contents=contents(MIB, GIB)), replace(aws("t2.micro"), memory=512 * MIB), {"rofs-cache": WARNING},
    ),
    "files larger than memory, not kept": (
        MASTER, image(contents=contents(MIB, GIB), options=(("disable_rofs_cache", None),)),
        replace(aws("t2.micro"), memory=512 * MIB), {},
    ),
    "no OSv": (None, PLAIN, aws("t3.nano"), {"unknown-kernel": WARNING}),
    "no OSv, and nopci": (None, asked_for(nopci=None), aws("t3.nano"), {"unknown-kernel": WARNING, "nopci": WARNING}),
    "nowhere in particular": (V0_57, PLAIN, None, {}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_each_rule_finds_what_it_is_for(case: str) -> None:
    """And nothing else speaks."""
    kernel, what, place, expected = CASES[case]
    found = preflight(kernel, what, place)
    assert {finding.rule: finding.severity for finding in found} == expected
    assert len(found) == len(expected), "each once"


def test_every_rule_is_shown_by_a_case() -> None:
    """A rule that no case makes speak is not known to work."""
    assert {rule for _, _, _, expected in CASES.values() for rule in expected} == set(RULES)


places = st.sampled_from(
    [*TYPICAL.values(), *map(aws, ("t3.nano", "t2.micro", "m5d.24xlarge", "i3.large", "t4g.nano", "x9.metal"))]
)
options = st.lists(st.sampled_from(["nopci", "verbose", "strace", "assign-net"]), max_size=3)
images = st.builds(
    ImageFacts,
    options=options.map(lambda names: tuple((name, None) for name in names)),
    fs=st.sampled_from(["rofs", "zfs", "ext"]),
)
kernels = st.builds(
    KernelFacts,
    format=st.sampled_from(KernelFormat),
    arch=st.sampled_from(["x86_64", "aarch64"]),
    size=st.integers(0, 1 << 24),
    drivers=st.none() | st.frozensets(st.sampled_from(Driver)),
    boot_options=st.none() | st.frozensets(st.sampled_from(["nopci", "verbose"])),
    filesystems=st.none() | st.frozensets(st.sampled_from(["rofs", "zfs"])),
    contiguous_mount_buffers=st.none() | st.booleans(),
)


@given(kernels, images, places)
def test_every_finding_is_whole(kernel: KernelFacts, what: ImageFacts, place: Place) -> None:
    """A known rule, a subject, a cure and a source; each finding once."""
    found = preflight(kernel, what, place)
    for finding in found:
        assert finding.rule in RULES
        assert all((finding.subject, finding.what, finding.why, finding.cure, finding.source)), finding
        assert finding.cure != finding.why
    assert len(set(found)) == len(found)


OF_FACTS = {"disk-driver", "network-driver", "bus-driver", "rofs-on-xen", "boot-option", "root-file-system"}


@given(kernels, images, places)
def test_what_is_not_told_refuses_nothing(kernel: KernelFacts, what: ImageFacts, place: Place) -> None:
    """With every fact None, no rule that stands on a fact refuses; with no kernel at all neither."""
    blank = KernelFacts(kernel.format, kernel.arch, kernel.size)
    for unknown in (blank, None):
        refused = {finding.rule for finding in preflight(unknown, what, place) if finding.severity is ERROR}
        assert not refused & OF_FACTS


@given(kernels, places)
def test_one_fact_less_refuses_no_more(kernel: KernelFacts, place: Place) -> None:
    """Taking a fact away never makes an error of what was none."""
    before = _refused(serves(kernel, place))
    for name in ("drivers", "contiguous_mount_buffers"):
        assert _refused(serves(replace(kernel, **{name: None}), place)) <= before  # type: ignore[arg-type]  # by name


def _refused(found: list[Finding]) -> set[str]:
    return {finding.rule for finding in found if finding.severity is ERROR}


def test_sizes_are_bounded_from_names_and_sizes_alone(tmp_path: Path) -> None:
    """Files of one size may be equal and share their blocks; files of two sizes are not."""
    builder = TreeBuilder()
    for name, content in {"/a": b"x" * 600, "/b": b"y" * 600, "/c": b"z" * 10, "/empty": b""}.items():
        builder.add_content(name.encode(), content, origin="test")
    found = Contents.of(builder.tree())
    assert (found.least, found.most) == (1024 + 512, 2 * 1024 + 512)
    assert found.tables == 32 + 4 * 42 + len("abcempty")


def test_where_a_kernel_serves() -> None:
    """One word for each kind of place, and the rules that speak against it."""
    told = {each.place: str(each) for each in where_it_serves(MASTER)}
    assert told["AWS Nitro"] == "unproved: nitro-traffic"
    assert told["GCE N1, N2, E2"] == "yes"
    assert told["GCE gVNIC series"] == "no: network-driver"
    assert told["Firecracker"] == "no: kernel-format", "a loader.img as it is; its ELF file would do"
    assert {each.verdict for each in where_it_serves(facts(None))} == {Verdict.UNKNOWN, Verdict.NO}
    assert all(place.bus is Bus.PCI for name, place in TYPICAL.items() if name != "Firecracker")


def test_readme_has_the_table_that_the_rules_give() -> None:
    """Which kernel serves where, word for word; where it differs, this shows what to put there."""
    rows = [("", *TYPICAL), *serving_table(KNOWN)]
    lines = [f"| {' | '.join(_marked(cell) for cell in row)} |" for row in rows]
    lines.insert(1, "|---" * len(rows[0]) + "|")
    table = "\n".join(lines)
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    section = readme.partition("## Which kernel serves where\n")[2].partition("\n## ")[0]
    assert table in section, f"put this into README.md:\n{table}"
    assert set(re.findall(r"^- `([a-z-]+)`", section, re.MULTILINE)) >= {
        rule for row in rows for cell in row[1:] for rule in cell.partition(": ")[2].split(", ") if rule
    }, "each rule of the table is explained below it"


def _marked(cell: str) -> str:
    verdict, colon, rules = cell.partition(": ")
    return f"{verdict}: {', '.join(f'`{rule}`' for rule in rules.split(', '))}" if colon else cell
