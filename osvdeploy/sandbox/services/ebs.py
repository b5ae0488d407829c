"""EBS direct APIs: snapshots written and read in blocks of 512 KiB.

A snapshot keeps the blocks that were put into it; what it has not, it inherits from its ancestors. Sources: the EBS
direct APIs reference (operations, errors, reasons), the EBS user guide's "Use EBS direct APIs" (idempotency, checksums,
quotas). Where they leave the answer open, the line that gives it says so.

Documents:

``snapshot``
    By id, in DescribeSnapshots' names; ``tags`` ({key: value}), and what only this module reads: ``ancestors`` (parent
    first), ``lineage`` (the first of them ever, also when it is deleted), ``timeout`` (minutes), ``sealed`` (true from
    CompleteSnapshot on), ``activity`` (when it was started).
``block/<snapshot>``
    By index, 8 digits: ``index``, ``sha256``, ``at`` (when it was put) and, for one that was an ancestor's which is
    deleted, ``inherited``.
``token``
    By ``StartSnapshot/<client token>``: what was asked and answered.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from osvdeploy.sandbox.blocks import reader
from osvdeploy.sandbox.errors import ApiError
from osvdeploy.sandbox.runners import DiskReader
from osvdeploy.sandbox.services.scope import Doc, EventHandler, Operation, Scope
from osvdeploy.sizes import GIB, KIB

Wire = Mapping[str, Any]

BLOCK: Final = 512 * KIB

COMPLETION: Final = 4.0
"""Seconds from CompleteSnapshot to ``completed``; documented nowhere, small disks take some seconds."""

TOKEN_LIFE: Final = timedelta(hours=1)
"""How long block tokens are good for; answers give it as ExpiryTime."""

PENDING_SNAPSHOTS: Final = 100
"""Quota: pending snapshots per account and region."""

LARGEST: Final = 65536
TIMEOUTS: Final = (10, 4320)
DEFAULT_TIMEOUT: Final = 60
PAGES: Final = (100, 10000)
TAGS: Final = 50

SNAPSHOT: Final = "snapshot"

_ID = re.compile(r"snap-[0-9a-f]{1,59}")
_KEY = re.compile(r"arn:aws[a-z-]*:kms:[^:]*:[0-9]{12}:key/\S+")
_TOKEN = "token"


def _kind(snapshot: str) -> str:
    return f"block/{snapshot}"


def _place(index: int) -> str:
    return f"{index:08d}"


# ------------------------------------------------------------------------------------------------------- refusals


def _invalid(reason: str, message: str) -> ApiError:
    return ApiError("ValidationException", message, 400, {"Reason": reason})


def _not_found(snapshot: str) -> ApiError:
    reason = {"Reason": "SNAPSHOT_NOT_FOUND"}
    return ApiError("ResourceNotFoundException", f"The snapshot '{snapshot}' does not exist.", 404, reason)


def _required(params: Wire, name: str) -> Any:
    value = params.get(name)
    if value is None:
        raise _invalid("INVALID_PARAMETER_VALUE", f"{name} is required")
    return value


def _within(params: Wire, name: str, least: int, most: int | None, default: int) -> int:
    value = params.get(name)
    if value is None:
        return default
    if value < least or (most is not None and value > most):
        bounds = f"between {least} and {most}" if most is not None else f"at least {least}"
        raise _invalid("INVALID_PARAMETER_VALUE", f"{name} must be {bounds}, not {value}")
    return int(value)


def _snapshot(scope: Scope, snapshot: str) -> Doc:
    if _ID.fullmatch(snapshot) is None:
        raise _invalid("INVALID_SNAPSHOT_ID", f"The snapshot id '{snapshot}' is malformed")
    found = scope.get(SNAPSHOT, snapshot)
    if found is None:
        raise _not_found(snapshot)
    if found["OwnerId"] != scope.account:
        reason = {"Reason": "UNAUTHORIZED_ACCOUNT"}
        raise ApiError("AccessDeniedException", f"The snapshot '{snapshot}' is not yours", 403, reason)
    return found


def _pending(scope: Scope, snapshot: str) -> Doc:
    """A snapshot that takes blocks. The reference says it must be pending, and gives the refusal no reason."""
    found = _snapshot(scope, snapshot)
    if found["State"] != "pending" or found["sealed"]:
        raise _invalid("INVALID_SNAPSHOT_ID", f"The snapshot '{snapshot}' is not in the pending state")
    return found


def _completed(scope: Scope, snapshot: str) -> Doc:
    """A snapshot that can be read. The reference gives the refusal no reason."""
    found = _snapshot(scope, snapshot)
    if found["State"] != "completed":
        raise _invalid("INVALID_SNAPSHOT_ID", f"The snapshot '{snapshot}' is not in the completed state")
    return found


# --------------------------------------------------------------------------------------------------------- writing


def start_snapshot(scope: Scope, params: Wire) -> Doc:
    token = params.get("ClientToken")
    if token is not None and not (0 < len(token) <= 64 and token.isascii()):
        raise _invalid("INVALID_PARAMETER_VALUE", "ClientToken must be 1 to 64 ASCII characters")
    asked = {name: value for name, value in params.items() if name != "ClientToken" and value is not None}
    earlier = scope.get(_TOKEN, f"StartSnapshot/{token}") if token is not None else None
    if earlier is not None:
        if earlier["asked"] != asked:
            raise ApiError("ConflictException", "The client token was used with other parameters", 409)
        return _started(earlier["answer"])
    document = _new_snapshot(scope, params)
    snapshot = document["SnapshotId"]
    answer: Doc = {
        "SnapshotId": snapshot,
        "OwnerId": document["OwnerId"],
        "Status": "pending",
        "StartTime": document["StartTime"],
        "VolumeSize": document["VolumeSize"],
        "BlockSize": BLOCK,
    }
    if document["Description"]:
        answer["Description"] = document["Description"]
    if document["tags"]:
        answer["Tags"] = [{"Key": key, "Value": value} for key, value in document["tags"].items()]
    if document["ancestors"]:
        answer["ParentSnapshotId"] = document["ancestors"][0]
    if document["Encrypted"]:
        answer["KmsKeyArn"] = document["KmsKeyId"]
    scope.put(SNAPSHOT, snapshot, document)
    if token is not None:
        scope.put(_TOKEN, f"StartSnapshot/{token}", {"asked": asked, "answer": answer})
    payload = {"snapshot": snapshot, "activity": document["activity"]}
    scope.later(60.0 * document["timeout"], "ebs.expired", payload)
    return _started(answer)


def _started(answer: Doc) -> Doc:
    return {**answer, "StartTime": datetime.fromisoformat(answer["StartTime"])}


def _new_snapshot(scope: Scope, params: Wire) -> Doc:
    size = _required(params, "VolumeSize")
    if not 1 <= size <= LARGEST:
        raise _invalid("INVALID_VOLUME_SIZE", f"VolumeSize must be between 1 and {LARGEST} GiB, not {size}")
    timeout = _within(params, "Timeout", *TIMEOUTS, DEFAULT_TIMEOUT)
    description = params.get("Description") or ""
    if len(description) > 255:
        raise _invalid("INVALID_PARAMETER_VALUE", "Description must have at most 255 characters")
    tags = _tags(params.get("Tags") or [])
    parent = params.get("ParentSnapshotId")
    key = params.get("KmsKeyArn")
    ancestors: list[str] = []
    if parent is not None:
        if params.get("Encrypted") is not None or key is not None:
            raise _invalid(
                "INVALID_PARAMETER_VALUE", "Encrypted and KmsKeyArn cannot be specified with ParentSnapshotId"
            )
        before = _completed(scope, parent)
        if size < before["VolumeSize"]:
            raise _invalid(
                "INVALID_VOLUME_SIZE",
                f"VolumeSize must not be smaller than the parent's {before['VolumeSize']} GiB, not {size}",
            )
        ancestors = [parent, *before["ancestors"]]
        encrypted, key = before["Encrypted"], before.get("KmsKeyId")
    else:
        encrypted = bool(params.get("Encrypted"))
        if key is not None and not encrypted:
            raise _invalid("INVALID_PARAMETER_VALUE", "KmsKeyArn needs Encrypted to be true")
        if key is not None and _KEY.fullmatch(key) is None:
            raise _invalid("INVALID_CUSTOMER_KEY", f"KmsKeyArn '{key}' is not the ARN of a KMS key")
        if encrypted and key is None:
            key = f"arn:aws:kms:{scope.region}:{scope.account}:key/aws-ebs"
    if sum(known["State"] == "pending" for known in scope.all(SNAPSHOT)) >= PENDING_SNAPSHOTS:
        # The reference names no error for this quota; of StartSnapshot's, this is the one for quotas.
        reason = {"Reason": "DEPENDENCY_SERVICE_QUOTA_EXCEEDED"}
        message = f"The quota of {PENDING_SNAPSHOTS} pending snapshots is reached"
        raise ApiError("ServiceQuotaExceededException", message, 402, reason)
    snapshot = f"snap-{scope.new_id(17)}"
    document: Doc = {
        "SnapshotId": snapshot,
        "State": "pending",
        "VolumeId": "vol-ffffffff",
        "VolumeSize": size,
        "OwnerId": scope.account,
        "StartTime": scope.now.isoformat(),
        "Description": description,
        "Encrypted": encrypted,
        "Progress": "0%",
        "StorageTier": "standard",
        "tags": tags,
        "ancestors": ancestors,
        "lineage": before["lineage"] if parent is not None else snapshot,
        "timeout": timeout,
        "sealed": False,
        "activity": scope.now.isoformat(),
    }
    if encrypted:
        document["KmsKeyId"] = key
    return document


def _tags(wanted: Iterable[Mapping[str, str]]) -> dict[str, str]:
    tags: dict[str, str] = {}
    for tag in wanted:
        key, value = tag.get("Key") or "", tag.get("Value") or ""
        if not 1 <= len(key) <= 127 or len(value) > 255:
            raise _invalid("INVALID_TAG", f"Tag '{key}': a key has 1 to 127 characters, a value at most 255")
        if key.lower().startswith("aws:"):
            raise _invalid("INVALID_TAG", f"Tag '{key}': keys that begin with aws: are reserved")
        if key in tags:
            raise _invalid("INVALID_TAG", f"Tag '{key}' is given twice")
        tags[key] = value
    if len(tags) > TAGS:
        raise _invalid("INVALID_TAG", f"A snapshot has at most {TAGS} tags")
    return tags


def put_snapshot_block(scope: Scope, params: Wire) -> Doc:
    document = _pending(scope, _required(params, "SnapshotId"))
    snapshot, index = document["SnapshotId"], _required(params, "BlockIndex")
    _check_index(document, index)
    content: bytes = _required(params, "BlockData")
    if _required(params, "DataLength") != BLOCK:
        raise _invalid("INVALID_PARAMETER_VALUE", f"DataLength must be {BLOCK}, not {params['DataLength']}")
    if len(content) != BLOCK:
        raise _invalid("INVALID_PARAMETER_VALUE", "Failed to read block data")
    if _required(params, "ChecksumAlgorithm") != "SHA256":
        raise _invalid("INVALID_PARAMETER_VALUE", "ChecksumAlgorithm must be SHA256")
    progress = _within(params, "Progress", 0, 100, -1)
    declared = _required(params, "Checksum")
    digest = hashlib.sha256(content)
    if declared != base64.b64encode(digest.digest()).decode():
        raise _invalid("INVALID_PARAMETER_VALUE", "Checksum is not the SHA256 of the block's data")
    scope.blobs.put(content)
    block = {"index": index, "sha256": digest.hexdigest(), "at": scope.now.isoformat()}
    scope.put(_kind(snapshot), _place(index), block)
    if progress >= 0 and document["Progress"] != f"{progress}%":
        document["Progress"] = f"{progress}%"
        scope.put(SNAPSHOT, snapshot, document)
    return {"Checksum": declared, "ChecksumAlgorithm": "SHA256"}


def _check_index(document: Doc, index: int) -> None:
    blocks = document["VolumeSize"] * GIB // BLOCK
    if not 0 <= index < blocks:
        raise _invalid(
            "INVALID_BLOCK", f"BlockIndex {index}: a volume of {document['VolumeSize']} GiB has {blocks} blocks"
        )


def complete_snapshot(scope: Scope, params: Wire) -> Doc:
    """Seal a snapshot. A wrong count or checksum is refused and leaves it pending: the user guide says that checksums
    validate what was written and that a block's mismatch fails the request, and names no error for this one."""
    document = _pending(scope, _required(params, "SnapshotId"))
    snapshot = document["SnapshotId"]
    count = _required(params, "ChangedBlocksCount")
    put = {block["index"]: block["sha256"] for block in scope.all(_kind(snapshot)) if not block.get("inherited")}
    if count != len(put):
        raise _invalid("INVALID_PARAMETER_VALUE", f"ChangedBlocksCount is {count}, but {len(put)} blocks were written")
    checksum = params.get("Checksum")
    for name, only in (("ChecksumAlgorithm", "SHA256"), ("ChecksumAggregationMethod", "LINEAR")):
        value = params.get(name)
        if value is None and checksum is not None:
            raise _invalid("INVALID_PARAMETER_VALUE", f"Checksum needs {name}")
        if value is not None and value != only:
            raise _invalid("INVALID_PARAMETER_VALUE", f"{name} must be {only}")
    if checksum is not None:
        linear = hashlib.sha256(b"".join(bytes.fromhex(put[index]) for index in sorted(put))).digest()
        if checksum != base64.b64encode(linear).decode():
            raise _invalid("INVALID_PARAMETER_VALUE", "Checksum is not the LINEAR checksum of the blocks written")
    document["sealed"] = True
    scope.put(SNAPSHOT, snapshot, document)
    scope.later(COMPLETION, "ebs.completed", {"snapshot": snapshot})
    return {"Status": "pending"}


