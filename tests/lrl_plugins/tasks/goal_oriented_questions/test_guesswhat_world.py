"""GuessWhat?!: the files, the vocabulary, and that what people said is learnt from."""

import gzip
import json

import numpy as np
import pytest
from PIL import Image

from lrl_core.types import Rollout
from lrl_plugins.tasks.goal_oriented_questions.data import GoalOrientedQuestions
from lrl_plugins.tasks.goal_oriented_questions.guesswhat import GuessWhatWorld, asked, numbered
from lrl_plugins.tasks.goal_oriented_questions.learned import LearnedGuesser
from lrl_plugins.tasks.goal_oriented_questions.players import Oracle

BOXES = {"person": [0, 0, 100, 200], "dog": [100, 50, 50, 25], "dining table": [0, 100, 200, 100]}
SAID = [("Is it a person?", "No"), ("is it the dog?? ", "Yes"), ("Can it, say, bark", "N/A")]


def game(number=1, hidden=11, names=("person", "dog", "dining table"), said=SAID, status="success", **changed):
    """A line as the corpus has it; 10, 11, ... are the ids of the objects."""
    objects = [
        {"id": 10 + i, "category": name, "category_id": i, "area": 5.0, "bbox": BOXES[name], "segment": [[0, 0, 1, 1]]}
        for i, name in enumerate(names)
    ]
    qas = [{"id": i, "question": question, "answer": answer} for i, (question, answer) in enumerate(said)]
    image = {"id": 7, "width": 200, "height": 200, "file_name": "COCO_7.jpg", "coco_url": "http://x.org/a/7_url.jpg"}
    row = {"id": number, "object_id": hidden, "image": image, "objects": objects, "qas": qas, "status": status}
    return {key: value for key, value in (row | changed).items() if value is not None}


def write(folder, **splits):
    for name in ("train", "valid", "test"):
        with gzip.open(folder / f"guesswhat.{name}.jsonl.gz", "wt") as file:
            file.write("".join(json.dumps(row) + "\n" for row in splits.get(name, [game()])))
    return str(folder)


def task_of(folder, **options):
    world = {name: options.pop(name) for name in ("pictures", "min_count") if name in options}
    players = {"oracle": Mute(), "guesser": LearnedGuesser()} | options
    return GoalOrientedQuestions(GuessWhatWorld(folder, **{"min_count": 1} | world), **players)


class Mute(Oracle):
    """Never knows."""

    def answer(self, game, question):
        return "unknown"


def test_a_game_as_the_corpus_writes_it(tmp_path):
    world = GuessWhatWorld(write(tmp_path))
    (read,) = world.games("train")
    assert (read.id, read.hidden, read.objects) == ("1", 1, ("person", "dog", "dining table"))
    assert read.told == "dining table , dog , person"
    assert [world.category(read, i) for i in range(3)] == ["person", "dog", "dining table"]
    assert [world.box(read, i) for i in range(3)] == [(0, 0, 0.5, 1), (0.5, 0.25, 0.25, 0.125), (0, 0.5, 1, 0.5)]
    assert world.dialogue(read) == (
        ("is it a person ?", "no"), ("is it the dog ?", "yes"), ("can it , say , bark ?", "unknown")
    )  # fmt: skip
    assert world.answer(read, "is it the dog ?", 1) == "yes"
    assert world.answer(read, "is it the dog ?", 0) == "unknown"
    assert world.answer(read, "is it red ?", 1) == "unknown"
    assert world.questions(read)[0] == "is it a person ?"
    assert len(world.games("val")) == len(world.games("test")) == 1


def test_older_layout_with_a_picture_and_a_mapping_of_objects(tmp_path):
    row = game()
    objects = {str(thing.pop("id")): thing for thing in row["objects"]}
    older = {**row, "picture": row.pop("image"), "objects": objects}
    write(tmp_path, train=[older])
    (tmp_path / "plain.jsonl").write_text(json.dumps(game(number=3)))
    world = GuessWhatWorld(str(tmp_path), val="plain.jsonl", test=None)
    assert world.games("train")[0].hidden == 1
    assert [read.id for read in world.games("val")] == ["3"]
    assert world.games("test") == []


def test_which_games_are_left_out(tmp_path):
    rows = [
        game(1), game(2, status="failure"), game(3, status="incomplete"), game(4, names=("person", "dog")),
        game(5, names=("dog",) * 21), game(6, names=("dog",) * 20), game(7, said=[]),
    ]  # fmt: skip
    folder = write(tmp_path, train=rows)

    def names(**options):
        return [read.id for read in GuessWhatWorld(folder, **options).games("train")]

    assert names() == ["1", "6"]
    assert names(only_successful=False) == ["1", "2", "3", "6"]
    assert names(fewest_objects=2, most_objects=21) == ["1", "4", "5", "6"]


