"""The ports: what building, publishing and rolling out need of a place, and nothing a cloud merely offers.

Every method is synchronous, takes a :class:`~osvdeploy.context.Context` first, may be repeated (the second call finds
the first one's work) and ends in a :class:`~osvdeploy.errors.CloudError` where the place refuses or does not answer:
:class:`~osvdeploy.errors.Refused` is final, :class:`~osvdeploy.errors.Unavailable` may work later, and
:class:`~osvdeploy.errors.NotFound` after our own create means "not yet" for a bounded time. Deleting what is already
gone succeeds. Each port is held to its promises by one suite in ``tests/contract``, the memory fake included.

No name here is one cloud's: a *listener* is where traffic enters (an ELBv2 listener; a URL map), a *backend* is what
a route sends traffic to (a target group; a backend service), a *network* a subnet id or subnetwork, a *firewall* a
security group id or a network tag.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Literal, NewType, Protocol

from osvdeploy.context import Context
from osvdeploy.digests import Digest

ReleaseId = NewType("ReleaseId", str)
"""``name-version-`` and the first 8 hex digits over both digests."""

Tags = Mapping[str, str]
"""Labels on a cloud resource. Ours begin with ``osvdeploy``; see :mod:`osvdeploy.cloud.tags`."""


class Slot(StrEnum):
    """The two places a release can stand in behind a route."""

    BLUE = "blue"
    GREEN = "green"

    @property
    def other(self) -> Slot:
        return Slot.GREEN if self is Slot.BLUE else Slot.BLUE


# --------------------------------------------------------------------------------------------------------- disks


@dataclass(frozen=True, slots=True)
class Block:
    """One block of a disk: ``index`` counts from 0 in units of the store's block size; ``data`` has that length."""

    index: int
    data: bytes
    sha256: bytes


@dataclass(frozen=True, slots=True)
class UploadedDisk:
    """A finished upload. ``digest`` is the one given in the request (from a tag), ``size`` in GiB."""

    id: str
    name: str
    digest: Digest
    size_gib: int
    tags: Tags = field(default_factory=dict)
    created: datetime | None = None


@dataclass(frozen=True, slots=True)
class UploadRequest:
    """A disk to upload.

    ``name`` and ``digest`` identify it: one name never stands for two digests. ``parent`` is a finished disk of which
    only differing blocks will be sent. ``attempt`` counts from 0; the same request with the same attempt is the same
    upload, whichever process asks. ``seen`` is not part of what it is: an earlier run found this attempt's upload in
    the store, so when it is not found now, it is gone, and not merely not visible yet.
    """

    name: str
    digest: Digest
    size_gib: int
    tags: Tags
    parent: UploadedDisk | None = None
    attempt: int = 0
    seen: bool = False


class BlockSink(Protocol):
    """An upload that is open.

    Blocks may come in any order, from one caller; the sink sends several at once. The same block twice is harmless.
    """

    @property
    def id(self) -> str: ...

    @property
    def finished(self) -> UploadedDisk | None:
        """The disk, when an earlier run already completed this upload: then nothing is to be put."""

    def put(self, ctx: Context, blocks: Iterable[Block], stored: Callable[[int], None]) -> None:
        """Send them all; ``stored(index)`` is called, in the caller's thread, once the store has confirmed a block.

        Raises :class:`UploadGone` when the upload has expired or was deleted meanwhile.
        """

    def complete(self, ctx: Context, count: int, checksum: bytes) -> UploadedDisk:
        """Finish: ``count`` blocks were put in all, ``checksum`` is the sha256 over their sha256s in index order.

        Waits until the disk can be used. Raises :class:`Refused` when the store counts or sums otherwise.
        """

    def abort(self, ctx: Context) -> None:
        """Remove what was uploaded. Succeeds when it is gone."""


class Snapshots(Protocol):
    """Disks, uploaded block by block."""

    @property
    def block_size(self) -> int:
        """Bytes in a block (EBS direct: 524,288)."""

    def find(self, ctx: Context, name: str) -> UploadedDisk | None:
        """The finished disk of that name that is ours, None where there is none."""

    def start(self, ctx: Context, request: UploadRequest) -> BlockSink:
        """Open an upload, or take up the one this very request and attempt opened before.

        Raises :class:`UploadGone` when that upload failed, expired or was deleted: the caller asks with the next
        attempt.
        """

    def read(self, ctx: Context, disk_id: str, indexes: Collection[int], got: Callable[[Block], None]) -> None:
        """Hand every one of these blocks that a finished disk has, its ancestors' included, to ``got``: in any order,
        in the caller's thread, each held to its checksum. A block that it does not have is left out.

        Raises :class:`NotFound` without the disk, :class:`~osvdeploy.errors.Refused` for one that is not finished.
        """

    def stored(self, ctx: Context, disk_id: str) -> int:
        """Bytes of the blocks that a finished disk has, its ancestors' included. Raises as :meth:`read` does."""

    def delete(self, ctx: Context, disk_id: str) -> None: ...

    def owned(self, ctx: Context, tags: Tags) -> list[UploadedDisk]:
        """All of ours that carry these tags, finished or not (an unfinished one has no other mark)."""


@dataclass(frozen=True, slots=True)
class ImportRequest:
    """A disk to be made of an object. ``name``, ``digest`` and ``tags`` are the disk's, as in :class:`UploadRequest`;
    ``location`` is where the object is: its store's address, a slash, its key."""

    name: str
    digest: Digest
    tags: Tags
    location: str


