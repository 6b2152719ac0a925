import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from lrl_core.interfaces import bind_all
from lrl_core.masks import length_mask
from lrl_core.reference import Reference
from lrl_core.registry import PluginError
from lrl_core.sampling import Sampling
from lrl_core.scoring import judge
from lrl_core.testing.policies import bound, example_facts, example_prompts, example_tokenizer, random_rollout
from lrl_core.testing.rewards import check_reward
from lrl_core.testing.toy import (
    TablePolicy,
    TableReward,
    ToySampler,
    ToyTokenizer,
    every_episode,
    toy_facts,
    toy_prompts,
)
from lrl_core.types import Rollout
from lrl_plugins.decoders.sample import Sample
from lrl_plugins.policies.causal_lm import CausalLM
from lrl_plugins.policies.recurrent import Recurrent
from lrl_plugins.policies.seq2seq_lm import Seq2SeqLM
from lrl_plugins.policies.trained import Trained
from lrl_plugins.rewards.lm_posterior import LMPosterior

# A world with p(a) = .5, p(b) = .2, p(stop) = .3 in every state and at most two words.

EOS = 2
STEADY = [[math.log(0.5), math.log(0.2), math.log(0.3)]]
TURNING = torch.tensor([[0.5, 0.2, 0.3], [0.1, 0.6, 0.3], [0.25, 0.25, 0.5], [0.8, 0.1, 0.1]]).log()
"""Probabilities of a, b and stop at the beginning, after a, after b and after stop."""


def small(**options):
    reward = LMPosterior(**{"model": TablePolicy(STEADY, eos=EOS)} | options)
    bind_all(reward, replace(toy_facts(ToyTokenizer(3, eos=EOS)), example=asked(1)))
    return reward


def asked(count, rows=({"y": "b", "x": ""},)):
    return replace(toy_prompts(count, same=False), examples=tuple(rows[i % len(rows)] for i in range(count)))


def episodes(*lines, sampling=None, rows=({"y": "b", "x": ""},), width=None):
    lengths = torch.tensor([len(line) for line in lines])
    width = width or int(lengths.max())
    return Rollout(
        prompts=asked(len(lines), rows),
        tokens=torch.tensor([[*line, *[0] * (width - len(line))] for line in lines]),
        lengths=lengths,
        action_mask=length_mask(lengths, width),
        logprobs=torch.zeros(len(lines), width),
        terminated=torch.tensor([line[-1:] == [EOS] for line in lines]),
        sampling=sampling,
    )


def test_the_posterior_of_the_steady_world():
    rollout, _ = every_episode(TablePolicy(STEADY, eos=EOS), 2)
    signal = judge(small(), replace(rollout, prompts=asked(len(rollout))))
    worth = signal.total.exp()
    assert float(worth.sum()) == pytest.approx(0.657)
    assert float(worth.square().sum()) == pytest.approx(0.123669)  # the normaliser at temperature 1/2
    found = {tuple(t[t != EOS].tolist()): float(w) for t, w in zip(lines(rollout), worth / 0.657, strict=True)}
    assert found == pytest.approx(
        {(): 0.456621, (0,): 0.228311, (1,): 0.091324, (0, 0): 0.114155}
        | {(0, 1): 0.045662, (1, 0): 0.045662, (1, 1): 0.018265},
        abs=1e-6,
    )


def lines(rollout):
    return [tokens[:length] for tokens, length in zip(rollout.tokens, rollout.lengths.tolist(), strict=True)]


def test_every_prefix_is_worth_stopping_there_and_a_finished_episode_keeps_its_worth():
    signal = judge(small(), episodes([0, 1, EOS], [0, 1], [EOS], width=4))
    expected = [[0.3, 0.15, 0.03, 0.03, 0.03], [0.3, 0.15, 0.03, 0.03, 0.03], [0.3] * 5]
    torch.testing.assert_close(signal.by_prefix.exp(), torch.tensor(expected, dtype=torch.float64))
    assert torch.equal(signal.total, signal.by_prefix[:, -1])
    assert torch.equal(signal.parts["LMPosterior"], signal.total)
    assert torch.allclose(signal.parts["LMPosterior/per_token"], signal.total / torch.tensor([3, 3, 1]))


