"""Runs one Pulumi program against an engine, as Pulumi's own host of Python programs does."""

from __future__ import annotations

import asyncio
import logging
import runpy
import sys
from pathlib import Path


def main(file: str, monitor: str, engine: str, project: str, stack: str, preview: str) -> None:
    import pulumi
    from pulumi.runtime import settings
    from pulumi.runtime.config import get_config_env, set_all_config
    from pulumi.runtime.config import get_config_secret_keys_env as secret_keys
    from pulumi.runtime.stack import run_in_stack

    set_all_config(get_config_env(), secret_keys())
    settings.reset_options(
        project=project,
        stack=stack,
        engine_address=engine,
        monitor_address=monitor,
        preview=preview == "preview",
        parallel=16,
        organization="organization",
    )
    # A program that failed leaves tasks behind, which is no news.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)

    # A program imports what lies beside it.
    sys.path.insert(0, str(Path(file).resolve().parent))

    def run() -> None:
        runpy.run_path(file, run_name="__main__")

    try:
        loop.run_until_complete(run_in_stack(run))
    except pulumi.RunError as error:
        sys.exit(f"program failed: {error}")


if __name__ == "__main__":
    main(*sys.argv[1:])
