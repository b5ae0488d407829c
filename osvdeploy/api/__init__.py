"""What people import: build, publish, deploy, roll back - the use cases joined to the adapters.

Every function takes a :class:`~osvdeploy.context.Context` first, blocks until it is done, may be cancelled through the
context, may be called again after any failure, and raises only :class:`~osvdeploy.errors.OsvDeployError`. Any may be
called from any thread: two that change one service meet at its lease. docs/library.md says what holds when.

    from osvdeploy import api
    from osvdeploy.context import Context

    ctx = Context()
    spec = api.load_spec("osv.toml")
    outcome = api.deploy(ctx, spec, "production")
    print(outcome.rollout.told)

What is named here is imported when it is first asked for, adapters (boto3 and so on) when a function first needs them:
a rollback does not wait for what builds images.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from osvdeploy.api.adopting import Adoption, adopt
    from osvdeploy.api.building import Foreseen, build, foresee, pinned, pinned_programs, upgrade_lock
    from osvdeploy.api.caching import CacheContents, Pruned, cache_contents, prune_cache
    from osvdeploy.api.carrying import deploy_release, plan_release
    from osvdeploy.api.controlling import Milestone, Waited, ask, hand_over, pin, recover, retry, wait
    from osvdeploy.api.converting import convert
    from osvdeploy.api.declared import (
        LEDGER_VARIABLE,
        Service,
        environment_of,
        image_inputs,
        load_spec,
        service_of,
        settings_for,
        settings_of,
        spec_of,
    )
    from osvdeploy.api.differing import ReleaseDiff, SettingChange, diff
    from osvdeploy.api.drifting import Drifted, drift
    from osvdeploy.api.from_cloud import WentBack, Whereabouts, WrittenAnew, adopt_from_cloud, rollback_from_cloud
    from osvdeploy.api.inspecting import Inspection, compare, extract, inspect, listed, opened
    from osvdeploy.api.kernels import AddedKernel, InspectedKernel, add_kernel, inspect_kernel, stored_kernels
    from osvdeploy.api.looking import (
        Checked,
        Looked,
        check,
        findings,
        lint_findings,
        look,
        look_at_built,
        named_places,
        place_findings,
        place_of,
        program_findings,
    )
    from osvdeploy.api.manifests import (
        Imported,
        Manifest,
        ManifestEntry,
        export_releases,
        import_releases,
        manifest_document,
        read_manifest,
    )
    from osvdeploy.api.planning import Plan, basis_document, load_plan, monthly_cost, plan, prices_of
    from osvdeploy.api.releasing import Deployed, PublishedImage, deploy, publish
    from osvdeploy.api.reporting import Report, events, follow, report
    from osvdeploy.api.rolling import RolledOut, release_in, roll_out
    from osvdeploy.api.running import run
    from osvdeploy.api.services import (
        History,
        Holdings,
        ProbeFrom,
        ServiceStatus,
        SlotStatus,
        Standing,
        destroy,
        find_release,
        gc,
        history,
        hold,
        holdings,
        realign,
        rollback,
        serves,
        standing,
        status,
        sweep_retired,
        unhold,
    )
    from osvdeploy.api.surveying import ServiceSeen, Survey, survey
    from osvdeploy.api.verifying import Difference, Verified, VerifiedImage, verify
    from osvdeploy.api.watching import watch
    from osvdeploy.api.wiring import Calls, connect, ground, open_ledger, open_store, prober, usual_region
    from osvdeploy.api.withdrawing import Withdrawal, Withdrawn, restore, withdraw
    from osvdeploy.publish.converting import Converted

__all__ = [
    "LEDGER_VARIABLE",
    "AddedKernel",
    "Adoption",
    "CacheContents",
    "Calls",
    "Checked",
    "Converted",
    "Deployed",
    "Difference",
    "Drifted",
    "Foreseen",
    "History",
    "Holdings",
    "Imported",
    "InspectedKernel",
    "Inspection",
    "Looked",
    "Manifest",
    "ManifestEntry",
    "Milestone",
    "Plan",
    "ProbeFrom",
    "Pruned",
    "PublishedImage",
    "ReleaseDiff",
    "Report",
    "RolledOut",
    "Service",
    "ServiceSeen",
    "ServiceStatus",
    "SettingChange",
    "SlotStatus",
    "Standing",
    "Survey",
    "Verified",
    "VerifiedImage",
    "Waited",
    "WentBack",
    "Whereabouts",
    "Withdrawal",
    "Withdrawn",
    "WrittenAnew",
    "add_kernel",
    "adopt",
    "adopt_from_cloud",
    "ask",
    "basis_document",
    "build",
    "cache_contents",
    "check",
    "compare",
    "connect",
    "convert",
    "deploy",
    "deploy_release",
    "destroy",
    "diff",
    "drift",
    "environment_of",
    "events",
    "export_releases",
    "extract",
    "find_release",
    "findings",
    "follow",
    "foresee",
    "gc",
    "ground",
    "hand_over",
    "history",
    "hold",
    "holdings",
    "image_inputs",
    "import_releases",
    "inspect",
    "inspect_kernel",
    "lint_findings",
    "listed",
    "load_plan",
    "load_spec",
    "look",
    "look_at_built",
    "manifest_document",
    "monthly_cost",
    "named_places",
    "open_ledger",
    "open_store",
    "opened",
    "pin",
    "pinned",
    "pinned_programs",
    "place_findings",
    "place_of",
    "plan",
    "plan_release",
    "prices_of",
    "prober",
    "program_findings",
    "prune_cache",
    "publish",
    "read_manifest",
    "realign",
    "recover",
    "release_in",
    "report",
    "restore",
    "retry",
    "roll_out",
    "rollback",
    "rollback_from_cloud",
    "run",
    "serves",
    "service_of",
    "settings_for",
    "settings_of",
    "spec_of",
    "standing",
    "status",
    "stored_kernels",
    "survey",
    "sweep_retired",
    "unhold",
    "upgrade_lock",
    "usual_region",
    "verify",
    "wait",
    "watch",
    "withdraw",
]

_HOMES = {
    "osvdeploy.api.adopting": ("Adoption", "adopt"),
    "osvdeploy.api.building": ("Foreseen", "build", "foresee", "pinned", "pinned_programs", "upgrade_lock"),
    "osvdeploy.api.caching": ("CacheContents", "Pruned", "cache_contents", "prune_cache"),
    "osvdeploy.api.carrying": ("deploy_release", "plan_release"),
    "osvdeploy.api.controlling": ("Milestone", "Waited", "ask", "hand_over", "pin", "recover", "retry", "wait"),
    "osvdeploy.api.converting": ("convert",),
    "osvdeploy.api.declared": (
        "LEDGER_VARIABLE",
        "Service",
        "environment_of",
        "image_inputs",
        "load_spec",
        "service_of",
        "settings_for",
        "settings_of",
        "spec_of",
    ),
    "osvdeploy.api.differing": ("ReleaseDiff", "SettingChange", "diff"),
    "osvdeploy.api.drifting": ("Drifted", "drift"),
    "osvdeploy.api.from_cloud": ("WentBack", "Whereabouts", "WrittenAnew", "adopt_from_cloud", "rollback_from_cloud"),
    "osvdeploy.api.inspecting": ("Inspection", "compare", "extract", "inspect", "listed", "opened"),
    "osvdeploy.api.kernels": ("AddedKernel", "InspectedKernel", "add_kernel", "inspect_kernel", "stored_kernels"),
    "osvdeploy.api.looking": (
        "Checked",
        "Looked",
        "check",
        "findings",
        "lint_findings",
        "look",
        "look_at_built",
        "named_places",
        "place_findings",
        "place_of",
        "program_findings",
    ),
    "osvdeploy.api.manifests": (
        "Imported",
        "Manifest",
        "ManifestEntry",
        "export_releases",
        "import_releases",
        "manifest_document",
        "read_manifest",
    ),
    "osvdeploy.api.planning": ("Plan", "basis_document", "load_plan", "monthly_cost", "plan", "prices_of"),
    "osvdeploy.api.releasing": ("Deployed", "PublishedImage", "deploy", "publish"),
    "osvdeploy.api.reporting": ("Report", "events", "follow", "report"),
    "osvdeploy.api.rolling": ("RolledOut", "release_in", "roll_out"),
    "osvdeploy.api.running": ("run",),
    "osvdeploy.api.services": (
        "History",
        "Holdings",
        "ProbeFrom",
        "ServiceStatus",
        "SlotStatus",
        "Standing",
        "destroy",
        "find_release",
        "gc",
        "history",
        "hold",
        "holdings",
        "realign",
        "rollback",
        "serves",
        "standing",
        "status",
        "sweep_retired",
        "unhold",
    ),
    "osvdeploy.api.surveying": ("ServiceSeen", "Survey", "survey"),
    "osvdeploy.api.verifying": ("Difference", "Verified", "VerifiedImage", "verify"),
    "osvdeploy.api.watching": ("watch",),
    "osvdeploy.api.wiring": ("Calls", "connect", "ground", "open_ledger", "open_store", "prober", "usual_region"),
    "osvdeploy.api.withdrawing": ("Withdrawal", "Withdrawn", "restore", "withdraw"),
    "osvdeploy.publish.converting": ("Converted",),
}
"""Which module has what; the imports above say the same to those who read types (tests/test_api_names.py)."""

if not TYPE_CHECKING:
    # Hidden from type checkers, for whom any name would be there.

    def __getattr__(name: str) -> Any:
        for home, names in _HOMES.items():
            if name in names:
                globals()[name] = found = getattr(import_module(home), name)
                return found
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
