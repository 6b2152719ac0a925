import math
from dataclasses import replace

import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from lrl_core.interfaces import Reward, bind_all
from lrl_core.module import PolicyGradient
from lrl_core.sampling import Sampling
from lrl_core.scoring import judge
from lrl_core.testing.rewards import check_reward, example_rollout, facts_of
from lrl_core.testing.toy import ToySampler, tree_world
from lrl_core.testing.toy_task import ToyTask
from lrl_core.types import Experience, Rollout
from lrl_plugins.baselines.constant import Constant
from lrl_plugins.decoders.sample import Sample
from lrl_plugins.objectives.ppo import PPO
from lrl_plugins.objectives.reinforce import Reinforce
from lrl_plugins.policies.recurrent import Recurrent
from lrl_plugins.replays.epochs import Epochs
from lrl_plugins.replays.fresh import Fresh
from lrl_plugins.rewards.discriminator import Discriminator, paid
from lrl_plugins.rewards.discriminator_lines import Contrast, Lines
from lrl_plugins.rewards.discriminator_networks import TextCNN, TextEncoder

TASK = ToyTask()
ENCODER = {
    "model_type": "bert",
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "initializer_range": 0.2,  # 16 wide, it would take long to leave the usual tiny weights
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}


def cnn():
    return TextCNN(filters={1: 8, 2: 8}, embedding=8)


def made(network=None, seed=0, **options):
    torch.manual_seed(seed)
    reward = Discriminator(network=cnn() if network is None else network, **options)
    bind_all(reward, TASK.facts())
    return reward


def answers(rows):
    """Human answers to the toy task: a letter and its successor, then the end."""
    return Rollout.of_targets(TASK._collate([(row, 0) for row in range(rows)]))


def nonsense(rows):
    """Episodes of the same prompts: one letter twice, then the end."""
    real = answers(rows)
    tokens = real.tokens.clone()
    tokens[:, 1] = tokens[:, 0]
    return replace(real, tokens=tokens, sampling=Sampling(), texts=("",) * rows)


def experience(rows=12):
    return Experience(nonsense(rows), None, None, answers(rows))


class Drawing(ToySampler):
    """Draws nonsense and counts."""

    def __init__(self, step=0, holding=False):
        policy, reward = tree_world()
        super().__init__(policy, Sample(max_length=2), reward)
        self.step, self.holding, self.drawn = step, holding, []

    def draw(self, prompts, decoder=None):
        assert not torch.is_grad_enabled()
        self.drawn.append(len(prompts))
        return nonsense(len(prompts))


def lesson(rows=12):
    return Contrast(Lines.of(answers(rows)), Lines.of(nonsense(rows)))


def update(reward, one, optimizer):
    optimizer.zero_grad()
    loss = reward.learn(one)
    (loss.total / reward.count(one)).backward()
    optimizer.step()
    return loss.metrics


def teach(reward, seed=1):
    torch.manual_seed(seed)
    optimizer = torch.optim.Adam(reward.parameters(), lr=1e-2)
    for one in reward.lessons(experience(), Drawing()):
        metrics = update(reward, one, optimizer)
    return metrics


# The reward


def test_conforms():
    for options in ({}, {"prompt": True}, {"output": "logit"}):

        def make(options=options):
            torch.manual_seed(0)
            return Discriminator(network=TextCNN(filters={1: 8, 3: 8}, embedding=8), **options)

        check_reward(make)


def spread(reward):
    """The same discriminator with an opinion."""
    torch.manual_seed(5)
    nn.init.normal_(reward.network.output.weight)
    return reward


def test_what_is_paid_by_hand():
    """Log-odds ln 3 are a probability of 3/4."""
    logits = torch.tensor([0.0, math.log(3), -40.0])
    assert paid(logits, "probability").tolist() == pytest.approx([0.5, 0.75, math.exp(-40)], abs=1e-7)
    assert paid(logits, "log_probability").tolist() == pytest.approx([math.log(0.5), math.log(0.75), -40.0])
    assert paid(logits, "logit").equal(logits)


