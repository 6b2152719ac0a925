"""What is learnt when: maximum likelihood first, reinforcement after, or one of them throughout."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from lrl_core.interfaces import Objective, OptimizerFactory, Replay

SchedulerFactory = Callable[[Optimizer], LRScheduler]
"""Makes a learning-rate schedule, stepped once per training step."""


@dataclass
class WarmUp:
    """Maximum likelihood before reinforcement learning, inside one run.

    Args:
        epochs: How many epochs it takes; reinforcement learning starts with the next one.
        objective: What is minimised meanwhile, normally CrossEntropy.
        replay: What is learnt from meanwhile, normally Expert, which samples nothing.
        optimizer: Optimiser of this phase; None goes on with the main one.
        scheduler: Learning-rate schedule of this phase's optimiser; None keeps the rate.
    """

    epochs: int
    objective: Objective
    replay: Replay
    optimizer: OptimizerFactory | None = None
    scheduler: SchedulerFactory | None = None


@dataclass(frozen=True)
class Phase:
    """What an epoch learns, and from what."""

    objective: Objective
    """What is minimised."""
    replay: Replay
    """What is learnt from."""
    optimizer: int
    """Index among the policy's optimisers."""
    holds: bool = False
    """Whether the policy holds still, so that only what learns beside it learns."""

    @property
    def reinforces(self) -> bool:
        """Whether the policy learns from its own episodes."""
        return self.replay.samples and not self.holds

    @property
    def name(self) -> str:
        """What people call it."""
        if self.holds:
            return "learners first"
        if self.replay.samples:
            return "reinforcement learning"
        return "learning from preferences" if self.objective.compares_answers else "maximum likelihood"


def factories(
    optimizer: OptimizerFactory, scheduler: SchedulerFactory | None, warm_up: WarmUp | None
) -> list[tuple[OptimizerFactory, SchedulerFactory | None]]:
    """What makes the policy's optimisers and their schedules: the main one, then the warm-up's if it has its own."""
    made: list[tuple[OptimizerFactory, SchedulerFactory | None]] = [(optimizer, scheduler)]
    if warm_up is not None and warm_up.optimizer is not None:
        made.append((warm_up.optimizer, warm_up.scheduler))
    elif warm_up is not None and warm_up.scheduler is not None:
        raise ValueError("WarmUp: got a scheduler without an optimizer; expected both, or neither.")
    return made


def of_policy(
    policy: nn.Module, made_by: list[tuple[OptimizerFactory, SchedulerFactory | None]]
) -> tuple[list[Optimizer], list[LRScheduler], dict[int, int]]:
    """The policy's optimisers, their schedules, and which schedule (by index) is that of which optimiser."""
    if not trained(policy):
        raise ValueError(
            f"{type(policy).__name__}: every parameter is frozen; expected some that learn. Change `train`."
        )
    optimizers = [factory(trained(policy)) for factory, _ in made_by]
    schedulers: list[LRScheduler] = []
    schedulers_of: dict[int, int] = {}
    for i, (_, scheduler) in enumerate(made_by):
        if scheduler is not None:
            schedulers_of[i] = len(schedulers)
            schedulers.append(scheduler(optimizers[i]))
    return optimizers, schedulers, schedulers_of


def refuse_unsuited(objective: nn.Module, replay: nn.Module, missing: set[str]) -> None:
    """Raise ValueError if an objective cannot learn from a replay, or a replay lacks parts that it needs.

    Args:
        objective: What is minimised.
        replay: What is learnt from.
        missing: Which of decoder, reward and baseline the recipe does not name.
    """
    assert isinstance(objective, Objective)
    assert isinstance(replay, Replay)
    if objective.samples and not replay.samples:
        raise ValueError(
            f"{type(objective).__name__} learns from episodes, but the replay {type(replay).__name__} draws none. "
            "Expected a replay that samples, such as Fresh."
        )
    needed = {"decoder": True, "reward": objective.judges, "baseline": objective.compares}
    lacking = [name for name, needs in needed.items() if needs and name in missing]
    if replay.samples and lacking:
        raise ValueError(
            f"{type(objective).__name__} learns from episodes that the replay {type(replay).__name__} draws, but the "
            f"recipe names no {', '.join(lacking)}. Add them under model:, or use a replay that samples nothing, such "
            "as Expert."
        )


def trained(module: object) -> list[nn.Parameter]:
    """The parameters of a part that learn."""
    assert isinstance(module, nn.Module)
    return [parameter for parameter in module.parameters() if parameter.requires_grad]
