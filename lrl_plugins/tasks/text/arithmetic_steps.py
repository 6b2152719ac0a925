"""Arithmetic in steps, with or without a calculator: the steps are a rationale behind which the answer is read."""

from dataclasses import replace
from typing import Literal, TypeAlias

import torch
from torchmetrics import Metric

from lrl_core.interfaces import TaskFacts
from lrl_core.types import Prompts
from lrl_plugins.tasks.splits import Serving
from lrl_plugins.tasks.text.calculator import Calculator
from lrl_plugins.tasks.text.metrics import ArithmeticMetrics, final_number
from lrl_plugins.tasks.text.number_tokenizer import NumberTokenizer
from lrl_plugins.tasks.text.rows import Row, collate
from lrl_plugins.tasks.text.sources import Example, TextSource
from lrl_plugins.tasks.text.task import Settings, TextTask
from lrl_plugins.tasks.text.worked_sums import ArithmeticFiles, WorkedSums

__all__ = ["ArithmeticFiles", "ArithmeticSteps", "TextSource", "WorkedSums"]

Taught: TypeAlias = Literal["steps", "answer", "both"]


class ArithmeticSteps(TextTask):
    """Work out a number step by step. Without arguments: generated sums and a calculator, nothing to download.

    The question `6 - 0 - 4 = ?` is X; the episode, `6 - 0 = 6 , 6 - 4 = 2`, is a rationale Z; what should follow it,
    `. The answer is 2.`, is Y, in the column `after` of the examples (Hu et al. 2024, arXiv 2310.04363, section 4.4).
    The last number of an episode counts as its answer. Held-out metrics: accuracy, also by number of operands, and
    answered, the share of episodes with a number at all.

    With a calculator, what comes after "=" is said by the environment and is no action. A line of n operands takes
    6 (n - 1) tokens, the end token included, which the decoder's max_length must allow; a calculator that is asked
    with the last token but one has the last word, and such an episode counts as cut.

    Args:
        source: Where questions and worked answers come from: WorkedSums, ArithmeticFiles or a class of your own; None
            = WorkedSums().
        tool: Whether a calculator answers every "=".
        taught: What is learnt from people: the steps; the steps and the answer that they come to, right or wrong, as
            one line; or both, which are then two lines to learn from: for a model that can stop after the steps and
            can also say what follows.
        batch_size: Prompts per step and rank.
        references_per_prompt: Lines to learn from per prompt and epoch; from epoch to epoch they take turns.
        template: Wording of the prompt: `{prompt}` and other columns of the row stand in braces.
        after: Wording of what should follow the steps, `{answer}` is the result; rows with a column `after` of their
            own keep it.
        max_prompt_length: Longest prompt in tokens.
        max_length: Longest target in tokens, EOS counted; longer ones are cut.
        largest: The vocabulary has the numbers from minus this one to this one.
        seed: Of the order of prompts and answers.
    """

    def __init__(
        self,
        source: TextSource | None = None,
        tool: bool = True,
        taught: Taught = "steps",
        batch_size: int = 16,
        references_per_prompt: int = 1,
        template: str = "{prompt}",
        after: str = ". The answer is {answer}.",
        max_prompt_length: int = 24,
        max_length: int = 40,
        largest: int = 99,
        seed: int = 0,
    ) -> None:
        settings = Settings(
            batch_size, references_per_prompt, template, max_prompt_length, max_length, "right", None, None, 1, seed
        )
        super().__init__(source if source is not None else WorkedSums(), settings)
        self.tool, self.taught, self.after = tool, taught, after
        self.words = NumberTokenizer(largest)
        self.calculator = Calculator(self.words)

    @property
    def tokenizer(self) -> NumberTokenizer:
        """One id per number, sign and word."""
        return self.words

    def facts(self) -> TaskFacts:
        facts = super().facts()
        return replace(facts, environment=self.calculator) if self.tool else facts

    def serving(self) -> Serving:
        return replace(super().serving(), collate=WithReplies(self.calculator if self.tool else None))

    def measure(self, examples: dict[str, Example], test: bool) -> Metric:
        return ArithmeticMetrics(examples)

    def prepare(self, example: Example) -> Example:
        """The example with a column `after`, and with the lines that are taught as its references."""
        after = example.columns.get("after", self.after.format(**example.columns))
        columns = {**example.columns, "after": after}
        steps = tuple(self._steps(text, example.id) for text in example.references)
        whole = tuple(f"{text} {self.after.format(answer=final_number(text, '####'))}" for text in steps)
        taught = {"steps": steps, "answer": whole, "both": steps + whole}[self.taught]
        return Example(example.id, example.prompt, taught, columns)

    def _steps(self, text: str, name: str) -> str:
        """The steps as they stand in an episode."""
        if not self.tool:
            return text
        try:
            laid = self.calculator.lay(self.words.encode(text))
        except ValueError as error:
            raise ValueError(
                f"{type(self.source).__name__}: got the steps {text!r} in example {name!r}, where the calculator "
                f"would say something else than {error}; expected right results, because they are its words. Correct "
                "them, or set tool: false."
            ) from error
        return self.words.decode(laid.tokens)


class WithReplies:
    """Makes `Prompts` of rows, in a form that loading processes can be handed.

    Args:
        calculator: Whose words in the targets are not learnt; None: all are.
    """

    def __init__(self, calculator: Calculator | None) -> None:
        self.calculator = calculator

    def __call__(self, rows: list[list[Row]]) -> Prompts:
        """A batch of rows."""
        prompts = collate(rows, NumberTokenizer.pad)
        if self.calculator is None or prompts.targets is None:
            return prompts
        mask = torch.ones_like(prompts.targets, dtype=torch.bool)
        targets = [row.target for own in rows for row in own if row.target is not None]
        for line, target in zip(mask, targets, strict=True):
            own = self.calculator.lay(target).own[: len(target)]
            line[: len(own)] = torch.tensor(own)
        return replace(prompts, target_mask=mask)
