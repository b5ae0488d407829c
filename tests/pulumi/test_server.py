"""Every call of the protocol, through the real process and its real server."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import empty_pb2
from pulumi.runtime.proto import plugin_pb2, provider_pb2

from osvdeploy.provider.codec import decode, encode
from osvdeploy.provider.schema import schema_text
from osvdeploy.provider.values import UNKNOWN, Secret, Value, has_secrets
from osvdeploy.version import __version__
from tests.alive import lives, until
from tests.pulumi.lifecycle import lives_a_whole_life
from tests.pulumi.probe import COMMAND, Ask, Probe
from tests.pulumi.process import (
    PATIENCE,
    SCRIPT,
    Diffed,
    Failed,
    ListeningEngine,
    ProviderProcess,
    running,
    start,
    urn_of,
)

pytestmark = pytest.mark.slow

PROBE = Probe.TOKEN
ROOT = Path(__file__).parents[2]
ENVIRON = {"PYTHONPATH": str(ROOT)}
PASSWORD = "hunter2-of-mine"


@pytest.fixture(scope="module")
def engine() -> Iterator[ListeningEngine]:
    engine = ListeningEngine()
    yield engine
    engine.stop()


@pytest.fixture(scope="module")
def provider(engine: ListeningEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProviderProcess]:
    with running(tmp_path_factory.mktemp("program"), ENVIRON, engine=engine.address, command=COMMAND) as provider:
        yield provider


@pytest.fixture
def own(tmp_path: Path) -> Iterator[ProviderProcess]:
    """A process that a test may end."""
    with running(tmp_path, ENVIRON, command=COMMAND) as provider:
        yield provider


def checked(provider: ProviderProcess, **given: Value) -> dict[str, Value]:
    inputs, failures = provider.check(PROBE, given)
    assert failures == []
    return inputs


# ------------------------------------------------------------------------------------------------------------ plugin


def test_handshake_and_info(provider: ProviderProcess) -> None:
    """The provider keeps secrets, takes autonaming, and tells its version and its schema."""
    hands = provider.ask("Handshake", provider_pb2.ProviderHandshakeRequest())
    assert (hands.accept_secrets, hands.accept_resources, hands.accept_outputs) == (True, True, False)
    assert hands.supports_autonaming_configuration
    assert provider.ask("GetPluginInfo", empty_pb2.Empty()).version == __version__
    assert provider.ask("GetSchema", provider_pb2.GetSchemaRequest(version=1)).schema == schema_text()
    with pytest.raises(Failed, match="INVALID_ARGUMENT"):
        provider.ask("GetSchema", provider_pb2.GetSchemaRequest(version=7))


def test_what_is_not_served(provider: ProviderProcess) -> None:
    """A call that the provider does not have is UNIMPLEMENTED, which the engine takes as that."""
    with pytest.raises(Failed, match="UNIMPLEMENTED"):
        provider.ask("Call", provider_pb2.CallRequest(tok="osvdeploy:index:x"))
    for method, request in [
        ("Check", provider_pb2.CheckRequest(urn=urn_of("osvdeploy:index:Nothing"))),
        ("Invoke", provider_pb2.InvokeRequest(tok="osvdeploy:index:nothing")),
        ("Create", provider_pb2.CreateRequest(urn="no urn")),
    ]:
        with pytest.raises(Failed, match="INVALID_ARGUMENT: there is no"):
            provider.ask(method, request)


def test_the_console_script(tmp_path: Path) -> None:
    """The installed command serves our resources, and takes the engine's other options."""
    options = ["--logtostderr", "-v=9", "--tracing", "http://127.0.0.1:1"]
    with running(tmp_path, {}, command=(SCRIPT,), arguments=options) as provider:
        assert provider.ask("GetPluginInfo", empty_pb2.Empty()).version == __version__


def test_attach(tmp_path: Path, engine: ListeningEngine) -> None:
    """A provider that was started by hand is attached to, tells that engine, and outlives it."""
    passing = ListeningEngine()
    with running(tmp_path, ENVIRON, command=COMMAND) as provider:
        provider.ask("Attach", plugin_pb2.PluginAttach(address=passing.address))
        provider.create(PROBE, checked(provider, text="hi"))
        assert any("mind the gap" in each.text for each in passing.lines)
        passing.stop()
        provider.create(PROBE, checked(provider, text="hi"))
        provider.ask("Attach", plugin_pb2.PluginAttach(address=engine.address))
        provider.create(PROBE, checked(provider, text="hi"))
        assert lives(provider.pid)


