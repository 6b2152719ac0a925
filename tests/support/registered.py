"""Every registered plugin, built small: for the tests of tests/properties, which hold for all plugins of a kind.

A plugin that can be built without arguments, or whose required arguments are other parts, is covered by itself. Only
one that needs something of its own (a model's path, say) has an entry in SMALL below.
"""

import inspect
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer as FastTokenizer
from tokenizers import models, pre_tokenizers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
)

from lrl_core.interfaces import Baseline, Decoder, Objective, Policy, Replay, Reward
from lrl_core.registry import catalogue
from lrl_core.testing.rewards import EXAMPLE_REFERENCES
from lrl_core.testing.toy import TablePolicy, TableReward
from lrl_core.tokenizer import WordTokenizer
from lrl_plugins.baselines.constant import Constant
from lrl_plugins.decoders.sample import Sample
from lrl_plugins.objectives.reinforce import Reinforce
from lrl_plugins.policies.recurrent import Recurrent
from lrl_plugins.policies.seq2seq_lm import Seq2SeqLM
from lrl_plugins.replays.fresh import Fresh
from lrl_plugins.rewards.discriminator_networks import TextCNN

GPT2 = {"model_type": "gpt2", "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64, "resid_pdrop": 0.3}
BART = {
    "model_type": "bart",
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "dropout": 0.3,
    "max_position_embeddings": 64,
}
SMALL = {
    "CausalLM": {"config": GPT2},
    "Seq2SeqLM": {"config": BART},
    "ImageCaptioner": {"decoder": GPT2},
    "ReadWriteAgent": {
        "translator": lambda: Seq2SeqLM(config=BART, source="causal"),
        "hidden": 8,
        "word_temperature": 1.0,
        "train_translator": True,
    },
    "Recurrent": {"embedding": 8, "hidden": 16, "layers": 2, "dropout": 0.3},
    "XLinearCaptioner": {"hidden": 16, "heads": 2, "layers": 2},
    "Function": {"path": "registered:words_said"},
    "LMPosterior": {"model": lambda: TablePolicy([[i % 5 for i in range(64)]], eos=WordTokenizer.eos)},
    "Remote": {"url": "http://127.0.0.1:9/"},  # nobody listens there: it cannot judge, and says so
    "TeacherForced": {"start": 1},
    "BERTScore": {"model": "a/path"},  # read at bind: the tests that score give a real one
    "SentenceSimilarity": {"model": "a/path"},
    "Classifier": {"model": "a/path"},
    "BestCheckpoint": {"metric": "val/exact"},
    "DPO": {"pairs": "drawn"},  # stored pairs want a task whose answers are ranked: the objective's own tests have one
    "Discriminator": {"network": lambda: TextCNN(filters={1: 8, 3: 8}, embedding=8)},
    "Critic": {"reads": "prompt", "embedding": 4, "hidden": 8},  # the toy prompts have no answers
    "Value": {"network": lambda: Recurrent(cell="gru", embedding=4, hidden=8)},
    "StopAfter": {"rollouts": 10},
    "SubTB": {"forced_stop": "model"},  # decoders of the tests cut episodes
    "Vote": {"labels": ["b", "c"], "after": "{label}", "decoder": lambda: Sample(max_length=3), "samples": 2},
}
"""Arguments of plugins that need some, or whose defaults are too large for a test; parts are made anew each time."""

HEARING = {"ReadWriteAgent", "WaitIf", "WaitK"}
"""Plugins that need a task in which READ shows one more piece of the prompt."""

EXAMPLES = {
    Policy: lambda: Recurrent(embedding=8, hidden=16),
    Decoder: lambda: Sample(max_length=6, samples=2),
    Reward: lambda: TableReward(lambda tokens: float(sum(tokens))),
    Baseline: Constant,
    Objective: Reinforce,
    Replay: Fresh,
}
"""A part for every argument that asks for one."""


def names(kind: str) -> list[str]:
    """Every registered plugin of a kind."""
    return sorted(catalogue()[kind])


def build(kind: str, name: str, **arguments):
    """A plugin with its small arguments, or with these."""
    cls = catalogue()[kind][name].load()
    small = {key: value() if callable(value) else value for key, value in SMALL.get(name, {}).items()}
    given = small | arguments
    for parameter in inspect.signature(cls).parameters.values():
        named = parameter.kind is not parameter.VAR_POSITIONAL and parameter.kind is not parameter.VAR_KEYWORD
        if named and parameter.default is parameter.empty and parameter.name not in given:
            given[parameter.name] = _example(parameter, name)
    return cls(**given)


def accepts(kind: str, name: str, argument: str) -> bool:
    """Whether a plugin's constructor has this argument."""
    return argument in inspect.signature(catalogue()[kind][name].load()).parameters


def _example(parameter: inspect.Parameter, name: str):
    for base, make in EXAMPLES.items():
        if parameter.annotation is base:
            return make()
        if parameter.annotation == dict[str, base]:
            return {"one": make(), "two": make()}
    pytest.fail(f"{name} requires {parameter.name!r}: give an example in tests/support/registered.py")


def words_said(texts: list[str]) -> list[float]:
    """What the reward Function calls."""
    return [float(len(text.split())) for text in texts]


def small_models(folder: Path) -> dict[str, dict[str, str]]:
    """Arguments of the rewards that need a model: tiny ones, with a tokenizer of their own, saved here."""
    torch.manual_seed(0)
    tokenizer = _tokenizer()
    size = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    bert = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    made = {
        "encoder": BertModel(BertConfig(**size, **bert)),
        "classifier": BertForSequenceClassification(BertConfig(**size, **bert, num_labels=2)),
        "lm": GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), n_embd=16, n_layer=1, n_head=2, n_positions=64)),
    }
    for name, model in made.items():
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return {name: str(folder / name) for name in made}


def _tokenizer() -> PreTrainedTokenizerFast:
    said = sorted({word for row in EXAMPLE_REFERENCES for text in row for word in text.split()})
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *said])}
    inner = FastTokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        bos_token="[CLS]",
        eos_token="[SEP]",
    )
