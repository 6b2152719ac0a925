from dataclasses import replace

import pytest
import torch
from torch import nn

from lrl_core.interfaces import Learner, bind_all
from lrl_core.testing.parts import EOS, bigram_world, check_decoder
from lrl_core.testing.toy import TablePolicy, ToyTokenizer, toy_facts, toy_prompts
from lrl_core.types import Experience, Prompts
from lrl_plugins.decoders.estimator import Estimator
from lrl_plugins.decoders.length_controlled import LengthControlled
from lrl_plugins.decoders.sample import Greedy, Sample

LIMIT = 8


def bound(decoder, size=4, eos=EOS):
    bind_all(decoder, toy_facts(ToyTokenizer(size, eos=eos)))
    return decoder


def countdown(sharp=30.0):
    """Tokens 0..4 count down to 0, then the end (5): first token k makes an episode of k + 2 tokens; 0 is likeliest."""
    table = torch.zeros(7, 6)
    table[0] = torch.tensor([2.0, 1.5, 1.0, 0.5, 0.0, -1.0])
    for token, following in enumerate([5, 0, 1, 2, 3, 5]):
        table[1 + token, following] = sharp
    return TablePolicy(table, eos=5)


class Oracle(nn.Module):
    """Knows that k + 1 tokens follow token k."""

    def start(self, prompts):
        return torch.zeros(len(prompts), 1)

    def advance(self, tokens, state):
        return state

    def candidates(self, tokens, state):
        return (tokens + 1) / LIMIT


def steered(**options):
    decoder = bound(LengthControlled(max_length=LIMIT, **options), 6, 5)
    decoder.estimator = Oracle()
    return decoder


@pytest.mark.parametrize("options", [{}, {"read_prompt": True, "candidates": 1}, {"target": 2, "strength": 9.0}])
def test_conforms(options):
    check_decoder(lambda: LengthControlled(**({"target": 5, "max_length": LIMIT} | options)))


@pytest.mark.parametrize("target", [1, 2, 3, 4, 5, 6])
def test_an_oracle_with_much_strength_reaches_every_feasible_length(target):
    rollout = steered(target=target, strength=1e4, candidates=6).decode(countdown(), toy_prompts())
    assert rollout.lengths.tolist() == [target]
    assert rollout.terminated.all()


def test_without_strength_it_is_greedy():
    for policy in (countdown(), bigram_world()[0]):
        size, eos = policy.table.shape[1], policy.eos
        own = bound(LengthControlled(target=5, strength=0.0, candidates=2, max_length=LIMIT), size, eos)
        greedy = bound(Greedy(max_length=LIMIT), size, eos)
        mine, its = (decoder.decode(policy, toy_prompts()) for decoder in (own, greedy))
        assert mine.tokens.equal(its.tokens)
        assert torch.allclose(mine.logprobs.double(), its.logprobs.double(), atol=1e-6)


def test_more_strength_never_misses_the_length_by_more():
    policy = countdown(sharp=2.0)
    missed = []
    for strength in (0.0, 0.03, 0.1, 0.3, 1.0, 10.0):
        lengths = [
            steered(target=n, strength=strength, candidates=6).decode(policy, toy_prompts()) for n in range(1, 7)
        ]
        missed.append(sum(abs(int(r.lengths) - n) for n, r in zip(range(1, 7), lengths, strict=True)) / 6)
    assert missed == sorted(missed, reverse=True)
    assert missed[0] > 1
    assert missed[-1] == 0


def test_the_end_token_is_always_weighed():
    rollout = steered(target=1, strength=1e4, candidates=1).decode(countdown(), toy_prompts())
    assert rollout.tokens.tolist() == [[5]]


def test_each_prompt_can_name_its_own_length():
    prompts = toy_prompts(3, same=False)
    prompts = replace(prompts, examples=({"words": 4}, {"words": 2}, {"words": 6}))
    decoder = steered(column="words", strength=1e4, candidates=6)
    assert decoder.decode(countdown(), prompts).lengths.tolist() == [4, 2, 6]
    with pytest.raises(ValueError, match=r"from column 'length'; expected a number.*columns \['words'\]"):
        steered(column="length").decode(countdown(), prompts)
    with pytest.raises(ValueError, match="from column 'words'"):
        decoder.decode(countdown(), toy_prompts())


