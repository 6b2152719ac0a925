"""A reward that is learnt from what people prefer."""

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.optim import Adam

from lrl_core.interfaces import LearnsAlone, OptimizerFactory, Reward, Sampler, TaskFacts
from lrl_core.preferences.comparison import Comparison, Comparisons
from lrl_core.preferences.losses import LossName, centring, loss_of
from lrl_core.preferences.measures import PreferenceMetrics, accuracy, pairs_of
from lrl_core.preferences.reading import RUN, ReadsLabels, prompt_text
from lrl_core.ranks import of_each_rank
from lrl_core.tokenizer import Tokenizer
from lrl_core.types import Experience, Loss, RewardSignal, Rollout
from lrl_plugins.rewards import pretrained
from lrl_plugins.rewards.preference_checks import check_numbers, refuse_ignorance
from lrl_plugins.rewards.preference_labels import Labels, accuracy_of, minibatches, ranks_of
from lrl_plugins.rewards.preference_network import Pool, PreferenceNetwork
from lrl_plugins.rewards.preference_scale import Asked, ReferenceTexts, rescaling
from lrl_plugins.rewards.preference_start import take_weights
from lrl_plugins.rewards.texts import texts_of
from lrl_plugins.text_models import SMALL, LineMaker, load_trunk, tokenizer_of

MOST_HELD_OUT = 256
"""Held-out judgments, the newest ones, that are measured at the end of each training."""


