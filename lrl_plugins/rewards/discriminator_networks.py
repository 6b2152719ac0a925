"""Networks that tell real lines from generated ones: a convolutional one, and encoders of the transformers library."""

from abc import abstractmethod
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from lrl_core.interfaces import Component, TaskFacts
from lrl_core.masks import length_mask
from lrl_core.tokenizer import Tokenizer

PUBLISHED_FILTERS = {1: 100, 2: 200, 3: 200, 4: 200, 5: 200, 6: 100, 7: 100, 8: 100, 9: 100, 10: 100, 15: 160, 20: 160}
"""Filter size -> number of maps, for sentences of 20 tokens (Yu et al. 2017; Zhang and LeCun 2015)."""
SMALL_ENCODER = {
    "model_type": "bert",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 256,
}
"""An encoder that a CPU trains."""


def seam_id(tokenizer: Tokenizer) -> int:
    """The id between a prompt and its answer: none of the tokenizer's, so that nobody can write it."""
    return len(tokenizer)


class DiscriminatorNetwork(Component):
    """Reads lines of ids, those of the tokenizer and `seam_id`. Its parameters are made in `bind`."""

    @abstractmethod
    def forward(self, tokens: Int[Tensor, "N L"], lengths: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
        """Log-odds that each line is real. What stands after the end of a line must not matter; L may be 0."""

    def penalty(self) -> Float[Tensor, ""]:
        """What the mean loss is charged for the size of weights. Default: nothing."""
        return next(self.parameters()).new_zeros(())


class Highway(nn.Module):
    """g relu(W x + b) + (1 - g) x with the gate g = sigmoid(U x + c) (Srivastava et al. 2015); c is 0 at first.

    Args:
        width: Of what comes in and goes out.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.transform, self.gate = nn.Linear(width, width), nn.Linear(width, width)
        nn.init.zeros_(self.transform.bias)
        nn.init.zeros_(self.gate.bias)

    def forward(self, x: Float[Tensor, "N F"]) -> Float[Tensor, "N F"]:
        """The gated mixture."""
        return torch.lerp(x, self.transform(x).relu(), self.gate(x).sigmoid())


class TextCNN(DiscriminatorNetwork):
    """SeqGAN's convolutional network: filters of many sizes, their maximum over time, one highway layer (Yu 2017).

    A filter stands everywhere within the line, and once, over blank space, where the line is shorter than it. Two
    outputs compete in a softmax, as published; they begin at 0, so that an untaught network says 1/2.

    Args:
        filters: Size in tokens -> number of maps; None: the published 1,720 maps of sizes 1 to 10, 15 and 20.
        max_length: Longest line in tokens: larger filters are left out. None keeps all filters.
        embedding: Width of the token embeddings.
        dropout: Share of the highway layer's outputs that is dropped while learning, in [0, 1).
        l2: Charge for half the squared norm of the output layer, added to the mean loss; >= 0.
    """

    def __init__(
        self,
        filters: dict[int, int] | None = None,
        max_length: int | None = None,
        embedding: int = 64,
        dropout: float = 0.25,
        l2: float = 0.2,
    ) -> None:
        super().__init__()
        given = PUBLISHED_FILTERS if filters is None else filters
        self.filters = {size: maps for size, maps in given.items() if max_length is None or size <= max_length}
        if not self.filters or min(*given.keys(), *given.values()) < 1:
            raise ValueError(
                f"TextCNN: got filters {given} for lines of at most {max_length} tokens; expected sizes and numbers of "
                "maps >= 1, and at least one filter that is no longer than a line. Correct filters or max_length."
            )
        if embedding < 1 or not 0 <= dropout < 1 or l2 < 0:
            raise ValueError(
                f"TextCNN: got embedding {embedding}, dropout {dropout} and l2 {l2}; expected embedding >= 1, dropout "
                "in [0, 1) and l2 >= 0. The published values are 64, 0.25 and 0.2."
            )
        self.width, self.l2 = embedding, l2
        self.dropout = nn.Dropout(dropout)

    def bind(self, facts: TaskFacts) -> None:
        """Make the parameters for this vocabulary."""
        self.embedding = nn.Embedding(seam_id(facts.tokenizer) + 1, self.width)
        nn.init.uniform_(self.embedding.weight, -1, 1)
        self.convolutions = nn.ModuleList(nn.Conv1d(self.width, maps, size) for size, maps in self.filters.items())
        maps = sum(self.filters.values())
        self.highway = Highway(maps)
        self.output = nn.Linear(maps, 2)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, tokens: Int[Tensor, "N L"], lengths: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
        """Log-odds that each line is real; an empty line is blank space."""
        fake, real = self.output(self.dropout(self.highway(self.features(tokens, lengths)))).unbind(1)
        return real - fake

    def penalty(self) -> Float[Tensor, ""]:
        """l2 (|W|^2 + |b|^2) / 2 of the output layer."""
        return self.l2 * (self.output.weight.square().sum() + self.output.bias.square().sum()) / 2

    def features(self, tokens: Int[Tensor, "N L"], lengths: Int[Tensor, " N"]) -> Float[Tensor, "N F"]:
        """Each map's maximum over time, negative ones cut to 0."""
        length = tokens.shape[1]
        columns = max(length, *self.filters)
        real = length_mask(lengths, columns)
        ids = functional.pad(tokens, (0, columns - length)).masked_fill(~real, 0)
        # [N D 1 L] with D next to each other in memory, as a picture one pixel high: a third faster than conv1d.
        line = (self.embedding(ids) * real[:, :, None]).transpose(1, 2).unsqueeze(2)
        uneven = len(lengths) > 0 and int(lengths.min()) < length
        found = []
        for convolution, size in zip(self.convolutions, self.filters, strict=True):
            assert isinstance(convolution, nn.Conv1d)
            part = line[..., : max(length, size)].contiguous(memory_format=torch.channels_last)
            maps = functional.conv2d(part, convolution.weight.unsqueeze(2), convolution.bias).squeeze(2)
            if uneven:
                within = length_mask((lengths - size + 1).clamp(min=1), maps.shape[2])
                maps = maps.masked_fill(~within[:, None], -torch.inf)
            found.append(maps.amax(2))
        return torch.cat(found, 1).relu()


class TextEncoder(DiscriminatorNetwork):
    """A transformers encoder (BERT and its kin) with fresh weights, and a linear head on what it says of the line.

    The vocabulary is the task's, with a begin token before every line. The head begins at 0, so that an untaught
    network says 1/2. Dropout is as the config has it, and on while learning only.

    Args:
        config: Entries of the transformers config, model_type among them; None: a BERT of two layers of width 64.
        pool: What the head reads: the `mean` over the line, or the `first` place, that of the begin token.
    """

    def __init__(self, config: dict[str, Any] | None = None, pool: Literal["mean", "first"] = "mean") -> None:
        super().__init__()
        self.entries = SMALL_ENCODER if config is None else config
        if "model_type" not in self.entries or pool not in ("mean", "first"):
            raise ValueError(
                f"TextEncoder: got config {self.entries} and pool {pool!r}; expected a config with a model_type, and "
                "mean or first. Write for example config: {model_type: bert, hidden_size: 128}."
            )
        self.pool = pool

    def bind(self, facts: TaskFacts) -> None:
        """Draw the weights for this vocabulary: padding 0, the begin token 1, then the tokenizer's ids and the seam."""
        from transformers import AutoConfig, AutoModel  # here, because it takes seconds and TextCNN needs none of it

        entries = dict(self.entries)
        entries |= {"vocab_size": seam_id(facts.tokenizer) + 3, "pad_token_id": 0}
        config = AutoConfig.for_model(entries.pop("model_type"), **entries)
        model = AutoModel.from_config(config, dtype=torch.float32)
        self.encoder = model.get_encoder() if config.is_encoder_decoder else model
        self.limit: int | None = getattr(config, "max_position_embeddings", None)
        for name, parameter in self.encoder.named_parameters():
            if name.startswith("pooler."):  # nobody reads it: it would get no gradient
                parameter.requires_grad_(False)
        self.head = nn.Linear(config.hidden_size, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.train(self.training)

    def forward(self, tokens: Int[Tensor, "N L"], lengths: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
        """Log-odds that each line is real; an empty line is the begin token alone."""
        self._check_length(tokens.shape[1])
        ids = functional.pad(tokens + 2, (1, 0), value=1)
        real = length_mask(lengths + 1, ids.shape[1])
        read = self.encoder(input_ids=ids.masked_fill(~real, 0), attention_mask=real.long()).last_hidden_state
        return self.head(read[:, 0] if self.pool == "first" else _mean_over_line(read, real)).squeeze(1)

    def _check_length(self, length: int) -> None:
        # Some models begin to count positions after the padding id: one place fewer.
        if self.limit is not None and length + 2 > self.limit:
            raise ValueError(
                f"TextEncoder: got a line of {length} tokens; expected at most {self.limit - 2}, because the config's "
                f"max_position_embeddings is {self.limit}. Raise it, or let the decoder draw shorter episodes."
            )


def _mean_over_line(read: Float[Tensor, "N L H"], real: Bool[Tensor, "N L"]) -> Float[Tensor, "N H"]:
    return (read * real[:, :, None]).sum(1) / real.sum(1, keepdim=True)
