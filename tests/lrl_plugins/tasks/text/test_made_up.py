import pytest

from lrl_plugins.tasks.text.made_up import MadeUpMatches, MadeUpScenes, MadeUpStories, MadeUpVenues
from lrl_plugins.tasks.text.slots import slot_coverage
from lrl_plugins.tasks.text.sums import Sums

EVERY = [MadeUpMatches, MadeUpScenes, MadeUpStories, MadeUpVenues, Sums]


@pytest.mark.parametrize("source", EVERY)
def test_defaults_give_distinct_prompts_with_answers_in_three_splits(source):
    splits = source().splits()
    prompts = [example.prompt for examples in splits.values() for example in examples]
    assert len(set(prompts)) == len(prompts) > 2000
    assert all(example.references and all(example.references) for example in splits["train"])
    assert splits == source().splits()
    assert splits["val"] != source(seed=1).splits()["val"]


@pytest.mark.parametrize("source", EVERY)
def test_the_size_of_train_changes_no_other_split(source):
    few, many = source(train=5).splits(), source(train=50).splits()
    assert (few["val"], few["test"]) == (many["val"], many["test"])
    assert many["train"][:5] == few["train"]


def test_every_description_says_every_slot():
    for venue in MadeUpVenues(train=30).splits()["train"]:
        assert [slot_coverage(venue.prompt, text) for text in venue.references] == [1] * 3


def test_the_winner_scored_more():
    for match in MadeUpMatches(train=30).splits()["train"]:
        goals = {team: int(n) for team, n in (s.split()[1::2] for s in match.prompt.split(". ") if "scored" in s)}
        assert max(goals, key=goals.get) == match.columns["winner"]


@pytest.mark.parametrize(
    ("options", "most"),
    [({}, 60), ({"operators": "+", "largest": 5, "most_operands": 6}, 30), ({"negative": True}, 60)],
)
def test_sums_are_right_and_as_difficult_as_asked(options, most):
    examples = Sums(train=300, val=1, test=1, **options).splits()["train"]
    for example in examples:
        result = eval(example.prompt.removesuffix("="))
        assert str(result) == example.columns["answer"] == example.references[0].partition("#### ")[2]
        assert example.columns["operands"] == len(example.prompt.split()) // 2
        for step in example.references[0].partition(" ####")[0].split(" ; "):
            assert eval(step.replace("=", "=="))
    results = [int(example.columns["answer"]) for example in examples]
    assert max(results) <= most
    assert (min(results) < 0) == bool(options.get("negative"))
    sizes = {example.columns["operands"] for example in examples}
    assert sizes == set(range(2, 1 + options.get("most_operands", 3)))


def test_sums_without_steps():
    (example,) = Sums(train=1, val=0, test=0, steps=False).splits()["train"]
    assert example.references == (f"#### {example.columns['answer']}",)


def test_what_cannot_be_made_is_refused():
    with pytest.raises(ValueError, match=r"Sums: got 200 examples to make.*hardly more than \d+ .*Lower train"):
        Sums(train=200, val=0, test=0, most_operands=2, largest=3).splits()
    with pytest.raises(ValueError, match="least_operands 3 and most_operands 2"):
        Sums(least_operands=3, most_operands=2)
    with pytest.raises(ValueError, match=r"got operators '\*'"):
        Sums(operators="*")
