from dataclasses import replace
from itertools import product
from math import log

import pytest
import torch

from lrl_core.interfaces import bind_all
from lrl_core.reference import Reference
from lrl_core.testing.parts import check_decoder
from lrl_core.testing.toy import TablePolicy, TableReward, ToySampler, ToyTokenizer, toy_facts, toy_prompts
from lrl_core.types import PolicyOutput
from lrl_core.vocab import Head
from lrl_plugins.decoders.limits import Constraints
from lrl_plugins.decoders.sample import Sample
from lrl_plugins.decoders.vote import Vote

EOS = 3
TABLE = torch.tensor(
    [
        [0.2, 0.3, 0.1, 0.4],  # at the beginning
        [0.1, 0.6, 0.2, 0.1],  # after a
        [0.5, 0.1, 0.3, 0.1],  # after b
        [0.25, 0.25, 0.25, 0.25],  # after c
        [0.25, 0.25, 0.25, 0.25],
    ]
)


def vote(after="c{label}", samples=4, length=3, **arguments):
    decoder = Vote(["a", "b"], Sample(max_length=length, constraints=Constraints(end_at_limit=True)), samples, after,
                   **arguments)  # fmt: skip
    bind_all(decoder, toy_facts(ToyTokenizer(4, eos=EOS)))
    return decoder


def table(logits=None):
    return TablePolicy(TABLE.log() if logits is None else logits, eos=EOS)


class Branching(TablePolicy):
    """The same table, read as a tree."""

    branches = True

    def forward(self, rollout):
        assert rollout.follows is not None or rollout.sampling is not None  # drawn lines and answers are plain
        if rollout.follows is None:
            return super().forward(rollout)
        tokens = rollout.tokens.gather(1, rollout.follows.clamp(min=0))
        before = torch.where(rollout.follows < 0, 0, tokens + 1)
        one_hot = torch.nn.functional.one_hot(before, len(self.table)).to(self.table.dtype)
        return PolicyOutput(rollout, one_hot, Head(self.table.t(), None), self.eos)


def test_conforms():
    check_decoder(lambda: Vote(["a", "b"], Sample(max_length=8), after="c{label}"))


def tails_by_hand(rationale):
    """log p(c, label | rationale) of the bigram table."""
    state = rationale[-1] + 1 if rationale else 0
    return [log(TABLE[state][2] * TABLE[3][label]) for label in (0, 1)]


@pytest.mark.parametrize("make", [table, lambda: Branching(TABLE.log(), eos=EOS)])
def test_a_label_is_read_behind_each_rationale_without_its_end(make):
    torch.manual_seed(0)
    decoder, policy = vote(after="{label}"), make().eval()
    drawn = decoder.decoder.decode(policy, toy_prompts(60))
    scores = decoder.scores(policy, drawn)
    lines = [tokens[: length - 1] for tokens, length in zip(drawn.tokens.tolist(), drawn.lengths.tolist(), strict=True)]
    assert {len(line) for line in lines} == {0, 1, 2}
    states = [line[-1] + 1 if line else 0 for line in lines]
    torch.testing.assert_close(scores, TABLE.double().log()[states][:, :2])


def test_a_wording_of_several_tokens_counts_whole():
    decoder, policy = vote(after="c{label}"), table()
    drawn = decoder.decoder.decode(policy, toy_prompts(20))
    lines = zip(drawn.tokens.tolist(), drawn.lengths.tolist(), strict=True)
    expected = torch.tensor([tails_by_hand(tokens[: length - 1]) for tokens, length in lines]).double()
    torch.testing.assert_close(decoder.scores(policy, drawn), expected)