def _on_completed(scope: Scope, payload: Wire) -> None:
    document = scope.get(SNAPSHOT, payload["snapshot"])
    if document is not None and document["State"] == "pending":
        document |= {"State": "completed", "Progress": "100%", "CompletionTime": scope.now.isoformat()}
        scope.put(SNAPSHOT, payload["snapshot"], document)


def _on_expired(scope: Scope, payload: Wire) -> None:
    """Time is up for a snapshot, unless a block came since ``activity``: then it begins anew from there."""
    document = scope.get(SNAPSHOT, payload["snapshot"])
    if document is None or document["State"] != "pending" or document["sealed"]:
        return
    snapshot = document["SnapshotId"]
    puts = [block["at"] for block in scope.all(_kind(snapshot)) if not block.get("inherited")]
    latest = max((document["activity"], *puts), key=datetime.fromisoformat)
    if latest != payload["activity"]:
        after = datetime.fromisoformat(latest)
        payload = {"snapshot": snapshot, "activity": latest}
        scope.later(60.0 * document["timeout"], "ebs.expired", payload, after=after)
        return
    document["State"] = "error"
    document["StateMessage"] = f"No block was written, nor the snapshot completed, for {document['timeout']} minutes"
    scope.put(SNAPSHOT, snapshot, document)


