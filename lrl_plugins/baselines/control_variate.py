"""Another baseline as a control variate, with the coefficient that fits."""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lrl_core.functional import credit, group_index
from lrl_core.interfaces import Baseline, Policy, Sampler
from lrl_core.ranks import sum_over_ranks
from lrl_core.types import Advantage, RewardSignal, Rollout
from lrl_plugins.baselines.group import GroupMean
from lrl_plugins.baselines.self_critical import SelfCritical
from lrl_plugins.baselines.whiten import Whiten


class ControlVariate(Baseline):
    """Compares with alpha * control + beta, where alpha = Cov(credit, control) / Var(control).

    The control is what another baseline would subtract: a rival's reward, a critic's value. Subtracting all of it is
    best only if it predicts the reward on the right scale; alpha and beta are the least-squares line instead. They are
    fitted on the other episodes of the step, on all ranks, and never on those they serve (cross-fitting), so the
    gradient stays exactly as unbiased as with the control itself. With no other episodes alpha is 1 and beta 0.

    Args:
        control: Whose comparison is the control; None: SelfCritical. Constant leaves beta alone. It must subtract, not
            divide, and must not look at the episode that it is compared with.
        leave_out: Which episodes do not take part in the fit: all of the same `prompt`, or only the `episode` itself,
            which is exact only if the control of one episode does not look at another one (not LeaveOneOut).
        weight: `equal`: each taught token counts alike. `score`: by the squared norm of its log-probability's gradient
            with respect to the logits, at the price of reading the policy once more; the fit then minimises the total
            variance of the gradient (Williams 1992; Greensmith et al. 2004): with Constant, E[R |S|^2] / E[|S|^2].
        prior: How many tokens the belief alpha = 1 is worth; >= 0. It holds the slope of small batches.
    """

    def __init__(
        self,
        control: Baseline | None = None,
        leave_out: Literal["prompt", "episode"] = "prompt",
        weight: Literal["equal", "score"] = "equal",
        prior: float = 1.0,
    ) -> None:
        super().__init__()
        if leave_out not in ("prompt", "episode") or weight not in ("equal", "score") or prior < 0:
            raise ValueError(
                f"ControlVariate: got leave_out {leave_out!r}, weight {weight!r} and prior {prior}; expected prompt or "
                "episode, equal or score, and a number >= 0. Correct the one that differs."
            )
        self.control = control or SelfCritical()
        _refuse_division(self.control)
        self.leave_out, self.weight, self.prior = leave_out, weight, prior

    def advantage(self, rollout: Rollout, reward: RewardSignal, sampler: Sampler) -> Advantage:
        plain = self.control.advantage(rollout, reward, sampler)
        taught = rollout.action_mask & reward.judged[:, None]
        credits = torch.where(taught, credit(rollout, reward), 0)
        # A critic says what it subtracts; of its own accord only with lam 1 is that credit - advantage.
        control = credits - plain.value if plain.values is None else plain.values
        weight = _squared_score(rollout, sampler.policy) if self.weight == "score" else torch.ones_like(credits)
        unit = rollout.prompts.group if self.leave_out == "prompt" else torch.arange(len(rollout), device=taught.device)
        alpha, beta = fit_without_own(control, credits, torch.where(taught, weight, 0), unit, self.prior)
        difference = credits - alpha[:, None] * control - beta[:, None]
        return Advantage(torch.where(taught, difference, 0), plain.target, plain.values)


def fit_without_own(
    control: Float[Tensor, "B T"],
    credits: Float[Tensor, "B T"],
    weight: Float[Tensor, "B T"],
    unit: Int[Tensor, " B"],
    prior: float = 0.0,
) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
    """Slope and intercept of credit on control for each row, from the rows of all ranks that are of another unit.

    A unit stays on one rank; its number may occur on another one for another unit.

    Args:
        control: What is known beforehand.
        credits: What is predicted.
        weight: How much each entry counts, >= 0.
        unit: Rows of the same unit take no part in each other's fit.
        prior: How many entries of the others' mean weight the belief (slope 1) is worth, on the scale of the credits.
    """
    c, r = control.double(), credits.double()
    entries = torch.stack([torch.ones_like(c), c, r, c * c, c * r, r * r], 2) * weight.double()[:, :, None]
    counts = (weight > 0).sum(1).double()
    rows = torch.cat([entries.sum(1), counts[:, None]], 1)
    index, units = group_index(unit)
    own = rows.new_zeros(units, rows.shape[1]).index_add(0, index, rows)
    others = (sum_over_ranks(own.sum(0)) - own)[index]
    alpha, beta = _line(others, prior)
    return alpha.to(credits.dtype), beta.to(credits.dtype)


def _line(sums: Float[Tensor, "B 7"], prior: float) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
    """The weighted least-squares line from sums of 1, c, r, cc, cr, rr and the number of entries."""
    known = sums[:, 6] > 0
    mass = torch.where(known, sums[:, 0], 1)
    c, r, cc, cr, rr = (sums[:, i] / mass for i in range(1, 6))
    belief = prior / sums[:, 6].clamp(min=1) * (rr - r * r).clamp(min=0)
    variance = (cc - c * c).clamp(min=0) + belief
    flat = variance <= 1e-12 * (cc + rr)  # nothing varies, up to rounding: the slope says nothing
    alpha = torch.where(known & ~flat, (cr - c * r + belief) / torch.where(flat, 1, variance), 1)
    return alpha, torch.where(known, r - alpha * c, 0)


def _squared_score(rollout: Rollout, policy: Policy) -> Float[Tensor, "B T"]:
    """|d log pi(y) / d logits|^2 = 1 - 2 pi(y) + sum of pi(v)^2 for each chosen token."""
    policy.eval()
    with torch.no_grad():
        collisions = policy(rollout).over_vocabulary(lambda logprobs: logprobs.exp().pow(2).sum(1))
    return torch.where(rollout.action_mask, 1 - 2 * rollout.logprobs.exp() + collisions, 0).clamp(min=0)


def _refuse_division(control: Baseline) -> None:
    for part in control.modules():
        if isinstance(part, Whiten) or (isinstance(part, GroupMean) and part.scale != "none"):
            raise ValueError(
                f"ControlVariate: the control {type(part).__name__} divides by a spread; expected a baseline that only "
                "subtracts, such as SelfCritical. Put ControlVariate inside Whiten, or set scale: none."
            )
