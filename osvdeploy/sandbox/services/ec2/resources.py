"""What all of EC2's resources share: ids, refusals, tags, client tokens, filters and pages.

A resource is a document whose names in the API's spelling are shown; ``tags`` ({key: value}) and every other name in
lower case are the sandbox's own. The store's kind of a resource is the API's resource type (``launch-template``).

Sources: EC2 API reference, "Error codes for the Amazon EC2 API", "Ensuring idempotency", "List and filter using the
CLI and API", "Tag restrictions".
"""

from __future__ import annotations

import base64
import binascii
import functools
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from osvdeploy.sandbox.errors import ApiError, NotSimulated
from osvdeploy.sandbox.services.scope import Doc, Scope

Wire = Mapping[str, Any]

TAGS_PER_RESOURCE = 50
FILTER_VALUES = 200
TOKEN_LENGTH = 64

_TIMES = frozenset({"AttachTime", "CompletionTime", "CreateTime", "LaunchTime", "StartTime"})


@dataclass(frozen=True, slots=True)
class Kind:
    """A type of resource. ``missing`` is the message for an id that does not exist."""

    name: str
    key: str
    prefix: str
    not_found: str
    malformed: str
    missing: str

    def new_id(self, scope: Scope) -> str:
        return f"{self.prefix}-{scope.new_id(17)}"

    def check(self, given: str) -> None:
        """Raises ApiError for what cannot be an id of this kind."""
        if re.fullmatch(rf"{self.prefix}-([0-9a-f]{{8}}|[0-9a-f]{{17}})", given) is None:
            raise ApiError(self.malformed, f'Invalid id: "{given}" (expecting "{self.prefix}-...")')

    def absent(self, given: str) -> ApiError:
        return ApiError(self.not_found, self.missing.format(given))

    def find(self, scope: Scope, given: str) -> Doc:
        """The document of that id. Raises ApiError as AWS does."""
        found = scope.get(self.name, given)
        if found is None:
            self.check(given)
            raise self.absent(given)
        return found

    def keep(self, scope: Scope, document: Doc) -> None:
        scope.put(self.name, document[self.key], document)

    def drop(self, scope: Scope, document: Doc) -> None:
        scope.delete(self.name, document[self.key])


def _kind(name: str, key: str, prefix: str, code: str, noun: str) -> Kind:
    return Kind(name, key, prefix, f"{code}.NotFound", f"{code}.Malformed", f"The {noun} '{{}}' does not exist")


VPC = _kind("vpc", "VpcId", "vpc", "InvalidVpcID", "vpc ID")
SUBNET = _kind("subnet", "SubnetId", "subnet", "InvalidSubnetID", "subnet ID")
GATEWAY = _kind("internet-gateway", "InternetGatewayId", "igw", "InvalidInternetGatewayID", "internetGateway ID")
ROUTES = _kind("route-table", "RouteTableId", "rtb", "InvalidRouteTableID", "routeTable ID")
SECURITY_GROUP = Kind(
    "security-group",
    "GroupId",
    "sg",
    "InvalidGroup.NotFound",
    "InvalidGroupId.Malformed",
    "The security group '{}' does not exist",
)
IMAGE = Kind(
    "image",
    "ImageId",
    "ami",
    "InvalidAMIID.NotFound",
    "InvalidAMIID.Malformed",
    "The image id '[{}]' does not exist",
)
SNAPSHOT = Kind(
    "snapshot",
    "SnapshotId",
    "snap",
    "InvalidSnapshot.NotFound",
    "InvalidSnapshotID.Malformed",
    "The snapshot '{}' does not exist.",
)
INSTANCE = _kind("instance", "InstanceId", "i", "InvalidInstanceID", "instance ID")
VOLUME = Kind(
    "volume",
    "VolumeId",
    "vol",
    "InvalidVolume.NotFound",
    "InvalidVolumeID.Malformed",
    "The volume '{}' does not exist.",
)
TEMPLATE = Kind(
    "launch-template",
    "LaunchTemplateId",
    "lt",
    "InvalidLaunchTemplateId.NotFound",
    "InvalidLaunchTemplateId.Malformed",
    "The specified launch template, with template ID {}, does not exist.",
)
IMPORT = Kind(
    "import-snapshot-task",
    "ImportTaskId",
    "import-snap",
    "InvalidConversionTaskId",
    "InvalidConversionTaskId.Malformed",
    "The import task ID '{}' does not exist",
)
KINDS = (VPC, SUBNET, GATEWAY, ROUTES, SECURITY_GROUP, IMAGE, SNAPSHOT, INSTANCE, VOLUME, TEMPLATE, IMPORT)
"""Everything that can be tagged."""


