from contextlib import suppress
from itertools import chain

import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import Dataset

import lrl_core.loader
from lrl_core.loader import ResumableLoader


class Keys(Dataset):
    """Hands out its own keys."""

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return self.rows

    def __getitem__(self, key):
        return key


def loader(rows=10, batch_size=3, **changes):
    settings = {"shuffle": True, "trim": True, "seed": 5} | changes
    return ResumableLoader(Keys(rows), list, batch_size, **settings)


def pretend_rank(monkeypatch, rank, world):
    monkeypatch.setattr(lrl_core.loader, "rank", lambda: rank)
    monkeypatch.setattr(lrl_core.loader, "world_size", lambda: world)


def test_epochs_differ_and_are_reproducible():
    one, two = loader(), loader()
    epochs = [list(one) for _ in range(3)]
    assert epochs == [list(two) for _ in range(3)]
    assert [epoch for _, epoch in chain(*epochs[2])] == [2] * 9
    rows = [[row for row, _ in chain(*epoch)] for epoch in epochs]
    assert rows[0] != rows[1] != rows[2]
    assert all(len(set(epoch)) == 9 for epoch in rows)
    assert rows[0] != [row for row, _ in chain(*loader(seed=6))]


def test_every_row_comes_up_over_the_epochs():
    it = loader()
    seen = {row for _ in range(6) for batch in it for row, _ in batch}
    assert seen == set(range(10))


def test_without_shuffle_rows_come_in_order_and_none_is_left_out():
    assert list(loader(7, 3, shuffle=False, trim=False)) == [
        [(0, 0), (1, 0), (2, 0)], [(3, 0), (4, 0), (5, 0)], [(6, 0)]
    ]  # fmt: skip


@pytest.mark.parametrize("num_workers", [0, 2])
def test_global_random_state_is_left_alone(num_workers):
    before = torch.get_rng_state()
    batches = list(loader(num_workers=num_workers))
    assert torch.equal(before, torch.get_rng_state())
    assert batches == list(loader())


def test_training_ranks_share_the_rows_evenly(monkeypatch):
    shares = []
    for rank in range(2):
        it = loader(21, 3)
        pretend_rank(monkeypatch, rank, 2)
        assert len(it) == 3
        shares.append([row for batch in it for row, _ in batch])
    assert [len(share) for share in shares] == [9, 9]
    assert len(set(shares[0] + shares[1])) == 18


def test_a_global_batch_is_the_same_whatever_the_number_of_ranks(monkeypatch):
    whole = [set(batch) for batch in loader(24, 6)]
    halves = []
    for rank in range(2):
        pretend_rank(monkeypatch, rank, 2)
        halves.append(list(loader(24, 3)))
    assert whole == [set(a) | set(b) for a, b in zip(*halves, strict=True)]


@pytest.mark.parametrize(("rows", "world"), [(7, 2), (1, 3), (8, 2), (5, 4)])
def test_evaluation_ranks_cover_every_row_with_equally_many_batches(monkeypatch, rows, world):
    shares = []
    for rank in range(world):
        pretend_rank(monkeypatch, rank, world)
        it = loader(rows, 2, shuffle=False, trim=False)
        shares.append(list(it))
        assert len(shares[-1]) == len(it)
    assert {tuple(map(len, share)) for share in shares} == {tuple(map(len, shares[0]))}
    assert {row for share in shares for batch in share for row, _ in batch} == set(range(rows))


def test_too_few_rows_for_one_batch_per_rank(monkeypatch):
    pretend_rank(monkeypatch, 0, 2)
    with pytest.raises(ValueError, match=r"The train split: got 5 rows .* 2 rank.* at least 6.*Lower batch_size"):
        len(loader(5, 3, name="The train split"))


def test_state_goes_on_in_the_middle_of_an_epoch():
    whole = loader()
    expected = [batch for _ in range(2) for batch in whole]
    first = loader()
    it = iter(first)
    seen = [next(it), next(it)]
    second = loader()
    second.load_state_dict(first.state_dict())
    seen += list(second) + list(second)
    assert seen == expected


