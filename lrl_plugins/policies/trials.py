"""What a transformers model can do, found out on a few tiny lines before it is used; call in eval mode."""

import inspect

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lrl_core.tokenizer import Tokenizer
from lrl_plugins.policies.branches import lay_branches
from lrl_plugins.policies.compiled import Compiled, as_it_is
from lrl_plugins.policies.layout import Prefix, lay_out
from lrl_plugins.policies.packing import PACKED
from lrl_plugins.policies.reader import Reader
from lrl_plugins.policies.stack_state import refuse_backspace
from lrl_plugins.policies.transformers_state import Context

TREE = (-1, 0, -1, 2, 3)
"""Which token each token of a tiny tree follows: two branches, of one and of three tokens."""


@torch.no_grad()
def try_padding(reader: Reader, example: Int[Tensor, "1 3"], context: Context | None = None) -> None:
    """Find out with two tiny prefixes whether this model can read unequal ones.

    Models that number tokens by their column and take no positions cannot.

    Args:
        reader: Who reads; is told.
        example: Three ordinary ids.
        context: Two rows for cross-attention; None without an encoder.
    """
    tokens = example.expand(2, -1)
    together = _after(reader, Prefix(tokens, torch.tensor([2, 3])), context)
    short = context.select(torch.tensor([0])) if context else None
    alone = _after(reader, Prefix(tokens[:1, :2], torch.tensor([2])), short)
    reader.uneven = _near(together[0], alone[0], 1e-4)


@torch.no_grad()
def try_packing(reader: Reader, example: Int[Tensor, "1 3"]) -> None:
    """Find out with two tiny prompts whether this model can read one packed line.

    Args:
        reader: Who reads; is told.
        example: Three ordinary ids.
    """
    part = reader.part
    if not reader.places or reader.by_column or part.config._attn_implementation != "sdpa":
        return
    part.set_attn_implementation(PACKED)
    prompts, asked = Prefix(example.expand(2, -1), torch.tensor([2, 3])), torch.tensor([0, 0, 1])
    episodes, lengths = example.expand(3, -1), torch.tensor([3, 2, 3])
    line = lay_out(Prefix(prompts.tokens[asked], prompts.lengths[asked]), episodes[:, :-1], lengths, reader.side)
    apart = line.align(reader.hidden(line.tokens, line.mask, line.positions), 3)
    try:
        together = reader.read_packed(prompts, asked, episodes, lengths)
    except Exception:  # whatever a model does with a line it was not written for, it is then read padded
        reader.packs = False
    else:
        apart[1, 2] = together[1, 2]  # behind the end of its episode
        reader.packs = _near(together, apart, 1e-4)
    if not reader.packs:
        part.set_attn_implementation("sdpa")


@torch.no_grad()
def try_branches(reader: Reader, example: Int[Tensor, "1 3"], context: Context | None = None) -> None:
    """Find out with a tiny tree whether this model can read branches side by side, after `try_packing`.

    Args:
        reader: Who reads; is told.
        example: Three ordinary ids.
        context: Two rows for cross-attention; None without an encoder.
    """
    model = type(reader.model).__name__
    table = getattr(reader.part, "embed_positions", None)
    reader.moves = not reader.places and table is not None and "position_ids" in _arguments(table)
    if reader.by_column or not (reader.places or reader.moves):
        reader.bars = f"{model} counts distance in columns"
        return
    # A packed line is read by attention of this project's own: what may look at what is known there.
    if not (reader.packs or _reads_a_tree(reader, example, context)):
        reader.bars = f"{model} gives other numbers for branches that stand side by side"
        return
    reader.bars = None


