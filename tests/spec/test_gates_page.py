"""What docs/gates.md shows is what is read, and what it says is so."""

from __future__ import annotations

import re
from pathlib import Path

from osvdeploy.spec.gates import PLACEHOLDERS, GateMetric
from tests.spec.specs import DEPLOY, GOOGLE, ROLLED_OUT, SMALL, on_aws, read

PAGE = (Path(__file__).parents[2] / "docs" / "gates.md").read_text()
CANARY = 'strategy = { kind = "canary", steps = [{ weight = 5, bake = "5m" }], bake = "10m" }\n'


def test_the_examples_are_taken() -> None:
    """Each block, in an environment of its cloud."""
    shown = "\n".join(re.findall(r"```toml\n(.*?)```", PAGE, re.S))
    spec = read(
        f"{SMALL}{DEPLOY}\n{shown}"
        + DEPLOY.replace("production", "canary")
        + CANARY
        + GOOGLE.replace("europe]", "google]")
        + ROLLED_OUT
        + 'strategy = { bake = "10m" }\n'
    )
    assert [gate.called for gate in on_aws(spec).gates][:2] == ["HTTPCode_Target_5XX_Count per RequestCount", "p99"]
    assert len(on_aws(spec).gates) == 4
    assert len(on_aws(spec, "canary").gates) == len(spec.deploy["google"].gates) == 1


def test_every_key_of_a_metric_is_told_of() -> None:
    names = {field.alias or name for name, field in GateMetric.model_fields.items()}
    assert {name for name in names if f"`{name}`" not in PAGE and f"`{name} = " not in PAGE} == set()
    assert all(f"{{{{{name}}}}}" in PAGE for name in PLACEHOLDERS)
