"""The stand-in of `pulumi-resource-gcp`: the types of pulumi_gcp that `stacks/gcp` has, made by Google's own API.

Properties as pulumi_gcp 9 has them, which are those of the API by other names; what the real provider leaves out, this
one does: the descriptions of a URL map's route rules. Whoever starts it says where Google is: `computeCustomEndpoint`
and `storageCustomEndpoint`, or `GOOGLE_COMPUTE_CUSTOM_ENDPOINT` and `GOOGLE_STORAGE_CUSTOM_ENDPOINT`.
"""

from __future__ import annotations

import os
import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any, ClassVar

import requests

from osvdeploy.provider.values import Value
from tests.pulumi.standins.cloud import Call, Document, Refused, Resource, StandIn, fits, serve

COMPUTE, STORAGE = "https://compute.googleapis.com/compute/v1/", "https://storage.googleapis.com/storage/v1/"
_BEFORE_PATH = re.compile(r"https?://[^/]+/compute/v1/(?=projects/)")
_PATIENCE = 130


class Project:
    """A project and the region that is meant where none is said."""

    def __init__(
        self, name: str, region: str, compute: str, storage: str, session: requests.Session | None = None
    ) -> None:
        self.name, self.region = name, region
        self.compute, self.storage = compute, storage
        self._session = session or requests.Session()

    def ask(self, verb: str, url: str, body: Document | None = None) -> Document | None:
        """The answer, None where there is no such thing. Raises Refused."""
        answer = self._session.request(verb, url, json=_integers(body), timeout=_PATIENCE)
        if answer.status_code == 404:
            return None
        found: Document = answer.json() if answer.content else {}
        if not answer.ok:
            raise Refused(f"googleapi: Error {answer.status_code}: {found['error']['message']}")
        return found

    def changed(
        self, call: Call[Project], verb: str, url: str, body: Document | None = None, *, begun: str | None = None
    ) -> None:
        """The same, for what Google answers with an operation; until that is done. ``begun`` is the id of what is
        there from the answer on."""
        operation = self.ask(verb, url, body)
        if operation is None:
            if verb == "DELETE":
                return
            raise Refused(f"googleapi: Error 404: {url} was not found")
        if begun is not None:
            call.made(begun)
        link, said = operation["selfLink"], [operation]

        def done() -> bool:
            if said[-1]["status"] != "DONE":
                said.append(self.ask("GET", link) or {"status": "DONE"})
            return bool(said[-1]["status"] == "DONE")

        call.until(done, operation["operationType"])
        if "error" in said[-1]:
            raise Refused("; ".join(each["message"] for each in said[-1]["error"]["errors"]))


