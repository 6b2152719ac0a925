import json
from dataclasses import replace

import pytest
import torch
from tiny_models import save_bert, save_gpt2
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from lrl_core.interfaces import bind_all
from lrl_core.scoring import judge
from lrl_core.testing.rewards import check_reward, example_rollout, example_tokenizer, facts_of
from lrl_plugins.rewards.classifier import Classifier, label_index, label_scores

torch.set_num_threads(1)
PROMPT = "two dogs play in the park"


def prompted():
    """The example's episodes as answers to a text."""
    rollout = example_rollout()
    ids = example_tokenizer().encode(PROMPT)
    rows = len(rollout)
    prompts = replace(
        rollout.prompts,
        tokens=torch.tensor([[*ids, example_tokenizer().pad]] * rows),
        lengths=torch.full((rows,), len(ids)),
    )
    return replace(rollout, prompts=prompts)


ROLLOUT = prompted()
FACTS = facts_of(ROLLOUT, example_tokenizer())
NAMES = {"id2label": {0: "bad", 1: "fair", 2: "good"}, "label2id": {"bad": 0, "fair": 1, "good": 2}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_bert(tmp_path_factory.mktemp("classifier"), AutoModelForSequenceClassification, **NAMES)


def scored(reward, rollout=ROLLOUT):
    bind_all(reward, FACTS)
    return judge(reward, rollout).total


def one_by_one(folder, texts, pairs=None):
    """Logits of each text alone, as the library's own classes give them."""
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        inputs = [tokenizer(text, pairs and pairs[i], return_tensors="pt") for i, text in enumerate(texts)]
        return torch.cat([model.eval()(**row).logits for row in inputs])


@pytest.mark.parametrize("arguments", [{}, {"label": "good", "prompt": True, "output": "logit", "batch_size": 2}])
def test_conforms(folder, arguments):
    check_reward(lambda: Classifier(folder, **arguments), ROLLOUT, FACTS)


@pytest.mark.parametrize("label", ["good", 2, "2"])
def test_probability_of_a_label_by_name_or_index(folder, label):
    expected = one_by_one(folder, ROLLOUT.texts).softmax(1)[:, 2]
    assert torch.allclose(scored(Classifier(folder, label=label, batch_size=4)), expected, atol=1e-5)
    assert expected.std() > 0.01


def test_the_prompt_stands_before_the_answer_or_beside_it(folder):
    joined = one_by_one(folder, [f"{PROMPT} . {text}" for text in ROLLOUT.texts]).softmax(1)[:, 0]
    assert torch.allclose(scored(Classifier(folder, prompt=True, separator=" . ")), joined, atol=1e-5)
    pairs = one_by_one(folder, [PROMPT] * len(ROLLOUT), list(ROLLOUT.texts)).softmax(1)[:, 0]
    beside = scored(Classifier(folder, prompt=True, separator=None))
    # The library drops an empty second text when it reads a single pair.
    assert torch.allclose(beside[:5], pairs[:5], atol=1e-5)
    assert not torch.allclose(joined, pairs, atol=1e-3)


def test_a_prompt_that_is_too_long_loses_its_beginning_and_an_answer_its_end(folder):
    long = "a man rides a horse " * 10
    answers = replace(ROLLOUT, texts=tuple(f"{long}{word}" for word in ("man", "cat", "dog", "horse", "park", "mat")))
    assert scored(Classifier(folder), answers).unique().numel() == 1
    assert scored(Classifier(folder, prompt=True), answers).unique().numel() == 6


@pytest.mark.parametrize("padding", [True, False])
def test_a_preference_model_with_one_output(tmp_path, padding):
    path = save_gpt2(tmp_path, AutoModelForSequenceClassification, num_labels=1)
    if not padding:  # as published decoder-only models often are
        for file in ("config.json", "tokenizer_config.json"):
            entries = json.loads((tmp_path / file).read_text())
            entries |= {key: None for key in ("pad_token_id", "pad_token") if key in entries}
            (tmp_path / file).write_text(json.dumps(entries))
    bare = one_by_one(path, ROLLOUT.texts[:5])[:, 0]
    assert torch.allclose(scored(Classifier(path, output="logit", batch_size=3))[:5], bare, atol=1e-5)
    assert torch.allclose(scored(Classifier(path))[:5], bare.sigmoid(), atol=1e-5)


def test_kinds_of_output_by_hand():
    logits = torch.tensor([[0.0, 1.0986123]])  # log 3
    assert label_scores(logits, 1, "probability", exclusive=True).item() == pytest.approx(0.75)
    assert label_scores(logits, 1, "log_probability", exclusive=True).item() == pytest.approx(-0.2876821)
    assert label_scores(logits, 1, "probability", exclusive=False).item() == pytest.approx(0.75)
    assert label_scores(logits, 0, "probability", exclusive=False).item() == pytest.approx(0.5)
    assert label_scores(logits, 1, "logit", exclusive=True).item() == pytest.approx(1.0986123)


def test_several_labels_that_may_hold_together(tmp_path):
    path = save_bert(tmp_path, AutoModelForSequenceClassification, problem_type="multi_label_classification", **NAMES)
    assert torch.allclose(scored(Classifier(path, 1)), one_by_one(path, ROLLOUT.texts).sigmoid()[:, 1], atol=1e-5)


def test_unknown_labels_are_refused_with_a_guess():
    for label in ("god", 3, -1):
        with pytest.raises(ValueError, match="expected one of 'bad', 'fair', 'good' or an index below 3"):
            label_index(label, NAMES["id2label"], "m")
    with pytest.raises(ValueError, match="Did you mean 'good'"):
        label_index("god", NAMES["id2label"], "m")
    assert label_index("1", {0: "1", 1: "0"}, "m") == 0  # a name goes before an index


def test_a_model_without_a_trained_head_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"without the weights classifier\.bias, classifier\.weight; expected every weight"
    ):
        Classifier(save_bert(tmp_path)).bind(FACTS)


def test_the_model_is_neither_trained_nor_saved(folder):
    reward = Classifier(folder)
    bind_all(reward, FACTS)
    assert list(reward.parameters()) == []
    assert reward.state_dict() == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"output": "score"}, "expected one of probability"), ({"model": "/nowhere"}, "expected a folder")],
)
def test_impossible_arguments_are_refused(folder, arguments, message):
    with pytest.raises((ValueError, OSError), match=message):
        Classifier(**{"model": folder} | arguments).bind(FACTS)