# ----------------------------------------------------------------------------------------------------- configuration


def config(request: str, provider: ProviderProcess, olds: dict[str, Value], news: dict[str, Value]) -> Any:
    kind = provider_pb2.CheckRequest if request == "CheckConfig" else provider_pb2.DiffRequest
    urn = "urn:pulumi:dev::project::pulumi:providers:osvdeploy::it"
    return provider.ask(request, kind(urn=urn, olds=encode(olds), news=encode(news)))


def test_check_config(provider: ProviderProcess) -> None:
    """The configuration comes back as it was given: nothing of the environment, and the engine's own with it."""
    given: dict[str, Value] = {
        "region": "eu-west-1", "endpoints": '{"aws": "http://127.0.0.1:1"}', "version": "0.0.9", "profile": UNKNOWN,
    }  # fmt: skip
    response = config("CheckConfig", provider, {}, given)
    assert list(response.failures) == []
    assert decode(response.inputs) == given
    wrong = config("CheckConfig", provider, {}, {"endpoints": '{"azure": "x"}', "regoin": "x"}).failures
    assert [each.property for each in wrong] == ["endpoints.azure", "regoin"]


def test_diff_config(provider: ProviderProcess) -> None:
    """Another region replaces what is in the old one; another version of the plugin changes nothing."""
    old: dict[str, Value] = {"region": "eu-west-1", "version": "0.0.1", "endpoints": '{"aws": "x"}'}
    same = config("DiffConfig", provider, old, {**old, "version": "0.9.0", "endpoints": '{ "aws" : "x" }'})
    assert same.changes == provider_pb2.DiffResponse.DIFF_NONE
    assert list(config("DiffConfig", provider, old, {**old, "region": "us-east-1"}).replaces) == ["region"]
    profile = config("DiffConfig", provider, old, {**old, "profile": "other"})
    assert (list(profile.diffs), list(profile.replaces)) == (["profile"], [])


def test_configure(own: ProviderProcess) -> None:
    """Both ways that the engine hands configuration over are understood; what is wrong names its key."""
    own.ask("Configure", provider_pb2.ConfigureRequest(variables={"osvdeploy:config:profile": "theirs"}))
    assert own.create(PROBE, checked(own, text="hi"))[1]["profile"] == "theirs"
    response = own.configure(profile=Secret("mine"), version="0.1.0")
    assert (response.acceptSecrets, response.supportsPreview) == (True, True)
    assert own.create(PROBE, checked(own, text="hi"))[1]["profile"] == "mine"
    with pytest.raises(Failed, match="INVALID_ARGUMENT: osvdeploy:endpoints: is no object") as caught:
        own.configure(endpoints=Secret(PASSWORD))
    assert PASSWORD not in caught.value.message


# --------------------------------------------------------------------------------------------------------- resources


def test_life(provider: ProviderProcess) -> None:
    """The resource that the other tests ask lives a whole life, secrets and all."""
    given: dict[str, Value] = {"text": "hi", "tags": {"a": Secret("secret-tag")}, "password": PASSWORD, "name": "n"}
    lives_a_whole_life(provider, PROBE, given, {**given, "text": "ho", "parts": [{"size": 2.0}]})


def test_check_paths(provider: ProviderProcess) -> None:
    """Everything that is wrong is told at once, each at its property, and the inputs come back as they were given."""
    given: dict[str, Value] = {
        "parts": [{"size": 1.5}, {"size": 1.0, "colour": "red", "colr": "blue"}, 3.0],
        "tags": {"a b": 1.0},
        "halfway": "yes",
    }
    inputs, failures = provider.check(PROBE, given)
    assert inputs == given
    assert dict(failures).keys() == {
        "text", "halfway", "parts[0].size", "parts[1].colour", "parts[1].colr", "parts[2]", 'tags["a b"]',
    }  # fmt: skip
    assert dict(failures)["parts[1].colour"] == "is none of blue, dark-green"


def test_check_hides_secrets(provider: ProviderProcess) -> None:
    """What a resource says of a secret input does not show it."""
    _, failures = provider.check(PROBE, {"text": Secret("bad-and-secret")})
    assert failures == [("text", "is bad: [secret]")]


