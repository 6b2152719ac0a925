"""Self-critical training: compared with what the policy says when it does not explore."""

from lrl_core.functional import compared_with
from lrl_core.interfaces import Baseline, Decoder, Reward, Sampler, components
from lrl_core.types import Advantage, RewardSignal, Rollout


class SelfCritical(Baseline):
    """Compares with the reward of the policy's own greedy answer to the same prompt (Rennie 2017, eq. 8).

    The rival is decoded afresh each step, once per prompt, without dropout. It may be any decoder: BeamSearch for a
    stronger rival, or Sample with several samples, whose mean reward is then compared with. It is drawn apart from the
    samples, so the gradient stays unbiased whoever it is.

    Args:
        decoder: Who plays the rival; None: the training decoder's limits, played greedily.
    """

    def __init__(self, decoder: Decoder | None = None) -> None:
        super().__init__()
        self.decoder = decoder

    def check(self, sampler: Sampler) -> None:
        rewards = components(sampler.reward) if sampler.reward else []
        unlike = [type(part).__name__ for part in rewards if isinstance(part, Reward) and not part.comparable]
        if unlike:
            raise ValueError(
                f"SelfCritical: samples and their rival are scored apart, and the reward {unlike[0]} normalises each "
                "batch in its own way, so they could not be compared. Give weights instead of normalisers, or use "
                "another baseline, such as LeaveOneOut."
            )
        if self.decoder is None and sampler.decoder is not None:
            sampler.decoder.greedy()  # raises where the training decoder has no greedy version

    def advantage(self, rollout: Rollout, reward: RewardSignal, sampler: Sampler) -> Advantage:
        distinct, index = rollout.prompts.distinct()
        _, rival = sampler.roll_out(distinct, self.decoder or sampler.decoder.greedy())
        by_prompt = rival.total.view(len(distinct), -1)  # a rival's episodes of one prompt stand together
        return compared_with(by_prompt.nanmean(1)[index], rollout, reward)