# ------------------------------------------------------------------------------------------------------- refusals


def invalid(message: str) -> ApiError:
    return ApiError("InvalidParameterValue", message)


def missing(name: str) -> ApiError:
    return ApiError("MissingParameter", f"The request must contain the parameter {name}")


def required(params: Wire, name: str) -> Any:
    """A parameter's value. Raises ApiError where it is left out or empty."""
    value = params.get(name)
    if value is None or value in ("", [], {}):
        raise missing(name)
    return value


def only(given: Wire, names: str, place: str) -> None:
    """Refuse what a structure says beyond ``names`` (separated by white space): it would be ignored."""
    unknown = sorted(set(given) - set(names.split()))
    if unknown:
        raise NotSimulated(f"{place}.{unknown[0]}")


# ----------------------------------------------------------------------------------------------------------- tags


def checked_tags(tags: Iterable[Wire]) -> dict[str, str]:
    """Tags of a request. Raises ApiError for keys and values that AWS refuses."""
    checked: dict[str, str] = {}
    for tag in tags:
        key, value = tag.get("Key"), tag.get("Value") or ""
        if not key:
            raise missing("Tag.Key")
        if key.lower().startswith("aws:"):
            raise invalid(
                f"Value ( {key} ) for parameter key is invalid. Tag keys starting with 'aws:' are reserved for "
                "internal use"
            )
        if len(key) > 128:
            raise invalid(
                "Tag key exceeds the maximum length of 128 characters",
            )
        if len(value) > 256:
            raise invalid("Tag value exceeds the maximum length of 256 characters")
        if key in checked:
            raise invalid(f"Duplicate tag key '{key}' specified.")
        checked[key] = value
    check_tag_count(checked)
    return checked


def check_tag_count(tags: Mapping[str, str]) -> None:
    if sum(not key.startswith("aws:") for key in tags) > TAGS_PER_RESOURCE:
        raise ApiError(
            "TagLimitExceeded",
            f"The maximum number of tags for this resource type has been reached: {TAGS_PER_RESOURCE}",
        )


def specified_tags(specifications: Sequence[Wire] | None, *kinds: str) -> dict[str, dict[str, str]]:
    """``TagSpecifications`` by resource type, of which the operation makes ``kinds``."""
    found: dict[str, dict[str, str]] = {kind: {} for kind in kinds}
    for specification in specifications or []:
        kind = required(specification, "ResourceType")
        if kind not in kinds:
            raise invalid(f"'{kind}' is not a valid taggable resource type for this operation.")
        if found[kind]:
            raise invalid(f"Only one TagSpecification can be specified for the resource type '{kind}'.")
        found[kind] = checked_tags(specification.get("Tags") or [])
    return found


def shown(document: Doc) -> Doc:
    """A document as the API shows it: without what is the sandbox's own, times as times, tags as a list."""
    answer = {key: _timed(key, value) for key, value in document.items() if key[0].isupper()}
    if document.get("tags"):
        answer["Tags"] = [{"Key": key, "Value": value} for key, value in document["tags"].items()]
    return answer


def _timed(key: str, value: Any) -> Any:
    if key in _TIMES and isinstance(value, str):
        return datetime.fromisoformat(value)
    if isinstance(value, dict):
        return {name: _timed(name, part) for name, part in value.items()}
    if isinstance(value, list):
        return [_timed(key, part) for part in value]
    return value


# ------------------------------------------------------------------------------------------------- client tokens


