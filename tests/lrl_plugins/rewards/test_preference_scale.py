import pytest
import torch
from ranked_answers import BERT, SENTENCES, batch_of, beside, bound, noisy, rollout_of

from lrl_core.scoring import judge
from lrl_core.types import Experience
from lrl_plugins.rewards.preference import Preference
from lrl_plugins.rewards.preference_scale import MOST, ReferenceTexts, rescaling

torch.set_num_threads(1)


def test_gain_and_bias_by_hand():
    """Scores of mean 3 and standard deviation 2: gain = 1/2, bias = -3/2; to mean 1 and deviation 4: 2 and -5."""
    scores = torch.tensor([1.0, 5.0])
    assert rescaling(scores) == pytest.approx((0.5, -1.5))
    assert rescaling(scores, mean=1.0, std=4.0) == pytest.approx((2.0, -5.0))
    assert rescaling(torch.full((4,), 7.0)) == (1.0, -7.0)  # no spread to divide by


def test_texts_of_the_policy_push_candidates_out_and_the_newest_stay():
    texts = ReferenceTexts()
    texts.remember([("p", f"candidate {i}") for i in range(MOST + 10)], drawn=False)
    assert texts.texts[0] == ("p", "candidate 10")
    texts.remember([("p", f"drawn {i}") for i in range(3)], drawn=True)
    assert len(texts.texts) == 3
    assert not texts.full
    texts.remember([("p", "candidate")], drawn=False)
    assert len(texts.texts) == 3
    texts.remember([("p", f"later {i}") for i in range(MOST)], drawn=True)
    assert texts.full
    assert texts.texts[0] == ("p", "later 0")
    again = ReferenceTexts()
    again.restore(texts.state())
    assert (again.texts, again.drawn) == (texts.texts, True)


def test_scores_of_the_reference_policy_have_mean_0_and_variance_1():
    reward = bound(Preference(model=BERT, labels="sqlite://"))
    reward.learn(next(iter(bound(Preference(model=BERT)).lessons(batch_of(noisy(2)), None))))  # it knows something now
    rollout = rollout_of(SENTENCES)
    assert list(reward.lessons(Experience(rollout), beside(0, holding=True))) == []
    total = judge(reward, rollout).total
    assert total.mean().item() == pytest.approx(0, abs=1e-5)
    assert total.std(correction=0).item() == pytest.approx(1, abs=1e-4)
    gain = float(reward.gain)
    list(reward.lessons(Experience(rollout_of(SENTENCES[:2])), beside(1, holding=False)))
    assert float(reward.gain) == gain  # once the policy moves, its texts are no reference


def test_replays_that_show_episodes_twice_count_them_once():
    reward = bound(Preference(model=BERT, labels="sqlite://"))
    for _ in range(3):
        list(reward.lessons(Experience(rollout_of(SENTENCES[:4])), beside(5, holding=True)))
    assert len(reward.references.texts) == 4


def test_a_reward_that_is_not_rescaled_says_what_the_network_says():
    reward = bound(Preference(model=BERT, normalise=False))
    reward.taught.fill_(True)
    reward.gain.fill_(5.0)
    raw = reward._raw(reward._asked(rollout_of(SENTENCES)))
    assert torch.equal(judge(reward, rollout_of(SENTENCES)).total, raw)