# --------------------------------------------------------------------------------------------------------- reading


def list_snapshot_blocks(scope: Scope, params: Wire) -> Doc:
    document = _completed(scope, _required(params, "SnapshotId"))
    snapshot = document["SnapshotId"]
    blocks = _blocks(scope, document)
    page = _page(scope, params, snapshot, blocks)
    expiry = _expiry(scope)
    answer: Doc = {
        "Blocks": [
            {"BlockIndex": index, "BlockToken": _block_token(scope, snapshot, index, blocks[index], expiry)}
            for index in page.indices
        ],
    }
    return answer | _list_facts(document, expiry, page)


def list_changed_blocks(scope: Scope, params: Wire) -> Doc:
    second = _completed(scope, _required(params, "SecondSnapshotId"))
    first = _completed(scope, _required(params, "FirstSnapshotId"))
    if first["lineage"] != second["lineage"]:
        message = f"The snapshots '{first['SnapshotId']}' and '{second['SnapshotId']}' are not of one lineage"
        raise _invalid("UNRELATED_SNAPSHOTS", message)
    old, new = _blocks(scope, first), _blocks(scope, second)
    changed = [index for index in old.keys() | new.keys() if old.get(index) != new.get(index)]
    page = _page(scope, params, f"{first['SnapshotId']}/{second['SnapshotId']}", changed)
    expiry = _expiry(scope)
    answers = []
    for index in page.indices:
        answer: Doc = {"BlockIndex": index}
        for name, document, blocks in (("First", first, old), ("Second", second, new)):
            if index in blocks:
                answer[f"{name}BlockToken"] = _block_token(scope, document["SnapshotId"], index, blocks[index], expiry)
        answers.append(answer)
    return {"ChangedBlocks": answers} | _list_facts(second, expiry, page)


