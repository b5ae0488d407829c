"""Compute Engine: images, machines in managed groups, balancers of HTTP and TCP; the operations that change them.

Sources: Compute Engine API reference (each method; ``requestId``), "Manually import boot disks" (the archive),
"Create, delete, and deprecate custom images" and "Image families best practices", "Organize resources using labels",
"Handling API responses" (operations). In which words an import fails is not documented; those here are what users
report. Machines and groups have their sources in their own modules.

Not documented, and decided here against the caller: an image is in its family from the moment it is asked for; what is
not ready can be neither changed nor deleted; an import that fails leaves no image; ``rawDisk.source`` is not shown
again; a ``requestId`` is remembered for an hour, and is refused for a request other than its first.

Not simulated, and refused as such: images of disks, snapshots and other images, encryption, access policies, licences,
regular expressions in filters, machines that no group makes, and everything else that Compute Engine has.

Documents, all in no region:

``compute.image``
    By project and name: ``resource`` as answers show it but for its link, ``blocks`` (of 512 KiB, by index: sha256 of a
    blob), ``source`` while it is made.
``compute.operation``
    By project and name: ``resource``, likewise, and ``place``.
``compute.request``
    By project and ``requestId``: the ``operation``, when it was asked for, and what.
``compute.KIND``
    All others, by path: see :mod:`.resources`.
``compute.boot-disk``
    By an instance's path: what its disk was made of.
``compute.member``
    By a group's path and a name: a machine that a group has, or is about to have.
``compute.probe``
    By the paths of a backend service and an instance: its health, as the checks found it.
``compute.in-force``
    By a forwarding rule's path: the URL map, or the service, and the services by which requests go now.
"""

from collections.abc import Mapping

from osvdeploy.sandbox.google.compute import (
    autoscalers,
    backends,
    firewalls,
    fronts,
    geography,
    groups,
    health_checks,
    images,
    instances,
    machine_types,
    managing,
    networks,
    operations,
    resources,
    templates,
    url_maps,
)
from osvdeploy.sandbox.google.compute.instances import look, resume
from osvdeploy.sandbox.google.compute.plane import view
from osvdeploy.sandbox.google.compute.resources import (
    ADDRESS,
    AUTOSCALER,
    FIREWALL,
    GROUP,
    HEALTH_CHECK,
    INSTANCE,
    MANAGER,
    NETWORK,
    PROXY,
    RULE,
    SERVICE,
    SUBNETWORK,
    TCP_PROXY,
    TEMPLATE,
    TLS_PROXY,
    URL_MAP,
    Kind,
    Show,
)
from osvdeploy.sandbox.services.scope import EventHandler, Operation

__all__ = ["EVENTS", "OPERATIONS", "PARAMETERS", "look", "resume", "view"]

_ALWAYS = "$base project"
_LIST = "filter maxResults orderBy pageToken"


def _body(names: str) -> str:
    return " ".join(f"body.{name}" for name in names.split())


def _read(kind: Kind, show: Show = resources.plain) -> Mapping[str, tuple[Operation, str]]:
    """How resources of a kind are looked at."""
    return {"get": (resources.getter(kind, show), kind.singular), "list": (resources.lister(kind, show), _LIST)}


_POLICY = "updatePolicy"
_GROUP_BODY = (
    "name description baseInstanceName targetSize instanceTemplate versions.instanceTemplate versions.name "
    f"versions.targetSize.fixed versions.targetSize.percent {_POLICY}.type {_POLICY}.minimalAction "
    f"{_POLICY}.mostDisruptiveAllowedAction {_POLICY}.replacementMethod {_POLICY}.maxSurge {_POLICY}.maxUnavailable "
    f"{_POLICY}.instanceRedistributionType"
)

_TEMPLATES: Mapping[str, tuple[Operation, str]] = {
    **_read(TEMPLATE),
    "insert": (templates.insert, f"requestId {_body(templates.BODY)}"),
    "delete": (resources.deleter(TEMPLATE, templates.refuse_deletion), "instanceTemplate requestId"),
}

