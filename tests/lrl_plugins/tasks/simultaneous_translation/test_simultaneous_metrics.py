"""The corpus metric against hand-made means, sacrebleu and, where it is installed, SimulEval."""

import math
import multiprocessing
import subprocess
import sys
from pathlib import Path

import pytest
import sacrebleu
import torch

from lrl_core.reports import Answer
from lrl_plugins.tasks.simultaneous_translation.corpus_metric import SimultaneousMetrics, corpus_scores
from lrl_plugins.tasks.simultaneous_translation.instances import read_instances

EOS, READ = 0, 1
WORDS = ["", "", "the", "cat", "sat", "on", "mat", ".", "x"]


def decode(tokens):
    return " ".join(WORDS[token] for token in tokens if WORDS[token])


def answer(name, line, reference, source, chosen=()):
    """A line such as "R the R cat" as an answer."""
    tokens = [READ if word == "R" else WORDS.index(word) for word in line.split()]
    return Answer(name, line, (reference,), (*tokens, EOS), chosen, example={"source": source})


ANSWERS = [
    answer("t-2", "R the R R R cat sat", "the cat sat", "die Katze saß da ."),  # 2 5 5 of 5, reference of 3
    answer("t-10", "the R cat R sat R on R mat", "the cat sat on mat", "a b c d e"),  # 1 2 3 4 5 of 5
    answer("t-1", "R R R R", "the mat", "die Matte ist da"),  # nothing written; three words left to read
    answer("t-11", "R the the R cat R sat sat .", "the cat sat .", "a b  c d"),  # 2 2 3 4 4 4 of 4
]


def scores(answers, **arguments):
    metric = SimultaneousMetrics((READ,), 1, decode, **arguments)
    metric.update(answers)
    return {name: value.item() for name, value in metric.compute().items()}


def test_the_corpus_has_the_mean_of_its_sentences():
    found = scores(ANSWERS)
    assert found.pop("BLEU") == pytest.approx(
        sacrebleu.corpus_bleu(
            ["the cat sat", "the cat sat on mat", "", "the the cat sat sat ."],
            [["the cat sat", "the cat sat on mat", "the mat", "the cat sat ."]],
        ).score
    )
    assert found == pytest.approx(
        {
            "AP": (0.8 + 0.6 + 1.1875) / 3,
            "AL": (8 / 3 + 1 + 1.25) / 3,
            "LAAL": (8 / 3 + 1 + 1.75) / 3,
            "DAL": (26 / 9 + 1 + 2) / 3,
            "CW": (2.5 + 1 + 4 / 3) / 3,
            "longest_wait": (3 + 1 + 2) / 3,
            "empty": 1,
            "reads_share": (4 + 4 + 4 + 3) / (8 + 10 + 5 + 10),
        }
    )


def test_order_and_repetition_change_nothing():
    assert scores(ANSWERS) == scores([*ANSWERS[::-1], ANSWERS[0], answer("t-2", "x", "y", "z")])


def test_words_of_the_world_are_not_written():
    heard = answer("a", "R x the R x cat", "the cat", "a b c", (True, False, True, True, False, True, True))
    silent = answer("a", "R the R cat", "the cat", "a b c")
    assert scores([heard]) == scores([silent])


def test_nothing_written_at_all_has_no_latency():
    found = scores([ANSWERS[2], answer("b", "the", "the", "")])  # and nothing heard
    assert found["empty"] == 2
    assert all(math.isnan(found[name]) for name in ("AP", "AL", "LAAL", "DAL", "CW", "longest_wait"))
    assert not math.isnan(found["BLEU"])


def test_nothing_added_has_no_scores():
    metric = SimultaneousMetrics((READ,), 1, decode)
    metric(ANSWERS)
    metric.reset()
    assert metric.compute() == {}


def test_the_log_is_written_when_asked_for_and_scores_the_same(tmp_path):
    scores(ANSWERS, folder=tmp_path / "quiet")
    assert not (tmp_path / "quiet").exists()
    found = scores(ANSWERS, folder=tmp_path, log=True)
    rows = read_instances(tmp_path / "instances.log")
    assert [row.source for row in rows] == ["die Matte ist da", "die Katze saß da .", "a b c d e", "a b c d"]
    assert [row.index for row in rows] == [0, 1, 2, 3]
    assert corpus_scores(rows) == pytest.approx({name: found[name] for name in corpus_scores(rows)})


def one_rank(rank, meet, told):
    torch.distributed.init_process_group("gloo", init_method=f"file://{meet}", rank=rank, world_size=2)
    # The last answer of the first rank is there to fill its batch.
    own = [*ANSWERS[::2], ANSWERS[1]] if rank == 0 else ANSWERS[1::2]
    told.put(scores(own, folder=Path(meet).parent / "log", log=True))
    torch.distributed.destroy_process_group()


def test_two_ranks_find_what_one_finds_and_write_one_log(tmp_path):
    context = multiprocessing.get_context("fork")
    told = context.SimpleQueue()
    ranks = [context.Process(target=one_rank, args=(rank, tmp_path / "meet", told)) for rank in range(2)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(timeout=60)
        assert rank.exitcode == 0
    assert [told.get(), told.get()] == [scores(ANSWERS, folder=tmp_path / "alone", log=True)] * 2
    together, alone = tmp_path / "log" / "instances.log", tmp_path / "alone" / "instances.log"
    assert together.read_bytes() == alone.read_bytes()


def test_prompts_without_a_source_or_a_reference_are_refused():
    with pytest.raises(ValueError, match=r"SimultaneousMetrics: got the columns \['text'\] with 'a'.*`source`"):
        scores([Answer("a", "", ("x",), (2,), example={"text": "b"})])
    for references in ((), ("",)):
        with pytest.raises(ValueError, match="SimultaneousMetrics: got no reference with a word for 'a'"):
            scores([Answer("a", "", references, (2,), example={"source": "b"})])


def test_simuleval_finds_the_same(tmp_path):
    pytest.importorskip("simuleval", reason="SimulEval is the independent implementation")
    found = scores(ANSWERS, folder=tmp_path, log=True)
    names = ["BLEU", "AL", "LAAL", "AP", "DAL"]
    options = ["--score-only", "--output", str(tmp_path), "--source-type", "text", "--target-type", "text"]
    command = [sys.executable, "-m", "simuleval.cli", *options, "--latency-metrics", *names[1:]]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(tmp_path))
    header, row = ran.stdout.strip().splitlines()[-2:]
    theirs = dict(zip(header.split(), map(float, row.split()[1:]), strict=True))
    assert theirs == pytest.approx({name: found[name] for name in names}, abs=1e-3)  # it rounds
