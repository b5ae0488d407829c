"""Serial consoles of EC2 instances.

Source: EC2 API reference, GetConsoleOutput: 64 KiB at most; with ``Latest`` what is there now, on Nitro types only;
without, what was kept after the last change of the instance's state. botocore has undone the base64 already.
"""

from __future__ import annotations

from osvdeploy.cloud.aws.session import Aws
from osvdeploy.context import Context
from osvdeploy.errors import Refused
from osvdeploy.events import Warned

_NO_LATEST = ("UnsupportedOperation", "InvalidParameterCombination")


class Ec2Console:
    """:class:`~osvdeploy.cloud.interfaces.Console` of EC2 instances."""

    def __init__(self, aws: Aws) -> None:
        self._aws = aws
        self._without_latest: set[str] = set()

    def read(self, ctx: Context, machine: str) -> str:
        if machine not in self._without_latest:
            try:
                return self._read(ctx, machine, latest=True)
            except Refused as error:
                if error.code not in _NO_LATEST:
                    raise
                if not self._without_latest:
                    ctx.report(
                        Warned(
                            f"console of {machine}: EC2 shows it only some time after the machine has started or "
                            "stopped: until then health and answers decide alone",
                            hint="a type on Nitro, such as t3, shows its console as it is written",
                        )
                    )
                self._without_latest.add(machine)
        return self._read(ctx, machine, latest=False)

    def _read(self, ctx: Context, machine: str, *, latest: bool) -> str:
        with self._aws.calling(ctx, f"console of {machine}"):
            if latest:
                return self._aws.ec2.get_console_output(InstanceId=machine, Latest=True).get("Output", "")
            return self._aws.ec2.get_console_output(InstanceId=machine).get("Output", "")
