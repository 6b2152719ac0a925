"""How peaked a policy is on human answers: against hand-made numbers and a plain sort of the vocabulary."""

import csv
import math

import pytest
import torch

from lrl_core import vocab
from lrl_core.phases import WarmUp
from lrl_core.testing.toy import TablePolicy, toy_prompts
from lrl_core.testing.toy_task import ToyTask
from lrl_core.types import Prompts, Rollout
from lrl_plugins.callbacks.peakiness import STATISTICS, Peakiness, token_sums
from lrl_plugins.objectives.cross_entropy import CrossEntropy
from lrl_plugins.policies.recurrent import Recurrent
from lrl_plugins.replays.expert import Expert


def human(targets, lengths=None):
    tokens = torch.tensor(targets)
    empty = toy_prompts(len(tokens), same=False)
    lengths = torch.full((len(tokens),), tokens.shape[1]) if lengths is None else torch.tensor(lengths)
    return Rollout.of_targets(Prompts(empty.tokens, empty.lengths, empty.group, None, tokens, lengths))


def means(policy, answers):
    *totals, count = token_sums(policy, answers).tolist()
    return dict(zip(STATISTICS, [total / count for total in totals], strict=True)) | {"count": count}


def test_hand_made_numbers():
    """Probabilities .5 .3 .2 everywhere; the human tokens are the first, the third and the second."""
    policy = TablePolicy([[math.log(0.5), math.log(0.3), math.log(0.2)]])
    found = means(policy, human([[0, 2], [1, 0]], lengths=[2, 1]))  # the last 0 is padding
    assert found == pytest.approx(
        {
            "mode_probability": 0.5,
            "top10_mass": 1.0,
            "entropy": 1.029653,
            "human_rank": (1 + 3 + 2) / 3,
            "human_is_mode": 1 / 3,
            "human_in_top10": 1.0,
            "human_probability": (0.5 + 0.2 + 0.3) / 3,
            "count": 3,
        }
    )


@pytest.mark.parametrize("chunk", [1, 3, 1000])
def test_chunks_keep_every_token_with_its_own_line(monkeypatch, chunk):
    """A bigram policy over 30 tokens: every position has other probabilities; a sort is the judge."""
    size = 30
    monkeypatch.setattr(vocab, "CHUNK_ELEMENTS", chunk * size)
    generator = torch.Generator().manual_seed(0)
    policy = TablePolicy(2 * torch.randn(1 + size, size, generator=generator))
    answers = human(torch.randint(size, (4, 5), generator=generator).tolist(), lengths=[5, 2, 4, 1])
    ranks, tops, own = [], [], []
    for tokens, length in zip(answers.tokens.tolist(), answers.lengths.tolist(), strict=True):
        for line, token in zip([0, *(t + 1 for t in tokens)], tokens[:length], strict=False):
            probability = policy.table[line].detach().softmax(0)
            order = probability.argsort(descending=True).tolist()
            ranks.append(order.index(token) + 1)
            tops.append(float(probability[order[:10]].sum()))
            own.append(float(probability[token]))
    assert any(rank > 10 for rank in ranks)
    found = means(policy, answers)
    assert found["count"] == len(ranks) == 12
    assert found["human_rank"] == pytest.approx(sum(ranks) / 12)
    assert found["human_in_top10"] == pytest.approx(sum(rank <= 10 for rank in ranks) / 12)
    assert found["human_is_mode"] == pytest.approx(sum(rank == 1 for rank in ranks) / 12)
    assert found["top10_mass"] == pytest.approx(sum(tops) / 12)
    assert found["human_probability"] == pytest.approx(sum(own) / 12)


def test_a_run_logs_before_and_after_and_says_so(short_run, capsys, tmp_path):
    watch = Peakiness(prompts=6)
    policy = Recurrent(embedding=6, hidden=8, layers=2, dropout=0.5)  # dropout: measured without it
    _, trainer = short_run(watch, epochs=2, policy=policy, warm_up=WarmUp(1, CrossEntropy(), Expert()))
    assert sum(len(answers) for answers in watch._answers) == 6
    assert trainer.callback_metrics["peakiness/entropy"] == pytest.approx(watch.now["peakiness/entropy"])
    assert watch.before != watch.now
    assert watch.measured_at == 6
    flat = " ".join(capsys.readouterr().out.split())
    shown = f"entropy {watch.before['peakiness/entropy']:.3g} -> {watch.now['peakiness/entropy']:.3g}"
    assert shown in flat
    with (tmp_path / "run" / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["peakiness/entropy"]]
    logged = [float(row["peakiness/entropy"]) for row in rows]
    # after the warm-up epoch, before reinforcement (the same policy), after the epoch of reinforcement
    assert len(logged) == 3
    assert logged[0] == pytest.approx(logged[1], rel=1e-5)
    assert logged[1] == pytest.approx(watch.before["peakiness/entropy"])


def test_measuring_changes_nothing_in_the_run(short_run):
    plain, _ = short_run()
    watched, _ = short_run(Peakiness())
    for one, other in zip(plain.policy.parameters(), watched.policy.parameters(), strict=True):
        assert one.equal(other)


def test_a_resumed_run_remembers_the_beginning(short_run, tmp_path):
    first = Peakiness()
    _, trainer = short_run(first, epochs=1)
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    second = Peakiness()
    short_run(second, epochs=2, ckpt_path=tmp_path / "one.ckpt")
    assert second.before == first.before
    assert second.now != first.now


def test_prompts_without_human_answers_are_refused(short_run, monkeypatch):
    collate = ToyTask._collate

    def without(self, keys):
        prompts = collate(self, keys)
        return Prompts(prompts.tokens, prompts.lengths, prompts.group, prompts.references, examples=prompts.examples)

    monkeypatch.setattr(ToyTask, "_collate", without)
    with pytest.raises(ValueError, match="validation prompts of ToyTask carry no human answers"):
        short_run(Peakiness())


def test_refuses_to_read_nothing():
    with pytest.raises(ValueError, match="prompts is 0"):
        Peakiness(prompts=0)
