"""The documentation says what is there: links, recipe names, YAML, plugins, their defaults, commands and metrics."""

import dataclasses
import inspect
import re
from pathlib import Path

import pytest
import yaml

from lrl_core import cli, interfaces, types
from lrl_core.commands import recipes
from lrl_core.registry import KINDS, catalogue

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.rglob("*.md")), ROOT / "README.md", ROOT / "CHANGELOG.md"]
METHOD_HEADINGS = ["What it is", "Equations", "Recipe", "Logged metrics", "Implementation details", "Results"]

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def without_code(text):
    return re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def anchors(text):
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pages
def test_links_resolve(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text(encoding="utf-8"))):
        if "://" in target or target.startswith("mailto:"):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), target
        assert found == ROOT or found.is_relative_to(ROOT), target
        if anchor and found.suffix == ".md":
            assert anchor in anchors(found.read_text(encoding="utf-8")), target


@pages
def test_recipes_that_are_named_exist(page):
    text = page.read_text(encoding="utf-8")
    tasks = "|".join(sorted({name.partition("/")[0] for name in recipes.shipped()}))
    named = set(re.findall(rf"(?<![\w/.-])((?:{tasks})/\w+)(?![\w/.])", text))
    shown_as_misspelt = {"captioning/quikstart"}
    assert named - set(recipes.shipped()) <= shown_as_misspelt


@pages
def test_commands_that_are_named_exist(page):
    text = page.read_text(encoding="utf-8")
    shown = [line.strip() for block in blocks(text, "(?:sh|bash)") for line in block.splitlines()]
    for line in shown:
        if match := re.match(r"lrl ([a-z]\w*)", line):
            assert match[1] in cli._COMMANDS, line


@pages
def test_yaml_parses(page):
    for block in blocks(page.read_text(encoding="utf-8"), "ya?ml"):
        assert yaml.safe_load(block) is not None, block


def built_in():
    return {
        (kind, name): plugin
        for kind, plugins in catalogue().items()
        for name, plugin in plugins.items()
        if plugin.package == "lrl"
    }


def described():
    """Kind and name of every plugin on the reference page -> its argument table as (argument, default)."""
    found, kind, tables = None, None, {}
    for line in (DOCS / "reference" / "plugins.md").read_text(encoding="utf-8").splitlines():
        if match := re.match(r"## (\w+)", line):
            kind, found = match[1].lower(), None
        elif (match := re.match(r"### (\w+)$", line)) and kind in KINDS:
            found = tables.setdefault((kind, match[1]), [])
        elif found is not None and (match := re.match(r"\| `(\w+)` \| (.+?) \|", line)):
            found.append((match[1], match[2]))
    return tables


def test_plugin_page_lists_exactly_the_entry_points():
    assert set(described()) == set(built_in())


@pytest.mark.parametrize("key", sorted(built_in()), ids="-".join)
def test_plugin_page_has_the_arguments_and_their_defaults(key):
    cls = built_in()[key].load()
    own = inspect.signature(cls).parameters.values() if "__init__" in vars(cls) else ()
    expected = [(p.name, "required" if p.default is p.empty else f"`{p.default!r}`") for p in own]
    assert described().get(key) == expected


@pytest.mark.parametrize(
    "noun", [types.Prompts, types.Rollout, types.RewardSignal, types.Advantage], ids=lambda noun: noun.__name__
)
def test_types_page_has_every_field(noun):
    text = (DOCS / "reference" / "types.md").read_text(encoding="utf-8")
    section = text.partition(f"## {noun.__name__}\n")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(\w+)`", section, flags=re.MULTILINE) == [f.name for f in dataclasses.fields(noun)]


def test_interfaces_page_names_every_verb():
    text = (DOCS / "reference" / "interfaces.md").read_text(encoding="utf-8")
    for name in ("Policy", "Environment", "Decoder", "Reward", "Baseline", "Objective", "Replay", "Learner", "Task"):
        row = next(line for line in text.splitlines() if line.startswith(f"| `{name}`"))
        verbs = getattr(interfaces, name).__abstractmethods__
        assert [verb for verb in verbs if f"`{verb}(" not in row] == []


def test_every_command_is_in_the_reference():
    text = (DOCS / "reference" / "command-line.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `lrl (\w+)` \|", text, flags=re.MULTILINE)) == set(cli._COMMANDS)


@pytest.mark.parametrize("source", ["lrl_core/reports.py", "lrl_core/module.py", "lrl_plugins/objectives/reinforce.py"])
def test_run_folder_page_explains_every_metric(source):
    text = (DOCS / "reference" / "run-folder.md").read_text(encoding="utf-8")
    code = (ROOT / source).read_text(encoding="utf-8")
    literal = set(re.findall(r'"((?:reward|episode|advantage|ratio|entropy)/?\w*)"(?=:|\] =)', code)) - {"reward"}
    timed = {f"time/{name}" for name in re.findall(r'self\._clock\("(\w+)"\)', code)}
    logged = {name if "/" in name and not name.startswith("ratio") else f"train/{name}" for name in literal} | timed
    assert logged, f"no metric found in {source}: this test must be adapted"
    assert {name for name in logged if f"`{name}`" not in text} == set()


def test_run_folder_page_explains_every_field_of_an_episode():
    text = (DOCS / "reference" / "run-folder.md").read_text(encoding="utf-8")
    code = (ROOT / "lrl_plugins/callbacks/rollout_log.py").read_text(encoding="utf-8")
    fields = re.findall(r'^ {16}"(\w+)":', code, flags=re.MULTILINE)
    section = text.partition("## rollouts.jsonl")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(\w+)`", section, flags=re.MULTILINE) == fields


@pytest.mark.parametrize("page", sorted((DOCS / "reference" / "methods").glob("*.md")), ids=lambda page: page.stem)
def test_method_pages_have_the_fixed_headings(page):
    assert re.findall(r"^## (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE) == METHOD_HEADINGS


def test_navigation_has_every_page():
    def files(nav):
        if isinstance(nav, str):
            return [nav]
        return [file for entry in (nav.values() if isinstance(nav, dict) else nav) for file in files(entry)]

    nav = yaml.safe_load((DOCS / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    assert sorted(files(nav)) == sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
