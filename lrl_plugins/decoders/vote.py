"""A label by vote: rationales are drawn, a language model reads each label behind each of them, the likeliest wins."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lrl_core.interfaces import Decoder, Environment, Policy, Sampler, TaskFacts
from lrl_core.reference import Reference
from lrl_core.sampling import Sampling
from lrl_core.tokenizer import Tokenizer
from lrl_core.types import PolicyOutput, Prompts, Rollout
from lrl_plugins.decoders.modes import only, with_own_logprobs
from lrl_plugins.decoders.sample import Sample

Read = Callable[[Policy, Rollout], Float[Tensor, "B T"]]
"""Log-probabilities of a rollout's tokens, given the policy that drew the rationales."""


class Vote(Decoder):
    """Says the label that is likeliest behind rationales drawn from the policy (Hu et al. 2024, arXiv 2310.04363).

    With X the prompt, Z a rationale and Y a label, p(Y | X) is the sum over Z of p(Z | X) p(Y | X Z); the mean over
    `samples` rationales Z drawn from the policy estimates it. The answer is the label with the largest mean, so that
    accuracy is a metric of texts. What is returned is no draw: policy gradients may not learn from it. Its
    log-probabilities are those of the policy for the label as an answer.

    Args:
        labels: The labels as text, at least two.
        decoder: Draws the rationales, one per prompt and call; None: Sample with its defaults.
        samples: Rationales per prompt, >= 1.
        after: Wording behind a rationale; `{label}` stands for the label. All of it counts as p(Y | X Z).
        reader: Whose p(Y | X Z): `reference` = the recipe's reference policy; without one, the policy with its adapter
            off, or as it is where it has none. `reward` = the one policy inside the recipe's reward, which may have
            learnt (the M step of expectation-maximisation). `policy` = the policy as it is.
    """

    tokenizer: Tokenizer
    tails: list[list[int]]

    def __init__(
        self,
        labels: Sequence[str],
        decoder: Decoder | None = None,
        samples: int = 10,
        after: str = "so {label}",
        reader: Literal["reference", "reward", "policy"] = "reference",
    ) -> None:
        super().__init__()
        self.decoder = decoder if decoder is not None else Sample()
        if len(set(labels)) < max(2, len(labels)) or samples < 1 or self.decoder.samples != 1:
            raise ValueError(
                f"Vote: got the labels {list(labels)}, samples {samples} and a decoder with {self.decoder.samples} "
                "samples per prompt; expected at least two different labels, samples >= 1 and a decoder with one. Say "
                "how many rationales to draw by `samples` of Vote."
            )
        if "{label}" not in after:
            raise ValueError(f"Vote: got after {after!r}, expected a text with {{label}} in it. Correct the recipe.")
        self.labels, self.rationales, self.after, self.reader = tuple(labels), samples, after, reader
        self._read: Read = _adapter_off if reader == "reference" else _as_it_is

    def bind(self, facts: TaskFacts) -> None:
        self.tokenizer = facts.tokenizer
        self.tails = [facts.tokenizer.encode(self.after.format(label=label)) for label in self.labels]
        unknown = [label for label, tail in zip(self.labels, self.tails, strict=True) if self.tails.count(tail) > 1]
        if unknown or not all(self.tails):
            raise ValueError(
                f"Vote: got the labels {list(self.labels)}, which the tokenizer writes as {self.tails}; expected "
                "different tokens for each. Use words that it knows."
            )

    def check(self, sampler: Sampler) -> None:
        """Take the model that reads the labels from the recipe."""
        if self.reader == "reference" and isinstance(sampler.reference, Reference):
            self._read = partial(_by_lines, sampler.reference.lines)
        if self.reader == "reward":
            modules = [] if sampler.reward is None else sampler.reward.modules()
            models = [module for module in modules if isinstance(module, Policy)]
            outermost = [model for model in models if not any(model in set(other.children()) for other in models)]
            if len(outermost) != 1:
                raise ValueError(
                    f"Vote: got reader reward, and {len(outermost)} policies inside the recipe's reward; expected one. "
                    "Give the reward a model of its own (LMPosterior: model), or set reader: reference."
                )
            self._read = partial(_of_another, partial(outermost[0]), partial(only, outermost[0], []))

    def greedy(self) -> Decoder:
        return self.decoder.greedy()

    @torch.no_grad()
    def decode(self, policy: Policy, prompts: Prompts, environment: Environment | None = None) -> Rollout:
        rows = torch.arange(len(prompts), device=prompts.lengths.device)
        drawn = self.decoder.decode(policy, prompts.select(rows.repeat_interleave(self.rationales)), environment)
        scores = self.scores(policy, drawn).view(len(prompts), self.rationales, len(self.labels))
        best = scores.logsumexp(1).argmax(1)  # the sum has the order of the mean
        return with_own_logprobs(policy, self._answers(prompts, best))

    def scores(self, policy: Policy, drawn: Rollout) -> Float[Tensor, "B K"]:
        """log p(Y | X Z) of every label Y behind every episode Z, whose end token is left out.

        Args:
            policy: Who drew the episodes.
            drawn: The episodes.
        """
        pairs = zip(drawn.tokens.tolist(), drawn.lengths.tolist(), drawn.terminated.tolist(), strict=True)
        rationales = [tokens[: length - ended] for tokens, length, ended in pairs]
        together = [list(range(len(self.labels)))]
        shared = together if policy.branches else [[label] for label in together[0]]
        lines = [self._line(rationale, group) for rationale in rationales for group in shared]
        tokens, follows, owner = (_padded([line[i] for line in lines], drawn) for i in range(3))
        rows = torch.arange(len(drawn), device=drawn.tokens.device).repeat_interleave(len(shared))
        logprobs = self._read(policy, self._rollout(drawn.prompts.select(rows), tokens, follows, owner, policy))
        each = [torch.where(owner == label, logprobs, 0.0).sum(1) for label in range(len(self.labels))]
        return torch.stack(each, 1).view(len(drawn), len(shared), -1).sum(1)

    def _line(self, rationale: list[int], labels: list[int]) -> tuple[list[int], list[int], list[int]]:
        """Tokens of a rationale with some labels behind it, what each follows, and which label each belongs to."""
        tokens, follows = list(rationale), list(range(-1, len(rationale) - 1))
        owner = [-1] * len(rationale)
        for label in labels:
            tail, first = self.tails[label], len(tokens)
            follows += [len(rationale) - 1, *range(first, first + len(tail) - 1)]
            tokens, owner = tokens + tail, owner + [label] * len(tail)
        return tokens, follows, owner

    def _rollout(self, prompts: Prompts, tokens: Tensor, follows: Tensor, owner: Tensor, policy: Policy) -> Rollout:
        return Rollout(
            prompts=prompts,
            tokens=tokens.clamp(min=0),
            lengths=(tokens >= 0).sum(1),
            action_mask=owner >= 0,
            logprobs=torch.zeros(tokens.shape, device=tokens.device),
            terminated=torch.ones_like(tokens[:, 0], dtype=torch.bool),
            follows=follows if policy.branches else None,
        )

    def _answers(self, prompts: Prompts, best: Int[Tensor, " B"]) -> Rollout:
        """The labels as episodes."""
        said = [[*self.tokenizer.encode(self.labels[i]), self.tokenizer.eos] for i in best.tolist()]
        device = prompts.lengths.device
        lines = [torch.tensor(line, device=device) for line in said]
        lengths = torch.tensor([len(line) for line in said], device=device)
        tokens = pad_sequence(lines, batch_first=True, padding_value=self.tokenizer.pad)
        mask = torch.arange(tokens.shape[1], device=device) < lengths[:, None]
        nothing = torch.zeros(tokens.shape, device=device)
        return Rollout(prompts, tokens, lengths, mask, nothing, torch.ones_like(mask[:, 0]), sampling=Sampling())


def _padded(lines: list[list[int]], like: Rollout) -> Int[Tensor, "N T"]:
    """Lists as rows, with -1 behind them."""
    rows = [torch.tensor(line, device=like.tokens.device) for line in lines]
    return pad_sequence(rows, batch_first=True, padding_value=-1)


def _said(output: PolicyOutput) -> tuple[Tensor, ...]:
    return (output.logprobs,)


def _as_it_is(policy: Policy, rollout: Rollout) -> Tensor:
    with only(policy, []):
        return policy(rollout).logprobs


def _adapter_off(policy: Policy, rollout: Rollout) -> Tensor:
    with policy.adapter_off() or nullcontext():
        return _as_it_is(policy, rollout)


def _by_lines(lines: Callable[..., tuple[Tensor, ...]], policy: Policy, rollout: Rollout) -> Tensor:
    return lines(policy, rollout, _said)[0]


def _of_another(
    model: Callable[[Rollout], PolicyOutput],
    reading: Callable[[], AbstractContextManager[None]],
    policy: Policy,
    rollout: Rollout,
) -> Tensor:
    with reading():
        return model(rollout).logprobs
