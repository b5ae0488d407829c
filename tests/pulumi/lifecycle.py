"""What holds for every resource of the provider, whichever it is."""

from __future__ import annotations

from collections.abc import Mapping

from osvdeploy.provider.values import Properties, Secret, Value, has_secrets, is_known
from tests.pulumi.process import Diffed, ProviderProcess

NOTHING = Diffed("DIFF_NONE", {}, [])


def lives_a_whole_life(
    provider: ProviderProcess, token: str, given: Properties, changed: Properties, *, imported: bool = True
) -> None:
    """From a preview to the second deletion: ``given`` is created, read, imported by its id alone, updated to
    ``changed`` (which replaces nothing), and deleted twice."""
    inputs, failures = provider.check(token, given)
    assert failures == []
    again, failures = provider.check(token, given, inputs)
    assert (again, failures) == (inputs, []), "checked twice, it is the same"

    _, foreseen = provider.create(token, inputs, preview=True)
    id, outputs = provider.create(token, inputs)
    assert id
    assert set(foreseen) >= set(outputs), "a preview leaves no output out"
    assert _agree(foreseen, outputs), "a preview says nothing that does not come true"
    assert set(inputs) <= set(outputs), "every input is an output"
    _keeps_secrets(inputs, outputs)

    assert provider.diff(token, id, outputs, inputs, inputs) == NOTHING
    # In a refresh what was read is the old state, and what was given before is new.
    read_id, read, kept = provider.read(token, id, outputs, inputs)
    assert read_id == id
    assert provider.diff(token, id, read, kept or inputs, inputs) == NOTHING
    _keeps_secrets(inputs, read)

    if imported:
        imported_id, state, told = provider.read(token, id)
        assert imported_id == id
        assert told is not None, "an import says what the inputs are"
        checked, failures = provider.check(token, told)
        assert failures == []
        assert provider.diff(token, id, state, told, checked) == NOTHING

    news, failures = provider.check(token, changed, inputs)
    assert failures == []
    planned = provider.diff(token, id, outputs, inputs, news)
    assert planned.changes == "DIFF_SOME"
    assert planned.replaces == []
    foreseen = provider.update(token, id, outputs, inputs, news, preview=True)
    updated = provider.update(token, id, outputs, inputs, news)
    assert set(foreseen) >= set(updated)
    assert _agree(foreseen, updated)
    assert provider.diff(token, id, updated, news, news) == NOTHING

    provider.delete(token, id, updated, news)
    provider.delete(token, id, updated, news)


def _agree(foreseen: Value, came: Value) -> bool:
    """Whether what a preview knew came true."""
    if isinstance(foreseen, Mapping) and isinstance(came, Mapping):
        return all(_agree(each, came.get(name)) for name, each in foreseen.items() if is_known(each))
    return not is_known(foreseen) or foreseen == came


def _keeps_secrets(inputs: Mapping[str, Value], outputs: Mapping[str, Value]) -> None:
    for name, value in inputs.items():
        if isinstance(value, Secret):
            assert isinstance(outputs[name], Secret), f"{name} was secret"
        assert has_secrets(value) <= has_secrets(outputs[name]), f"{name} had secrets"
