"""The spec's options for a tree, sorted into what makes each of them act.

Three ways lead into a build of OSv, and an option given by the wrong one does nothing, silently:

- kernel options are Kconfig's: C code reads headers made from ``build/MODE.ARCH/.config``, and a ``conf_`` value on
  scripts/build's command line never reaches them. They go into ``.config``, which feeds make's rules too.
- what is no Kconfig option but a variable of the Makefile (``conf_zfs``, ``conf_drivers_*``) goes on the command line.
- so does what scripts/build, or the Makefile of a module, knows (``app_local_exec_tls_size``, ``JAVA_VERSION``).

Trees before Kconfig (v0.57.0) spell kernel options ``conf-NAME``, and there they do act on the command line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from osvdeploy.build.osvtree.source import ARCH, KconfigType, OsvTree
from osvdeploy.errors import TreeInvalid

OptionValue: TypeAlias = str | int | bool

MODES = ("release", "debug")

_SAID_ELSEWHERE = {
    "image": "[image] modules",
    "modules": "[image] modules",
    "fs": "[image] fs",
    "fs_size": "[image] size",
    "fs_size_mb": "[image] size",
    "arch": "[image] arch",
    "ARCH": "[image] arch",
    "append_cmdline": "[image] command",
}
_NOT_OURS = {
    "export": "osvdeploy exports the files itself where fs = virtiofs needs them",
    "export_dir": "osvdeploy exports the files itself where fs = virtiofs needs them",
    "use_openzfs": "filling ZFS with the host's OpenZFS needs its kernel module and root; the builder VM needs neither",
    "create_disk": "it makes a disk without a kernel, which no cloud boots",
    "create_zfs_disk": "it makes a second disk; fs = rofs_with_zfs has both file systems on one",
    "out": "osvdeploy finds what is built at build/MODE.ARCH",
}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,79}")
_MODULE = re.compile(r"[A-Za-z0-9_+][A-Za-z0-9_+-]*(\.[A-Za-z0-9_+-]+)*")
_NUMBER = re.compile(r"0[xX][0-9a-fA-F]+|[0-9]+")

# Compiler flags of all objects, which make does not rebuild when the flags change.
_WHOLE_KERNEL = ("compiler_opt", "compiler_cflags", "compiler_cxx_level", "tracing", "memory_debug")


@dataclass(frozen=True, slots=True)
class Settings:
    """How scripts/build is to be called. ``kconfig``: option without ``conf_`` to its value as .config spells it."""

    mode: str
    image: str
    kconfig: tuple[tuple[str, str], ...]
    arguments: tuple[tuple[str, str], ...]

    @property
    def output(self) -> str:
        """The directory of what is built, below the tree."""
        return f"build/{self.mode}.{ARCH}"

    @property
    def flags(self) -> str:
        """What a change of makes every object wrong that stands in the output directory."""
        whole = [f"{name}={value}" for name, value in self.kconfig if name in _WHOLE_KERNEL]
        whole += [
            f"{name}={value}" for name, value in self.arguments if name.startswith(("conf_c", "conf-", "CXX", "CC"))
        ]
        return " ".join(sorted(whole))


def settings_for(
    tree: OsvTree, options: Mapping[str, OptionValue], modules: Sequence[str], *, fs: str, appended: bool = True
) -> Settings:
    """Sort options and modules, for this tree.

    ``appended``: files of ours are added to those of the modules. Raises TreeInvalid for the first that the tree does
    not know, naming the nearest that it does.
    """
    mode = str(options.get("mode", "release"))
    if mode not in MODES:
        raise TreeInvalid(f"kernel.options.mode: {mode!r}: this is release or debug")
    kconfig: dict[str, str] = {}
    arguments: dict[str, str] = {}
    for name, value in options.items():
        if name == "mode":
            continue
        _check(name, value)
        option = name.removeprefix("conf_").removeprefix("conf-")
        if not name.startswith(("conf_", "conf-", "drivers_profile")):
            _check_variable(tree, name, modules)
            arguments[name] = _text_of(value)
        elif not tree.has_kconfig:
            arguments[_old_name(tree, name, option, value)] = _text_of(value)
        elif option.startswith("drivers_profile"):
            arguments["conf_drivers_profile"] = _profile(tree, name, option, value)
        elif option in tree.kconfig:
            kconfig[option] = _kconfig_value(name, value, tree.kconfig[option])
        elif re.search(rf"\bconf_{re.escape(option)}\b", tree.makefiles):
            arguments[f"conf_{option}"] = _text_of(value)
        else:
            raise _unknown(name, [*(f"conf_{each}" for each in tree.kconfig), *_make_names(tree)])
    return Settings(
        mode, _image(tree, modules, fs, appended), tuple(sorted(kconfig.items())), tuple(sorted(arguments.items()))
    )


def _check(name: str, value: OptionValue) -> None:
    if _NAME.fullmatch(name) is None:
        raise TreeInvalid(f"kernel.options.{name}: not a name of an option")
    if name in _SAID_ELSEWHERE:
        raise TreeInvalid(f"kernel.options.{name}: is said in {_SAID_ELSEWHERE[name]}")
    if name in _NOT_OURS:
        raise TreeInvalid(f"kernel.options.{name}: cannot be set: {_NOT_OURS[name]}")
    text = _text_of(value)
    # make expands $(...) in a variable's value, and runs what $(shell ...) says.
    if "$" in text or not text.isprintable():
        raise TreeInvalid(f"kernel.options.{name}: {text!r}: holds a $ or a control character, which make would act on")


def _text_of(value: OptionValue) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)


def _kconfig_value(name: str, value: OptionValue, kind: str) -> str:
    text = _text_of(value)
    match kind:
        case KconfigType.BOOL:
            known = {"1": "y", "y": "y", "true": "y", "0": "n", "n": "n", "false": "n"}
            if text.lower() not in known:
                raise TreeInvalid(f"kernel.options.{name}: {text!r}: this option is true or false (1 or 0)")
            return known[text.lower()]
        case KconfigType.INT | KconfigType.HEX:
            if _NUMBER.fullmatch(text) is None or isinstance(value, bool):
                raise TreeInvalid(f"kernel.options.{name}: {text!r}: this option is a number")
            number = int(text, 0) if text[:2].lower() == "0x" else int(text)
            return str(number) if kind == KconfigType.INT else hex(number)
        case _:
            escaped = text.replace("\\", "\\\\").replace('"', '\\"')
            return f'"{escaped}"'


def _profile(tree: OsvTree, name: str, option: str, value: OptionValue) -> str:
    """Both ways to say it: conf_drivers_profile = "aws", and Kconfig's choice conf_drivers_profile_aws = 1."""
    chosen = _text_of(value)
    if option != "drivers_profile":
        if chosen.lower() not in ("1", "y", "true"):
            raise TreeInvalid(f"kernel.options.{name}: {chosen!r}: a profile is chosen with 1, by conf_drivers_profile")
        chosen = option.removeprefix("drivers_profile_")
    _check_profile(tree, name, chosen)
    return chosen


