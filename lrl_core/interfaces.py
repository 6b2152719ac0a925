"""The verbs: one abstract class per kind of plugin, one verb each.

Every component is an `nn.Module`, so that device, checkpoint and discovery come free. Constructors take
hyper-parameters only; what a component must know of the task comes once, through `bind`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from jaxtyping import Float, Int
from lightning.pytorch import LightningDataModule
from torch import Tensor, nn
from torch.optim import Optimizer
from torchmetrics import Metric

from lrl_core.sampling import Sampling
from lrl_core.tokenizer import Tokenizer
from lrl_core.types import Advantage, Experience, Loss, PolicyOutput, Prompts, Reply, RewardSignal, Rollout

OptimizerFactory = Callable[[Iterable[nn.Parameter]], Optimizer]
"""Makes an optimiser of parameters that do not exist yet when the recipe is read."""


@dataclass(frozen=True)
class TaskFacts:
    """What components may know of the task before the first step."""

    tokenizer: Tokenizer
    """Text to ids and back."""
    references: tuple[tuple[str, ...], ...]
    """The human answers of every training prompt, for corpus statistics; () where there are none."""
    example: Prompts
    """A small batch (at least one row), for the shapes of its features."""
    environment: "Environment | None" = None
    """Who answers in this task; None for a monologue."""


class Component(nn.Module, ABC):
    """Anything a recipe names."""

    def bind(self, facts: TaskFacts) -> None:
        """Learn once, before the first step and before weights are loaded, what the task knows. Default: nothing."""

    def check(self, sampler: "Sampler") -> None:
        """Raise ValueError when the recipe is read if this part cannot work beside the others. Default: it can."""

    def begin_epoch(self, epoch: int) -> None:
        """Follow a schedule: `epoch` counts from 0 in the current phase (warm-up or reinforcement). Default: nothing.

        What depends on the epoch alone needs no state and resumes by itself.
        """

    def learned(self, experience: Experience) -> None:
        """Keep count after a training step, given all it drew; called on every rank. Default: nothing.

        Controllers and running statistics belong here, in buffers: `score` and `advantage` also serve rivals.
        """


class State(ABC):
    """What a policy remembers between two steps, one row per episode."""

    @abstractmethod
    def select(self, rows: Int[Tensor, " N"]) -> "State":
        """The state of these rows, in this order, repeats allowed. The state it is called on may not be used again."""


class Policy(Component):
    """Says how probable each token is. `forward` reads whole episodes; `begin` and `step` play them token by token.

    Both ways give the same numbers: for a rollout, `step` after `begin` gives the logits that `forward` scores with,
    and a row's numbers depend neither on the other rows nor on padding. Decoders call `begin` and `step` in inference
    mode: what a policy keeps on itself there cannot be used by `forward`.
    """

    branches: bool = False
    """Whether `forward` reads lines whose tokens follow other tokens than the one before (`Rollout.follows`)."""

    def __call__(self, rollout: Rollout) -> PolicyOutput:
        """Read whole episodes; ValueError where they branch and this policy cannot read that."""
        if rollout.follows is not None and not self.branches:
            raise ValueError(
                f"{type(self).__name__}: got episodes whose tokens follow other tokens than the one before "
                "(Rollout.follows); expected plain lines, because this policy reads no others. Use a policy with "
                "branches, such as CausalLM."
            )
        output: PolicyOutput = super().__call__(rollout)
        return output

    @abstractmethod
    def forward(self, rollout: Rollout) -> PolicyOutput:
        """Read whole episodes in one pass, with gradients."""

    @abstractmethod
    def begin(self, prompts: Prompts) -> tuple[Float[Tensor, "B V"], State]:
        """Read the prompts; logits of the first episode token and the state that remembers the prompts."""

    @abstractmethod
    def step(self, tokens: Int[Tensor, " B"], state: State) -> tuple[Float[Tensor, "B V"], State]:
        """Read one more token of each row; logits of the next one. The old state may not be used again."""

    def adapter_off(self) -> AbstractContextManager[None] | None:
        """Reads as the frozen weights under an adapter while inside; None where the policy trains no adapter."""
        return None


class Environment(Component):
    """Somebody who answers: an oracle, a source sentence that is still being spoken."""

    turn_ends: tuple[int, ...] = ()
    """Token ids with which the policy hands over; it also does with its end token."""
    longest_turn: int | None = None
    """The policy hands over after this many tokens at the latest; None: only when it says so."""
    closes: tuple[int, ...] = ()
    """Token ids that can be closed: while `closed` says so, the policy cannot choose them. The loss knows of it."""
    reads: tuple[int, ...] = ()
    """Token ids that show the policy one more piece of its prompt; () where it sees all of it from the start.

    `Prompts.features["visible"]` [B, R + 1] then says how many prompt tokens can be seen after 0..R of them."""
    shown: int = 0
    """Pieces that the policy has been shown before its first token."""

    @abstractmethod
    def start(self, prompts: Prompts) -> list[Any]:
        """One private state per row."""

    @abstractmethod
    def reply(self, state: Any, said: Sequence[int]) -> Reply:
        """Answer one row; `said` is what the policy chose since its last turn, the hand-over token included."""

    def closed(self, state: Any) -> bool:
        """Whether a row may not choose the tokens of `closes` now; asked at the start and after every reply."""
        return False

    def speech(self, tokens: Sequence[int], chosen: Sequence[bool]) -> Sequence[int]:
        """The tokens of an episode that make its text, for rewards and metrics. Default: all, both sides' words.

        Args:
            tokens: The episode.
            chosen: Which of them the policy chose.
        """
        return tokens


class Decoder(Component):
    """Draws episodes from a policy."""

    draws: bool = False
    """Whether episodes are independent draws whose log-probabilities are those drawn from, as policy gradients need."""
    samples: int = 1
    """Episodes per prompt."""
    sampling: Sampling | None = None
    """How it makes its distribution, known after `bind`; None: only its rollouts say."""

    @abstractmethod
    def decode(self, policy: Policy, prompts: Prompts, environment: Environment | None = None) -> Rollout:
        """Play `samples` episodes per prompt row; the episodes of one prompt stand together."""

    def complete(self, policy: Policy, prompts: Prompts, openings: Sequence[Sequence[int]]) -> Rollout:
        """Play one episode per prompt row that begins with the tokens given for it, which are no actions.

        Args:
            policy: Whose episodes.
            prompts: One row per episode.
            openings: What each episode begins with; one that ends with the end token is a whole episode.
        """
        raise NotImplementedError(
            f"{type(self).__name__} cannot go on from given tokens; expected a decoder that plays token by token. Use "
            "Sample."
        )

    def greedy(self) -> "Decoder":
        """The same limits, the most probable token each time, one episode per prompt: the self-critical rival."""
        raise NotImplementedError(
            f"{type(self).__name__} has no greedy version. Name the rival in the recipe: "
            "baseline.init_args.decoder: Greedy."
        )


class Reward(Component):
    """Says what a good episode is."""

    comparable: bool = True
    """Whether rewards of separate calls can be compared; False where they are normalised by the batch or the past."""
    concurrent: bool = False
    """Whether it may be scored in another thread while the reference policy reads the episodes: it draws no random
    numbers, adds nothing up over ranks, reads no reference_logprobs and shares no module with the policy."""
    rowwise: bool = True
    """Whether each episode is judged by itself; False where a score depends on the other episodes of the batch."""

    @abstractmethod
    def score(self, rollout: Rollout) -> RewardSignal:
        """Judge every episode; NaN where it cannot. `rollout.texts` is there, and the prompts' references if any."""


