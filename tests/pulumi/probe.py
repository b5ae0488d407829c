"""A provider with one resource that does as it is told, for what no resource of ours can be brought to do at will.

``python -m tests.pulumi.probe`` is the real server with it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from typing import ClassVar

from osvdeploy import errors
from osvdeploy.events import Progress, Waiting, Warned
from osvdeploy.provider.base import (
    Call,
    Checked,
    Created,
    Function,
    Operation,
    Resource,
    Seen,
    State,
    Unfinished,
    Verdict,
)
from osvdeploy.provider.declare import Nested, declared, prop
from osvdeploy.provider.diffing import Change
from osvdeploy.provider.main import serve
from osvdeploy.provider.parsing import Failure
from osvdeploy.provider.values import UNKNOWN, is_known


class Colour(StrEnum):
    """A colour."""

    BLUE = "blue"
    DARK_GREEN = "dark-green"


@declared
class Part(Nested):
    """A part."""

    MODULE: ClassVar[str] = "test"

    size: int = prop("How large.")
    colour: Colour = prop("Which colour.", default=Colour.BLUE)
    place: str = prop("Where.", default="here", replaces=True)


@declared
class ProbeInputs:
    """What it is told."""

    text: str = prop("A text.")
    fails: str | None = prop("The error that everything ends with, by its name.", default=None)
    wait: float = prop("Seconds that everything takes.", default=0.0)
    deaf: bool = prop("Whether it hears no cancel.", default=False)
    halfway: bool = prop("Whether it stops half-way.", default=False)
    parts: tuple[Part, ...] = prop("Parts.", default_factory=tuple)
    tags: Mapping[str, str] = prop("Tags.", default_factory=dict)
    password: str | None = prop("A password.", default=None, secret=True)
    fixed: str | None = prop("What cannot be changed.", default=None, replaces=True)
    name: str | None = prop("Its name.", default=None, replaces=True)
    mark: str | None = prop("What the check fills in.", default=None, derived=True)


@declared
class ProbeOutputs:
    """What it answers."""

    shouted: str = prop("The text in capitals.")
    echo: str = prop("The password, told on.")
    profile: str | None = prop("The profile in the configuration.", default=None)


class Probe(Resource[ProbeInputs, ProbeOutputs]):
    """Does as it is told."""

    TOKEN = "osvdeploy:test:Probe"
    INPUTS = ProbeInputs
    OUTPUTS = ProbeOutputs
    REFRESH_BEFORE_UPDATE = True
    TIMEOUTS: ClassVar[Mapping[Operation, float]] = {Operation.DELETE: 0.2}

    def check(self, call: Call, wanted: ProbeInputs, before: ProbeInputs | None) -> Checked[ProbeInputs]:
        name = wanted.name or call.naming.choose(before.name if before else None, longest=20)
        if name is None:
            return Checked(wanted, [Failure("name", "is needed, as the stack's configuration has it")])
        if is_known(wanted.text) and "bad" in wanted.text:
            return Checked(wanted, [Failure("text", f"is bad: {wanted.text}")])
        return Checked(replace(wanted, name=name, mark=UNKNOWN if wanted.text is UNKNOWN else wanted.text[::-1]))

    def judge(
        self, before: State[ProbeInputs, ProbeOutputs], wanted: ProbeInputs, changes: Sequence[Change]
    ) -> Verdict:
        return Verdict(changes, delete_before_replace=True, warnings=["look out"] if wanted.text == "warn" else ())

    def preview(self, call: Call, wanted: ProbeInputs, before: State[ProbeInputs, ProbeOutputs] | None) -> ProbeOutputs:
        call.info("it will shout")
        return ProbeOutputs(UNKNOWN if wanted.text is UNKNOWN else wanted.text.upper(), UNKNOWN)

    def create(self, call: Call, wanted: ProbeInputs) -> Created[ProbeOutputs]:
        return Created("probe-1", self._do(call, wanted, "probe-1"))

    def read(
        self, call: Call, id: str, before: State[ProbeInputs, ProbeOutputs] | None
    ) -> Seen[ProbeInputs, ProbeOutputs] | None:
        if before is None:
            return None if id == "gone" else Seen(ProbeOutputs("HI", ""), ProbeInputs("hi", name="n", mark="ih"))
        if before.inputs.text == "drift":
            return Seen(before.outputs, replace(before.inputs, tags={"seen": "another"}))
        return Seen(before.outputs, problems=["half of it"] if before.actual.halfway else ())

    def update(self, call: Call, before: State[ProbeInputs, ProbeOutputs], wanted: ProbeInputs) -> ProbeOutputs:
        return self._do(call, wanted, before.id)

    def delete(self, call: Call, before: State[ProbeInputs, ProbeOutputs]) -> None:
        self._wait(call, before.inputs)

    def _do(self, call: Call, wanted: ProbeInputs, id: str) -> ProbeOutputs:
        call.ctx.report(Waiting("the machine", f"it knows {wanted.password}"))
        call.ctx.report(Progress("disk", 512 * 1024, 1024 * 1024, "bytes"))
        call.ctx.report(Warned("mind the gap", hint=f"not {wanted.password}"))
        outputs = ProbeOutputs(wanted.text.upper(), f"<{wanted.password}>", call.settings.profile)
        try:
            self._wait(call, wanted)
        except errors.Interrupted as error:
            if wanted.halfway:
                raise Unfinished(["interrupted"], outputs, id=id, cause=error) from None
            raise
        if wanted.fails == "bug":
            raise ZeroDivisionError(f"with {wanted.password}")
        if wanted.fails is not None:
            kind = getattr(errors, wanted.fails)
            raise kind(f"it failed with {wanted.password}", hint="do better")
        if wanted.halfway:
            raise Unfinished([f"half of it, with {wanted.password}"], outputs, id=id)
        return outputs

    @staticmethod
    def _wait(call: Call, wanted: ProbeInputs) -> None:
        if wanted.deaf:
            time.sleep(wanted.wait)  # a tool that hears nothing
        elif wanted.wait:
            call.ctx.sleep(wanted.wait)


@declared
class AskInputs:
    """A question."""

    text: str = prop("A text.")
    fails: str | None = prop("The error that it ends with.", default=None)


@declared
class AskOutputs:
    """An answer."""

    shouted: str = prop("The text in capitals.")


class Ask(Function[AskInputs, AskOutputs]):
    """Shouts."""

    TOKEN = "osvdeploy:test:ask"
    INPUTS = AskInputs
    OUTPUTS = AskOutputs

    def invoke(self, call: Call, asked: AskInputs) -> AskOutputs:
        if asked.fails is not None:
            raise getattr(errors, asked.fails)("no answer")
        return AskOutputs(asked.text.upper())


COMMAND = (sys.executable, "-m", "tests.pulumi.probe")

if __name__ == "__main__":
    serve(lambda: ({Probe.TOKEN: Probe()}, {Ask.TOKEN: Ask()}))