def get_snapshot_block(scope: Scope, params: Wire) -> Doc:
    document = _completed(scope, _required(params, "SnapshotId"))
    index = _required(params, "BlockIndex")
    _check_index(document, index)
    digest = _read_block_token(scope, document["SnapshotId"], index, _required(params, "BlockToken"))
    return {
        "DataLength": BLOCK,
        "BlockData": scope.blobs.get(digest.hex()),
        "Checksum": base64.b64encode(digest).decode(),
        "ChecksumAlgorithm": "SHA256",
    }


def _blocks(scope: Scope, document: Doc) -> dict[int, str]:
    """Index -> sha256 (hex) of every block a snapshot has, inherited ones included."""
    found: dict[int, str] = {}
    for owner in (*reversed(document["ancestors"]), document["SnapshotId"]):
        found.update((block["index"], block["sha256"]) for block in scope.all(_kind(owner)))
    return found


@dataclass(frozen=True, slots=True)
class _Page:
    indices: list[int]
    token: str | None


def _page(scope: Scope, params: Wire, subject: str, indices: Iterable[int]) -> _Page:
    size = _within(params, "MaxResults", *PAGES, PAGES[1])
    start = _within(params, "StartingBlockIndex", 0, None, 0)
    if (given := params.get("NextToken")) is not None:
        start = _read_page_token(scope, subject, given)
    rest = sorted(index for index in indices if index >= start)
    following = _page_token(scope, subject, rest[size]) if len(rest) > size else None
    return _Page(rest[:size], following)


