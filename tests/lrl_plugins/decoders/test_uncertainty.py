from itertools import product

import pytest
import torch
from torch import nn

from lrl_core.interfaces import Policy, bind_all
from lrl_core.testing.parts import EOS, Forgetful, bigram_world, check_decoder
from lrl_core.testing.policies import example_facts, example_prompts, example_tokenizer
from lrl_core.testing.toy import TablePolicy, TableState, ToyTokenizer, toy_facts, toy_prompts
from lrl_core.types import PolicyOutput
from lrl_core.vocab import Head
from lrl_plugins.decoders.sample import Greedy
from lrl_plugins.decoders.uncertainty import Uncertainty, _Passes, optimistic
from lrl_plugins.policies.causal_lm import CausalLM
from lrl_plugins.policies.recurrent import Recurrent

HIDDEN, WEIGHT = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([0.3, 0.1, -0.4])


def bound(decoder, size=4, eos=EOS):
    bind_all(decoder, toy_facts(ToyTokenizer(size, eos=eos)))
    return decoder


class Linear(Policy):
    """Logits are 0.1 for token 0 and w . dropout(h) for token 1; the other tokens say nothing."""

    def __init__(self, share=0.5):
        super().__init__()
        self.drop, self.norm, self.modes = nn.Dropout(share), nn.BatchNorm1d(3), []

    def forward(self, rollout):
        hidden = HIDDEN.expand(*rollout.tokens.shape, 3)
        return PolicyOutput(
            rollout, torch.cat([hidden, torch.ones_like(hidden[..., :1])], 2), Head(self.matrix(), None)
        )

    def matrix(self):
        table = torch.full((4, 4), 0.0)
        table[1, :3], table[0, 3], table[2:, 3] = WEIGHT, 0.1, -9.0
        return table

    def begin(self, prompts):
        return self.step(torch.zeros_like(prompts.lengths), TableState(prompts.lengths))

    def step(self, tokens, state):
        self.modes.append((self.drop.training, self.norm.training))
        rows = HIDDEN.expand(len(tokens), 3)
        self.norm(rows)
        hidden = torch.cat([self.drop(rows), torch.ones(len(tokens), 1)], 1)
        return hidden @ self.matrix().t(), state


@pytest.mark.parametrize("options", [{}, {"masks": "episode"}, {"sample": True, "schedule": "log", "moment": "std"}])
def test_conforms(options):
    check_decoder(lambda: Uncertainty(max_length=8, passes=4, **options))


def test_mean_and_variance_over_all_masks():
    masks = torch.tensor(list(product([0.0, 1.0], repeat=3)))
    passes = ((HIDDEN * masks / 0.5) @ WEIGHT)[None, :, None]
    assert optimistic(passes, 0.0).item() == pytest.approx(-0.1)
    assert optimistic(passes, 1.0).item() - optimistic(passes, 0.0).item() == pytest.approx(0.17)
    assert optimistic(passes, 1.0, "std").item() == pytest.approx(-0.1 + 0.17**0.5)


@pytest.mark.parametrize(("beta", "token"), [(0.0, 0), (0.2, 0), (0.5, 1), (1.0, 1), (2.0, 2)])
def test_doubt_turns_the_decision(beta, token):
    mean, deviation = torch.tensor([2.0, 1.9, 0.5]), torch.tensor([0.1, 0.5, 1.2])
    passes = torch.stack([mean - deviation, mean + deviation])[None]
    assert optimistic(passes, beta).argmax().item() == token


def test_a_token_that_no_pass_allows_stays_forbidden():
    passes = torch.tensor([[[0.0, -torch.inf], [1.0, -torch.inf]]])
    assert optimistic(passes, 3.0).tolist() == [[pytest.approx(0.5 + 3 * 0.25), -torch.inf]]


def test_passes_converge_to_the_enumerated_moments():
    torch.manual_seed(0)
    policy = Linear().eval()
    for beta, expected in ((0.0, -0.1), (1.0, 0.07)):
        decoder = bound(Uncertainty(passes=40_000, beta=beta, max_length=1))
        policy.drop.train()
        logits, _ = _Passes(policy, decoder, None).begin(toy_prompts())
        assert logits[0, 1].item() == pytest.approx(expected, abs=5 * 0.17**0.5 / 200)


@pytest.mark.parametrize(("beta", "token"), [(0.0, 0), (0.5, 0), (3.0, 1)])
def test_decodes_by_mean_and_variance_and_restores_the_mode(beta, token):
    torch.manual_seed(0)
    policy = Linear().eval()
    before = policy.norm.running_mean.clone()
    decoder = bound(Uncertainty(passes=2000, beta=beta, max_length=2))
    rollout = decoder.decode(policy, toy_prompts(3, same=False))
    assert rollout.tokens.tolist() == [[token, token]] * 3
    assert set(policy.modes) == {(True, False)}  # dropout on, batch norm still
    assert policy.norm.running_mean.equal(before)
    assert not any(module.training for module in policy.modules())
    own = torch.tensor([0.1, -0.1, -9, -9]).log_softmax(0)[token]  # without dropout
    assert torch.allclose(rollout.logprobs, own.expand(3, 2))


