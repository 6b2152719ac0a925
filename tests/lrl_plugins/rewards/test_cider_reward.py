import copy
import io
import pickle
from dataclasses import replace

import pytest
import torch

from lrl_core.metrics.cider import document_frequencies
from lrl_core.scoring import count_unjudged, judge
from lrl_core.testing.rewards import EXAMPLE_REFERENCES, check_reward, example_rollout, facts_of
from lrl_plugins.rewards import each
from lrl_plugins.rewards.cider import CIDEr, CIDErD
from lrl_plugins.rewards.texts import tokenised

ROLLOUT = example_rollout()
FACTS = facts_of(ROLLOUT)
GOOD = [0, 2, 4]  # the rows of the toy corpus of the published numbers


def bound(reward, facts=FACTS):
    reward.bind(facts)
    return reward


@pytest.mark.parametrize("make", [CIDErD, CIDEr, lambda: CIDErD(eos=False, n=2, sigma=3.0)])
def test_conforms(make):
    check_reward(make)


def test_golden_numbers_with_the_end_token():
    signal = judge(bound(CIDErD()), ROLLOUT)
    assert signal.total[GOOD].tolist() == pytest.approx([4.52083333, 4.17941152, 0.04814044], abs=1e-6)
    assert torch.equal(signal.parts["CIDErD"], signal.total)


def test_golden_numbers_without_the_end_token():
    total = judge(bound(CIDErD(eos=False)), ROLLOUT).total
    assert total[GOOD].tolist() == pytest.approx([3.33333333, 3.32971503, 0.04814044], abs=1e-6)
    total = judge(bound(CIDEr(eos=False)), ROLLOUT).total
    assert total[GOOD].tolist() == pytest.approx([3.33333333, 3.37628372, 0.20356239], abs=1e-6)


def test_captions_cut_off_lose_the_matches_of_the_end_token():
    cut = replace(ROLLOUT, terminated=torch.zeros(len(ROLLOUT), dtype=torch.bool))
    total = judge(bound(CIDErD()), cut).total
    assert total[GOOD].tolist() == pytest.approx([3.10215844, 3.08867919, 0.04491079], abs=1e-6)
    without = bound(CIDErD(eos=False))
    assert torch.equal(judge(without, cut).total, judge(without, ROLLOUT).total)


def test_one_row_alone_scores_as_in_the_batch():
    # Document frequencies of the batch would give log 1 = 0.
    reward = bound(CIDErD())
    assert judge(reward, ROLLOUT.select(torch.tensor([0]))).total.item() == pytest.approx(4.52083333, abs=1e-6)


@pytest.mark.usefixtures("shapes_unchecked")  # a row's references are declared a tuple; data may hold None all the same
def test_rows_without_references_cannot_be_judged():
    references = ROLLOUT.prompts.references
    holes = replace(ROLLOUT, prompts=replace(ROLLOUT.prompts, references=((), None, *references[2:])))
    signal = judge(bound(CIDErD()), holes)
    assert count_unjudged(signal) == 2
    assert signal.total[:2].isnan().all()


def test_missing_texts_or_references_say_what_to_do():
    reward = bound(CIDErD())
    with pytest.raises(ValueError, match="CIDErD got a rollout without texts"):
        reward.score(replace(ROLLOUT, texts=None))
    without = replace(ROLLOUT, prompts=replace(ROLLOUT.prompts, references=None))
    with pytest.raises(ValueError, match=r"without references.*Use a task with references"):
        reward.score(without)


@pytest.mark.parametrize("references", [(), ((), ()), (("a cat",),), (("a cat",), ())])
def test_fewer_than_two_prompts_give_no_statistics(references):
    with pytest.raises(ValueError, match=r"expected at least 2, for with fewer every score is 0"):
        CIDErD().bind(replace(FACTS, references=references))


def test_scoring_before_bind_is_refused():
    with pytest.raises(RuntimeError, match="bind"):
        CIDErD().score(ROLLOUT)


