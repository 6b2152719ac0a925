"""The environment of simultaneous translation, and what episodes with it look like at their edges."""

from dataclasses import replace

import pytest
import torch
from listening import READ, TOKENIZER, WORDS, facts, listening

from lrl_core.interfaces import bind_all
from lrl_core.masks import length_mask
from lrl_core.reports import Answer, texts_of
from lrl_core.scoring import judge
from lrl_core.testing.toy import TablePolicy
from lrl_core.types import Reply
from lrl_plugins.decoders.sample import Greedy, Sample
from lrl_plugins.rewards.environment import EnvironmentReward
from lrl_plugins.tasks.simultaneous_translation.corpus_metric import SimultaneousMetrics
from lrl_plugins.tasks.simultaneous_translation.environment import Speaker
from lrl_plugins.tasks.simultaneous_translation.rewards import Delay, IncrementalBLEU

torch.set_num_threads(1)
EOS = TOKENIZER.eos


def reader(read=1.0, end=0.0):
    """A policy whose words depend on the last token, with a taste for READ and for the end."""
    table = torch.randn(len(TOKENIZER) + 1, len(TOKENIZER), generator=torch.Generator().manual_seed(0))
    table[:, READ] += read
    table[:, EOS] += end
    return TablePolicy(table.double(), eos=EOS)


def played(decoder, prompts=None, first=1, spoken=False, **taste):
    task = facts(first, spoken)
    decoder.bind(task)
    torch.manual_seed(0)
    return decoder.decode(reader(**taste), prompts if prompts is not None else listening(first=first), task.environment)


def test_each_read_is_answered_until_the_sentence_is_over():
    speaker = Speaker(READ, 1, spoken=True)
    assert (speaker.turn_ends, speaker.closes, speaker.reads, speaker.shown) == ((READ,), (READ,), (), 1)
    state, over, *_ = speaker.start(listening())
    assert speaker.closed(over)  # a sentence of one word
    assert not speaker.closed(state)
    assert speaker.reply(state, [5, 6, READ]) == Reply((6,))
    assert speaker.reply(state, [READ]) == Reply((7, 8, 9))
    assert not speaker.closed(state)
    assert speaker.reply(state, [4, EOS]) == Reply()  # the end asks for nothing
    assert speaker.reply(state, [READ]) == Reply((10,))
    assert speaker.closed(state)
    assert speaker.reply(state, [READ]) == Reply()


def test_words_that_are_seen_are_not_spoken():
    speaker = Speaker(READ, 2, spoken=False)
    assert speaker.reads == (READ,)
    state = speaker.start(listening())[0]
    assert [speaker.reply(state, [READ]) for _ in range(2)] == [Reply(), Reply()]
    assert speaker.closed(state)
    assert state.heard == 4


def test_what_was_written_makes_the_text():
    speaker = Speaker(READ, 1, spoken=True)
    assert speaker.speech([4, READ, 7, 5, EOS], [True, True, False, True, True]) == [4, 5, EOS]
    rollout = played(Sample(max_length=12), spoken=True)
    for row, text in enumerate(texts_of(rollout, TOKENIZER, facts(spoken=True).environment)):
        own = rollout.tokens[row][rollout.action_mask[row]].tolist()
        assert text == TOKENIZER.decode([token for token in own if token != READ])


@pytest.mark.parametrize("decoder", [Sample(max_length=14, samples=4), Greedy(max_length=14)], ids=["sample", "greedy"])
def test_words_enter_the_line_as_words_of_the_world(decoder):
    rollout = played(decoder, spoken=True)
    assert (rollout.environment_reward == 0).all()
    real = length_mask(rollout.lengths, rollout.tokens.shape[1])
    reads = 0
    for row, example in enumerate(rollout.prompts.examples):
        line = rollout.tokens[row][real[row]].tolist()
        own = rollout.action_mask[row][real[row]].tolist()
        waiting, world = list(example["pieces"][1:]), []
        for token, chosen in zip(line, own, strict=True):
            assert chosen == (not world)
            if world:
                assert token == world.pop(0)
            elif token == READ:
                world, reads = list(waiting.pop(0)), reads + 1
    assert reads >= 5
    assert (rollout.logprobs[~rollout.action_mask] == 0).all()