def _list_facts(document: Doc, expiry: datetime, page: _Page) -> Doc:
    facts: Doc = {"ExpiryTime": expiry, "VolumeSize": document["VolumeSize"], "BlockSize": BLOCK}
    return facts if page.token is None else {**facts, "NextToken": page.token}


# ---------------------------------------------------------------------------------------------------------- tokens
#
# A token says itself what it stands for, and a keyed hash binds it to its subject: nothing has to be kept for it.

_STAMP: Final = 16


def _stamp(scope: Scope, subject: str, message: bytes) -> bytes:
    key = f"{scope.account}/{scope.region}".encode()
    return hmac.digest(key, subject.encode() + b"\0" + message, "sha256")[:_STAMP]


def _sealed(scope: Scope, subject: str, message: bytes) -> str:
    return base64.b64encode(_stamp(scope, subject, message) + message).decode()


def _opened(scope: Scope, subject: str, token: str) -> bytes | None:
    try:
        raw = base64.b64decode(token, validate=True)
    except ValueError:
        return None
    stamp, message = raw[:_STAMP], raw[_STAMP:]
    return message if hmac.compare_digest(stamp, _stamp(scope, subject, message)) else None


def _expiry(scope: Scope) -> datetime:
    """In whole seconds, as the answer's time is."""
    return scope.now.replace(microsecond=0) + TOKEN_LIFE


def _block_token(scope: Scope, snapshot: str, index: int, digest: str, expiry: datetime) -> str:
    message = struct.pack(">Q", int(expiry.timestamp())) + bytes.fromhex(digest)
    return _sealed(scope, f"block/{snapshot}/{index}", message)


def _read_block_token(scope: Scope, snapshot: str, index: int, token: str) -> bytes:
    message = _opened(scope, f"block/{snapshot}/{index}", token)
    if message is None:
        raise _invalid("INVALID_BLOCK_TOKEN", f"The block token is not one of block {index} of '{snapshot}'")
    (expiry,) = struct.unpack_from(">Q", message)
    if scope.now > datetime.fromtimestamp(expiry, UTC):
        raise _invalid("INVALID_BLOCK_TOKEN", "The block token has expired")
    return message[8:]


def _page_token(scope: Scope, subject: str, index: int) -> str:
    return _sealed(scope, f"page/{subject}", struct.pack(">Q", index))


def _read_page_token(scope: Scope, subject: str, token: str) -> int:
    message = _opened(scope, f"page/{subject}", token)
    if message is None:
        raise _invalid("INVALID_PAGE_TOKEN", "NextToken is not one that this list gave")
    return int(struct.unpack(">Q", message)[0])