_MACHINES: Mapping[str, tuple[Operation, str]] = {
    **_read(INSTANCE),
    "delete": (instances.delete, "instance requestId"),
    "getSerialPortOutput": (instances.serial_port_output, "instance port start"),
    "setLabels": (instances.set_labels, "instance requestId " + _body("labels labelFingerprint")),
    "setMetadata": (
        instances.set_metadata,
        "instance requestId " + _body("fingerprint kind items.key items.value"),
    ),
}

_MANAGED = "instanceGroupManager requestId body.instances"

_MANAGERS: Mapping[str, tuple[Operation, str]] = {
    **_read(MANAGER, groups.shown),
    "insert": (
        groups.insert,
        "requestId "
        + _body(f"{_GROUP_BODY} namedPorts.name namedPorts.port distributionPolicy.zones.zone")
        + " body.distributionPolicy.targetShape",
    ),
    "patch": (groups.patch, "instanceGroupManager requestId " + _body(f"{_GROUP_BODY} fingerprint")),
    "resize": (groups.resize, "instanceGroupManager requestId size"),
    "delete": (groups.delete, "instanceGroupManager requestId"),
    "setInstanceTemplate": (groups.set_template, "instanceGroupManager requestId body.instanceTemplate"),
    "listManagedInstances": (groups.list_managed, f"instanceGroupManager {_LIST}"),
    "listErrors": (groups.list_errors, f"instanceGroupManager {_LIST}"),
    "recreateInstances": (groups.recreate_instances, _MANAGED),
    "deleteInstances": (groups.delete_instances, _MANAGED),
    "abandonInstances": (groups.abandon_instances, _MANAGED),
}

_GROUPS: Mapping[str, tuple[Operation, str]] = {
    **_read(GROUP, groups.group_shown),
    "listInstances": (groups.list_group_instances, f"instanceGroup body.instanceState {_LIST}"),
    "setNamedPorts": (
        groups.set_named_ports,
        "instanceGroup requestId " + _body("fingerprint namedPorts.name namedPorts.port"),
    ),
}

_AUTOSCALERS: Mapping[str, tuple[Operation, str]] = {
    **_read(AUTOSCALER, autoscalers.shown),
    "insert": (autoscalers.insert, f"requestId {_body(autoscalers.BODY)}"),
    "patch": (autoscalers.patch, f"autoscaler requestId {_body(autoscalers.BODY)}"),
    "update": (autoscalers.update, f"autoscaler requestId {_body(autoscalers.BODY)}"),
    "delete": (resources.deleter(AUTOSCALER, autoscalers.refuse_deletion), "autoscaler requestId"),
}

_HEALTH_CHECKS: Mapping[str, tuple[Operation, str]] = {
    **_read(HEALTH_CHECK),
    "insert": (health_checks.insert, f"requestId {_body(health_checks.BODY)}"),
    "patch": (health_checks.patch, f"healthCheck requestId {_body(health_checks.BODY)}"),
    "update": (health_checks.update, f"healthCheck requestId {_body(health_checks.BODY)}"),
    "delete": (resources.deleter(HEALTH_CHECK, health_checks.refuse_deletion), "healthCheck requestId"),
}

_SERVICES: Mapping[str, tuple[Operation, str]] = {
    **_read(SERVICE, backends.shown),
    "insert": (backends.insert, f"requestId {_body(backends.BODY)}"),
    "patch": (backends.patch, f"backendService requestId {_body(backends.BODY)}"),
    "update": (backends.update, f"backendService requestId {_body(backends.BODY)}"),
    "delete": (resources.deleter(SERVICE, backends.refuse_deletion), "backendService requestId"),
    "getHealth": (backends.get_health, "backendService body.group"),
}

