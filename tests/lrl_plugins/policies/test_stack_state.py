"""After a word and a backspace, the policy says what it said before that word: step by step and in one pass."""

from dataclasses import replace

import pytest
import torch
from branching import BACK, GPT2, KINDS, PLAIN, TOKENIZER, alone, episodes, last_of, policy_of, prompts_of

from lrl_core.backspace import follows_of, kept
from lrl_core.testing.policies import bound, check_policy, example_facts, example_prompts
from lrl_core.types import Rollout
from lrl_plugins.decoders.sample import Sample
from lrl_plugins.policies import trials
from lrl_plugins.policies.causal_lm import CausalLM
from lrl_plugins.policies.compiled import Compiled, as_it_is
from lrl_plugins.policies.read_write_agent import ReadWriteAgent
from lrl_plugins.policies.recurrent import Recurrent
from lrl_plugins.policies.seq2seq_lm import Seq2SeqLM
from lrl_plugins.policies.stack_state import StackState
from lrl_plugins.policies.transformers_state import CacheState
from lrl_plugins.policies.x_linear import XLinearCaptioner

torch.set_num_threads(1)
A, B, C, D, E = 4, 5, 6, 7, 8
LINES = {
    "single": (A, BACK),
    "double": (A, B, BACK, BACK),
    "go on": (A, B, BACK, C),
    "twice the same word": (A, B, BACK, C, BACK, D),
    "nothing left": (BACK,),
    "nothing left twice": (BACK, BACK, A),
    "one more than there is": (A, BACK, BACK, B),
    "all of it": (A, B, BACK, BACK, BACK, C, D, BACK, E),
}


@torch.no_grad()
def played(policy, prompts, *tokens):
    """Logits after the same tokens in every row, by begin and step."""
    logits, state = policy.begin(prompts)
    for token in tokens:
        logits, state = policy.step(torch.full_like(prompts.lengths, token), state)
    return logits


def line_of(prompts, *tokens):
    """The same tokens in every row, as a rollout."""
    line = torch.tensor([tokens]).expand(len(prompts), -1)
    real, ended = torch.ones(line.shape, dtype=torch.bool), torch.zeros(len(prompts), dtype=torch.bool)
    return Rollout(prompts, line, torch.full_like(prompts.lengths, len(tokens)), real, torch.zeros(line.shape), ended)


@pytest.mark.parametrize("kind", KINDS)
def test_taken_back_is_as_never_said(kind):
    policy, prompts = policy_of(kind, TOKENIZER), prompts_of(kind)
    for name, line in LINES.items():
        left = kept(line, BACK)
        expected = played(policy, prompts, *left)
        torch.testing.assert_close(played(policy, prompts, *line), expected, atol=1e-5, rtol=1e-5, msg=name)
        read = policy(line_of(prompts, *line, A)).states[:, -1]
        plain = policy(line_of(prompts, *left, A)).states[:, -1]
        torch.testing.assert_close(read, plain, atol=1e-5, rtol=1e-5, msg=name)
        logits = policy.reader.head.logits(read)
        torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5, msg=name)


@torch.no_grad()
def stepped(policy, rollout, selections):
    """Logits before each token while rows are chosen from the state between steps; the lines that came of it.

    Args:
        policy: Who reads.
        rollout: Whose tokens are fed, by the number of the step and the row.
        selections: Rows that go on before a step, for some steps.
    """
    logits, state = policy.begin(rollout.prompts)
    tokens, rows, said = rollout.tokens, torch.arange(len(rollout)), []
    for step in range(tokens.shape[1]):
        if step in selections:
            chosen = torch.tensor(selections[step])
            logits, state, rows = logits[chosen], state.select(chosen), rows[chosen]
            said, tokens = [before[chosen] for before in said], tokens[chosen]
            onward = torch.stack([line.roll(shift) for shift, line in enumerate(tokens[:, step:])])
            tokens = torch.cat([tokens[:, :step], onward], 1)  # repeats go on differently
        said.append(logits)
        logits, state = policy.step(tokens[:, step], state)
    lengths = torch.full_like(rows, tokens.shape[1])
    lines = replace(rollout.select(rows), tokens=tokens, lengths=lengths, action_mask=torch.ones_like(tokens).bool())
    return torch.stack(said, 1), lines


