"""How likely a text is: log-likelihood under a frozen language model or under counted n-grams."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from lrl_core.frozen import Frozen
from lrl_core.interfaces import Reward, TaskFacts
from lrl_core.tokenizer import words
from lrl_core.types import RewardSignal, Rollout
from lrl_plugins.rewards import pretrained
from lrl_plugins.rewards.ngram_lm import NgramModel
from lrl_plugins.rewards.texts import texts_of


class LanguageModel(Reward):
    """Log-likelihood (natural logarithm, at most 0) of every episode's text, without its prompt.

    Under a transformers causal model with its own tokenizer, or, without `model`, under an n-gram model with add-k
    smoothing, counted over the training references or a text file and stored in the checkpoint. The end counts as a
    token where the episode ended by itself. An episode without any token cannot be judged.

    Args:
        model: Folder or hub name of a causal language model; None counts n-grams.
        corpus: Text file, one text per line, in which n-grams are counted; None takes the training references.
        n: Longest n-gram.
        k: What is added to every n-gram's count, > 0.
        mixture: Weights of the orders 1..n, which add up to 1; None puts all on the longest.
        least: Words seen fewer times are counted as unknown, which is what words that were never seen are.
        average: Whether the sum is divided by the number of tokens; the bare sum prefers short texts.
        eos: Whether the end counts as a token.
        batch_size: Most texts the model reads at once; fewer of unlike length, and of long ones.
        max_length: Longest text in the model's tokens, begin and end counted; None takes the model's limit. What lies
            beyond is not judged.
    """

    def __init__(
        self,
        model: str | None = None,
        corpus: str | None = None,
        n: int = 3,
        k: float = 0.1,
        mixture: list[float] | None = None,
        least: int = 1,
        average: bool = True,
        eos: bool = True,
        batch_size: int = 32,
        max_length: int | None = None,
    ) -> None:
        super().__init__()
        pretrained.check_batch_size("LanguageModel", batch_size)
        _check_counting(model, corpus, n, k, mixture)
        self.name, self.corpus, self.n, self.k, self.mixture, self.least = model, corpus, n, k, mixture, least
        self.average, self.eos, self.batch_size, self.max_length = average, eos, batch_size, max_length
        self.lm: Frozen | None = None
        self._ngrams: NgramModel | None = None

    def bind(self, facts: TaskFacts) -> None:
        """Load the model, or count n-grams."""
        if self.name is None:
            texts = self._corpus() if self.corpus is not None else [text for row in facts.references for text in row]
            self._ngrams = NgramModel.of(self._checked(texts), self.n, self.k, self.mixture, self.least)
            return
        config = pretrained.load_config("LanguageModel", self.name)
        self.lm = Frozen(pretrained.load_model("LanguageModel", AutoModelForCausalLM, self.name, config))
        self._reader = pretrained.TextReader("LanguageModel", self.name, config)
        self._limit = pretrained.checked_limit("LanguageModel", self._reader.limit, self.max_length)
        tokenizer = self._reader.tokenizer
        self._begin = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
        self._end = [tokenizer.eos_token_id] if self.eos else []
        if self._begin is None or None in self._end:
            raise ValueError(
                f"LanguageModel: got a tokenizer in {self.name!r} without an end token; expected one to begin and to "
                "end texts with. Set eos_token (and bos_token) in its tokenizer_config.json."
            )

    @torch.no_grad()
    def score(self, rollout: Rollout) -> RewardSignal:
        """Judge every episode; NaN where there is no token to judge."""
        if self.lm is None and self._ngrams is None:
            raise pretrained.unbound("LanguageModel")
        ended = [bool(end) and self.eos for end in rollout.terminated.tolist()]
        texts = texts_of(self, rollout)
        lines = self._counted(texts, ended) if self.lm is None else self._read(self.lm, texts, ended)
        sums = [math.fsum(line) / (len(line) if self.average else 1) if line else math.nan for line in lines]
        total = torch.tensor(sums, dtype=torch.float32, device=rollout.tokens.device)
        return RewardSignal(total, parts={"LanguageModel": total})

    def _counted(self, texts: Sequence[str], ended: Sequence[bool]) -> list[list[float]]:
        assert self._ngrams is not None
        model = self._ngrams
        return [model.log_probabilities(words(text), end) for text, end in zip(texts, ended, strict=True)]

    def _read(self, lm: Frozen, texts: Sequence[str], ended: Sequence[bool]) -> list[list[float]]:
        """Log-probabilities of each text's tokens, given a begin token that is not judged."""
        read = [row["input_ids"] for row in self._reader.rows(texts, special=False)]
        lines = [ids + self._end * end for ids, end in zip(read, ended, strict=True)]
        lines = [[self._begin, *line][: self._limit] for line in lines]
        rows: list[pretrained.Row] = [
            {"input_ids": line, "attention_mask": [1] * len(line)} for line in lines if len(line) > 1
        ]
        places = [i for i, line in enumerate(lines) if len(line) > 1]
        found: list[list[float]] = [[] for _ in texts]
        device = pretrained.device_of(lm)
        for where, batch in pretrained.buckets(rows, self.batch_size, device):
            inputs = self._reader.batch(batch, device)
            scores = token_logprobs(lm.module(**inputs, use_cache=False).logits, inputs["input_ids"]).tolist()
            for place, row, line in zip(where, batch, scores, strict=True):
                found[places[place]] = line[: len(row["input_ids"]) - 1]
        return found

    def _corpus(self) -> list[str]:
        assert self.corpus is not None
        if not Path(self.corpus).is_file():
            raise FileNotFoundError(
                f"LanguageModel: corpus is {self.corpus!r}; expected a text file, one text per line. Correct the path, "
                "or leave it out to count in the training references."
            )
        return Path(self.corpus).read_text(encoding="utf-8").splitlines()

    def _checked(self, texts: Sequence[str]) -> list[list[str]]:
        tokenised = [line for line in map(words, texts) if line]
        if not tokenised:
            raise ValueError(
                f"LanguageModel got no texts with words in {self.corpus or 'the training references'}; expected some "
                "to count n-grams in. Name a corpus or a model, or use a task with references."
            )
        return tokenised

    def get_extra_state(self) -> dict[str, Any]:
        """The counts, so that a resumed or exported run scores as before."""
        return {} if self._ngrams is None else self._ngrams.pack()

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take the counts from a checkpoint."""
        if state:
            self._ngrams = NgramModel.unpack(state)


def token_logprobs(logits: Tensor, ids: Tensor) -> Tensor:
    """Log-probability [N L-1] of every token but the first, from the logits [N L V] before it."""
    before = logits[:, :-1].float()
    return before.gather(-1, ids[:, 1:, None]).squeeze(-1) - before.logsumexp(-1)


def _check_counting(model: str | None, corpus: str | None, n: int, k: float, mixture: list[float] | None) -> None:
    if model is not None and corpus is not None:
        raise ValueError(
            f"LanguageModel: got model {model!r} and corpus {corpus!r}; expected at most one of them. Leave out one."
        )
    if n < 1 or k <= 0:
        raise ValueError(
            f"LanguageModel: n is {n} and k is {k}; expected n >= 1 and k > 0, without which a word that was never "
            "seen has no logarithm. Usual: n 3, k 0.1."
        )
    if mixture is not None and (len(mixture) != n or min(mixture) < 0 or not math.isclose(sum(mixture), 1)):
        raise ValueError(
            f"LanguageModel: mixture is {mixture}; expected {n} weights >= 0 that add up to 1, one per order 1..{n}. "
            "Correct them."
        )