# ------------------------------------------------------------------------------------------- for the other services


def disk_reader(scope: Scope, snapshot_id: str, size_bytes: int) -> DiskReader:
    """What a volume of ``size_bytes`` made from a snapshot reads as, now and for good: from any thread, also after the
    call is over and the snapshot is deleted.

    A block that no snapshot of the lineage has reads as zeros; on an encrypted volume as what decrypting zeros gives,
    which is noise. Raises KeyError for a snapshot that does not exist.
    """
    document = scope.get(SNAPSHOT, snapshot_id)
    if document is None:
        raise KeyError(snapshot_id)
    blocks, blobs = _blocks(scope, document), scope.blobs
    absent: Callable[[int], bytes] = _noise if document["Encrypted"] else lambda index: bytes(BLOCK)

    def block(index: int) -> bytes:
        digest = blocks.get(index)
        return blobs.get(digest) if digest is not None else absent(index)

    return reader(block, BLOCK, size_bytes)


def _noise(index: int) -> bytes:
    return hashlib.shake_128(f"absent block {index}".encode()).digest(BLOCK)


def imported(scope: Scope, size_gib: int, description: str, blocks: Iterable[tuple[int, bytes]]) -> str:
    """Make a completed snapshot of these blocks, for what other services bring in. Its id."""
    document = _new_snapshot(scope, {"VolumeSize": size_gib, "Description": description})
    snapshot, at = document["SnapshotId"], scope.now.isoformat()
    for index, content in blocks:
        block = {"index": index, "sha256": scope.blobs.put(content), "at": at}
        scope.put(_kind(snapshot), _place(index), block)
    done = {"State": "completed", "Progress": "100%", "CompletionTime": at, "sealed": True}
    scope.put(SNAPSHOT, snapshot, document | done)
    return str(snapshot)


def forget(scope: Scope, snapshot_id: str) -> None:
    """Delete a snapshot's blocks. Its children keep what they inherit of it. The snapshot's own document is the
    caller's to delete, before or after."""
    own = scope.all(_kind(snapshot_id))
    for document in scope.all(SNAPSHOT):
        if snapshot_id not in document["ancestors"]:
            continue
        child = document["SnapshotId"]
        if document["ancestors"][0] == snapshot_id:
            for block in own:
                place = _place(block["index"])
                if scope.get(_kind(child), place) is None:
                    scope.put(_kind(child), place, {**block, "inherited": True})
        document["ancestors"].remove(snapshot_id)
        scope.put(SNAPSHOT, child, document)
    for block in own:
        scope.delete(_kind(snapshot_id), _place(block["index"]))


OPERATIONS: Mapping[str, Operation] = {
    "StartSnapshot": start_snapshot,
    "PutSnapshotBlock": put_snapshot_block,
    "CompleteSnapshot": complete_snapshot,
    "ListSnapshotBlocks": list_snapshot_blocks,
    "ListChangedBlocks": list_changed_blocks,
    "GetSnapshotBlock": get_snapshot_block,
}

EVENTS: Mapping[str, EventHandler] = {"ebs.completed": _on_completed, "ebs.expired": _on_expired}

_PAGING = frozenset({"NextToken", "MaxResults", "StartingBlockIndex"})

PARAMETERS: Mapping[str, frozenset[str]] = {
    "StartSnapshot": frozenset(
        {
            "VolumeSize",
            "ParentSnapshotId",
            "Tags",
            "Description",
            "ClientToken",
            "Encrypted",
            "KmsKeyArn",
            "Timeout",
        }
    ),
    "PutSnapshotBlock": frozenset(
        {"SnapshotId", "BlockIndex", "BlockData", "DataLength", "Progress", "Checksum", "ChecksumAlgorithm"}
    ),
    "CompleteSnapshot": frozenset(
        {"SnapshotId", "ChangedBlocksCount", "Checksum", "ChecksumAlgorithm", "ChecksumAggregationMethod"}
    ),
    "ListSnapshotBlocks": _PAGING | {"SnapshotId"},
    "ListChangedBlocks": _PAGING | {"FirstSnapshotId", "SecondSnapshotId"},
    "GetSnapshotBlock": frozenset({"SnapshotId", "BlockIndex", "BlockToken"}),
}
