import json
import random

import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch import LightningModule, Trainer

from lrl_core.interfaces import Task
from lrl_core.registry import load
from lrl_plugins.tasks.text.data_to_text import DataToText
from lrl_plugins.tasks.text.paraphrase import Paraphrase
from lrl_plugins.tasks.text.sources import Example, TextSource
from lrl_plugins.tasks.text.summarisation import Summarisation

TASKS = ["Arithmetic", "DataToText", "Infilling", "LanguageModelling", "Paraphrase", "Summarisation"]


class Listed(TextSource):
    """What the test says."""

    def __init__(self, **splits):
        self.given = splits

    def splits(self):
        return self.given


def example(name, *references, prompt=None, **columns):
    return Example(name, prompt or f"say {name}", references, columns)


def small(**changes):
    """A task of prompts "a" (three answers), "b" and "c"."""
    examples = [example("a", "one", "two", "three", kind="x"), example("b", "only b"), example("c", "only c")]
    return Summarisation(Listed(train=examples, val=examples[:2]), **changes)


@pytest.mark.parametrize("name", TASKS)
def test_every_task_works_without_arguments(name):
    task = load(name, "tasks")()
    facts = task.facts()
    batch = next(iter(task.train_dataloader()))
    assert len(facts.references) == len(task.examples["train"])
    assert len(set(facts.example.group.tolist())) == 2
    for row, shown in enumerate(batch.examples):
        asked = batch.tokens[row, : batch.lengths[row]].tolist()
        target = batch.targets[row, : batch.target_lengths[row]].tolist()
        assert facts.tokenizer.decode(asked) != ""
        assert target[-1] == facts.tokenizer.eos
        assert {"id", "prompt"} <= set(shown)
        assert facts.tokenizer.encode(facts.tokenizer.decode(target[:-1])) == target[:-1]
        assert batch.tokens[row, batch.lengths[row] :].eq(facts.tokenizer.pad).all()
    everything = [text for e in task.examples["train"] for text in (e.prompt, *e.references)]
    assert not any(facts.tokenizer.unk in facts.tokenizer.encode(text) for text in everything[:200])


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("stage", ["validate", "test"])
def test_human_answers_score_better_than_shuffled_ones(name, stage):
    task = load(name, "tasks")()
    examples = task.examples["test" if stage == "test" else "val"]
    said = [e.references[0] for e in examples]
    scores = {}
    for how in ("human", "shuffled"):
        metric = task.metrics(stage)
        metric.update([e.id for e in examples], said, [e.references for e in examples])
        scores[how] = {key: value.item() for key, value in metric.compute().items()}
        random.Random(0).shuffle(said)
    best = {
        "Arithmetic": "accuracy", "DataToText": "slot_coverage", "LanguageModelling": "BLEU_2", "Paraphrase": "iBLEU",
        "Summarisation": "ROUGE_2", "Infilling": "GLEU_4",
    }[name]  # fmt: skip
    assert scores["human"][best] > scores["shuffled"][best] + 0.2


def test_groups_are_unique_over_the_splits_and_examples_carry_columns():
    task = small(batch_size=3)
    (train,), (val,) = list(task.train_dataloader()), list(task.val_dataloader())
    assert sorted(train.group.tolist()) == [0, 1, 2]
    assert val.group.tolist() == [3, 4]
    shown = next(row for row in train.examples if row["id"] == "a")
    assert shown == {"id": "a", "prompt": "say a", "kind": "x"}
    assert dict(zip((row["id"] for row in val.examples), val.references, strict=True)) == {
        "a": ("one", "two", "three"), "b": ("only b",)
    }  # fmt: skip


def test_answers_of_a_prompt_stand_together_and_take_turns():
    task = small(batch_size=3, references_per_prompt=2)
    loader = task.train_dataloader()
    seen = []
    for _ in range(3):
        (batch,) = list(loader)
        groups = batch.group.tolist()
        assert sorted(groups) == [0, 0, 1, 2]
        assert abs(groups.index(0) - (3 - groups[::-1].index(0))) == 1
        seen.append({task.tokenizer.decode(batch.targets[i].tolist()) for i in range(4) if groups[i] == 0})
    assert [len(answers) for answers in seen] == [2, 2, 2]
    assert seen[0] | seen[1] == {"one", "two", "three"}
    assert len(batch.distinct()[0]) == 3


def test_validation_has_the_first_answer_in_every_epoch():
    task = small(references_per_prompt=3)
    for _ in range(2):
        (batch,) = list(task.val_dataloader())
        assert [task.tokenizer.decode(line.tolist()) for line in batch.targets] == ["one", "only b"]


