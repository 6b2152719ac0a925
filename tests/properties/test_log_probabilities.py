"""What a decoder says it drew from is what the loss recomputes: every decoder and policy, dropout configured."""

from dataclasses import replace

import pytest
import torch
from registered import HEARING, accepts, build, names

from lrl_core.interfaces import Decoder, Environment, bind_all, components
from lrl_core.testing.parts import check_decoder
from lrl_core.testing.policies import check_policy
from lrl_core.testing.policy_examples import example_facts, example_prompts, example_tokenizer
from lrl_core.testing.toy import ToySampler, tree_world
from lrl_core.types import Reply
from lrl_plugins.decoders.limits import Constraints
from lrl_plugins.tasks.simultaneous_translation.environment import Speaker
from lrl_plugins.tasks.symbols import WithSymbols

LENGTHS = {"max_length": 12}
DISTRIBUTIONS = {
    "plain": {},
    "temperature": {"temperature": 0.7},
    "top_k": {"top_k": 4},
    "top_p": {"top_p": 0.8},
    "min_p": {"min_p": 0.3},
    "min_length": {"min_length": 5},
    "no_repeat": {"constraints": Constraints(no_repeat_ngram=2)},
}


SPOKEN = {"Vote": {"labels": ["word1", "word2"]}}
"""What decoders must be told of the words of `world`."""


def decoder(name, **options):
    limits = {key: value for key, value in LENGTHS.items() if accepts("decoders", name, key)}
    return build("decoders", name, **limits, **options)


def ways():
    """Every decoder with every distribution that it offers."""
    return [
        pytest.param(name, options, id=f"{name}-{way}")
        for name in names("decoders")
        for way, options in DISTRIBUTIONS.items()
        if all(accepts("decoders", name, option) for option in options)
    ]


def world(hearing=False) -> tuple:
    """Facts and prompts; in a task that is heard, every token of a prompt is a word."""
    tokenizer = WithSymbols(example_tokenizer(), ["<read>"]) if hearing else example_tokenizer()
    prompts = example_prompts(tokenizer, pictures="regions", size=16)
    words = torch.tensor([i for i in range(len(tokenizer)) if i not in (*tokenizer.never_drawn, tokenizer.eos)])
    targets = words[torch.arange(4 * len(prompts)) % len(words)].view(-1, 4)
    targets[:, 3] = tokenizer.eos
    lengths = torch.full((len(prompts),), 4)
    examples = tuple({"id": f"row-{i}"} for i in range(len(prompts)))
    prompts = replace(prompts, targets=targets, target_lengths=lengths, examples=examples)
    if not hearing:
        return example_facts(tokenizer, prompts), prompts
    heard = torch.arange(1, 6).minimum(prompts.lengths[:, None])
    lines = [row[:length].tolist() for row, length in zip(prompts.tokens, prompts.lengths, strict=True)]
    examples = tuple({"id": f"row-{i}", "pieces": tuple((token,) for token in line)} for i, line in enumerate(lines))
    prompts = replace(prompts, features={**prompts.features, "visible": heard}, examples=examples)
    speaker = Speaker(tokenizer.id("<read>"), first=1, spoken=False)
    return replace(example_facts(tokenizer, prompts), environment=speaker), prompts


class Murmur(Environment):
    """Somebody who has two more words to say in every episode."""

    turn_ends = closes = reads = (2,)

    def start(self, prompts):
        return [[0] for _ in range(len(prompts))]

    def reply(self, state, said):
        state[0] += said[-1] == 2
        return Reply()

    def closed(self, state):
        return state[0] >= 2


class Listener(Decoder):
    """A decoder beside somebody who speaks, for a kit that knows of nobody."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.samples = inner, inner.samples

    def decode(self, policy, prompts, environment=None):
        return self.inner.decode(policy, prompts, Murmur())


def sharp(policy):
    """Far from uniform, so that truncation bites. Norms stay: tripled gains would blow up rounding, not the logits."""
    for parameter in policy.parameters():
        if parameter.ndim > 1:
            parameter.data.mul_(3)
    return policy.eval()


@pytest.mark.parametrize(("name", "options"), ways())
@pytest.mark.parametrize("policy_name", names("policies"))
def test_the_ratio_of_a_fresh_rollout_is_one(policy_name, name, options):
    torch.manual_seed(0)
    hearing = {policy_name, name} & HEARING
    facts, prompts = world(bool(hearing))
    listens = {"source": "causal"} if hearing and policy_name == "Seq2SeqLM" else {}
    policy, played_by = build("policies", policy_name, **listens), decoder(name, **options, **SPOKEN.get(name, {}))
    for part in (policy, played_by):
        bind_all(part, facts)
    sharp(policy)
    try:
        rollout = played_by.decode(policy, prompts, facts.environment)
    except ValueError as error:
        if "no dropout module" in str(error) or "cannot play with an environment" in str(error):
            pytest.skip(f"refused with a clear message: {error}")
        raise
    policy.eval()
    assert rollout.action_mask.any()
    ratio = (policy(rollout).logprobs.detach() - rollout.logprobs).exp()[rollout.action_mask]
    assert (ratio - 1).abs().max() < 1e-4


@pytest.mark.parametrize(("name", "options"), ways())
def test_every_decoder_returns_well_formed_episodes(name, options):
    hears = Listener if name in HEARING else lambda plain: plain
    check_decoder(lambda: hears(decoder(name, **options)))


@pytest.mark.parametrize("name", names("policies"))
def test_every_policy_keeps_the_contract(name):
    facts, prompts = world(name in HEARING)

    def make():
        policy = build("policies", name)
        for part in policy.children():  # the kit binds what it is given, and that alone
            bind_all(part, facts)
        return policy

    check_policy(make, facts, prompts)


@pytest.mark.parametrize("objective", names("objectives"))
@pytest.mark.parametrize("name", [name for name in names("decoders") if not build("decoders", name).draws])
def test_episodes_that_are_no_draws_are_refused_by_what_needs_draws(name, objective):
    """Every objective either learns from any text, as imitation does, or refuses such a decoder."""
    policy, reward = tree_world()
    part = build("objectives", objective)
    sampler = ToySampler(policy, decoder(name), reward, reference=torch.nn.Identity())
    sampler.objective = part
    learns_from_any_text = {"CrossEntropy", "ScheduledSampling", "SubTB"}
    if objective in learns_from_any_text:
        part.check(sampler)
        return
    with pytest.raises(ValueError, match="draw"):
        check_all(part, sampler)


def check_all(part, sampler):
    for component in components(part):
        component.check(sampler)
