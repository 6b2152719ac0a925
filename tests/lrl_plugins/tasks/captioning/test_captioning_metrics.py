import gzip
import json
import multiprocessing
import shutil
import warnings
from pathlib import Path

import pytest
import torch
import torch.distributed
from torchmetrics import Metric

from lrl_core.testing.rewards import EXAMPLE_REFERENCES
from lrl_plugins.tasks.captioning import metrics as module
from lrl_plugins.tasks.captioning.metrics import CaptionMetrics, PublishedCaptionMetrics

IDS = ["horse", "cat", "dogs"]
CANDIDATES = ["A man riding a horse.", "a cat on the mat", "the the the the"]
REFERENCES = list(EXAMPLE_REFERENCES)
# Official code on this toy corpus (CIDEr by its formula); ROUGE-L by hand below.
GOLDEN = {
    "CIDErD": 2.23706294,
    "CIDEr": 2.30439315,
    "BLEU_1": 0.68111835,
    "BLEU_2": 0.5675048,
    "BLEU_3": 0.41172984,
    "BLEU_4": 5.898e-05,
}
SHARED = Path(__file__).resolve().parents[4] / ".." / "shared" / "data" / "coco_captions_val2017"


def coco():
    file = SHARED / "metric_check_fakecap126.jsonl.gz"
    if not file.is_file():
        pytest.skip(f"needs shared/data/coco_captions_val2017/{file.name}")
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    expected = json.loads((SHARED / "metric_check_corpus.json").read_text(encoding="utf-8"))["fakecap126"]
    expected["CIDErD"] = expected.pop("CIDEr")
    expected = {key.replace("Bleu", "BLEU"): value for key, value in expected.items() if key != "bleu_log"}
    return rows, expected


def filled(metric, ids=IDS, candidates=CANDIDATES, references=REFERENCES):
    metric.update(ids, candidates, references)
    return metric


def values(scores):
    return {name: score.item() for name, score in scores.items()}


def test_golden_numbers():
    scores = values(filled(CaptionMetrics()).compute())
    # Common words of the best reference: "a man a horse" (4 of 5 and 5), all 5 of 5 and 6, "the" (1 of 4 and 6).
    expected_rouge = (f(4 / 5, 4 / 5) + f(1, 5 / 6) + f(1 / 4, 1 / 6)) / 3
    assert scores == pytest.approx(GOLDEN | {"ROUGE_L": expected_rouge}, rel=1e-4)


def f(precision, recall, beta=1.2):
    return (1 + beta**2) * precision * recall / (recall + beta**2 * precision)


def test_batches_order_and_repetitions_change_nothing():
    expected = values(filled(CaptionMetrics()).compute())
    metric = CaptionMetrics()
    for i in (2, 0, 1, 0):
        metric.update(IDS[i : i + 1], CANDIDATES[i : i + 1], REFERENCES[i : i + 1])
    assert values(metric.compute()) == expected


def test_reset_forgets_and_compute_follows_updates():
    metric = filled(CaptionMetrics())
    metric.compute()
    metric.reset()
    filled(metric, candidates=[row[0] for row in REFERENCES])
    assert values(metric.compute())["BLEU_4"] == pytest.approx(1, abs=1e-6)
    metric.update(["bird"], ["nothing like it"], [("a bird sings in a tree",)])
    assert metric.compute()["BLEU_4"] < 0.99


def test_is_a_metric_that_knows_nothing_without_captions():
    metric = CaptionMetrics()
    assert isinstance(metric, Metric)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert metric.compute() == {}


def test_rows_without_references_are_refused():
    with pytest.raises(ValueError, match="no references for 'cat'"):
        CaptionMetrics().update(["cat"], ["a cat"], [()])


def test_equals_the_published_scores_on_coco_captions_without_java():
    rows, expected = coco()
    metric = CaptionMetrics()
    metric.update(
        [str(row["image_id"]) for row in rows],
        [row["candidate"] for row in rows],
        [tuple(row["references"]) for row in rows],
    )
    scores = values(metric.compute())
    scores.pop("CIDEr")
    assert scores == pytest.approx({name: expected[name] for name in scores}, rel=1e-5)


def one_rank(rank, meeting_point, answers, fails):
    torch.distributed.init_process_group("gloo", init_method=f"file://{meeting_point}", rank=rank, world_size=2)
    metric = CaptionMetrics()
    rows = [(0, 1), (2, 0)][rank]  # the second rank repeats a row, as a sampler does to fill its last batch
    metric.update([IDS[i] for i in rows], [CANDIDATES[i] for i in rows], [REFERENCES[i] for i in rows])
    if fails and rank == 0:
        metric._scores = None  # calling it raises a TypeError
    try:
        answers.put(values(metric.compute()))
    except RuntimeError as error:
        answers.put(str(error))
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("fails", [False, True])
def test_two_ranks_give_the_numbers_of_one_and_fail_together(tmp_path, fails):
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    ranks = [context.Process(target=one_rank, args=(rank, tmp_path / "meet", answers, fails)) for rank in range(2)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(timeout=60)
        assert rank.exitcode == 0
    both = [answers.get(), answers.get()]
    if fails:
        assert all("failed on rank 0: TypeError" in answer for answer in both)
    else:
        assert both == [values(filled(CaptionMetrics()).compute())] * 2


def test_published_without_java_says_so_and_leaves_metrics_out(monkeypatch, capfd):
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    with pytest.warns(UserWarning, match="PublishedCaptionMetrics") as caught:
        scores = values(filled(PublishedCaptionMetrics()).compute())
    messages = " ".join(str(warning.message) for warning in caught)
    assert "there is no `java`" in messages
    assert "leaves METEOR out" in messages
    assert "leaves SPICE out" in messages
    assert scores == pytest.approx(values(filled(CaptionMetrics()).compute()), rel=1e-4)
    assert capfd.readouterr().out == ""


def test_published_survives_a_java_that_fails(monkeypatch):
    def broken(*_):
        raise BrokenPipeError("java died")

    monkeypatch.setattr(module, "_java", lambda: False)  # tokenisation in Python
    monkeypatch.setattr(module, "_require_java", broken)
    with pytest.warns(UserWarning, match="PublishedCaptionMetrics") as caught:
        scores = filled(PublishedCaptionMetrics()).compute()
    assert "METEOR" not in scores
    assert "BLEU_4" in scores
    assert any("leaves METEOR out: java died" in str(warning.message) for warning in caught)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("java") is None, reason="needs Java")
def test_published_equals_the_stored_scores_on_coco_captions(capfd):
    rows, expected = coco()
    metric = PublishedCaptionMetrics()
    metric.update(
        [str(row["image_id"]) for row in rows],
        [row["candidate"] for row in rows],
        [tuple(row["references"]) for row in rows],
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*leaves SPICE out")
        scores = values(metric.compute())
    scores.pop("CIDEr")
    scores.pop("SPICE", None)
    assert scores == pytest.approx(expected, rel=1e-5)
    assert capfd.readouterr().out == ""
