import pytest

from lrl_core import source


@pytest.fixture(autouse=True)
def forget():
    yield
    source._parse.cache_clear()
    source._top_level.cache_clear()


def test_summary_is_the_first_line_of_the_class(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "s_mod.py").write_text(
        '"""Of the module."""\nif True:\n    class A:\n        """One.\n\n        Two."""\nclass B: pass'
    )
    assert source.summary("s_mod", "A") == "One."
    assert source.summary("s_mod", "B") == ""
    assert source.summary("s_mod", "C") == ""
    assert source.summary("s_nowhere", "C") == ""


def test_namespace_packages_and_compiled_modules_are_not_called_missing(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "s_space" / "part").mkdir(parents=True)
    (tmp_path / "s_space" / "part" / "fast.cpython-311-x86_64-linux-gnu.so").write_text("")
    (tmp_path / "s_space" / "part" / "slow.py").write_text("class A: pass")
    assert source.missing("s_space.part.slow", "A") is None
    assert source.missing("s_space.part.fast", "A") is None
    assert "No module named 's_space.part.nothing'" in source.missing("s_space.part.nothing", "A")
    assert source.missing("math", "A") is None
