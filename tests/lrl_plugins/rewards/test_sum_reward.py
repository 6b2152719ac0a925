import pytest
import torch
from jsonargparse import ArgumentParser, Namespace

from lrl_core.interfaces import Reward, bind_all
from lrl_core.scoring import PluginError, judge
from lrl_core.testing.rewards import check_reward, example_rollout, facts_of
from lrl_core.types import RewardSignal
from lrl_plugins.rewards.bleu import BLEU
from lrl_plugins.rewards.cider import CIDErD
from lrl_plugins.rewards.normalise import BatchStandardise, Standardise
from lrl_plugins.rewards.sum import Sum

ROLLOUT = example_rollout()
ROWS, STEPS = ROLLOUT.tokens.shape
NAN = float("nan")


class Given(Reward):
    """Scores fixed in advance, for the rows of the example."""

    def __init__(self, total, by_token=False, by_prefix=None):
        super().__init__()
        self.total, self.spread, self.by_prefix = torch.tensor(total), by_token, by_prefix

    def score(self, rollout):
        by_token = None
        if self.spread:  # equal shares over the episode
            real = torch.arange(STEPS) < rollout.lengths[:, None]
            by_token = torch.where(real, (self.total / rollout.lengths)[:, None], 0.0)
        return RewardSignal(self.total, by_token=by_token, by_prefix=self.by_prefix, parts={"given": self.total})


ONE = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
TWO = [10.0, 10.0, 20.0, 20.0, 30.0, 30.0]


@pytest.mark.parametrize("normaliser", [None, Standardise])
def test_conforms(normaliser):
    check_reward(
        lambda: Sum(
            {"cider": CIDErD(), "bleu": BLEU(n=2)}, {"bleu": 0.5}, {"bleu": normaliser()} if normaliser else None
        )
    )


def test_conforms_with_a_batch_normaliser():
    def make():
        return Sum({"cider": CIDErD(), "bleu": BLEU()}, normalise={"cider": BatchStandardise()})

    check_reward(make)
    assert not make().rowwise
    assert Sum({"cider": CIDErD(), "bleu": BLEU()}, normalise={"cider": Standardise()}).rowwise


def test_adds_up_with_weights_and_logs_raw_terms():
    signal = judge(Sum({"one": Given(ONE), "two": Given(TWO)}, weights={"two": -0.5}), ROLLOUT)
    assert signal.total.tolist() == pytest.approx([a - b / 2 for a, b in zip(ONE, TWO, strict=True)])
    assert signal.by_token is None
    assert signal.parts.keys() == {"one", "two"}
    assert signal.parts["two"].tolist() == TWO


def test_a_weighted_term_that_cannot_judge_leaves_the_row_unjudged():
    total = judge(Sum({"one": Given(ONE), "two": Given([NAN, *TWO[1:]])}), ROLLOUT).total
    assert total.isnan().tolist() == [True] + [False] * 5


def test_a_term_of_weight_zero_is_only_logged():
    signal = judge(Sum({"one": Given(ONE), "two": Given([NAN] * 6, by_token=True)}, weights={"two": 0}), ROLLOUT)
    assert signal.total.tolist() == ONE
    assert signal.by_token is None
    assert signal.parts["two"].isnan().all()


def test_normalised_terms_are_logged_beside_the_raw_ones():
    reward = Sum({"one": Given(ONE), "two": Given(TWO)}, {"two": 2.0}, {"two": BatchStandardise()})
    signal = judge(reward, ROLLOUT)
    # TWO has mean 20 and population variance 200/3.
    normalised = [(x - 20) / (200 / 3) ** 0.5 for x in TWO]
    assert signal.parts["two/normalised"].tolist() == pytest.approx(normalised)
    assert signal.total.tolist() == pytest.approx([a + 2 * b for a, b in zip(ONE, normalised, strict=True)], abs=1e-5)


