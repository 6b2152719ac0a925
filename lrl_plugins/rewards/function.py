"""A Python function of yours as a reward."""

import importlib
import inspect
from collections.abc import Callable
from typing import Any

import torch

from lrl_core.interfaces import Reward, TaskFacts
from lrl_core.registry import PluginError, suggest
from lrl_core.tokenizer import Tokenizer
from lrl_core.types import RewardSignal, Rollout
from lrl_plugins.rewards.prompt_texts import prompt_texts
from lrl_plugins.rewards.texts import texts_of
from lrl_plugins.rewards.values import as_rewards

OFFERED = ("texts", "references", "examples", "prompts")
"""What a function may ask for by the names of its parameters."""


class Function(Reward):
    """Calls a function, by its import path, with the texts of a batch; it returns one number per text.

    The parameter `texts`, or else its first one, takes the texts (a list of str). It is also given what further
    parameters ask for by name: `references` (a tuple of str per text, () without any), `examples` (the data's row per
    text) and `prompts` (the prompt's text). It returns a list or tensor of numbers; None or NaN where it cannot judge.

    Args:
        path: Where the function is: `package.module:function`.
        arguments: Further arguments by name, the same at every call.
        rowwise: Whether each text is judged by itself; false where a score depends on the other texts of the batch.
    """

    def __init__(self, path: str, arguments: dict[str, Any] | None = None, rowwise: bool = True) -> None:
        super().__init__()
        self.path, self.arguments, self.rowwise = path, dict(arguments or {}), rowwise
        self._function = find(path)
        self._asked = asked_for(path, self._function, self.arguments)
        self._tokenizer: Tokenizer | None = None

    def bind(self, facts: TaskFacts) -> None:
        """Keep the tokenizer, to read prompts with."""
        self._tokenizer = facts.tokenizer

    @torch.no_grad()
    def score(self, rollout: Rollout) -> RewardSignal:
        """Judge every episode; NaN where the function says None or NaN."""
        texts = list(texts_of(self, rollout))
        who = f"Function ({self.path})"
        offered = {name: self._offer(name, rollout) for name in self._asked}
        try:
            first = () if "texts" in offered else (texts,)
            given = self._function(*first, **offered, **self.arguments)
        except Exception as error:
            raise PluginError(
                f"{who} failed on {len(texts)} texts: {type(error).__name__}: {error}; expected one number per text. "
                "Repair it, or return None for a text that it cannot judge; the cause stands above."
            ) from error
        total = as_rewards(who, given, len(rollout)).to(rollout.tokens.device)
        return RewardSignal(total, parts={self.path.partition(":")[2]: total})

    def _offer(self, name: str, rollout: Rollout) -> list[Any]:
        if name == "texts":
            return list(texts_of(self, rollout))
        if name == "references":
            return [row or () for row in rollout.prompts.references or ((),) * len(rollout)]
        if name == "examples":
            return list(rollout.prompts.examples or ({},) * len(rollout))
        if self._tokenizer is None:
            raise PluginError(
                f"Function ({self.path}) asks for prompts before bind(facts); expected the task's tokenizer, to read "
                "them with. The trainer binds every component; in a script, call bind yourself."
            )
        return prompt_texts(rollout, self._tokenizer)


def find(path: str) -> Callable[..., Any]:
    """Import the function of a path `package.module:function`."""
    module_name, _, name = path.partition(":")
    if not module_name or not name:
        raise ValueError(
            f"Function: path is {path!r}; expected package.module:function, with a colon before the function's name. "
            "Correct the recipe."
        )
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise ImportError(
            f"Function: got path {path!r}, but importing {module_name} fails ({type(error).__name__}: {error}); "
            "expected a module that Python can import. Install its package or add its folder to PYTHONPATH."
        ) from error
    found = getattr(module, name, None)
    if not callable(found):
        guess = suggest(name, [key for key, value in vars(module).items() if callable(value)])
        raise ImportError(
            f"Function: got path {path!r}, but {module_name} has no function {name!r}; expected one. {guess}"
            "Correct the recipe."
        )
    return found


def asked_for(path: str, function: Callable[..., Any], arguments: dict[str, Any]) -> tuple[str, ...]:
    """Which of OFFERED the function is given by name; refuses a function that wants more.

    Args:
        path: Where the function is, for the message.
        function: The function.
        arguments: What it is given by the recipe.
    """
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # some built-in functions have no signature
        return ()
    others = parameters if any(p.name == "texts" for p in parameters) else parameters[1:]
    named = [p.name for p in others if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    needed = [p.name for p in others if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    lacking = [name for name in needed if name not in OFFERED and name not in arguments]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    strange = [] if takes_any else [name for name in arguments if name not in named]
    if not parameters or lacking or strange:
        got = f"parameters ({', '.join(p.name for p in parameters)}) and arguments ({', '.join(arguments)})"
        raise ValueError(
            f"Function: {path} has {got}; expected the texts first, then any of {', '.join(OFFERED[1:])} and a "
            "parameter for every entry of `arguments`. Give the parameter a default, or set it in `arguments`."
        )
    return tuple(name for name in named if name in OFFERED and name not in arguments)
