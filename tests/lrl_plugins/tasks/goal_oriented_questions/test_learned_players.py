"""Learned players in the environment: what they are asked, what they read, and that a guesser learns in a run."""

import re

import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from lrl_core.interfaces import bind_all
from lrl_core.module import PolicyGradient
from lrl_core.phases import WarmUp
from lrl_core.types import Experience, Rollout
from lrl_plugins.baselines.means import BatchMean
from lrl_plugins.decoders.sample import Sample
from lrl_plugins.objectives.cross_entropy import CrossEntropy
from lrl_plugins.objectives.reinforce import Reinforce
from lrl_plugins.policies.recurrent import Recurrent
from lrl_plugins.replays.expert import Expert
from lrl_plugins.replays.fresh import Fresh
from lrl_plugins.rewards.environment import EnvironmentReward
from lrl_plugins.tasks.goal_oriented_questions.data import GoalOrientedQuestions
from lrl_plugins.tasks.goal_oriented_questions.learned import LearnedGuesser, LearnedOracle, heard
from lrl_plugins.tasks.goal_oriented_questions.networks import GuesserNetwork, OracleNetwork, Sizes
from lrl_plugins.tasks.goal_oriented_questions.player_files import Knowledge, save
from lrl_plugins.tasks.goal_oriented_questions.scenes import SceneWorld
from lrl_plugins.tasks.goal_oriented_questions.tables import AttributeTable

SIZES = Sizes(words=8, hidden=16, categories=8)


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def small(**options):
    return LearnedGuesser(words=16, hidden=32, categories=16, **options)


def played(task, **decoder):
    """Conversations of an untrained policy."""
    facts = task.facts()
    policy, decoder = Recurrent(embedding=8, hidden=16), Sample(**decoder)
    for part in (policy, decoder):
        bind_all(part, facts)
    return decoder.decode(policy, next(iter(task.train_dataloader())), task.environment)


def files(folder, world=None, sizes=SIZES):
    """Weights of both players as a training program leaves them, random ones."""
    task = GoalOrientedQuestions(world)
    knowledge = Knowledge.of(task.world, task.tokenizer, sizes)
    networks = {"oracle": knowledge.network(OracleNetwork), "guesser": knowledge.network(GuesserNetwork)}
    for name, network in networks.items():
        save(str(folder / f"{name}.pt"), network, knowledge)
    return networks


def test_the_guesser_reads_up_to_the_last_answer_and_not_what_is_said_behind():
    mask = [[1, 1, 0, 1, 0, 0], [1, 1, 0, 1, 1, 1], [1, 1, 1, 1, 0, 1], [1, 1, 1, 0, 0, 0]]
    lengths = torch.tensor([5, 6, 4, 3])  # an answer; an unfinished question; padding behind words; no answer
    rollout = Rollout(
        played(GoalOrientedQuestions(batch_size=4), max_length=1).prompts, torch.zeros(4, 6, dtype=torch.long),
        lengths, torch.tensor(mask, dtype=torch.bool), torch.zeros(4, 6), torch.ones(4, dtype=torch.bool),
    )  # fmt: skip
    assert heard(rollout).tolist() == [5, 3, 0, 0]


def test_learning_reads_the_same_dialogues_as_guessing():
    """Cross-entropy of a batch is that of the beliefs that the environment had at the end of each game."""
    torch.manual_seed(1)
    guesser = small(guess="draw")
    task = GoalOrientedQuestions(turns=3, longest_question=4, guesser=guesser)
    rollout = played(task, max_length=14, samples=6)  # some games are cut within the last question
    loss = guesser.learn(Experience(rollout))
    told = []
    for row, group in enumerate(rollout.prompts.group.tolist()):
        line = slice(0, int(rollout.lengths[row]))
        game = task.games_by_group[group]
        state = task.environment.replay(game, rollout.tokens[row, line].tolist(), rollout.action_mask[row, line])
        if state.done and not state.stopped:  # else the last answer does not stand in the line
            state.turns = state.turns[: int((~rollout.action_mask[row, line]).sum())]
        told.append(guesser.beliefs(game, state.turns)[game.hidden])
    assert guesser.count(Experience(rollout)) == len(told) == 48
    assert loss.total.item() == pytest.approx(-torch.tensor(told).log().sum().item(), rel=1e-4)
    assert len({round(chance, 5) for chance in told}) > 8


