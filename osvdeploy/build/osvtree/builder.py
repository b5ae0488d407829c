"""From a spec with ``kernel.tree`` to a raw disk in the cache, by way of the tree's own scripts/build."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from osvdeploy.build.builder import BuildResult
from osvdeploy.build.cache import DISK_NAME, IMAGE_NAME, BuildCache, format_image
from osvdeploy.build.files import replace_file, sync
from osvdeploy.build.lock import LOCK_NAME, TreePin, held_tree_pin, pin_programs, pin_tree
from osvdeploy.build.osvtree import disk as disks
from osvdeploy.build.osvtree import vm
from osvdeploy.build.osvtree.failures import ended_badly, failed
from osvdeploy.build.osvtree.manifest import Manifest, check_names, check_unchanged, write_manifest
from osvdeploy.build.osvtree.process import locked, run
from osvdeploy.build.osvtree.settings import Settings, settings_for
from osvdeploy.build.osvtree.source import ARCH, OsvTree, TreeState, clean_environment, open_tree, text_of
from osvdeploy.build.plan import (
    ImageInputs,
    TreeInputs,
    boot_command,
    file_tree,
    held_programs,
    programs_of,
    starts_in,
    tree_digest,
)
from osvdeploy.build.program_lock import ProgramPin
from osvdeploy.build.statcache import StatCache
from osvdeploy.context import Context
from osvdeploy.digests import Digest, digest_of
from osvdeploy.errors import BuildError, SizeInvalid, TreeBuildFailed, TreeInvalid, UsageError
from osvdeploy.events import Note, Progress, Warned
from osvdeploy.osv.cmdline import BootCommand, encode
from osvdeploy.osv.filetree import FileTree, show
from osvdeploy.osv.image import SHARE_NAME, RawImage, image_digest
from osvdeploy.sizes import GIB, format_size

TREE_PLAN_VERSION = 1
"""Raised when the same inputs give other bytes than before."""

_ROOTFS = frozenset({"zfs", "ext", "ramfs", "virtiofs"})
"""What the kernel is told by ``--rootfs``; a ROFS it finds by itself, as on a composed disk."""

_ROOM = 64 * GIB
"""The size that scripts/build is told for a disk whose file system is as large as its files: more than they take, since
it drops what does not fit without a word. Nothing is written there."""

_LOGS_KEPT = 20
_COMPILER_MEMORY = GIB
"""Memory that one run of the compiler may take: cc1plus was seen at 640 MB on core/sched.cc."""

_TOOLS = ("bash", "make", "g++", "ld", "python3", "qemu-img", "qemu-nbd")
_TOOLS_OF = {
    "zfs": ("qemu-system-x86_64",),
    "rofs_with_zfs": ("qemu-system-x86_64",),
    "ext": ("mkfs.ext4", "losetup", "lsblk", "mount"),
}
_PACKAGES = {
    "g++": "g++", "ld": "binutils", "qemu-img": "qemu-utils", "qemu-nbd": "qemu-utils", "mkfs.ext4": "e2fsprogs",
    "qemu-system-x86_64": "qemu-system-x86", "losetup": "mount", "lsblk": "util-linux",
}  # fmt: skip
_FLAGS_NAME = ".osvdeploy-flags"
_KEPT_CONFIG = ".config.before-osvdeploy"
_LINES_KEPT = 20_000


@dataclass(frozen=True, slots=True)
class TreePlan:
    """All that a tree's disk depends on, but for the hour at which it is built: a ZFS holds times and random ids."""

    tree: OsvTree
    state: TreeState
    settings: Settings
    inputs: TreeInputs
    files: FileTree
    content: Digest
    boot: BootCommand
    size: int | None
    tools: Mapping[str, str]
    programs: tuple[ProgramPin, ...] = ()

    @property
    def digest(self) -> Digest:
        return digest_of(
            {
                "arguments": [list(each) for each in self.settings.arguments],
                "boot": encode(self.boot).decode(),
                "files": self.content,
                "fs": self.inputs.fs,
                "image": self.settings.image,
                "kconfig": [list(each) for each in self.settings.kconfig],
                "mode": self.settings.mode,
                "size": self.size,
                "tools": dict(self.tools),
                "tree": self.state.digest,
                "tree-plan": TREE_PLAN_VERSION,
            }
        )


