"""An agent that decides when a translator reads on and when it writes (Gu et al. 2017)."""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lrl_core.interfaces import Policy, State, TaskFacts
from lrl_core.sampling import Sampling
from lrl_core.types import PolicyOutput, Prompts, Rollout
from lrl_core.vocab import Head, score_vocabulary
from lrl_plugins.policies.cells import differentiable
from lrl_plugins.policies.loading import end_token
from lrl_plugins.policies.seq2seq_lm import Seq2SeqLM
from lrl_plugins.policies.stack_state import refuse_backspace

ROWS = 512
"""States whose most probable word is looked for at a time."""

FAINT = -80.0
"""Logits this far below the largest add nothing to a sum; a processor takes several times as long to find out."""


@dataclass(frozen=True)
class AgentState(State):
    """Where the translator and the agent stand."""

    inner: State
    """The translator's."""
    memory: Float[Tensor, "B H"]
    """What the agent remembers."""

    def select(self, rows: Int[Tensor, " N"]) -> "AgentState":
        return AgentState(self.inner.select(rows), self.memory[rows])


class Look(NamedTuple):
    """What the agent sees of N distributions over words."""

    word: Int[Tensor, " N"]
    """The most probable word."""
    first: Float[Tensor, " N"]
    """Its probability."""
    second: Float[Tensor, " N"]
    """That of the next one."""
    log_z: Float[Tensor, " N"]
    """The log-normaliser of the words' logits / word_temperature."""