def test_the_guess_is_made_after_the_last_answer():
    asked = []

    class Listening(LearnedGuesser):
        def beliefs(self, game, turns):
            asked.append(list(turns))
            return super().beliefs(game, turns)

    task = GoalOrientedQuestions(turns=2, guesser=Listening())
    environment, encode = task.environment, task.tokenizer.encode
    state = environment.begin(task.games["train"][0])
    assert environment.reply(state, encode("is it red ?")).reward == 0
    environment.reply(state, encode("is it large ?"))
    assert asked == [[("is it red ?", "yes"), ("is it large ?", "yes")]]


def test_what_a_guess_is_paid():
    beliefs = [0.2, 0.5, 0.3]
    assert [small().right(beliefs, hidden) for hidden in range(3)] == [0, 1, 0]
    assert [small(guess="draw").right(beliefs, hidden) for hidden in range(3)] == beliefs


def test_objects_that_are_not_there_get_no_belief():
    guesser = small()
    task = GoalOrientedQuestions(SceneWorld(30, 4, 4), guesser=guesser)
    task.facts()
    for game in task.games["train"]:
        beliefs = guesser.beliefs(game, [])
        assert len(beliefs) == len(game.objects)
        assert sum(beliefs) == pytest.approx(1)


def test_players_from_files_say_what_was_saved(tmp_path):
    torch.manual_seed(3)
    networks = files(tmp_path)
    oracle = LearnedOracle(str(tmp_path / "oracle.pt"))
    guesser = LearnedGuesser(str(tmp_path / "guesser.pt"), learns=False)
    task = GoalOrientedQuestions(oracle=oracle, guesser=guesser)
    task.facts()
    for kept, player in ((networks["oracle"], oracle), (networks["guesser"], guesser)):
        for name, weight in player.network.module.state_dict().items():
            assert weight.equal(kept.state_dict()[name])
    said = {oracle.answer(game, "is it red ?") for game in task.games["train"]}
    assert said <= {"yes", "no", "unknown"}
    assert not list(task.environment.parameters()), "nobody else trains what holds still"
    assert not task.environment.state_dict()


def test_a_guesser_goes_on_learning_from_a_file(tmp_path):
    files(tmp_path)
    guesser = LearnedGuesser(str(tmp_path / "guesser.pt"))
    GoalOrientedQuestions(guesser=guesser).facts()
    assert guesser.network.reader.cells.hidden_size == SIZES.hidden
    assert all(weight.requires_grad for weight in guesser.parameters())
    assert len(list(guesser.parameters())) > 0


def test_files_that_do_not_fit_are_refused(tmp_path):
    files(tmp_path)
    (tmp_path / "text.pt").write_text("hello")

    def refused(said, world=None, **players):
        with pytest.raises(ValueError, match=said):
            GoalOrientedQuestions(world, **players).facts()

    path = {name: str(tmp_path / f"{name}.pt") for name in ("oracle", "guesser", "text", "nothing")}
    refused(r"LearnedOracle: got .*guesser\.pt, the weights of another player", oracle=LearnedOracle(path["guesser"]))
    refused(r"LearnedGuesser: got .*text\.pt, which cannot be read", guesser=LearnedGuesser(path["text"]))
    refused(r"LearnedOracle: got .*nothing\.pt, which cannot be read", oracle=LearnedOracle(path["nothing"]))
    said = r"LearnedOracle: got .*trained on \d+ words, while the task has \d+ .*only one.*train_players"
    refused(said, world=SceneWorld(4, 2, 2), oracle=LearnedOracle(path["oracle"]))
    with pytest.raises(ValueError, match=re.escape("got path: null with learns: false")):
        LearnedGuesser(learns=False)


