"""Diverse beam search: several small beams per prompt that avoid each other's words."""

import torch

from lrl_core.interfaces import Environment, Policy
from lrl_core.types import Prompts, Rollout
from lrl_plugins.decoders.beams import Normalisation, Ranking, play_beams
from lrl_plugins.decoders.limits import Constraints, LimitedDecoder, refuse_environment
from lrl_plugins.decoders.sample import Greedy


class DiverseBeam(LimitedDecoder):
    """Grows `groups` beams one after the other at each step; a token costs what earlier beams took of it just then.

    A beam ranks its candidates by log-probability - strength x (how many candidates of earlier beams of the prompt took
    the same token at this place) (Vijayakumar 2018, eq. 4, Hamming diversity). The handicap counts when candidates
    are chosen and does not stay in a prefix' score: the best episode of a beam is that of the best normalised
    log-probability. With one group it is BeamSearch.

    Args:
        groups: Beams per prompt, >= 1.
        width: Prefixes kept in each of them, >= 1.
        strength: Nats that a token loses each time an earlier beam took it at this place; >= 0; 0: all beams are equal.
        every_group: Return the best episode of every beam, so that there are `groups` episodes per prompt; else the
            best of all beams.
        max_length: An episode is cut after this many tokens, EOS counted.
        length_alpha: Exponent of the length normalisation, >= 0; 0 compares plain sums, which favours short episodes.
        normalisation: `average` divides by |Y|^alpha, `gnmt` by ((5 + |Y|) / 6)^alpha; |Y| counts an opening too.
        min_length: No EOS before this many tokens, EOS counted.
        banned: Token ids never taken, besides those the tokenizer names (padding, begin, unknown).
        constraints: What every episode must keep: no repeated n-gram, an opening, an end; None for nothing.
    """

    def __init__(
        self,
        groups: int = 3,
        width: int = 2,
        strength: float = 0.5,
        every_group: bool = False,
        max_length: int = 20,
        length_alpha: float = 1.0,
        normalisation: Normalisation = "average",
        min_length: int = 0,
        banned: tuple[int, ...] = (),
        constraints: Constraints | None = None,
    ) -> None:
        super().__init__(max_length, min_length, banned, many=min(groups, width), constraints=constraints)
        if length_alpha < 0 or strength < 0:
            raise ValueError(
                f"DiverseBeam: got length_alpha {length_alpha} and strength {strength}; expected both >= 0."
            )
        self.groups, self.strength, self.every_group = groups, strength, every_group
        self.samples = groups if every_group else 1
        self.ranking = Ranking(width, length_alpha, normalisation)

    def greedy(self) -> Greedy:
        return Greedy.bound(self)

    def decode(self, policy: Policy, prompts: Prompts, environment: Environment | None = None) -> Rollout:
        refuse_environment(self, environment)
        beams = play_beams(policy, prompts, self, self.ranking, self.groups, self.strength)
        rollouts = Rollout.cat([beam.rollout(prompts, self) for beam in beams])
        rows = torch.arange(len(prompts), device=prompts.lengths.device)
        if self.every_group:
            offsets = torch.arange(self.groups, device=rows.device) * len(prompts)
            return rollouts.select((rows[:, None] + offsets).flatten())
        best = torch.stack([beam.best_score for beam in beams]).argmax(0)
        return rollouts.select(best * len(prompts) + rows).trimmed()