def test_the_vote_is_the_marginal_over_all_rationales():
    """p(label) = sum over Z of p(Z) p(label | Z), enumerated: b wins, though without a rationale a is likelier."""
    likely = TABLE.clone()
    likely[0] = torch.tensor([0.3, 0.05, 0.4, 0.25])
    likely[2] = torch.tensor([0.05, 0.5, 0.3, 0.15])  # after b
    likely[3] = torch.tensor([0.05, 0.85, 0.05, 0.05])  # after c
    policy = table(likely.log())
    p = likely.double()
    marginal = torch.zeros(2, dtype=torch.double)
    for n in range(3):  # rationales of 0, 1 and 2 tokens; the third token is the end
        for rationale in product(range(3), repeat=n):
            states = [0, *(token + 1 for token in rationale)]
            chance = p[states[-1], EOS] if n < 2 else torch.ones(()).double()
            for state, token in zip(states, rationale, strict=False):
                chance = chance * p[state, token]
            marginal += chance * p[states[-1], :2]
    assert p[0, 0] > p[0, 1]
    assert marginal[1] > marginal[0] + 0.05
    torch.manual_seed(0)
    decoder = vote(after="{label}", samples=400)
    assert decoder.decode(policy, toy_prompts(20)).tokens[:, 0].tolist() == [1] * 20
    drawn = decoder.decoder.decode(policy, toy_prompts(20_000))
    torch.testing.assert_close(decoder.scores(policy, drawn).exp().mean(0), marginal, atol=0.01, rtol=0)


def test_what_is_said_is_the_label_alone():
    rollout = vote().decode(table(), toy_prompts(5, same=False))
    assert len(rollout) == 5
    assert set(rollout.tokens[:, 0].tolist()) <= {0, 1}
    assert rollout.tokens[:, 1].tolist() == [EOS] * 5
    assert not Vote.draws
    torch.testing.assert_close(rollout.logprobs, table()(rollout).logprobs.detach())


class Fixed(Reference):
    """A reference policy that always reads the same model."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def lines(self, policy, rollout, ask):
        return ask(self.model(rollout))


class Holds(TableReward):
    """A reward with a model inside."""

    def __init__(self, *models):
        super().__init__(len)
        self.models = torch.nn.ModuleList(models)


def recipe(reward=None, reference=None):
    return ToySampler(table(), Sample(), reward or Holds(), reference=reference)


OTHER = torch.tensor([[0.05, 0.8, 0.05, 0.1]] * 5).log()


def test_the_reference_reads_the_labels_where_there_is_one():
    decoder, policy = vote(after="{label}"), table()
    decoder.check(recipe(reference=Fixed(table(OTHER))))
    drawn = decoder.decoder.decode(policy, toy_prompts(3))
    torch.testing.assert_close(decoder.scores(policy, drawn).exp(), torch.tensor([[0.05, 0.8]] * 3).double())
    assert not list(decoder.parameters())  # the reference is not registered a second time


def test_the_reward_s_own_model_reads_them_where_asked():
    decoder, policy = vote(after="{label}", reader="reward"), table()
    decoder.check(recipe(Holds(table(OTHER))))
    drawn = decoder.decoder.decode(policy, toy_prompts(3))
    torch.testing.assert_close(decoder.scores(policy, drawn).exp(), torch.tensor([[0.05, 0.8]] * 3).double())
    assert not list(decoder.parameters())


def test_a_reward_without_a_model_is_refused():
    with pytest.raises(ValueError, match="0 policies inside the recipe's reward; expected one"):
        vote(reader="reward").check(recipe())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": ["a"]}, "at least two different labels"),
        ({"labels": ["a", "a"]}, "at least two different labels"),
        ({"labels": ["a", "b"], "samples": 0}, "samples >= 1"),
        ({"labels": ["a", "b"], "decoder": Sample(samples=2)}, "2 samples per prompt"),
        ({"labels": ["a", "b"], "after": "so"}, "a text with {label} in it"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Vote(**arguments)


def test_labels_that_the_tokenizer_cannot_tell_apart_are_refused():
    class Blind(ToyTokenizer):
        def encode(self, text):
            return [0]

    with pytest.raises(ValueError, match="different tokens for each"):
        bind_all(Vote(["a", "b"]), toy_facts(Blind(4, eos=EOS)))


def test_rows_of_one_batch_do_not_touch_each_other():
    decoder, policy = vote(), table()
    drawn = decoder.decoder.decode(policy, toy_prompts(8))
    rows = torch.tensor([5, 2])
    torch.testing.assert_close(decoder.scores(policy, drawn.select(rows)), decoder.scores(policy, replace(drawn))[rows])
