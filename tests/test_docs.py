"""The documentation says what is there: links, recipe names, YAML, plugins, their defaults, commands and metrics."""

import dataclasses
import re
import runpy
from pathlib import Path

import pytest
import yaml

from lrl_core import cli, interfaces, types
from lrl_core.commands import recipes
from lrl_plugins.callbacks import peakiness

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


def test_plugin_page_is_what_the_code_says():
    page = runpy.run_path(str(DOCS / "write_plugins_page.py"))
    assert page["PAGE"].read_text(encoding="utf-8") == page["whole"](), "run python docs/write_plugins_page.py"


def test_every_argument_of_every_plugin_is_explained():
    text = (DOCS / "reference" / "plugins.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `\w+` \| .+ \|  \|$", text, flags=re.MULTILINE) == []


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


def unexplained(metrics):
    assert metrics, "no metric found: this test must be adapted"
    text = (DOCS / "reference" / "run-folder.md").read_text(encoding="utf-8")
    return {name for name in metrics if f"`{name}`" not in text}


@pytest.mark.parametrize("source", ["lrl_core/reports.py", "lrl_core/module.py"])
def test_run_folder_page_explains_every_metric_of_the_step(source):
    code = (ROOT / source).read_text(encoding="utf-8")
    literal = set(
        re.findall(r'"((?:reward|episode|advantage|groups|kl|memory|tokens_per_second)(?:/\w+)?)"(?=:|\] =)', code)
    )
    timed = {f"time/{name}" for name in re.findall(r'self\.clock\.phase\("(\w+)"\)', code)}
    held_out = {f"val/{name}" for name in re.findall(r'scores\["(\w+)"\] =', code)}
    assert unexplained(literal | timed | held_out) == set()


LEARNT_BY = [
    *sorted((ROOT / "lrl_plugins" / "objectives").glob("*.py")),
    *(ROOT / "lrl_plugins" / name for name in ("baselines/value.py", "decoders/steering.py")),
]


def metrics_of(path):
    """What a loss reports: keys of dicts of tensors, not of tables of tuples, lists or texts."""
    found = re.findall(r'"([a-z_]+(?:/[a-z_]+)?)"(?:: |\] = )(?![("\[ ])', path.read_text(encoding="utf-8"))
    return {f"train/{name}" for name in found}


def test_run_folder_page_explains_every_metric_of_a_loss():
    assert unexplained(set().union(*(metrics_of(path) for path in LEARNT_BY))) == set()


def test_run_folder_page_explains_every_metric_of_a_callback():
    alarm = (ROOT / "lrl_plugins/callbacks/reward_hacking_alarm.py").read_text(encoding="utf-8")
    logged = set(re.findall(r'"(alarm/\w+)":', alarm))
    assert unexplained(logged | {f"peakiness/{name}" for name in peakiness.STATISTICS}) == set()


def test_family_page_has_every_preset():
    text = (DOCS / "reference" / "methods" / "grpo-family.md").read_text(encoding="utf-8")
    presets = {name for name in recipes.shipped() if recipes.is_preset(name)}
    assert set(re.findall(r"^\| `(presets/\w+)` \|", text, flags=re.MULTILINE)) == presets


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