@pytest.mark.parametrize("output", ["probability", "log_probability", "logit"])
def test_untaught_it_finds_everything_half_real(output):
    total = judge(made(output=output), nonsense(4)).total
    assert total.tolist() == pytest.approx(
        [{"probability": 0.5, "log_probability": -math.log(2), "logit": 0.0}[output]] * 4
    )


def test_dropout_is_off_while_scoring_and_on_while_learning_in_any_mode():
    for mode in (True, False):
        reward = spread(made()).train(mode)
        assert judge(reward, nonsense(6)).total.equal(judge(reward, nonsense(6)).total)
        assert reward.network.training is mode
        first, second = (reward.learn(lesson()).total for _ in range(2))
        assert not first.equal(second)


def test_an_empty_episode_is_judged():
    empty = replace(nonsense(3), lengths=torch.zeros(3).long()).trimmed()
    for prompt in (False, True):
        assert judge(spread(made(prompt=prompt)), empty).judged.all()


def test_many_episodes_are_scored_in_parts(monkeypatch):
    reward = spread(made())
    whole = judge(reward, example := nonsense(11)).total
    monkeypatch.setattr("lrl_plugins.rewards.discriminator.SCORED_AT_ONCE", 7)
    assert torch.allclose(judge(reward, example).total, whole, atol=1e-6)


def test_the_prompt_is_read_only_where_asked():
    rollout = nonsense(3)
    other = replace(rollout, prompts=replace(rollout.prompts, tokens=rollout.prompts.tokens.flip(0)))
    assert judge(spread(made()), rollout).total.equal(judge(spread(made()), other).total)
    assert not judge(spread(made(prompt=True)), rollout).total.equal(judge(spread(made(prompt=True)), other).total)


# Learning


def test_the_loss_at_one_half_is_ln_2():
    reward, one = made(), lesson(5)
    loss = reward.learn(one)
    assert reward.count(one) == 10
    assert (loss.total / reward.count(one)).item() == pytest.approx(math.log(2))
    assert loss.metrics["discriminator/cross_entropy"].item() == pytest.approx(math.log(2))
    assert loss.metrics["discriminator/probability_real"] == loss.metrics["discriminator/probability_generated"] == 0.5


def test_labels_are_smoothed_on_the_real_side_alone():
    """With D = 3/4 real lines cost .9 ln(4/3) + .1 ln 4 and generated ones ln 4; the bias, .2 / 2 b^2 per line."""
    reward = made(label_smoothing=0.1)
    reward.network.output.bias.data[:] = torch.tensor([0.0, math.log(3)])
    loss = reward.learn(lesson(4)).total.item()
    expected = 0.9 * math.log(4 / 3) + 0.1 * math.log(4) + math.log(4)
    assert loss == pytest.approx(4 * expected + 8 * 0.1 * math.log(3) ** 2)


def test_the_loss_is_a_sum_over_micro_batches():
    reward = spread(made(TextCNN(filters={1: 8, 2: 8}, embedding=8, dropout=0.0)))
    whole = reward.learn(lesson()).total
    parts = lesson().split(20)
    assert len(parts) == 4
    assert sum(reward.learn(part).total for part in parts).item() == pytest.approx(whole.item(), rel=1e-5)


@pytest.mark.parametrize(("make", "epochs"), [(cnn, 4), (lambda: TextEncoder(ENCODER), 10)], ids=["cnn", "encoder"])
def test_what_can_be_told_apart_is_learnt_in_a_few_steps(make, epochs):
    reward = made(make(), steps=3, epochs=epochs, batch_size=4)
    metrics = teach(reward)
    assert metrics["discriminator/accuracy_real"] > 0.95
    assert metrics["discriminator/accuracy_generated"] > 0.95
    real, generated = (judge(reward, rollout).total for rollout in (answers(12), nonsense(12)))
    assert real.min() > generated.max()
    assert metrics["discriminator/probability_real"] > metrics["discriminator/probability_generated"]