def repeated(scope: Scope, operation: str, params: Wire) -> Doc | None:
    """What the first call with this client token was answered, None for a token not seen before.

    Raises ApiError where that call asked for something else.
    """
    token = params.get("ClientToken")
    if not token:
        return None
    if len(token) > TOKEN_LENGTH:
        raise invalid(
            f"Value ({token}) for parameter clientToken is invalid. The client token is too long: at most "
            f"{TOKEN_LENGTH} ASCII characters"
        )
    earlier = scope.get("token", f"{operation}/{token}")
    if earlier is None:
        return None
    if earlier["asked"] != _asked(params):
        raise ApiError(
            "IdempotentParameterMismatch",
            "Arguments on this idempotent request are inconsistent with arguments used in previous request(s): "
            f"{token}",
        )
    answer: Doc = earlier["answer"]
    return answer


def remember(scope: Scope, operation: str, params: Wire, answer: Doc) -> None:
    """Keep what a call with a client token was answered; ``answer`` is JSON."""
    if params.get("ClientToken"):
        kept = {"asked": _asked(params), "answer": answer}
        scope.put("token", f"{operation}/{params['ClientToken']}", kept)


def _asked(params: Wire) -> str:
    return json.dumps({key: value for key, value in params.items() if key != "ClientToken"}, sort_keys=True)


# -------------------------------------------------------------------------------------------------------- queries

Extract = str | Callable[[Doc], Iterable[Any]]
"""Where a filter's value stands in a shown document: a dotted path, through lists, or a function."""


@dataclass(frozen=True, slots=True)
class Query:
    """How an operation chooses and pages: ``name`` the operation's, ``filters`` by the API's name, ``pages`` the
    bounds of MaxResults; ``key`` tells items apart."""

    name: str
    filters: Mapping[str, Extract]
    key: str
    pages: tuple[int, int] = (5, 1000)
    tagged: bool = True

    def select(self, params: Wire, items: Iterable[Doc]) -> list[Doc]:
        """The shown documents that fulfil all filters."""
        found = list(items)
        for condition in params.get("Filters") or []:
            name, values = condition.get("Name") or "null", condition.get("Values") or []
            extract = self._extract(name)
            if not values:
                raise invalid(f"The filter '{name}' must have at least one value")
            if len(values) > FILTER_VALUES:
                raise ApiError("FilterLimitExceeded", f"The maximum number of filter values is {FILTER_VALUES}")
            wanted = [_pattern(str(value)) for value in values]
            found = [
                item
                for item in found
                if any(pattern.fullmatch(_text(value)) for value in extract(item) for pattern in wanted)
            ]
        return found

    def _extract(self, name: str) -> Callable[[Doc], Iterable[Any]]:
        if self.tagged and name.startswith("tag:"):
            key = name.removeprefix("tag:")
            return lambda item: [tag["Value"] for tag in item.get("Tags", []) if tag["Key"] == key]
        if self.tagged and name == "tag-key":
            return lambda item: [tag["Key"] for tag in item.get("Tags", [])]
        extract = self.filters.get(name)
        if extract is None:
            if name in documented_filters(self.name):
                raise NotSimulated(f"filter {name} of {self.name}")
            raise invalid(f"The filter '{name}' is invalid")
        if callable(extract):
            return extract
        path = extract.split(".")
        return lambda item: _at(item, path)

    def page(self, params: Wire, member: str, items: Sequence[Doc], *, ids: str | None = None) -> Doc:
        """One page, as an answer. ``ids`` names the parameter that does not go with MaxResults."""
        size, low, high = params.get("MaxResults"), *self.pages
        if size is not None and ids is not None and params.get(ids):
            raise ApiError(
                "InvalidParameterCombination", f"The parameter {ids} cannot be used with the parameter maxResults"
            )
        if size is not None and not low <= size <= high:
            bound = f"greater than or equal to {low}" if size < low else f"less than or equal to {high}"
            raise invalid(f"Value ( {size} ) for parameter maxResults is invalid. Expecting a value {bound}.")
        start = self._start(params.get("NextToken"), items)
        end = len(items) if size is None else start + size
        answer: Doc = {member: list(items[start:end])}
        if end < len(items):
            token = json.dumps([self.name, end, items[end - 1][self.key]])
            answer["NextToken"] = base64.b64encode(token.encode()).decode()
        return answer

    def _start(self, token: str | None, items: Sequence[Doc]) -> int:
        """After the last item shown, also when items before it are gone since."""
        if not token:
            return 0
        try:
            name, index, last = json.loads(base64.b64decode(token, validate=True))
        except (binascii.Error, ValueError, TypeError):
            name, index, last = "", 0, ""
        if name != self.name:
            raise invalid(f"Value ( {token} ) for parameter nextToken is invalid. Invalid token.")
        for place, item in enumerate(items):
            if item[self.key] == last:
                return place + 1
        return min(int(index), len(items))