def plan_tree(ctx: Context, inputs: ImageInputs, stats: StatCache, *, cache: Path | None) -> TreePlan:
    """Look at everything and decide what is to be built. Nothing is run but git and the tools' ``--version`` and, with
    ``cache``, what programs need to have made: packages, bytecode.

    Raises TreeInvalid, CommandLineInvalid, FileTreeInvalid, SizeInvalid, ProgramInvalid, SourceChanged, LockInvalid;
    PinMismatch for another commit or program than pinned.
    """
    wanted = _wanted(inputs)
    boot = _boot(boot_command(inputs), wanted.fs)
    # Whether this kernel will be libstdc++ too is not known yet; one that it does not load does no harm.
    programs = programs_of(ctx, inputs, stats, cache=cache)
    if programs is not None:
        boot = programs.boot_with(boot)
        encode(boot)
    tree = open_tree(inputs.base / wanted.path, named=wanted.path)
    settings = settings_for(tree, dict(wanted.options), wanted.modules, fs=wanted.fs)
    tools = _tools(wanted.fs)
    state = tree.state(ctx, stats)
    held_tree_pin(inputs.base / LOCK_NAME, state.commit, tree.moved, tree=wanted.path)
    files = file_tree(inputs, programs)
    pins = held_programs(ctx, inputs, stats, programs)
    check_names(files, wanted.fs)
    _refuse_small(files, wanted.fs, inputs.size)
    for start in [] if wanted.modules else starts_in(files, boot).missing(files, boot):
        ctx.report(
            Warned(
                f"{start.by}: {start.words[0]} is not among the image's files, nor is there a module; "
                "OSv would power off",
                hint="name the program by its path in the image, the `to` of one of [[files]]",
            )
        )
    return TreePlan(
        tree=tree,
        state=state,
        settings=settings,
        inputs=wanted,
        files=files,
        content=tree_digest(files, stats.digests(ctx, [file for _, file in files.files()])),
        boot=boot,
        size=inputs.size,
        tools=tools,
        programs=pins,
    )


def build_tree(ctx: Context, inputs: ImageInputs, cache: BuildCache) -> BuildResult:
    """Build the image with its source tree, or find that it is built: nothing it depends on has changed.

    Raises as :func:`plan_tree` does; TreeBuildFailed with the log; SizeInvalid; Interrupted. What an interrupted or
    failed build compiled stays in the tree's build directory, as make keeps it, and the next build goes on from there.
    """
    stats = StatCache.load(cache.stats_file(inputs.base))
    plan = plan_tree(ctx, inputs, stats, cache=cache.root)
    stats.save(ctx)
    if image := cache.find(plan.digest):
        ctx.report(Note(f"image {image.digest[:12]}: nothing changed, {image.path} is reused"))
        return BuildResult(image, True, plan.digest)
    with cache.workspace(ctx) as work, locked(ctx, plan.tree.output, what=f"{inputs.app}") as lock:
        # While we waited, another build may have made this very image, or the tree may have changed.
        plan = replace(plan, state=plan.tree.state(ctx, stats))
        if image := cache.find(plan.digest):
            ctx.report(Note(f"image {image.digest[:12]}: another build has just made it"))
            return BuildResult(image, True, plan.digest)
        _tell(ctx, plan)
        build = _Build(ctx, plan, work.path, (lock, work.lock), _log(cache, inputs, plan.digest))
        try:
            image = build.make()
            after = plan.tree.state(ctx, stats)
            pin_tree(ctx, inputs.base / LOCK_NAME, plan.state.commit, tree=plan.inputs.path)
            if inputs.programs:
                pin_programs(ctx, inputs.base / LOCK_NAME, plan.programs)
            entry = _entry(ctx, plan, after)
            image = cache.keep(entry, work.path)
        except OSError as error:
            raise BuildError(
                f"{error.filename or cache.root}: the image could not be written: {error.strerror}"
            ) from None
    stats.save(ctx)
    ctx.report(Note(f"image {image.digest[:12]}: built, {image.fs} in {image.path}"))
    return BuildResult(image, False, entry)


