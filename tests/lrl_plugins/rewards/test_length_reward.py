from dataclasses import replace

import pytest
import torch

from lrl_core.scoring import judge
from lrl_core.testing.rewards import check_reward, example_rollout
from lrl_plugins.rewards.length import Length, distance_penalty, overlong_penalty

torch.set_num_threads(1)
ROLLOUT = example_rollout()


@pytest.mark.parametrize("unit", ["words", "tokens"])
@pytest.mark.parametrize("mode", ["linear", "overlong"])
def test_conforms(mode, unit):
    check_reward(lambda: Length(mode, unit, target=3, max_length=5, cache=4))


def test_golden_soft_overlong_punishment():
    # DAPO's constants: nothing until 16384, -1 from 20480 on, a line between.
    lengths = torch.tensor([0, 16384, 18432, 20480, 20481, 99999])
    assert overlong_penalty(lengths, 20480, 4096).tolist() == pytest.approx([0, 0, -0.5, -1, -1, -1])


def test_distance_from_the_target():
    assert distance_penalty(torch.tensor([0, 5, 10, 20, 30]), 10).tolist() == pytest.approx([-1, -0.5, 0, -1, -2])


def test_words_and_tokens():
    words = judge(Length(target=5), ROLLOUT)
    assert words.parts["words"].tolist() == [5, 2, 5, 4, 4, 0]
    assert words.total.tolist() == pytest.approx([0, -0.6, 0, -0.2, -0.2, -1])
    tokens = judge(Length("overlong", "tokens", max_length=6, cache=2), ROLLOUT)
    assert tokens.parts["tokens"].tolist() == [6, 3, 6, 4, 5, 1]  # the end token, except where the limit cut
    assert tokens.total.tolist() == pytest.approx([-1, 0, -1, 0, -0.5, 0])


def test_an_environments_words_are_not_counted():
    heard = ROLLOUT.action_mask.clone()
    heard[:, 0] = False
    got = judge(Length(unit="tokens"), replace(ROLLOUT, action_mask=heard))
    assert got.parts["tokens"].tolist() == [5, 2, 5, 3, 4, 0]


@pytest.mark.parametrize(
    "arguments", [{"mode": "soft"}, {"unit": "bytes"}, {"target": 0}, {"cache": 0}, {"max_length": 5, "cache": 6}]
)
def test_impossible_arguments_are_refused(arguments):
    with pytest.raises(ValueError, match="expected"):
        Length(**arguments)
