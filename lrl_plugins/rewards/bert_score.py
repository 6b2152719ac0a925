"""BERTScore as a reward: words matched by their contextual embeddings."""

import csv
import math
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import torch
from transformers import AutoModel

from lrl_core.frozen import Frozen
from lrl_core.interfaces import Reward, TaskFacts
from lrl_core.types import RewardSignal, Rollout
from lrl_plugins.rewards import pretrained
from lrl_plugins.rewards.greedy_matching import Embedded, Match, best_matches
from lrl_plugins.rewards.memory import Memory, memory_of
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
        batch_size: Most texts read at once; fewer of unlike length, and of long ones.
        max_length: Longest text in tokens, special ones counted; None takes the model's limit.
        remember: How many references' embeddings are kept for the next batches; None keeps as many as 1 GiB holds. A
            data set whose references all fit is read once.
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
        remember: int | None = None,
    ) -> None:
        super().__init__()
        pretrained.check_batch_size("BERTScore", batch_size)
        if score not in get_args(Side):
            raise ValueError(f"BERTScore: score is {score!r}; expected one of {', '.join(get_args(Side))}. Correct it.")
        self.name, self.layer, self.side, self.idf = model, layer, score, idf
        self.baseline, self.batch_size, self.max_length = baseline, batch_size, max_length
        self.encoder: Frozen | None = None
        self._frequencies: Frequencies | None = None
        self._known: Memory[str, Embedded] = memory_of(remember, lambda text: text.vectors.nbytes)

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
        rows = [
            (text.strip(), tuple(reference.strip() for reference in several))
            for text, _, several in texts_and_references(self, rollout)
        ]
        said = Memory[str, Embedded](0).get((text for text, _ in rows), self._embed)
        known = self._known.get((text for _, several in rows for text in several), self._embed)
        distinct = list(dict.fromkeys(rows))
        found = self._best([Match(said[text], tuple(known[other] for other in several)) for text, several in distinct])
        best = dict(zip(distinct, found, strict=True))
        scores = torch.tensor([best[row] for row in rows], dtype=torch.float32, device=rollout.tokens.device)
        names = {"precision": "BERTScore_P", "recall": "BERTScore_R", "f1": "BERTScore_F1"}
        parts = dict(zip(names.values(), scores.unbind(1), strict=True))
        return RewardSignal(parts[names[self.side]], parts=parts)

    def _best(self, episodes: Sequence[Match]) -> list[list[float]]:
        """Precision, recall and F1 of every episode against the reference where each is highest."""
        assert self.encoder is not None
        usable = [Match(said, tuple(text for text in known if text.counts)) for said, known in episodes]
        wordless = [bool(known) and not said.counts for said, known in usable]
        if any(wordless):
            warnings.warn("BERTScore: an episode without words got a raw score of 0.", stacklevel=3)
        best = [[0.0 if empty else math.nan] * 3 for empty in wordless]
        places = [i for i, (said, known) in enumerate(usable) if known and said.counts]
        if places:
            scores = best_matches([usable[i] for i in places], pretrained.device_of(self.encoder)).tolist()
            for place, values in zip(places, scores, strict=True):
                best[place] = values
        return [rescaled(row, self._baselines) for row in best]

    def _embed(self, texts: Sequence[str]) -> list[Embedded]:
        """Embeddings and weights of the tokens of each text."""
        assert self.encoder is not None
        rows, device = self._reader.rows(texts), pretrained.device_of(self.encoder)
        made = [Embedded(torch.zeros(0, 0, device=device), torch.zeros(0, device=device), False)] * len(rows)
        for places, batch in pretrained.buckets(rows, self.batch_size, device):
            hidden = self.encoder.module(**self._reader.batch(batch, device)).last_hidden_state
            vectors = torch.nn.functional.normalize(hidden.float(), dim=-1)
            counted = [[self._weight(token) for token in row["input_ids"]] for row in batch]
            weights = torch.tensor(pretrained.padded(counted, 0.0), device=device)
            for place, lines, worth, row in zip(places, vectors, weights, counted, strict=True):
                # Copies: a view would keep the whole batch in memory.
                made[place] = Embedded(lines[: len(row)].clone(), worth[: len(row)].clone(), any(row))
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


def _checked_layer(model: str, layer: int | None, layers: int) -> int:
    if layer is None:
        layer = min(PUBLISHED_LAYERS.get(Path(model).name, layers), layers)
    if not 0 <= layer <= layers:
        raise ValueError(f"BERTScore: layer is {layer}; expected 0 to {layers}, as {model!r} has them. Correct it.")
    return layer
