import json
from pathlib import Path

import pytest

from lrl_core.tokenizer import words
from lrl_plugins.tasks.text.sources import Example, JsonLines, TextSource
from lrl_plugins.tasks.text.subjectivity import MadeUpOpinions, Subjectivity

DATA = Path(__file__).resolve().parents[4] / ".." / "shared" / "data" / "subj"


class Given(TextSource):
    """Sentences of the test."""

    def __init__(self, train, val=()):
        self.given = {"train": train, "val": val or train[:1], "test": []}

    def splits(self):
        return {
            split: [Example(f"{split}-{i}", text, (label,)) for i, (text, label) in enumerate(own)]
            for split, own in self.given.items()
        }


TRAIN = [
    ("the cook hides the map", "objective"),
    ("the script is dull", "subjective"),
    ("the cook finds a ring", "objective"),
    ("the ending is a moving one", "subjective"),
    ("a thief is here", "objective"),
]
VAL = [("the cook is dull", "subjective")]


def task(**arguments):
    return Subjectivity(Given(TRAIN, VAL), **arguments)


def shown(task, split="train"):
    return [(e.prompt, e.references, e.columns["after"]) for e in task.examples[split]]


def test_the_label_is_what_follows_a_rationale():
    assert shown(task())[:2] == [
        ("the cook hides the map", ("so objective",), "so objective"),
        ("the script is dull", ("so subjective",), "so subjective"),
    ]
    facts = task().facts()
    asked = facts.example.tokens[0, : facts.example.lengths[0]].tolist()
    assert facts.tokenizer.decode(asked) == "the cook hides the map this is"
    assert facts.example.examples[0]["label"] == "objective"


def test_telling_words_are_the_rarest_in_their_order():
    # the 5, is 3, cook 2, a 2, and every other word once: of equals the first in the alphabet
    assert task(telling=2).telling_words("the cook hides the map") == ["hides", "map"]
    assert task(telling=3).telling_words("the cook hides the map") == ["cook", "hides", "map"]
    assert task(telling=2).telling_words("the cook is new") == ["cook", "is"]  # `new` is not in the vocabulary
    assert task(telling=2, min_count=2).telling_words("the cook hides the map") == ["the", "cook"]


def test_rationales_are_taught_alone_and_with_the_label():
    assert shown(task(telling=2, taught="rationale"))[1] == (
        "the script is dull", ("script dull", "script dull so subjective"), "so subjective",
    )  # fmt: skip


def test_whole_texts_are_taught_with_the_labels_that_are_told():
    whole = task(telling=1, taught="text", labelled=2)
    told = [(text, after) for _, (text,), after in shown(whole)]
    assert len(told) == 5
    assert sum(after is not None for _, after in told) == 2
    assert ("the script is dull this is dull", None) in told or (
        "the script is dull this is dull so subjective", "so subjective",
    ) in told  # fmt: skip
    assert whole.facts().example.lengths.tolist() == [0, 0]
    assert all(after is None for _, _, after in shown(task(taught="text", labelled=0)))


def test_few_labels_are_shared_out_evenly_and_the_vocabulary_stays_that_of_all():
    two, all_ = task(labelled=2), task()
    assert sorted(after for _, _, after in shown(two)) == ["so objective", "so subjective"]
    assert shown(two) == shown(task(labelled=2))
    assert set(shown(two)) < set(shown(all_))
    assert two.tokenizer.words == all_.tokenizer.words == task(taught="text", labelled=0).tokenizer.words
    assert two.tokenizer.words[4:9] == ("so", "objective", "subjective", "this", "is")
    assert set(two.tokenizer.words[4:]) == {"so", "this", "objective", "subjective"} | {
        word for text, _ in TRAIN for word in words(text)
    }


def test_a_file_may_say_which_labels_are_told(tmp_path):
    path = tmp_path / "few.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in ("the script is dull", "the cook is dull")))
    train = Given(TRAIN, [*VAL, ("a thief finds the map", "objective")])
    told = Subjectivity(train, labelled=str(path))
    assert [prompt for prompt, _, _ in shown(told)] == ["the script is dull", "the cook is dull"]
    assert [prompt for prompt, _, _ in shown(told, "val")] == ["a thief finds the map"]
    path.write_text(json.dumps({"text": "nobody said this"}) + "\n")
    with pytest.raises(ValueError, match="got 0 of the 1 labelled sentences"):
        Subjectivity(train, labelled=str(path)).facts()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labelled": 9}, "got 5 of the 9 labelled sentences"),
        ({"labelled": 0}, "at least one unless whole texts are taught"),
        ({"labels": ("objective", "else")}, "the label 'subjective' in example 'train-1'"),
    ],
)
def test_what_the_data_do_not_give_is_refused_when_read(arguments, message):
    with pytest.raises(ValueError, match=message):
        task(**arguments).facts()


@pytest.mark.parametrize("arguments", [{"labels": ("objective",)}, {"after": "so"}])
def test_what_makes_no_sense_is_refused(arguments):
    with pytest.raises(ValueError, match="expected at least two different labels and a wording"):
        task(**arguments)


def test_the_last_label_that_is_named_counts():
    metric = Subjectivity(Given(TRAIN, TRAIN)).metrics("validate")
    said = ["objective", "not objective but Subjective.", "subjective", "a dull one", "so objective"]
    metric.update([f"val-{i}" for i in range(5)], said, [()] * 5)
    assert {name: value.item() for name, value in metric.compute().items()} == pytest.approx(
        {"accuracy": 3 / 5, "answered": 4 / 5}
    )


def test_made_up_sentences_have_both_labels_and_no_sentence_twice():
    splits = MadeUpOpinions(train=300, val=20, test=20).splits()
    texts = [example.prompt for own in splits.values() for example in own]
    assert len(set(texts)) == 340
    labels = [example.references[0] for example in splits["train"]]
    assert 0.4 < labels.count("objective") / 300 < 0.6
    assert set(labels) == {"objective", "subjective"}


def test_the_published_sentences():
    if not (DATA / "train.jsonl.gz").exists():
        pytest.skip("the sentences of Pang and Lee are not here")
    source = JsonLines(
        train=str(DATA / "train.jsonl.gz"), test=str(DATA / "test.jsonl.gz"), prompt_field="text",
        references_fields=["label_text"],
    )  # fmt: skip
    few = Subjectivity(source, labelled=str(DATA / "train.50.jsonl"), taught="rationale", min_count=5)
    assert len(few.examples["train"]) == 50
    assert sum(e.columns["after"] == "so subjective" for e in few.examples["train"]) == 27
    assert len(few.examples["test"]) == 2000
    assert all(len(e.references[0].split()) == 4 for e in few.examples["train"] if len(set(words(e.prompt))) > 12)
