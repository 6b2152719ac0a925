"""A critic: compared with what was to be expected in the very state before each token."""

from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.optim import Adam

from lrl_core.functional import generalised_advantage, masked_mean, squared_error, token_rewards
from lrl_core.interfaces import Baseline, Component, Learner, OptimizerFactory, Policy, Sampler, TaskFacts
from lrl_core.types import Advantage, Experience, Loss, Prompts, RewardSignal, Rollout


class ValueHead(Component):
    """A linear estimate from a network's hidden states; it starts at 0.

    Args:
        network: Whose hidden states.
    """

    def __init__(self, network: Policy) -> None:
        super().__init__()
        # In a tuple, because the network is a child of the critic, not of its head.
        self._network = (network,)

    def bind(self, facts: TaskFacts) -> None:
        """Find the width of the states. Components are bound in order, and the critic's network stands before."""
        network = self._network[0]
        training = network.training
        with torch.no_grad():
            weight = network.eval()(_one_token(facts.example)).head.weight
        network.train(training)
        wide = torch.promote_types(weight.dtype, torch.float32)
        self.linear = nn.Linear(weight.shape[1], 1, device=weight.device, dtype=wide)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, hidden: Float[Tensor, "N D"]) -> Float[Tensor, " N"]:
        """One number per state, in the head's own precision also under autocast."""
        with torch.autocast(hidden.device.type, enabled=False):
            return self.linear(hidden.to(self.linear.weight.dtype)).squeeze(1)


class Value(Baseline, Learner):
    """Compares with what a critic expects in the state before each token (GAE; Schulman et al. 2016, eq. 16).

    With lam 1 the advantage is the reward to go minus V(s_t): unbiased whatever the critic says. With a smaller one
    it varies less and trusts the critic more; PPO is run with 0.95. Rewards by token are used where there are any, else
    the whole reward stands on the last token; an environment's words are stepped over. The critic is read without
    dropout, when the episodes are collected; later updates do not change the advantages.

    Args:
        network: Reads the episodes for the critic, any policy; it learns with an optimiser of its own to predict the
            returns. None: the policy's own value head, which the objective trains (PPO's value_weight).
        gamma: Discount per chosen token, in [0, 1].
        lam: Trade-off between bias (0) and variance (1).
        clip: How far a prediction may move from what it was at collection before the loss holds it (PPO: 0.2, in units
            of the reward); None for no limit. Only for `network`.
        bootstrap: Whether an episode that the length limit cut is worth V(s_T+1) after its end; else 0.
        optimizer: Optimiser of the network.
        updates: Updates of the network per experience.
    """

    def __init__(
        self,
        network: Policy | None = None,
        gamma: float = 1.0,
        lam: float = 1.0,
        clip: float | None = None,
        bootstrap: bool = False,
        optimizer: OptimizerFactory = Adam,
        updates: int = 1,
    ) -> None:
        super().__init__()
        for name, number in (("gamma", gamma), ("lam", lam)):
            if not 0 <= number <= 1:
                raise ValueError(f"Value: {name} is {number}; expected a number in [0, 1]. 1 is the usual choice.")
        if clip is not None and clip <= 0:
            raise ValueError(f"Value: clip is {clip}; expected a number > 0, or null for no limit.")
        self.network = network
        self.head = None if network is None else ValueHead(network)
        self.gamma, self.lam, self.clip, self.bootstrap = gamma, lam, clip, bootstrap
        self.optimizer, self.updates = optimizer, updates
        self.example: Prompts | None = None

    def bind(self, facts: TaskFacts) -> None:
        self.example = facts.example

    @torch.no_grad()
    def check(self, sampler: Sampler) -> None:
        if self.network is None and self.example is not None:
            training = sampler.policy.training
            self._estimates(_one_token(self.example), sampler.policy)
            sampler.policy.train(training)

    @torch.no_grad()
    def advantage(self, rollout: Rollout, reward: RewardSignal, sampler: Sampler) -> Advantage:
        width, mask = rollout.tokens.shape[1], rollout.action_mask
        earned = token_rewards(rollout, reward)
        estimates = self._estimates(_one_further(rollout) if self.bootstrap else rollout, sampler.policy)
        estimates = estimates.to(torch.promote_types(estimates.dtype, earned.dtype))
        values = torch.where(mask, estimates[:, :width], 0)
        after = None
        if self.bootstrap:
            after = torch.where(rollout.terminated, 0, estimates.gather(1, rollout.lengths[:, None]).squeeze(1))
        better = generalised_advantage(earned.to(values.dtype), values, mask, self.gamma, self.lam, after)
        taught = mask & reward.judged[:, None]
        return Advantage(torch.where(taught, better, 0), torch.where(taught, better + values, 0), values)

    def count(self, experience: Experience) -> Tensor:
        return experience.learn_mask.sum().float()

    def learn(self, experience: Experience) -> Loss:
        """Half the squared distance from the returns, over the tokens that teach."""
        rollout, advantage, mask = experience.rollout, experience.advantage, experience.learn_mask
        assert rollout is not None and advantage is not None and advantage.target is not None
        values = self._estimates(rollout, None)
        errors = torch.where(mask, squared_error(values, advantage.target, advantage.values, self.clip), 0)
        return Loss(errors.sum(), _report(values.detach(), advantage.target, mask))

    def _estimates(self, rollout: Rollout, policy: Policy | None) -> Float[Tensor, "B T"]:
        if self.network is not None:
            assert self.head is not None
            self.network.eval()  # as when the policy's episodes are played and taught: no dropout
            return self.network(rollout).estimate(self.head)
        assert policy is not None
        policy.eval()
        values = policy(rollout).values
        if values is None:
            raise ValueError(
                f"Value: got network: null and the policy {type(policy).__name__}, which has no value head; expected "
                "one of them to estimate values. Give baseline.init_args.network a policy of its own, or the policy a "
                "value head."
            )
        return values