def _integers(value: Any) -> Any:
    """Numbers as JSON of Google's has them: what comes from the engine has a point in it."""
    if isinstance(value, Mapping):
        return {name: _integers(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_integers(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def connect(configured: Mapping[str, str]) -> Project:
    def setting(name: str, *variables: str) -> str | None:
        return next((text for text in (configured.get(name), *map(os.environ.get, variables)) if text), None)

    project, region = setting("project", "GOOGLE_PROJECT", "GOOGLE_CLOUD_PROJECT"), setting("region", "GOOGLE_REGION")
    compute = setting("computeCustomEndpoint", "GOOGLE_COMPUTE_CUSTOM_ENDPOINT")
    storage = setting("storageCustomEndpoint", "GOOGLE_STORAGE_CUSTOM_ENDPOINT")
    if project is None or region is None:
        raise Refused("no project or no region: `pulumi config set gcp:project` and `gcp:region`")
    if compute is None or storage is None:
        raise Refused("the stand-in asks no account: say where Google is simulated")
    return Project(project, region, compute, storage)


class ComputeResource(Resource[Project]):
    """Something of Compute Engine: its id is its path, its properties are the API's fields but for their names."""

    collection: ClassVar[str]
    renamed: ClassVar[Mapping[str, str]] = {}
    """Properties that the API calls otherwise."""
    longest_name = 63

    @abstractmethod
    def create(self, call: Call[Project], given: Document) -> str: ...

    def insert(self, call: Call[Project], place: str, body: Document) -> str:
        above = f"projects/{call.cloud.name}/{place}/{self.collection}"
        id = f"{above}/{body['name']}"
        call.cloud.changed(call, "POST", call.cloud.compute + above, body, begun=id)
        return id

    def written(self, given: Document) -> Document:
        """What a program says, as the API has it."""
        return {self.renamed.get(name, name): value for name, value in given.items() if name in self.inputs}

    def shown(self, found: Document) -> Document:
        """What the API tells, as the SDK has it."""
        names = {self.renamed.get(name, name): name for name in (*self.inputs, *self.outputs)}
        return {names[field]: value for field, value in found.items() if field in names}

    def read(self, call: Call[Project], id: str) -> Document | None:
        found = call.cloud.ask("GET", call.cloud.compute + id)
        if found is None:
            return None
        return {"project": id.split("/")[1], **self.shown(found)}

    def fits(self, name: str, wanted: Value, there: Value) -> bool:
        return fits(_paths(wanted), _paths(there))

    def delete(self, call: Call[Project], id: str, state: Document) -> None:
        call.cloud.changed(call, "DELETE", call.cloud.compute + id)


def _paths(value: Any) -> Any:
    """With links to resources as paths, which both say the same to Google."""
    if isinstance(value, str):
        return _BEFORE_PATH.sub("", value)
    if isinstance(value, Mapping):
        return {name: _paths(each) for name, each in value.items()}
    return [_paths(each) for each in value] if isinstance(value, list) else value


class GlobalResource(ComputeResource):
    def create(self, call: Call[Project], given: Document) -> str:
        return self.insert(call, "global", self.written(given))


class Network(GlobalResource):
    token = "gcp:compute/network:Network"
    collection = "networks"
    optional = ("autoCreateSubnetworks", "description", "name")
    replaces = ("autoCreateSubnetworks", "description", "name")
    outputs = ("mtu", "networkFirewallPolicyEnforcementOrder", "numericId", "project", "routingMode", "selfLink")

    def written(self, given: Document) -> Document:
        return {"autoCreateSubnetworks": True, **super().written(given)}

    def shown(self, found: Document) -> Document:
        mode = found["routingConfig"]["routingMode"]
        return {**super().shown(found), "numericId": found["id"], "routingMode": mode}


class Subnetwork(ComputeResource):
    token = "gcp:compute/subnetwork:Subnetwork"
    collection = "subnetworks"
    required = ("ipCidrRange", "network")
    optional = ("description", "name", "privateIpGoogleAccess", "region")
    replaces = ("description", "ipCidrRange", "name", "network", "region")
    outputs = (
        "creationTimestamp", "gatewayAddress", "privateIpGoogleAccess", "project", "purpose", "region", "selfLink",
        "stackType", "subnetworkId",
    )  # fmt: skip

    def create(self, call: Call[Project], given: Document) -> str:
        region = given.get("region") or call.cloud.region
        return self.insert(call, f"regions/{region}", {**self.written(given), "region": region})

    def shown(self, found: Document) -> Document:
        region = found["region"].rpartition("/")[2]
        return {**super().shown(found), "region": region, "subnetworkId": int(found["id"])}


class Firewall(GlobalResource):
    token = "gcp:compute/firewall:Firewall"
    collection = "firewalls"
    required = ("network",)
    optional = ("allows", "description", "name", "sourceRanges", "targetTags")
    renamed: ClassVar[Mapping[str, str]] = {"allows": "allowed"}
    replaces = ("name", "network")
    in_place = ("allows", "description", "sourceRanges", "targetTags")
    whole = ("allows", "description", "targetTags")
    outputs = ("creationTimestamp", "direction", "disabled", "priority", "project", "selfLink")

    def written(self, given: Document) -> Document:
        allowed = [{"IPProtocol": each["protocol"], "ports": each.get("ports") or []} for each in given["allows"]]
        return {**super().written(given), "allowed": allowed}

    def shown(self, found: Document) -> Document:
        allows = [{"protocol": each["IPProtocol"], "ports": each.get("ports", [])} for each in found["allowed"]]
        return {**super().shown(found), "allows": allows}

    def update(self, call: Call[Project], id: str, given: Document, state: Document) -> None:
        call.cloud.changed(call, "PATCH", call.cloud.compute + id, {"targetTags": [], **self.written(given)})


class GlobalAddress(GlobalResource):
    token = "gcp:compute/globalAddress:GlobalAddress"
    collection = "addresses"
    optional = ("description", "name")
    replaces = ("description", "name")
    outputs = ("address", "addressType", "creationTimestamp", "project", "selfLink")


class BackendService(GlobalResource):
    token = "gcp:compute/backendService:BackendService"
    collection = "backendServices"
    optional = ("description", "loadBalancingScheme", "name", "protocol")
    replaces = ("loadBalancingScheme", "name")
    in_place = ("description",)
    outputs = (
        "creationTimestamp", "fingerprint", "generatedId", "portName", "project", "selfLink", "sessionAffinity",
        "timeoutSec",
    )  # fmt: skip

    def shown(self, found: Document) -> Document:
        return {**super().shown(found), "generatedId": int(found["id"])}

    def update(self, call: Call[Project], id: str, given: Document, state: Document) -> None:
        body = {"fingerprint": state["fingerprint"], "description": given.get("description", "")}
        call.cloud.changed(call, "PATCH", call.cloud.compute + id, body)


class UrlMap(GlobalResource):
    """With all of its rules, whoever made them; but for the descriptions of route rules, which the real provider has
    no property for. It writes a map whole, as it last saw it, and Google takes that where nobody has changed it since.
    """

    token = "gcp:compute/uRLMap:URLMap"
    collection = "urlMaps"
    optional = ("defaultService", "defaultUrlRedirect", "description", "hostRules", "name", "pathMatchers")
    replaces = ("name",)
    in_place = ("defaultService", "defaultUrlRedirect", "description", "hostRules", "pathMatchers")
    whole = in_place
    outputs = ("creationTimestamp", "fingerprint", "mapId", "project", "selfLink")

    def shown(self, found: Document) -> Document:
        matchers = [{**each, **_without_descriptions(each)} for each in found.get("pathMatchers", [])]
        return {
            **super().shown(found),
            "mapId": int(found["id"]),
            "hostRules": found.get("hostRules", []),
            "pathMatchers": matchers,
        }

    def update(self, call: Call[Project], id: str, given: Document, state: Document) -> None:
        body = {**self.written(given), "fingerprint": state["fingerprint"]}
        call.cloud.changed(call, "PUT", call.cloud.compute + id, body)


def _without_descriptions(matcher: Document) -> Document:
    rules = matcher.get("routeRules", [])
    kept = [{name: value for name, value in rule.items() if name != "description"} for rule in rules]
    return {"routeRules": kept} if rules else {}


class TargetHttpProxy(GlobalResource):
    token = "gcp:compute/targetHttpProxy:TargetHttpProxy"
    collection = "targetHttpProxies"
    required = ("urlMap",)
    optional: ClassVar[Sequence[str]] = ("description", "name")
    replaces = ("description", "name")
    in_place: ClassVar[Sequence[str]] = ("urlMap",)
    outputs = ("creationTimestamp", "fingerprint", "project", "proxyId", "selfLink")

    def shown(self, found: Document) -> Document:
        return {**super().shown(found), "proxyId": int(found["id"])}

    def update(self, call: Call[Project], id: str, given: Document, state: Document) -> None:
        named = id.rpartition("/")[2]
        url = f"{call.cloud.compute}projects/{call.cloud.name}/targetHttpProxies/{named}/setUrlMap"
        call.cloud.changed(call, "POST", url, {"urlMap": given["urlMap"]})


class TargetHttpsProxy(TargetHttpProxy):
    """Seen in previews alone: simulated Google makes none."""

    token = "gcp:compute/targetHttpsProxy:TargetHttpsProxy"
    collection = "targetHttpsProxies"
    optional = ("description", "name", "sslCertificates")
    in_place = ()


class GlobalForwardingRule(GlobalResource):
    token = "gcp:compute/globalForwardingRule:GlobalForwardingRule"
    collection = "forwardingRules"
    required = ("target",)
    optional = ("description", "ipAddress", "loadBalancingScheme", "name", "portRange")
    renamed: ClassVar[Mapping[str, str]] = {"ipAddress": "IPAddress", "ipProtocol": "IPProtocol"}
    replaces = ("description", "ipAddress", "loadBalancingScheme", "name", "portRange")
    in_place = ("target",)
    outputs = (
        "forwardingRuleId", "ipAddress", "ipProtocol", "labelFingerprint", "networkTier", "project", "selfLink",
    )  # fmt: skip

    def shown(self, found: Document) -> Document:
        return {**super().shown(found), "forwardingRuleId": int(found["id"])}

    def fits(self, name: str, wanted: Value, there: Value) -> bool:
        # Google says a range of one port where one was said.
        return super().fits(name, wanted, there) or (name == "portRange" and f"{wanted}-{wanted}" == there)

    def update(self, call: Call[Project], id: str, given: Document, state: Document) -> None:
        call.cloud.changed(call, "POST", f"{call.cloud.compute}{id}/setTarget", {"target": given["target"]})


class Bucket(Resource[Project]):
    """A bucket of Cloud Storage; its id is its name."""

    token = "gcp:storage/bucket:Bucket"
    required = ("location",)
    optional = ("name", "softDeletePolicy", "uniformBucketLevelAccess")
    replaces = ("location", "name")
    outputs = ("project", "projectNumber", "selfLink", "storageClass", "timeCreated", "updated", "url")
    longest_name = 63

    def create(self, call: Call[Project], given: Document) -> str:
        soft = given.get("softDeletePolicy")
        body = {
            "name": given["name"],
            "location": given["location"],
            "iamConfiguration": {"uniformBucketLevelAccess": {"enabled": bool(given.get("uniformBucketLevelAccess"))}},
            **({"softDeletePolicy": {name: str(int(value)) for name, value in soft.items()}} if soft else {}),
        }
        call.cloud.ask("POST", f"{call.cloud.storage}b?project={call.cloud.name}", body)
        return str(given["name"])

    def read(self, call: Call[Project], id: str) -> Document | None:
        found = call.cloud.ask("GET", f"{call.cloud.storage}b/{id}")
        if found is None:
            return None
        kept = ("location", "name", "selfLink", "storageClass", "timeCreated", "updated")
        return {
            **{name: found[name] for name in kept},
            "project": call.cloud.name,
            "projectNumber": int(found["projectNumber"]),
            "softDeletePolicy": {
                "retentionDurationSeconds": int(found["softDeletePolicy"]["retentionDurationSeconds"])
            },
            "uniformBucketLevelAccess": found["iamConfiguration"]["uniformBucketLevelAccess"]["enabled"],
            "url": f"gs://{id}",
        }

    def fits(self, name: str, wanted: Value, there: Value) -> bool:
        if name == "location":
            return str(wanted).upper() == there
        return super().fits(name, wanted, there)

    def delete(self, call: Call[Project], id: str, state: Document) -> None:
        call.cloud.ask("DELETE", f"{call.cloud.storage}b/{id}")


def stand_in() -> StandIn[Project]:
    return StandIn(
        "gcp",
        version("pulumi_gcp"),
        connect,
        [
            BackendService(),
            Bucket(),
            Firewall(),
            GlobalAddress(),
            GlobalForwardingRule(),
            Network(),
            Subnetwork(),
            TargetHttpProxy(),
            TargetHttpsProxy(),
            UrlMap(),
        ],
        configuration=["computeCustomEndpoint", "project", "region", "storageCustomEndpoint"],
        refusals=lambda: (requests.RequestException,),
    )


if __name__ == "__main__":
    serve(stand_in())
