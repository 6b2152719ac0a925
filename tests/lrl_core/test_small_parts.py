"""Frozen modules, seeds, reports and the word tokenizer."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from lrl_core.frozen import Frozen
from lrl_core.reports import Answer, experience_metrics, prompt_id
from lrl_core.seeds import seed_step
from lrl_core.testing.parts import toy_experience
from lrl_core.tokenizer import WordTokenizer, words


def test_frozen_is_in_no_checkpoint_no_optimiser_and_no_training_mode():
    outer = nn.Sequential(nn.Linear(2, 2), Frozen(nn.Sequential(nn.Dropout(0.5), nn.Linear(2, 2))))
    outer.train()
    assert list(outer.state_dict()) == ["0.weight", "0.bias"]
    assert len(list(outer.parameters())) == 2
    assert not outer[1].module.training
    assert not any(p.requires_grad for p in outer[1].module.parameters())
    outer.load_state_dict(outer.state_dict())
    outer.double()
    assert next(outer[1].module.parameters()).dtype == torch.float64
    x = torch.ones(1, 2, dtype=torch.float64)
    assert outer(x).equal(outer(x))


def draws(*where):
    seed_step(*where)
    return random.random(), np.random.rand(), torch.rand(1).item()


def test_random_draws_are_a_function_of_seed_rank_and_step():
    assert draws(1, 0, 5) == draws(1, 0, 5)
    different = [draws(1, 0, 5), draws(2, 0, 5), draws(1, 1, 5), draws(1, 0, 6)]
    for kind in range(3):
        assert len({draw[kind] for draw in different}) == 4


def test_metrics_leave_unjudged_rows_out_and_count_them():
    metrics = experience_metrics(toy_experience())
    assert metrics["reward/mean"].item() == pytest.approx((1 + 0.25 + 2) / 3)
    assert metrics["reward/unjudged"] == 1
    assert metrics["episode/length"].item() == pytest.approx(13 / 4)
    assert metrics["episode/terminated"] == 0.75
    assert metrics["advantage/zero"] == 0.25


def test_answers_carry_prompt_text_and_references():
    rollout = toy_experience().rollout
    assert prompt_id(rollout, 2) == "9"  # no example names it: its group does
    assert Answer.of(rollout)[3] == Answer("9", "aabc", ())


def test_words_are_lower_case_and_without_punctuation():
    assert words("A man's dog, well-fed: runs!") == ["a", "man's", "dog", "well-fed", "runs"]


def test_word_tokenizer_round_trip(tmp_path):
    tokenizer = WordTokenizer.from_texts(["a cat", "a dog sits", "a dog"], min_count=2)
    assert tokenizer.words[4:] == ("a", "dog")
    assert tokenizer.decode(tokenizer.encode("A dog sits.")) == "a dog <unk>"
    assert tokenizer.decode([tokenizer.bos, 4, tokenizer.eos, tokenizer.pad]) == "a"
    tokenizer.save(tmp_path / "words.json")
    assert WordTokenizer.load(tmp_path / "words.json").words == tokenizer.words
    assert set(tokenizer.never_drawn) == {tokenizer.pad, tokenizer.bos, tokenizer.unk}
