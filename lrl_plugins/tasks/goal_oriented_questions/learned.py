"""Players that have learnt or learn: an oracle from a file, a guesser from a file or beside the policy."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import nll_loss
from torch.optim import Adam

from lrl_core.frozen import Frozen
from lrl_core.interfaces import Learner, OptimizerFactory
from lrl_core.masks import length_mask
from lrl_core.types import Experience, Loss, Rollout
from lrl_plugins.tasks.goal_oriented_questions.dialogues import line_of
from lrl_plugins.tasks.goal_oriented_questions.networks import GuesserNetwork, OracleNetwork, Sizes, objects_of
from lrl_plugins.tasks.goal_oriented_questions.player_files import Knowledge, load
from lrl_plugins.tasks.goal_oriented_questions.players import Guesser, Oracle
from lrl_plugins.tasks.goal_oriented_questions.tokens import DialogueTokenizer
from lrl_plugins.tasks.goal_oriented_questions.worlds import ANSWERS, Game, Turn, World


class LearnedOracle(Oracle):
    """Answers as a network does that was trained on dialogues and holds still now (de Vries et al. 2017, section 5.2).

    Train it with `python -m lrl_plugins.tasks.goal_oriented_questions.train_players`, on the same data.

    Args:
        path: The file of weights that this program wrote, oracle.pt.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def meet(self, world: World, games: Mapping[int, Game], tokenizer: DialogueTokenizer) -> None:
        self.world, self.tokenizer = world, tokenizer
        network, self.knowledge = load(self.path, OracleNetwork, tokenizer, "LearnedOracle")
        self.network = Frozen(network)

    @torch.no_grad()
    def answer(self, game: Game, question: str) -> str:
        device = next(self.network.module.parameters()).device
        line = torch.tensor([self.tokenizer.encode(question)], device=device)
        length = torch.tensor([line.shape[1]], device=device)
        objects = objects_of(self.world, [game], self.knowledge.numbers, device)
        chances = self.network(line, length, objects.at(torch.tensor([game.hidden], device=device)))
        return ANSWERS[int(chances.argmax())]


class LearnedGuesser(Guesser, Learner):
    """Guesses as a network does, which learns from every conversation of the run or holds still.

    An LSTM reads the dialogue; its product with what two layers make of each object's category and place says how
    likely the object is (de Vries et al. 2017, section 5.3). It learns which object was hidden from whole dialogues,
    after every update of the policy, whose reward is in turn whether it guesses right. Without a file it knows nothing
    to begin with, and questions earn nothing until it has learnt what they mean.

    Args:
        path: File of weights that `python -m lrl_plugins.tasks.goal_oriented_questions.train_players` wrote on the same
            data, guesser.pt; None starts from random weights.
        learns: Whether it learns during the run.
        guess: Which object it names: the most likely one (`best`), or one drawn as likely as it thinks it is (`draw`),
            so that the policy is paid the probability of the hidden object.
        words: Width of a word vector, with path: null.
        hidden: Width of the LSTM's state, with path: null.
        categories: Width of a category's vector, with path: null.
        optimizer: Optimiser of the network.
        updates: Updates of the network per experience.
    """

    def __init__(
        self,
        path: str | None = None,
        learns: bool = True,
        guess: Literal["best", "draw"] = "best",
        words: int = 64,
        hidden: int = 128,
        categories: int = 64,
        optimizer: OptimizerFactory = Adam,
        updates: int = 1,
    ) -> None:
        super().__init__()
        if path is None and not learns:
            raise ValueError(
                "LearnedGuesser: got path: null with learns: false, expected weights from a file, or learning: else it "
                "guesses at random for ever. Give it a path, or set learns: true."
            )
        self.path, self.learns, self.guess = path, learns, guess
        self.sizes = Sizes(words, hidden, categories)
        self.optimizer, self.updates = optimizer, updates

    def meet(self, world: World, games: Mapping[int, Game], tokenizer: DialogueTokenizer) -> None:
        self.world, self.games, self.tokenizer = world, games, tokenizer
        if self.path is None:
            self.knowledge = Knowledge.of(world, tokenizer, self.sizes)
            network = self.knowledge.network(GuesserNetwork)
        else:
            network, self.knowledge = load(self.path, GuesserNetwork, tokenizer, "LearnedGuesser")
        self.network: nn.Module = network if self.learns else Frozen(network)

    @torch.no_grad()
    def beliefs(self, game: Game, turns: Sequence[Turn]) -> list[float]:
        device = self._device()
        line = torch.tensor([line_of(turns, False, self.tokenizer).tokens], dtype=torch.long, device=device)
        length = torch.tensor([line.shape[1]], device=device)
        objects = objects_of(self.world, [game], self.knowledge.numbers, device)
        return self.network(line, length, objects)[0].exp().tolist()

    def right(self, beliefs: Sequence[float], hidden: int) -> float:
        return beliefs[hidden] if self.guess == "draw" else super().right(beliefs, hidden)

    def count(self, experience: Experience) -> Tensor:
        assert experience.rollout is not None
        return torch.tensor(float(len(experience.rollout)), device=experience.rollout.tokens.device)

    def learn(self, experience: Experience) -> Loss:
        """Cross-entropy of the hidden objects given the whole dialogues."""
        assert experience.rollout is not None
        chances, hidden = guesses(self.network, experience.rollout, self.world, self.games, self.knowledge)
        hits = (chances.argmax(1) == hidden).float().mean()
        return Loss(nll_loss(chances, hidden, reduction="sum"), {"guesser/accuracy": hits})

    def _device(self) -> torch.device:
        network = self.network.module if isinstance(self.network, Frozen) else self.network
        return next(network.parameters()).device


def guesses(
    network: nn.Module, rollout: Rollout, world: World, games: Mapping[int, Game], knowledge: Knowledge
) -> tuple[Float[Tensor, "B O"], Int[Tensor, " B"]]:
    """Log-probability of each object after whole dialogues, and which one was hidden.

    Args:
        network: A guesser's.
        rollout: The dialogues.
        world: Whose objects.
        games: The games by the group number of their prompts.
        knowledge: What the guesser knows.
    """
    about = [games[group] for group in rollout.prompts.group.tolist()]
    device = rollout.tokens.device
    objects = objects_of(world, about, knowledge.numbers, device)
    hidden = torch.tensor([game.hidden for game in about], device=device)
    return network(rollout.tokens, heard(rollout), objects), hidden


def heard(rollout: Rollout) -> Int[Tensor, " B"]:
    """How many tokens of each dialogue a guesser reads: all up to the last answer, which is among them."""
    steps = rollout.tokens.shape[1]
    answered = ~rollout.action_mask & length_mask(rollout.lengths, steps)
    ends = torch.arange(1, steps + 1, device=answered.device) * answered
    return nn.functional.pad(ends, (1, 0)).amax(1)
