"""The policy that the trained one is kept near: a copy that holds still, another checkpoint, or a moving average."""

from collections.abc import Callable
from contextlib import nullcontext
from copy import deepcopy

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lrl_core.interfaces import Policy
from lrl_core.types import PolicyOutput, Rollout


class Reference(nn.Module):
    """The reference policy of a KL term (Ziegler 2019): by default the policy as it is when reinforcement begins.

    A policy that trains an adapter (LoRA) without a warm-up in the same run is its own reference with the adapter off,
    unless path or decay is named; that costs no memory. Any other reference is a second copy of the weights, saved in
    the checkpoint. Where `start_from` brings an adapter that has learnt already, name the same file as path.

    Args:
        path: A checkpoint of an earlier run whose policy is the reference; None takes the policy of this run.
        decay: Weight of the past, in (0, 1), when the reference follows the policy after every training step as a
            moving average; None holds it still.
        token_budget: Padded tokens that are read at once; None reads a step's episodes in one pass.
        draws: Whether the reference plays the episodes to learn from, as the delayed actor of an actor-critic does
            (Bahdanau 2017, section 3.2). The objective must not take them for fresh draws of the policy.
    """

    begun: Tensor

    def __init__(
        self,
        path: str | None = None,
        decay: float | None = None,
        token_budget: int | None = None,
        draws: bool = False,
    ) -> None:
        super().__init__()
        if decay is not None and not 0 < decay < 1:
            raise ValueError(f"Reference: decay is {decay}; expected a number in (0, 1), or null to hold it still.")
        if draws and path is None and decay is None:
            raise ValueError(
                "Reference: got draws: true without decay or path; expected a policy other than the one that learns. "
                "Set decay, such as 0.999, or leave draws out."
            )
        self.path, self.decay, self.token_budget, self.draws = path, decay, token_budget, draws
        self.copy: Policy | None = None
        self.register_buffer("begun", torch.tensor(False))

    def hold(self, policy: Policy, warmed_up: bool = False) -> None:
        """Make room for the reference: a frozen copy of the policy, or of the checkpoint's one.

        Args:
            policy: What is trained.
            warmed_up: Whether its adapter will have learnt something when reinforcement begins.
        """
        if self.path is None and self.decay is None and not warmed_up and policy.adapter_off() is not None:
            return
        self.copy = deepcopy(policy).requires_grad_(False).eval()
        if self.path is not None:
            load_policy(self.copy, self.path, "reference.path")

    def begin(self, policy: Policy) -> None:
        """Take over the policy's weights as reinforcement begins; a resumed run goes on with those it saved."""
        if self.copy is not None and self.path is None and not bool(self.begun):
            self.copy.load_state_dict(policy.state_dict())
        self.begun.fill_(True)

    @torch.no_grad()
    def follow(self, policy: Policy) -> None:
        """Move a little towards the policy, where the reference is a moving average."""
        if self.copy is None or self.decay is None:
            return
        for mine, theirs in zip(self.copy.parameters(), policy.parameters(), strict=True):
            mine.lerp_(theirs.to(mine.dtype), 1 - self.decay)

    def logprobs(self, policy: Policy, rollout: Rollout) -> Float[Tensor, "B T"]:
        """Log-probabilities of the chosen tokens under the reference, tempered and truncated as they were drawn."""
        return self.lines(policy, rollout, lambda output: (output.logprobs,))[0]

    @torch.no_grad()
    def lines(
        self, policy: Policy, rollout: Rollout, ask: Callable[[PolicyOutput], tuple[Tensor, ...]]
    ) -> tuple[Float[Tensor, "B T"], ...]:
        """What the reference says of episodes, without gradients and without dropout.

        Args:
            policy: What is trained; with its adapter off it may be the reference itself.
            rollout: The episodes, of any kind: it is read under its own sampling.
            ask: What is wanted, one number per token each.
        """
        reader = policy if self.copy is None else self.copy
        reader.eval()
        with (policy.adapter_off() if self.copy is None else None) or nullcontext():
            parts = [ask(reader(part)) for part in self._parts(rollout)]
        wide = rollout.tokens.shape[1]
        return tuple(
            torch.cat([nn.functional.pad(part, (0, wide - part.shape[1])) for part in asked])
            for asked in zip(*parts, strict=True)
        )

    def _parts(self, rollout: Rollout) -> list[Rollout]:
        if self.token_budget is None:
            return [rollout]
        line = rollout.tokens.shape[1] + rollout.prompts.tokens.shape[1]
        rows = torch.arange(len(rollout), device=rollout.tokens.device)
        return [rollout.select(some).trimmed() for some in rows.split(max(1, self.token_budget // max(1, line)))]

    def train(self, mode: bool = True) -> "Reference":
        """A reference never trains: no dropout, whatever the module around it does."""
        return super().train(False)


def load_policy(policy: Policy, path: str, option: str) -> None:
    """Give a policy the weights that a checkpoint holds for it.

    Args:
        policy: What receives them.
        path: A checkpoint of a run.
        option: The recipe's name for that path, for errors.
    """
    saved = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    prefix = "policy."
    weights = {name[len(prefix) :]: value for name, value in saved.items() if name.startswith(prefix)}
    try:
        policy.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(
            f"{option}: the policy saved in {path} does not fit {type(policy).__name__} of this recipe: "
            f"{error}. Expected the same policy arguments and the same tokenizer."
        ) from error


def policy_and_known(saved: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state to answer prompts with: the saved policy whole, and what else was saved and there is a place for.

    Args:
        saved: State of the run that trained the policy.
        own: State of this run, which may name another reward or baseline.
    """
    wanted = {name: value for name, value in saved.items() if name in own or name.startswith("policy.")}
    return {name: value for name, value in own.items() if not name.startswith("policy.")} | wanted
