"""Imitation that learns from its own lines: limits with known gradients, small worlds, planted mistakes."""

import math
from dataclasses import replace

import pytest
import torch
from stacks import StackTable

from lrl_core.backspace import kept
from lrl_core.masks import length_mask
from lrl_core.sampling import Sampling
from lrl_core.testing.parts import check_objective, toy_experience
from lrl_core.testing.toy import (
    TablePolicy,
    TableReward,
    ToySampler,
    ToyTokenizer,
    every_episode,
    toy_facts,
    toy_prompts,
)
from lrl_core.types import Experience, Prompts, Rollout
from lrl_plugins.decoders.sample import Greedy, Sample
from lrl_plugins.objectives.cross_entropy import CrossEntropy
from lrl_plugins.objectives.sequence_match import SequenceMatch, with_one_more_end

EOS, BACK = 2, 3
KINDS = ["chi2_mixture", "chi2", "kl", "js", "hellinger"]


def lines(rows, chosen=None, terminated=True, sampling=None):
    """Rows of tokens as a rollout; `chosen` says which of them the policy chose."""
    width = max(map(len, rows))
    lengths = torch.tensor([len(row) for row in rows])
    mask = length_mask(lengths, width)
    if chosen is not None:
        mask &= torch.tensor([[*own, *[False] * (width - len(own))] for own in chosen])
    return Rollout(
        prompts=toy_prompts(len(rows), same=False),
        tokens=torch.tensor([[*row, *[0] * (width - len(row))] for row in rows]),
        lengths=lengths,
        action_mask=mask,
        logprobs=torch.zeros(len(rows), width, dtype=torch.float64),
        terminated=torch.tensor([terminated] * len(rows)),
        sampling=sampling,
    )


def both(data, model):
    return Experience(rollout=replace(model, sampling=model.sampling or Sampling()), expert=data)


def gradient(objective, policy, experience):
    policy.zero_grad()
    (objective.loss(policy, experience).total / objective.count(experience).clamp(min=1)).sum().backward()
    return policy.table.grad.clone()


def taking_back(objective):
    """The objective in a world whose tokens are a, b, the end and the backspace."""
    tokenizer = ToyTokenizer(4, eos=EOS)
    tokenizer.backspace = BACK
    objective.bind(toy_facts(tokenizer))
    return objective


def random_table(seed=0, lines=5, vocabulary=4):
    return torch.randn(lines, vocabulary, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{}, {"occupancy": True}, {"terminal": "absorbing"}, {"value_on": "data"}])
def test_conforms(kind, options):
    check_objective(lambda: SequenceMatch(divergence=kind, discount=0.9, **options))


def test_an_endless_end_conforms_with_weights():
    check_objective(lambda: SequenceMatch(discount=0.9, occupancy=True, terminal="absorbing"))


# Maximum likelihood is a special case


@pytest.mark.parametrize("discount", [0.3, 0.9, 1.0])
def test_linear_on_the_data_has_the_gradient_of_cross_entropy(discount):
    policy, experience = TablePolicy(random_table(), eos=3), toy_experience()
    mine = SequenceMatch(divergence="linear", value_on="data", discount=discount)
    assert not mine.samples
    assert torch.allclose(gradient(mine, policy, experience), gradient(CrossEntropy(), policy, experience), atol=1e-6)


def test_with_weights_each_token_of_it_weighs_less_than_the_one_before():
    policy, experience = TablePolicy(random_table(), eos=3), toy_experience()
    mine = SequenceMatch(divergence="linear", value_on="data", discount=0.5, occupancy=True)
    answers = experience.expert
    policy.zero_grad()
    logprobs = policy(answers).logprobs
    (-(logprobs * 0.5 ** torch.arange(4)).sum() / len(answers)).backward()
    expected = policy.table.grad.clone()
    assert torch.allclose(gradient(mine, policy, experience), expected, atol=1e-6)


@pytest.mark.parametrize("discount", [0.9, 1.0])
def test_on_planted_mistakes_it_is_behaviour_cloning(discount):
    """Cross-entropy on the noisy line: the backspace is a target, the wrong token b is none."""
    policy = StackTable(random_table(), EOS, BACK)
    data = lines([[1, BACK, 0, EOS], [0, 1, BACK, EOS]], chosen=[[False, True, True, True], [True, False, True, True]])
    mine = taking_back(SequenceMatch(divergence="linear", value_on="data", discount=discount))
    experience = Experience(expert=data)
    got = gradient(mine, policy, experience)
    assert torch.allclose(got, gradient(CrossEntropy(), policy, experience), atol=1e-6)
    assert got[2, BACK] < -0.1  # after b
    assert mine.count(experience).tolist() == [6]


