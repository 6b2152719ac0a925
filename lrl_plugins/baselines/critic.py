"""A critic of actions: what every token of the vocabulary would be worth, told what people would have answered."""

import copy
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.optim import Adam

from lrl_core.functional import generalised_advantage, masked_mean, token_rewards
from lrl_core.interfaces import Baseline, Learner, OptimizerFactory, Policy, Sampler, TaskFacts
from lrl_core.types import ActionValues, Advantage, Experience, Loss, PolicyOutput, Prompts, RewardSignal, Rollout
from lrl_core.vocab import Head
from lrl_plugins.baselines.critic_network import AttentionReader, Reads, shown

Actor = Literal["delayed", "current"]


class Critic(Baseline, Learner):
    """Estimates Q(a; y_<t, Y), the reward to come if token a is said next (Bahdanau et al. 2017, Actor-Critic).

    A network beside the policy reads the human answer Y and the episode so far. It learns by one-step bootstrapping
    (eq. 7): q_t = r_t + sum over a of p'(a | y_<=t) Q'(a; y_<=t, Y), 0 after the end, where p' is the actor and Q' a
    slowly following copy of the critic. Its loss is (Q(y_t) - q_t)^2 + rare_penalty x sum over a of (Q(a) - mean)^2
    (eq. 10), which keeps tokens that are hardly ever drawn from being thought better than they are. The objective
    AllActions teaches with every token's value; others get the advantage Q(y_t) - sum over a of pi(a) Q(a), which is
    as good as the critic: teach it first (model.learners_first).

    Rewards by token are used where there are any, else the whole reward stands on the last token; an environment's
    words are stepped over. Draw episodes without truncation (top-k, top-p, min-p): expectations are taken before it.

    Args:
        network: Reads for the critic, any policy; its output matrix gives one number per token. None: a small GRU
            with attention.
        reads: What the network sees before the episode, in place of the prompt: the human `answer`, the `prompt`, or
            `both`, one after the other.
        actor: Whose p' the target expects: `delayed`, the reference policy (model.reference, with a decay near 1), or
            `current`, the policy itself.
        decay: Weight of the past, in [0, 1), when the critic's copy Q' follows it after every training step.
        rare_penalty: Weight of the second term of the loss, >= 0; in the paper 0.001.
        embedding: Width of the small network's word vectors.
        hidden: Width of the small network's states; even.
        optimizer: Optimiser of the network.
        updates: Updates of the network per experience.
    """

    slow: AttentionReader | Policy

    def __init__(
        self,
        network: Policy | None = None,
        reads: Reads = "answer",
        actor: Actor = "current",
        decay: float = 0.999,
        rare_penalty: float = 0.001,
        embedding: int = 64,
        hidden: int = 128,
        optimizer: OptimizerFactory = Adam,
        updates: int = 1,
    ) -> None:
        super().__init__()
        if not 0 <= decay < 1 or rare_penalty < 0:
            raise ValueError(
                f"Critic: got decay {decay} and rare_penalty {rare_penalty}; expected a decay in [0, 1) and a penalty "
                ">= 0. Usual: 0.999 and 0.001."
            )
        self.network = AttentionReader(embedding, hidden) if network is None else network
        self.built_in = network is None
        self.reads, self.actor, self.decay, self.rare_penalty = reads, actor, decay, rare_penalty
        self.optimizer, self.updates = optimizer, updates
        self.separator, self.piecewise = 0, False
        self.example: Prompts | None = None

    def bind(self, facts: TaskFacts) -> None:
        self.example, self.separator = facts.example, max(facts.tokenizer.eos, 0)
        self.piecewise = facts.environment is not None and bool(facts.environment.reads)
        self.slow = copy.deepcopy(self.network).requires_grad_(False).eval()

    def check(self, sampler: Sampler) -> None:
        if self.actor == "delayed" and sampler.delayed is None:
            raise ValueError(
                "Critic: got actor: delayed in a recipe without a reference policy of its own weights; expected one "
                "that follows the policy slowly. Set model.reference to {decay: 0.999}, or actor: current."
            )
        if self.piecewise and self.reads != "prompt" and not self.built_in:
            raise ValueError(
                f"Critic: got reads: {self.reads} and a network of its own in a task that shows the prompt piece by "
                "piece; expected one that can see the whole answer. Set network to null, or reads: prompt."
            )
        if self.example is not None:
            shown(_nothing_said(self.example), self.reads, self.separator)

    @torch.no_grad()
    def advantage(self, rollout: Rollout, reward: RewardSignal, sampler: Sampler) -> Advantage:
        mask = rollout.action_mask
        own, slow = self._read(self.network, rollout), self._read(self.slow, rollout)
        actions = ActionValues(own.states, _still(own.head))
        policy = sampler.policy.eval()(rollout)
        delayed = sampler.delayed if self.actor == "delayed" else None
        actor = policy if delayed is None else delayed.eval()(rollout)
        expected, values = policy.expected(actions), of_chosen(own)
        earned, following = token_rewards(rollout, reward), actor.expected(ActionValues(slow.states, slow.head))
        wide = torch.promote_types(torch.promote_types(earned.dtype, following.dtype), values.dtype)
        values = values.to(wide)
        targets = one_step(earned.to(wide), following.to(wide), mask)
        taught = mask & reward.judged[:, None]
        better = torch.where(taught, values - expected.to(wide), 0)
        return Advantage(better, torch.where(taught, targets, 0), values, actions)

    def count(self, experience: Experience) -> Tensor:
        return experience.learn_mask.sum().float()

    def learn(self, experience: Experience) -> Loss:
        """Squared distance from the targets and the penalty on unequal values, over the tokens that teach."""
        rollout, advantage, mask = experience.rollout, experience.advantage, experience.learn_mask
        assert rollout is not None and advantage is not None and advantage.target is not None
        output = self._read(self.network, rollout)
        values, unequal = of_chosen(output), output.estimate(lambda hidden: inequality(hidden, output.head))
        target = advantage.target.to(values.dtype)
        losses = torch.where(mask, (values - target).pow(2) + self.rare_penalty * unequal, 0)
        inequality_each = unequal.detach() / output.head.weight.shape[0]
        report = _report(values.detach(), target, mask) | {"value/spread": masked_mean(inequality_each.sqrt(), mask)}
        return Loss(losses.sum(), report)

    @torch.no_grad()
    def learned(self, experience: Experience) -> None:
        if experience.rollout is None:
            return
        for old, new in zip(self.slow.parameters(), self.network.parameters(), strict=True):
            old.lerp_(new.to(old.dtype), 1 - self.decay)

    def _read(self, network: AttentionReader | Policy, rollout: Rollout) -> PolicyOutput:
        network.eval()  # as when the policy's episodes are played and taught: no dropout
        output: PolicyOutput = network(shown(rollout, self.reads, self.separator))
        return output


