import math
from dataclasses import replace

import pytest
import torch
from tiny_models import save_gpt2
from transformers import AutoModelForCausalLM, AutoTokenizer

from lrl_core.interfaces import bind_all
from lrl_core.scoring import judge
from lrl_core.testing.rewards import check_reward, example_rollout, facts_of
from lrl_plugins.rewards.language_model import LanguageModel

torch.set_num_threads(1)
ROLLOUT = example_rollout()
FACTS = facts_of(ROLLOUT)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_gpt2(tmp_path_factory.mktemp("decoder"))


def scored(reward, rollout=ROLLOUT, facts=FACTS):
    bind_all(reward, facts)
    return judge(reward, rollout).total


def saying(texts, ended):
    rows = ROLLOUT.select(torch.zeros(len(texts), dtype=torch.long))
    return replace(rows, texts=tuple(texts), terminated=torch.tensor(ended))


@pytest.mark.parametrize("arguments", [{}, {"n": 2, "mixture": [0.5, 0.5], "average": False, "eos": False}])
def test_counted_n_grams_conform(arguments):
    check_reward(lambda: LanguageModel(**arguments))


@pytest.mark.parametrize("arguments", [{}, {"average": False, "eos": False, "batch_size": 2}])
def test_a_model_conforms(folder, arguments):
    check_reward(lambda: LanguageModel(folder, **arguments))


def test_n_grams_of_the_references_by_hand():
    facts = replace(FACTS, references=(("A cat sits.", "a dog sits"), ("a cat",), ()))
    rollout = saying(["a dog", "A dog!", ""], [True, False, False])
    total = scored(LanguageModel(n=2, k=0.5), rollout, facts)
    one, two, end = math.log(3.5 / 6), math.log(1.5 / 6), math.log(0.5 / 4)
    assert total[:2].tolist() == pytest.approx([(one + two + end) / 3, (one + two) / 2])
    assert total[2].isnan()  # nothing was said, not even an end
    sums = scored(LanguageModel(n=2, k=0.5, average=False), rollout, facts)
    assert sums[:2].tolist() == pytest.approx([one + two + end, one + two])
    assert scored(LanguageModel(n=2, k=0.5, eos=False), rollout, facts)[0].item() == pytest.approx((one + two) / 2)


def test_n_grams_of_a_file(tmp_path):
    (tmp_path / "corpus.txt").write_text("a cat sits\n\na dog sits\na cat\n")
    counted = LanguageModel(corpus=str(tmp_path / "corpus.txt"), n=2, k=0.5)
    total = scored(counted, saying(["a dog"], [False]), replace(FACTS, references=()))
    assert total.item() == pytest.approx((math.log(3.5 / 6) + math.log(1.5 / 6)) / 2)


def test_counts_travel_in_the_checkpoint():
    first, second = LanguageModel(), LanguageModel()
    expected = scored(first)
    assert not torch.allclose(scored(second, facts=replace(FACTS, references=(("a park",),))), expected)
    second.load_state_dict(first.state_dict())
    assert torch.allclose(judge(second, ROLLOUT).total, expected, equal_nan=True)


def test_a_model_agrees_with_its_own_loss(folder):
    texts, ended = ["a man rides a horse", "the cat", "unplayer!"], [True, False, True]
    total = scored(LanguageModel(folder, batch_size=2), saying(texts, ended))
    sums = scored(LanguageModel(folder, average=False), saying(texts, ended))
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    for row, (text, end) in enumerate(zip(texts, ended, strict=True)):
        ids = tokenizer.encode(text)  # begin and end stand around it
        ids = torch.tensor([ids if end else ids[:-1]])
        loss = model(ids, labels=ids).loss.item()  # the mean over all but the begin token
        assert total[row].item() == pytest.approx(-loss, abs=1e-5)
        assert sums[row].item() == pytest.approx(-loss * (ids.shape[1] - 1), abs=1e-4)


def test_long_texts_are_cut_at_the_model_s_limit(folder):
    long = "a man rides a horse " * 20
    one, two = scored(LanguageModel(folder), saying([long, long + "and more"], [True, True])).tolist()
    assert one == two
    assert math.isfinite(one)


def test_the_model_stays_out_of_the_checkpoint(folder):
    reward = LanguageModel(folder)
    bind_all(reward, FACTS)
    assert list(reward.parameters()) == []
    assert all(not isinstance(value, torch.Tensor) for value in reward.state_dict().values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "x", "corpus": "y"}, "expected at most one"),
        ({"k": 0.0}, "expected n >= 1 and k > 0"),
        ({"n": 0}, "expected n >= 1"),
        ({"mixture": [0.5, 0.5]}, "expected 3 weights"),
        ({"mixture": [0.5, 0.5, 0.5]}, "add up to 1"),
        ({"corpus": "nowhere.txt"}, "expected a text file"),
        ({"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_impossible_arguments_are_refused(arguments, message):
    with pytest.raises((ValueError, OSError), match=message):
        LanguageModel(**arguments).bind(FACTS)


def test_nothing_to_count_in_is_refused():
    with pytest.raises(ValueError, match="no texts with words in the training references"):
        LanguageModel().bind(replace(FACTS, references=(("",), ())))
    with pytest.raises(RuntimeError, match="bind"):
        LanguageModel().score(ROLLOUT)
