"""A discriminator: the probability that an episode was written by people, learnt beside the policy (SeqGAN)."""

from collections.abc import Iterable, Iterator
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Adam

from lrl_core.interfaces import Learner, OptimizerFactory, Reward, Sampler, TaskFacts
from lrl_core.types import Experience, Loss, RewardSignal, Rollout
from lrl_plugins.rewards.discriminator_lines import Contrast, Lines, balanced
from lrl_plugins.rewards.discriminator_networks import DiscriminatorNetwork, TextCNN, seam_id

Output = Literal["probability", "log_probability", "logit"]

SCORED_AT_ONCE = 2**14
"""Padded tokens that are read at once while scoring: thousands of Monte-Carlo continuations take no more memory."""


class Discriminator(Reward, Learner):
    """Pays the probability that an episode is real, and learns to tell from human answers (Yu et al. 2017, SeqGAN).

    It minimises the binary cross-entropy (eq. 5) of human answers, which are real, and episodes of the policy, which
    are not, in equal numbers. It reads the policy's own token ids, an environment's words included, and every episode
    can be judged, an empty one too. Scoring is without dropout, learning with it. Within a training step it does not
    change until the policy has been updated, so a rival's reward can be compared; between steps it does.

    The schedule is that of algorithm 1: `every` counts g-steps, `steps` d-steps, `epochs` k; the defaults are the
    published ones. A set of negatives is as large as the step's batch of episodes. Each episode is learnt from in one
    update of the policy only, however often a replay shows it. `model.learners_first` teaches it before the policy.

    Args:
        network: TextCNN or TextEncoder; None: TextCNN with the published sizes.
        output: What is paid: the probability in [0, 1], its natural logarithm, or the log-odds.
        prompt: Whether it reads the prompt's tokens before the episode: is this an answer to that? Features such as
            pictures are not read.
        every: Training steps of the policy per turn of learning, >= 1. While the policy holds still, each step is one.
        steps: Sets of generated episodes per turn, >= 1: the step's own, then freshly drawn ones.
        epochs: Passes over each set, >= 1.
        batch_size: Real and as many generated lines per update, >= 1.
        label_smoothing: A human answer's label is 1 minus this, a generated one's stays 0 (Salimans et al. 2016,
            section 3.4); in [0, 1).
        optimizer: Optimiser of the network; None: Adam with the published rate of 1e-4.
    """

    def __init__(
        self,
        network: DiscriminatorNetwork | None = None,
        output: Output = "probability",
        prompt: bool = False,
        every: int = 1,
        steps: int = 5,
        epochs: int = 3,
        batch_size: int = 64,
        label_smoothing: float = 0.0,
        optimizer: OptimizerFactory | None = None,
    ) -> None:
        super().__init__()
        for name, number in {"every": every, "steps": steps, "epochs": epochs, "batch_size": batch_size}.items():
            if number < 1:
                raise ValueError(f"Discriminator: {name} is {number}; expected at least 1. Correct the recipe.")
        if output not in get_args(Output) or not 0 <= label_smoothing < 1:
            raise ValueError(
                f"Discriminator: got output {output!r} and label_smoothing {label_smoothing}; expected one of "
                f"{', '.join(get_args(Output))}, and a number in [0, 1). Usual: probability, and 0 or 0.1."
            )
        self.network = TextCNN() if network is None else network
        self.output, self.prompt, self.every, self.steps = output, prompt, every, steps
        self.epochs, self.batch_size, self.label_smoothing = epochs, batch_size, label_smoothing
        self.optimizer: OptimizerFactory = _published_adam if optimizer is None else optimizer
        self._seam: int | None = None
        self._answered = False
        self._step, self._learnt = -1, set[int]()  # the training step, and the prompts learnt from in it

    def bind(self, facts: TaskFacts) -> None:
        """Note the vocabulary's size and whether there are human answers."""
        self._seam = seam_id(facts.tokenizer)
        self._answered = facts.example.targets is not None

    def check(self, sampler: Sampler) -> None:
        """Refuse a task without human answers: there would be nothing real to learn."""
        if not self._answered:
            raise ValueError(
                "Discriminator: got a task whose prompts carry no human answers; expected some, because it learns to "
                "tell them from the policy's episodes. Use a task with answers (targets), or another reward."
            )

    @torch.no_grad()
    def score(self, rollout: Rollout) -> RewardSignal:
        """Judge every episode; never NaN."""
        total = paid(self._judged(self._lines(rollout)), self.output)
        return RewardSignal(total, parts={"Discriminator": total})

    def lessons(self, experience: Experience, sampler: Sampler | None) -> Iterator[Contrast]:
        """Balanced minibatches: steps x epochs x minibatches of them, as many on every rank."""
        rollout, expert = experience.rollout, experience.expert
        if sampler is None or rollout is None or expert is None:
            return
        if not sampler.holding and sampler.step % self.every:
            return
        rollout, real = self._new(rollout, sampler.step), self._lines(expert)
        yield from balanced(real, self._lines(rollout), self.batch_size, self.epochs)
        for _ in range(self.steps - 1):
            with torch.no_grad():
                drawn = sampler.draw(rollout.prompts.distinct()[0]) if len(rollout) else rollout
            yield from balanced(real, self._lines(drawn), self.batch_size, self.epochs)

    def count(self, lesson: Contrast) -> Float[Tensor, ""]:
        return torch.tensor(float(len(lesson)), device=lesson.real.lengths.device)

    def learn(self, lesson: Contrast) -> Loss:
        """Binary cross-entropy summed over the lines, and the network's penalty once per line."""
        lines = Lines.cat([lesson.real, lesson.generated])
        is_real = torch.arange(len(lines), device=lines.lengths.device) < len(lesson.real)
        labels = torch.where(is_real, 1 - self.label_smoothing, 0.0)
        logits = self._read(lines, learning=True)
        errors = functional.binary_cross_entropy_with_logits(logits, labels, reduction="sum")
        return Loss(errors + len(lines) * self.network.penalty(), _report(logits.detach(), is_real, errors.detach()))

    def _new(self, rollout: Rollout, step: int) -> Rollout:
        """The rows of prompts that were not yet learnt from in this training step."""
        if step != self._step:
            self._step, self._learnt = step, set()
        groups = rollout.prompts.group.tolist()
        rows = [row for row, group in enumerate(groups) if group not in self._learnt]
        self._learnt |= set(groups)
        if len(rows) == len(groups):
            return rollout
        return rollout.select(torch.tensor(rows, dtype=torch.long, device=rollout.tokens.device))

    def _lines(self, rollout: Rollout) -> Lines:
        if self._seam is None:
            raise RuntimeError(
                "Discriminator: got episodes before it knows the vocabulary; expected bind_all(reward, facts) first. "
                "The trainer binds every component; in a script, call it yourself."
            )
        return Lines.of(rollout, self._seam if self.prompt else None)

    def _judged(self, lines: Lines) -> Float[Tensor, " N"]:
        """The log-odds of each line, read in parts."""
        logits = torch.zeros(len(lines), device=lines.lengths.device)
        for rows in lines.parts(SCORED_AT_ONCE) if len(lines) else []:
            logits[rows] = self._read(lines.select(rows).trimmed(), learning=False)
        return logits

    def _read(self, lines: Lines, learning: bool) -> Float[Tensor, " N"]:
        """The log-odds in float32, with dropout only while learning, whatever mode the training run is in."""
        before = self.network.training
        self.network.train(learning)
        logits = self.network(lines.tokens, lines.lengths).float()
        self.network.train(before)
        return logits


def paid(logits: Float[Tensor, " N"], output: Output) -> Float[Tensor, " N"]:
    """The reward of log-odds: the probability, its logarithm, or the log-odds themselves.

    Args:
        logits: Log-odds that a line is real.
        output: Which of them.
    """
    if output == "logit":
        return logits
    return logits.sigmoid() if output == "probability" else functional.logsigmoid(logits)


def _report(logits: Tensor, is_real: Tensor, errors: Tensor) -> dict[str, Tensor]:
    """How often each kind is told, the mean probability of being real, and the cross-entropy in nats (ln 2: chance)."""
    numbers = {"discriminator/cross_entropy": errors / len(logits)}
    for name, mask, right in (("real", is_real, logits > 0), ("generated", ~is_real, logits <= 0)):
        numbers[f"discriminator/accuracy_{name}"] = right[mask].float().mean()
        numbers[f"discriminator/probability_{name}"] = logits[mask].sigmoid().mean()
    return numbers


def _published_adam(parameters: Iterable[nn.Parameter]) -> Adam:
    return Adam(parameters, lr=1e-4)
