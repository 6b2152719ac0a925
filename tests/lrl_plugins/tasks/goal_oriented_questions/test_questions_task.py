from pathlib import Path

import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch import Trainer

from lrl_core.interfaces import Task
from lrl_core.module import PolicyGradient
from lrl_core.phases import WarmUp
from lrl_core.registry import load
from lrl_core.types import Rollout
from lrl_plugins.baselines.means import BatchMean
from lrl_plugins.decoders.sample import Sample
from lrl_plugins.objectives.cross_entropy import CrossEntropy
from lrl_plugins.objectives.reinforce import Reinforce
from lrl_plugins.policies.recurrent import Recurrent
from lrl_plugins.replays.expert import Expert
from lrl_plugins.replays.fresh import Fresh
from lrl_plugins.rewards.environment import EnvironmentReward
from lrl_plugins.tasks.goal_oriented_questions.data import GoalOrientedQuestions
from lrl_plugins.tasks.goal_oriented_questions.scenes import SceneWorld
from lrl_plugins.tasks.goal_oriented_questions.tables import AttributeTable
from lrl_plugins.tasks.goal_oriented_questions.worlds import Game

SHARED = Path(__file__).resolve().parents[5] / "shared" / "data"


def rows_of(loader):
    return {row["id"]: row for batch in loader for row in batch.examples}


def lines(task, batch):
    real = [target[:length].tolist() for target, length in zip(batch.targets, batch.target_lengths, strict=True)]
    return [task.tokenizer.decode(line) for line in real]


def test_it_works_without_arguments():
    task = load("GoalOrientedQuestions", "tasks")()
    facts = task.facts()
    assert facts.references == ()
    assert facts.environment is task.environment
    assert len(set(facts.example.group.tolist())) == 2
    (batch,) = list(task.train_dataloader())
    assert batch.tokens.shape == (8, 0)
    assert sorted(batch.features["hidden"].tolist()) == list(range(8))
    shown = rows_of(task.val_dataloader())
    assert shown["val-1"]["hidden"] == shown["val-1"]["objects"][1] == "large red box"


def test_generated_dialogues_are_true_and_answers_are_not_learnt():
    task = GoalOrientedQuestions(turns=3)
    task.facts()
    (batch,) = list(task.train_dataloader())
    expert = Rollout.of_targets(batch)
    for row, line in enumerate(lines(task, batch)):
        words = line.split()
        hidden = batch.examples[row]["hidden"].split()
        for start in range(0, len(words), 5):
            question, answer = words[start : start + 4], words[start + 4]
            about = {"round": "ball"}.get(question[2], question[2])
            assert answer == ("yes" if about in hidden else "no")
        assert len(words) == 15
        assert expert.action_mask[row].int().tolist() == [1, 1, 1, 1, 0] * 3
    assert not (batch.targets == task.tokenizer.eos).any()


def test_dialogues_are_new_in_every_epoch_of_training_and_the_same_in_validation():
    task, again = GoalOrientedQuestions(turns=3), GoalOrientedQuestions(turns=3)
    for one in (task, again):
        one.facts()
    loaders = task.train_dataloader(), again.train_dataloader()
    epochs = [[lines(task, batch) for batch in loader] for loader in loaders for _ in range(2)]
    assert epochs[0] == epochs[2]
    assert epochs[1] == epochs[3]
    assert sorted(epochs[0][0]) != sorted(epochs[1][0])
    held = task.val_dataloader()
    assert [lines(task, batch) for batch in held] == [lines(task, batch) for batch in held]


def test_dialogues_that_stop_are_padded_and_masked():
    task = GoalOrientedQuestions(turns=3, stop=0.5)
    task.facts()
    (batch,) = list(task.train_dataloader())
    lengths = batch.target_lengths.tolist()
    assert len(set(lengths)) > 1
    for row, length in enumerate(lengths):
        if length < 15:
            assert batch.targets[row, length - 1] == task.tokenizer.eos
            assert batch.target_mask[row, length - 1]
        assert batch.targets[row, length:].eq(task.tokenizer.pad).all()
        assert not batch.target_mask[row, length:].any()


def test_groups_are_unique_over_the_splits_and_name_the_game():
    task = GoalOrientedQuestions(AttributeTable(games=12), batch_size=4)
    task.facts()
    for loader in (task.train_dataloader(), task.val_dataloader(), task.test_dataloader()):
        for batch in loader:
            for state, example, hidden in zip(
                task.environment.start(batch), batch.examples, batch.features["hidden"].tolist(), strict=True
            ):
                assert state.game.id == example["id"]
                assert state.game.hidden == hidden
    assert len(task.environment.games) == 12 + 8 + 8


def test_names_are_told_where_not_all_objects_take_part():
    task = GoalOrientedQuestions(AttributeTable(objects_per_game=3), batch_size=4)
    batch = next(iter(task.train_dataloader()))
    for row, example in enumerate(batch.examples):
        told = batch.tokens[row, : batch.lengths[row]].tolist()
        assert task.tokenizer.decode(told) == " , ".join(example["objects"])
        assert example["hidden"] in example["objects"]
        assert example["objects"][batch.features["hidden"][row]] == example["hidden"]
    assert task.tokenizer.unk not in batch.tokens


