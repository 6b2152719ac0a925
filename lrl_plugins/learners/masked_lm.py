"""The warm-up of an encoder: guessing words that were hidden in texts."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, gelu, linear
from torch.optim import Adam
from torchmetrics import Metric
from transformers import PreTrainedModel

from lrl_core.interfaces import Component, LearnsAlone, OptimizerFactory, Sampler, TaskFacts
from lrl_core.tokenizer import Tokenizer
from lrl_core.types import Experience, Loss, Prompts
from lrl_plugins.text_models import SMALL, LineMaker, is_causal, load_trunk, mask_id, tokenizer_of


@dataclass(frozen=True)
class HiddenWords:
    """Lines in which some words were hidden."""

    shown: Int[Tensor, "N L"]
    """What the encoder reads."""
    ids: Int[Tensor, "N L"]
    """What stood there."""
    real: Bool[Tensor, "N L"]
    """False on padding."""
    chosen: Bool[Tensor, "N L"]
    """Where the word is to be guessed."""

    def split(self, token_budget: int | None) -> list["HiddenWords"]:
        """Parts of at most `token_budget` padded tokens (None: one part), lines of like length together."""
        if token_budget is None:
            return [self]
        lengths = self.real.sum(1)
        parts: list[list[int]] = []
        for row in lengths.argsort(stable=True).tolist():
            if not parts or int(lengths[row]) * (len(parts[-1]) + 1) > token_budget:
                parts.append([])
            parts[-1].append(row)
        return [self._rows(torch.tensor(rows, device=lengths.device), int(lengths[rows].max())) for rows in parts]

    def _rows(self, rows: Int[Tensor, " n"], width: int) -> "HiddenWords":
        return HiddenWords(*(lines[rows, :width] for lines in (self.shown, self.ids, self.real, self.chosen)))


class MaskedLM(Component, LearnsAlone):
    """Warms an encoder up on plain texts: it guesses hidden words from both sides (Devlin et al. 2019, section 3.1).

    Of all words a share is chosen; of these, some are shown as a mask, some as another word, the rest unchanged. The
    loss is on the chosen ones only, and special tokens are never chosen. It learns from any task with answers, trained
    alone (`lrl fit` with model.learner: MaskedLM). The reward Preference starts from its checkpoint: with the same
    model and tokenizer, `start_from: .../last.ckpt` takes the encoder (saved under "learner.encoder.") and draws its
    own head.

    Logged: mlm/accuracy. Held out: masked_accuracy and masked_perplexity, on words hidden alike every time.

    Args:
        model: Folder or hub name of a transformers encoder, or config entries with a model_type for fresh weights;
            None: a fresh BERT of two layers and 128 units.
        tokenizer: Folder or hub name of a transformers tokenizer, or a .json written by WordTokenizer.save; None: that
            of the model's folder, else the task's.
        prompt: Whether the prompt is read before the answer, and its words are hidden too.
        separator: Stands between prompt and answer; None: an end token.
        max_length: Longest line in the model's tokens, special ones counted; None takes the model's limit. A text too
            long loses its beginning.
        share: Share of the words that are chosen, in (0, 1).
        masked: Share of the chosen words that are shown as a mask.
        replaced: Share of the chosen words that are shown as another word, drawn at random.
        optimizer: Optimiser of the encoder.
        updates: Updates per batch, each with other words hidden.
    """

    def __init__(
        self,
        model: str | dict[str, Any] | None = None,
        tokenizer: str | None = None,
        prompt: bool = True,
        separator: str | None = None,
        max_length: int | None = None,
        share: float = 0.15,
        masked: float = 0.8,
        replaced: float = 0.1,
        optimizer: OptimizerFactory = Adam,
        updates: int = 1,
    ) -> None:
        super().__init__()
        if not 0 < share < 1 or min(masked, replaced) < 0 or masked + replaced > 1 or updates < 1:
            raise ValueError(
                f"MaskedLM: got share {share}, masked {masked}, replaced {replaced} and updates {updates}; expected a "
                "share in (0, 1), two more >= 0 that add up to at most 1, and updates >= 1. Usual: 0.15, 0.8, 0.1, 1."
            )
        self.model, self.tokenizer = SMALL if model is None else model, tokenizer
        self.prompt, self.separator, self.max_length = prompt, separator, max_length
        self.share, self.masked, self.replaced = share, masked, replaced
        self.optimizer, self.updates = optimizer, updates
        self.encoder: PreTrainedModel | None = None

    def bind(self, facts: TaskFacts) -> None:
        """Build the encoder, or load it."""
        tokenizer = tokenizer_of("MaskedLM", self.model, self.tokenizer, facts.tokenizer)
        self.encoder = load_trunk("MaskedLM", self.model, tokenizer)
        self._mask, vectors = mask_id(tokenizer), word_vectors(self.encoder)
        if is_causal(self.encoder.config) or self._mask >= len(vectors):
            raise ValueError(
                f"MaskedLM: got the model {self.model!r}, which sees only what stands before a word or has no id for a "
                "mask; expected an encoder. Use model_type bert, or a policy and CrossEntropy for decoders."
            )
        self.lines = LineMaker("MaskedLM", self.encoder, tokenizer, self.separator, self.max_length)
        self.head = GuessingHead(vectors)
        self._task = facts.tokenizer
        special = {*tokenizer.never_drawn, tokenizer.pad, tokenizer.bos, tokenizer.eos, self._mask}
        words = [i for i in range(len(tokenizer)) if i not in special]
        self.register_buffer("words", torch.tensor(words), persistent=False)

    def lessons(self, experience: Experience, sampler: Sampler | None) -> Iterator[HiddenWords]:
        """The batch's texts with other words hidden each time; in eval mode the same ones every time."""
        if sampler is not None or experience.expert is None:
            return
        texts = texts_to_read(experience.expert.prompts, self._task, self.prompt)
        lines = [self.lines.line(prompt, text) for prompt, text in texts]
        assert isinstance(self.words, Tensor)
        ids, real, words = self.lines.tensors(lines, self.words.device)
        shares = (self.share, self.masked, self.replaced)
        for _ in range(self.updates):
            generator = None if self.training else _generator_of(texts)
            shown, chosen = hide(ids, words, self._mask, self.words, shares, generator)
            yield HiddenWords(shown, ids, real, chosen)

    def count(self, lesson: HiddenWords) -> Tensor:
        """How many words are to be guessed."""
        return lesson.chosen.sum().float()

    def learn(self, lesson: HiddenWords) -> Loss:
        """Cross-entropy summed over the words to be guessed."""
        each, right = self._guess(lesson)
        known = {"mlm/accuracy": right.float().mean()} if len(right) else {}
        return Loss(each.sum(), known)

    def metric(self) -> "MaskedMetrics":
        return MaskedMetrics()

    @torch.no_grad()
    def examine(self, lesson: HiddenWords, metric: "MaskedMetrics") -> None:
        metric.update(*self._guess(lesson))

    def _guess(self, lesson: HiddenWords) -> tuple[Float[Tensor, " M"], Bool[Tensor, " M"]]:
        """Loss of each chosen word, and whether it was guessed."""
        assert self.encoder is not None
        states = self.encoder(input_ids=lesson.shown, attention_mask=lesson.real.long()).last_hidden_state
        logits, wanted = self.head(states[lesson.chosen], word_vectors(self.encoder)), lesson.ids[lesson.chosen]
        return cross_entropy(logits.float(), wanted, reduction="none"), logits.argmax(1) == wanted


