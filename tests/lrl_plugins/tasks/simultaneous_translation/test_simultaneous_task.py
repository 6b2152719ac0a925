"""The task of simultaneous translation: batches by hand, real sentences, readers by epoch, and a whole small run."""

import gzip
import json
import random
from pathlib import Path

import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch import Callback, Trainer
from tokenizers import Tokenizer as Fast
from tokenizers import decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from lrl_core.interfaces import Task
from lrl_core.module import PolicyGradient
from lrl_core.phases import WarmUp
from lrl_core.registry import load
from lrl_core.tokenizer import WordTokenizer
from lrl_core.types import Rollout
from lrl_plugins.baselines.means import BatchMean
from lrl_plugins.decoders.sample import Greedy, Sample
from lrl_plugins.objectives.cross_entropy import CrossEntropy
from lrl_plugins.objectives.reinforce import Reinforce
from lrl_plugins.policies.read_write_agent import ReadWriteAgent
from lrl_plugins.policies.seq2seq_lm import Seq2SeqLM
from lrl_plugins.replays.expert import Expert
from lrl_plugins.replays.fresh import Fresh
from lrl_plugins.rewards.sum import Sum
from lrl_plugins.tasks.simultaneous_translation.data import SimultaneousTranslation
from lrl_plugins.tasks.simultaneous_translation.instances import read_instances
from lrl_plugins.tasks.simultaneous_translation.made_up import VerbLast, sentence
from lrl_plugins.tasks.simultaneous_translation.path import words_with_delays
from lrl_plugins.tasks.simultaneous_translation.rewards import Delay, IncrementalBLEU
from lrl_plugins.tasks.simultaneous_translation.rows import spelt
from lrl_plugins.tasks.text.sources import Example, Parallel, TextSource

torch.set_num_threads(1)
SHARED = Path(__file__).resolve().parents[5] / "shared" / "data" / "multi30k_de_en"


class Listed(TextSource):
    """What the test says."""

    def __init__(self, *pairs):
        self.pairs = pairs

    def splits(self):
        rows = [Example(f"r-{i}", asked, (said,) if said else ()) for i, (asked, said) in enumerate(self.pairs)]
        return {"train": rows, "val": rows[:1]}


def listed(*pairs, **options):
    return SimultaneousTranslation(Listed(*pairs), **{"batch_size": len(pairs), **options})


def batch_of(task, split="train"):
    return next(iter(task.loader(split)))


def texts(task, tokens, lengths):
    return [task.tokenizer.decode(row[:length].tolist()) for row, length in zip(tokens, lengths, strict=True)]


def reads_of(task, batch):
    read = task.tokenizer.id("<read>")
    return [(row == read).nonzero().flatten().tolist() for row in batch.targets]


def test_it_works_without_arguments():
    task = load("SimultaneousTranslation", "tasks")()
    facts = task.facts()
    assert len(facts.references) == len(task.examples["train"]) == 2000
    assert len(set(facts.example.group.tolist())) == 2
    assert facts.environment.read == facts.tokenizer.id("<read>") == len(facts.tokenizer) - 1
    assert (facts.environment.shown, facts.environment.spoken) == (1, False)
    batch = next(iter(task.train_dataloader()))
    assert len(batch) == 16
    assert texts(task, batch.tokens, batch.lengths) == [row["source"] for row in batch.examples]
    assert texts(task, batch.targets, batch.target_lengths) == [own[0] for own in batch.references]
    assert [len(task.splits()[split]) for split in ("train", "val", "test")] == [2000, 100, 100]
    groups = {split: {rows[i, 0][0].group for i in range(len(rows))} for split, rows in task.splits().items()}
    assert sum(map(len, groups.values())) == len(set().union(*groups.values())) == 2200