class Sampler(ABC):
    """The parts of a recipe beside each other; baselines may ask it for more episodes and their rewards."""

    decoder: Decoder
    reward: Reward | None
    policy: Policy
    baseline: "Baseline | None"
    objective: "Objective"
    reference: nn.Module | None
    """Fills `Rollout.reference_logprobs`; None where the recipe names no reference policy."""
    step: int = 0
    """Training steps before the current one."""
    on_policy: bool = True
    """Whether the policy that learns plays what it learns from itself; False where the reference policy does."""
    holding: bool = False
    """Whether the policy holds still at present, while what learns beside it catches up."""

    @property
    @abstractmethod
    def delayed(self) -> Policy | None:
        """The reference policy's own copy of the weights, which may follow the policy slowly; None without one."""

    @abstractmethod
    def roll_out(self, prompts: Prompts, decoder: Decoder | None = None) -> tuple[Rollout, RewardSignal]:
        """Play and score episodes, without gradients; None means the training decoder."""

    @abstractmethod
    def draw(self, prompts: Prompts, decoder: Decoder | None = None) -> Rollout:
        """Play episodes, with texts but not scored, without gradients; None means the training decoder."""

    @abstractmethod
    def complete(
        self, prompts: Prompts, openings: Sequence[Sequence[int]], policy: Policy | None = None
    ) -> tuple[Rollout, RewardSignal]:
        """Play on from given tokens with the training decoder, and score; without gradients.

        Args:
            prompts: One row per episode.
            openings: What each episode begins with; these tokens are no actions of it.
            policy: Who goes on; None: the policy that learns.
        """


class Baseline(Component):
    """Says compared with what."""

    @abstractmethod
    def advantage(self, rollout: Rollout, reward: RewardSignal, sampler: Sampler) -> Advantage:
        """How much better than expected each token was. May draw and score more through `sampler`."""


