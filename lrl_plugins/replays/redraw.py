"""Fresh episodes, drawn again where all samples of a prompt earned the same."""

from collections.abc import Callable, Iterator

import torch

from lrl_core.functional import by_group
from lrl_core.interfaces import Collect, Replay, Sampler
from lrl_core.ranks import sum_over_ranks
from lrl_core.types import Experience


class Redraw(Replay):
    """Draws new episodes each step, and once more for the prompts whose samples all earned the same.

    Samples of equal reward have no advantage over each other, so their prompt teaches nothing: dynamic sampling (Yu et
    al. 2025, DAPO, eq. 11) asks again. Here the number of prompts stays that of the step instead of being filled up
    from new data, so the rounds are bounded. Prompts that are nearly always right or wrong weigh more than in plain
    sampling: what is kept was chosen by its outcome.

    Args:
        rounds: How many times at most such prompts are drawn again.
        drop: Leave prompts out (their human answers too) that stay equal after that, so that they count in no mean.
            One prompt of a step always stays.
    """

    def __init__(self, rounds: int = 2, drop: bool = False) -> None:
        super().__init__()
        if rounds < 0:
            raise ValueError(f"Redraw: rounds is {rounds}; expected a number >= 0. Give 0 to draw nothing again.")
        self.rounds, self.drop = rounds, drop

    def check(self, sampler: Sampler) -> None:
        if sampler.decoder.samples < 2:
            raise ValueError(
                f"Redraw: the decoder {type(sampler.decoder).__name__} draws {sampler.decoder.samples} sample per "
                "prompt; expected at least 2, to compare their rewards. Set decoder.init_args.samples to 2 or more."
            )

    def batches(self, collect: Collect, expert: Callable[[], Experience]) -> Iterator[Experience]:
        experience = collect()
        for _ in range(self.rounds):
            equal = equal_groups(experience)
            assert experience.reward is not None
            anywhere = sum_over_ranks(torch.tensor(len(equal), device=experience.reward.total.device))
            if not anywhere:
                break
            experience = _redrawn(experience, equal, collect)
        yield _dropped(experience) if self.drop else experience


def equal_groups(experience: Experience) -> set[int]:
    """The prompts with fewer than two different rewards among their judged samples: nothing to compare."""
    return {group for group, totals in _earned(experience).items() if len(set(totals)) < 2}


def _earned(experience: Experience) -> dict[int, list[float]]:
    """The judged rewards of each prompt, in order of appearance."""
    assert experience.rollout is not None
    assert experience.reward is not None
    return by_group(experience.reward.total, experience.rollout.prompts.group, experience.reward.judged)


def _redrawn(experience: Experience, equal: set[int], collect: Collect) -> Experience:
    """The experience with new episodes for these prompts; a rank that needs none collects all the same.

    Baselines and rewards may add up over ranks, so every rank must collect equally often.
    """
    groups = list(_earned(experience))
    fresh = collect(equal or {groups[0]})
    if not equal:
        return experience
    kept = set(groups) - equal
    return Experience.cat([experience.of_groups(kept), fresh]) if kept else fresh


def _dropped(experience: Experience) -> Experience:
    """The prompts that teach something, or the first one: the update needs an episode on every rank."""
    groups, equal = list(_earned(experience)), equal_groups(experience)
    return experience.of_groups(set(groups) - equal or {groups[0]}) if equal else experience
