"""Programs that declare their answers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from osvdeploy.sandbox.boot import ABORTED
from osvdeploy.sandbox.runners import GuestAnswer, GuestRequest, NoAnswer, Power
from osvdeploy.sandbox.runners.inline import DeclarationInvalid, InlineRunner, parse
from tests.sandbox.volumes import declared, volume

START = datetime(2030, 1, 1, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def ask(runner: InlineRunner, path: str, seconds: float = 0, port: int = 8080) -> GuestAnswer | NoAnswer:
    return runner.ask("i-1", "127.0.9.1", port, GuestRequest("GET", path), 2.0, at(seconds))


def test_a_program_answers_as_declared() -> None:
    """Paths, the rest of them, headers and bodies with the guest's own environment."""
    runner = InlineRunner()
    program = declared(
        headers={"x-release": "$OSVDEPLOY_RELEASE"},
        answers={"/healthz": 200, "/slow": "timeout", "/torn": "broken", "*": {"status": 500, "body": "$NAME is ill"}},
        port=8080,
    )
    environment = (("OSVDEPLOY_RELEASE", "app-1.0.0-1a2b3c4d"), ("NAME", "app"))
    runner.start(volume({"/app": program}, environment=environment).guest(), START)
    release = {"x-release": "app-1.0.0-1a2b3c4d"}
    assert ask(runner, "/healthz?deep=1") == GuestAnswer(200, release)
    assert ask(runner, "/") == GuestAnswer(500, release, b"app is ill")
    assert ask(runner, "/slow") is NoAnswer.TIMEOUT
    assert ask(runner, "/torn") is NoAnswer.BROKEN
    assert ask(runner, "/healthz", port=81) is NoAnswer.REFUSED


def test_a_program_listens_only_once_it_has_started() -> None:
    """Until then its port refuses; the runner says when to look again."""
    runner = InlineRunner()
    status = runner.start(volume({"/app": declared(after=3, says="ready")}).guest(), START)
    assert (status.power, status.next_change) == (Power.ON, at(3))
    assert ask(runner, "/", 2.9) is NoAnswer.REFUSED
    assert ask(runner, "/", 3) == GuestAnswer(200)
    later = runner.status("i-1", at(3))
    assert later is not None
    assert later.next_change is None
    assert later.console.endswith(b"Cmdline: /app\nready\n")


def test_machines_of_one_release_come_up_apart() -> None:
    """Each as many seconds later as there are others of its release; another release's do not count."""
    runner = InlineRunner()
    disk, other = volume({"/app": declared(after=1, apart=20)}), volume({"/app": declared(after=2, apart=20)})
    for name in ("i-1", "i-2", "i-3"):
        runner.start(disk.guest(name, f"127.0.9.{name[2:]}"), START)
    runner.start(other.guest("i-4"), START)

    def up(seconds: float) -> list[str]:
        asked = {
            name: runner.ask(name, "127.0.9.1", 80, GuestRequest("GET", "/"), 2.0, at(seconds))
            for name in ("i-1", "i-2", "i-3", "i-4")
        }
        return [name for name, answer in asked.items() if answer == GuestAnswer(200)]

    assert [up(1), up(2), up(20.9)] == [["i-1"], ["i-1", "i-4"], ["i-1", "i-4"]]
    assert [up(21), up(41)] == [["i-1", "i-2", "i-4"], ["i-1", "i-2", "i-3", "i-4"]]
    runner.stop("i-1", at(50))
    runner.start(disk.guest("i-1"), at(50))
    assert "i-1" not in up(90.9) and "i-1" in up(91)


@pytest.mark.parametrize(
    ("does", "options", "power", "console"),
    [
        ("abort", (), Power.ON, ABORTED),
        ("abort", (("power-off-on-abort", None),), Power.OFF, ABORTED),
        ("exit 3", (), Power.OFF, b"Cmdline: /app\n"),
        ("exit 3", (("verbose", None),), Power.OFF, b"program /app returned 3\nPowering off.\n"),
        ("exit 0", (("noshutdown", None),), Power.ON, b"Cmdline: /app\n"),
        ("hang", (), Power.ON, b"Cmdline: /app\n"),
    ],
)
def test_how_programs_end(does: str, options: tuple[tuple[str, str | None], ...], power: Power, console: bytes) -> None:
    """An abort halts the machine unless it is told to power off; an exit powers it off unless it is told to stay."""
    runner = InlineRunner()
    runner.start(volume({"/app": declared(boot=does, after=1)}, options=options).guest(), START)
    before, after = runner.status("i-1", at(0.9)), runner.status("i-1", at(1))
    assert before is not None
    assert after is not None
    assert (before.power, after.power) == (Power.ON, power)
    assert after.console.endswith(console)
    assert isinstance(ask(runner, "/", 1), NoAnswer)


def test_phases_change_a_program_over_time() -> None:
    """Good at first, ill after a minute, dead after two."""
    phases = [{"after": 60, "answers": {"*": 500}}, {"after": 120, "boot": "abort", "says": "bye"}]
    runner = InlineRunner()
    runner.start(volume({"/app": declared(answers={"*": 204}, says="hello", phases=phases)}).guest(), START)
    assert [ask(runner, "/", seconds) for seconds in (0, 60, 120)] == [
        GuestAnswer(204),
        GuestAnswer(500),
        NoAnswer.TIMEOUT,
    ]
    last = runner.status("i-1", at(120))
    assert last is not None
    assert last.console.endswith(b"Cmdline: /app\nhello\nbye\n" + ABORTED)


def test_a_stopped_guest_is_forgotten_and_keeps_its_console() -> None:
    """stop() returns what was printed; nothing answers after it."""
    runner = InlineRunner()
    runner.start(volume({"/app": declared(says="hello")}).guest(), START)
    assert runner.stop("i-1", at(1)).endswith(b"hello\n")
    assert runner.status("i-1", at(1)) is None
    assert ask(runner, "/") is NoAnswer.TIMEOUT


def test_what_is_no_declaration_says_so_on_the_console() -> None:
    """The guest powers off; the line is the sandbox's, not OSv's."""
    status = InlineRunner().start(volume({"/app": b"\x7fELF"}).guest(), START)
    assert status.power is Power.OFF
    assert status.console.endswith(b"sandbox: /app cannot run: it does not begin with #!inline\n")


@pytest.mark.parametrize(
    "behaviour",
    [
        {"bot": "serve"},
        {"boot": "explode"},
        {"boot": "abort 3"},
        {"after": "soon"},
        {"after": -1},
        {"apart": -1},
        {"apart": True},
        {"port": "http"},
        {"answers": {"/": 99}},
        {"answers": {"/": True}},
        {"answers": {"/": {"status": 200, "bdy": ""}}},
        {"answers": []},
        {"headers": []},
        {"phases": {}},
        {"phases": [{"after": 0}]},
        {"after": 5, "phases": [{"after": 5}]},
    ],
)
def test_bad_declarations_are_refused(behaviour: dict[str, object]) -> None:
    """A misspelt test program must not pass for a healthy one."""
    with pytest.raises(DeclarationInvalid):
        parse(declared(**behaviour))
