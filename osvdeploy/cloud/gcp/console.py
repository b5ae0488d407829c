"""Serial consoles of machines on Google.

Source: Compute Engine API reference, instances.getSerialPortOutput: port 1, the last 1 MiB, of a machine that is there;
one that is stopped has none ("not ready").
"""

from __future__ import annotations

from osvdeploy.cloud.gcp.session import Gcp
from osvdeploy.context import Context
from osvdeploy.errors import Refused, Unavailable

_NOT_READY = ("resourceNotReady", "RESOURCE_NOT_READY")


class SerialPort:
    """:class:`~osvdeploy.cloud.interfaces.Console` of the machines of one project."""

    def __init__(self, gcp: Gcp) -> None:
        self._gcp = gcp

    def read(self, ctx: Context, machine: str) -> str:
        if not machine.startswith("zones/"):
            raise Refused(f"{machine!r} is no machine on Google", hint="zones/ZONE/instances/NAME")
        url = f"{self._gcp.project_path}/{machine}/serialPort"
        try:
            # Once: whoever reads consoles looks again anyway.
            answer = self._gcp.send(ctx, "GET", url, f"console of {machine}", query={"port": "1"}, attempts=1)
        except (Refused, Unavailable) as error:
            if error.code in _NOT_READY:
                return ""
            raise
        return str(answer.json().get("contents", ""))
