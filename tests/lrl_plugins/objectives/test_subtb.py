"""Sub-trajectory balance in worlds whose posterior is known: golden values, zeros, gradients, what does not count."""

from dataclasses import replace
from itertools import product

import pytest
import torch
from prefix_tree import Tree, TreePolicy, TreeReward, four_letters, two_letters

from lrl_core.sampling import Sampling
from lrl_core.testing.toy import ToySampler
from lrl_core.types import Experience, RewardSignal
from lrl_plugins.decoders.limits import Constraints
from lrl_plugins.decoders.sample import Sample
from lrl_plugins.decoders.tempered import Tempered
from lrl_plugins.objectives.subtb import Anneal, SubTB

torch.set_num_threads(1)
T_C = two_letters()
P_LM = torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64).log().expand(1, 7, 3)
BALANCES = ("subtrajectory", "trajectory", "detailed", "variance")


def loss_of(table, lines, prompts=None, tree=T_C, sampling=None, **options):
    objective, experience = SubTB(**options), tree.experience(lines, prompts, sampling)
    policy = TreePolicy(tree, table)
    return (objective.loss(policy, experience).total / objective.count(experience).clamp(min=1)).item()


def random_table(tree, seed=1):
    shape = (*tree.log_r.shape, tree.symbols + 1)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# Numbers


@pytest.mark.parametrize(
    ("lines", "options", "golden"),
    [
        ([(0, 1)], {}, 0.145482),
        ([(0, 1)], {"decay": 0.5}, 0.172358),
        ([(0, 1)], {"temperature": 0.5}, 3.458827),
        ([(0, 1)], {"temperature": 0.5, "decay": 0.5}, 2.990952),
        ([(0,)], {}, 0.164402),
        ([(0, 1), (0,)], {}, 0.150212),  # not .154942, the mean of the lines' means
        ([(0, 1), ()], {}, 0.145482),
        ([()], {}, 0.0),
    ],
)
def test_uniform_policy(lines, options, golden):
    assert loss_of(None, lines, forced_stop="model", **options) == pytest.approx(golden, abs=1e-6)


def test_the_language_model_itself():
    assert loss_of(P_LM, [(0, 1)], forced_stop="model") == pytest.approx(0, abs=1e-12)
    assert loss_of(P_LM, [(0, 1)], forced_stop="model", temperature=0.5) == pytest.approx(2.790881, abs=1e-6)
    assert loss_of(P_LM, [(0, 1)], forced_stop="one") > 0.1  # with the end forced it does not draw the posterior


def test_the_world_is_the_one_of_the_numbers():
    assert T_C.posterior()[0].tolist() == pytest.approx(
        [0.456621, 0.228311, 0.091324, 0.114155, 0.045662, 0.045662, 0.018265], abs=1e-6
    )
    assert T_C.best().softmax(-1)[0, 0].tolist() == pytest.approx([0.388128, 0.155251, 0.456621], abs=1e-6)
    assert T_C.best(0.5).softmax(-1)[0, 0].tolist() == pytest.approx([0.234699, 0.037552, 0.727749], abs=1e-6)


@pytest.mark.parametrize("balance", BALANCES)
@pytest.mark.parametrize("temperature", [1.0, 0.5])
@pytest.mark.parametrize("tree", [T_C, four_letters()], ids=["two letters", "four letters"])
def test_zero_at_the_posterior_and_positive_elsewhere(tree, temperature, balance):
    options = {"balance": balance, "temperature": temperature, "tree": tree}
    lines = [z for z in tree.answers if sum(z) % 3 == 0][-20:]
    prompts = [i % len(tree.log_r) for i in range(len(lines))]
    assert loss_of(tree.best(temperature), lines, prompts, **options) == pytest.approx(0, abs=1e-20)
    for table in (tree.best(0.8 * temperature), None, random_table(tree)):
        assert loss_of(table, lines, prompts, **options) > 1e-3


def test_a_minimal_length_counts_where_whole_answers_are_balanced():
    """Two symbols at least: what the policy would say to shorter answers is of no matter, but to balance prefixes."""
    longer, lines = replace(T_C.sampling, min_length=3), [(0, 0), (0, 1), (1, 0), (1, 1)]
    table = T_C.best()
    table[:, 1, T_C.eos] = 3.0  # after the first letter it would nearly always stop
    assert loss_of(table, lines, sampling=longer, balance="variance") == pytest.approx(0, abs=1e-20)
    assert loss_of(table, lines, balance="variance") > 0.1
    for balance in ("subtrajectory", "trajectory", "detailed"):
        one, other = (loss_of(table, lines, sampling=own, balance=balance) for own in (longer, None))
        assert one == other


