"""The agent that reads and writes: its probabilities by hand, its gradients by enumeration, its checkpoints."""

from dataclasses import replace
from itertools import product

import pytest
import torch
from listening import READ, TOKENIZER, WORDS, eager, facts, listening, random_episodes, stepped
from torch.nn.functional import logsigmoid

from lrl_core.interfaces import bind_all
from lrl_core.sampling import Bans, Sampling
from lrl_core.scoring import judge
from lrl_core.testing.policies import bound, check_policy
from lrl_core.testing.toy import ToySampler
from lrl_core.types import Experience, Rollout
from lrl_plugins.baselines.constant import Constant
from lrl_plugins.decoders.sample import Greedy, Sample
from lrl_plugins.objectives.reinforce import Reinforce
from lrl_plugins.policies.read_write_agent import ReadWriteAgent
from lrl_plugins.policies.seq2seq_lm import Seq2SeqLM
from lrl_plugins.rewards.sum import Sum
from lrl_plugins.tasks.simultaneous_translation.rewards import Delay, IncrementalBLEU

torch.set_num_threads(1)
MARIAN = {
    "model_type": "marian", "dropout": 0.3, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1,
    "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32,
    "max_position_embeddings": 64, "init_std": 0.3,
}  # fmt: skip


def translator():
    return Seq2SeqLM(config=MARIAN, source="causal")


def make(task=None, opinion=1.0, **options):
    """An agent that has an opinion: at first its output is the same everywhere."""

    def agent():
        return ReadWriteAgent(translator(), **{"hidden": 12, **options})

    made = agent()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        bind_all(made, task or facts())
        torch.nn.init.normal_(made.decide.weight, std=opinion)
        eager(made.translator, read=0, end=1)
    return made.eval()


def seen_by(agent, hidden):
    """What the agent sees: the translator's state, the word that it would write, how probable that and the next are."""
    weight, bias = agent.translator.reader.head
    logits = hidden.detach() @ weight.T + bias
    logits[:, :, [*TOKENIZER.never_drawn, READ]] = -torch.inf
    best = logits.softmax(2).topk(2, dim=2)
    return torch.cat([hidden.detach(), weight[best.indices[:, :, 0]].detach(), best.values.detach()], 2)


@torch.no_grad()
def by_hand(agent, rollout):
    """log P of every token at every place, from the weights alone: words from logits, READ from a plain recurrence."""
    hidden = agent.translator.hidden(rollout)
    weight, bias = agent.translator.reader.head
    logits = hidden @ weight.T + bias
    logits[:, :, [*TOKENIZER.never_drawn, READ]] = -torch.inf
    seen, memory = torch.tanh(agent.observe(seen_by(agent, hidden))), torch.zeros(len(rollout), agent.width)
    gru, found = agent.remember, []
    for t in range(rollout.tokens.shape[1]):
        into = (seen[:, t] @ gru.weight_ih_l0.T + gru.bias_ih_l0).chunk(3, 1)
        back = (memory @ gru.weight_hh_l0.T + gru.bias_hh_l0).chunk(3, 1)
        reset, keep = torch.sigmoid(into[0] + back[0]), torch.sigmoid(into[1] + back[1])
        memory = (1 - keep) * torch.tanh(into[2] + reset * back[2]) + keep * memory
        found.append((memory @ agent.decide.weight.T + agent.decide.bias).squeeze(1))
    read = torch.stack(found, 1)
    words = (logits / agent.word_temperature).log_softmax(2) + logsigmoid(-read)[:, :, None]
    words[:, :, READ] = logsigmoid(read)
    return words