def test_a_prompt_tells_apart_what_the_answer_alone_does_not():
    """Generated lines are the human answers to other prompts."""

    def wrong(rows):
        real = answers(rows)
        return replace(real, tokens=answers(rows + 1).tokens[1:])

    for prompt, least, most in ((True, 0.95, 1.0), (False, 0.0, 0.6)):
        reward = made(TextCNN(filters={1: 8, 3: 16}, embedding=8, dropout=0.0), prompt=prompt)
        optimizer = torch.optim.Adam(reward.parameters(), lr=1e-2)
        one = Contrast(*(reward._lines(side) for side in (answers(12), wrong(12))))
        for _ in range(60):
            metrics = update(reward, one, optimizer)
        right = (metrics["discriminator/accuracy_real"] + metrics["discriminator/accuracy_generated"]) / 2
        assert least <= right <= most


def test_learning_is_deterministic():
    first, second = made(), made()
    teach(first)
    teach(second)
    assert all(a.equal(b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


# The schedule


def test_as_many_lessons_as_sets_passes_and_minibatches():
    reward, sampler = made(steps=3, epochs=2, batch_size=5), Drawing()
    lessons = list(reward.lessons(experience(12), sampler))
    assert len(lessons) == 3 * 2 * 3
    assert sampler.drawn == [12, 12]  # the first set is the step's own
    assert all(len(one.real) == len(one.generated) for one in lessons)
    assert lessons[0].real.tokens[:, 0].ne(lessons[0].real.tokens[:, 1]).all()
    assert lessons[0].generated.tokens[:, 0].eq(lessons[0].generated.tokens[:, 1]).all()


def test_further_sets_are_drawn_for_each_prompt_once():
    once = nonsense(4)
    twice = once.select(torch.tensor([0, 0, 1, 1, 2, 2, 3, 3]))
    sampler = Drawing()
    lessons = list(made(steps=2, epochs=1).lessons(Experience(twice, None, None, answers(4)), sampler))
    assert sampler.drawn == [4]
    assert [len(one.real) for one in lessons] == [4, 4]


def test_it_learns_every_so_many_steps_and_always_while_the_policy_holds_still():
    def taught(step, holding=False):
        return len(list(made(every=3, steps=1, epochs=1).lessons(experience(), Drawing(step, holding))))

    assert [taught(step) for step in range(7)] == [1, 0, 0, 1, 0, 0, 1]
    assert [taught(step, holding=True) for step in range(3)] == [1, 1, 1]


def test_a_replay_that_shows_episodes_again_teaches_once_per_step():
    reward, whole = made(steps=1, epochs=1), experience(12)
    halves = [Experience(whole.rollout.select(rows), None, None, whole.expert) for rows in torch.arange(12).chunk(2)]
    shown = [len(list(reward.lessons(part, Drawing(4)))) for part in (*halves, *halves, whole)]
    assert shown == [1, 1, 0, 0, 0]
    assert len(list(reward.lessons(whole, Drawing(5)))) == 1


def test_without_episodes_there_is_nothing_to_learn():
    assert list(made().lessons(Experience(expert=answers(3)), Drawing())) == []
    assert list(made().lessons(Experience(expert=answers(3)), None)) == []


def test_a_task_without_human_answers_is_refused():
    rollout = example_rollout()
    bare = replace(rollout, prompts=replace(rollout.prompts, targets=None, target_lengths=None, references=None))
    reward = Discriminator(network=cnn())
    bind_all(reward, facts_of(bare))
    with pytest.raises(ValueError, match="Discriminator: got a task whose prompts carry no human answers"):
        reward.check(Drawing())
    made().check(Drawing())


@pytest.mark.parametrize("options", [{"every": 0}, {"steps": 0}, {"epochs": 0}, {"batch_size": 0}])
def test_a_schedule_that_makes_no_sense_is_refused(options):
    with pytest.raises(ValueError, match=f"Discriminator: {next(iter(options))} is 0"):
        Discriminator(**options)


def test_other_options_that_make_no_sense_are_refused():
    for options in ({"output": "score"}, {"label_smoothing": 1.0}):
        with pytest.raises(ValueError, match="expected one of probability"):
            Discriminator(**options)
    with pytest.raises(RuntimeError, match="before it knows the vocabulary"):
        Discriminator(network=cnn()).score(nonsense(2))


# Whole runs


def fit(folder, ckpt=None, **options):
    torch.manual_seed(1)
    task = ToyTask()
    settings = {
        "objective": Reinforce(),
        "replay": Fresh(),
        "reward": Discriminator(network=cnn(), steps=2, epochs=2, batch_size=3),
    }
    module = PolicyGradient(
        task=task.facts(),
        policy=Recurrent(cell="gru", embedding=6, hidden=8),
        decoder=Sample(max_length=4, samples=2),
        baseline=Constant(0.5),
        **settings | options,
    )
    trainer = Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        max_epochs=1,
        limit_train_batches=2,
        limit_val_batches=0,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[ModelCheckpoint(dirpath=folder, every_n_train_steps=1, save_top_k=-1, filename="{step}")],
    )
    trainer.fit(module, task, ckpt_path=ckpt, **({"weights_only": False} if ckpt else {}))
    return module


def weights(module):
    return torch.cat([p.detach().flatten() for p in module.parameters()])


@pytest.mark.parametrize("budget", [None, 16])
def test_a_run_resumes_bit_for_bit(tmp_path, budget):
    whole = fit(tmp_path, token_budget=budget)
    first = min(tmp_path.glob("*.ckpt"), key=lambda path: int(path.stem.split("=")[1]))
    assert weights(fit(tmp_path / "again", ckpt=first, token_budget=budget)).equal(weights(whole))
    assert (whole.reward.network.output.weight != 0).any()
    names = ("accuracy_real", "accuracy_generated", "probability_real", "probability_generated", "cross_entropy")
    logged = whole.trainer.callback_metrics
    assert {f"train/discriminator/{name}" for name in names} <= logged.keys()
    assert "train/Discriminator/loss" in logged


def test_several_passes_of_the_policy_are_one_turn_of_the_discriminator(tmp_path):
    """4 prompts a step, in halves: 2 real lines per set, so one minibatch; 2 sets x 2 passes for each half."""
    seen = []

    class Counting(Discriminator):
        def learn(self, lesson):
            seen.append(len(lesson))
            return super().learn(lesson)

    fit(
        tmp_path,
        objective=PPO(),
        replay=Epochs(epochs=3, minibatches=2),
        reward=Counting(network=cnn(), steps=2, epochs=2, batch_size=3),
    )
    assert seen == [4] * (2 * 2 * 2) * 2


def test_recipes_name_the_network_by_its_class(tmp_path):
    """And what a run writes down of itself, where sizes have become text, is read back as it was."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_subclass_arguments(Reward, "reward")
    recipe, written = tmp_path / "recipe.yaml", tmp_path / "written.yaml"
    recipe.write_text(
        """
reward:
  class_path: Discriminator
  init_args:
    network: {class_path: TextCNN, init_args: {filters: {2: 16, 3: 8}, max_length: 2}}
    optimizer: {class_path: torch.optim.Adam, init_args: {lr: 0.02}}
"""
    )
    written.write_text(parser.dump(parser.parse_args([f"--config={recipe}"])))
    for path in (recipe, written):
        reward = parser.instantiate_classes(parser.parse_args([f"--config={path}"])).reward
        assert isinstance(reward, Discriminator)
        assert reward.network.filters == {2: 16}
        assert reward.optimizer([nn.Parameter(torch.zeros(1))]).defaults["lr"] == 0.02
    assert Discriminator(network=cnn()).optimizer([nn.Parameter(torch.zeros(1))]).defaults["lr"] == 1e-4
