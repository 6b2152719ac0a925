import gzip
import json

import pytest
import torch

from lrl_core.cli import main
from lrl_core.commands import score as command
from lrl_core.interfaces import Reward
from lrl_core.tokenizer import WordTokenizer
from lrl_core.types import RewardSignal

ROWS = [
    {"candidate": "a a b", "references": ["x"], "id": "first"},
    {"candidate": "b", "references": []},
    {"candidate": "a ?"},
    {"candidate": "", "note": [1]},
]


@pytest.fixture
def rows_file(toy_world):
    path = toy_world / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, ROWS)) + "\n\n", encoding="utf-8")
    return path


def test_mean_rows_and_failures(rows_file, capsys):
    assert main(["score", "--reward", "CountA", "--reward.price", "1.5", "--input", str(rows_file)]) == 0
    assert json.loads(capsys.readouterr().out) == {"mean": 1.0, "n": 4, "failed": 1}  # (3 + 0 + 0) / 3


@pytest.mark.parametrize("batch_size", ["1", "3", "100"])
def test_output_keeps_rows_and_order_whatever_the_batches(rows_file, batch_size):
    out = rows_file.with_name("out.jsonl.gz")
    options = ["--reward=CountA", f"--input={rows_file}", f"--output={out}", f"--batch_size={batch_size}"]
    assert main(["score", *options]) == 0
    with gzip.open(out, "rt") as lines:
        written = [json.loads(line) for line in lines]
    assert written == [row | {"reward": reward} for row, reward in zip(ROWS, [2.0, 0.0, None, 0.0], strict=True)]


def test_gzip_input_and_parts(rows_file, capsys):
    packed = rows_file.with_name("packed.jsonl.gz")
    rows = [{"candidate": "a man rides", "references": ["a man rides"]}, {"candidate": "dogs", "references": ["cats"]}]
    packed.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    out = rows_file.with_name("out.jsonl")
    assert main(["score", "--reward", "CIDErD", "--input", str(packed), "--output", str(out)]) == 0
    first, second = map(json.loads, out.read_text().splitlines())
    assert first["reward"] > second["reward"] == 0
    assert first["parts"] == {"CIDErD": first["reward"]}
    assert json.loads(capsys.readouterr().out)["n"] == 2


@pytest.mark.parametrize(
    ("line", "got"),
    [
        ("{", "got no JSON"),
        ("[1]", "got a list"),
        ('{"text": "x"}', "got the columns ['text']"),
        ('{"candidate": 3}', "got candidate 3"),
        ('{"candidate": "x", "references": "y"}', "got references 'y'"),
    ],
)
def test_a_bad_line_is_named(toy_world, capsys, line, got):
    path = toy_world / "bad.jsonl"
    path.write_text('{"candidate": "fine"}\n\n' + line)
    assert main(["score", "--reward", "CountA", "--input", str(path)]) == 2
    error = capsys.readouterr().err
    assert f"{path}, line 3: {got}" in error
    assert "expected" in error
    assert "Correct the line" in error


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--reward", "CountB"], "There is no reward 'CountB'. Did you mean 'CountA'?"),
        (["--reward", "Greedy"], "'Greedy' is a decoder; expected a reward."),
        (["--reward", "Needy"], "reward 'Needy' of package toy-world 1.2"),
        (["--reward", "CountA", "--reward.prize", "2"], "'prize' is not accepted"),
        (["--reward", "CountA", "--reward.price", "dear"], "Expected a <class 'float'>. Got value: dear"),
        (["--reward", "CountA", "--batch_size", "0"], "--batch_size is 0; expected at least 1"),
        (["--reward", "CountA", "--output", "rows.jsonl"], "are the same file"),
        ([], "required: reward"),
    ],
)
def test_wrong_options(rows_file, capsys, options, said):
    assert main(["score", "--input", "rows.jsonl", *options]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.out == ""


def test_a_missing_file_is_named(toy_world, capsys):
    assert main(["score", "--reward", "CountA", "--input", "nowhere.jsonl"]) == 2
    assert "nowhere.jsonl is not readable" in capsys.readouterr().err


def test_an_empty_file_has_no_mean(toy_world, capsys):
    (toy_world / "empty.jsonl").write_text("")
    assert main(["score", "--reward", "CountA", "--input", "empty.jsonl"]) == 0
    assert json.loads(capsys.readouterr().out) == {"mean": None, "n": 0, "failed": 0}


class Chatty(Reward):
    """Prints, and remembers what it was told."""

    def bind(self, facts):
        self.facts = facts

    def score(self, rollout):
        print("chat")
        self.rollout = rollout
        return RewardSignal(torch.zeros(len(rollout)))


def test_what_a_reward_prints_is_not_in_the_result(rows_file, capsys, monkeypatch):
    monkeypatch.setattr(command, "_build", lambda parser, options: Chatty())
    assert main(["score", "--reward", "CountA", "--input", str(rows_file)]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["n"] == 4
    assert "chat" in captured.err


def test_what_the_reward_is_told():
    reward = Chatty()
    rows = [
        {"candidate": "Two dogs.", "references": ["dogs play"], "prompt": "what plays", "id": "x"},
        {"candidate": "cats"},
    ]
    list(command.score(reward, rows, 10))
    assert reward.facts.references == (("dogs play",), ())
    rollout = reward.rollout
    assert rollout.texts == ("Two dogs.", "cats")
    assert rollout.prompts.references == (("dogs play",), ())
    assert [example["id"] for example in rollout.prompts.examples] == ["x", "1"]
    tokenizer = reward.facts.tokenizer
    assert isinstance(tokenizer, WordTokenizer)
    lines = [tokens[:length] for tokens, length in zip(rollout.tokens.tolist(), rollout.lengths.tolist(), strict=True)]
    assert [tokenizer.decode(line) for line in lines] == ["two dogs", "cats"]
    assert [line[-1] for line in lines] == [tokenizer.eos] * 2
    assert rollout.terminated.all()
    assert rollout.action_mask.sum(1).tolist() == [3, 2]
    assert tokenizer.decode(rollout.prompts.tokens[0].tolist()) == "what plays"
    assert rollout.prompts.lengths.tolist() == [2, 0]


def test_without_any_references_there_are_none():
    reward = Chatty()
    list(command.score(reward, [{"candidate": "x"}], 10))
    assert reward.facts.references == ()
    assert reward.rollout.prompts.references is None