def _reads_a_tree(reader: Reader, example: Int[Tensor, "1 3"], context: Context | None) -> bool:
    prefix, follows = _two(reader, example), torch.tensor([TREE, TREE])
    tokens = torch.cat([example, example], 1)[:, : len(TREE)].expand(2, -1)
    lengths = torch.full((2,), len(TREE))
    tree = lay_branches(prefix, tokens, lengths, follows)
    plain = lay_out(prefix, tokens[:, 2:4], torch.full((2,), 3), reader.side)
    try:
        together = tree.align(reader.hidden(tree.tokens, tree.mask, tree.positions, context))
        alone = plain.align(reader.hidden(plain.tokens, plain.mask, plain.positions, context), 3)
    except Exception:  # whatever a model does with a mask it was not written for, it then reads plain lines only
        return False
    return _near(together[:, 2:], alone, 1e-4)


@torch.no_grad()
def allow_backspace(
    reader: Reader, tokenizer: Tokenizer, example: Int[Tensor, "1 3"], context: Context | None = None
) -> None:
    """Let words be taken back where the tokenizer has a token for that; ValueError where the model cannot do it.

    Args:
        reader: Who reads; is told.
        tokenizer: The task's.
        example: Three ordinary ids.
        context: Two rows for cross-attention; None without an encoder.
    """
    if tokenizer.backspace is None:
        return
    if reader.bars is not None:
        refuse_backspace(tokenizer, reader.who, reader.bars)
    one, two, three = example[0].tolist()
    prefix = _two(reader, example)
    plain = _after(reader, prefix, context, one, three)
    reader.backspace = back = tokenizer.backspace
    if not _near(_after(reader, prefix, context, back, one, two, back, three), plain, 1e-4):
        refuse_backspace(tokenizer, reader.who, f"{type(reader.model).__name__} cannot forget a word it has read")


@torch.no_grad()
def try_steps(reader: Reader, example: Int[Tensor, "1 3"], context: Context | None = None) -> None:
    """Find out with two tiny prefixes whether a way around the modules gives their numbers.

    Args:
        reader: Who reads; is told.
        example: Three ordinary ids.
        context: Two rows for cross-attention; None without an encoder.
    """
    prefix = _two(reader, example)
    through = _after(reader, prefix, context)
    reader.steps = True
    around = _after(reader, prefix, context)
    reader.steps = _near(around, through, 1e-5)


@torch.no_grad()
def compile_steps(reader: Reader, example: Int[Tensor, "1 3"], context: Context | None = None) -> None:
    """Take steps through compiled kernels from now on, if memory of fixed size gives the numbers of the modules.

    What this costs is one uncompiled step; kernels are made when episodes are played. Leaves eval mode on.

    Args:
        reader: Who reads; is told.
        example: Three ordinary ids.
        context: Two rows for cross-attention; None without an encoder.
    """
    prefix = _two(reader.eval(), example)
    through = _after(reader, prefix, context)
    trial = reader.compiled = Compiled(reader.who, as_it_is)
    try:
        around = _after(reader, prefix, context)
    except TypeError as error:
        trial.give_up(str(error))
    else:
        if not (trial.failed or _near(around, through, 1e-5)):
            trial.give_up(f"{type(reader.part).__name__} then gives other numbers")
    reader.compiled = None if trial.failed else Compiled(reader.who)


def _two(reader: Reader, example: Int[Tensor, "1 3"]) -> Prefix:
    """Two tiny prefixes, of different lengths where the model can read such."""
    return Prefix(example.expand(2, -1), torch.tensor([3, 2 if reader.uneven and reader.places else 3]))


def _after(reader: Reader, prefix: Prefix, context: Context | None, *tokens: int) -> Float[Tensor, "B V"]:
    """The logits after some tokens in every row; none given: after the first one of each prefix."""
    logits, state = reader.begin(prefix, context)
    lines = [torch.full_like(prefix.lengths, token) for token in tokens] or [prefix.tokens[:, 0]]
    for column in lines:
        logits, state = reader.step(column, state)
    return logits


def _arguments(module: torch.nn.Module) -> set[str]:
    return set(inspect.signature(module.forward).parameters)


def _near(mine: Tensor, other: Tensor, tolerance: float) -> bool:
    """Whether two ways of reading give the same numbers, up to a share of the largest."""
    return bool((mine - other).abs().max() <= tolerance * other.abs().max())
