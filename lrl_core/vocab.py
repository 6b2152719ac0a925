"""Log-probability, entropy, log-normaliser and stop-probability over the vocabulary, chunk by chunk.

No [tokens, vocabulary] tensor outlives a chunk: the forward pass keeps one number per token and the backward pass
recomputes the chunk's logits. A chunk is as large as matrix products like it, and all chunks share one buffer: fresh
memory costs several times the arithmetic. On a CPU what is done to each logit is done in blocks that fit its cache.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from lrl_core.sampling import Bans, Sampling

CHUNK_ELEMENTS = 1 << 23
"""How many logits may be alive at once: 32 MiB in float32."""

CHUNK_ROWS = 128
"""How many rows of a large vocabulary make matrix products efficient on a CPU."""

BLOCK_ELEMENTS = 1 << 17
"""How many of them a CPU works on at once: 512 KiB in float32, so that they stay in its cache."""

NEVER = -1e4
"""Stands for a log-probability of -inf where 0 x -inf would be no number; its exp is 0 in any precision."""


class VocabularyScores(NamedTuple):
    """What one pass over the vocabulary gives for each of N tokens."""

    logprobs: Float[Tensor, " N"]
    """Log-probability of the token under the distribution that `Sampling` describes, truncation included."""
    entropy: Float[Tensor, " N"]
    """Entropy in nats after bans and temperature, before truncation."""
    log_stop: Float[Tensor, " N"]
    """Log-probability of EOS after bans and temperature; -inf where EOS is banned or the policy has none."""
    log_z: Float[Tensor, " N"]
    """Log-normaliser: logsumexp of the logits after bans and temperature."""


class Head(NamedTuple):
    """The output matrix of a policy: logits = hidden @ weight.T + bias."""

    weight: Float[Tensor, "V D"]
    bias: Float[Tensor, " V"] | None

    def logits(self, hidden: Float[Tensor, "N D"]) -> Float[Tensor, "N V"]:
        """Logits in the matrix' own precision, also under autocast: rollout and loss then agree to the last digits."""
        with torch.autocast(hidden.device.type, enabled=False):
            hidden = hidden.to(self.weight.dtype)
            if 4 < len(hidden) < 16 and hidden.device.type == "cpu" and not torch.is_grad_enabled():
                # For so few rows a processor's library reads the matrix several times, unless it stands on the left.
                logits = torch.mm(self.weight, hidden.t()).t().contiguous()
                return logits if self.bias is None else logits.add_(self.bias)
            return torch.nn.functional.linear(hidden, self.weight, self.bias)


def score_vocabulary(
    hidden: Float[Tensor, "N D"],
    head: Head,
    tokens: Int[Tensor, " N"],
    position: Int[Tensor, " N"],
    sampling: Sampling,
    eos: int | None,
    bans: Bans | None = None,
    entropy: bool = True,
) -> VocabularyScores:
    """Score N tokens against the vocabulary with gradients to `hidden` and `head`.

    Args:
        hidden: State before the token is chosen.
        head: Output matrix and bias.
        tokens: The token that was chosen. It counts as kept by the truncation: it was drawn.
        position: Its index in the episode.
        sampling: How the distribution was made.
        eos: End token for `log_stop`; None gives -inf.
        bans: What else may not be chosen at these tokens' places; None for nothing.
        entropy: Whether the entropy is wanted; False says NaN and saves a tenth of the time.
    """
    hidden = hidden.to(head.weight.dtype)
    bias = head.bias if head.bias is not None else hidden.new_zeros(0)
    return VocabularyScores(*_Score.apply(hidden, head.weight, bias, tokens, position, sampling, eos, bans, entropy))


def over_vocabulary(
    fn: Callable[[Float[Tensor, "n V"]], Float[Tensor, " n"]],
    hidden: Float[Tensor, "N D"],
    head: Head,
    position: Int[Tensor, " N"],
    sampling: Sampling,
    bans: Bans | None = None,
) -> Float[Tensor, " N"]:
    """Apply `fn` to the log-probabilities (bans and temperature, no truncation) of each chunk, with gradients.

    Args:
        fn: From log-probabilities [n V] to one number per token [n]; called again in the backward pass.
        hidden: State before the token is chosen.
        head: Output matrix and bias.
        position: Index of the token in the episode.
        sampling: How the distribution was made.
        bans: What else may not be chosen at these places; None for nothing.
    """

    def one_chunk(logits: Tensor, banned: Bans | None, at: Tensor) -> Tensor:
        return fn(sampling.scale(logits, at, banned).log_softmax(-1))

    return _by_chunk(one_chunk, hidden, head, bans, position)