class DiskImports(Protocol):
    """Disks that the place makes by itself of objects, each a VMDK.

    An import is its place's own: it goes on whoever is there to see it, and is found by name and digest. The object
    must stay until it is over.
    """

    def refuse_unready(self, ctx: Context, location: str) -> None:
        """Raise :class:`~osvdeploy.errors.Refused`, with what to do, where objects at ``location`` cannot be imported,
        as far as asking tells."""

    def find(self, ctx: Context, request: ImportRequest) -> str | None:
        """The id of the import of this disk that is under way, or done and its disk still there."""

    def start(self, ctx: Context, request: ImportRequest) -> str:
        """Begin to import; the same request is the same import, whichever process asks, unless that one is dead.

        Raises :class:`~osvdeploy.errors.Refused` without the object.
        """

    def finish(self, ctx: Context, request: ImportRequest, running: str) -> UploadedDisk:
        """Wait for an import, and label its disk: from then on :meth:`Snapshots.find` finds it.

        Raises :class:`~osvdeploy.errors.Refused` where the object makes no disk, :class:`~osvdeploy.errors.UploadGone`
        where the import failed for another reason, or its disk was deleted: another one may work.
        """

    def reading(self, ctx: Context) -> set[str]:
        """Locations of the objects that imports of ours are reading now."""


# -------------------------------------------------------------------------------------------------------- images


@dataclass(frozen=True, slots=True)
class CloudImage:
    """Something machines can be started from (an AMI, a GCE image). ``disk`` is None where it is a copy and stands on
    none. ``ready`` is False while it is being made, and where that came to nothing; ``size`` is what is kept of it in
    bytes, None where the place does not tell."""

    id: str
    name: str
    digest: Digest
    disk: str | None
    tags: Tags = field(default_factory=dict)
    created: datetime | None = None
    ready: bool = True
    size: int | None = None


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """An image to register. ``architecture`` is "x86_64"; OSv boots by BIOS, so every image is registered for that.

    Where images are made of archives, ``disk`` is the archive: its id is the object's location.
    """

    name: str
    digest: Digest
    disk: UploadedDisk
    tags: Tags
    description: str = ""
    architecture: str = "x86_64"


@dataclass(frozen=True, slots=True)
class ImageUser:
    """What starts machines from an image, or runs as one. ``told`` is what it is and what it is called, for people:
    "launch template web (lt-0123456789abcdef0), version 3"; ``ours`` where it carries our tags."""

    told: str
    ours: bool

    def has(self, image: str) -> str:
        """That it has an image, in words."""
        return f"{self.told}{'' if self.ours else ', which others made,'} has {image}"


class ImageRegistry(Protocol):
    """Makes an uploaded disk bootable."""

    def find(self, ctx: Context, name: str) -> CloudImage | None:
        """The image of that name in our account. Raises :class:`NotOurs` when it does not carry our tags."""

    def get(self, ctx: Context, image_id: str) -> CloudImage | None:
        """The image of that id, once it can be used; None where there is none.

        Raises :class:`NotOurs` when it does not carry our tags, :class:`~osvdeploy.errors.Refused` for what is no id
        of an image here.
        """

    def register(self, ctx: Context, request: ImageRequest) -> CloudImage:
        """Register and wait until usable. Same name and digest: the image that is there; same name and another
        digest: :class:`ImageNameTaken`."""

    def deregister(self, ctx: Context, image_id: str) -> None:
        """Take it away; its disk stays."""

    def owned(self, ctx: Context, tags: Tags) -> list[CloudImage]:
        """All of ours that carry these tags."""

    def retag(self, ctx: Context, image_id: str, tags: Tags, without: Collection[str] = ()) -> None:
        """Give an image, and the disk that it stands on, these tags beside those that it has, and take those of
        these names away. Raises :class:`NotFound` without the image, :class:`NotOurs` for another's."""

    def users(self, ctx: Context, images: Sequence[CloudImage]) -> Mapping[str, Sequence[ImageUser]]:
        """What in the account starts machines from these images, by the images' ids; those that nothing does have no
        entry. Groups, whoever made them, what others keep to make groups and machines of, and machines that others
        started, where an image that goes is missed by them. What keeps no more than our own record of a release is
        none. Nothing is asked where there are no images.

        Raises :class:`~osvdeploy.errors.Refused` where one may not look: then nothing is known of any of them.
        """


class ArchiveImages(ImageRegistry, Protocol):
    """Makes archives bootable; that takes the place some time."""

    def begin(self, ctx: Context, request: ImageRequest) -> None:
        """Ask for an image and do not wait: several are made at once. :meth:`register` then waits for it."""


class ImageFamilies(Protocol):
    """Names that lead to the newest image which may be used."""

    def current(self, ctx: Context, family: str) -> CloudImage | None:
        """What a family leads to; None where none of its images may be used, or it has none."""

    def members(self, ctx: Context, family: str) -> list[CloudImage]:
        """Those of its images that may be used, the one that leads first, then what would lead without it."""

    def offer(self, ctx: Context, image: CloudImage, family: str | None) -> None:
        """Put an image that is ready into a family, out of the one that it is in; the newest image of all leads. None:
        into none. Twice is once."""

    def withdraw(
        self, ctx: Context, image: CloudImage, replacement: CloudImage | None = None, *, obsolete: bool = False
    ) -> None:
        """Let no family lead to an image any more. Machines may still be started from it by its name, unless it is
        ``obsolete``; ``replacement`` is what they are told of. Raises :class:`NotFound`."""

    def restore(self, ctx: Context, image: CloudImage) -> None:
        """Take a withdrawal back. Raises :class:`NotFound`."""


# ------------------------------------------------------------------------------------------------- machine types


class Hypervisor(StrEnum):
    """What stands between a machine and its hardware."""

    NITRO = "nitro"
    XEN = "xen"
    KVM = "kvm"
    """KVM or QEMU's own translation, with QEMU's devices or those of a cloud that is built on it (GCE)."""
    FIRECRACKER = "firecracker"
    METAL = "metal"
    """Nothing: the hardware itself."""


class BootMode(StrEnum):
    """How a machine finds what it runs."""

    BIOS = "legacy-bios"
    UEFI = "uefi"
    DIRECT = "direct"
    """The hypervisor loads the kernel file by itself (Firecracker, QEMU's ``-kernel``)."""