def test_dropout_is_on_only_where_nothing_is_drawn():
    """The module reads lines without a sampling as human ones, with dropout."""
    seen = []
    policy = TablePolicy(random_table(), eos=3)

    def read(rollout):
        seen.append(rollout.sampling)
        return policy(rollout)

    SequenceMatch(divergence="linear", value_on="data").loss(read, toy_experience())
    SequenceMatch().loss(read, toy_experience())
    assert seen == [None, Sampling(), Sampling()]


# Stationary points


def test_the_least_squares_reward_of_a_bandit():
    """Data d = [.7, .2, .1, 0], samples theta, c = 1 / (4 alpha) = .5: r* = (d - theta) / (2 c m), value 1.063333.

    r* is the best answer to samples theta, so at logits r* all that is left of the gradient is that of V at them:
    softmax(r*), where samples from theta would give theta.
    """
    theta = torch.tensor([0.1, 0.1, 0.4, 0.4]).double()
    best = torch.tensor([1.5, 2 / 3, -1.2, -2.0]).double()
    policy = TablePolicy(best[None], eos=None)
    data, model = lines([[0]] * 7 + [[1]] * 2 + [[2]]), lines([[0], [1]] + [[2]] * 4 + [[3]] * 4)
    objective = SequenceMatch(alpha=0.5)
    assert torch.allclose(gradient(objective, policy, both(data, model)), best.softmax(0) - theta, atol=1e-6)
    loss = objective.loss(policy, both(data, model)).total / objective.count(both(data, model))
    value = -loss.sum() + best.logsumexp(0) - theta @ best
    assert value.item() == pytest.approx(1.063333, abs=1e-6)
    assert best.abs().max() <= 1 / 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_where_model_and_data_agree_no_reward_is_left_to_learn(kind):
    """Uniform lines of two tokens: with l = gamma V(s') every r is 0, and no divergence moves."""
    table = torch.zeros(4, 3, dtype=torch.float64)
    table[0] = 0.9 * math.log(3)
    policy = TablePolicy(table)
    everything, _ = every_episode(policy, 2)
    everything.terminated.fill_(True)
    objective = SequenceMatch(divergence=kind, discount=0.9)
    loss = objective.loss(policy, both(everything, everything))
    assert loss.metrics["implicit_reward/data"].abs() < 1e-12
    assert gradient(objective, policy, both(everything, everything)).abs().max() < 1e-12
    other = everything.select(torch.tensor([0, 1, 2, 3, 4]))
    assert gradient(objective, policy, both(other, everything)).abs().max() > 0.01


def learnt(objective, data, steps=120):
    """A table that has learnt from data and from every line of its own, each as often as it would draw it."""
    policy = TablePolicy(torch.zeros(4, 3), eos=None)
    optimizer = torch.optim.Adam(policy.parameters(), lr=0.1)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        everything, probability = every_episode(policy, 2)
        everything.terminated.fill_(True)
        drawn = everything.select(torch.multinomial(probability, 128, replacement=True, generator=generator))
        optimizer.zero_grad()
        experience = both(data, drawn)
        (objective.loss(policy, experience).total / objective.count(experience)).sum().backward()
        optimizer.step()
    return policy


@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_what_the_data_do(kind, shapes_unchecked):
    data = lines([[0, 1]] * 3 + [[1, 2]])
    policy = learnt(SequenceMatch(divergence=kind, alpha=2.0, discount=1.0), data)
    after = policy.table.detach().softmax(1)
    assert after[0, 0] > 1.5 * after[0, 1] > 3 * after[0, 2]
    assert after[1, 1] > 0.8
    assert after[2, 2] > 0.5


# Which tokens are terms


def test_the_last_token_of_a_cut_episode_is_no_term():
    data = lines([[0, EOS]])
    cut, whole = lines([[0, 1]], terminated=False), lines([[0, 1]])
    objective = SequenceMatch()
    assert objective.count(both(data, cut)).tolist() == [2, 1]
    assert objective.count(both(data, whole)).tolist() == [2, 2]
    policy = TablePolicy(random_table(), eos=EOS)
    first = objective.loss(policy, both(data, cut)).total[1]
    values = policy.table.detach().logsumexp(1)
    before, after = values[0], values[1]
    reward = policy.table.detach()[0, 0] - 0.998 * after
    assert first.item() == pytest.approx((0.5 * (before - 0.998 * after) + reward**2 / 4).item())


