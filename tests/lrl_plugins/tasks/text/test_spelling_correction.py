import pytest

from lrl_plugins.tasks.text.characters import CharacterTokenizer
from lrl_plugins.tasks.text.made_up import MadeUpStories
from lrl_plugins.tasks.text.plain import PlainText
from lrl_plugins.tasks.text.sources import Example, TextSource
from lrl_plugins.tasks.text.spelling_correction import LETTERS, SpellingCorrection


class Listed(TextSource):
    """What the test says."""

    def __init__(self, *lines):
        self.examples = [Example(f"line-{i}", "", (line,)) for i, line in enumerate(lines)]

    def splits(self):
        return {"train": self.examples, "val": self.examples[:2]}


def small(**options):
    return SpellingCorrection(MadeUpStories(train=300, val=20, test=20), **options)


def test_batches_hold_spoilt_and_right_lines_of_characters():
    task = small(batch_size=4)
    tokenizer = task.facts().tokenizer
    batch = next(iter(task.train_dataloader()))
    for row in range(4):
        spoilt = tokenizer.decode(batch.tokens[row, : batch.lengths[row]].tolist())
        target = batch.targets[row, : batch.target_lengths[row]].tolist()
        assert batch.examples[row]["prompt"] == spoilt
        assert len(spoilt) == len(target) - 1
        assert (tokenizer.decode(target),) == batch.references[row]
        assert target[-1] == tokenizer.eos
    assert len(tokenizer) == 4 + 27


@pytest.mark.parametrize("noise", [0.3, 1.0])
def test_so_many_characters_are_replaced(noise):
    pairs = [(e.prompt, e.references[0]) for e in small(noise=noise).examples["train"]]
    wrong = sum(a != b for spoilt, clean in pairs for a, b in zip(spoilt, clean, strict=True))
    share = wrong / sum(len(clean) for _, clean in pairs)
    assert share == pytest.approx(noise * 26 / 27, abs=0.03)
    assert {letter for spoilt, _ in pairs for letter in spoilt} == set(LETTERS)


def test_the_same_lines_and_mistakes_come_back_and_other_seeds_give_others():
    first, again, other = (small(seed=seed).examples["val"] for seed in (0, 0, 1))
    assert first == again
    assert [e.prompt for e in first] != [e.prompt for e in other]


def test_pieces_are_taken_anywhere_and_short_lines_whole():
    task = SpellingCorrection(Listed(*["The  Quick brown fox"] * 60, "Hi", "don't"), characters=5)
    pieces = {e.references[0] for e in task.examples["train"]}
    assert {"hi", "don't"} <= pieces
    assert all(piece in "the quick brown fox" or piece in ("hi", "don't") for piece in pieces)
    assert len(pieces) > 8
    assert "'" in task.tokenizer.characters  # what is right must be sayable
    assert max(len(piece) for piece in pieces) == 5


def test_any_text_file_will_do(tmp_path):
    file = tmp_path / "text.txt"
    file.write_text("".join(f"it was the {i} day of a very long and quiet winter\n" for i in range(60)))
    source = PlainText(str(file), prompt_words=1, continuation_words=20, by_line=True)
    task = SpellingCorrection(source, characters=20)
    assert next(iter(task.val_dataloader())).targets.shape[1] <= 21
    assert all(len(e.references[0]) >= 18 for e in task.examples["train"])


@pytest.mark.parametrize("stage", ["validate", "test"])
def test_error_rates_by_hand(stage):
    metric = small().metrics(stage)
    said = ["a cat sat", "the do", "well"]
    right = [("a cat sat",), ("the dog",), ("hell",)]
    metric.update(["1", "2", "3"], said, right)
    scores = {name: score.item() for name, score in metric.compute().items()}
    assert scores == pytest.approx({"CER": 2 / 20, "WER": 2 / 6, "exact": 1 / 3})


def test_characters_to_ids_and_back():
    tokenizer = CharacterTokenizer(["b a", "c!"])
    assert tokenizer.characters == [" ", "!", "a", "b", "c"]
    for text in (" a  b ", "c!", ""):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode("aZ") == [6, tokenizer.unk]
    assert tokenizer.decode([1, 6, 3, 7, 2, 0]) == "a\N{REPLACEMENT CHARACTER}b"
    assert tokenizer.unk in tokenizer.never_drawn
    assert tokenizer.eos not in tokenizer.never_drawn


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SpellingCorrection(noise=0.0), "noise 0.0"),
        (lambda: SpellingCorrection(characters=0), "characters 0"),
        (
            lambda: SpellingCorrection(Listed("a line", " ")).examples,
            "no answer in example line-1; expected a line to spoil",
        ),
    ],
)
def test_refuses_what_cannot_be(make, message):
    with pytest.raises(ValueError, match=message):
        make()
