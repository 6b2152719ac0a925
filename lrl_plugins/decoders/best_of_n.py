"""Best of n: several episodes per prompt, of which a reward picks one."""

from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lrl_core.interfaces import Decoder, Environment, Policy, Reward, TaskFacts
from lrl_core.scoring import judge
from lrl_core.tokenizer import Tokenizer
from lrl_core.types import Prompts, Rollout
from lrl_plugins.decoders.sample import Sample


def pick_best(scores: Float[Tensor, "G n"]) -> Int[Tensor, " G"]:
    """The column of each row's largest entry, one at random among equals; NaN is picked only where all are NaN."""
    known = scores.nan_to_num(nan=-torch.inf)
    best = known == known.amax(1, keepdim=True)
    return torch.rand(scores.shape, device=scores.device).masked_fill(~best, -1.0).argmax(1)


class BestOfN(Decoder):
    """Draws n episodes per prompt and keeps the one with the highest reward.

    Among equals one is chosen at random, so that over many prompts they are split by their probability. An episode that
    the reward cannot judge (NaN) is kept only where it can judge none. The log-probabilities are those of the inner
    decoder: the kept episodes are not draws from that distribution (their KL divergence from it is at most
    log n - (n - 1) / n), so policy gradients may not learn from them. A reward that also trained the policy says little
    about how good the kept episodes are.

    Args:
        n: Episodes drawn per prompt, >= 1.
        decoder: Draws them, with one sample each; None: Sample with its defaults.
        reward: Who picks; None picks the most probable of the n.
    """

    tokenizer: Tokenizer

    def __init__(self, n: int = 4, decoder: Decoder | None = None, reward: Reward | None = None) -> None:
        super().__init__()
        self.decoder = decoder or Sample()
        if n < 1 or self.decoder.samples != 1:
            raise ValueError(
                f"BestOfN: got n = {n} and a decoder with {self.decoder.samples} samples per prompt; expected n >= 1 "
                "and one sample. Say how many episodes to draw by n."
            )
        self.n, self.reward = n, reward

    def bind(self, facts: TaskFacts) -> None:
        self.tokenizer = facts.tokenizer

    def greedy(self) -> Decoder:
        return self.decoder.greedy()

    @torch.no_grad()
    def decode(self, policy: Policy, prompts: Prompts, environment: Environment | None = None) -> Rollout:
        rows = torch.arange(len(prompts), device=prompts.lengths.device)
        drawn = self.decoder.decode(policy, prompts.select(rows.repeat_interleave(self.n)), environment)
        best = pick_best(self._scores(drawn).view(len(prompts), self.n))
        return drawn.select(rows * self.n + best).trimmed()

    def _scores(self, drawn: Rollout) -> Float[Tensor, " B"]:
        if self.reward is None:
            return drawn.logprobs.sum(1)
        lines = zip(drawn.tokens.tolist(), drawn.lengths.tolist(), strict=True)
        texts = tuple(self.tokenizer.decode(tokens[:length]) for tokens, length in lines)
        return judge(self.reward, replace(drawn, texts=texts)).total
