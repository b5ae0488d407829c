"""Answers of AWS, scripted per operation: for what a simulator has no reason to do."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import boto3

from osvdeploy.cloud.aws.session import Aws
from osvdeploy.sandbox.wire import LOADER


@dataclass(frozen=True, slots=True)
class No:
    """A refusal."""

    code: str
    status: int = 400
    reason: str = ""
    message: str = "no"


@dataclass(frozen=True, slots=True)
class _Status:
    status_code: int


@dataclass(slots=True)
class Script:
    """Answers each operation from its own list, the last answer again and again; keeps what was asked, in order."""

    answers: Mapping[str, Sequence[dict[str, Any] | No]]
    asked: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def aws(self) -> Aws:
        """Clients that are answered from here, until another script's are asked for: they are the same ones, as making
        them takes longer than most tests do."""
        _answering.script = self
        return _clients()

    def session(self) -> boto3.Session:
        return _session(self._answer)

    def _answer(self, model: Any, **_: object) -> tuple[_Status, dict[str, Any]]:
        answers = self.answers[model.name]
        with self._lock:
            self.asked.append(model.name)
            answer = answers[min(self.asked.count(model.name), len(answers)) - 1]
        if isinstance(answer, No):
            error = {"Code": answer.code, "Message": answer.message}
            return _Status(answer.status), {
                "Error": error,
                "Reason": answer.reason,
                "ResponseMetadata": {"HTTPStatusCode": answer.status},
            }
        return _Status(200), answer


def _session(answer: Callable[..., tuple[_Status, dict[str, Any]]]) -> boto3.Session:
    session = boto3.Session(aws_access_key_id="AKIDEXAMPLE", aws_secret_access_key="secret")
    # Reading the service models is most of what a new session costs.
    session._session.register_component("data_loader", LOADER)
    session.events.register("before-call", answer)  # type: ignore[arg-type]  # the stubs know no hook that answers
    return session


class _Answering:
    script: Script

    def __call__(self, **call: Any) -> tuple[_Status, dict[str, Any]]:
        return self.script._answer(**call)


_answering = _Answering()


@functools.cache
def _clients() -> Aws:
    return Aws("eu-west-1", _session(_answering))


def started(at: datetime, snapshot: str = "snap-1") -> dict[str, Any]:
    return {"SnapshotId": snapshot, "StartTime": at, "Status": "pending"}


def snapshots(state: str, at: datetime, **more: object) -> dict[str, Any]:
    return {
        "Snapshots": [{"SnapshotId": "snap-1", "State": state, "VolumeSize": 1, "StartTime": at, "Tags": [], **more}]
    }


def images(state: str, **more: object) -> dict[str, Any]:
    tags = [{"Key": "osvdeploy", "Value": "1"}, {"Key": "osvdeploy:digest", "Value": "d" * 64}]
    return {
        "Images": [
            {
                "ImageId": "ami-1",
                "Name": "orders-1.0.0",
                "State": state,
                "RootDeviceName": "xvda",
                "BlockDeviceMappings": [{"DeviceName": "xvda", "Ebs": {"SnapshotId": "snap-1"}}],
                "Tags": tags,
                "CreationDate": "2030-01-01T00:00:00.000Z",
                **more,
            }
        ]
    }
