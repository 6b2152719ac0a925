"""Maximum likelihood that reads some of its own words."""

import math
from dataclasses import replace

import pytest
import torch

from lrl_core.testing.parts import bigram_world, check_objective, toy_experience
from lrl_core.testing.toy import TablePolicy, TableReward, ToySampler, ToyTokenizer, toy_facts, toy_prompts
from lrl_core.types import Experience, Rollout
from lrl_plugins.decoders.sample import Greedy
from lrl_plugins.objectives.cross_entropy import CrossEntropy
from lrl_plugins.objectives.scheduled_sampling import ScheduledSampling, mixed


def ready(policy, own=None, **arguments):
    objective = ScheduledSampling(**arguments)
    objective.check(ToySampler(policy, Greedy(), TableReward(lambda tokens: 0.0)))
    if own is not None:
        objective.own = own
    return objective


def human(lines):
    """Human answers of equal length."""
    tokens = torch.tensor(lines)
    rollout = Rollout(
        prompts=toy_prompts(len(lines), same=False),
        tokens=tokens,
        lengths=torch.full((len(lines),), tokens.shape[1]),
        action_mask=torch.ones_like(tokens, dtype=torch.bool),
        logprobs=torch.zeros(tokens.shape, dtype=torch.float64),
        terminated=torch.ones(len(lines), dtype=torch.bool),
    )
    return Experience(expert=rollout)


@pytest.mark.parametrize("mode", ["token-mean", "seq-mean-token-mean", "seq-mean-token-sum", "seq-mean-token-sum-norm"])
def test_conforms(mode):
    check_objective(lambda: ScheduledSampling(aggregation=mode, length=7))


def test_without_own_tokens_it_is_cross_entropy_bit_for_bit():
    policy, _ = bigram_world()
    experience = toy_experience()
    mine, theirs = ready(policy).loss(policy, experience), CrossEntropy().loss(policy, experience)
    assert torch.equal(mine.total, theirs.total)
    first, second = (torch.autograd.grad(loss.total, policy.table)[0] for loss in (mine, theirs))
    assert torch.equal(first, second)
    assert torch.equal(ready(policy).count(experience), CrossEntropy().count(experience))


SURE = 50.0


def stubborn():
    """Says 2 after everything; the human answers below never do."""
    return TablePolicy([[0.0, 0.0, SURE]] * 4)


def test_with_own_tokens_alone_it_reads_its_own_and_learns_the_human_ones():
    policy, experience = stubborn(), human([[0, 1, 0], [1, 1, 0]])
    objective = ready(policy, own=1.0)
    read = mixed(policy, experience.expert, 1.0, objective.sampling)
    assert read.tolist() == [[2, 2, 2]] * 2
    loss = objective.loss(policy, experience)
    seen = policy.table.detach().log_softmax(1)
    expected = -(seen[0, 0] + seen[0, 1] + seen[3, 1] + seen[3, 0] + seen[3, 1] + seen[3, 0])
    assert loss.total.item() == pytest.approx(expected.item())
    assert loss.metrics["replaced"].item() == 1
    gradient = torch.autograd.grad(loss.total, policy.table)[0]
    assert gradient[1].tolist() == gradient[2].tolist() == [0, 0, 0]  # what was said after a 0 or 1 was never read


def test_the_share_of_replaced_tokens():
    policy, experience = stubborn(), human([[0, 1, 0, 1, 0]] * 2000)
    torch.manual_seed(0)
    metrics = ready(policy, own=0.3).loss(policy, experience).metrics
    assert metrics["replaced"].item() == pytest.approx(0.3, abs=3 * math.sqrt(0.3 * 0.7 / 10_000))


def test_coins_are_thrown_for_each_token():
    policy = stubborn()
    torch.manual_seed(0)
    read = mixed(policy, human([[0, 1, 0, 1, 0]] * 500).expert, 0.5, ready(policy).sampling)
    replaced = (read == 2).double()
    assert torch.corrcoef(replaced.t())[0, 1].abs() < 0.15
    assert {tuple(line) for line in replaced.long().tolist()} > {(0,) * 5, (1,) * 5}


def test_padding_is_left_alone():
    policy, _ = bigram_world()
    answers = toy_experience().expert
    read = mixed(policy, answers, 1.0, ready(policy).sampling)
    assert torch.equal(read[~answers.action_mask], answers.tokens[~answers.action_mask])


