"""Direct preference optimisation, against its closed form on a distribution of three answers."""

import math
from dataclasses import replace
from itertools import permutations

import pytest
import torch

from lrl_core.masks import length_mask
from lrl_core.reference import Reference
from lrl_core.sampling import Sampling
from lrl_core.testing.parts import EOS, bigram_world, check_objective, full_experience
from lrl_core.testing.toy import TablePolicy, ToySampler, ToyTokenizer, stop_world, toy_facts, toy_prompts
from lrl_core.types import Experience, RewardSignal, Rollout
from lrl_plugins.decoders.sample import Greedy, Sample
from lrl_plugins.objectives.dpo import DPO, pair_losses, preferred_pairs

REFERENCE = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
REWARD = torch.tensor([1.0, 0.0, -1.0], dtype=torch.float64)
BETA = 0.5
OPTIMUM = [0.918672, 0.074597, 0.006730]
"""pi_ref exp(r / beta) / Z."""
NAN = float("nan")


def ranked(tokens, ranks, group=None, policy=REFERENCE):
    """One-token answers of a policy that says 0, 1, 2, ranked by somebody; the reference says them with REFERENCE."""
    tokens, count = torch.tensor(tokens), len(tokens)
    prompts = replace(
        toy_prompts(count), group=torch.tensor(group or [0] * count), features={"rank": torch.tensor(ranks)}
    )
    one = torch.ones(count, dtype=torch.long)
    expert = Rollout(
        prompts=prompts,
        tokens=tokens[:, None],
        lengths=one,
        action_mask=one[:, None].bool(),
        logprobs=torch.zeros(count, 1),
        terminated=one.bool(),
        reference_logprobs=REFERENCE.log()[tokens][:, None],
    )
    return TablePolicy(torch.as_tensor(policy).log()[None]), Experience(expert=expert)


def drawn(tokens, rewards, terminated=None):
    """The same answers as episodes with rewards."""
    policy, experience = ranked(tokens, [0] * len(tokens))
    rollout = replace(experience.expert, sampling=Sampling(), logprobs=experience.expert.reference_logprobs)
    if terminated is not None:
        rollout = replace(rollout, terminated=torch.tensor(terminated))
    return policy, Experience(rollout, RewardSignal(torch.tensor(rewards, dtype=torch.float64)))


def gradient(policy, experience, **arguments):
    objective = DPO(**{"beta": BETA} | arguments)
    return torch.autograd.grad(objective.loss(policy, experience).total, policy.table)[0][0]


def population(policy, **arguments):
    """The mean loss over ordered pairs, labelled as Bradley and Terry say of REWARD."""
    total = torch.zeros((), dtype=torch.float64)
    for better, worse in permutations(range(3), 2):
        probability = torch.sigmoid(REWARD[better] - REWARD[worse])
        _, pair = ranked([better, worse], [0, 1])
        total = total + probability * DPO(beta=BETA, **arguments).loss(policy, pair).total / 6
    return total


@pytest.mark.parametrize("form", ["sigmoid", "ipo", "hinge", "robust"])
@pytest.mark.parametrize("ranking", ["all", "best_each", "best_worst"])
def test_drawn_pairs_conform(form, ranking):
    check_objective(lambda: DPO(pairs="drawn", loss=form, ranking=ranking, unfinished="lose"))


@pytest.mark.parametrize("normalised", [False, True])
def test_stored_pairs_conform(monkeypatch, normalised):
    """Micro-batches, padding and counts, on two prompts with two answers each."""
    experience = full_experience()
    expert = replace(
        experience.rollout,
        action_mask=length_mask(experience.rollout.lengths, 4),
        sampling=None,
        prompts=replace(experience.rollout.prompts, features={"rank": torch.tensor([1, 0, 0, 1])}),
    )
    monkeypatch.setattr("lrl_core.testing.parts.full_experience", lambda: replace(experience, expert=expert))
    check_objective(lambda: DPO(length_normalised=normalised))


