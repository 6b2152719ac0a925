import pytest
import torch

from lrl_plugins.tasks.corpus import Corpus


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
