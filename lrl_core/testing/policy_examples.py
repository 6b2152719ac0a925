"""Prompts, facts and episodes of random tokens, to try policies on."""

import torch

from lrl_core.interfaces import TaskFacts
from lrl_core.masks import length_mask
from lrl_core.sampling import Sampling
from lrl_core.tokenizer import Tokenizer, WordTokenizer
from lrl_core.types import Prompts, Rollout


def example_tokenizer(words: int = 19) -> WordTokenizer:
    """A small vocabulary: four special tokens and numbered words."""
    return WordTokenizer([f"word{i}" for i in range(words)])


def example_prompts(
    tokenizer: Tokenizer,
    lengths: tuple[int, ...] = (3, 1, 5, 1, 4),
    group: tuple[int, ...] = (7, 3, 9, 3, 5),
    pictures: str | None = None,
    size: int = 8,
    seed: int = 0,
) -> Prompts:
    """Random prompts of unequal lengths, one of them asked twice.

    Args:
        tokenizer: Its ordinary ids are drawn.
        lengths: Length of each prompt; zeros make empty prompts.
        group: Which rows are the same prompt; the later of two becomes a copy of the earlier.
        pictures: "pixels", "regions" or None for text alone.
        size: Side of the pixels, or width of a region.
        seed: Of the random numbers.
    """
    generator = torch.Generator().manual_seed(seed)
    allowed = torch.tensor([i for i in range(len(tokenizer)) if i not in (*tokenizer.never_drawn, tokenizer.eos)])
    count, long = torch.tensor(lengths), max(lengths)
    tokens = allowed[torch.randint(len(allowed), (len(lengths), long), generator=generator)]
    tokens = tokens.masked_fill(torch.arange(long) >= count[:, None], max(tokenizer.pad, 0))
    features = {}
    if pictures == "pixels":
        features["pixels"] = torch.randn(len(lengths), 3, size, size, generator=generator)
    if pictures == "regions":
        features["regions"] = torch.randn(len(lengths), 4, size, generator=generator)
        features["region_lengths"] = torch.tensor([4, 2, 3, 1, 4])[torch.arange(len(lengths)) % 5]
    prompts = Prompts(tokens, count, torch.tensor(group), features=features)
    copies = torch.tensor([group.index(number) for number in group])
    return prompts.select(copies)


def example_facts(tokenizer: Tokenizer, prompts: Prompts) -> TaskFacts:
    """What a task with these prompts would tell."""
    return TaskFacts(tokenizer=tokenizer, references=(), example=prompts.select(torch.arange(2)))


def random_rollout(prompts: Prompts, tokenizer: Tokenizer, steps: int, seed: int = 0) -> Rollout:
    """Episodes of random tokens and unequal lengths that a policy might have drawn."""
    generator = torch.Generator().manual_seed(seed)
    count = len(prompts)
    allowed = torch.tensor([i for i in range(len(tokenizer)) if i not in tokenizer.never_drawn])
    tokens = allowed[torch.randint(len(allowed), (count, steps), generator=generator)]
    lengths = steps - torch.arange(count) % max(1, steps // 2 + 1)
    real = length_mask(lengths, steps)
    return Rollout(
        prompts=prompts,
        tokens=tokens.masked_fill(~real, max(tokenizer.pad, 0)),
        lengths=lengths,
        action_mask=real,
        logprobs=torch.zeros(count, steps),
        terminated=torch.ones(count, dtype=torch.bool),
        sampling=Sampling(),
    )
