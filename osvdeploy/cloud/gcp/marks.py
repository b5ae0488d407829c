"""Our tags on what has no labels at Google: a JSON object in its description.

Instance templates, groups, backend services, health checks and the parts of a URL map have none. A route rule's
description takes 1,024 characters, so a rule carries no more than whose it is.

Source: Compute Engine API reference, ``description`` of each of these.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from osvdeploy.cloud.interfaces import Tags
from osvdeploy.cloud.tags import SCHEMA, SERVICE, SLOT, is_ours
from osvdeploy.errors import NotOurs

PORT = "osvdeploy:port"
"""Of a backend service: the port that its machines are asked at. A group learns it from there."""

EPOCH = "osvdeploy:epoch"
"""Of a route rule: the epoch of the lease whose holder wrote it last."""

_SHORT = (SCHEMA, SERVICE, SLOT)


def written(tags: Tags) -> str:
    """The description that carries these tags."""
    return json.dumps(dict(tags), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def short(tags: Tags) -> dict[str, str]:
    """Of a service's tags, those that say whose something is."""
    return {key: value for key, value in tags.items() if key in _SHORT}


def marks_of(found: Mapping[str, Any]) -> dict[str, str]:
    """The tags in a resource's description, none where it holds something else."""
    try:
        told = json.loads(found.get("description") or "{}")
    except ValueError:
        return {}
    if not isinstance(told, dict):
        return {}
    return {str(key): value for key, value in told.items() if isinstance(value, str)}


def require_ours(found: Mapping[str, Any], what: str, *, service: str | None = None, hint: str) -> dict[str, str]:
    """The tags of what must be ours, and the service's where one is named. Raises :class:`NotOurs`."""
    tags = marks_of(found)
    if not is_ours(tags):
        raise NotOurs(f"{what}: something else made it", hint=hint)
    if service is not None and tags.get(SERVICE) != service:
        raise NotOurs(f"{what}: belongs to {tags.get(SERVICE)}, not to {service}", hint=hint)
    return tags
