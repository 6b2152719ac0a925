"""Compiled steps give the numbers of eager ones, compile rarely, follow the weights, and step aside where they cannot.

Most tests trace the step whole, with its shapes fixed, and run what was traced as it is; making kernels of it takes
seconds for each shape.
"""

import copy
import shutil
from dataclasses import replace

import pytest
import torch

from lrl_core.testing.policies import bound, check_policy, example_facts, example_prompts, example_tokenizer
from lrl_plugins.decoders.beam_search import BeamSearch
from lrl_plugins.decoders.sample import Greedy, Sample
from lrl_plugins.policies import compiled, static_cache, trials
from lrl_plugins.policies.causal_lm import CausalLM
from lrl_plugins.policies.compiled import Compiled, CompiledStep, as_it_is, compiled_for
from lrl_plugins.policies.seq2seq_lm import Seq2SeqLM
from lrl_plugins.policies.trained import Trained

pytestmark = pytest.mark.usefixtures("shapes_unchecked")  # the compiler would trace the assertions, too

TOKENIZER = example_tokenizer()
PROMPTS = example_prompts(TOKENIZER)
FACTS = example_facts(TOKENIZER, PROMPTS)
GPT2 = {"model_type": "gpt2", "n_layer": 1, "n_head": 2, "n_embd": 16, "n_positions": 64, "initializer_range": 0.3}
LLAMA = {"model_type": "llama", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
LLAMA |= {"num_attention_heads": 2, "num_key_value_heads": 1, "initializer_range": 0.3}
MISTRAL = {**LLAMA, "model_type": "mistral", "sliding_window": 4}
MARIAN = {"model_type": "marian", "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "init_std": 0.3}
MARIAN |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
MARIAN |= {"max_position_embeddings": 64, "scale_embedding": True, "activation_function": "swish"}
BART = {**MARIAN, "model_type": "bart"}
ROWS = (0, 0, 2, 4, 4, 1, 3, 3, 3)


def gpt2(steps="compiled", **options):
    return bound(lambda: CausalLM(config=GPT2, steps=steps, **options), FACTS, seed=0).eval()


def lora(steps="compiled"):
    return gpt2(steps, train=Trained(parts="lora"))


def llama(steps="compiled"):
    return bound(lambda: CausalLM(config=LLAMA, steps=steps), FACTS, seed=0).eval()


def marian(steps="compiled"):
    return bound(lambda: Seq2SeqLM(config=MARIAN, steps=steps), FACTS, seed=0).eval()


MODELS = {"gpt2": gpt2, "marian": marian, "llama": llama, "gpt2 with lora": lora}
SLOW = [pytest.param(make, id=name, marks=pytest.mark.slow if make is lora else ()) for name, make in MODELS.items()]


class Traced:
    """Counts what is traced, and keeps it."""

    def __init__(self):
        self.graphs = []

    def __call__(self, function, device):
        return torch.compile(function, backend=self.keep, dynamic=False, fullgraph=True)

    def keep(self, graph, inputs):
        self.graphs.append(graph)
        return graph.forward


def traced(policy):
    """Trace its steps from now on; what counts the traces."""
    assert policy.reader.compiled is not None
    traces = Traced()
    policy.reader.compiled = Compiled("Tested", traces)
    return traces


def plain(policy):
    """Run its steps over the memory of fixed size without tracing them."""
    assert policy.reader.compiled is not None
    policy.reader.compiled = Compiled("Tested", as_it_is)
    return policy


@torch.no_grad()
def logits_after(policy, rows=ROWS, keep=(0, 8, 2), steps=4, prompts=PROMPTS):
    """Some tokens later, with rows that were repeated and some that left."""
    logits, state = policy.begin(prompts)
    state = state.select(torch.tensor(rows))
    tokens = torch.arange(5, 5 + len(rows))
    said = [logits]
    for step in range(steps):
        if step == 2:
            state, tokens = state.select(torch.tensor(keep)), tokens[torch.tensor(keep)]
        logits, state = policy.step(tokens, state)
        said.append(logits)
    return said


def assert_same(mine, other):
    for one, two in zip(mine, other, strict=True):
        torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("make", SLOW)
def test_gives_the_logits_of_eager_steps_and_is_traced_once_for_each_number_of_rows(make):
    """All that is read stands where it stood: a CUDA graph would copy nothing into its own memory."""
    policy, expected = make(), logits_after(make("eager"))
    traces = traced(policy)
    assert_same(logits_after(policy), expected)
    assert not policy.reader.compiled.failed
    assert len(traces.graphs) == 2  # 16 rows, then 8
    for graph in traces.graphs:
        inputs = [node for node in graph.graph.nodes if node.op == "placeholder"]
        assert len(inputs) > 10
        assert all(node.meta["tensor_dict"].get("_dynamo_static_input_type") for node in inputs)
    assert_same(logits_after(policy), expected)
    with torch.inference_mode():
        assert_same(logits_after(policy), expected)
    assert len(traces.graphs) == 2


@pytest.mark.parametrize(
    "make", [gpt2, pytest.param(marian, marks=pytest.mark.slow), pytest.param(llama, marks=pytest.mark.slow)]
)
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++, with which kernels for the CPU are made")
def test_kernels_give_the_logits_of_eager_steps(make):
    policy = make()
    assert policy.reader.compiled.compiler is compiled_for
    few = {"rows": (0, 1, 2, 4, 4), "keep": (0, 4, 2)}
    assert_same(logits_after(policy, **few), logits_after(make("eager"), **few))
    assert not policy.reader.compiled.failed


@pytest.mark.parametrize("kind", [CausalLM, Seq2SeqLM])
def test_conforms(kind, monkeypatch):
    made = []
    monkeypatch.setattr(trials, "Compiled", lambda who, compiler=None: made.append(Compiled(who, as_it_is)) or made[-1])
    config = GPT2 if kind is CausalLM else MARIAN
    check_policy(lambda: kind(config=config, steps="compiled"), FACTS, PROMPTS)
    assert any(engine.functions for engine in made)
    assert not any(engine.failed for engine in made)


def often_met(lines):
    """The token that the answers reach at the most different places."""
    places = {token: {line.index(token) for line in lines if token in line} for line in lines for token in line}
    return max(places, key=lambda token: len(places[token]))


DECODERS = {
    "greedy": lambda: Greedy(max_length=12),
    "sample": lambda: Sample(max_length=12, samples=3),
    "beam": lambda: BeamSearch(width=3, max_length=12),
}


@pytest.mark.parametrize("decoder", DECODERS.values(), ids=DECODERS.keys())
@pytest.mark.parametrize("make", [gpt2, marian, llama])
def test_answers_are_those_of_eager_steps(make, decoder, monkeypatch):
    monkeypatch.setattr(static_cache, "LEAST_ROWS", 2)  # rows leave in four sizes
    monkeypatch.setattr(static_cache, "LEAST_COLUMNS", 8)  # and lines outgrow their memory
    monkeypatch.setattr(static_cache, "ROOM", 2)
    decoder, policy, eager = decoder(), plain(make()), make("eager")
    decoder.bind(FACTS)

    def answers(one):
        torch.manual_seed(0)
        return decoder.decode(one, PROMPTS)

    decoder.eos = often_met(answers(eager).tokens.tolist())  # so that rows leave at different times
    mine, other = answers(policy), answers(eager)
    assert torch.equal(mine.tokens, other.tokens)
    torch.testing.assert_close(mine.logprobs, other.logprobs, atol=1e-5, rtol=1e-5)
    assert len(other.lengths.unique()) > 1
    assert policy.reader.compiled.functions
    assert not policy.reader.compiled.failed


@pytest.mark.parametrize(
    ("make", "how"), [(gpt2, "in place"), (gpt2, "other memory"), (marian, "in place"), (llama, "in place")]
)
def test_follows_the_weights(make, how):
    policy, eager = make(), make("eager")
    traces = traced(policy)
    before = logits_after(policy)[-1]
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in policy.reader.model.parameters():
            changed = parameter + 0.3 * torch.randn_like(parameter)
            if how == "in place":
                parameter.copy_(changed)
            else:
                parameter.data = changed
    eager.load_state_dict(policy.state_dict())
    after = logits_after(policy)
    assert float((after[-1] - before).abs().max()) > 0.01
    assert_same(after, logits_after(eager))
    assert len(traces.graphs) == 2


def revealing(steps):
    """A policy that has seen a part of the prompt, and prompts that say how large it is."""
    policy = marian(steps)
    policy.source, policy.reads = "causal", (6,)
    steps = torch.arange(1, 7).expand(5, -1)
    return policy, replace(PROMPTS, features={"visible": torch.minimum(steps, PROMPTS.lengths[:, None])})


def test_a_prompt_shown_piece_by_piece():
    policy, prompts = revealing("compiled")
    eager, _ = revealing("eager")
    traces = traced(policy)
    assert_same(logits_after(policy, prompts=prompts), logits_after(eager, prompts=prompts))
    assert len(traces.graphs) == 2


def test_what_stood_in_the_memory_before_does_not_matter():
    policy = plain(gpt2())
    logits_after(policy)
    (arena,) = policy.reader.compiled.arenas
    for buffer in arena.own[0]:
        buffer.fill_(torch.nan)
    assert_same(logits_after(policy), logits_after(gpt2("eager")))
    assert policy.reader.compiled.arenas == [arena]


def test_two_batches_at_once_have_their_own_memory():
    policy, eager = plain(gpt2()), gpt2("eager")
    turned = PROMPTS.select(torch.tensor([4, 3, 2, 1, 0]))
    said = []
    for one in (policy, eager):
        said.append([])
        with torch.no_grad():
            states = [one.begin(PROMPTS)[1], one.begin(turned)[1]]
            for token in (5, 6, 7):
                for which, state in enumerate(states):
                    logits, states[which] = one.step(torch.full((5,), token), state)
                    said[-1].append(logits)
    assert_same(*said)
    assert len(policy.reader.compiled.arenas) == 2


def test_fewer_rows_go_into_the_memory_of_more_and_not_the_other_way_round():
    policy = plain(gpt2())
    engine = policy.reader.compiled
    logits_after(policy, rows=(0, 1, 2), keep=(2, 0))
    small = engine.arenas[0]
    logits_after(policy, rows=ROWS)
    (large,) = engine.arenas
    assert (small.shape.rows, large.shape.rows) == (8, 16)
    logits_after(policy, rows=(0, 1, 2), keep=(2, 0))
    assert engine.arenas == [large]


def complaints(caplog):
    return [record for record in caplog.records if record.name == compiled.__name__]


def test_goes_on_eagerly_where_compiling_fails(caplog):
    def broken(function, device):
        def kernel(*arguments):
            raise RuntimeError("no compiler here")

        return kernel

    policy = gpt2()
    policy.reader.compiled = Compiled("CausalLM", broken)
    expected = logits_after(gpt2("eager"))
    assert_same(logits_after(policy), expected)
    assert_same(logits_after(policy), expected)
    (complaint,) = complaints(caplog)
    assert "RuntimeError: no compiler here" in complaint.getMessage()
    with torch.no_grad():
        assert not isinstance(policy.begin(PROMPTS)[1].steps, CompiledStep)


@pytest.mark.parametrize("make", [gpt2, marian, llama])
def test_goes_on_eagerly_where_compiling_fails_in_the_middle(make, caplog):
    def tired(function, device):
        def kernel(steps, tokens, *others):
            if len(tokens) == 8:
                raise RuntimeError("no memory left")
            return function(steps, tokens, *others)

        return kernel

    policy = make()
    policy.reader.compiled = Compiled("Tested", tired)
    assert_same(logits_after(policy), logits_after(make("eager")))
    assert "no memory left" in complaints(caplog)[0].getMessage()


@pytest.mark.parametrize("config", [MISTRAL, BART], ids=["sliding window", "no positions"])
def test_decoders_that_cannot_be_compiled_say_why_and_are_eager(config, caplog):
    kind = Seq2SeqLM if config is BART else CausalLM
    policy = bound(lambda: kind(config=config, steps="compiled"), FACTS, seed=0)
    (complaint,) = complaints(caplog)
    assert ("not told where" if config is BART else "no memory of fixed size") in complaint.getMessage()
    assert policy.reader.compiled is None


def test_dropout_autocast_and_gradients_are_eager(caplog):
    policy = gpt2()
    assert policy.begin(PROMPTS)[1].steps is None  # gradients are on
    with torch.no_grad():
        assert isinstance(policy.begin(PROMPTS)[1].steps, CompiledStep)
        policy.train()
        assert policy.begin(PROMPTS)[1].steps is None
        policy.eval()
        assert not complaints(caplog)
        for _ in range(2):
            with torch.autocast("cpu", torch.bfloat16):
                assert policy.begin(PROMPTS)[1].steps is None
    assert len(complaints(caplog)) == 1


def test_a_copy_of_the_policy_has_memory_and_kernels_of_its_own():
    policy = plain(gpt2())
    logits_after(policy)
    other = copy.deepcopy(policy)
    assert other.reader.compiled is not policy.reader.compiled
    assert not other.reader.compiled.arenas
    assert_same(logits_after(other), logits_after(policy))


def test_an_unknown_way_is_refused():
    for kind in (CausalLM, Seq2SeqLM):
        with pytest.raises(ValueError, match=f"{kind.__name__}: got steps 'fast'"):
            kind(config=GPT2, steps="fast")


def test_eager_is_the_default(caplog):
    policy = bound(lambda: CausalLM(config=GPT2), FACTS, seed=0)
    assert policy.reader.compiled is None
    assert not complaints(caplog)


def to(prompts, device):
    moved = {"tokens": prompts.tokens.to(device), "lengths": prompts.lengths.to(device)}
    return replace(prompts, **moved, group=prompts.group.to(device))


@pytest.mark.gpu
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS.keys())
def test_graphs_on_a_gpu_give_the_answers_of_eager_steps(make):
    from torch._dynamo.utils import counters

    counters.clear()
    prompts, decoder = to(PROMPTS, "cuda"), Sample(max_length=24, samples=4)
    decoder.bind(FACTS)
    policy, eager = make().cuda(), make("eager").cuda()
    for scale in (0.0, 0.1):  # with the weights as they are, and changed in place
        torch.manual_seed(1)
        with torch.no_grad():
            for mine, other in zip(policy.parameters(), eager.parameters(), strict=True):
                mine += scale * torch.randn_like(mine)
                other.copy_(mine)
        for _ in range(3):  # a graph is warmed up, recorded, replayed
            rollouts = []
            for one in (policy, eager):
                torch.manual_seed(2)
                rollouts.append(decoder.decode(one, prompts))
            assert torch.equal(rollouts[0].tokens, rollouts[1].tokens)
            torch.testing.assert_close(rollouts[0].logprobs, rollouts[1].logprobs, atol=1e-4, rtol=1e-4)
    assert not policy.reader.compiled.failed
    assert counters["inductor"]["cudagraph_skips"] == 0


@pytest.mark.gpu
def test_what_a_graph_gave_stays_when_it_runs_again():
    policy, prompts = gpt2().cuda(), to(PROMPTS, "cuda")
    tokens = torch.full((5,), 5, device="cuda")
    with torch.inference_mode():
        _, state = policy.reader.first(policy._prefix(prompts))
        said = []
        for _ in range(6):
            hidden, state = policy.reader.next(tokens, state)
            said.append((hidden, hidden.clone()))
    assert all(torch.equal(one, then) for one, then in said)
