"""Every error that osvdeploy raises on purpose, and the exit code each one ends a command with.

    OsvDeployError                        1
    ├── UsageError                        2   the command line, or a precondition the caller can mend
    │   ├── SpecError                         osv.toml: all problems at once
    │   ├── ToolMissing                       a program that is to be installed here: QEMU, pip
    │   └── PlanOutdated                      something is not as it was when a plan was made
    ├── ImageError                        2   what no image can be made of
    │   ├── KernelInvalid
    │   ├── TreeInvalid                       a source tree that cannot build what is asked of it
    │   ├── FileTreeInvalid
    │   ├── CommandLineInvalid
    │   ├── DiskInvalid
    │   ├── SizeInvalid                       a disk that does not hold kernel and files
    │   ├── ElfInvalid
    │   ├── ProgramInvalid
    │   ├── LockInvalid                       an osv.lock that cannot be read
    │   ├── PinMismatch                       what is here is not what osv.lock pins
    │   └── CheckFailed                       findings that refuse: all at once
    ├── BuildError                        1
    │   ├── SourceChanged
    │   ├── DownloadFailed
    │   └── TreeBuildFailed                   a source tree's own build failed; its log is kept
    ├── MachineError                      1   QEMU could not run the machine
    ├── GuestFailed                           a machine run here did not end well; docs/run.md has its exit codes
    ├── CloudError                        1   the cloud said no, or nothing
    │   ├── CredentialsMissing            2
    │   ├── NotFound
    │   ├── Refused                           a final no: quota, permission, wrong parameter
    │   │   └── Unready                   2   a bucket or role that the spec counts on is not there
    │   ├── Unavailable                       throttled, timed out, dropped: may work later
    │   ├── UploadGone
    │   ├── ImageNameTaken
    │   ├── ImageDiffers                  2   an image is not what a ledger says of it
    │   ├── ObjectTaken
    │   ├── NotOurs                           exists, but something else made it
    │   └── NotSimulated                      the sandbox does not know this call
    ├── LedgerError                       1
    │   ├── StoreUnavailable                  the directory of a ledger is away or full; also an Unavailable
    │   ├── LedgerTooNew
    │   └── LedgerBehind                      the cloud knows of later leases than the ledger
    ├── LeaseHeld                         4
    ├── LeaseLost                         4
    │   └── Outranked                         told by the cloud: a later lease was at work there
    ├── ReleaseHeld                       2   a hold refuses this release
    ├── RolloutFailed                     1   no stable release was there to go back to
    ├── RolledBack                        3   the candidate failed; stable serves
    ├── RollbackFailed                    6
    ├── DeadlineExceeded                  1
    └── Interrupted                     130

The rule: 2 is a refusal. Nothing was made or changed, what is wrong is the caller's to mend (spec, command line,
osv.lock, a file, kernel or bucket that they name, a tool, role or credentials that are missing, a hold), and until then
the same command is refused again. 1 is a failure: it was tried, and this machine, a tool, the network or the cloud did
not do it; the same command may succeed later.

A message says what is wrong and with which thing; ``hint`` says what to do about it. Facts a caller may need are
attributes, so that nobody parses a message.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class OsvDeployError(Exception):
    """Base of all: ``str()`` is the message, ``hint`` the way out, ``exit_code`` what a command ends with."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(OsvDeployError):
    """The command or call as given cannot be carried out; nothing was done."""

    exit_code = 2


class ToolMissing(UsageError):
    """A program that the command needs is not on this machine."""


