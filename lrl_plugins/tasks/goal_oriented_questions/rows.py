"""The games of one split as data set rows, and how a list of rows becomes `Prompts`."""

from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import Dataset

from lrl_core.types import Prompts
from lrl_plugins.tasks.captioning.images import PixelReader
from lrl_plugins.tasks.goal_oriented_questions.dialogues import Line, line_of, turns_of
from lrl_plugins.tasks.goal_oriented_questions.tokens import DialogueTokenizer
from lrl_plugins.tasks.goal_oriented_questions.worlds import Game, World
from lrl_plugins.tasks.padding import padded


@dataclass(frozen=True)
class Row:
    """One game with one dialogue to learn from."""

    game: Game
    """The game."""
    group: int
    """Its number, unique over all splits."""
    told: tuple[int, ...]
    """What the questioner reads first."""
    line: Line
    """The dialogue."""
    pixels: Float[Tensor, "3 H W"] | None
    """The picture, normalised; None where there is none."""


class Games(Dataset[Row]):
    """The games of one split; entry (game, epoch) holds the dialogue of that epoch.

    Args:
        games: The games.
        first_group: Group number of the first one.
        world: Whose games.
        tokenizer: The task's.
        turns: Questions per dialogue, at most.
        stop: Chance that a generated dialogue stops after an answer.
        seed: Of generated dialogues.
        fresh: Whether every epoch has dialogues of its own; False shows those of the first epoch.
        pixels: Reads pictures.
    """

    def __init__(
        self,
        games: list[Game],
        first_group: int,
        world: World,
        tokenizer: DialogueTokenizer,
        turns: int,
        stop: float,
        seed: int,
        fresh: bool,
        pixels: PixelReader,
    ) -> None:
        self.games, self.first_group, self.world, self.tokenizer = games, first_group, world, tokenizer
        self.turns, self.stop, self.seed, self.fresh, self.pixels = turns, stop, seed, fresh, pixels

    def __len__(self) -> int:
        return len(self.games)

    def __getitem__(self, key: tuple[int, int]) -> Row:
        index, epoch = key
        game, group = self.games[index], self.first_group + index
        seed = f"dialogue/{self.seed}/{group}/{epoch if self.fresh else 0}"
        turns, stopped = turns_of(self.world, game, self.turns, self.stop, seed)
        told = tuple(self.tokenizer.encode(game.told))
        picture = None if game.picture is None else self.pixels.read(index, game.picture)
        return Row(game, group, told, line_of(turns, stopped, self.tokenizer), picture)


def collate(rows: list[Row], pad: int) -> Prompts:
    """A batch of games.

    Args:
        rows: One per game.
        pad: Token id that fills lines.
    """
    pixels = [row.pixels for row in rows if row.pixels is not None]
    hidden = torch.tensor([row.game.hidden for row in rows])
    tokens, lengths = padded([row.told for row in rows], pad)
    targets, target_lengths = padded([row.line.tokens for row in rows], pad)
    return Prompts(
        tokens=tokens,
        lengths=lengths,
        group=torch.tensor([row.group for row in rows]),
        targets=targets,
        target_lengths=target_lengths,
        target_mask=padded([row.line.own for row in rows], False)[0],
        features={"hidden": hidden} | ({"pixels": torch.stack(pixels)} if pixels else {}),
        examples=tuple(
            {"id": row.game.id, "hidden": row.game.objects[row.game.hidden], "objects": row.game.objects}
            for row in rows
        ),
    )


def collator(pad: int) -> "partial[Prompts]":
    """`collate` for one tokenizer, in a form that loading processes can be handed."""
    return partial(collate, pad=pad)
