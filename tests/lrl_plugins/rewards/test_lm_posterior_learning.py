"""The M step: a language model of the reward's own learns what the policy draws."""

import math
from dataclasses import replace

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from lrl_core.interfaces import bind_all
from lrl_core.masks import length_mask
from lrl_core.module import PolicyGradient
from lrl_core.reference import Reference
from lrl_core.sampling import Sampling
from lrl_core.scoring import judge
from lrl_core.testing.policies import example_facts, example_prompts, example_tokenizer, random_rollout
from lrl_core.testing.toy import TablePolicy, ToyTokenizer, toy_facts, toy_prompts
from lrl_core.testing.toy_task import ToyTask
from lrl_core.types import Advantage, Experience, RewardSignal, Rollout
from lrl_plugins.baselines.means import LeaveOneOut
from lrl_plugins.decoders.sample import Sample
from lrl_plugins.objectives.reinforce import Reinforce
from lrl_plugins.policies.causal_lm import CausalLM
from lrl_plugins.policies.recurrent import Recurrent
from lrl_plugins.policies.trained import Trained
from lrl_plugins.replays.fresh import Fresh
from lrl_plugins.rewards.lm_posterior import LMPosterior

EOS = 2


def table(**options):
    reward = LMPosterior(
        model=TablePolicy([[math.log(0.5), math.log(0.2), math.log(0.3)]], eos=EOS), learns=True, **options
    )
    prompts = replace(toy_prompts(1), examples=({"y": "b"},))
    bind_all(reward, replace(toy_facts(ToyTokenizer(3, eos=EOS)), example=prompts))
    return reward


def lesson(*lines, judged=None, rows=({"y": "b"},), sampling=None):
    count, lengths = len(lines), torch.tensor([len(line) for line in lines])
    tokens = torch.tensor([[*line, *[0] * (int(lengths.max()) - len(line))] for line in lines])
    mask = length_mask(lengths, tokens.shape[1])
    examples = tuple(rows[i % len(rows)] for i in range(count))
    rollout = Rollout(
        prompts=replace(toy_prompts(count, same=False), examples=examples),
        tokens=tokens,
        lengths=lengths,
        action_mask=mask,
        logprobs=torch.zeros(tokens.shape),
        terminated=torch.ones(count, dtype=torch.bool),
        sampling=sampling or Sampling(),
    )
    total = torch.zeros(count) if judged is None else torch.where(torch.tensor(judged), 0.0, torch.nan)
    return Experience(rollout, RewardSignal(total), Advantage(torch.zeros(tokens.shape)))


def test_the_loss_is_minus_the_reward_of_what_was_drawn_and_every_episode_weighs_the_same():
    reward, one = table(), lesson([0, 1, EOS], [1])
    loss = reward.learn(one)
    assert loss.total.item() == pytest.approx(-math.log(0.03) - math.log(0.06))
    assert reward.count(one).item() == 2
    assert float(loss.metrics["lm_posterior/log_likelihood"]) == pytest.approx(math.log(0.03 * 0.06) / 2)
    loss.total.backward()
    # log p(a) + log p(b) twice + log p(stop) twice: counts minus 5 x probabilities.
    assert reward.model.table.grad.tolist()[0] == pytest.approx([-(1 - 2.5), -(2 - 1.0), -(2 - 1.5)])


def test_what_follows_is_learnt_too_under_no_bans_and_with_labels_the_right_one():
    sampling = Sampling(banned=(1,))
    for options in ({}, {"labels": ["a", "b"]}):
        loss = table(after="y", **options).learn(lesson([0, EOS], sampling=sampling))
        assert loss.total.item() == pytest.approx(-math.log(0.625 * 0.2 * 0.3))


def test_episodes_that_nobody_could_judge_teach_nothing():
    reward = table(after="y")
    one = lesson([0, EOS], [1, EOS], [0, 0], judged=[True, False, True], rows=({"y": "b"}, {"y": "b"}, {"y": None}))
    assert reward.count(one).item() == 1
    assert reward.learn(one).total.item() == pytest.approx(-math.log(0.5 * 0.2 * 0.3))
    nothing = lesson([0, EOS], judged=[False])
    loss = reward.learn(nothing)
    loss.total.backward()
    assert reward.count(nothing).item() == 0
    assert not reward.model.table.grad.any()


def test_the_loss_is_a_sum_over_micro_batches():
    reward, one = table(after="y"), lesson([0, 1, EOS], [1], [0, 0, 0], [EOS])
    parts = one.split(4)
    assert len(parts) > 1
    whole = reward.learn(one).total.item()
    assert sum(reward.learn(part).total.item() for part in parts) == pytest.approx(whole)