def test_defaults_and_unknowns(provider: ProviderProcess) -> None:
    """A check fills in what was left out, and leaves what is unknown alone."""
    inputs = checked(provider, text=UNKNOWN, parts=[{"size": UNKNOWN}], name="n")
    assert inputs == {
        "text": UNKNOWN, "parts": [{"size": UNKNOWN, "colour": "blue", "place": "here"}], "name": "n",
        "wait": 0.0, "deaf": False, "halfway": False, "mark": UNKNOWN,
    }  # fmt: skip
    _, foreseen = provider.create(PROBE, inputs, preview=True)
    assert (foreseen["shouted"], foreseen["text"]) == (UNKNOWN, UNKNOWN)
    with pytest.raises(Failed, match="INVALID_ARGUMENT"):
        provider.create(PROBE, inputs)


def test_autonaming(provider: ProviderProcess) -> None:
    """A name that was left out is made as the stack's configuration says, and stays."""
    modes = provider_pb2.CheckRequest.AutonamingOptions
    inputs, _ = provider.check(PROBE, {"text": "hi"})
    name = inputs["name"]
    assert isinstance(name, str)
    assert name.startswith("it-")
    assert provider.check(PROBE, {"text": "hi"})[0]["name"] == name
    assert provider.check(PROBE, {"text": "hi"}, inputs, randomSeed=b"other")[0]["name"] == name
    exact = modes(proposed_name="exact", mode=modes.ENFORCE)
    assert provider.check(PROBE, {"text": "hi"}, autonaming=exact)[0]["name"] == "exact"
    _, failures = provider.check(PROBE, {"text": "hi"}, autonaming=modes(mode=modes.DISABLE))
    assert [path for path, _ in failures] == ["name"]


def test_detailed_diff(provider: ProviderProcess) -> None:
    """Each property that changes is told by its path, and as a replacement where it cannot be changed in place."""
    old = checked(provider, text="hi", parts=[{"size": 1.0}, {"size": 2.0}], tags={"a": "1", "b": "2"}, name="n")
    given: dict[str, Value] = {"parts": [{"size": 1.0, "place": "there"}], "tags": {"b": "3", "c": "4"}, "fixed": "x"}
    new = checked(provider, text="ho", name="n", **given)
    assert provider.diff(PROBE, "probe-1", old, old, new) == Diffed(
        "DIFF_SOME",
        {
            "text": "UPDATE", "mark": "UPDATE", "parts[0].place": "UPDATE_REPLACE", "parts[1]": "DELETE",
            "tags.a": "DELETE", "tags.b": "UPDATE", "tags.c": "ADD", "fixed": "ADD_REPLACE",
        },
        ["parts", "fixed"],
        delete_before_replace=True,
    )  # fmt: skip
    ignoring = provider.diff(PROBE, "probe-1", old, old, new, ignoreChanges=["parts", "fixed", "tags", "text", "mark"])
    assert ignoring.changes == "DIFF_NONE"


def test_diff_of_what_an_earlier_version_wrote(provider: ProviderProcess) -> None:
    """A property that an earlier version did not know is no change while it has its default; a secret is compared by
    what it is."""
    new = checked(provider, text="hi", name="n", password=PASSWORD)
    old = {name: value for name, value in new.items() if name not in ("wait", "deaf", "halfway")}
    assert provider.diff(PROBE, "probe-1", old, old, {**new, "text": Secret("hi")}).changes == "DIFF_NONE"


def test_warnings_of_a_plan(own: ProviderProcess, engine: ListeningEngine) -> None:
    """A diff's warning is shown where the program has said what it wants, and not in a refresh before."""
    own.ask("Handshake", provider_pb2.ProviderHandshakeRequest(engine_address=engine.address))
    inputs = {"text": "warn", "name": "n"}
    before = len(engine.lines)
    own.diff(PROBE, "probe-1", inputs, inputs, inputs)
    assert not [each for each in engine.lines[before:] if each.text == "look out"]
    own.check(PROBE, inputs)
    own.diff(PROBE, "probe-1", inputs, inputs, inputs)
    assert len([each for each in engine.lines[before:] if each.text == "look out"]) == 1


