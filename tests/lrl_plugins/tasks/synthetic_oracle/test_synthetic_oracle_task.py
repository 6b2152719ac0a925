"""Sentences of the oracle as batches, their words, and what is measured of a policy's own."""

import pytest
import torch

from lrl_core.reports import Answer
from lrl_plugins.tasks.synthetic_oracle.data import SyntheticOracle
from lrl_plugins.tasks.synthetic_oracle.tokens import NumberTokenizer


def task(**arguments):
    small = {"vocabulary": 12, "length": 5, "sentences": 40, "held_out": 9, "batch_size": 4}
    return SyntheticOracle(**(small | arguments))


def test_batches_are_empty_prompts_with_a_sentence_each():
    batches = list(task().loader("train", shuffle=True))
    assert len(batches) == 10
    prompts = batches[0]
    assert prompts.tokens.shape == (4, 0)
    assert prompts.targets.shape == (4, 5)
    assert prompts.target_lengths.tolist() == [5] * 4
    assert 0 <= prompts.targets.min() <= prompts.targets.max() < 12


def test_every_prompt_has_a_number_and_a_name_of_its_own():
    made = task()
    groups = torch.cat([batch.group for split in ("train", "val", "test") for batch in made.loader(split)])
    assert sorted(groups.tolist()) == list(range(40 + 9 + 9))
    names = [row["id"] for batch in made.loader("val") for row in batch.examples]
    assert names == [f"val-{i}" for i in range(9)]


def test_splits_are_the_oracles_draws_and_do_not_move_with_the_number_of_training_sentences():
    made, more, other = task(), task(sentences=80), task(seed=1)
    assert made.splits()["val"].tokens.equal(more.splits()["val"].tokens)
    assert made.splits()["train"].tokens.equal(more.splits()["train"].tokens[:40])
    assert not made.splits()["train"].tokens.equal(other.splits()["train"].tokens)
    assert not made.splits()["val"].tokens.equal(made.splits()["test"].tokens)
    assert made.oracle.output.equal(other.oracle.output)
    assert not made.oracle.output.equal(task(oracle_seed=1).oracle.output)


def test_all_words_may_be_drawn_and_nothing_else():
    facts = task().facts()
    tokenizer = facts.tokenizer
    assert len(tokenizer) == 14
    assert set(tokenizer.never_drawn) == {12, 13}
    assert tokenizer.eos == -1
    assert len(facts.example) == 2
    assert facts.environment is None


def test_words_are_numbers():
    tokenizer = NumberTokenizer(12)
    assert tokenizer.decode([0, 11, 12, 13]) == "0 11"
    assert tokenizer.encode("0 11") == [0, 11]
    for text in ("12", "one", "-1"):
        with pytest.raises(ValueError, match="from 0 to 11"):
            tokenizer.encode(text)


def answers(sentences):
    return [Answer(f"val-{i}", "", (), tokens) for i, tokens in enumerate(sentences)]


def test_metric_is_the_mean_per_token_and_counts_a_name_once():
    made = task()
    said = [(0, 1, 2, 3, 4), (5, 6, 7, 8, 9), (0, 1, 2, 3, 4)]
    metric = made.metrics("validate")
    metric.update(answers(said))
    metric.update(answers(said[::-1])[:1])
    scores = metric.compute()
    expected = made.oracle.nll(torch.tensor(said)).mean()
    assert scores["oracle_nll"].item() == pytest.approx(expected.item(), rel=1e-6)
    assert scores["distinct_sentences"].item() == pytest.approx(1 / 3)


def test_sentences_of_other_lengths_count_by_the_token():
    made = task()
    metric = made.metrics("test")
    metric.update(answers([(1, 2), (3, 4, 5, 6)]))
    losses = made.oracle.nll(torch.tensor([[1, 2]])).sum() + made.oracle.nll(torch.tensor([[3, 4, 5, 6]])).sum()
    assert metric.compute()["oracle_nll"].item() == pytest.approx(losses.item() / 6, rel=1e-6)


def test_moving_the_metric_leaves_the_tasks_oracle_where_it_is():
    made = task()
    metric = made.metrics("validate").to(torch.device("meta"))
    assert metric.oracle.output.device.type == "meta"
    assert made.oracle.output.device.type == "cpu"


@pytest.mark.parametrize("name", ["length", "vocabulary", "sentences", "held_out", "batch_size"])
def test_refuses_nothing_to_write(name):
    with pytest.raises(ValueError, match=f"got {name} 0"):
        task(**{name: 0})
