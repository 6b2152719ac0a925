"""Chains of additions and subtractions with worked steps: generated, or read from JSON files."""

import json
import random
import re
from typing import Any

from lrl_plugins.tasks.files import read_text
from lrl_plugins.tasks.text.made_up import MadeUp
from lrl_plugins.tasks.text.sources import Example, TextSource, shared_out

_QUESTION = re.compile(r"^\s*(?:question:)?\s*(.*?\?)\s*(?:answer:)?\s*$", re.IGNORECASE)


class WorkedSums(MadeUp):
    """Questions such as `6 - 0 - 4 = ?` whose human answer works out one operation after the other.

    The answer to that one: `6 - 0 = 6 , 6 - 4 = 2`. The columns are answer, the result as text, and operands. Answers
    may be made with mistakes, for a model to start from that is not perfect (Hu et al. 2024, arXiv 2310.04363, start
    from a pretrained one); held-out answers have none.

    Args:
        train: Training examples.
        val: Validation examples, with as many operands as the training examples.
        test: Test examples; no question is in two splits.
        operands: How many numbers a question has, one of these.
        test_operands: The same in the test.
        largest: Numbers are drawn from 0 to this one.
        mistakes: Chance that a step goes wrong: it has the other operator, or another operand, or is left out, each as
            likely. What follows goes on from there.
        wrong_results: Chance that a step's result is wrong, by up to 3; what follows goes on from it.
        without: Files as ArithmeticFiles reads them whose questions are not asked.
        seed: Other seeds give other examples.
    """

    def __init__(
        self,
        train: int = 4000,
        val: int = 200,
        test: int = 600,
        operands: tuple[int, ...] = (3, 4),
        test_operands: tuple[int, ...] = (3, 4, 5),
        largest: int = 9,
        mistakes: float = 0.0,
        wrong_results: float = 0.0,
        without: tuple[str, ...] = (),
        seed: int = 0,
    ) -> None:
        super().__init__(train, val, test, seed)
        if not operands or not test_operands or min(*operands, *test_operands) < 2:
            raise ValueError(
                f"WorkedSums: got operands {operands} and test_operands {test_operands}, expected numbers from 2 on. "
                "Correct the recipe."
            )
        for name, share in (("mistakes", mistakes), ("wrong_results", wrong_results)):
            if not 0 <= share <= 1:
                raise ValueError(f"WorkedSums: got {name} {share}, expected a chance from 0 to 1. Correct the recipe.")
        self.operands, self.test_operands, self.largest = operands, test_operands, largest
        self.mistakes, self.wrong_results = mistakes, wrong_results
        self.asked_elsewhere = {question_of(row, file) for file in without for row in _rows(file, "WorkedSums")}

    def make(self, name: str, draw: random.Random) -> Example:
        question = None
        while question is None or question in self.asked_elsewhere:
            count = draw.choice(self.test_operands if name.startswith("test-") else self.operands)
            numbers = [draw.randint(0, self.largest) for _ in range(count)]
            operators = [draw.choice("+-") for _ in range(count - 1)]
            chain = list(zip(operators, numbers[1:], strict=True))
            question = f"{' '.join([str(numbers[0]), *(f'{sign} {number}' for sign, number in chain)])} = ?"
        answer = numbers[0] + sum(number if sign == "+" else -number for sign, number in chain)
        # Mistakes have a generator of their own: the questions are the same whatever goes wrong.
        slips = random.Random(f"mistakes/{self.seed}/{name}") if name.startswith("train-") else None
        columns = {"answer": str(answer), "operands": count}
        return Example(name, question, (self._worked(numbers[0], chain, slips),), columns)

    def _worked(self, result: int, chain: list[tuple[str, int]], slips: random.Random | None) -> str:
        """The steps; `slips` says what goes wrong, None for nothing."""
        steps = list[str]()
        for place, (sign, number) in enumerate(chain):
            if slips is not None and slips.random() < self.mistakes:
                kind = slips.choice(("operator", "operand", "step"))
                if kind == "step" and (steps or place + 1 < len(chain)):  # one step at least is taken
                    continue
                sign = {"+": "-", "-": "+"}[sign] if kind == "operator" else sign
                number = slips.randint(0, self.largest) if kind == "operand" else number
            after = result + number if sign == "+" else result - number
            if slips is not None and slips.random() < self.wrong_results:
                after += slips.choice((-3, -2, -1, 1, 2, 3))
            steps.append(f"{result} {sign} {number} = {after}")
            result = after
        return " , ".join(steps)


class ArithmeticFiles(TextSource):
    """Worked sums in JSON: a list of objects with str_query, num_sol and perhaps str_rationale (Hu et al. 2024).

    `Question: 6 - 0 - 4 = ? Answer:` is asked as `6 - 0 - 4 = ?`. A held-out question that stands in an earlier split
    too (train, val, test in this order) is left out: the published test file of three and four operands repeats all 50
    training questions.

    Args:
        train: Training file (.json or .json.gz).
        val: Validation file; None = a tenth of `train`, by the hash of the question.
        test: Test files; () = none.
    """

    def __init__(self, train: str, val: str | None = None, test: tuple[str, ...] = ()) -> None:
        self.train, self.val, self.test = train, val, test

    def splits(self) -> dict[str, list[Example]]:
        found: dict[str, list[Example]] = {"train": [], "val": [], "test": []}
        for example in _examples(self.train, "train"):
            sharing = ["train"] if self.val else ["train", "val"]
            found[shared_out(example.prompt, sharing, 0.1)].append(example)
        files = [("val", self.val)] if self.val else []
        for split, file in [*files, *(("test", file) for file in self.test)]:
            known = {example.prompt for other, own in found.items() if other != split for example in own}
            kept = [example for example in _examples(file, split) if example.prompt not in known]
            found[split] += [
                Example(f"{split}-{len(found[split]) + i}", example.prompt, example.references, example.columns)
                for i, example in enumerate(kept)
            ]
        return found


def question_of(row: dict[str, Any], where: str) -> str:
    """A row's question without "Question:" and "Answer:"; ValueError where it is none.

    Args:
        row: An object of a file.
        where: Where it stands, for the error.
    """
    match = _QUESTION.match(str(row.get("str_query")))
    if match is None or "num_sol" not in row:
        raise ValueError(
            f"ArithmeticFiles: got the row {row} in {where}, expected a question that ends with '?' in str_query and "
            "its result in num_sol. Correct the file."
        )
    return " ".join(match[1].split())


def _examples(file: str, split: str) -> list[Example]:
    examples = list[Example]()
    for row in _rows(file, "ArithmeticFiles"):
        question = question_of(row, file)
        worked = row.get("str_rationale")
        answer = {"answer": str(row["num_sol"]), "operands": len(re.findall(r"\d+", question))}
        after = {"after": str(row["str_sol"])} if "str_sol" in row else {}
        references = (str(worked),) if worked else ()
        examples.append(Example(f"{split}-{len(examples)}", question, references, answer | after))
    return examples


def _rows(file: str, who: str) -> list[dict[str, Any]]:
    try:
        rows = json.loads(read_text(file, who, "a JSON file with a list of objects"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{who}: got {file}, which is no JSON ({error}), expected a list of objects.") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{who}: got {file} with something else than a list of objects, expected one. Correct it.")
    return rows
