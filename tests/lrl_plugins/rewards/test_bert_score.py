import math
import warnings
from dataclasses import replace

import pytest
import torch
from real_captions import judged_captions, packaged_encoder
from tiny_models import save_bert, save_t5

from lrl_core.interfaces import bind_all
from lrl_core.scoring import judge
from lrl_core.testing.rewards import check_reward, example_rollout, facts_of
from lrl_plugins.rewards import bert_score
from lrl_plugins.rewards.bert_score import BERTScore, Frequencies, read_baseline, rescaled

torch.set_num_threads(1)
ROLLOUT = example_rollout()
FACTS = facts_of(ROLLOUT)
SPOKEN = [0, 1, 2, 3, 4]  # the last text of the example is empty
TEXTS = ("a man riding a horse", "unplayer", "the cat sits on a mat.", "the cat", "the the the the", "")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return save_bert(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def two_sided(tmp_path_factory):
    return save_t5(tmp_path_factory.mktemp("t5"))


def scored(reward, rollout=ROLLOUT, facts=FACTS):
    bind_all(reward, facts)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return judge(reward, rollout)


def saying(*texts, references=None):
    rows = ROLLOUT.select(torch.zeros(len(texts), dtype=torch.long))
    references = references or [rows.prompts.references[0]] * len(texts)
    return replace(rows, texts=texts, prompts=replace(rows.prompts, references=tuple(references)))


def test_golden_rescaling_and_document_frequencies(tmp_path):
    assert rescaled([0.801187], [0.83122575])[0] == pytest.approx(-0.177982, abs=1e-5)
    assert rescaled([0.5], None) == [0.5]
    frequencies = Frequencies.of([[7, 7, 8], [7], [7]])
    assert [frequencies.idf(token) for token in (7, 8, 9)] == pytest.approx([0, 0.693147, 1.386294], abs=1e-6)
    (tmp_path / "rows.tsv").write_text("LAYER,P,R,F\n0,0.3,0.3,0.3\n17,0.83150584,0.8314941,0.83122575\n")
    assert read_baseline(str(tmp_path / "rows.tsv"), 17) == [0.83150584, 0.8314941, 0.83122575]
    assert read_baseline(0.5, 3) == [0.5] * 3


@pytest.mark.parametrize("idf", [False, True])
@pytest.mark.parametrize(("which", "layer"), [("encoder", 3), ("encoder", 2), ("two_sided", 2), ("two_sided", 3)])
def test_agrees_with_the_published_package(which, layer, idf, request):
    peer = pytest.importorskip("bert_score", reason="bert-score is the independent implementation")
    path = request.getfixturevalue(which)
    rollout = replace(ROLLOUT, texts=TEXTS)
    signal = scored(BERTScore(path, layer=layer, idf=idf, batch_size=2), rollout)
    table = False
    if idf:
        texts = [text for row in FACTS.references for text in row]
        table = peer.utils.get_idf_dict(texts, peer.utils.get_tokenizer(path), nthreads=0)
    expected = peer.score(
        [TEXTS[i] for i in SPOKEN],
        [list(ROLLOUT.prompts.references[i]) for i in SPOKEN],
        model_type=path,
        num_layers=layer,
        idf=table,
        device="cpu",
    )
    for name, values in zip(("P", "R", "F1"), expected, strict=True):
        assert signal.parts[f"BERTScore_{name}"][SPOKEN].tolist() == pytest.approx(values.tolist(), abs=1e-5)
    assert len({round(value, 4) for value in signal.total[SPOKEN].tolist()}) == len(SPOKEN)


@pytest.mark.filterwarnings("ignore:BERTScore")
@pytest.mark.parametrize("arguments", [{}, {"layer": 0, "idf": True, "score": "recall", "baseline": 0.5}])
def test_conforms(encoder, arguments):
    check_reward(lambda: BERTScore(encoder, **arguments))


def test_real_captions_score_as_the_published_package_says():
    model, (texts, references) = packaged_encoder(), judged_captions(10)
    peer = pytest.importorskip("bert_score", reason="bert-score is the independent implementation")
    spoken = [i for i, text in enumerate(texts) if text]  # the package cannot read empty texts
    expected = peer.score(
        [texts[i] for i in spoken],
        [[other for other in references[i] if other] for i in spoken],
        model_type=model,
        num_layers=6,
        device="cpu",
        batch_size=1,  # in larger batches it takes padding for a match of similarity 0, better than one below 0
    )
    reward = BERTScore(model, layer=6)
    bind_all(reward, FACTS)
    for _ in range(2):  # the second time with references known
        with pytest.warns(UserWarning, match="without words"):
            signal = judge(reward, saying(*texts, references=references))
        for name, values in zip(("P", "R", "F1"), expected, strict=True):
            assert signal.parts[f"BERTScore_{name}"][spoken].tolist() == pytest.approx(values.tolist(), abs=1e-5)
        assert signal.total[texts.index("")] == 0
    few = [0, 1, 8]
    alone = [judge(reward, saying(texts[i], references=[references[i]])).total.item() for i in few]
    assert alone == pytest.approx(signal.total[few].tolist(), abs=1e-5)


def test_hardly_any_padding_is_read_and_repeats_not_at_all():
    model, (texts, references) = packaged_encoder(), judged_captions(10)
    reward = BERTScore(model, layer=1)
    bind_all(reward, FACTS)
    shapes = []
    reward.encoder.module.register_forward_pre_hook(
        lambda _, args, inputs: shapes.append(inputs["input_ids"].shape), with_kwargs=True
    )
    several = {text.strip() for text in (*texts, *(other for row in references for other in row))}
    needed = sum(len(row["input_ids"]) for row in reward._reader.rows(sorted(several)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        judge(reward, saying(*texts, references=references))
        # A text that is candidate and reference is read twice.
        twice = {text.strip() for text in texts} & {other.strip() for row in references for other in row}
        needed += sum(len(row["input_ids"]) for row in reward._reader.rows(sorted(twice)))
        assert needed <= sum(rows * length for rows, length in shapes) <= needed + 64 * len(shapes)
        assert len(shapes) < 14
        shapes.clear()
        judge(reward, saying("a man", "a man", " a man ", references=references[:1] * 3))
    assert shapes == [(1, 4)]


def test_episodes_alike_are_compared_once(encoder, monkeypatch):
    compared = []
    inner = bert_score.best_matches
    monkeypatch.setattr(
        bert_score, "best_matches", lambda rows, device: compared.append(len(rows)) or inner(rows, device)
    )
    total = scored(
        BERTScore(encoder), saying(*["a man"] * 3, "a cat", references=[("a dog",), ("a dog",), ("a cat",), ("a dog",)])
    ).total
    assert compared == [3]
    assert total[0] == total[1]
    assert total.unique().numel() == 3


def test_a_reference_repeated_scores_one_and_the_best_reference_counts(encoder):
    signal = scored(BERTScore(encoder), saying(" a person riding a horse", references=[ROLLOUT.prompts.references[0]]))
    assert signal.total.item() == pytest.approx(1, abs=1e-5)
    one, other, both = scored(
        BERTScore(encoder), saying(*["a man"] * 3, references=[("the mat",), ("a dog",), ("the mat", "a dog")])
    ).total.tolist()
    assert both == max(one, other) != min(one, other)


def test_an_episode_without_words_gets_a_raw_zero_and_a_warning(encoder):
    reward = BERTScore(encoder, baseline=0.5)
    bind_all(reward, FACTS)
    with pytest.warns(UserWarning, match="BERTScore: an episode without words"):
        assert judge(reward, saying("", "  ")).total.tolist() == [-1.0, -1.0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        judge(reward, saying("a man"))


def test_prompts_without_words_to_compare_with_cannot_be_judged(encoder):
    signal = scored(BERTScore(encoder), saying("a man", "a man", "", references=[(), ("",), ()]))
    assert signal.total.isnan().all()
    half = scored(BERTScore(encoder), saying("a man", references=[("", "a man")]))
    assert half.total.item() == pytest.approx(1, abs=1e-5)


def test_the_batch_does_not_matter(encoder):
    whole, single = (scored(BERTScore(encoder, batch_size=n)).total for n in (64, 1))
    assert torch.allclose(whole, single, atol=1e-5)


def test_references_are_read_once_and_the_memory_is_bounded(encoder):
    reward = BERTScore(encoder, remember=3)
    scored(reward)
    read = []
    rows = reward._reader.rows
    reward._reader.rows = lambda texts: read.append(list(texts)) or rows(texts)
    judge(reward, saying("a man"))  # its two references were the first of six, so they are gone
    judge(reward, saying("a horse"))
    assert read == [["a man"], list(ROLLOUT.prompts.references[0]), ["a horse"]]
    assert len(reward._known) == 3


def test_long_texts_are_cut_at_the_model_s_limit(encoder):
    long = " ".join(["a man rides a horse"] * 20)
    cut, same = scored(BERTScore(encoder), saying(long, long + " in the park")).total.tolist()
    assert cut == same
    assert math.isfinite(cut)
    assert scored(BERTScore(encoder, max_length=4), saying("a man rides", "a man sits")).total.unique().numel() == 1


def test_the_model_is_neither_trained_nor_saved(encoder):
    reward = BERTScore(encoder, idf=True)
    bind_all(reward, FACTS)
    assert list(reward.parameters()) == []
    assert list(reward.state_dict()) == ["_extra_state"]
    assert reward.double().encoder.module.dtype == torch.float64  # but it moves with its owner


def test_document_frequencies_travel_in_the_checkpoint(encoder):
    other = replace(FACTS, references=(("a man in the park", "two dogs"), ("a a a",)))
    first, second = BERTScore(encoder, idf=True), BERTScore(encoder, idf=True)
    expected = scored(first).total
    assert not torch.allclose(scored(second, facts=other).total, expected)
    second.load_state_dict(first.state_dict())
    with pytest.warns(UserWarning, match="without words"):
        assert torch.allclose(judge(second, ROLLOUT).total, expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layer": 4}, "layer is 4; expected 0 to 3"),
        ({"max_length": 99}, "max_length is 99; expected 1 to 24"),
        ({"score": "f2"}, "expected one of f1, precision, recall"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"baseline": 1.0}, "expected numbers below 1"),
        ({"baseline": "nowhere.tsv"}, r"'nowhere\.tsv'; expected a number or a file"),
        ({"model": "/nowhere"}, "got the model '/nowhere'.*expected a folder"),
    ],
)
def test_impossible_arguments_are_refused(encoder, arguments, message):
    with pytest.raises((ValueError, OSError), match=message):
        BERTScore(**{"model": encoder} | arguments).bind(FACTS)


def test_a_baseline_file_without_the_layer_is_refused(tmp_path):
    (tmp_path / "rows.tsv").write_text("LAYER,P,R,F\n0,0.3,0.3,0.3\n")
    with pytest.raises(ValueError, match="for layer 5; expected numbers below 1"):
        read_baseline(str(tmp_path / "rows.tsv"), 5)


def test_idf_without_references_and_scoring_before_bind_are_refused(encoder):
    with pytest.raises(ValueError, match="idf: true and no training references"):
        BERTScore(encoder, idf=True).bind(replace(FACTS, references=()))
    with pytest.raises(RuntimeError, match="bind"):
        BERTScore(encoder).score(ROLLOUT)
