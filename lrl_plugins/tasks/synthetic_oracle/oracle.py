"""The oracle of SeqGAN: an LSTM with random weights that writes sentences and knows how probable each one is."""

from collections.abc import Mapping
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lrl_core.drawing import draw

GATES = ("i", "f", "o", "c")
ENTRIES = 1 << 21
"""Logits that may be in memory at a time: rows are read in parts."""


class Oracle(nn.Module):
    """One LSTM layer with an output matrix (Yu et al. 2017, arXiv 1609.05473): c' = f c + i tanh(...).

    Vectors are rows: a gate is x W + h U + b. State and memory begin at 0, and the first input is the vector of token
    0, which yields the distribution of the first token. There is no end token. Logits of the next token are h W_out +
    b_out. It never learns.

    Args:
        weights: Arrays by name: embedding [V E]; W_g [E H], U_g [H H] and b_g [H] for the gates g = i (input), f
            (forget), o (output) and c (candidate); W_out [H V] and b_out [V].
    """

    embedding: Tensor
    inputs: Tensor
    recurrent: Tensor
    bias: Tensor
    output: Tensor
    output_bias: Tensor

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        joined = {
            "embedding": weights["embedding"],
            "inputs": torch.cat([weights[f"W_{gate}"] for gate in GATES], 1),
            "recurrent": torch.cat([weights[f"U_{gate}"] for gate in GATES], 1),
            "bias": torch.cat([weights[f"b_{gate}"] for gate in GATES]),
            "output": weights["W_out"],
            "output_bias": weights["b_out"],
        }
        for name, value in joined.items():
            self.register_buffer(name, value.float().contiguous())

    @classmethod
    def drawn(cls, vocabulary: int, embedding: int, hidden: int, seed: int) -> "Oracle":
        """An oracle whose every weight is drawn from N(0, 1), as the published one was.

        Args:
            vocabulary: How many tokens there are.
            embedding: Width of a token's vector.
            hidden: Width of the state.
            seed: Other seeds make other oracles.
        """
        generator = torch.Generator().manual_seed(seed)
        shapes = _shapes(vocabulary, embedding, hidden)
        return cls({name: torch.randn(shape, generator=generator) for name, shape in shapes.items()})

    @classmethod
    def load(cls, path: str) -> "Oracle":
        """Read the weights of a file with numpy arrays (.npz), named as in the class's description."""
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: torch.from_numpy(file[name]) for name in file.files}
        except (OSError, ValueError, BadZipFile, AttributeError, TypeError) as error:  # the last two: a single array
            raise ValueError(
                f"SyntheticOracle: got {path}, which cannot be read ({error}), expected a .npz file of arrays. Correct "
                f"`path`; relative ones start at {Path.cwd()}."
            ) from error
        _check(path, arrays)
        return cls(arrays)

    @property
    def vocabulary(self) -> int:
        """How many tokens there are."""
        return self.embedding.shape[0]

    @torch.no_grad()
    def sample(self, count: int, length: int, generator: torch.Generator) -> Int[Tensor, "B T"]:
        """Sentences drawn from the oracle.

        Args:
            count: How many.
            length: Tokens in each.
            generator: Source of chance, on the CPU.
        """
        chance = torch.rand(count, length, generator=generator).to(self.embedding.device)
        return torch.cat([self._write(part) for part in chance.split(self._rows_at_a_time())])

    @torch.no_grad()
    def nll(self, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        """Minus the log-probability of each token after those before it, in nats.

        Args:
            tokens: Sentences; tokens outside 0..V-1 are refused.
        """
        if tokens.numel() and not 0 <= int(tokens.min()) <= int(tokens.max()) < self.vocabulary:
            raise ValueError(
                f"Oracle: got tokens from {int(tokens.min())} to {int(tokens.max())}, expected 0 to "
                f"{self.vocabulary - 1}. Let the decoder draw only tokens of this task's sentences."
            )
        return torch.cat([self._read(part) for part in tokens.split(self._rows_at_a_time())])

    def _write(self, chance: Float[Tensor, "b T"]) -> Int[Tensor, "b T"]:
        state, token = self._start(len(chance))
        written = []
        for uniform in chance.T:
            state = self._step(token, *state)
            token, _ = draw(self._logits(state[0]), uniform)
            written.append(token)
        return torch.stack(written, 1)

    def _read(self, tokens: Int[Tensor, "b T"]) -> Float[Tensor, "b T"]:
        state, before = self._start(len(tokens))
        found = []
        for token in tokens.T:
            state = self._step(before, *state)
            logits = self._logits(state[0])
            found.append(logits.logsumexp(1) - logits.gather(1, token[:, None]).squeeze(1))
            before = token
        return torch.stack(found, 1) if found else tokens.new_zeros(tokens.shape, dtype=torch.float)

    def _start(self, rows: int) -> tuple[tuple[Tensor, Tensor], Tensor]:
        zeros = self.embedding.new_zeros(rows, self.recurrent.shape[0])
        return (zeros, zeros), torch.zeros(rows, dtype=torch.long, device=zeros.device)

    def _step(self, token: Tensor, hidden: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        gates = self.embedding[token] @ self.inputs + hidden @ self.recurrent + self.bias
        take, keep, show, candidate = gates.chunk(4, 1)
        memory = keep.sigmoid() * memory + take.sigmoid() * candidate.tanh()
        return show.sigmoid() * memory.tanh(), memory

    def _logits(self, hidden: Tensor) -> Tensor:
        return torch.addmm(self.output_bias, hidden, self.output)

    def _rows_at_a_time(self) -> int:
        return max(1, ENTRIES // self.vocabulary)


def _shapes(vocabulary: int, embedding: int, hidden: int) -> dict[str, tuple[int, ...]]:
    """The shapes of all arrays, in the order of the published file."""
    gates = {
        f"{kind}_{gate}": shape
        for gate in GATES
        for kind, shape in (("W", (embedding, hidden)), ("U", (hidden, hidden)), ("b", (hidden,)))
    }
    return {"embedding": (vocabulary, embedding), **gates, "W_out": (hidden, vocabulary), "b_out": (vocabulary,)}


def _check(path: str, arrays: Mapping[str, Tensor]) -> None:
    """Refuse a file that lacks arrays, or whose shapes do not fit together."""
    told = {name: tuple(array.shape) for name, array in arrays.items()}
    sizes = [*told.get("embedding", ()), *told.get("b_i", ())]
    expected = _shapes(*sizes) if len(sizes) == 3 else _shapes(0, 0, 0)
    wrong = {name: told.get(name, "nothing") for name, shape in expected.items() if told.get(name) != shape}
    if wrong:
        raise ValueError(
            f"SyntheticOracle: got {path} with {wrong}, expected arrays that fit an embedding [V, E] and a b_i [H]: "
            f"{', '.join(expected)}. Name a file with the weights of an LSTM in `path`."
        )
