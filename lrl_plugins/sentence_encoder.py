"""A frozen model that says what texts mean, as vectors: for metrics of tasks. Imported only where one is named."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lrl_core.metrics.embeddings import greedy_match

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

BATCH = 64
"""Texts read at once."""


class SentenceEncoder:
    """Embeddings of texts by a sentence-transformers model, or by any transformers model.

    A folder of sentence-transformers says itself how tokens become one vector. Of other encoders it is their mean, of
    language models that read from left to right the hidden state of the last token.

    Args:
        who: Who asks, for errors.
        path: Folder or hub name.
    """

    def __init__(self, who: str, path: str) -> None:
        try:
            self.model = _load(path)
            self._instead = _something(self.model)
        except (OSError, ValueError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise OSError(
                f"{who}: got the encoder {path!r}, which cannot be loaded ({reason}); expected a folder or hub name of "
                "a sentence-transformers or transformers model with its tokenizer. Correct the path, or leave it out."
            ) from error

    def sentences(self, texts: Sequence[str], device: torch.device) -> Tensor:
        """One vector of length 1 per text, [N D] on the CPU."""
        texts = self._readable(texts)
        distinct = list(dict.fromkeys(texts))
        found = self._encode(distinct, device, normalize_embeddings=True, convert_to_tensor=True).float().cpu()
        places = {text: i for i, text in enumerate(distinct)}
        return found[torch.tensor([places[text] for text in texts], dtype=torch.long)]

    def matched(self, said: Sequence[str], known: Sequence[Sequence[str]], device: torch.device) -> list[float]:
        """BERTScore F1 of each text with the nearest of its references, 0 for a text without words.

        Zhang et al. 2020 (arXiv 1904.09675), without document frequencies and without rescaling; the last layer.

        Args:
            said: The texts.
            known: At least one reference of each.
            device: Where the model computes.
        """
        distinct = list(dict.fromkeys([*said, *(text for own in known for text in own)]))
        tokens = dict(zip(distinct, self._tokens(distinct, device), strict=True))
        return [max(_f1(tokens[text], tokens[other]) for other in own) for text, own in zip(said, known, strict=True)]

    def _tokens(self, texts: Sequence[str], device: torch.device) -> list[tuple[Tensor, Tensor]]:
        """Vectors of length 1 [L D] and weights [L] of each text's tokens; special ones weigh nothing."""
        texts, tokenizer = self._readable(texts), self.model.tokenizer
        special = frozenset(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
        read = tokenizer(texts, truncation=True, max_length=self.model.max_seq_length)["input_ids"]
        made = self._encode(texts, device, output_value="token_embeddings")
        rows = []
        for ids, vectors in zip(read, made, strict=True):
            weights = torch.tensor([float(token not in special) for token in ids])
            rows.append((torch.nn.functional.normalize(vectors.float().cpu(), dim=-1), weights))
        return rows

    def _readable(self, texts: Sequence[str]) -> list[str]:
        """The texts, empty ones as something that has a token."""
        return [text if text.strip() else self._instead for text in texts]

    @torch.no_grad()
    def _encode(self, texts: list[str], device: torch.device, **options: Any) -> Any:
        return self.model.encode(texts, batch_size=BATCH, show_progress_bar=False, device=str(device), **options)


def _f1(said: tuple[Tensor, Tensor], known: tuple[Tensor, Tensor]) -> float:
    if not said[1].any() or not known[1].any():
        return 0.0
    return float(greedy_match(said[0] @ known[0].T, said[1], known[1])[2])


def _something(model: "SentenceTransformer") -> str:
    """What is read in place of an empty text: models without tokens of their own around it cannot read nothing."""
    from transformers import PreTrainedTokenizerBase

    tokenizer = model.tokenizer
    if not isinstance(tokenizer, PreTrainedTokenizerBase) or tokenizer("")["input_ids"]:
        return ""
    return str(tokenizer.eos_token or tokenizer.sep_token or tokenizer.pad_token)


def _load(path: str) -> "SentenceTransformer":
    from sentence_transformers import SentenceTransformer
    from transformers import AutoConfig

    from lrl_plugins.text_models import is_causal

    plain = (Path(path) / "config.json").is_file() and not (Path(path) / "modules.json").is_file()
    config = AutoConfig.from_pretrained(path) if plain else None
    if config is None or not is_causal(config):
        return SentenceTransformer(path, device="cpu")
    from sentence_transformers.models import Pooling, Transformer

    reader = Transformer(path)
    tokenizer = reader.tokenizer
    tokenizer.padding_side = "right"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    pooling = Pooling(config.hidden_size, "lasttoken")
    return SentenceTransformer(modules=[reader, pooling], device="cpu")
