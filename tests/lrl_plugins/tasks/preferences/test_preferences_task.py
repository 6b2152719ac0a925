"""Batches of ranked answers, and that training and validating on them work."""

import json

import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch import Trainer

from lrl_core.interfaces import Task
from lrl_core.module import PolicyGradient
from lrl_core.preferences.comparison import Comparison, Comparisons
from lrl_core.reference import Reference
from lrl_core.types import Experience, Rollout
from lrl_plugins.decoders.sample import Sample
from lrl_plugins.objectives.dpo import DPO
from lrl_plugins.policies.recurrent import Recurrent
from lrl_plugins.replays.expert import Expert
from lrl_plugins.tasks.preferences.data import Preferences
from lrl_plugins.tasks.preferences.made_up import MadeUpPreferences
from lrl_plugins.tasks.preferences.sources import PreferenceSource, Ranked


class Listed(PreferenceSource):
    """What the test says."""

    def __init__(self, **splits):
        self.given = splits

    def splits(self):
        return self.given


THREE = Ranked("a", "say a", ("bad", "good", "fine"), (2, 0, 1), {"kind": "x"})
TIED = Ranked("b", "say b", ("one", "two"), (0, 0))


def small(**changes):
    return Preferences(Listed(train=[THREE, TIED], val=[TIED, THREE]), **{"batch_size": 2} | changes)


def test_a_batch_has_a_row_per_candidate_best_first():
    task = small()
    (batch,) = list(task.val_dataloader())
    assert batch.group.tolist() == [2, 2, 3, 3, 3]
    assert batch.features["rank"].tolist() == [0, 0, 0, 1, 2]
    assert batch.references == (("one",), ("two",), ("good",), ("fine",), ("bad",))
    decoded = [task.tokenizer.decode(line.tolist()) for line in batch.targets]
    assert decoded == ["one", "two", "good", "fine", "bad"]
    assert batch.targets.gather(1, batch.target_lengths[:, None] - 1).eq(task.tokenizer.eos).all()
    assert [row["candidate"] for row in batch.examples] == decoded
    assert batch.examples[4] == {"id": "a", "prompt": "say a", "candidate": "bad", "kind": "x"}
    assert len(batch.distinct()[0]) == 2


def test_comparisons_read_the_batches():
    (batch,) = list(small(template="q: {prompt} a:").val_dataloader())
    first, second = Comparisons.of(batch).items
    assert first == Comparison("say b", ("one", "two"), (0, 0), "b")
    assert second == Comparison("say a", ("good", "fine", "bad"), (0, 1, 2), "a")


def test_micro_batches_keep_a_comparison_together():
    (batch,) = list(Preferences(MadeUpPreferences(8, 8, 1), batch_size=8).val_dataloader())
    parts = Experience(expert=Rollout.of_targets(batch)).split(100)
    assert len(parts) > 1
    for part in parts:
        groups = part.expert.prompts.group.tolist()
        assert all(groups.count(group) == 4 for group in groups)


def test_the_best_answer_alone_has_no_rank_and_ties_take_turns():
    task = small(answers="best")
    loader, seen = task.train_dataloader(), []
    for _ in range(2):
        (batch,) = list(loader)
        assert len(batch) == 2
        assert batch.features == {}
        at = batch.group.tolist().index(1)
        seen.append(task.tokenizer.decode(batch.targets[at].tolist()))
        assert batch.references[at] == ("one", "two")
    assert sorted(seen) == ["one", "two"]
    for _ in range(2):
        (batch,) = list(task.val_dataloader())
        assert [task.tokenizer.decode(line.tolist()) for line in batch.targets] == ["one", "good"]


def test_the_vocabulary_does_not_depend_on_which_answers_are_shown():
    """So that a policy fine-tuned on the best answers starts DPO on all of them."""
    assert small().tokenizer.words == small(answers="best").tokenizer.words