class Preference(Reward, LearnsAlone, ReadsLabels):
    """How much people would like an answer: a model of their comparisons (Ziegler et al. 2019; Stiennon et al. 2020).

    A scalar head on a transformers model reads prompt and answer as text, with a tokenizer of its own, and learns that
    candidates that were preferred score higher. Three ways to use it: trained alone on a task of ranked answers (`lrl
    fit` with model.learner: Preference), then named with `start_from` as the reward of a policy; beside the policy,
    from a store of judgments that grows meanwhile (`labels`); or both. It is read without dropout, also while it
    learns. Before it has learnt anything it cannot judge, and says so.

    Beside a policy the scores are rescaled to mean 0 and variance 1 over up to 256 texts, so that the weight of a KL
    term keeps its meaning. The texts are those drawn while the policy holds still (model.learners_first), else
    candidates that were compared.

    Logged while it learns: preference/accuracy and preference/margin of the lesson, preference/labels (judgments
    known), preference/held_out_accuracy (before the last update of each training). Held out when trained alone:
    accuracy, margin, log_loss, brier, calibration_error, and kendall_tau of rankings of more than two.

    Args:
        model: Folder or hub name of any transformers encoder, decoder, or encoder-decoder (whose encoder is taken), or
            config entries with a model_type for fresh weights; None: a fresh BERT of two layers and 128 units.
        tokenizer: Folder or hub name of a transformers tokenizer, or a .json written by WordTokenizer.save; None: that
            of the model's folder, else the task's. It need not be the policy's.
        loss: best_of_k (who is best), bradley_terry (pairs), pairwise (all pairs of a ranking, as one element) or
            plackett_luce (the probability of the whole ranking; ties are orders that nobody told).
        pool: The state that is scored: last real token, first, mean of all; auto: last in decoders, mean in encoders.
        prompt: Whether the prompt is read before the answer.
        separator: Stands between prompt and answer; None: an end token in encoders, nothing in decoders.
        max_length: Longest line in the model's tokens, special ones counted; None takes the model's limit. A text too
            long loses the beginning of its prompt, then its own.
        trunk: learns, or frozen: only the head learns.
        start_from: A checkpoint to start from: of a run that trained a Preference (taken whole), or a MaskedLM or a
            policy of the same model and tokenizer (its trunk; the head is drawn afresh). None: as `model` says.
        learns: Whether it learns at all; False is a reward that holds still.
        labels: URL of the PreferenceStore it learns from beside a policy, such as sqlite:///labels.db; `run`: that of
            the run, which the callback AskForLabels keeps in its folder; None: it holds still there.
        refresh: Training steps between two looks for new labels.
        least: Labels before it begins to learn.
        epochs: Passes over all labels whenever there are new ones.
        batch_size: Comparisons per update from the store, over all ranks.
        held_out: Share of the questions, in [0, 1), whose judgments are never learnt but measured.
        margin: By how much the better score should be higher; only for losses of pairs.
        smoothing: Share of the pairs whose label is taken to be wrong, in [0, 0.5); only for losses of pairs.
        centring: Weight of (r_w + r_l)^2, which keeps scores around 0; 0 leaves it out.
        normalise: Whether scores are rescaled beside a policy.
        clip: Scores are held within +-clip, after rescaling; None for no limit.
        unlabelled: What it says before it has learnt anything: nan (such episodes teach nothing) or zero.
        read_at_once: Most texts read together while episodes are scored; fewer of unlike length, and of long ones.
        optimizer: Optimiser of this model.
        updates: Updates per batch where it is trained alone.
    """

    taught: Tensor
    gain: Tensor
    bias: Tensor

    def __init__(
        self,
        model: str | dict[str, Any] | None = None,
        tokenizer: str | None = None,
        loss: LossName = "pairwise",
        pool: Pool = "auto",
        prompt: bool = True,
        separator: str | None = None,
        max_length: int | None = None,
        trunk: Literal["learns", "frozen"] = "learns",
        start_from: str | None = None,
        learns: bool = True,
        labels: str | None = None,
        refresh: int = 10,
        least: int = 1,
        epochs: int = 1,
        batch_size: int = 32,
        held_out: float = 0.1,
        margin: float = 0.0,
        smoothing: float = 0.0,
        centring: float = 0.0,
        normalise: bool = True,
        clip: float | None = None,
        unlabelled: Literal["nan", "zero"] = "nan",
        read_at_once: int = 64,
        optimizer: OptimizerFactory = Adam,
        updates: int = 1,
    ) -> None:
        super().__init__()
        whole = {"refresh": refresh, "least": least, "epochs": epochs, "batch_size": batch_size, "updates": updates}
        check_numbers(whole | {"read_at_once": read_at_once}, held_out, clip, centring)
        self.loss = loss_of(loss, margin, smoothing)
        self.model, self.tokenizer, self.pool = SMALL if model is None else model, tokenizer, pool
        self.prompt, self.separator, self.max_length = prompt, separator, max_length
        self.trunk_learns, self.start_from, self.learns = trunk == "learns", start_from, learns
        self.epochs, self.batch_size, self.centring = epochs, batch_size, centring
        self.normalise, self.clip, self.unlabelled, self.read_at_once = normalise, clip, unlabelled, read_at_once
        self.optimizer, self.updates = optimizer, updates
        self.labels = None if labels is None else Labels(labels, refresh, least, held_out)
        self.references = ReferenceTexts()
        self.held_out_accuracy = math.nan
        self._noted = -1
        self.network: PreferenceNetwork | None = None
        for name, value in (("taught", False), ("gain", 1.0), ("bias", 0.0)):
            self.register_buffer(name, torch.tensor(value))

    def bind(self, facts: TaskFacts) -> None:
        """Build the model, or load it."""
        tokenizer = tokenizer_of("Preference", self.model, self.tokenizer, facts.tokenizer)
        trunk = load_trunk("Preference", self.model, tokenizer)
        self.lines = LineMaker("Preference", trunk, tokenizer, self.separator, self.max_length)
        self.network = PreferenceNetwork(trunk, self.pool, self.trunk_learns)
        self._task: Tokenizer = facts.tokenizer
        if self.start_from is not None:
            extra = take_weights(self, trunk, self.start_from, "Preference")
            if extra:
                self.references.restore(extra)
                self._rescale()
        if not self.learns:
            self.requires_grad_(False)

    def check(self, sampler: Sampler) -> None:
        """Beside a policy it learns from a store, or holds still."""
        if self.labels is not None and self.learns:
            return
        if not bool(self.taught):
            refuse_ignorance(None if self.labels is None else self.labels.url, self.start_from)
        self.requires_grad_(False)

    def look_in(self, url: str) -> None:
        """Learn from the run's own store where the recipe says so."""
        if self.labels is not None and self.labels.url == RUN:
            self.labels.url = url

    # The reward

    @torch.no_grad()
    def score(self, rollout: Rollout) -> RewardSignal:
        """Judge every episode; before anything has been learnt NaN, or 0 as `unlabelled` says."""
        if self.network is None:
            raise pretrained.unbound("Preference")
        asked = self._asked(rollout)
        if bool(self.taught):
            total = self._rescaled(self._raw(asked)).to(rollout.tokens.device)
        else:
            nothing = math.nan if self.unlabelled == "nan" else 0.0
            total = torch.full((len(rollout),), nothing, device=rollout.tokens.device)
        parts = {"Preference": total}
        if self.labels is not None:
            parts["Preference/unlabelled"] = torch.full_like(total, float(not self.taught))
        return RewardSignal(total, parts=parts)

    def _asked(self, rollout: Rollout) -> list[Asked]:
        texts = texts_of(self, rollout)
        asked = rollout.prompts
        return [(prompt_text(asked, row, self._task) if self.prompt else None, said) for row, said in enumerate(texts)]

    @torch.no_grad()
    def _raw(self, asked: Sequence[Asked]) -> Float[Tensor, " N"]:
        assert self.network is not None
        device = self.gain.device
        lines = [self.lines.line(prompt, text) for prompt, text in asked]
        scores = torch.zeros(len(lines), device=device)
        spare = pretrained.spare_padding(device)
        for places, batch in pretrained.by_length(lines, lambda line: len(line.ids), self.read_at_once, spare=spare):
            ids, mask, _ = self.lines.tensors(batch, device)
            scores[places] = self.network(ids, mask)
        return scores

    def _rescaled(self, raw: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
        scores = self.gain * raw + self.bias if self.normalise else raw
        return scores if self.clip is None else scores.clamp(-self.clip, self.clip)

    def _rescale(self) -> None:
        """Measure the scale anew, on the same texts on every rank."""
        if self.normalise and bool(self.taught) and len(self.references.texts) > 1:
            gain, bias = rescaling(self._raw(self.references.texts))
            self.gain.fill_(gain)
            self.bias.fill_(bias)

    # The learner

    def lessons(self, experience: Experience, sampler: Sampler | None) -> Iterator[Comparisons]:
        """Trained alone: the batch. Beside a policy: all labels, `epochs` times, whenever there are new ones."""
        if sampler is None:
            yield from self._from_batch(experience)
        elif experience.rollout is not None:
            yield from self._from_store(experience.rollout, sampler)

    def _from_batch(self, experience: Experience) -> Iterator[Comparisons]:
        assert experience.expert is not None
        batch = Comparisons.of(experience.expert.prompts)
        if self.training:
            self.references.remember(self._candidates(batch.items), drawn=False)
        for _ in range(self.updates):
            yield batch

    def _from_store(self, rollout: Rollout, sampler: Sampler) -> Iterator[Comparisons]:
        found = self.labels.look(sampler.step) if self.labels is not None and self.learns else None
        new = sampler.holding and self._noted != sampler.step  # replays show one step's episodes several times
        measuring = new and not self.references.full
        if new:
            self._noted = sampler.step
            self.references.remember([one for some in of_each_rank(self._asked(rollout)) for one in some], drawn=True)
        if found:
            self.references.remember(self._candidates(found), drawn=False)
            yield from self._training(found, sampler.step)
        if found or measuring:
            self._rescale()

    def _training(self, found: list[Comparison], step: int) -> Iterator[Comparisons]:
        batches = list(minibatches(found, self.batch_size, self.epochs, step))
        for place, batch in enumerate(batches):
            if place + 1 == len(batches) and self.labels is not None and self.labels.kept:
                kept = Comparisons(tuple(self.labels.kept[-MOST_HELD_OUT:]))
                self.held_out_accuracy = accuracy_of(kept, self._raw(self._candidates(kept.items)))
            yield batch

    def count(self, lesson: Comparisons) -> Tensor:
        """How many comparisons say anything."""
        ranks, mask = ranks_of(lesson, self.gain.device)
        return self.loss(mask.float(), ranks, mask).says.sum().float()

    def learn(self, lesson: Comparisons) -> Loss:
        """The loss, summed over comparisons; every candidate is read once."""
        scores, ranks, mask = self._scored(lesson)
        each, says = self.loss(scores, ranks, mask)
        if self.centring:
            each = each + self.centring * torch.where(says, centring(scores, ranks, mask), 0)
        if torch.is_grad_enabled():
            self.taught.fill_(True)
        margin = pairs_of(scores.detach(), ranks, mask).margin
        metrics = {} if self.labels is None else {"preference/labels": torch.tensor(float(self.labels.known))}
        if len(margin):
            metrics |= {"preference/accuracy": accuracy(margin).float(), "preference/margin": margin.mean()}
        if not math.isnan(self.held_out_accuracy):
            metrics["preference/held_out_accuracy"] = torch.tensor(self.held_out_accuracy)
        # The scores themselves, times 0: a part in which nothing is said has a gradient too, of nothing.
        return Loss(each.sum() + 0 * scores.sum(), metrics)

    def metric(self) -> PreferenceMetrics:
        return PreferenceMetrics()

    @torch.no_grad()
    def examine(self, lesson: Comparisons, metric: PreferenceMetrics) -> None:
        ids = [item.id or "\n".join((item.prompt, *item.candidates)) for item in lesson.items]
        metric.update(ids, *self._scored(lesson))

    def _scored(self, lesson: Comparisons) -> tuple[Float[Tensor, "N K"], Int[Tensor, "N K"], Bool[Tensor, "N K"]]:
        """Raw scores of all candidates in one forward, filled up with 0, with their ranks and which are real."""
        assert self.network is not None
        ranks, mask = ranks_of(lesson, self.gain.device)
        lines = [self.lines.line(prompt, text) for prompt, text in self._candidates(lesson.items)]
        ids, real, _ = self.lines.tensors(lines, mask.device)
        scores = self.network(ids, real)
        return scores.new_zeros(mask.shape).index_put(mask.nonzero(as_tuple=True), scores), ranks, mask

    def _candidates(self, comparisons: Sequence[Comparison]) -> list[Asked]:
        return [(item.prompt if self.prompt else None, text) for item in comparisons for text in item.candidates]

    def get_extra_state(self) -> dict[str, Any]:
        """Reference texts and what has been seen of the store, so that a resumed run goes on exactly."""
        # No NaN: a checkpoint that is read back would differ from itself.
        measured = None if math.isnan(self.held_out_accuracy) else self.held_out_accuracy
        state = self.references.state() | {"held_out_accuracy": measured}
        return state if self.labels is None else state | {"labels": self.labels.state()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Go on where a run stopped."""
        if state:
            self.references.restore(state)
            measured = state["held_out_accuracy"]
            self.held_out_accuracy = math.nan if measured is None else measured
        if self.labels is not None and "labels" in state:
            self.labels.restore(state["labels"])
