import pytest
from tokenizers import Tokenizer as Fast
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast

from lrl_core.tokenizer import WordTokenizer
from lrl_plugins.tasks.tokenizers import PretrainedTokenizer, make_tokenizer

VOCABULARY = {"<unk>": 0, "<s>": 1, "</s>": 2, "<pad>": 3, "[CLS]": 4, "[SEP]": 5, "a": 6, "dog": 7}


def save(tmp_path, **special):
    inner = Fast(WordLevel(VOCABULARY, unk_token="<unk>"))
    inner.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", **special).save_pretrained(tmp_path)
    return str(tmp_path)


@pytest.mark.parametrize(
    ("special", "ids", "never"),
    [
        ({"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}, (1, 2, 3), (0, 1, 3)),
        ({"eos_token": "</s>"}, (2, 2, 2), (0,)),
        ({"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "<pad>"}, (4, 5, 3), (0, 3, 4)),
    ],
)
def test_special_tokens_are_found_or_replaced(tmp_path, special, ids, never):
    tokenizer = PretrainedTokenizer(save(tmp_path, **special))
    assert (tokenizer.bos, tokenizer.eos, tokenizer.pad) == ids
    assert tokenizer.never_drawn == never
    assert len(tokenizer) == 8


def test_text_goes_there_and_back_without_special_tokens(tmp_path):
    tokenizer = make_tokenizer(save(tmp_path, bos_token="<s>", eos_token="</s>"), [])
    assert tokenizer.encode("a dog") == [6, 7]
    assert tokenizer.encode("a </s> dog <s>") == [6, 7]
    assert tokenizer.encode("a zebra") == [6, 0]
    assert tokenizer.decode([1, 6, 7, 2, 2]) == "a dog"


def test_a_tokenizer_without_an_end_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"PretrainedTokenizer: got .*neither an end token.*Set eos_token"):
        PretrainedTokenizer(save(tmp_path))


def test_a_folder_without_tokenizer_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"PretrainedTokenizer: got .*expected a folder.*save_pretrained"):
        make_tokenizer(str(tmp_path), [])


def test_vocabulary_is_built_or_loaded(tmp_path):
    built = make_tokenizer(None, ["a dog", "a cat"], min_count=2)
    assert built.words == (*WordTokenizer.SPECIALS, "a")
    built.save(tmp_path / "words.json")
    assert make_tokenizer(str(tmp_path / "words.json"), ["zebra"]).words == built.words


@pytest.mark.parametrize("content", [None, "{", "[1]", '{"model": {}}'])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ValueError, match=r"tokenizer: got .*tokenizer\.json.*expected a folder.*Correct the path"):
        make_tokenizer(str(path), [])