@pytest.mark.parametrize("selections", [{}, {0: [2, 0, 0, 4], 3: [3, 1, 2], 6: [0, 2, 1, 1]}], ids=["all", "chosen"])
@pytest.mark.parametrize("kind", ["gpt2", "gpt2-right", "llama", "marian", "bart", "captioner"])
def test_rows_take_words_back_at_different_times(kind, selections):
    policy = policy_of(kind, TOKENIZER)
    generator = torch.Generator().manual_seed(1)
    rollout = episodes(kind, 10, TOKENIZER)
    back = torch.rand(rollout.tokens.shape, generator=generator) < 0.4
    said, lines = stepped(policy, replace(rollout, tokens=rollout.tokens.masked_fill(back, BACK)), selections)
    follows = follows_of(lines.tokens, lines.lengths, BACK)
    assert (follows[:, 1:] < 0).any()  # a row is empty again
    assert len({tuple(line) for line in follows.tolist()}) == len(lines)
    apart, places = alone(lines, follows)
    expected = policy.reader.head.logits(last_of(apart, policy_of(kind)(apart).states))
    torch.testing.assert_close(said[places], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["gpt2-lora", "llama-right", "marian", "captioner"])
def test_conforms(kind):
    prompts = prompts_of(kind)
    check_policy(KINDS[kind][0], example_facts(TOKENIZER, prompts), prompts, steps=6, tolerance=1e-5)


@pytest.mark.parametrize("kind", ["gpt2", "gpt2-lora", "llama-right", "marian", "mbart", "captioner"])
def test_drawn_episodes_are_read_as_they_were_drawn(kind):
    policy, prompts = policy_of(kind, TOKENIZER), prompts_of(kind)
    decoder = Sample(max_length=14, samples=4, temperature=2.0)
    decoder.bind(example_facts(TOKENIZER, prompts))
    torch.manual_seed(0)
    rollout = decoder.decode(policy, prompts)
    taken = (rollout.tokens == BACK) & rollout.action_mask
    assert (taken.sum(1) > 0).sum() >= 3
    assert len(rollout.lengths.unique()) >= 3  # rows left at different times
    said = policy(rollout)
    torch.testing.assert_close(said.logprobs.detach(), rollout.logprobs, atol=1e-5, rtol=0)
    plain = policy_of(kind)(rollout).logprobs
    assert (said.logprobs - plain).abs().max() > 0.1  # a backspace is more than a word
    said.logprobs.sum().backward()
    assert any(p.grad is not None and p.grad.abs().max() > 0.01 for p in policy.parameters())


@pytest.mark.parametrize("kind", ["gpt2", "marian"])
def test_steps_around_the_modules_and_through_them_agree(kind):
    policy, prompts = policy_of(kind, TOKENIZER), prompts_of(kind)
    assert policy.reader.steps
    around = played(policy, prompts, *LINES["all of it"])
    policy.reader.steps = False
    torch.testing.assert_close(around, played(policy, prompts, *LINES["all of it"]), atol=1e-5, rtol=1e-5)


@pytest.mark.usefixtures("shapes_unchecked")
@pytest.mark.parametrize("kind", ["gpt2", "llama", "marian"])
def test_compiled_steps_take_words_back_too(kind, monkeypatch):
    engines = []
    monkeypatch.setattr(
        trials, "Compiled", lambda who, compiler=None: engines.append(Compiled(who, as_it_is)) or engines[-1]
    )
    policy, prompts = policy_of(kind, TOKENIZER, steps="compiled"), prompts_of(kind)
    for line in LINES.values():
        expected = played(policy_of(kind, TOKENIZER), prompts, *line)
        torch.testing.assert_close(played(policy, prompts, *line), expected, atol=1e-5, rtol=1e-5)
    assert policy.reader.compiled.functions
    assert not policy.reader.compiled.failed


