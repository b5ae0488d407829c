"""Where things of Compute Engine's are: in a zone, in a region, or in all of them; and what their addresses tell.

Source: Compute Engine guide, "Global, regional, and zonal resources"; API reference, the paths of each resource.
"""

from __future__ import annotations

import re

from osvdeploy.cloud.gcp.session import Document, Gcp
from osvdeploy.errors import UsageError

ZONE = r"[a-z]+-[a-z]+[0-9]+-[a-z]"
REGION = r"[a-z]+-[a-z]+[0-9]+"
NAME = r"[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?"
PROJECT = r"(?:[a-z0-9.-]+:)?[a-z0-9-]+"

_FORWARDING_RULE = re.compile(
    rf"(?P<scope>projects/{PROJECT}/(?:global|regions/{REGION}))/forwardingRules/(?P<name>{NAME})"
)
_URL_MAP = re.compile(rf"(?P<scope>projects/{PROJECT}/(?:global|regions/{REGION}))/urlMaps/(?P<name>{NAME})")


def area_of(place: str) -> str:
    """The part of a path that stands for a zone or region: ``zones/europe-west1-b``."""
    return f"zones/{place}" if re.fullmatch(ZONE, place) else f"regions/{place}"


def scopes_of(project: str, place: str) -> tuple[str, str]:
    """Where ways in are that lead to machines of a zone or region: everywhere, and in its region."""
    area = area_of(place)
    region = area.rpartition("/")[2]
    region = region.rpartition("-")[0] if area.startswith("zones/") else region
    return f"projects/{project}/global", f"projects/{project}/regions/{region}"


def link_of(url: str) -> str:
    """An address without its host and version: ``projects/P/zones/Z/instances/N``. Those in answers are whole."""
    return url[url.index("projects/") :] if "projects/" in url else url


def last(url: str) -> str:
    """The name at an address's end."""
    return url.rpartition("/")[2]


def machine_of(url: str) -> str:
    """What a machine is called by us: ``zones/Z/instances/N``, for it has its name in its zone alone."""
    return "/".join(url.split("/")[-4:])


def address_of(gcp: Gcp, link: str) -> str:
    """The address of a link, at the endpoint that is set."""
    return f"{gcp.compute}/compute/v1/{link}"


def url_map_of(listener: str) -> tuple[str, str]:
    """Where a URL map is (``projects/P/global``, or a region there), and its name.

    Raises :class:`~osvdeploy.errors.UsageError` for what no call has to be made for.
    """
    found = _URL_MAP.fullmatch(listener)
    if found is None:
        raise UsageError(
            f"{listener!r} is no URL map",
            hint="projects/PROJECT/global/urlMaps/NAME, or projects/PROJECT/regions/REGION/urlMaps/NAME; "
            "`gcloud compute url-maps list` lists those that there are",
        )
    return found["scope"], found["name"]


def forwarding_rule_of(listener: str) -> tuple[str, str] | None:
    """Where a forwarding rule is, and its name; None for what is none."""
    found = _FORWARDING_RULE.fullmatch(listener)
    return None if found is None else (found["scope"], found["name"])


def port_of(rule: Document) -> int:
    """The first port of a forwarding rule's."""
    return int(str(rule.get("portRange") or "80").partition("-")[0])


def base_url(scheme: str, address: str, port: int) -> str:
    """Where a client enters that has an address and a port."""
    host = f"[{address}]" if ":" in address else address
    return f"{scheme}://{host}:{port}"
