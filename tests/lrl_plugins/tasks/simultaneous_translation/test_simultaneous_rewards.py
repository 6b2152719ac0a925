"""Quality by prefix and delay against a target: golden rows, independent implementations, and where pay stands."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from math import exp, log

import pytest
import sacrebleu
import torch

from lrl_core.interfaces import TaskFacts, bind_all
from lrl_core.masks import length_mask
from lrl_core.metrics.bleu import sentence_bleu
from lrl_core.scoring import judge
from lrl_core.testing.rewards import check_reward
from lrl_core.tokenizer import WordTokenizer
from lrl_core.types import Prompts, Rollout
from lrl_plugins.rewards.bleu import BLEU
from lrl_plugins.rewards.sum import Sum
from lrl_plugins.tasks.simultaneous_translation.environment import Speaker
from lrl_plugins.tasks.simultaneous_translation.rewards import Delay, IncrementalBLEU, average_share
from lrl_plugins.tasks.symbols import WithSymbols

TOKENIZER = WithSymbols(WordTokenizer(["the", "cat", "sat", "on", "mat", "dog", "a"]), ["<read>"])
READ = TOKENIZER.id("<read>")
R, EOS = "R", "."


def line(text):
    """ "R the cat ." as ids: R is READ, a full stop the end, (x) a word of the world."""
    known = {R: READ, EOS: TOKENIZER.eos}
    return [known[word] if word in known else TOKENIZER.encode(word)[0] for word in text.replace("(", "").split()]


def episodes(*lines, references=("the cat sat on the mat",), source="v w x y z", own=None):
    """Episodes about the same source; words of the world are written (word."""
    tokens = [line(text) for text in lines]
    chosen = [[not word.startswith("(") for word in text.split()] for text in lines]
    longest, lengths = max(map(len, tokens)), torch.tensor([len(row) for row in tokens])
    mask = torch.zeros(len(lines), longest, dtype=torch.bool)
    for row, flags in enumerate(chosen):
        mask[row, : len(flags)] = torch.tensor(flags)
    count = len(lines)
    prompts = Prompts(
        torch.zeros(count, 0, dtype=torch.long), torch.zeros(count, dtype=torch.long), torch.arange(count),
        references=None if references is None else (references,) * count,
        examples=({"source": source},) * count,
    )  # fmt: skip
    return Rollout(
        prompts=prompts,
        tokens=torch.tensor([row + [TOKENIZER.pad] * (longest - len(row)) for row in tokens]),
        lengths=lengths,
        action_mask=mask & length_mask(lengths, longest),
        logprobs=torch.zeros(count, longest),
        terminated=torch.tensor([row[-1] == TOKENIZER.eos for row in tokens]),
        texts=tuple(lines),
    )


def facts(rollout, shown=1, spoken=False):
    return TaskFacts(TOKENIZER, (), rollout.prompts.select(torch.arange(1)), Speaker(READ, shown, spoken))


def scored(reward, rollout, shown=1):
    bind_all(reward, facts(rollout, shown))
    return judge(reward, rollout)


def bleu_by_hand(words, reference, n=4, brevity=True):
    """Sentence BLEU with one added to matches and totals from bigrams on, from the definition."""
    logs = []
    for order in range(1, n + 1):
        said = Counter(tuple(words[i : i + order]) for i in range(len(words) - order + 1))
        true = Counter(tuple(reference[i : i + order]) for i in range(len(reference) - order + 1))
        more = order > 1
        matches, total = sum((said & true).values()) + more, sum(said.values()) + more
        if matches == 0 or total == 0:
            return 0.0
        logs.append(log(matches / total))
    penalty = min(0.0, 1 - len(reference) / len(words)) if brevity else 0.0
    return exp(sum(logs) / n + penalty)


REFERENCE = ["the", "cat", "sat", "on", "the", "mat"]
GROWING = ["the", "cat", "dog", "sat", "on"]


def test_every_written_token_is_paid_what_it_adds_and_the_last_the_whole():
    rollout = episodes("R the cat R R dog R sat on .")
    (paid,) = scored(IncrementalBLEU(), rollout).by_token.tolist()
    free = [0.0, *(bleu_by_hand(GROWING[:n], REFERENCE, brevity=False) for n in range(1, 6))]
    grown = [later - earlier for earlier, later in pairwise(free)]
    whole = bleu_by_hand(GROWING, REFERENCE)
    expected = [0, grown[0], grown[1], 0, 0, grown[2], 0, grown[3], grown[4], whole]
    assert paid == pytest.approx(expected, abs=1e-6)
    assert grown[0] == 1  # one word of one is right
    assert grown[2] < 0 < whole < free[-1]
    assert sum(paid[:-1]) == pytest.approx(free[-1])  # the increments telescope


def test_without_an_end_token_the_last_word_has_the_whole_instead_of_its_increment():
    rollout = episodes("the cat R sat", "the cat sat R")
    cut, reading = scored(IncrementalBLEU(), rollout).by_token.tolist()
    free = [bleu_by_hand(REFERENCE[:n], REFERENCE, brevity=False) for n in (1, 2, 3)]
    whole = bleu_by_hand(REFERENCE[:3], REFERENCE)
    assert cut == pytest.approx([free[0], free[1] - free[0], 0, whole], abs=1e-6)
    assert sum(cut[:-1]) == pytest.approx(free[1], abs=1e-6)
    assert reading == pytest.approx([free[0], free[1] - free[0], free[2] - free[1], whole], abs=1e-6)


def test_the_sentences_alone_have_the_bleu_of_two_independent_implementations():
    texts = ["the cat sat on the mat", "the cat", "dog dog", "a cat sat on the dog", "the"]
    rollout = episodes(*(f"R {text} ." for text in texts), references=("the cat sat on the mat", "a cat sat"))
    signal = scored(IncrementalBLEU(increments=False), rollout)
    references = [text.split() for text in rollout.prompts.references[0]]
    for row, text in enumerate(texts):
        ours = sentence_bleu(text.split(), references, 4, "add_one")[-1]
        theirs = sacrebleu.sentence_bleu(
            text,
            list(rollout.prompts.references[row]),
            smooth_method="add-k",
            smooth_value=1,
            use_effective_order=False,
        ).score
        assert signal.total[row] == pytest.approx(ours, abs=1e-6)
        assert signal.total[row] == pytest.approx(theirs / 100, abs=1e-6)
        place = int(rollout.lengths[row]) - 1
        assert signal.by_token[row].nonzero().flatten().tolist() in ([place], [])
    assert signal.parts["BLEU_4"].equal(signal.total)


def test_the_sentence_is_the_part_that_is_logged():
    rollout = episodes("R the cat R sat .", "dog .")
    signal = scored(IncrementalBLEU(), rollout)
    assert signal.parts["BLEU_4"].tolist() == pytest.approx([bleu_by_hand(REFERENCE[:3], REFERENCE), 0])
    assert signal.total[0] > signal.parts["BLEU_4"][0]


@pytest.mark.parametrize("smoothing", ["none", "floor", "exp", "add_one_all"])
@pytest.mark.parametrize("n", [1, 2])
def test_other_orders_and_smoothings_are_those_of_the_reward_bleu(n, smoothing):
    rollout = episodes("R the dog sat on .", "a .")
    alone = scored(IncrementalBLEU(increments=False, n=n, smoothing=smoothing), rollout)
    plain = BLEU(n=n, smoothing=smoothing)
    bind_all(plain, facts(rollout))
    texts = replace(rollout, texts=("the dog sat on", "a"))
    torch.testing.assert_close(alone.total, judge(plain, texts).total)


def test_nothing_written_is_worth_nothing_and_prompts_without_references_cannot_be_judged():
    signal = scored(IncrementalBLEU(), episodes("R R R", ".", "R R ."))
    assert signal.total.tolist() == [0, 0, 0]
    assert scored(IncrementalBLEU(), episodes("the .", references=None)).total.isnan().all()
    mixed = episodes("the cat .", "the cat .")
    mixed = replace(mixed, prompts=replace(mixed.prompts, references=((), ("the cat",))))
    assert scored(IncrementalBLEU(), mixed).total.isnan().tolist() == [True, False]


def test_words_of_the_world_are_neither_counted_nor_paid():
    spoken, silent = episodes("the R (dog cat R (mat sat ."), episodes("the R cat R sat .")
    world, alone = scored(IncrementalBLEU(), spoken), scored(IncrementalBLEU(), silent)
    assert world.by_token[0, [0, 1, 3, 4, 6, 7]].tolist() == alone.by_token[0].tolist()
    assert world.by_token[0, [2, 5]].tolist() == [0, 0]
    costly = Delay(proportion=0.1, wait=1)
    assert (
        scored(costly, spoken).by_token[0, [0, 1, 3, 4, 6, 7]].tolist() == scored(costly, silent).by_token[0].tolist()
    )


@pytest.mark.parametrize("reward", [IncrementalBLEU, lambda: IncrementalBLEU(increments=False), lambda: Delay(0.1)])
def test_an_episode_cut_while_the_world_speaks_is_paid_where_the_policy_acted(reward):
    rollout = episodes("the cat R (dog (dog", "the cat R")
    signal = scored(reward(), rollout)
    assert signal.by_token[0, 3:].tolist() == [0, 0]
    assert signal.by_token[0, 2] == signal.by_token[1, 2] != 0


# Delay


def golden():
    """One word heard before the first action; |x| = 5; then R W R R R W W."""
    return episodes("R the R R R cat sat")


def test_the_golden_row_of_waiting():
    signal = scored(Delay(proportion=None, wait=2), golden())
    # of R R W R R R W W the first R stands before the episode and costs nothing
    assert signal.by_token[0].tolist() == pytest.approx([-0.025, 0, 0, -0.025, -0.05, 0, 0])
    assert signal.parts["average_proportion"].tolist() == pytest.approx([0.8])  # delays 2 5 5 of 5


@pytest.mark.parametrize(
    ("target", "weight", "cost"), [(0.7, 1.0, -0.1), (0.3, 1.0, -0.5), (0.3, 2.0, -1.0), (0.8, 1, 0), (0.9, 1.0, 0)]
)
def test_lateness_above_the_target_costs_at_the_end(target, weight, cost):
    signal = scored(Delay(proportion=target, proportion_weight=weight), golden())
    assert signal.by_token[0].tolist() == pytest.approx([0] * 6 + [cost], abs=1e-6)


def test_both_costs_add_up():
    signal = scored(Delay(proportion=0.7, wait=2, wait_weight=0.1), golden())
    assert signal.by_token[0].tolist() == pytest.approx([-0.1, 0, 0, -0.1, -0.2, 0, -0.1])
    assert signal.total.tolist() == pytest.approx([-0.5])


@pytest.mark.parametrize(
    ("shown", "wait", "costs"),
    [
        (0, 1, [-1, -2, 0, -1, -2, -2, 0, 0]),  # at the target once, above it twice
        (2, 3, [-1, -2, 0, 0, 0, -1, 0, 0]),  # what was shown before counts as waited for
        (1, 9, [0] * 8),
    ],
)
def test_waiting_is_counted_in_a_row(shown, wait, costs):
    signal = scored(Delay(proportion=None, wait=wait, wait_weight=1.0), episodes("R R the R R R cat ."), shown)
    assert signal.by_token[0].tolist() == pytest.approx(costs)


def test_the_end_token_counts_as_written():
    # heard 2 2 5 5 of 5, EOS among them
    signal = scored(Delay(), episodes("R the cat R R R sat ."))
    assert signal.parts["average_proportion"].tolist() == pytest.approx([14 / 20])


@pytest.mark.parametrize(
    ("actions", "shown", "words", "share"),
    [
        ([True, False, True, True, True, False, False], 1, 5, 0.8),
        ([False] * 3, 1, 4, 0.25),
        ([False] * 3, 9, 4, 1.0),  # heard before there was anything to say
        ([True] * 9 + [False], 1, 4, 1.0),  # there is no more to hear than all
        ([True, True], 1, 4, 1.0),  # nothing written
        ([], 1, 4, 1.0),
        ([False], 1, 0, 1.0),  # nothing to hear
        ([True, None, None, False], 1, 4, 0.5),
    ],
)
def test_the_average_share_by_hand(actions, shown, words, share):
    assert average_share(actions, shown, words) == pytest.approx(share)


def test_a_task_in_which_nobody_speaks_is_one_in_which_all_is_heard_first():
    rollout = episodes("the cat .")
    reward = Delay(proportion=0.7)
    bind_all(reward, replace(facts(rollout), environment=None))
    signal = judge(reward, rollout)
    assert signal.parts["average_proportion"].tolist() == [1.0]
    assert signal.total.tolist() == pytest.approx([-0.3])


@pytest.mark.parametrize(
    "make", [IncrementalBLEU, lambda: IncrementalBLEU(increments=False), lambda: Delay(0.5, wait=2)],
    ids=["increments", "sentence", "delay"],
)  # fmt: skip
def test_conforms(make):
    rollout = episodes("R the cat R R dog R sat on .", "the R (dog cat", "R R", ".", "the cat sat on the mat .")
    check_reward(make, rollout, facts(rollout))


def test_quality_and_delay_add_up_token_by_token():
    rollout = golden()
    both = scored(Sum({"quality": IncrementalBLEU(), "delay": Delay(0.5)}, {"quality": 1.0, "delay": 2.0}), rollout)
    quality, delay = scored(IncrementalBLEU(), rollout), scored(Delay(0.5), rollout)
    torch.testing.assert_close(both.by_token, quality.by_token + 2 * delay.by_token)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"proportion": 1.5}, r"got proportion 1\.5 and wait None; expected a share"),
        ({"wait": 0}, "got proportion 0.7 and wait 0; expected a share"),
        ({"proportion_weight": -1.0}, r"got proportion_weight -1\.0 .*expected both >= 0"),
        ({"wait_weight": -0.1}, r"wait_weight -0\.1; expected both >= 0"),
    ],
)
def test_impossible_targets_are_refused(given, said):
    with pytest.raises(ValueError, match=f"Delay: {said}" if said.startswith("got") else said):
        Delay(**given)


@pytest.mark.parametrize("given", [{"n": 0}, {"smoothing": "none at all"}])
def test_impossible_bleu_is_refused(given):
    with pytest.raises(ValueError, match=r"IncrementalBLEU: got n .* expected n >= 1 and one of"):
        IncrementalBLEU(**given)
