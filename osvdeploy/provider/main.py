"""``pulumi-resource-osvdeploy``: the process that Pulumi's engine starts.

The port goes out first, since that is what the engine waits for: the socket listens, and what is slow to import comes
while the engine connects. The process ends when the engine is gone, on SIGINT and on SIGTERM, and lets what runs come
to a safe end first.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeAlias

if TYPE_CHECKING:
    from osvdeploy.provider.base import Function, Resource

    Resources: TypeAlias = Mapping[str, Resource[Any, Any]]
    Functions: TypeAlias = Mapping[str, Function[Any, Any]]

THREADS: Final = 512
"""Calls at once; a thread is made when there is a call for it. More than the engine has under way (4 for each core,
unless it is told otherwise): a Cancel must not wait behind what it is to end."""

MESSAGE: Final = 400 * 1024 * 1024
"""Bytes of a message: what the engine allows too. A large stack's values exceed gRPC's own 4 MiB."""

ENDING: Final = 4.0
"""Seconds that calls may take to come to a safe end: the engine kills after 5."""


def main() -> None:
    """Serve all resources and functions until the engine is done with us. Ends the process."""

    def registered() -> tuple[Resources, Functions]:
        from osvdeploy.provider.registry import FUNCTIONS, RESOURCES

        return RESOURCES, FUNCTIONS

    serve(registered)


def serve(registered: Callable[[], tuple[Resources, Functions]]) -> NoReturn:
    """Serve what is registered, which is asked for once the port is out."""
    parent = os.getppid()
    # A pipe and no Event, and written by the interpreter's own handler: Python's runs in the main thread and only
    # between two steps of it, so that a signal which another thread gets, or which comes right before the main thread
    # begins to wait, would be heard when that wait is over.
    ended, ending = os.pipe()
    os.set_blocking(ending, False)

    def end() -> None:
        os.write(ending, b"\0")

    def heard(signum: int, frame: FrameType | None) -> None:
        """Not to die of it: the pipe has it."""

    signal.set_wakeup_fd(ending, warn_on_full_buffer=False)
    signal.signal(signal.SIGINT, heard)
    signal.signal(signal.SIGTERM, heard)
    try:
        # Only here: Python starts in less time than this takes.
        import grpc
    except ModuleNotFoundError as error:
        print(f"the Pulumi provider needs {error.name}: pip install 'osvdeploy[pulumi]'", file=sys.stderr)
        sys.exit(1)

    server = grpc.server(
        ThreadPoolExecutor(THREADS, thread_name_prefix="call"),
        options=[("grpc.max_receive_message_length", MESSAGE), ("grpc.max_send_message_length", MESSAGE)],
    )
    port = server.add_insecure_port("127.0.0.1:0")
    print(port, flush=True)
    address = engine_address(sys.argv[1:])

    _without_sdk()
    from pulumi.runtime.proto import provider_pb2_grpc

    from osvdeploy.provider.engine import Engine, on_parent_gone
    from osvdeploy.provider.server import Provider

    engine = Engine(address)
    provider = Provider(*registered(), engine)
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(provider, server)
    server.start()
    if address is not None:
        # One that waits to be attached to (PULUMI_DEBUG_PROVIDERS) outlives the engines that come and go.
        engine.on_gone(end)
        on_parent_gone(parent, end)
    os.read(ended, 1)
    provider.cancel()
    provider.wait(ENDING)
    server.stop(grace=0.5).wait(timeout=1)
    # A call that does not come to an end must not keep the process; what it did is found by the next run.
    sys.stdout.flush()
    os._exit(0)


def _without_sdk() -> None:
    """Let the packages that the stubs are in be found, and not run: they would import the whole SDK, for programs,
    which takes 0.2 s of processor time of each of the two processes that a preview starts."""
    for name in ("pulumi", "pulumi.runtime"):
        spec = importlib.util.find_spec(name)
        if spec is not None and name not in sys.modules:
            sys.modules[name] = importlib.util.module_from_spec(spec)


def engine_address(arguments: Sequence[str]) -> str | None:
    """The engine's address: the last argument that is no option. What else the engine says is for its own tools."""
    plain = []
    following = iter(arguments)
    for each in following:
        if each in ("--tracing", "-tracing"):
            next(following, None)
        elif not each.startswith("-"):
            plain.append(each)
    return plain[-1] if plain else None


if __name__ == "__main__":
    main()