def episodes(policy, count, limit, size=4, eos=EOS):
    torch.manual_seed(0)
    return bound(Sample(max_length=limit, samples=count), size, eos).decode(policy, toy_prompts())


def test_the_lessons_are_the_tokens_that_follow():
    rollout = episodes(bigram_world()[0], 40, 5)
    decoder = bound(LengthControlled(target=5, max_length=10))
    wanted, known = decoder.wanted(Experience(rollout))
    assert not rollout.terminated.all()
    for row, length in enumerate(rollout.lengths.tolist()):
        following = [length - t for t in range(1, length)] if rollout.terminated[row] else []
        assert known[row].sum() == len(following)
        assert torch.allclose(wanted[row][known[row]] * 10, torch.tensor(following, dtype=torch.float))
    assert decoder.count(Experience(rollout)) == known.sum()


def test_learns_the_constant_of_a_geometric_length():
    policy = TablePolicy(torch.tensor([[0.75, 0.25]]).log(), eos=1)  # 1 / 0.25 = 4 tokens follow, whatever was said
    rollout = episodes(policy, 600, 25, 2, 1)
    torch.manual_seed(0)
    decoder = bound(LengthControlled(target=5, max_length=25, embedding=2, hidden=4), 2, 1)
    assert isinstance(decoder, Learner)
    optimizer = torch.optim.Adam(decoder.parameters(), lr=0.05)
    experience = Experience(rollout)
    first = None
    for _ in range(60):
        optimizer.zero_grad()
        loss = decoder.learn(experience)
        first = first if first is not None else float(loss.total.detach())
        (loss.total / decoder.count(experience)).sum().backward()
        optimizer.step()
    wanted, known = decoder.wanted(experience)
    assert wanted[known].mean() * 25 == pytest.approx(4, abs=0.4)
    estimates = decoder.estimator(rollout)[:, :8][known[:, :8]] * 25
    assert estimates.mean().item() == pytest.approx(4, abs=0.4)
    assert estimates.std() < 0.5
    assert float(decoder.learn(experience).total.detach()) < first


def test_the_loss_is_a_sum_and_ignores_padding():
    rollout = episodes(bigram_world()[0], 8, 6)
    decoder = bound(LengthControlled(target=5, max_length=6))
    whole = decoder.learn(Experience(rollout)).total
    rows = [decoder.learn(Experience(rollout.select(torch.tensor([i])))).total for i in range(8)]
    assert whole.item() == pytest.approx(sum(rows).item(), rel=1e-5)
    noisy = torch.where(torch.arange(rollout.tokens.shape[1]) < rollout.lengths[:, None], rollout.tokens, 2)
    assert decoder.learn(Experience(replace(rollout, tokens=noisy))).total.item() == pytest.approx(whole.item())


def test_the_estimator_reads_step_by_step_what_it_reads_at_once():
    torch.manual_seed(0)
    prompts = Prompts(torch.tensor([[1, 2, 0], [0, 0, 0], [2, 1, 1]]), torch.tensor([2, 0, 3]), torch.arange(3))
    rollout = replace(episodes(bigram_world()[0], 3, 5), prompts=prompts)
    estimator = Estimator(4, 3, 5, read_prompt=True)
    state, steps = estimator.start(prompts), []
    for column in rollout.tokens.clamp(min=0).unbind(1):
        steps.append(estimator.candidates(column[:, None], state)[:, 0])
        state = estimator.advance(column, state)
    assert torch.allclose(torch.stack(steps, 1), estimator(rollout), atol=1e-6)
    other = replace(prompts, tokens=torch.tensor([[1, 2, 3], [3, 3, 3], [2, 1, 1]]))  # padding
    assert estimator.start(other).equal(estimator.start(prompts))
    assert estimator.start(prompts)[1].abs().max() == 0
    assert estimator.start(prompts)[0].abs().max() > 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LengthControlled(target=21), "a target from 1 to max_length = 20"),
        (lambda: LengthControlled(strength=-1.0), "strength -1"),
        (lambda: bound(LengthControlled(), 3, -1), "names no end token"),
    ],
)
def test_refuses_what_cannot_be(make, message):
    with pytest.raises(ValueError, match=message):
        make()