_URL_MAPS: Mapping[str, tuple[Operation, str]] = {
    **_read(URL_MAP, url_maps.shown),
    "insert": (url_maps.insert, f"requestId {_body(url_maps.BODY)}"),
    "patch": (url_maps.patch, f"urlMap requestId {_body(url_maps.BODY)}"),
    "update": (url_maps.update, f"urlMap requestId {_body(url_maps.BODY)}"),
    "delete": (resources.deleter(URL_MAP, url_maps.refuse_deletion), "urlMap requestId"),
    "validate": (
        url_maps.validate,
        "urlMap " + " ".join(f"body.resource.{name}" for name in url_maps.BODY.split()),
    ),
}

_PROXIES: Mapping[str, tuple[Operation, str]] = {
    **_read(PROXY, fronts.proxy_shown),
    "insert": (fronts.insert_proxy, f"requestId {_body('name description urlMap')}"),
    "delete": (resources.deleter(PROXY, fronts.refuse_proxy_deletion), "targetHttpProxy requestId"),
    "setUrlMap": (fronts.set_url_map, "targetHttpProxy requestId body.urlMap"),
}

_REGION_TCP_PROXIES: Mapping[str, tuple[Operation, str]] = {
    **_read(TCP_PROXY),
    "insert": (fronts.insert_tcp_proxy, f"requestId {_body('name description service proxyHeader')}"),
    "delete": (resources.deleter(TCP_PROXY, fronts.refuse_tcp_proxy_deletion), "targetTcpProxy requestId"),
}
"""One of a region leads to the service that it was made with, for good."""

_RULES: Mapping[str, tuple[Operation, str]] = {
    **_read(RULE),
    "insert": (fronts.insert_rule, f"requestId {_body(fronts.RULE_BODY)}"),
    "delete": (resources.deleter(RULE, fronts.let_go), "forwardingRule requestId"),
    "setLabels": (fronts.set_labels, f"resource requestId {_body('labels labelFingerprint')}"),
    "setTarget": (fronts.set_target, "forwardingRule requestId body.target"),
}

_FIREWALLS: Mapping[str, tuple[Operation, str]] = {
    **_read(FIREWALL),
    "insert": (firewalls.insert, f"requestId {_body(firewalls.BODY)}"),
    "patch": (firewalls.patch, f"firewall requestId {_body(firewalls.BODY)}"),
    "update": (firewalls.update, f"firewall requestId {_body(firewalls.BODY)}"),
    "delete": (resources.deleter(FIREWALL, firewalls.refuse_deletion), "firewall requestId"),
}

_NETWORKS: Mapping[str, tuple[Operation, str]] = {
    **_read(NETWORK, networks.network_shown),
    "get": (networks.get_network, "network"),
    "insert": (networks.insert_network, f"requestId {_body(networks.NETWORK_BODY)}"),
    "delete": (resources.deleter(NETWORK, networks.refuse_network_deletion), "network requestId"),
}

_SUBNETWORKS: Mapping[str, tuple[Operation, str]] = {
    **_read(SUBNETWORK),
    "insert": (networks.insert_subnetwork, f"requestId {_body(networks.SUBNETWORK_BODY)}"),
    "delete": (resources.deleter(SUBNETWORK, networks.refuse_subnetwork_deletion), "subnetwork requestId"),
}

_ADDRESSES: Mapping[str, tuple[Operation, str]] = {
    **_read(ADDRESS, networks.address_shown),
    "insert": (networks.insert_address, f"requestId {_body(networks.ADDRESS_BODY)}"),
    "delete": (resources.deleter(ADDRESS, networks.refuse_address_deletion), "address requestId"),
}

_OPERATIONS: Mapping[str, tuple[Operation, str]] = {
    "get": (operations.get, "operation"),
    "list": (operations.list_all, _LIST),
    "wait": (operations.get, "operation"),
}

