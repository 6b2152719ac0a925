import pytest
import torch
from tiny_models import save_bert
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, PreTrainedTokenizerFast, RobertaConfig

from lrl_plugins.rewards.pretrained import TextReader, buckets, by_length, checked_limit


def byte_pairs(path):
    """A tokenizer in which a word at the beginning of a text is another token than one after a space."""
    inner = Tokenizer(models.BPE(vocab={"<pad>": 0, "<unk>": 1, "m": 2, "Ġ": 3, "Ġm": 4}, merges=[("Ġ", "m")]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    read = PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", unk_token="<unk>")
    read.save_pretrained(path)
    return str(path)


def test_batches_of_like_length_know_their_places():
    found = list(by_length(["ccc", "", "a", "bb", "dddd"], len, 2))
    assert found == [([2, 3], ["a", "bb"]), ([0, 4], ["ccc", "dddd"])]
    equal = by_length(["cc", "", "a", "bb", "dd"], len, 2, equal=True)
    assert list(equal) == [([2], ["a"]), ([0, 3], ["cc", "bb"]), ([4], ["dd"])]


def test_a_batch_is_cut_where_its_padding_costs_more_than_a_batch():
    def cut(lengths, **limits):
        return [batch for _, batch in by_length(lengths, int, 9, **limits)]

    assert cut([5, 4, 4, 9, 20], spare=6) == [[4, 4, 5], [9], [20]]
    assert cut([5, 4, 4, 9, 20], spare=14) == [[4, 4, 5, 9], [20]]
    assert cut([4, 4, 4, 9, 9], spare=0) == [[4, 4, 4], [9, 9]]
    assert cut([3] * 4 + [50], tokens=6) == [[3, 3], [3, 3], [50]]  # too long for any batch, but read


def test_every_item_is_in_one_batch_and_no_batch_is_beyond_its_limits():
    lengths = [(7 * i * i + i) % 41 for i in range(300)]
    batches = list(by_length(lengths, int, 16, spare=20, tokens=200))
    assert sorted(place for places, _ in batches for place in places) == [i for i in range(300) if lengths[i]]
    assert all(lengths[place] == item for places, items in batches for place, item in zip(places, items, strict=True))
    for _, items in batches:
        assert len(items) <= 16
        assert len(items) * max(items) <= 200
        assert len(items) * max(items) - sum(items) <= 20


def test_devices_that_start_slowly_are_given_larger_batches():
    rows = [{"input_ids": [1] * n} for n in (3, 3, 90)]
    cut = {name: [where for where, _ in buckets(rows, 8, torch.device(name))] for name in ("cpu", "cuda")}
    assert cut == {"cpu": [[0, 1], [2]], "cuda": [[0, 1, 2]]}


def test_rows_are_padded_on_the_right(tmp_path):
    path = save_bert(tmp_path)
    reader = TextReader("Some", path, AutoConfig.from_pretrained(path))
    rows = reader.rows(["a man", "a man rides"])
    batch = reader.batch(rows, torch.device("cpu"))
    assert batch.keys() == {"input_ids", "token_type_ids", "attention_mask"}
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]
    assert batch["input_ids"][0].tolist() == [*rows[0]["input_ids"], 0]
    assert reader.rows([]) == []


def test_a_leading_space_where_the_published_scores_had_one(tmp_path):
    path = byte_pairs(tmp_path)
    config = RobertaConfig(vocab_size=5)
    ids = [
        TextReader("Some", path, config, leading_space=space).rows(["m m"], special=False)[0]["input_ids"]
        for space in (False, True)
    ]
    assert ids == [[2, 4], [4, 4]]
    assert TextReader("Some", path, config, leading_space=True).rows([""], special=False)[0]["input_ids"] == []


def test_positions_before_the_padding_id_cannot_be_used(tmp_path):
    reader = TextReader("Some", byte_pairs(tmp_path), RobertaConfig(max_position_embeddings=12, pad_token_id=1))
    assert reader.limit == 10
    assert len(reader.rows(["m " * 50])[0]["input_ids"]) == 10


def test_limits():
    assert checked_limit("Some", 512, None) == 512
    assert checked_limit("Some", None, None) is None
    assert checked_limit("Some", None, 3000) == 3000
    with pytest.raises(ValueError, match="Some: max_length is 513; expected 1 to 512 tokens"):
        checked_limit("Some", 512, 513)
    with pytest.raises(ValueError, match="expected any number of tokens"):
        checked_limit("Some", None, 0)
