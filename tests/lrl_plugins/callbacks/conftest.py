"""A short run of the toy task with any callbacks."""

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger

from lrl_core.module import PolicyGradient
from lrl_core.testing.toy import TableReward
from lrl_core.testing.toy_task import ToyTask
from lrl_plugins.baselines.means import LeaveOneOut
from lrl_plugins.decoders.sample import Sample
from lrl_plugins.objectives.reinforce import Reinforce
from lrl_plugins.policies.recurrent import Recurrent
from lrl_plugins.replays.fresh import Fresh


@pytest.fixture
def short_run(tmp_path):
    """Call it with callbacks; gives module and trainer after the run."""

    def run(*callbacks, epochs=2, ckpt_path=None, **options):
        torch.manual_seed(0)
        task = ToyTask()
        settings = {
            "policy": Recurrent(embedding=6, hidden=8),
            "objective": Reinforce(),
            "replay": Fresh(),
            "decoder": Sample(max_length=4, samples=3),
            "reward": TableReward(lambda tokens: float(tokens.count(0))),
            "baseline": LeaveOneOut(),
        }
        module = PolicyGradient(task=task.facts(), **settings | options)
        trainer = Trainer(
            accelerator="cpu",
            max_epochs=epochs,
            logger=CSVLogger(tmp_path, name="", version="run"),
            log_every_n_steps=1,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            callbacks=list(callbacks),
            default_root_dir=tmp_path,
        )
        trainer.fit(module, task, ckpt_path=ckpt_path, weights_only=None if ckpt_path is None else False)
        return module, trainer

    return run
