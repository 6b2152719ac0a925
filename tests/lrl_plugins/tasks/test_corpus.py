import pytest
import torch

from lrl_plugins.tasks.corpus import Corpus, SampledCorpus


class Longest(Corpus):
    """Length of the longest answer."""

    def _scores(self, rows):
        return {"longest": float(max(len(said) for said, _ in rows.values()))}


class Alone(Longest):
    """The same without references."""

    needs_references = False


def test_only_the_first_answer_to_a_prompt_counts_until_reset():
    metric = Longest()
    metric.update(["a", "b", "a"], ["x", "xx", "xxxx"], [("r",)] * 3)
    assert metric.compute() == {"longest": torch.tensor(2.0)}
    metric.reset()
    assert metric.compute() == {}
    metric(["a"], ["xxxx"], [("r",)])
    assert metric.compute()["longest"] == 4


def test_missing_references_are_refused_where_they_are_needed():
    with pytest.raises(ValueError, match="Longest got no references for 'a'"):
        Longest().update(["a"], ["x"], [()])
    metric = Alone()
    metric.update(["a"], ["x"], [()])
    assert metric.compute()["longest"] == 1


class Samples(SampledCorpus):
    """How many answers a prompt has, and all of them together."""

    def _scores(self, rows):
        return {"first": float(sum(len(said) for said, _ in rows.values()))}

    def _sample_scores(self, samples):
        return {
            "each": float(min(map(len, samples.values()))),
            "all": float(sum(len(t) for o in samples.values() for t in o)),
        }


def test_all_answers_count_as_often_for_every_prompt():
    """Prompt a was answered twice over, as where a sampler fills the last batch with it."""
    metric = Samples()
    references = [("r",)] * 2
    metric.update(["a", "a"], ["x", "xx"], references)
    metric.update(["b", "b"], ["xxxx", ""], references)
    metric.update(["a", "a"], ["xxxxxxxx", "xxxxxxxx"], references)
    assert metric.compute() == {"first": 1 + 4, "each": 2, "all": 1 + 2 + 4}
    metric.reset()
    assert metric.compute() == {}
