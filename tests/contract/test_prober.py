"""What every implementation of Prober promises."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from osvdeploy.cloud.interfaces import GroupRequest, Prober, ProbeRequest, ReleaseId, Slot
from osvdeploy.cloud.local.prober import HttpProber
from osvdeploy.cloud.memory import MemoryCloud
from osvdeploy.context import Context, VirtualClock
from tests.contract.scenes import SERVICE_TAGS, Scene


@dataclass(frozen=True, slots=True)
class Served:
    """A prober with a service that it reaches: it answers 200 and ``X-Release: hello-1``, or 500 while ``sick``."""

    ctx: Context
    prober: Prober
    url: str
    address: str
    sick_url: str


class _Service(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(500 if self.path == "/sick" else 200)
        self.send_header("X-Release", "hello-1")
        self.end_headers()
        self.wfile.write(b"a body\n")

    def log_message(self, format: str, *args: object) -> None:
        """Not on the tests' stderr."""


def over_http() -> Iterator[Served]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Service)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    port = server.server_address[1]
    url = f"http://service.invalid:{port}/"
    yield Served(Context(), HttpProber(), url, "127.0.0.1", f"http://service.invalid:{port}/sick")
    server.shutdown()
    thread.join()
    server.server_close()


def in_memory() -> Iterator[Served]:
    clock = VirtualClock()
    ctx = Context(clock=clock)
    place = MemoryCloud(clock)
    place.world.image_exists = lambda image: True
    # A second balancer, whose service is sick.
    place.add_listener("listener-2")
    urls = []
    for number in (1, 2):
        release = ReleaseId(f"hello-{number}")
        place.behave(release, answers=(200 if number == 1 else 500,), health=200)
        scene = Scene(
            ctx=ctx,
            cloud=place.cloud,
            prober=place.prober,
            listener=f"listener-{number}",
            networks=(),
            firewalls=(),
            machine_type="",
            image=lambda release, guest: "image",
            plant_rule=lambda priority: None,
            plant_group=lambda name: "",
            scale=lambda group, minimum, maximum: None,
            unload=lambda group: None,
            mutations=lambda: 0,
            on_change=lambda hook: None,
        )
        route = scene.route(key=f"{number}")
        place.cloud.router.ensure_slots(ctx, route)
        backend = place.cloud.router.observe(ctx, route).backends[Slot.BLUE]
        request = GroupRequest(f"group-{number}", release, "image", 1, "", (), (), backend, SERVICE_TAGS)
        place.cloud.groups.ensure(ctx, request)
        place.cloud.router.set_weights(ctx, route, {Slot.BLUE: 100, Slot.GREEN: 0})
        urls.append(place.cloud.router.observe(ctx, route))
    ctx.sleep(60)
    yield Served(ctx, place.prober, f"{urls[0].base_url}/", urls[0].addresses[0], f"{urls[1].base_url}/")


@pytest.fixture(params=["memory", "http"])
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    yield from in_memory() if request.param == "memory" else over_http()


def test_an_answer_has_status_headers_and_body(served: Served) -> None:
    """Header names are lower case, the body is not empty, and there is no error."""
    answer = served.prober.probe(served.ctx, ProbeRequest(served.url, address=served.address))
    assert (answer.status, answer.error) == (200, "")
    assert answer.headers["x-release"] == "hello-1"
    assert answer.body


def test_a_sick_service_answers_too(served: Served) -> None:
    """A 500 is an answer, not an error."""
    address = served.address if "invalid" in served.sick_url else None
    answer = served.prober.probe(served.ctx, ProbeRequest(served.sick_url, address=address))
    assert (answer.status, answer.error) == (500, "")


def test_nobody_there_is_no_exception(served: Served) -> None:
    """An address where nobody listens gives an answer without a status, and a reason."""
    answer = served.prober.probe(served.ctx, ProbeRequest("http://service.invalid:1/", address="127.0.0.1:1"))
    assert answer.status is None
    assert answer.error