def test_frequencies_travel_in_the_checkpoint():
    other = (*((f"{a} and more", b) for a, b in EXAMPLE_REFERENCES), ("a park",), ("a mat",), ("a horse rides",))
    first, second = bound(CIDErD()), bound(CIDErD(), replace(FACTS, references=other))
    expected = judge(first, ROLLOUT).total
    assert not torch.allclose(judge(second, ROLLOUT).total, expected)
    saved = io.BytesIO()
    torch.save(first.state_dict(), saved)
    saved.seek(0)
    second.load_state_dict(torch.load(saved, weights_only=True))
    assert torch.equal(judge(second, ROLLOUT).total, expected)


def test_frequencies_from_a_file(tmp_path):
    documents = [[[*text.split(), "<eos>"] for text in row] for row in EXAMPLE_REFERENCES]
    document_frequencies(documents).to_json(tmp_path / "df.json")
    reward = bound(CIDErD(document_frequencies=str(tmp_path / "df.json")), replace(FACTS, references=()))
    assert torch.equal(judge(reward, ROLLOUT).total, judge(bound(CIDErD()), ROLLOUT).total)


def test_files_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.json"):
        CIDErD(document_frequencies=str(tmp_path / "nowhere.json")).bind(FACTS)
    plain = [[text.split() for text in row] for row in EXAMPLE_REFERENCES]
    document_frequencies(plain, n=2).to_json(tmp_path / "df.json")
    with pytest.raises(ValueError, match="counted without the end token while eos is True"):
        CIDErD(document_frequencies=str(tmp_path / "df.json")).bind(FACTS)
    with pytest.raises(ValueError, match="up to 2-grams while n is 4"):
        CIDErD(document_frequencies=str(tmp_path / "df.json"), eos=False).bind(FACTS)


@pytest.mark.parametrize("arguments", [{"n": 0}, {"sigma": 0.0}])
def test_impossible_arguments_are_refused(arguments):
    with pytest.raises(ValueError, match="expected"):
        CIDErD(**arguments)


def test_references_are_tokenised_once(monkeypatch):
    reward = bound(CIDErD())
    judge(reward, ROLLOUT)
    asked = []
    monkeypatch.setattr(each, "tokenised", lambda text, ended: asked.append(text) or tokenised(text, ended))
    expected = judge(reward, ROLLOUT).total
    assert sorted(asked) == sorted(set(ROLLOUT.texts))
    assert torch.equal(judge(reward, ROLLOUT).total, expected)


def test_references_that_were_not_there_at_bind_are_met_later():
    new = (("a fish swims in the sea", "the fish swims"),) * len(ROLLOUT)
    said = replace(ROLLOUT, prompts=replace(ROLLOUT.prompts, references=new), texts=("the fish swims",) * len(ROLLOUT))
    reward, ended = bound(CIDErD()), replace(said, terminated=torch.ones(len(ROLLOUT), dtype=torch.bool))
    score = judge(reward, ended).total[0].item()
    assert score > 5  # equal to one of two references
    assert judge(reward, ended).total[0].item() == score


def test_equal_candidates_are_scored_once_and_apart_where_only_the_end_differs(monkeypatch):
    reward = bound(CIDErD())
    first = ROLLOUT.select(torch.tensor([0, 0, 0, 2]))
    batch = replace(first, terminated=torch.tensor([True, False, True, True]))
    asked, score = [], reward._scorer.score
    monkeypatch.setattr(reward._scorer, "score", lambda said, *rest: asked.extend(said) or score(said, *rest))
    total = judge(reward, batch).total.tolist()
    assert total == pytest.approx([4.52083333, 3.10215844, 4.52083333, 4.17941152], abs=1e-6)
    assert len(asked) == 3


def test_copies_and_pickles_score_alike():
    reward = bound(CIDErD())
    expected = judge(reward, ROLLOUT).total
    for other in (copy.deepcopy(reward), pickle.loads(pickle.dumps(reward))):
        assert torch.equal(judge(other, ROLLOUT).total, expected)
