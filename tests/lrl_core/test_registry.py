import subprocess
import sys
from pathlib import Path

import pytest

from lrl_core import registry
from lrl_core.registry import KINDS, PluginError, catalogue, load, origin, suggest, unknown


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Puts distributions on the path: install("name", "1.0", {"rewards": {"Name": "module:Name"}}, {file: text})."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def put(package, version, points, files):
        info = tmp_path / f"{package}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
        lines = []
        for kind, names in points.items():
            lines += [f"[lrl.{kind}]", *(f"{name} = {value}" for name, value in names.items())]
        (info / "entry_points.txt").write_text("\n".join(lines))
        for file, text in files.items():
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).write_text(text)
        registry.forget()

    yield put
    registry.forget()


REWARD = '''
from lrl_core.interfaces import Reward

class {name}(Reward):
    """Pays {name}.

    More text.
    """

    def score(self, rollout):
        return None
'''


def test_the_shipped_plugins_come_by_the_same_door():
    assert set(catalogue()) == set(KINDS)
    sample = catalogue()["decoders"]["Sample"]
    assert (sample.package, sample.value) == ("lrl", "lrl_plugins.decoders.sample:Sample")
    assert list(catalogue()["rewards"]) == sorted(catalogue()["rewards"])


def test_a_stranger_is_listed_described_loaded_and_named(install):
    install(
        "far-away",
        "3.1",
        {"rewards": {"Far": "far_away.deep.rewards:Far"}},
        {
            "far_away/__init__.py": "raise RuntimeError('listing must not import me')",
            "far_away/deep/__init__.py": "raise RuntimeError('nor me')",
            "far_away/deep/rewards.py": REWARD.format(name="Far"),
        },
    )
    plugin = catalogue()["rewards"]["Far"]
    assert (plugin.package, plugin.version, plugin.summary, plugin.problem) == ("far-away", "3.1", "Pays Far.", None)
    assert "far_away" not in sys.modules


def test_load_by_name_and_origin(install):
    install(
        "nearby", "0.2", {"rewards": {"Near": "nearby_rewards:Near"}}, {"nearby_rewards.py": REWARD.format(name="Near")}
    )
    cls = load("Near")
    assert cls.__name__ == "Near"
    assert load("Near", "rewards") is cls
    assert origin(cls) == "nearby 0.2"
    assert origin(Path) == "pathlib"


def test_a_name_of_two_kinds_needs_its_kind():
    with pytest.raises(PluginError, match="ambiguous: reward of lrl and objective of lrl"):
        load("Sum")
    assert load("Sum", "objectives").__module__ == "lrl_plugins.objectives.sum"


def test_two_packages_with_one_name_are_both_told(install):
    for package in ("one", "two"):
        install(
            package,
            "1.0",
            {"rewards": {"Same": f"{package}_same:Same"}},
            {f"{package}_same.py": REWARD.format(name="Same")},
        )
    plugin = catalogue()["rewards"]["Same"]
    assert "one and two both register the reward 'Same'" in plugin.problem
    assert "one_same.Same or two_same.Same" in plugin.problem
    with pytest.raises(PluginError, match="one and two both register"):
        load("Same")


def test_the_same_distribution_twice_on_the_path_counts_once(install, tmp_path, monkeypatch):
    install("copy", "1.0", {"rewards": {"Copy": "copy_of:Copy"}}, {"copy_of.py": REWARD.format(name="Copy")})
    other = tmp_path / "older" / "Copy-0.9.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: Copy\nVersion: 0.9\n")
    (other / "entry_points.txt").write_text("[lrl.rewards]\nCopy = copy_of:Copy")
    monkeypatch.setattr(sys, "path", [*sys.path, str(other.parent)])
    registry.forget()
    plugin = catalogue()["rewards"]["Copy"]
    assert (plugin.version, plugin.problem) == ("1.0", None)


BROKEN = {
    "no_module": ("nowhere_at_all:X", {}, "No module named 'nowhere_at_all'"),
    "no_submodule": ("x_pack.missing:X", {"x_pack/__init__.py": ""}, "No module named 'x_pack.missing'"),
    "no_class": ("x_empty:X", {"x_empty.py": "class Y: pass"}, "module 'x_empty' has no class 'X'"),
    "syntax": ("x_syntax:X", {"x_syntax.py": "class X(:"}, "SyntaxError"),
    "dependency": ("x_needs:X", {"x_needs.py": "import never_installed.sub\nclass X: pass"}, "'never_installed'"),
    "other_name": ("x_name:Z", {"x_name.py": "class Z: pass"}, "must bear the name of its class"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_broken_and_why_is_found_without_an_import(install, case):
    value, files, reason = BROKEN[case]
    install("broken-things", "1.0", {"rewards": {"X": value}}, files)
    plugin = catalogue()["rewards"]["X"]
    assert reason in plugin.problem
    with pytest.raises(PluginError, match=r"reward 'X' of package broken-things 1.0 cannot be loaded from") as caught:
        load("X")
    assert "Repair or reinstall broken-things" in str(caught.value)
    assert catalogue()["rewards"]["CIDErD"].problem is None


FINE = {
    "guarded": "try:\n    import never_installed\nexcept ImportError:\n    never_installed = None\nclass X: pass",
    "typing": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import never_installed\nclass X: pass",
    "re-export": "from collections import OrderedDict as X",
    "conditional": "import sys\nif sys.version_info > (3,):\n    class X: pass\nelse:\n    class X: pass",
    "star": "from collections import *",
    "compiled": "import _json, sys, torch._C\nclass X: pass",
}


@pytest.mark.parametrize("case", FINE)
def test_what_may_work_is_not_called_broken(install, case):
    install("fine-things", "1.0", {"rewards": {"X": "x_fine:X"}}, {"x_fine.py": FINE[case]})
    assert catalogue()["rewards"]["X"].problem is None


def test_a_class_of_the_wrong_kind_is_refused(install):
    install("wrong-kind", "1.0", {"rewards": {"X": "x_wrong:X"}}, {"x_wrong.py": "class X: pass"})
    with pytest.raises(PluginError, match=r"no subclass of Reward; derive it from lrl_core.interfaces.Reward"):
        load("X")


def test_unknown_names_get_a_guess_and_the_list():
    assert unknown("CIDERD", "rewards").startswith(
        "There is no reward 'CIDERD'. Did you mean 'CIDErD'? Installed rewards: "
    )
    assert "CIDErD" in unknown("Zebra", "rewards")
    assert "Did you mean" not in unknown("Zebra", "rewards")
    with pytest.raises(PluginError, match="Did you mean 'Sample'"):
        load("Sampel")


def test_suggest():
    assert suggest("fti", ["fit", "test"]) == "Did you mean 'fit'? "
    assert suggest("qqq", ["fit", "test"]) == ""


def test_listing_imports_neither_torch_nor_plugins():
    code = (
        "import sys; from lrl_core.registry import catalogue\n"
        "[(p.summary, p.problem) for ps in catalogue().values() for p in ps.values()]\n"
        "print([m for m in ('torch', 'lightning', 'jsonargparse', 'lrl_plugins', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
