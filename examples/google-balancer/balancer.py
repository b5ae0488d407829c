#!/usr/bin/env python3
"""Make what osvdeploy expects to find on Google: a URL map behind an address, and a firewall rule for its balancer.

    eval "$(python balancer.py create --prefix HELLO)"  # makes them, and sets HELLO_URL_MAP and so on for osv.toml
    python balancer.py delete                           # takes them away again

All of it has one name (--name, default "osv"); what is there already is left as it is. The project is that of
GOOGLE_CLOUD_PROJECT. On Google a forwarding rule costs money from the minute it is made.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from typing import Any

import google.auth
import requests
from google.auth.transport.requests import AuthorizedSession

GOOGLE = "https://compute.googleapis.com"
SCHEME = "EXTERNAL_MANAGED"

BALANCERS = ["130.211.0.0/22", "35.191.0.0/16"]
"""Where Google's balancers and health checks come from ("Firewall rules", Cloud Load Balancing)."""

MACHINES = "8080"
"""The port of the program on each machine."""

KINDS = ("forwardingRules", "targetHttpProxies", "urlMaps", "backendServices", "firewalls")
"""In the order in which they can be taken away."""


class Compute:
    """The global resources of one project."""

    def __init__(self, project: str, endpoint: str, session: requests.Session) -> None:
        self.root = f"{endpoint.rstrip('/')}/compute/v1/projects/{project}/global"
        self.session = session

    def ask(self, method: str, path: str, body: Any = None, *, fine: tuple[int, ...] = ()) -> dict[str, Any]:
        """The answer, when what was asked for is done; a status that is ``fine`` is no error."""
        answer = self.session.request(method, f"{self.root}/{path}", json=body, timeout=130)
        if answer.status_code in fine:
            return {}
        if not answer.ok:
            sys.exit(f"{method} {path}: {answer.text}")
        found: dict[str, Any] = answer.json()
        while found.get("kind") == "compute#operation" and found["status"] != "DONE":
            time.sleep(0.2)  # Google waits for us, up to two minutes; an emulator may not
            found = self.session.post(f"{self.root}/operations/{found['name']}/wait", timeout=130).json()
        if "error" in found:
            sys.exit(f"{method} {path}: {found['error']}")
        return found


def create(compute: Compute, name: str, port: int) -> dict[str, str]:
    """Make the balancer; returns the variables that an osv.toml needs."""
    wanted: dict[str, dict[str, Any]] = {
        "firewalls": {
            "network": "global/networks/default",
            "sourceRanges": BALANCERS,
            "targetTags": [name],
            "allowed": [{"IPProtocol": "tcp", "ports": [MACHINES]}],
        },
        # Nothing is behind it: whoever asks for what no service serves gets a 503.
        "backendServices": {"loadBalancingScheme": SCHEME, "protocol": "HTTP"},
        "urlMaps": {"defaultService": f"global/backendServices/{name}"},
        "targetHttpProxies": {"urlMap": f"global/urlMaps/{name}"},
        "forwardingRules": {
            "loadBalancingScheme": SCHEME,
            "target": f"global/targetHttpProxies/{name}",
            "portRange": str(port),
        },
    }
    for kind, body in wanted.items():
        compute.ask("POST", kind, {"name": name, **body}, fine=(409,))
    rule = compute.ask("GET", f"forwardingRules/{name}")
    port = int(rule["portRange"].partition("-")[0])
    return {"URL_MAP": name, "NETWORK_TAG": name, "URL": f"http://{rule['IPAddress']}:{port}"}


def delete(compute: Compute, name: str) -> None:
    """Take the balancer away, in the order that Google asks for."""
    for kind in KINDS:
        compute.ask("DELETE", f"{kind}/{name}", fine=(404,))


def connect() -> Compute:
    """As the environment says: with the user's own credentials to Google, with none to anywhere else."""
    project, endpoint = os.environ.get("GOOGLE_CLOUD_PROJECT"), os.environ.get("OSVDEPLOY_GCP_COMPUTE_ENDPOINT", GOOGLE)
    if not project:
        sys.exit("GOOGLE_CLOUD_PROJECT is not set: export GOOGLE_CLOUD_PROJECT=<your project>")
    if endpoint != GOOGLE:
        return Compute(project, endpoint, requests.Session())
    credentials, _ = google.auth.default(scopes=["https://www.googleapis.com/auth/compute"])
    return Compute(project, endpoint, AuthorizedSession(credentials))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["create", "delete"])
    parser.add_argument("--name", default="osv")
    parser.add_argument("--port", type=int, default=8080, help="the forwarding rule's port (default 8080)")
    parser.add_argument("--prefix", default="OSV", help="what the variables' names begin with (default OSV)")
    arguments = parser.parse_args()
    compute = connect()
    if arguments.action == "delete":
        delete(compute, arguments.name)
        return 0
    for variable, value in create(compute, arguments.name, arguments.port).items():
        print(f"export {arguments.prefix}_{variable}={value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
