"""The interview: the policy asks, an oracle answers, and at the end a guesser names the hidden object."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lrl_core.interfaces import Environment
from lrl_core.types import Prompts, Reply
from lrl_plugins.tasks.goal_oriented_questions.guessing import uncertainty
from lrl_plugins.tasks.goal_oriented_questions.players import BayesGuesser, Guesser, Oracle, TruthfulOracle
from lrl_plugins.tasks.goal_oriented_questions.tokens import DialogueTokenizer
from lrl_plugins.tasks.goal_oriented_questions.worlds import ANSWERS, Game, Turn, World


@dataclass
class Dialogue:
    """What has been said in one game."""

    game: Game
    """The game."""
    turns: list[Turn] = field(default_factory=list)
    """Questions and answers."""
    stopped: bool = False
    """Whether the questioner said that it has no more questions."""
    done: bool = False
    """Whether the guess has been made."""
    bits: float | None = None
    """How uncertain the guesser is at present; None where nobody is paid for that."""


class Interview(Environment):
    """Answers each question with one word, and pays the probability that the guess at the end is right.

    A question ends with the question mark, or unasked after `longest_turn` words (it is then hardly understood). The
    game ends after `turns` answers, or when the policy says the end token; what it said of a question by then is lost
    (de Vries et al. 2017, Strub et al. 2017). Exact players are used where none are given.

    Args:
        world: Whose objects.
        games: The games by the group number of their prompts.
        tokenizer: The task's.
        turns: Questions per game, at most.
        longest_turn: Words per question, question mark included, at most.
        price_per_turn: Taken off for every question, on its last word.
        informativeness: Paid for every bit that an answer tells the guesser, on the question's last word.
        oracle: Who answers; None = TruthfulOracle().
        guesser: Who guesses; None = BayesGuesser().
    """

    def __init__(
        self,
        world: World,
        games: Mapping[int, Game],
        tokenizer: DialogueTokenizer,
        turns: int,
        longest_turn: int,
        price_per_turn: float = 0.0,
        informativeness: float = 0.0,
        oracle: Oracle | None = None,
        guesser: Guesser | None = None,
    ) -> None:
        super().__init__()
        self.world, self.games, self.tokenizer = world, games, tokenizer
        self.turns, self.longest_turn, self.turn_ends = turns, longest_turn, (tokenizer.turn_end,)
        self.price_per_turn, self.informativeness = price_per_turn, informativeness
        self.oracle = oracle if oracle is not None else TruthfulOracle()
        self.guesser = guesser if guesser is not None else BayesGuesser()
        for player in (self.oracle, self.guesser):
            player.meet(world, games, tokenizer)

    def start(self, prompts: Prompts) -> list[Any]:
        return [self.begin(self._game(group)) for group in prompts.group.tolist()]

    def begin(self, game: Game) -> Dialogue:
        """A game before its first question."""
        return Dialogue(game, bits=self._bits(game, ()))

    def reply(self, state: Dialogue, said: Sequence[int]) -> Reply:
        if said[-1] == self.tokenizer.eos:
            state.stopped = state.done = True
            return Reply(reward=self.success(state), done=True)
        question = self.tokenizer.decode(said)
        answer = self._answer(state.game, question)
        state.turns.append((question, answer))
        state.done = len(state.turns) == self.turns
        paid = self._learnt(state) - self.price_per_turn
        final = self.success(state) if state.done else 0.0
        return Reply((self.tokenizer.answers[answer],), paid + final, state.done)

    def success(self, state: Dialogue) -> float:
        """Probability that a guess made now would be right."""
        return self.success_after(state, len(state.turns))

    def success_after(self, state: Dialogue, turns: int) -> float:
        """The same after so many answers, or at the end if that is sooner."""
        return self.guesser.right(self.guesser.beliefs(state.game, state.turns[:turns]), state.game.hidden)

    def replay(self, game: Game, tokens: Sequence[int], chosen: Sequence[bool]) -> Dialogue:
        """The conversation of an episode that was played here.

        Args:
            game: What it was about.
            tokens: The episode.
            chosen: Which of its tokens the policy chose.
        """
        state, said = self.begin(game), list[int]()
        for token, own in zip(tokens, chosen, strict=True):
            if state.done or not own:
                continue
            said.append(token)
            if token in self.turn_ends or token == self.tokenizer.eos or len(said) == self.longest_turn:
                self.reply(state, said)
                said = []
        return state

    def _learnt(self, state: Dialogue) -> float:
        """What the last answer is worth to a guesser who is paid for by the bit."""
        before, state.bits = state.bits, self._bits(state.game, state.turns)
        return 0.0 if before is None or state.bits is None else self.informativeness * (before - state.bits)

    def _bits(self, game: Game, turns: Sequence[Turn]) -> float | None:
        """Learned guessers take their time, so they are asked only where it is paid for."""
        return uncertainty(self.guesser.beliefs(game, turns)) if self.informativeness else None

    def _answer(self, game: Game, question: str) -> str:
        answer = self.oracle.answer(game, question)
        if answer not in ANSWERS:
            raise ValueError(
                f"{type(self.oracle).__name__} in {type(self.world).__name__}: got the answer {answer!r} to "
                f"{question!r} in game {game.id!r}, expected one of {', '.join(ANSWERS)}. Mend its answer()."
            )
        return answer

    def _game(self, group: int) -> Game:
        if group not in self.games:
            raise ValueError(
                f"Interview: got a prompt of group {group}, expected one of the {len(self.games)} games of this task. "
                "Take prompts from the task that made this environment."
            )
        return self.games[group]