@pytest.mark.parametrize("beta", [0.01, 0.1, 5.0])
def test_at_the_reference_any_pair_costs_ln_2(beta):
    policy, pair = ranked([2, 0], [0, 1])
    assert DPO(beta=beta).loss(policy, pair).total.item() == pytest.approx(math.log(2))
    smoothed = DPO(beta=beta, label_smoothing=0.2).loss(policy, pair).total.item()
    assert smoothed == pytest.approx(math.log(2))
    assert DPO(beta=beta, loss="hinge").loss(policy, pair).total.item() == 1
    assert DPO(beta=beta, loss="ipo").loss(policy, pair).total.item() == pytest.approx(1 / (4 * beta**2))


def test_the_gradient_weighs_a_pair_by_how_wrong_it_is():
    """-beta sigma(r_l - r_w) (grad log pi(y_w) - grad log pi(y_l)): eq. 7's gradient (Rafailov et al. 2023)."""
    said = [0.2, 0.3, 0.5]
    policy, pair = ranked([0, 2], [0, 1], policy=said)
    implicit = BETA * (torch.tensor(said, dtype=torch.float64) / REFERENCE).log()
    weight = torch.sigmoid(implicit[2] - implicit[0]).item()
    assert gradient(policy, pair).tolist() == pytest.approx([-BETA * weight, 0, BETA * weight])


def test_the_closed_form_is_the_minimum_of_the_population_loss():
    best, _ = ranked([0], [0], policy=OPTIMUM)
    loss = population(best)
    assert loss.item() == pytest.approx(0.254957, abs=1e-6)
    assert torch.autograd.grad(loss, best.table)[0].abs().max() < 1e-6
    for moved in ([0.9, 0.09, 0.01], [0.93, 0.065, 0.005], [0.918672, 0.0700, 0.011328]):
        assert population(ranked([0], [0], policy=moved)[0]) > loss + 1e-6