def test_what_follows_is_read_after_every_prefix():
    """Y = "b", so p(b stop | Z): .2 x .5 at first, .6 x .5 after a, .25 x .5 after b."""
    signal = judge(small(model=TablePolicy(TURNING, eos=EOS), after="y"), episodes([0, 1, EOS], [1]))
    expected = [[0.1, 0.5 * 0.3, 0.5 * 0.6 * 0.125, 0.5 * 0.6 * 0.125], [0.1, 0.2 * 0.125, 0.2 * 0.125, 0.2 * 0.125]]
    torch.testing.assert_close(signal.by_prefix.exp(), torch.tensor(expected, dtype=torch.float64))
    open_end = judge(small(model=TablePolicy(TURNING, eos=EOS), after="y", ends=False), episodes([0, EOS]))
    torch.testing.assert_close(open_end.by_prefix.exp(), torch.tensor([[0.2, 0.3, 0.3]], dtype=torch.float64))


def test_a_prefix_that_speaks_for_another_label_pays():
    """After a the label b (.6 x .5) beats a (.1 x .3); at the beginning a (.5 x .3) beats b (.2 x .5)."""
    reward = small(model=TablePolicy(TURNING, eos=EOS), after="y", labels=["a", "b"], wrong_label=-20.0)
    worth = judge(reward, episodes([0, EOS])).by_prefix[0]
    assert worth.tolist() == pytest.approx([math.log(0.1) - 20, math.log(0.15), math.log(0.15)])


def test_the_model_is_renormalised_over_what_may_be_drawn():
    reward = small()
    signal = judge(reward, episodes([0, EOS], sampling=Sampling(banned=(1,), temperature=2.0, top_k=1)))
    assert signal.by_prefix.exp().tolist()[0] == pytest.approx([0.375, 0.625 * 0.375, 0.625 * 0.375])
    human = episodes([0, EOS])
    assert torch.equal(judge(reward, human).by_prefix, signal.by_prefix)
    assert judge(small(), human).by_prefix.exp().tolist()[0] == pytest.approx([0.3, 0.15, 0.15])
    resumed = small()
    resumed.load_state_dict(reward.state_dict())
    assert torch.equal(judge(resumed, human).by_prefix, signal.by_prefix)


def test_too_short_and_impossible_prefixes_are_worth_the_floor():
    sampling = Sampling(banned=(1,), min_length=2, eos=EOS)
    signal = judge(small(floor=-40.0), episodes([0, 1, EOS], [0, EOS], sampling=sampling))
    paid = math.log(0.625 * 0.375)
    assert signal.by_prefix.tolist() == [pytest.approx([-40, paid, -40, -40]), pytest.approx([-40, paid, paid, paid])]


def test_what_is_null_cannot_be_judged():
    signal = judge(small(after="y"), episodes([0, EOS], [0, EOS], rows=({"y": None}, {"y": "b"})))
    assert signal.judged.tolist() == [False, True]


def test_no_episodes_are_no_error():
    signal = judge(small(), episodes([0, EOS]).select(torch.zeros(0, dtype=torch.long)))
    assert signal.total.shape == (0,)
    assert set(signal.parts) == {"LMPosterior", "LMPosterior/per_token"}


@pytest.mark.parametrize("options", [{}, {"after": "y"}, {"before": "x", "after": "y", "labels": ["a", "b"]}])
def test_conforms(options):
    rollout = replace(episodes([0, 1, EOS], [1, 1], [EOS]), sampling=Sampling(), texts=("ab", "bb", ""))
    facts = replace(toy_facts(ToyTokenizer(3, eos=EOS)), example=rollout.prompts)
    facts.tokenizer.pad = 0
    check_reward(lambda: LMPosterior(model=TablePolicy(TURNING, eos=EOS), **options), rollout, facts)


