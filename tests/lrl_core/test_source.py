import sys

import pytest

from lrl_core import source, syntax
from lrl_core.registry import catalogue


@pytest.fixture(autouse=True)
def forget():
    yield
    source.forget()


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


def file_with(folder, text):
    path = folder / "s_glance.py"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    "plugin", [p for of_kind in catalogue().values() for p in of_kind.values()], ids=lambda p: p.value
)
def test_a_glance_at_a_plugin_says_what_its_syntax_tree_says(plugin):
    path = source._find(plugin.module)
    assert source._glance(path, plugin.attribute) == syntax.summary(syntax.parse(path), plugin.attribute)


ORDINARY = {
    "one line": ('class A:\n    """One."""\n', "One."),
    "bases": (
        'class B: pass\nclass A(B, metaclass=type):  # why\n\n    # because\n    """One.\n\n    Two."""\n',
        "One.",
    ),
    "bases in lines": ('class A(\n    B,\n    C,\n):\n    """\n    One.  \n    """\n', "One."),
    "quotes": ('class A:\n    """Says "one" and {"two"}."""\n', 'Says "one" and {"two"}.'),
    "empty": ('class A:\n    """"""\n', ""),
    "decorated": ('@final\nclass A:\n    """One."""\n', "One."),
    "longer name before": ('class AB:\n    """No."""\nclass A:\n    """One."""\n', "One."),
}


@pytest.mark.parametrize("case", ORDINARY)
def test_what_a_glance_sees(tmp_path, case):
    text, first = ORDINARY[case]
    path = file_with(tmp_path, text)
    assert source._glance(path, "A") == first == syntax.summary(syntax.parse(path), "A")


UNUSUAL = {
    "no docstring": "class A:\n    x = 1\n",
    "on one line": "class A: pass\n",
    "escapes": 'class A:\n    """One\\ttwo."""\n',
    "raw": 'class A:\n    r"""One."""\n',
    "single quotes": "class A:\n    'One.'\n",
    "brackets in bases": 'class A(f("x")):\n    """One."""\n',
    "in a condition": 'if True:\n    class A:\n        """One."""\n',
    "twice": 'class A:\n    """One."""\nclass A:\n    """Two."""\n',
    "within a docstring": '"""Write\n\nclass A:\n    so.\n"""\n',
    "within a docstring with its own": "\"\"\"Write\n\nclass A:\n    '''so.'''\n\"\"\"\n",
    "assigned": "A = object\n",
}


@pytest.mark.parametrize("case", UNUSUAL)
def test_where_a_glance_does_not_do_the_syntax_tree_is_asked(tmp_path, monkeypatch, case):
    monkeypatch.syspath_prepend(str(tmp_path))
    path = file_with(tmp_path, UNUSUAL[case])
    assert source._glance(path, "A") is None
    assert source.summary("s_glance", "A") == syntax.summary(syntax.parse(path), "A")


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("import never_installed", True),
        ("import os, never_installed.sub as n", True),
        ("from never_installed.sub import x", True),
        ("x = 1; import never_installed", True),
        ("if True: import never_installed", False),
        ("def f():\n    import never_installed", False),
        ('"""\nimport never_installed\n"""', False),
        ("from .never_installed import x", False),
        ("from os import (\n    path,\n)", False),
    ],
)
def test_imports_that_must_fail(tmp_path, monkeypatch, line, found):
    monkeypatch.syspath_prepend(str(tmp_path))
    file_with(tmp_path, f'{line}\nclass A:\n    """One."""\n')
    assert ("never_installed" in (source.missing("s_glance", "A") or "")) is found


def test_a_syntax_error_behind_the_class_shows_where_byte_code_is_kept(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "pycache_prefix", str(tmp_path / "kept"))
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    path = file_with(tmp_path, 'class A:\n    """One."""\n\ndef f(:\n')
    assert "SyntaxError" in source.missing("s_glance", "A")
    path.write_text('class A:\n    """One."""\n')
    source.forget()
    assert source.missing("s_glance", "A") is None
    assert list((tmp_path / "kept").rglob("s_glance*.pyc"))