class Bus(StrEnum):
    """How a guest finds its devices."""

    PCI = "pci"
    MMIO = "virtio-mmio"


class DiskInterface(StrEnum):
    """What a guest's disk looks like."""

    NVME = "NVMe"
    XEN = "Xen block device"
    VIRTIO_BLK = "virtio-blk"
    VIRTIO_SCSI = "virtio-scsi"
    AHCI = "AHCI"


class NetworkInterface(StrEnum):
    """What a guest's network card looks like."""

    ENA = "ENA"
    XEN = "Xen network device"
    VIRTIO_NET = "virtio-net"
    GVNIC = "gVNIC"
    IDPF = "IDPF"


@dataclass(frozen=True, slots=True)
class MachineType:
    """A kind of machine that a place offers.

    ``architectures`` are "x86_64", "aarch64" and what else there is, in Linux's words. A guest that drives any one of
    ``disks`` finds its boot disk, any one of ``networks`` its network. ``cpus`` are virtual, ``memory`` is in bytes.
    ``local_nvme``: it has NVMe disks of its own beside the boot disk.
    """

    name: str
    architectures: frozenset[str]
    hypervisor: Hypervisor
    boot_modes: frozenset[BootMode]
    disks: frozenset[DiskInterface]
    networks: frozenset[NetworkInterface]
    cpus: int
    memory: int
    local_nvme: bool = False


class MachineTypes(Protocol):
    """What kinds of machines a place has."""

    def describe(self, ctx: Context, name: str) -> MachineType | None:
        """One kind, None where the place has none of that name."""

    def names(self, ctx: Context) -> list[str]:
        """The names of all of them, sorted."""


# -------------------------------------------------------------------------------------------------------- groups


@dataclass(frozen=True, slots=True)
class GroupRequest:
    """Machines of one release: ``name`` names group and template; ``capacity`` machines, spread over ``networks``."""

    name: str
    release: ReleaseId
    image: str
    capacity: int
    machine_type: str
    networks: tuple[str, ...]
    firewalls: tuple[str, ...]
    backend: str
    tags: Tags