def test_a_line_with_deletions_may_be_longer_than_the_model_has_places():
    prompts = example_prompts(TOKENIZER, (2, 1, 2, 1, 1))
    make = lambda: CausalLM(config={**GPT2, "n_positions": 8})  # noqa: E731
    policy = bound(make, example_facts(TOKENIZER, prompts), seed=0).eval()
    line = (A, B, BACK, BACK) * 3
    torch.testing.assert_close(played(policy, prompts, *line), played(policy, prompts), atol=1e-5, rtol=1e-5)
    assert policy(line_of(prompts, *line)).logprobs.isfinite().all()
    with pytest.raises(ValueError, match="room for 8"):
        played(policy, prompts, *[A] * 6)
    with pytest.raises(ValueError, match="room for 8"):
        policy(line_of(prompts, *[A] * 7))


def test_other_tokenizers_do_not_pay():
    with torch.no_grad():
        plain, undoing = (policy_of("gpt2", tokenizer).begin(prompts_of("gpt2"))[1] for tokenizer in (PLAIN, TOKENIZER))
    assert type(plain) is CacheState
    assert type(undoing) is StackState


def test_follows_that_are_given_are_kept():
    """What an objective has made of a line is not made again of its backspaces."""
    policy, rollout = policy_of("gpt2", TOKENIZER), line_of(prompts_of("gpt2"), A, B, BACK, C)
    given = replace(rollout, follows=torch.tensor([[-1, 0, 1, 2]]).expand(5, -1))
    plain = policy_of("gpt2")(rollout).states
    torch.testing.assert_close(policy(given).states, plain, atol=1e-5, rtol=1e-5)
    assert (policy(rollout).states - plain).abs().max() > 0.1


T5 = {"model_type": "t5", "d_model": 16, "num_layers": 1, "num_heads": 2, "d_kv": 8, "d_ff": 32}
BLOOM = {"model_type": "bloom", "hidden_size": 16, "n_layer": 1, "n_head": 2}
MISTRAL = {"model_type": "mistral", "sliding_window": 3, "hidden_size": 16, "intermediate_size": 32}
MISTRAL |= {"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1}
REFUSING = {
    "T5ForConditionalGeneration counts distance": lambda: Seq2SeqLM(config=T5),
    "BloomForCausalLM counts distance": lambda: CausalLM(config=BLOOM),
    "MistralForCausalLM counts distance": lambda: CausalLM(config=MISTRAL),
    "Recurrent: .*its memory": lambda: Recurrent(embedding=4, hidden=4),
    "XLinearCaptioner: .*its memory": lambda: XLinearCaptioner(hidden=4, heads=2, layers=1),
    "ReadWriteAgent: .*its memory": lambda: ReadWriteAgent(Seq2SeqLM(config=T5, source="causal")),
}


@pytest.mark.parametrize("cause", REFUSING)
def test_who_cannot_take_back_says_so_when_it_is_bound(cause):
    prompts = example_prompts(TOKENIZER, pictures="regions")
    with pytest.raises(
        ValueError, match=rf"(?=.*{cause}).*Undoing has a backspace \(token 9\).*expected.*Use CausalLM"
    ):
        bound(REFUSING[cause], example_facts(TOKENIZER, prompts), seed=0)


def test_a_model_that_cannot_forget_is_found_out(monkeypatch):
    """One that reads trees but not a mask with holes is noticed by its numbers when it is bound."""
    make = StackState.after

    def remembering(self, tokens, backspace):
        read, state = make(self, tokens, backspace)
        return read, replace(state, inner=replace(state.inner, mask=torch.ones_like(state.inner.mask)))

    monkeypatch.setattr(StackState, "after", remembering)
    with pytest.raises(ValueError, match="GPT2LMHeadModel cannot forget"):
        policy_of("gpt2", TOKENIZER)