def test_state_at_the_end_of_an_epoch_goes_on_with_the_next():
    first, second = loader(), loader()
    it = iter(first)
    for _ in range(3):
        next(it)
    second.load_state_dict(first.state_dict())
    reference = loader()
    list(reference)
    assert list(second) == list(reference)


def test_position_is_forgotten_when_another_epoch_is_set():
    it = loader()
    it.load_state_dict({**it.state_dict(), "position": 2})
    it.sampler.set_epoch(4)
    batches = list(it)
    assert len(batches) == 3
    assert batches[0][0][1] == 4


def test_a_broken_off_pass_starts_again():
    it = loader()
    first = next(iter(it))
    assert next(iter(it)) == first


def test_resuming_with_another_cut_is_refused():
    first, second = loader(), loader(batch_size=2)
    next(iter(first))
    with pytest.raises(ValueError, match=r"batch_size 3 -> 2.*Resume with the old values"):
        second.load_state_dict(first.state_dict())
    boundary = loader().state_dict()
    second.load_state_dict(boundary)
    assert len(list(second)) == 5


class Module(LightningModule):
    def __init__(self):
        super().__init__()
        self.seen = []
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        self.optimizers().step()
        self.seen.append(batch)

    def validation_step(self, batch, batch_idx):
        pass

    def predict_step(self, batch, batch_idx):
        return batch

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class Data(LightningDataModule):
    def train_dataloader(self):
        return loader(16, 3)

    def val_dataloader(self):
        return loader(4, 2, shuffle=False, trim=False)

    def predict_dataloader(self):
        return loader(5, 2, shuffle=False, trim=False)


class Stop(Callback):
    """Stops the run as a crash would, after the checkpoint callback had its turn."""

    def __init__(self, at):
        self.at = at

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if len(module.seen) == self.at:
            raise KeyboardInterrupt


def fit(tmp_path, callbacks=(), ckpt=None, **changes):
    module = Module()
    settings = {"max_epochs": 3, "num_sanity_val_steps": 0} | changes
    trainer = Trainer(
        default_root_dir=tmp_path, accelerator="cpu", callbacks=list(callbacks), logger=False,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=bool(callbacks), **settings,
    )  # fmt: skip
    with suppress(KeyboardInterrupt, SystemExit):
        trainer.fit(module, Data(), ckpt_path=ckpt, weights_only=False)
    return module.seen


@pytest.mark.parametrize("every", [2, 5, 7, 8, 10])
@pytest.mark.parametrize("check", [{}, {"val_check_interval": 2}, {"limit_val_batches": 0}])
def test_lightning_resumes_at_the_exact_next_batch(tmp_path, every, check):
    expected = fit(tmp_path / "whole", **check)
    assert len(expected) == 15
    save = ModelCheckpoint(tmp_path, filename="mid", every_n_train_steps=every, save_top_k=1)
    before = fit(tmp_path, [save, Stop(every)], **check)
    assert before == expected[:every]
    assert fit(tmp_path, ckpt=tmp_path / "mid.ckpt", **check) == expected[every:]


@pytest.mark.parametrize("limit", [{}, {"limit_train_batches": 3}])
def test_lightning_resumes_at_the_end_of_an_epoch(tmp_path, limit):
    expected = fit(tmp_path / "whole", **limit)
    save = ModelCheckpoint(tmp_path, filename="end", every_n_epochs=1, save_top_k=1)
    before = fit(tmp_path, [save], max_epochs=1, **limit)
    after = fit(tmp_path, ckpt=tmp_path / "end.ckpt", **limit)
    assert before + after == expected
    assert {epoch for batch in after for _, epoch in batch} == {1, 2}


def test_lightning_predicts_every_row_once(tmp_path):
    trainer = Trainer(default_root_dir=tmp_path, accelerator="cpu", logger=False, enable_progress_bar=False)
    batches = trainer.predict(Module(), Data())
    assert [row for batch in batches for row, _ in batch] == list(range(5))
