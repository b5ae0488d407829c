"""Serial consoles in memory."""

from __future__ import annotations

from osvdeploy.cloud.memory.world import World
from osvdeploy.context import Context
from osvdeploy.errors import NotFound


class MemoryConsole:
    """:class:`~osvdeploy.cloud.interfaces.Console` on a :class:`~osvdeploy.cloud.memory.world.World`."""

    def __init__(self, world: World) -> None:
        self._world = world

    def read(self, ctx: Context, machine: str) -> str:
        world = self._world
        with world.calls.around("console.read", machine), world.lock:
            world.settle()
            if machine not in world.instances:
                raise NotFound(f"machine {machine}: does not exist")
            return world.console_of(world.instances[machine])
