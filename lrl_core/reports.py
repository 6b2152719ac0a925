"""What a run says of itself: numbers of one experience for the log, and answers to held-out prompts."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric

from lrl_core.clock import Clock, peak_memory
from lrl_core.divergence import log_ratio_by_episode
from lrl_core.functional import by_group
from lrl_core.interfaces import Environment
from lrl_core.ranks import sum_over_ranks
from lrl_core.tokenizer import Tokenizer
from lrl_core.types import Experience, RewardSignal, Rollout


@dataclass(frozen=True)
class Answer:
    """One answer to one held-out prompt."""

    id: str
    """Which prompt."""
    text: str
    """What the policy said."""
    references: tuple[str, ...]
    """What people said; () where nobody did."""
    tokens: tuple[int, ...] = ()
    """The whole episode, an environment's words included."""
    chosen: tuple[bool, ...] = ()
    """Which of the tokens the policy chose."""
    paid: float | None = None
    """What the environment paid in all; None in a monologue."""
    turns: tuple[tuple[str, str], ...] = ()
    """In a conversation: who spoke ("policy" or "world") and what, in order; () in a monologue."""
    example: dict[str, Any] = field(default_factory=dict)
    """The prompt's row as loaded."""

    @classmethod
    def of(cls, rollout: Rollout, tokenizer: Tokenizer | None = None) -> list["Answer"]:
        """The answers of a rollout with texts.

        Args:
            rollout: The episodes.
            tokenizer: Tells the turns of conversations; None leaves them out.
        """
        prompts, paid = rollout.prompts, rollout.environment_reward
        answers = []
        for row, text in enumerate(rollout.texts or ("",) * len(rollout)):
            length = int(rollout.lengths[row])
            tokens = tuple(rollout.tokens[row, :length].tolist())
            chosen = tuple(rollout.action_mask[row, :length].tolist())
            answers.append(
                cls(
                    prompt_id(rollout, row),
                    text,
                    prompts.references[row] if prompts.references else (),
                    tokens,
                    chosen,
                    None if paid is None else float(paid[row].sum()),
                    () if paid is None or tokenizer is None else turns_of(tokens, chosen, tokenizer),
                    prompts.examples[row] if prompts.examples else {},
                )
            )
        return answers

    def row(self) -> dict[str, Any]:
        """What is written down of it, as JSON allows: id, text and references; of a conversation its turns too."""
        row: dict[str, Any] = {"id": self.id, "text": self.text, "references": self.references}
        turns = [{"who": who, "text": text} for who, text in self.turns]
        return row | ({} if self.paid is None else {"turns": turns, "paid": self.paid})


class EpisodeMetric(Metric):
    """A task's metric of whole episodes, where texts are not enough: who said what in a conversation."""

    @abstractmethod
    def update(self, answers: list[Answer]) -> None:
        """Add the answers that this rank gave."""


def turns_of(tokens: Sequence[int], chosen: Sequence[bool], tokenizer: Tokenizer) -> tuple[tuple[str, str], ...]:
    """Who spoke and what, in order.

    Args:
        tokens: An episode.
        chosen: Which of the tokens the policy chose.
        tokenizer: The task's.
    """
    spoken = groupby(zip(tokens, chosen, strict=True), key=lambda pair: pair[1])
    said = (("policy" if own else "world", tokenizer.decode([token for token, _ in pairs])) for own, pairs in spoken)
    return tuple((who, text) for who, text in said if text)


def texts_of(rollout: Rollout, tokenizer: Tokenizer, environment: Environment | None) -> tuple[str, ...]:
    """The episodes as text: what the policy said, or what an environment says that they amount to."""
    rows = zip(rollout.tokens.tolist(), rollout.action_mask.tolist(), rollout.lengths.tolist(), strict=True)
    lines = ((tokens[:length], chosen[:length]) for tokens, chosen, length in rows)
    if environment is None:
        return tuple(tokenizer.decode(tokens) for tokens, _ in lines)
    return tuple(tokenizer.decode(environment.speech(tokens, chosen)) for tokens, chosen in lines)


