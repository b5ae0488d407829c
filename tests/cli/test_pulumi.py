"""`osvdeploy pulumi install` and `doctor`: the plugin in its places, and what is missing with the cure."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from osvdeploy.context import Context
from osvdeploy.plugin import doctor
from osvdeploy.plugin.asking import PluginFailed, ask
from osvdeploy.plugin.places import COMMAND, cache_folder
from osvdeploy.version import __version__
from tests.cli.running import Ran, osvdeploy

SCRIPTS = Path(sys.executable).parent
PAGE = (Path(__file__).parents[2] / "docs" / "json.md").read_text()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project in YAML on a machine with Pulumi: a command that tells its version, a host, a login."""
    for name in [each for each in os.environ if each.startswith(("PULUMI_", "AWS_"))]:
        monkeypatch.delenv(name)
    executable(tmp_path / "bin" / "pulumi", "echo v3.260.0")
    executable(tmp_path / "bin" / "pulumi-language-yaml", "exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("PULUMI_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PULUMI_BACKEND_URL", f"file://{tmp_path}")
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "")
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "Pulumi.yaml").write_text("name: orders\nruntime: yaml\n")
    return folder


def executable(path: Path, script: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def names_plugin(folder: Path, plugin: Path) -> None:
    with (folder / "Pulumi.yaml").open("a") as file:
        file.write(f"plugins:\n  providers:\n    - name: osvdeploy\n      path: {plugin}\n")


def needs(ran: Ran) -> dict[str, dict[str, Any]]:
    """What was found, by need; the exit code and the text say the same."""
    document = ran.document
    assert set(document) == {"schema", "command", "ok", "needs"}
    found = {each.pop("need"): each for each in document["needs"]}
    assert all(each["cure"] for each in found.values() if each["verdict"] in ("missing", "warning"))
    assert document["ok"] == (ran.code == 0) == all(each["verdict"] != "missing" for each in found.values())
    return found


def examined(folder: Path, *words: str) -> dict[str, dict[str, Any]]:
    return needs(osvdeploy("pulumi", "doctor", *words, "--json", folder=folder))


def test_install_says_what_it_did(project: Path) -> None:
    """Into the cache, and into the project where that is asked for; again it finds nothing to do."""
    file, path = project / "Pulumi.yaml", cache_folder(os.environ, __version__) / COMMAND
    before = file.read_text()
    ran = osvdeploy("pulumi", "install", folder=project)
    assert (ran.code, ran.stdout) == (0, f"{path}: installed, runs {sys.executable}\n")
    assert file.read_text() == before
    ran = osvdeploy("pulumi", "install", "--project", str(project))
    assert ran.code == 0 and ran.stdout.splitlines() == [
        f"{path}: there already, runs {sys.executable}",
        f"{file}: names {SCRIPTS} now",
    ]
    assert "names a folder of this machine" in ran.stderr
    ran = osvdeploy("pulumi", "install", "--project", str(project), "--json")
    told = ran.document
    assert told["project"] == {"file": str(file), "path": str(SCRIPTS), "did": "kept", "before": None}
    assert (told["path"], told["did"], told["others"], told["before"]) == (str(path), "kept", [], None)
    (row,) = [line for line in PAGE.splitlines() if line.startswith("| `pulumi install` ")]
    assert all(f"`{name}`" in row for name in told if name not in ("schema", "command"))


def test_what_is_refused_leaves_all_as_it_was(project: Path, tmp_path: Path) -> None:
    """A project that is not understood, and a folder without one: nothing is in the cache either."""
    (project / "Pulumi.yaml").write_text("{name: orders, runtime: yaml}\n")
    ran = osvdeploy("pulumi", "install", "--project", str(project))
    assert ran.code == 2 and "write by hand" in ran.stderr
    ran = osvdeploy("pulumi", "install", "--project", str(tmp_path))
    assert ran.code == 2 and "no Pulumi.yaml" in ran.stderr
    assert not (tmp_path / "home").exists()


def test_without_the_extra_nothing_is_installed(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plugin could not start; doctor says the same, and what to install."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    ran = osvdeploy("pulumi", "install", folder=project)
    assert ran.code == 2 and "needs grpc" in ran.stderr and "osvdeploy[pulumi]" in ran.stderr
    found = examined(project)
    assert found["packages"]["verdict"] == "missing"
    assert found["packages"]["cure"] == f"{sys.executable} -m pip install 'osvdeploy[pulumi]'"


@pytest.mark.slow
def test_a_machine_on_which_all_is_well(project: Path) -> None:
    """Each need is looked at; the plugin is started, asked for its version and for what it thinks of the stack."""
    assert osvdeploy("pulumi", "install", folder=project).code == 0
    (project / "Pulumi.dev.yaml").write_text(
        "config:\n  osvdeploy:region: eu-west-1\n  osvdeploy:role: {secure: abc}\n  orders:version: 1\n"
        "  osvdeploy:endpoints:\n    aws: http://127.0.0.1:1\n"
    )
    found = examined(project)
    verdicts = {need: each["verdict"] for need, each in found.items()}
    assert verdicts == {
        "packages": "ok", "pulumi": "ok", "project": "ok", "language": "ok", "sdk": "skipped", "plugin": "ok",
        "start": "ok", "configuration": "ok", "backend": "ok", "passphrase": "ok",
    }  # fmt: skip
    assert f"version {__version__}, port after" in found["start"]["seen"]
    assert found["configuration"]["seen"] == "Pulumi.dev.yaml gives endpoints, region; region eu-west-1"
    text = osvdeploy("pulumi", "doctor", "--project", str(project)).stdout
    assert "ok       plugin" in text and "->" not in text


@pytest.mark.slow
def test_what_is_wrong_with_a_stacks_configuration(project: Path) -> None:
    """In the provider's own words, before any `up`. Which stack is meant is said, of the environment, or selected."""
    names_plugin(project, SCRIPTS)
    (project / "Pulumi.dev.yaml").write_text("config:\n  osvdeploy:endpoints: {aws: 'http://127.0.0.1:1'}\n")
    (project / "Pulumi.prod.yaml").write_text("config:\n  osvdeploy:regoin: x\n")
    assert "configuration" not in examined(project)
    assert examined(project, "--stack", "organization/orders/dev")["configuration"]["verdict"] == "ok"
    assert "no Pulumi.test.yaml" in examined(project, "--stack", "test")["configuration"]["seen"]
    wrong = examined(project, "--stack", "prod")["configuration"]
    assert wrong["cure"].startswith("pulumi config rm osvdeploy:regoin, or")
    assert wrong["verdict"] == "missing" and "regoin" in wrong["seen"] and "Pulumi.prod.yaml" in wrong["seen"]


def test_pulumi_itself(project: Path, tmp_path: Path) -> None:
    """Not there, too old, not Pulumi; and a language whose host or tool is not there."""
    names_plugin(project, tmp_path / "nowhere")
    pulumi, host = tmp_path / "bin" / "pulumi", tmp_path / "bin" / "pulumi-language-yaml"
    host.unlink()
    assert examined(project)["language"]["verdict"] == "missing"
    executable(pulumi, "echo v3.249.9")
    assert "3.249.9, 3.250 or newer" in examined(project)["pulumi"]["seen"]
    executable(pulumi, "exit 1")
    assert "does not tell its version" in examined(project)["pulumi"]["seen"]
    pulumi.unlink()
    found = examined(project)["pulumi"]
    assert (found["verdict"], found["seen"]) == ("missing", "pulumi is not on PATH")


def test_a_plugin_that_is_not_there(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By each of the ways that Pulumi looks: what it finds is said, and what puts it right."""
    found = examined(project)["plugin"]
    assert (found["verdict"], found["cure"]) == ("missing", "osvdeploy pulumi install")
    names_plugin(project, tmp_path / "nowhere")
    found = examined(project)["plugin"]
    assert found["verdict"] == "missing" and str(tmp_path / "nowhere" / COMMAND) in found["seen"]
    assert found["cure"] == f"osvdeploy pulumi install --project {project}"


@pytest.mark.slow
def test_a_plugin_that_is_only_on_path(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Works, with a warning of Pulumi's at each command, and in no other shell."""
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}:{SCRIPTS}")
    found = examined(project)
    assert found["plugin"]["verdict"] == "warning" and found["start"]["verdict"] == "ok"
    assert found["plugin"]["cure"] == "osvdeploy pulumi install"
    assert osvdeploy("pulumi", "install", folder=project).code == 0
    cure = examined(project)["plugin"]["cure"]
    name, value = cure.partition(",")[0].removeprefix("export ").split("=")
    monkeypatch.setenv(name, value)
    assert examined(project)["plugin"]["verdict"] == "ok"


FAILURES: dict[str, str] = {
    "ended with 3 before it told its port: no such module": "echo no such module >&2; exit 3",
    "began with 'Traceback', where a plugin tells its port": "echo Traceback; exec sleep 60",
    "has told no port in": "exec sleep 60",
    "did not answer the engine's Handshake": "echo 1; exec sleep 60",
}


@pytest.mark.slow
@pytest.mark.parametrize("why", FAILURES)
def test_a_plugin_that_does_not_start(why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each way to fail has its words; nothing of it is left running."""
    monkeypatch.setattr("osvdeploy.plugin.asking.PATIENCE", 0.5)
    plugin = executable(tmp_path / "bin" / "plugin", f"echo $$ > {tmp_path}/pid; {FAILURES[why]}")
    with pytest.raises(PluginFailed, match=why):
        ask(Context(), plugin, tmp_path, {}, os.environ)
    pid = int((tmp_path / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.killpg(pid, 0)


@pytest.mark.slow
def test_the_programs_own_python(project: Path, tmp_path: Path) -> None:
    """Its packages are looked for where the program runs, and the plugin is to be of the SDK's version."""
    executable(tmp_path / "bin" / "pulumi-language-python", "exit 1")
    write = (project / "Pulumi.yaml").write_text
    assert osvdeploy("pulumi", "install", folder=project).code == 0

    def answers(sdk: str | None) -> str:
        return f"echo '{json.dumps({'pulumi': '3.260.0', 'pulumi_osvdeploy': sdk})}'"

    executable(tmp_path / "bin" / "python3", answers("7.0.0"))
    write("name: orders\nruntime: python\n")
    found = examined(project)
    assert found["sdk"]["seen"] == f"pulumi_osvdeploy 7.0.0 in {tmp_path / 'bin' / 'python3'}"
    assert found["plugin"]["verdict"] == "missing"
    assert f"asks for 7.0.0; Pulumi's cache has {__version__}" in found["plugin"]["seen"]

    executable(tmp_path / "bin" / "python3", answers(None))
    lacking = examined(project)["sdk"]
    assert "has no pulumi_osvdeploy" in lacking["seen"]
    assert lacking["cure"].startswith(
        f"in Pulumi.yaml, runtime: {{name: python, options: {{virtualenv: {sys.prefix}}}}}"
    )

    write("name: orders\nruntime: {name: python, options: {virtualenv: venv}}\n")
    assert examined(project)["sdk"]["cure"] == "pulumi install"
    (project / "venv").mkdir()
    executable(project / "venv" / "bin" / "python", answers(__version__))
    found = examined(project)
    assert (found["sdk"]["verdict"], found["plugin"]["verdict"]) == ("ok", "ok")
    names_plugin(project, SCRIPTS)
    executable(project / "venv" / "bin" / "python", answers("7.0.0"))
    assert examined(project)["start"]["seen"].endswith("the program's SDK is 7.0.0")


def test_an_environment_that_pulumi_does_not_make(project: Path, tmp_path: Path) -> None:
    """Where Pulumi.yaml names the provider in an environment that is not there yet, Pulumi does nothing at all, so the
    environment comes first: by pip, or by uv."""
    executable(tmp_path / "bin" / "pulumi-language-python", "exit 1")
    options = "{toolchain: pip, virtualenv: .venv}"
    (project / "Pulumi.yaml").write_text(f"name: orders\nruntime: {{name: python, options: {options}}}\n")
    names_plugin(project, Path(".venv/bin"))
    found = examined(project)
    made = "python3 -m venv .venv && .venv/bin/pip install"
    assert found["sdk"]["cure"] == found["plugin"]["cure"] == f"{made} 'osvdeploy[pulumi]' pulumi_osvdeploy"
    (project / "requirements.txt").write_text("osvdeploy[aws,pulumi]\npulumi_osvdeploy\n")
    found = examined(project)
    assert found["sdk"]["cure"] == found["plugin"]["cure"] == f"{made} -r requirements.txt"
    (project / "uv.lock").touch()
    (project / "Pulumi.yaml").write_text("name: orders\nruntime: python\n")
    names_plugin(project, Path(".venv/bin"))
    found = examined(project)
    assert found["sdk"]["cure"] == found["plugin"]["cure"] == "uv sync"


def test_each_toolchain_has_its_python(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """uv's environment is beside its lock, or where its variable says; poetry's is not looked for; a command that
    Pulumi's own variable names counts before python3."""
    names_plugin(project, tmp_path / "nowhere")
    file = project / "Pulumi.yaml"
    file.write_text(file.read_text().replace("runtime: yaml", "runtime: python"))

    def answers(path: Path, version: str) -> None:
        path.parent.mkdir(parents=True)
        executable(path, f"echo '{json.dumps({'pulumi': '3.260.0', 'pulumi_osvdeploy': version})}'")

    answers(tmp_path / "own" / "python9", "0.0.1")
    monkeypatch.setenv("PULUMI_PYTHON_CMD", str(tmp_path / "own" / "python9"))
    assert examined(project)["sdk"]["seen"].startswith("pulumi_osvdeploy 0.0.1 in ")
    (tmp_path / "uv.lock").touch()
    assert examined(project)["sdk"]["seen"].startswith(str(tmp_path / ".venv" / "bin" / "python"))
    answers(tmp_path / ".venv" / "bin" / "python", "0.0.2")
    assert examined(project)["sdk"]["seen"].startswith("pulumi_osvdeploy 0.0.2 in ")
    answers(tmp_path / "elsewhere" / "bin" / "python", "0.0.3")
    monkeypatch.setenv("UV_PROJECT_ENVIRONMENT", str(tmp_path / "elsewhere"))
    assert examined(project)["sdk"]["seen"].startswith("pulumi_osvdeploy 0.0.3 in ")
    (tmp_path / "uv.lock").rename(project / "poetry.lock")
    assert examined(project)["sdk"]["verdict"] == "skipped"


def test_the_sdk_of_a_program_in_typescript(project: Path, tmp_path: Path) -> None:
    """As `pulumi package add` links it."""
    executable(tmp_path / "bin" / "pulumi-language-nodejs", "exit 1")
    executable(tmp_path / "bin" / "node", "exit 1")
    (project / "Pulumi.yaml").write_text("name: orders\nruntime: nodejs\n")
    assert examined(project)["sdk"]["verdict"] == "missing"
    package = project / "node_modules" / "pulumi-osvdeploy"
    package.mkdir(parents=True)
    (package / "package.json").write_text('{"version": "0.1.0", "pulumi": {"resource": true}}')
    assert examined(project)["sdk"]["seen"] == "pulumi-osvdeploy 0.1.0 in node_modules"


def test_logins_and_passphrases(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What can be known without asking anybody."""
    names_plugin(project, tmp_path / "nowhere")
    monkeypatch.delenv("PULUMI_CONFIG_PASSPHRASE")
    found = examined(project)
    assert (found["backend"]["verdict"], found["passphrase"]["verdict"]) == ("ok", "warning")
    monkeypatch.delenv("PULUMI_BACKEND_URL")
    found = examined(project)
    assert found["backend"]["verdict"] == "missing" and "passphrase" not in found
    (tmp_path / "home").mkdir()
    stored = tmp_path / "home" / "credentials.json"
    stored.write_text('{"current": "https://api.pulumi.com", "accessTokens": {}}')
    assert examined(project)["backend"]["cure"] == "pulumi login https://api.pulumi.com"
    stored.write_text('{"current": "https://api.pulumi.com", "accessTokens": {"https://api.pulumi.com": "t"}}')
    found = examined(project)
    assert found["backend"]["verdict"] == "ok" and "passphrase" not in found
    stored.write_text('{"$pulumiSecureStore": 1, "backend": "keychain", "data": "x"}')
    assert examined(project)["backend"]["verdict"] == "skipped"
    monkeypatch.setenv("PULUMI_BACKEND_URL", "postgres://me:secret@db/states")
    assert examined(project)["backend"]["seen"] == "postgres://db/states"
    monkeypatch.setenv("PULUMI_BACKEND_URL", "https://api.pulumi.com")
    monkeypatch.setenv("PULUMI_ACCESS_TOKEN", "t")
    assert examined(project)["backend"]["verdict"] == "ok"
    (project / "Pulumi.dev.yaml").write_text("encryptionsalt: v1:abc\n")
    assert examined(project)["passphrase"]["verdict"] == "warning"


def test_the_contract_names_what_is_told(project: Path) -> None:
    """docs/json.md has each need and each verdict."""
    (row,) = [line for line in PAGE.splitlines() if line.startswith("| `pulumi doctor` ")]
    told = [*examined(project), "start", "configuration", *doctor.Verdict]
    assert all(f"`{name}`" in row for name in told)


def test_what_is_supported_is_what_is_declared() -> None:
    """The oldest Pulumi is the one that pyproject.toml asks for."""
    declared = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert f'"pulumi>={doctor.OLDEST[0]}.{doctor.OLDEST[1]},<{doctor.OLDEST[0] + 1}"' in declared
