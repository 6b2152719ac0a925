"""Presets: parts of recipes that differ in baseline, objective and replay alone."""

from dataclasses import replace

import pytest
import torch
import yaml

from lrl_core.commands import recipes, train
from lrl_core.registry import KINDS, catalogue
from lrl_core.testing.toy import ToySampler, every_episode, tree_world
from lrl_core.types import Experience
from lrl_plugins.decoders.sample import Greedy

PRESETS = {name.removeprefix("presets/"): path for name, path in recipes.shipped().items() if recipes.is_preset(name)}
TOY = {
    "model": {
        "policy": {"class_path": "Recurrent", "init_args": {"embedding": 8, "hidden": 8}},
        "decoder": {"class_path": "Sample", "init_args": {"max_length": 3}},
        "reward": "BLEU",
        "baseline": "BatchMean",
        "objective": {"class_path": "Reinforce", "init_args": {"aggregation": "token-mean", "entropy_bonus": 0.3}},
        "replay": "Fresh",
        "optimizer": {"class_path": "SGD", "init_args": {"lr": 0.1}},
    },
    "data": {"class_path": "lrl_core.testing.toy_task.ToyTask", "init_args": {"prompts": 4}},
    "trainer": {
        "max_epochs": 1,
        "limit_train_batches": 1,
        "limit_val_batches": 0,
        "accelerator": "cpu",
        "log_every_n_steps": 1,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    },
}


def build(kind, written):
    """The plugin that a preset names, with what it names inside."""
    written = {"class_path": written} if isinstance(written, str) else written
    inside = {
        key: build(kind, value) if key in (KINDS[kind], "source") and value is not None else value
        for key, value in written.get("init_args", {}).items()
    }
    return catalogue()[kind][written["class_path"]].load()(**inside)


def parts(name):
    return yaml.safe_load(PRESETS[name].read_text())["model"]


# What they say


def test_all_are_there():
    family = {"cispo", "dapo", "dr_grpo", "grpo", "gspo", "ppo", "reinforce_plus_plus", "remax", "rloo"}
    assert set(PRESETS) >= family


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_holds_parts_of_the_method_alone(name):
    tree = yaml.safe_load(PRESETS[name].read_text())
    assert set(tree) == {"model"}
    assert set(tree["model"]) <= {"policy", "decoder", "reference", "baseline", "objective", "replay"}
    assert {"baseline", "objective", "replay"} <= set(tree["model"])
    assert not {"class_path"} & (set(tree["model"]["decoder"]) | set(tree["model"].get("policy", {})))


@pytest.mark.parametrize("name", PRESETS)
def test_heads(name):
    recipe = recipes.read(f"presets/{name}", PRESETS[name])
    assert recipe.summary.startswith("A preset: ")
    assert all((recipe.paper, recipe.result, recipe.time))
    assert recipe.command.endswith(f"--config presets/{name}")
    assert recipe.command.count("--config") == 2


# What they compute


def first_gradient(name, rewards):
    """The gradient of a preset's first update on four episodes of one prompt, whose lengths are equal."""
    policy, reward = tree_world()
    everything, _ = every_episode(policy, 2)
    rollout = everything.select(torch.tensor([0, 4, 5, 7]))
    group = torch.zeros(4, dtype=torch.long)
    rollout = replace(
        rollout, prompts=replace(rollout.prompts, group=group), reference_logprobs=rollout.logprobs.clone()
    )
    signal = replace(reward.score(rollout), total=torch.tensor(rewards, dtype=torch.float64))
    baseline, objective = (build(kind, parts(name)[KINDS[kind]]) for kind in ("baselines", "objectives"))
    sampler = ToySampler(policy, Greedy(), reward)
    experience = Experience(rollout, signal, baseline.advantage(rollout, signal, sampler))
    mean = (objective.loss(policy, experience).total / objective.count(experience)).sum()
    return torch.autograd.grad(mean, policy.table)[0]


REWARDS = [1.0, 0.0, 0.0, 1.0]
"""Mean 1/2; standard deviation 0.57735 over n - 1, 1/2 over n."""
STEPS, CONSTANT, EPSILON = 2, 32, 1e-4


@pytest.mark.parametrize(
    ("name", "factor"),
    [
        ("dr_grpo", 1 / CONSTANT),  # sums over a constant
        ("rloo", 4 / 3),  # sums; G / (G - 1) because a sample is compared with the others
        ("grpo", 1 / (0.5773503 + EPSILON) / STEPS),  # means over each episode, in units of the spread
        ("dapo", 1 / (0.5773503 + EPSILON) / STEPS),  # means over all tokens
        ("gspo", 1 / (0.5773503 + EPSILON) / STEPS),
        ("cispo", 1 / (0.5773503 + EPSILON) / STEPS),
        ("reinforce_plus_plus", 1 / 0.5 / STEPS),
    ],
)
def test_at_the_first_update_all_have_the_same_direction(name, factor):
    """By hand: the mean over episodes of (R - mean) times the gradient of the episode's log-probability."""
    policy, _ = tree_world()
    rollout = every_episode(policy, 2)[0].select(torch.tensor([0, 4, 5, 7]))
    weights = torch.tensor(REWARDS, dtype=torch.float64) - 0.5
    plain = torch.autograd.grad(-(weights * policy(rollout).logprobs.sum(1)).mean(), policy.table)[0]
    assert plain.abs().max() > 0.05
    assert torch.allclose(first_gradient(name, REWARDS), factor * plain, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("name", ["dr_grpo", "rloo", "grpo", "dapo", "gspo", "cispo", "reinforce_plus_plus"])
def test_equal_rewards_teach_nothing(name):
    assert first_gradient(name, [0.7] * 4).abs().max() < 1e-9


# Whether they run


def fit(folder, *presets):
    """One batch of the toy task by the toy recipe and presets; the run's saved options."""
    recipe = folder / "toy.yaml"
    recipe.write_text(yaml.safe_dump(TOY))
    configs = [option for preset in presets for option in ("--config", f"presets/{preset}")]
    assert train.main(["fit", "--config", str(recipe), *configs, f"--run_dir={folder / 'run'}"]) == 0
    return yaml.safe_load((folder / "run" / "config.yaml").read_text())["model"]


@pytest.mark.parametrize("name", PRESETS)
def test_a_recipe_runs_with_a_preset(name, tmp_path):
    model = fit(tmp_path, name)
    written = parts(name)["objective"]
    assert model["objective"]["class_path"].endswith(f".{written['class_path']}")
    assert model["objective"]["init_args"].items() >= written["init_args"].items()
    assert model["decoder"]["init_args"] == model["decoder"]["init_args"] | parts(name)["decoder"]["init_args"]
    assert model["decoder"]["init_args"]["max_length"] == 3


def test_a_preset_leaves_nothing_of_another_objective_behind(tmp_path):
    model = fit(tmp_path, "ppo", "gspo")
    assert model["objective"]["init_args"] == parts("gspo")["objective"]["init_args"]