def test_a_batch_by_hand():
    """A reader of the whole sentence, as a lag of nothing else can be drawn for one word."""
    task = listed(("uno", "one"), ("zwei drei", "two three"), largest_lag=1, straying=0.0, vocabulary=None)
    read, eos, pad = task.tokenizer.id("<read>"), task.tokenizer.eos, task.tokenizer.pad
    batch = batch_of(task)
    (uno, zwei, drei), (one, two, three) = (task.tokenizer.encode(text) for text in ("uno zwei drei", "one two three"))
    assert batch.tokens.tolist() == [[uno, pad], [zwei, drei]]
    assert batch.lengths.tolist() == [1, 2]
    assert batch.features["visible"].tolist() == [[1, 1], [1, 2]]
    assert batch.references == (("one",), ("two three",))
    assert batch.examples[1] == {"id": "r-1", "source": "zwei drei", "pieces": ((zwei,), (drei,))}
    first, second = batch.targets.tolist()
    assert first == [one, eos, pad, pad]
    assert second in ([two, read, three, eos], [read, two, three, eos])
    assert batch.target_lengths.tolist() == [2, 4]
    assert batch.target_mask.tolist() == [[True, True, False, False], [True] * 4]


def test_spoken_words_stand_in_the_line_and_the_prompt_has_the_first_ones_only():
    task = listed(("uno dos tres", "one two three"), ("uno", "one"), spoken=True, straying=0.0)
    batch, read, pad = batch_of(task), task.tokenizer.id("<read>"), task.tokenizer.pad
    assert texts(task, batch.tokens, batch.lengths) == ["uno", "uno"]
    assert batch.features == {}
    assert batch.examples[0]["source"] == "uno dos tres"
    line, mask = batch.targets[0].tolist(), batch.target_mask[0].tolist()
    world = [token for token, own in zip(line, mask, strict=True) if not own]
    assert world == task.tokenizer.encode("dos tres")
    assert [line[i - 1] for i, own in enumerate(mask) if not own] == [read, read]
    assert not batch.target_mask[1, batch.target_lengths[1] :].any()
    expert = Rollout.of_targets(batch)
    assert (expert.tokens[expert.action_mask] != pad).all()
    assert expert.action_mask[0].tolist() == mask


@pytest.mark.parametrize("first", [0, 2, 9])
def test_as_many_words_are_heard_first_as_asked(first):
    task = listed(("uno dos tres", "one two"), ("uno", "one"), first=first, straying=0.0, vocabulary=40)
    batch = batch_of(task)
    pieces = [list(map(len, row["pieces"])) for row in batch.examples]
    wanted = [[sum(own[: min(first + reads, 3)]) for reads in range(max(3 - first, 0) + 1)] for own in pieces]
    assert batch.features["visible"].tolist() == wanted
    assert batch.features["visible"][:, -1].equal(batch.lengths)
    assert max(map(len, reads_of(task, batch))) <= max(3 - first, 0)


def test_readers_are_new_in_every_epoch_and_the_same_in_evaluation_and_in_another_run():
    def epochs(seed=0):
        task = SimultaneousTranslation(VerbLast(48, 8, 8), batch_size=48, seed=seed)
        loader, held = task.train_dataloader(), task.val_dataloader()
        trained = [{row["id"]: reads for row, reads in zip(b.examples, reads_of(task, b), strict=True)}
                   for _ in range(3) for b in loader]  # fmt: skip
        shown = [reads_of(task, batch) for _ in range(2) for batch in held]
        return trained, shown

    (first, second, third), (val, again) = epochs()
    assert first.keys() == second.keys()
    assert sum(first[name] != second[name] for name in first) > 15
    assert first != third
    assert val == again
    assert epochs() == ([first, second, third], [val, again])
    assert epochs(seed=1)[0] != [first, second, third]


