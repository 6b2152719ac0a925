"""Nearness of meaning: cosine of sentence embeddings."""

import math
from collections.abc import Sequence

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor

from lrl_core.frozen import Frozen
from lrl_core.interfaces import Reward, TaskFacts
from lrl_core.tokenizer import Tokenizer
from lrl_core.types import RewardSignal, Rollout
from lrl_plugins.rewards import pretrained
from lrl_plugins.rewards.gold import check_column, texts_and_golds
from lrl_plugins.rewards.memory import Memory
from lrl_plugins.rewards.prompt_texts import prompt_texts
from lrl_plugins.rewards.texts import texts_of


class SentenceSimilarity(Reward):
    """Cosine of sentence embeddings, -1 to 1, between an episode and its references, its prompt or a column.

    Reimers and Gurevych 2019 (arXiv:1908.10084). Of several references the nearest counts. An empty episode has a
    cosine of 0; an episode with nothing to compare with cannot be judged. The model is frozen and stays out of
    checkpoints.

    Args:
        model: Folder or hub name of a sentence-transformers model.
        against: references, prompt (the prompt's text), or the name of a column of the data, such as a source text.
        batch_size: Texts read at once.
        remember: How many embeddings of references, prompts or columns are kept for the next batches.
    """

    def __init__(self, model: str, against: str = "references", batch_size: int = 64, remember: int = 16384) -> None:
        super().__init__()
        pretrained.check_batch_size("SentenceSimilarity", batch_size)
        self.name, self.against, self.batch_size = model, against, batch_size
        self.encoder: Frozen | None = None
        self._known: Memory[str, Tensor] = Memory(remember)

    def bind(self, facts: TaskFacts) -> None:
        """Load the model."""
        check_column(self, facts, self._column)
        try:
            self.encoder = Frozen(SentenceTransformer(self.name, device="cpu"))
        except (OSError, ValueError) as error:
            raise OSError(
                f"SentenceSimilarity: got the model {self.name!r}, which cannot be loaded ({error}); expected a folder "
                "or hub name of a sentence-transformers model. Correct the path."
            ) from error
        self._known.clear()
        self._tokenizer: Tokenizer = facts.tokenizer

    @torch.no_grad()
    def score(self, rollout: Rollout) -> RewardSignal:
        """Judge every episode; NaN where there is nothing to compare it with."""
        if self.encoder is None:
            raise pretrained.unbound("SentenceSimilarity")
        texts = texts_of(self, rollout)
        others = [[other for other in several if other.strip()] for several in self._others(rollout)]
        mine = Memory[str, Tensor](0).get((text for text in texts if text.strip()), self._embed)
        known = self._known.get((other for several in others for other in several), self._embed)
        rows = [
            nearest(mine.get(text), [known[other] for other in several])
            for text, several in zip(texts, others, strict=True)
        ]
        total = torch.tensor(rows, dtype=torch.float32, device=rollout.tokens.device)
        return RewardSignal(total, parts={"SentenceSimilarity": total})

    def _others(self, rollout: Rollout) -> list[tuple[str, ...]]:
        if self.against == "prompt":
            return [(prompt,) for prompt in prompt_texts(rollout, self._tokenizer)]
        return [others for _, others in texts_and_golds(self, rollout, self._column)]

    @property
    def _column(self) -> str | None:
        return None if self.against in ("references", "prompt") else self.against

    def _embed(self, texts: Sequence[str]) -> list[Tensor]:
        """Embeddings of length 1, on the CPU, where many fit."""
        assert self.encoder is not None
        model = self.encoder.module
        assert isinstance(model, SentenceTransformer)
        found = model.encode(
            list(texts),
            batch_size=self.batch_size,
            normalize_embeddings=True,
            convert_to_tensor=True,
            show_progress_bar=False,
        )
        return [vector.clone() for vector in found.float().cpu()]


def nearest(mine: Tensor | None, others: Sequence[Tensor]) -> float:
    """The largest cosine of vectors of length 1; 0 of an empty text, NaN where there are no others.

    Args:
        mine: [D]; None of an empty text.
        others: [D] each.
    """
    if not others:
        return math.nan
    return 0.0 if mine is None else max(float(mine @ other) for other in others)
