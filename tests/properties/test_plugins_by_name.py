"""Every registered plugin is found by its name, says what it is, and is suggested when its name is misspelt."""

import inspect
import json

import pytest
from registered import build, names

from lrl_core.commands import plugins
from lrl_core.interfaces import Baseline, Component, Decoder, Learner, Objective, Policy, Replay, Reward, Task
from lrl_core.registry import KINDS, PluginError, catalogue, load

BASES = {
    "policies": Policy,
    "decoders": Decoder,
    "rewards": Reward,
    "baselines": Baseline,
    "objectives": Objective,
    "replays": Replay,
    "tasks": Task,
    "learners": Learner,
}
every_plugin = pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in catalogue() for name in names(kind)])


@every_plugin
def test_the_entry_point_is_the_class_of_that_name_and_kind(kind, name):
    plugin = catalogue()[kind][name]
    assert plugin.problem is None
    cls = load(name, kind)
    assert cls.__name__ == name
    assert issubclass(cls, BASES.get(kind, object))


@every_plugin
def test_lrl_plugins_lists_it_with_package_version_and_a_sentence(kind, name, capsys):
    assert plugins.main(["--json"]) == 0
    rows = [row for row in json.loads(capsys.readouterr().out) if row["name"] == name and row["kind"] == KINDS[kind]]
    assert len(rows) == 1
    assert rows[0]["package"] == catalogue()[kind][name].package
    assert rows[0]["version"]
    assert rows[0]["description"].endswith(".")
    assert rows[0]["problem"] is None


@every_plugin
def test_a_misspelt_name_is_suggested(kind, name):
    with pytest.raises(PluginError, match=rf"Did you mean '{name}'"):
        load(name + "x", kind)


@every_plugin
def test_it_is_built_small_and_every_argument_has_a_line(kind, name):
    part = build(kind, name) if kind in BASES or kind == "callbacks" else None
    assert part is not None
    own = inspect.signature(type(part)).parameters if "__init__" in vars(type(part)) else {}
    doc = inspect.getdoc(type(part)) or ""
    assert [argument for argument in own if f"\n    {argument}: " not in doc] == []
    assert not isinstance(part, Component) or isinstance(part, BASES[kind])
