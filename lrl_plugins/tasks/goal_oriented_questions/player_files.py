"""What learned players know words and objects by, and the files that their weights are kept in."""

import pickle
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, TypeVar

import torch

from lrl_plugins.tasks.goal_oriented_questions.networks import GuesserNetwork, OracleNetwork, Sizes
from lrl_plugins.tasks.goal_oriented_questions.tokens import DialogueTokenizer
from lrl_plugins.tasks.goal_oriented_questions.worlds import World

Network = TypeVar("Network", OracleNetwork, GuesserNetwork)

_TRAIN = "python -m lrl_plugins.tasks.goal_oriented_questions.train_players"


@dataclass(frozen=True)
class Knowledge:
    """What a player's network is made for."""

    words: tuple[str, ...]
    """The vocabulary."""
    categories: tuple[str, ...]
    """The categories of objects that were met in training."""
    sizes: Sizes
    """Widths."""

    @classmethod
    def of(cls, world: World, tokenizer: DialogueTokenizer, sizes: Sizes) -> "Knowledge":
        """What there is to know in a world's training games."""
        train = world.games("train")
        met = {world.category(game, index) for game in train for index in range(len(game.objects))}
        return cls(tokenizer.words, tuple(sorted(met)), sizes)

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Numbers of the categories, from 1."""
        return {category: number for number, category in enumerate(self.categories, start=1)}

    def network(self, kind: type[Network]) -> Network:
        """A network that knows nothing yet."""
        return kind(len(self.words), DialogueTokenizer.bos, len(self.categories), self.sizes)


def save(path: str, network: OracleNetwork | GuesserNetwork, knowledge: Knowledge) -> None:
    """Write a player's network down with what it was made for."""
    kept = {"player": type(network).__name__, "knowledge": asdict(knowledge), "weights": network.state_dict()}
    torch.save(kept, path)


def load(path: str, kind: type[Network], tokenizer: DialogueTokenizer, who: str) -> tuple[Network, Knowledge]:
    """A player's network as `save` left it, and what it was made for.

    Args:
        path: The file.
        kind: Whose network is expected.
        tokenizer: The task's; the player must know its words.
        who: Who reads, for errors.
    """
    try:
        kept: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        player, known = kept["player"], kept["knowledge"]
        knowledge = Knowledge(tuple(known["words"]), tuple(known["categories"]), Sizes(**known["sizes"]))
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(_complaint(who, path, f"which cannot be read ({type(error).__name__}: {reason})")) from error
    if player != kind.__name__:
        raise ValueError(_complaint(who, path, f"the weights of another player ({player})"))
    if knowledge.words != tokenizer.words:
        strange = sorted(set(knowledge.words) ^ set(tokenizer.words))[:5]
        raise ValueError(
            _complaint(who, path, f"trained on {len(knowledge.words)} words, while the task has {len(tokenizer)} "
                                  f"(only one of them has {', '.join(map(repr, strange))})")
        )  # fmt: skip
    network = knowledge.network(kind)
    network.load_state_dict(kept["weights"])
    return network, knowledge


def _complaint(who: str, path: str, got: str) -> str:
    return f"{who}: got {path}, {got}, expected weights trained on this task's data. Write some with {_TRAIN}."