class MachineState(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    STOPPED = "stopped"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Machine:
    """One machine of a group. ``note`` is the cloud's reason for its state, where it gives one."""

    id: str
    state: MachineState
    note: str = ""


@dataclass(frozen=True, slots=True)
class GroupState:
    """What a group is now. ``capacity`` is 0 while it is not behind its backend. ``troubles`` are the place's own words
    for machines it could not start or keep; ``deleting`` while it goes away. ``created``: when it was made, by whoever
    made it; None where the place does not tell."""

    name: str
    release: ReleaseId | None
    capacity: int
    machines: tuple[Machine, ...]
    troubles: tuple[str, ...] = ()
    deleting: bool = False
    tags: Tags = field(default_factory=dict)
    created: datetime | None = None


@dataclass(frozen=True, slots=True)
class GroupCount:
    """A group among many: of ``capacity`` machines ``up`` run, as the place has it, whatever a balancer thinks of
    them."""

    name: str
    capacity: int
    up: int
    deleting: bool = False


@dataclass(frozen=True, slots=True)
class Scaling:
    """What changes a group's size without us: bounds, and rules that the place follows between them.

    ``desired`` machines are what it is to have now. ``parts`` name for people what scales it: an autoscaler, a policy,
    a scheduled action, a hook. ``paused``: nothing makes the group smaller by itself now, or nothing could.
    ``rules`` are the place's own documents, as JSON that the same place can give to another group; what they say of the
    group itself (its name, its backend) is left open in them.
    """

    minimum: int
    desired: int
    maximum: int
    parts: tuple[str, ...] = ()
    paused: bool = False
    rules: str = "{}"

    @property
    def fixed(self) -> bool:
        """Whether the group is as :meth:`InstanceGroups.ensure` makes it: of one size, which nobody else changes."""
        return not self.parts and not self.moves

    @property
    def moves(self) -> bool:
        """Whether there are bounds between which the size may change."""
        return self.minimum < self.maximum

    def most(self, size: int) -> int:
        """The maximum for a group of ``size`` machines, which is not to be made smaller than ``desired`` by it."""
        return max(self.maximum, min(size, self.desired)) if self.moves else self.maximum


@dataclass(frozen=True, slots=True)
class GroupShape:
    """What a group starts its machines as, by its template as it is now; fields as in :class:`GroupRequest`."""

    image: str
    machine_type: str
    networks: tuple[str, ...]
    firewalls: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AttachRequest:
    """Somebody's group that is to stand behind a backend, too. ``capacity``: it is brought to so many machines at
    least, 0 for as many as it has. ``tags`` are its release's, with :data:`~osvdeploy.cloud.tags.ADOPTED` where the
    group is not to be taken away by us."""

    name: str
    release: ReleaseId
    backend: str
    tags: Tags
    capacity: int = 0


class InstanceGroups(Protocol):
    """Groups of equal machines, one per release.

    A group is made of one size. Whatever scales it is the user's, attached to it by whatever means; :meth:`scaling`
    sees it, and :meth:`apply` gives the same to another group.
    """

    def ensure(self, ctx: Context, request: GroupRequest) -> None:
        """Make the group, or bring an existing one of ours to ``capacity``. Returns without waiting for machines.

        Raises :class:`NotOurs` when the name is taken by another's group, :class:`Refused` when it is ours but holds
        another release or image.
        """

    def observe(self, ctx: Context, name: str) -> GroupState | None:
        """The group now, None where there is none (any more)."""

    def machines(self, ctx: Context, name: str) -> tuple[Machine, ...]:
        """The machines started for this group, those already replaced or gone included as long as the place tells of
        them, newest first; none of an earlier group of the same name."""

    def delete(self, ctx: Context, name: str) -> None:
        """Begin to take the group and its machines away; its template stays. Returns without waiting. One that was
        attached as somebody else's is let go instead: it stays, with its machines, as it was before."""

    def attach(self, ctx: Context, request: AttachRequest) -> None:
        """Put a group that somebody else made behind a backend, beside all that it stands behind, and give it tags: it
        is one of ours from then on, until :meth:`delete`. Its template is left as it is. Once it is, it is made larger
        where it is to be, which turns off what scales it where nobody else may change its size then.

        Raises :class:`NotFound` without the group, :class:`NotOurs` where it is another service's or release's.
        """

    def owned(self, ctx: Context, tags: Tags) -> list[GroupState]: ...

    def shape(self, ctx: Context, name: str) -> GroupShape | None:
        """What the group's machines are, whoever made it; None without the group, or where no template says so."""

    def counted(self, ctx: Context, tags: Tags) -> list[GroupCount]:
        """All of ours with these tags, as lists tell of them: by a call for many groups, and none for each."""

    def scaling(self, ctx: Context, name: str) -> Scaling | None:
        """What scales the group, None without the group or while it is going."""

    def pause(self, ctx: Context, name: str) -> None:
        """Let nothing make the group smaller by itself; what the user has paused stays as it is, and so does every
        rule. Where the place cannot stop one direction alone, nothing makes it larger either. Succeeds without the
        group, and where nothing scales it."""

    def resume(self, ctx: Context, name: str, scaling: Scaling, *, grown: bool = False) -> None:
        """Undo :meth:`pause`: what was paused in ``scaling``, read before, stays so. Rules that were changed since are
        left as they are. ``grown``: :meth:`attach` has made the group larger since, and what that turned off is turned
        on again too. Succeeds without the group."""

    def unpaused(self, there: Scaling, before: Scaling) -> Scaling:
        """What :meth:`scaling` told, as it would tell after :meth:`resume` with ``before``; the same where nothing is
        to be undone. Asks nobody."""

    def apply(self, ctx: Context, name: str, scaling: Scaling) -> None:
        """Give a group the bounds (where there are any) and rules of another one, and take away what it has beyond
        them; its size changes only where it is out of these bounds, and never to fewer than ``scaling.desired``: where
        those are more than the maximum, what there is of them is its maximum, which is told. A rule whose time is over
        is left out. Raises :class:`NotFound` without the group."""

    def follows(self, ctx: Context, name: str, scaling: Scaling) -> bool:
        """Whether :meth:`apply` has nothing left to do."""

    def templates(self, ctx: Context, tags: Tags) -> list[str]:
        """Names of our templates with these tags."""

    def delete_template(self, ctx: Context, name: str) -> None: ...


# ------------------------------------------------------------------------------------------------------- traffic


@dataclass(frozen=True, slots=True)
class HealthRule:
    """How a backend decides that a machine is healthy: GET ``path`` each ``interval`` seconds, a 2xx answer. Of the
    ``kind`` "tcp" it is a connection that is accepted."""

    path: str
    interval: float
    timeout: float
    healthy: int = 2
    unhealthy: int = 2
    kind: Literal["http", "tcp"] = "http"
    beside: str = ""
    """Of one that is found: what it has that no route asks for, in words."""

    def __str__(self) -> str:
        asked = f"GET {self.path}" if self.kind == "http" else "a connection"
        asked += f" ({self.beside})" if self.beside else ""
        times = f"healthy after {self.healthy} of them, unhealthy after {self.unhealthy} without"
        return f"{asked} each {self.interval:g} s, answered within {self.timeout:g} s; {times}"


@dataclass(frozen=True, slots=True)
class Route:
    """One service's way in: what the user declared, plus whose it is.

    Requests that match ``host`` and ``path`` on ``listener`` go to the slots by weight. The route's rule stands at
    ``priority``, the two preview rules at ``priority`` - 2 (blue) and - 1 (green): a request with the header
    ``preview_header`` set to a slot's name reaches that slot, whatever its weight.
    Where the listener is a pointer, all that comes to it is the route's: ``priority`` is 0 and ``preview_header`` "".
    ``key`` is short and unique to the service: names of backends derive from it. ``slow_start`` is how many seconds a
    machine that joins healthy ones takes to its full share, 0 for none: of the route, this alone may change in use.
    """

    key: str
    service: str
    listener: str
    priority: int
    port: int
    health: HealthRule
    preview_header: str
    host: str | None = None
    path: str | None = None
    tags: Tags = field(default_factory=dict)
    slow_start: float = 0.0


@dataclass(frozen=True, slots=True)
class RouteState:
    """What stands behind a route now.

    ``backends`` has the slots that are wired up whole: backend and preview rule. ``weights`` is None while the
    route's own rule does not exist. ``base_url`` is where a client enters (scheme, address, port), ``addresses`` the
    entry points to probe one by one. ``rules`` are for the record.

    Not ``weighted``, it is a pointer: all of its traffic goes to one slot or to the other, or, while ``weights`` is
    None, to what the user let it lead to. It takes no preview header either: ``previews`` tells where each slot that is
    wired up is asked, as ``base_url`` does.

    ``left`` is the release that :meth:`TrafficRouter.note_left` has noted on the route. ``partial``: ``addresses`` may
    not be all by which clients enter, so that what is proved there may not hold elsewhere yet.

    ``changed``: how the route's own rule is otherwise than :meth:`TrafficRouter.set_weights` writes it, beside the
    weights of the slots, as the rest of a sentence about that rule; "" where no client notices.
    """

    backends: Mapping[Slot, str]
    weights: Mapping[Slot, int] | None
    base_url: str
    addresses: tuple[str, ...]
    rules: Mapping[str, str] = field(default_factory=dict)
    weighted: bool = True
    previews: Mapping[Slot, str] = field(default_factory=dict)
    left: ReleaseId | None = None
    partial: bool = False
    changed: str = ""

    def sends(self, weights: Mapping[Slot, int]) -> bool:
        """Whether traffic goes by these weights and nowhere else."""
        return self.weights == weights and not self.changed


@dataclass(frozen=True, slots=True)
class TargetHealth:
    """One machine behind a backend. ``state`` is the field's word: initial, healthy, unhealthy, draining, unused."""

    machine: str
    state: str
    reason: str = ""

    @property
    def used(self) -> bool:
        """Whether it gets its part of what comes to its slot, once it is healthy."""
        return self.state not in ("draining", "unused")


class TrafficRouter(Protocol):
    """Moves a route's traffic between its two slots."""

    def observe(self, ctx: Context, route: Route) -> RouteState:
        """What is there. Raises :class:`NotFound` without the listener, :class:`NotOurs` when a rule that is not ours
        holds one of the three priorities, a backend of ours carries another service's tags, or a pointer leads to
        machines that are not ours."""

    def ensure_slots(self, ctx: Context, route: Route) -> None:
        """Make both backends and both preview rules. The route's own rule is not touched, and a pointer leads where it
        led."""

    def health(self, ctx: Context, route: Route, slot: Slot) -> tuple[TargetHealth, ...]:
        """Each machine registered with the slot's backend, whoever did it, called as
        :meth:`InstanceGroups.observe` calls it; whatever is no machine at the route's port, by another name."""

    def set_weights(self, ctx: Context, route: Route, weights: Mapping[Slot, int]) -> None:
        """Make the route's rule send by these weights (0-100 each): one mutating call, all or nothing. What somebody
        has changed of that rule (:attr:`RouteState.changed`) is put right with it. Raises :class:`Refused` for a
        pointer and others than 0 and 100."""

    def find(self, ctx: Context, service: str, key: str) -> list[Route]:
        """The ways in that a service has in this place, as names and tags alone tell: ``key`` is that of its
        :class:`Route`. None where there is nothing of it, or no rule of its own that sends traffic."""

    def forget(self) -> None:
        """Remember nothing of what was seen: the next look asks for all of it. Others may have written a note since."""

    def note_left(self, ctx: Context, route: Route, left: ReleaseId | None) -> None:
        """Note on the route that traffic was taken from a release without its ledger; None takes the note away. It
        stays when weights are set. Raises :class:`NotFound` where the route has no rule of its own yet."""

    def in_use(self, ctx: Context, route: Route) -> str:
        """What of somebody else's has exactly the requests that the route is to take, in words, and would lose them to
        the route's own rule; "" for nothing."""

    def weights_of(self, ctx: Context, routes: Sequence[Route]) -> Mapping[str, Mapping[Slot, int] | None]:
        """The weights of many routes, by their keys: a few calls for each listener, and none for each route. None where
        a route's own rule is not there, or is another's; a route whose listener is gone is left out."""

    def slow_start(self, ctx: Context, route: Route, slot: Slot) -> float | None:
        """Over how many seconds a machine that joins healthy ones behind the slot's backend comes to its full share, 0
        for at once; None without the backend, and where the place has nothing like it."""

    def set_slow_start(self, ctx: Context, route: Route) -> None:
        """Let those of the two backends that are there do as the route says of it; machines that are healthy keep their
        share. Raises :class:`Refused` where the route wants it and the place has nothing like it."""

    def check_of(self, ctx: Context, route: Route, slot: Slot) -> HealthRule | None:
        """How the slot's backend decides that a machine is healthy: the route's own rule where it was left as it was
        made, whatever the place has rounded; None without the backend."""

    def refuse_unadoptable(self, ctx: Context, route: Route, group: str) -> str:
        """What sends a group the requests that the route is to take, in words: what is somebody else's, and stays.

        Raises :class:`~osvdeploy.errors.UsageError`, with what to do, where the route's own rule could not take exactly
        those, or taking them would change how they are answered. Changes nothing.
        """

    def give_back(self, ctx: Context, route: Route) -> None:
        """Take the route's own rule away, and nothing else: its requests go where they would without it."""

    def remove(self, ctx: Context, route: Route) -> None:
        """Take the three rules and both backends away; a pointer leads where it led before, or stays where somebody
        let it lead since."""


class Fence(Protocol):
    """Shuts out whoever changed a route before, where the place knows versions of its rules.

    ``epoch`` is that of the lease whose holder we are. From either call on, this object's writes to the route carry it
    as far as they can, and raise :class:`~osvdeploy.errors.Outranked` once a higher one has been written.
    """

    def hold(self, route: Route, epoch: int) -> None:
        """Write under this epoch from now on; the first change of the route that carries it shuts out those before."""

    def take_over(self, ctx: Context, route: Route, epoch: int) -> None:
        """Likewise, and at once: of whoever held it before, nobody knows that it has stopped."""


# ------------------------------------------------------------------------------------------------ looking at guests


class Console(Protocol):
    """What a machine printed on its serial port."""

    def read(self, ctx: Context, machine: str) -> str:
        """The text so far, "" where the place has none (yet); undecodable bytes replaced."""


@dataclass(frozen=True, slots=True)
class ProbeRequest:
    """One GET. ``address`` (host or host:port) is dialled instead of the one in ``url`` where given; ``timeout`` in
    seconds covers all of it. Redirects are not followed and no proxy of the environment is used.

    Of the ``kind`` "tcp" it is a connection alone, to the host and port of ``url``. ``via`` is a command that sends it
    from where it runs, instead of this process (:mod:`osvdeploy.cloud.local.probing`).
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout: float = 5.0
    address: str | None = None
    kind: Literal["http", "tcp"] = "http"
    via: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ProbeAnswer:
    """What came back: ``status`` None and ``error`` set where no HTTP answer came. Header names are lower case,
    ``body`` is the first 2 KiB. Of the kind "tcp", ``held``: the connection was made and not closed at once."""

    status: int | None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    error: str = ""
    held: bool = False


class Prober(Protocol):
    """Asks a service as a client would. Never raises for what the network or the service does."""

    def probe(self, ctx: Context, request: ProbeRequest) -> ProbeAnswer: ...


# ------------------------------------------------------------------------------------------------------- measuring


class Statistic(StrEnum):
    """What is told of all that was measured in an interval."""

    SUM = "sum"
    AVERAGE = "average"
    MINIMUM = "minimum"
    MAXIMUM = "maximum"
    P50 = "p50"
    P90 = "p90"
    P95 = "p95"
    P99 = "p99"


@dataclass(frozen=True, slots=True)
class CloudWatchMetric:
    """A metric of CloudWatch: of the slot's target group where ``namespace`` is None. ``per`` is another one that it is
    counted of."""

    name: str
    per: str | None
    statistic: Statistic
    namespace: str | None = None
    dimensions: Mapping[str, str] = field(default_factory=dict)
    kind: Literal["cloudwatch"] = "cloudwatch"


@dataclass(frozen=True, slots=True)
class MonitoringMetric:
    """A metric type of Cloud Monitoring: of the slot's backend service where it is one of a balancer's. ``labels`` are
    those that ``type`` must have, ``per_labels`` those of ``per``."""

    type: str
    per: str | None
    statistic: Statistic
    labels: Mapping[str, str] = field(default_factory=dict)
    per_labels: Mapping[str, str] = field(default_factory=dict)
    kind: Literal["cloud-monitoring"] = "cloud-monitoring"


@dataclass(frozen=True, slots=True)
class PrometheusMetric:
    """A query in PromQL. ``token_variable`` names the environment variable that holds a bearer token."""

    address: str
    query: str
    per: str | None = None
    token_variable: str | None = None
    kind: Literal["prometheus"] = "prometheus"


@dataclass(frozen=True, slots=True)
class JsonMetric:
    """The number at ``pointer`` (RFC 6901) of a JSON document, as it is when it is asked for."""

    url: str
    pointer: str
    token_variable: str | None = None
    kind: Literal["json"] = "json"


@dataclass(frozen=True, slots=True)
class CommandMetric:
    """The number that a program of this host prints, as it is when it is run."""

    argv: tuple[str, ...]
    kind: Literal["command"] = "command"


Metric = CloudWatchMetric | MonitoringMetric | PrometheusMetric | JsonMetric | CommandMetric


@dataclass(frozen=True, slots=True)
class Measured:
    """Whose numbers are asked for: what stands in a slot of a route."""

    route: Route
    slot: Slot
    release: ReleaseId
    group: str

    def filled(self, text: str, interval: float) -> str:
        """The text with its placeholders filled in: ``{{release}}``, ``{{slot}}``, ``{{group}}`` and ``{{interval}}``,
        in whole seconds as Prometheus writes them."""
        known = {
            "release": self.release,
            "slot": self.slot.value,
            "group": self.group,
            "interval": f"{round(interval)}s",
        }
        return re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda found: known.get(found[1], found[0]), text)


@dataclass(frozen=True, slots=True)
class Grid:
    """Intervals that follow one another without a gap: ``count`` of them from ``begin`` on, ``interval`` seconds
    each."""

    begin: datetime
    interval: float
    count: int

    @property
    def end(self) -> datetime:
        return self.start(self.count)

    def start(self, number: int) -> datetime:
        """When an interval begins, counted from 0."""
        return self.begin + timedelta(seconds=number * self.interval)

    def holds(self, at: datetime) -> bool:
        """Whether one of the intervals begins then."""
        number = (at - self.begin).total_seconds() / self.interval
        return number.is_integer() and 0 <= number < self.count


@dataclass(frozen=True, slots=True)
class Sample:
    """One interval's number; ``at`` is when the interval began. ``of`` is how many it was counted of, None for what is
    no count."""

    at: datetime
    value: float
    of: float | None = None


class Metrics(Protocol):
    """Numbers that somebody counts of what stands in a slot."""

    def refuse_unready(self, ctx: Context, metric: Metric) -> None:
        """Raise :class:`~osvdeploy.errors.UsageError`, with what to do, where it could not be read from here: no such
        program, a variable that is not set. Asks nobody."""

    def read(self, ctx: Context, metric: Metric, measured: Measured, grid: Grid) -> tuple[Sample, ...]:
        """One sample for each of the grid's intervals of which there is a number, in the order of time, and none for
        the others. Of a ratio, an interval in which nothing was counted has none, and one in which only ``per`` was
        counted has 0 of it. A source that tells only what is now has at most one: that of the last interval.

        The same grid may be asked for any number of times. Raises :class:`~osvdeploy.errors.Unavailable` where the
        source does not answer, :class:`~osvdeploy.errors.Refused` where it will not, or knows no such metric.
        """

    def requests(self, ctx: Context, measured: Measured, grid: Grid) -> tuple[Sample, ...]:
        """How many requests the place has sent to a slot, by whole minutes: one sample for each that has any. Raises
        as :meth:`read` does."""


# ---------------------------------------------------------------------------------------------------------- hooks


@dataclass(frozen=True, slots=True)
class CommandHook:
    """A program of this host: started as it is named, by no shell, with this process's environment."""

    argv: tuple[str, ...]
    kind: Literal["command"] = "command"


@dataclass(frozen=True, slots=True)
class HttpHook:
    """An address that is posted to. ``header_variables`` are headers whose values this process's environment has, by
    the names of the variables."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    header_variables: Mapping[str, str] = field(default_factory=dict)
    kind: Literal["http"] = "http"


HookAction = CommandHook | HttpHook

HOOK_OUTPUT = 4096
"""Bytes that are kept of what a hook says: its last ones."""


@dataclass(frozen=True, slots=True)
class HookAnswer:
    """What a hook came to. ``told`` is one line for people, ``output`` the last that it said, at most
    :data:`HOOK_OUTPUT` bytes."""

    passed: bool
    told: str
    output: str = ""


class RunningHook(Protocol):
    """A hook that was started."""

    def answer(self) -> HookAnswer | None:
        """What it came to, None while it runs. Neither waits nor raises."""

    def wait(self, seconds: float) -> None:
        """Wait for the answer, so long at most."""

    def stop(self) -> None:
        """Have it ended, with all that it has started, and do not wait for that."""

    def close(self) -> None:
        """Have it ended, and wait for that some seconds at most. To be called once, whatever it came to."""


class Hooks(Protocol):
    """Asks programs and addresses that have a say in a rollout."""

    def refuse_unready(self, ctx: Context, action: HookAction) -> None:
        """Raise :class:`~osvdeploy.errors.UsageError`, with what to do, where it could not be started from here: no
        such program, a variable that is not set. Starts nothing."""

    def start(self, ctx: Context, action: HookAction, content: bytes, timeout: float) -> RunningHook:
        """Start it, with ``content`` (JSON) on its stdin or as its body; it has ``timeout`` seconds. Never raises for
        what it does or does not: that is its answer. It ends with this process, however that ends."""


# ---------------------------------------------------------------------------------------------------- notifications


@dataclass(frozen=True, slots=True)
class WebhookTarget:
    """An address that is posted to; where ``url`` is None, the environment variable ``variable`` has it. ``format``
    "slack" is what Slack's incoming webhooks take, "json" all that there is to tell."""

    url: str | None
    variable: str | None = None
    format: Literal["json", "slack"] = "json"
    kind: Literal["webhook"] = "webhook"

    def __str__(self) -> str:
        return f"webhook {self.variable or self.url}"


@dataclass(frozen=True, slots=True)
class SnsTarget:
    """A topic of Amazon SNS, by its ARN."""

    topic: str
    kind: Literal["sns"] = "sns"

    def __str__(self) -> str:
        return f"sns {self.topic}"


@dataclass(frozen=True, slots=True)
class PubSubTarget:
    """A topic of Google's Pub/Sub, as ``projects/PROJECT/topics/TOPIC``."""

    topic: str
    kind: Literal["pubsub"] = "pubsub"

    def __str__(self) -> str:
        return f"pubsub {self.topic}"


NoticeTarget = WebhookTarget | SnsTarget | PubSubTarget


@dataclass(frozen=True, slots=True)
class Message:
    """What is told. ``event`` names it, the same however often it is sent; ``notice`` is what sort of news it is.
    ``subject`` is one line of printable ASCII, at most 100 characters; ``body`` JSON, ``text`` for people."""

    event: str
    notice: str
    service: str
    subject: str
    body: bytes
    text: str


class Notifier(Protocol):
    """Tells others."""

    def refuse_unready(self, ctx: Context, target: NoticeTarget) -> None:
        """Raise :class:`~osvdeploy.errors.UsageError`, with what to do, for what cannot be told from here. Sends
        nothing."""

    def send(self, ctx: Context, target: NoticeTarget, message: Message) -> RunningHook:
        """Begin to send; within some ten seconds it has an answer. Never raises for what comes of it. A message may
        arrive more than once, never in part."""


# -------------------------------------------------------------------------------------------------------- objects


class ObjectSource(Protocol):
    """Bytes that can be made anew, the same each time, as often as asked: a file, an archive made on its way out."""

    @property
    def digest(self) -> Digest:
        """What names them: of two sources with one digest, either will do."""

    @property
    def size(self) -> int | None:
        """How many there are, None where that is known only once they are made."""

    def pieces(self) -> Iterator[bytes]:
        """All of them, from the first on, in pieces of any length."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object, whole. ``digest`` is its source's, None for one that :meth:`ObjectStore.put_if_absent` made; ``size``
    is in bytes."""

    key: str
    size: int
    digest: Digest | None
    created: datetime


@dataclass(frozen=True, slots=True)
class UnfinishedObject:
    """What an upload left behind, or has under way, at ``key``; ``begun`` then, or touched last. ``id`` is the
    store's; ``size`` is what there is of it in bytes, None where the store does not tell."""

    key: str
    id: str
    begun: datetime
    size: int | None = None


class ObjectStore(Protocol):
    """Named objects that are written once. The ledger stands on the small ones; disks pass through as large ones.

    Keys are relative paths of ASCII letters, digits and ``._-/``. What is written is seen by every later read.
    """

    @property
    def address(self) -> str:
        """Where it is, as the user wrote it (a directory, s3://..., gs://...)."""

    def refuse_unwritable(self, ctx: Context, prefix: str) -> None:
        """Raise where objects whose keys begin with ``prefix`` could not be put, as far as asking tells. Writes
        nothing."""

    def put_if_absent(self, ctx: Context, key: str, content: bytes) -> bool:
        """Create, whole or not at all, durable on return. False when the key exists already; of several that put one
        key at once exactly one is told True, however often an answer is lost and the call repeated on the way."""

    def get(self, ctx: Context, key: str) -> bytes | None: ...

    def keys(self, ctx: Context, prefix: str, limit: int | None = None) -> Iterator[str]:
        """Keys of whole objects that begin with ``prefix``, in ascending order, at most ``limit``."""

    def folders(self, ctx: Context, prefix: str) -> Iterator[str]:
        """What stands between ``prefix`` ("", or ending in a slash) and the next slash of the keys that begin with it,
        each once, in the order of the keys: what is below is not gone through."""

    def delete(self, ctx: Context, key: str) -> None: ...

    def find(self, ctx: Context, key: str) -> StoredObject | None:
        """What is known of an object, without its bytes."""

    def put_file(self, ctx: Context, key: str, source: ObjectSource) -> StoredObject:
        """Create an object of any size from a source, whole or not at all, durable on return.

        The key exists already: with this digest it is returned and nothing is sent, with another
        :class:`~osvdeploy.errors.ObjectTaken` is raised. What a run sent that was interrupted or killed stays, and the
        next run of any process, on any machine, sends only the rest; a refusal takes it away. Memory holds some parts,
        never the whole. Reports :class:`~osvdeploy.events.Progress` in bytes, those found stored included.
        """

    def unfinished(self, ctx: Context, prefix: str) -> list[UnfinishedObject]:
        """What uploads left behind, or have under way now, at keys that begin with ``prefix``."""

    def abort(self, ctx: Context, upload: UnfinishedObject) -> None:
        """Take away what an upload left. Whole objects stay, and an upload under way fails or begins again."""


class JoiningStore(ObjectStore, Protocol):
    """An object store that makes objects of others, without their bytes passing through here."""

    def join(self, ctx: Context, key: str, parts: Sequence[str], digest: Digest) -> StoredObject:
        """Create an object of the bytes of others, in this order, whole or not at all; they stay.

        The key exists already: with this digest it is returned, with another
        :class:`~osvdeploy.errors.ObjectTaken` is raised. Raises :class:`NotFound` without one of the parts.
        """


# ------------------------------------------------------------------------------------------------------ foreseeing


@dataclass(frozen=True, slots=True)
class PlannedCall:
    """A call that would change something, in the place's own words: ``autoscaling`` and ``CreateAutoScalingGroup``,
    ``compute`` and ``backendServices.insert``. ``resource`` is what it is about, as far as that is known."""

    service: str
    operation: str
    resource: str


Foretold = Sequence[PlannedCall]


class Foresight(Protocol):
    """Tells by which calls this place's adapters would make a change, and makes none.

    What a change would leave is remembered, so that the next one is told from there: one object is for one plan. What
    is there now is read, when it is first needed. Each method tells what the port's method of the same name does. An
    image that is yet to be made has no id. tests/story/test_plan.py holds what is foretold to what is then called.
    """

    def backend(self, route: Route, slot: Slot) -> str:
        """What leads to a slot, as a group is told of it, whether it is there or not."""

    def renamed(self, route: Route) -> bool:
        """Whether a slot counts as wired only while its preview rule names the release that stands there."""

    def ensure_slots(self, ctx: Context, route: Route, missing: Collection[Slot]) -> Foretold:
        """``missing`` are the slots that are not wired."""

    def set_weights(self, ctx: Context, route: Route, weights: Mapping[Slot, int]) -> Foretold: ...

    def remove(self, ctx: Context, route: Route) -> Foretold: ...

    def take_over(self, ctx: Context, route: Route, epoch: int) -> Foretold: ...

    def note_left(self, ctx: Context, route: Route, left: ReleaseId | None) -> Foretold: ...

    def set_slow_start(self, ctx: Context, route: Route) -> Foretold: ...

    def ensure(self, ctx: Context, request: GroupRequest) -> Foretold: ...

    def delete(self, ctx: Context, name: str, *, kept: bool) -> Foretold:
        """``kept``: somebody else made the group, and it is let go."""

    def pause(self, ctx: Context, name: str) -> Foretold: ...

    def resume(self, ctx: Context, name: str, scaling: Scaling, *, grown: bool) -> Foretold: ...

    def apply(self, ctx: Context, name: str, scaling: Scaling) -> Foretold: ...

    def restore(self, ctx: Context, image: CloudImage) -> Foretold: ...

    def offer(self, ctx: Context, image: CloudImage, family: str) -> Foretold: ...

    def withdraw(self, ctx: Context, image: CloudImage) -> Foretold: ...

    def sticky(self, ctx: Context, route: Route) -> float | None:
        """Seconds for which a client is bound to the machine that it was sent to, as long as that has traffic, by what
        somebody has set; infinite where it has no end, None where it is not bound."""


@dataclass(frozen=True, slots=True)
class Quota:
    """A bound of the account's, by the place's own name for it."""

    name: str
    limit: float
    used: float


class Quotas(Protocol):
    """What an account may have in a place."""

    def of(self, ctx: Context, machine_type: str) -> tuple[Quota, ...]:
        """Those that machines of this type count against."""


class Zones(Protocol):
    """Where networks are."""

    def of(self, ctx: Context, networks: Sequence[str]) -> frozenset[str]:
        """The zones that machines in these networks stand in."""


# ------------------------------------------------------------------------------------------------------ all of it


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What a rollout stands on: one place's adapters for it, as wired by :mod:`osvdeploy.api`.

    ``kind`` is "aws", "gcp", "memory" ...; ``account`` (on Google the project) and ``region`` (there the zone or region
    that machines stand in) are what the place says of itself.
    """

    kind: str
    account: str
    region: str
    images: ImageRegistry
    groups: InstanceGroups
    router: TrafficRouter
    console: Console
    families: ImageFamilies | None = None
    """None where machines are started from images alone."""
    fence: Fence | None = None
    """None where rules have no versions, and a change that is late cannot be told from one that is not."""
    spread: float = 0.0
    """Seconds that a change of a route may take to be in force at every entry point, also at those that nobody here can
    ask, and where what each rollout changes is asked at once."""
    late: float = 0.0
    """Likewise where every entry point can be asked, and tells that it is: only what cannot be seen waits for so
    long. What counts is the longer of the two."""
    drain: float | None = None
    """Seconds that requests under way are given to end, where somebody has said so; None for the usual."""
    endpoint: str | None = None
    """The address of the place's API that the spec names, None for the place's own."""
    metrics: Metrics | None = None
    """What the place counts by itself, None where it counts nothing."""
    counted_late: float = 120.0
    """Seconds until the requests of a minute can be read."""
    notifier: Notifier | None = None
    """Tells others by what the place has for that, None where it has nothing."""
    foresee: Callable[[], Foresight] | None = None
    """Begins to foretell calls; None where nobody can."""
    quotas: Quotas | None = None
    """None where they are not asked for."""
    zones: Zones | None = None
    """None where no network is one of a zone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cloud(Ground):
    """A place that makes images of disks, beside."""

    snapshots: Snapshots
    machines: MachineTypes
    imports: DiskImports | None = None
    """None where the place makes no disks of objects."""


@dataclass(frozen=True, slots=True)
class ArchivePlace:
    """A place that makes images of archives in an object store, and no disks. ``account`` is the project."""

    kind: str
    account: str
    region: str
    images: ArchiveImages
    families: ImageFamilies
    store: JoiningStore
