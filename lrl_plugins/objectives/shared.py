"""What several objectives ask of the other parts, log and add to their loss."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lrl_core.divergence import clamped_log_ratio
from lrl_core.functional import Aggregation, aggregate, masked_mean, squared_error
from lrl_core.interfaces import Policy, Sampler
from lrl_core.types import Advantage, Experience, PolicyOutput, Prompts, Rollout


def refuse_missing_length(aggregation: Aggregation, length: int | None) -> None:
    """Raise ValueError where the aggregation needs a constant length that is not given."""
    aggregate(torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.bool), aggregation, length)


def refuse_no_draws(objective: str, sampler: Sampler) -> None:
    """Raise ValueError where episodes are not drawn from the policy: a policy gradient on them would be biased."""
    if not sampler.decoder.draws:
        raise ValueError(
            f"{objective}: episodes of the decoder {type(sampler.decoder).__name__} are no draws from the policy, so "
            "their gradient would be biased. Expected a decoder that draws, such as Sample."
        )


def refuse_off_policy(objective: str, sampler: Sampler) -> None:
    """Raise ValueError where another policy plays the episodes, and the objective does not weigh them for that."""
    if not sampler.on_policy:
        raise ValueError(
            f"{objective}: model.reference has draws: true, so the episodes are not the policy's own and their "
            "gradient would be biased. Expected draws: false, or an objective that allows for it: PPO weighs by the "
            "importance ratio, AllActions asks a critic of every token."
        )


def refuse_one_sample(objective: str, sampler: Sampler) -> None:
    """Raise ValueError where a prompt has a single episode, so that there is nothing to compare within its group."""
    if sampler.decoder.samples < 2:
        raise ValueError(
            f"{objective}: the decoder {type(sampler.decoder).__name__} draws {sampler.decoder.samples} sample per "
            "prompt; expected at least 2, to compare them. Set decoder.init_args.samples to 2 or more."
        )


@torch.no_grad()
def refuse_no_values(objective: str, policy: Policy, prompts: Prompts) -> None:
    """Raise ValueError where the policy has no value head; it is asked by reading one token after each prompt."""
    one = torch.zeros(len(prompts), 1, dtype=torch.long, device=prompts.lengths.device)
    chosen, length = torch.ones_like(one, dtype=torch.bool), torch.ones_like(prompts.lengths)
    training = policy.training
    values = policy.eval()(Rollout(prompts, one, length, chosen, one.float(), chosen[:, 0])).values
    policy.train(training)
    if values is None:
        raise ValueError(
            f"{objective}: value_weight is above 0, but the policy {type(policy).__name__} has no value head. Expected "
            "a policy whose PolicyOutput.values are numbers; give it a value head, or set value_weight to 0 and let a "
            "baseline with a network of its own learn the values."
        )


def human_answers(objective: str, experience: Experience) -> Rollout:
    """The human answers as if rolled out; ValueError where the data has none."""
    if experience.expert is None:
        raise ValueError(
            f"{objective}: the prompts carry no human answers (Prompts.targets is None). Expected a task whose data "
            "has references; use one, or an objective that learns from rewards alone."
        )
    return experience.expert


def value_loss(
    objective: str, output: PolicyOutput, advantage: Advantage, clip: float | None = None
) -> Float[Tensor, "B T"]:
    """Half the squared error of the policy's value head, the larger of clipped and unclipped (Schulman 2017, PPO).

    Args:
        objective: Whose loss it is, for errors.
        output: What the policy says, values included.
        advantage: With the targets and, for clipping, the values of the time when the episodes were drawn.
        clip: How far from those values the prediction may move before it stops to count; None for no limit.
    """
    values, target, old = output.values, advantage.target, advantage.values
    if values is None or target is None:
        missing = "the policy gave no values" if values is None else "the baseline gave no targets for them"
        raise ValueError(
            f"{objective}: value_weight is above 0, but {missing}. Expected a policy with a value head and the "
            "baseline Value, which says what the head should have predicted; use both, or set value_weight to 0."
        )
    if clip is not None and old is None:
        raise ValueError(
            f"{objective}: value_clip is {clip}, but the baseline gave no values of the time when the episodes were "
            "drawn (Advantage.values). Expected the baseline Value; use it, or set value_clip to null."
        )
    return squared_error(values, target, old, clip)


def ratio_metrics(
    logprobs: Float[Tensor, "B T"], rollout: Rollout, mask: Bool[Tensor, "B T"]
) -> dict[str, Float[Tensor, ""]]:
    """Mean importance ratio and its largest distance from 1: on fresh episodes 1 and 0, unless something is wrong."""
    ratio = clamped_log_ratio(logprobs.detach(), rollout.logprobs).exp()
    error = torch.where(mask, (ratio - 1).abs(), 0)
    return {
        "ratio/first": masked_mean(ratio, mask),
        "ratio/first_error": error.max() if error.numel() else error.sum(),
    }
