"""A GPT-2, a Marian model and prompts of real captions that every engine of a speed comparison reads."""

import gzip
import json
import math
import random
from pathlib import Path
from typing import Any

from captions import captions

PAD, EOS, BOS = 0, 1, 2
VOCABULARY = 32_000


def save_tokenizer(data: Path, folder: Path) -> Any:
    """Train a byte-level BPE of 32,000 tokens on the captions of both languages and save it; the tokenizer."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    rows = []
    for split in ("train", "val", "test_2016"):
        with gzip.open(data / "multi30k_captions5" / f"{split}.jsonl.gz", "rt", encoding="utf-8") as lines:
            rows += [json.loads(line) for line in lines]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=["<pad>", "<eos>", "<bos>"], show_progress=False
    )
    inner.train_from_iterator((text for row in rows for text in row["en"] + row["de"]), trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="<eos>", bos_token="<bos>")
    tokenizer.save_pretrained(folder)
    return tokenizer


def prompts(data: Path, tokenizer: Any, count: int, length: int, seed: int = 0) -> list[str]:
    """Texts of exactly `length` tokens, cut from captions that follow one another."""
    chance, pictures = random.Random(seed), captions(data / "multi30k_captions5", 4000)
    texts: list[str] = []
    while len(texts) < count:
        ids: list[int] = []
        while len(ids) < length:
            ids += tokenizer(chance.choice(chance.choice(pictures)))["input_ids"]
        text = tokenizer.decode(ids[:length])
        if text == text.strip() and len(tokenizer(text)["input_ids"]) == length:
            texts.append(text)
    return texts


def gpt2(layers: int, width: int, hazard: float | None, positions: int = 256) -> Any:
    """A GPT-2 of random weights without dropout.

    Args:
        layers: Number of blocks.
        width: Hidden size; a head for every 64.
        hazard: Chance that the end token comes at each place, built into the weights (a hidden unit is held at 1 and
            read by the end token alone), so that every engine meets the same lengths; 0 makes the end impossible,
            None leaves the weights as drawn.
        positions: Longest line.
    """
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=positions,
        n_embd=width,
        n_layer=layers,
        n_head=max(1, width // 64),
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=BOS,
        eos_token_id=EOS,
        pad_token_id=PAD,
    )
    model = GPT2LMHeadModel(config).float().eval()
    if hazard is not None:
        with torch.no_grad():
            model.transformer.ln_f.weight[0] = 0.0
            model.transformer.ln_f.bias[0] = 1.0
            model.transformer.wte.weight[:, 0] = 0.0
            others = math.log(VOCABULARY) + 0.5 * 0.02**2 * width  # log-sum-exp of the other logits
            odds = math.log(hazard / (1 - hazard)) + others if hazard > 0 else -50.0
            model.transformer.wte.weight[EOS, 0] = odds
    return model


def marian(layers: int, width: int) -> Any:
    """A Marian translator of random weights without dropout."""
    import torch
    from transformers import MarianConfig, MarianMTModel

    torch.manual_seed(0)
    config = MarianConfig(
        vocab_size=VOCABULARY,
        d_model=width,
        encoder_layers=layers,
        decoder_layers=layers,
        encoder_attention_heads=max(1, width // 64),
        decoder_attention_heads=max(1, width // 64),
        encoder_ffn_dim=4 * width,
        decoder_ffn_dim=4 * width,
        max_position_embeddings=256,
        dropout=0.0,
        attention_dropout=0.0,
        activation_dropout=0.0,
        pad_token_id=PAD,
        eos_token_id=EOS,
        bos_token_id=BOS,
        decoder_start_token_id=PAD,
        forced_eos_token_id=None,
        scale_embedding=True,
        activation_function="gelu",
    )
    return MarianMTModel(config).eval()