@pytest.mark.parametrize("spoken", [False, True])
@pytest.mark.parametrize(
    "decoder",
    [
        Sample(max_length=14, samples=4),
        Sample(max_length=14, samples=4, temperature=0.6, top_k=5),
        Greedy(max_length=14),
    ],
    ids=["sample", "cut", "greedy"],
)
def test_where_the_sentence_is_over_reading_is_impossible_and_the_ratio_is_one(decoder, spoken):
    rollout = played(decoder, spoken=spoken, read=4.0)
    closed = rollout.closed & rollout.action_mask
    assert closed.sum() > 20
    assert not (rollout.tokens[closed] == READ).any()
    reads = ((rollout.tokens == READ) & rollout.action_mask).sum(1)
    words = torch.tensor([len(row["pieces"]) for row in rollout.prompts.examples])
    assert (reads <= words - 1).all()
    assert (reads == words - 1).any()
    # By hand: the policy's own logits, without what cannot be said.
    policy = reader(read=4.0)
    before = torch.nn.functional.pad(rollout.tokens[:, :-1] + 1, (1, 0))
    logits = policy.table.detach()[before].float() / rollout.sampling.temperature
    logits[:, :, list(TOKENIZER.never_drawn)] = -torch.inf
    logits[rollout.closed, READ] = -torch.inf
    if rollout.sampling.top_k:
        logits[logits < logits.topk(5).values[:, :, -1:]] = -torch.inf
    expected = logits.log_softmax(2).gather(2, rollout.tokens[:, :, None]).squeeze(2)[rollout.action_mask]
    torch.testing.assert_close(rollout.logprobs[rollout.action_mask], expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(policy(rollout).logprobs.detach().float(), rollout.logprobs, atol=1e-5, rtol=0)


EDGES = {
    "nothing to hear": (((), ((4,), (5,))), 8, {}),
    "one word": ((((4,),), ((4, 5),)), 8, {}),
    "cut while reading": ((((4,),) * 6, ((5,),) * 4), 2, {"read": 30.0}),
    "cut while writing": ((((4,),) * 6, ((5,),) * 4), 3, {"read": -30.0, "end": -30.0}),
    "ended at once": ((((4,),) * 3, ((5,),) * 4), 4, {"end": 30.0}),
}


@pytest.mark.parametrize("spoken", [False, True])
@pytest.mark.parametrize("edge", EDGES)
def test_edges_have_defined_results(edge, spoken):
    sentences, length, taste = EDGES[edge]
    prompts = listening(sentences, (1, 2))
    prompts = replace(prompts, references=(("word0 word1",), ("word2",)))
    rollout = played(Sample(max_length=length, samples=3), prompts, spoken=spoken, **taste)
    rollout = replace(rollout, texts=texts_of(rollout, TOKENIZER, facts(spoken=spoken).environment))
    totals = []
    for reward in (IncrementalBLEU(), IncrementalBLEU(increments=False), Delay(0.5, wait=2), EnvironmentReward()):
        bind_all(reward, facts(spoken=spoken))
        signal = judge(reward, rollout)
        assert signal.total.isfinite().all()
        assert (signal.by_token[~rollout.action_mask] == 0).all()
        totals.append(signal.total)
    metric = SimultaneousMetrics((READ,), 1, TOKENIZER.decode)
    metric.update(Answer.of(rollout, TOKENIZER))
    scores = metric.compute()
    assert scores["BLEU"].isfinite()
    empty = {"nothing to hear": 1, "one word": 0, "cut while reading": 2, "cut while writing": 0, "ended at once": 2}
    if edge != "one word":  # there a word may be written, or none
        assert scores["empty"] == empty[edge]
    if edge in ("cut while reading", "ended at once"):
        assert totals[0].tolist() == [0.0] * 6
        assert scores["AP"].isnan()  # the mean over no sentence
        assert scores["reads_share"] == (edge == "cut while reading")
    if edge == "cut while reading":
        # nothing was written: as late as can be, and the second READ made two or more words in a row
        assert (totals[2] <= -0.5).all()


def test_the_policy_is_not_paid():
    assert played(Sample(max_length=6)).environment_reward.abs().max() == 0


def test_more_words_can_be_heard_before_the_first_action():
    rollout = played(Sample(max_length=10, samples=4), first=3, read=9.0)
    reads = (rollout.tokens == READ).sum(1)
    words = torch.tensor([len(row["pieces"]) for row in rollout.prompts.examples])
    assert reads.equal((words - 3).clamp(min=0))
    assert set(rollout.tokens[rollout.action_mask].tolist()) <= {READ, EOS, *WORDS}
