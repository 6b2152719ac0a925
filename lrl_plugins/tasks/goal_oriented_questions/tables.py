"""The world of a table of yes/no facts."""

import random
from collections.abc import Sequence
from functools import cached_property

from lrl_plugins.tasks.goal_oriented_questions.table import Table, built_in, read_table
from lrl_plugins.tasks.goal_oriented_questions.wording import worded
from lrl_plugins.tasks.goal_oriented_questions.worlds import NO, UNKNOWN, YES, Game, World


class AttributeTable(World):
    """Objects in a table, questions about its columns. Without arguments: eight objects with three attributes.

    Every object is hidden equally often in training, and once in validation and in the test: with a whole table there
    is nothing to hold out, what is learnt is the table. A question is understood when it is one of the table's, word
    for word; any other is answered "unknown".

    Args:
        path: JSON table: {"items": [names], "predicates": [{"key", "question"}], "answers": [one string of 0 and 1 per
            item]}; None = the built-in one.
        objects_per_game: How many objects take part in a game, drawn anew for each, their names told to the questioner;
            None = all, untold.
        games: Training games per epoch; None = one per object.
        seed: Of the objects that take part.
    """

    def __init__(
        self, path: str | None = None, objects_per_game: int | None = None, games: int | None = None, seed: int = 0
    ) -> None:
        self.path, self.objects_per_game, self.train_games, self.seed = path, objects_per_game, games, seed
        if games is not None and games < 1:
            raise ValueError(f"AttributeTable: got games {games}, expected at least 1. Correct the recipe.")

    @cached_property
    def table(self) -> Table:
        """The table, checked."""
        table = built_in() if self.path is None else read_table(self.path)
        count, some = len(table.items), self.objects_per_game
        if some is not None and not 2 <= some <= count:
            raise ValueError(
                f"AttributeTable: got objects_per_game {some}, expected 2 to {count}, the table's number of objects. "
                "Correct the recipe."
            )
        return table

    def games(self, split: str) -> list[Game]:
        objects = len(self.table.items)
        count = self.train_games or objects if split == "train" else objects
        return [self._game(split, i) for i in range(count)]

    def answer(self, game: Game, question: str, index: int) -> str:
        column = self._columns.get(worded(question))
        return UNKNOWN if column is None else column[game.content[index]]

    def answers(self, game: Game, question: str) -> Sequence[str]:
        column = self._columns.get(worded(question))
        return [UNKNOWN if column is None else column[row] for row in game.content]

    def questions(self, game: Game) -> Sequence[str]:
        return self.table.questions

    @cached_property
    def _columns(self) -> dict[str, list[str]]:
        """Question -> the answer for every object of the table."""
        table = self.table
        return {
            question: [YES if row[column] == "1" else NO for row in table.answers]
            for column, question in enumerate(table.questions)
        }

    def _game(self, split: str, number: int) -> Game:
        items = self.table.items
        hidden, name = number % len(items), f"{split}-{number}"
        if self.objects_per_game is None:
            return Game(name, items, hidden, content=range(len(items)))
        draw = random.Random(f"objects/{self.seed}/{name}")
        others = [row for row in range(len(items)) if row != hidden]
        rows = [*draw.sample(others, self.objects_per_game - 1), hidden]
        draw.shuffle(rows)
        names = tuple(items[row] for row in rows)
        return Game(name, names, rows.index(hidden), content=tuple(rows), told=" , ".join(names))
