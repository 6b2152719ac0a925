"""Maximum likelihood of the human answers."""

from collections.abc import Callable

from torch import Tensor

from lrl_core.functional import Aggregation, aggregate, aggregation_count, masked_mean
from lrl_core.interfaces import Objective
from lrl_core.types import Experience, Loss, PolicyOutput, Rollout
from lrl_plugins.objectives.shared import human_answers, refuse_missing_length


class CrossEntropy(Objective):
    """Teacher forcing: -log pi of each target token, EOS included.

    With label smoothing e the target is 1 - e on the human token and e / (V - 1) on each other.

    Args:
        label_smoothing: e, in [0, 1).
        aggregation: How token losses become one number; `token-mean` over the whole update is the usual choice
            (per-episode token means are no proper scoring rule).
        length: The constant of seq-mean-token-sum-norm.
    """

    samples = False

    def __init__(
        self, label_smoothing: float = 0.0, aggregation: Aggregation = "token-mean", length: int | None = None
    ) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"CrossEntropy: label_smoothing is {label_smoothing}; expected a number in [0, 1).")
        self.label_smoothing, self.aggregation, self.length = label_smoothing, aggregation, length
        refuse_missing_length(aggregation, length)

    def count(self, experience: Experience) -> Tensor:
        return aggregation_count(human_answers("CrossEntropy", experience).action_mask, self.aggregation)

    def loss(self, policy: Callable[[Rollout], PolicyOutput], experience: Experience) -> Loss:
        answers = human_answers("CrossEntropy", experience)
        output = policy(answers)
        logprobs = output.logprobs
        losses = -logprobs
        if self.label_smoothing:
            vocabulary = output.head.weight.shape[0]
            other = self.label_smoothing / (vocabulary - 1)
            everything = output.over_vocabulary(lambda log_probability: log_probability.sum(-1))
            losses = -(1 - self.label_smoothing - other) * logprobs - other * everything
        mask = answers.action_mask
        metrics = {"cross_entropy": -masked_mean(logprobs.detach(), mask)}
        return Loss(aggregate(losses, mask, self.aggregation, self.length), metrics)