def test_it_draws_nothing_that_is_never_drawn():
    class Tokenizer(ToyTokenizer):
        never_drawn = (2,)

    policy, objective = stubborn(), ScheduledSampling()
    objective.bind(toy_facts(Tokenizer(3)))
    read = mixed(policy, human([[0, 1, 0]] * 50).expert, 1.0, objective.sampling)
    assert set(read.flatten().tolist()) == {0, 1}


def test_drawing_leaves_the_mode_and_the_gradients_alone():
    policy, experience = stubborn().train(), human([[0, 1, 0]])
    read = mixed(policy, experience.expert, 1.0, ready(policy).sampling)
    assert policy.training
    assert not read.requires_grad


def test_it_is_an_improper_objective():
    """AA and BB, half each, read as its own words: the second token is learnt independently of the first."""
    table = [[0.0, 0.0], [1.5, -1.5], [-1.5, 1.5]]  # begins nearly right: A after A, B after B
    for own, expected in ((1.0, 0.5), (0.0, 0.97)):
        policy, experience = TablePolicy(table), human([[0, 0], [1, 1]] * 150)
        objective, optimizer = ready(policy, own), torch.optim.SGD(policy.parameters(), lr=4.0)
        torch.manual_seed(0)
        for _ in range(60):
            optimizer.zero_grad()
            (objective.loss(policy, experience).total / objective.count(experience)).backward()
            optimizer.step()
        after = policy.table.detach().softmax(1)
        assert after[1, 0].item() == pytest.approx(expected, abs=0.1 if own else 0.03)
        assert after[2, 1].item() == pytest.approx(expected, abs=0.1 if own else 0.03)


# Schedules


def own_by_epoch(epochs, **arguments):
    objective, shares = ScheduledSampling(**arguments), []
    for epoch in epochs:
        objective.begin_epoch(epoch)
        shares.append(objective.own)
    return shares


def test_the_captioning_rule_is_the_default():
    shares = own_by_epoch([0, 4, 5, 9, 10, 24, 25, 99])
    assert shares == pytest.approx([0, 0, 0.05, 0.05, 0.1, 0.2, 0.25, 0.25])


def test_schedules():
    each = {"every": 1, "floor": 0.0}
    assert own_by_epoch([0, 1, 3, 20], schedule="linear", slope=0.1, **each) == pytest.approx([0, 0.1, 0.3, 1])
    assert own_by_epoch([0, 1, 2], schedule="exponential", k=0.9, **each) == pytest.approx([0, 0.1, 0.19])
    sigmoid = [1 - 5 / (5 + math.exp(i / 5)) for i in (0, 1, 10)]
    assert own_by_epoch([0, 1, 10], schedule="inverse_sigmoid", k=5.0, **each) == pytest.approx(sigmoid)
    assert own_by_epoch([10**6], schedule="inverse_sigmoid", k=5.0, **each) == [1]
    assert own_by_epoch([0, 2, 3], schedule="linear", slope=0.1, start=2, **each) == pytest.approx([0, 0, 0.1])
    late = {"schedule": "inverse_sigmoid", "k": 5.0, "start": 2}
    assert own_by_epoch([0, 1], **late, **each) == [0, 0]
    assert own_by_epoch([2], **late, **each) == pytest.approx([1 / 6])
    assert own_by_epoch([50], schedule="exponential", k=0.5, every=1, floor=0.2) == pytest.approx([0.8])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"schedule": "exponential", "k": 1.5}, r"k is 1\.5; expected a number in \(0, 1\)"),
        ({"schedule": "inverse_sigmoid", "k": 0.5}, r"k is 0\.5; expected a number >= 1"),
        ({"slope": -1.0}, "slope is"),
        ({"every": 0}, "every is 0"),
        ({"start": -1}, "start is -1"),
        ({"floor": 1.1}, "floor is"),
    ],
)
def test_refusals(arguments, said):
    with pytest.raises(ValueError, match=said):
        ScheduledSampling(**arguments)


def test_the_policy_is_no_part_of_the_objective():
    policy, _ = bigram_world()
    objective = ready(policy)
    assert [*objective.parameters()] == []
    assert objective.state_dict() == {}
    blind = ScheduledSampling()
    blind.own = 0.5
    with pytest.raises(RuntimeError, match="has not seen the policy"):
        blind.loss(policy, toy_experience())


def test_missing_human_answers_are_named():
    experience = toy_experience()
    with pytest.raises(ValueError, match="ScheduledSampling: the prompts carry no human answers"):
        ScheduledSampling().count(replace(experience, expert=None))
