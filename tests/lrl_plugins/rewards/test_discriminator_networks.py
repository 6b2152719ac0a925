import math

import pytest
import torch
from torch import nn

from lrl_core.interfaces import bind_all
from lrl_core.testing.toy import ToyTokenizer, toy_facts
from lrl_plugins.rewards.discriminator_networks import PUBLISHED_FILTERS, Highway, TextCNN, TextEncoder

ENCODER = {
    "model_type": "bert",
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "max_position_embeddings": 16,
}
ROBERTA = {**ENCODER, "model_type": "roberta"}
T5 = {"model_type": "t5", "d_model": 8, "d_kv": 4, "d_ff": 12, "num_layers": 1, "num_heads": 2, "num_decoder_layers": 1}
NETWORKS = {
    "cnn": lambda: TextCNN(filters={1: 4, 2: 6, 5: 3}, embedding=5, dropout=0.4),
    "mean": lambda: TextEncoder(ENCODER, pool="mean"),
    "first": lambda: TextEncoder(ENCODER, pool="first"),
    "roberta": lambda: TextEncoder(ROBERTA),
    "t5": lambda: TextEncoder(T5),
}
every_network = pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)


def bound(network, ids=7):
    torch.manual_seed(3)
    bind_all(network, toy_facts(ToyTokenizer(ids)))
    for name, parameter in network.named_parameters():  # the last layer begins at 0
        if name.startswith(("output", "head")):
            nn.init.normal_(parameter)
    return network.eval()


def read(network, *rows, width=None, fill=0):
    width = max(map(len, rows)) if width is None else width
    tokens = torch.tensor([[*row, *[fill] * (width - len(row))] for row in rows], dtype=torch.long)
    return network(tokens, torch.tensor([len(row) for row in rows]))


@every_network
def test_neither_padding_nor_other_lines_matter(make):
    network = bound(make())
    rows = [[3, 1, 6, 2, 2, 0, 5], [4], [7, 7, 1], []]
    together = read(network, *rows)
    assert together.unique().numel() == len(rows)
    assert torch.allclose(read(network, *rows, width=12, fill=6), together, atol=1e-6)
    for row, expected in zip(rows, together, strict=True):
        assert torch.allclose(read(network, row)[0], expected, atol=1e-6)


@every_network
def test_an_untaught_network_says_one_half(make):
    network = make()
    bind_all(network, toy_facts(ToyTokenizer(7)))
    assert read(network.train(), [3, 1], [2]).tolist() == [0.0, 0.0]


@every_network
def test_every_weight_that_learns_gets_a_gradient(make):
    network = bound(make()).train()
    (read(network, [3, 1, 6, 2, 2, 0, 5], [4], [7, 7, 1, 1, 2, 4]).sum() + network.penalty()).backward()
    left = [name for name, p in network.named_parameters() if p.requires_grad and p.grad is None]
    assert left == []


def test_the_highway_mixes_by_its_gate():
    """By hand: W = 2, b = 1, so relu(2x + 1); the gate's weights are 0, so that its bias alone opens it."""
    highway = Highway(1)
    assert highway.gate.bias.item() == 0
    nn.init.constant_(highway.transform.weight, 2)
    nn.init.ones_(highway.transform.bias)
    nn.init.zeros_(highway.gate.weight)
    x = torch.tensor([[3.0], [-2.0]])
    assert highway(x).flatten().tolist() == pytest.approx([0.5 * 7 + 0.5 * 3, 0.5 * 0 - 0.5 * 2])
    nn.init.constant_(highway.gate.bias, math.log(3))  # opens to 3/4
    assert highway(x).flatten().tolist() == pytest.approx([0.75 * 7 + 0.25 * 3, -0.25 * 2])


def test_the_features_are_those_of_convolutions_over_each_line():
    """Against conv1d line by line; a filter longer than the line stands once, over blank space."""
    network = bound(TextCNN(filters={1: 4, 3: 6, 5: 2}, embedding=5))
    rows = [[3, 1, 6, 2, 2, 0, 5], [4, 2, 2], [1]]
    tokens = torch.tensor([row + [6] * (7 - len(row)) for row in rows])
    found = network.features(tokens, torch.tensor([len(row) for row in rows]))
    for row, got in zip(rows, found, strict=True):
        expected = []
        for convolution in network.convolutions:
            size = convolution.kernel_size[0]
            line = network.embedding(torch.tensor(row)).t()
            line = nn.functional.pad(line, (0, max(0, size - len(row))))
            expected.append(convolution(line[None])[0].relu().amax(1))
        assert torch.allclose(got, torch.cat(expected), atol=1e-6)


def test_the_published_sizes_and_what_short_lines_leave_of_them():
    assert sum(PUBLISHED_FILTERS.values()) == 1720
    network = TextCNN()
    assert (network.filters, network.width, network.dropout.p, network.l2) == (PUBLISHED_FILTERS, 64, 0.25, 0.2)
    assert list(TextCNN(max_length=8).filters) == [1, 2, 3, 4, 5, 6, 7, 8]


def test_the_penalty_by_hand():
    network = bound(TextCNN(filters={1: 2}, embedding=3, l2=0.2))
    nn.init.constant_(network.output.weight, 3.0)  # four of them
    nn.init.constant_(network.output.bias, -1.0)  # two of them
    assert network.penalty().item() == pytest.approx(0.2 * (4 * 9 + 2 * 1) / 2)


@pytest.mark.parametrize(
    "options",
    [{"filters": {}}, {"filters": {3: 4}, "max_length": 2}, {"filters": {0: 4}}, {"dropout": 1.0}, {"l2": -1.0}],
)
def test_sizes_that_make_no_sense_are_refused(options):
    with pytest.raises(ValueError, match=r"TextCNN: got .*expected"):
        TextCNN(**options)


def test_an_encoder_says_what_is_missing_or_too_long():
    with pytest.raises(ValueError, match="model_type"):
        TextEncoder({"hidden_size": 8})
    with pytest.raises(ValueError, match="mean or first"):
        TextEncoder(pool="last")
    for config in (ENCODER, ROBERTA):
        network = bound(TextEncoder(config))
        read(network, [1] * 14)
        with pytest.raises(ValueError, match="15 tokens; expected at most 14"):
            read(network, [1] * 15)


@every_network
def test_reads_in_half_precision(make):
    network = bound(make())
    with torch.autocast("cpu", torch.bfloat16):
        half = read(network, [3, 1, 6], [4])
    assert torch.allclose(half.float(), read(network, [3, 1, 6], [4]), atol=0.2)
