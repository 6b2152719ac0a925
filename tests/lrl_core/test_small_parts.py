"""Frozen modules, seeds, reports and the word tokenizer."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torchmetrics import Metric

from lrl_core.frozen import Frozen
from lrl_core.reports import Answer, Examination, experience_metrics, prompt_id, texts_of, turns_of
from lrl_core.seeds import seed_step
from lrl_core.testing.environments import ToyOracle
from lrl_core.testing.parts import toy_experience
from lrl_core.testing.toy import ToyTokenizer
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
    answer = Answer.of(rollout)[3]
    assert (answer.id, answer.text, answer.references, answer.turns, answer.paid) == ("9", "aabc", (), (), None)


TOY = ToyTokenizer(4, eos=3)


def test_who_spoke_and_what():
    """A turn of nothing but the end token is none; neighbours of one side are one turn."""
    tokens, chosen = [0, 1, 2, 2, 1, 3], [True, True, False, False, True, True]
    assert turns_of(tokens, chosen, TOY) == (("policy", "ab"), ("world", "cc"), ("policy", "b"))
    assert turns_of([0, 2, 3], [True, False, True], TOY) == (("policy", "a"), ("world", "c"))
    assert turns_of([], [], TOY) == ()


def conversations():
    rollout = toy_experience().rollout
    paid = torch.tensor([[0.5, 0, 0, 1.0], [0, 0, 0, 0], [0, 0, -2.0, 0], [0, 0, 0, 0]])
    examples = tuple({"id": name, "hidden": 7} for name in "wxyz")
    return replace(rollout, environment_reward=paid, prompts=replace(rollout.prompts, examples=examples))


def test_answers_of_conversations_carry_turns_and_payment():
    first, _, third, _ = Answer.of(conversations(), TOY)
    assert (first.tokens, first.chosen) == ((0, 1, 2, 3), (True, False, True, True))
    assert first.turns == (("policy", "a"), ("world", "b"), ("policy", "c"))
    assert (first.id, first.paid, third.paid) == ("w", 1.5, -2.0)
    assert third.tokens == (2, 0, 3)  # without padding
    assert first.example == {"id": "w", "hidden": 7}
    assert first.row() == {
        "id": "w",
        "text": "abc",
        "references": (),
        "turns": [{"who": "policy", "text": "a"}, {"who": "world", "text": "b"}, {"who": "policy", "text": "c"}],
        "paid": 1.5,
    }


def test_a_monologue_has_neither_turns_nor_payment():
    answer = Answer.of(toy_experience().rollout, TOY)[0]
    assert (answer.turns, answer.paid) == ((), None)
    assert answer.row() == {"id": "7", "text": "abc", "references": ()}


def test_texts_are_what_the_environment_says_they_are():
    class OwnWords(ToyOracle):
        def speech(self, tokens, chosen):
            return [token for token, own in zip(tokens, chosen, strict=True) if own]

    rollout = conversations()
    assert texts_of(rollout, TOY, None) == ("abc", "b", "ca", "aabc")
    assert texts_of(rollout, TOY, ToyOracle()) == ("abc", "b", "ca", "aabc")
    assert texts_of(rollout, TOY, OwnWords()) == ("ac", "b", "ca", "aabc")


def test_a_metric_of_texts_is_given_no_conversations():
    class Texts(Metric):
        def update(self, ids, candidates, references):
            self.seen = ids, candidates, references

        def compute(self):
            return {"texts": torch.tensor(float(len(self.seen[0])))}

    examination = Examination(metric := Texts(), torch.device("cpu"))
    examination.answers += Answer.of(conversations(), TOY)
    assert examination.scores() == {"texts": 4}
    assert metric.seen == (list("wxyz"), ["abc", "b", "ca", "aabc"], [()] * 4)


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
