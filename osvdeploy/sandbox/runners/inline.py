"""The runner of tests: the program file declares how it behaves. No process, no socket, virtual time.

A program file begins with the line ``#!inline``; JSON follows, every key optional::

    {"boot": "serve",                    or "abort", "hang" (never listens), "exit 3"
     "after": 0.5,                       seconds from power-on until ``boot`` happens
     "says": "listening",                printed when it does
     "port": 8080,                       the one it listens on; left out: any
     "headers": {"x-release": "$OSVDEPLOY_RELEASE"},
     "answers": {"/healthz": 200,
                 "/slow": "timeout",     or "broken": the connection closes without an answer
                 "*": {"status": 500, "body": "out of order", "headers": {}, "takes": 0.2}},  seconds
     "phases": [{"after": 60, ...}],     from then on these keys instead (seconds from power-on)
     "apart": 20}                        all of it so many seconds later for each machine that runs the same already

``$NAME`` in a header or body is the guest's environment variable, empty where it is not set. An answer's key is a
path; ``*`` is for every other, and without it the others get 404. A release is bad because its bytes are bad: they say
so here.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from osvdeploy.sandbox import boot
from osvdeploy.sandbox.runners import Guest, GuestAnswer, GuestRequest, GuestStatus, NoAnswer, Power

MAGIC = b"#!inline"

ADDRESS = "OSV_IP"
"""The variable that no two machines have the same."""


class DeclarationInvalid(ValueError):
    """The program file is no declaration that this runner understands; the message says why."""


@dataclass(frozen=True, slots=True)
class Phase:
    """How a program behaves from ``after`` seconds on: ``does`` is serve, abort, hang or exit."""

    after: float
    does: str
    code: int = 0
    says: str = ""
    port: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    answers: Mapping[str, GuestAnswer | NoAnswer] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Program:
    """``phases`` in the order of time; ``apart``: seconds by which each further machine of it is later than the one
    before."""

    phases: tuple[Phase, ...]
    apart: float = 0.0


def parse(program: bytes) -> Program:
    """What a program file declares. Raises :class:`DeclarationInvalid`."""
    first, _, rest = program.partition(b"\n")
    if first.strip() != MAGIC:
        raise DeclarationInvalid("it does not begin with #!inline")
    try:
        declared = json.loads(rest or b"{}")
    except ValueError as wrong:
        raise DeclarationInvalid(str(wrong)) from None
    if not isinstance(declared, dict):
        raise DeclarationInvalid("not a JSON object")
    later, apart = declared.pop("phases", []), declared.pop("apart", 0)
    if isinstance(apart, bool) or not isinstance(apart, int | float) or apart < 0:
        raise DeclarationInvalid(f"apart is a number of seconds, not {apart!r}")
    if not isinstance(later, list) or not all(isinstance(each, dict) for each in later):
        raise DeclarationInvalid("phases is not a list of objects")
    phases = [_phase(declared)]
    declared.pop("says", None)
    for each in later:
        phases.append(_phase({**declared, **each}))
        if phases[-1].after <= phases[-2].after:
            raise DeclarationInvalid("phases do not follow one another: each needs a later `after`")
    return Program(tuple(phases), float(apart))


def _phase(declared: Mapping[str, object]) -> Phase:
    unknown = set(declared) - {"boot", "after", "says", "port", "headers", "answers"}
    if unknown:
        raise DeclarationInvalid(f"unknown key {sorted(unknown)[0]!r}")
    does, _, code = str(declared.get("boot", "serve")).partition(" ")
    if does not in ("serve", "abort", "hang", "exit") or (code and (does != "exit" or not code.isdigit())):
        raise DeclarationInvalid(f'boot is "serve", "abort", "hang" or "exit N", not {declared["boot"]!r}')
    after, port = declared.get("after", 0), declared.get("port")
    if not isinstance(after, int | float) or after < 0:
        raise DeclarationInvalid(f"after is a number of seconds, not {after!r}")
    if port is not None and not isinstance(port, int):
        raise DeclarationInvalid(f"port is a number, not {port!r}")
    answers = declared.get("answers", {"*": 200})
    if not isinstance(answers, dict):
        raise DeclarationInvalid("answers is not an object")
    return Phase(
        float(after),
        does,
        int(code or 0),
        str(declared.get("says", "")),
        port,
        _headers(declared.get("headers", {})),
        {path: _answer(path, answer) for path, answer in answers.items()},
    )


def _headers(declared: object) -> dict[str, str]:
    if not isinstance(declared, dict):
        raise DeclarationInvalid("headers is not an object")
    return {str(name): str(value) for name, value in declared.items()}


def _answer(path: str, declared: object) -> GuestAnswer | NoAnswer:
    match declared:
        case bool():
            pass
        case int() if 100 <= declared <= 599:
            return GuestAnswer(declared)
        case "timeout":
            return NoAnswer.TIMEOUT
        case "broken":
            return NoAnswer.BROKEN
        case {"status": int(status), **rest} if 100 <= status <= 599 and set(rest) <= {"body", "headers", "takes"}:
            takes = rest.get("takes", 0)
            if isinstance(takes, int | float) and takes >= 0:
                headers, body = _headers(rest.get("headers", {})), str(rest.get("body", "")).encode()
                return GuestAnswer(status, headers, body, float(takes))
    raise DeclarationInvalid(
        f'the answer for {path!r} is a status, {{"status", "body", "headers", "takes"}}, "timeout" or "broken", not '
        f"{declared!r}"
    )


@dataclass(frozen=True, slots=True)
class _Running:
    """A guest that was powered on: ``machine`` is None where it never came to run a program."""

    started: datetime
    console: bytes
    power: Power
    phases: tuple[Phase, ...] = ()
    machine: boot.Machine | None = None

    def runs(self, phases: tuple[Phase, ...], machine: boot.Machine) -> bool:
        """Whether it is the same program in the same environment: another machine of one release."""
        if self.machine is None or self.phases != phases:
            return False
        mine, other = self.machine.environment, machine.environment
        return {**mine, ADDRESS: ""} == {**other, ADDRESS: ""}

    def at(self, now: datetime) -> Phase | None:
        """The phase the program is in, None before its first. Nothing follows an abort or an exit."""
        reached = None
        for phase in self.phases:
            if now < self.started + timedelta(seconds=phase.after):
                break
            reached = phase
            if phase.does in ("abort", "exit"):
                break
        return reached

    def status(self, now: datetime) -> GuestStatus:
        console, power, coming = self.console, self.power, None
        for phase in self.phases:
            moment = self.started + timedelta(seconds=phase.after)
            if now < moment:
                coming = moment
                break
            if phase.says:
                console += self.filled(phase.says).encode() + b"\n"
            if phase.does in ("abort", "exit"):
                said, power = self._ended(phase)
                console += said
                break
        return GuestStatus(power, boot.last_64k(console), coming)

    def _ended(self, phase: Phase) -> tuple[bytes, Power]:
        assert self.machine is not None, "only a machine that runs a program has phases"
        options = self.machine.options
        if phase.does == "abort":
            return boot.ABORTED, Power.OFF if options.power_off_on_abort else Power.ON
        word = self.machine.program.arguments[0]
        said = boot.exited(word, phase.code, verbose=options.verbose, stays=options.noshutdown)
        return said, Power.ON if options.noshutdown else Power.OFF

    def is_silent_in(self, phase: Phase | None) -> bool:
        """Whether it answers nobody in that phase: what aborted may still have power, and nothing that runs."""
        if phase is None or phase.does not in ("abort", "exit"):
            return False
        return phase.does == "abort" or self._ended(phase)[1] is Power.OFF

    def filled(self, text: str) -> str:
        if "$" not in text:
            return text
        environment = {} if self.machine is None else self.machine.environment
        return _VARIABLE.sub(lambda found: environment.get(found[1], ""), text)


_VARIABLE = re.compile(r"\$([A-Za-z_][A-Za-z0-9_]*)")


class InlineRunner:
    """Runs declared programs. All state is in memory and a function of the time it is asked at."""

    instant = True

    def __init__(self) -> None:
        self._guests: dict[str, _Running] = {}
        self._lock = threading.Lock()

    def start(self, guest: Guest, now: datetime) -> GuestStatus:
        running = self._boot(guest, now)
        with self._lock:
            self._guests[guest.id] = running
        return running.status(now)

    def _boot(self, guest: Guest, now: datetime) -> _Running:
        try:
            machine = boot.read(guest.disk, guest.disk_size, address=guest.address, cpus=guest.cpus)
        except boot.BootFailed as failed:
            return _Running(now, failed.console, Power.OFF if failed.powers_off else Power.ON)
        try:
            program = parse(machine.read_program())
        except DeclarationInvalid as wrong:
            # Not OSv's words: this is the sandbox's own limit, and a person must see it where they look first.
            said = f"sandbox: {machine.program.path} cannot run: {wrong}\n".encode()
            return _Running(now, machine.banner + said, Power.OFF)
        same = [each for name, each in self._guests.items() if name != guest.id and each.runs(program.phases, machine)]
        began = now + timedelta(seconds=machine.options.delay + program.apart * len(same))
        return _Running(began, machine.banner, Power.ON, program.phases, machine)

    def status(self, guest_id: str, now: datetime) -> GuestStatus | None:
        running = self._guests.get(guest_id)
        return None if running is None else running.status(now)

    def ask(
        self, guest_id: str, address: str, port: int, request: GuestRequest, timeout: float, now: datetime
    ) -> GuestAnswer | NoAnswer:
        running = self._guests.get(guest_id)
        if running is None:
            # Nothing has this address any more: packets to it get no reply.
            return NoAnswer.TIMEOUT
        phase = running.at(now)
        if running.power is Power.OFF or running.machine is None or running.is_silent_in(phase):
            return NoAnswer.TIMEOUT
        if phase is None or phase.does != "serve" or (phase.port is not None and phase.port != port):
            return NoAnswer.REFUSED
        path = request.target.partition("?")[0]
        answer = phase.answers.get(path, phase.answers.get("*", GuestAnswer(404)))
        if isinstance(answer, NoAnswer):
            return answer
        if answer.seconds > timeout:
            return NoAnswer.TIMEOUT
        headers = {name: running.filled(value) for name, value in {**phase.headers, **answer.headers}.items()}
        return GuestAnswer(answer.status, headers, running.filled(answer.body.decode()).encode(), answer.seconds)

    def stop(self, guest_id: str, now: datetime) -> bytes:
        with self._lock:
            running = self._guests.pop(guest_id, None)
        return b"" if running is None else running.status(now).console

    def close(self) -> None:
        with self._lock:
            self._guests.clear()