class Examination:
    """One validation or test: the answers, the task's metric of them, and the likelihood of what people said.

    Args:
        metric: The task's metric, empty.
        device: Where numbers are summed over ranks.
    """

    def __init__(self, metric: Metric, device: torch.device) -> None:
        self.metric = metric
        self.answers: list[Answer] = []
        self._likelihood = torch.zeros(2, dtype=torch.float64, device=device)  # log-probability and tokens

    def weigh(self, human: Rollout, logprobs: Float[Tensor, "B T"]) -> None:
        """Add up what the policy thinks of human answers."""
        self._likelihood += torch.stack([logprobs.double().sum(), human.action_mask.sum()])

    def scores(self) -> dict[str, Tensor]:
        """The metric's numbers, and `perplexity` per token of the human answers where there are any."""
        if isinstance(self.metric, EpisodeMetric):
            self.metric.update(self.answers)
        else:
            ids, texts, references = zip(*((a.id, a.text, a.references) for a in self.answers), strict=True)
            self.metric.update(list(ids), list(texts), list(references))
        scores = dict(self.metric.compute())
        total, tokens = sum_over_ranks(self._likelihood)
        return scores | ({"perplexity": (-total / tokens).exp().float()} if tokens > 0 else {})


def prompt_id(rollout: Rollout, row: int) -> str:
    """The name of a row's prompt: the example's `id`, else its group number."""
    examples = rollout.prompts.examples
    return str(
        examples[row].get("id", int(rollout.prompts.group[row])) if examples else int(rollout.prompts.group[row])
    )


def experience_metrics(experience: Experience) -> dict[str, Tensor]:
    """Reward, its parts, episode length and advantage of fresh episodes; nothing while only answers are learnt."""
    rollout, reward, advantage = experience.rollout, experience.reward, experience.advantage
    if rollout is None:
        return {}
    metrics = {
        "episode/length": rollout.lengths.float().mean(),
        "episode/terminated": rollout.terminated.float().mean(),
    }
    if rollout.reference_logprobs is not None:
        apart = log_ratio_by_episode(rollout.logprobs, rollout.reference_logprobs, rollout.action_mask)
        metrics["kl/reference"] = apart.mean()
    if reward is not None:
        metrics |= _reward_metrics(rollout, reward)
    if advantage is not None:
        taught = advantage.value[experience.learn_mask].float()
        metrics["advantage/zero"] = (advantage.value.abs().amax(1) == 0).float().mean()
        metrics["advantage/std"] = taught.std() if len(taught) > 1 else _NOTHING
    return metrics


_NOTHING = torch.tensor(torch.nan)


def _reward_metrics(rollout: Rollout, reward: RewardSignal) -> dict[str, Tensor]:
    judged = reward.judged
    # An episode that was forced to its end says nothing about the policy.
    known = reward.total[judged & rollout.action_mask.any(1)].float()
    metrics = {
        "reward/mean": known.mean() if len(known) else _NOTHING,
        "reward/std": known.std() if len(known) > 1 else _NOTHING,
        "reward/unjudged": (~judged).sum().float(),
        "groups/zero_variance": _equal_groups(rollout, reward),
    }
    return metrics | {f"reward/{name}": part.nanmean().float() for name, part in reward.parts.items()}


def pace(
    clock: Clock, collected: Sequence[Experience], played: Sequence[Tensor], device: torch.device
) -> dict[str, Tensor]:
    """Seconds of a step by phase, tokens per second (none where nothing was drawn) and the most memory in use so far.

    Args:
        clock: After the phase `step`.
        collected: What was drawn to learn from.
        played: Chosen tokens of each batch of episodes, those that only compare included.
        device: Whose memory.
    """
    numbers = {f"time/{name}": torch.tensor(seconds) for name, seconds in clock.seconds.items()}
    drawn = [experience.rollout.action_mask.sum() for experience in collected if experience.rollout is not None]
    if drawn:
        numbers["tokens_per_second"] = torch.stack(drawn).sum() / clock.seconds["step"]
        numbers["tokens_per_second/rollout"] = torch.stack(list(played)).sum() / clock.seconds["rollout"]
    if (peak := peak_memory(device)) is not None:
        numbers["memory/peak"] = torch.tensor(peak)
    return numbers


def _equal_groups(rollout: Rollout, reward: RewardSignal) -> Tensor:
    """Share of the prompts with several judged samples whose rewards are all equal: nothing to compare."""
    earned = by_group(reward.total, rollout.prompts.group, reward.judged & rollout.action_mask.any(1))
    equal = [len(set(totals)) == 1 for totals in earned.values() if len(totals) > 1]
    return torch.tensor(sum(equal) / len(equal) if equal else torch.nan)
