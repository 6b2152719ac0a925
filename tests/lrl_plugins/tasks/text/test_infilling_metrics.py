"""Metrics of infilling and of continuations that need several answers or an encoder."""

import pytest
import torch
from registered import small_models

from lrl_core.testing.rewards import EXAMPLE_REFERENCES
from lrl_plugins.sentence_encoder import SentenceEncoder
from lrl_plugins.tasks.text.infilling_metrics import InfillingMetrics
from lrl_plugins.tasks.text.metrics import ContinuationMetrics

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return SentenceEncoder("Test", small_models(tmp_path_factory.mktemp("models"))["encoder"])


def scores(metric, answers):
    """Of (prompt, answer, references)."""
    metric.update(*(list(column) for column in zip(*answers, strict=True)))
    return {name: value.item() for name, value in metric.compute().items()}


def test_middles_are_scored_by_hand():
    answers = [("a", "The cat sat.", ("the cat sat on the mat",)), ("b", "a b c d e", ("a b c d e",))]
    found = scores(InfillingMetrics(), answers)
    assert set(found) == {"BLEU_4", "GLEU_4", "words"}
    assert found["GLEU_4"] == pytest.approx((6 + 14) / (18 + 14))
    # 8, 6, 4 and 2 matches of as many n-grams; 8 words against 11
    assert found["BLEU_4"] == pytest.approx(2.718281828 ** (1 - 11 / 8), rel=1e-6)
    assert found["words"] == 4


def test_an_encoder_adds_bert_score_and_diversity(encoder):
    one, other = EXAMPLE_REFERENCES[0][0], EXAMPLE_REFERENCES[-1][0]
    assert one != other
    answers = [("a", one, (one,)), ("a", other, (one,)), ("b", one, (other, one)), ("b", one, (other, one))]
    found = scores(InfillingMetrics(encoder), answers)
    assert found["BERTScore"] == pytest.approx(1)  # of the first answers
    first, second = encoder.sentences([one, other], torch.device("cpu"))
    assert found["diversity"] == pytest.approx((1 - float(first @ second) + 0) / 2, abs=1e-6)
    assert found["diversity"] > 0.001
    assert "diversity" not in scores(InfillingMetrics(encoder), answers[1:3])
    assert "diversity" not in scores(InfillingMetrics(), answers)


def test_continuations_have_the_same_diversity_and_mauve_in_the_test(encoder):
    said = [text for own in EXAMPLE_REFERENCES for text in own]
    people = [(str(i), text, (text,)) for i, text in enumerate(said)]
    found = scores(ContinuationMetrics(human=True, encoder=encoder), people)
    assert found["MAUVE"] == pytest.approx(1)
    dull = scores(ContinuationMetrics(human=True, encoder=encoder), [(i, said[0], own) for i, _, own in people])
    assert dull["MAUVE"] < 0.9
    assert "diversity" not in dull
    assert "MAUVE" not in scores(ContinuationMetrics(encoder=encoder), people)
    several = [(name, text, own) for name, _, own in people[:2] for text in (said[0], said[-1])]
    pair = encoder.sentences([said[0], said[-1]], torch.device("cpu"))
    assert scores(ContinuationMetrics(encoder=encoder), several)["diversity"] == pytest.approx(
        1 - float(pair[0] @ pair[1]), abs=1e-6
    )
