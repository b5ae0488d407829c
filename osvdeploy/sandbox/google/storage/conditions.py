"""Preconditions, and the words of Cloud Storage's refusals."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, Final

from osvdeploy.sandbox.errors import ApiError

Wire = Mapping[str, Any]

CONDITIONS: Final = ("ifGenerationMatch", "ifGenerationNotMatch", "ifMetagenerationMatch", "ifMetagenerationNotMatch")


def hold(params: Wire, there: Wire | None, *, reading: bool = False) -> None:
    """Raise ApiError where a condition does not hold for the resource that is ``there``.

    ``reading``: one that asks for something newer is answered with "not modified".
    """
    for name, field in (("ifGeneration", "generation"), ("ifMetageneration", "metageneration")):
        same, other = params.get(f"{name}Match"), params.get(f"{name}NotMatch")
        if same is None and other is None:
            continue
        have = None if there is None else int(there[field])
        # Generation 0 is that of an object which is not there; a metageneration, nothing has.
        if same is not None and int(same) != (0 if have is None and field == "generation" else have):
            raise failed()
        if other is not None and (have is None or int(other) == have):
            raise not_modified() if reading else failed()


def failed() -> ApiError:
    return ApiError(
        "conditionNotMet",
        "At least one of the pre-conditions you specified did not hold.",
        412,
        {"locationType": "header", "location": "If-Match"},
    )


def not_modified() -> ApiError:
    return ApiError("notModified", "Not Modified", 304)


def no_object(bucket: str, name: str) -> ApiError:
    return ApiError("notFound", f"No such object: {bucket}/{name}", 404)


def no_bucket() -> ApiError:
    return ApiError("notFound", "The specified bucket does not exist.", 404)


def etag(resource: Wire) -> str:
    """Another for each generation and metageneration."""
    text = f"{resource.get('generation', '')}/{resource['metageneration']}"
    return base64.b64encode(text.encode()).decode()