@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_read_has_the_agents_probability_and_words_share_the_rest(temperature):
    agent, rollout = make(word_temperature=temperature), random_episodes(listening())
    expected = by_hand(agent, rollout)
    chances = expected[:, :, READ].exp()[rollout.action_mask]
    assert chances.max() - chances.min() > 0.2
    asked = rollout.tokens[:, :, None]
    wanted = torch.where(rollout.action_mask, expected.gather(2, asked).squeeze(2), 0)
    torch.testing.assert_close(agent(rollout).logprobs.detach(), wanted, atol=1e-5, rtol=1e-5)
    logits = stepped(agent, rollout)
    logits[:, :, TOKENIZER.never_drawn] = -torch.inf
    real = rollout.action_mask
    torch.testing.assert_close(logits.softmax(2)[real], expected[real].exp(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_where_read_is_closed_the_words_have_it_all(temperature):
    agent, rollout = make(word_temperature=temperature), random_episodes(listening())
    every = torch.ones_like(rollout.action_mask)
    closed = replace(rollout, closed=every, sampling=replace(rollout.sampling, closes=(READ,)))
    words = by_hand(agent, rollout)
    words[:, :, READ] = -torch.inf
    given = torch.where(rollout.tokens == READ, WORDS[0], rollout.tokens)  # READ cannot have been said
    wanted = words.log_softmax(2).gather(2, given[:, :, None]).squeeze(2)
    found = agent(replace(closed, tokens=rollout.tokens)).logprobs_of(given)
    torch.testing.assert_close(found.detach(), torch.where(rollout.action_mask, wanted, 0), atol=1e-5, rtol=1e-5)
    total = agent(closed).over_vocabulary(lambda logprobs: logprobs.exp().sum(1))
    assert (total[rollout.action_mask] - 1).abs().max() < 1e-5
    read = agent(closed).over_vocabulary(lambda logprobs: logprobs[:, READ].exp())
    assert read.abs().max() == 0


def test_it_begins_with_the_probability_it_was_given():
    agent = ReadWriteAgent(translator(), hidden=8, initial_read=0.3)
    bind_all(agent, facts())
    read = by_hand(agent.eval(), random_episodes(listening()))[:, :, READ].exp()
    torch.testing.assert_close(read, torch.full_like(read, 0.3))


@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_conforms(temperature):
    def agent():
        # Learning, as the kit wants all parts in one mode; a frozen translator is looked at below.
        made = ReadWriteAgent(translator(), hidden=8, word_temperature=temperature, train_translator=True)
        bind_all(made.translator, facts())  # the kit binds what it is given, and that alone
        return made

    check_policy(agent, facts(), listening(), steps=5)


@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_drawn_episodes_are_read_as_they_were_drawn(temperature):
    agent = make(word_temperature=temperature)
    eager(agent.translator, read=0, end=1.5, seed=1)
    decoder = Sample(max_length=14, samples=4)
    decoder.bind(facts())
    rollout = decoder.decode(agent, listening(), facts().environment)
    reads = (rollout.tokens == READ).sum(1)
    assert len(reads.unique()) >= 4  # rows that have read unequal parts stood side by side
    assert len(rollout.lengths.unique()) >= 3  # and left at unequal times
    torch.testing.assert_close(agent(rollout).logprobs.detach(), rollout.logprobs, atol=1e-5, rtol=1e-5)


def gradients(module):
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


def test_a_frozen_translator_is_left_alone():
    agent = make()
    agent.train()
    assert agent.training
    assert agent.remember.training
    assert not any(module.training for module in agent.translator.modules())
    agent(random_episodes(listening())).logprobs.sum().backward()
    learns = {name for name, p in agent.named_parameters() if p.requires_grad}
    assert learns == set(gradients(agent))
    assert not any(name.startswith("translator.") for name in learns)
    assert all(gradient.abs().max() > 0 for gradient in gradients(agent).values())


def test_a_translator_that_learns_gets_the_gradient_of_the_formula():
    """Both ways to write one distribution: states and an output matrix of its own, or softmax and sigmoid."""
    agent, rollout = make(train_translator=True, word_temperature=0.7), random_episodes(listening())
    assert all(module.training for module in agent.train().translator.modules())
    agent.eval()
    agent(rollout).logprobs.sum().backward()
    found = gradients(agent)
    agent.zero_grad()
    hidden = agent.translator.hidden(rollout)
    logits = agent.translator.reader.head.logits(hidden.flatten(0, 1)).view(*rollout.tokens.shape, -1)
    never = torch.zeros(len(TOKENIZER), dtype=torch.bool)
    never[[*TOKENIZER.never_drawn, READ]] = True
    words = (logits / 0.7).masked_fill(never, -torch.inf).log_softmax(2)
    memory, _ = agent.remember(torch.tanh(agent.observe(seen_by(agent, hidden))))
    read = agent.decide(memory).squeeze(2)
    given = words.gather(2, torch.where(rollout.tokens == READ, WORDS[0], rollout.tokens)[:, :, None]).squeeze(2)
    said = torch.where(rollout.tokens == READ, logsigmoid(read), given + logsigmoid(-read))
    said[rollout.action_mask].sum().backward()
    expected = gradients(agent)
    assert found.keys() == expected.keys()
    assert {name for name in found if name.startswith("translator.")} == {
        f"translator.{name}" for name, p in agent.translator.named_parameters() if p.requires_grad
    }
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], atol=2e-4, rtol=1e-4, msg=lambda m, name=name: name + m)