def test_lines_are_translations_with_reads_as_a_reader_would_have_heard():
    task = SimultaneousTranslation(VerbLast(64, 4, 4), batch_size=64, vocabulary=120)
    batch, read = batch_of(task), task.tokenizer.id("<read>")
    lags = set()
    for row, example in enumerate(batch.examples):
        line = batch.targets[row, : batch.target_lengths[row]].tolist()
        assert line[-1] == task.tokenizer.eos
        words, delays = words_with_delays(line, (read,), 1, len(example["pieces"]), task.tokenizer.decode)
        assert " ".join(words) == batch.references[row][0]
        assert delays == sorted(delays)
        lags.add(delays[0])
    assert lags >= {1, 2, 3, 4}


def test_a_long_sentence_is_cut_and_its_words_are_counted_as_far_as_they_are_heard():
    batch = batch_of(listed(("a b c d e", "v w x y z"), max_words=3, straying=0.0))
    assert batch.examples[0]["source"] == "a b c"
    assert batch.lengths.tolist() == [3]
    assert batch.references == (("v w x y z",),)
    assert (batch.targets[0] > 3).sum() - len(reads_of(listed(("a", "b")), batch)[0]) >= 3


def test_words_without_a_token_are_neither_heard_nor_counted():
    """A vocabulary of words knows no dashes: nothing could be seen of one, and the end would be seen too early."""
    task = listed(("- uno ... dos .", "- one two ."), ("--", "one"), straying=0.0)
    batch = batch_of(task)
    assert batch.examples[0]["source"] == "uno dos"
    assert batch.features["visible"].tolist() == [[1, 2], [0, 0]]
    assert [len(row["pieces"]) for row in batch.examples] == [2, 0]
    whole = batch_of(listed(("- uno ... dos .", "- one two ."), straying=0.0, vocabulary=40))
    assert whole.examples[0]["source"] == "- uno ... dos ."


def test_lower_case_is_an_option():
    for lowercase, expected in ((False, "Der Mann"), (True, "der mann")):
        batch = batch_of(listed(("Der Mann", "The Man"), lowercase=lowercase, vocabulary=40))
        assert batch.examples[0]["source"] == expected
        assert batch.references[0][0] == ("the man" if lowercase else "The Man")


def glued_tokenizer(folder):
    """As GPT-2's: a space belongs to the token behind it, and a text begins without one."""
    inner = Fast(models.BPE(unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.train_from_iterator(
        ["the dog sees the cat", "der Hund sieht die Katze"] * 4,
        trainers.BpeTrainer(vocab_size=90, special_tokens=["<pad>", "<s>", "</s>", "<unk>"], show_progress=False),
    )
    PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("kind", ["words", "pieces", "glued"])
def test_sentences_come_back_from_their_tokens(kind, tmp_path):
    given = {"words": {}, "pieces": {"vocabulary": 60}, "glued": {"tokenizer": glued_tokenizer(tmp_path)}}[kind]
    task = listed(("der Hund sieht die Katze", "the dog sees the cat"), ("die Katze", "the cat"), **given)
    batch = batch_of(task)
    lower = str.lower if kind == "words" else str
    assert texts(task, batch.tokens, batch.lengths) == [lower(row["source"]) for row in batch.examples]
    assert texts(task, batch.targets, batch.target_lengths) == [lower(own[0]) for own in batch.references]
    if kind == "glued":
        symbols = (task.tokenizer.id("<read>"), task.tokenizer.eos)
        line = batch.targets[0, : batch.target_lengths[0]].tolist()
        assert task.tokenizer.encode("the dog sees the cat") == [i for i in line if i not in symbols]


def test_words_are_spelt_one_by_one():
    words = WordTokenizer(["a", "b"])
    assert spelt("a - b c", words, 9) == [("a", (4,)), ("b", (5,)), ("c", (words.unk,))]
    assert spelt("a - b c", words, 2) == [("a", (4,)), ("b", (5,))]
    assert spelt(" ", words, 2) == []


def test_loading_goes_on_where_it_stopped():
    def loader():
        return SimultaneousTranslation(VerbLast(40, 4, 4), batch_size=8).train_dataloader()

    whole = loader()
    batches = [batch.targets.tolist() for _ in range(2) for batch in whole]
    assert len(batches) == 10
    stopped, resumed = loader(), loader()
    for _ in stopped:
        pass
    for count, _ in enumerate(stopped, start=1):
        if count == 2:
            break
    resumed.load_state_dict(stopped.state_dict())
    assert [batch.targets.tolist() for batch in resumed] == batches[7:]


def test_metrics_know_what_was_heard_first_and_which_words_there_are():
    task = listed(("uno dos", "one two"), first=2)
    metric = task.metrics("validate")
    assert metric.reads == {task.tokenizer.id("<read>")}
    assert metric.first == 2
    assert metric.path is None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"batch_size": 0}, "got batch_size 0, expected at least 1"),
        ({"first": -1}, "got first -1, expected at least 0"),
        ({"largest_lag": 0}, "got largest_lag 0, expected at least 1"),
        ({"max_words": 0}, "got max_words 0, expected at least 1"),
        ({"min_count": 0}, "got min_count 0, expected at least 1"),
        ({"straying": 1.5}, r"got straying 1\.5, expected a share from 0 to 1"),
    ],
)
def test_wrong_numbers_are_refused(given, said):
    with pytest.raises(ValueError, match=f"SimultaneousTranslation: {said}"):
        SimultaneousTranslation(**given)