def test_a_human_token_that_cannot_be_drawn_is_no_term():
    """Its logit is -inf under the bans of the drawn lines; the tokens before and after it are learnt all the same."""
    data, model = lines([[0, 1, EOS]]), lines([[0, EOS]], sampling=Sampling(banned=(1,)))
    policy, objective = TablePolicy(random_table(), eos=EOS), SequenceMatch()
    assert objective.count(both(data, model)).tolist() == [2, 2]
    assert bool(gradient(objective, policy, both(data, model)).isfinite().all())


def test_both_kinds_of_lines_are_read_under_the_same_bans_and_untempered():
    data = lines([[0, EOS]])
    model = lines([[0, EOS]], sampling=Sampling(temperature=0.5, top_k=2, banned=(1,), eos=EOS, limit=4))
    policy, seen = TablePolicy(random_table(), eos=EOS), []

    def read(rollout):
        seen.append(rollout.sampling)
        return policy(rollout)

    metrics = SequenceMatch().loss(read, both(data, model)).metrics
    assert seen == [Sampling(banned=(1,))] * 2
    assert metrics["value/data"] == metrics["value/model"]
    assert metrics["implicit_reward/data"] == metrics["implicit_reward/model"]


def test_an_end_is_read_once_more_where_the_policy_chose_it():
    rollout = replace(lines([[0, 1, EOS], [1, EOS], [0, 1]]), terminated=torch.tensor([True, True, False]))
    longer, learnt_, repeated = with_one_more_end(rollout, rollout.action_mask)
    assert longer.tokens.tolist() == [[0, 1, EOS, EOS], [1, EOS, EOS, 0], [0, 1, 0, 0]]
    assert longer.lengths.tolist() == [4, 3, 2]
    assert longer.action_mask.tolist() == learnt_.tolist()
    assert longer.action_mask.sum(1).tolist() == [4, 3, 2]
    assert repeated.sum(1).tolist() == [1, 1, 0]


def test_weights_of_an_endless_end_add_up_to_those_of_an_endless_line():
    objective = SequenceMatch(discount=0.9, occupancy=True, terminal="absorbing")
    (line, _) = objective._lines(both(lines([[0, EOS]]), lines([[0, EOS]])))
    assert objective._weights(line).tolist()[0] == pytest.approx([1, 0.9, 0.81 / 0.1])
    assert objective._weights(line).sum().item() == pytest.approx(1 / (1 - 0.9))


# Taking back


def taking_back_world():
    """p(a) = .6 and p(end) = .4 at the beginning, p(end) = p(backspace) = .5 after a; there is no b."""
    never = -60.0
    table = torch.full((5, 4), never, dtype=torch.float64)
    table[0, 0], table[0, EOS] = math.log(0.6), math.log(0.4)
    table[1, EOS] = table[1, BACK] = math.log(0.5)
    return StackTable(table, EOS, BACK)


def test_final_texts_of_a_policy_that_takes_back():
    """Every line is (a backspace)^k end or (a backspace)^k a end; '' has .571429 of them and a .428571."""
    policy, chances = taking_back_world(), {(): 0.0, (0,): 0.0}
    for k in range(40):
        for rest in ([EOS], [0, EOS]):
            line = [0, BACK] * k + rest
            chance = policy(lines([line])).logprobs.detach().sum().exp().item()
            chances[tuple(kept(line, BACK))[:-1]] += chance
    assert chances == pytest.approx({(): 0.571429, (0,): 0.428571}, abs=1e-6)


def test_discounted_states_of_a_policy_that_takes_back():
    """gamma = .9: '' has .132100, 'a' .071334 and the end .796565."""
    policy, shares = taking_back_world(), torch.zeros(3, dtype=torch.float64)
    objective = taking_back(SequenceMatch(discount=0.9, occupancy=True, terminal="absorbing"))
    for k in range(40):
        for rest in ([EOS], [0, EOS]):
            row = [0, BACK] * k + rest
            chance = policy(lines([row])).logprobs.detach().sum().exp()
            weights = objective._weights(objective._lines(both(lines([row]), lines([row])))[1])[0]
            state = [0, 1] * k + [0] * len(rest[:1]) + [1] * (len(rest) - 1) + [2]
            shares.index_add_(0, torch.tensor(state), 0.1 * chance * weights.double())
    assert shares.tolist() == pytest.approx([0.132100, 0.071334, 0.796565], abs=1e-5)


def test_such_a_policy_is_played_by_the_decoder():
    policy, decoder = taking_back_world(), Sample(max_length=60)
    decoder.bind(toy_facts(ToyTokenizer(4, eos=EOS)))
    torch.manual_seed(0)
    drawn = decoder.decode(policy, toy_prompts(1500, same=False))
    assert bool(drawn.terminated.all())
    assert torch.allclose(policy(drawn).logprobs, drawn.logprobs.double(), atol=1e-5)
    empty = [
        kept(row[:size], BACK) == [EOS] for row, size in zip(drawn.tokens.tolist(), drawn.lengths.tolist(), strict=True)
    ]
    assert sum(empty) / 1500 == pytest.approx(0.571429, abs=0.04)


