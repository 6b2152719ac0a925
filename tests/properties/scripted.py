"""Run by test_ranks_hold.py in processes of its own: an update per objective, from episodes that the prompts decide."""

import sys
from pathlib import Path

import torch
from lightning.pytorch import Trainer

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from objectives_by_aggregation import ways

from lrl_core.interfaces import Reward
from lrl_core.module import PolicyGradient
from lrl_core.reference import Reference
from lrl_core.testing.toy_task import ToyTask
from lrl_core.types import RewardSignal, Rollout
from lrl_plugins.baselines.critic import Critic
from lrl_plugins.baselines.group import GroupMean
from lrl_plugins.decoders.sample import Sample
from lrl_plugins.objectives.all_actions import AllActions
from lrl_plugins.policies.recurrent import Recurrent
from lrl_plugins.replays.fresh import Fresh

PROMPTS, SAMPLES = 8, 3


class Scripted(Sample):
    """Draws, with a generator that only the prompt and the sample's number seed: the same on any rank."""

    def choose(self, logits, position):
        logprobs = logits.log_softmax(1)
        tokens = torch.stack([row.argmax() for row in logprobs + self.noise[: len(logits), int(position[0])]])
        return tokens, logprobs.gather(1, tokens[:, None]).squeeze(1)

    def decode(self, policy, prompts, environment=None):
        parts = []
        for row in range(len(prompts)):
            one = prompts.select(torch.tensor([row]))
            generator = torch.Generator().manual_seed(int(one.group))
            self.noise = -torch.empty(self.samples, self.max_length, 4).exponential_(generator=generator).log()
            parts.append(_full(super().decode(policy, one, environment)))
        return Rollout.cat(parts)


def _full(rollout):
    return rollout


class LettersA(Reward):
    """How often a was said; prompts in which the first letter is b cannot be judged."""

    def score(self, rollout):
        letters = ((rollout.tokens == 0) & rollout.action_mask).float()
        by_prefix = torch.nn.functional.pad(letters.cumsum(1), (1, 0))
        total = torch.where(rollout.tokens[:, 0] == 1, torch.nan, by_prefix[:, -1])
        return RewardSignal(total, by_prefix=by_prefix)


def critic():
    """What AllActions needs: a small critic, with an optimiser that does not blow rounding up."""
    return Critic(embedding=4, hidden=6, optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.3))


def update(ranks: int, objective, budget: int | None):
    """The policy after two steps on all prompts."""
    torch.manual_seed(1)
    task = ToyTask(prompts=PROMPTS, batch_size=PROMPTS // ranks)
    module = PolicyGradient(
        policy=Recurrent(cell="gru", embedding=6, hidden=8, value_head="shared"),
        task=task.facts(),
        decoder=Scripted(max_length=4, samples=SAMPLES),
        reward=LettersA(),
        baseline=critic() if isinstance(objective, AllActions) else GroupMean(),
        objective=objective,
        replay=Fresh(),
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.3),
        token_budget=budget,
        reference=Reference(),
    )
    trainer = Trainer(
        accelerator="cpu",
        devices=ranks,
        strategy="ddp_find_unused_parameters_true" if ranks > 1 else "auto",
        max_epochs=2,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, task)
    return torch.cat([p.detach().flatten() for p in module.policy.parameters()]), trainer.global_rank


def main(folder: str, ranks: int, budget: int | None) -> None:
    """Every objective in every aggregation; what the policy became, by name."""
    results = {}
    for name, make in ways().items():
        results[name], rank = update(ranks, make(), budget)
    torch.save(results, Path(folder) / f"{ranks}-{budget}-{rank}.pt")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else None)