def test_tokens_of_one_term_and_the_whole_of_another():
    signal = judge(Sum({"one": Given(ONE, by_token=True), "two": Given(TWO)}, {"one": 3.0}), ROLLOUT)
    length = int(ROLLOUT.lengths[0])
    share = 3 * ONE[0] / length
    expected = [share] * (length - 1) + [share + TWO[0]] + [0.0] * (STEPS - length)
    assert signal.by_token[0].tolist() == pytest.approx(expected)


def test_tokens_still_add_up_after_normalising_and_on_unjudged_rows():
    terms = {"one": Given([NAN, *ONE[1:]], by_token=True), "two": Given(TWO, by_token=True)}
    reward = Sum(terms, {"one": 0.3, "two": -1.0}, {"one": BatchStandardise(), "two": Standardise()})
    signal = judge(reward, ROLLOUT)
    assert signal.by_token[0].abs().sum() == 0
    assert signal.by_token[1:].sum(1).tolist() == pytest.approx(signal.total[1:].tolist(), abs=1e-4)


def test_prefixes_add_up_only_where_every_term_has_them():
    prefixes = torch.arange(float(ROWS * (STEPS + 1))).view(ROWS, STEPS + 1)
    both = Sum({"one": Given(ONE, by_prefix=prefixes), "two": Given(TWO, by_prefix=prefixes)}, {"two": 0.5})
    assert torch.allclose(judge(both, ROLLOUT).by_prefix, 1.5 * prefixes)
    half = Sum({"one": Given(ONE, by_prefix=prefixes), "two": Given(TWO)})
    assert judge(half, ROLLOUT).by_prefix is None


def test_sums_nest_and_keep_the_components():
    inner = Sum({"one": Given(ONE), "two": Given(TWO)})
    signal = judge(Sum({"inner": inner, "three": Given(ONE)}), ROLLOUT)
    assert signal.parts.keys() == {"inner", "inner/one", "inner/two", "three"}


def test_a_broken_term_is_named():
    with pytest.raises(PluginError, match=r"^Given .*total of shape \[2\]"):
        judge(Sum({"one": Given([1.0, 2.0])}), ROLLOUT)


@pytest.mark.parametrize("argument", ["weights", "normalise"])
def test_misspelt_terms_get_a_suggestion(argument):
    given = {"weights": {"cidr": 1.0}, "normalise": {"cidr": Standardise()}}[argument]
    with pytest.raises(ValueError, match=rf"{argument} names 'cidr'.*Did you mean 'cider'"):
        Sum({"cider": CIDErD()}, **{argument: given})


@pytest.mark.parametrize("terms", [{}, {"a.b": BLEU()}, {"pop": BLEU()}])
def test_impossible_terms_are_refused(terms):
    with pytest.raises(ValueError, match="expected"):
        Sum(terms)


def test_state_of_terms_and_normalisers_is_in_the_checkpoint():
    reward = Sum({"cider": CIDErD()}, normalise={"cider": Standardise()})
    assert {"terms.cider._extra_state", "normalise.cider.mean"} <= reward.state_dict().keys()


def test_a_recipe_names_terms_and_normalisers_by_their_short_names(tmp_path):
    (tmp_path / "recipe.yaml").write_text(
        """
reward:
  class_path: lrl_plugins.rewards.sum.Sum
  init_args:
    terms:
      cider: {class_path: CIDErD}
      bleu: {class_path: BLEU, init_args: {n: 2, smoothing: exp}}
    weights: {bleu: 0.25}
    normalise:
      cider: {class_path: Standardise, init_args: {decay: 0.9}}
"""
    )
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_subclass_arguments(Reward, "reward")
    made: Namespace = parser.instantiate_classes(parser.parse_args([f"--config={tmp_path / 'recipe.yaml'}"]))
    reward = made.reward
    assert isinstance(reward, Sum)
    assert isinstance(reward.terms["cider"], CIDErD)
    assert (reward.terms["bleu"].n, reward.terms["bleu"].smoothing) == (2, "exp")
    assert reward.weights == {"cider": 1.0, "bleu": 0.25}
    assert reward.normalise["cider"].decay == 0.9
    bind_all(reward, facts_of(ROLLOUT))
    assert judge(reward, ROLLOUT).total.isfinite().all()
