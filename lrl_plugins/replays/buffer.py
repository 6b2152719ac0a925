"""Episodes of earlier steps, kept per prompt and shown again."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import partial
from typing import Any, Literal

import torch

from lrl_core.interfaces import Collect, Replay, Sampler, TaskFacts
from lrl_core.ranks import of_each_rank
from lrl_core.reports import texts_of
from lrl_core.sampling import Sampling
from lrl_core.scoring import judge
from lrl_core.types import Experience, Prompts, RewardSignal, Rollout
from lrl_plugins.replays.buffer_store import Memory, Named, items_of, possible, reward_of, rollout_of


class Buffer(Replay):
    """Shows stored episodes of the step's prompts again with some chance, else draws new ones and stores them.

    For objectives that learn from anybody's episodes: SubTB (Hu et al. 2024) and SequenceMatch (Cundy & Ermon 2023).
    Rewards are stored as they were given, so a temperature that changes in the objective applies to old episodes too.
    A step shows stored episodes only if every prompt of it has some; with several processes all of them show or all
    draw, and each keeps the same buffer. The buffer is part of the checkpoint.

    Args:
        share: Chance that a step shows stored episodes, in [0, 1].
        size: Episodes kept per prompt: those of the highest reward, or the newest where the recipe names no reward.
        samples: Stored episodes shown per prompt, none twice if there are enough; None: as many as the decoder draws.
        priority: `reward` shows an episode with a chance proportional to exp(reward / temperature), the reward being a
            log-reward; `uniform` shows all alike, as happens anyhow without rewards.
        temperature: That of `reward`, > 0.
        distance: Of two episodes of a prompt whose edit distance in tokens is below this share of their summed lengths
            only the one with the higher reward is kept; in [0, 1). 0, or no reward, drops exact copies alone.
        answers: Store the human answers too, judged by the reward, when their prompt is first seen.
    """

    def __init__(
        self,
        share: float = 0.5,
        size: int = 50,
        samples: int | None = None,
        priority: Literal["reward", "uniform"] = "reward",
        temperature: float = 1.0,
        distance: float = 0.25,
        answers: bool = False,
    ) -> None:
        super().__init__()
        expected = {
            "share": (share, "in [0, 1]", 0 <= share <= 1),
            "size": (size, ">= 1", size >= 1),
            "samples": (samples, ">= 1, or null", samples is None or samples >= 1),
            "priority": (priority, "one of reward, uniform", priority in ("reward", "uniform")),
            "temperature": (temperature, "> 0", temperature > 0),
            "distance": (distance, "in [0, 1)", 0 <= distance < 1),
        }
        for name, (got, interval, holds) in expected.items():
            if not holds:
                raise ValueError(f"Buffer: {name} is {got!r}; expected a value {interval}. Correct it.")
        self.share, self.samples_shown, self.answers = share, samples, answers
        self.chance = temperature if priority == "reward" else None
        self.memory = Memory(size, distance)
        self.pad, self.drawn = 0, 1
        self.sampling: Sampling | None = None  # of the newest episodes, untempered
        self.seeded: set[int] = set()  # prompts whose human answers have been stored
        # Partials, not modules: reward and environment have their places in the recipe already.
        self.texts: Callable[[Rollout], tuple[str, ...]] | None = None
        self.judge: Callable[[Rollout], RewardSignal] | None = None

    def bind(self, facts: TaskFacts) -> None:
        if facts.environment is not None and facts.environment.closes:
            raise ValueError(
                f"Buffer: the environment {type(facts.environment).__name__} forbids tokens at times, which a stored "
                "episode does not tell; expected an environment that forbids none. Use the replay Fresh."
            )
        self.pad, self.memory.eos = facts.tokenizer.pad, facts.tokenizer.eos
        self.texts = partial(texts_of, tokenizer=facts.tokenizer, environment=facts.environment)

    def check(self, sampler: Sampler) -> None:
        if sampler.objective.compares:
            raise ValueError(
                f"Buffer: the objective {type(sampler.objective).__name__} compares episodes that the policy has just "
                "drawn (it needs advantages); expected one that learns from anybody's episodes, such as SubTB or "
                "SequenceMatch. Use one of them, or the replay Fresh or Epochs."
            )
        if self.chance is not None and sampler.reward is not None and not sampler.reward.comparable:
            raise ValueError(
                f"Buffer: rewards of {type(sampler.reward).__name__} cannot be compared between steps, and priority is "
                "reward; expected a reward that is not normalised. Leave the normalisation out, or set priority: "
                "uniform."
            )
        self.drawn = sampler.decoder.samples
        self.judge = None if sampler.reward is None else partial(judge, sampler.reward)
        sampling = sampler.decoder.sampling
        self.sampling = None if sampling is None else _untempered(sampling)

    def batches(self, collect: Collect, expert: Callable[[], Experience]) -> Iterator[Experience]:
        prompts = collect.prompts.distinct()[0]
        groups = prompts.group.tolist()
        coin = float(torch.rand(()))
        told = of_each_rank((coin, groups, self._new_answers(groups, expert)))
        for _, asked, answers in told:
            self._store(answers)
            if self.answers and self.sampling is not None:
                self.seeded.update(asked)
        stocked = all(self.memory.prompts.get(group) for _, asked, _ in told for group in asked)
        if self.sampling is not None and stocked and told[0][0] < self.share:
            yield self._again(prompts, expert())
            return
        fresh = collect()
        assert fresh.rollout is not None
        assert fresh.rollout.sampling is not None
        self.sampling = _untempered(fresh.rollout.sampling)
        for drawn in of_each_rank(items_of(fresh.rollout, fresh.reward)):
            self._store(drawn)
        yield fresh

    def _store(self, named: list[Named]) -> None:
        for group, item in named:
            self.memory.add(group, item)

    def _again(self, prompts: Prompts, human: Experience) -> Experience:
        """Stored episodes of these prompts."""
        assert self.sampling is not None
        count = self.samples_shown or self.drawn
        items = [item for group in prompts.group.tolist() for item in self.memory.draw(group, count, self.chance)]
        rows = torch.arange(len(prompts), device=prompts.lengths.device).repeat_interleave(count)
        rollout = rollout_of(items, prompts.select(rows), self.sampling, self.pad)
        return replace(human, rollout=rollout, reward=reward_of(items, rollout.tokens.device))

    @torch.no_grad()
    def _new_answers(self, groups: list[int], expert: Callable[[], Experience]) -> list[Named]:
        """The human answers of prompts that are seen for the first time, as far as the decoder could draw them."""
        new = set(groups) - self.seeded
        if not self.answers or self.sampling is None or not new:
            return []
        human = expert().of_groups(new).expert
        if human is None or self.texts is None:
            raise ValueError(
                "Buffer: got answers: true, but the prompts carry no human answers (Prompts.targets is None); expected "
                "a task whose data has references. Use one, or set answers: false."
            )
        human = human.select(possible(human, self.sampling).nonzero().squeeze(1)).trimmed()
        if not len(human):
            return []
        human = replace(human, texts=self.texts(human))
        return items_of(human, None if self.judge is None else self.judge(human))

    def get_extra_state(self) -> dict[str, Any]:
        """The episodes, how they are read, and whose answers are among them; all of it plain values and tensors."""
        return {
            "memory": self.memory.state(),
            "sampling": None if self.sampling is None else asdict(self.sampling),
            "seeded": sorted(self.seeded),
        }

    def set_extra_state(self, state: Any) -> None:
        """Take a buffer over, whatever its size."""
        self.memory.load(state["memory"])
        self.sampling = None if state["sampling"] is None else Sampling(**state["sampling"])
        self.seeded = set(state["seeded"])


def _untempered(sampling: Sampling) -> Sampling:
    """The same bans and limit, without temperature and truncation."""
    return replace(sampling, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0)
