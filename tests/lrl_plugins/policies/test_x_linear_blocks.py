import pytest
import torch

from lrl_plugins.policies.x_linear_blocks import (
    EncoderLayer,
    Projection,
    XLinearBlock,
    XLinearEncoder,
    masked_mean,
    masked_softmax,
)

WIDTH, HEADS = 8, 2
LENGTHS = torch.tensor([3, 1])
MASK = torch.arange(3) < LENGTHS[:, None]


def made(kind, *arguments):
    torch.manual_seed(0)
    return kind(WIDTH, HEADS, *arguments).eval()


def inputs():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, WIDTH, generator=generator), torch.randn(2, 3, WIDTH, generator=generator)


def sigma(projection, vector):
    """Linear layer, CELU with alpha 1.3, and each head's four channels normalised, one vector at a time."""
    act = projection.linear.weight @ vector + projection.linear.bias
    act = torch.where(act > 0, act, 1.3 * ((act / 1.3).exp() - 1))
    heads = [(head - head.mean()) / (head.var(unbiased=False) + 1e-5).sqrt() for head in act.chunk(HEADS)]
    return torch.cat(heads) * projection.norm.weight + projection.norm.bias


def by_the_equations(block, query, regions):
    """Eq. 5 to 9 of Pan 2020 for one query, head by head and region by region."""
    result = []
    for head in range(HEADS):
        own = slice(head * 4, head * 4 + 4)
        pairs = []
        for region in regions:
            bilinear = (sigma(block.key, region) * sigma(block.key_query, query))[own]
            pairs.append((block.pairs[0].weight @ bilinear + block.pairs[0].bias).clamp(min=0))
        scores = torch.stack([(block.spatial.weight @ pair)[0] for pair in pairs])
        space = scores.exp() / scores.exp().sum()
        mean = torch.stack(pairs).mean(0)
        channels = 1 / (1 + (-(block.channel.weight @ mean + block.channel.bias)).exp())
        values = [(sigma(block.value, region) * sigma(block.value_query, query))[own] for region in regions]
        result.append(channels * sum(weight * value for weight, value in zip(space, values, strict=True)))
    return torch.cat(result)


def test_a_block_computes_the_equations_over_the_real_regions():
    block = made(XLinearBlock, 0.0)
    query, regions = inputs()
    got = block(query, block.look(regions, MASK))
    for row, length in enumerate(LENGTHS.tolist()):
        expected = by_the_equations(block, query[row], regions[row, :length])
        torch.testing.assert_close(got[row], expected, atol=1e-5, rtol=1e-5)


def test_shapes_of_the_parameters():
    block = made(XLinearBlock, 0.0)
    shapes = {name: list(weight.shape) for name, weight in block.named_parameters() if weight.dim() == 2}
    assert shapes.pop("pairs.0.weight") == [2, 4]  # channels of a head, halved in between
    assert shapes.pop("spatial.weight") == [1, 2]
    assert shapes.pop("channel.weight") == [4, 2]
    assert list(shapes.values()) == [[8, 8]] * 4
    assert len(list(XLinearEncoder(8, 2, 3, 0.0).layers)) == 3


def test_the_gradient_flows_through_both_gates():
    block = made(XLinearBlock, 0.0)
    query, regions = inputs()
    block(query, block.look(regions, None)).square().sum().backward()
    assert block.spatial.weight.grad.abs().max() > 1e-6
    assert block.channel.weight.grad.abs().max() > 1e-6


def test_every_position_is_normalised_by_itself():
    projection = made(Projection)
    _, regions = inputs()
    together = projection(regions)
    torch.testing.assert_close(together[1, 2], projection(regions[1, 2][None])[0])


def test_a_layer_adds_what_the_block_saw_to_every_region():
    layer = made(EncoderLayer, 0.0)
    query, regions = inputs()
    seen, updated = layer(query, regions, MASK)
    linear, norm = layer.update[0], layer.norm
    told = torch.nn.functional.celu(linear(torch.cat([seen[1], regions[1, 0]])), 1.3)
    torch.testing.assert_close(updated[1, 0], norm(told + regions[1, 0]))


@pytest.mark.parametrize("kind", ["turned", "filled", "cut"])
def test_the_encoder_sees_a_set_of_real_regions(kind):
    encoder = made(XLinearEncoder, 2, 0.0)
    regions = inputs()[1]
    updated, summary = encoder(regions, MASK)
    change = {
        "turned": lambda: (encoder(regions[:1].flip(1), MASK[:1]), 0),
        "filled": lambda: (encoder(regions.masked_fill(~MASK[:, :, None], 7.0), MASK), slice(None)),
        "cut": lambda: (encoder(regions[1:, :1], None), 1),
    }
    (regions_now, summary_now), rows = change[kind]()
    torch.testing.assert_close(summary_now.squeeze(0), summary[rows], atol=1e-5, rtol=1e-5)
    if kind == "turned":
        torch.testing.assert_close(regions_now[0].flip(0), updated[0], atol=1e-5, rtol=1e-5)


def test_masked_softmax_and_mean_by_hand():
    values = torch.tensor([[0.0, 0.0, 5.0], [1.0, 2.0, 3.0]])
    mask = torch.tensor([[True, True, False], [False, False, False]])
    torch.testing.assert_close(masked_softmax(values, mask), torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 0.0]]))
    torch.testing.assert_close(masked_mean(values + 1, mask), torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(masked_mean(values, None), torch.tensor([5 / 3, 2.0]))
