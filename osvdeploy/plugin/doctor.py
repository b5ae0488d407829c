"""What a Pulumi program with osvdeploy in it needs on this machine, looked at one by one: what is missing, and the
command that cures it. Nothing is changed, and nobody is asked over a network.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from osvdeploy.context import Context
from osvdeploy.errors import ToolMissing
from osvdeploy.plugin.asking import Answered, PluginFailed, ask
from osvdeploy.plugin.installing import EXTRA, needs_provider
from osvdeploy.plugin.places import PACKAGE, Found, Way, cached, find, pulumi_home
from osvdeploy.plugin.project import Project, project_file, read_project, read_yaml

OLDEST: Final = (3, 250)
"""The oldest Pulumi, of the command and of the Python package (pyproject.toml), that the provider is tried with."""

_TOOLS: Final = {"nodejs": "node", "go": "go", "dotnet": "dotnet", "java": "java"}
_SDK: Final = {"python": "pulumi_osvdeploy", "nodejs": "pulumi-osvdeploy"}
_OWN_BACKENDS: Final = ("file://", "s3://", "gs://", "azblob://", "postgres://")
_SEALED: Final = "$pulumiSecureStore"
"""The key of a file of logins that a keyring's key encrypts (sdk/go/common/util/securestore/envelope.go)."""
_SLOW: Final = 60.0
_ASK_PYTHON: Final = """\
import json
from importlib import metadata

def version(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None

print(json.dumps({name: version(name) for name in ("pulumi", "pulumi_osvdeploy")}))
"""


class Verdict(StrEnum):
    """What was found of one need."""

    OK = "ok"
    WARNING = "warning"
    MISSING = "missing"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Examined:
    """One need: what was seen, and the cure where it is not met, or could be better."""

    need: str
    verdict: Verdict
    seen: str
    cure: str | None = None


def examine(ctx: Context, folder: Path, stack: str | None, environ: Mapping[str, str]) -> list[Examined]:
    """All needs of the project that a folder is in; of a folder without one, those that hold for any.

    Raises UsageError where Pulumi.yaml cannot be read.
    """
    doctor = _Doctor(ctx, folder, stack, environ)
    return list(doctor.all())