def test_log_z_at_the_posterior():
    policy = TreePolicy(T_C, T_C.best())
    metrics = SubTB().loss(policy, T_C.experience([(0, 1), ()])).metrics
    assert metrics["subtb/log_z"].exp().item() == pytest.approx(0.657)
    assert metrics["subtb/loss"].item() == pytest.approx(0, abs=1e-20)
    assert metrics["subtb/temperature"].item() == 1


# Gradients


def test_the_gradient_of_variance_is_twice_that_of_the_divergence():
    """Over every pair of draws of a random policy, each as probable as it is: 2 grad KL(q || posterior)."""
    policy, objective = TreePolicy(T_C, random_table(T_C)), SubTB(balance="variance")
    chances = T_C.drawn(policy.table.detach())[0].tolist()
    total = torch.zeros(())
    for (p, one), (r, other) in product(zip(chances, T_C.answers, strict=True), repeat=2):
        experience = T_C.experience([one, other])
        total = total + p * r * objective.loss(policy, experience).total / objective.count(experience)
    (slope,) = torch.autograd.grad(total, policy.table)
    drawn = T_C.drawn(policy.table)
    divergence = (drawn * (drawn.log() - T_C.posterior().log())).sum()
    (expected,) = torch.autograd.grad(divergence, policy.table)
    assert torch.allclose(slope, 2 * expected, atol=1e-12)
    assert expected.abs().max() > 0.01


@pytest.mark.parametrize("balance", BALANCES)
def test_no_gradient_reaches_the_reward(balance):
    experience = T_C.experience([(0, 1), (1,)])
    by_prefix = experience.reward.by_prefix.clone().requires_grad_()
    reward = RewardSignal(experience.reward.total, by_prefix=by_prefix.detach())
    loss = SubTB(balance=balance).loss(TreePolicy(T_C), replace(experience, reward=reward))
    loss.total.backward()
    assert by_prefix.grad is None
    assert not any(value.requires_grad for value in loss.metrics.values())


# What does not count


def gradient(objective, experience, tree):
    policy = TreePolicy(tree, random_table(tree))
    objective.loss(policy, experience).total.backward()
    return policy.table.grad


@pytest.mark.parametrize("balance", BALANCES)
def test_micro_batches_and_padding_change_nothing(balance):
    tree, objective = four_letters(), SubTB(balance=balance, decay=0.7)
    experience = tree.experience([(0, 1), (3,), (), (2, 2, 1, 0)], [0, 1, 0, 1])
    whole = gradient(objective, experience, tree)
    parts = experience.split(1)
    assert len(parts) == 2
    assert torch.allclose(sum(gradient(objective, part, tree) for part in parts), whole, atol=1e-12)
    assert sum(objective.count(part) for part in parts) == pytest.approx(objective.count(experience).item())
    rollout, reward = experience.rollout, experience.reward
    longer = {
        name: torch.nn.functional.pad(getattr(rollout, name), (0, 2)) for name in ("tokens", "action_mask", "logprobs")
    }
    by_prefix = torch.nn.functional.pad(reward.by_prefix, (0, 2), value=torch.nan)
    padded = Experience(replace(rollout, **longer), replace(reward, by_prefix=by_prefix))
    assert torch.equal(objective.count(padded), objective.count(experience))
    assert torch.allclose(gradient(objective, padded, tree), whole, atol=1e-12)


@pytest.mark.parametrize("balance", BALANCES)
def test_unjudged_answers_teach_nothing(balance):
    objective, experience = SubTB(balance=balance), T_C.experience([(0, 1), (1,), (0,)])
    reward = experience.reward
    unknown = torch.tensor([False, False, True])
    reward = RewardSignal(
        reward.total.masked_fill(unknown, torch.nan),
        by_prefix=reward.by_prefix.masked_fill(unknown[:, None], torch.nan),
    )
    masked = replace(experience, reward=reward)
    left = T_C.experience([(0, 1), (1,)])
    assert torch.equal(objective.count(masked), objective.count(left))
    assert torch.allclose(gradient(objective, masked, T_C), gradient(objective, left, T_C), atol=1e-12)
    nobody = replace(experience, reward=RewardSignal(reward.total * torch.nan, by_prefix=reward.by_prefix * torch.nan))
    assert objective.count(nobody) == 0
    assert gradient(objective, nobody, T_C).abs().max() == 0


def test_a_single_answer_of_a_prompt_has_no_variance():
    tree = four_letters()
    experience = tree.experience([(0, 1), (3,), (2,)], [0, 1, 0])
    assert SubTB(balance="variance").count(experience) == 1
    assert gradient(SubTB(balance="variance"), experience, tree)[1].abs().max() == 0