def upgrade_tree(ctx: Context, inputs: ImageInputs, cache: BuildCache) -> TreePin:
    """Pin the commit that the tree is at now, and the programs. Raises TreeInvalid, also for a tree that is no git
    checkout."""
    wanted = _wanted(inputs)
    tree = open_tree(inputs.base / wanted.path, named=wanted.path)
    state = tree.state(ctx, StatCache())
    if state.commit is None:
        raise TreeInvalid(
            f"kernel.tree: {wanted.path}: not a git checkout, so there is no commit to pin",
            hint="clone OSv with git, or go without: such a tree builds, unpinned",
        )
    stats = StatCache.load(cache.stats_file(inputs.base))
    programs = programs_of(ctx, inputs, stats, cache=cache.root, refresh=True)
    pins = () if programs is None else programs.pins(ctx, stats, ())
    stats.save(ctx)
    pin = pin_tree(ctx, inputs.base / LOCK_NAME, state.commit, tree=wanted.path, upgrade=True)
    assert pin is not None
    pin_programs(ctx, inputs.base / LOCK_NAME, pins)
    return pin


def _wanted(inputs: ImageInputs) -> TreeInputs:
    if inputs.tree is None:
        raise ValueError("these inputs name no tree")
    return inputs.tree


def _boot(boot: BootCommand, fs: str) -> BootCommand:
    if fs not in _ROOTFS or any(name == "rootfs" for name, _ in boot.options):
        return boot
    return replace(boot, options=(("rootfs", fs), *boot.options))


def _tell(ctx: Context, plan: TreePlan) -> None:
    state, named = plan.state, plan.inputs.path
    if state.commit is None:
        ctx.report(Warned(f"{named}: not a git checkout: osv.lock cannot pin it"))
    elif state.changed:
        paths = ", ".join(show(path) for path in list(state.changed)[:3])
        more = f" and {len(state.changed) - 3} more" if len(state.changed) > 3 else ""
        ctx.report(
            Warned(
                f"{named}: differs from its commit {state.commit[:12]}, which osv.lock pins: {paths}{more}",
                hint="the image is made of the tree as it stands; commit the change to have it pinned",
            )
        )


def _entry(ctx: Context, plan: TreePlan, after: TreeState) -> Digest:
    """The cache entry for what was built: that of the tree as the next build will find it.

    Modules write what they make beside their sources, so a build by itself may add untracked files. Anything else that
    changed meanwhile is in the image by half, and no later build may find it: its entry has a name of its own.
    """
    before = plan.state
    if moved := [path for path in before.changed.keys() | after.changed.keys()
                 if before.changed.get(path) != after.changed.get(path)]:  # fmt: skip
        ctx.report(Warned(f"{show(min(moved))}: changed in the tree while it was built; the next build builds anew"))
    same = before.commit == after.commit and not moved
    kept = all(after.untracked.get(path) == what for path, what in before.untracked.items())
    if same and kept:
        return replace(plan, state=after).digest
    return digest_of({"built": ctx.nonce()})


# ------------------------------------------------------------------------------------------------------- one build


