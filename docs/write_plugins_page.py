"""Writes reference/plugins.md from the docstrings of the built-in plugins: `python docs/write_plugins_page.py`."""

import importlib
import inspect
from pathlib import Path

from docstring_parser import parse

from lrl_core.registry import catalogue

PAGE = Path(__file__).with_name("reference") / "plugins.md"
BY_HAND = "## Captioning sources and features\n"
"""From this heading on the page is written by hand."""
SMALL = {
    "Objects that arguments take": (
        "No plugins of their own, but filled in by recipes: `train` of policies, `constraints` of decoders,\n"
        "`normalise` of the rewards `Sum` and `Guard`, `reference` and `warm_up` of `model`.",
        [
            "lrl_plugins.policies.trained:Trained",
            "lrl_plugins.decoders.limits:Constraints",
            "lrl_plugins.rewards.normalise:Standardise",
            "lrl_plugins.rewards.normalise:BatchStandardise",
            "lrl_plugins.rewards.normalise:Clip",
            "lrl_core.reference:Reference",
            "lrl_core.phases:WarmUp",
        ],
    ),
    "Networks of a discriminator": (
        "What `network` of the reward `Discriminator` takes, by name. See\n"
        "[Adversarial training](methods/adversarial.md).",
        [
            "lrl_plugins.rewards.discriminator_networks:TextCNN",
            "lrl_plugins.rewards.discriminator_networks:TextEncoder",
        ],
    ),
    "Sources of ranked answers": (
        "What `source` of the task `Preferences` takes, by name. See [Preferences](methods/preferences.md).",
        [
            "lrl_plugins.tasks.preferences.made_up:MadeUpPreferences",
            "lrl_plugins.tasks.preferences.sources:RankedJsonLines",
            "lrl_plugins.tasks.preferences.sources:StoredLabels",
            "lrl_plugins.tasks.preferences.published:Dialogues",
            "lrl_plugins.tasks.preferences.published:RatedTranslations",
            "lrl_plugins.tasks.preferences.published:Continuations",
        ],
    ),
    "Text sources": (
        "What `source` of a text task takes, by name (`VerbLast`: of `SimultaneousTranslation`). See\n"
        "[Text tasks](../how-to/text-tasks.md).",
        [
            "lrl_plugins.tasks.text.sources:JsonLines",
            "lrl_plugins.tasks.text.sources:Parallel",
            "lrl_plugins.tasks.text.plain:PlainText",
            "lrl_plugins.tasks.text.hub:HubDataset",
            "lrl_plugins.tasks.text.sums:Sums",
            "lrl_plugins.tasks.text.made_up:MadeUpMatches",
            "lrl_plugins.tasks.text.made_up:MadeUpScenes",
            "lrl_plugins.tasks.text.made_up:MadeUpVenues",
            "lrl_plugins.tasks.text.made_up:MadeUpStories",
            "lrl_plugins.tasks.simultaneous_translation.made_up:VerbLast",
        ],
    ),
    "Worlds and players of goal-oriented questions": (
        "What `world`, `oracle` and `guesser` of `GoalOrientedQuestions` take, by name. See\n"
        "[Goal-oriented questions](methods/goal-oriented-questions.md).",
        [
            "lrl_plugins.tasks.goal_oriented_questions.tables:AttributeTable",
            "lrl_plugins.tasks.goal_oriented_questions.scenes:SceneWorld",
            "lrl_plugins.tasks.goal_oriented_questions.nlvr:NlvrWorld",
            "lrl_plugins.tasks.goal_oriented_questions.guesswhat:GuessWhatWorld",
            "lrl_plugins.tasks.goal_oriented_questions.players:TruthfulOracle",
            "lrl_plugins.tasks.goal_oriented_questions.learned:LearnedOracle",
            "lrl_plugins.tasks.goal_oriented_questions.players:BayesGuesser",
            "lrl_plugins.tasks.goal_oriented_questions.learned:LearnedGuesser",
        ],
    ),
}
"""What recipes name beside plugins: heading -> introduction and where the classes are."""
HEAD = """\
# Built-in plugins

`lrl plugins` lists what is installed on your machine. `lrl fit --model.reward.help NAME` prints the same as below for
any plugin. Defaults stand as YAML values in recipes; `None` is written `null` there. This page is written from the code
by `python docs/write_plugins_page.py`; a test holds it to the code.
"""


def generated() -> str:
    """The part of the page that comes from the code."""
    parts = [HEAD]
    for kind, plugins in catalogue().items():
        parts.append(f"## {kind.capitalize()}\n")
        parts += [_section(plugin.load()) for _, plugin in sorted(plugins.items()) if plugin.package == "lrl"]
    for heading, (introduction, paths) in SMALL.items():
        parts += [f"## {heading}\n", f"{introduction}\n"]
        parts += [_section(_class_at(path)) for path in paths]
    return "\n".join(parts)


def _class_at(path: str) -> type:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def _section(cls: type) -> str:
    doc = parse(inspect.cleandoc(cls.__doc__ or ""))
    meaning = {param.arg_name: " ".join((param.description or "").split()).replace("|", r"\|") for param in doc.params}
    own = inspect.signature(cls).parameters.values() if "__init__" in vars(cls) else ()
    rows = [f"| `{p.name}` | {_default(p)} | {meaning.get(p.name, '')} |" for p in own]
    table = ["", "| argument | default | meaning |", "|---|---|---|", *rows] if rows else ["", "No arguments."]
    return "\n".join([f"### {cls.__name__}", "", str(doc.short_description), *table, ""])


def _default(parameter: inspect.Parameter) -> str:
    return "required" if parameter.default is parameter.empty else f"`{parameter.default!r}`"


def whole() -> str:
    """The page as it should stand in the file."""
    old = PAGE.read_text(encoding="utf-8")
    return f"{generated()}\n{BY_HAND}{old.partition(BY_HAND)[2]}"


if __name__ == "__main__":
    PAGE.write_text(whole(), encoding="utf-8")
