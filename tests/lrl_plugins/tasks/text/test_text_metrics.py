import pytest
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer

from lrl_plugins.tasks.text.metrics import (
    ArithmeticMetrics,
    ContinuationMetrics,
    DataToTextMetrics,
    ParaphraseMetrics,
    SummaryMetrics,
    final_number,
)
from lrl_plugins.tasks.text.sources import Example

SAID = ["the police killed the gunman", "a cat sat on the mat", "", "two dogs play in the park"]
KNOWN = [
    ("police kill the gunman", "the gunman was killed by police"),
    ("the cat is on the mat",),
    ("nothing was said",),
    ("two dogs play in the green park", "dogs playing in a park"),
]


def scores(metric, said, references=None):
    ids = [str(i) for i in range(len(said))]
    metric.update(ids, said, references or [()] * len(said))
    return {name: value.item() for name, value in metric.compute().items()}


def by_id(*examples):
    return {str(i): Example(str(i), prompt, tuple(refs), columns) for i, (prompt, refs, columns) in enumerate(examples)}


def test_rouge_equals_the_package_of_published_tables():
    found = scores(SummaryMetrics(), SAID, KNOWN)
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"])
    rows = [scorer.score_multi(list(own), said) for said, own in zip(SAID, KNOWN, strict=True)]
    for name, theirs in (("ROUGE_1", "rouge1"), ("ROUGE_2", "rouge2"), ("ROUGE_L", "rougeL")):
        assert found[name] == pytest.approx(sum(row[theirs].fmeasure for row in rows) / 4, rel=1e-6)
    assert found["words"] == (5 + 6 + 0 + 6) / 4


def test_ibleu_rewards_agreement_and_punishes_repetition():
    prompts = ["the gunman was shot by the police", "on the mat a cat sat", "silence", "two dogs play in a park"]
    examples = by_id(*((prompt, own, {}) for prompt, own in zip(prompts, KNOWN, strict=True)))
    found = scores(ParaphraseMetrics(examples, alpha=0.7), SAID, KNOWN)
    columns = [[own[i % len(own)] for own in KNOWN] for i in range(2)]  # a reference twice changes nothing
    bleu = sacrebleu.corpus_bleu(SAID, columns, tokenize="none", smooth_method="none")
    own = sacrebleu.corpus_bleu(SAID, [prompts], tokenize="none", smooth_method="none")
    assert found["self_BLEU_4"] == pytest.approx(own.score / 100, rel=1e-6)
    assert found["BLEU_4"] == pytest.approx(bleu.score / 100, rel=1e-6)
    assert found["iBLEU"] == pytest.approx(0.7 * found["BLEU_4"] - 0.3 * found["self_BLEU_4"])
    assert scores(ParaphraseMetrics(examples), prompts, KNOWN)["self_BLEU_4"] == pytest.approx(1)


def test_tables_are_covered_or_not():
    examples = by_id(
        ("name[Blue Spice], food[Thai]", ["Blue Spice has Thai food in town"], {}),
        ("name[Aromi], familyFriendly[no]", ["Aromi is not family friendly at all"], {}),
        ("no table", ["nothing to say about that one"], {}),
    )
    said = ["Blue Spice has Thai food in town", "A place for adults", "nothing to say about that one"]
    found = scores(DataToTextMetrics(examples), said, [examples[str(i)].references for i in range(3)])
    assert found["slot_coverage"] == pytest.approx((1 + 0) / 2)
    assert 0 < found["BLEU_4"] < 1
    assert found["ROUGE_L"] == pytest.approx(2 / 3)
    assert found["CIDErD"] > 0
    del found["slot_coverage"]
    alone = scores(DataToTextMetrics(by_id(("no table", ["x y"], {}))), ["x y"], [("x y",)])
    assert set(alone) == set(found)


def test_variety_has_the_golden_numbers():
    found = scores(ContinuationMetrics(), ["a b a b", "a b c", "c c c c"])
    assert found["distinct_1"] == pytest.approx(3 / 11)
    assert found["distinct_2"] == pytest.approx(4 / 8)
    assert found["distinct_3"] == pytest.approx(4 / 5)
    assert found["repetition_4"] == 0
    assert found["words"] == pytest.approx(11 / 3)


def test_repetition_and_likeness_are_seen():
    assert scores(ContinuationMetrics(), ["a b c d a b c d", "x y z w v"])["repetition_4"] == pytest.approx((1 / 5) / 2)
    same = scores(ContinuationMetrics(), ["he said that it was late"] * 3)
    other = scores(ContinuationMetrics(), ["a b c d e", "f g h i j", "k l m n o"])
    assert same["self_BLEU_4"] == pytest.approx(1)
    assert other["self_BLEU_4"] < 0.1


def test_human_continuations_stand_beside():
    found = scores(ContinuationMetrics(human=True), ["a a a a a", "a a a"], [("a b c d e",), ("f g h",)])
    assert found["human_distinct_1"] == 1
    assert found["distinct_1"] == pytest.approx(1 / 8)
    assert "human_distinct_1" not in scores(ContinuationMetrics(), ["a"], [("b",)])


def test_agreement_with_the_human_continuation():
    # 2 of 3 words, 1 of 2 pairs, as long as the other: (2/3 * 1/2) ** (1/2)
    assert scores(ContinuationMetrics(), ["a b x"], [("a b c",)])["BLEU_2"] == pytest.approx((1 / 3) ** 0.5)


def test_nothing_but_silence_has_a_length_only():
    assert scores(ContinuationMetrics(), [""]) == {"words": 0}


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("17 + 25 = 42 #### 42", 42),
        ("#### -3 and then 5", -3),
        ("so 17 + 25 = 42", 42),
        ("#### 1,234.5", 1234.5),
        ("42 ####", None),
        ("none", None),
    ],
)
def test_final_numbers(text, number):
    assert final_number(text, "####") == number


def test_accuracy_by_operands():
    examples = by_id(
        ("1 + 1 =", ["#### 2"], {"answer": "2", "operands": 2}),
        ("1 + 2 =", ["#### 3"], {"answer": "3", "operands": 2}),
        ("1 + 2 + 3 =", ["#### 6"], {"answer": "6", "operands": 3}),
        ("2 + 2 + 3 =", ["#### 7"], {"answer": "7", "operands": 3}),
    )
    found = scores(ArithmeticMetrics(examples), ["1 + 1 = 2 #### 2", "#### 5", "well 6", "no idea"])
    assert found == {"accuracy": 0.5, "answered": 0.75, "accuracy_2_operands": 0.5, "accuracy_3_operands": 0.5}


def test_answers_in_references_and_worked_solutions_count():
    solution = "She sold 48/2 = <<48/2=24>>24 clips.\nIn all 72.\n#### 72"
    examples = by_id(("how many", [solution], {"answer": solution}), ("how many", [solution], {}))
    assert scores(ArithmeticMetrics(examples), ["#### 72.0", "24"]) == {"accuracy": 0.5, "answered": 1}
    with pytest.raises(ValueError, match=r"ArithmeticMetrics got 'many' as the right answer of '0'.*Correct"):
        scores(ArithmeticMetrics(by_id(("q", ["many"], {}))), ["3"])