def test_questions_of_people_become_questions_of_questioners():
    assert asked("Is it RED?") == "is it red ?"
    assert asked("is it red? or blue??") == "is it red or blue ?"
    assert asked("the person's hat, 2nd one") == "the person's hat , 2nd one ?"
    assert asked(asked("is it, red")) == asked("is it, red")
    assert numbered(["dog", "cat", "dog"]) == ("dog 1", "cat", "dog 2")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"object_id": 99}, "with object_id 99, which 0 of its objects have; expected"),
        ({"object_id": None}, "with no 'object_id'; expected"),
        ({"image": None}, "with no 'image'; expected"),
        ({"status": None}, "with no 'status'; expected"),
        ({"said": [("is it?", "maybe")]}, "with the answer 'maybe'; expected"),
        ({"image": {"id": 7, "width": 0, "height": 9}}, r"with the bbox \[0, 0, 100, 200\] in a picture of 0 x 9"),
        (
            {"objects": [{"id": i, "category": " ", "bbox": [0, 0, 1, 1]} for i in (10, 11, 12)]},
            "with the category ' '",
        ),
    ],
)
def test_malformed_lines_are_named_by_file_and_line(tmp_path, changed, said):
    folder = write(tmp_path, valid=[game(), game(**changed)])
    where = rf"GuessWhatWorld: got line 2 of .*guesswhat\.valid\.jsonl\.gz {said}"
    with pytest.raises(ValueError, match=where):
        GuessWhatWorld(folder).games("val")


def test_absent_and_broken_files_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"GuessWhatWorld: got .*guesswhat\.train\.jsonl\.gz, which cannot be read"):
        GuessWhatWorld(str(tmp_path)).games("train")
    write(tmp_path)
    with gzip.open(tmp_path / "guesswhat.test.jsonl.gz", "wt") as file:
        file.write(json.dumps(game()) + "\n{oh")
    with pytest.raises(ValueError, match=r"got line 2 of .*guesswhat\.test\.jsonl\.gz, which is no JSON"):
        GuessWhatWorld(str(tmp_path)).games("test")
    with pytest.raises(ValueError, match="got fewest_objects 5 and most_objects 4"):
        GuessWhatWorld("x", fewest_objects=5, most_objects=4)


def test_what_people_said_is_learnt_in_order_and_answers_are_not(tmp_path):
    task = task_of(write(tmp_path, train=[game(1), game(2, said=SAID[:1] * 6)]), turns=4, batch_size=2)
    task.facts()
    (batch,) = list(task.train_dataloader())
    expert, words = Rollout.of_targets(batch), task.tokenizer.words
    lines = {
        batch.examples[row]["id"]: [
            (words[token], bool(own))
            for token, own in zip(expert.tokens[row, :length], expert.action_mask[row], strict=False)
        ]
        for row, length in enumerate(expert.lengths.tolist())
    }
    # three questions of at most four, so that the questioner stops; answers are in brackets
    said = "is it a person ? (no) is it the dog ? (yes) can it , say , bark ? (unknown) <eos>"
    expected = [(word.strip("()"), not word.startswith("(")) for word in said.split(" ")]
    assert lines["1"] == expected
    assert lines["2"] == expected[:6] * 4  # the beginning of a longer one, which does not stop
    told = batch.tokens[[example["id"] for example in batch.examples].index("1")].tolist()
    assert task.tokenizer.decode(told) == "dining table , dog , person"


def test_the_vocabulary_is_that_of_train(tmp_path):
    often = [("is it the zebra?", "No")] * 3 + [("is it the yak?", "No")] * 2
    folder = write(tmp_path, train=[game(1, said=often)], valid=[game(2, said=[("is it strange?", "Yes")] * 5)])
    words = set(task_of(folder, min_count=3).tokenizer.words)
    assert {"zebra", "dining", "table", "dog", ","} < words
    assert not {"yak", "strange"} & words
    assert "yak" in task_of(folder, min_count=2).tokenizer.words


def test_long_questions_of_people_are_no_reason_to_refuse(tmp_path):
    task = task_of(write(tmp_path, train=[game(said=[("is " * 30, "Yes")])]), batch_size=1)
    task.facts()
    assert next(iter(task.train_dataloader())).target_lengths.tolist() == [33]  # and the mark, the answer, the end


def test_exact_players_are_refused(tmp_path):
    folder = write(tmp_path)
    with pytest.raises(ValueError, match=r"TruthfulOracle: got GuessWhatWorld.*Name LearnedOracle"):
        task_of(folder, oracle=None).facts()
    with pytest.raises(ValueError, match=r"BayesGuesser: got GuessWhatWorld.*Name LearnedGuesser"):
        task_of(folder, guesser=None).facts()


@pytest.mark.parametrize("name", ["COCO_7.jpg", "7_url.jpg", "7.jpg"])
def test_photographs_are_found_and_shown(tmp_path, name):
    folder = write(tmp_path)
    with pytest.raises(ValueError, match=r"line 1 of .*with a picture that is none of .*COCO_7\.jpg, .*7\.jpg"):
        GuessWhatWorld(folder, pictures=folder).games("train")
    Image.fromarray(np.full((20, 30, 3), 255, dtype=np.uint8)).save(tmp_path / name)
    task = task_of(folder, pictures=folder, image_size=8)
    example = task.facts().example
    assert example.features["pixels"].shape == (2, 3, 8, 8)
    assert example.features["pixels"].min() > 0.9
    assert example.tokens.shape == (2, 0)