@dataclass(slots=True)
class _Build:
    """One run of scripts/build, from a locked tree to an image in the workspace ``directory``. ``held`` are the
    descriptors of the locks on both."""

    ctx: Context
    plan: TreePlan
    directory: Path
    held: tuple[int, ...]
    log: Path
    story: _Story = field(init=False)

    def __post_init__(self) -> None:
        self.story = _Story(self.ctx)

    @property
    def output(self) -> Path:
        return self.plan.tree.path / self.plan.settings.output

    @property
    def fs(self) -> str:
        return self.plan.inputs.fs

    def make(self) -> RawImage:
        self.ctx.report(Note(f"{self.plan.inputs.path}: building, all it says is in {self.log}"))
        stage = self.directory / "stage"
        stage.mkdir()
        self._refuse_unsayable(stage)
        environment = self._environment(stage)
        self._clear()
        self._configure(stage, environment)
        with self._handed_over(stage) as manifest:
            self._build(environment)
            self._verify_options()
            image = self._image(environment, manifest)
        check_unchanged(self.plan.files)
        shutil.rmtree(stage)
        return image

    def _refuse_unsayable(self, stage: Path) -> None:
        place = str(stage.resolve())
        if ": " in place or not place.isascii() or not place.isprintable():
            raise UsageError(
                f"{place}: a path that a manifest of OSv cannot hold",
                hint="set OSVDEPLOY_CACHE to a directory with a plain name",
            )

    def _clear(self) -> None:
        """Take away what an earlier build left and this one must make, so that neither is taken for the other."""
        output, flags = self.output, self.plan.settings.flags
        record = output / _FLAGS_NAME
        if any(output.glob("*.o")) and (record.read_text() if record.exists() else "") != flags:
            self.ctx.report(Note(f"{self.plan.inputs.path}: compiler flags changed, everything is compiled anew"))
            shutil.rmtree(output)
        output.mkdir(parents=True, exist_ok=True)
        record.write_text(flags)
        for name in ("usr.img", "rofs.img", "disk.ext", "cmdline", "append_cmdline", "bare.raw"):
            (output / name).unlink(missing_ok=True)
        if self.fs == "virtiofs":
            # scripts/build copies an fstab for every other file system; what is there is an earlier build's.
            fstab = (self.plan.tree.path / "static" / "etc" / "fstab_rofs").read_text()
            (output / "fstab").write_text(fstab)

    @contextmanager
    def _handed_over(self, stage: Path) -> Iterator[Manifest]:
        """Our files stand in append.manifest for the length of the build; what stood there comes back."""
        files = stage / "files"
        files.mkdir()
        manifest = write_manifest(self.plan.files, files, fs=self.fs, sources=self.plan.tree.path)
        # The users' is kept beside, under a name that also says that what stands there is ours: we may be killed.
        place, kept = self.output / "append.manifest", self.output / ".append.manifest.before-osvdeploy"
        if not kept.exists():
            try:
                place.rename(kept)
            except FileNotFoundError:
                kept.touch()
        place.write_text(manifest.text, encoding="utf-8")
        try:
            yield manifest
        finally:
            kept.replace(place)
            if not place.stat().st_size:
                place.unlink()

    def _configure(self, stage: Path, environment: Mapping[str, str]) -> None:
        """Write .config: the tree's defaults and the spec's options, whatever an earlier build left there.

        The tree's own ``conf`` works it out, beside; .config is touched only where it differs, because make compiles
        the whole kernel anew for some of its options.
        """
        settings, tree = self.plan.settings, self.plan.tree
        if not tree.has_kconfig:
            return
        conf = self.output / "kbuild" / "kconfig" / "conf"
        # Its own way to make it has `make -C kbuild ... -j` within: no flags of ours are wanted there.
        self._run(
            ["make", "-f", "conf/Makefile", "-j1", f"mode={settings.mode}", f"arch={ARCH}", f"ARCH={ARCH}",
             f"{settings.output}/kbuild/kconfig/conf"],
            environment,
        )  # fmt: skip
        beside = stage / "config"
        beside.mkdir()
        wished = beside / "wished"
        wished.write_text("".join(f"{_config_line(name, value)}\n" for name, value in settings.kconfig))
        self._run(
            [str(conf), "-s", "conf/kconfig/main", "--alldefconfig"],
            {
                **environment,
                "mode": settings.mode,
                "arch": ARCH,
                "CONFIG_": "CONF_",
                "KCONFIG_ALLCONFIG": str(wished),
                "KCONFIG_CONFIG": str(beside / ".config"),
                "KCONFIG_AUTOHEADER": str(beside / "kernel_config.h"),
                "KCONFIG_AUTOCONFIG": str(beside / "kernel.conf"),
                "KCONFIG_RUSTCCFG": str(beside / "rustc_cfg"),
            },
        )
        made = text_of(beside / ".config")
        for name, value in settings.kconfig:
            if (line := _in_config(made, name)) != value:
                raise TreeInvalid(
                    f"kernel.options.conf_{name}: cannot be {value}: the tree's configuration makes it {line}",
                    hint="what it depends on is off, or the value is out of its range: see conf/kconfig in the tree",
                )
        place = self.output / ".config"
        held = text_of(place)
        if held != made:
            if held and not (self.output / _KEPT_CONFIG).exists():
                (self.output / _KEPT_CONFIG).write_text(held)
                self.ctx.report(
                    Note(f"{settings.output}/.config had other options than the spec; kept as {_KEPT_CONFIG} beside it")
                )
            replace_file(place, made.encode(), nonce=self.ctx.nonce(), durable=False)
        else:
            # Older than conf/, make would write the defaults over it.
            os.utime(place)

    def _build(self, environment: Mapping[str, str]) -> None:
        plan, settings = self.plan, self.plan.settings
        command = ["scripts/build", f"-j{plan.inputs.jobs or _jobs()}", f"mode={settings.mode}", f"arch={ARCH}"]
        command += [f"fs={self.fs}", f"fs_size={_room(self.fs, plan.size)}", f"image={settings.image}"]
        command += ["--append-manifest", *(f"{name}={value}" for name, value in settings.arguments)]
        if self.fs == "virtiofs":
            command += ["export=all", f"export_dir={self.directory / SHARE_NAME}"]
        try:
            status = self._run(command, environment, judged=False)
        except _VmLost:
            raise self._failed("the VM that fills ZFS was lost while it took its files") from None
        if because := ended_badly(self.story.lines, status):
            raise self._failed(because)
        last = plan.tree.output / "last"
        if not last.is_symlink() or last.resolve() != self.output.resolve():
            raise self._failed(f"build/last is not {self.output.name}: it stopped early")
        for name in ("loader.img", "usr.img", "cmdline"):
            if not (self.output / name).is_file():
                raise self._failed(f"scripts/build told of no failure, but made no {name}")
        if self.fs == "zfs" and not any("cpiod finished" in line for line in self.story.lines):
            raise self._failed("the VM that fills ZFS did not tell that it had all files")
        told = text_of(self.output / "cmdline").removeprefix(f"--rootfs={self.fs}").strip()
        if told and plan.inputs.modules:
            self.ctx.report(Note(f"the modules' own command line is not used, the spec's is: {told[:200]}"))

    def _verify_options(self) -> None:
        """What C code is compiled with is in generated headers: look there that each option has arrived."""
        headers = self.output / "gen" / "include" / "osv"
        for name, value in self.plan.settings.kconfig:
            found = _define(text_of(headers / f"kernel_config_{name}.h"), name)
            wanted = {"y": "1", "n": "0"}.get(value, value)
            if (found or "0") != wanted:
                raise self._failed(f"conf_{name} = {value} did not take effect: the kernel was compiled with {found}")
        drivers = text_of(headers / "drivers_config.h")
        for name, value in self.plan.settings.arguments:
            if name.startswith("conf_drivers_") and name != "conf_drivers_profile" and drivers:
                found = _define(drivers, name.removeprefix("conf_")) or "0"
                if found != value:
                    raise self._failed(f"{name} = {value} did not take effect: the kernel was compiled with {found}")

    def _image(self, environment: Mapping[str, str], manifest: Manifest) -> RawImage:
        plan, disk = self.plan, self.directory / DISK_NAME
        self.story.stage("raw disk")
        try:
            disks.convert(
                self.ctx, self.output / "usr.img", disk, held=self.held, log=self.log, environment=environment
            )
            made = disks.finish(
                self.ctx, disk, self.output / "loader.img", plan.boot, fs=self.fs, size=plan.size,
                hashed=lambda done, total: self.ctx.report(Progress("digest", done, total, "bytes")),
            )  # fmt: skip
            if self.fs in ("rofs", "rofs_with_zfs"):
                disks.check_files(disk, plan.files)
            elif self.fs == "ext":
                disks.check_ext(disk, made.partitions[0], manifest.entries)
            root = disks.digest_of_share(self.directory / SHARE_NAME) if self.fs == "virtiofs" else made.root
        except SizeInvalid as error:
            raise SizeInvalid(f"{plan.inputs.path}: {error.message}", hint=error.hint) from None
        except disks.DISK_ERRORS as error:
            raise self._failed(f"what it made is not right: {error}") from None
        except BuildError as error:
            if isinstance(error, TreeBuildFailed):
                raise
            raise TreeBuildFailed(
                f"{plan.inputs.path}: {error.message}", reason="unknown", log=str(self.log), hint=error.hint
            ) from None
        image = RawImage(
            path=disk,
            size=made.size,
            digest=image_digest(
                kernel=made.kernel,
                rofs=root,
                partition=made.read[-len(made.partitions)] if made.partitions else None,
                size=made.size,
                boot=plan.boot,
                fs=self.fs,
            ),
            kernel=made.kernel,
            rofs=root,
            read=made.read,
            boot=plan.boot,
            label=f"OSv {plan.tree.describe()}".strip(),
            fs=self.fs,
        )
        (self.directory / IMAGE_NAME).write_bytes(format_image(image))
        sync(self.directory / IMAGE_NAME)
        return image

    def _environment(self, stage: Path) -> dict[str, str]:
        """What the build sees, with stand-ins for two programs in front of the path where this machine needs them."""
        environment = clean_environment()
        path = [*environment.get("PATH", os.defpath).split(":"), "/usr/sbin", "/sbin"]
        programs = stage / "bin"
        programs.mkdir()
        if self.fs in ("zfs", "rofs_with_zfs"):
            qemu = shutil.which("qemu-system-x86_64", path=":".join(path))
            assert qemu is not None  # plan_tree has looked
            accelerator = "kvm" if _kvm_works(qemu) else "tcg"
            if accelerator == "tcg":
                self.ctx.report(Warned("KVM does not work here: the VM that fills ZFS is emulated, which takes longer"))
            stand_in = shlex.join([sys.executable, "-I", "-S", vm.__file__, qemu, accelerator])
            _write_program(programs / "qemu-system-x86_64", f'#!/bin/sh\nexec {stand_in} "$@"\n')
        if self.fs == "ext" and os.geteuid() == 0 and shutil.which("sudo", path=":".join(path)) is None:
            _write_program(programs / "sudo", _SUDO_AS_ROOT)
        return environment | {"PATH": ":".join([str(programs.resolve()), *path])}

    def _run(self, command: Sequence[str], environment: Mapping[str, str], *, judged: bool = True) -> int:
        try:
            status = run(
                self.ctx, command, directory=self.plan.tree.path, environment=environment,
                held=self.held, log=self.log, said=self.story.heard, quiet=self.story.quiet,
            )  # fmt: skip
        except OSError as error:
            raise BuildError(f"{command[0]}: cannot be run: {error.strerror}") from None
        if judged and status:
            raise self._failed(f"{Path(command[0]).name} ended with status {status}")
        return status

    def _failed(self, because: str) -> TreeBuildFailed:
        return failed(self.log, list(self.story.lines), what=self.plan.inputs.path, because=because)


