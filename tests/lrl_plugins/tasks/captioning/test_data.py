import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch import LightningModule, Trainer
from PIL import Image

from lrl_core.interfaces import Task
from lrl_core.tokenizer import WordTokenizer
from lrl_plugins.tasks.captioning.data import Captioning, DrawnScenes, FeatureFile, JsonLines, KarpathySplit
from lrl_plugins.tasks.captioning.sources import CaptionedImage, Source

SHARED = Path(__file__).resolve().parents[4] / ".." / "shared" / "data"


def shared(name):
    if not (SHARED / name).is_dir():
        pytest.skip(f"the data set {name} is not here")
    return SHARED / name


def drawn(train=8, val=3, test=3, **changes):
    return Captioning(DrawnScenes(train, val, test), **changes)


class Listed(Source):
    """What the test says."""

    def __init__(self, **splits):
        self.given = splits

    def splits(self):
        return self.given


def image(name, *captions):
    return CaptionedImage(name, captions, None)


def texts_only(tmp_path, names, **changes):
    """A task of images "a" (three captions), "b", ... with features of one region each."""
    images = [image("a", "one", "two", "three"), *(image(name, f"only {name}") for name in names)]
    np.savez(tmp_path / "f.npz", **{i.id: np.full((k + 1, 2), k + 1.0) for k, i in enumerate(images)})
    return Captioning(Listed(train=images, val=images[:1]), FeatureFile(str(tmp_path / "f.npz")), **changes)


def test_a_training_batch():
    task = drawn(batch_size=4, max_length=30)
    batch = next(iter(task.train_dataloader()))
    assert batch.tokens.shape == (4, 0)
    assert batch.lengths.tolist() == [0] * 4
    assert batch.features["pixels"].shape == (4, 3, 48, 48)
    assert batch.features["pixels"].abs().max() <= 1
    assert [len(set(five)) for five in batch.references] == [5] * 4
    for row in range(4):
        target = batch.targets[row, : batch.target_lengths[row]].tolist()
        assert target[-1] == task.tokenizer.eos
        assert task.tokenizer.decode(target[:-1]) == batch.examples[row]["caption"]
        assert batch.examples[row]["caption"] in batch.references[row]
        assert batch.targets[row, batch.target_lengths[row] :].eq(task.tokenizer.pad).all()
        assert batch.examples[row]["id"] == f"train-{batch.group[row]}"


def test_groups_are_unique_over_the_splits():
    task = drawn()
    loaders = {"val": task.val_dataloader(), "test": task.test_dataloader()}
    groups = {split: {g for batch in loader for g in batch.group.tolist()} for split, loader in loaders.items()}
    groups["train"] = {row.group for index in range(8) for row in task._rows["train"][index, 0]}
    assert groups == {"train": set(range(8)), "val": {8, 9, 10}, "test": {11, 12, 13}}


def test_facts_tell_training_captions_and_two_rows():
    task = drawn(captions_per_image=3)
    facts = task.facts()
    assert facts.references == tuple(row.captions for row in task.source.splits()["train"])
    assert len(facts.example) == 2
    assert len(set(facts.example.group.tolist())) == 2
    words = {word for five in facts.references for caption in five for word in caption.split()}
    assert set(facts.tokenizer.words) == words | set(WordTokenizer.SPECIALS)
    assert facts.tokenizer is task.tokenizer


def test_captions_of_an_image_stand_together_and_take_turns(tmp_path):
    task = texts_only(tmp_path, "b", batch_size=2, captions_per_image=2)
    loader = task.train_dataloader()
    epochs = []
    for _ in range(3):
        (batch,) = list(loader)
        groups = batch.group.tolist()
        assert groups in ([0, 0, 1], [1, 0, 0])
        epochs.append({row["caption"] for row in batch.examples if row["id"] == "a"})
    assert [len(captions) for captions in epochs] == [2, 2, 2]
    assert epochs[0] | epochs[1] == {"one", "two", "three"}
    assert epochs[0] != epochs[1]


def test_one_caption_per_epoch_shows_all_in_turn(tmp_path):
    rows = texts_only(tmp_path, "")._rows["train"]
    assert sorted(rows.captions(0, epoch)[0] for epoch in range(3)) == ["one", "three", "two"]
    assert rows.captions(0, 0) == rows.captions(0, 3)
    orders = {tuple(c for e in range(3) for c in texts_only(tmp_path, "", seed=s)._rows["train"].captions(0, e))
              for s in range(10)}  # fmt: skip
    assert len(orders) > 2


