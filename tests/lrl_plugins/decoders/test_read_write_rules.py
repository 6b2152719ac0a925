"""Rules that read and write: wait-k's delays on words and on pieces of words, wait-if by hand, what is refused."""

from dataclasses import dataclass, replace

import pytest
import torch
from listening import READ, TOKENIZER, facts, listening
from torch import Tensor

from lrl_core.interfaces import Policy, State
from lrl_core.testing.environments import ToyOracle
from lrl_core.testing.policies import bound
from lrl_core.tokenizer import WordTokenizer
from lrl_core.types import PolicyOutput
from lrl_core.vocab import Head
from lrl_plugins.decoders.read_write import WaitIf, WaitK, words_begin
from lrl_plugins.decoders.sample import Sample
from lrl_plugins.policies.seq2seq_lm import Seq2SeqLM
from lrl_plugins.tasks.simultaneous_translation.data import SimultaneousTranslation
from lrl_plugins.tasks.simultaneous_translation.lines import wait_k
from lrl_plugins.tasks.simultaneous_translation.made_up import VerbLast
from lrl_plugins.tasks.simultaneous_translation.path import words_with_delays
from lrl_plugins.tasks.symbols import WithSymbols
from lrl_plugins.tasks.text.bpe import BytePairTokenizer

torch.set_num_threads(1)
MARIAN = {
    "model_type": "marian", "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "max_position_embeddings": 128,
    "init_std": 0.3,
}  # fmt: skip


@dataclass
class Lines(State):
    """What each row has said."""

    rows: list

    def select(self, rows: Tensor) -> "Lines":
        return Lines([self.rows[i] for i in rows.tolist()])


class Scripted(Policy):
    """A policy whose log-probabilities are looked up: from the prompt's row number and the line so far to {id: p}."""

    def __init__(self, size, script):
        super().__init__()
        self.size, self.script = size, script

    def logits(self, rows):
        table = torch.full((len(rows), self.size), -12.0)
        for row, (prompt, line) in enumerate(rows):
            for token, chance in self.script(prompt, line).items():
                table[row, token] = torch.tensor(chance).log()
        return table

    def forward(self, rollout):
        groups = rollout.prompts.group.tolist()
        lines = [
            self.logits([(group, line[:t]) for t in range(len(line))])
            for group, line in zip(groups, rollout.tokens.tolist(), strict=True)
        ]
        return PolicyOutput(rollout, torch.stack(lines), Head(torch.eye(self.size), None), TOKENIZER.eos)

    def begin(self, prompts):
        rows = [(group, []) for group in prompts.group.tolist()]
        return self.logits(rows), Lines(rows)

    def step(self, tokens, state):
        rows = [(group, [*line, token]) for (group, line), token in zip(state.rows, tokens.tolist(), strict=True)]
        return self.logits(rows), Lines(rows)


def sentences_of(task, count=12):
    batch = next(iter(task.loader("train")))
    return batch.select(torch.arange(count))


def delays(task, rollout, row):
    length = int(rollout.lengths[row])
    source = rollout.prompts.examples[row]["source"].split()
    read = task.facts().environment.read
    words, found = words_with_delays(
        rollout.tokens[row, :length].tolist(), (read,), task.first, len(source), task.tokenizer.decode
    )
    return words, found, len(source)


def translations(task, prompts):
    """A policy that says each sentence's own translation, and would never read of itself."""
    read, eos = task.tokenizer.id("<read>"), task.tokenizer.eos
    lines = {
        int(group): [token for word in references[0].split() for token in task.tokenizer.encode(word)] + [eos]
        for group, references in zip(prompts.group, prompts.references, strict=True)
    }

    def script(prompt, line):
        said = [token for token in line if token != read]
        return {lines[prompt][min(len(said), len(lines[prompt]) - 1)]: 0.9}

    return Scripted(len(task.tokenizer), script)


@pytest.fixture(scope="module", params=[None, 60, 300], ids=["words", "letters", "pieces"])
def task(request):
    made = SimultaneousTranslation(VerbLast(60, 4, 4), vocabulary=request.param)
    made.facts()
    return made


@pytest.mark.parametrize("k", [1, 2, 3, None])
def test_wait_k_is_never_more_than_k_words_behind(task, k):
    prompts, decoder = sentences_of(task), WaitK(k, max_length=90)
    decoder.bind(task.facts())
    rollout = decoder.decode(translations(task, prompts), prompts, task.facts().environment)
    assert rollout.terminated.all()
    for row in range(len(rollout)):
        words, found, source = delays(task, rollout, row)
        assert " ".join(words) == prompts.references[row][0]
        assert found == wait_k(k or source, source, len(words))[:-1]
        reads = int((rollout.tokens[row] == task.tokenizer.id("<read>")).sum())
        # what stands before EOS: never past the end
        assert reads == wait_k(k or source, source, len(words))[-1] - 1