_COMPILES = re.compile(r"^  (?:HOST_)?(?:CC|CXX|AS|CXX/CC) (\S+)$")
_LINKS = re.compile(r"^  (?:LINK|LD|STRIP|LZ|OBJCOPY|MKBOOTFS|LIBOSV\.SO) ?")
_PUTS = re.compile(r"^(?:Adding|Link) /|^\[INFO\] (?:exported|added|created) ")


_LOST_VM = re.compile(
    r"^(?:ConnectionResetError|BrokenPipeError|ConnectionAbortedError): "
    r"|^ERROR: file upload failed|^Timed out waiting for cpiod"
)
_FILLING = "filling ZFS in a VM"
_VM_SILENCE = 600.0
"""Seconds that the VM which fills ZFS may say nothing; it names each file that it takes."""


class _VmLost(Exception):
    """The VM that fills ZFS and the script that feeds it have lost each other."""


@dataclass(slots=True)
class _Story:
    """Hears what a build says, line by line: keeps it, counts, and tells how far it is."""

    ctx: Context
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=_LINES_KEPT))
    _told: set[str] = field(default_factory=set)
    _counts: Counter[str] = field(default_factory=Counter)

    def heard(self, line: str) -> None:
        self.lines.append(line)
        if _LOST_VM.search(line):
            # Its own scripts would wait for ever for a machine that waits for them.
            raise _VmLost
        if _COMPILES.match(line):
            self._counted("compiled", "files")
        elif line == "Modules:" or line.startswith("Importing "):
            self.stage("modules")
        elif _LINKS.match(line):
            self.stage("linking the kernel")
        elif _PUTS.match(line):
            self._counted("file system", "files")
        elif line.startswith("OSv v"):
            self.stage(_FILLING)
        elif line.startswith(("  SYNC ", "  CONF_DEF ")):
            self.stage("configuring the kernel")

    def quiet(self, seconds: float) -> None:
        """Nothing was said for this long."""
        if seconds > _VM_SILENCE and _FILLING in self._told and "raw disk" not in self._told:
            raise _VmLost

    def stage(self, name: str) -> None:
        if name not in self._told:
            self._told.add(name)
            self.ctx.report(Note(f"  {name}"))

    def _counted(self, what: str, unit: str) -> None:
        self._counts[what] += 1
        self.ctx.report(Progress(what, self._counts[what], None, unit))


