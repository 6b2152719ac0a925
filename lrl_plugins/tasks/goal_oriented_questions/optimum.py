"""How often a game on a table of facts can be won: the line to compare a questioner with.

A deterministic oracle and a guesser that weighs all objects alike win with probability (different conversations that
can happen) / (objects): of n objects that share a conversation one guess in n is right. So success is a count of
leaves of a tree of questions. Run as a program: `python -m lrl_plugins.tasks.goal_oriented_questions.optimum
table.json --turns 5 8 10`.
"""

import argparse
import random
from collections.abc import Sequence
from itertools import combinations
from math import comb

import numpy as np

from lrl_plugins.tasks.goal_oriented_questions.table import Table, read_table
from lrl_plugins.tasks.goal_oriented_questions.worlds import YES, Game, World

ENUMERATED = 20_000
"""Up to so many sets of questions `random_success` is exact."""


def bound(table: Table, turns: int) -> float:
    """What nobody can exceed: so many yes/no answers tell at most 2^turns conversations apart (binary search)."""
    return min(len(set(table.answers)), 2**turns) / len(table.items)


def halving(table: Table, turns: int) -> float:
    """Success when each question splits the objects that are left most evenly (equal ones counted once).

    It can be done, so the optimum lies between this and `bound`.
    """
    classes = sorted(set(table.answers))
    yes = [sum(1 << i for i, row in enumerate(classes) if row[q] == "1") for q in range(len(table.questions))]
    return _leaves((1 << len(classes)) - 1, yes, turns) / len(table.items)


def random_success(table: Table, turns: int, draws: int = 4000, seed: int = 0) -> float:
    """Mean success of questions drawn at random with replacement.

    Exact where there are few sets of questions, an average over draws elsewhere.

    Args:
        table: The objects.
        turns: Questions asked.
        draws: Conversations that are averaged.
        seed: Of the draws.
    """
    facts = np.array([[int(digit) for digit in row] for row in sorted(set(table.answers))], dtype=np.int64)
    questions, most = len(table.questions), min(turns, len(table.questions))
    if sum(comb(questions, k) for k in range(most + 1)) <= ENUMERATED:
        mean = sum(_chance(questions, turns, k) * _mean_patterns(facts, k) for k in range(most + 1))
    else:
        draw = random.Random(f"questions/{seed}")
        asked = [[draw.randrange(questions) for _ in range(turns)] for _ in range(draws)]
        mean = sum(_patterns(facts, line) for line in asked) / draws
    return mean / len(table.items)


def game_table(world: World, game: Game) -> Table:
    """One game as a table of its own, so that the numbers above can be had of it; whatever is not yes counts as no."""
    columns = [world.answers(game, question) for question in world.questions(game)]
    rows = tuple("".join("1" if answer == YES else "0" for answer in row) for row in zip(*columns, strict=True))
    return Table(game.objects, tuple(world.questions(game)), rows)


def _leaves(left: int, yes: Sequence[int], turns: int) -> int:
    """Conversations that halving tells apart; sets of classes are written as bits."""
    if turns == 0 or left & (left - 1) == 0:
        return 1
    size = left.bit_count()
    question = min(yes, key=lambda column: abs(2 * (left & column).bit_count() - size))
    # Classes differ in some column, so the most even one does split them.
    return _leaves(left & question, yes, turns - 1) + _leaves(left & ~question, yes, turns - 1)


def _chance(questions: int, turns: int, distinct: int) -> float:
    """Probability that `turns` draws with replacement name exactly `distinct` of the questions."""
    onto = sum((-1) ** (distinct - j) * comb(distinct, j) * j**turns for j in range(distinct + 1))
    return comb(questions, distinct) * onto / questions**turns


def _mean_patterns(facts: np.ndarray, distinct: int) -> float:
    """Mean number of answer patterns over all sets of so many questions."""
    sets = list(combinations(range(facts.shape[1]), distinct))
    return sum(_patterns(facts, chosen) for chosen in sets) / len(sets)


def _patterns(facts: np.ndarray, asked: Sequence[int]) -> int:
    """How many different answer patterns these questions have."""
    unlike = sorted(set(asked))
    return len({row.tobytes() for row in facts[:, unlike]}) if unlike else 1


def main(arguments: Sequence[str] | None = None) -> None:
    """Print success by number of questions."""
    parser = argparse.ArgumentParser(description="How often the hidden object of a table can be guessed.")
    parser.add_argument("table", help="JSON table of items, predicates and answers")
    parser.add_argument("--turns", type=int, nargs="+", default=[5, 8, 10], help="numbers of questions")
    given = parser.parse_args(arguments)
    table = read_table(given.table)
    different = len(set(table.answers))
    print(f"{len(table.items)} objects, {different} of them different, {len(table.questions)} questions")
    print(f"{'questions':>9}  {'bound':>7}  {'halving':>7}  {'random':>7}")
    for turns in given.turns:
        line = bound(table, turns), halving(table, turns), random_success(table, turns)
        print(f"{turns:>9}  " + "  ".join(f"{number:7.4f}" for number in line))


if __name__ == "__main__":
    main()
