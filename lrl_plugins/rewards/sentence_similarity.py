"""Nearness of meaning: cosine of sentence embeddings."""

import math
from collections.abc import Sequence

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from lrl_core.frozen import Frozen
from lrl_core.interfaces import Reward, TaskFacts
from lrl_core.tokenizer import Tokenizer
from lrl_core.types import RewardSignal, Rollout
from lrl_plugins.rewards import pretrained
from lrl_plugins.rewards.gold import check_column, texts_and_golds
from lrl_plugins.rewards.memory import Memory, memory_of
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
        batch_size: Most texts read at once; fewer of unlike length, and of long ones.
        remember: How many embeddings of references, prompts or columns are kept for the next batches; None keeps as
            many as 1 GiB holds.
    """

    def __init__(
        self, model: str, against: str = "references", batch_size: int = 64, remember: int | None = None
    ) -> None:
        super().__init__()
        pretrained.check_batch_size("SentenceSimilarity", batch_size)
        self.name, self.against, self.batch_size = model, against, batch_size
        self.encoder: Frozen | None = None
        self._known: Memory[str, Tensor] = memory_of(remember, lambda vector: vector.nbytes)

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
        lengths = token_counts(model, texts)
        made: list[Tensor] = [torch.zeros(0)] * len(texts)
        spare = pretrained.spare_padding(model.device)
        for places, _ in pretrained.by_length(lengths, int, self.batch_size, spare=spare):
            found = model.encode(
                [texts[place] for place in places],
                batch_size=len(places),
                normalize_embeddings=True,
                convert_to_tensor=True,
                show_progress_bar=False,
            )
            for place, vector in zip(places, found.float().cpu(), strict=True):
                made[place] = vector.clone()  # a view would keep the whole batch in memory
        return made


def token_counts(model: SentenceTransformer, texts: Sequence[str]) -> list[int]:
    """How long each text is for the model, at least 1: tokens, or letters where it has no transformers tokenizer.

    Only the speed depends on these: what is read together needs the less padding, the nearer its lengths are.
    """
    tokenizer = getattr(model, "tokenizer", None)
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        return [max(len(text), 1) for text in texts]
    read = tokenizer(list(texts), return_attention_mask=False, return_token_type_ids=False, verbose=False)
    return [max(len(ids), 1) for ids in read["input_ids"]]


def nearest(mine: Tensor | None, others: Sequence[Tensor]) -> float:
    """The largest cosine of vectors of length 1; 0 of an empty text, NaN where there are no others.

    Args:
        mine: [D]; None of an empty text.
        others: [D] each.
    """
    if not others:
        return math.nan
    return 0.0 if mine is None else float((torch.stack(list(others)) @ mine).max())