# ------------------------------------------------------------------------------------------------ this machine's side

_SUDO_AS_ROOT = """\
#!/bin/sh
# The build runs as root already, and this machine has no sudo.
while [ "${1#-}" != "$1" ]; do
    [ "$1" = -p ] && shift
    shift
done
exec "$@"
"""


def _write_program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def _kvm_works(qemu: str) -> bool:
    """Start a machine that never runs: a kvm that is there but broken fails in it as it would in the real one."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    try:
        done = subprocess.run(
            [qemu, "-enable-kvm", "-cpu", "host,+x2apic", "-m", "16", "-nodefaults", "-display", "none", "-S",
             "-monitor", "stdio"],
            input=b"quit\n", capture_output=True, timeout=20, env=clean_environment(),
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _tools(fs: str) -> dict[str, str]:
    """The versions of what shapes the bytes. Raises TreeInvalid for the first tool that is not here."""
    path = ":".join([clean_environment().get("PATH", os.defpath), "/usr/sbin", "/sbin"])
    for tool in (*_TOOLS, *_TOOLS_OF.get(fs, ())):
        if shutil.which(tool, path=path) is None:
            package = _PACKAGES.get(tool, tool)
            what = "building with a source tree" if tool in _TOOLS else f"fs = {fs}"
            raise TreeInvalid(
                f"{tool}: not found; {what} needs it",
                hint=f"install it (Debian: apt-get install {package}), or put it on PATH",
            )
    if fs == "ext" and os.geteuid() != 0 and shutil.which("sudo", path=path) is None:
        raise TreeInvalid("sudo: not found; ext is made with root's tools", hint="build as root, or install sudo")
    asked = {
        tool: subprocess.Popen(
            [tool, "--version"], env=clean_environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        for tool in ("g++", "ld", "qemu-img")
    }  # fmt: skip
    return {tool: each.communicate()[0].decode(errors="replace").split("\n")[0] for tool, each in asked.items()}


def _jobs() -> int:
    """As many compilers at once as there are processors, and memory for."""
    processors = len(os.sched_getaffinity(0))
    found = re.search(r"^MemAvailable:\s+(\d+) kB", text_of(Path("/proc/meminfo")), re.M)
    memory = int(found[1]) * 1024 // _COMPILER_MEMORY if found else processors
    return max(1, min(processors, memory))


def _refuse_small(files: FileTree, fs: str, size: int | None) -> None:
    """Raise SizeInvalid where the files alone are more than the disk: known in a second instead of after a build. ZFS
    compresses what it is filled with, so of it only the build can tell."""
    if fs == "ext":
        size = size or GIB
    if size is None or fs not in ("rofs", "ext"):
        return
    if (least := sum(file.size for _, file in files.files())) >= size:
        raise SizeInvalid(
            f"the files take {format_size(least)}, and the disk is to have {format_size(size)}",
            hint=f'write size = "{least // GIB + 1}GiB" or more under [image]',
        )


def _room(fs: str, size: int | None) -> int:
    """What scripts/build is told as fs_size, in bytes."""
    disk = size or GIB
    match fs:
        case "zfs" | "ext":
            return disk  # the file system fills the disk
        case "rofs_with_zfs":
            return disk // 2  # of ZFS; kernel and ROFS may take the other half
        case _:
            return max(disk, _ROOM)


def _log(cache: BuildCache, inputs: ImageInputs, plan: Digest) -> Path:
    directory = cache.root / "logs"
    path = directory / f"{inputs.app}-{plan[:12]}.log"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        logs = sorted(directory.glob("*.log"), key=lambda log: log.stat().st_mtime)
        for old in logs[: -_LOGS_KEPT + 1]:
            old.unlink(missing_ok=True)
        path.write_bytes(b"")
    except OSError as error:
        raise BuildError(f"{path}: the log cannot be written: {error.strerror}") from None
    return path


def _config_line(name: str, value: str) -> str:
    return f"# CONF_{name} is not set" if value == "n" else f"CONF_{name}={value}"


def _in_config(text: str, name: str) -> str:
    found = re.search(rf"^CONF_{re.escape(name)}=(.*)$", text, re.M)
    return found[1] if found else "n"


def _define(header: str, name: str) -> str | None:
    found = re.search(rf"^\s*#define CONF_{re.escape(name)} (.*)$", header, re.M)
    return found[1].strip() if found else None


def summary(plan: TreePlan) -> str:
    """One line for people: what would be built, and of what."""
    commit = plan.state.commit[:12] if plan.state.commit else "no git checkout"
    changes = f", {len(plan.state.changed)} changed" if plan.state.changed else ""
    size = format_size(plan.size) if plan.size else f"smallest, {format_size(GIB)} or more"
    return f"{plan.inputs.path} ({commit}{changes}): fs {plan.inputs.fs}, image {plan.settings.image}, disk {size}"