def _check_profile(tree: OsvTree, name: str, chosen: str) -> None:
    if chosen not in tree.profiles:
        raise TreeInvalid(
            f"kernel.options.{name}: {chosen!r}: this tree has no such drivers profile",
            hint=f"it has: {', '.join(tree.profiles)}",
        )


def _old_name(tree: OsvTree, name: str, option: str, value: OptionValue) -> str:
    """The spelling of a tree without Kconfig: conf-NAME for most, conf_NAME for some, drivers_profile."""
    if option == "drivers_profile":
        _check_profile(tree, name, _text_of(value))
    for spelled in (option, f"conf-{option}", f"conf_{option}"):
        if spelled.startswith(("conf", "drivers_profile")) and re.search(
            rf"(?<![\w-]){re.escape(spelled)}(?![\w-])", tree.makefiles
        ):
            return spelled
    raise _unknown(name, _make_names(tree), because=" (it is from before OSv's Kconfig)")


def _make_names(tree: OsvTree) -> list[str]:
    return sorted(set(re.findall(r"(?<![\w-])conf[-_][a-z][a-zA-Z0-9_]*", tree.makefiles)))


def _unknown(name: str, known: Iterable[str], *, because: str = "") -> TreeInvalid:
    import difflib

    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    meant = f" (did you mean {close[0]!r}?)" if close else ""
    return TreeInvalid(
        f"kernel.options.{name}: this tree knows no such option{because}{meant}",
        hint="conf/kconfig and the Makefile of the tree list its options; one it does not know would do nothing",
    )


def _check_variable(tree: OsvTree, name: str, modules: Sequence[str]) -> None:
    """A variable must stand in what could read it: scripts/build, the Makefile, or the recipe of some module."""
    wanted = re.compile(rf"(?<![A-Za-z0-9_]){re.escape(name)}(?![A-Za-z0-9_])")
    places = [tree.path / "scripts" / "build"]
    # The named modules first; others may be required by them.
    named = [tree.modules[each] for each in (module.split(".")[0] for module in modules) if each in tree.modules]
    for directory in [*named, *tree.modules.values()]:
        places += [directory / recipe for recipe in ("Makefile", "module.py", "GET")]
    if not wanted.search(tree.makefiles) and not any(wanted.search(_read(place)) for place in places):
        raise _unknown(name, ["app_local_exec_tls_size", "usrskel", "conf_zfs", "mode"])


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _image(tree: OsvTree, modules: Sequence[str], fs: str, appended: bool) -> str:
    """The value of ``image=``, with which scripts/build adds no module of its own."""
    if list(modules) == ["default"] and appended:
        raise TreeInvalid(
            "image.modules: default: scripts/build takes it for `empty` where files are added",
            hint='name the modules it stands for, such as modules = ["cli"]',
        )
    if len(modules) == 1 and modules[0] in tree.images and fs != "rofs_with_zfs":
        return modules[0]
    for module in modules:
        if _MODULE.fullmatch(module) is None:
            raise TreeInvalid(f"image.modules: {module!r}: not a name of a module")
        name = module.split(".")[0]
        if name not in tree.modules:
            raise _no_module(tree, name)
    wanted = list(modules) or ["empty"]
    if fs == "rofs_with_zfs" and "zfs" not in wanted:
        # /data is mounted by libsolaris.so out of the ROFS, and only this module brings it there.
        wanted = [*modules, "zfs"]
    return ",".join(wanted)


def _no_module(tree: OsvTree, name: str) -> TreeInvalid:
    import difflib

    close = difflib.get_close_matches(name, tree.modules, n=3, cutoff=0.5)
    meant = f" (did you mean {', '.join(close)}?)" if close else ""
    apps = tree.path / "apps"
    hint = "modules are the directories of apps/ and modules/ in the tree"
    if not any(apps.glob("*")):
        hint = f"the apps submodule is not there: git -C {tree.path} submodule update --init apps"
    return TreeInvalid(f"image.modules: {name}: this tree has no such module{meant}", hint=hint)