def test_validation_shows_every_image_once_with_its_first_caption(tmp_path):
    task = texts_only(tmp_path, "b", captions_per_image=3)
    for _ in range(2):
        (batch,) = list(task.val_dataloader())
        assert [row["caption"] for row in batch.examples] == ["one"]
        assert batch.references == (("one", "two", "three"),)


def test_features_stand_in_for_pictures_and_are_padded(tmp_path):
    task = texts_only(tmp_path, "bc", batch_size=3)
    batch = next(iter(task.train_dataloader()))
    assert set(batch.features) == {"regions", "region_lengths"}
    assert batch.features["regions"].shape == (3, 3, 2)
    for row, group in enumerate(batch.group.tolist()):
        expected = torch.zeros(3, 2)
        expected[: group + 1] = group + 1.0
        assert batch.features["region_lengths"][row] == group + 1
        assert torch.equal(batch.features["regions"][row], expected)


def test_features_of_different_widths_are_named(tmp_path):
    np.savez(tmp_path / "f.npz", a=np.ones((1, 2)), b=np.ones((1, 3)))
    images = [image("a", "x"), image("b", "y")]
    task = Captioning(Listed(train=images, val=images), FeatureFile(str(tmp_path / "f.npz")), batch_size=2)
    with pytest.raises(ValueError, match=r"Captioning: got features of 2 widths \(2, 3\).*images a, b.*Extract"):
        next(iter(task.train_dataloader()))


def test_long_captions_are_cut_and_rare_words_stay_as_unknown():
    task = drawn(max_length=5, min_count=4)
    batch = next(iter(task.val_dataloader()))
    assert batch.targets.shape[1] == 5
    assert (batch.targets[:, -1] == task.tokenizer.eos).all()
    words = Captioning(DrawnScenes(8, 3, 3)).tokenizer
    assert len(task.tokenizer) < len(words)
    odd = task._rows["train"]._target("a zebra")
    assert odd[1:] == (WordTokenizer.unk, WordTokenizer.eos)


def test_a_saved_tokenizer_is_loaded(tmp_path):
    WordTokenizer(["zebra", "a"]).save(tmp_path / "words.json")
    task = drawn(tokenizer=str(tmp_path / "words.json"))
    assert task.facts().tokenizer.words == (*WordTokenizer.SPECIALS, "zebra", "a")


def test_seed_and_epoch_decide_the_order():
    orders = [[b.group.tolist() for b in drawn(train=32, batch_size=8, seed=s).train_dataloader()] for s in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]


def test_workers_give_the_same_batches():
    one, two = (list(drawn(batch_size=4, num_workers=n).train_dataloader()) for n in (0, 2))
    for a, b in zip(one, two, strict=True):
        assert torch.equal(a.features["pixels"], b.features["pixels"])
        assert a.examples == b.examples


@pytest.mark.parametrize(
    ("splits", "said"),
    [
        ({"train": [], "val": [image("a", "x")]}, "no images in split 'train'.*Name a file"),
        ({"train": [image("a", "x")]}, "no images in split 'val'"),
        ({"train": [image("a", "x"), image("b")], "val": [image("c", "x")]}, "1 images without a caption .*first: b"),
        ({"train": [image("a", "x")] * 2, "val": [image("c", "x")]}, "2 images with 1 different ids .*id_field"),
        ({"train": [image("a", "x")], "val": [image("c", "x")]}, "1 pictures of 1 .*a has neither a picture nor"),
    ],
)
def test_faulty_data_are_refused_before_training(splits, said):
    with pytest.raises(ValueError, match=f"Listed: got {said}"):
        Captioning(Listed(**splits)).facts()


def test_missing_pictures_and_features_are_refused_before_training(tmp_path):
    row = {"i": "gone.jpg", "captions": ["x"]}
    (tmp_path / "x.jsonl").write_text("".join(json.dumps({**row, "split": s}) + "\n" for s in ("train", "val")))
    source = JsonLines(str(tmp_path / "x.jsonl"), str(tmp_path))
    with pytest.raises(ValueError, match=r"1 pictures of 1 in split 'train'.*gone\.jpg does not exist.*Complete"):
        Captioning(source).setup("fit")
    np.savez(tmp_path / "f.npz", other=np.ones((1, 2)))
    with pytest.raises(ValueError, match=r"no features of 1 of 1 images in .*f\.npz \(first: gone\.jpg"):
        Captioning(source, FeatureFile(str(tmp_path / "f.npz"))).facts()


def test_small_numbers_and_absent_splits_are_refused():
    with pytest.raises(ValueError, match="Captioning: got batch_size 0, expected at least 1"):
        drawn(batch_size=0)
    with pytest.raises(ValueError, match=r"The train images of DrawnScenes: got 8 rows .* 9.*Lower batch_size"):
        len(drawn(batch_size=9).train_dataloader())
    with pytest.raises(ValueError, match="no images in split 'test'"):
        drawn(test=0).test_dataloader()
    assert len(list(drawn(test=0).predict_dataloader())) == 1


