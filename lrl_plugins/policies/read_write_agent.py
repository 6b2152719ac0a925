"""An agent that decides when a translator reads on and when it writes (Gu et al. 2017)."""

from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lrl_core.interfaces import Policy, State, TaskFacts
from lrl_core.sampling import Sampling
from lrl_core.types import PolicyOutput, Prompts, Rollout
from lrl_core.vocab import Head, score_vocabulary
from lrl_plugins.policies.loading import end_token
from lrl_plugins.policies.seq2seq_lm import Seq2SeqLM

ROWS = 512
"""States whose most probable word is looked for at a time."""


@dataclass(frozen=True)
class AgentState(State):
    """Where the translator and the agent stand."""

    inner: State
    """The translator's."""
    memory: Float[Tensor, "B H"]
    """What the agent remembers."""
    head: Head
    """The agent's output matrix, which does not change within an episode."""

    def select(self, rows: Int[Tensor, " N"]) -> "AgentState":
        return replace(self, inner=self.inner.select(rows), memory=self.memory[rows])


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
        hidden = self.translator.hidden(rollout)
        scale = self._agent_head()
        with self._differentiable():
            memory, _ = self.remember(self._observed(hidden))
        return PolicyOutput(rollout, self._joined(hidden, memory), scale, self.eos)

    def begin(self, prompts: Prompts) -> tuple[Float[Tensor, "B V"], State]:
        hidden, inner = self.translator.first(prompts)
        memory = hidden.new_zeros(len(hidden), self.width)
        return self._spoken(hidden, AgentState(inner, memory, self._agent_head()))

    def step(self, tokens: Int[Tensor, " B"], state: State) -> tuple[Float[Tensor, "B V"], State]:
        assert isinstance(state, AgentState)
        hidden, inner = self.translator.next(tokens, state.inner)
        return self._spoken(hidden, replace(state, inner=inner))

    def _spoken(self, hidden: Float[Tensor, "B D"], state: AgentState) -> tuple[Float[Tensor, "B V"], AgentState]:
        observed = self._observed(hidden[:, None])
        with self._differentiable():
            memory, last = self.remember(observed, state.memory[None].contiguous())
        return state.head.logits(self._joined(hidden[:, None], memory)[:, 0]), replace(state, memory=last[0])

    def _observed(self, hidden: Float[Tensor, "B T D"]) -> Float[Tensor, "B T H"]:
        """What the agent sees before each token: the translator's state, the word it would write, how sure it is."""
        rows = hidden.detach().flatten(0, 1)
        with torch.no_grad():
            head = self.translator.reader.head
            words, first, second = self._candidates(rows, head)
            seen = torch.cat([rows, head.weight[words], first[:, None].exp(), (first - second)[:, None]], 1)
        return torch.tanh(self.observe(seen.to(self.observe.weight.dtype))).view(*hidden.shape[:2], -1)

    def _candidates(self, rows: Float[Tensor, "N D"], head: Head) -> tuple[Tensor, Tensor, Tensor]:
        """The most probable word, its log-probability, and that of the second one."""
        found = []
        plain = replace(self.words, temperature=1.0)
        for part in rows.split(ROWS):
            logprobs = plain.scale_(head.logits(part), torch.zeros_like(part[:, 0], dtype=torch.long)).log_softmax(1)
            best = logprobs.topk(2, dim=1)
            found.append((best.indices[:, 0], best.values[:, 0], best.values[:, 1]))
        words, first, second = (torch.cat(parts) for parts in zip(*found, strict=True))
        return words, first, second

    def _joined(self, hidden: Float[Tensor, "B T D"], memory: Float[Tensor, "B T H"]) -> Float[Tensor, "B T E"]:
        """States that the agent's output matrix makes logits of: words / temperature, and READ so that it has p."""
        rows = hidden.flatten(0, 1)
        assert self.eos is not None
        first = torch.zeros(len(rows), dtype=torch.long, device=rows.device)
        head = self.translator.reader.head
        scores = score_vocabulary(rows, head, first + self.eos, first, self.words, None, entropy=False)
        read = self.decide(memory).flatten(0, 1) + scores.log_z[:, None]  # log-odds of p above the words' normaliser
        cool = 1 / self.word_temperature
        joined = torch.cat([rows * cool, torch.full_like(read, cool), read], 1)
        return joined.view(*hidden.shape[:2], -1)

    def _agent_head(self) -> Head:
        """The translator's matrix, its bias as a column, and a column that is READ's alone."""
        weight, bias = self.translator.reader.head
        bias = weight.new_zeros(len(weight)) if bias is None else bias
        own = torch.arange(len(weight), device=weight.device) == self.read
        word = torch.cat([weight, bias[:, None]], 1).masked_fill(own[:, None], 0)
        return Head(torch.cat([word, own[:, None].to(weight.dtype)], 1), None)

    def _differentiable(self) -> AbstractContextManager[None]:
        """cuDNN refuses the backward pass of cells in eval mode, in which drawn episodes are read."""
        return torch.backends.cudnn.flags(enabled=self.training or not torch.is_grad_enabled())


def _from_translator(agent: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Let a bare translator's weights be loaded: what is the agent's own keeps what it starts with."""
    own = agent.state_dict()
    if any(prefix + name in state for name in own if name.startswith("decide.")):
        return
    for name, now in own.items():
        inner = prefix + name.removeprefix("translator.")
        state[prefix + name] = state.pop(inner) if name.startswith("translator.") and inner in state else now