class ReadWriteAgent(Policy):
    """READ with probability p, else WRITE a word of the translator (Gu et al. 2017, arXiv:1610.00388).

    p is the agent's: a recurrent network over the translator's state, which holds what it attends to, and the word that
    it would write next (there: eq. 3 and 4). P(READ) = p and P(word) = (1 - p) softmax(logits / word_temperature), one
    distribution over the vocabulary: decoders and losses treat it as any other. With READ closed only words are left.

    A checkpoint of the bare translator can be started from: the agent then begins anew.

    Args:
        translator: An encoder-decoder policy that reads its prompt piece by piece (`source: causal` or `reread`).
        hidden: Width of the agent's recurrent state.
        word_temperature: Of the words; near 0 the most probable one is written, and the agent alone is explored.
        initial_read: p before anything is learnt, in (0, 1).
        train_translator: Whether the translator learns too; its words then need a word_temperature near 1.
    """

    def __init__(
        self,
        translator: Seq2SeqLM,
        hidden: int = 128,
        word_temperature: float = 0.1,
        initial_read: float = 0.5,
        train_translator: bool = False,
    ) -> None:
        super().__init__()
        if not 0 < initial_read < 1 or word_temperature <= 0:
            raise ValueError(
                f"ReadWriteAgent: got initial_read {initial_read} and word_temperature {word_temperature}; expected a "
                "probability between 0 and 1, and a temperature above 0. Correct them."
            )
        self.translator, self.width, self.word_temperature = translator, hidden, word_temperature
        self.initial_read, self.train_translator = initial_read, train_translator

    def bind(self, facts: TaskFacts) -> None:
        refuse_backspace(facts.tokenizer, "ReadWriteAgent", "its memory of a word cannot be undone")
        if len(self.translator.reads) != 1:
            raise ValueError(
                "ReadWriteAgent: this task has no token that shows one more piece of the prompt; expected one. Use a "
                "task that is translated while it is spoken (SimultaneousTranslation), or the translator alone."
            )
        (self.read,) = self.translator.reads
        self.eos = end_token(facts.tokenizer)
        if self.eos is None:
            raise ValueError("ReadWriteAgent: the tokenizer has no end token; expected one. Give it an EOS.")
        words = replace(Sampling(temperature=self.word_temperature), banned=(*facts.tokenizer.never_drawn, self.read))
        self.words = words
        seen = self.translator.reader.width
        self.observe = nn.Linear(2 * seen + 2, self.width)
        self.remember = nn.GRU(self.width, self.width, batch_first=True)
        self.decide = nn.Linear(self.width, 1)
        nn.init.zeros_(self.decide.weight)
        nn.init.constant_(self.decide.bias, float(torch.tensor(self.initial_read).logit()))
        if not self.train_translator:
            self.translator.requires_grad_(False)
        self.register_load_state_dict_pre_hook(_from_translator)
        self.train(self.training)

    def train(self, mode: bool = True) -> "ReadWriteAgent":
        """A translator that does not learn is read without dropout in every mode."""
        super().train(mode)
        self.translator.train(mode and self.train_translator)
        return self

    def forward(self, rollout: Rollout) -> PolicyOutput:
        hidden, head = self.translator.hidden(rollout), self.translator.reader.head
        rows = hidden.flatten(0, 1)
        with torch.no_grad():
            looks = [self._look(head.logits(part)) for part in rows.detach().split(ROWS)]
        look = Look(*(torch.cat(parts) for parts in zip(*looks, strict=True)))
        observed = self._observed(rows, look).view(*hidden.shape[:2], -1)
        with differentiable(self):
            memory, _ = self.remember(observed)
        log_z = look.log_z if not rows.requires_grad else self._log_z(rows, head)
        read = self._read_logit(memory.flatten(0, 1), log_z)[:, None]
        cool = 1 / self.word_temperature
        joined = torch.cat([rows * cool, torch.full_like(read, cool), read], 1)
        return PolicyOutput(rollout, joined.view(*hidden.shape[:2], -1), self._agent_head(head), self.eos)

    def begin(self, prompts: Prompts) -> tuple[Float[Tensor, "B V"], State]:
        hidden, inner = self.translator.first(prompts)
        return self._spoken(hidden, AgentState(inner, hidden.new_zeros(len(hidden), self.width)))

    def step(self, tokens: Int[Tensor, " B"], state: State) -> tuple[Float[Tensor, "B V"], State]:
        assert isinstance(state, AgentState)
        hidden, inner = self.translator.next(tokens, state.inner)
        return self._spoken(hidden, AgentState(inner, state.memory))

    def _spoken(self, hidden: Float[Tensor, "B D"], state: AgentState) -> tuple[Float[Tensor, "B V"], AgentState]:
        logits = self.translator.reader.head.logits(hidden)
        look = self._look(logits)
        with differentiable(self):
            memory, last = self.remember(self._observed(hidden, look)[:, None], state.memory[None].contiguous())
        logits = logits / self.word_temperature
        logits[:, self.read] = self._read_logit(memory[:, 0], look.log_z).to(logits.dtype)
        return logits, AgentState(state.inner, last[0])

    def _look(self, logits: Float[Tensor, "N V"]) -> Look:
        """What can be seen of the translator's distribution over words."""
        first = torch.zeros(len(logits), dtype=torch.long, device=logits.device)
        words = replace(self.words, temperature=1.0).scale(logits, first)
        best, word = words.max(1)
        below = (words - best[:, None]).clamp(min=FAINT * self.word_temperature)
        cool = best / self.word_temperature + below.div(self.word_temperature).exp_().sum(1).log()
        log_z = words.logsumexp(1)
        second = words.scatter_(1, word[:, None], -torch.inf).amax(1)
        return Look(word, (best - log_z).exp(), (second - log_z).exp(), cool)

    def _observed(self, hidden: Float[Tensor, "N D"], look: Look) -> Float[Tensor, "N H"]:
        """What the agent sees before each token: the translator's state, the word it would write, how sure it is."""
        likely = look.word, torch.stack([look.first, look.second], 1).to(hidden.dtype)
        seen = torch.cat([hidden, self.translator.reader.head.weight[likely[0]], likely[1]], 1).detach()
        return torch.tanh(self.observe(seen.to(self.observe.weight.dtype)))

    def _log_z(self, rows: Float[Tensor, "N D"], head: Head) -> Float[Tensor, " N"]:
        """The words' log-normaliser, with gradients to the translator."""
        assert self.eos is not None
        first = torch.zeros(len(rows), dtype=torch.long, device=rows.device)
        return score_vocabulary(rows, head, first + self.eos, first, self.words, None, entropy=False).log_z

    def _read_logit(self, memory: Float[Tensor, "N H"], log_z: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
        """The logit of READ that gives it its probability p beside the words: log-odds of p above their normaliser."""
        return self.decide(memory).squeeze(1) + log_z

    def _agent_head(self, head: Head) -> Head:
        """The translator's matrix, its bias as a column, and a column that is READ's alone."""
        weight, bias = head
        bias = weight.new_zeros(len(weight)) if bias is None else bias
        own = torch.arange(len(weight), device=weight.device) == self.read
        word = torch.cat([weight, bias[:, None]], 1).masked_fill(own[:, None], 0)
        return Head(torch.cat([word, own[:, None].to(weight.dtype)], 1), None)


def _from_translator(agent: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Let a bare translator's weights be loaded: what is the agent's own keeps what it starts with."""
    own = agent.state_dict()
    if any(prefix + name in state for name in own if name.startswith("decide.")):
        return
    for name, now in own.items():
        inner = prefix + name.removeprefix("translator.")
        state[prefix + name] = state.pop(inner) if name.startswith("translator.") and inner in state else now
