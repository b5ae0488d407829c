"""Google's own types as the judge of what our client sends to Compute Engine.

Each request must be one that google-cloud-compute could have sent: its address is one of that client's, and path, query
and body, read by the type of the request there, have no field that the type has not, and no value of another kind. The
simulator judges by Google's discovery document; this is a second opinion, which other people's code gives.

It is given by a process of its own: pulumi's stubs and Google's both bring the message google.rpc.Status, from files of
different names, and protobuf takes no two of one name into a process.
"""

from __future__ import annotations

import atexit
import functools
import importlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import threading
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import IO, Any
from urllib.parse import parse_qsl, unquote, urlsplit

import requests
from requests.adapters import BaseAdapter

SERVICES = "google.cloud.compute_v1.services"
ROOT = Path(__file__).parents[1]


class Unfit(AssertionError):
    """No request of Google's client."""


@dataclass(frozen=True)
class Method:
    """One method of the client: what its addresses look like, and the type of its requests."""

    name: str
    verb: str
    path: re.Pattern[str]
    body: str | None
    request: Any


@dataclass
class Judge:
    """Judges requests; ``seen`` has the methods that were asked for, and how often."""

    seen: dict[str, int] = field(default_factory=dict)

    def hold(self, verb: str, url: str, body: bytes | str | None) -> None:
        """Raise :class:`Unfit` unless Google's client could have sent this. Not asked about Cloud Storage."""
        split = urlsplit(url)
        if split.path.startswith("/compute/"):
            name = _judged(verb.lower(), split.path, split.query, body or None)
            self.seen[name] = self.seen.get(name, 0) + 1


class Process:
    """The process that judges, from its first question on. It ends when its standard input does, with this one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: subprocess.Popen[str] | None = None
        self._borrowed: tuple[IO[str], IO[str]] | None = None

    def ask(self, question: Sequence[str | None]) -> tuple[str, str]:
        """What it says: a method's name, or what is wrong; one of the two is ""."""
        with self._lock:
            questions, answers = self._pipes()
            questions.write(f"{json.dumps(question)}\n")
            questions.flush()
            name, wrong = json.loads(answers.readline())
            return name, wrong

    def lent(self) -> tuple[Connection, Connection]:
        """Its two ends for another process that asks while this one does not: to start takes it four seconds."""
        with self._lock:
            questions, answers = self._pipes()
            return (
                Connection(os.dup(questions.fileno()), readable=False),
                Connection(os.dup(answers.fileno()), writable=False),
            )

    def borrow(self, questions: Connection, answers: Connection) -> None:
        """Ask that of another process."""
        with self._lock:
            self._borrowed = os.fdopen(os.dup(questions.fileno()), "w"), os.fdopen(os.dup(answers.fileno()))

    def _pipes(self) -> tuple[IO[str], IO[str]]:
        if self._borrowed is not None:
            return self._borrowed
        if self._running is None:
            command = [sys.executable, "-m", __name__]
            pipe = subprocess.PIPE
            self._running = subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True)
            # pytest must not take it for a pipe that a test forgot.
            atexit.register(self.end)
        assert self._running.stdin is not None and self._running.stdout is not None
        return self._running.stdin, self._running.stdout

    def end(self) -> None:
        """The next question starts another one."""
        running, self._running = self._running, None
        if running is not None:
            # Whoever borrowed its standard input may have it still: it would not end by that.
            running.kill()
            running.communicate()


process = Process()


@functools.lru_cache(maxsize=4096)
def _judged(verb: str, path: str, query: str, body: bytes | str | None) -> str:
    """The method that a request is of."""
    text = body.decode() if isinstance(body, bytes) else body
    name, wrong = process.ask((verb, path, query, text))
    if wrong:
        raise Unfit(wrong)
    return name


def _method_of(verb: str, path: str, query: str, body: str | None) -> str:
    from google.protobuf import json_format

    for method in _candidates(path):
        matched = method.path.fullmatch(path)
        if matched is None or method.verb != verb:
            continue
        told: dict[str, Any] = {name: unquote(value) for name, value in matched.groupdict().items()}
        told |= {name: _value(value) for name, value in parse_qsl(query, keep_blank_values=True)}
        if body:
            if method.body is None:
                raise Unfit(f"{method.name} takes no body")
            told[method.body] = json.loads(body)
        try:
            json_format.ParseDict(told, method.request.pb()())
        except json_format.ParseError as error:
            raise Unfit(f"{method.name}: {error}") from error
        return method.name
    raise Unfit(f"{verb} {path}: no method of google-cloud-compute")


class Judged(BaseAdapter):
    """Delivers what a judge has let pass."""

    def __init__(self, delivery: BaseAdapter, judge: Judge) -> None:
        super().__init__()
        self._delivery = delivery
        self._judge = judge

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        assert request.method is not None and request.url is not None
        self._judge.hold(request.method, request.url, request.body)
        return self._delivery.send(request, *args, **kwargs)

    def close(self) -> None:
        self._delivery.close()


def _value(text: str) -> object:
    return {"true": True, "false": False}.get(text, text)


def _candidates(path: str) -> Iterator[Method]:
    """Methods of the services that may be meant: ``.../regions/R/urlMaps/web`` is RegionUrlMaps' or UrlMaps'."""
    words = path.split("/")
    for kind in {_snake(word) for word in words[4:] if word.isalnum()}:
        for name in (kind, f"region_{kind}", f"global_{kind}", f"zone_{kind}"):
            if importlib.util.find_spec(f"{SERVICES}.{name}") is not None:
                yield from _methods(name)


@functools.cache
def _methods(service: str) -> tuple[Method, ...]:
    # How it builds its requests is told by classes that are its own affair, and by nothing else.
    base = importlib.import_module(f"{SERVICES}.{service}.transports.rest_base")
    [transport] = [
        each for name, each in vars(base).items() if name.startswith("_Base") and name.endswith("RestTransport")
    ]
    return tuple(
        Method(
            f"{service}.{_snake(name.removeprefix('_Base'))}",
            option["method"],
            re.compile(re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^/]+)", re.escape(option["uri"]))),
            option.get("body"),
            _request(base, transport, _snake(name.removeprefix("_Base"))),
        )
        for name, each in vars(transport).items()
        if name.startswith("_Base") and hasattr(each, "_get_http_options")
        for option in each._get_http_options()
    )


def _request(base: ModuleType, transport: Any, method: str) -> Any:
    """The type that a method of a transport takes."""
    getter = getattr(transport, method).fget
    hints: Mapping[str, Any] = typing.get_type_hints(getter)
    return typing.get_args(hints["return"])[0][0]


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])([A-Z])", lambda match: f"_{match[1]}", name).lower()


def _serve() -> None:
    """Answer each question, a line of JSON, by a line of JSON."""
    for line in sys.stdin:
        try:
            answer = _method_of(*json.loads(line)), ""
        except Unfit as error:
            answer = "", str(error)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    _serve()