def test_read(provider: ProviderProcess) -> None:
    """Gone is an empty id; drift is in the outputs and leaves the inputs alone; an import says the inputs."""
    assert provider.read(PROBE, "gone") == ("", {}, None)
    inputs = checked(provider, text="drift", name="n")
    _, outputs = provider.create(PROBE, inputs)
    _, seen, kept = provider.read(PROBE, "probe-1", outputs, inputs)
    assert (seen["tags"], kept) == ({"seen": "another"}, None)
    assert provider.diff(PROBE, "probe-1", seen, inputs, inputs).detailed == {"tags.seen": "DELETE"}
    assert provider.read(PROBE, "probe-1")[2] == {"text": "hi", "name": "n"}


def test_refresh_before_update(provider: ProviderProcess) -> None:
    """A resource that can change without us says so in every answer, since the engine forgets it with each."""
    inputs = checked(provider, text="hi", name="n")
    urn = urn_of(PROBE)
    created = provider.ask("Create", provider_pb2.CreateRequest(urn=urn, properties=encode(inputs)))
    state = {"urn": urn, "id": created.id}
    read = provider.ask("Read", provider_pb2.ReadRequest(**state, properties=created.properties, inputs=encode(inputs)))
    same = {"old_inputs": encode(inputs), "news": encode(inputs)}
    updated = provider.ask("Update", provider_pb2.UpdateRequest(**state, olds=created.properties, **same))
    assert created.refresh_before_update and read.refresh_before_update and updated.refresh_before_update


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ("UsageError", "INVALID_ARGUMENT"),
        ("PinMismatch", "FAILED_PRECONDITION"),
        ("BuildError", "FAILED_PRECONDITION"),
        ("CredentialsMissing", "PERMISSION_DENIED"),
        ("Refused", "FAILED_PRECONDITION"),
        ("Unavailable", "ABORTED"),
        ("LeaseHeld", "ABORTED"),
        ("RolledBack", "ABORTED"),
        ("DeadlineExceeded", "DEADLINE_EXCEEDED"),
        ("Interrupted", "CANCELLED"),
        ("bug", "INTERNAL"),
    ],
)
def test_codes(provider: ProviderProcess, error: str, code: str) -> None:
    """Every error of ours is a clean failure to the engine, with its way out; a bug is none. None shows a secret."""
    inputs = checked(provider, text="hi", fails=error, password=PASSWORD)
    with pytest.raises(Failed) as caught:
        provider.create(PROBE, inputs)
    assert caught.value.code.name == code
    assert caught.value.unfinished is None
    assert PASSWORD not in caught.value.message
    if error not in ("bug", "Interrupted"):
        assert caught.value.message.endswith("it failed with [secret]\ndo better")


def test_partial_failure(provider: ProviderProcess) -> None:
    """What was begun is told with its id, its outputs and the reasons: of a creation with the new inputs, of an update
    with the old ones, and by every read while it lasts."""
    old = checked(provider, text="hi", name="n", password=PASSWORD)
    new = {**old, "text": "ho", "halfway": True}
    with pytest.raises(Failed, match="FAILED_PRECONDITION") as caught:
        provider.create(PROBE, new)
    made = caught.value.unfinished
    assert made is not None
    assert (made.id, list(made.reasons)) == ("probe-1", ["half of it, with [secret]"])
    assert (decode(made.inputs), decode(made.properties)["shouted"]) == (new, "HO")
    assert has_secrets(decode(made.properties)["password"])
    assert made.refresh_before_update

    with pytest.raises(Failed) as caught:
        provider.update(PROBE, "probe-1", {**old, "shouted": "HI"}, old, new)
    made = caught.value.unfinished
    assert made is not None
    assert (decode(made.inputs), decode(made.properties)["shouted"]) == (old, "HO")

    with pytest.raises(Failed) as caught:
        provider.read(PROBE, "probe-1", {**new, "shouted": "HO"}, new)
    made = caught.value.unfinished
    assert made is not None
    assert (list(made.reasons), decode(made.inputs)) == (["half of it"], new)


def test_secrets(provider: ProviderProcess, engine: ListeningEngine) -> None:
    """A property that is declared secret is one, whatever was given; so is what is made of it, and no line shows it."""
    inputs = checked(provider, text="hi", password=PASSWORD, tags={"plain": "x", "kept": Secret("tag-secret")})
    assert inputs["password"] == Secret(PASSWORD)
    _, outputs = provider.create(PROBE, inputs)
    assert outputs["password"] == Secret(PASSWORD)
    assert outputs["echo"] == Secret(f"<{PASSWORD}>")
    assert outputs["tags"] == {"plain": "x", "kept": Secret("tag-secret")}
    assert any("it knows [secret]" in each.text for each in engine.lines)
    assert not [each for each in engine.lines if PASSWORD in each.text]


