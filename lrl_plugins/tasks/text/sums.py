"""Additions and subtractions with worked steps: endless prompts whose answers can be checked."""

import random

from lrl_plugins.tasks.text.made_up import MadeUp
from lrl_plugins.tasks.text.sources import Example


class Sums(MadeUp):
    """Chains such as `17 + 25 - 4 =`, with the steps as human answer and the result in the column `answer`.

    The answer to that prompt: `17 + 25 = 42 ; 42 - 4 = 38 #### 38`. The columns are answer, a whole number as text,
    and operands.

    Args:
        train: Training examples.
        val: Validation examples.
        test: Test examples; no chain is in two splits.
        least_operands: Fewest numbers in a chain.
        most_operands: Most numbers in a chain.
        largest: Numbers are drawn from 0 to this one.
        operators: Which operators occur: "+", "-" or "+-".
        negative: Whether a result on the way may be below 0.
        steps: Whether the human answer shows the steps; False gives `#### 38` alone.
        seed: Other seeds give other examples.
    """

    def __init__(
        self,
        train: int = 4000,
        val: int = 200,
        test: int = 200,
        least_operands: int = 2,
        most_operands: int = 3,
        largest: int = 20,
        operators: str = "+-",
        negative: bool = False,
        steps: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__(train, val, test, seed)
        self.least_operands, self.most_operands, self.largest = least_operands, most_operands, largest
        self.operators, self.negative, self.steps = operators, negative, steps
        if not 2 <= least_operands <= most_operands:
            raise ValueError(
                f"Sums: got least_operands {least_operands} and most_operands {most_operands}, expected at least 2 and "
                "no more of the first than of the second. Correct them in the recipe."
            )
        if not operators or set(operators) - {"+", "-"}:
            raise ValueError(f"Sums: got operators {operators!r}, expected '+', '-' or '+-'. Correct the recipe.")

    def make(self, name: str, draw: random.Random) -> Example:
        operands = draw.randint(self.least_operands, self.most_operands)
        result = draw.randint(0, self.largest)
        asked, steps = str(result), []
        for _ in range(operands - 1):
            operator, number = self._next(result, draw)
            after = result + number if operator == "+" else result - number
            steps.append(f"{result} {operator} {number} = {after}")
            asked, result = f"{asked} {operator} {number}", after
        worked = f"{' ; '.join(steps)} " if self.steps else ""
        return Example(name, f"{asked} =", (f"{worked}#### {result}",), {"answer": str(result), "operands": operands})

    def _next(self, result: int, draw: random.Random) -> tuple[str, int]:
        operator = draw.choice(self.operators)
        most = self.largest if self.negative or operator == "+" else min(self.largest, result)
        return operator, draw.randint(0, most)