def test_a_cut_episode_teaches_between_the_states_that_were_read():
    whole = T_C.experience([(0, 1)], sampling=Sampling(eos=2))
    cut = replace(whole.rollout, terminated=torch.tensor([False]), lengths=torch.tensor([2])).trimmed()
    experience = Experience(cut, whole.reward.cut(2))
    short = T_C.experience([(0,)], sampling=Sampling(eos=2))
    for balance in BALANCES[:3]:
        objective = SubTB(balance=balance, forced_stop="model")
        assert objective.count(experience) == 1
        assert torch.allclose(gradient(objective, experience, T_C), gradient(objective, short, T_C))
    assert SubTB(balance="variance").count(experience) == 0


def test_the_decoders_temperature_and_truncation_do_not_count():
    tempered = replace(T_C.sampling, temperature=3.0, top_k=1, top_p=0.5, min_p=0.9, min_length=3)
    for forced_stop in ("one", "model"):
        plain = loss_of(None, [(0, 1), (1,)], forced_stop=forced_stop)
        assert loss_of(None, [(0, 1), (1,)], sampling=tempered, forced_stop=forced_stop) == plain


def test_the_forced_end_costs_nothing_or_what_the_policy_says():
    free = loss_of(None, [(0, 1)], sampling=Sampling(eos=2), forced_stop="one")
    assert loss_of(None, [(0, 1)], forced_stop="model") == free
    assert loss_of(None, [(0, 1)], forced_stop="one") > free


# Temperature of the reward


def test_the_temperature_moves_with_the_training_steps():
    objective, experience = SubTB(temperature=Anneal(start=1.0, end=0.5, steps=10)), T_C.experience([(0, 1)])
    assert objective.reward_temperature == 1
    for _ in range(5):
        objective.learned(experience)
        objective.learned(Experience())  # maximum likelihood is no step of it
    assert objective.reward_temperature.item() == pytest.approx(0.75)
    fixed = SubTB(temperature=0.75).loss(TreePolicy(T_C), experience).total
    assert objective.loss(TreePolicy(T_C), experience).total.item() == pytest.approx(fixed.item())
    again = SubTB(temperature=Anneal(start=1.0, end=0.5, steps=10))
    again.load_state_dict(objective.state_dict())
    for _ in range(20):
        again.learned(experience)
    assert again.reward_temperature == 0.5
    assert objective.reward_temperature.item() == pytest.approx(0.75)


# Refusals


def sampler(**options):
    decoder = T_C.bound(Sample(max_length=3, **options))
    return ToySampler(TreePolicy(T_C), decoder, TreeReward(T_C))


def test_a_decoder_that_cuts_is_refused_where_the_stop_is_certain():
    forced = Constraints(end_at_limit=True)
    with pytest.raises(ValueError, match=r"Sample that cuts episodes .* Set constraints: {end_at_limit: true}"):
        SubTB().check(sampler())
    SubTB().check(sampler(constraints=forced))
    SubTB(forced_stop="model").check(sampler())
    wrapped = ToySampler(TreePolicy(T_C), T_C.bound(Tempered(Sample(max_length=3))), TreeReward(T_C))
    with pytest.raises(ValueError, match="Tempered that cuts episodes"):
        SubTB().check(wrapped)
    with pytest.raises(ValueError, match="draws 1 sample per prompt; expected at least 2"):
        SubTB(balance="variance").check(sampler(constraints=forced))
    with pytest.raises(ValueError, match="never draws the end token"):
        SubTB(forced_stop="model").check(sampler(banned=(2,)))


def test_a_reward_of_whole_answers_is_enough_for_variance_alone():
    experience = T_C.experience([(0, 1), (1,)])
    experience = replace(experience, reward=RewardSignal(experience.reward.total))
    with pytest.raises(ValueError, match=r"by_prefix is None.*LMPosterior"):
        SubTB().loss(TreePolicy(T_C), experience)
    assert SubTB(balance="variance").loss(TreePolicy(T_C), experience).total.isfinite()


def test_an_end_that_cannot_come_is_refused():
    experience = T_C.experience([(0, 1)])
    cut = replace(experience.rollout, lengths=torch.tensor([2]), sampling=Sampling(banned=(2,))).trimmed()
    with pytest.raises(ValueError, match="the end token has probability 0 in 2 states"):
        SubTB(forced_stop="model").loss(TreePolicy(T_C), Experience(cut, experience.reward.cut(2)))
    late = Tree(2, 3, lambda _, z: -float(len(z))).experience([(0, 1, 0)], sampling=T_C.sampling)
    with pytest.raises(ValueError, match="an action has probability 0"):
        SubTB().loss(TreePolicy(Tree(2, 3, lambda _, z: 0.0)), late)


def test_wrong_numbers_are_refused():
    for wrong in ({"decay": 1.5}, {"temperature": 0.0}):
        with pytest.raises(ValueError, match="SubTB: "):
            SubTB(**wrong)
    with pytest.raises(ValueError, match="Anneal: "):
        Anneal(1.0, 0.0, 5)