def word_vectors(encoder: PreTrainedModel) -> Float[Tensor, "V D"]:
    """What the encoder reads ids with."""
    weight = encoder.get_input_embeddings().weight
    assert isinstance(weight, Tensor)
    return weight


class GuessingHead(nn.Module):
    """From states to logits of words: a layer, then the vectors that words are read with (tied), and a bias.

    Args:
        vectors: The encoder's input embeddings, for their sizes.
    """

    def __init__(self, vectors: Float[Tensor, "V D"]) -> None:
        super().__init__()
        ids, width = vectors.shape
        self.layer, self.norm = nn.Linear(width, width), nn.LayerNorm(width)
        self.bias = nn.Parameter(torch.zeros(ids))

    def forward(self, states: Float[Tensor, "M D"], vectors: Float[Tensor, "V D"]) -> Float[Tensor, "M V"]:
        """Logits.

        Args:
            states: At the words to be guessed.
            vectors: The encoder's input embeddings.
        """
        return linear(self.norm(gelu(self.layer(states))), vectors, self.bias)


class MaskedMetrics(Metric):
    """masked_accuracy and masked_perplexity over all hidden words."""

    full_state_update = False
    is_differentiable = False
    loss: Tensor
    right: Tensor
    words: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("loss", "right", "words"):
            self.add_state(name, torch.tensor(0.0, dtype=torch.double), dist_reduce_fx="sum")

    def update(self, losses: Float[Tensor, " M"], right: Bool[Tensor, " M"]) -> None:
        """Add words.

        Args:
            losses: Of each word, in nats.
            right: Whether it was guessed.
        """
        self.loss = self.loss + losses.double().sum()
        self.right = self.right + right.double().sum()
        self.words = self.words + len(right)

    def compute(self) -> dict[str, Tensor]:
        """Share of words guessed, and exp of their mean loss; empty where none was hidden."""
        if not float(self.words):
            return {}
        return {
            "masked_accuracy": (self.right / self.words).float(),
            "masked_perplexity": (self.loss / self.words).exp().float(),
        }


