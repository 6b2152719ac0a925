"""RAFT: the best of a prompt's samples is learnt as if a human had said it."""

from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from lrl_core.functional import Aggregation, aggregate, group_index, masked_mean
from lrl_core.interfaces import Objective, Sampler
from lrl_core.types import Experience, Loss, PolicyOutput, Rollout
from lrl_plugins.objectives.shared import refuse_missing_length, refuse_one_sample


class RAFT(Objective):
    """Cross-entropy on the episode with the highest reward among each prompt's samples (Dong 2023).

    Also known as rejection-sampling fine-tuning, expert iteration and best-of-n distillation. Episodes that tie share
    the weight of one. It reads rewards, not advantages, so name the baseline Constant.

    Args:
        aggregation: How token losses become one number: token-mean, seq-mean-token-mean, seq-mean-token-sum or
            seq-mean-token-sum-norm; a prompt counts as one episode.
        length: The constant of seq-mean-token-sum-norm, normally the decoder's max_length.
    """

    def __init__(self, aggregation: Aggregation = "token-mean", length: int | None = None) -> None:
        super().__init__()
        refuse_missing_length(aggregation, length)
        self.aggregation, self.length = aggregation, length

    def check(self, sampler: Sampler) -> None:
        refuse_one_sample("RAFT", sampler)

    def count(self, experience: Experience) -> Tensor:
        share, tokens = best_shares(experience), experience.learn_mask.sum(1)
        things = tokens if self.aggregation == "token-mean" else tokens > 0
        return (share * things).sum().float()

    def loss(self, policy: Callable[[Rollout], PolicyOutput], experience: Experience) -> Loss:
        rollout, reward, mask = experience.rollout, experience.reward, experience.learn_mask
        assert rollout is not None
        assert reward is not None
        share = best_shares(experience)
        read = share > 0  # the others teach nothing
        read[0] |= ~read.any()  # every rank and micro-batch has a backward pass
        rows = read.nonzero().squeeze(1)
        best = mask[rows]
        logprobs = policy(replace(rollout.select(rows), sampling=None)).logprobs
        metrics = {
            "cross_entropy": -masked_mean(logprobs.detach(), best),
            "reward/best": masked_mean(reward.total, share > 0),
            "ties": masked_mean((share < 1).float(), share > 0),
        }
        return Loss(aggregate(-logprobs * share[rows, None], best, self.aggregation, self.length), metrics)


def best_shares(experience: Experience) -> Float[Tensor, " B"]:
    """Weight of each episode: 1 / ties on those of highest reward in their group, 0 elsewhere and where unjudged."""
    rollout, reward = experience.rollout, experience.reward
    assert rollout is not None
    assert reward is not None
    index, groups = group_index(rollout.prompts.group)
    known = reward.total.masked_fill(~reward.judged, -torch.inf)
    highest = known.new_full((groups,), -torch.inf).scatter_reduce(0, index, known, "amax")
    best = (reward.judged & (known == highest[index])).to(known.dtype)
    ties = known.new_zeros(groups).index_add(0, index, best)
    return best / ties[index].clamp(min=1)