def test_lines(provider: ProviderProcess, engine: ListeningEngine) -> None:
    """What happens is shown in the resource's row; a warning and what a preview says stay."""
    engine.lines.clear()
    inputs = checked(provider, text="hi")
    provider.create(PROBE, inputs, preview=True)
    provider.create(PROBE, inputs)
    assert {each.urn for each in engine.lines} == {urn_of(PROBE)}
    assert [(each.text, each.ephemeral) for each in engine.lines] == [
        ("it will shout", False),
        ("waiting for the machine (it knows None)", True),
        ("mind the gap\nnot None", False),
    ]


def test_invoke(provider: ProviderProcess) -> None:
    """A function answers, says what is wrong with a question, knows nothing of what is unknown, and keeps secrets."""
    assert provider.invoke(Ask.TOKEN, {"text": "hi"}) == ({"shouted": "HI"}, [])
    assert provider.invoke(Ask.TOKEN, {})[1] == [("text", "is required, and was left out")]
    assert provider.invoke(Ask.TOKEN, {"text": UNKNOWN}) == ({"shouted": UNKNOWN}, [])
    assert provider.invoke(Ask.TOKEN, {"text": Secret("hi")}) == ({"shouted": Secret("HI")}, [])
    with pytest.raises(Failed, match="FAILED_PRECONDITION: no answer"):
        provider.invoke(Ask.TOKEN, {"text": "hi", "fails": "BuildError"})


# ------------------------------------------------------------------------------------------------ time, cancels, ends


def test_thirty_at_once(provider: ProviderProcess) -> None:
    """Thirty creations that each wait a second are done in a few."""
    inputs = checked(provider, text="hi", wait=1.0)
    began = time.monotonic()
    with ThreadPoolExecutor(30) as threads:
        made = list(threads.map(lambda _: provider.create(PROBE, inputs), range(30)))
    assert len(made) == 30
    assert time.monotonic() - began < 15


def test_timeouts(provider: ProviderProcess) -> None:
    """A program's time for an operation is kept, and the resource's own where the program gives none."""
    inputs = checked(provider, text="hi", wait=PATIENCE)
    with pytest.raises(Failed, match="DEADLINE_EXCEEDED"):
        provider.create(PROBE, inputs, timeout=0.2)
    with pytest.raises(Failed, match="DEADLINE_EXCEEDED"):
        provider.delete(PROBE, "probe-1", inputs, inputs)


def under_way(provider: ProviderProcess, count: int = 1, **given: Value) -> list[Any]:
    """Creations that have begun, as futures."""
    inputs = checked(provider, text="hi", wait=PATIENCE, **given)
    request = provider_pb2.CreateRequest(urn=urn_of(PROBE), properties=encode(inputs))
    calls = [provider.stub.Create.future(request, timeout=PATIENCE) for _ in range(count)]
    time.sleep(0.3)  # one cannot see from outside that a call waits
    return calls


@pytest.mark.parametrize("count", [1, 64])
def test_cancel(own: ProviderProcess, count: int) -> None:
    """A cancel ends all that runs, at once and however much that is; it may come twice; a new run begins anew."""
    calls = under_way(own, count)
    began = time.monotonic()
    own.cancel()
    own.cancel()
    assert {each.code() for each in calls} == {grpc.StatusCode.CANCELLED}
    assert time.monotonic() - began < 5
    with pytest.raises(Failed, match="CANCELLED"):
        own.create(PROBE, checked(own, text="hi"))
    own.configure()
    own.create(PROBE, checked(own, text="hi"))


def test_cancel_half_way(own: ProviderProcess) -> None:
    """Who is cancelled half-way says what there is, as of any other partial failure."""
    (call,) = under_way(own, halfway=True)
    own.cancel()
    assert call.code() is grpc.StatusCode.CANCELLED
    assert any(each.key == "grpc-status-details-bin" for each in call.trailing_metadata())


def test_client_hangs_up(own: ProviderProcess, tmp_path: Path) -> None:
    """A call whose asker is gone ends too: nothing runs any more, so the process ends at once."""
    (call,) = under_way(own)
    call.cancel()
    time.sleep(0.2)  # until the server has heard
    began = time.monotonic()
    assert own.end() == 0
    assert time.monotonic() - began < 3


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_signals(own: ProviderProcess, how: signal.Signals) -> None:
    """A signal ends the process well: what runs gets its answer, and nothing is printed."""
    (call,) = under_way(own, halfway=True)
    own.process.send_signal(how)
    assert call.code() is grpc.StatusCode.CANCELLED
    assert own.process.wait(PATIENCE) == 0
    assert own.output() == ""


