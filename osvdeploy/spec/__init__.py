"""What the user declares: osv.toml as a model, read with every problem reported at once."""

from osvdeploy.spec.load import (
    LoadedSpec,
    environment_of_document,
    gate_of_document,
    hook_of_document,
    load,
    notify_of_document,
    of_document,
    parse,
)
from osvdeploy.spec.model import Spec

__all__ = [
    "LoadedSpec",
    "Spec",
    "environment_of_document",
    "gate_of_document",
    "hook_of_document",
    "load",
    "notify_of_document",
    "of_document",
    "parse",
]
