#!/usr/bin/env python3
"""Make what osvdeploy expects to find on Google: a bucket, a URL map behind an address, and a firewall rule.

    eval "$(python balancer.py create --prefix HELLO)"  # makes them, and sets HELLO_URL_MAP and so on for osv.toml
    python balancer.py delete                           # takes them away again

All of it has one name (--name, default "osv"), but for the bucket, whose name must be nobody else's anywhere:
PROJECT-NAME-images. What is there already is left as it is. The project is that of GOOGLE_CLOUD_PROJECT. On Google a
forwarding rule costs money from the minute it is made.
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

COMPUTE = "https://compute.googleapis.com"
STORAGE = "https://storage.googleapis.com"
SCHEME = "EXTERNAL_MANAGED"

BALANCERS = ["130.211.0.0/22", "35.191.0.0/16"]
"""Where Google's balancers and health checks come from ("Firewall rules", Cloud Load Balancing)."""

MACHINES = "8080"
"""The port of the program on each machine."""

KINDS = ("forwardingRules", "targetHttpProxies", "urlMaps", "backendServices", "firewalls")
"""In the order in which they can be taken away."""


class Project:
    """The global resources of one project, and its buckets."""

    def __init__(self, name: str, compute: str, storage: str, session: requests.Session) -> None:
        self.name = name
        self.root = f"{compute.rstrip('/')}/compute/v1/projects/{name}/global"
        self.buckets = f"{storage.rstrip('/')}/storage/v1/b"
        self.session = session

    def ask(self, method: str, path: str, body: Any = None, *, fine: tuple[int, ...] = ()) -> dict[str, Any]:
        """As :meth:`send`, for a path below the global resources."""
        return self.send(method, f"{self.root}/{path}", body, fine=fine)

    def send(self, method: str, url: str, body: Any = None, *, fine: tuple[int, ...] = ()) -> dict[str, Any]:
        """The answer, when what was asked for is done; a status that is ``fine`` is no error."""
        answer = self.session.request(method, url, json=body, timeout=130)
        if answer.status_code in fine:
            return {}
        if not answer.ok:
            sys.exit(f"{method} {url}: {answer.text}")
        found: dict[str, Any] = answer.json() if answer.content else {}
        while found.get("kind") == "compute#operation" and found["status"] != "DONE":
            time.sleep(0.2)  # Google waits for us, up to two minutes; an emulator may not
            found = self.session.post(f"{self.root}/operations/{found['name']}/wait", timeout=130).json()
        if "error" in found:
            sys.exit(f"{method} {url}: {found['error']}")
        return found


def bucket_name(project: Project, name: str) -> str:
    # A project of a domain (example.com:web) has signs in its name that a bucket's must not have.
    return f"{project.name}-{name}-images".replace(":", "-").replace(".", "-")


def create(project: Project, name: str, port: int, location: str) -> dict[str, str]:
    """Make bucket and balancer; returns the variables that an osv.toml needs."""
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
    bucket = bucket_name(project, name)
    _make_bucket(project, bucket, location)
    for kind, body in wanted.items():
        project.ask("POST", kind, {"name": name, **body}, fine=(409,))
    rule = project.ask("GET", f"forwardingRules/{name}")
    port = int(rule["portRange"].partition("-")[0])
    url = f"http://{rule['IPAddress']}:{port}"
    return {"BUCKET": bucket, "URL_MAP": name, "NETWORK_TAG": name, "URL": url}


def _make_bucket(project: Project, bucket: str, location: str) -> None:
    body = {
        "name": bucket,
        "location": location,
        "iamConfiguration": {"uniformBucketLevelAccess": {"enabled": True}},
    }
    project.send("POST", f"{project.buckets}?project={project.name}", body, fine=(409,))
    # 409 is somebody else's bucket too: one that is ours can be read.
    project.send("GET", f"{project.buckets}/{bucket}")


def delete(project: Project, name: str) -> None:
    """Take the balancer away, in the order that Google asks for, and the bucket, which must be empty."""
    for kind in KINDS:
        project.ask("DELETE", f"{kind}/{name}", fine=(404,))
    project.send("DELETE", f"{project.buckets}/{bucket_name(project, name)}", fine=(404,))


def connect() -> Project:
    """As the environment says: with the user's own credentials to Google, with none to anywhere else."""
    name = os.environ.get("GOOGLE_CLOUD_PROJECT")
    compute = os.environ.get("OSVDEPLOY_GCP_COMPUTE_ENDPOINT", COMPUTE)
    storage = os.environ.get("STORAGE_EMULATOR_HOST", STORAGE)
    if not name:
        sys.exit("GOOGLE_CLOUD_PROJECT is not set: export GOOGLE_CLOUD_PROJECT=<your project>")
    if (compute, storage) == (COMPUTE, STORAGE):
        credentials, _ = google.auth.default(scopes=["https://www.googleapis.com/auth/cloud-platform"])
        return Project(name, compute, storage, AuthorizedSession(credentials))
    if compute == COMPUTE or storage == STORAGE:
        sys.exit("set both OSVDEPLOY_GCP_COMPUTE_ENDPOINT and STORAGE_EMULATOR_HOST, or neither")
    return Project(name, compute, storage, requests.Session())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["create", "delete"])
    parser.add_argument("--name", default="osv")
    parser.add_argument("--port", type=int, default=8080, help="the forwarding rule's port (default 8080)")
    parser.add_argument("--location", default="EU", help="the bucket's (default EU)")
    parser.add_argument("--prefix", default="OSV", help="what the variables' names begin with (default OSV)")
    arguments = parser.parse_args()
    project = connect()
    if arguments.action == "delete":
        delete(project, arguments.name)
        return 0
    for variable, value in create(project, arguments.name, arguments.port, arguments.location).items():
        print(f"export {arguments.prefix}_{variable}={value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