def test_training_converges_to_the_closed_form():
    """From the reference, by exact gradients, to pi_ref exp(r / beta) / Z, whose implicit rewards differ as r does."""
    policy, _ = ranked([0], [0])
    optimizer = torch.optim.LBFGS(policy.parameters(), max_iter=60, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = population(policy)
        loss.backward()
        return loss

    optimizer.step(closure)
    found = policy.table.detach()[0].log_softmax(0)
    assert found.exp().tolist() == pytest.approx(OPTIMUM, abs=2e-5)
    implicit = BETA * (found - REFERENCE.log())
    assert (implicit - implicit[1]).tolist() == pytest.approx([1, 0, -1], abs=1e-3)


def test_a_shift_of_a_prompts_log_ratios_changes_nothing():
    policy, pair = ranked([0, 2, 1, 0], [0, 1, 1, 0], group=[3, 3, 8, 8], policy=[0.2, 0.3, 0.5])
    shift = torch.tensor([0.7, 0.7, -2.0, -2.0], dtype=torch.float64)[:, None]
    moved = Experience(expert=replace(pair.expert, reference_logprobs=pair.expert.reference_logprobs + shift))
    assert torch.allclose(gradient(policy, pair), gradient(policy, moved), atol=1e-12)


def test_ipo_is_least_where_the_margin_is_half_of_one_over_beta():
    margin = torch.tensor([4.0, 5.0, 6.0], dtype=torch.float64, requires_grad=True)
    losses = pair_losses(margin, "ipo", beta=0.1)
    assert losses.tolist() == pytest.approx([1, 0, 1])
    assert torch.autograd.grad(losses.sum(), margin)[0].tolist() == pytest.approx([-2, 0, 2])


@pytest.mark.parametrize(
    ("form", "smoothing", "expected"),
    [
        ("sigmoid", 0.0, [0.313262, 1.313262]),
        ("sigmoid", 0.1, [0.413262, 1.213262]),  # conservative: 0.9 and 0.1 of each
        ("robust", 0.1, [0.188262, 1.438262]),  # (0.9 L(1) - 0.1 L(-1)) / 0.8
        ("hinge", 0.0, [0.0, 2.0]),
    ],
)
def test_losses_of_a_margin(form, smoothing, expected):
    margin = torch.tensor([2.0, -2.0], dtype=torch.float64)
    assert pair_losses(margin, form, 0.5, smoothing).tolist() == pytest.approx(expected, abs=1e-6)


def test_robust_undoes_flipped_labels():
    """Its mean over labels of which the share e is flipped is the loss of the clean label (Chowdhury et al. 2024)."""
    h = torch.tensor([1.3], dtype=torch.float64)
    noisy = 0.8 * pair_losses(h, "robust", 0.5, 0.2) + 0.2 * pair_losses(-h, "robust", 0.5, 0.2)
    assert noisy.item() == pytest.approx(pair_losses(h, "sigmoid", 0.5).item())


def pairs_of(worth, ranking, group=None):
    group = torch.tensor(group or [4] * len(worth))
    better, worse = preferred_pairs(torch.tensor(worth), group, ranking)
    return set(zip(better.tolist(), worse.tolist(), strict=True))


@pytest.mark.parametrize(
    ("worth", "ranking", "expected"),
    [
        ([3.0, 1.0, 2.0], "all", {(0, 1), (0, 2), (2, 1)}),
        ([3.0, 1.0, 2.0], "best_each", {(0, 1), (0, 2)}),
        ([3.0, 1.0, 2.0], "best_worst", {(0, 1)}),
        ([3.0, 3.0, 1.0], "best_worst", {(0, 2), (1, 2)}),  # each of the best
        ([2.0, 2.0], "all", set()),  # ties teach nothing
        ([2.0, 2.0, 2.0], "best_worst", set()),
        ([NAN, 1.0, 2.0], "all", {(2, 1)}),  # unjudged
        ([NAN, 1.0, 2.0], "best_worst", {(2, 1)}),
        ([NAN, NAN], "best_each", set()),
    ],
)
def test_pairs(worth, ranking, expected):
    assert pairs_of(worth, ranking) == expected


@pytest.mark.parametrize("ranking", ["all", "best_each", "best_worst"])
def test_prompts_are_not_mixed(ranking):
    assert pairs_of([1.0, 9.0, 0.0, 8.0], ranking, group=[1, 2, 1, 2]) == {(0, 2), (1, 3)}


def test_drawn_pairs_learn_what_stored_ones_do():
    policy, stored = ranked([0, 2, 1], [1, 0, 2], policy=[0.2, 0.3, 0.5])
    _, episodes = drawn([0, 2, 1], [0.5, 3.0, -1.0])
    assert DPO(pairs="drawn").count(episodes).item() == DPO().count(stored).item() == 3
    assert torch.allclose(gradient(policy, stored), gradient(policy, episodes, pairs="drawn"), atol=1e-12)


def test_an_unfinished_episode_loses_if_so_asked():
    _, episodes = drawn([0, 2, 1], [1.0, 3.0, 2.0], terminated=[True, False, True])
    assert DPO(pairs="drawn", ranking="best_worst").count(episodes).item() == 1
    policy, wins = drawn([2, 1], [3.0, 2.0], terminated=[False, True])
    assert gradient(policy, wins, pairs="drawn")[2] < 0  # rises
    assert gradient(policy, wins, pairs="drawn", unfinished="lose")[2] > 0
    _, both = drawn([2, 1], [3.0, 2.0], terminated=[False, False])
    assert DPO(pairs="drawn", unfinished="lose").count(both).item() == 0


def test_an_answer_counts_by_its_sum_or_by_its_mean():
    """Three tokens against two, end tokens counted: the shorter one's log-ratio is what is divided by less."""
    policy, _ = bigram_world()
    tokens = torch.tensor([[0, 1, EOS], [2, EOS, 0]])
    lengths = torch.tensor([3, 2])
    expert = Rollout(
        prompts=replace(toy_prompts(2), features={"rank": torch.tensor([0, 1])}),
        tokens=tokens,
        lengths=lengths,
        action_mask=length_mask(lengths, 3),
        logprobs=torch.zeros(2, 3),
        terminated=torch.ones(2, dtype=torch.bool),
        reference_logprobs=torch.tensor([[-1.0, -2.0, -0.5], [-0.3, -0.7, -9.0]], dtype=torch.float64),
    )
    lines = policy.table.detach().log_softmax(1)
    apart = [lines[0, 0] + lines[1, 1] + lines[2, EOS] + 3.5, lines[0, 2] + lines[3, EOS] + 1.0]
    for normalised, h in ((False, apart[0] - apart[1]), (True, apart[0] / 3 - apart[1] / 2)):
        objective = DPO(beta=2.0, length_normalised=normalised)
        loss = objective.loss(policy, Experience(expert=expert))
        assert loss.total.item() == pytest.approx(math.log1p(math.exp(-2 * h)))
        assert loss.metrics["dpo/margin"].item() == pytest.approx(2 * h.item())


def test_what_is_logged():
    said = [0.2, 0.5, 0.3]
    policy, experience = ranked([0, 1, 2], [0, 1, 2], policy=said)
    implicit = (BETA * (torch.tensor(said, dtype=torch.float64) / REFERENCE).log()).tolist()
    metrics = DPO(beta=BETA).loss(policy, experience).metrics
    chosen, rejected = (2 * implicit[0] + implicit[1]) / 3, (implicit[1] + 2 * implicit[2]) / 3
    assert {name: value.item() for name, value in metrics.items()} == {
        "dpo/accuracy": pytest.approx(1 / 3),
        "dpo/margin": pytest.approx(chosen - rejected),
        "dpo/chosen": pytest.approx(chosen),
        "dpo/rejected": pytest.approx(rejected),
    }


def test_stored_answers_are_read_without_dropout():
    """As the reference reads them: the module turns dropout on where an episode has no sampling."""
    policy, experience = ranked([0, 1], [0, 1])
    read = []

    def reading(rollout):
        read.append(rollout.sampling)
        return policy(rollout)

    DPO().loss(reading, experience)
    assert read == [Sampling()]


def test_a_batch_of_ties_has_a_backward_pass_that_changes_nothing():
    policy, experience = ranked([0, 2], [1, 1])
    assert DPO().count(experience).item() == 0
    assert gradient(policy, experience).tolist() == [0, 0, 0]


def sampler(decoder, reference=True):
    policy, reward = stop_world()
    return ToySampler(policy, decoder, reward, reference=Reference() if reference else None)


def bound(**arguments):
    objective = DPO(**arguments)
    objective.bind(toy_facts(ToyTokenizer(4)))
    return objective


def test_recipes_that_cannot_teach_are_refused():
    with pytest.raises(ValueError, match=r"DPO: the recipe names no reference policy.*add it"):
        bound(pairs="drawn").check(sampler(Sample(samples=2), reference=False))
    with pytest.raises(ValueError, match="DPO: the decoder Sample draws 1 sample per prompt"):
        bound(pairs="drawn").check(sampler(Sample()))
    with pytest.raises(ValueError, match="DPO: episodes of the decoder Greedy are no draws"):
        bound(pairs="drawn").check(sampler(Greedy()))
    with pytest.raises(ValueError, match=r"no `rank` that says which answer is better.*answers: ranked"):
        bound().check(sampler(Sample()))
    bound(pairs="drawn").check(sampler(Sample(samples=2)))


def test_what_an_experience_lacks_is_named():
    policy, experience = ranked([0, 1], [0, 1])
    with pytest.raises(ValueError, match=r"DPO: the answers carry no reference_logprobs"):
        DPO().loss(policy, Experience(expert=replace(experience.expert, reference_logprobs=None)))
    with pytest.raises(ValueError, match=r"DPO: the prompts carry no human answers"):
        DPO().count(Experience())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"unfinished": "lose"}, "unfinished is 'lose' with pairs 'stored'"),
        ({"beta": 0.0}, "beta is 0.0; expected a number > 0"),
        ({"label_smoothing": 0.5}, r"label_smoothing is 0.5; expected a number in \[0, 0.5\)"),
        ({"label_smoothing": 0.1, "loss": "ipo"}, "label_smoothing is 0.1 with loss ipo"),
    ],
)
def test_wrong_arguments_are_refused(arguments, said):
    with pytest.raises(ValueError, match=said):
        DPO(**arguments)
