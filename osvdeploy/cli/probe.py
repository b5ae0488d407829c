"""probe: the other end of ``probe-from = { command = [...] }``."""

from __future__ import annotations

import json
import sys

import click

from osvdeploy.cli.output import Result, command
from osvdeploy.context import Context


@click.command(short_help="Send one probe, for a rollout elsewhere.")
@command
def probe(ctx: Context) -> Result:
    """Send the one probe that stands on stdin as JSON, and print its answer as JSON.

    For a machine that reaches a balancer which the rollout's own machine does not: health.probe-from in the spec names
    the command that starts this there (docs/probes.md). Exit codes: 0 there is an answer, also that nobody
    answered; 2 there is no request on stdin. Example: ssh bastion osvdeploy probe
    """
    from osvdeploy.cloud.local.probing import LocalProber, answer_document, request_of
    from osvdeploy.errors import UsageError

    try:
        request = request_of(sys.stdin.buffer.read(1 << 20))
    except UsageError as error:
        told = f"the request on stdin: {error}"
        raise UsageError(told, hint=error.hint or "docs/probes.md has what it is") from None
    document = answer_document(LocalProber().probe(ctx, request))
    return Result(json.dumps(document), document)