def test_validation_and_test_have_metrics_of_their_own():
    names = {stage: type(drawn().metrics(stage)).__name__ for stage in ("validate", "test")}
    assert names == {"validate": "CaptionMetrics", "test": "PublishedCaptionMetrics"}


def test_recipes_name_sources_by_class():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--data", type=Task)
    text = """
    data:
      class_path: Captioning
      init_args:
        batch_size: 2
        source: {class_path: DrawnScenes, init_args: {train: 4, val: 1, test: 1}}
    """
    task = parser.instantiate(parser.parse_string(text)).data
    assert len(task.train_dataloader()) == 2
    options = ["--data=Captioning", "--data.source=KarpathySplit", "--data.source.annotations=a.json"]
    bare = parser.instantiate(parser.parse_args([*options, "--data.features.path=x.npz"]))
    assert isinstance(bare.data.source, KarpathySplit)
    assert isinstance(bare.data.features, FeatureFile)


class Sees(LightningModule):
    def __init__(self):
        super().__init__()
        self.seen = []
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def training_step(self, prompts, batch_idx):
        self.seen.append(prompts.group.tolist())
        return self.weight * prompts.features["pixels"].mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.mark.parametrize(("overfit", "epochs_alike"), [(0.0, False), (1, True)])
def test_lightning_trains_on_it(tmp_path, overfit, epochs_alike):
    module = Sees()
    trainer = Trainer(
        default_root_dir=tmp_path, accelerator="cpu", max_epochs=2, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, overfit_batches=overfit,
    )  # fmt: skip
    trainer.fit(module, drawn(train=16, batch_size=8))
    half = len(module.seen) // 2
    assert half == (1 if overfit else 2)
    assert (module.seen[:half] == module.seen[half:]) is epochs_alike


def test_emoji_names_and_tags():
    folder = shared("emoji_names")
    source = JsonLines(str(folder / "emoji.jsonl.gz"), str(folder / "images.npz"), captions_fields=["name", "tags"])
    task = Captioning(source, batch_size=8)
    assert {split: len(images) for split, images in task.images.items()} == {"train": 2848, "val": 210, "test": 345}
    batch = next(iter(task.train_dataloader()))
    assert batch.features["pixels"].shape == (8, 3, 48, 48)
    first = task.images["train"][0]
    assert first.captions == ("grinning face", "smile", "happy", "grinning")
    expected = np.load(folder / "images.npz")["images"][0] / 127.5 - 1
    shown = task._rows["train"][0, 0][0].pixels.permute(1, 2, 0)
    np.testing.assert_allclose(shown, expected, atol=1e-5)


@pytest.mark.parametrize("packed", [False, True])
def test_coco_photographs_as_files(tmp_path, packed):
    folder = shared("coco_photos_free")
    where = folder / "photos.tar"
    if not packed:
        with tarfile.open(where) as archive:
            archive.extractall(tmp_path, filter="data")
        where = tmp_path
    source = JsonLines(
        str(folder / "photos.jsonl"), str(where), image_field="file", id_field="image_id", split_field=None
    )
    task = Captioning(source, image_size=96, batch_size=4)
    assert sum(map(len, task.images.values())) == 79
    batch = next(iter(task.train_dataloader()))
    assert batch.features["pixels"].shape == (4, 3, 96, 96)
    assert [len(five) for five in batch.references] == [5] * 4


def test_coco_photographs_look_like_their_centre_crops():
    """The array was made by others from the same photographs; crop and scale must agree but for interpolation."""
    folder = shared("coco_photos_free")
    rows = {"path": str(folder / "photos.jsonl"), "split_field": None, "id_field": "image_id"}
    arrays = Captioning(JsonLines(images=str(folder / "images96.npz"), **rows), image_size=96)
    files = Captioning(JsonLines(images=str(folder / "photos.tar"), image_field="file", **rows), image_size=96)
    for index in range(10):
        a, b = (task._rows["train"][index, 0][0] for task in (arrays, files))
        assert a.id == b.id
        assert (a.pixels - b.pixels).abs().mean() < 0.12


def test_broken_photograph_is_named(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:10])
    lines = [{"i": "a.png", "captions": ["x"], "split": "train"}, {"i": "b.png", "captions": ["x"], "split": "val"}]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(ValueError, match=r"split 'val'.*b\.png is no readable image"):
        Captioning(JsonLines(str(tmp_path / "x.jsonl"), str(tmp_path))).facts()