class PlanOutdated(UsageError):
    """A deploy was to follow a plan, and what the plan was made on has changed. ``changes`` has each thing."""

    def __init__(self, message: str, *, changes: Sequence[str], hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.changes = tuple(changes)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a spec: where it stands, which key, what is wrong and what is allowed."""

    file: str
    line: int | None
    path: str
    message: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: {self.path}: {self.message}" if self.path else f"{place}: {self.message}"


class SpecError(UsageError):
    """Everything that is wrong with a spec, in the order of the file."""

    def __init__(self, problems: Sequence[Problem], *, hint: str | None = None) -> None:
        super().__init__("\n".join(str(problem) for problem in problems), hint=hint)
        self.problems = tuple(problems)


class ImageError(OsvDeployError):
    """What OSv would not boot, or a format cannot hold."""

    exit_code = 2


class KernelInvalid(ImageError):
    """The file is not a loader.img that a disk can be made of."""


class TreeInvalid(ImageError):
    """The directory is no OSv source tree, or one that does not know what is asked of it."""


class FileTreeInvalid(ImageError):
    """The files cannot be one file system: a path twice, a name too long, a link out of the tree."""


class CommandLineInvalid(ImageError):
    """OSv could not read this command line as it is meant."""


class DiskInvalid(ImageError):
    """The raw disk does not have OSv's layout."""


class SizeInvalid(ImageError):
    """The disk that is asked for does not hold the kernel and the files."""


class LockInvalid(ImageError):
    """An osv.lock that cannot be read. It may pin something, so it is not passed over."""


class PinMismatch(ImageError):
    """The kernel, the source tree or a program that is here is not the one that osv.lock pins."""


class ElfInvalid(ImageError):
    """The file is not an ELF object, or a damaged one."""


class ProgramInvalid(ImageError):
    """A program of a host cannot be brought: not found, of no use to OSv, or without something that it needs."""


class CheckFailed(ImageError):
    """Rules refuse the image where it is meant to run; ``problems`` has each of them."""

    def __init__(self, problems: Sequence[str], *, hint: str | None = None) -> None:
        super().__init__("\n".join(problems), hint=hint)
        self.problems = tuple(problems)


class BuildError(OsvDeployError):
    """The image could not be built; nothing half-made is left behind."""


class SourceChanged(BuildError):
    """A file was changed while it was read."""


class MachineError(OsvDeployError):
    """QEMU could not start or run the machine. ``said`` is what it wrote."""

    def __init__(self, message: str, *, said: str = "", hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.said = said


class GuestFailed(OsvDeployError):
    """A machine that was run here did not end well. ``exit_code`` tells how (docs/run.md)."""

    def __init__(self, message: str, *, exit_code: int, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code


class DownloadFailed(BuildError):
    """What is at an address could not be had. ``transient``: it may work later, or elsewhere."""

    def __init__(self, url: str, reason: str, *, transient: bool = False, hint: str | None = None) -> None:
        super().__init__(f"{url}: cannot be downloaded: {reason}", hint=hint)
        self.url, self.reason, self.transient = url, reason, transient


class TreeBuildFailed(BuildError):
    """A source tree's build failed. ``reason`` is a word for programs, ``log`` the file with all that it said."""

    def __init__(self, message: str, *, reason: str, log: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.reason, self.log = reason, log


class CloudError(OsvDeployError):
    """A cloud refused or did not answer. ``operation`` names the call, ``code`` the cloud's own error code."""

    def __init__(
        self, message: str, *, operation: str | None = None, code: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.operation = operation
        self.code = code


class CredentialsMissing(CloudError):
    """No credentials, expired ones, or ones the cloud does not know."""

    exit_code = 2


class NotFound(CloudError):
    """The cloud has no such thing, or not yet: a read after our own create may lag."""


class Refused(CloudError):
    """A final no. Repeating the call unchanged gives the same answer."""


class Unready(Refused):
    """A bucket or role that is counted on is not there, or not as it has to be. Nothing was made."""

    exit_code = 2


class Unavailable(CloudError):
    """Throttled, timed out, connection lost, or a server-side error, after all retries. It may work later."""


class UploadGone(CloudError):
    """The upload this attempt names failed or was deleted; the next attempt starts a new one."""


class ImageNameTaken(CloudError):
    """The name exists with other bytes behind it. Released names are never overwritten."""

    exit_code = 2

    def __init__(self, name: str, *, held: str, ours: str) -> None:
        super().__init__(
            f"{name}: registered with {held[:12]}, but this build is {ours[:12]}",
            hint="raise `version` in the spec, or go back to the old image with `osvdeploy rollback`",
        )
        self.name, self.held, self.ours = name, held, ours


class ImageDiffers(CloudError):
    """An image carries a release's digest and does not hold what was deployed under it. Nothing is made of it."""

    exit_code = 2


class ObjectTaken(CloudError):
    """The key of an object store has other bytes behind it. Objects are never overwritten. ``held`` is None where
    nothing says what they are."""

    exit_code = 2

    def __init__(self, where: str, *, held: str | None, ours: str) -> None:
        theirs = f"holds {held[:12]}" if held is not None else "was not made by this"
        super().__init__(
            f"{where}: {theirs}, but what is to be put there is {ours[:12]}",
            hint="objects are never overwritten; if nobody needs it, delete it, else use another bucket or prefix",
        )
        self.where, self.held, self.ours = where, held, ours


class NotOurs(CloudError):
    """Something stands where ours should, and does not carry our tags. It is left alone."""

    exit_code = 2


class NotSimulated(CloudError):
    """The sandbox does not simulate this call, and does not guess."""


class LedgerError(OsvDeployError):
    """The ledger cannot be read or written."""


class StoreUnavailable(Unavailable, LedgerError):
    """The directory that a ledger is in is full or away, or its network file system does not answer. It may work later,
    as a bucket that is :class:`Unavailable`."""


class LedgerTooNew(LedgerError):
    """A newer osvdeploy wrote this ledger; this one must not touch it."""


class LedgerBehind(LedgerError):
    """The cloud was changed under a later lease than this ledger has ever given: it is another one than the service's,
    or one that was lost or put back."""


class LeaseHeld(OsvDeployError):
    """Another process is rolling this service out."""

    exit_code = 4


class RolloutWaiting(LeaseHeld):
    """Another rollout of this service waits for a person, and nobody has said that it may be ended."""


class LeaseLost(OsvDeployError):
    """Another process took the lease over; this one has stopped and touched nothing since."""

    exit_code = 4


class Outranked(LeaseLost):
    """A later lease has changed what was to be changed. ``epoch`` is that lease's, ``ledger`` the address of the ledger
    that it is of, None where nothing tells."""

    def __init__(self, message: str, *, epoch: int, ledger: str | None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.epoch = epoch
        self.ledger = ledger


class ReleaseHeld(OsvDeployError):
    """A hold refuses this release, or every one."""

    exit_code = 2


class RolloutFailed(OsvDeployError):
    """The candidate failed and there was no stable release to go back to."""


class RolledBack(OsvDeployError):
    """The candidate failed or was aborted; the stable release serves."""

    exit_code = 3


class RollbackFailed(OsvDeployError):
    """Traffic could not be brought back to the stable release. A person is needed now."""

    exit_code = 6


class DeadlineExceeded(OsvDeployError):
    """The time given is over. What was begun is kept, and the next run goes on."""


class Interrupted(OsvDeployError):
    """Cancelled from outside (Ctrl-C, SIGTERM). What was begun is kept, and the next run goes on."""

    exit_code = 130
