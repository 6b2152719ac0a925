"""The program that trains both players, on a table and on files in the format of GuessWhat?!."""

import json
import random

import pytest
import torch

from lrl_plugins.tasks.goal_oriented_questions.data import GoalOrientedQuestions
from lrl_plugins.tasks.goal_oriented_questions.guesswhat import GuessWhatWorld
from lrl_plugins.tasks.goal_oriented_questions.learned import LearnedGuesser, LearnedOracle
from lrl_plugins.tasks.goal_oriented_questions.tables import AttributeTable
from lrl_plugins.tasks.goal_oriented_questions.train_players import main, train_players


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def photographs(folder, **counts):
    """Three of four kinds of things in a row; people ask for a kind and for the left half, and hear the truth."""
    draw = random.Random(0)
    for split, count in counts.items():
        rows = []
        for number in range(count):
            kinds, hidden = draw.sample(["dog", "cat", "cup", "car"], 3), draw.randrange(3)
            objects = [{"id": i, "category": kind, "bbox": [40 * i, 0, 30, 30]} for i, kind in enumerate(kinds)]
            answers = {f"is it a {kind}?": kind == kinds[hidden] for kind in kinds[:2]} | {"on the left?": hidden == 0}
            qas = [{"question": question, "answer": "Yes" if true else "No"} for question, true in answers.items()]
            draw.shuffle(qas)
            image = {"id": number, "width": 120, "height": 120}
            rows.append({"id": number, "object_id": hidden, "image": image, "objects": objects, "qas": qas})
        lines = [json.dumps(row | {"status": "success"}) for row in rows]
        (folder / f"{split}.jsonl").write_text("\n".join(lines))
    return {"path": str(folder), "train": "train.jsonl", "val": "val.jsonl", "test": None}


def test_players_of_a_table_learn_it_and_play(tmp_path, capsys):
    table = ["--data.turns=3", "--data.batch_size=32", "--data.world=AttributeTable", "--data.world.games=256"]
    sizes = ["--words=16", "--hidden=32", "--categories=16"]
    main([f"--folder={tmp_path}", *table, *sizes, "--epochs=8", "--learning_rate=0.02"])
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("epoch   1  oracle   errors 0.")
    assert len(printed) == 16

    oracle, guesser = LearnedOracle(str(tmp_path / "oracle.pt")), LearnedGuesser(str(tmp_path / "guesser.pt"))
    task = GoalOrientedQuestions(AttributeTable(), turns=3, oracle=oracle, guesser=guesser)
    task.facts()
    said = ["is it red ?", "is it large ?", "is it round ?"]
    success = []
    for game in task.games["val"]:
        assert [oracle.answer(game, question) for question in said] == [
            task.world.answer(game, question, game.hidden) for question in said
        ]
        state = task.environment.begin(game)
        paid = [task.environment.reply(state, task.tokenizer.encode(question)).reward for question in said]
        success.append(sum(paid))
    assert sum(success) / 8 >= 0.75


def test_players_of_photographs_use_kind_and_place(tmp_path):
    """Who knew the question alone would be wrong in a third of the answers, and in two thirds of the guesses."""
    world = photographs(tmp_path, train=384, val=96)
    task = GoalOrientedQuestions(GuessWhatWorld(**world), turns=3, batch_size=32)
    errors = train_players(task, str(tmp_path / "players"), 6, 0.02, words=16, hidden=32, categories=16)
    assert errors["oracle"] < 0.05
    assert errors["guesser"] < 0.2

    oracle = LearnedOracle(str(tmp_path / "players" / "oracle.pt"))
    guesser = LearnedGuesser(str(tmp_path / "players" / "guesser.pt"), learns=False)
    task = GoalOrientedQuestions(GuessWhatWorld(**world), turns=3, oracle=oracle, guesser=guesser)
    played = []
    for batch in task.val_dataloader():
        for row, group in enumerate(batch.group.tolist()):  # what people asked is asked again
            line = batch.targets[row].tolist(), batch.target_mask[row].tolist()
            played.append(task.environment.replay(task.games_by_group[group], *line))
    same = [state.turns == list(task.world.dialogue(state.game)) for state in played]
    assert sum(same) / len(same) > 1 - 3 * errors["oracle"] - 1e-6
    assert sum(map(task.environment.success, played)) / 96 > 0.75


def test_the_best_weights_are_kept_not_the_last(tmp_path, monkeypatch):
    from lrl_plugins.tasks.goal_oriented_questions import train_players as program

    errors = iter([0.5, 0.5, 0.1, 0.2, 0.3, 0.4])  # oracle and guesser by turns
    written = []
    monkeypatch.setattr(program.Pupil, "errors", lambda self, rollouts: next(errors))
    monkeypatch.setattr(program, "save", lambda path, *_: written.append(path.rpartition("/")[2]))
    task = GoalOrientedQuestions(turns=1)
    least = train_players(task, str(tmp_path), epochs=3, words=4, hidden=4, categories=4)
    assert least == {"oracle": 0.1, "guesser": 0.2}
    assert written == ["oracle.pt", "guesser.pt"] * 2