def of_chosen(output: PolicyOutput) -> Float[Tensor, "B T"]:
    """Q(y_t): the number that a critic gives each chosen token; 0 off the action mask."""
    tokens, head = output.rollout.tokens[output.rollout.action_mask], output.head

    def one_each(hidden: Float[Tensor, "N D"]) -> Float[Tensor, " N"]:
        with torch.autocast(hidden.device.type, enabled=False):
            values = (hidden.to(head.weight.dtype) * head.weight[tokens]).sum(1)
        return values if head.bias is None else values + head.bias[tokens]

    return output.estimate(one_each)


def inequality(hidden: Float[Tensor, "N D"], head: Head) -> Float[Tensor, " N"]:
    """C = sum over a of (Q(a) - mean over b of Q(b))^2 for Q = W h + c, without laying Q out (Bahdanau 2017, eq. 10).

    With rows and biases of the matrix centred, C = h' (W'W) h + 2 (W'c)' h + c'c: one D x D matrix for all tokens.
    """
    with torch.autocast(hidden.device.type, enabled=False):
        weight = head.weight - head.weight.mean(0)
        states = hidden.to(weight.dtype)
        total = ((states @ (weight.t() @ weight)) * states).sum(1)
        if head.bias is not None:
            bias = head.bias - head.bias.mean()
            total = total + 2 * (states @ (weight.t() @ bias)) + bias @ bias
    return total.clamp(min=0)  # rounding


def one_step(
    earned: Float[Tensor, "B T"], following: Float[Tensor, "B T"], mask: Bool[Tensor, "B T"]
) -> Float[Tensor, "B T"]:
    """q_t = r_t + V_t+1 with the next chosen token's V, 0 after the last one (Bahdanau 2017, eq. 7); 0 off the mask.

    Args:
        earned: r_t.
        following: V_t, what the critic's copy expects of the actor before each token.
        mask: The chosen tokens.
    """
    return torch.where(mask, generalised_advantage(earned, following, mask, 1.0, 0.0) + following, 0)


def _still(head: Head) -> Head:
    """The matrix as it is now: the critic goes on learning."""
    return Head(head.weight.detach().clone(), None if head.bias is None else head.bias.detach().clone())


def _report(values: Tensor, targets: Tensor, mask: Bool[Tensor, "B T"]) -> dict[str, Tensor]:
    """The critic's mean, its error, and the share of the targets' variance that it explains (1: all of it)."""
    left, apart = targets - values, targets - masked_mean(targets, mask)
    unexplained = masked_mean((left - masked_mean(left, mask)).pow(2), mask)
    return {
        "value/mean": masked_mean(values, mask),
        "value/error": masked_mean(left.pow(2), mask),
        "value/explained_variance": 1 - unexplained / masked_mean(apart.pow(2), mask).clamp(min=1e-8),
    }


def _nothing_said(prompts: Prompts) -> Rollout:
    """Empty episodes of these prompts."""
    nothing: Int[Tensor, "B T"] = prompts.tokens.new_zeros(len(prompts), 0)
    lengths = torch.zeros_like(prompts.lengths)
    return Rollout(prompts, nothing, lengths, nothing.bool(), nothing.float(), lengths.bool())
