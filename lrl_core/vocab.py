"""Log-probability, entropy, log-normaliser and stop-probability over the vocabulary, chunk by chunk.

No [tokens, vocabulary] tensor outlives a chunk: the forward pass keeps one number per token and the backward pass
recomputes the chunk's logits.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from lrl_core.sampling import Repeats, Sampling

CHUNK_ELEMENTS = 1 << 23
"""How many logits are alive at once: 32 MiB in float32."""


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
            return torch.nn.functional.linear(hidden.to(self.weight.dtype), self.weight, self.bias)


def score_vocabulary(
    hidden: Float[Tensor, "N D"],
    head: Head,
    tokens: Int[Tensor, " N"],
    position: Int[Tensor, " N"],
    sampling: Sampling,
    eos: int | None,
    repeats: Repeats | None = None,
) -> VocabularyScores:
    """Score N tokens against the vocabulary with gradients to `hidden` and `head`.

    Args:
        hidden: State before the token is chosen.
        head: Output matrix and bias.
        tokens: The token that was chosen. It counts as kept by the truncation: it was drawn.
        position: Its index in the episode.
        sampling: How the distribution was made.
        eos: End token for `log_stop`; None gives -inf.
        repeats: What `sampling.repeats` says of these tokens' places; None where it bans no n-gram.
    """
    hidden = hidden.to(head.weight.dtype)
    bias = head.bias if head.bias is not None else hidden.new_zeros(0)
    return VocabularyScores(*_Score.apply(hidden, head.weight, bias, tokens, position, sampling, eos, repeats))


def over_vocabulary(
    fn: Callable[[Float[Tensor, "n V"]], Float[Tensor, " n"]],
    hidden: Float[Tensor, "N D"],
    head: Head,
    position: Int[Tensor, " N"],
    sampling: Sampling,
    repeats: Repeats | None = None,
) -> Float[Tensor, " N"]:
    """Apply `fn` to the log-probabilities (bans and temperature, no truncation) of each chunk, with gradients.

    Args:
        fn: From log-probabilities [n V] to one number per token [n]; called again in the backward pass.
        hidden: State before the token is chosen.
        head: Output matrix and bias.
        position: Index of the token in the episode.
        sampling: How the distribution was made.
        repeats: What `sampling.repeats` says of these places; None where it bans no n-gram.
    """

    def one_chunk(part: Tensor, weight: Tensor, bias: Tensor | None, at: Tensor, banned: Repeats | None) -> Tensor:
        return fn(sampling.scale(Head(weight, bias).logits(part), at, banned).log_softmax(-1))

    chunks = _chunks(hidden.shape[0], head.weight.shape[0])
    results = [
        checkpoint(
            one_chunk,
            hidden[rows],
            head.weight,
            head.bias,
            position[rows],
            _of_chunk(repeats, rows),
            use_reentrant=False,
        )
        for rows in chunks
    ]
    return torch.cat(results) if results else hidden.new_zeros(0)


def _chunks(count: int, vocabulary: int) -> list[slice]:
    size = max(1, CHUNK_ELEMENTS // vocabulary)
    return [slice(start, start + size) for start in range(0, count, size)]


def _of_chunk(repeats: Repeats | None, rows: slice) -> Repeats | None:
    return None if repeats is None else repeats.within(rows)


def _kept(sampling: Sampling, scaled: Tensor, tokens: Tensor) -> Bool[Tensor, "n V"]:
    return sampling.keep(scaled).scatter(1, tokens[:, None], True)


class _Score(torch.autograd.Function):
    """Forward in chunks; the backward pass recomputes each chunk's logits and writes their gradient in place."""

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
        repeats: Repeats | None,
    ) -> tuple[Tensor, ...]:
        head = Head(weight, bias if bias.numel() else None)
        wide = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        outputs = [hidden.new_zeros(hidden.shape[0], dtype=wide) for _ in VocabularyScores._fields]
        logprobs, entropy, log_stop, log_z = outputs
        for rows in _chunks(hidden.shape[0], weight.shape[0]):
            scaled = sampling.scale(head.logits(hidden[rows]), position[rows], _of_chunk(repeats, rows))
            chosen = scaled.gather(1, tokens[rows, None]).squeeze(1)
            log_z[rows] = scaled.logsumexp(1)
            log_stop[rows] = scaled[:, eos] - log_z[rows] if eos is not None else -torch.inf
            if sampling.truncates:
                kept = _kept(sampling, scaled, tokens[rows])
                logprobs[rows] = chosen - scaled.masked_fill(~kept, -torch.inf).logsumexp(1)
            else:
                logprobs[rows] = chosen - log_z[rows]
            log_probability = scaled.sub_(log_z[rows, None])
            entropy[rows] = torch.special.entr(log_probability.exp_()).sum(1)
        ctx.save_for_backward(hidden, weight, bias, tokens, position, log_z, entropy)
        ctx.sampling, ctx.eos, ctx.repeats = sampling, eos, repeats
        ctx.set_materialize_grads(False)
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        grad_logprobs, grad_entropy, grad_stop, grad_z = grads
        hidden, weight, bias, tokens, position, log_z, entropy = ctx.saved_tensors
        sampling, eos, repeats = ctx.sampling, ctx.eos, ctx.repeats
        head = Head(weight, bias if bias.numel() else None)
        grad_hidden = torch.zeros_like(hidden)
        grad_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        grad_bias = torch.zeros_like(bias) if bias.numel() and ctx.needs_input_grad[2] else None
        for rows in _chunks(hidden.shape[0], weight.shape[0]):
            scaled = sampling.scale(head.logits(hidden[rows]), position[rows], _of_chunk(repeats, rows))
            probability = (scaled - log_z[rows, None]).exp()
            slope = torch.zeros_like(scaled)
            if grad_logprobs is not None:
                drawn_from = probability
                if sampling.truncates:
                    kept = _kept(sampling, scaled, tokens[rows])
                    drawn_from = scaled.masked_fill(~kept, -torch.inf).softmax(1)
                slope -= grad_logprobs[rows, None] * drawn_from
                slope.scatter_add_(1, tokens[rows, None], grad_logprobs[rows, None])
            if grad_entropy is not None:
                surprise = torch.special.entr(probability) - entropy[rows, None] * probability
                slope += grad_entropy[rows, None] * surprise
            if grad_stop is not None and eos is not None:
                finite = scaled[:, eos] > -torch.inf
                stop = torch.where(finite, grad_stop[rows], 0)
                slope -= stop[:, None] * probability
                slope[:, eos] += stop
            if grad_z is not None:
                slope += grad_z[rows, None] * probability
            slope = slope.div_(sampling.temperature).to(hidden.dtype)
            grad_hidden[rows] = slope @ weight
            if grad_weight is not None:
                grad_weight.addmm_(slope.t(), hidden[rows])
            if grad_bias is not None:
                grad_bias += slope.sum(0)
        return grad_hidden, grad_weight, grad_bias, None, None, None, None, None
