"""BERTScore as a reward: words matched by their contextual embeddings."""

import csv
import math
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModel

from lrl_core.frozen import Frozen
from lrl_core.interfaces import Reward, TaskFacts
from lrl_core.types import RewardSignal, Rollout
from lrl_plugins.rewards import pretrained
from lrl_plugins.rewards.memory import Memory
from lrl_plugins.rewards.texts import texts_and_references

Side = Literal["f1", "precision", "recall"]
PUBLISHED_LAYERS = {"roberta-large": 17, "bert-base-uncased": 9, "deberta-xlarge-mnli": 40}
"""The layer that agrees best with human judgements, as published, by the last part of the model's name."""


class BERTScore(Reward):
    """BERTScore of every episode against its prompt's references, the best of which counts.

    Zhang et al. 2020 (arXiv:1904.09675), equations 1 and 2: every token is matched with the nearest token of the other
    text, by the cosine of their contextual embeddings. An episode without words gets a raw score of 0 and a warning;
    a prompt without references cannot be judged. The model reads the episode's text with its own tokenizer, is frozen
    and stays out of checkpoints.

    Args:
        model: Folder or hub name of any transformers encoder, or encoder-decoder, whose encoder is taken.
        layer: Which layer's embeddings; 0 is the input's. None takes the published layer of roberta-large (17),
            bert-base-uncased (9) and deberta-xlarge-mnli (40), of any other model the last one.
        score: f1, precision (how much of the episode is in the reference) or recall (the other way round).
        idf: Whether rare tokens count more, by their inverse document frequency in the training references.
        baseline: Score of unrelated texts, which is moved to 0 while 1 stays 1: a number, or a file with a line
            LAYER,P,R,F for each layer as published beside the method. None leaves the raw score.
        batch_size: Texts read at once.
        max_length: Longest text in tokens, special ones counted; None takes the model's limit.
        remember: How many references' embeddings are kept for the next batches.
    """

    def __init__(
        self,
        model: str,
        layer: int | None = None,
        score: Side = "f1",
        idf: bool = False,
        baseline: float | str | None = None,
        batch_size: int = 64,
        max_length: int | None = None,
        remember: int = 4096,
    ) -> None:
        super().__init__()
        pretrained.check_batch_size("BERTScore", batch_size)
        if score not in get_args(Side):
            raise ValueError(f"BERTScore: score is {score!r}; expected one of {', '.join(get_args(Side))}. Correct it.")
        self.name, self.layer, self.side, self.idf = model, layer, score, idf
        self.baseline, self.batch_size, self.max_length = baseline, batch_size, max_length
        self.encoder: Frozen | None = None
        self._frequencies: Frequencies | None = None
        self._known: Memory[str, Embedded] = Memory(remember)

    def bind(self, facts: TaskFacts) -> None:
        """Load the model and count document frequencies over the training references."""
        config = pretrained.load_config("BERTScore", self.name)
        layer = _checked_layer(self.name, self.layer, config.num_hidden_layers)
        self._baselines = read_baseline(self.baseline, layer)
        config.num_hidden_layers = layer  # what stands above it is never built
        model = pretrained.load_model("BERTScore", AutoModel, self.name, config)
        self.encoder = Frozen(model.get_encoder() if config.is_encoder_decoder else model)
        self._reader = pretrained.TextReader("BERTScore", self.name, config, self.max_length, leading_space=True)
        self._special = frozenset(self._reader.tokenizer.all_special_ids)
        self._known.clear()
        if self.idf:
            texts = [reference.strip() for row in facts.references for reference in row]
            self._use(Frequencies.of(row["input_ids"] for row in self._reader.rows(texts)))

    @torch.no_grad()
    def score(self, rollout: Rollout) -> RewardSignal:
        """Judge every episode; NaN where a prompt has no references with words."""
        if self.encoder is None:
            raise pretrained.unbound("BERTScore")
        rows = list(texts_and_references(self, rollout))
        said = Memory[str, Embedded](0).get((text.strip() for text, _, _ in rows), self._embed)
        known = self._known.get((text.strip() for _, _, several in rows for text in several), self._embed)
        episodes = [
            [(said[text.strip()], known[reference.strip()]) for reference in several] for text, _, several in rows
        ]
        scores = torch.tensor(self._best(episodes), dtype=torch.float32, device=rollout.tokens.device)
        names = {"precision": "BERTScore_P", "recall": "BERTScore_R", "f1": "BERTScore_F1"}
        parts = dict(zip(names.values(), scores.unbind(1), strict=True))
        return RewardSignal(parts[names[self.side]], parts=parts)

    def _best(self, episodes: list[list[tuple["Embedded", "Embedded"]]]) -> list[list[float]]:
        """Precision, recall and F1 of every episode against the reference where each is highest."""
        usable = [[pair for pair in row if pair[1].counts] for row in episodes]
        wordless = [bool(row) and not row[0][0].counts for row in usable]
        if any(wordless):
            warnings.warn("BERTScore: an episode without words got a raw score of 0.", stacklevel=3)
        best = [[0.0 if empty else math.nan] * 3 for empty in wordless]
        owners = [i for i, row in enumerate(usable) if not wordless[i] for _ in row]
        pairs = [pair for i, row in enumerate(usable) if not wordless[i] for pair in row]
        for places, batch in pretrained.by_length(pairs, lambda pair: max(map(len, pair)), self.batch_size):
            for place, values in zip(places, compared(batch).tolist(), strict=True):
                i = owners[place]
                known = values if math.isnan(best[i][0]) else best[i]
                best[i] = [max(two) for two in zip(known, values, strict=True)]
        return [rescaled(row, self._baselines) for row in best]

    def _embed(self, texts: Sequence[str]) -> list["Embedded"]:
        """Embeddings and weights of the tokens of each text."""
        assert self.encoder is not None
        rows, device = self._reader.rows(texts), pretrained.device_of(self.encoder)
        made = [Embedded(torch.zeros(0, 0, device=device), torch.zeros(0, device=device), False) for _ in rows]
        for places, batch in pretrained.buckets(rows, self.batch_size):
            hidden = self.encoder.module(**self._reader.batch(batch, device)).last_hidden_state
            vectors = torch.nn.functional.normalize(hidden.float(), dim=-1)
            for place, row, lines in zip(places, batch, vectors, strict=True):
                ids = row["input_ids"]
                weights = torch.tensor([self._weight(token) for token in ids], device=device)
                # A copy: a view would keep the whole batch in memory.
                made[place] = Embedded(lines[: len(ids)].clone(), weights, bool((weights > 0).any()))
        return made

    def _weight(self, token: int) -> float:
        if token in self._special:
            return 0.0
        return 1.0 if self._frequencies is None else self._frequencies.idf(token)

    def _use(self, frequencies: "Frequencies") -> None:
        if frequencies.documents == 0:
            raise ValueError(
                "BERTScore got idf: true and no training references; expected at least one to count tokens in. "
                "Set idf: false, or use a task with references."
            )
        self._frequencies = frequencies
        self._known.clear()

    def get_extra_state(self) -> dict[str, Any]:
        """The document frequencies, so that a resumed or exported run scores as before."""
        if self._frequencies is None:
            return {}
        counts = self._frequencies.counts
        pairs = torch.tensor(list(counts.items()), dtype=torch.int32).view(-1, 2)
        return {"documents": self._frequencies.documents, "counts": pairs}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take the document frequencies from a checkpoint."""
        if state:
            self._use(Frequencies(dict(state["counts"].tolist()), state["documents"]))


class Frequencies(NamedTuple):
    """In how many texts each token stands."""

    counts: dict[int, int]
    """Token -> number of texts that have it."""
    documents: int
    """How many texts there are."""

    @classmethod
    def of(cls, texts: Iterable[Sequence[int]]) -> "Frequencies":
        """Count over tokenised texts; a token counts once per text."""
        counts: Counter[int] = Counter()
        documents = 0
        for text in texts:
            counts.update(set(text))
            documents += 1
        return cls(dict(counts), documents)

    def idf(self, token: int) -> float:
        """log((M + 1) / (df + 1)) with M texts, df of which have the token."""
        return math.log((self.documents + 1) / (self.counts.get(token, 0) + 1))


class Embedded(NamedTuple):
    """A text as a reward sees it."""

    vectors: Tensor
    """[L D] of length 1: one per token, special ones included."""
    weights: Tensor
    """[L] how much each token counts; 0 on special tokens."""
    counts: bool
    """Whether any token counts."""

    def __len__(self) -> int:
        return self.weights.shape[0]


def compared(pairs: Sequence[tuple[Embedded, Embedded]]) -> Tensor:
    """Precision, recall and F1 [N 3] of each (candidate, reference)."""
    device = pairs[0][0].vectors.device  # remembered references may be elsewhere: the model moved since
    said, known = (_padded([pair[side] for pair in pairs], device) for side in (0, 1))
    return greedy_match(said.vectors @ known.vectors.mT, said.weights, known.weights, said.real, known.real)


def greedy_match(
    similarity: Tensor,
    said_weights: Tensor,
    known_weights: Tensor,
    said_real: Tensor | None = None,
    known_real: Tensor | None = None,
) -> Tensor:
    """Precision, recall and F1 [N 3]: weighted means of each token's similarity to the nearest of the other text.

    Args:
        similarity: [N H R] of candidate tokens and reference tokens.
        said_weights: [N H] how much each candidate token counts.
        known_weights: [N R] how much each reference token counts.
        said_real: [N H] False on padding; None where there is none.
        known_real: [N R] as well.
    """
    precision = _weighted(_nearest(similarity, known_real), said_weights)
    recall = _weighted(_nearest(similarity.mT, said_real), known_weights)
    both = precision + recall
    f1 = torch.where(both == 0, 0, 2 * precision * recall / both)
    return torch.stack([precision, recall, f1], dim=-1)


def rescaled(scores: Sequence[float], baselines: Sequence[float] | None) -> list[float]:
    """(score - baseline) / (1 - baseline) for precision, recall and F1; None leaves them."""
    if baselines is None:
        return list(scores)
    return [(score - base) / (1 - base) for score, base in zip(scores, baselines, strict=True)]


def read_baseline(source: float | str | None, layer: int) -> list[float] | None:
    """Baselines of precision, recall and F1; None where none is given.

    Args:
        source: One number for all three, or a file with a head line LAYER,P,R,F and a line for every layer.
        layer: Which line.
    """
    if source is None:
        return None
    if not isinstance(source, str):
        values = [float(source)] * 3
    elif not Path(source).is_file():
        raise FileNotFoundError(
            f"BERTScore: baseline is {source!r}; expected a number or a file with lines LAYER,P,R,F. Correct the path."
        )
    else:
        with open(source, newline="", encoding="utf-8") as lines:
            found = [row for row in csv.DictReader(lines) if row.get("LAYER") == str(layer)]
        values = [float(found[0][name]) for name in "PRF"] if found else [math.nan] * 3
    if not all(value < 1 for value in values):
        raise ValueError(
            f"BERTScore: baseline is {source!r}, which gives {values} for layer {layer}; expected numbers below 1 for "
            "that layer, under the head LAYER,P,R,F. Correct the file or the layer."
        )
    return values


class _Texts(NamedTuple):
    vectors: Tensor
    weights: Tensor
    real: Tensor


def _padded(texts: Sequence[Embedded], device: torch.device) -> _Texts:
    vectors = pad_sequence([text.vectors.to(device) for text in texts], batch_first=True)
    weights = pad_sequence([text.weights.to(device) for text in texts], batch_first=True)
    lengths = torch.tensor([len(text) for text in texts], device=device)
    return _Texts(vectors, weights, torch.arange(weights.shape[1], device=device) < lengths[:, None])


def _nearest(similarity: Tensor, real: Tensor | None) -> Tensor:
    if real is not None:
        similarity = similarity.masked_fill(~real[:, None, :], -math.inf)
    return similarity.amax(-1)


def _weighted(values: Tensor, weights: Tensor) -> Tensor:
    summed = weights.sum(-1)
    return torch.where(weights > 0, values * weights, 0).sum(-1) / torch.where(summed > 0, summed, 1)


def _checked_layer(model: str, layer: int | None, layers: int) -> int:
    if layer is None:
        layer = min(PUBLISHED_LAYERS.get(Path(model).name, layers), layers)
    if not 0 <= layer <= layers:
        raise ValueError(f"BERTScore: layer is {layer}; expected 0 to {layers}, as {model!r} has them. Correct it.")
    return layer
