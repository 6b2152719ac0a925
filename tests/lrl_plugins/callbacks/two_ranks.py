"""Run by test_callbacks_on_ranks.py in processes of its own: writes what the callbacks of each rank end with."""

import sys
from pathlib import Path

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger

from lrl_core.module import PolicyGradient
from lrl_core.ranks import rank
from lrl_core.testing.toy import TableReward
from lrl_core.testing.toy_task import ToyTask
from lrl_plugins.baselines.means import BatchMean
from lrl_plugins.callbacks.ask_for_labels import AskForLabels
from lrl_plugins.callbacks.best_checkpoint import BestCheckpoint
from lrl_plugins.callbacks.peakiness import Peakiness
from lrl_plugins.callbacks.reward_hacking_alarm import RewardHackingAlarm
from lrl_plugins.callbacks.stop_after import StopAfter
from lrl_plugins.callbacks.zero_variance import ZeroVariance
from lrl_plugins.decoders.sample import Sample
from lrl_plugins.objectives.reinforce import Reinforce
from lrl_plugins.policies.recurrent import Recurrent
from lrl_plugins.replays.epochs import Epochs
from lrl_plugins.replays.redraw import Redraw


def main(folder: str, ranks: int) -> None:
    torch.manual_seed(1)
    # The samples of a prompt are always equal on the first rank and never on the second.
    paid = iter(range(10**6))
    stop, peaks, alarm = StopAfter(rollouts=80), Peakiness(prompts=12), RewardHackingAlarm()
    labeller = TableReward(lambda tokens: float(len(tokens)))
    labels = AskForLabels(total=4, spread=2, candidates=3, labeller=labeller, answer="ranking")
    task = ToyTask(prompts=12, batch_size=6 // ranks)
    module = PolicyGradient(
        policy=Recurrent(cell="gru", embedding=6, hidden=8),
        task=task.facts(),
        decoder=Sample(max_length=4, samples=3),
        reward=TableReward(lambda tokens: 1.0 if rank() == 0 else float(next(paid))),
        baseline=BatchMean(),
        objective=Reinforce(),
        replay=Epochs(epochs=2, minibatches=3, source=Redraw(rounds=1)),
    )
    trainer = Trainer(
        accelerator="cpu",
        devices=ranks,
        strategy="ddp_find_unused_parameters_true" if ranks > 1 else "auto",
        max_epochs=9,
        logger=CSVLogger(folder, name="", version=f"run-{ranks}"),
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[stop, peaks, alarm, labels, ZeroVariance(), BestCheckpoint("val/perplexity")],
    )
    trainer.fit(module, task)
    result = {
        "spent": stop.spent,
        "steps": int(module.steps_done),
        "before": peaks.before,
        "now": peaks.now,
        "asked": labels.asked,
        "carried": labels.labels,
        "alarm": alarm.state_dict()["trends"],
        "parameters": torch.cat([p.detach().flatten() for p in module.policy.parameters()]),
    }
    torch.save(result, Path(folder) / f"{ranks}-{trainer.global_rank}.pt")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
