"""Lists of Compute Engine's resources: filtered, ordered, in pages.

Source: the parameter ``filter`` of its list methods. Expressions of AIP-160 alone: ``FIELD = VALUE``, ``!=`` and
``FIELD:*``, joined by blanks or AND, each in parentheses or not. Regular expressions (``eq``, ``ne``), OR and
comparisons are not simulated.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from osvdeploy.sandbox.errors import ApiError, NotSimulated
from osvdeploy.sandbox.google.storage.pages import page
from osvdeploy.sandbox.services.scope import Doc

Wire = Mapping[str, Any]

MOST: Final = 500

_TERM = re.compile(
    r"""\s*(?:AND\s+)?(?P<open>\()?\s*(?P<field>[A-Za-z][\w.-]*)\s*(?P<operator>!=|=|:)\s*
    (?:"(?P<quoted>[^"]*)"|(?P<bare>[^\s()"]+))\s*(?P<close>\))?""",
    re.VERBOSE,
)

Test = Callable[[Wire], bool]


def page_of(kind: str, link: str, resources: Iterable[Wire], params: Wire, show: Callable[[Wire], Doc]) -> Doc:
    """One page of those that the filter lets through. Raises ApiError."""
    holds = _filter(params.get("filter", ""))
    order = params.get("orderBy") or "name"
    newest = order == "creationTimestamp desc"
    if not newest and order != "name":
        raise NotSimulated(f"lists in the order of '{order}'")
    if params.get("maxResults", 1) > MOST:
        raise ApiError("invalid", f"Invalid value for field 'maxResults': '{params['maxResults']}'.")
    named = {_line(each, newest): each for each in resources if holds(each)}
    lines, token = page(sorted(named), {**params, "maxResults": params.get("maxResults") or MOST})
    items = [show(named[line]) for line in lines]
    return {"kind": kind, "id": link.partition("/compute/v1/")[2], "selfLink": link, **token} | (
        {"items": items} if items else {}
    )


def _line(resource: Wire, newest: bool) -> str:
    """What sorts as asked. Ids rise with time."""
    return f"{10**20 - int(resource['id'])}" if newest else str(resource["name"])


def _filter(text: str) -> Test:
    tests: list[Test] = []
    at = 0
    while text[at:].strip():
        term = _TERM.match(text, at)
        if term is None or bool(term["open"]) != bool(term["close"]):
            raise NotSimulated(f"the filter '{text}'")
        value = term["quoted"] if term["quoted"] is not None else term["bare"]
        if term["bare"] in ("AND", "OR") or (term["operator"] == ":" and value != "*"):
            raise NotSimulated(f"the filter '{text}'")
        tests.append(_test(term["field"].split("."), term["operator"], value))
        at = term.end()
    return lambda resource: all(test(resource) for test in tests)


def _test(path: list[str], operator: str, value: str) -> Test:
    def test(resource: Wire) -> bool:
        found: Any = resource
        for part in path:
            found = found.get(part) if isinstance(found, Mapping) else None
        if operator == ":":
            return found is not None
        text = str(found).lower() if isinstance(found, bool) else str(found)
        return (found is not None and text == value) is (operator == "=")

    return test
