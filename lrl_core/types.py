"""The nouns: what crosses the seams between data, decoder, policy, reward, baseline and objective.

Letters: B episodes, S prompt tokens, T episode tokens, U target tokens, P = T + 1 prefixes, V vocabulary, D hidden
size, K independent means of a loss. Anything with a T axis is aligned with `Rollout.tokens`: entry [b, t] is about
tokens[b, t]. The prompt is no part of T.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lrl_core.masks import length_mask
from lrl_core.rows import Rows, joined
from lrl_core.sampling import Bans, Sampling
from lrl_core.vocab import Head, VocabularyScores, expected_value, over_vocabulary, score_vocabulary


def _cut(line: Tensor | None, width: int) -> Tensor | None:
    return None if line is None else line[:, :width]


@dataclass(frozen=True)
class Prompts(Rows):
    """What the policy is asked. Rows of one `group` are the same prompt (perhaps with different targets)."""

    tokens: Int[Tensor, "B S"]
    """Prompt tokens, padded on the right. S may be 0 (captioning: the picture is the prompt)."""
    lengths: Int[Tensor, " B"]
    """How many of the S tokens are real."""
    group: Int[Tensor, " B"]
    """Equal number = same prompt; unique in a data set, so that ranks and steps do not mix groups."""
    references: tuple[tuple[str, ...], ...] | None = None
    """The human answers of each row as text; None where there are none."""
    targets: Int[Tensor, "B U"] | None = None
    """One human answer of each row as tokens, EOS included, padded on the right; None where there are none."""
    target_lengths: Int[Tensor, " B"] | None = None
    """How many of the U tokens are real."""
    target_mask: Bool[Tensor, "B U"] | None = None
    """False on target tokens that stand in the line but are not learnt (an environment's words); None: all are."""
    features: dict[str, Tensor] = field(default_factory=dict)
    """What is not text, first axis B: pixels, regions, region_lengths, a hidden object."""
    examples: tuple[dict[str, Any], ...] = ()
    """The rows as loaded, for rewards that want a column; `id` names the prompt in logs."""

    def __len__(self) -> int:
        return self.lengths.shape[0]

    def distinct(self) -> tuple["Prompts", Int[Tensor, " B"]]:
        """One row per group in order of appearance, and for every row of this batch its index among them."""
        seen: dict[int, int] = {}
        inverse, first = [], []
        for row, group in enumerate(self.group.tolist()):
            if group not in seen:
                seen[group] = len(seen)
                first.append(row)
            inverse.append(seen[group])
        index = torch.tensor(inverse, device=self.group.device, dtype=torch.long)
        if len(seen) == len(self):
            return self, index
        return self.select(torch.tensor(first, device=self.group.device)), index


@dataclass(frozen=True)
class Rollout(Rows):
    """Episodes: one line of tokens each, with a mask that says which of them the policy chose."""

    prompts: Prompts
    """The prompt of each episode, row by row."""
    tokens: Int[Tensor, "B T"]
    """The episode, padded on the right; the end token that the policy chose is part of it."""
    lengths: Int[Tensor, " B"]
    """How many of the T tokens are real."""
    action_mask: Bool[Tensor, "B T"]
    """True where the policy chose the token; False on padding and on an environment's words."""
    logprobs: Float[Tensor, "B T"]
    """Log-probability of each chosen token under the distribution it was drawn from; 0 where action_mask is False."""
    terminated: Bool[Tensor, " B"]
    """True where the episode ended by itself, False where the length limit cut it."""
    sampling: Sampling | None = None
    """How the distribution was made; None for human answers, which nobody drew."""
    environment_reward: Float[Tensor, "B T"] | None = None
    """What the environment paid, on the token that earned it; None without an environment."""
    closed: Bool[Tensor, "B T"] | None = None
    """True where the environment's `closes` tokens could not be chosen; None where nothing is ever closed."""
    follows: Int[Tensor, "B T"] | None = None
    """Which earlier token of the line each token follows, -1 for the prompt; None: the one before it.

    A line can so be a tree: a token is read after the prompt and its ancestors alone, at the place that their number
    gives. Only policies with `branches` read one."""
    reference_logprobs: Float[Tensor, "B T"] | None = None
    """Log-probabilities of the tokens under a reference policy; None where no part asks for them."""
    texts: tuple[str, ...] | None = None
    """The episodes as text, special tokens left out; None until a tokenizer has decoded them."""

    def __len__(self) -> int:
        return self.lengths.shape[0]

    @classmethod
    def of_targets(cls, prompts: Prompts) -> "Rollout | None":
        """The human answers as if rolled out; None where the prompts carry none."""
        if prompts.targets is None or prompts.target_lengths is None:
            return None
        mask = length_mask(prompts.target_lengths, prompts.targets.shape[1])
        return cls(
            prompts=prompts,
            tokens=prompts.targets,
            lengths=prompts.target_lengths,
            action_mask=mask if prompts.target_mask is None else mask & prompts.target_mask,
            logprobs=torch.zeros(prompts.targets.shape, device=prompts.targets.device),
            terminated=torch.ones_like(prompts.target_lengths, dtype=torch.bool),
        )

    def trimmed(self) -> "Rollout":
        """The same rows without columns that are padding in all of them."""
        longest = int(self.lengths.max()) if len(self) else 0
        if longest == self.tokens.shape[1]:
            return self
        return replace(
            self,
            tokens=self.tokens[:, :longest],
            action_mask=self.action_mask[:, :longest],
            logprobs=self.logprobs[:, :longest],
            environment_reward=_cut(self.environment_reward, longest),
            closed=_cut(self.closed, longest),
            follows=_cut(self.follows, longest),
            reference_logprobs=_cut(self.reference_logprobs, longest),
        )


@dataclass(frozen=True)
class RewardSignal(Rows):
    """What a reward says of each episode."""

    total: Float[Tensor, " B"]
    """The reward; NaN = cannot judge (such an episode teaches nothing and is counted)."""
    by_token: Float[Tensor, "B T"] | None = None
    """Increments that add up to total; None where only the whole episode is judged."""
    by_prefix: Float[Tensor, "B P"] | None = None
    """Worth of stopping after 0..T tokens; None where prefixes are not judged."""
    parts: dict[str, Float[Tensor, " B"]] = field(default_factory=dict)
    """Named, unweighted components, for the logs."""

    @property
    def judged(self) -> Bool[Tensor, " B"]:
        """True where the reward could judge."""
        return ~self.total.isnan()

    def cut(self, steps: int) -> "RewardSignal":
        """The same without columns from `steps` tokens on."""
        return replace(self, by_token=_cut(self.by_token, steps), by_prefix=_cut(self.by_prefix, steps + 1))


@dataclass(frozen=True)
class ActionValues(Rows):
    """One number for every action before each token, as hidden states and an output matrix: never laid out whole."""

    hidden: Float[Tensor, "B T D"]
    """A critic's state before each token."""
    head: Head
    """Its output matrix; the same for all rows."""

    def _map(
        self, on_tensor: Callable[[Tensor], Tensor], on_tuple: Callable[[tuple], tuple]
    ) -> "ActionValues":  # the matrix has no rows of the batch
        moved = on_tensor(self.hidden)
        bias = self.head.bias
        head = Head(self.head.weight.to(moved.device), None if bias is None else bias.to(moved.device))
        return ActionValues(moved, head)

    @classmethod
    def cat(cls, parts: Sequence["ActionValues"]) -> "ActionValues":
        """The rows of all parts, which one critic gave in the same step."""
        return cls(joined("hidden", [part.hidden for part in parts]), parts[0].head)


@dataclass(frozen=True)
class Advantage(Rows):
    """How much better than expected each token was."""

    value: Float[Tensor, "B T"]
    """Weight of each token's log-probability gradient; finite, 0 off the action mask and on unjudged rows."""
    target: Float[Tensor, "B T"] | None = None
    """What a critic should have predicted before each token; None without a critic."""
    values: Float[Tensor, "B T"] | None = None
    """What the critic did predict when the episodes were collected; None without a critic."""
    actions: ActionValues | None = None
    """What a critic of actions thinks each token of the vocabulary would be worth; None without one."""

    def cut(self, steps: int) -> "Advantage":
        """The same without columns from `steps` on."""
        actions = self.actions and replace(self.actions, hidden=self.actions.hidden[:, :steps])
        return Advantage(self.value[:, :steps], _cut(self.target, steps), _cut(self.values, steps), actions)


@dataclass(frozen=True)
class Experience:
    """Everything one update learns from."""

    rollout: Rollout | None = None
    """Episodes drawn from the policy; None while only human answers are learnt."""
    reward: RewardSignal | None = None
    """Their rewards; None without episodes, and where the recipe names no reward."""
    advantage: Advantage | None = None
    """Their advantages; None without episodes, and where the recipe names no baseline."""
    expert: Rollout | None = None
    """The human answers as if rolled out, with rows of their own; None where the prompts carry none."""

    @property
    def learn_mask(self) -> Bool[Tensor, "B T"]:
        """Tokens that teach: chosen by the policy, in an episode that the reward could judge."""
        assert self.rollout is not None
        mask = self.rollout.action_mask
        return mask if self.reward is None else mask & self.reward.judged[:, None]

    @classmethod
    def cat(cls, parts: Sequence["Experience"]) -> "Experience":
        """The rows of all parts, in order. A single part comes back as it is."""
        if len(parts) == 1:
            return parts[0]
        return cls(**{f.name: joined(f.name, [getattr(part, f.name) for part in parts]) for f in fields(cls)})

    def split(self, token_budget: int | None) -> list["Experience"]:
        """Micro-batches of at most `token_budget` padded tokens (None: one), never cutting a prompt's group apart.

        Groups of like lengths stand together, so that little is padded. A single group larger than the budget makes a
        micro-batch of its own.
        """
        if token_budget is None:
            return [self]
        sources = [source for source in (self.rollout, self.expert) if source is not None]
        longest: dict[int, int] = {}
        rows: dict[int, int] = {}
        for source in sources:
            for group, length in zip(source.prompts.group.tolist(), source.lengths.tolist(), strict=True):
                longest[group] = max(longest.get(group, 0), length + source.prompts.tokens.shape[1])
                rows[group] = rows.get(group, 0) + 1
        bins: list[list[int]] = []
        width = height = 0
        for group in sorted(longest, key=longest.__getitem__):
            width, height = max(width, longest[group]), height + rows[group]
            if not bins or width * height > token_budget:
                bins.append([])
                width, height = longest[group], rows[group]
            bins[-1].append(group)
        return [self.of_groups(set(groups)) for groups in bins]

    def of_groups(self, groups: set[int]) -> "Experience":
        """The rows of the prompts with these group numbers."""

        def rows_of(source: Rollout) -> Tensor:
            listed = [i for i, group in enumerate(source.prompts.group.tolist()) if group in groups]
            return torch.tensor(listed, device=source.tokens.device, dtype=torch.long)

        part = Experience(expert=None if self.expert is None else self.expert.select(rows_of(self.expert)).trimmed())
        if self.rollout is None:
            return part
        rows = rows_of(self.rollout)
        rollout = self.rollout.select(rows).trimmed()
        steps = rollout.tokens.shape[1]
        reward = None if self.reward is None else self.reward.select(rows).cut(steps)
        advantage = None if self.advantage is None else self.advantage.select(rows).cut(steps)
        return replace(part, rollout=rollout, reward=reward, advantage=advantage)


class PolicyOutput:
    """What a policy says of a rollout's tokens: computed when first read, in chunks, with gradients.

    Args:
        rollout: The episodes that were read.
        hidden: The state before each token, aligned with rollout.tokens.
        head: The policy's output matrix.
        eos: End token, for log_stop; None where the policy has none.
        values: A value head's estimate before each token; None without one.
    """

    def __init__(
        self,
        rollout: Rollout,
        hidden: Float[Tensor, "B T D"],
        head: Head,
        eos: int | None = None,
        values: Float[Tensor, "B T"] | None = None,
    ) -> None:
        self.rollout = rollout
        self.head = head
        self.eos = eos
        self.values = values
        places = rollout.action_mask.flatten().nonzero().squeeze(1)
        steps = max(1, rollout.tokens.shape[1])
        self._at = (places // steps, places % steps)
        self._hidden = hidden.flatten(0, 1).index_select(0, places)

    @property
    def sampling(self) -> Sampling:
        """How the rollout's distribution was made; the plain softmax for human answers."""
        return self.rollout.sampling or Sampling()

    @property
    def logprobs(self) -> Float[Tensor, "B T"]:
        """Log-probability of each chosen token under the rollout's own sampling; 0 off the action mask."""
        everything = torch.is_grad_enabled() or "_scores" in vars(self)
        return self._spread((self._scores if everything else self._without_entropy).logprobs)

    @property
    def entropy(self) -> Float[Tensor, "B T"]:
        """Entropy in nats, after bans and temperature, before truncation; 0 off the action mask."""
        return self._spread(self._scores.entropy)

    @property
    def log_stop(self) -> Float[Tensor, "B T"]:
        """Log-probability of EOS in place of each chosen token; 0 off the action mask."""
        return self._spread(self._scores.log_stop)

    @property
    def log_z(self) -> Float[Tensor, "B T"]:
        """Log-normaliser (logsumexp of the scaled logits) before each chosen token; 0 off the action mask."""
        return self._spread(self._scores.log_z)

    def logprobs_of(self, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        """Log-probability of other tokens in the places of the chosen ones; 0 off the action mask."""
        return self._spread(self._score(tokens[self._at]).logprobs)

    @property
    def states(self) -> Float[Tensor, "B T D"]:
        """The hidden state before each chosen token, with gradients; 0 off the action mask."""
        empty = self._hidden.new_zeros(*self.rollout.tokens.shape, self._hidden.shape[1])
        return empty.index_put(self._at, self._hidden)

    def estimate(self, head: Callable[[Float[Tensor, "N D"]], Float[Tensor, " N"]]) -> Float[Tensor, "B T"]:
        """One number per chosen token from the hidden state before it; 0 off the action mask."""
        return self._spread(head(self._hidden))

    def over_vocabulary(self, fn: Callable[[Float[Tensor, "n V"]], Float[Tensor, " n"]]) -> Float[Tensor, "B T"]:
        """One number per chosen token from all its log-probabilities; `fn` sees them in chunks [n V]."""
        return self._spread(over_vocabulary(fn, self._hidden, self.head, self._at[1], self.sampling, self._bans))

    def expected(self, actions: ActionValues) -> Float[Tensor, "B T"]:
        """The mean of each place's action values under the policy's own distribution there; 0 off the action mask.

        The distribution is the one after bans and temperature, before truncation. Gradients reach the policy alone.
        """
        values = actions.hidden.flatten(0, 1).index_select(0, self._at[0] * self.rollout.tokens.shape[1] + self._at[1])
        means = expected_value(self._hidden, self.head, values, actions.head, self._at[1], self.sampling, self._bans)
        return self._spread(means)

    @cached_property
    def _scores(self) -> VocabularyScores:
        return self._score(self.rollout.tokens[self._at])

    @cached_property
    def _without_entropy(self) -> VocabularyScores:
        """For readers that ask for log-probabilities alone: a reference, an evaluation."""
        return self._score(self.rollout.tokens[self._at], entropy=False)

    def _score(self, tokens: Int[Tensor, " N"], entropy: bool = True) -> VocabularyScores:
        asked = tokens, self._at[1], self.sampling, self.eos, self._bans
        return score_vocabulary(self._hidden, self.head, *asked, entropy=entropy)

    @cached_property
    def _bans(self) -> Bans | None:
        return self.sampling.bans(self.rollout.tokens, self._at, self.rollout.closed)

    def _spread(self, values: Float[Tensor, " N"]) -> Float[Tensor, "B T"]:
        empty = values.new_zeros(self.rollout.tokens.shape)
        return empty.index_put(self._at, values)


@dataclass(frozen=True)
class Loss:
    """A sum over things; the update divides by how many things there are over all micro-batches and ranks.

    The division happens in one place (`PolicyGradient.update`), with the number that `count` of the objective gives,
    so that neither the micro-batch size nor the number of ranks changes the update.
    """

    total: Float[Tensor, "*K"]
    """The sum (a scalar, or K sums with a count of their own each), with gradients; weighting factors are in it."""
    metrics: dict[str, Tensor] = field(default_factory=dict)
    """Numbers for the log, detached scalars."""


@dataclass(frozen=True)
class Reply:
    """What an environment answers to one turn."""

    tokens: Sequence[int] = ()
    """Words of the world that now stand in the line; () for silence."""
    reward: float = 0.0
    """Paid on the last token that the policy said."""
    done: bool = False
    """Whether the conversation is over."""