def expected_value(
    hidden: Float[Tensor, "N D"],
    head: Head,
    values: Float[Tensor, "N H"],
    values_head: Head,
    position: Int[Tensor, " N"],
    sampling: Sampling,
    bans: Bans | None = None,
) -> Float[Tensor, " N"]:
    """Sum over actions of pi(a) Q(a) for each of N places, chunk by chunk, with gradients to the policy alone.

    Args:
        hidden: The policy's state before the token is chosen.
        head: Its output matrix.
        values: A critic's state at the same place.
        values_head: The critic's output matrix: one number for each token of the vocabulary.
        position: Index of the token in the episode.
        sampling: How the distribution was made: bans and temperature count, truncation does not.
        bans: What else may not be chosen at these places; None for nothing.
    """

    def one_chunk(logits: Tensor, banned: Bans | None, at: Tensor, worth: Tensor) -> Tensor:
        chances = sampling.scale(logits, at, banned).softmax(-1)
        return (chances * values_head.logits(worth).detach().to(chances.dtype)).sum(-1)

    return _by_chunk(one_chunk, hidden, head, bans, position, values)


def _by_chunk(
    fn: Callable[..., Tensor],
    hidden: Float[Tensor, "N D"],
    head: Head,
    bans: Bans | None,
    *lines: Shaped[Tensor, "N ..."],
) -> Float[Tensor, " N"]:
    """What `fn` makes of each chunk's logits, bans and lines; computed again in the backward pass."""

    def one_chunk(part: Tensor, weight: Tensor, bias: Tensor | None, banned: Bans | None, *own: Tensor) -> Tensor:
        return fn(Head(weight, bias).logits(part), banned, *own)

    results = [
        checkpoint(
            one_chunk,
            hidden[rows],
            head.weight,
            head.bias,
            _of_chunk(bans, rows),
            *(line[rows] for line in lines),
            use_reentrant=False,
        )
        for rows in _chunks(hidden, head.weight.shape[0])
    ]
    return torch.cat(results) if results else hidden.new_zeros(0)


