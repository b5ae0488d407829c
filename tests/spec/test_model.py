"""The model as a Python API, its JSON Schema, and the reference that shows every key."""

from __future__ import annotations

import json
import re
import tomllib
from datetime import timedelta
from importlib import resources
from typing import Any, get_origin

import pytest
from pydantic import ValidationError

from osvdeploy.errors import SpecError
from osvdeploy.sizes import parse_duration
from osvdeploy.spec import Spec
from osvdeploy.spec.keys import inner, is_table, keys_of
from osvdeploy.spec.model import Deploy, File, Health, Image, Kernel, Route
from osvdeploy.spec.schema import json_schema
from tests.spec.specs import DEPLOY, SMALL, on_aws, problems, read

REFERENCE = resources.files("osvdeploy.spec").joinpath("reference.toml").read_text()
# The keys of a source tree stand in comments, because they take the place of another one.
OTHER_ROAD = re.sub(
    r"^file = .*\n", "", re.sub(r"^# (?=(tree|options|jobs|fs|modules) = )", "", REFERENCE, flags=re.M), flags=re.M
)


def test_the_model_is_the_python_api() -> None:
    """A spec made in Python, by the names Python has for the keys, equals the one that was read."""
    made = Spec(
        name="hello",
        version="1.0.0",
        kernel=Kernel(file="loader.img"),
        image=Image(command=["/hello", "--port", "8080"]),
        files=[File(from_="build/hello", to="/hello")],
        deploy={
            "production": Deploy(
                cloud="aws",
                region="eu-west-1",
                subnets=["subnet-0a"],
                listener="arn:aws:elasticloadbalancing:eu-west-1:111122223333:listener/app/web/1/2",
                route=Route(path="/*", priority=100),
                port=8080,
                ledger="releases",
            )
        },
    )

    assert made == read(SMALL + DEPLOY)


def test_durations_in_python_carry_their_unit_too() -> None:
    """A timedelta or a text with its unit is taken, a bare number is not."""
    assert Health.model_validate({"interval": timedelta(seconds=30)}).interval == 30.0
    assert Health.model_validate({"interval": "30s"}).interval == 30.0
    with pytest.raises(ValidationError, match="a duration with its unit"):
        Health.model_validate({"interval": 30})


def test_a_spec_does_not_change() -> None:
    """What was validated stays as it was."""
    spec = read(SMALL)

    with pytest.raises(ValidationError, match="frozen"):
        spec.version = "2"  # type: ignore[misc]  # what is refused


def test_the_reference_is_a_spec() -> None:
    """What the reference shows is taken as it stands."""
    spec = read(REFERENCE, environ={"ORDERS_LISTENER": "arn:aws:x"})

    assert on_aws(spec).listener == "arn:aws:x"


def test_the_other_road_of_the_reference_is_a_spec() -> None:
    """So is what it shows of a source tree in place of a prebuilt kernel."""
    spec = read(OTHER_ROAD, environ={"ORDERS_LISTENER": "x"})

    assert spec.kernel.tree == "../osv" and spec.kernel.options["mode"] == "release"


def test_the_reference_shows_every_key() -> None:
    """No key of the model is missing from the reference."""
    # What excludes something else that is shown stands behind a #.
    shown = re.sub(r"^# (?=[a-z-]+ = )", "", REFERENCE, flags=re.M)
    missing = list(_missing(Spec, [tomllib.loads(shown)], ""))

    assert missing == []


@pytest.mark.parametrize(
    "instead", ['release = "v0.57.0"\nvariant = "hidden"', 'url = "https://acme.example/loader.img.gz"']
)
def test_a_kernel_comes_from_one_place(instead: str) -> None:
    """Each source is taken alone, and beside another it is told which is one too many."""
    file = 'file = "loader.img"'

    assert read(SMALL.replace(file, instead)).kernel.file is None
    told = problems(SMALL.replace(file, f"{file}\n{instead}"))
    assert len(told) == 1 and "is one too many: there is file" in told[0]


def _missing(kind: Any, examples: list[Any], path: str) -> list[str]:
    """Keys of a table that no example of it has, and below it."""
    if is_table(kind):
        missing = []
        for key in keys_of(kind):
            values = [example[key] for example in examples if key in example]
            missing += _missing(inner(kind, key), values, f"{path}.{key}") if values else [f"{path}.{key}"]
        return missing
    if get_origin(kind) is list:
        return _missing(inner(kind, 0), [each for example in examples for each in example], f"{path}[]")
    if get_origin(kind) is dict:
        return _missing(inner(kind, ""), [each for example in examples for each in example.values()], f"{path}.*")
    return []


def test_what_the_reference_calls_a_default_is_one() -> None:
    """A line of the reference that says `default` shows the value that leaving it out has."""
    without = "\n".join(line for line in REFERENCE.splitlines() if "# default" not in line)
    environ = {"ORDERS_LISTENER": "x"}

    assert without != REFERENCE
    assert read(without, environ=environ) == read(REFERENCE, environ=environ)


def test_the_schema_speaks_the_words_of_the_file() -> None:
    """Keys are kebab-case, each with a description; nothing is null; defaults carry their units."""
    schema = json_schema()
    deploy = schema["$defs"]["Deploy"]["properties"]
    health = schema["$defs"]["AwsHealth"]["properties"]

    assert {"instance-type", "security-groups"} <= set(deploy)
    assert "from" in schema["$defs"]["File"]["properties"]
    assert '"null"' not in json.dumps(schema)
    assert parse_duration(health["boot-timeout"]["default"]) == 60.0
    assert schema["$defs"]["Image"]["properties"]["boot"]["properties"]["verbose"] == {"type": "boolean"}
    for table in [schema, *schema["$defs"].values()]:
        assert table["additionalProperties"] is False
        for key, value in table["properties"].items():
            assert _described(value, schema["$defs"]), f"{table['title']}.{key} says nothing"


def _described(value: dict[str, Any], tables: dict[str, Any]) -> bool:
    """A key with words of its own, or a table that is described where it is defined."""
    return bool(value.get("description") or tables[value["$ref"].rpartition("/")[2]].get("description"))


PRICES = '\n[prices]\ncurrency = "USD"\nmachines = {{ "t3.small" = {} }}\n'


@pytest.mark.parametrize(
    ("written", "amount"), [('"0.0228"', "0.0228"), ("0.0228", "0.0228"), ("2", "2"), ('"0.10"', "0.10")]
)
def test_money_is_what_was_written(written: str, amount: str) -> None:
    """To the last digit, as a text or as a number."""
    prices = read(SMALL + PRICES.format(written)).prices
    assert prices is not None and str(prices.machines["t3.small"]) == amount


@pytest.mark.parametrize("written", ["-1", '"1e3"', '"cheap"', "true", "nan", "inf", '""', "1e-12", '"1,5"'])
def test_what_is_no_money_is_refused(written: str) -> None:
    """With an amount that is."""
    with pytest.raises(SpecError) as refused:
        read(SMALL + PRICES.format(written))
    assert "0.0228" in str(refused.value)
