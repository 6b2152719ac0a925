import gzip
from pathlib import Path

import pytest

from lrl_plugins.tasks.text.plain import PlainText

SHARED = Path(__file__).resolve().parents[4] / ".." / "shared" / "data"
WIKI = """
 = First =

 one two @-@ three four
 five six seven

 = = Part of it = =

 a b c = d e f g
"""


def pieces(tmp_path, text=WIKI, **options):
    (tmp_path / "x.txt.gz").write_bytes(gzip.compress(text.encode()))
    file = str(tmp_path / "x.txt.gz")
    splits = PlainText(file, val=file, prompt_words=2, continuation_words=2, **options).splits()
    return [(e.id, e.prompt, e.references) for e in splits["train"]]


def test_headings_part_texts_and_no_piece_reaches_over_them(tmp_path):
    assert pieces(tmp_path) == [
        ("x-0", "one two-three", ("four five",)),
        ("x-1", "a b", ("c =",)),
        ("x-2", "d e", ("f g",)),
    ]  # "six seven" is a prompt without continuation


def test_lines_can_be_texts_of_their_own(tmp_path):
    assert [prompt for _, prompt, _ in pieces(tmp_path, by_line=True)] == ["one two-three", "five six", "a b", "d e"]


def test_pieces_are_held_out_and_shared_out_once(tmp_path):
    (tmp_path / "x.txt").write_text(" ".join(f"w{i}" for i in range(4000)))
    file = str(tmp_path / "x.txt")
    splits = PlainText(file, prompt_words=2, continuation_words=2, held_out=0.2).splits()
    prompts = {split: {e.prompt for e in examples} for split, examples in splits.items()}
    assert sum(map(len, prompts.values())) == len(set.union(*prompts.values())) == 1000
    assert all(len(prompts[split]) == pytest.approx(200, abs=40) for split in ("val", "test"))
    with_test = PlainText(file, test=file, prompt_words=2, continuation_words=2, held_out=0.2).splits()
    assert {e.prompt for e in with_test["val"]} == prompts["val"]
    assert len(with_test["train"]) == 1000 - len(prompts["val"])
    assert len(with_test["test"]) == 1000


def test_sizes_are_checked():
    with pytest.raises(ValueError, match=r"PlainText: got prompt_words 0 .*at least 1"):
        PlainText("x", prompt_words=0)


def test_wikitext():
    folder = SHARED / "lm_wikitext2_valid_test"
    if not folder.is_dir():
        pytest.skip("needs shared/data/lm_wikitext2_valid_test")
    splits = PlainText(str(folder / "test.txt.gz"), str(folder / "valid.txt.gz")).splits()
    assert {split: 6000 < len(examples) < 8000 for split, examples in splits.items()} == {"train": True, "val": True}
    assert splits["train"][0].prompt.startswith("Robert <unk> is an English film , television and theatre actor .")
    assert not any(" = = " in e.prompt for e in splits["train"])
