"""Conversations between a policy and an environment: who may speak, what is answered, which errors are named."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from lrl_core.interfaces import Environment
from lrl_core.types import Prompts, Reply


class Conversations:
    """One conversation per episode with the same environment.

    Args:
        environment: Who answers.
        prompts: One row per episode.
    """

    shut: Bool[Tensor, " B"] | None
    """True where the tokens of `closes` may not be chosen at present; None where nothing is ever closed."""

    def __init__(self, environment: Environment, prompts: Prompts) -> None:
        self.environment = environment
        self.states: list[Any] = environment.start(prompts)
        self.turn_ends = frozenset(environment.turn_ends)
        self.shut = torch.tensor([environment.closed(state) for state in self.states]) if environment.closes else None

    def hands_over(self, said: Sequence[int], ended: bool) -> bool:
        """Whether the policy's turn is over.

        Args:
            said: What it chose since its last turn; at least one token.
            ended: Whether the last of them ends the episode.
        """
        return ended or said[-1] in self.turn_ends or len(said) == self.environment.longest_turn

    def answer(
        self, episode: int, said: Sequence[int], line: Sequence[int] | Int[Tensor, " t"], vocabulary: int
    ) -> Reply:
        """What the environment says to a turn; afterwards other tokens may be closed.

        Args:
            episode: Whose turn.
            said: What the policy chose in it.
            line: The episode so far, for the error if the environment fails.
            vocabulary: How many token ids there are.
        """
        try:
            reply = self.environment.reply(self.states[episode], said)
        except Exception as error:
            raise RuntimeError(self._complaint(episode, line, f"raised {type(error).__name__}: {error}")) from error
        strange = [token for token in reply.tokens if not 0 <= token < vocabulary]
        if strange:
            expected = f"said token ids {strange}; expected ids from 0 to {vocabulary - 1}. Mend its reply()"
            raise ValueError(self._complaint(episode, line, expected))
        if self.shut is not None:
            self.shut[episode] = self.environment.closed(self.states[episode])
        return reply

    def _complaint(self, episode: int, line: Sequence[int] | Tensor, what: str) -> str:
        name, transcript = type(self.environment).__name__, [int(token) for token in line]
        return f"Environment {name}, episode {episode}: {what}. Token ids so far: {transcript}."