# Under real models

TOKENIZER = example_tokenizer()
SPOKEN = [i for i in range(len(TOKENIZER)) if i not in TOKENIZER.never_drawn]
ROWS = tuple({"x": f"word{i}", "y": " ".join(f"word{i + j}" for j in range(1 + i % 3))} for i in range(5))
PROMPTS = replace(example_prompts(TOKENIZER, group=(7, 3, 9, 4, 5)), examples=ROWS)
FACTS = example_facts(TOKENIZER, PROMPTS)
GPT2 = {"model_type": "gpt2", "n_layer": 2, "n_head": 2, "n_embd": 16, "n_positions": 32, "initializer_range": 0.3}
MARIAN = {"model_type": "marian", "d_model": 16, "encoder_layers": 1, "decoder_layers": 2, "init_std": 0.3}
MARIAN |= {"max_position_embeddings": 32, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
MARIAN |= {"encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
MODELS = {
    "gpt2": lambda: CausalLM(config=GPT2),
    "marian": lambda: Seq2SeqLM(config=MARIAN),
    "gru": lambda: Recurrent(cell="gru", embedding=6, hidden=8),
}
LABELS = sorted({row["y"] for row in ROWS})
COLUMNS = {
    "stop": {},
    "stop, before": {"before": "x"},
    "after": {"after": "y"},
    "before and after": {"before": "x", "after": "y", "ends": False},
    "labels": {"after": "y", "labels": LABELS},
}
every_model = pytest.mark.parametrize("name", MODELS)


def made(name, seed=0, **options):
    torch.manual_seed(seed)
    reward = LMPosterior(model=MODELS[name](), **options)
    bind_all(reward, FACTS)
    return reward


def random_episodes(steps=4):
    rollout = random_rollout(PROMPTS, TOKENIZER, steps)
    tokens = rollout.tokens.where(rollout.tokens != TOKENIZER.eos, SPOKEN[-1])
    ends = torch.arange(len(rollout)) % 2 == 0  # half of them end by themselves, the others are cut
    tokens[ends] = tokens[ends].scatter(1, rollout.lengths[ends, None] - 1, TOKENIZER.eos)
    return replace(rollout, tokens=tokens, terminated=ends, sampling=Sampling(banned=TOKENIZER.never_drawn))


@torch.no_grad()
def played(policy, prompts, words, tail):
    """The sum of log p, token by token: words (and the stop, given as one) under bans, the tail without."""
    logits, state = policy.begin(prompts)
    total = 0.0
    for place, token in enumerate([*words, *tail]):
        allowed = logits[0].clone()
        if place < len(words):
            allowed[list(TOKENIZER.never_drawn)] = -math.inf
        total += float(allowed.log_softmax(0)[token])
        logits, state = policy.step(torch.tensor([token]), state)
    return total


@pytest.mark.parametrize("columns", [COLUMNS["stop"], COLUMNS["after"], COLUMNS["before and after"]])
@every_model
def test_every_prefix_is_worth_what_the_model_says_token_by_token(name, columns):
    reward, rollout = made(name, **columns), random_episodes()
    worth = judge(reward, rollout).by_prefix
    policy = reward.frozen.module
    for row in range(3):
        alone = rollout.prompts.select(torch.tensor([row]))
        if "before" in columns:
            ids = torch.tensor([TOKENIZER.encode(ROWS[row]["x"])])
            alone = replace(alone, tokens=ids, lengths=torch.tensor([ids.shape[1]]))
        else:
            alone = replace(alone, tokens=alone.tokens[:, : int(alone.lengths)])
        words = [i for i in rollout.tokens[row, : int(rollout.lengths[row])].tolist() if i != TOKENIZER.eos]
        for t in range(rollout.tokens.shape[1] + 1):
            if "after" in columns:
                tail = TOKENIZER.encode(ROWS[row]["y"]) + [TOKENIZER.eos] * columns.get("ends", True)
                expected = played(policy, alone, words[:t], tail)
            else:
                expected = played(policy, alone, [*words[:t], TOKENIZER.eos], [])
            assert float(worth[row, t]) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("columns", COLUMNS.values(), ids=list(COLUMNS))
@every_model
def test_a_prefix_is_worth_as_much_as_that_episode_finished(name, columns):
    reward, rollout = made(name, **columns), random_episodes()
    worth = judge(reward, rollout).by_prefix
    words = rollout.lengths - rollout.terminated.long()
    for t in range(int(words.max()) + 1):
        lengths = words.clamp(max=t)
        tokens = nn.functional.pad(rollout.tokens, (0, 1)).scatter(1, lengths[:, None], TOKENIZER.eos)
        finished = replace(
            rollout,
            tokens=tokens,
            lengths=lengths + 1,
            action_mask=length_mask(lengths + 1, tokens.shape[1]),
            logprobs=torch.zeros(tokens.shape),
        )
        torch.testing.assert_close(judge(reward, finished).total, worth[:, t], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("columns", [COLUMNS["after"], COLUMNS["labels"]], ids=["after", "labels"])
@pytest.mark.parametrize("name", ["gpt2", "marian"])
def test_a_tree_says_what_one_line_per_prefix_says(name, columns):
    reward, rollout = made(name, **columns), random_episodes()
    policy = reward.frozen.module
    assert policy.branches
    branching = judge(reward, rollout).by_prefix
    policy.branches = False
    torch.testing.assert_close(branching, judge(reward, rollout).by_prefix, atol=1e-5, rtol=0)


@pytest.mark.parametrize("columns", COLUMNS.values(), ids=list(COLUMNS))
@every_model
def test_a_budget_of_tokens_changes_nothing(name, columns):
    rollout = random_episodes()
    whole, parts = (judge(made(name, token_budget=b, **columns), rollout) for b in (None, 40))
    torch.testing.assert_close(parts.by_prefix, whole.by_prefix, atol=1e-5, rtol=1e-5)
    assert torch.equal(parts.parts["LMPosterior"], parts.total)


def test_a_model_of_its_own_holds_still_and_stays_out_of_checkpoints():
    reward = made("gpt2").train()
    held = reward.frozen.module
    assert not any(weight.requires_grad for weight in held.parameters())
    assert not any(part.training for part in held.modules())
    assert list(reward.parameters()) == []
    assert set(reward.state_dict()) == {"_extra_state"}
    assert not judge(reward, random_episodes()).total.requires_grad


def test_a_checkpoint_gives_its_model_the_weights(tmp_path):
    reward = made("gpt2", seed=1)
    weights = reward.frozen.module.state_dict()
    torch.save({"state_dict": {f"policy.{name}": value for name, value in weights.items()}}, tmp_path / "run.ckpt")
    other = made("gpt2", seed=2, checkpoint=str(tmp_path / "run.ckpt"))
    rollout = random_episodes()
    assert torch.equal(judge(other, rollout).total, judge(reward, rollout).total)
    assert not torch.equal(judge(made("gpt2", seed=2), rollout).total, judge(reward, rollout).total)
    with pytest.raises(ValueError, match=r"LMPosterior\.checkpoint: the policy saved in .* does not fit Recurrent"):
        made("gru", checkpoint=str(tmp_path / "run.ckpt"))


# Beside the policy that it judges


def beside(policy, reference=None, **options):
    """A reward that reads the recipe's reference policy."""
    held = Reference() if reference is None else reference
    held.hold(policy)
    reward = LMPosterior(**options)
    bind_all(reward, FACTS)
    reward.check(ToySampler(policy, Sample(max_length=4), TableReward(len), reference=held))
    return reward


def lora():
    policy = bound(lambda: CausalLM(config=GPT2 | {"resid_pdrop": 0.5}, train=Trained("lora", rank=2)), FACTS, seed=0)
    with torch.no_grad():
        for name, weight in policy.named_parameters():
            if ".lora_B" in name:
                weight.normal_(generator=torch.Generator().manual_seed(1))
    return policy


@pytest.mark.parametrize("columns", [COLUMNS["stop"], COLUMNS["after"]], ids=["stop", "after"])
@pytest.mark.parametrize("training", [True, False])
def test_the_reference_is_the_policy_without_its_adapter_and_nothing_is_left_changed(training, columns):
    policy, rollout = lora().train(training), random_episodes()
    plain = bound(lambda: CausalLM(config=GPT2), FACTS, seed=0)
    reward = beside(policy, **columns)
    with torch.no_grad():
        adapted = policy.eval()(rollout).logprobs
        policy.train(training)
    found = judge(reward, rollout)
    own = LMPosterior(model=plain, **columns)
    own.bind(FACTS)
    torch.testing.assert_close(found.by_prefix, judge(own, rollout).by_prefix, atol=1e-5, rtol=1e-5)
    assert torch.equal(judge(reward, rollout).total, found.total)
    assert all(part.training == training for part in policy.modules())
    assert any(weight.requires_grad for weight in policy.parameters())
    assert not found.total.requires_grad
    with torch.no_grad():
        assert torch.equal(policy.eval()(rollout).logprobs, adapted)
    assert not torch.allclose(adapted, plain.eval()(rollout).logprobs, atol=1e-2)


def test_a_reference_of_its_own_weights_is_read_instead_of_the_policy():
    policy = bound(lambda: CausalLM(config=GPT2), FACTS, seed=0)
    reward, rollout = beside(policy, after="y"), random_episodes()
    before = judge(reward, rollout).by_prefix
    with torch.no_grad():
        for weight in policy.parameters():
            weight.mul_(1.5)
    assert torch.equal(judge(reward, rollout).by_prefix, before)


def test_it_registers_nothing_of_the_policy():
    reward = beside(lora())
    assert list(reward.parameters()) == []
    assert [name for name, _ in reward.named_children()] == []


# What it refuses


def test_refusals_say_what_to_do():
    reward = LMPosterior()
    bind_all(reward, FACTS)
    policy = bound(MODELS["gru"], FACTS, seed=0)
    with pytest.raises(ValueError, match=r"neither a model nor a recipe with a reference.*model\.reference: \{\}"):
        reward.check(ToySampler(policy, Sample(max_length=4), TableReward(len)))
    made("gru").check(ToySampler(policy, Sample(max_length=4), TableReward(len)))
    with pytest.raises(PluginError, match="without a language model; expected check"):
        judge(reward, random_episodes())
    with pytest.raises(PluginError, match="expected bind_all"):
        judge(LMPosterior(), random_episodes())
    with pytest.raises(ValueError, match=r"without column 'z'.*\['x', 'y'\]"):
        made("gru", after="z")
    with pytest.raises(PluginError, match=r"without column 'y'; .*Columns there: \['x'\]"):
        judge(made("gru", after="y"), replace(random_episodes(), prompts=replace(PROMPTS, examples=({"x": "a"},) * 5)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learns": True}, "without model"),
        ({"checkpoint": "a.ckpt"}, "without model"),
        ({"labels": ["a", "b"]}, "at least two different labels"),
        ({"after": "y", "labels": ["a", "a"]}, "at least two different labels"),
        ({"wrong_label": 1.0}, "wrong_label is 1.0"),
        ({"floor": -math.inf}, "floor is -inf"),
        ({"updates": 0}, "updates is 0"),
        ({"token_budget": 0}, "token_budget is 0"),
    ],
)
def test_arguments_that_cannot_be_meant_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        LMPosterior(**options)


def test_a_tokenizer_that_takes_words_back_is_refused():
    tokenizer = example_tokenizer()
    tokenizer.backspace = 5
    with pytest.raises(ValueError, match="backspace 5; expected an end token and no backspace"):
        LMPosterior().bind(replace(FACTS, tokenizer=tokenizer))
