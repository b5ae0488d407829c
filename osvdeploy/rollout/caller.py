"""Asks hooks for the process that drives a run: one at a time, which is never waited for."""

from __future__ import annotations

import json
from dataclasses import dataclass

from osvdeploy.cloud.interfaces import HookAnswer, Hooks, Route, RunningHook, TrafficRouter
from osvdeploy.context import Context
from osvdeploy.errors import CloudError
from osvdeploy.events import HookEnded, HookStarted, Warned
from osvdeploy.rollout.model import HookCall, HookSeen, Run
from osvdeploy.rollout.turns import facts


@dataclass(frozen=True, slots=True)
class _Started:
    call: HookCall
    running: RunningHook | None
    """None where there is nothing to run it with."""

    @property
    def key(self) -> tuple[str, int]:
        return self.call.event, self.call.attempt


class Caller:
    """What this process runs of hooks."""

    def __init__(self, hooks: Hooks | None, router: TrafficRouter, *, service: str, ledger: str) -> None:
        self.hooks = hooks
        self._router = router
        self._service = service
        self._ledger = ledger
        self._now: _Started | None = None
        self._ending: list[RunningHook] = []

    def call(self, ctx: Context, run: Run, route: Route, call: HookCall) -> None:
        """Start the hook that a run says is asked now; what cannot be started has answered."""
        self.keep(ctx, None)
        hook = run.hook(call.hook)
        running = None
        if hook is not None and self.hooks is not None:
            try:
                state = self._router.observe(ctx, route)
            except CloudError:
                # What it is told is better than that it is not told.
                state = None
            told = facts(
                run, call, service=self._service, ledger=self._ledger, preview_header=route.preview_header, state=state
            )
            content = json.dumps(told, sort_keys=True).encode() + b"\n"
            running = self.hooks.start(ctx, hook.action, content, hook.timeout)
            ctx.report(HookStarted(call.hook, call.stage, call.attempt))
        self._now = _Started(call, running)

    def seen(self) -> HookSeen | None:
        """The hook that was started last, and what it has come to."""
        if self._now is None:
            return None
        running = self._now.running
        answer = (
            running.answer() if running is not None else HookAnswer(False, "there is nothing to ask hooks with here")
        )
        return HookSeen(self._now.call.event, self._now.call.attempt, answer)

    def keep(self, ctx: Context, call: HookCall | None) -> None:
        """Have everything ended that is not this call. Waits for nothing: traffic may have to move now."""
        if self._now is None or (call is not None and self._now.key == (call.event, call.attempt)):
            return
        if (running := self._now.running) is not None:
            running.stop()
            self._ending.append(running)
        self._now = None

    def tell(self, ctx: Context, before: Run, run: Run) -> None:
        """Report what hooks came to."""
        for record in run.hooks[len(before.hooks) :]:
            if record.warned:
                ctx.report(
                    Warned(f"hook {record.hook} ({record.stage}): {record.told}", hint="it decides nothing here")
                )
            else:
                ctx.report(HookEnded(record.hook, record.stage, record.passed, record.told))

    def close(self, ctx: Context) -> None:
        """Have everything ended, and wait for that some seconds at most."""
        self.keep(ctx, None)
        while self._ending:
            self._ending.pop().close()
