"""What people ask of a rollout under way, as a pure function of the run.

A request is a document of its own beside the ledger's heads, which anybody may put; whoever has the lease reads it
and does what it says. So a rollout is paused, approved or aborted from any terminal, whoever's process works on it,
and what was asked while nobody was at work is heard by whoever is next.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from osvdeploy.errors import UsageError
from osvdeploy.rollout.model import Heard, Kind, Pause, Request, RequestKind, Run, Stage, Tally
from osvdeploy.rollout.releases import TrafficStep

_BEFORE_TRAFFIC = (Stage.PREPARE, Stage.BOOT, Stage.VERIFY)


def refuse_senseless(run: Run, kind: RequestKind, service: str, now: datetime) -> None:
    """Raise :class:`~osvdeploy.errors.UsageError` for what cannot be asked of the run as it is."""
    if (told := _senseless(run, kind, now)) is not None:
        message, hint = told
        raise UsageError(f"{service}: {message}", hint=hint)


def heed(run: Run, request: Request, now: datetime) -> Run:
    """The run after a request, with what came of it as the last of ``heard``."""
    if (senseless := _senseless(run, request.kind, now)) is not None:
        return _told(run, request, now, senseless[0], done=False)
    if request.kind in (RequestKind.APPROVE, RequestKind.PROMOTE) and not _seen(run, request):
        return _told(run, request, now, "it had gone on since", done=False)
    onward = request.kind not in (RequestKind.ABORT, RequestKind.PAUSE)
    if onward and run.paused is not None and request.stage is not None and request.pause != run.paused.at:
        told = f"it was paused since by {run.paused.by}: {run.paused.why}"
        return _told(run, request, now, told, done=False)
    match request.kind:
        case RequestKind.ABORT:
            why = f"{request.why} ({request.by})" if request.why else f"{request.by} asked for it"
            return _told(replace(run, abort=why, paused=None), request, now, _ending(run))
        case RequestKind.PAUSE:
            if run.paused is not None:
                told = f"it was paused already by {run.paused.by}: {run.paused.why}"
                return _told(run, request, now, told)
            paused = replace(run, paused=Pause(request.by, now, request.why or "asked for"))
            return _told(paused, request, now, "traffic stays as it is")
        case RequestKind.RESUME:
            return _told(_resumed(run, now), request, now, "it goes on")
        case RequestKind.APPROVE:
            return _told(_approved(run, request, now), request, now, "it goes on")
        case RequestKind.PROMOTE:
            following = _resumed(_approved(_hurried(run), request, now), now)
            cut = run.stage is Stage.BAKE and run.baked_for(now) < run.bake
            return _told(following, request, now, f"it goes on{' without the rest of the bake' if cut else ''}")
        case RequestKind.PROMOTE_FULL:
            return _told(_resumed(_approved(_all_at_once(run), request, now), now), request, now, "all traffic is next")


def _seen(run: Run, request: Request) -> bool:
    """Whether the run is where whoever asks had seen it: a step asks twice where it is approved before and after."""
    return request.step == run.step and request.stage in (None, run.stage)


def _ending(run: Run) -> str:
    """What an abort comes to; where traffic has moved, what is tried: nobody has looked yet who is there."""
    if run.shifted is not None and (run.stable is not None or run.kind is Kind.ADOPT):
        return "it ends; traffic goes back to what served before"
    return "it ends; what served before serves on" if run.stable is not None else "it ends"


def ways_on(run: Run, where: str) -> str:
    """What to type for a run that waits for a person. ``where``: the service, with all that its commands need."""
    first = "approve" if run.paused is None else "resume"
    return f"`osvdeploy {first} {where}` lets it go on, `osvdeploy abort {where}` ends it"


def _senseless(run: Run, kind: RequestKind, now: datetime) -> tuple[str, str] | None:
    """Why this cannot be asked now, and what can be done instead; None where it can."""
    if run.over:
        return f"the {run.kind} of {run.candidate} is over", "`osvdeploy status` tells what serves"
    if run.verdict is not None:
        done = "is on its way back already" if run.going_back else "has succeeded already; only cleaning up is left"
        return f"the {run.kind} of {run.candidate} {done}", "`osvdeploy rollback` brings the release before back"
    if kind is RequestKind.ABORT:
        return None
    if run.abort is not None:
        return f"the {run.kind} of {run.candidate} is being aborted", "`osvdeploy deploy` begins anew"
    if run.kind is Kind.ROLLBACK:
        return "a rollback waits for nobody and has no steps", "`osvdeploy abort` ends it"
    if run.kind is Kind.ADOPT and kind is not RequestKind.PAUSE and kind is not RequestKind.RESUME:
        return "an adoption waits for nobody and has no steps", "`osvdeploy abort` ends it"
    if kind is RequestKind.RESUME and run.paused is None:
        return "it is not paused", "`osvdeploy promote` goes on without the rest of a bake"
    if kind is RequestKind.APPROVE and run.awaits_approval(now) is None:
        return (
            f"nothing waits for approval; it is in stage {run.stage}",
            "`osvdeploy wait --for approval` waits for that",
        )
    if kind is RequestKind.PROMOTE and run.stage is not Stage.BAKE and not run.awaits(now):
        told = f"there is nothing to skip in stage {run.stage}: health and answers are always waited for"
        return told, "`promote --full` takes out what steps are left"
    return None


def _told(run: Run, request: Request, now: datetime, told: str, *, done: bool = True) -> Run:
    return replace(run, heard=(*run.heard, Heard(request, now, done, told)))


def _resumed(run: Run, now: datetime) -> Run:
    """Judged anew: by what is counted from now on, and by metrics of another bake."""
    if run.paused is None:
        return run
    return replace(run, paused=None, tally=Tally(), measured_since=now if run.gated else None, kept=())


def _approved(run: Run, request: Request, now: datetime) -> Run:
    awaited = run.awaits_approval(now)
    if awaited is None:
        return run
    return replace(run, approvals=(*run.approvals, replace(awaited, by=request.by, at=now)))


def _hurried(run: Run) -> Run:
    """Without what is left of the present step's bake."""
    if run.stage in _BEFORE_TRAFFIC or (run.stage is Stage.SHIFT and run.shifted is None):
        return run
    if run.step == len(run.steps) - 1:
        strategy = replace(run.settings.strategy, bake=0.0)
        return replace(run, settings=replace(run.settings, strategy=strategy))
    step = replace(run.steps[run.step], bake=0.0, approve=False)
    return replace(run, steps=(*run.steps[: run.step], step, *run.steps[run.step + 1 :]))


def _all_at_once(run: Run) -> Run:
    """With all traffic as the next step; the last bake stays."""
    if run.shifted is None:
        return replace(run, steps=(TrafficStep(100),))
    if run.step == len(run.steps) - 1:
        return run
    return replace(hurried := _hurried(run), steps=(*hurried.steps[: run.step + 1], TrafficStep(100)))