@pytest.mark.parametrize("k", [1, 3])
def test_wait_k_with_a_policy_that_knows_nothing(task, k):
    """Whatever it says, wherever it would like to read or go on with a word: the delays are those of the rule."""
    policy = bound(lambda: Seq2SeqLM(config=MARIAN, source="causal"), task.facts(), seed=0).eval()
    prompts, decoder = sentences_of(task), WaitK(k, max_length=40)
    decoder.bind(task.facts())
    rollout = decoder.decode(policy, prompts, task.facts().environment)
    assert (rollout.tokens != task.tokenizer.pad).sum(1).min() > 3
    blank = {i for i in range(len(task.tokenizer)) if not task.tokenizer.decode([i]).strip()}
    for row in range(len(rollout)):
        said = set(rollout.tokens[row].tolist()) - {task.tokenizer.eos, task.tokenizer.pad, task.tokenizer.id("<read>")}
        if said & blank:
            continue  # a space of its own begins a word that may never come
        words, found, source = delays(task, rollout, row)
        assert words
        assert found == wait_k(k, source, len(words))[:-1]
    torch.testing.assert_close(policy(rollout).logprobs.detach(), rollout.logprobs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("make", [lambda: WaitK(2, 30), lambda: WaitIf("worse", 1, 30), lambda: WaitIf("diff", 2, 30)])
def test_a_batch_is_read_as_each_sentence_alone(make):
    policy = bound(lambda: Seq2SeqLM(config=MARIAN, source="causal"), facts(), seed=0).eval()
    decoder, prompts = make(), listening()
    decoder.bind(facts())
    rollout = decoder.decode(policy, prompts, facts().environment)
    for row in range(len(prompts)):
        alone = decoder.decode(policy, prompts.select(torch.tensor([row])), facts().environment)
        length = int(alone.lengths[0])
        assert length == rollout.lengths[row]
        assert alone.tokens[0, :length].equal(rollout.tokens[row, :length])
        torch.testing.assert_close(alone.logprobs[0], rollout.logprobs[row, :length], atol=1e-5, rtol=0)
    words = torch.tensor([len(row["pieces"]) for row in prompts.examples])
    assert ((rollout.tokens == READ).sum(1) < words).all()


# Wait-if, by hand: probabilities by words heard and words written

A, B, C, END = 4, 5, 6, TOKENIZER.eos
CHANCES = {
    (1, 0): {A: 0.6, B: 0.3},
    (2, 0): {A: 0.5, B: 0.3, READ: 0.1},  # less sure of the same word
    (3, 0): {A: 0.4, B: 0.55, READ: 0.01},  # less sure again, and of another mind
    (4, 0): {A: 0.2, B: 0.6},  # surer
    (2, 1): {A: 0.1, C: 0.7},
    (3, 1): {B: 0.45, C: 0.4},  # less sure, and of another mind
    (4, 1): {B: 0.5, C: 0.2},
    (5, 1): {B: 0.9},
    (4, 2): {END: 0.6, A: 0.1},
    (5, 2): {END: 0.9},
}
SENTENCE = ((7,), (8,), (9,), (10,), (11,))


def heard_and_written(prompt, line):
    return CHANCES[1 + line.count(READ), len(line) - line.count(READ)]


@pytest.mark.parametrize(
    ("criterion", "start", "line"),
    [
        # 1 word: A .6 | 2: A .5, worse | 3: A .4, worse | 4: A .2 - but it is B that would have been written: .55
        # and is .6, so it is written | 5 (all): B
        ("worse", 1, [READ, READ, READ, B, READ, B, END]),
        # 2 words: A as before, so it is written | 3: B, not C | 4: B | 5: the end
        ("diff", 1, [READ, A, READ, READ, B, READ, END]),
        # compares for the first time with the second word heard
        ("diff", 2, [READ, A, READ, READ, B, READ, END]),
        # three are heard before anything is compared: B, not A | 4: B
        ("diff", 3, [READ, READ, READ, B, READ, B, END]),
        ("worse", 5, [READ, READ, READ, READ, A, A, A]),
    ],
)
def test_wait_if_by_hand(criterion, start, line):
    chances = dict(CHANCES)
    if start == 5:  # everything is heard first, then nothing can be read
        chances = {(5, written): {A: 0.9} for written in range(9)} | {(n, 0): {A: 0.5} for n in range(1, 5)}
    policy = Scripted(len(TOKENIZER), lambda prompt, said: chances[1 + said.count(READ), len(said) - said.count(READ)])
    decoder = WaitIf(criterion, start, max_length=len(line))
    decoder.bind(facts())
    rollout = decoder.decode(policy, listening((SENTENCE,), (1,)), facts().environment)
    assert rollout.tokens[0].tolist() == line
    assert rollout.terminated.tolist() == [line[-1] == END]
    # log-probabilities are the policy's own, READs included
    torch.testing.assert_close(policy(rollout).logprobs, rollout.logprobs)


def test_ids_that_begin_a_word():
    words = WordTokenizer(["a", "dog"])
    assert words_begin(words) == [i in (words.eos, words.unk, 4, 5) for i in range(6)]
    symbols = WithSymbols(words, ["<read>"])
    assert words_begin(symbols) == [*words_begin(words), False]
    pieces = BytePairTokenizer(["the boat the boats a 7 for 42 Ünder"] * 3, 60)
    names = {i: pieces.inner.id_to_token(i) for i in range(len(pieces))}
    begins = {names[i] for i, begin in enumerate(words_begin(pieces)) if begin}
    assert begins == {"<eos>"} | {name for name in names.values() if name.startswith("Ġ")}
    assert "Ġ" in begins  # alone, as before a letter that it has never been seen with
    assert {"t", "boat", "2"} & set(names.values()) <= set(names.values()) - begins


def test_a_word_that_was_left_is_not_gone_on_with():
    """Behind a READ between two words, a piece that would belong to the last one is not said."""
    tokenizer = WithSymbols(BytePairTokenizer(["the boat the boats the sea"] * 3, 60), ["<read>"])
    read, (the,) = tokenizer.id("<read>"), tokenizer.encode("the")
    letter = next(i for i in range(4, len(tokenizer)) if tokenizer.decode([the, i]) == "thes")
    task = replace(facts(), tokenizer=tokenizer)
    task.environment.read, task.environment.closes, task.environment.turn_ends = read, (read,), (read,)
    task.environment.reads = (read,)

    def script(prompt, line):
        if line and line[-1] == read and the in line:
            return {letter: 0.6, the: 0.3}
        return {the: 0.9}

    decoder = WaitK(1, max_length=5)
    decoder.bind(task)
    rollout = decoder.decode(Scripted(len(tokenizer), script), listening((SENTENCE,), (1,)), task.environment)
    assert rollout.tokens[0].tolist() == [the, read, the, read, the]


def test_what_they_cannot_do_is_refused():
    policy = Scripted(len(TOKENIZER), heard_and_written)
    for decoder in (WaitK(2), WaitIf()):
        name = type(decoder).__name__
        decoder.bind(facts())
        assert not decoder.draws
        with pytest.raises(ValueError, match=rf"{name}: nobody speaks in this task; expected one in which READ asks"):
            decoder.decode(policy, listening())
        with pytest.raises(ValueError, match=rf"{name}: nobody speaks in this task"):
            decoder.decode(policy, listening(), ToyOracle(closes=(4, 5)))
        with pytest.raises(ValueError, match=rf"{name}: .* spoken: false"):
            decoder.decode(policy, listening(), facts(spoken=True).environment)
    with pytest.raises(ValueError, match="WaitK: got k 0; expected at least 1, or null"):
        WaitK(0)
    with pytest.raises(ValueError, match="WaitK: got max_length 0"):
        WaitK(max_length=0)


@pytest.mark.usefixtures("shapes_unchecked")
def test_other_criteria_are_refused():
    with pytest.raises(ValueError, match=r"WaitIf: got criterion 'same'; expected one of \('worse', 'diff'\)"):
        WaitIf("same")


def test_the_rival_of_a_rule_is_the_policy_without_it():
    decoder = WaitK(3, max_length=7)
    decoder.bind(facts())
    greedy = decoder.greedy()
    policy = bound(lambda: Seq2SeqLM(config=MARIAN, source="causal"), facts(), seed=0).eval()
    rollout = greedy.decode(policy, listening(), facts().environment)
    sample = Sample(max_length=7, top_k=1)
    sample.bind(facts())
    assert rollout.tokens.equal(sample.decode(policy, listening(), facts().environment).tokens)


def test_an_empty_sentence_is_over_at_once():
    decoder = WaitK(2, max_length=4)
    decoder.bind(facts())
    policy = bound(lambda: Seq2SeqLM(config=MARIAN, source="causal"), facts(), seed=0).eval()
    rollout = decoder.decode(policy, listening(((), ((4,), (5,))), (1, 2)), facts().environment)
    assert rollout.closed[0].all()
    assert READ not in rollout.tokens[0]
    assert rollout.tokens[1, 0] == READ
    assert rollout.logprobs.isfinite().all()
