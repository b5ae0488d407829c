"""EC2 Auto Scaling: groups of instances, and what scales them."""

from collections.abc import Mapping

from osvdeploy.sandbox.services.autoscaling import groups, scaling
from osvdeploy.sandbox.services.autoscaling.groups import FIRST_LOOK, RETRY_FIRST, WATCH_BUSY, WATCH_IDLE
from osvdeploy.sandbox.services.scope import EventHandler, Operation

__all__ = ["EVENTS", "FIRST_LOOK", "OPERATIONS", "PARAMETERS", "RETRY_FIRST", "WATCH_BUSY", "WATCH_IDLE"]

OPERATIONS: Mapping[str, Operation] = {**groups.OPERATIONS, **scaling.OPERATIONS}
"""By the API's name. Every other operation of the service is not simulated."""

EVENTS: Mapping[str, EventHandler] = {**groups.EVENTS, **scaling.EVENTS}

PARAMETERS: Mapping[str, str] = {**groups.PARAMETERS, **scaling.PARAMETERS}
"""What each operation looks at, whole; any other parameter is not simulated."""
