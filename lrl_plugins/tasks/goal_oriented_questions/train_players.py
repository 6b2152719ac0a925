"""Train an oracle and a guesser on a task's dialogues (de Vries et al. 2017), for LearnedOracle and LearnedGuesser.

Run as a program: `python -m lrl_plugins.tasks.goal_oriented_questions.train_players --folder players --data.turns 20
--data.world GuessWhatWorld --data.world.path guesswhat`. Behind `--data` stand the options of the task, as in a recipe.
Printed are the shares of wrong answers and of wrong guesses in the validation dialogues; oracle.pt and guesser.pt hold
the weights that had the smallest.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import torch
from jsonargparse import ArgumentParser
from torch import Tensor
from torch.nn.functional import nll_loss

from lrl_core.types import Prompts, Rollout
from lrl_plugins.tasks.goal_oriented_questions.data import GoalOrientedQuestions
from lrl_plugins.tasks.goal_oriented_questions.dialogues import turns_in
from lrl_plugins.tasks.goal_oriented_questions.learned import guesses
from lrl_plugins.tasks.goal_oriented_questions.networks import GuesserNetwork, OracleNetwork, Sizes, objects_of
from lrl_plugins.tasks.goal_oriented_questions.player_files import Knowledge, save
from lrl_plugins.tasks.goal_oriented_questions.worlds import ANSWERS
from lrl_plugins.tasks.padding import padded

Judge = Callable[[Rollout], tuple[Tensor, Tensor]]
"""From human dialogues to log-probabilities of classes and the right classes."""


class Pupil:
    """A player that learns.

    Args:
        name: What it is called.
        network: Its network.
        judge: What the network says of dialogues.
        learning_rate: Of Adam.
    """

    def __init__(self, name: str, network: OracleNetwork | GuesserNetwork, judge: Judge, learning_rate: float) -> None:
        self.name, self.network, self.judge = name, network, judge
        self.optimizer = torch.optim.Adam(network.parameters(), learning_rate)
        self.least = float("inf")
        """The smallest share of errors so far."""

    def learn(self, rollout: Rollout) -> None:
        """One step of Adam."""
        self.optimizer.zero_grad()
        nll_loss(*self.judge(rollout)).backward()
        self.optimizer.step()

    @torch.no_grad()
    def errors(self, rollouts: Iterable[Rollout]) -> float:
        """The share of wrong ones."""
        wrong = [said.argmax(1) != right for said, right in map(self.judge, rollouts)]
        return torch.cat(wrong).float().mean().item()


def train_players(
    task: GoalOrientedQuestions,
    folder: str,
    epochs: int = 20,
    learning_rate: float = 1e-3,
    words: int = 64,
    hidden: int = 128,
    categories: int = 64,
    seed: int = 0,
    device: str = "cpu",
) -> dict[str, float]:
    """Train both players; the smallest share of errors of each.

    Args:
        task: Whose dialogues; its own players do not play.
        folder: Where oracle.pt and guesser.pt are written.
        epochs: Passes through the training dialogues.
        learning_rate: Of Adam.
        words: Width of a word vector; de Vries et al.: 300.
        hidden: Width of the state of the cells and of the layers behind; de Vries et al.: 512.
        categories: Width of a category's vector; de Vries et al.: 512 and 256.
        seed: Of the first weights.
        device: Where the networks stand.
    """
    torch.manual_seed(seed)
    Path(folder).mkdir(parents=True, exist_ok=True)
    knowledge = Knowledge.of(task.world, task.tokenizer, Sizes(words, hidden, categories))
    pupils = _pupils(task, knowledge, learning_rate, device)
    train, val = task.loader("train", shuffle=True), task.loader("val")
    for epoch in range(epochs):
        for prompts in train:
            for pupil in pupils:
                pupil.learn(_dialogues(prompts, device))
        for pupil in pupils:
            errors = pupil.errors(_dialogues(prompts, device) for prompts in val)
            print(f"epoch {epoch + 1:3}  {pupil.name:7}  errors {errors:.4f}", flush=True)
            if errors < pupil.least:
                pupil.least = errors
                save(str(Path(folder, f"{pupil.name}.pt")), pupil.network, knowledge)
    return {pupil.name: pupil.least for pupil in pupils}


def _pupils(task: GoalOrientedQuestions, knowledge: Knowledge, learning_rate: float, device: str) -> list[Pupil]:
    oracle, guesser = knowledge.network(OracleNetwork).to(device), knowledge.network(GuesserNetwork).to(device)
    guess = partial(guesses, guesser, world=task.world, games=task.games_by_group, knowledge=knowledge)
    answer = partial(answers, oracle, task=task, knowledge=knowledge)
    return [Pupil("oracle", oracle, answer, learning_rate), Pupil("guesser", guesser, guess, learning_rate)]


def answers(
    network: OracleNetwork, rollout: Rollout, task: GoalOrientedQuestions, knowledge: Knowledge
) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the answers to all questions in the dialogues, and the numbers of those that were given.

    Args:
        network: An oracle's.
        rollout: The dialogues.
        task: Whose.
        knowledge: What the oracle knows.
    """
    device, questions, games, right = rollout.tokens.device, list[list[int]](), [], list[int]()
    for row, group in enumerate(rollout.prompts.group.tolist()):
        length = int(rollout.lengths[row])
        line = rollout.tokens[row, :length].tolist(), rollout.action_mask[row, :length].tolist()
        for question, answer in turns_in(*line, task.tokenizer):
            questions.append(task.tokenizer.encode(question))
            games.append(task.games_by_group[group])
            right.append(ANSWERS.index(answer))
    hidden = torch.tensor([game.hidden for game in games], device=device)
    objects = objects_of(task.world, games, knowledge.numbers, device).at(hidden)
    lines, lengths = padded(questions, task.tokenizer.pad)
    said = network(lines.to(device), lengths.to(device), objects)
    return said, torch.tensor(right, device=device)


def _dialogues(prompts: Prompts, device: str) -> Rollout:
    rollout = Rollout.of_targets(prompts)
    assert rollout is not None
    return rollout.to(device)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train by the options of the command line."""
    parser = ArgumentParser(prog="train_players", description="Train an oracle and a guesser on a task's dialogues.")
    parser.add_argument("--config", action="config", help="File with these options.")
    parser.add_function_arguments(train_players, skip={"task"})
    parser.add_class_arguments(GoalOrientedQuestions, "data", instantiate=True)
    given = parser.instantiate(parser.parse_args(arguments))
    options = {name: value for name, value in vars(given).items() if name not in ("config", "data")}
    train_players(given.data, **options)


if __name__ == "__main__":
    main()