def test_prompts_keep_their_end_and_answers_their_beginning():
    long = Ranked("a", "one two three four", ("five six seven", "x"), (0, 1))
    task = Preferences(Listed(train=[long], val=[long]), batch_size=1, max_prompt_length=2, max_length=3)
    (batch,) = list(task.val_dataloader())
    assert task.tokenizer.decode(batch.tokens[0].tolist()) == "three four"
    assert task.tokenizer.decode(batch.targets[0].tolist()) == "five six"
    assert batch.targets[0, 2] == task.tokenizer.eos


def test_facts_hold_the_best_answers_and_a_batch():
    facts = small().facts()
    assert facts.references == (("good",), ("one", "two"))
    assert facts.example.features["rank"].tolist() == [0, 0]
    assert "rank" not in small(answers="best").facts().example.features


@pytest.mark.parametrize(
    ("splits", "answers", "said"),
    [
        ({"train": [THREE]}, "ranked", r"Listed: got no prompts in split 'val'"),
        ({"train": [THREE, THREE], "val": [TIED]}, "ranked", "got 2 prompts with 1 different ids"),
        (
            {"train": [THREE, Ranked("c", "p", ("only",), (0,))], "val": [TIED]},
            "ranked",
            r"got 1 of 2 prompts with fewer than 2 candidate answers in split 'train' \(first: c\).*answers: best",
        ),
        ({"train": [Ranked("c", "p", (), ())], "val": [TIED]}, "best", "fewer than 1 candidate"),
    ],
)
def test_faulty_data_are_refused_before_training(splits, answers, said):
    with pytest.raises(ValueError, match=said):
        Preferences(Listed(**splits), answers=answers).facts()


def test_wrong_settings_are_refused():
    for name in ("batch_size", "max_prompt_length", "max_length", "min_count"):
        with pytest.raises(ValueError, match=rf"Preferences: got {name} 0, expected at least [12]"):
            small(**{name: 0})
    with pytest.raises(ValueError, match="Preferences: got answers 'worst', expected ranked or best"):
        small(answers="worst")
    with pytest.raises(ValueError, match="Preferences: got truncation 'middle'"):
        small(truncation="middle")
    with pytest.raises(ValueError, match=r"template: got '\{absent\}'"):
        small(template="{absent}").facts()


def test_recipes_name_sources_by_class(tmp_path):
    file = tmp_path / "x.jsonl"
    rows = [{"prompt": f"p{i}", "chosen": "a", "rejected": "b"} for i in range(60)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Task, "data")
    named = ["--data=Preferences", "--data.source=RankedJsonLines", f"--data.source.train={file}"]
    task = parser.instantiate_classes(parser.parse_args([*named, "--data.batch_size=4", "--data.answers=best"])).data
    assert isinstance(task, Preferences)
    assert next(iter(task.train_dataloader())).references == (("a",),) * 4


def trained(task, epochs, folder, **parts):
    torch.manual_seed(0)
    module = PolicyGradient(
        policy=Recurrent(cell="gru", embedding=16, hidden=32),
        replay=Expert(),
        task=task.facts(),
        evaluation_decoder=Sample(max_length=12),
        **parts,
    )
    trainer = Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, default_root_dir=folder,
    )  # fmt: skip
    trainer.fit(module, task)
    return module, {name: value.item() for name, value in trainer.callback_metrics.items()}


def test_dpo_learns_from_the_batches_and_answers_are_counted_once(tmp_path):
    """A policy that begins by chance tells good answers from bad after two epochs."""
    task = Preferences(MadeUpPreferences(train=256, val=10, test=1, noise=0.0), batch_size=16, max_length=12)
    parts = {"objective": DPO(beta=0.1), "reference": Reference()}
    parts["optimizer"] = lambda parameters: torch.optim.Adam(parameters, 0.01)
    module, metrics = trained(task, 2, tmp_path, **parts)
    assert {"val/worth", "val/words", "val/distinct_2", "val/perplexity"} <= set(metrics)
    assert len({answer.id for answer in module.answers}) == 10
    expert = module.last_experience.expert
    assert expert.reference_logprobs is not None
    with torch.no_grad():
        learnt = DPO(beta=0.1).loss(module.policy.eval(), module.last_experience).metrics
    assert learnt["dpo/accuracy"] > 0.75
    assert learnt["dpo/chosen"] > learnt["dpo/rejected"]