class _Doctor:
    def __init__(self, ctx: Context, folder: Path, stack: str | None, environ: Mapping[str, str]) -> None:
        self.ctx, self.environ = ctx, environ
        self.folder, self.stack = folder, stack
        self.project: Project | None = None
        self.unmade: tuple[Path, str] | None = None
        """The program's environment that is not there, and what makes it."""

    def all(self) -> Iterator[Examined]:
        packages = self.packages()
        yield packages
        yield self.command()
        if packages.verdict is Verdict.MISSING:
            # Without them neither Pulumi.yaml nor the plugin can be read.
            return
        yield self.this_project()
        if self.project is not None:
            yield self.language(self.project)
            sdk, wanted = self.sdk(self.project)
            yield sdk
        else:
            wanted = None
        found = find(self.project.plugin if self.project is not None else None, wanted, self.environ)
        plugin = self.plugin(found, wanted)
        yield plugin
        configuration, where = self.configuration()
        if found is not None and plugin.verdict is not Verdict.MISSING:
            yield from self.start(found, wanted, configuration, where)
        yield self.backend()
        passphrase = self.passphrase()
        if passphrase is not None:
            yield passphrase

    # ------------------------------------------------------------------------------------------- of this environment

    def packages(self) -> Examined:
        """What the provider itself runs on."""
        need = "packages"
        try:
            needs_provider()
            have = metadata.version("pulumi")
        except ToolMissing as error:
            return Examined(need, Verdict.MISSING, error.message, f"{sys.executable} -m {EXTRA}")
        except metadata.PackageNotFoundError:
            have = "0"
        if not _supported(have):
            return Examined(
                need, Verdict.MISSING, f"the package pulumi is {have}, {_range()} is needed",
                f"{sys.executable} -m {EXTRA}",
            )  # fmt: skip
        return Examined(need, Verdict.OK, f"pulumi {have}, grpcio {metadata.version('grpcio')} in {sys.prefix}")

    def command(self) -> Examined:
        """Pulumi's own command."""
        need, cure = "pulumi", "curl -fsSL https://get.pulumi.com | sh"
        path = self.which("pulumi")
        if path is None:
            return Examined(need, Verdict.MISSING, "pulumi is not on PATH", cure)
        said = self.run([path, "version"])
        version = (said or "").strip().removeprefix("v")
        if not re.match(r"\d+\.\d+", version):
            return Examined(need, Verdict.MISSING, f"{path} does not tell its version", cure)
        if not _supported(version):
            return Examined(need, Verdict.MISSING, f"{path} is {version}, {_range()} is needed", cure)
        return Examined(need, Verdict.OK, f"{version}, {path}")

    # ------------------------------------------------------------------------------------------------ of the project

    def this_project(self) -> Examined:
        file = project_file(self.folder)
        if file is None:
            return Examined(
                "project", Verdict.SKIPPED, f"no Pulumi.yaml in {self.folder.absolute()}, or above",
                "--project names a project's folder",
            )  # fmt: skip
        self.project = project = read_project(file)
        return Examined("project", Verdict.OK, f"{project.name}, runtime {project.runtime}, {file}")

    def language(self, project: Project) -> Examined:
        """The host of the program's language, which comes with Pulumi's command, and what the host runs it with."""
        need, runtime = "language", project.runtime
        host = self.which(f"pulumi-language-{runtime}")
        command = self.which("pulumi")
        if host is None and command is not None:
            beside = Path(command).resolve().with_name(f"pulumi-language-{runtime}")
            host = str(beside) if beside.is_file() else None
        if host is None:
            return Examined(
                need, Verdict.MISSING, f"pulumi-language-{runtime} is neither on PATH nor beside pulumi",
                "install Pulumi whole: its archive has the hosts of all languages; a distribution's package may not",
            )  # fmt: skip
        tool = _TOOLS.get(runtime)
        if tool is not None and self.which(tool) is None:
            return Examined(need, Verdict.MISSING, f"{tool} is not on PATH", f"install {tool}")
        return Examined(need, Verdict.OK, host)

    def sdk(self, project: Project) -> tuple[Examined, str | None]:
        """The SDK that the program imports, and its version, which is the plugin's that Pulumi looks for."""
        need = "sdk"
        match project.runtime:
            case "python":
                return self.python_sdk(project)
            case "nodejs":
                return self.node_sdk(project)
            case "yaml":
                return Examined(need, Verdict.SKIPPED, "a program in YAML has none: Pulumi asks the plugin"), None
            case runtime:
                return Examined(need, Verdict.SKIPPED, f"not looked for in programs of runtime {runtime}"), None

    def python_sdk(self, project: Project) -> tuple[Examined, str | None]:
        need = "sdk"
        interpreter, told = self.interpreter(project)
        if interpreter is None:
            return told, None
        said = self.run([str(interpreter), "-c", _ASK_PYTHON], folder=project.folder)
        try:
            versions: dict[str, str | None] = json.loads(said or "")
        except ValueError:
            return Examined(need, Verdict.MISSING, f"{interpreter} does not run", "pulumi install"), None
        lacking = [name for name, version in versions.items() if version is None]
        if lacking:
            seen = f"the program's Python, {interpreter}, has no {' and no '.join(lacking)}"
            cure = f"{interpreter} -m pip install {' '.join(lacking)}"
            if named_here := _environment_with("pulumi_osvdeploy", project.folder):
                cure = f"in Pulumi.yaml, runtime: {{name: python, options: {{virtualenv: {named_here}}}}}; or {cure}"
            return Examined(need, Verdict.MISSING, seen, cure), None
        version = versions["pulumi_osvdeploy"]
        return Examined(need, Verdict.OK, f"pulumi_osvdeploy {version} in {interpreter}"), version

    def interpreter(self, project: Project) -> tuple[Path | None, Examined]:
        """The program's Python, by the rules of pulumi-language-python."""
        need = "sdk"
        named = project.options.get("virtualenv")
        toolchain = project.options.get("toolchain")
        above = (project.folder, *project.folder.parents)
        locked = next((each for each in above if (each / "uv.lock").is_file()), None)
        if toolchain is None:
            poetry = any((each / "poetry.lock").is_file() for each in above)
            toolchain = "uv" if locked is not None else "poetry" if poetry else "pip"
        if toolchain == "poetry":
            return None, Examined(need, Verdict.SKIPPED, "poetry's environment is not looked into")
        if toolchain == "uv" and named is None:
            named = str((locked or project.folder) / (self.environ.get("UV_PROJECT_ENVIRONMENT") or ".venv"))
        if isinstance(named, str):
            path = project.folder / named / "bin" / "python"
            cure = self.making(project, named, str(toolchain))
            missing = Examined(need, Verdict.MISSING, f"{path}, the program's Python, is not there", cure)
            if path.exists():
                return path, missing
            self.unmade = project.folder / named, cure
            return None, missing
        commands = (
            [self.environ["PULUMI_PYTHON_CMD"]] if self.environ.get("PULUMI_PYTHON_CMD") else ["python3", "python"]
        )
        found = next(filter(None, map(self.which, commands)), None)
        missing = Examined(need, Verdict.MISSING, f"no {' or '.join(commands)} on PATH", "install Python")
        return Path(found) if found is not None else None, missing

    def making(self, project: Project, environment: str, toolchain: str) -> str:
        """What makes the program's environment: Pulumi, which does nothing while the plugin's folder is not there."""
        if project.plugin is None or project.plugin.is_dir():
            return "pulumi install"
        if toolchain == "uv":
            return "uv sync"
        listed = (project.folder / "requirements.txt").is_file()
        packages = "-r requirements.txt" if listed else f"'osvdeploy[pulumi]' {_SDK['python']}"
        return f"python3 -m venv {environment} && {environment}/bin/pip install {packages}"

    def node_sdk(self, project: Project) -> tuple[Examined, str | None]:
        need = "sdk"
        for name in ("@pulumi/osvdeploy", "pulumi-osvdeploy"):
            try:
                package = json.loads((project.folder / "node_modules" / name / "package.json").read_bytes())
                told = package.get("pulumi")
                version = str((told if isinstance(told, dict) else {}).get("version") or package["version"])
            except (OSError, ValueError, KeyError, AttributeError):
                continue
            return Examined(need, Verdict.OK, f"{name} {version} in node_modules"), version.removeprefix("v")
        return Examined(
            need, Verdict.MISSING, "there is no SDK of osvdeploy in node_modules",
            f"osvdeploy pulumi install && pulumi package add {PACKAGE}",
        ), None  # fmt: skip

    # -------------------------------------------------------------------------------------------------- the plugin

    def plugin(self, found: Found | None, wanted: str | None) -> Examined:
        """Which one Pulumi would start, and how it comes to it."""
        need, cure = "plugin", "osvdeploy pulumi install"
        if found is None:
            versions = ", ".join(each.version or "" for each in cached(self.environ))
            if versions and wanted is not None:
                return Examined(
                    need, Verdict.MISSING, f"the program's SDK asks for {wanted}; Pulumi's cache has {versions}",
                    f"pip install 'osvdeploy[pulumi]=={wanted}' && {cure}",
                )  # fmt: skip
            return Examined(need, Verdict.MISSING, "neither the project nor PATH nor Pulumi's cache has it", cure)
        where = {
            Way.PROJECT: "named in Pulumi.yaml",
            Way.PATH: "on PATH",
            Way.CACHE: f"{found.version} in Pulumi's cache",
        }[found.way]
        if not found.runs:
            if found.way is Way.PROJECT and self.project is not None:
                cure = f"{cure} --project {self.project.folder}"
                if self.unmade is not None and found.command.is_relative_to(self.unmade[0]):
                    cure = self.unmade[1]
            return Examined(need, Verdict.MISSING, f"{where}, but there is no {found.command} to run", cure)
        if found.way is Way.PATH:
            seen = f"{where}, {found.command}: Pulumi warns of that, and finds it in such a shell alone"
            kept = any(wanted is None or each.version == wanted for each in cached(self.environ))
            return Examined(
                need, Verdict.WARNING, seen,
                "export PULUMI_IGNORE_AMBIENT_PLUGINS=true, and the one in the cache is taken" if kept else cure,
            )  # fmt: skip
        return Examined(need, Verdict.OK, f"{where}, {found.command}")

    def start(
        self, found: Found, wanted: str | None, configuration: Mapping[str, str], where: str | None
    ) -> Iterator[Examined]:
        """Whether it starts and answers, as which version, and what it says of the stack's configuration."""
        folder = self.project.folder if self.project is not None else self.folder
        try:
            answered = ask(self.ctx, found.command, folder, configuration, self.environ)
        except PluginFailed as error:
            cure = "osvdeploy pulumi install, from the environment that osvdeploy is in"
            yield Examined("start", Verdict.MISSING, error.message, cure)
            return
        yield self.started(found, wanted, answered)
        if where is not None:
            yield self.judged(answered, configuration, where)
        elif self.stack is not None and self.project is not None:
            seen = f"no Pulumi.{self.selected()}{self.project.file.suffix} in {self.project.stacks}"
            yield Examined("configuration", Verdict.SKIPPED, seen, "pulumi stack ls, or pulumi config set")

    def started(self, found: Found, wanted: str | None, answered: Answered) -> Examined:
        took = f"port after {answered.port * 1000:.0f} ms, Handshake answered after {answered.handshake * 1000:.0f} ms"
        seen = f"version {answered.version}, {took}"
        expected = wanted or found.version
        if expected is not None and expected != answered.version:
            whose = "the program's SDK is" if wanted is not None else "the cache calls it"
            cure = f"the same version of both: {EXTRA} pulumi_osvdeploy, and osvdeploy pulumi install"
            return Examined("start", Verdict.WARNING, f"{seen}; {whose} {expected}", cure)
        return Examined("start", Verdict.OK, seen)

    def judged(self, answered: Answered, configuration: Mapping[str, str], where: str) -> Examined:
        need = "configuration"
        if answered.problems:
            told = "; ".join(f"{PACKAGE}:{name}: {reason}" for name, reason in answered.problems)
            key = f"{PACKAGE}:{answered.problems[0][0].partition('.')[0]}"
            cure = f"pulumi config rm {key}, or pulumi config set {key} VALUE"
            return Examined(need, Verdict.MISSING, f"{where}: {told}", cure)
        region = configuration.get("region")
        found = [f"region {region}"] if region else []
        found += [
            f"region {self.environ[name]} ({name})" for name in ("AWS_REGION",) if not region and name in self.environ
        ]
        given = ", ".join(sorted(configuration)) or "nothing"
        seen = f"{where} gives {given}"
        return Examined(need, Verdict.OK, "; ".join([seen, *found]))

    def configuration(self) -> tuple[dict[str, str], str | None]:
        """The provider's part of the stack's configuration, and the file that it is in. Secrets are left out: to read
        them takes the stack's key."""
        name = self.selected()
        if self.project is None or name is None:
            return {}, None
        file = self.project.stacks / f"Pulumi.{name}{self.project.file.suffix}"
        if not file.is_file():
            return {}, None
        config = read_yaml(file).get("config")
        given = {}
        for key, value in (config if isinstance(config, dict) else {}).items():
            package, _, rest = str(key).partition(":")
            if package == PACKAGE and not (isinstance(value, dict) and set(value) == {"secure"}):
                given[rest.removeprefix("config:")] = value if isinstance(value, str) else json.dumps(value)
        return given, file.name

    def selected(self) -> str | None:
        """The stack that is meant: said, of the environment, selected, or the only one there is."""
        named = self.stack or self.environ.get("PULUMI_STACK")
        if named is None and self.project is not None:
            digest = hashlib.sha1(str(self.project.file).encode()).hexdigest()
            settings = pulumi_home(self.environ) / "workspaces" / f"{self.project.name}-{digest}-workspace.json"
            try:
                chosen = json.loads(settings.read_bytes())
                named = chosen.get("stacks", {}).get(self.where_states_are()) or chosen.get("stack")
            except (OSError, ValueError, AttributeError):
                named = None
            if named is None:
                files = list(self.project.stacks.glob(f"Pulumi.*{self.project.file.suffix}"))
                named = (
                    files[0].name.split(".", 1)[1].removesuffix(self.project.file.suffix) if len(files) == 1 else None
                )
        return named.rpartition("/")[2] if named else None

    # ------------------------------------------------------------------------------------------------ the backend

    def where_states_are(self) -> str | None:
        if self.environ.get("PULUMI_BACKEND_URL"):
            return self.environ["PULUMI_BACKEND_URL"]
        if self.project is not None and self.project.backend is not None:
            return self.project.backend
        current = self.credentials().get("current")
        return current if isinstance(current, str) and current else None

    def credentials(self) -> dict[str, Any]:
        folder = self.environ.get("PULUMI_CREDENTIALS_PATH") or pulumi_home(self.environ)
        try:
            found = json.loads((Path(folder) / "credentials.json").read_bytes())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def backend(self) -> Examined:
        """Where states are, and whether one is logged in there as far as this machine knows."""
        need, token = "backend", bool(self.environ.get("PULUMI_ACCESS_TOKEN"))
        place = self.where_states_are()
        if not token and _SEALED in self.credentials() and not (place or "").startswith(_OWN_BACKENDS):
            return Examined(need, Verdict.SKIPPED, "the login is in an encrypted file: `pulumi whoami` tells of it")
        if place is None:
            if token:
                return Examined(need, Verdict.OK, "Pulumi Cloud, by PULUMI_ACCESS_TOKEN")
            cure = "pulumi login, or pulumi login --local to keep states on this machine"
            return Examined(need, Verdict.MISSING, "nobody is logged in to where states are kept", cure)
        if place.startswith(_OWN_BACKENDS):
            # A database's address may have a password in it.
            return Examined(need, Verdict.OK, re.sub(r"//[^/@]*@", "//", place))
        tokens = self.credentials().get("accessTokens")
        if not token and not (isinstance(tokens, dict) and tokens.get(place)):
            return Examined(need, Verdict.MISSING, f"not logged in to {place}", f"pulumi login {place}")
        return Examined(need, Verdict.OK, place)

    def passphrase(self) -> Examined | None:
        """The key of the stack's secrets, where it is a passphrase."""
        name = self.selected()
        file = self.project.stacks / f"Pulumi.{name}{self.project.file.suffix}" if self.project and name else None
        settings = read_yaml(file) if file is not None and file.is_file() else {}
        kept = settings.get("secretsprovider")
        own = (self.where_states_are() or "").startswith(_OWN_BACKENDS)
        if not (settings.get("encryptionsalt") or (own and kept in (None, "passphrase"))):
            return None
        given = [each for each in ("PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE") if each in self.environ]
        if given:
            return Examined("passphrase", Verdict.OK, f"by {given[0]}")
        return Examined(
            "passphrase", Verdict.WARNING, "none in the environment: Pulumi asks at a terminal, and fails elsewhere",
            "export PULUMI_CONFIG_PASSPHRASE=..., or PULUMI_CONFIG_PASSPHRASE_FILE",
        )  # fmt: skip

    # -------------------------------------------------------------------------------------------------------- tools

    def which(self, command: str) -> str | None:
        return shutil.which(command, path=self.environ.get("PATH", os.defpath))

    def run(self, words: list[str], folder: Path | None = None) -> str | None:
        """What a command prints, None where it fails."""
        try:
            ended = subprocess.run(
                words, cwd=folder, env={**self.environ, "PULUMI_SKIP_UPDATE_CHECK": "true"}, stdin=subprocess.DEVNULL,
                capture_output=True, text=True, timeout=_SLOW,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
            return None
        return ended.stdout if ended.returncode == 0 else None


def _environment_with(distribution: str, project: Path) -> str | None:
    """The virtual environment that this runs in, where it has a package; relative to the project where it is in it."""
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
    here = Path(sys.prefix)
    if here == Path(sys.base_prefix):
        return None
    return str(here.relative_to(project) if here.is_relative_to(project) else here)


def _supported(version: str) -> bool:
    parts = re.match(r"(\d+)\.(\d+)", version)
    return parts is not None and int(parts[1]) == OLDEST[0] and int(parts[2]) >= OLDEST[1]


def _range() -> str:
    return f"{OLDEST[0]}.{OLDEST[1]} or newer, before {OLDEST[0] + 1}"