class Objective(Component):
    """Turns experience into a loss."""

    samples: bool = True
    """Whether the loss needs episodes; False for pure maximum likelihood."""
    judges: bool = True
    """Whether the loss of episodes needs their rewards."""
    compares: bool = True
    """Whether the loss of episodes needs their advantages, which a baseline gives."""
    compares_answers: bool = False
    """Whether the loss needs the reference policy's log-probabilities of the human answers (`expert`)."""

    @abstractmethod
    def count(self, experience: Experience) -> Float[Tensor, "*K"]:
        """How many things `loss` sums over: known from the masks alone, before any policy is read."""

    @abstractmethod
    def loss(self, policy: Callable[[Rollout], PolicyOutput], experience: Experience) -> Loss:
        """The sum over those things. `policy` may be called on any rollout, several times."""


class Collect(Protocol):
    """Draws and scores fresh episodes."""

    @property
    def prompts(self) -> Prompts:
        """The step's prompts, one row per human answer."""
        ...

    def __call__(self, groups: Collection[int] | None = None) -> Experience:
        """Episodes of the step's prompts with these group numbers; None means all of them."""


class Replay(Component):
    """Asks for experience when it wants some."""

    samples: bool = True
    """Whether it asks for episodes; False where only human answers are learnt."""

    @abstractmethod
    def batches(self, collect: Collect, expert: Callable[[], Experience]) -> Iterator[Experience]:
        """Yield what to learn from in this training step.

        Args:
            collect: Draws and scores fresh episodes (and brings the human answers along), for the prompts with the
                given group numbers or for all.
            expert: The human answers alone; draws nothing.
        """


class Lesson(Protocol):
    """What a learner learns from in one update: an Experience, or rows of its own."""

    def split(self, token_budget: int | None) -> Sequence[Any]:
        """Parts of at most so many tokens each, at least one; None: one part."""


class Learner(ABC):
    """Mixed into a reward or a baseline that learns beside the policy: own loss, own optimiser."""

    optimizer: OptimizerFactory
    """Makes the optimiser of this module's parameters."""
    updates: int = 1
    """Updates per experience."""

    def lessons(self, experience: Experience, sampler: "Sampler | None") -> Iterator[Any]:
        """What to learn from after the policy's update, one update each; as many on every rank.

        Default: the experience itself, `updates` times, where episodes were drawn. Another learner may draw more, or
        read what people have judged meanwhile.

        Args:
            experience: What the policy has just learnt from.
            sampler: The parts of the recipe; None where the learner is trained alone, on human answers.
        """
        for _ in range(self.updates if experience.rollout is not None else 0):
            yield experience

    @abstractmethod
    def count(self, lesson: Any) -> Float[Tensor, "*K"]:
        """As `Objective.count`, of a lesson."""

    @abstractmethod
    def learn(self, lesson: Any) -> Loss:
        """The learner's loss as a sum over `count` things."""


class LearnsAlone(Learner):
    """A learner that can be trained by itself on a task's batches, without a policy."""

    @abstractmethod
    def metric(self) -> Metric:
        """An empty metric of held-out lessons; its `compute` gives a dict of names and scalar tensors."""

    @abstractmethod
    def examine(self, lesson: Any, metric: Any) -> None:
        """Add a held-out lesson to the metric, without gradients and without dropout."""


class Task(LightningDataModule, ABC):
    """Data whose batches are `Prompts`, with the metrics that say how good answers are."""

    @abstractmethod
    def facts(self) -> TaskFacts:
        """What components may know before the first step. Called once, when the recipe is read."""

    @abstractmethod
    def metrics(self, stage: str) -> Metric:
        """The metric of a stage ("validate" or "test").

        `update(ids: list[str], candidates: list[str], references: list[tuple[str, ...]])`; `compute()` gives a
        dict of names and scalar tensors. A `lrl_core.reports.EpisodeMetric` is given whole answers instead.
        """


class ChecksRecipe(ABC):
    """Mixed into a callback that can refuse a recipe when it is read; components have `check` for that."""

    @abstractmethod
    def check_recipe(self, sampler: Sampler) -> None:
        """Raise ValueError if this callback cannot serve a training run of these parts."""


def components(root: nn.Module) -> list[Component]:
    """Every component in a module, itself included, wherever it is nested."""
    return [module for module in root.modules() if isinstance(module, Component)]


def bind_all(root: nn.Module, facts: TaskFacts) -> None:
    """Let every component in a module, itself included, learn what the task knows; parts before what they are in."""
    for component in _parts_first(root, set()):
        component.bind(facts)


def _parts_first(root: nn.Module, seen: set[nn.Module]) -> Iterator[Component]:
    seen.add(root)
    for child in root.children():
        if child not in seen:
            yield from _parts_first(child, seen)
    if isinstance(root, Component):
        yield root