def test_missing_splits_and_half_answered_data_are_refused():
    with pytest.raises(ValueError, match="Listed: got no sentences in split 'test'"):
        listed(("a", "b")).test_dataloader()
    with pytest.raises(ValueError, match="Listed: got 1 of 2 examples without an answer in split 'train'"):
        listed(("a", "b"), ("c", "")).facts()
    with pytest.raises(ValueError, match="Listed: got no examples in split 'train'"):
        SimultaneousTranslation(Listed()).facts()


def test_sentences_without_translations_can_be_heard():
    task = listed(("uno dos", ""), ("tres", ""))
    facts, batch = task.facts(), batch_of(task)
    assert facts.references == ()
    assert (batch.references, batch.targets, batch.target_mask) == (None, None, None)
    assert batch.features["visible"].tolist() == [[1, 2], [1, 1]]


def test_the_verb_is_heard_last_and_written_second():
    splits = VerbLast(50, 10, 10).splits()
    assert [len(splits[split]) for split in ("train", "val", "test")] == [50, 10, 10]
    assert splits == VerbLast(50, 10, 10).splits()
    assert VerbLast(50, 10, 10, seed=1).splits() != splits
    prompts = [row.prompt for rows in splits.values() for row in rows]
    assert len(set(prompts)) == 70
    found = dict(sentence(random.Random(seed)) for seed in range(20000))
    assert found["runo rot bal sehat"] == "the man sees the red ball"
    assert found["sila am see buk kofat"] == "the woman buys the book at the lake"


def test_recipes_name_sources_by_class():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Task, "data")
    load("SimultaneousTranslation", "tasks")
    named = ["--data=SimultaneousTranslation", "--data.source=VerbLast", "--data.source.train=30"]
    task = parser.instantiate_classes(parser.parse_args([*named, "--data.first=2", "--data.vocabulary=null"])).data
    assert isinstance(task, SimultaneousTranslation)
    assert (len(task.examples["train"]), task.first) == (30, 2)
    files = [f"--data.source.{split}_{side}=x" for split in ("train", "val") for side in ("prompts", "answers")]
    parallel = parser.instantiate_classes(parser.parse_args([named[0], "--data.source=Parallel", *files])).data
    assert isinstance(parallel.source, Parallel)