def chosen(scope: Scope, kind: Kind, ids: Iterable[str] | None) -> list[Doc]:
    """The documents of these ids, or all. Raises ApiError for one that does not exist."""
    if not ids:
        return list(scope.all(kind.name))
    return [kind.find(scope, each) for each in dict.fromkeys(ids)]


@functools.cache
def documented_filters(operation: str) -> frozenset[str]:
    """The filters of an operation as the API's model documents them."""
    import botocore.session  # half a second, and only for a refusal

    model: Any = botocore.session.get_session().get_service_model("ec2")
    said: str = model.operation_model(operation).input_shape.members["Filters"].documentation
    return frozenset(re.findall(r"<code>([a-z][a-z0-9.:-]*)</code>", said))


def _pattern(value: str) -> re.Pattern[str]:
    """``*`` and ``?`` stand for any characters; a backslash takes that away from them."""
    parts = re.findall(r"\\.|.", value, re.DOTALL)
    wild = {"*": ".*", "?": "."}
    text = "".join(wild.get(part) or re.escape(part[-1]) for part in parts)
    return re.compile(text, re.DOTALL)


def _at(value: Any, path: Sequence[str]) -> Iterable[Any]:
    if isinstance(value, list):
        return [found for part in value for found in _at(part, path)]
    if not path:
        return [value]
    if isinstance(value, dict) and path[0] in value:
        return _at(value[path[0]], path[1:])
    return []


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%S.000Z")
    return str(value)


# ---------------------------------------------------------------------------------------------------- tag operations


def create_tags(scope: Scope, params: Wire) -> Doc:
    tags = checked_tags(required(params, "Tags"))
    found = [(kind, kind.find(scope, each)) for each in required(params, "Resources") for kind in [_kind_of(each)]]
    for kind, document in found:
        document["tags"] = {**document.get("tags", {}), **tags}
        check_tag_count(document["tags"])
        kind.keep(scope, document)
    return {}


def delete_tags(scope: Scope, params: Wire) -> Doc:
    """A tag with a value is taken away only where it has that value. Without tags all go but those of AWS."""
    found = [(kind, kind.find(scope, each)) for each in required(params, "Resources") for kind in [_kind_of(each)]]
    for kind, document in found:
        tags = dict(document.get("tags", {}))
        if params.get("Tags"):
            for tag in params["Tags"]:
                if tags.get(tag["Key"]) == tag.get("Value", tags.get(tag["Key"])):
                    tags.pop(tag["Key"], None)
        else:
            tags = {key: value for key, value in tags.items() if key.startswith("aws:")}
        document["tags"] = tags
        kind.keep(scope, document)
    return {}


def _kind_of(given: str) -> Kind:
    for kind in KINDS:
        if given.startswith(f"{kind.prefix}-"):
            return kind
    raise ApiError("InvalidID", f"The ID '{given}' is not valid")


_DESCRIBE_TAGS = Query(
    "DescribeTags",
    {"key": "Key", "value": "Value", "resource-id": "ResourceId", "resource-type": "ResourceType"},
    "id",
)


def describe_tags(scope: Scope, params: Wire) -> Doc:
    items = [
        {
            "ResourceType": kind.name,
            "ResourceId": document[kind.key],
            "Key": key,
            "Value": value,
            "Tags": [{"Key": key, "Value": value}],
            "id": f"{document[kind.key]} {key}",
        }
        for kind in KINDS
        for document in scope.all(kind.name)
        for key, value in document.get("tags", {}).items()
    ]
    answer = _DESCRIBE_TAGS.page(params, "Tags", _DESCRIBE_TAGS.select(params, items))
    names = ("ResourceType", "ResourceId", "Key", "Value")
    answer["Tags"] = [{name: item[name] for name in names} for item in answer["Tags"]]
    return answer