def test_long_answers_are_cut_before_their_end():
    task = Summarisation(Listed(train=[example("a", "one two three four")] * 1, val=[example("b", "x")]), max_length=3)
    target = task.facts().example.targets[0].tolist()
    assert target == [*task.tokenizer.encode("one two"), task.tokenizer.eos]


def test_prompts_without_answers_have_no_targets():
    task = Summarisation(Listed(train=[example("a"), example("b")], val=[example("c")]), batch_size=2)
    batch = next(iter(task.train_dataloader()))
    assert batch.targets is None
    assert batch.references is None
    assert task.facts().references == ()


def test_placeholders_reach_prompts_answers_and_vocabulary():
    table = example("a", "Blue Spice is a pub", prompt="name[Blue Spice], eatType[pub]")
    task = DataToText(Listed(train=[table], val=[table]), placeholders=["name"])
    batch = task.facts().example
    assert batch.references[0] == ("xname is a pub",)
    assert batch.examples[0]["prompt"] == "name[xname], eatType[pub]"
    assert "spice" not in task.tokenizer.words


def test_a_byte_pair_vocabulary_serves_prompts_and_answers():
    task = small(vocabulary=40)
    assert len(task.tokenizer) <= 40
    batch = next(iter(task.val_dataloader()))
    assert task.tokenizer.decode(batch.tokens[0, : batch.lengths[0]].tolist()) == "say a"
    assert task.tokenizer.decode(batch.targets[0].tolist()) == "one"


@pytest.mark.parametrize(
    ("splits", "said"),
    [
        ({"train": [example("a", "x")]}, r"Listed: got no examples in split 'val'.*Name a file"),
        (
            {"train": [example("a", "x")] * 2, "val": [example("a", "x")]},
            r"got 2 examples with 1 different ids",
        ),
        ({"train": [example("a", "x"), example("b")], "val": [example("a", "x")]}, r"got 1 of 2 .*\(first: b\).*none"),
    ],
)
def test_faulty_data_are_refused_before_training(splits, said):
    with pytest.raises(ValueError, match=said):
        Summarisation(Listed(**splits)).facts()


def test_wrong_settings_and_absent_splits_are_refused():
    for name in ("batch_size", "references_per_prompt", "max_prompt_length", "max_length", "min_count"):
        with pytest.raises(ValueError, match=rf"Summarisation: got {name} 0, expected at least [12]\. Correct"):
            small(**{name: 0})
    with pytest.raises(ValueError, match=r"Summarisation: got truncation 'middle', expected left or right"):
        small(truncation="middle")
    with pytest.raises(ValueError, match=r"template: got '\{absent\}'"):
        small(template="{absent}").facts()
    with pytest.raises(ValueError, match=r"Listed: got no prompts in split 'test'"):
        small().test_dataloader()
    assert len(small().predict_dataloader()) == 1


def test_recipes_name_sources_by_class(tmp_path):
    file = tmp_path / "x.jsonl"
    file.write_text("".join(json.dumps({"en": ["a", "b"]}) + "\n" for _ in range(30)))
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Task, "data")
    fields = ["--data.source.prompt_field=en", "--data.source.references_fields=[en]"]
    named = ["--data=Paraphrase", "--data.source=JsonLines", f"--data.source.train={file}", *fields]
    task = parser.instantiate_classes(parser.parse_args([*named, "--data.batch_size=4"])).data
    assert isinstance(task, Paraphrase)
    assert next(iter(task.train_dataloader())).references == (("b",),) * 4


class Counting(LightningModule):
    """Remembers the prompts of each step."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen = []

    def training_step(self, prompts, batch_idx):
        self.seen.append(prompts.group.tolist())
        return self.weight.sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.mark.parametrize(("overfit", "alike"), [(0.0, False), (1, True)])
def test_lightning_trains_on_it(tmp_path, overfit, alike):
    examples = [example(str(i), "x") for i in range(64)]
    model = Counting()
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(
        max_epochs=2, accelerator="cpu", overfit_batches=overfit, default_root_dir=tmp_path,
        enable_model_summary=False, limit_val_batches=0, **quiet,
    )  # fmt: skip
    trainer.fit(model, datamodule=Summarisation(Listed(train=examples, val=examples[:1]), batch_size=32))
    half = len(model.seen) // 2
    assert (model.seen[:half] == model.seen[half:]) == alike