def test_two_files_are_read_line_by_line(tmp_path):
    pairs = [("ein Hund .", "a dog ."), ("", "nothing"), ("zwei Hunde", "two dogs")]
    for name, lines in zip(("de", "en"), zip(*pairs, strict=True), strict=True):
        with gzip.open(tmp_path / f"x.{name}.gz", "wt", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
    files = [str(tmp_path / "x.de.gz"), str(tmp_path / "x.en.gz")]
    task = SimultaneousTranslation(Parallel(*files, *files), batch_size=2)
    assert [row.id for row in task.examples["train"]] == ["train-1", "train-3"]
    assert [row["source"] for row in batch_of(task).examples] == ["ein Hund", "zwei Hunde"]


@pytest.fixture(scope="module")
def multi30k():
    if not SHARED.is_dir():
        pytest.skip("the data set multi30k_de_en is not here")
    names = [
        str(SHARED / f"{split}.{side}.gz") for split in ("train", "val", "test_2016_flickr") for side in ("de", "en")
    ]
    return SimultaneousTranslation(Parallel(*names), batch_size=64)


def test_multi30k_is_whole(multi30k):
    assert {split: len(rows) for split, rows in multi30k.examples.items()} == {
        "train": 29000,
        "val": 1014,
        "test": 1000,
    }
    first = multi30k.examples["train"][0]
    assert first.prompt == "Zwei junge weiße Männer sind im Freien in der Nähe vieler Büsche."
    assert first.references == ("Two young, White males are outside near many bushes.",)


def test_every_sentence_of_multi30k_can_be_heard(multi30k):
    """What would stop a run in the middle of an epoch: a sentence of which nothing is seen before a READ."""
    rows = multi30k.splits()["train"]
    silent = [row.example.id for i in range(0, 29000, 29) for row in rows[i, 0] if not all(row.source)]
    assert silent == []
    batch = next(iter(multi30k.val_dataloader()))
    seen = batch.features["visible"]
    assert (seen[:, 0] >= 1).all()
    assert (seen.diff(dim=1) >= 0).all()
    assert seen[:, -1].equal(batch.lengths)


MARIAN = {
    "model_type": "marian", "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "max_position_embeddings": 64,
    "dropout": 0.1,
}  # fmt: skip


class Ratios(Callback):
    """How far the importance ratios of fresh rollouts are from 1."""

    def __init__(self):
        self.errors = []

    def on_train_batch_end(self, trainer, module, *rest):
        if "train/ratio/first_error" in trainer.callback_metrics:
            self.errors.append(float(trainer.callback_metrics["train/ratio/first_error"]))


@pytest.mark.parametrize("agent", [False, True])
def test_warm_up_reinforcement_validation_and_test_in_one_run(agent, tmp_path):
    torch.manual_seed(0)
    task, ratios = SimultaneousTranslation(VerbLast(32, 6, 7), batch_size=16), Ratios()
    translator = Seq2SeqLM(config=MARIAN, source="causal")
    module = PolicyGradient(
        policy=ReadWriteAgent(translator, hidden=8, train_translator=True) if agent else translator,
        objective=Reinforce(),
        replay=Fresh(),
        task=task.facts(),
        decoder=Sample(max_length=12, samples=2),
        evaluation_decoder=Greedy(max_length=20),
        reward=Sum({"quality": IncrementalBLEU(), "delay": Delay(0.5, wait=2)}),
        baseline=BatchMean(),
        warm_up=WarmUp(epochs=1, objective=CrossEntropy(), replay=Expert()),
    )
    trainer = Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path, num_sanity_val_steps=0, callbacks=[ratios],
    )  # fmt: skip
    trainer.fit(module, datamodule=task)
    numbers = {name: value.item() for name, value in trainer.callback_metrics.items()}
    assert {"val/BLEU", "val/AP", "val/AL", "val/empty", "val/reads_share", "val/perplexity"} <= numbers.keys()
    assert {"reward/quality", "reward/delay"} <= numbers.keys()
    assert len(ratios.errors) >= 2
    assert max(ratios.errors) < 1e-3
    trainer.test(module, datamodule=task, verbose=False)
    rows = read_instances(tmp_path / "simuleval" / "instances.log")
    assert [row.source for row in rows] == [row.prompt for row in task.examples["test"]]
    assert json.loads((tmp_path / "simuleval" / "instances.log").read_text().splitlines()[0])["index"] == 0
