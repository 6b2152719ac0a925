import pytest
import torch
from ranked_answers import BERT, GPT2, PROMPT, SENTENCES, TOKENIZER
from tiny_models import save_bert, save_gpt2, save_t5

from lrl_plugins.text_models import FolderTokenizer, LineMaker, is_causal, load_trunk, mask_id, tokenizer_of

torch.set_num_threads(1)
FOLDERS = {"bert": save_bert, "gpt2": save_gpt2, "t5": save_t5}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {name: save(tmp_path_factory.mktemp(name)) for name, save in FOLDERS.items()}


@pytest.mark.parametrize(("name", "causal"), [("bert", False), ("gpt2", True), ("t5", False)])
def test_whether_a_model_sees_what_comes_after(folders, name, causal):
    """As the config says, and as the states show."""
    trunk = load_trunk("test", folders[name], FolderTokenizer("test", folders[name])).eval()
    ids = torch.tensor([[5, 6, 7, 8], [5, 6, 7, 9]])
    states = trunk(input_ids=ids).last_hidden_state
    blind = torch.allclose(states[0, :3], states[1, :3], atol=1e-6)
    assert blind is causal
    assert name == "t5" or is_causal(trunk.config) is causal


def test_lines_by_hand():
    line_of = LineMaker("test", load_trunk("test", BERT, TOKENIZER), TOKENIZER, None, None).line
    asked, said = TOKENIZER.encode(PROMPT), TOKENIZER.encode(SENTENCES[0])
    bos, eos = TOKENIZER.bos, TOKENIZER.eos
    assert line_of(PROMPT, SENTENCES[0]).ids == [bos, *asked, eos, *said, eos]
    assert line_of(PROMPT, SENTENCES[0]).words == [False, True, True, True, False, *[True] * 5, False]
    assert line_of(None, SENTENCES[0]).ids == [bos, *said, eos]
    assert line_of(None, "").ids == [bos, eos]
    decoder = LineMaker("test", load_trunk("test", GPT2, TOKENIZER), TOKENIZER, None, None)
    assert decoder.line(PROMPT, SENTENCES[0]).ids == [bos, *asked, *said, eos]
    spoken = LineMaker("test", load_trunk("test", GPT2, TOKENIZER), TOKENIZER, "today", None)
    assert spoken.line(PROMPT, SENTENCES[0]).ids == [bos, *asked, *TOKENIZER.encode("today"), *said, eos]


@pytest.mark.parametrize(("limit", "lost"), [(11, 0), (10, 1), (8, 3), (7, 4), (6, 5), (3, 8)])
def test_a_long_line_loses_its_beginning(limit, lost):
    trunk = load_trunk("test", BERT, TOKENIZER)
    line = LineMaker("test", trunk, TOKENIZER, None, limit).line(PROMPT, SENTENCES[0])
    words = [*TOKENIZER.encode(PROMPT), TOKENIZER.eos, *TOKENIZER.encode(SENTENCES[0])]
    assert line.ids == [TOKENIZER.bos, *words[lost:], TOKENIZER.eos]
    assert len(line.ids) == len(line.words) == limit


def test_rows_are_padded_on_the_right():
    maker = LineMaker("test", load_trunk("test", BERT, TOKENIZER), TOKENIZER, None, None)
    short, long = maker.line(None, "the"), maker.line(None, "the garden")
    ids, real, words = maker.tensors([short, long], torch.device("cpu"))
    assert ids.tolist() == [[*short.ids, TOKENIZER.pad], long.ids]
    assert real.tolist() == [[True] * 3 + [False], [True] * 4]
    assert words.tolist() == [[False, True, False, False], [False, True, True, False]]


def test_which_tokenizer_reads(folders, tmp_path):
    TOKENIZER.save(tmp_path / "words.json")
    assert tokenizer_of("test", BERT, None, TOKENIZER) is TOKENIZER
    assert len(tokenizer_of("test", BERT, str(tmp_path / "words.json"), TOKENIZER)) == len(TOKENIZER)
    own = tokenizer_of("test", folders["bert"], None, TOKENIZER)
    assert isinstance(own, FolderTokenizer)
    assert (own.bos, own.eos, own.pad) == (2, 3, 0)
    load_trunk("test", BERT, TOKENIZER).save_pretrained(tmp_path / "bare")  # a model without a tokenizer
    assert tokenizer_of("test", str(tmp_path / "bare"), None, TOKENIZER) is TOKENIZER
    load_trunk("test", str(tmp_path / "bare"), TOKENIZER)


def test_special_words_in_a_text_are_left_out(folders):
    own = FolderTokenizer("test", folders["bert"])
    assert own.encode("the [SEP] cat") == own.encode("the cat")
    assert own.decode([own.bos, *own.encode("the cat"), own.eos]) == "the cat"


def test_fresh_encoders_have_a_mask_and_decoders_the_policy_s_vocabulary(folders):
    assert mask_id(TOKENIZER) == len(TOKENIZER)
    assert load_trunk("test", BERT, TOKENIZER).config.vocab_size == len(TOKENIZER) + 1
    assert load_trunk("test", GPT2, TOKENIZER).config.vocab_size == len(TOKENIZER)


def test_positions_of_roberta_begin_behind_the_padding():
    entries = BERT | {"model_type": "roberta"}
    trunk = load_trunk("test", entries, TOKENIZER)
    maker = LineMaker("test", trunk, TOKENIZER, None, None)
    assert maker.limit == 32 - (TOKENIZER.pad + 1)
    ids, real, _ = maker.tensors([maker.line(None, "the " * 99)], torch.device("cpu"))
    assert trunk(input_ids=ids, attention_mask=real.long()).last_hidden_state.shape[1] == maker.limit


def test_what_does_not_fit_is_refused(folders):
    with pytest.raises(ValueError, match="expected a tokenizer whose ids the model knows"):
        load_trunk("test", BERT | {"vocab_size": 5}, TOKENIZER)
    with pytest.raises(OSError, match="test: got the tokenizer"):
        FolderTokenizer("test", "no/where")