def test_a_backspace_at_the_beginning_is_played_and_learnt():
    policy = StackTable(random_table(), EOS, BACK)
    line = lines([[BACK, BACK, 0, EOS]])
    logprobs = policy(line).logprobs[0]
    start = policy.table.log_softmax(1)[0]
    assert torch.allclose(logprobs[:3], start[[BACK, BACK, 0]])
    objective = taking_back(SequenceMatch(discount=1.0))
    loss = objective.loss(policy, both(lines([[0, EOS]]), line))
    assert loss.metrics["deletions/model"].item() == 0.5
    assert loss.metrics["deletions/data"].item() == 0


def test_a_planted_mistake_has_no_influence_on_the_choice_before_it():
    """a, b <backspace>, end: the state after a is the one in which the end is chosen, whatever V is after b."""
    table = random_table()
    data = lines([[0, 1, BACK, EOS]], chosen=[[True, False, True, True]])
    objective = taking_back(SequenceMatch(discount=0.9))
    (line, _) = objective._lines(both(data, lines([[0, EOS]])))
    policy = StackTable(table, EOS, BACK)
    read = objective._read(policy, line)
    values = table.logsumexp(1)
    expected = [table[0, 0] - 0.9 * values[1], 0.0, table[2, BACK] - 0.9 * values[1], table[1, EOS]]
    assert read.reward[0].tolist() == pytest.approx([float(value) for value in expected])
    assert read.weight.tolist() == [[1, 0, 1, 1]]


# Refusals


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"alpha": 0.0}, "alpha is 0.0; expected a number > 0"),
        ({"discount": 1.1}, r"discount is 1.1; expected a number in \(0, 1\]"),
        ({"discount": 0.0}, "discount is 0.0"),
        ({"discount": 1.0, "terminal": "absorbing"}, "absorbing and discount 1.*Lower it"),
        ({"divergence": "linear"}, "linear and value_on both.*value_on data"),
    ],
)
def test_arguments_are_checked(arguments, said):
    with pytest.raises(ValueError, match=f"SequenceMatch: .*{said}"):
        SequenceMatch(**arguments)


def test_it_wants_draws_only_where_it_learns_from_them():
    sampler = ToySampler(TablePolicy(random_table()), Greedy(), TableReward(len))
    with pytest.raises(ValueError, match="SequenceMatch: episodes of the decoder Greedy are no draws"):
        SequenceMatch().check(sampler)
    SequenceMatch(divergence="chi2", value_on="data").check(sampler)


def test_an_environment_and_a_backspace_are_refused_together():

    sampler = ToySampler(TablePolicy(random_table()), Sample(), TableReward(len))
    objective = taking_back(SequenceMatch())
    objective.check(sampler)
    objective.converses = True
    with pytest.raises(ValueError, match=r"an environment and a tokenizer with a backspace.*data\.backspace"):
        objective.check(sampler)


def test_without_human_answers_it_says_so():
    with pytest.raises(ValueError, match="SequenceMatch: the prompts carry no human answers"):
        SequenceMatch().count(replace(toy_experience(), expert=None))


def test_a_micro_batch_may_hold_answers_alone():
    """A replay may show lines of other prompts than the step's."""
    policy = TablePolicy(random_table(), eos=3)
    experience = toy_experience()
    assert experience.rollout is not None
    none = experience.rollout.select(torch.tensor([], dtype=torch.long))
    part = Experience(rollout=none, expert=experience.expert)
    objective = SequenceMatch()
    assert objective.count(part).tolist() == [7, 0]
    assert objective.loss(policy, part).total[1].item() == 0
    assert gradient(objective, policy, part).abs().max() > 0


def test_prompts_with_a_target_mask_reach_it():
    prompts = Prompts(
        tokens=torch.zeros(1, 0, dtype=torch.long),
        lengths=torch.zeros(1, dtype=torch.long),
        group=torch.zeros(1, dtype=torch.long),
        targets=torch.tensor([[1, BACK, 0, EOS]]),
        target_lengths=torch.tensor([4]),
        target_mask=torch.tensor([[False, True, True, True]]),
    )
    objective = taking_back(SequenceMatch(divergence="chi2", value_on="data"))
    assert objective.count(Experience(expert=Rollout.of_targets(prompts))).tolist() == [3]
