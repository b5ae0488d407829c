"""Taking back what a run made, when it is refused."""

from __future__ import annotations

from collections.abc import Callable

from osvdeploy.context import Context
from osvdeploy.errors import OsvDeployError
from osvdeploy.events import Warned

BY_GC = "`osvdeploy gc` removes it later"


class Undo:
    """What takes back what this run made, by what it is about. A later step about the same thing replaces the first."""

    def __init__(self, ctx: Context, later: str = BY_GC) -> None:
        self._ctx = ctx
        self._later = later
        self._steps: dict[str, Callable[[], None]] = {}

    def on_refusal(self, what: str, step: Callable[[], None]) -> None:
        self._steps[what] = step

    def forget(self, what: str) -> None:
        self._steps.pop(what, None)

    def run(self) -> None:
        """Last made, first removed. A step that fails is reported and hides nothing: the refusal is what is raised."""
        for what, step in reversed(self._steps.items()):
            trying(self._ctx, f"the {what}", step, self._later)


def trying(ctx: Context, what: str, step: Callable[[], None], later: str = BY_GC) -> bool:
    """Remove something, if that can be done now; False, and a warning, where it cannot. ``later`` says what will."""
    try:
        step()
    except OsvDeployError as error:
        ctx.report(Warned(f"could not remove {what}: {error}", hint=later))
        return False
    return True
