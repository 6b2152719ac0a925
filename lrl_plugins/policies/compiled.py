"""The step of one token through `torch.compile`: on a GPU one CUDA graph instead of hundreds of launches.

Nothing changes its shape from step to step: keys and values stand in an `Arena`, the column that is written is a number
in memory, and attention looks at all columns through a mask. Where compiling fails, the same function runs as it is.
"""

import logging
import weakref
from collections.abc import Callable
from types import FunctionType
from typing import Any, Literal, cast, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import Cache, PreTrainedModel

from lrl_plugins.policies.static_cache import Arena, Shape, rows_of
from lrl_plugins.policies.steps import Apart, ModuleSteps, Step, is_whole, steps_of

KEPT = 4
"""Arenas kept for the next batch: one for each size of lines that is in use, more or less."""

_log = logging.getLogger(__name__)

Steps = Literal["eager", "compiled"]
"""How a token is read while episodes are drawn."""

Compiler = Callable[[Callable[..., Tensor], torch.device], Callable[..., Tensor]]
"""Makes a function fast on a device."""


def compiled_for(function: Callable[..., Tensor], device: torch.device) -> Callable[..., Tensor]:
    """The function with all its shapes fixed; as a CUDA graph where there are such."""
    mode = "reduce-overhead" if device.type == "cuda" else None
    return torch.compile(function, mode=mode, dynamic=False, fullgraph=True)


def as_it_is(function: Callable[..., Tensor], device: torch.device) -> Callable[..., Tensor]:
    """The function itself: to compare numbers before a device is known."""
    return function


def known(steps: str, who: str) -> Steps:
    """The option as it was given; ValueError where there is no such.

    Args:
        steps: What the recipe says.
        who: Name of the policy, for the error.
    """
    if steps not in get_args(Steps):
        raise ValueError(f"{who}: got steps {steps!r}; expected one of {get_args(Steps)}. Choose one.")
    return cast(Steps, steps)


class Compiled:
    """What the compiled steps of one decoder share over all batches: kernels, memory, and whether they work.

    Args:
        who: Name of the policy, for the warning.
        compiler: Makes the step fast.
    """

    def __init__(self, who: str, compiler: Compiler = compiled_for) -> None:
        self.who, self.compiler = who, compiler
        self.failed = self.warned = False
        self.arenas: list[Arena] = []
        self.functions: dict[tuple[object, ...], Callable[..., Tensor]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return Compiled, (self.who, self.compiler)  # a copy of the policy compiles for itself

    def steps(self, part: PreTrainedModel) -> "CompiledStep | None":
        """One batch's step through a decoder; None where compiling has failed. TypeError where it cannot work."""
        if self.failed or not is_whole(part):
            return None
        return CompiledStep(self, steps_of(part, Apart.of) or ModuleSteps(part))

    def lend(self, step: "CompiledStep", cache: Cache) -> Arena:
        """Memory in which a batch's cache can go on: used before, if some is free."""
        shape, layer = Shape.of(cache), rows_of(cache)[0]
        free = [arena for arena in self.arenas if arena.borrower() in (None, step)]
        fits = [a for a in free if a.shape.holds(shape) and (a.device, a.dtype) == (layer.device, layer.dtype)]
        arena = fits[0] if fits else Arena(shape, cache)
        gone = [a for a in free if a is arena or arena.shape.holds(a.shape)]
        for other in free:
            other.borrower = lambda: None
        arena.borrower = weakref.ref(step)
        self.arenas = [arena, *(a for a in self.arenas if a not in gone)][:KEPT]
        return arena

    def run(self, steps: Step, arena: Arena, shape: Shape) -> Float[Tensor, "r D"]:
        """The hidden states of the first rows of an arena; the memory they stand in is used again by the next step."""
        key = (arena.device, arena.dtype, shape)
        if key not in self.functions:
            self.functions[key] = self.compiler(_another(_one_step), arena.device)
        if arena.device.type == "cuda":
            torch.compiler.cudagraph_mark_step_begin()
        return self.functions[key](steps, *arena.desk(shape.rows))

    def give_up(self, reason: str) -> None:
        """Go on without compiled kernels, and say so."""
        self.failed, self.arenas, self.functions = True, [], {}
        self.warn(reason)

    def warn(self, reason: str) -> None:
        """Say once why steps are eager."""
        if not self.warned:
            _log.warning(
                "%s: got steps: compiled, but %s; expected a decoder, a precision and a machine for which one step can "
                "be compiled. Steps are eager, with the same numbers; set steps: eager to be spared this line.",
                self.who,
                reason,
            )
        self.warned = True


class CompiledStep:
    """The step of one batch of episodes, in memory that it borrows.

    Args:
        engine: Who lends memory and kernels.
        steps: What is compiled, with the weights as they are now.
    """

    def __init__(self, engine: Compiled, steps: Step) -> None:
        self.engine, self.steps = engine, steps
        self.arena: Arena | None = None

    def __call__(
        self,
        tokens: Int[Tensor, " b"],
        positions: Int[Tensor, " b"] | int,
        mask: Bool[Tensor, "b 1 1 L"] | None,
        cache: Cache,
        cross_mask: Bool[Tensor, "b 1 1 S"] | None = None,
    ) -> Float[Tensor, "b D"]:
        """The hidden states of one more token per row, in memory of their own."""
        if not self.engine.failed:
            try:
                return self._compiled(tokens, positions, mask, cache, cross_mask)
            except Exception as error:  # no compiler, an operation it does not know, no memory: all can go on eagerly
                self.engine.give_up(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
        return self.steps(tokens, positions, mask, cache, cross_mask)

    def _compiled(
        self, tokens: Tensor, positions: Tensor | int, mask: Tensor | None, cache: Cache, cross_mask: Tensor | None
    ) -> Tensor:
        # The arena outlives inference mode, and kernels are made for one mode: the same one whoever calls.
        with torch.inference_mode(False), torch.no_grad():
            if self.arena is None or not self.arena.holds(cache):
                self.arena = self.engine.lend(self, cache)
                self.arena.take_in(cache)
            shape = self.arena.write(tokens, positions, mask, cross_mask, cache)
            hidden = self.engine.run(self.steps, self.arena, shape)
            for layer in rows_of(cache):
                layer.columns += 1
            return hidden[: len(tokens)].clone()


def _one_step(
    steps: Step, tokens: Tensor, positions: Tensor, mask: Tensor, cache: Cache, cross_mask: Tensor | None
) -> Tensor:
    return steps(tokens, positions, mask, cache, cross_mask)


def _another(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The same function with code of its own: the compiler counts by code how often it compiles, and soon stops."""
    assert isinstance(function, FunctionType)
    code = function.__code__.replace()
    return FunctionType(code, function.__globals__, function.__name__, function.__defaults__, function.__closure__)