def test_without_worth_of_doubt_and_almost_no_dropout_it_is_greedy():
    policy = Forgetful(bigram_world()[0]).eval()
    policy.drop.p = 1e-12
    prompts = toy_prompts(2, same=False)
    rollout = bound(Uncertainty(beta=0.0, max_length=8)).decode(policy, prompts)
    greedy = bound(Greedy(max_length=8)).decode(policy, prompts)
    assert rollout.tokens.equal(greedy.tokens)
    assert torch.allclose(rollout.logprobs, greedy.logprobs.double())


def test_banned_tokens_are_never_taken_however_uncertain():
    policy = Forgetful(TablePolicy([[0.1, 50.0, 0.3, 0.2]], eos=EOS)).eval()
    rollout = bound(Uncertainty(banned=(1,), max_length=6)).decode(policy, toy_prompts(8, same=False))
    assert 1 not in rollout.tokens[rollout.action_mask].tolist()


def test_doubt_grows_with_the_logarithm_of_time():
    decoder = Uncertainty(passes=2, beta=2.0, schedule="log")
    passes = torch.tensor([[0.0], [2.0]])  # mean 1, variance 1
    expected = [1 + 2 * 0.693147, 1 + 2 * 1.098612, 1 + 2 * 1.386294]
    assert [decoder.score(passes, t).item() for t in range(3)] == pytest.approx(expected, abs=1e-5)


class Noise(Forgetful):
    """Remembers the dropped logits of every step."""

    def __init__(self):
        super().__init__(TablePolicy([[1.0, 2.0, 3.0, 0.0]], eos=EOS))
        self.seen = []

    def step(self, tokens, state):
        logits, state = super().step(tokens, state)
        self.seen.append(logits)
        return logits, state


@pytest.mark.parametrize(("masks", "same"), [("episode", True), ("step", False)])
def test_masks_stay_over_an_episode_if_asked(masks, same):
    policy = Noise().eval()
    bound(Uncertainty(masks=masks, max_length=6, banned=(EOS,))).decode(policy, toy_prompts(3, same=False))
    assert len(policy.seen) == 5
    assert all(step.equal(policy.seen[0]) for step in policy.seen[1:]) == same
    assert len({tuple(row) for row in policy.seen[0].tolist()}) > 1  # passes differ


def test_masks_of_an_episode_do_not_depend_on_its_neighbours_end(monkeypatch):
    policy, prompts = Forgetful(bigram_world()[0]).eval(), toy_prompts(12, same=False)
    decoder = bound(Uncertainty(passes=3, beta=2.0, masks="episode", max_length=12))
    torch.manual_seed(0)
    eager = decoder.decode(policy, prompts)
    monkeypatch.setattr("lrl_core.episodes.COMPACT_BELOW", -1.0)
    torch.manual_seed(0)
    never = decoder.decode(policy, prompts)
    assert eager.lengths.unique().numel() > 2
    assert eager.tokens.equal(never.tokens)


GPT2 = {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 32, "resid_pdrop": 0.5}


@pytest.mark.parametrize("masks", ["step", "episode"])
@pytest.mark.parametrize(
    "make", [lambda: Recurrent(embedding=8, hidden=16, dropout=0.5), lambda: CausalLM(config=GPT2)]
)
def test_passes_differ_though_the_policy_reads_equal_prompts_once(make, masks):
    tokenizer = example_tokenizer()
    prompts = example_prompts(tokenizer)
    policy, decoder = make(), Uncertainty(passes=4, masks=masks, max_length=6)
    for part in (policy, decoder):
        bind_all(part, example_facts(tokenizer, prompts))
    begun, original = [], policy.begin

    def begin(asked):
        logits, state = original(asked)
        begun.append((asked, logits))
        return logits, state

    policy.begin = begin
    rollout = decoder.decode(policy.eval(), prompts)
    assert len(rollout) == len(prompts)
    ((asked, logits),) = begun
    assert len(asked.distinct()[0]) == len(asked) == 4 * len(prompts.distinct()[0])
    assert (logits.view(-1, 4, len(tokenizer)).var(1) > 0).any(1).all()
    assert (policy(rollout).logprobs - rollout.logprobs).abs().max() < 1e-5


def test_a_policy_without_dropout_is_refused():
    with pytest.raises(ValueError, match="TablePolicy has no dropout module"):
        bound(Uncertainty()).decode(bigram_world()[0], toy_prompts())
    with pytest.raises(ValueError, match="Linear has no dropout module"):
        bound(Uncertainty()).decode(Linear(share=0.0), toy_prompts())
    with pytest.raises(ValueError, match="got 1 passes"):
        Uncertainty(passes=1)