def test_without_episodes_there_is_no_lesson():
    reward = table(updates=3)
    assert len(list(reward.lessons(lesson([EOS]), None))) == 3
    assert list(reward.lessons(Experience(), None)) == []


@pytest.mark.parametrize("train", [Trained(), Trained("lora", rank=4)], ids=["whole", "lora"])
@pytest.mark.parametrize("columns", [{}, {"after": "y"}], ids=["stop", "after"])
def test_steps_make_what_was_drawn_likelier(columns, train):
    tokenizer = example_tokenizer()
    prompts = replace(example_prompts(tokenizer), examples=tuple({"y": f"word{i} word3"} for i in range(5)))
    config = {"model_type": "gpt2", "n_layer": 1, "n_head": 2, "n_embd": 16, "n_positions": 32, "resid_pdrop": 0.2}
    torch.manual_seed(0)
    reward = LMPosterior(model=CausalLM(config=config, train=train), learns=True, **columns)
    bind_all(reward, example_facts(tokenizer, prompts))
    reward.train()
    drawn = replace(random_rollout(prompts, tokenizer, 4), sampling=Sampling(banned=tokenizer.never_drawn))
    before = judge(reward, drawn).total
    experience = Experience(drawn, RewardSignal(before))
    optimizer = reward.optimizer([weight for weight in reward.parameters() if weight.requires_grad])
    for _ in range(30):
        optimizer.zero_grad()
        (reward.learn(experience).total / reward.count(experience)).backward()
        optimizer.step()
    after = judge(reward, drawn).total
    assert float(after.mean() - before.mean()) > 0.03
    assert torch.equal(judge(reward, drawn).total, after)  # without dropout, although the model is in train mode
    assert reward.model.training


def build(task, policy=None, reference=None, **options):
    torch.manual_seed(1)
    own = {"model": Recurrent(cell="gru", embedding=5, hidden=6, layers=2, dropout=0.2), "updates": 2}
    return PolicyGradient(
        task=task.facts(),
        policy=policy or Recurrent(cell="gru", embedding=6, hidden=8),
        objective=Reinforce(),
        replay=Fresh(),
        decoder=Sample(max_length=4, samples=3),
        reward=LMPosterior(**options if policy is not None else own | options),
        baseline=LeaveOneOut(),
        reference=reference,
    )


def fit(folder, ckpt=None, epochs=2, **options):
    task = ToyTask()
    module = build(task, **options)
    torch.manual_seed(7)
    trainer = Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        max_epochs=epochs,
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
    return torch.cat([weight.detach().flatten() for weight in module.parameters()])


def test_a_run_with_an_m_step_resumes_bit_for_bit(tmp_path):
    whole = fit(tmp_path, learns=True)
    checkpoints = sorted(tmp_path.glob("*.ckpt"), key=lambda path: int(path.stem.split("=")[1]))
    saved = torch.load(checkpoints[0], weights_only=True)["state_dict"]
    own = {name: value for name, value in whole.state_dict().items() if name.startswith("reward.model.")}
    assert own
    assert any(not torch.equal(saved[name], value) for name, value in own.items())
    assert torch.equal(weights(fit(tmp_path / "again", ckpt=checkpoints[1], learns=True)), weights(whole))


def test_a_run_reads_the_reference_under_its_adapter_and_keeps_it(tmp_path):
    config = {"model_type": "gpt2", "n_layer": 1, "n_head": 2, "n_embd": 8, "n_positions": 8, "initializer_range": 0.3}
    module = fit(tmp_path, epochs=1, policy=CausalLM(config=config, train=Trained("lora")), reference=Reference())
    torch.manual_seed(1)
    trunk = CausalLM(config=config)
    bind_all(trunk, ToyTask().facts())
    drawn = module.last_experience
    own = LMPosterior(model=trunk)
    own.bind(ToyTask().facts())  # its model is bound already
    torch.testing.assert_close(judge(own, drawn.rollout).by_prefix, drawn.reward.by_prefix, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(module.policy.eval()(drawn.rollout).logprobs, trunk.eval()(drawn.rollout).logprobs)
    with pytest.raises(ValueError, match="neither a model nor a recipe with a reference policy"):
        build(ToyTask(), policy=CausalLM(config=config, train=Trained("lora")))


def test_a_model_that_does_not_learn_is_no_learner(tmp_path):
    assert fit(tmp_path, epochs=1).learners == []
    saved = torch.load(next(tmp_path.glob("*.ckpt")), weights_only=True)["state_dict"]
    assert not [name for name in saved if name.startswith("reward.") and "_extra_state" not in name]
    assert build(ToyTask(), learns=True).learners
