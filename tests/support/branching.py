"""Small transformers policies that read trees and take words back, and each branch of a tree as a line of its own."""

from dataclasses import replace

import torch

from lrl_core.masks import length_mask
from lrl_core.testing.policies import bound, example_facts, example_prompts, random_rollout
from lrl_core.tokenizer import WordTokenizer
from lrl_core.types import Rollout
from lrl_plugins.policies.causal_lm import CausalLM
from lrl_plugins.policies.image_captioner import ImageCaptioner
from lrl_plugins.policies.seq2seq_lm import Seq2SeqLM
from lrl_plugins.policies.trained import Trained


class Undoing(WordTokenizer):
    """Its last word takes the one before it back."""

    @property
    def backspace(self):
        return len(self) - 1


PLAIN, TOKENIZER = (kind([f"word{i}" for i in range(6)]) for kind in (WordTokenizer, Undoing))
BACK = TOKENIZER.backspace
GPT2 = {"model_type": "gpt2", "n_layer": 2, "n_head": 2, "n_embd": 16, "n_positions": 48, "initializer_range": 0.3}
LLAMA = {"model_type": "llama", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
LLAMA |= {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.3}
OPT = {"model_type": "opt", "hidden_size": 16, "ffn_dim": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
OPT |= {"word_embed_proj_dim": 16, "max_position_embeddings": 32, "init_std": 0.3}
LAYERS = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 2, "max_position_embeddings": 64, "init_std": 0.3}
LAYERS |= {
    f"{part}_{size}": n for part in ("encoder", "decoder") for size, n in (("attention_heads", 2), ("ffn_dim", 32))
}
MARIAN, BART, MBART = ({"model_type": name, **LAYERS} for name in ("marian", "bart", "mbart"))
CAPTIONING_BART = {**BART, "decoder_start_token_id": 1}
VIT = {"model_type": "vit", "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
VIT |= {"image_size": 8, "patch_size": 4, "initializer_range": 0.3, "hidden_size": 12}
ASKED, EMPTY = (3, 1, 5, 1, 4), (0, 0, 0, 0, 0)

KINDS = {
    "gpt2": (lambda **more: CausalLM(config=GPT2, **more), ASKED, None),
    "gpt2-right": (lambda **more: CausalLM(config=GPT2, padding_side="right", **more), ASKED, None),
    "gpt2-lora": (lambda **more: CausalLM(config=GPT2, train=Trained("lora", rank=2), **more), ASKED, None),
    "llama": (lambda **more: CausalLM(config=LLAMA, **more), ASKED, None),
    "llama-right": (lambda **more: CausalLM(config=LLAMA, padding_side="right", **more), ASKED, None),
    "opt": (lambda **more: CausalLM(config=OPT, **more), ASKED, None),
    "marian": (lambda **more: Seq2SeqLM(config=MARIAN, **more), ASKED, None),
    "bart": (lambda **more: Seq2SeqLM(config=BART, **more), ASKED, None),
    "mbart": (lambda **more: Seq2SeqLM(config=MBART, **more), ASKED, None),
    "captioner": (lambda **more: ImageCaptioner(VIT, GPT2, **more), ASKED, "pixels"),
    "captioner-right": (lambda **more: ImageCaptioner(None, GPT2, padding_side="right", **more), ASKED, "regions"),
    "captioner-bart": (lambda **more: ImageCaptioner(None, CAPTIONING_BART, **more), EMPTY, "regions"),
}
"""How to make each policy, the lengths of its prompts and what it looks at."""


def prompts_of(kind):
    """Prompts for a kind of policy; two rows ask the same."""
    _, lengths, pictures = KINDS[kind]
    return example_prompts(TOKENIZER, lengths, pictures=pictures)


def policy_of(kind, tokenizer=PLAIN, **more):
    """A bound policy in eval mode; low-rank additions that add something."""
    policy = bound(lambda: KINDS[kind][0](**more), example_facts(tokenizer, prompts_of(kind)), seed=0).eval()
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.3)
    return policy


def episodes(kind, steps=8, tokenizer=PLAIN, seed=0):
    """Lines of random tokens and unequal lengths."""
    return random_rollout(prompts_of(kind), tokenizer, steps, seed)


def random_tree(rollout, seed=1):
    """The same tokens, each following the prompt or any earlier one; two rows of one prompt branch differently."""
    generator = torch.Generator().manual_seed(seed)
    count, steps = rollout.tokens.shape
    drawn = torch.rand(count, steps, generator=generator) * (torch.arange(steps) + 1)
    return replace(rollout, follows=drawn.long() - 1)


def branch(follows, step):
    """Places of the ancestors of a token and its own, from the first."""
    places = [step]
    while follows[places[0]] >= 0:
        places.insert(0, follows[places[0]])
    return places


def alone(rollout, follows):
    """Every place of every episode as the last token of a plain line of its own, and where those places are."""
    rows, lines = [], []
    for row, length in enumerate(rollout.lengths.tolist()):
        for step in range(length):
            rows.append((row, step))
            lines.append(rollout.tokens[row, branch(follows[row].tolist(), step)])
    lengths = torch.tensor([len(line) for line in lines])
    tokens = torch.nn.utils.rnn.pad_sequence(lines, batch_first=True)
    mask = length_mask(lengths, tokens.shape[1])
    prompts = rollout.prompts.select(torch.tensor([row for row, _ in rows]))
    apart = Rollout(prompts, tokens, lengths, mask, torch.zeros(tokens.shape), torch.ones(len(rows), dtype=torch.bool))
    return apart, tuple(torch.tensor(rows).T)


def last_of(rollout, values):
    """What stands on the last token of each line."""
    return values[torch.arange(len(rollout)), rollout.lengths - 1]
