"""A world in which the next word has to be heard before a word is written: waiting is learnt, as long as it pays."""

import random

import pytest
import torch
from lightning.pytorch import Trainer

from lrl_core.module import PolicyGradient
from lrl_plugins.baselines.means import LeaveOneOut
from lrl_plugins.decoders.sample import Greedy, Sample
from lrl_plugins.objectives.cross_entropy import CrossEntropy
from lrl_plugins.objectives.reinforce import Reinforce
from lrl_plugins.policies.read_write_agent import ReadWriteAgent
from lrl_plugins.policies.seq2seq_lm import Seq2SeqLM
from lrl_plugins.replays.expert import Expert
from lrl_plugins.replays.fresh import Fresh
from lrl_plugins.rewards.sum import Sum
from lrl_plugins.tasks.simultaneous_translation.data import SimultaneousTranslation
from lrl_plugins.tasks.simultaneous_translation.rewards import Delay, IncrementalBLEU
from lrl_plugins.tasks.text.sources import Example, TextSource

torch.set_num_threads(1)
WORDS = ["red", "blue", "green", "black", "white", "pink"]
MARIAN = {
    "model_type": "marian", "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 32,
    "dropout": 0.0, "init_std": 0.1,
}  # fmt: skip


class NextWord(TextSource):
    """Five words; the translation is all but the first: the word to write is the one after that already heard."""

    def splits(self):
        random_, found = random.Random(0), {}
        while len(found) < 700:
            words = [random_.choice(WORDS) for _ in range(5)]
            found[" ".join(words)] = " ".join(words[1:])
        rows = [Example(f"row-{i}", asked, (said,)) for i, (asked, said) in enumerate(found.items())]
        return {"train": rows[:600], "val": rows[600:]}


def world():
    return SimultaneousTranslation(NextWord(), batch_size=40, largest_lag=4)


def trained(module, task, epochs):
    """The numbers of validation after so many epochs."""
    trainer = Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, check_val_every_n_epoch=epochs,
    )  # fmt: skip
    trainer.fit(module, datamodule=task)
    return {name: value.item() for name, value in trainer.callback_metrics.items()}


def translator():
    """Who translates at every latency, and its numbers."""
    task, policy = world(), Seq2SeqLM(config=MARIAN, source="causal")
    module = PolicyGradient(
        policy=policy,
        objective=CrossEntropy(),
        replay=Expert(),
        task=task.facts(),
        evaluation_decoder=Greedy(max_length=14),
        optimizer=lambda weights: torch.optim.Adam(weights, 0.005),
    )
    return policy, trained(module, task, epochs=30)


def reader(weights, target):
    """Numbers of an agent that learnt when to read, given how late it may be."""
    task, agent = world(), ReadWriteAgent(Seq2SeqLM(config=MARIAN, source="causal"), hidden=32)
    delay = Delay(proportion=target, proportion_weight=4.0)
    module = PolicyGradient(
        policy=agent,
        objective=Reinforce(),
        replay=Fresh(),
        task=task.facts(),
        decoder=Sample(max_length=14, samples=4),
        evaluation_decoder=Greedy(max_length=14),
        reward=Sum({"quality": IncrementalBLEU(increments=False, n=2), "delay": delay}),
        baseline=LeaveOneOut(),
        optimizer=lambda weights: torch.optim.Adam(weights, 0.01),
    )
    agent.load_state_dict(weights)
    return trained(module, task, epochs=5)


@pytest.mark.slow
def test_an_agent_waits_as_long_as_the_target_allows():
    """Of five source words wait-2 has heard 2, 3, 4, 5 and all of them: 0.76 of the source, EOS counted."""
    torch.manual_seed(1)
    policy, start = translator()
    assert start["val/BLEU"] > 90
    patient, exact, hasty = (reader(policy.state_dict(), target) for target in (1.0, 0.76, 0.6))
    assert patient["val/BLEU"] > 90
    assert patient["val/AP"] >= exact["val/AP"] > hasty["val/AP"]
    # as early as can be without guessing
    assert exact["val/BLEU"] > 90
    assert exact["val/AP"] == pytest.approx(0.7, abs=0.03)
    assert exact["val/longest_wait"] < 2.3
    # guesses: whoever has to be earlier cannot know the word
    assert hasty["val/BLEU"] < 50
    assert hasty["val/AP"] < 0.6