def test_a_signal_at_any_moment(tmp_path: Path) -> None:
    """A signal ends the process well whenever it comes, from the port line on."""
    for number in range(12):
        provider = start(tmp_path, ENVIRON, command=COMMAND)
        if number % 3:
            provider.ask("Handshake", provider_pb2.ProviderHandshakeRequest())
        if number % 3 == 2:
            provider.cancel()
        assert provider.end() == 0
        assert provider.process.stdout is not None
        provider.process.stdout.close()


@pytest.mark.skipif(sys.platform != "linux", reason="threads are found, and signalled one by one, as Linux has it")
def test_a_signal_that_another_thread_gets(own: ProviderProcess) -> None:
    """A signal ends the process whichever of its threads the system gives it to: the main one, asleep, is not woken."""
    own.ask("Handshake", provider_pb2.ProviderHandshakeRequest())
    others = [int(each.name) for each in Path(f"/proc/{own.pid}/task").iterdir() if int(each.name) != own.pid]
    tgkill = {"x86_64": 234, "aarch64": 131}[os.uname().machine]
    assert ctypes.CDLL(None).syscall(tgkill, own.pid, others[0], signal.SIGTERM.value) == 0
    assert own.process.wait(PATIENCE) == 0


def test_a_call_that_hears_nothing(own: ProviderProcess) -> None:
    """A call that does not come to an end does not keep the process longer than the engine waits."""
    under_way(own, deaf=True)
    began = time.monotonic()
    assert own.end() == 0
    assert time.monotonic() - began < 10


def test_engine_that_does_not_listen(tmp_path: Path) -> None:
    """An engine that takes no lines fails no operation."""
    silent = ListeningEngine()
    with running(tmp_path, ENVIRON, engine=silent.address, command=COMMAND) as provider:
        silent.stop()
        assert provider.create(PROBE, checked(provider, text="hi"))[0] == "probe-1"


def test_engine_gone(tmp_path: Path) -> None:
    """The provider ends when the engine's address answers no more."""
    engine = ListeningEngine()
    with running(tmp_path, ENVIRON, engine=engine.address, command=COMMAND) as provider:
        time.sleep(2.5)  # until it has been seen
        engine.stop()
        assert provider.process.wait(PATIENCE) == 0


def test_parent_killed(tmp_path: Path) -> None:
    """The provider ends with the process that started it, also when that was killed."""
    parent = subprocess.Popen(
        [
            sys.executable, "-c",
            "import subprocess, sys, time\n"
            "it = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE, start_new_session=True)\n"
            "it.stdout.readline()\n"
            "print(it.pid, flush=True)\n"
            "time.sleep(600)",
            *COMMAND, "127.0.0.1:1",
        ],
        cwd=tmp_path, env={**os.environ, **ENVIRON}, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    # As soon as the port is out: most of the provider has not been imported yet.
    assert lives(pid)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    until(lambda: not lives(pid))


def test_prints_its_port_alone(tmp_path: Path) -> None:
    """Nothing but the port is printed in a life without a bug; in one with a bug, nothing secret."""
    provider = start(tmp_path, ENVIRON, command=COMMAND)
    inputs = checked(provider, text="hi", password=PASSWORD)
    provider.create(PROBE, inputs)
    with pytest.raises(Failed, match="INTERNAL"):
        provider.create(PROBE, {**inputs, "fails": "bug"})
    assert provider.end() == 0
    assert provider.process.stdout is not None
    told = provider.output()
    assert "ZeroDivisionError: with [secret]" in told
    assert PASSWORD not in told
    provider.process.stdout.close()


def test_without_the_extra(tmp_path: Path) -> None:
    """Where the extra is not installed, the command says how to."""
    (tmp_path / "grpc.py").write_text("raise ModuleNotFoundError('No module named grpc', name='grpc')")
    ended = subprocess.run(
        [SCRIPT], env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, timeout=PATIENCE
    )
    assert ended.returncode == 1
    assert ended.stderr == "the Pulumi provider needs grpc: pip install 'osvdeploy[pulumi]'\n"
