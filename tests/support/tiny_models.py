"""Transformers models of a few hundred weights, drawn at random and saved with real tokenizers of their own."""

import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

WORDS = (
    "a an the man person rides riding horse cat sits is on mat two dogs dog play playing in park and more old young "
    "##s ##ing ##er ##dom un play ! . , ? it"
)
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


def tokenizer(limit=24):
    """Pieces of words between [CLS] and [SEP], lower-cased."""
    vocabulary = list(dict.fromkeys(SPECIAL + WORDS.split() + list("abcdefghijklmnopqrstuvwxyz")))
    vocabulary += [f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"]
    inner = Tokenizer(models.WordPiece({word: i for i, word in enumerate(vocabulary)}, unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer(lowercase=True)
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [("[CLS]", 2), ("[SEP]", 3)]
    inner.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", ends)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        bos_token="[CLS]",
        eos_token="[SEP]",
        model_max_length=limit,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def save(path, auto, model_type, limit=24, **entries):
    """Draw a model, save it with its tokenizer and return the folder as text."""
    read = tokenizer(limit)
    if model_type not in ("bert",):
        read.model_input_names = ["input_ids", "attention_mask"]
    config = transformers.AutoConfig.for_model(
        model_type, vocab_size=len(read), pad_token_id=0, bos_token_id=2, eos_token_id=3, **entries
    )
    torch.manual_seed(5)
    model = auto.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():  # the usual tiny weights would make all texts alike
            parameter.add_(torch.randn_like(parameter) * 0.3)
    model.save_pretrained(path)
    read.save_pretrained(path)
    return str(path)


def save_bert(path, auto=transformers.AutoModel, **entries):
    """An encoder of three layers."""
    shape = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 24}
    return save(path, auto, "bert", **shape, max_position_embeddings=24, **entries)


def save_t5(path):
    """An encoder-decoder whose encoder has three layers."""
    shape = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 3, "num_decoder_layers": 1, "num_heads": 2}
    return save(path, transformers.AutoModel, "t5", **shape, decoder_start_token_id=0)


def save_gpt2(path, auto=transformers.AutoModelForCausalLM, **entries):
    """A decoder of two layers."""
    return save(path, auto, "gpt2", n_embd=16, n_layer=2, n_head=2, n_positions=24, **entries)