def test_a_bare_translators_weights_can_be_started_from():
    bare = bound(translator, facts(), seed=3)
    agent = make()
    own = {name: value.clone() for name, value in agent.state_dict().items() if not name.startswith("translator.")}
    agent.load_state_dict(bare.state_dict())
    after = agent.state_dict()
    assert all(after[name].equal(value) for name, value in own.items())
    assert all(after[f"translator.{name}"].equal(value) for name, value in bare.state_dict().items())
    whole = torch.nn.ModuleDict({"policy": agent})  # as it stands in a run's module
    whole.load_state_dict({f"policy.{name}": value + 1 for name, value in bare.state_dict().items()})
    assert all(agent.state_dict()[f"translator.{name}"].equal(v + 1) for name, v in bare.state_dict().items())


def test_an_agents_weights_are_loaded_whole():
    agent, other = make(), make(opinion=0.1)
    rollout = random_episodes(listening())
    assert not other(rollout).logprobs.equal(agent(rollout).logprobs)
    other.load_state_dict(agent.state_dict())
    assert other(rollout).logprobs.equal(agent(rollout).logprobs)
    missing = {name: value for name, value in agent.state_dict().items() if not name.startswith("remember")}
    with pytest.raises(RuntimeError, match=r"Missing key.*remember"):
        other.load_state_dict(missing)


def test_weights_of_something_else_are_refused():
    with pytest.raises(RuntimeError, match="Unexpected key"):
        make().load_state_dict({"reader.model.of_another.weight": torch.zeros(1)})


def test_a_task_without_read_is_refused():
    plain = replace(facts(), environment=None)
    agent = ReadWriteAgent(Seq2SeqLM(config=MARIAN))
    with pytest.raises(ValueError, match="ReadWriteAgent: this task has no token that shows one more piece"):
        bind_all(agent, plain)


@pytest.mark.parametrize(
    "wrong", [{"initial_read": 0.0}, {"initial_read": 1.0}, {"word_temperature": 0.0}], ids=lambda given: str(given)
)
def test_impossible_numbers_are_refused(wrong):
    with pytest.raises(ValueError, match=r"ReadWriteAgent: got initial_read .* expected a probability between 0 and 1"):
        ReadWriteAgent(translator(), **wrong)


# Every episode of a small world: two source words, at most two tokens written


TWO = listening((((4,), (5,)),), (1,))
END, LIMIT = TOKENIZER.eos, 4
DRAWN = (4, 5, END, READ)


def every_line():
    """Action strings of at most four tokens, with one READ at most (the first word has been heard)."""
    lines = set()
    for drawn in product(DRAWN, repeat=LIMIT):
        line = drawn[: drawn.index(END) + 1] if END in drawn else drawn
        if line.count(READ) <= 1:
            lines.add(line)
    return sorted(lines)


