"""Prompts as text, for rewards that read them beside the answers."""

from lrl_core.tokenizer import Tokenizer
from lrl_core.types import Rollout


def prompt_texts(rollout: Rollout, tokenizer: Tokenizer) -> list[str]:
    """Each episode's prompt, special tokens left out; "" where the prompt is no text.

    Args:
        rollout: The episodes.
        tokenizer: The task's, whose ids the prompts are made of.
    """
    prompts = rollout.prompts
    lengths = prompts.lengths.tolist()
    return [tokenizer.decode(ids[:length]) for ids, length in zip(prompts.tokens.tolist(), lengths, strict=True)]