def _chunks(hidden: Tensor, vocabulary: int) -> list[slice]:
    if hidden.device.type == "cpu":
        size = min(CHUNK_ELEMENTS // vocabulary, max(CHUNK_ROWS, BLOCK_ELEMENTS // vocabulary))
    else:  # memory is larger there, and it is the number of kernels that costs
        size = 8 * CHUNK_ELEMENTS // vocabulary
    return [slice(start, start + max(1, size)) for start in range(0, len(hidden), max(1, size))]


def _of_chunk(bans: Bans | None, rows: slice) -> Bans | None:
    return None if bans is None else bans.within(rows)


def _logits(hidden: Tensor, head: Head) -> Iterator[tuple[slice, Tensor]]:
    """The logits of each chunk of rows, in the one buffer: they are gone when the next chunk is asked for."""
    chunks = _chunks(hidden, head.weight.shape[0])
    buffer = hidden.new_empty(min(hidden.shape[0], chunks[0].stop) if chunks else 0, head.weight.shape[0])
    for rows in chunks:
        part = hidden[rows]
        logits = buffer[: len(part)]
        with torch.autocast(hidden.device.type, enabled=False):
            torch.mm(part, head.weight.t(), out=logits)
        yield rows, logits if head.bias is None else logits.add_(head.bias)


def _blocks(logits: Tensor) -> list[slice]:
    size = max(1, BLOCK_ELEMENTS // logits.shape[1]) if logits.device.type == "cpu" else len(logits)
    return [slice(start, start + size) for start in range(0, len(logits), size)]


class _Asked(NamedTuple):
    """What is asked of every row, and of some rows."""

    tokens: Tensor
    position: Tensor
    sampling: Sampling
    eos: int | None
    bans: Bans | None

    def within(self, rows: slice) -> "_Asked":
        parts = self.tokens[rows], self.position[rows]
        return _Asked(*parts, self.sampling, self.eos, _of_chunk(self.bans, rows))

    def scaled(self, logits: Tensor) -> Tensor:
        return self.sampling.scale_(logits, self.position, self.bans)

    def left_in(self, scaled: Tensor) -> Tensor:
        """The scaled logits that truncation leaves in; the token that was drawn is one of them."""
        kept = self.sampling.keep(scaled).scatter(1, self.tokens[:, None], True)
        return scaled.masked_fill(~kept, -torch.inf)

    def scores(self, logits: Tensor, wants_entropy: bool) -> VocabularyScores:
        """What is asked for, from logits that may be overwritten."""
        scaled = self.scaled(logits)
        chosen = scaled.gather(1, self.tokens[:, None]).squeeze(1)
        stop = scaled[:, self.eos].clone() if self.eos is not None else torch.full_like(chosen, -torch.inf)
        left = self.left_in(scaled).logsumexp(1) if self.sampling.truncates else None
        largest = scaled.amax(1)
        lower = scaled.sub_(largest[:, None])
        if wants_entropy:
            probability = lower.clamp_(min=NEVER).exp()
            total = probability.sum(1)
            entropy = total.log() - probability.mul_(lower).sum(1) / total
        else:
            total = lower.exp_().sum(1)
            entropy = torch.full_like(total, torch.nan)
        log_z = largest + total.log()
        return VocabularyScores(chosen - (log_z if left is None else left), entropy, stop - log_z, log_z)

    def slope(self, logits: Tensor, known: VocabularyScores, grads: VocabularyScores) -> Tensor:
        """Gradient of the scores with respect to logits that may be overwritten; `known` is what `scores` gave."""
        scaled = self.scaled(logits)
        grad_stop = torch.where(known.log_stop > -torch.inf, grads.log_stop, 0)
        to_all, to_kept = grads.log_z - grad_stop, grads.logprobs
        kept = self.left_in(scaled).softmax(1).mul_(to_kept[:, None]) if self.sampling.truncates else None
        if kept is None:
            to_all = to_all - to_kept
        lower = scaled.sub_(known.log_z[:, None])
        if bool(grads.entropy.any()):
            surprise = (lower.clamp(min=NEVER) + known.entropy[:, None]).mul_(-grads.entropy[:, None])
            slope = lower.exp_().mul_(surprise.add_(to_all[:, None]))
        else:
            slope = lower.exp_().mul_(to_all[:, None])
        if kept is not None:
            slope -= kept
        slope.scatter_add_(1, self.tokens[:, None], grads.logprobs[:, None])
        if self.eos is not None:
            slope[:, self.eos] += grad_stop
        return slope if self.sampling.temperature == 1 else slope.div_(self.sampling.temperature)


class _Score(torch.autograd.Function):
    """Forward in chunks; the backward pass recomputes each chunk's logits and writes their gradient in their place."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor,
        tokens: Tensor,
        position: Tensor,
        sampling: Sampling,
        eos: int | None,
        bans: Bans | None,
        entropy: bool,
    ) -> tuple[Tensor, ...]:
        asked = _Asked(tokens, position, sampling, eos, bans)
        wide = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        outputs = VocabularyScores(*(hidden.new_empty(len(hidden), dtype=wide) for _ in VocabularyScores._fields))
        for rows, logits in _logits(hidden, Head(weight, bias if bias.numel() else None)):
            here, of_chunk = _rows(outputs, rows), asked.within(rows)
            for block in _blocks(logits):
                for output, scores in zip(here, of_chunk.within(block).scores(logits[block], entropy), strict=True):
                    output[block] = scores
        ctx.save_for_backward(hidden, weight, bias, tokens, position, *outputs)
        ctx.asked = sampling, eos, bans
        return outputs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, tokens, position, *outputs = ctx.saved_tensors
        asked = _Asked(tokens, position, *ctx.asked)
        known, wanted = VocabularyScores(*outputs), VocabularyScores(*grads)
        grad_hidden = torch.empty_like(hidden)
        grad_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        grad_bias = torch.zeros_like(bias) if bias.numel() and ctx.needs_input_grad[2] else None
        for rows, logits in _logits(hidden, Head(weight, bias if bias.numel() else None)):
            of_chunk, here, asks = asked.within(rows), _rows(known, rows), _rows(wanted, rows)
            for block in _blocks(logits):
                slope = of_chunk.within(block).slope(logits[block], _rows(here, block), _rows(asks, block))
                if slope.data_ptr() != logits[block].data_ptr():
                    logits[block] = slope.to(logits.dtype)
            torch.mm(logits, weight, out=grad_hidden[rows])
            if grad_weight is not None:
                grad_weight.addmm_(logits.t(), hidden[rows])
            if grad_bias is not None:
                grad_bias += logits.sum(0)
        return grad_hidden, grad_weight, grad_bias, None, None, None, None, None, None


def _rows(scores: VocabularyScores, rows: slice) -> VocabularyScores:
    return VocabularyScores(*(part[rows] for part in scores))