def small_world():
    """All episodes of a task in which only two words can be said, as a decoder would have returned them."""
    banned = tuple(i for i in range(len(TOKENIZER)) if i not in DRAWN)
    lines = every_line()
    lengths = torch.tensor([len(line) for line in lines])
    tokens = torch.tensor([[*line, *[TOKENIZER.pad] * (LIMIT - len(line))] for line in lines])
    real = torch.arange(LIMIT) < lengths[:, None]
    read = (tokens == READ).long()
    prompts = TWO.select(torch.zeros(len(lines), dtype=torch.long))
    return Rollout(
        prompts=replace(prompts, references=(("word0 word1",),) * len(lines)),
        tokens=tokens,
        lengths=lengths,
        action_mask=real,
        logprobs=torch.zeros(tokens.shape),
        terminated=tokens.gather(1, lengths[:, None] - 1).squeeze(1) == END,
        sampling=Sampling(banned=banned, closes=(READ,)),
        closed=(read.cumsum(1) - read > 0) & real,
    )


def chances(agent, everything):
    """The probability of each episode, step by step and with gradients, READ left out once all is heard."""
    logits, state = agent.begin(everything.prompts)
    total = torch.zeros(len(everything))
    for t in range(LIMIT):
        bans = Bans.of(everything.closed[:, t], (READ,))
        allowed = everything.sampling.scale(logits, torch.full((len(everything),), t), bans)
        said = allowed.log_softmax(1).gather(1, everything.tokens[:, t : t + 1].clamp(min=0)).squeeze(1)
        total = total + torch.where(everything.action_mask[:, t], said, 0)
        if t + 1 < LIMIT:
            logits, state = agent.step(everything.tokens[:, t], state)
    return total.exp()


@pytest.mark.parametrize(("temperature", "learns"), [(1.0, True), (0.5, False)])
def test_reinforce_follows_the_exact_gradient_of_the_expected_reward(temperature, learns):
    task = facts()
    agent = make(task, word_temperature=temperature, train_translator=learns)
    reward = Sum({"quality": IncrementalBLEU(n=2), "delay": Delay(proportion=0.5, wait=2)})
    bind_all(reward, task)
    everything = small_world()
    signal = judge(reward, everything)
    probability = chances(agent, everything)
    assert float(probability.detach().sum()) == pytest.approx(1, abs=1e-5)
    assert probability.max() < 0.7
    (probability * signal.total).sum().backward()
    exact = gradients(agent)
    agent.zero_grad()
    sampler = ToySampler(agent, Sample(), reward)
    advantage = Constant().advantage(everything, signal, sampler)
    weighted = replace(advantage, value=advantage.value * probability.detach()[:, None])
    Reinforce().loss(agent, Experience(everything, signal, weighted)).total.backward()
    assert sum(gradient.abs().sum() for gradient in exact.values()) > 0.05
    for name, gradient in gradients(agent).items():
        torch.testing.assert_close(-gradient, exact[name], atol=1e-5, rtol=1e-3, msg=lambda m, name=name: name + m)


def test_a_read_that_could_not_be_chosen_teaches_nothing():
    """Once all is heard the words have it all, whatever the agent would like: no gradient reaches it from there."""
    agent = make()
    everything = small_world()
    closed = everything.closed & everything.action_mask
    output = agent(replace(everything, action_mask=closed, tokens=everything.tokens))
    output.logprobs.sum().backward()
    assert all(gradient.abs().max() < 1e-6 for gradient in gradients(agent).values())


def test_greedy_follows_the_agent_and_is_forced_to_write_in_the_end():
    agent = make()
    decoder = Greedy(max_length=9)
    decoder.bind(facts())
    with torch.no_grad():
        agent.decide.weight.zero_()
        agent.decide.bias.fill_(30.0)
    rollout = decoder.decode(agent, listening(), facts().environment)
    words = [len(row["pieces"]) for row in listening().examples]
    for row, count in enumerate(words):
        assert rollout.tokens[row, : count - 1].tolist() == [READ] * (count - 1)
        assert not (rollout.tokens[row, count - 1 :] == READ).any()
    assert rollout.logprobs.isfinite().all()
    torch.testing.assert_close(agent(rollout).logprobs.detach(), rollout.logprobs, atol=1e-4, rtol=0)
    with torch.no_grad():
        agent.decide.bias.fill_(-30.0)
    assert not (decoder.decode(agent, listening(), facts().environment).tokens == READ).any()