def _report(values: Tensor, targets: Tensor, mask: Bool[Tensor, "B T"]) -> dict[str, Tensor]:
    """The critic's mean, its error, and the share of the returns' variance that it explains (1: all of it)."""
    left = targets - values

    def spread(x: Tensor) -> Tensor:
        return masked_mean((x - masked_mean(x, mask)).pow(2), mask)

    return {
        "value/mean": masked_mean(values, mask),
        "value/error": masked_mean(left.pow(2), mask),
        "value/explained_variance": 1 - spread(left) / spread(targets).clamp(min=1e-8),
    }


def _one_token(prompts: Prompts) -> Rollout:
    """A tiny episode for each prompt, to see what a network returns."""
    tokens = torch.zeros(len(prompts), 1, dtype=torch.long, device=prompts.lengths.device)
    return Rollout(
        prompts=prompts,
        tokens=tokens,
        lengths=torch.ones_like(prompts.lengths),
        action_mask=torch.ones_like(tokens, dtype=torch.bool),
        logprobs=torch.zeros(tokens.shape, device=tokens.device),
        terminated=torch.zeros_like(prompts.lengths, dtype=torch.bool),
    )


def _one_further(rollout: Rollout) -> Rollout:
    """Cut episodes with some token after their end: the value before it, which never sees it, is that of the end."""

    def longer(line: Tensor) -> Tensor:
        return torch.nn.functional.pad(line, (0, 1))

    cut = ~rollout.terminated
    steps = torch.arange(rollout.tokens.shape[1] + 1, device=rollout.tokens.device)
    after = (steps == rollout.lengths[:, None]) & cut[:, None]
    return replace(
        rollout,
        tokens=longer(rollout.tokens).masked_fill(after, 0),
        lengths=rollout.lengths + cut.long(),
        action_mask=longer(rollout.action_mask) | after,
        logprobs=longer(rollout.logprobs),
        environment_reward=None,
        reference_logprobs=None,
    )
