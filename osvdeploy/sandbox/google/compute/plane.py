"""The data plane of Google's balancers, as of one moment."""

from __future__ import annotations

from osvdeploy.sandbox.dataplane import Endpoint, Target, View
from osvdeploy.sandbox.google.compute import backends, fronts
from osvdeploy.sandbox.google.compute.operations import Wire
from osvdeploy.sandbox.google.compute.resources import RULE
from osvdeploy.sandbox.google.compute.routing import TcpFront, UrlMapFront
from osvdeploy.sandbox.services.scope import Scope


def view(scope: Scope) -> View:
    """Forwarding rules in force, and the machines behind them with their health.

    Two rules may lead to one service before and after it changed: targets are told by both paths.
    """
    endpoints: dict[str, Endpoint] = {}
    targets: dict[str, tuple[Target, ...]] = {}
    for document in scope.all(fronts.IN_FORCE):
        rule = scope.get(RULE.store, document["rule"])
        if rule is None:
            continue
        resource, services = rule["resource"], document["services"]
        headers = {path: _headers(settings) for path, settings in services.items()}
        port = int(resource["portRange"].partition("-")[0])
        front: UrlMapFront | TcpFront
        # Stores of before there were others hold rules of URL maps alone.
        if document.get("service") is not None:
            front = TcpFront(port, document["service"], document["rule"])
        else:
            front = UrlMapFront(port, document["map"], resource["loadBalancingScheme"], headers, document["rule"])
        endpoints[document["rule"]] = Endpoint(resource["IPAddress"], front)
        for path, settings in services.items():
            targets[front.group(path)] = backends.targets(scope, path, settings)
    return View(endpoints, targets)


def _headers(settings: Wire) -> list[tuple[str, str]]:
    pairs = [text.partition(":") for text in settings["customResponseHeaders"] or []]
    return [(name.strip(), value.strip()) for name, _, value in pairs]
