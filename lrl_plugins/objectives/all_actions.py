"""The actor's side of actor-critic: every token is weighed by what a critic thinks it would be worth."""

from collections.abc import Callable

from torch import Tensor

from lrl_core.functional import Aggregation, aggregate, aggregation_count, masked_mean
from lrl_core.interfaces import Objective, Sampler
from lrl_core.types import Experience, Loss, PolicyOutput, Rollout
from lrl_plugins.objectives.shared import refuse_missing_length, refuse_no_draws


class AllActions(Objective):
    """The policy gradient summed over all tokens, - sum over a of pi(a | y_<t) Q(a) (Bahdanau et al. 2017, eq. 8).

    It needs the baseline Critic, which says what each token would be worth, said or not. With the true Q the expected
    gradient is exactly that of the expected reward, and it varies less than that of the tokens that were drawn; with a
    critic that errs it is biased. Log-likelihood beside it is the term CrossEntropy of a Sum. Expectations are
    taken after bans and temperature, before truncation.

    Args:
        aggregation: How token losses become one number: token-mean, seq-mean-token-mean, seq-mean-token-sum or
            seq-mean-token-sum-norm.
        entropy_bonus: Weight of the entropy of each step's distribution, which is rewarded; 0 for none.
        length: The constant of seq-mean-token-sum-norm, normally the decoder's max_length.
    """

    def __init__(
        self,
        aggregation: Aggregation = "seq-mean-token-sum",
        entropy_bonus: float = 0.0,
        length: int | None = None,
    ) -> None:
        super().__init__()
        self.aggregation, self.entropy_bonus, self.length = aggregation, entropy_bonus, length
        refuse_missing_length(aggregation, length)

    def check(self, sampler: Sampler) -> None:
        refuse_no_draws("AllActions", sampler)

    def count(self, experience: Experience) -> Tensor:
        return aggregation_count(experience.learn_mask, self.aggregation)

    def loss(self, policy: Callable[[Rollout], PolicyOutput], experience: Experience) -> Loss:
        rollout, advantage, mask = experience.rollout, experience.advantage, experience.learn_mask
        assert rollout is not None and advantage is not None
        if advantage.actions is None:
            raise ValueError(
                "AllActions: the baseline says nothing of tokens that were not drawn (Advantage.actions is None); "
                "expected one that gives every token a value. Use the baseline Critic, or the objective Reinforce."
            )
        output = policy(rollout)
        expected = output.expected(advantage.actions)
        losses = -expected
        metrics = {"expected_value": masked_mean(expected.detach(), mask)}
        if self.entropy_bonus:
            losses = losses - self.entropy_bonus * output.entropy
            metrics["entropy"] = masked_mean(output.entropy.detach(), mask)
        return Loss(aggregate(losses, mask, self.aggregation, self.length), metrics)
