"""Beam search: the best-scoring episode among those that a beam of prefixes reaches."""

from lrl_core.interfaces import Environment, Policy
from lrl_core.types import Prompts, Rollout
from lrl_plugins.decoders.beams import Normalisation, Ranking, play_beams
from lrl_plugins.decoders.limits import Constraints, LimitedDecoder
from lrl_plugins.decoders.sample import Greedy
from lrl_plugins.decoders.turn_beams import play_turns


class BeamSearch(LimitedDecoder):
    """Keeps the `width` best prefixes; a prefix that ends leaves the beam and competes by its normalised score.

    A prompt is done once its best finished score is no worse than the best that any live prefix could still reach
    (its summed log-probability over the largest penalty). At the length limit live prefixes compete as they are.

    Where an environment answers, each turn of the policy is a beam search of its own over what it says until it hands
    over; the best prefix that does is said, the answer stands, and the next turn begins (Strub 2017). |Y| is then the
    length of the turn. Each turn reads the conversation so far anew.

    Args:
        width: Prefixes kept per prompt, >= 1; 1 is greedy decoding.
        max_length: An episode is cut after this many tokens, EOS counted.
        length_alpha: Exponent of the length normalisation, >= 0; 0 compares plain sums, which favours short episodes.
        normalisation: `average` divides by |Y|^alpha, `gnmt` by ((5 + |Y|) / 6)^alpha; |Y| counts an opening too.
        min_length: No EOS before this many tokens, EOS counted.
        banned: Token ids never taken, besides those the tokenizer names (padding, begin, unknown).
        constraints: What every episode must keep: no repeated n-gram, an opening, an end; None for nothing.
    """

    def __init__(
        self,
        width: int = 5,
        max_length: int = 20,
        length_alpha: float = 1.0,
        normalisation: Normalisation = "average",
        min_length: int = 0,
        banned: tuple[int, ...] = (),
        constraints: Constraints | None = None,
    ) -> None:
        super().__init__(max_length, min_length, banned, many=width, constraints=constraints)
        if length_alpha < 0:
            raise ValueError(f"BeamSearch: length_alpha is {length_alpha}; expected >= 0 (0: no normalisation).")
        self.ranking = Ranking(width, length_alpha, normalisation)

    def greedy(self) -> Greedy:
        return Greedy.bound(self)

    def decode(self, policy: Policy, prompts: Prompts, environment: Environment | None = None) -> Rollout:
        if environment is not None:
            return play_turns(policy, prompts, self, self.ranking, environment)
        return play_beams(policy, prompts, self, self.ranking)[0].rollout(prompts, self)
