"""A prompt that is shown piece by piece: nothing is known before it is read, step by step as in one pass."""

from dataclasses import replace

import pytest
import torch
from listening import (
    READ,
    SENTENCES,
    TOKENIZER,
    WORDS,
    eager,
    facts,
    listening,
    random_episodes,
    stepped,
    with_source,
)

from lrl_core.testing.policies import bound, check_policy
from lrl_core.types import Experience, Prompts, Rollout
from lrl_plugins.decoders.sample import Greedy, Sample
from lrl_plugins.policies.revealed import reads_before
from lrl_plugins.policies.seq2seq_lm import Seq2SeqLM
from lrl_plugins.tasks.simultaneous_translation.lines import lay_line, wait_k

torch.set_num_threads(1)
LAYERS = {"d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "max_position_embeddings": 64, "init_std": 0.3}
LAYERS |= {
    f"{part}_{size}": n for part in ("encoder", "decoder") for size, n in (("attention_heads", 2), ("ffn_dim", 32))
}
MARIAN = {"model_type": "marian", "dropout": 0.3, **LAYERS}
MBART = {"model_type": "mbart", **LAYERS}
T5 = {
    "model_type": "t5", "d_model": 16, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 2, "d_kv": 8, "d_ff": 32,
    "initializer_factor": 2.0,
}  # fmt: skip
every_model = pytest.mark.parametrize("config", [MARIAN, MBART, T5], ids=lambda config: config["model_type"])
every_source = pytest.mark.parametrize("source", ["causal", "reread"])


def make(source, config=MARIAN, first=1, **options):
    return bound(lambda: Seq2SeqLM(config=config, source=source, **options), facts(first), seed=0).eval()


@pytest.mark.parametrize(("source", "config"), [("causal", MARIAN), ("reread", MARIAN), ("causal", T5)])
def test_conforms(source, config):
    check_policy(lambda: Seq2SeqLM(config=config, source=source), facts(), listening(), steps=6)


@pytest.mark.parametrize("config", [MARIAN, MBART], ids=lambda config: config["model_type"])
@every_source
def test_drawn_episodes_are_read_as_they_were_drawn(source, config):
    policy = eager(make(source, config))
    decoder = Sample(max_length=16, samples=3)
    decoder.bind(facts())
    torch.manual_seed(0)
    rollout = decoder.decode(policy, listening(), facts().environment)
    reads = ((rollout.tokens == READ) & rollout.action_mask).sum(1)
    left = torch.tensor([len(row["pieces"]) - 1 for row in rollout.prompts.examples])
    assert (reads <= left).all()
    assert len(reads.unique()) >= 3  # rows that have read unequal parts stood side by side
    assert len(rollout.lengths.unique()) >= 4  # and left at unequal times
    assert rollout.closed.any()
    torch.testing.assert_close(policy(rollout).logprobs.detach(), rollout.logprobs, atol=1e-5, rtol=0)


@every_model
@every_source
def test_steps_give_the_numbers_of_one_pass(source, config):
    policy, rollout = make(source, config), random_episodes(listening())
    assert ((rollout.tokens == READ).sum(1) > 0).sum() >= 3
    with torch.no_grad():
        whole = policy.reader.head.logits(policy.hidden(rollout).flatten(0, 1)).view(*rollout.tokens.shape, -1)
    real = rollout.action_mask
    torch.testing.assert_close(stepped(policy, rollout)[real], whole[real], atol=1e-4, rtol=1e-5)


def seen_before(rollout):
    """How many source tokens may be looked at before each token of the episodes."""
    reads = reads_before(rollout.tokens, (READ,))
    return rollout.prompts.features["visible"].gather(1, reads)


@every_model
@every_source
def test_what_has_not_been_read_changes_nothing(source, config):
    """Each source token in turn is replaced in all sentences: what was said before it was heard stays."""
    policy, rollout = make(source, config), random_episodes(listening(), steps=11)
    count, real = seen_before(rollout), rollout.action_mask
    with torch.no_grad():
        once, hidden = stepped(policy, rollout), policy.hidden(rollout)
    moved = 0
    for token in range(rollout.prompts.tokens.shape[1]):
        tokens = rollout.prompts.tokens.clone()
        there = token < rollout.prompts.lengths
        tokens[there, token] = (tokens[there, token] - WORDS[0] + 1) % len(WORDS) + WORDS[0]
        other = with_source(rollout, tokens)
        unheard = real & (count <= token)
        heard = real & (count > token)
        with torch.no_grad():
            for before, now in ((once, stepped(policy, other)), (hidden, policy.hidden(other))):
                torch.testing.assert_close(now[unheard], before[unheard], atol=1e-6, rtol=0)
                if heard.any():
                    assert (now - before)[heard].abs().max() > 1e-3
        moved += int(heard.any())
    assert moved >= 5


@every_source
def test_how_much_is_still_to_come_changes_nothing(source):
    """A sentence that goes on says the same as one that ends where the other has been heard, up to the last READ."""
    policy = make(source)
    short, long = ((4, 5), (6,), (7,)), ((4, 5), (6,), (7,), (8, 9), (10,))
    line = torch.tensor([[5, READ, 6, 7]])
    made = [replace(random_episodes(listening((words,), (1,)), steps=4), tokens=line) for words in (short, long)]
    with torch.no_grad():
        torch.testing.assert_close(policy.hidden(made[0]), policy.hidden(made[1]), atol=1e-6, rtol=0)
    torch.testing.assert_close(stepped(policy, made[0]), stepped(policy, made[1]), atol=1e-6, rtol=0)
    over = torch.tensor([[READ, READ, 6, 7]])  # the end is heard with the last word
    ends = [policy.hidden(replace(rollout, tokens=over)).detach()[:, 2:] for rollout in made]
    assert (ends[0] - ends[1]).abs().max() > 1e-3


@every_model
def test_a_causal_encoder_does_not_look_ahead(config):
    policy, states = make("causal", config), []
    policy.reader.model.get_encoder().register_forward_hook(lambda module, given, out: states.append(out[0].detach()))
    prompts = listening()
    with torch.no_grad():
        policy.begin(prompts)
        for ahead in range(1, int(prompts.lengths[2])):
            tokens = prompts.tokens.clone()
            tokens[2, ahead] = WORDS[0] if tokens[2, ahead] != WORDS[0] else WORDS[1]
            policy.begin(replace(prompts, tokens=tokens))
            assert states[-1][2, :ahead].equal(states[0][2, :ahead])
            assert (states[-1][2, ahead:] != states[0][2, ahead:]).any(1).all()


@pytest.mark.parametrize("k", [1, 2, 3, 9])
@every_source
def test_cross_attention_sees_as_much_as_a_wait_k_reader_has_read(source, k):
    policy = make(source)
    sentence = ((4,), (5,), (6,), (7,), (8,))
    target = [(9,), (10,), (11,)]
    path = wait_k(k, len(sentence), len(target))
    line = lay_line(sentence, target, path, first=1, read=READ, eos=TOKENIZER.eos, spoken=False)
    tokens = torch.tensor([line.tokens])
    _, revealed = policy._encode(listening((sentence,), (1,)))
    sums = revealed.mask(reads_before(tokens, (READ,))).sum(2)[0]
    written = tokens[0] != READ
    # with the last word the end token is seen
    assert sums[written].tolist() == [heard + (heard == 5) for heard in path]


@every_source
def test_a_policy_that_was_shown_everything_is_an_ordinary_one(source):
    """Rereading a whole sentence is reading it; a causal encoder stays another one."""
    policy, rollout = make(source, first=9), random_episodes(listening(first=9), reading=0)
    plain = bound(lambda: Seq2SeqLM(config=MARIAN), replace(facts(9), environment=None), seed=1).eval()
    plain.load_state_dict(policy.state_dict())
    apart = (policy(rollout).logprobs - plain(rollout).logprobs).abs().max()
    assert apart < 1e-5 if source == "reread" else apart > 1e-3


def test_once_all_is_read_rereading_gives_the_logits_of_the_whole_sentence():
    """With one block, what was said before only enters as words: after the last READ nothing is different."""
    config = {**MARIAN, "decoder_layers": 1}
    policy, rollout = make("reread", config), random_episodes(listening(), steps=11)
    plain = bound(lambda: Seq2SeqLM(config=config), replace(facts(), environment=None), seed=1).eval()
    plain.load_state_dict(policy.state_dict())
    over = (seen_before(rollout) == rollout.prompts.lengths[:, None]) & rollout.action_mask
    before = rollout.action_mask & ~over
    assert over.any(1).sum() >= 4
    ours, theirs = stepped(policy, rollout), stepped(plain, rollout)
    torch.testing.assert_close(ours[over], theirs[over], atol=1e-5, rtol=0)
    assert (ours - theirs)[before].abs().max() > 1e-3


@every_source
def test_samples_of_one_prompt_share_its_readings(source):
    policy, rows = make(source), []
    policy.reader.model.get_encoder().register_forward_hook(lambda module, given, out: rows.append(len(out[0])))
    decoder = Sample(max_length=4, samples=3)
    decoder.bind(facts())
    rollout = decoder.decode(policy, listening(), facts().environment)
    policy(rollout)
    readings = 1 if source == "causal" else listening().features["visible"].shape[1]
    assert rows == [4 * readings] * 2  # 15 episodes of four different sentences


@every_source
def test_batches_of_unequal_sentences_can_be_joined(source):
    """Joining fills the shorter batch up with zeros, where nothing is ever looked for."""
    policy = make(source)
    short = random_episodes(listening(SENTENCES[3:], (3, 5)))
    long = random_episodes(listening(SENTENCES[:3], (7, 3, 9)), seed=1)
    joined = policy(Rollout.cat([short, long])).logprobs
    torch.testing.assert_close(joined, torch.cat([policy(short).logprobs, policy(long).logprobs]), atol=1e-5, rtol=0)
    assert (
        Experience.cat([Experience(expert=short), Experience(expert=long)]).expert.prompts.features["visible"].all(1)[2]
    )


@every_source
def test_an_empty_sentence_has_its_end_only(source):
    policy = eager(make(source))
    prompts = listening(((), ((4,),)), (1, 2))
    decoder = Greedy(max_length=5)
    decoder.bind(facts())
    rollout = decoder.decode(policy, prompts, facts().environment)
    assert rollout.logprobs.isfinite().all()
    assert rollout.closed[0].all()
    assert (rollout.tokens != READ).all()
    torch.testing.assert_close(policy(rollout).logprobs.detach(), rollout.logprobs, atol=1e-5, rtol=0)


def test_nothing_to_see_before_the_first_read_is_refused_or_begins_with_a_token():
    prompts = listening(first=0)
    with pytest.raises(ValueError, match=r"Seq2SeqLM: in some rows nothing can be seen.*begin_with_bos: true"):
        make("causal", first=0).begin(prompts)
    for source in ("causal", "reread"):
        policy = make(source, first=0, begin_with_bos=True)
        rollout = random_episodes(prompts)
        assert stepped(policy, rollout).isfinite().all()
        first = [
            policy.hidden(some).detach()[:, 0] for some in (rollout, rollout.select(torch.tensor([2, 0, 1, 3, 4])))
        ]
        torch.testing.assert_close(first[0], first[1], atol=1e-6, rtol=0)  # all have seen the begin token alone
        torch.testing.assert_close(first[0], first[0][:1].expand_as(first[0]), atol=1e-6, rtol=0)


def test_a_policy_and_a_task_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"source: whole, but Speaker shows the prompt piece by piece.*source: causal"):
        make("whole")
    for source in ("causal", "reread"):
        with pytest.raises(ValueError, match=rf"got source: {source}, but this task shows prompts at once"):
            Seq2SeqLM(config=MARIAN, source=source).bind(replace(facts(), environment=None))
        with pytest.raises(ValueError, match=rf"got source: {source}, but this task shows prompts at once"):
            Seq2SeqLM(config=MARIAN, source=source).bind(facts(spoken=True))


@pytest.mark.usefixtures("shapes_unchecked")
def test_other_ways_of_reading_are_refused():
    with pytest.raises(ValueError, match=r"Seq2SeqLM: got source 'half'; expected one of \('whole', 'causal'"):
        Seq2SeqLM(config=MARIAN, source="half")


def test_prompts_that_do_not_say_what_can_be_seen_are_refused():
    blind: Prompts = replace(listening(), features={})
    with pytest.raises(ValueError, match=r"Seq2SeqLM: got prompts with features \[\]; expected `visible`"):
        make("causal").begin(blind)
