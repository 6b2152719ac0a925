"""The networks of learned players (de Vries et al. 2017): a reader of words, an oracle's and a guesser's."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from lrl_plugins.tasks.goal_oriented_questions.worlds import ANSWERS, Box, Game, World

PLACE = 8
"""Numbers that say where an object is."""


@dataclass(frozen=True)
class Sizes:
    """Widths of a player's network."""

    words: int
    """Of a word vector."""
    hidden: int
    """Of the state of the cells, and of the layers behind."""
    categories: int
    """Of the vector of a category."""


@dataclass(frozen=True)
class Objects:
    """The objects of games as numbers; games with fewer objects are filled up."""

    categories: Int[Tensor, "N O"]
    """0: a category that the player does not know."""
    places: Float[Tensor, "N O 8"]
    """See `place_of`."""
    present: Bool[Tensor, "N O"]
    """False on what fills up."""

    def at(self, index: Int[Tensor, " N"]) -> "Objects":
        """One object of each game, O = 1."""
        rows = torch.arange(len(index), device=index.device)
        return Objects(*(part[rows, index][:, None] for part in (self.categories, self.places, self.present)))


def place_of(box: Box | None) -> tuple[float, ...]:
    """Left, top, right, bottom and centre from -1 to 1, origin in the middle of the picture; width and height there.

    All 0 where it is not known.
    """
    if box is None:
        return (0.0,) * PLACE
    left, top, width, height = (2 * share for share in box)
    left, top = left - 1, top - 1
    return left, top, left + width, top + height, left + width / 2, top + height / 2, width, height


def objects_of(world: World, games: Sequence[Game], categories: dict[str, int], device: torch.device) -> Objects:
    """The objects of games, side by side.

    Args:
        world: Whose games.
        games: At least one.
        categories: Numbers of the categories, from 1.
        device: Where the tensors are wanted.
    """
    most = max(len(game.objects) for game in games)
    numbers = torch.zeros(len(games), most, dtype=torch.long)
    places = torch.zeros(len(games), most, PLACE)
    present = torch.zeros(len(games), most, dtype=torch.bool)
    for row, game in enumerate(games):
        there = range(len(game.objects))
        numbers[row, : len(there)] = torch.tensor([categories.get(world.category(game, i), 0) for i in there])
        places[row, : len(there)] = torch.tensor([place_of(world.box(game, i)) for i in there])
        present[row, : len(there)] = True
    return Objects(numbers.to(device), places.to(device), present.to(device))


class WordReader(nn.Module):
    """An LSTM; says what it remembers after a begin token and a line.

    Args:
        vocabulary: Number of token ids.
        begin: Id of the begin token, so that an empty line can be read.
        sizes: Widths.
    """

    def __init__(self, vocabulary: int, begin: int, sizes: Sizes) -> None:
        super().__init__()
        self.begin = begin
        self.words = nn.Embedding(vocabulary, sizes.words)
        self.cells = nn.LSTM(sizes.words, sizes.hidden, batch_first=True)

    def forward(self, tokens: Int[Tensor, "N L"], lengths: Int[Tensor, " N"]) -> Float[Tensor, "N H"]:
        lines = nn.functional.pad(tokens, (1, 0), value=self.begin)
        packed = pack_padded_sequence(self.words(lines), (lengths + 1).cpu(), batch_first=True, enforce_sorted=False)
        return self.cells(packed)[1][0][0]


class OracleNetwork(nn.Module):
    """Question, category and place of the hidden object, two layers, three answers.

    Args:
        vocabulary: Number of token ids.
        begin: Id of the begin token.
        categories: Number of categories.
        sizes: Widths.
    """

    def __init__(self, vocabulary: int, begin: int, categories: int, sizes: Sizes) -> None:
        super().__init__()
        self.reader = WordReader(vocabulary, begin, sizes)
        self.categories = nn.Embedding(categories + 1, sizes.categories)
        self.judge = nn.Sequential(
            nn.Linear(sizes.hidden + sizes.categories + PLACE, sizes.hidden),
            nn.ReLU(),
            nn.Linear(sizes.hidden, len(ANSWERS)),
        )

    def forward(self, tokens: Int[Tensor, "N L"], lengths: Int[Tensor, " N"], hidden: Objects) -> Float[Tensor, "N 3"]:
        """Log-probabilities of the answers.

        Args:
            tokens: The questions.
            lengths: Of each question.
            hidden: The object that each question is about, O = 1.
        """
        with torch.autocast(tokens.device.type, enabled=False):
            kinds = self.categories(hidden.categories[:, 0])
            known = self.reader(tokens, lengths), kinds, hidden.places[:, 0].to(kinds.dtype)
            return self.judge(torch.cat(known, 1)).float().log_softmax(1)


class GuesserNetwork(nn.Module):
    """The product of what is remembered of a dialogue with each object; objects that are not there have none.

    Args:
        vocabulary: Number of token ids.
        begin: Id of the begin token.
        categories: Number of categories.
        sizes: Widths.
    """

    def __init__(self, vocabulary: int, begin: int, categories: int, sizes: Sizes) -> None:
        super().__init__()
        self.reader = WordReader(vocabulary, begin, sizes)
        self.categories = nn.Embedding(categories + 1, sizes.categories)
        self.look = nn.Sequential(
            nn.Linear(sizes.categories + PLACE, sizes.hidden), nn.ReLU(), nn.Linear(sizes.hidden, sizes.hidden)
        )

    def forward(self, tokens: Int[Tensor, "N L"], lengths: Int[Tensor, " N"], objects: Objects) -> Float[Tensor, "N O"]:
        """Log-probability of each object; minus infinity where there is none.

        Args:
            tokens: The dialogues, questions and answers.
            lengths: Of each dialogue.
            objects: Of each game.
        """
        with torch.autocast(tokens.device.type, enabled=False):
            kinds = self.categories(objects.categories)
            seen = self.look(torch.cat([kinds, objects.places.to(kinds.dtype)], 2))
            scores = torch.einsum("nh,noh->no", self.reader(tokens, lengths), seen).float()
            return scores.masked_fill(~objects.present, -torch.inf).log_softmax(1)
