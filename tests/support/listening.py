"""Small sentences that are heard word by word: tokenizer, prompts, facts and episodes for tests of who reads them."""

from dataclasses import replace

import torch

from lrl_core.interfaces import TaskFacts
from lrl_core.masks import length_mask
from lrl_core.sampling import Sampling
from lrl_core.testing.policies import example_tokenizer
from lrl_core.types import Prompts, Rollout
from lrl_plugins.tasks.simultaneous_translation.environment import Speaker
from lrl_plugins.tasks.symbols import WithSymbols

TOKENIZER = WithSymbols(example_tokenizer(9), ["<read>"])
READ = TOKENIZER.id("<read>")
WORDS = list(range(4, len(TOKENIZER) - 1))
SENTENCES = (
    ((4, 5), (6,), (7, 8, 9), (10,)),
    ((11,),),
    ((5,), (12, 4), (6,), (8,), (9, 10)),
    ((11,),),
    ((9, 8), (7,)),
)
"""Sentences of unequal length whose words have one to three tokens; the second and the fourth are the same."""
GROUPS = (7, 3, 9, 3, 5)


def listening(sentences=SENTENCES, group=GROUPS, first=1):
    """Prompts of these sentences, as a task would make them."""
    lines = [[token for word in sentence for token in word] for sentence in sentences]
    longest, most = max(map(len, lines)), max(map(len, sentences))
    counts = [
        [sum(map(len, sentence[: min(first + reads, len(sentence))])) for reads in range(most + 1)]
        for sentence in sentences
    ]
    return Prompts(
        tokens=torch.tensor([line + [TOKENIZER.pad] * (longest - len(line)) for line in lines]).long(),
        lengths=torch.tensor([len(line) for line in lines]),
        group=torch.tensor(group),
        references=tuple((" ".join(f"word{token - 4}" for token in line),) for line in lines),
        features={"visible": torch.tensor(counts)},
        examples=tuple({"pieces": words, "source": " ".join("x" * len(words))} for words in sentences),
    )


def facts(first=1, spoken=False):
    """What a task with these sentences tells."""
    example = listening(first=first).select(torch.arange(2))
    return TaskFacts(TOKENIZER, (), example, Speaker(READ, first, spoken))


def random_episodes(prompts, steps=9, seed=0, reading=0.5):
    """Episodes of unequal length in which about this share of the tokens are READs, none of them past the end."""
    generator = torch.Generator().manual_seed(seed)
    shape = (len(prompts), steps)
    left = torch.tensor([len(row["pieces"]) - 1 for row in prompts.examples])
    read = torch.rand(shape, generator=generator) < reading
    read &= read.long().cumsum(1) <= left[:, None]
    words = torch.tensor(WORDS)[torch.randint(len(WORDS), shape, generator=generator)]
    lengths = steps - torch.arange(len(prompts)) % 4
    real = length_mask(lengths, steps)
    return Rollout(
        prompts=prompts,
        tokens=torch.where(read, READ, words).masked_fill(~real, TOKENIZER.pad),
        lengths=lengths,
        action_mask=real,
        logprobs=torch.zeros(shape),
        terminated=torch.ones(len(prompts), dtype=torch.bool),
        sampling=Sampling(banned=TOKENIZER.never_drawn),
    )


def with_source(rollout, tokens):
    """The same episodes, said while other sentences of the same length were spoken."""
    return replace(rollout, prompts=replace(rollout.prompts, tokens=tokens))


@torch.no_grad()
def stepped(policy, rollout):
    """Logits before each token of given episodes, token by token."""
    logits, state = policy.begin(rollout.prompts)
    found = [logits.clone()]
    for column in rollout.tokens[:, :-1].unbind(1):
        logits, state = policy.step(column, state)
        found.append(logits.clone())
    return torch.stack(found, 1)


def eager(policy, read=4.0, end=2.0, seed=0):
    """The same policy with a taste for READ and for the end, where its output matrix has a bias."""
    bias = policy.reader.model.final_logits_bias
    bias.copy_(0.3 * torch.randn(bias.shape, generator=torch.Generator().manual_seed(seed)))
    bias[0, READ] += read
    bias[0, TOKENIZER.eos] += end
    return policy