def hide(
    ids: Int[Tensor, "N L"],
    words: Bool[Tensor, "N L"],
    mask: int,
    others: Int[Tensor, " W"],
    shares: tuple[float, float, float] = (0.15, 0.8, 0.1),
    generator: torch.Generator | None = None,
) -> tuple[Int[Tensor, "N L"], Bool[Tensor, "N L"]]:
    """What the encoder is shown in place of `ids`, and which words were chosen.

    Args:
        ids: The lines.
        words: Where a word stands that may be chosen.
        mask: The id that hides a word.
        others: Ids that a word may be replaced by.
        shares: Of words that are chosen; of chosen ones that are masked; of chosen ones that are replaced.
        generator: On the CPU; None draws from torch's own.
    """
    share, masked, replaced = shares

    def draw() -> Tensor:
        return torch.rand(ids.shape, generator=generator).to(ids.device)

    chosen = words & (draw() < share)
    fate = draw()
    other = others[(draw() * len(others)).long().clamp(max=len(others) - 1)]
    shown = torch.where(chosen & (fate < masked), mask, ids)
    return torch.where(chosen & (fate >= masked) & (fate < masked + replaced), other, shown), chosen


def texts_to_read(prompts: Prompts, tokenizer: Tokenizer, with_prompt: bool) -> list[tuple[str | None, str]]:
    """The texts of a batch, each once: every human answer, after its prompt where that is wanted.

    Args:
        prompts: The batch.
        tokenizer: The task's, for answers that are there as tokens only.
        with_prompt: Whether the prompt's text is wanted; that of the row as loaded, where there is one.
    """
    found: dict[tuple[str | None, str], None] = {}
    for row in range(len(prompts)):
        prompt = None
        if with_prompt:
            asked = tokenizer.decode(prompts.tokens[row, : int(prompts.lengths[row])].tolist())
            prompt = str(prompts.examples[row].get("prompt", asked)) if prompts.examples else asked
        if prompts.references and prompts.references[row]:
            answers = prompts.references[row]
        else:
            assert prompts.targets is not None and prompts.target_lengths is not None
            answers = (tokenizer.decode(prompts.targets[row, : int(prompts.target_lengths[row])].tolist()),)
        found |= {(prompt or None, answer): None for answer in answers}
    return list(found)


def _generator_of(texts: list[tuple[str | None, str]]) -> torch.Generator:
    """A generator that is a function of the texts alone."""
    digest = hashlib.blake2b(repr(texts).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") % 2**63)
