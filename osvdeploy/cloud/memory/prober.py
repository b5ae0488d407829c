"""A balancer's data plane in memory: probes are answered by the rules and weights in force where they enter."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from operator import attrgetter
from urllib.parse import urlsplit

from osvdeploy.cloud.interfaces import ProbeAnswer, ProbeRequest
from osvdeploy.cloud.memory.world import Backend, Listener, Rule, Target, World
from osvdeploy.context import Context


class MemoryProber:
    """:class:`~osvdeploy.cloud.interfaces.Prober` on a :class:`~osvdeploy.cloud.memory.world.World`.

    Nothing is random: requests are spread by smooth weighted rotation, per rule and entry point.
    """

    def __init__(self, world: World) -> None:
        self._world = world

    def probe(self, ctx: Context, request: ProbeRequest) -> ProbeAnswer:
        world = self._world
        with world.calls.around("prober.probe", request.url, request.address or ""), world.lock:
            now = world.settle()
            entry = self._entry(request)
            if entry is None:
                return ProbeAnswer(None, error=f"{request.address or request.url}: connection refused")
            listener, node = entry
            rule = self._matching(listener, node, request, now)
            if rule is None:
                return ProbeAnswer(404, {"content-type": "text/plain"}, b"no rule of the listener takes this")
            backend = self._chosen(rule, node, rule.in_force(now - world.timing.propagation[node]) or {})
            answer = self._forwarded(backend, now)
            if request.kind == "tcp":
                # A proxy takes every connection, and holds those that it can lead on.
                held = answer.status not in (502, 503)
                return ProbeAnswer(None, held=held, error="" if held else "the connection was closed at once")
            return answer

    def _entry(self, request: ProbeRequest) -> tuple[Listener, int] | None:
        """The listener and the number of the entry point that a request goes to."""
        url = urlsplit(request.url)
        for listener in self._world.listeners.values():
            if request.address is not None:
                dialled = request.address.partition(":")[0]
                if dialled in listener.addresses:
                    return listener, listener.addresses.index(dialled)
            elif url.hostname == listener.host and (url.port or 80) == listener.port:
                turn = self._world.turns[listener.id] = self._world.turns.get(listener.id, -1) + 1
                return listener, turn % len(listener.addresses)
        return None

    def _matching(self, listener: Listener, node: int, request: ProbeRequest, now: float) -> Rule | None:
        world = self._world
        seen = now - world.timing.propagation[node]
        there = [rule for rule in (*world.rules.values(), *world.deleted_rules) if rule.listener == listener.id]
        url = urlsplit(request.url)
        headers = {name.lower(): value for name, value in request.headers.items()}
        host = re.sub(r":\d+$", "", headers.get("host", url.hostname or ""))
        for rule in sorted(there, key=_PRIORITY):
            name, value = rule.header or ("", "")
            if (
                (rule.header is None or _pattern(value.lower()).fullmatch(headers.get(name.lower(), "").lower()))
                and (rule.host is None or _pattern(rule.host.lower()).fullmatch(host.lower()))
                and (rule.path is None or _pattern(rule.path).fullmatch(url.path or "/"))
                and rule.in_force(seen) is not None
            ):
                return rule
        return None

    def _chosen(self, rule: Rule, node: int, weights: Mapping[str, int]) -> Backend | None:
        """The backend whose turn it is: over any run of requests each gets its share, as evenly as it goes."""
        total = sum(weights.values())
        if total == 0:
            return None
        turns = rule.turns.setdefault(node, {})
        for name, weight in weights.items():
            turns[name] = turns.get(name, 0) + weight
        chosen = max(weights, key=lambda name: (weights[name] > 0, turns[name]))
        turns[chosen] -= total
        return self._world.backends.get(chosen)

    def _forwarded(self, backend: Backend | None, now: float) -> ProbeAnswer:
        target = _target(backend) if backend is not None else None
        if target is None:
            return ProbeAnswer(503, {"content-type": "text/html"}, b"503 Service Temporarily Unavailable")
        status = self._world.status_of(target.machine, now)
        if status is None:
            return ProbeAnswer(502, {"content-type": "text/html"}, b"502 Bad Gateway")
        assert backend is not None, "a target is of one"
        self._world.answered.setdefault(backend.id, []).append((self._world.clock.now(), status))
        release = target.machine.release
        header = self._world.behaviour(release).header
        headers = {header.lower(): release} if header else {}
        return ProbeAnswer(status, headers, f"{status} from {release}\n".encode())


_PRIORITY = attrgetter("priority")


def _target(backend: Backend) -> Target | None:
    """The next healthy target; where none is healthy, any: a balancer fails open. Draining ones take nothing new."""
    there = [target for target in backend.targets.values() if target.state not in ("draining", "unused")]
    healthy = [target for target in there if target.state == "healthy"]
    pool = healthy or there
    if not pool:
        return None
    backend.turn += 1
    return pool[backend.turn % len(pool)]


@lru_cache(maxsize=256)
def _pattern(value: str) -> re.Pattern[str]:
    """A balancer's wildcards: ``*`` any run of characters, ``?`` exactly one."""
    return re.compile("".join({"*": ".*", "?": "."}.get(char) or re.escape(char) for char in value), re.DOTALL)
