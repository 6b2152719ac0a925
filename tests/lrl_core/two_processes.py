"""Run by test_ranks.py in processes of its own: trains the toy task and writes what each rank ends with."""

import sys
from pathlib import Path

import torch
from lightning.pytorch import Trainer

from lrl_core.module import PolicyGradient
from lrl_core.testing.toy import TableReward
from lrl_core.testing.toy_task import ToyTask
from lrl_plugins.baselines.means import BatchMean
from lrl_plugins.decoders.sample import Sample
from lrl_plugins.objectives.cross_entropy import CrossEntropy
from lrl_plugins.objectives.reinforce import Reinforce
from lrl_plugins.objectives.sum import Sum
from lrl_plugins.policies.recurrent import Recurrent
from lrl_plugins.replays.expert import Expert
from lrl_plugins.replays.fresh import Fresh


def main(folder: str, ranks: int, method: str) -> None:
    torch.manual_seed(1)
    task = ToyTask(prompts=12, batch_size=6 // ranks)
    learn = {
        "ml": {"objective": CrossEntropy(), "replay": Expert()},
        "rl": {"objective": Sum({"rl": Reinforce(), "ml": CrossEntropy()}), "replay": Fresh()},
    }[method]
    module = PolicyGradient(
        policy=Recurrent(cell="gru", embedding=6, hidden=8),
        task=task.facts(),
        decoder=Sample(max_length=4, samples=3),
        reward=TableReward(lambda tokens: float(tokens.count(0)) if tokens[0] != 1 else float("nan")),
        baseline=BatchMean(),
        optimizer=lambda p: torch.optim.SGD(p, lr=0.5),
        token_budget=25,
        **learn,
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
    rollout = module.last_experience.rollout
    result = {
        "parameters": torch.cat([p.detach().flatten() for p in module.policy.parameters()]),
        "tokens": None if rollout is None else rollout.tokens.tolist(),
        "prompts": (rollout or module.last_experience.expert).prompts.group.tolist(),
    }
    torch.save(result, Path(folder) / f"{method}-{ranks}-{trainer.global_rank}.pt")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
