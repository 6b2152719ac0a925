import math
from dataclasses import replace

import pytest
import torch
from ranked_answers import BERT, FACTS, GPT2, PROMPT, SENTENCES, TOKENIZER, batch_of, bound, noisy, optimiser_of, update

from lrl_core.types import Experience, Rollout
from lrl_plugins.learners.masked_lm import HiddenWords, MaskedLM, hide, texts_to_read

torch.set_num_threads(1)


def lesson_of(learner, count=6):
    (lesson,) = learner.lessons(batch_of(noisy(count)), None)
    return lesson


def test_how_often_words_are_hidden_and_how():
    """15 % of 1e5 words; of these 80 % masked, 10 % replaced, 10 % unchanged, all within three deviations."""
    torch.manual_seed(0)
    size, mask = 100_000, 999
    ids = torch.full((100, size // 100), 5)
    shown, chosen = hide(ids, torch.ones_like(ids, dtype=torch.bool), mask, torch.arange(100, 900))
    masked, same = shown == mask, shown == ids
    found = int(chosen.sum())
    for seen, of, share in (
        (found, size, 0.15),
        (int(masked.sum()), found, 0.8),
        (int((~masked & ~same).sum()), found, 0.1),
        (int((chosen & same).sum()), found, 0.1),
    ):
        assert abs(seen - share * of) < 3 * math.sqrt(of * share * (1 - share))
    assert same[~chosen].all()
    others = shown[~masked & ~same]
    assert 100 <= int(others.min()) < 150  # from the whole range
    assert 850 < int(others.max()) < 900


def test_special_tokens_and_padding_are_never_chosen():
    learner = bound(MaskedLM(model=BERT, share=0.99))
    lesson = lesson_of(learner)
    special = (lesson.ids == TOKENIZER.bos) | (lesson.ids == TOKENIZER.eos) | ~lesson.real
    assert special.any()
    assert not lesson.chosen[special].any()
    assert torch.equal(lesson.shown[special], lesson.ids[special])
    assert lesson.chosen[~special].float().mean() > 0.9
    replaced = lesson.shown[lesson.chosen & (lesson.shown != lesson.ids)]
    assert not set(replaced.tolist()) & set(TOKENIZER.never_drawn)
    assert int(replaced.max()) == len(TOKENIZER)  # the mask


def test_the_loss_is_on_chosen_words_only():
    learner = bound(MaskedLM(model=BERT)).eval()
    lesson = lesson_of(learner)
    other = replace(lesson, ids=torch.where(lesson.chosen, lesson.ids, 7))
    assert learner.learn(lesson).total == learner.learn(other).total
    nothing = replace(lesson, chosen=torch.zeros_like(lesson.chosen))
    assert learner.count(nothing) == 0
    assert learner.learn(nothing).total == 0
    learner.learn(nothing).total.backward()


def test_a_head_that_knows_nothing_is_at_chance():
    learner = bound(MaskedLM(model=BERT)).eval()
    lesson = lesson_of(learner)
    with torch.no_grad():
        learner.encoder.get_input_embeddings().weight.zero_()
    mean = learner.learn(lesson).total / learner.count(lesson)
    assert mean.item() == pytest.approx(math.log(len(TOKENIZER) + 1), abs=1e-5)
    metric = learner.metric()
    learner.examine(lesson, metric)
    assert metric.compute()["masked_perplexity"].item() == pytest.approx(len(TOKENIZER) + 1, rel=1e-4)


def test_micro_batches_change_nothing():
    learner = bound(MaskedLM(model=BERT, share=0.5)).eval()
    lesson = lesson_of(learner)
    parts = lesson.split(30)
    assert len(parts) > 2
    assert sum(len(part.ids) for part in parts) == len(lesson.ids)
    assert max(part.ids.numel() for part in parts) <= 30
    total = sum(learner.learn(part).total for part in parts)
    assert total.item() == pytest.approx(learner.learn(lesson).total.item(), rel=1e-5)
    assert sum(learner.count(part) for part in parts) == learner.count(lesson)


def test_it_learns_to_guess():
    learner = bound(MaskedLM(model=BERT | {"hidden_dropout_prob": 0.0}, share=0.25, updates=200))
    optimizer, metric, before = optimiser_of(learner, 1e-2), learner.metric(), learner.metric()
    experience = batch_of(noisy(40))

    def measure(found):
        learner.eval()
        for lesson in learner.lessons(experience, None):
            learner.examine(lesson, found)
            break
        learner.train()
        return {name: float(value) for name, value in found.compute().items()}

    start = measure(before)
    for lesson in learner.lessons(experience, None):
        update(learner, lesson, optimizer)
    end = measure(metric)
    print(f"\nmasked words before {start} after {end}")
    assert end["masked_accuracy"] > 0.65 > 0.2 > start["masked_accuracy"]
    assert end["masked_perplexity"] < 4


def test_held_out_words_are_hidden_alike_every_time_and_training_words_anew():
    learner = bound(MaskedLM(model=BERT, share=0.4))
    assert not torch.equal(lesson_of(learner).chosen, lesson_of(learner).chosen)
    learner.eval()
    torch.manual_seed(1)
    state = torch.get_rng_state()
    assert torch.equal(lesson_of(learner).shown, lesson_of(learner).shown)
    assert torch.equal(torch.get_rng_state(), state)


def test_texts_are_read_once_each_with_their_prompt_or_without():
    prompts = Rollout.of_targets(batch_of(noisy(40)).expert.prompts).prompts
    with_prompt, without = (texts_to_read(prompts, TOKENIZER, wanted) for wanted in (True, False))
    assert sorted(with_prompt) == sorted((PROMPT, text) for text in SENTENCES)
    assert sorted(text for _, text in without) == sorted(SENTENCES)
    bare = replace(prompts, references=None, examples=())
    assert sorted(texts_to_read(bare, TOKENIZER, True)) == sorted(with_prompt)


def test_beside_a_policy_it_does_nothing():
    assert list(bound(MaskedLM(model=BERT)).lessons(batch_of(noisy(2)), object())) == []
    assert list(bound(MaskedLM(model=BERT)).lessons(Experience(), None)) == []


def test_an_empty_metric_has_no_numbers():
    assert MaskedLM(model=BERT).metric().compute() == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"share": 0.0}, "share in"),
        ({"masked": 0.9, "replaced": 0.2}, "add up to at most 1"),
        ({"updates": 0}, "updates >= 1"),
        ({"model": GPT2}, "expected an encoder"),
        ({"model": {}}, "expected a model_type"),
    ],
)
def test_impossible_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        MaskedLM(**arguments).bind(FACTS)


def test_parts_keep_all_four_fields_together():
    lesson = lesson_of(bound(MaskedLM(model=BERT)))
    for part in lesson.split(40):
        assert isinstance(part, HiddenWords)
        assert part.shown.shape == part.ids.shape == part.real.shape == part.chosen.shape
        assert part.real.any(0).all()
        assert torch.equal(part.shown[~part.chosen], part.ids[~part.chosen])