def test_pictures_are_in_the_form_of_captioning():
    task = GoalOrientedQuestions(SceneWorld(8, 4, 4), batch_size=4, image_size=32)
    batch = next(iter(task.train_dataloader()))
    assert batch.features["pixels"].shape == (4, 3, 32, 32)
    assert batch.features["pixels"].abs().max() <= 1
    assert task.facts().example.features["pixels"].shape == (2, 3, 32, 32)


class Listed(AttributeTable):
    """What the test says."""

    def __init__(self, **splits):
        super().__init__()
        self.given = splits

    def games(self, split):
        return self.given.get(split, [])


def game(name="a", objects=("x", "y"), hidden=0):
    return Game(name, objects, hidden, content=range(len(objects)))


@pytest.mark.parametrize(
    ("splits", "said"),
    [
        ({"train": [game()]}, "Listed: got no games in split 'val'"),
        ({"train": [game()] * 2, "val": [game()]}, "games in split 'train' that share an id"),
        (
            {"train": [game()], "val": [game(hidden=2)]},
            "2 objects, number 2 of them hidden, in game 'a' of split 'val'",
        ),
        ({"train": [game(objects=("x",))], "val": [game()]}, "got 1 objects, number 0 of them hidden"),
    ],
)
def test_faulty_worlds_are_refused_before_training(splits, said):
    with pytest.raises(ValueError, match=said):
        GoalOrientedQuestions(Listed(**splits)).facts()


def test_wrong_numbers_are_refused():
    for name in ("turns", "longest_question", "batch_size", "image_size"):
        with pytest.raises(ValueError, match=rf"GoalOrientedQuestions: got {name} 0, expected at least 1"):
            GoalOrientedQuestions(**{name: 0})
    with pytest.raises(ValueError, match=r"got stop 1\.5, expected a chance from 0 to 1"):
        GoalOrientedQuestions(stop=1.5)
    with pytest.raises(
        ValueError, match=r"the question 'is it \w+ \?' of 4 words, expected at most 3.*longest_question"
    ):
        GoalOrientedQuestions(longest_question=3).facts()
    with pytest.raises(ValueError, match="Listed: got no games in split 'test'"):
        GoalOrientedQuestions(Listed(train=[game()], val=[game()])).test_dataloader()


def test_recipes_name_worlds_and_players_by_class():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Task, "data")
    named = ["--data=GoalOrientedQuestions", "--data.world=AttributeTable", "--data.world.objects_per_game=4"]
    load("GoalOrientedQuestions", "tasks")
    task = parser.instantiate_classes(
        parser.parse_args([*named, "--data.turns=2", "--data.oracle=TruthfulOracle"])
    ).data
    assert isinstance(task, GoalOrientedQuestions)
    assert len(task.games["train"][0].objects) == 4


def test_warm_up_reinforcement_and_validation_in_one_run(tmp_path):
    """Two phases of the real module: dialogues are learnt, then played, and the held-out games are measured."""
    torch.manual_seed(0)
    task = GoalOrientedQuestions(AttributeTable(games=64), turns=3, batch_size=32)
    module = PolicyGradient(
        policy=Recurrent(embedding=16, hidden=32),
        objective=Reinforce(),
        replay=Fresh(),
        task=task.facts(),
        decoder=Sample(max_length=16),
        reward=EnvironmentReward(),
        baseline=BatchMean(),
        optimizer=lambda weights: torch.optim.Adam(weights, 0.01),
        warm_up=WarmUp(epochs=20, objective=CrossEntropy(), replay=Expert()),
    )
    trainer = Trainer(
        max_epochs=21, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path, check_val_every_n_epoch=21, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(module, datamodule=task)
    numbers = {name: value.item() for name, value in trainer.callback_metrics.items()}
    assert numbers["val/unknown_answers"] < 0.1
    assert numbers["val/success"] >= 0.25  # a question that is understood halves what is left
    assert numbers["val/finished"] == 1
    assert numbers["val/success"] == pytest.approx(numbers["val/success_within_3"])
    # three of a dialogue's twelve own words are a choice among three; with the answers it would be 216 ** (1 / 15)
    assert numbers["val/perplexity"] == pytest.approx(27 ** (1 / 12), abs=0.05)


@pytest.mark.parametrize("name", ["countries", "zoo", "awa_animals"])
def test_published_tables_play(name):
    path = SHARED / f"oracle_{name}" / "table.json"
    if not path.is_file():
        pytest.skip(f"the data set oracle_{name} is not here")
    task = GoalOrientedQuestions(AttributeTable(str(path)), turns=4)
    batch = next(iter(task.train_dataloader()))
    assert task.tokenizer.unk not in batch.targets
    for row, state in enumerate(task.environment.start(batch)):
        line, own = batch.targets[row].tolist(), batch.target_mask[row].tolist()
        played = task.environment.replay(state.game, line, own)
        assert played.done
        assert task.environment.success(played) >= 1 / len(state.game.objects)
        assert task.tokenizer.decode(line) == " ".join(word for turn in played.turns for word in turn)