_COLLECTIONS: Mapping[str, Mapping[str, tuple[Operation, str]]] = {
    "autoscalers": _AUTOSCALERS,
    "backendServices": _SERVICES,
    "firewalls": _FIREWALLS,
    "forwardingRules": _RULES,
    "globalAddresses": _ADDRESSES,
    "globalForwardingRules": _RULES,
    "globalOperations": _OPERATIONS,
    "healthChecks": _HEALTH_CHECKS,
    "instanceGroupManagers": _MANAGERS,
    "instanceGroups": _GROUPS,
    "instanceTemplates": _TEMPLATES,
    "instances": _MACHINES,
    "networks": _NETWORKS,
    "regionAutoscalers": _AUTOSCALERS,
    "regionBackendServices": _SERVICES,
    "regionHealthChecks": _HEALTH_CHECKS,
    "regionInstanceGroupManagers": _MANAGERS,
    "regionInstanceGroups": _GROUPS,
    "regionInstanceTemplates": _TEMPLATES,
    "regionOperations": _OPERATIONS,
    "regionTargetHttpProxies": _PROXIES,
    "regionTargetHttpsProxies": {"list": _read(TLS_PROXY)["list"]},
    "regionTargetTcpProxies": _REGION_TCP_PROXIES,
    "regionUrlMaps": _URL_MAPS,
    "regions": {"get": (geography.get_region, "region"), "list": (geography.list_regions, _LIST)},
    "subnetworks": _SUBNETWORKS,
    "targetHttpProxies": {
        **_PROXIES,
        "patch": (fronts.patch_proxy, f"targetHttpProxy requestId {_body('fingerprint urlMap')}"),
    },
    "targetHttpsProxies": {"list": _read(TLS_PROXY)["list"]},
    "targetTcpProxies": {
        **_REGION_TCP_PROXIES,
        "setBackendService": (fronts.set_backend_service, f"targetTcpProxy requestId {_body('service')}"),
    },
    "urlMaps": _URL_MAPS,
    "zoneOperations": _OPERATIONS,
    "zones": {"get": (geography.get_zone, "zone"), "list": (geography.list_zones, _LIST)},
}
"""Methods by the collection's name and their own. A resource of a zone or region is spoken to as a global one is."""

_SIMULATED: Mapping[str, tuple[Operation, str]] = {
    **{
        f"{collection}.{name}": (operation, f"zone region {known}")
        for collection, methods in _COLLECTIONS.items()
        for name, (operation, known) in methods.items()
    },
    "instanceGroupManagers.aggregatedList": (
        resources.aggregator(MANAGER, groups.shown),
        "maxResults pageToken",
    ),
    "instanceTemplates.aggregatedList": (resources.aggregator(TEMPLATE), "maxResults pageToken"),
    "images.delete": (images.delete, "image requestId"),
    "images.deprecate": (
        images.deprecate,
        f"image requestId {_body('state replacement deprecated obsolete deleted')}",
    ),
    "images.get": (images.get, "image"),
    "images.getFromFamily": (images.get_from_family, "family"),
    "images.insert": (
        images.insert,
        "requestId body.rawDisk.source body.rawDisk.containerType "
        + _body("name description family labels architecture guestOsFeatures storageLocations sourceType diskSizeGb"),
    ),
    "images.list": (images.list_all, _LIST),
    "images.patch": (images.patch, f"image requestId {_body('description family')}"),
    "images.setLabels": (images.set_labels, f"resource {_body('labels labelFingerprint')}"),
    "machineTypes.get": (machine_types.get, "zone machineType"),
    "machineTypes.list": (machine_types.list_all, f"zone {_LIST}"),
}


OPERATIONS: Mapping[str, Operation] = {name: operation for name, (operation, _) in _SIMULATED.items()}

PARAMETERS: Mapping[str, str] = {name: f"{_ALWAYS} {known}" for name, (_, known) in _SIMULATED.items()}

EVENTS: Mapping[str, EventHandler] = {
    backends.ROUND: backends.check_round,
    fronts.REACHES: fronts.reached,
    images.READ: images.read,
    instances.GONE: instances.gone,
    instances.LOOK: instances.look_due,
    instances.STEP: instances.step,
    managing.LOOK: managing.look,
    operations.ENDS: images.end,
    resources.CHANGED: resources.change_done,
}