def test_recipes_name_learned_players_and_their_optimiser(tmp_path):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(GoalOrientedQuestions, "data")
    files(tmp_path)
    named = ["--data=GoalOrientedQuestions", "--data.oracle=LearnedOracle", f"--data.oracle.path={tmp_path}/oracle.pt"]
    guesser = ["--data.guesser=LearnedGuesser", "--data.guesser.updates=3", "--data.guesser.optimizer=SGD"]
    task = parser.instantiate(parser.parse_args([*named, *guesser, "--data.guesser.optimizer.lr=0.5"])).data
    task.facts()
    learner = task.environment.guesser
    assert (learner.updates, learner.optimizer(learner.parameters()).defaults["lr"]) == (3, 0.5)


class Accuracy(Callback):
    """Notes how often the guesser was right in each step that it learnt in."""

    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, *_):
        if "train/guesser/accuracy" in trainer.callback_metrics:
            self.seen.append(trainer.callback_metrics["train/guesser/accuracy"].item())


def fit(folder, epochs, warm_up=8, ckpt=None, seed=0, samples=4):
    """Questions are learnt from dialogues, then a guesser that knows nothing listens to them."""
    torch.manual_seed(seed)
    guesser = small(updates=12, optimizer=lambda weights: torch.optim.Adam(weights, 0.02))
    task = GoalOrientedQuestions(AttributeTable(games=32), turns=3, longest_question=4, batch_size=16, guesser=guesser)
    module = PolicyGradient(
        policy=Recurrent(embedding=16, hidden=32),
        objective=Reinforce(),
        replay=Fresh(),
        task=task.facts(),
        decoder=Sample(max_length=16, samples=samples),
        reward=EnvironmentReward(),
        baseline=BatchMean(),
        optimizer=lambda weights: torch.optim.Adam(weights, 0.001),
        warm_up=WarmUp(warm_up, CrossEntropy(), Expert(), lambda weights: torch.optim.Adam(weights, 0.02)),
    )
    accuracy = Accuracy()
    saved = ModelCheckpoint(dirpath=folder, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    trainer = Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=folder, limit_val_batches=0, callbacks=[accuracy, *([saved] if warm_up < 5 else [])],
        enable_checkpointing=warm_up < 5,
    )  # fmt: skip
    trainer.fit(module, datamodule=task, ckpt_path=ckpt)
    return module, accuracy.seen


def test_a_guesser_learns_from_the_conversations_of_a_run(tmp_path):
    """At random 1/8 of the guesses are right, and 0.58 at best after three questions that are drawn at random."""
    module, seen = fit(tmp_path, epochs=16)
    assert module.learners == [module.environment.guesser]
    assert len(seen) == 2 * 8
    assert seen[0] < 0.4
    assert sum(seen[-4:]) / 4 > 0.5


def test_a_run_with_a_guesser_resumes_bit_for_bit(tmp_path):
    """Weights and optimiser of the guesser come from the checkpoint, whatever it began with."""
    whole, seen = fit(tmp_path, epochs=3, warm_up=1, samples=2)
    middle = sorted(tmp_path.glob("*.ckpt"), key=lambda path: int(path.stem.split("=")[1]))[2]
    saved = torch.load(middle, weights_only=True)["state_dict"]
    assert "environment.guesser.network.reader.words.weight" in saved
    resumed, after = fit(tmp_path / "again", epochs=3, warm_up=1, samples=2, ckpt=middle, seed=9)
    assert 0 < len(after) < len(seen)
    assert seen[-len(after) :] == after
    for name, weight in whole.state_dict().items():
        assert weight.equal(resumed.state_dict()[name]), name
